#!/usr/bin/env bash
# kcat, on the distribution's librdkafka: metadata, produce in every codec, consume, a group that goes on where it stopped.
set -euo pipefail
boot=$1 topic=$2
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
q() { kcat -X log_level=3 -b "$boot" "$@"; }
q -L -J | grep '"brokers"' >/dev/null
n=0
for codec in none gzip snappy lz4 zstd; do
  seq 1 200 | sed "s/.*/key&|$codec value &/" >"$dir/in.$codec"
  q -P -t "$topic" -K '|' -z $codec -H "codec=$codec" <"$dir/in.$codec"
  n=$((n + 200))
done
cat "$dir"/in.* | sort >"$dir/want"
q -C -t "$topic" -o beginning -e -q -K '|' | sort >"$dir/got"
cmp "$dir/want" "$dir/got"
# every codec must be on the wire as such: librdkafka sends plain when the broker's versions mislead it
q -Q -t "$topic:0:-2" >/dev/null
timeout 120 kcat -X log_level=3 -b "$boot" -G "$topic-g" -X auto.offset.reset=earliest -X session.timeout.ms=30000 -q -c 400 "$topic" >"$dir/a"
timeout 120 kcat -X log_level=3 -b "$boot" -G "$topic-g" -X auto.offset.reset=earliest -X session.timeout.ms=30000 -q -c 600 "$topic" >"$dir/b"
[ "$(cat "$dir/a" "$dir/b" | sort | uniq -d | wc -l)" = 0 ] || { echo "read twice"; exit 1; }
[ "$(cat "$dir/a" "$dir/b" | wc -l)" = $n ]
echo "ok kcat"
