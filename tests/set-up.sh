#!/bin/sh
# Make the environment: set-up.sh PYTHON VENV. Every version and hash comes from requirements.lock.
set -eu
python=$1 venv=$2

fail() { echo "set-up: $1" >&2; exit 1; }

command -v "$python" >/dev/null || fail "there is no $python; install Python 3.11 or newer"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$("$python" --version) is too old; name a newer one: make PYTHON=python3.12"

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
  if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "set-up: installing $package"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "$package"; } >/dev/null ||
      fail "apt-get install $package failed; install it, then try again"
  else
    fail "Python's venv is missing; install it: sudo apt-get install $package"
  fi
fi

echo "set-up: making $venv with $("$python" --version) (once, about half a minute)"
rm -rf "$venv"
"$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
  -e . -e lib/runbooks_sandbox
