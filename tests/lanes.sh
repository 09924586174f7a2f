#!/usr/bin/env bash
# The whole suite in two lanes side by side: what needs no broker yields to what does, which waits for it most of the time.
#
#   tests/lanes.sh PYTHON
set -uo pipefail
cd "$(dirname "$0")/.."
python=$1
log=$(mktemp)

nice -n 19 "$python" -m pytest -p no:cacheprovider -m 'not broker and not registry' >"$log" 2>&1 &
other=$!
trap 'kill "$other" 2>/dev/null; rm -f "$log"' EXIT

printf '== what needs a broker\n'
"$python" -m pytest -m 'broker or registry'
first=$?
printf '\n== what needs none\n'
wait "$other"
second=$?
cat "$log"
((first == 0 && second == 0))
