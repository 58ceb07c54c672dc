"""Power cuts: the broker's files lie on an ext4 of their own (loop device); the cut is the file system's shutdown ioctl,
which drops every page that was not synced, and kill -9. What was acknowledged must be there after the remount.

The daemon is frozen first: an fdatasync that is under way while ext4 shuts down may say 0 and have written nothing (2 of 60
cuts of a single file with one writer; none of 200 with the writer frozen). Without power nobody would hear that answer.

Also the store of the mirror: cut together with its target."""
import fcntl, os, random, struct, subprocess, sys, time

from members import Group, Impatient, Watch
from mirror_facts import Asked
from records import Follower, check_log, same
from site_rig import Rig, run_cases, wait
from kills import GROUP, MAP, MIRROR, QUICK_SESSIONS, WATCHED, Background, create, drain, drain_both, loading, mirrored

SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
CUTS = int(os.environ.get('SUNDOG_CUTS', '10'))
EXT4_IOC_SHUTDOWN = 0x8004587d  # _IOR('X', 125, u32)
NO_LOG_FLUSH = 2


class Disk:
    """A small ext4 in a file, mounted at `path`."""

    def __init__(self, path, megabytes=700):
        self.path, self.image = path, path + '.img'
        os.makedirs(path)
        with open(self.image, 'wb') as f:
            f.truncate(megabytes << 20)
        subprocess.run(['mkfs.ext4', '-Fq', '-m0', self.image], check=True)
        self.mount()

    def mount(self):
        subprocess.run(['mount', '-o', 'loop', self.image, self.path], check=True)

    def cut(self):
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack('I', NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def remount(self):
        self.umount()
        self.mount()

    def umount(self):
        wait(f'{self.path} is busy no more', 60, lambda: subprocess.run(['umount', self.path], capture_output=True).returncode == 0, 0.1)


def a_site_loses_its_power_under_load():
    rng = random.Random(SEED)
    rig = Rig(sites=['east'], broker=QUICK_SESSIONS)
    del rig.mirrors['east']
    disk = Disk(os.path.join(rig.dir, 'east'))
    try:
        with rig:
            broker = rig.brokers['east'].start()
            create(rig, 'east', 'orders', 4)
            load = loading(rig, 'east', 'orders', 'e')
            follower, watch = Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders'), Watch(rig, 'east', 'orders')
            impatient = Impatient(rig, 'east', 'orders', 1, 'impatient', SEED)
            group = Group(rig, 'east', 'readers', 'orders', 4, watch.ends, SEED)
            running = Background(load)
            for _ in range(CUTS):
                time.sleep(rng.uniform(0.5, 2))
                broker.freeze()
                disk.cut()
                broker.kill()
                disk.remount()
                broker.start(seconds=60)
            running.stop()
            impatient.stop(), group.stop()
            follower.stop(), watch.stop()
            seen = check_log(drain(rig, 'east', 'orders'), load.acked, 'e', 'east/orders')
            assert CUTS == 0 or len(load.acked) > 500, 'too little was under way'
            print(f'{CUTS} cuts, {len(load.acked)} acknowledged, {len(seen)} there')
            print(rig.history.check(f'{WATCHED} {GROUP}'))
            broker.stop(60)
    finally:
        disk.umount()


def a_target_site_with_its_mirror_loses_its_power():
    """Broker and checkpoint store of west are cut at once; the mirror goes on without loss or doubling."""
    rng = random.Random(SEED + 1)
    rig = Rig(flows=['east->west'])
    del rig.mirrors['east']
    disk = Disk(os.path.join(rig.dir, 'west'))
    rig.mirrors['west'] = rig.mirror_at('west', 'west-mirror', {'sundog.store.dir': os.path.join(disk.path, 'store')}, ['east->west'])
    try:
        with rig:
            rig.start()
            create(rig, 'east', 'orders')
            load = loading(rig, 'east', 'orders', 'e')
            watch, follower = Watch(rig, 'east', 'orders'), Follower(rig.bootstrap('west'), 'east.orders', rig.history, 'west/east.orders')
            asked = Asked(rig, 'east', 'west', 'orders', watch.ends, SEED, store=os.path.join(disk.path, 'store'))
            running = Background(load)
            for _ in range(max(1, CUTS // 2)):
                time.sleep(rng.uniform(1, 2.5))
                rig.brokers['west'].freeze(), rig.mirrors['west'].freeze()
                disk.cut()
                rig.brokers['west'].kill(), rig.mirrors['west'].kill()
                disk.remount()
                rig.brokers['west'].start(seconds=60), rig.mirrors['west'].start(seconds=60)
            running.stop()
            mirrored(rig, 'east', 'west', 'orders')
            a, b = drain_both(rig, 'east', 'west', 'orders')
            check_log(a, load.acked, 'e', 'east/orders')
            same(a, b, 'east.orders')
            print(f'{max(1, CUTS // 2)} cuts, {sum(map(len, a.values()))} records compared')
            for x in (asked, follower, watch):
                x.stop()
            print(rig.history.check(f'{WATCHED} {MIRROR} {MAP}'))
            rig.mirrors['west'].stop(60), rig.brokers['west'].stop(60)
    finally:
        disk.umount()


def every_site_loses_its_power():
    """Both brokers, both mirrors and their stores at one moment: no site has anything that the site it came from has lost."""
    rng = random.Random(SEED + 2)
    rig = Rig()
    disks = {site: Disk(os.path.join(rig.dir, site)) for site in rig.sites}
    for site in rig.sites:
        rig.mirrors[site] = rig.mirror_at(site, f'{site}-mirror', {'sundog.store.dir': os.path.join(disks[site].path, 'store')})
    try:
        with rig:
            rig.start()
            create(rig, 'east', 'orders'), create(rig, 'west', 'bills')
            east, west = loading(rig, 'east', 'orders', 'e'), loading(rig, 'west', 'bills', 'w')
            followers = [Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders'), Follower(rig.bootstrap('west'), 'bills', rig.history, 'west/bills')]
            running = Background(east, west, rate=1500)
            for _ in range(max(1, CUTS // 2)):
                time.sleep(rng.uniform(0.5, 2))
                for d in rig.daemons():
                    d.freeze()
                for disk in disks.values():
                    disk.cut()
                for d in rig.daemons():
                    d.kill()
                for disk in disks.values():
                    disk.remount()
                for d in rig.daemons():
                    d.start(ready=False)
                for d in rig.daemons():
                    d.wait_healthy(60)
            running.stop()
            n = 0
            for source, target, topic, load in ('east', 'west', 'orders', east), ('west', 'east', 'bills', west):
                mirrored(rig, source, target, topic)
                a, b = drain_both(rig, source, target, topic)
                check_log(a, load.acked, load.writer, f'{source}/{topic}')
                same(a, b, f'{source}.{topic}')
                n += sum(map(len, a.values()))
            for f in followers:
                f.stop()
            print(f'{max(1, CUTS // 2)} cuts of everything, {n} records compared')
            print(rig.history.check(MIRROR))
            for d in reversed(rig.daemons()):
                d.stop(60)
    finally:
        for disk in disks.values():
            disk.umount()


if __name__ == '__main__':
    print(f'seed {SEED} (SUNDOG_SEED={SEED})', flush=True)
    sys.exit(run_cases([a_site_loses_its_power_under_load, a_target_site_with_its_mirror_loses_its_power,
                        every_site_loses_its_power], sys.argv[1:]))
