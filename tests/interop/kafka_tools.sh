#!/usr/bin/env bash
# Kafka's own command line tools against our broker, and its dump-log over our files.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
boot=$1 work=$2 topic=$3
tool() { "$top/tests/support/kafka" tool "$@"; }
tool topics --bootstrap-server "$boot" --create --topic "$topic" --partitions 2 --config segment.bytes=1048576
tool topics --bootstrap-server "$boot" --describe --topic "$topic" | tee /dev/stderr | grep 'PartitionCount: 2' >/dev/null
seq 1 500 | tool console-producer --bootstrap-server "$boot" --topic "$topic"
[ "$(tool console-consumer --bootstrap-server "$boot" --topic "$topic" --group "$topic-g" --from-beginning --max-messages 500 --timeout-ms 90000 | sort -n | uniq | wc -l)" = 500 ]
# Java's consumer goes on with its fetch session while it waits for more (KIP-227), and ends it when it closes.
admin=$(sed -n 's/^sundog.admin.listener = //p' "$work/east.broker.properties")
count() { curl -fsS "http://$admin/metrics" | awk -v m="$1" 'index($1, m) == 1 { n += $2 } END { print n + 0 }'; }
for wait_ms in 3000 15000 60000; do # of which its start is a part: a machine may be slow
  before=$(count sundog_broker_session_fetches_total)
  read_n=$(tool console-consumer --bootstrap-server "$boot" --topic "$topic" --from-beginning --max-messages 501 --timeout-ms $wait_ms 2>/dev/null | wc -l)
  [ "$read_n" -lt 500 ] || [ "$(count sundog_broker_session_fetches_total)" -lt $((before + 3)) ] || break
done
[ "$read_n" = 500 ]
echo "fetches with a session: $(($(count sundog_broker_session_fetches_total) - before)); sessions: $(count sundog_broker_fetch_sessions)"
[ "$(count sundog_broker_session_fetches_total)" -ge $((before + 3)) ]
tool consumer-groups --timeout 60000 --bootstrap-server "$boot" --describe --group "$topic-g" | tee /dev/stderr | awk -v t="$topic" '$2 == t { lag += $6; end += $5 } END { exit !(end == 500 && lag == 0) }'
tool consumer-groups --timeout 60000 --bootstrap-server "$boot" --group "$topic-g" --topic "$topic" --reset-offsets --to-earliest --execute | grep "$topic" >/dev/null
tool consumer-groups --timeout 60000 --bootstrap-server "$boot" --list | grep "^$topic-g$" >/dev/null
tool consumer-groups --timeout 60000 --bootstrap-server "$boot" --delete --group "$topic-g" | grep -i successful >/dev/null
tool configs --bootstrap-server "$boot" --alter --entity-type topics --entity-name "$topic" --add-config retention.ms=100000000
tool configs --bootstrap-server "$boot" --describe --entity-type topics --entity-name "$topic" | grep retention.ms=100000000 >/dev/null
tool producer-perf-test --bootstrap-server "$boot" --topic "$topic" --num-records 20000 --record-size 200 --throughput -1 | tail -n 1
tool get-offsets --bootstrap-server "$boot" --topic "$topic" | awk -F: '{ s += $3 } END { exit !(s == 20500) }'
tool broker-api-versions --bootstrap-server "$boot" | grep 'Produce(0)' >/dev/null
tool cluster cluster-id --bootstrap-server "$boot" | grep 'Cluster ID' >/dev/null
for part in 0 1; do
  dir=$(ls -d "$work"/east/data/"$topic-$part")
  for f in "$dir"/*.log; do
    tool dump-log --files "$f" --deep-iteration --print-data-log >"$work/dump.txt"
    ! grep -E 'isvalid: false|invalid|Found|mismatch' "$work/dump.txt"
    tool dump-log --files "${f%.log}.index" --index-sanity-check >>"$work/dump.txt"
    # Kafka's own check takes a preallocated index of the active segment for a broken one, its own included.
    [ "$f" = "$(ls "$dir"/*.log | tail -n 1)" ] || tool dump-log --files "${f%.log}.timeindex" --index-sanity-check >>"$work/dump.txt"
  done
done
tool topics --bootstrap-server "$boot" --delete --topic "$topic"
for _ in {1..20}; do tool topics --bootstrap-server "$boot" --list | grep "^$topic$" >/dev/null || { echo ok; exit 0; }; sleep 1; done
echo "the deleted topic is still listed"; exit 1
