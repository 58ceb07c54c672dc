"""Daemons of an earlier revision are replaced by today's, one after another, while producers and a group go on: what they left
on disk (logs, metadata log, store) and in topics (progress, checkpoints, group offsets) is taken over, record by record."""
import os, random, sys, threading, time

from confluent_kafka import Consumer, TopicPartition
import site_rig
from kills import create, mirrored
from records import Load, check_log, read_topic, same
from site_rig import Rig, run_cases, wait

OLD, NEW = os.environ['SUNDOG_OLD_BIN'], site_rig.BIN
SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
ASKED = 60  # offsets translated, of each partition
TOPICS = {'east': 'orders', 'west': 'payments'}


class Busy(threading.Thread):
    """Produces to a site's topic without end, whatever its broker does."""

    def __init__(self, rig, site):
        super().__init__(daemon=True)
        self.load, self.over = Load(rig.bootstrap(site), TOPICS[site], f'{site}-writer'), threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.02):
            self.load.send(40)

    def stop(self):
        self.over.set()
        self.join()
        self.load.flush()
        assert not self.load.failed, self.load.failed
        return self.load.acked


def commit(rig, site, group, rng):
    """The group commits somewhere in its site's topic."""
    c = Consumer({'bootstrap.servers': rig.bootstrap(site), 'group.id': group, 'enable.auto.commit': False, 'log_level': 2})
    try:
        at = {p: rng.randint(1, c.get_watermark_offsets(TopicPartition(TOPICS[site], p), 10)[1]) for p in range(3)}
        c.commit(offsets=[TopicPartition(TOPICS[site], p, o) for p, o in at.items()], asynchronous=False)
        return at
    finally:
        c.close()


def replace(rig, daemon, bin, kill):
    """`daemon` goes, the same of `bin` comes."""
    daemon.kill() if kill else daemon.stop()
    site_rig.BIN = bin
    daemon.start(seconds=30)
    time.sleep(1.5)  # under load, beside neighbours of the other revision


def where(records, offset, end):
    """What an exact translation answers: the place of the first record from `offset` on."""
    return next((b for a, b in records if a >= offset), end)


def exact(rig, source, target, logs, rng):
    """Random offsets, of before and after, against what was read; how many the map knew exactly."""
    a, b = logs
    for p in a:
        pairs = [(x.offset, y.offset) for x, y in zip(a[p], b[p])]
        end = b[p][-1].offset + 1
        for _ in range(ASKED):
            o = rng.randint(0, a[p][-1].offset + 1)
            t = rig.cli_json('translate', '--store', f'{target}-mirror.store', '--flow', f'{source}->{target}', '--topic', TOPICS[source],
                             '--partition', str(p), '--offset', str(o))
            assert t['state'] == 'exact' and t['offset'] == where(pairs, o, end), f'{TOPICS[source]}-{p} at {o}: {t}, not {where(pairs, o, end)}'


def applied(rig, source, target, group, at, logs):
    """The group's offsets stand at the target where its next records stand."""
    there = f'{source}.{TOPICS[source]}'
    c = Consumer({'bootstrap.servers': rig.bootstrap(target), 'group.id': group, 'enable.auto.commit': False, 'log_level': 2})
    want = {p: where([(x.offset, y.offset) for x, y in zip(logs[0][p], logs[1][p])], o, logs[1][p][-1].offset + 1) for p, o in at.items()}
    try:
        wait(f'{group} stands at {target} at {want}', 30,
             lambda: {t.partition: t.offset for t in c.committed([TopicPartition(there, p) for p in want], 10)} == want, 0.3)
    finally:
        c.close()


def rolled(rig, rng, order, bin, kill):
    for daemon in order:
        replace(rig, daemon, bin, kill and rng.random() < 0.5)


def story(kill, back):
    rng = random.Random(f'{SEED}{kill}{back}')
    print(f'SUNDOG_SEED={SEED}', flush=True)
    site_rig.BIN = OLD
    with Rig() as rig:
        rig.start()
        for site, topic in TOPICS.items():
            create(rig, site, topic)
        busy = {site: Busy(rig, site) for site in TOPICS}
        time.sleep(3)
        before = {site: commit(rig, site, f'{site}-early', rng) for site in TOPICS}
        time.sleep(2)  # applied by the old ones
        order = rig.daemons()
        rng.shuffle(order)
        rolled(rig, rng, order, NEW, kill)
        if back:
            rolled(rig, rng, order, OLD, kill)
            rolled(rig, rng, order, NEW, kill)
        after = {site: commit(rig, site, f'{site}-late', rng) for site in TOPICS}
        acked = {site: b.stop() for site, b in busy.items()}
        for source, target in (('east', 'west'), ('west', 'east')):
            topic = TOPICS[source]
            mirrored(rig, source, target, topic)
            logs = read_topic(rig.bootstrap(source), topic), read_topic(rig.bootstrap(target), f'{source}.{topic}')
            check_log(logs[0], acked[source], f'{source}-writer', topic)
            same(*logs, topic)
            exact(rig, source, target, logs, rng)
            applied(rig, source, target, f'{source}-early', before[source], logs)
            applied(rig, source, target, f'{source}-late', after[source], logs)
        for d in rig.daemons():
            assert d.stop() == 0, d.name


def daemons_are_replaced_in_turn():
    story(kill=False, back=False)


def some_are_killed():
    story(kill=True, back=False)


def and_back_and_forth():
    """An operator who goes back to the earlier revision and tries again."""
    story(kill=True, back=True)


CASES = [daemons_are_replaced_in_turn, some_are_killed, and_back_and_forth]

if __name__ == '__main__':
    sys.exit(run_cases(CASES, sys.argv[1:]))
