#!/bin/sh
# Provide what the tests in a browser need from Debian: a Chromium, and fonts so that no sign is drawn as a box.
# Where that is not possible, those tests are skipped, and everything else goes on.
set -eu

missing=
{ command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null ||
  missing="chromium fonts-dejavu-core"
[ -n "$(fc-list :lang=ja 2>/dev/null)" ] || missing="$missing fonts-vlgothic"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "set-up: installing" $missing "for the tests in a browser (once, about a minute)" >&2
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing; } >/dev/null ||
    echo "set-up: that failed; the tests that need it are skipped" >&2
else
  echo "set-up: tests that need them are skipped; install them: sudo apt-get install --no-install-recommends" $missing >&2
fi
