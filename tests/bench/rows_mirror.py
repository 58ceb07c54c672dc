"""Rows of a mirror: Sundog's between two Sundogs, MirrorMaker 2 between two Apache Kafkas."""
import contextlib, os, random, statistics, time

from confluent_kafka import Consumer, TopicPartition
from sides import PAGE_CACHE, Kafka, Rig, bench, cpu_of, pick, rss_of

SECONDS_1 = ('refresh.topics.interval.seconds', 'refresh.groups.interval.seconds', 'emit.checkpoints.interval.seconds',
             'sync.group.offsets.interval.seconds')


class Sundogs:
    name = 'sundog'

    def __init__(self, flush=False):
        self.rig = Rig(flows=['east->west'], broker=None if flush else PAGE_CACHE)
        for b in self.rig.brokers.values():
            b.start()
        self.source, self.target = self.rig.bootstrap('east'), self.rig.bootstrap('west')
        self.store = os.path.join(self.rig.dir, 'west-mirror.store')

    def topic(self, name, partitions, at=None):
        self.rig.cli('topic', 'create', name, '--partitions', str(partitions), '--bootstrap', at or self.source)

    def start(self):
        self.rig.mirrors['west'].start(ready=False)

    @property
    def pid(self):
        return self.rig.mirrors['west'].proc.pid

    def close(self):
        self.rig.close()


class Kafkas:
    name = 'mm2'

    def __init__(self, flush=False):
        self.east, self.west = Kafka(flush), Kafka(flush)
        self.source, self.target = self.east.bootstrap, self.west.bootstrap
        keys = {'clusters': 'east,west', 'east.bootstrap.servers': self.source, 'west.bootstrap.servers': self.target,
                'east->west.enabled': 'true', 'topics': '.*', 'groups': '.*', 'tasks.max': 2, 'sync.group.offsets.enabled': 'true',
                'replication.factor': 1, **{k: 1 for k in SECONDS_1},
                **{f'{t}.replication.factor': 1 for t in ('checkpoints.topic', 'heartbeats.topic', 'offset-syncs.topic',
                                                           'offset.storage', 'status.storage', 'config.storage')}}
        self.file = os.path.join(self.east.dir, 'mm2.properties')
        with open(self.file, 'w') as f:
            f.writelines(f'{k}={v}\n' for k, v in keys.items())

    def topic(self, name, partitions, at=None):
        (self.west if at == self.target else self.east).topic(name, partitions)

    def start(self):
        self.east.tool('mm2', self.east.dir, self.file)

    @property
    def pid(self):
        return int(open(os.path.join(self.east.dir, 'mm2.pid')).read())

    def close(self):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(self.pid, 9)
        self.east.close()
        self.west.close()


@contextlib.contextmanager
def two_sites(make, flush=False):
    sites = make(flush)
    try:
        yield sites
    finally:
        sites.close()


def makes(row):
    return [Sundogs, Kafkas] if row.peer else [Sundogs]


def reach(sites, count, topic='east.load', partitions=4):
    bench('raw', 'ends', sites.target, topic, partitions, int(count))


def catch_up(row, sites, what, size, count):
    """A mirror over what already lies at the source; CPU and rate between a tenth and nine tenths of the way."""
    began = time.monotonic()
    sites.start()
    reach(sites, 1)
    first = time.monotonic() - began
    reach(sites, count / 10)
    t, cpu, store = time.monotonic(), cpu_of(sites.pid), cpu_of(sites.pid, 'job-')
    reach(sites, count * 9 / 10)
    t, cpu, store = time.monotonic() - t, cpu_of(sites.pid) - cpu, cpu_of(sites.pid, 'job-') - store
    rss = rss_of(sites.pid)
    reach(sites, count)
    row.add(sites.name, what, records_per_s=round(count * 0.8 / t), cpu_s_per_million=round(cpu / count / 0.8 * 1e6, 3),
            exec_to_first_ms=round(first * 1000), rss_mib=rss)
    return store / cpu


def mirror(row):
    """record engine catching up, 100 B and 1 KiB: CPU-s per million records, rate beside the bare loop, RSS, exec to first"""
    sizes = ((100, 6_000_000), (1024, 2_000_000))
    for _ in range(row.rounds):
        for make in makes(row):
            for size, count in sizes:
                what = f'{size} B'
                with two_sites(make) as s:
                    s.topic('load', 4)
                    bench('rdk', 'produce', s.source, 'load', 4, size, count)
                    if make is Sundogs:
                        s.topic('copy', 4, s.target)
                        loop = bench('rdk', 'loop', s.source, s.target, 'load', 'copy', 4, count)
                        row.add('loop', what, records_per_s=loop['records_per_s'], cpu_s_per_million=round(loop['client_cpu_s'] / count * 1e6, 3))
                    catch_up(row, s, what, size, count)
    for size, share in ((100, 1 / 5), (1024, 1 / 7)):
        row.goal(f'{size} B', 'cpu_s_per_million', most=round(share, 3), of='mm2')
        row.goal(f'{size} B', 'records_per_s', least=0.8, of='loop')
        row.goal(f'{size} B', 'rss_mib', most=128)
    row.goal('100 B', 'exec_to_first_ms', most=300)


def offset_map(row):
    """what the offset map costs: share of the mirror's CPU in the store's thread, MB of store per million records"""
    count = 8_000_000
    for _ in range(row.rounds):
        with two_sites(Sundogs) as s:
            s.topic('load', 4)
            bench('rdk', 'produce', s.source, 'load', 4, 100, count)
            share = catch_up(row, s, '100 B', 100, count)
            time.sleep(1)  # the last commit
            used = sum(os.stat(os.path.join(s.store, f)).st_blocks * 512 for f in os.listdir(s.store))
            row.add(s.name, 'map', cpu_share=round(share, 4), mb_per_million=round(used / 1e6 / (count / 1e6), 4))
    row.goal('map', 'cpu_share', most=0.02)
    row.goal('map', 'mb_per_million', most=0.2)


def latency(row):
    """producer at the source to consumer at the target, 1,000 records/s of 1 KiB, fsync before the ack off and on"""
    for _ in range(row.rounds):
        for flush in (False, True):
            for make in makes(row):
                with two_sites(make, flush) as s:
                    s.start()
                    for topic, records in (('warm', 3000 if make is Sundogs else 30000), ('clock', 10000)):
                        s.topic(topic, 1)
                        got = bench('e2e', s.source, topic, s.target, 'east.' + topic, 1024, 1000, records)
                    row.add(s.name, 'fsync' if flush else 'page cache', **pick(got, 'p50_us', 'p99_us', 'p999_us'))
    for metric in ('p50_us', 'p99_us'):
        row.goal('page cache', metric, most=0.2, of='mm2')
        row.goal('fsync', metric, most=0.5, of='mm2')


def commit(bootstrap, group, topic, offsets):
    c = Consumer({'bootstrap.servers': bootstrap, 'group.id': group})
    c.commit(offsets=[TopicPartition(topic, p, o) for p, o in enumerate(offsets)], asynchronous=False)
    c.close()


def committed(bootstrap, group, topic, partitions):
    c = Consumer({'bootstrap.servers': bootstrap, 'group.id': group})
    got = c.committed([TopicPartition(topic, p) for p in range(partitions)], timeout=10)
    c.close()
    return [max(tp.offset, 0) for tp in got]  # none: it begins at the beginning


def failover(row):
    """records read again by 20 groups at random positions of 1 M records"""
    partitions, each = 4, 250_000
    for n in range(row.rounds):
        for make in makes(row):
            with two_sites(make) as s:
                s.topic('load', partitions)
                bench('rdk', 'produce', s.source, 'load', partitions, 100, partitions * each)
                s.start()
                reach(s, partitions * each)
                rng = random.Random(n)
                groups = {f'group-{i}': [rng.randrange(1, each) for _ in range(partitions)] for i in range(20)}
                for g, offsets in groups.items():
                    commit(s.source, g, 'load', offsets)
                time.sleep(12)  # a dozen rounds of translation and sync
                again = []
                for g, offsets in groups.items():
                    there = committed(s.target, g, 'east.load', partitions)
                    if any(t > o for t, o in zip(there, offsets)):
                        raise SystemExit(f'{g}: {there} is ahead of {offsets}: records would be skipped')
                    again.append(sum(offsets) - sum(there))
                row.add(s.name, 'read again', median=statistics.median(again), most=max(again))
    row.goal('read again', 'most', most=0)


def group_age(row):
    """age of a synced group offset at the target, sampled each 100 ms, all intervals one second"""
    for _ in range(row.rounds):
        for make in makes(row):
            with two_sites(make) as s:
                s.topic('load', 1)
                bench('rdk', 'produce', s.source, 'load', 1, 100, 100_000)
                s.start()
                reach(s, 100_000, partitions=1)
                there = Consumer({'bootstrap.servers': s.target, 'group.id': 'aging'})
                here = Consumer({'bootstrap.servers': s.source, 'group.id': 'aging'})
                at, ages, seen_one, end, asked = [], [], None, time.monotonic() + 90, 0
                while time.monotonic() < end and (seen_one is None or time.monotonic() - seen_one < 30):
                    here.commit(offsets=[TopicPartition('load', 0, len(at))], asynchronous=False)
                    at.append(time.monotonic())
                    time.sleep(0.01)
                    if at[-1] - asked < 0.1:
                        continue
                    asked = at[-1]
                    offset = there.committed([TopicPartition('east.load', 0)], timeout=10)[0].offset
                    if offset <= 0 and seen_one is None:
                        continue
                    seen_one = seen_one or time.monotonic()
                    if time.monotonic() - seen_one > 5:
                        ages.append(time.monotonic() - at[offset])
                here.close()
                there.close()
                ages.sort()
                row.add(s.name, 'age', p50_s=round(statistics.median(ages), 3), p99_s=round(ages[int(len(ages) * 0.99)], 3), n=len(ages))
    row.goal('age', 'p99_s', most=1.2)


ROWS = {f.__name__: f for f in (mirror, offset_map, latency, failover, group_age)}
