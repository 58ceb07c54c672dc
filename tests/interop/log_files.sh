#!/usr/bin/env bash
# Kafka's own kafka-dump-log reads the logs of every format version (tests/data/log): batches, records, both indexes,
# producer snapshots, without a complaint. Needs no broker.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
files=$(find "$top/tests/data/log" -name '*.log' -o -name '*.index' -o -name '*.timeindex' -o -name '*.snapshot' | sort | paste -sd,)
out=$(mktemp)
trap 'rm -f "$out"' EXIT
"$top/tests/support/kafka" tool dump-log --deep-iteration --print-data-log --files "$files" >"$out" 2>&1
# "-1 is followed by": said of every segment that does not begin at offset 0, Kafka's own too.
bad=$(grep -nE 'isvalid: false|mismatch|Mismatch|out of order|not found in|Exception|corrupt|Could not' "$out" || true)
holes=$(grep -A99 'Non-consecutive offsets in .*plain' "$out" | grep 'is followed by' | grep -v -- '-1 is followed by' || true)
batches=$(grep -c '^baseOffset' "$out") records=$(grep -c '^| offset' "$out") producers=$(grep -c '^producerId' "$out")
echo "$batches batches, $records records, $producers producers"
[ -z "$bad$holes" ] || { printf '%s\n' "$bad" "$holes"; exit 1; }
[ "$batches" -gt 200 ] && [ "$records" -gt 600 ] && [ "$producers" -gt 5 ]
