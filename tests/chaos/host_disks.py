"""Disks that fail or are full, under brokers with two log dirs and under the mirror's store: what was acknowledged stays,
what lies elsewhere goes on, and who cannot go on says so. Syncs fail by host_shim.c, full disks are real small file systems."""
import os, sys, time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from records import Follower, check_log
from host_shim import Shim
from site_rig import Rig, run_cases, wait
from kills import Background, compare, create, drain, loading, mirrored

EIO, ENOSPC = 5, 28


def dir_of(dirs, topic, n):
    """{partition: log dir}, when all `n` are made."""
    def probe():
        found = {int(name.rsplit('-', 1)[1]): d for d in dirs for name in os.listdir(d) if name.rsplit('-', 1)[0] == topic}
        return found if len(found) == n else None
    return wait(f'{n} logs of {topic}', 10, probe)


def ends(rig, site, topic, partitions):
    c = Consumer({'bootstrap.servers': rig.bootstrap(site), 'group.id': 'sundog-test-ends'})
    try:
        return {p: c.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in partitions}
    finally:
        c.close()


def error_codes(rig, site, topic, partition, seconds=1):
    """What a producer that does not try again is told."""
    codes = set()
    p = Producer({'bootstrap.servers': rig.bootstrap(site), 'retries': 0, 'acks': 'all', 'message.timeout.ms': int(seconds * 1000), 'log_level': 2})
    p.produce(topic, b'x', partition=partition, on_delivery=lambda e, m: codes.add(e.code() if e else 0))
    p.flush(seconds + 5)
    return codes


def status_of(broker):
    return {os.path.basename(d['path']): d for d in broker.status()['log_dirs']}


TWO_DIRS = {'log.dirs': 'disk1,disk2', 'metadata.log.dir': 'disk1', 'sundog.shards': 2}  # under the rig's directory


def a_log_dir_fails_its_sync():
    """fdatasync says EIO: the dir is fenced at once and nothing in it is synced again; the other goes on; a restart has all that
    was acknowledged. Then the dir of the metadata log: the broker ends and says why."""
    with Rig(sites=['east'], broker=TWO_DIRS) as rig:
        del rig.mirrors['east']
        broker, shim = rig.brokers['east'], None
        shim = Shim(rig, 'east')
        disks = [os.path.join(rig.dir, d) for d in ('disk1', 'disk2')]
        broker.start(env=shim.env)
        create(rig, 'east', 'orders', 6), create(rig, 'east', 'probes', 2)
        probe = {d: p for p, d in dir_of(disks, 'probes', 2).items()}
        where = dir_of(disks, 'orders', 6)
        bad, good = [p for p in where if where[p] == disks[1]], [p for p in where if where[p] == disks[0]]
        assert len(bad) == len(good) == 3, where
        load = loading(rig, 'east', 'orders', 'e')
        running = Background(load, rate=2000)
        follower = Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders')
        time.sleep(2)
        rig.fault('EIO from syncs of disk2')
        shim.fail(disks[1], EIO)
        wait('disk2 offline', 5, lambda: not status_of(broker)['disk2']['online'])
        told = error_codes(rig, 'east', 'probes', probe[disks[1]])
        assert told <= {KafkaError.KAFKA_STORAGE_ERROR, KafkaError._MSG_TIMED_OUT, KafkaError.NOT_LEADER_FOR_PARTITION} and told, told
        assert error_codes(rig, 'east', 'probes', probe[disks[0]], 5) == {0}, 'the other dir does not go on'
        before, acked = ends(rig, 'east', 'orders', good), len(load.acked)
        time.sleep(2)
        after = ends(rig, 'east', 'orders', good)
        assert all(after[p] > before[p] for p in good), (before, after)
        assert broker.http('/healthz')[0] == 200 and 'sundog_broker_log_dirs_offline 1' in broker.http('/metrics')[1]
        calls = shim.failed()
        assert calls and len(calls) == len(set(calls)), f'asked again after an error: {calls}'
        assert all(c.split()[1].split('/')[-2].rsplit('-', 1)[0] in ('orders', '__consumer_offsets') for c in calls), calls
        create(rig, 'east', 'later', 4)
        assert set(dir_of(disks, 'later', 4).values()) == {disks[0]}, 'made in a dir that is offline'
        shim.fail('', 0)
        assert broker.stop(30) in (0, 1)
        assert shim.failed() == calls, 'synced at its end'
        broker.start(env=shim.env)
        running.stop()
        rig.fault('EIO from syncs of disk1, which has the metadata log')
        shim.fail(disks[0], EIO)
        load.send(20), time.sleep(0.2)
        wait('the broker ends', 10, lambda: broker.proc.poll() is not None)
        assert broker.proc.returncode == 1 and 'cannot go on' in broker.tail(8), (broker.proc.returncode, broker.tail(8))
        broker.proc = None
        shim.fail('', 0)
        broker.start()
        load.flush(60)
        follower.stop()
        check_log(drain(rig, 'east', 'orders'), load.acked, 'e', 'east/orders')
        print(f'{len(calls)} syncs failed in disk2, {acked} acknowledged by then, {len(load.acked)} in the end')
        print(rig.history.check())


if __name__ == '__main__':
    sys.exit(run_cases([a_log_dir_fails_its_sync], sys.argv[1:]))
