"""Kill -9 of any of the four daemons at random moments under load; the source changed while the mirror is away; the
target stopped while the mirror is killed; the store deleted; two daemons on one flow. Every record is compared, and each
case ends with the checker over its history."""
import os, random, shutil, signal, sys, threading, time

from confluent_kafka.admin import AdminClient, NewTopic
from history import now
from members import Group, Impatient, Refused, Watch
from mirror_facts import Asked, look
from records import Follower, Load, check_log, end_offsets, held, read_topic, same
from site_rig import Rig, run_cases, wait
from wire import Wire

SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
KILLS = int(os.environ.get('SUNDOG_KILLS', '20'))
QUICK_SESSIONS = {'group.min.session.timeout.ms': 500}
# What a case must have given the checker to judge: of a log, of a mirror, of a group, of translations.
LOG = 'K1 K2 K3 K4 K6 K7 K8 K10 K13.low K13.high K15'
WATCHED = LOG + ' K13.stable K13.epoch'
MIRROR = 'R1 R2 R3 R4.content R4.partition R7'
MAP = 'R5.skip R5.again R6 R9'
GROUP = 'K12.back K12.last K14'


def create(rig, site, topic, partitions=3, **config):
    admin = AdminClient({'bootstrap.servers': rig.bootstrap(site)})
    for f in admin.create_topics([NewTopic(topic, partitions, 1, config={k.replace('_', '.'): v for k, v in config.items()})]).values():
        f.result(60)


def mirrored(rig, source, target, topic, seconds=180, still=1):
    """Waits until the mirrored topic holds as many offsets as the source, and `still` seconds more for what would come twice. Which
    records they are is the caller's to compare: reading both topics only to count them takes longer than all else here."""
    def probe():
        want, have = held(rig.bootstrap(source), topic), held(rig.bootstrap(target), f'{source}.{topic}')
        assert have == want, f'{have} instead of {want}'
        return True
    wait(f'{source}.{topic} complete at {target}', seconds, probe, 0.2)
    time.sleep(still)


def loading(rig, site, topic, writer):
    return Load(rig.bootstrap(site), topic, writer, history=rig.history, name=f'{site}/{topic}')


def drain(rig, site, topic):
    """The last reading of a topic, for the checker too."""
    return read_topic(rig.bootstrap(site), topic, history=rig.history, name=f'{site}/{topic}', clean=cleaned(rig, site, topic))


def cleaned(rig, site, topic):
    """{partition: offset below which the cleaner has been}, as the broker's own file says."""
    path = os.path.join(rig.dir, site, 'data', 'cleaner-offset-checkpoint')
    rows = [line.split() for line in open(path)] if os.path.exists(path) else []
    return {int(r[1]): int(r[2]) for r in rows if len(r) == 3 and r[0] == topic}


def drain_both(rig, source, target, topic, **mirror):
    rig.history.event('mirror', source=f'{source}/{topic}', target=f'{target}/{source}.{topic}', keep=True, **mirror)
    return drain(rig, source, topic), drain(rig, target, f'{source}.{topic}')


def compare(rig, source, target, topic, load, **mirror):
    a, b = drain_both(rig, source, target, topic, **mirror)
    check_log(a, load.acked, load.writer, f'{source}/{topic}')
    same(a, b, f'{source}.{topic}')
    return sum(map(len, a.values()))


def strays(rig):
    """Drains what is at neither side by anybody's wish but there: topics that a loop or a wrong name has made."""
    told = set(rig.history.topics)
    for site in rig.sites:
        for t in rig.cli_json('--bootstrap', rig.bootstrap(site), 'topic', 'list')['topics']:
            name = f'{site}/{t["topic"]}'
            if not t['internal'] and not t['topic'].endswith(('heartbeats', '.internal')) and name not in told:
                print(f'{name} is there too')
                drain(rig, site, t['topic'])


def delete_records(rig, site, topic, offsets):
    for p, o in offsets.items():
        rig.history.event('delete', topic=f'{site}/{topic}', partition=p, to=o)
    with Wire(rig.bootstrap(site)) as w:
        done = w.delete_records(topic, offsets)
    assert done == {p: (o, 0) for p, o in offsets.items()}, done


def with_a_past(rig, site, topic):
    """A topic whose log does not start at 0, so that no offset is at a mirror what it is here."""
    create(rig, site, topic)
    old = loading(rig, site, topic, f'old-{topic}')
    old.send(600), old.flush()
    delete_records(rig, site, topic, {p: n * (p + 1) // 4 for p, n in end_offsets(rig.bootstrap(site), topic).items()})


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
            l.flush(180)


def kill_any_daemon_at_random_moments(broker=None, kills=KILLS):
    rng = random.Random(SEED)
    with Rig(broker={**QUICK_SESSIONS, **(broker or {})}) as rig:
        for b in rig.brokers.values():
            b.start()
        with_a_past(rig, 'east', 'orders'), with_a_past(rig, 'west', 'bills')
        for m in rig.mirrors.values():
            m.start()
        east, west = loading(rig, 'east', 'orders', 'e'), loading(rig, 'west', 'bills', 'w')
        followers = [Follower(rig.bootstrap(s), t, rig.history, f'{s}/{t}')
                     for s, t in (('east', 'orders'), ('west', 'east.orders'), ('east', 'west.bills'))]
        watches = [Watch(rig, 'east', 'orders'), Watch(rig, 'west', 'east.orders')]
        others = [Impatient(rig, 'east', 'orders', 1, 'impatient', SEED), Refused(rig, 'east', 'orders', 3, 'refused')]
        wait('the watch sees the topic', 20, lambda: len(watches[0].ends()) == 3)
        group = Group(rig, 'east', 'readers', 'orders', 3, watches[0].ends, SEED)
        asked = Asked(rig, 'east', 'west', 'orders', watches[0].ends, SEED, 'readers')
        load = Background(east, west)
        time.sleep(2)
        names = []
        for _ in range(kills):
            time.sleep(rng.uniform(0.2, 1.2))
            victim = rng.choice(rig.daemons())
            names.append(victim.name)
            victim.kill()
            time.sleep(rng.choice([0, 0.05, 0.5]))
            victim.start(seconds=60)
        load.stop()
        for x in others:
            x.stop()
        committed = group.stop()
        assert not east.failed and not west.failed, (east.failed, west.failed)
        mirrored(rig, 'east', 'west', 'orders'), mirrored(rig, 'west', 'east', 'bills')
        checkpoints = asked.settled(committed)
        for x in (asked, *watches, *followers):
            x.stop()
        n = compare(rig, 'east', 'west', 'orders', east, gaps=True) + compare(rig, 'west', 'east', 'bills', west, gaps=True)
        strays(rig)
        print(f'{kills} kills ({", ".join(f"{names.count(x)} {x}" for x in sorted(set(names)))}), {n} records compared, '
              f'{others[0].again} batches sent again, {group.made} members, {checkpoints} checkpoints, {asked.answers} translations')
        print(rig.history.check(f'{WATCHED} K5 {MIRROR} {MAP} {GROUP}' + (' K12.generation' if kills >= 10 else '')))


COMPACTED = 'K3 K4 K6 K8 K10 K13.low K13.high K15 K18.last K18.clean R1 R2 R3 R4.content R4.partition R7 R5.skip R6 R9'


def a_group_moves_when_its_site_dies():
    """Read at the source, committed, and moved to the target by `sundog failover` with the source dead: nothing is read twice, nothing
    is left out, also of what arrives when the source is back."""
    with Rig(flows=['east->west']) as rig:
        rig.brokers['east'].start(), rig.brokers['west'].start()
        with_a_past(rig, 'east', 'orders')
        rig.mirrors['west'].start()
        load = loading(rig, 'east', 'orders', 'e')
        watch = Watch(rig, 'east', 'orders')
        shop = Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders', group='shop')
        running = Background(load)
        asked = Asked(rig, 'east', 'west', 'orders', watch.ends, SEED, 'shop')
        time.sleep(3)
        wait('the group reads every partition', 30, lambda: len(shop.at) == 3)
        shop.stop()
        commit(rig, 'east', 'shop', 'orders', shop.at)
        asked.settled(shop.at)
        rig.brokers['east'].kill()
        moved = rig.cli_json('-c', 'west-mirror.properties', 'failover', '--to', 'west', '--group', 'shop')
        rig.history.event('failover', group='shop', target='west/east.orders', bound=0)
        start = wait('what is committed at west', 30, lambda: look(rig, 'west', 'shop', 'east.orders', shop.at))
        assert start == {r['partition']: r['to'] for r in moved['partitions']} and len(start) == 3, (start, moved)
        there = Follower(rig.bootstrap('west'), 'east.orders', rig.history, 'west/east.orders', start, 'shop')
        rig.brokers['east'].start(seconds=60)
        running.stop()
        mirrored(rig, 'east', 'west', 'orders')
        wait('the group reads on to the end', 60, lambda: there.at == end_offsets(rig.bootstrap('west'), 'east.orders'))
        for x in (asked, watch, there):
            x.stop()
        print(compare(rig, 'east', 'west', 'orders', load, gaps=True), f'records compared, {shop.read} read before, {there.read} after')
        print(rig.history.check(f'{WATCHED} {MIRROR} {MAP} R8'))


def commit(rig, site, group, topic, offsets):
    """Of a group without members."""
    with Wire(rig.bootstrap(site)) as w:
        wait(f'the group {group} at {site}', 60, lambda: w.find(group) == 0)
        wait(f'the group {group} has a home', 60, lambda: not w.committed(group, topic, offsets)[0])
        for p, o in offsets.items():
            t0 = now()
            error = w.commit(group, -1, '', topic, {p: o})[p]
            rig.history.event('commit', group=group, topic=f'{site}/{topic}', partition=p, t0=t0, t1=now(), offset=o, err=error)
            assert error == 0, (p, o, error)


def kill_any_daemon_in_page_cache_mode():
    """A process that dies takes nothing along: the next one believes the page cache (broker/log/kept.h)."""
    kill_any_daemon_at_random_moments({'sundog.flush.before.ack': 'false'}, max(KILLS // 5, 4))


def mirror_away(change, topic_config=None, after=None, broker=None, must=f'{WATCHED} {MIRROR} {MAP}'):
    """The mirror at west is killed; `change` alters the world; it comes back; records are compared by `after`."""
    with Rig(flows=['east->west'], broker=broker) as rig:
        rig.start()
        create(rig, 'east', 'orders', **(topic_config or {}))
        load = loading(rig, 'east', 'orders', 'e')
        watch, follower = Watch(rig, 'east', 'orders'), Follower(rig.bootstrap('west'), 'east.orders', rig.history, 'west/east.orders')
        asked = Asked(rig, 'east', 'west', 'orders', watch.ends, SEED)
        running = Background(load)
        time.sleep(3)
        wait('each partition is mirrored', 60, lambda: min(end_offsets(rig.bootstrap('west'), 'east.orders').values()) > 50)
        rig.mirrors['west'].kill()
        time.sleep(0.5)
        change(rig)
        time.sleep(0.5)
        rig.mirrors['west'].start(seconds=60)
        time.sleep(2)
        running.stop()
        (after or (lambda r, l: (mirrored(r, 'east', 'west', 'orders'), compare(r, 'east', 'west', 'orders', l))))(rig, load)
        for x in (asked, follower, watch):
            x.stop()
        print(rig.history.check(must))


def store_deleted_while_the_mirror_is_down():
    mirror_away(lambda rig: shutil.rmtree(os.path.join(rig.dir, 'west-mirror.store')))


def target_stopped_while_the_mirror_is_killed():
    """SIGSTOP of the target's broker with requests under way; the mirror dies and starts; late requests arrive."""
    with Rig(flows=['east->west']) as rig:
        rig.start()
        create(rig, 'east', 'orders')
        load = loading(rig, 'east', 'orders', 'e')
        watch, follower = Watch(rig, 'east', 'orders'), Follower(rig.bootstrap('west'), 'east.orders', rig.history, 'west/east.orders')
        asked = Asked(rig, 'east', 'west', 'orders', watch.ends, SEED)
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
        for x in (asked, follower, watch):
            x.stop()
        print(rig.history.check(f'{WATCHED} {MIRROR} {MAP}'))


def two_daemons_on_one_flow():
    """The second knows nothing of the first; both are killed and paused meanwhile."""
    rng = random.Random(SEED + 1)
    with Rig(flows=['east->west']) as rig:
        second = rig.mirror_at('west', 'west-mirror-2', flows=['east->west'])
        rig.mirrors['second'] = second
        rig.start()
        create(rig, 'east', 'orders')
        load = loading(rig, 'east', 'orders', 'e')
        watch, follower = Watch(rig, 'east', 'orders'), Follower(rig.bootstrap('west'), 'east.orders', rig.history, 'west/east.orders')
        asked = [Asked(rig, 'east', 'west', 'orders', watch.ends, SEED, store=s) for s in ('west-mirror.store', 'west-mirror-2.store')]
        running = Background(load)
        for _ in range(6):
            time.sleep(1)
            victim = rng.choice([rig.mirrors['west'], second])
            if rng.random() < 0.5:
                victim.kill()
                victim.start(seconds=60)
            else:
                victim.signal(signal.SIGSTOP)
                time.sleep(1.5)
                victim.signal(signal.SIGCONT)
        running.stop()
        mirrored(rig, 'east', 'west', 'orders')
        print(compare(rig, 'east', 'west', 'orders', load), 'records compared')
        for x in (*asked, follower, watch):
            x.stop()
        print(rig.history.check(f'{WATCHED} {MIRROR} {MAP}'))


def source_prefix_deleted_while_the_mirror_is_down():
    """DeleteRecords below the mirror's position: nothing is lost. (Past it is a gap: the ledger's test.)"""
    def change(rig):
        have = end_offsets(rig.bootstrap('west'), 'east.orders')
        delete_records(rig, 'east', 'orders', {p: max(0, n // 2) for p, n in have.items()})

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
        ends = end_offsets(rig.bootstrap('east'), 'orders')  # the mirror has not read more than that
        wait('the cleaner passes the mirror', 60, lambda: all(cleaned(rig, 'east', 'orders').get(p, 0) >= n for p, n in ends.items()), 0.2)

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
                {'log.cleaner.backoff.ms': 500, 'log.flush.offset.checkpoint.interval.ms': 500}, COMPACTED)


if __name__ == '__main__':
    print(f'seed {SEED} (SUNDOG_SEED={SEED} tests/chaos/run)', flush=True)
    os.environ['SUNDOG_SEED'] = str(SEED)  # of the processes that run the cases, two at a time: they wait more than they work
    sys.exit(run_cases([kill_any_daemon_at_random_moments, kill_any_daemon_in_page_cache_mode, a_group_moves_when_its_site_dies, store_deleted_while_the_mirror_is_down,
                        source_prefix_deleted_while_the_mirror_is_down, source_compacted_while_the_mirror_is_down,
                        target_stopped_while_the_mirror_is_killed, two_daemons_on_one_flow], sys.argv[1:], jobs=2))
