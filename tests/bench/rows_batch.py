"""Rows of the batch engine beside a bare raw mirror (bench_copy): between null brokers, Apache Kafkas, Sundogs; over a long
line. Lots are made of whole batches (bench_raw), which costs next to nothing."""
import contextlib, json, os, subprocess, sys, time

from peers import kafka
from rows_mirror import Kafkas
from sides import BIN, PAGE_CACHE, Rig, bench, cpu_of, die_with_parent, drop_topic, free_port, make_topic, remove, rss_of, touch_pages

CODECS = {'none': 0, 'lz4': 3}
SIZES = (100, 1024, 10240)
SECONDS = 3
# What a flow does besides is another row's matter.
ALONE = {'emit.checkpoints.enabled': 'false', 'emit.heartbeats.enabled': 'false', 'emit.offset-syncs.enabled': 'false',
         'sync.group.offsets.enabled': 'false', 'sync.topic.configs.enabled': 'false', 'sundog.engine': 'batch'}


def null(port, partitions, size, codec, batch, role, topic, address='127.0.0.1', enter=()):
    words = [f'{address}:{port}', partitions, size, batch, codec, role, topic]
    return subprocess.Popen([*enter, os.path.join(BIN, 'bench_null'), *map(str, words)], preexec_fn=die_with_parent)


class Nulls:
    """A source that is read without end and a target that keeps nothing, new for each measurement."""

    def __init__(self, partitions, size, codec, batch):
        ports = free_port(), free_port()
        self.source, self.target = (f'127.0.0.1:{p}' for p in ports)
        self.procs = [null(ports[0], partitions, size, codec, batch, 'source', 'load'),
                      null(ports[1], partitions, size, codec, batch, 'target', 'east.load')]
        time.sleep(0.3)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for p in self.procs:
            p.kill()
            p.wait()


class Engine:
    """Our daemon from `source` to `target`, for one topic; `alias` names the source."""
    n = 0

    def __init__(self, source, target, topic, alias='east'):
        self.rig = Rig(sites=[alias, 'west'], flows=[f'{alias}->west'], bootstrap={alias: source, 'west': target},
                       mirror={**ALONE, 'topics': topic})
        self.target, self.there, self.daemon = target, f'{alias}.{topic}', self.rig.mirrors['west']

    def ends(self, partitions, count=0):
        return bench('raw', 'ends', self.target, self.there, partitions, int(count))['records']

    def mark(self, partitions):
        return time.monotonic(), cpu_of(self.daemon.proc.pid), self.ends(partitions)

    def between(self, partitions, before, after):
        """Rate and CPU between two marks."""
        t, cpu, records = (b - a for a, b in zip(before, after))
        return dict(records_per_s=round(records / t), cpu_s_per_million=round(cpu / records * 1e6, 5), rss_mib=rss_of(self.daemon.proc.pid))

    def __enter__(self):
        self.daemon.start(ready=False)
        return self

    def __exit__(self, kind, *_):
        self.rig.close(failed=kind is not None)


def picked(got):
    return {k: got[k] for k in ('records_per_s', 'cpu_s_per_million')}


def goals(row, what, of='copy'):
    row.goal(what, 'records_per_s', least=0.8, of=of)
    row.goal(what, 'cpu_s_per_million', most=1.25, of=of)


def null_both(row, what, partitions, size, codec, batch=64000):
    with Nulls(partitions, size, codec, batch) as n:
        row.add('copy', what, **picked(bench('copy', n.source, 'load', n.target, 'east.load', partitions, SECONDS)))
    with Nulls(partitions, size, codec, batch) as n, Engine(n.source, n.target, 'load') as e:
        e.ends(partitions, partitions * (batch // (size + 12) or 1) * 2)  # all of them are on their way
        time.sleep(0.5)
        before = e.mark(partitions)
        time.sleep(SECONDS)
        row.add('sundog', what, **e.between(partitions, before, e.mark(partitions)))


def batch_null(row):
    """batch engine beside a bare raw mirror, between null brokers: 100 B, 1 KiB, 10 KiB, none and lz4, batches of 64 KB"""
    whats = {f'{size} B {codec}': (size, number) for size in SIZES for codec, number in CODECS.items()}
    for _ in range(row.rounds):
        for what, (size, codec) in whats.items():
            null_both(row, what, 4, size, codec)
    for what in whats:
        goals(row, what)


def batch_wide(row):
    """the same at 1, 100 and 10,000 partitions, 100 B"""
    for _ in range(row.rounds):
        for n in (1, 100, 10_000):
            null_both(row, f'{n} partitions', n, 100, 0)
    for n in (1, 100, 10_000):
        goals(row, f'{n} partitions')
        row.goal(f'{n} partitions', 'rss_mib', most=128)


@contextlib.contextmanager
def topic(node, name, partitions=4, make=True):
    """For one measurement; its files are removed by us."""
    if make:
        make_topic(node.bootstrap, name, partitions)
    yield name
    drop_topic(node.bootstrap, name)
    remove(node, name)


def copies(row, east, west, what, n, size, codec, megabytes):
    """The bare mirror and the engine over the same lot of batches of 1 MB."""
    with topic(east, f'lot{n}') as lot:
        touch_pages(megabytes / 1000)
        count = bench('raw', 'produce', east.bootstrap, lot, 4, 1_000_000, size, megabytes, -1, 5, codec)['records']
        with topic(west, f'copy{n}') as to:
            touch_pages(megabytes / 1000)
            row.add('copy', what, **picked(bench('copy', east.bootstrap, lot, west.bootstrap, to, 4, 60, count)))
        alias = f'of{n}'
        with topic(west, f'{alias}.{lot}', make=False):
            touch_pages(megabytes / 1000)
            with Engine(east.bootstrap, west.bootstrap, lot, alias) as e:
                e.ends(4, count / 10)
                before = e.mark(4)
                e.ends(4, count * 0.9)
                row.add('sundog', what, **e.between(4, before, e.mark(4)))


def mm2(row, what, size, megabytes):
    s = Kafkas()
    with s.awake():
        s.topic('lot', 4)
        count = bench('raw', 'produce', s.source, s.named('lot'), 4, 1_000_000, size, megabytes)['records']
        s.start()
        ends = lambda share: bench('raw', 'ends', s.target, s.there('lot'), 4, int(count * share))['records']
        ends(0.2)
        t, cpu, n = time.monotonic(), cpu_of(s.pid), ends(0)
        ends(0.9)
        t, cpu, n = time.monotonic() - t, cpu_of(s.pid) - cpu, ends(0) - n
        row.add('mm2', what, records_per_s=round(n / t), cpu_s_per_million=round(cpu / n * 1e6, 4))


def batch_kafka(row):
    """the same between Apache Kafkas (needs --peer), batches of 1 MB, with MirrorMaker 2 beside it at 100 B and 1 KiB"""
    whats = {f'{size} B {codec}': (size, number) for size in SIZES for codec, number in CODECS.items()}
    if not row.peer:
        return
    east, west = kafka(), kafka(which=1)
    with east.awake(), west.awake():
        end = time.monotonic() + max(east.warm_seconds(), west.warm_seconds())
        while time.monotonic() < end:
            with topic(east, 'warm') as lot, topic(west, 'warmed') as to:
                bench('raw', 'produce', east.bootstrap, lot, 4, 1_000_000, 100, 400)
                bench('copy', east.bootstrap, lot, west.bootstrap, to, 4, 60, 3_400_000)
        for _ in range(row.rounds):
            for what, (size, codec) in whats.items():
                Engine.n += 1
                copies(row, east, west, what, Engine.n, size, codec, 1500)
    for _ in range(row.rounds):
        for size, megabytes in ((100, 400), (1024, 1200)):
            mm2(row, f'{size} B none', size, megabytes)
    for what in whats:
        goals(row, what)
    for size, faster, share in ((100, 8, 75), (1024, 2.5, 20)):
        row.goal(f'{size} B none', 'records_per_s', least=faster, of='mm2')
        row.goal(f'{size} B none', 'cpu_s_per_million', most=round(1 / share, 4), of='mm2')


class Node:
    jvm = False

    def __init__(self, rig, site):
        self.bootstrap, self.data = rig.bootstrap(site), os.path.join(rig.dir, site, 'data')


def batch_sundog(row):
    """the same between Sundog brokers, page cache"""
    whats = {f'{size} B {codec}': (size, number) for size in SIZES for codec, number in CODECS.items()}
    for _ in range(row.rounds):
        with Rig(flows=[], broker=PAGE_CACHE) as rig:
            for b in rig.brokers.values():
                b.start()
            east, west = Node(rig, 'east'), Node(rig, 'west')
            for what, (size, codec) in whats.items():
                Engine.n += 1
                copies(row, east, west, what, Engine.n, size, codec, 2000)
    for what in whats:
        goals(row, what)


def rtt(row):
    """one partition over 100 ms of round trip (TUN rig), daemon at the target and at the source: share of window / RTT"""
    for _ in range(row.rounds):
        r = subprocess.run([sys.executable, '-B', os.path.join(os.path.dirname(__file__), 'long_line.py')], stdout=subprocess.PIPE, text=True, timeout=120)
        for line in r.stdout.splitlines():
            got = json.loads(line)
            row.add(got.pop('side', 'sundog'), got.pop('what'), **got)
        if r.returncode:
            raise AssertionError(f'long_line.py: exit {r.returncode}')
    for what in ('daemon at the target', 'daemon at the source'):
        row.goal(what, 'of_window', least=0.8)


ROWS = {f.__name__: f for f in (batch_null, batch_wide, batch_kafka, batch_sundog, rtt)}
