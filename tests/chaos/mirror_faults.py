"""What happens to a mirror's source and target besides crashes: retention overtakes it, topics are deleted and made again, strangers
write, the target is cut short, partitions are added. Nothing may be lost but what is told, nothing doubled, nothing silent:
each record that was acknowledged at the source stands at the target, or in a gap of the ledger, never in both."""
import os, random, shutil, signal, sys, time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from kills import Background, commit, create, delete_records
from records import Load, check_log, end_offsets, parse, read_topic, same
from site_rig import Rig, run_cases, wait
from wire import Wire

SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
ONE_WAY = {'flows': ['east->west']}
RETAINED = 2 << 20
RECORD = {'sundog.on.log.start': 'record-and-continue', 'sundog.on.new.incarnation': 'record-and-continue'}


class Placed(Load):
    """A load that remembers where each acknowledged record stands: at[sequence] = (partition, offset)."""

    def __init__(self, rig, topic, writer, size=200):
        super().__init__(rig.bootstrap('east'), topic, writer, size)
        self.at = {}

    def answered(self, seq, e, m):
        super().answered(seq, e, m)
        if e is None:
            self.at[seq] = m.partition(), m.offset()


# ---- what the mirror says ----

def rows(rig, topic='orders'):
    return {p['partition']: p for p in rig.mirrors['west'].status()['flows'][0]['partitions'] if p['topic'] == topic}


def halted(rig, topic='orders', words=(), seconds=60):
    """Waits until every partition of the topic has halted for the operator, each with a reason that has these words."""
    def probe():
        found = rows(rig, topic)
        return found if found and all(p['state'] == 'halted' for p in found.values()) else None
    found = wait(f'{topic} halts', seconds, probe, 0.1)
    for p in found.values():
        assert all(w in p['reason'] for w in words), f'the reason {p["reason"]!r} does not say {words}'
    text = rig.cli('-c', 'west-mirror.properties', 'status').stdout
    assert all(w in text for w in words), text
    return found


def running(rig, topic='orders', partitions=None, seconds=60):
    def probe():
        found = rows(rig, topic)
        return found if found and len(found) == (partitions or len(found)) and all(p['state'] in ('mirroring', 'caught up') for p in found.values()) else None
    return wait(f'{topic} is mirrored', seconds, probe, 0.1)


def ledger(rig, kind=None):
    return [e for e in rig.cli_json('dump', 'store', 'west-mirror.store')['ledger'] if kind in (None, e['kind'])]


def in_ledger(rig, n, kind=None):
    """The same when it has n entries: the store's next commit has them, the status page shows at once what they say."""
    wait(f'{n} entries in the ledger', 30, lambda: len(ledger(rig, kind)) >= n, 0.1)
    return ledger(rig, kind)


def counted(rig, kind):
    """What /metrics has of it."""
    lines = [l for l in rig.mirrors['west'].http('/metrics')[1].split('\n') if l.startswith('sundog_mirror_ledger_total') and f'kind="{kind}"' in l]
    return sum(float(l.split()[-1]) for l in lines)


def restart(rig, seconds=60, **options):
    rig.mirrors['west'].kill()
    rig.mirrors['west'].start(seconds=seconds, extra=[f'{k}={v}' for k, v in options.items()])


def translate(rig, p, offset, topic='orders'):
    """As the store tells it, whose next commit has what has only just arrived."""
    def probe():
        t = asked(rig, p, offset, topic)
        return t if t['state'] == 'exact' else None
    return wait(f'the translation of {topic}-{p} {offset} is exact', 30, probe, 0.2)


def asked(rig, p, offset, topic):
    return rig.cli_json('translate', '--store', 'west-mirror.store', '--flow', 'east->west', '--topic', topic, '--partition', str(p), '--offset', str(offset))


# ---- what is where ----

def places(log, writer):
    """{sequence: (partition, offset)} of one writer's records; each once."""
    out = {}
    for p, records in log.items():
        for r in records:
            w, seq = parse(r.key, r.value)
            if w == writer:
                assert seq not in out, f'record {seq} of {writer} twice: {out[seq]} and {p}:{r.offset}'
                out[seq] = p, r.offset
    return out


def arrived(rig, load, topic='orders', seconds=60, but=()):
    """Waits until all that was acknowledged stands at the target (but for these sequences)."""
    def probe():
        there = places(read_topic(rig.bootstrap('west'), f'east.{topic}'), load.writer)
        lack = load.acked - set(but) - set(there)
        assert not lack, f'{len(lack)} are not there: {sorted((s, load.at[s]) for s in lack)[:3]}'
        return there
    return wait(f'all of {load.writer} at east.{topic}', seconds, probe, 0.3)


def settled(rig, topic, seconds=2):
    """Its ends, when they have not changed for so long under load."""
    def probe():
        before = end_offsets(rig.bootstrap('west'), topic)
        time.sleep(seconds)
        return (before,) if end_offsets(rig.bootstrap('west'), topic) == before else None
    return wait(f'nothing more comes to {topic}', 20, probe, 0)[0]


def nothing_more_comes(rig, before, topic='orders', seconds=2):
    time.sleep(seconds)
    now = end_offsets(rig.bootstrap('west'), f'east.{topic}')
    assert now == before, f'east.{topic} has grown from {before} to {now}'


# ---- cases ----

def starts(rig, topic):
    with Wire(rig.bootstrap('east')) as w:
        return w.starts(topic, list(end_offsets(rig.bootstrap('east'), topic)))


def overtake(rig, load, bytes):
    """Writes so much that retention at the source deletes what the mirror has not read; the new log starts."""
    before, first = end_offsets(rig.bootstrap('east'), load.topic), load.sent
    while (load.sent - first) * load.size < bytes:
        load.send(200)
        time.sleep(0.01)
    load.flush()

    def probe():
        now = starts(rig, load.topic)
        time.sleep(0.8)  # two rounds of retention
        return now if all(now[p] > before[p] for p in before) and not surplus(rig, load) and now == starts(rig, load.topic) else None
    return wait('retention at the source passes the mirror', 60, probe, 0)


def surplus(rig, load):
    """Partitions of which retention has more to delete for certain: without their first segment they still hold RETAINED bytes."""
    found = []
    for p, end in end_offsets(rig.bootstrap('east'), load.topic).items():
        files = os.listdir(os.path.join(rig.dir, 'east', 'data', f'{load.topic}-{p}'))
        bases = sorted(int(f[:-4]) for f in files if f.endswith('.log'))
        if len(bases) > 1 and (end - bases[1]) * load.size >= RETAINED:
            found.append(p)
    return found


def told_or_there(rig, load):
    """Each acknowledged record stands at the target or in a gap of the ledger, none in both; the gaps. Then translation: a
    position in or behind a gap is that of the first record at the target that is not before it, exactly."""
    def probe():
        gaps = [(g['partition'], g['from'], g['from'] + g['count']) for g in ledger(rig, 'gap') if g['topic'] == load.topic]
        missing = {s for s, (p, o) in load.at.items() if any(q == p and a <= o < b for q, a, b in gaps)}
        there = places(read_topic(rig.bootstrap('west'), f'east.{load.topic}'), load.writer)
        lack = load.acked - missing - set(there)
        assert not lack, f'{len(lack)} are neither there nor told: {sorted((s, load.at[s]) for s in lack)[:3]}'
        return gaps, missing, there
    gaps, missing, there = wait(f'all of {load.writer} is there or told', 60, probe, 0.3)
    both = missing & set(there)
    assert not both, f'{len(both)} records stand in a gap and at the target, first {load.at[min(both)]}'
    assert len(there) + len(missing) == len(load.acked), (len(there), len(missing), len(load.acked))
    stands = sorted((load.at[s], there[s][1]) for s in there)
    for p, a, b in gaps:
        for o in (a, (a + b) // 2, b - 1, b, b + 7, max(0, a - 1)):
            want = min(t for (q, off), t in stands if q == p and off >= o)
            got = translate(rig, p, o, load.topic)
            assert (got['partition'], got['offset'], got['reread'], got['state']) == (p, want, 0, 'exact'), (p, o, got, want)
    return gaps, there


def retention_overtakes_the_mirror():
    """First a mirror that stands still, whose policy is to halt; then one that is down, whose policy is to go on. A group has
    committed in the gap."""
    keep = {'config.properties.exclude': 'retention.*'}  # at the target nothing is deleted
    with Rig(**ONE_WAY, mirror=keep, broker={'log.retention.check.interval.ms': 300, 'log.segment.delete.delay.ms': 100}) as rig:
        rig.start()
        create(rig, 'east', 'orders', 2, retention_bytes=str(RETAINED), segment_bytes='1048576')
        create(rig, 'east', 'calm', 1)
        load, calm = Placed(rig, 'orders', 'o', 4000), Placed(rig, 'calm', 'c')
        load.send(400), load.flush(), calm.send(100), calm.flush()
        arrived(rig, load), arrived(rig, calm, 'calm')
        west = rig.mirrors['west']
        west.freeze()
        low = overtake(rig, load, 12 << 20)
        west.signal(signal.SIGCONT)
        found = halted(rig, words=['deleted before they were mirrored', 'sundog.on.log.start'])
        gaps = in_ledger(rig, 2, 'gap')
        ends = end_offsets(rig.bootstrap('west'), 'east.orders')  # more than before: answers lay in the mirror's sockets
        assert sorted((g['partition'], g['from'], g['from'] + g['count']) for g in gaps) == [(p, ends[p], low[p]) for p in sorted(low)], (gaps, ends, low)
        wait('both are counted', 10, lambda: min(counted(rig, 'gap'), counted(rig, 'halted')) >= 2)
        assert counted(rig, 'gap') == counted(rig, 'halted') == 2
        assert all(str(ends[p]) in found[p]['reason'] and str(low[p] - 1) in found[p]['reason'] for p in low), found
        nothing_more_comes(rig, ends)
        calm.send(100), calm.flush(), arrived(rig, calm, 'calm')
        wait('the lag is that of what is left behind', 60, lambda: all(p['lag_records'] == p['source_end'] - ends[q] > 0 for q, p in rows(rig).items()), 0.2)
        restart(rig)
        halted(rig, words=['deleted before they were mirrored'])
        nothing_more_comes(rig, ends, seconds=1)
        commit(rig, 'east', 'shop', 'orders', {p: (ends[p] + low[p]) // 2 for p in low})
        restart(rig, **RECORD)
        running(rig)
        load.send(100), load.flush()
        told_or_there(rig, load)
        rig.mirrors['west'].kill()
        overtake(rig, load, 12 << 20)
        restart(rig, **RECORD)
        wait('the second gap is told', 60, lambda: {g['partition'] for g in ledger(rig, 'gap') if g['from'] > low[g['partition']]} == set(low))
        gaps, there = told_or_there(rig, load)
        stands = {p: min(t for s, (q, t) in there.items() if q == p and load.at[s][1] >= low[p]) for p in low}
        wait(f'the group stands behind the first gap: {stands}', 60, lambda: committed(rig, 'shop') == stands)
        lost = sum(b - a for a, b in {(p, b): (a, b) for p, a, b in gaps}.values())
        print(f'{len(load.acked)} records, {lost} of them in {len(gaps)} gaps')


def committed(rig, group, topic='orders'):
    c = Consumer({'bootstrap.servers': rig.bootstrap('west'), 'group.id': group, 'log_level': 2})
    out = {tp.partition: tp.offset for tp in c.committed([TopicPartition(f'east.{topic}', p) for p in end_offsets(rig.bootstrap('west'), f'east.{topic}')], timeout=10)}
    c.close()
    return out


def remake(rig, topic='orders', partitions=2):
    """Deletes the topic at the source and makes it again: another topic of that name."""
    delete_topic(rig, 'east', topic)

    def probe():
        create(rig, 'east', topic, partitions)
        return True
    wait(f'{topic} is made again', 60, probe, 0.2)


def written(rig, topic, writer, n=500):
    load = Placed(rig, topic, writer)
    load.send(n), load.flush()
    return load


def follow_each_other(rig, *writers):
    """In each partition at the target first all of the first writer's records in their order, then all of the second's, …"""
    log = read_topic(rig.bootstrap('west'), 'east.orders')
    for p, records in log.items():
        seen = [parse(r.key, r.value) for r in records]
        assert seen == sorted(seen, key=lambda x: (writers.index(x[0]), x[1])), f'partition {p} is mixed: {seen[:5]} …'
    return log


def source_topic_is_made_again():
    """Under a mirror that halts, under one that goes on, and while it is down. The second time the mirror stands still meanwhile:
    it had not read all, and finds a longer log than it knows, where its own position means something else; the third time
    there is one partition more. It looks for topics every 10 minutes: what it reads is all that tells it."""
    with Rig(**ONE_WAY, mirror={'refresh.topics.interval.seconds': 600}) as rig:
        west = rig.mirrors['west']
        for b in rig.brokers.values():
            b.start()
        create(rig, 'east', 'orders', 2)
        west.start()
        a = written(rig, 'orders', 'a')
        arrived(rig, a)
        ends = end_offsets(rig.bootstrap('west'), 'east.orders')
        remake(rig)
        b = written(rig, 'orders', 'b')
        halted(rig, words=['created again', 'sundog.on.new.incarnation'])
        assert [e['kind'] for e in in_ledger(rig, 1)] == ['new incarnation'] and counted(rig, 'new incarnation') == 1, ledger(rig)
        nothing_more_comes(rig, ends, seconds=1)
        restart(rig)
        wait('halted after a restart', 60, lambda: 'created again' in rig.cli('-c', 'west-mirror.properties', 'status').stdout, 0.1)
        nothing_more_comes(rig, ends, seconds=1)
        restart(rig, **RECORD)
        arrived(rig, b), running(rig)
        west.freeze()
        unread = written(rig, 'orders', 'unread', 100)
        remake(rig)
        c = written(rig, 'orders', 'c', 2000)
        time.sleep(1)
        west.signal(signal.SIGCONT)
        arrived(rig, c)
        west.kill()
        remake(rig, partitions=3)
        d = written(rig, 'orders', 'd', 3000)
        restart(rig, **RECORD)
        there = arrived(rig, d)
        running(rig, partitions=3)
        follow_each_other(rig, 'a', 'b', 'unread', 'c', 'd')
        assert all(e['kind'] == 'new incarnation' for e in ledger(rig)), ledger(rig)
        for s in random.Random(SEED).sample(sorted(d.at), 60):
            t = translate(rig, *d.at[s])
            assert (t['partition'], t['offset'], t['state']) == (*there[s], 'exact'), (d.at[s], t, there[s])
        commit(rig, 'east', 'shop', 'orders', {p: o for p, o in d.at.values()})
        want = {p: there[s][1] for s, (p, o) in sorted(d.at.items())}
        wait(f'the group stands at {want}', 60, lambda: committed(rig, 'shop') == want)
        print(f'{[len(x.acked) for x in (a, b, unread, c, d)]} records of four topics of one name')


def delete_topic(rig, site, topic):
    admin = AdminClient({'bootstrap.servers': rig.bootstrap(site)})
    for f in admin.delete_topics([topic]).values():
        f.result(60)


def target_topic_is_deleted():
    """Under load: what stood there is gone, and beginning again in the middle would pass it over in silence. The topic halts and says
    so, also after a restart; others go on. (Where Produce goes by name the topic that is made anew may take the requests under
    way, five at a partition.)"""
    with Rig(**ONE_WAY) as rig:
        rig.start()
        create(rig, 'east', 'orders', 2), create(rig, 'east', 'calm', 1)
        load, calm = Placed(rig, 'orders', 'o'), Placed(rig, 'calm', 'c')
        writing = Background(load, rate=1000)
        wait('some have arrived', 60, lambda: sum(end_offsets(rig.bootstrap('west'), 'east.orders').values()) > 500)
        delete_topic(rig, 'west', 'east.orders')
        halted(rig, words=['east.orders', 'target topic recreated'])
        assert len(in_ledger(rig, 2, 'halted')) == counted(rig, 'halted') == 2, ledger(rig)
        time.sleep(3)
        ends = settled(rig, 'east.orders')
        places(read_topic(rig.bootstrap('west'), 'east.orders'), 'o')
        calm.send(100), calm.flush(), arrived(rig, calm, 'calm')
        restart(rig)
        halted(rig, words=['east.orders', 'target topic recreated'])
        nothing_more_comes(rig, ends, seconds=1)
        writing.stop()
        wait('the lag is told', 60, lambda: sum(p['lag_records'] for p in rows(rig).values()) == load.sent - sum(p['position'] for p in rows(rig).values()) > 0)


def target_is_cut_short():
    """DeleteRecords at the target up to its end: under load, while the mirror is down, and with the store lost. Whatever was deleted
    there is not written again, and what follows arrives once."""
    with Rig(**ONE_WAY) as rig:
        rig.start()
        create(rig, 'east', 'orders', 2)
        load, there = Placed(rig, 'orders', 'o'), {}

        def cut():
            log = read_topic(rig.bootstrap('west'), 'east.orders')
            for s, at in places(log, 'o').items():
                assert there.setdefault(s, at) == at, f'record {s} came to {at} again, it was at {there[s]}'
            delete_records(rig, 'west', 'east.orders', {p: r[-1].offset + 1 for p, r in log.items() if r})
            return len(there)
        writing = Background(load, rate=1000)
        wait('some have arrived', 60, lambda: sum(end_offsets(rig.bootstrap('west'), 'east.orders').values()) > 500)
        first = cut()
        time.sleep(1)
        behind = sum(end_offsets(rig.bootstrap('west'), 'east.orders').values())
        wait('more has arrived', 60, lambda: sum(end_offsets(rig.bootstrap('west'), 'east.orders').values()) > max(first, behind))
        second = cut()
        rig.mirrors['west'].kill()
        cut()
        time.sleep(1)
        restart(rig)
        running(rig)
        time.sleep(1)
        rig.mirrors['west'].kill()
        cut()
        shutil.rmtree(os.path.join(rig.dir, 'west-mirror.store'))
        time.sleep(1)
        restart(rig)
        running(rig)
        writing.stop()
        wait('all has arrived', 60, lambda: end_offsets(rig.bootstrap('west'), 'east.orders') == end_offsets(rig.bootstrap('east'), 'orders'))
        cut()
        assert 0 < first < second and set(there) == load.acked, (first, second, len(there), len(load.acked))
        assert there == load.at, 'a record stands at another offset than at the source'
        assert {e['kind'] for e in ledger(rig)} <= {'rebuilt', 'orphans'}, ledger(rig)  # what was there could not be compared any more
        for s in random.Random(SEED).sample(sorted(there), 40):
            t, low = translate(rig, *load.at[s]), read_low(rig, load.at[s][0])
            assert t['partition'] == load.at[s][0] and there[s][1] <= t['offset'] <= max(there[s][1], low), (load.at[s], t, low)


def read_low(rig, p):
    with Wire(rig.bootstrap('west')) as w:
        return w.starts('east.orders', [p])[p]


def strangers_write():
    """A producer of its own writes into the mirrored topic all the time, and the mirror is killed."""
    with Rig(**ONE_WAY) as rig:
        rig.start()
        create(rig, 'east', 'orders', 2)
        load = Placed(rig, 'orders', 'o')
        writing = Background(load, rate=1000)
        wait('some have arrived', 60, lambda: sum(end_offsets(rig.bootstrap('west'), 'east.orders').values()) > 100)
        stranger = Load(rig.bootstrap('west'), 'east.orders', 'stranger')
        disturbing = Background(stranger, rate=400)
        time.sleep(2)
        rig.mirrors['west'].kill()
        time.sleep(0.5)
        restart(rig)
        time.sleep(1.5)
        writing.stop(), disturbing.stop()
        there = arrived(rig, load)
        running(rig)
        log = read_topic(rig.bootstrap('west'), 'east.orders')
        assert set(places(log, 'stranger')) == stranger.acked
        check_log(log, load.acked, 'o', 'east.orders')
        told = ledger(rig, 'stranger')
        assert told and len(told) < 200, f'{len(told)} entries of {stranger.sent} strangers'
        for s in random.Random(SEED).sample(sorted(there), 60):
            t = translate(rig, *load.at[s])
            before = max((x for q, x in there.values() if q == t['partition'] and x < there[s][1]), default=-1)
            assert t['state'] == 'exact' and before < t['offset'] <= there[s][1], (load.at[s], t, there[s])
        print(f'{len(there)} records among {stranger.sent} strangers, {len(told)} entries in the ledger')


def partitions_are_added():
    """At the source, under load: while the mirror runs, and while it is down."""
    with Rig(**ONE_WAY) as rig:
        rig.start()
        create(rig, 'east', 'orders', 2)
        load = Placed(rig, 'orders', 'o')
        writing = Background(load, rate=1000)
        admin = AdminClient({'bootstrap.servers': rig.bootstrap('east')})

        def grow(n):
            for f in admin.create_partitions([NewPartitions('orders', n)]).values():
                f.result(60)
            wait(f'{n} partitions', 30, lambda: len(end_offsets(rig.bootstrap('east'), 'orders')) == n)  # so that who begins now knows of them
        time.sleep(1.5)
        grow(5)
        running(rig, partitions=5)
        later = written(rig, 'orders', 'p', 1000)
        arrived(rig, later)
        rig.mirrors['west'].kill()
        grow(7)
        last = written(rig, 'orders', 'q', 1000)
        restart(rig)
        running(rig, partitions=7)
        writing.stop()
        for l in (load, later, last):
            there = arrived(rig, l)
            assert all(there[s] == l.at[s] for s in there), 'a record stands in another partition, or at another offset'
        assert {p for p, _ in last.at.values()} == set(range(7))
        same(read_topic(rig.bootstrap('east'), 'orders'), read_topic(rig.bootstrap('west'), 'east.orders'), 'orders')
        assert not ledger(rig), ledger(rig)


if __name__ == '__main__':
    print(f'seed {SEED} (SUNDOG_SEED={SEED} tests/chaos/run)', flush=True)
    sys.exit(run_cases([retention_overtakes_the_mirror, source_topic_is_made_again, target_topic_is_deleted, target_is_cut_short,
                        strangers_write, partitions_are_added], sys.argv[1:], jobs=3))
