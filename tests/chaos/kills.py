"""Kill -9 of any of the four daemons at random moments under load; the source changed while the mirror is away; the
target stopped while the mirror is killed; the store deleted; two daemons on one flow. Every record is compared, and each
case ends with the checker over its history."""
import ctypes, os, random, shutil, signal, sys, threading, time

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic
from records import Follower, Load, check_log, end_offsets, read_topic, same
from site_rig import Rig, run_cases, wait

SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
KILLS = int(os.environ.get('SUNDOG_KILLS', '20'))


def create(rig, site, topic, partitions=3, **config):
    admin = AdminClient({'bootstrap.servers': rig.bootstrap(site)})
    for f in admin.create_topics([NewTopic(topic, partitions, 1, config={k.replace('_', '.'): v for k, v in config.items()})]).values():
        f.result(20)


def mirrored(rig, source, target, topic, seconds=90):
    """Waits until the mirrored topic holds as much as the source's readers see, and stays there."""
    def probe():
        want = {p: len(r) for p, r in read_topic(rig.bootstrap(source), topic).items()}
        have = {p: len(r) for p, r in read_topic(rig.bootstrap(target), f'{source}.{topic}').items()}
        return want == have or None
    wait(f'{source}.{topic} complete at {target}', seconds, probe, 0.5)
    time.sleep(1)


def loading(rig, site, topic, writer):
    return Load(rig.bootstrap(site), topic, writer, history=rig.history, name=f'{site}/{topic}')


def drain(rig, site, topic):
    """The last reading of a topic, for the checker too."""
    return read_topic(rig.bootstrap(site), topic, history=rig.history, name=f'{site}/{topic}')


def drain_both(rig, source, target, topic, **mirror):
    rig.history.event('mirror', source=f'{source}/{topic}', target=f'{target}/{source}.{topic}', **mirror)
    return drain(rig, source, topic), drain(rig, target, f'{source}.{topic}')


def compare(rig, source, target, topic, load):
    a, b = drain_both(rig, source, target, topic)
    check_log(a, load.acked, load.writer, f'{source}/{topic}')
    same(a, b, f'{source}.{topic}')
    return sum(map(len, a.values()))


class Background:
    """Loads in both directions in threads of their own until stopped."""

    def __init__(self, *loads, rate=3000):
        self.loads, self.rate, self.end = loads, rate, threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(l,), daemon=True) for l in loads]
        for t in self.threads:
            t.start()

    def run(self, load):
        while not self.end.is_set():
            load.send(self.rate // 20)
            time.sleep(0.05)

    def stop(self):
        self.end.set()
        for t in self.threads:
            t.join()
        for l in self.loads:
            l.flush(90)


def kill_any_daemon_at_random_moments():
    rng = random.Random(SEED)
    with Rig() as rig:
        rig.start()
        create(rig, 'east', 'orders'), create(rig, 'west', 'bills')
        east, west = loading(rig, 'east', 'orders', 'e'), loading(rig, 'west', 'bills', 'w')
        follower = Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders')
        load = Background(east, west)
        time.sleep(2)
        names = []
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.2, 1.2))
            victim = rng.choice(rig.daemons())
            names.append(victim.name)
            victim.kill()
            time.sleep(rng.choice([0, 0.05, 0.5]))
            victim.start(seconds=30)
        load.stop()
        follower.stop()
        assert not east.failed and not west.failed, (east.failed, west.failed)
        mirrored(rig, 'east', 'west', 'orders'), mirrored(rig, 'west', 'east', 'bills')
        n = compare(rig, 'east', 'west', 'orders', east) + compare(rig, 'west', 'east', 'bills', west)
        print(f'{KILLS} kills ({", ".join(f"{names.count(x)} {x}" for x in sorted(set(names)))}), {n} records compared')
        print(rig.history.check())


def mirror_away(change, topic_config=None, after=None, broker=None):
    """The mirror at west is killed; `change` alters the world; it comes back; records are compared by `after`."""
    with Rig(flows=['east->west'], broker=broker) as rig:
        rig.start()
        create(rig, 'east', 'orders', **(topic_config or {}))
        load = loading(rig, 'east', 'orders', 'e')
        running = Background(load)
        time.sleep(3)
        rig.mirrors['west'].kill()
        time.sleep(0.5)
        change(rig)
        time.sleep(0.5)
        rig.mirrors['west'].start(seconds=30)
        time.sleep(2)
        running.stop()
        (after or (lambda r, l: (mirrored(r, 'east', 'west', 'orders'), compare(r, 'east', 'west', 'orders', l))))(rig, load)
        print(rig.history.check())


def store_deleted_while_the_mirror_is_down():
    mirror_away(lambda rig: shutil.rmtree(os.path.join(rig.dir, 'west-mirror.store')))


def target_stopped_while_the_mirror_is_killed():
    """SIGSTOP of the target's broker with requests under way; the mirror dies and starts; late requests arrive."""
    with Rig(flows=['east->west']) as rig:
        rig.start()
        create(rig, 'east', 'orders')
        load = loading(rig, 'east', 'orders', 'e')
        running = Background(load)
        for _ in range(3):
            time.sleep(1.5)
            rig.brokers['west'].signal(signal.SIGSTOP)
            time.sleep(0.4)
            rig.mirrors['west'].kill()
            rig.mirrors['west'].start(ready=False)
            time.sleep(1.5)
            rig.brokers['west'].signal(signal.SIGCONT)
        running.stop()
        mirrored(rig, 'east', 'west', 'orders')
        print(compare(rig, 'east', 'west', 'orders', load), 'records compared')
        print(rig.history.check())


def two_daemons_on_one_flow():
    """The second knows nothing of the first; both are killed and paused meanwhile."""
    rng = random.Random(SEED + 1)
    with Rig(flows=['east->west']) as rig:
        second = rig.mirror_at('west', 'west-mirror-2', flows=['east->west'])
        rig.mirrors['second'] = second
        rig.start()
        create(rig, 'east', 'orders')
        load = loading(rig, 'east', 'orders', 'e')
        running = Background(load)
        for _ in range(6):
            time.sleep(1)
            victim = rng.choice([rig.mirrors['west'], second])
            if rng.random() < 0.5:
                victim.kill()
                victim.start(seconds=30)
            else:
                victim.signal(signal.SIGSTOP)
                time.sleep(1.5)
                victim.signal(signal.SIGCONT)
        running.stop()
        mirrored(rig, 'east', 'west', 'orders')
        print(compare(rig, 'east', 'west', 'orders', load), 'records compared')
        print(rig.history.check())


def source_prefix_deleted_while_the_mirror_is_down():
    """DeleteRecords below the mirror's position: nothing is lost. (Past it is a gap: the ledger's test.)"""
    def change(rig):
        have = end_offsets(rig.bootstrap('west'), 'east.orders')
        admin = AdminClient({'bootstrap.servers': rig.bootstrap('east')})
        cut = [TopicPartition('orders', p, max(0, n // 2)) for p, n in have.items()]
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(cut))  # delete_records gives away a reference that it does not own
        for f in admin.delete_records(cut).values():
            f.result(20)
        for tp in cut:
            rig.history.event('delete', topic='east/orders', partition=tp.partition, to=tp.offset)

    def after(rig, load):
        def tail(log, n):
            return {p: r[len(r) - n[p]:] for p, r in log.items()}

        def probe():
            a = read_topic(rig.bootstrap('east'), 'orders')
            b = read_topic(rig.bootstrap('west'), 'east.orders')
            try:
                same(a, tail(b, {p: len(r) for p, r in a.items()}), 'orders from its log start')
                return True
            except AssertionError:
                return None
        wait('what the source still has stands at the end of the target', 90, probe, 1)
        check_log(drain_both(rig, 'east', 'west', 'orders')[1], load.acked, 'e', 'west/east.orders')
    mirror_away(change, after=after)


def source_compacted_while_the_mirror_is_down():
    """A compacted source shrinks behind the mirror's back: each key's last value arrives, nothing arrives twice."""
    def change(rig):
        time.sleep(6)  # the source's cleaner runs meanwhile

    def after(rig, load):
        def last(log):
            out = {}
            for p, records in log.items():
                for r in records:
                    out[p, r.key] = (r.timestamp, r.value, r.headers)
            return out

        def probe():
            a, b = last(read_topic(rig.bootstrap('east'), 'orders')), last(read_topic(rig.bootstrap('west'), 'east.orders'))
            return a == b or None
        wait('each key has the same last value at both sides', 90, probe, 1)
        time.sleep(1)
        for t in ('east/orders', 'west/east.orders'):
            rig.history.event('topic', topic=t, compact=True)
        source, target = drain_both(rig, 'east', 'west', 'orders')
        check_log(target, set(), 'e', 'west/east.orders')
        left = sum(map(len, source.values()))
        assert left < load.sent, f'the source still has all of its {left} records: nothing was compacted'
        print(f'{left} of {load.sent} records left at the source, {sum(map(len, target.values()))} at the target')
    mirror_away(change, {'cleanup_policy': 'compact', 'segment_ms': '1000', 'min_cleanable_dirty_ratio': '0.01',
                         'segment_bytes': '1048576', 'max_compaction_lag_ms': '1000'}, after,
                {'log.cleaner.backoff.ms': 500, 'log.flush.offset.checkpoint.interval.ms': 500})


if __name__ == '__main__':
    print(f'seed {SEED} (SUNDOG_SEED={SEED} tests/chaos/run)', flush=True)
    sys.exit(run_cases([kill_any_daemon_at_random_moments, store_deleted_while_the_mirror_is_down,
                        source_prefix_deleted_while_the_mirror_is_down, source_compacted_while_the_mirror_is_down,
                        target_stopped_while_the_mirror_is_killed, two_daemons_on_one_flow], sys.argv[1:]))
