"""The rules of tests/chaos/check that concern mirrors: relations between a source's log and a target's (R1 to R9).
Each is a function of the history that yields a line for each violation; its first line of documentation is the rule."""
import bisect
from array import array

from check_history import NOBODY, OK, SEQUENCE_BITS, twice


def places(t):
    """{value: (partition index, offset)} of all that was read from a topic; the first place of each."""
    out = {}
    for p in t.partitions.values():
        for o, v in sorted(p.seen().items()):
            out.setdefault(v, (p.index, o))
    return out


def r1(h):
    """mirror, lost: what was read from the source is read from the target"""
    for t in h.mirrored():
        s, there = t.origin, places(t)
        for p in s.partitions.values():
            final = set(p.drained())
            if t.options.get('compact'):  # what has a later record of its key may be gone there
                key = {o: k for poll in p.polls for o, k in zip(poll.offset, poll.key)}
                final = final.intersection({key[o]: o for o in sorted(key)}.values())
            h.judged += len(p.seen())
            for o, v in p.seen().items():
                gone = o not in final and (s.options.get('compact') or t.options.get('compact') or t.mirror.get('gaps'))
                if v != NOBODY and v not in there and not gone:
                    yield f'{p} offset {o}: {h.name(v)} is not in {t.name}'
        if not (s.options.get('compact') or t.options.get('compact') or t.mirror.get('gaps')):
            here = places(s)
            for p, o, v, i in s.acknowledged():
                if 0 <= o < p.deleted and v not in there and v not in here:
                    yield f'{p} offset {o}: {h.name(v)}, acknowledged at {s.t1[i]} and deleted since, is not in {t.name}'


def r2(h):
    """mirror, doubled: a source record stands at the target once"""
    for t in h.mirrored():
        yield from twice(h, t)


def r3(h):
    """mirror, order: records of one source partition lie at the target in its order"""
    for t in h.mirrored():
        from_ = places(t.origin)
        for p in t.partitions.values():
            highest, met = {}, set()
            for o, v in sorted(p.seen().items()):
                if v not in from_ or v in met or v >> SEQUENCE_BITS in h.duplicates_allowed:
                    continue
                met.add(v)
                q, so = from_[v]
                h.judged += q in highest
                if so < highest.get(q, (-1, 0))[0]:
                    yield f'{p} offset {o}: source record {q}:{so} lies behind {q}:{highest[q][0]} at {highest[q][1]}'
                else:
                    highest[q] = so, o


def r4(h):
    """mirror, changed: timestamp and headers are those of the source, and the partition where the mirror keeps it"""
    for t in h.mirrored():
        source, from_ = {}, places(t.origin) if t.mirror.get('keep') else {}
        for p in t.partitions.values() if from_ else ():
            for o, v in p.seen().items():
                at = from_.get(v, (p.index, 0))[0]
                h.judge(v in from_, 'partition')
                if at != p.index and v >> SEQUENCE_BITS not in h.duplicates_allowed:
                    yield f'{p} offset {o}: {h.name(v)} stands in partition {at} at the source'
        for p in t.origin.partitions.values():
            for poll in p.polls:
                source.update(zip(poll.value, zip(poll.timestamp, poll.headers)))
        for p in t.partitions.values():
            for poll in p.polls:
                for o, v, timestamp, headers in zip(poll.offset, poll.value, poll.timestamp, poll.headers):
                    want = source.get(v)
                    if v == NOBODY or want is None:
                        continue
                    h.judge(1, 'content')
                    if want[1] != headers or (want[0] != timestamp and not t.options.get('append_time')):
                        yield f'{p} offset {o}: {h.name(v)} has timestamp and headers CRC {timestamp}, {headers}; at the source {want[0]}, {want[1]}'


def mates(h, made, t, p, q):
    """Sources and targets, by rising source offset: records of source partition p that stand in partition q of mirror t."""
    if (t.name, p, q) not in made:
        from_, pairs = places(t.origin), []
        for v, (at, o) in places(t).items():
            if at == q and v in from_ and from_[v][0] == p and v >> SEQUENCE_BITS not in h.duplicates_allowed:
                pairs.append((from_[v][1], o))
        pairs.sort()
        made[t.name, p, q] = array('q', (s for s, _ in pairs)), array('q', (o for _, o in pairs))
    return made[t.name, p, q]


def r5(h):
    """translation: skips no record from the source offset on, re-reads at most `bound` of those before it"""
    made, least = {}, {}
    for e in h.translations:
        t, s, p, q = h.topic(e['target']), h.topic(e['source']), e['source_partition'], e['target_partition']
        sources, targets = mates(h, made, t, p, q)
        if (t.name, p, q) not in least:
            lowest = least[t.name, p, q] = array('q', targets)
            for i in range(len(lowest) - 2, -1, -1):
                lowest[i] = min(lowest[i], lowest[i + 1])
        lowest = least[t.name, p, q]
        i = bisect.bisect_left(sources, e['from'])
        h.judge(i < len(lowest), 'skip'), h.judge(i > 0, 'again')
        where = f'{s.name}-{p} {e["from"]} -> {t.name}-{q} {e["to"]}'
        if i < len(lowest) and lowest[i] < e['to']:
            yield f'{where}: skips target offset {lowest[i]}'
        again = 0
        while again < i and targets[i - 1 - again] >= e['to']:
            again += 1
        if again > e.get('bound', 0):
            yield f'{where}: {again} records are read again, {e.get("bound", 0)} may be'


def r6(h):
    """translation, order: a later source offset of a group is not translated earlier afterwards"""
    # Not the other way: the end of what was mirrored is the answer for the position, and may lie below a hole at the target.
    fronts = {}
    for e in h.translations:
        where = e.get('group', ''), f'{e["source"]}-{e["source_partition"]}', f'{e["target"]}-{e["target_partition"]}'
        froms, tos = fronts.setdefault(where, ([], []))  # both rise: the largest `to` for each `from` and those before
        s, t = e['from'], e['to']
        i = bisect.bisect_left(froms, s)
        h.judged += i > 0
        if i and tos[i - 1] > t:
            yield f'{where[0]}: {where[1]} {froms[i - 1]} -> {where[2]} {tos[i - 1]}, then {s} -> {t}'
        if (not i or tos[i - 1] < t) and not (i < len(froms) and froms[i] == s and tos[i] >= t):
            j = i
            while j < len(froms) and tos[j] <= t:
                j += 1
            froms[i:j], tos[i:j] = [s], [t]


def r7(h):
    """astray: a record stands where it was sent and in the mirrors of that, nowhere else"""
    for t in h.topics.values():
        mine = t.sends()
        for p in t.partitions.values():
            h.judged += len(p.seen())
            for o, v in p.seen().items():
                if v != NOBODY and v not in mine.row and h.sent_to(v) and not t.options.get('open'):
                    yield f'{p} offset {o}: {h.name(v)}, sent to {h.sent_to(v)[0].name}'


def r8(h):
    """failover: a group that moved has read everything between both sides, and nothing again that it had committed before"""
    for e in h.failovers:
        t, group = h.topic(e['target']), e['group']
        done, from_, again = set(), places(t.origin), 0
        for p in [*t.origin.partitions.values(), *t.partitions.values()]:
            for poll in p.polls:
                if poll.group == group:
                    done.update(poll.value)
        committed = {}
        for index in t.origin.partitions:
            commits = h.commits.get((group, t.origin.name, index), [])
            committed[index] = max((c['offset'] for c in commits if c['outcome'] == OK), default=0)
        for p in t.partitions.values():
            drained = set(p.drained())
            h.judged += len(drained)
            for o, v in p.seen().items():
                if o in drained and v not in done and v in from_:
                    yield f'{p} offset {o}: {h.name(v)} was read by {group} at neither side'
            for poll in p.polls:
                for v in poll.value if poll.group == group else ():
                    q, so = from_.get(v, (None, 0))
                    again += q is not None and so < committed[q]
        if again > e.get('bound', 0):
            yield f'{t.name}: {group} read {again} records again that it had committed, {e.get("bound", 0)} may be'


def r9(h):
    """position: below what the mirror says to have done, everything stood at the target"""
    made, highest = {}, {}
    for e in h.positions:
        t, p = h.topic(e['target']), e['source_partition']
        for q, end in e['ends']:
            sources, targets = mates(h, made, t, p, q)
            if (t.name, p, q) not in highest:
                top = highest[t.name, p, q] = array('q', targets)
                for i in range(1, len(top)):
                    top[i] = max(top[i], top[i - 1])
            i = bisect.bisect_left(sources, e['position'])
            h.judged += i > 0
            if i and highest[t.name, p, q][i - 1] >= end:
                yield (f'{t.origin.name}-{p}: position {e["position"]} at {e["t"]}, when {t.name}-{q} ended at {end}; '
                       f'a record below it stands at {highest[t.name, p, q][i - 1]}')


MIRROR = [r1, r2, r3, r4, r5, r6, r7, r8, r9]
