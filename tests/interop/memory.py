"""What the mirror holds in memory (sundog.memory.max.bytes, 128 MiB): a thousand partitions full of batches of 1 MiB, with a
target that stands still for a while; and batches of 20 MB, each larger than the share it is fetched into.

Own command, on a release build: `$(tests/support/venv confluent confluent-kafka==2.8.2) -B tests/interop/memory.py`. It
writes some 2 GB and takes a minute or two."""
import os, signal, sys, time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'tests', 'support', 'py'))
from confluent_kafka import Producer
from records import end_offsets
from site_rig import Rig, run_cases, wait

BOUND = 128 << 20
PARTITIONS = int(os.environ.get('SUNDOG_MEMORY_PARTITIONS', '1000'))
STILL = 10  # seconds
LARGE = 30 << 20
PAGE_CACHE = {'sundog.flush.before.ack': 'false', 'message.max.bytes': LARGE}


def fill(bootstrap, partitions, record_bytes, records):
    """Each partition gets one batch of all its records, where they are small."""
    p = Producer({'bootstrap.servers': bootstrap, 'message.max.bytes': LARGE, 'batch.size': 1 << 20, 'linger.ms': 100,
                  'queue.buffering.max.kbytes': 100_000, 'socket.timeout.ms': 60_000})
    for q in range(partitions):
        for _ in range(records):
            p.produce('load', os.urandom(1000) * (record_bytes // 1000), partition=q)
        if q % 50 == 49 or record_bytes > 1 << 20:
            assert p.flush(120) == 0
    assert p.flush(120) == 0


def resident(pid, what):
    with open(f'/proc/{pid}/status') as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith(what))


def peak(partitions, record_bytes, records, still=0):
    """Bytes above those of a mirror that has nothing to do, at the most."""
    with Rig(flows=['east->west'], broker=PAGE_CACHE, mirror={'sundog.memory.max.bytes': BOUND, 'topics': 'idle,load'}) as rig:
        for b in rig.brokers.values(): b.start()
        east, west = rig.bootstrap('east'), rig.bootstrap('west')
        mirror, target = rig.mirrors['west'], rig.brokers['west'].proc.pid
        rig.cli('topic', 'create', 'idle', '--partitions', '1', '--bootstrap', east)
        mirror.start()
        time.sleep(2)
        idle = resident(mirror.proc.pid, 'VmRSS')
        mirror.stop()
        rig.cli('topic', 'create', 'load', '--partitions', str(partitions), '--bootstrap', east)
        fill(east, partitions, record_bytes, records)
        mirror.start()
        wait('some is there', 60, lambda: sum(end_offsets(west, 'east.load').values()) > 0)
        if still:
            os.kill(target, signal.SIGSTOP)
            time.sleep(still)
            os.kill(target, signal.SIGCONT)
        def caught_up():
            rows = [p for f in mirror.status()['flows'] for p in f['partitions'] if p['topic'] == 'load']
            return len(rows) == partitions and all(p['state'] == 'caught up' and p['lag_records'] == 0 for p in rows) or None
        wait('mirrored', 240, caught_up, 0.5)
        held = resident(mirror.proc.pid, 'VmHWM') - idle
        print(f'{partitions} partitions with {records} records of {record_bytes} B: {held / 2**20:.0f} MiB above {idle / 2**20:.0f}', flush=True)
        return held


def a_full_backlog_of_many_partitions_stays_within_the_bound():
    assert peak(PARTITIONS, 100_000, 10, STILL) <= BOUND


def batches_larger_than_a_share_pass_alone():
    assert peak(1, 20_000_000, 5) <= BOUND


if __name__ == '__main__':
    sys.exit(run_cases([a_full_backlog_of_many_partitions_stays_within_the_bound, batches_larger_than_a_share_pass_alone], sys.argv[1:]))
