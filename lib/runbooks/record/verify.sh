#!/usr/bin/env bash
# Check one exported record: bash verify.sh KEY.pem [ANCHOR.txt]
# Needs bash, jq and openssl (3.0 or newer), and nothing of the project that made the record.
set -uo pipefail
export LC_ALL=C
[[ $# -ge 1 && -r $1 && ( $# -lt 2 || -r $2 ) ]] || { printf 'usage: bash verify.sh KEY.pem [ANCHOR.txt]\n'; exit 2; }
for tool in jq openssl; do command -v $tool >/dev/null || { printf '%s is not installed\n' $tool; exit 2; }; done
key=$1 anchor=${2:-} failed=0 scratch=${TMPDIR:-/tmp}/verify.$$
[[ $key == /* ]] || key=$PWD/$key
[[ -z $anchor || $anchor == /* ]] || anchor=$PWD/$anchor
[[ ${BASH_SOURCE[0]} != */* ]] || cd -- "${BASH_SOURCE[0]%/*}" || exit 2
umask 077

ok() { printf 'ok      %s\n' "$1"; }
bad() { printf 'FAILED  %s\n' "$1"; failed=1; }
same() { if [[ $1 == "$2" && -n $1 ]]; then ok "$3"; else bad "$3"; fi; }
sha256() { local line; line=$(openssl dgst -sha256 -r "$@") && printf %s "${line%% *}"; }
# signed NAME: whether the base64 signature in $signature is over the bytes in $scratch
signed() {
  printf %s "$signature" | openssl base64 -d -A >"$scratch.sig"
  if openssl pkeyutl -verify -pubin -inkey "$key" -rawin -in "$scratch" -sigfile "$scratch.sig" >/dev/null 2>&1
  then ok "$1"; else bad "$1"; fi
}
trap ': >"$scratch"; : >"$scratch.sig"' EXIT

id=$(openssl pkey -pubin -in "$key" -outform DER | sha256)
printf 'key     %s: is this the id that its owner told you?\n' "${id:0:16}"

# 1. the head is signed, and the log is what it was signed over
line=$(<head) hex=[0-9a-f]
[[ $line =~ ^runbooks-head-v1\ [0-9a-f-]{36}\ [0-9]+\ sha256:$hex{64}\ $hex{16}\ [A-Za-z0-9+/]{86}==$ ]] || bad "head: one line"
read -r version archive count digest head_key signature <<<"$line"
printf %s "$version $archive $count $digest $head_key" >"$scratch"
signed "head: signed over $count entries of archive $archive"
mapfile lines <log.jsonl
same "${#lines[@]} sha256:$(sha256 log.jsonl)" "$count $digest" "log: the $count entries that the head names"

# 2. every envelope is the one of the log, is signed, and names the envelope before it
record=$(jq -r .record record.json)
for phase in start intent result recovery adoption; do
  file=record/$phase.dsse.json
  entry=$(jq -c --arg record "$record" --arg phase "$phase" 'select(.record == $record and .phase == $phase)' log.jsonl)
  [[ -z $entry && ! -e $file ]] && continue
  same "$(sha256 "$file")" "$(jq -r .envelope <<<"$entry")" "$phase: the envelope that the log names"
  type=$(jq -r .payloadType "$file") payload=$(jq -r .payload "$file") signature=$(jq -r '.signatures[0].sig' "$file")
  padding=${payload##*[!=]}
  { printf 'DSSEv1 %d %s %d ' ${#type} "$type" $((${#payload} / 4 * 3 - ${#padding}))
    printf %s "$payload" | openssl base64 -d -A; } >"$scratch"
  signed "$phase: signed"
  said=$(printf %s "$payload" | openssl base64 -d -A)
  sequence=$(jq -r .sequence <<<"$entry")
  if ((sequence == 1)); then before=$(sha256 ARCHIVE.json); else before=$(jq -r .envelope <<<"${lines[sequence - 2]}"); fi
  same "$(jq -r '[.predicate | .archive, .phase, .run.id, .sequence, .previous] | join(" ")' <<<"$said")" \
    "$archive $phase $record $sequence $before" "$phase: entry $sequence, after the one before it"
  [[ $phase == start || $phase == intent ]] && continue

  # 3. every file is what the last envelope was signed over
  while IFS=$'\t' read -r name wanted; do
    [[ $name == plan:* || $name == source:* || $name == run:* ]] && continue
    same "$(sha256 "record/$name")" "$wanted" "$name: what was signed, byte for byte"
  done < <(jq -r '.subject[] | [.name, .digest.sha256] | @tsv' <<<"$said")
done
[[ -n ${said:-} ]] || bad "no entry of record $record"

# 4. against a head that was kept elsewhere: nothing of the log was taken away or rewritten since
if [[ -n $anchor ]]; then
  kept=$(<"$anchor") wanted="" pattern="runbooks-head-v1 $archive ([0-9]+) (sha256:[0-9a-f]{64}) "
  if [[ $kept =~ $pattern ]]; then
    count=${BASH_REMATCH[1]} wanted=${BASH_REMATCH[2]}
    mapfile -n "$count" first <log.jsonl
    same "${#first[@]} sha256:$(printf %s "${first[@]}" | sha256)" "$count $wanted" "kept head: the first $count entries are these"
  else bad "kept head: $anchor holds none of this archive"; fi
else printf 'note    rollback not checked: no kept head was given\n'; fi

jq -r '.predicate | "record  \(.run.id): \(.outcome.outcome // "no outcome") (\(.phase), signed \(.time.signed))"' <<<"${said:-null}"
if ((failed)); then printf 'NOT VERIFIED\n'; else printf 'VERIFIED\n'; fi
exit $failed
