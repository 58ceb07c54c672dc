"""The daemons under ThreadSanitizer: two sites of two shards each, mirrored both ways, one way by each engine, with load, topics
and groups that come and go, pauses and orderly stops and starts. Any report fails. See tests/tsan.

No kill -9 here: what a process has not written is lost with it, and reports may be."""
import glob, os, random, signal, sys, threading, time

from confluent_kafka.admin import AdminClient
from records import Load
from site_rig import Rig, run_cases, wait
from soak import Churn, end_offsets, make

SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
ENGINES = {'east': 'record', 'west': 'batch'}
SECONDS = float(os.environ.get('SUNDOG_SECONDS', '15'))  # of each of the two phases


def start(d):
    d.start(seconds=180, env={'LD_PRELOAD': os.environ['SUNDOG_PRELOAD']})


def reports(rig):
    found = []
    for path in [*glob.glob(os.path.join(rig.dir, 'tsan.*')), *[d.log for d in rig.daemons()]]:
        with open(path, errors='replace') as f:
            text = f.read()
        if 'ThreadSanitizer' in text:
            found.append((path, text[text.index('ThreadSanitizer') - 9:]))
    return found


def engines(rig):
    """What each mirror reads the lasting topic with."""
    return {s: {p['engine'] for f in m.status()['flows'] for p in f['partitions'] if p['topic'] == 'steady'}
            for s, m in rig.mirrors.items()}


class Steady:
    """Records to a topic of each site until stopped."""

    def __init__(self, rig):
        self.loads = [Load(rig.bootstrap(s), 'steady', s[0]) for s in rig.sites]
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.end.wait(0.05):
            for l in self.loads:
                l.send(50)

    def stop(self):
        self.end.set()
        self.thread.join()
        for l in self.loads:
            l.flush(120)
            assert not l.failed, l.failed


def come_and_go(rig):
    end = threading.Event()
    churns = [Churn(rig, rig.sites, 0.5, end, SEED + i) for i in range(2)]
    for c in churns:
        c.start()
    over = time.monotonic() + SECONDS
    while time.monotonic() < over:
        for d in rig.daemons():
            assert d.running, f'{d.name} has ended with {d.proc.poll()}: {d.tail()}'
            d.http('/metrics', 120), d.http('/status', 120)
        time.sleep(0.2)
    end.set()
    for c in churns:
        c.join(120)
        if c.failure:
            raise c.failure
    return sum(c.n for c in churns)


def stop_and_pause(rig):
    rng, over, n = random.Random(SEED), time.monotonic() + SECONDS, 0
    while n < 6 or time.monotonic() < over:
        d = rng.choice(rig.daemons())
        if rng.random() < 0.4:
            d.signal(signal.SIGSTOP)
            time.sleep(rng.uniform(0.2, 1.5))
            d.signal(signal.SIGCONT)
        else:
            code = d.stop(120)
            assert code == 0, f'{d.name} ended with {code}: {d.tail(30)}'
            start(d)
        n += 1
        time.sleep(rng.uniform(0, 0.5))
    return n


def no_races_between_two_sites():
    env = {'TSAN_OPTIONS': ' '.join([os.environ.get('TSAN_OPTIONS', ''), 'halt_on_error=0', 'exitcode=66'])}
    os.environ.update(env)
    with Rig(broker={'sundog.shards': 2, 'log.retention.check.interval.ms': 2000, 'log.cleaner.backoff.ms': 2000,
                     'log.flush.offset.checkpoint.interval.ms': 2000, 'offsets.retention.check.interval.ms': 3000}) as rig:
        for s, engine in ENGINES.items():
            rig.mirrors[s] = rig.mirror_at(s, f'{s}-mirror', {'sundog.engine': engine})
        for d in rig.daemons():
            start(d)
        rig.admins = {s: AdminClient({'bootstrap.servers': rig.bootstrap(s), 'log_level': 2}) for s in rig.sites}
        for s in rig.sites:
            make(rig, s, 'steady', 3)
        steady = Steady(rig)
        wait('each engine reads', 180, lambda: engines(rig) == {s: {e} for s, e in ENGINES.items()}, 0.5)
        topics = come_and_go(rig)
        changes = stop_and_pause(rig)
        steady.stop()
        for l, s in zip(steady.loads, rig.sites):
            other = next(x for x in rig.sites if x != s)
            wait(f'{s}.steady complete at {other}', 180,
                 lambda: sum(end_offsets(rig.bootstrap(other), f'{s}.steady').values()) == l.sent, 0.5)
        for d in rig.daemons():
            code = d.stop(120)
            assert code == 0, f'{d.name} ended with {code}: {d.tail(30)}'
        found = reports(rig)
        for path, text in found:
            sys.stderr.write(f'--- {path}\n{text[:6000]}\n')
        assert not found, f'{len(found)} daemons have reports'
        print(f'        {topics} topics came and went, {changes} stops and pauses, {sum(l.sent for l in steady.loads)} records')


if __name__ == '__main__':
    print(f'seed {SEED}', flush=True)
    sys.exit(run_cases([no_races_between_two_sites], sys.argv[1:]))
