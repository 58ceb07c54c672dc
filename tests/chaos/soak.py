"""Soak: two sites, mirrored both ways, under load while topics and consumer groups come and go all the time; everything
that could grow is sampled, and its slope must be flat.

    tests/support/quiet_net python3 tests/chaos/soak.py [--minutes N] [--rate MB/s] [--churn SECONDS] [--churners N] [--csv FILE]

Two producers fill one lasting topic at each site, whose retention makes them a window that moves; `--rate 0` is as fast as
the mirrors follow. Meanwhile topics are made, filled, mirrored, read by a group, deleted at both ends in every order.
In the end the lasting topics' mirrors hold exactly what their sources held (record counts by partition), each topic that
was waited for arrived whole, and nothing has grown for certain by more than BOUNDS (least squares through the floor of the
second half, less twice its standard error)."""
import argparse, collections, csv, math, os, random, re, sys, threading, time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from records import end_offsets
from site_rig import Rig, wait

MIB = 1 << 20
SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
VALUE = 4096
WINDOW = 128 * MIB  # retention.bytes of a lasting partition
PARTITIONS = 3
LAG_MAX = 48 * MIB // VALUE  # records of a partition that the mirror may be behind: far less than retention takes away

WARM = 600  # seconds until the heaps are as large as the load makes them: half of a run that is judged at least

# What a measured thing may grow by: (per hour, or this much in all when the run is short), and why it is not nought.
BOUNDS = {
    'rss': (2 * MIB, 2 * MIB, 'pages that malloc keeps: their number goes up and down with the load'),
    'fds': (6, 12, 'clients that come and go; segments of compacted topics, one a minute until cleaning is worth it'),
    'threads': (1, 3, 'helper threads that end after their work'),
    'deleted': (4 * MIB, 48 * MIB, 'files of deleted topics and segments stay for log.segment.delete.delay.ms'),
    'topics': (16 * MIB, 160 * MIB, 'segments of the lasting topics, one more or less of each partition'),
    'internal': (4 * MIB, 24 * MIB, 'compacted topics: a key for each topic that ever was in the topics MM2 defines'),
    'metadata': (8 * MIB, 24 * MIB, 'the metadata log is cut at snapshots, segments have 8 MiB at least'),
    'store': (1 * MIB, 2 * MIB, 'free pages of LMDB are used again, its file never shrinks'),
    'series': (20, 150, 'partitions of topics that are under way'),
    'partitions': (20, 90, 'partitions of topics that are under way'),
}

BROKER = {'auto.create.topics.enable': 'false', 'num.partitions': 1, 'log.retention.check.interval.ms': 2000, 'log.segment.delete.delay.ms': 5000,
          'offsets.retention.minutes': 1, 'offsets.retention.check.interval.ms': 10000, 'offsets.topic.segment.bytes': MIB,
          'log.cleaner.backoff.ms': 5000, 'log.cleaner.delete.retention.ms': 20000, 'log.cleaner.min.cleanable.ratio': 0.3,
          'log.segment.bytes': 2 * MIB, 'log.roll.ms': 60000, 'metadata.log.max.record.bytes.between.snapshots': MIB,
          'metadata.log.segment.bytes': 8 * MIB, 'metadata.max.retention.bytes': MIB,
          'metadata.log.max.snapshot.interval.ms': 60000}


def make(rig, site, topic, partitions, **config):
    admin = rig.admins[site]
    for f in admin.create_topics([NewTopic(topic, partitions, 1, config=config)]).values():
        f.result(120)


def delete(rig, site, topic):
    """Whether it was there."""
    for f in rig.admins[site].delete_topics([topic], operation_timeout=20).values():
        try:
            f.result(120)
        except KafkaException as e:
            if e.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return False
            raise
    return True


def producer(rig, site):
    return Producer({'bootstrap.servers': rig.bootstrap(site), 'enable.idempotence': True, 'acks': 'all', 'linger.ms': 20,
                     'queue.buffering.max.kbytes': 32768, 'message.timeout.ms': 300000, 'log_level': 2})


class Load(threading.Thread):
    """Fills a lasting topic, `rate` bytes a second or as fast as its mirror follows."""

    def __init__(self, rig, site, rate, end):
        super().__init__(daemon=True)
        self.rig, self.site, self.rate, self.end = rig, site, rate, end
        self.open, self.sent, self.failed, self.paused = threading.Event(), 0, 0, 0.0
        self.open.set()
        self.p = producer(rig, site)
        self.acked = collections.Counter()

    def answered(self, e, m):
        if e is None:
            self.acked[m.partition()] += 1
        else:
            self.failed += 1

    def run(self):
        value = os.urandom(VALUE)
        start = time.monotonic()
        while not self.end.is_set():
            if not self.open.is_set():
                before = time.monotonic()
                self.open.wait(0.1)
                self.paused += time.monotonic() - before
                self.p.poll(0)
                continue
            try:
                for _ in range(20):
                    self.p.produce('lasting', value, str(self.sent).encode(), on_delivery=self.answered)
                    self.sent += 1
            except BufferError:
                self.p.poll(0.1)
            self.p.poll(0)
            if self.rate:
                ahead = self.sent * VALUE / self.rate - (time.monotonic() - start - self.paused)
                if ahead > 0:
                    self.end.wait(min(ahead, 0.5))
        assert self.p.flush(120) == 0, 'records of the lasting topic are not acknowledged'


class Churn(threading.Thread):
    """One topic after another: made, filled, read by a group, deleted at both ends."""

    def __init__(self, rig, sites, every, end, seed):
        super().__init__(daemon=True)
        self.rig, self.sites, self.every, self.end = rig, sites, every, end
        self.rng, self.name = random.Random(seed), f'{seed & 0xffff}'
        self.n, self.whole, self.records, self.failure = 0, 0, 0, None
        self.counts = collections.Counter()

    def run(self):
        try:
            while not self.end.is_set():
                start = time.monotonic()
                self.one()
                self.end.wait(max(0, self.every - (time.monotonic() - start)))
        except Exception as e:
            self.failure = self.failure or e

    def read_some(self, site, topic, n):
        """A group that comes, commits, goes; its name is one of a few, or new."""
        group = f'g{self.rng.randrange(8)}' if self.rng.random() < 0.5 else f'group-of-{topic}'
        c = Consumer({'bootstrap.servers': self.rig.bootstrap(site), 'group.id': group, 'enable.auto.commit': False,
                      'auto.offset.reset': 'earliest', 'fetch.wait.max.ms': 50, 'log_level': 2})
        try:
            c.subscribe([topic])
            got, end = 0, time.monotonic() + 10
            while got < n and time.monotonic() < end and not self.end.is_set():
                got += sum(not m.error() for m in c.consume(500, 0.2))
            if got:
                c.commit(asynchronous=False)
        except KafkaException as e:
            self.counts[f'group: {e.args[0].name()}'] += 1
        finally:
            c.close()
        if group.startswith('group-of') and self.rng.random() < 0.5:
            self.rig.admins[site].delete_consumer_groups([group])  # the others' offsets expire

    def one(self):
        rng, rig = self.rng, self.rig
        source, target = rng.sample(self.sites, 2)
        topic, partitions, n = f'passing-{self.name}-{self.n}', rng.randrange(1, 4), rng.randrange(1, 600)
        self.n += 1
        make(rig, source, topic, partitions)
        p = producer(rig, source)  # ended before the topic is deleted: librdkafka 2.8 dies when it refreshes deleted ones
        failed = []
        for i in range(n):
            p.produce(topic, b'v' * 1000, str(i).encode(), on_delivery=lambda e, m: e and failed.append(str(e)))
        assert p.flush(240) == 0 and not failed, failed[:3]
        del p
        self.records += n
        how = rng.choice(['whole', 'whole', 'midway', 'target first'])
        self.counts[how] += 1
        if how == 'whole':
            def there():
                return sum(end_offsets(rig.bootstrap(target), f'{source}.{topic}').values()) == n
            wait(f'{source}.{topic} complete at {target}', 120, there, 0.3)
            self.whole += 1
            if rng.random() < 0.5:
                self.read_some(source, topic, n // 2 + 1)
            if rng.random() < 0.3:
                self.read_some(target, f'{source}.{topic}', n // 2 + 1)
        elif how == 'target first':
            self.end.wait(rng.uniform(0, 3))
            delete(rig, target, f'{source}.{topic}')
            self.end.wait(rng.uniform(0, 1))
        delete(rig, source, topic)
        # The mirror may make the target topic as long as it believes in the source's.
        self.end.wait(rng.uniform(1.5, 4))
        for _ in range(10):
            if delete(rig, target, f'{source}.{topic}') or how == 'midway':
                break
            time.sleep(0.5)


def tree(path):
    """Bytes on disk by what they are."""
    out = collections.Counter({'deleted': 0, 'metadata': 0, 'internal': 0, 'topics': 0})
    for folder, _, files in os.walk(path):
        name = os.path.relpath(folder, path).split(os.sep)[0]
        kind = ('deleted' if name.endswith('-delete') else 'metadata' if name.startswith('__cluster_metadata') else
                'internal' if re.search(r'^__|internal-|heartbeats', name) else 'topics')
        for f in files:
            try:
                size = os.stat(os.path.join(folder, f)).st_blocks * 512
            except FileNotFoundError:
                continue
            out['deleted' if f.endswith('.deleted') else kind] += size
    return out


def sample_daemon(d, folder):
    pid, out = d.proc.pid, {}
    with open(f'/proc/{pid}/status') as f:
        fields = dict(line.split(':', 1) for line in f)
    out['rss'] = int(fields['VmRSS'].split()[0]) << 10
    out['threads'] = int(fields['Threads'])
    out['fds'] = len(os.listdir(f'/proc/{pid}/fd'))
    page = d.http('/metrics', 20)[1]
    out['series'] = sum(1 for line in page.splitlines() if line and line[0] != '#')
    if d.program == 'sundog-broker':
        out.update(tree(folder))
        out['partitions'] = d.status()['partitions']
    else:
        out['store'] = sum(os.stat(os.path.join(folder, f)).st_blocks * 512 for f in os.listdir(folder))
        out['partitions'] = sum(len(f['partitions']) for f in d.status()['flows'])
    return out


class Samples:
    def __init__(self, rig, path):
        self.rig, self.rows, self.start = rig, collections.defaultdict(list), time.monotonic()
        self.folders = {**{b.name: os.path.join(rig.dir, s, 'data') for s, b in rig.brokers.items()},
                        **{m.name: os.path.join(rig.dir, m.name + '.store') for m in rig.mirrors.values()}}
        self.file = open(path, 'w', newline='') if path else None
        self.csv = csv.writer(self.file) if path else None

    def take(self):
        t = time.monotonic() - self.start
        for d in self.rig.daemons():
            assert d.running, f'{d.name} has ended: {d.tail()}'
            for what, value in sample_daemon(d, self.folders[d.name]).items():
                self.rows[d.name, what].append((t, value))
                if self.csv:
                    self.csv.writerow([f'{t:.1f}', d.name, what, value])
        if self.file:
            self.file.flush()


def slope(points):
    """Least squares: change a second, and its standard error. Neighbouring samples are alike, which makes them worth fewer
    than they are: as many as the correlation of the residuals with their next ones leaves."""
    n = len(points)
    mt, mv = sum(t for t, _ in points) / n, sum(v for _, v in points) / n
    below = sum((t - mt) ** 2 for t, _ in points)
    per_s = sum((t - mt) * (v - mv) for t, v in points) / below
    rest = [v - mv - per_s * (t - mt) for t, v in points]
    square = sum(r * r for r in rest)
    alike = min(max(sum(a * b for a, b in zip(rest, rest[1:])) / square, 0), 0.99) if square else 0
    worth = max(n * (1 - alike) / (1 + alike), 3)
    return per_s, math.sqrt(square / n * worth / (worth - 2) * n / worth / below)


def shown(what, value):
    return f'{value / MIB:.2f} MiB' if BOUNDS[what][1] >= MIB else f'{value:.1f}'


def floor(points):
    """The lowest of each fifteenth: what goes up and down with the load hides what stays, its floor does not."""
    start, part = points[0][0], (points[-1][0] - points[0][0]) / 15 + 1e-9
    low = {}
    for t, v in points:
        n = int((t - start) / part)
        low[n] = min(low.get(n, v), v)
    return [(start + (n + 0.5) * part, v) for n, v in sorted(low.items())]


def verdict(what, points):
    """The growth that is certain (the floor's slope less twice its standard error) against what is allowed; a line, and why not."""
    an_hour, in_all, why = BOUNDS[what]
    span, (per_s, error) = points[-1][0] - points[0][0], slope(floor(points))
    allowed = max(an_hour * span / 3600, in_all)
    values = sorted(v for _, v in points)
    line = (f'{what:10} median {shown(what, values[len(values) // 2]):>11}, highest {shown(what, values[-1]):>11}, floor '
            f'{shown(what, per_s * 3600):>11} ± {shown(what, error * 3600)} an hour, {shown(what, (allowed / span + 2 * error) * 3600)} would fail')
    grown = (per_s - 2 * error) * span
    return line, grown > allowed and f'{shown(what, grown)} for certain in {span:.0f} s, {shown(what, allowed)} allowed ({why})'


def judge(samples, seconds):
    """A line for each thing measured; those that are not flat. Nothing is held against what has grown in the first minutes."""
    bad, warmup = [], seconds / 2
    if warmup < WARM:
        print(f'growth is shown, not judged: that takes {2 * WARM // 60} min')
    for (name, what), rows in sorted(samples.rows.items()):
        points = [r for r in rows if r[0] >= warmup]
        if len(points) < 20:
            continue
        line, why = verdict(what, points)
        print(f'{name:14} {line}{"   NOT FLAT" if why else ""}', flush=True)
        if why and warmup >= WARM:
            bad.append(f'{name} {line}: {why}')
    return bad


def processor(rig):
    """Seconds that each daemon has used, and this process."""
    out = {'clients': sum(os.times()[:2])}
    for d in rig.daemons():
        with open(f'/proc/{d.proc.pid}/stat') as f:
            fields = f.read().rsplit(')', 1)[1].split()
        out[d.name] = (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
    return ', '.join(f'{k} {v:.0f}' for k, v in out.items())


def ends(rig, site, topic):
    return end_offsets(rig.bootstrap(site), topic, 20)


def quick_ends(rig):
    """A function of site and topic: the ends of a lasting topic, by clients that stay: asked for several times a second."""
    clients = {s: Consumer({'bootstrap.servers': rig.bootstrap(s), 'group.id': 'soak-ends', 'log_level': 2}) for s in rig.sites}
    return lambda site, topic: [clients[site].get_watermark_offsets(TopicPartition(topic, p), timeout=20)[1] for p in range(PARTITIONS)]


def watch(rig, loads, churns, samples, seconds, every=5):
    """Until the time has come: samples, and holds the producers back when a mirror is too far behind."""
    over, next_sample, now_at = time.monotonic() + seconds, 0, quick_ends(rig)
    while time.monotonic() < over:
        for d in rig.daemons():
            assert d.running, f'{d.name} has ended: {d.tail()}'
        for c in churns:
            if c.failure:
                raise c.failure
        for l in loads:
            other = next(s for s in rig.sites if s != l.site)
            behind = max(a - b for a, b in zip(now_at(l.site, 'lasting'), now_at(other, f'{l.site}.lasting')))
            (l.open.set if behind < LAG_MAX else l.open.clear)()
        if time.monotonic() >= next_sample:
            samples.take()
            next_sample = time.monotonic() + every
        time.sleep(0.1)


def drained(rig, loads):
    """The lasting topics' mirrors hold exactly what was acknowledged, partition by partition."""
    total = 0
    for l in loads:
        other = next(s for s in rig.sites if s != l.site)
        assert l.failed == 0, f'{l.failed} records of {l.site}/lasting were refused'
        want = dict(l.acked)
        assert ends(rig, l.site, 'lasting') == want, (ends(rig, l.site, 'lasting'), want)
        wait(f'{l.site}.lasting complete at {other}', 120, lambda: ends(rig, other, f'{l.site}.lasting') == want, 0.5)
        total += sum(want.values())
    time.sleep(2)
    for l in loads:
        other = next(s for s in rig.sites if s != l.site)
        assert ends(rig, other, f'{l.site}.lasting') == dict(l.acked), 'more than the source has'
    return total


def main():
    a = argparse.ArgumentParser()
    a.add_argument('--minutes', type=float, default=60)
    a.add_argument('--rate', type=float, default=0, help='MB/s of each producer, 0: as fast as the mirrors follow')
    a.add_argument('--churn', type=float, default=2, help='seconds between topics, of each that makes them')
    a.add_argument('--churners', type=int, default=2)
    a.add_argument('--csv')
    o = a.parse_args()
    print(f'seed {SEED}', flush=True)
    with Rig(broker=BROKER, mirror={'sundog.on.new.incarnation': 'record-and-continue'}) as rig:
        rig.start()
        rig.admins = {s: AdminClient({'bootstrap.servers': rig.bootstrap(s), 'log_level': 2}) for s in rig.sites}
        for s in rig.sites:
            make(rig, s, 'lasting', PARTITIONS, **{'retention.bytes': str(WINDOW), 'segment.bytes': str(8 * MIB)})
        for s in rig.sites:
            other = next(x for x in rig.sites if x != s)
            wait('the lasting topics at both sites', 60, lambda: len(ends(rig, other, f'{s}.lasting')) == PARTITIONS, 0.5)
        end, samples = threading.Event(), Samples(rig, o.csv)
        loads = [Load(rig, s, o.rate * 1e6, end) for s in rig.sites]
        churns = [Churn(rig, rig.sites, o.churn, end, SEED + i) for i in range(o.churners)]
        for t in [*loads, *churns]:
            t.start()
        seconds = o.minutes * 60
        try:
            watch(rig, loads, churns, samples, seconds)
        finally:
            end.set()
            for t in [*churns, *loads]:
                t.join(180)
        total = drained(rig, loads)
        topics, whole = sum(c.n for c in churns), sum(c.whole for c in churns)
        print(f'{total} records of {VALUE} B mirrored exactly; {topics} topics came and went, {whole} of them were waited for, '
              f'{sum(c.records for c in churns)} records in them; {dict(sum((c.counts for c in churns), collections.Counter()))}')
        print(f'processor seconds: {processor(rig)}; producers held back for {", ".join(f"{l.paused:.0f}" for l in loads)} of {seconds:.0f} s')
        for c in churns:
            if c.failure:
                raise c.failure
        bad = judge(samples, seconds)
        assert not bad, 'not flat:\n' + '\n'.join(bad)
        print('1 passed, 0 failed')


if __name__ == '__main__':
    main()
