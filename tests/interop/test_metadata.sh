#!/usr/bin/env bash
# Our metadata log, snapshots and directories against Kafka's own: its tools read what we write, Kafka boots on our
# directories and we boot on Kafka's, in turn, with the same topics and records. Prints what it does; exits 0 or says what failed.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=${SUNDOG_BIN:-$top/build/release/bin}
work=$(mktemp -d)
export ASAN_OPTIONS=detect_leaks=0 # a refused start ends with its memory
broker_pid=
kafka() { "$top/tests/support/kafka" "$@"; }
tool() { kafka tool "$@" 2>"$work/tool.err" || { cat "$work/tool.err"; return 1; }; }
fail() { echo "FAILED: $*"; [ ! -e "$work/broker.log" ] || tail -n 20 "$work/broker.log"; exit 1; }
end() {
  [ -z "$broker_pid" ] || kill -TERM "$broker_pid" 2>/dev/null || true
  [ ! -e "$node/node.pid" ] || kafka stop "$node" || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
node=$work/none
trap end EXIT

taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
port=$((20000 + (RANDOM % 6000) * 2))
while taken $port || taken $((port + 1)); do port=$((20000 + (RANDOM % 6000) * 2)); done
boot=127.0.0.1:$port

properties() { # DIR [KEY=VALUE ...]: what Kafka's node and ours both read
  mkdir -p "$1"; echo "$port" >"$1/port"
  { printf '%s\n' process.roles=broker,controller node.id=1 "log.dirs=$1/data" \
      "listeners=PLAINTEXT://$boot,CONTROLLER://127.0.0.1:$((port + 1))" controller.listener.names=CONTROLLER \
      listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT offsets.topic.replication.factor=1 "${@:2}"; } >"$1/node.properties"
}

ours() { # FILE ARG...: starts and waits until it serves
  "$bin/sundog-broker" "$@" metadata.log.max.record.bytes.between.snapshots=1 >>"$work/broker.log" 2>&1 & broker_pid=$!
  local i
  for ((i = 0; i < 600; i++)); do
    kill -0 "$broker_pid" 2>/dev/null || fail "our broker ended"
    # listening comes before serving: ask for something
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && kcat -L -b "$boot" -m 5 >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  fail "our broker does not serve"
}

ours_stop() {
  kill -TERM "$broker_pid"; wait "$broker_pid" || fail "our broker ended with $? at SIGTERM"
  broker_pid=
}

records() { kcat -C -b "$boot" -t "$1" -e -q -o beginning -m 20 2>/dev/null | wc -l; }
expect() { [ "$1" = "$2" ] || fail "$3: $1 instead of $2"; }
holds() { # TOPIC N WHAT: a node that has just started, or a busy machine, may need a moment
  local i n
  for ((i = 0; i < 60; i++)); do
    n=$(records "$1") || true
    [ "$n" -lt "$2" ] || break
    sleep 0.5
  done
  expect "$n" "$2" "$3"
}
described() { # TOPIC [TRIES]: it has a leader; a node that has just started may need a moment
  local i
  for ((i = 0; i < ${2:-120}; i++)); do
    kcat -L -b "$boot" -t "$1" -m 5 >"$work/describe" 2>&1 && grep -q "partition 0, leader 1" "$work/describe" && return 0
    sleep 0.3
  done
  cat "$work/describe"; fail "$1 has no leader"
}

fill() { # TOPIC: created on first use, records
  seq 1 60 | kcat -P -b "$boot" -t "$1" || fail "cannot produce to $1"
  holds "$1" 60 "records of $1"
}

in_snapshot() { # DIR TOPIC: the newest snapshot has it; a job writes them, a moment after the records
  local i
  for ((i = 0; i < 600; i++)); do
    grep -aq "$2" "$(ls "$1"/data/__cluster_metadata-0/*.checkpoint | tail -n 1)" && return 0
    sleep 0.1
  done
  fail "no snapshot with $2"
}

read_by_tools() { # DIR TOPIC: dump-log over log and snapshots, the metadata shell over the newest snapshot
  local folder=$1/data/__cluster_metadata-0 f newest
  f=$(printf '%s,' "$folder"/*.log "$folder"/*.checkpoint)
  tool dump-log --cluster-metadata-decoder --files "$f$1/data/bootstrap.checkpoint" >"$work/dumps"
  ! grep -E "isvalid: false|invalid|Could not" "$work/dumps" || fail "dump-log of $1"
  grep -q "\"TOPIC_RECORD\".*\"name\":\"$2\"" "$work/dumps" || fail "dump-log does not show topic $2"
  grep -q "LeaderChange" "$work/dumps" || fail "dump-log shows no leader"
  newest=$(ls "$folder"/*.checkpoint | tail -n 1)
  kafka tool metadata-shell --snapshot "$newest" cat "/image/topics/byName/$2/0" >"$work/shell" 2>&1
  grep -q "PartitionRegistration(replicas=\[1\]" "$work/shell" || { cat "$work/shell"; fail "the metadata shell does not show $2"; }
}

turns() { # DIR: Kafka, ours, Kafka on one directory that has topic `first`; each makes one, each sees all
  node=$1
  kafka restart "$1" || fail "Kafka does not start on $1"
  described first
  holds first 60 "records of our topic under Kafka"
  fill second
  kafka stop "$1"; node=$work/none
  ours "$1/node.properties"
  described first; described second
  holds second 60 "records of Kafka's topic under ours"
  ours_stop
  grep -q '"brokerEpoch"' "$1/data/.kafka_cleanshutdown" || fail "no clean-shutdown marker"
}

kafka fetch >/dev/null
id=$(tool storage random-uuid | tail -n 1)

echo "== a directory of ours, static: dump-log, metadata shell, Kafka boots on it"
properties "$work/static" "controller.quorum.voters=1@127.0.0.1:$((port + 1))"
ours "$work/static/node.properties" sundog.cluster.id="$id"
fill first
tool configs --bootstrap-server "$boot" --alter --entity-type topics --entity-name first --add-config retention.ms=86400001 >/dev/null
tool topics --bootstrap-server "$boot" --alter --topic first --partitions 3 >/dev/null
tool metadata-quorum --bootstrap-server "$boot" describe --status | grep '^LeaderId: *1$' >/dev/null || fail "metadata-quorum at the broker"
tool metadata-quorum --bootstrap-controller "127.0.0.1:$((port + 1))" describe --status | grep '^LeaderId: *1$' >/dev/null || fail "metadata-quorum at the controller"
tool features --bootstrap-server "$boot" describe | grep '^Feature: metadata.version' >/dev/null || fail "features"
in_snapshot "$work/static" first; ours_stop
read_by_tools "$work/static" first
turns "$work/static"

echo "== formatted by kafka-storage, static"
properties "$work/format" "controller.quorum.voters=1@127.0.0.1:$((port + 1))"
tool storage format -t "$id" -c "$work/format/node.properties" >/dev/null
ours "$work/format/node.properties"
fill first; in_snapshot "$work/format" first; ours_stop
read_by_tools "$work/format" first
turns "$work/format"

echo "== formatted by kafka-storage --standalone, levels kept"
properties "$work/standalone" "controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))"
tool storage format --standalone -t "$id" -c "$work/standalone/node.properties" >/dev/null
ours "$work/standalone/node.properties"
fill first
kill -KILL "$broker_pid"; wait "$broker_pid" 2>/dev/null || true # with ELR on, an unclean stop of a sole replica
ours "$work/standalone/node.properties"
described first
holds first 60 "records after kill -9"
in_snapshot "$work/standalone" first; ours_stop
read_by_tools "$work/standalone" first
turns "$work/standalone"

echo "== directories of others are refused in one line"
refused() { # WHAT ARG...
  local what=$1 status=0; shift
  timeout 60 "$bin/sundog-broker" "$@" >"$work/refused" 2>&1 || status=$?
  [ $status -ne 0 ] && [ $status -ne 124 ] || fail "$what was not refused"
  expect "$(grep -c . "$work/refused")" 1 "lines about $what"
}
refused "another cluster id" "$work/static/node.properties" sundog.cluster.id=AAAAAAAAAAAAAAAAAAAAAg
refused "another node id" "$work/static/node.properties" node.id=2 "controller.quorum.voters=2@127.0.0.1:$((port + 1))"
rm "$work/static/data/__cluster_metadata-0/quorum-state"
refused "a lost quorum-state" "$work/static/node.properties"
echo ok
