"""Disks that fail or are full, under brokers with two log dirs and under the mirror's store: what was acknowledged stays,
what lies elsewhere goes on, and who cannot go on says so. Syncs fail by host_shim.c, full disks are real small file systems."""
import os, subprocess, sys, threading, time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from records import Follower, Load, check_log
from host_shim import Shim
from site_rig import Rig, run_cases, wait
from host import JUDGED, Commits
from power import Disk
from kills import MIRROR, Background, compare, create, drain, loading, mirrored

EIO, ENOSPC = 5, 28


def dir_of(dirs, topic, n):
    """{partition: log dir}, when all `n` are made."""
    def probe():
        found = {int(name.rsplit('-', 1)[1]): d for d in dirs for name in os.listdir(d) if name.rsplit('-', 1)[0] == topic}
        return found if len(found) == n else None
    return wait(f'{n} logs of {topic}', 30, probe)


def ends(rig, site, topic, partitions):
    c = Consumer({'bootstrap.servers': rig.bootstrap(site), 'group.id': 'sundog-test-ends'})
    try:
        return {p: c.get_watermark_offsets(TopicPartition(topic, p), timeout=30)[1] for p in partitions}
    finally:
        c.close()


def error_codes(rig, site, topic, partition, seconds=1):
    """What a producer that does not try again is told; its record is larger than what a block may have left."""
    codes = set()
    p = Producer({'bootstrap.servers': rig.bootstrap(site), 'retries': 0, 'acks': 'all', 'message.timeout.ms': int(seconds * 1000), 'log_level': 2})
    p.produce(topic, b'x' * 5000, partition=partition, on_delivery=lambda e, m: codes.add(e.code() if e else 0))
    p.flush(seconds + 5)
    return codes


def status_of(broker):
    return {os.path.basename(d['path']): d for d in broker.status()['log_dirs']}


def goes_on(rig, partitions):
    """Records of the load come to each of these."""
    before = ends(rig, 'east', 'orders', partitions)
    wait('the other dir goes on', 60, lambda: all(n > before[p] for p, n in ends(rig, 'east', 'orders', partitions).items()))


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
        wait('disk2 offline', 30, lambda: not status_of(broker)['disk2']['online'])
        told = error_codes(rig, 'east', 'probes', probe[disks[1]])
        assert told <= {KafkaError.KAFKA_STORAGE_ERROR, KafkaError._MSG_TIMED_OUT, KafkaError.NOT_LEADER_FOR_PARTITION} and told, told
        wait('the other dir takes records', 30, lambda: error_codes(rig, 'east', 'probes', probe[disks[0]], 10) == {0})
        acked = len(load.acked)
        goes_on(rig, good)
        time.sleep(2)
        goes_on(rig, good)
        assert broker.http('/healthz')[0] == 200 and 'sundog_broker_log_dirs_offline 1' in broker.http('/metrics')[1]
        calls = shim.failed()
        assert calls and len(calls) == len(set(calls)), f'asked again after an error: {calls}'
        idle = [c for c in calls if c.split()[1].split('/')[-2].startswith('probes')]
        assert not idle, f'a log that nobody has written to was synced: {idle}'
        create(rig, 'east', 'later', 4)
        assert set(dir_of(disks, 'later', 4).values()) == {disks[0]}, 'made in a dir that is offline'
        shim.fail('', 0)
        assert broker.stop(60) in (0, 1)
        assert shim.failed() == calls, 'synced at its end'
        broker.start(env=shim.env)
        running.stop()
        rig.fault('EIO from syncs of disk1, which has the metadata log')
        shim.fail(disks[0], EIO)
        load.send(20), time.sleep(0.2)
        wait('the broker ends', 60, lambda: broker.proc.poll() is not None)
        assert broker.proc.returncode == 1 and 'cannot go on' in broker.tail(8), (broker.proc.returncode, broker.tail(8))
        broker.proc = None
        shim.fail('', 0)
        broker.start()
        load.flush(90)
        follower.stop()
        check_log(drain(rig, 'east', 'orders'), load.acked, 'e', 'east/orders')
        print(f'{len(calls)} syncs failed in disk2, {acked} acknowledged by then, {len(load.acked)} in the end')
        print(rig.history.check(JUDGED))


def fill(disk):
    """Not a byte is left on the file system."""
    with open(os.path.join(disk.path, 'filler'), 'ab', buffering=0) as f:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    f.write(b'x' * size)
            except OSError as e:
                assert e.errno == ENOSPC, e


class Full:
    """Keeps a file system full: what somebody gives back is taken at once."""

    def __init__(self, disk):
        self.disk, self.end = disk, threading.Event()
        fill(disk)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.end.wait(0.02):
            fill(self.disk)

    def stop(self):
        self.end.set()
        self.thread.join()
        make_room(self.disk)


def make_room(disk):
    os.unlink(os.path.join(disk.path, 'filler'))


def refused(rig, site, topic, partition):
    """A producer that does not try again is told KAFKA_STORAGE_ERROR."""
    wait(f'{topic}-{partition} refuses', 60, lambda: KafkaError.KAFKA_STORAGE_ERROR in error_codes(rig, site, topic, partition, 5), 0.1)


def a_log_dir_is_full():
    """Two log dirs, each an ext4 of its own; first the one, then the other has not a byte left: what lies there is refused with
    KAFKA_STORAGE_ERROR, the other goes on; with room it goes on by itself. Full again, kill -9, start, room, restart."""
    rig = Rig(sites=['east'], broker={**TWO_DIRS, 'log.segment.bytes': 1 << 20})
    del rig.mirrors['east']
    disks = {name: Disk(os.path.join(rig.dir, name), 64) for name in ('disk1', 'disk2')}
    try:
        with rig:
            broker = rig.brokers['east'].start()
            create(rig, 'east', 'orders', 4), create(rig, 'east', 'probes', 2)
            where = dir_of([d.path for d in disks.values()], 'orders', 4)
            probe = {d: p for p, d in dir_of([d.path for d in disks.values()], 'probes', 2).items()}
            load = Load(rig.bootstrap('east'), 'orders', 'e', 1000, history=rig.history, name='east/orders')
            follower = Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders')
            running = Background(load, rate=500)
            for name, disk in sorted(disks.items(), reverse=True):
                other = next(d for d in disks.values() if d is not disk)
                for again in range(2):
                    time.sleep(1)
                    rig.fault(f'{name} is full')
                    fill(disk)
                    refused(rig, 'east', 'probes', probe[disk.path])
                    goes_on(rig, [p for p in where if where[p] == other.path])
                    assert all(d['online'] for d in status_of(broker).values()) and broker.http('/healthz')[0] == 200
                    if again:
                        broker.kill()
                        broker.start(ready=False)
                        time.sleep(2)  # what recovery gives back may do; else it waits to be registered
                        if not broker.running:  # or: no term can be opened where none can be written
                            assert name == 'disk1' and broker.proc.returncode == 1, (name, broker.proc.returncode)
                            assert 'cannot go on' in broker.tail(9) and 'no space left on the device' in broker.tail(9), broker.tail(9)
                    make_room(disk)
                    if again and name == 'disk1':  # of the metadata log: it may have ended, or be about to
                        broker.kill()
                        broker.start()
                    wait(f'{name} goes on with room', 90, lambda: 0 in error_codes(rig, 'east', 'probes', probe[disk.path], 5), 0.2)
            running.stop()
            follower.stop()
            assert not load.failed, load.failed
            check_log(drain(rig, 'east', 'orders'), load.acked, 'e', 'east/orders')
            print(f'each of 2 dirs full twice, {len(load.acked)} acknowledged')
            print(rig.history.check(JUDGED))
            broker.stop(60)
    finally:
        for d in disks.values():
            d.umount()


def trouble(mirror, *words):
    """/healthz is 503 and the reason has one of the words in it."""
    def probe():
        status, why = mirror.http('/healthz')
        return status == 503 and any(w in why for w in words) and why
    return wait(f'the mirror says {" or ".join(words)}', 60, probe, 0.1)


def the_store_of_the_mirror_is_full_or_fails():
    """The mirror's LMDB on an ext4 of its own, without room when it must grow, then with EIO from its syncs; killed and started in
    either state. It says so, loses and doubles nothing, and goes on when the disk does."""
    rig = Rig(flows=['east->west'], mirror={'sundog.store.dir': 'disk/store'})
    del rig.mirrors['east']
    disk, mirror, shim, full = Disk(os.path.join(rig.dir, 'disk'), 16), rig.mirrors['west'], Shim(rig, 'mirror'), None
    try:
        with rig:
            for b in rig.brokers.values():
                b.start()
            mirror.start(env=shim.env)
            create(rig, 'east', 'orders')
            load, commits = loading(rig, 'east', 'orders', 'e'), Commits(rig, 'east', 'orders')
            running = Background(load, rate=400)
            wait('something is mirrored', 60, lambda: sum(ends(rig, 'west', 'east.orders', range(3)).values()) > 100)
            # LMDB calls a write that was cut short by a full disk an input/output error
            for name, words in (('full', ('No space left', 'Input/output error')), ('failing', ('Input/output error',))):
                for killed in (False, True):
                    rig.fault(f'the store is {name}')
                    if name == 'full':
                        full = Full(disk)
                    else:
                        shim.fail(disk.path, EIO)
                    create(rig, 'east', f'more-{name}-{killed}', 100)
                    trouble(mirror, *words)
                    before = sum(ends(rig, 'west', 'east.orders', range(3)).values())
                    wait('records go on', 60, lambda: sum(ends(rig, 'west', 'east.orders', range(3)).values()) > before + 100)
                    if killed:
                        mirror.kill()
                        mirror.start(ready=False, env=shim.env)
                        trouble(mirror, *words)
                    if full:
                        full.stop()
                        full = None
                    else:
                        shim.fail('', 0)
                    mirror.wait_healthy(60)
            running.stop()
            commits.stop()
            mirrored(rig, 'east', 'west', 'orders')
            n = compare(rig, 'east', 'west', 'orders', load)
            assert not any(p['state'].startswith('halted') for f in mirror.status()['flows'] for p in f['partitions'])
            print(f'the store full twice, failing twice, {n} records compared')
            print(rig.history.check(f'{JUDGED} {MIRROR}'))
            mirror.stop(60)
    finally:
        if full:
            full.end.set(), full.thread.join()
        disk.umount()


class Overcommitted(Disk):
    """An ext4 that promises more than what it stands on has: from some write on blocks are taken, acknowledged by nobody, and lost;
    the next sync of their file says so, once, and what is read from the page cache is not on any disk."""

    def __init__(self, path):
        self.below = path + '.below'
        os.makedirs(path), os.makedirs(self.below)
        subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=24m', 'none', self.below], check=True)
        self.path, self.image = path, os.path.join(self.below, 'image')
        with open(self.image, 'wb') as f:
            f.truncate(96 << 20)
        subprocess.run(['mkfs.ext4', '-Fq', '-m0', '-J', 'size=4', self.image], check=True)
        self.mount()

    def leave(self, bytes):
        """Fills what is below but for so much."""
        at = os.statvfs(self.below)
        with open(os.path.join(self.path, 'filler'), 'wb') as f:
            f.write(b'x' * max(0, at.f_bavail * at.f_bsize - bytes))
            os.fsync(f.fileno())

    def heal(self):
        """Room below; what was lost stays lost: the page cache is gone."""
        self.umount()
        subprocess.run(['mount', '-o', 'remount,size=200m', self.below], check=True)
        fixed = subprocess.run(['e2fsck', '-fy', self.image], capture_output=True)
        assert fixed.returncode < 4, fixed
        self.mount()

    def close(self):
        self.umount()
        subprocess.run(['umount', self.below], check=True)


def a_disk_loses_what_it_took():
    """The same as a_log_dir_fails_its_sync with real write errors: pages that were written and not synced are gone for good."""
    rig = Rig(sites=['east'], broker=TWO_DIRS)
    del rig.mirrors['east']
    disk = Overcommitted(os.path.join(rig.dir, 'disk2'))
    try:
        with rig:
            broker = rig.brokers['east'].start()
            create(rig, 'east', 'orders', 4)
            where = dir_of([os.path.join(rig.dir, d) for d in ('disk1', 'disk2')], 'orders', 4)
            load = Load(rig.bootstrap('east'), 'orders', 'e', 1000, history=rig.history, name='east/orders')
            follower = Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders')
            running = Background(load, rate=1000)
            time.sleep(1)
            disk.leave(2 << 20)
            rig.fault('what is below disk2 is nearly full')
            wait('disk2 offline', 90, lambda: not status_of(broker)['disk2']['online'])
            mine = [p for p in where if where[p] != disk.path]
            goes_on(rig, mine)
            why, acked = status_of(broker)['disk2']['error'], len(load.acked)
            broker.kill()
            disk.heal()
            broker.start()
            running.stop()
            follower.stop()
            assert not load.failed, load.failed
            check_log(drain(rig, 'east', 'orders'), load.acked, 'e', 'east/orders')
            print(f'{why}; {acked} acknowledged by then, {len(load.acked)} in the end')
            print(rig.history.check(JUDGED))
            broker.stop(60)
    finally:
        disk.close()


if __name__ == '__main__':
    sys.exit(run_cases([a_log_dir_fails_its_sync, a_disk_loses_what_it_took, a_log_dir_is_full,
                        the_store_of_the_mirror_is_full_or_fails], sys.argv[1:], jobs=2))
