"""Rows of a mirror: Sundog's between two Sundogs, MirrorMaker 2 between two Apache Kafkas."""
import contextlib, os, random, statistics, time

from confluent_kafka import Consumer, TopicPartition
from peers import kafka
from sides import PAGE_CACHE, Rig, bench, cpu_of, drop_topic, make_topic, pick, remove, rss_of

SECONDS_1 = ('refresh.topics.interval.seconds', 'refresh.groups.interval.seconds', 'emit.checkpoints.interval.seconds',
             'sync.group.offsets.interval.seconds')


class Sundogs:
    """Two brokers and a mirror, in the record engine unless told otherwise."""
    name = 'sundog'

    def __init__(self, flush=False, engine='record'):
        self.rig = Rig(flows=['east->west'], broker=None if flush else PAGE_CACHE, mirror={'sundog.engine': engine})
        for b in self.rig.brokers.values():
            b.start()
        self.source, self.target = self.rig.bootstrap('east'), self.rig.bootstrap('west')
        self.store = os.path.join(self.rig.dir, 'west-mirror.store')

    @staticmethod
    def named(topic):
        return topic

    @staticmethod
    def there(topic):
        return 'east.' + topic

    def topic(self, name, partitions, at=None):
        make_topic(at or self.source, name, partitions)

    def start(self):
        self.rig.mirrors['west'].start(ready=False)

    @property
    def pid(self):
        return self.rig.mirrors['west'].proc.pid

    @contextlib.contextmanager
    def awake(self):
        yield

    def close(self):
        self.rig.close()


class Batches(Sundogs):
    name = 'batch'

    def __init__(self, flush=False):
        super().__init__(flush, 'batch')


class Kafkas:
    """The run's two nodes, and MirrorMaker 2 of its own: under a new name, so that it waits for no member of the last."""
    name, n = 'mm2', 0

    def __init__(self, flush=False):
        Kafkas.n += 1
        self.alias, self.tag, self.topics, self.flush = f'east{Kafkas.n}', f'-{Kafkas.n}', [], flush
        self.east, self.west = kafka(flush), kafka(flush, 1)
        self.source, self.target = self.east.bootstrap, self.west.bootstrap

    def named(self, topic):
        return topic + self.tag

    def there(self, topic):
        return f'{self.alias}.{topic}{self.tag}'

    def topic(self, name, partitions):
        make_topic(self.source, self.named(name), partitions)
        self.topics.append(name)

    def start(self):
        keys = {'clusters': f'{self.alias},west', f'{self.alias}.bootstrap.servers': self.source, 'west.bootstrap.servers': self.target,
                f'{self.alias}->west.enabled': 'true', 'topics': f'.*{self.tag}', 'groups': '.*', 'tasks.max': 2,
                'sync.group.offsets.enabled': 'true', 'replication.factor': 1, **{k: 1 for k in SECONDS_1},
                **{f'{t}.replication.factor': 1 for t in ('checkpoints.topic', 'heartbeats.topic', 'offset-syncs.topic',
                                                           'offset.storage', 'status.storage', 'config.storage')}}
        file = os.path.join(self.east.dir, 'mm2.properties')
        with open(file, 'w') as f:
            f.writelines(f'{k}={v}\n' for k, v in keys.items())
        self.east.tool('mm2', self.east.dir, file)

    @property
    def pid(self):
        return int(open(os.path.join(self.east.dir, 'mm2.pid')).read())

    @contextlib.contextmanager
    def awake(self):
        with self.east.awake(), self.west.awake():
            try:
                yield
            finally:
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    os.kill(self.pid, 9)
                    os.unlink(os.path.join(self.east.dir, 'mm2.pid'))
                for name in self.topics:
                    for node, topic in ((self.east, self.named(name)), (self.west, self.there(name))):
                        drop_topic(node.bootstrap, topic)
                        remove(node, topic)

    def close(self):
        pass


@contextlib.contextmanager
def two_sites(make, flush=False):
    sites = make(flush)
    try:
        with sites.awake():
            yield sites
    finally:
        sites.close()


def makes(row, ours=(Sundogs,)):
    return [*ours, Kafkas] if row.peer else [*ours]


def reach(sites, count, topic='load', partitions=4):
    bench('raw', 'ends', sites.target, sites.there(topic), partitions, int(count))


def fill(sites, partitions, size, count, topic='load'):
    sites.topic(topic, partitions)
    bench('rdk', 'produce', sites.source, sites.named(topic), partitions, size, count)


def catch_up(row, sites, what, count):
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
    row.add(sites.name, what, records_per_s=round(count * 0.8 / t), cpu_s_per_million=round(cpu / count / 0.8 * 1e6, 4),
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
                    fill(s, 4, size, count)
                    if make is Sundogs:
                        s.topic('copy', 4, s.target)
                        loop = bench('rdk', 'loop', s.source, s.target, 'load', 'copy', 4, count)
                        row.add('loop', what, records_per_s=loop['records_per_s'], cpu_s_per_million=round(loop['client_cpu_s'] / count * 1e6, 3))
                    catch_up(row, s, what, count)
    for size, share in ((100, 1 / 5), (1024, 1 / 7)):
        row.goal(f'{size} B', 'cpu_s_per_million', most=round(share, 3), of='mm2')
        row.goal(f'{size} B', 'records_per_s', least=0.8, of='loop')
        row.goal(f'{size} B', 'rss_mib', most=128)
    row.goal('100 B', 'exec_to_first_ms', most=300)


def offset_map(row):
    """what the offset map costs, either engine: share of the mirror's CPU in the store's thread, MB of store per million records"""
    count = 8_000_000
    for _ in range(row.rounds):
        for make in (Sundogs, Batches):
            with two_sites(make) as s:
                fill(s, 4, 100, count)
                share = catch_up(row, s, '100 B', count)
                time.sleep(1)  # the last commit
                used = sum(os.stat(os.path.join(s.store, f)).st_blocks * 512 for f in os.listdir(s.store))
                row.add(s.name, 'map', cpu_share=round(share, 4), mb_per_million=round(used / 1e6 / (count / 1e6), 4))
    for side in ('sundog', 'batch'):
        row.goal('map', 'cpu_share', most=0.02, side=side)
        row.goal('map', 'mb_per_million', most=0.2, side=side)


def latency(row):
    """producer at the source to consumer at the target, both engines, 1,000 records/s of 1 KiB, fsync before the ack off and on"""
    for _ in range(row.rounds):
        for flush in (False, True):
            for make in makes(row, (Sundogs, Batches)):
                with two_sites(make, flush) as s:
                    s.topic('clock', 1)
                    bench('raw', 'first', s.source, s.named('clock'))
                    s.start()
                    reach(s, 1, 'clock', 1)  # it runs: one record that is not heard
                    got = bench('e2e', s.source, s.named('clock'), s.target, s.there('clock'), 1024, 1000, 10000,
                                20000 if make is Kafkas else 3000)
                    row.add(s.name, 'fsync' if flush else 'page cache', **pick(got, 'p50_us', 'p99_us', 'p999_us'))
    for what, most in (('page cache', 0.2), ('fsync', 0.5)):
        for metric in ('p50_us', 'p99_us'):
            for side in ('sundog', 'batch'):
                row.goal(what, metric, most=most, of='mm2', side=side)
            row.goal(what, metric, most=1, of='sundog', side='batch')


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
                fill(s, partitions, 100, partitions * each)
                s.start()
                reach(s, partitions * each)
                rng = random.Random(n)
                groups = {f'{s.name}{n}-{i}': [rng.randrange(1, each) for _ in range(partitions)] for i in range(20)}
                for g, offsets in groups.items():
                    commit(s.source, g, s.named('load'), offsets)
                time.sleep(12)  # a dozen rounds of translation and sync
                again = []
                for g, offsets in groups.items():
                    there = committed(s.target, g, s.there('load'), partitions)
                    if any(t > o for t, o in zip(there, offsets)):
                        raise AssertionError(f'{g}: {there} is ahead of {offsets}: records would be skipped')
                    again.append(sum(offsets) - sum(there))
                row.add(s.name, 'read again', median=statistics.median(again), most=max(again))
    row.goal('read again', 'most', most=0)


def group_age(row):
    """age of a synced group offset at the target, sampled each 100 ms, all intervals one second"""
    for n in range(row.rounds):
        for make in makes(row):
            with two_sites(make) as s:
                fill(s, 1, 100, 100_000)
                s.start()
                reach(s, 100_000, partitions=1)
                there = Consumer({'bootstrap.servers': s.target, 'group.id': f'aging{n}'})
                here = Consumer({'bootstrap.servers': s.source, 'group.id': f'aging{n}'})
                at, ages, seen_one, end, asked = [], [], None, time.monotonic() + 90, 0
                while time.monotonic() < end and (seen_one is None or time.monotonic() - seen_one < 25):
                    here.commit(offsets=[TopicPartition(s.named('load'), 0, len(at))], asynchronous=False)
                    at.append(time.monotonic())
                    time.sleep(0.01)
                    if at[-1] - asked < 0.1:
                        continue
                    asked = at[-1]
                    offset = there.committed([TopicPartition(s.there('load'), 0)], timeout=10)[0].offset
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
