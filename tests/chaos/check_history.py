"""What a history of a Kafka log says, in columns: what tests/chaos/check decides on. Format: CHECKER.md beside this file.

Memory: 8 bytes a column and row in arrays, and per partition one dict of offsets, per topic one of values."""
import json, time
from array import array

LINE_BYTES = 16 << 20
OK, FAIL, INFO = 0, 1, 2
# Refused for certain before anything was appended. Everything else that is not 0, and every loss of the answer, is INFO:
# it may have happened (NOT_LEADER_OR_FOLLOWER too, KAFKA-13574).
REFUSED = {
    -184, 10, 87, 17, 3,  # queue full at the client, MESSAGE_TOO_LARGE, INVALID_RECORD, INVALID_TOPIC, UNKNOWN_TOPIC_OR_PARTITION
    29, 30, 31, 53,       # *_AUTHORIZATION_FAILED
    21, 19, 51,           # INVALID_REQUIRED_ACKS, NOT_ENOUGH_REPLICAS (before the append), CONCURRENT_TRANSACTIONS
}
# A refused OffsetCommit besides: ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS, COORDINATOR_LOAD_IN_PROGRESS,
# INVALID_COMMIT_OFFSET_SIZE, OFFSET_METADATA_TOO_LARGE, FENCED_INSTANCE_ID. Not NOT_COORDINATOR: it may hide a failed append.
REFUSED_COMMIT = REFUSED | {22, 25, 27, 14, 28, 12, 82}
NOBODY = -1         # the value of a record whose payload does not say who wrote it
SEQUENCE_BITS = 44  # a value is writer << 44 | sequence
FOREVER = 1 << 62


class Undecided(Exception):
    pass


class Poll:
    """Columns of what one poll of one partition returned."""

    def __init__(self, reader, group, t0, t1, seek, rows, value_of, key_of):
        self.reader, self.group, self.t0, self.t1, self.seek = reader, group, t0, t1, seek
        offset, writer, sequence, key, crc, timestamp, headers = zip(*rows) if rows else [()] * 7
        self.offset, self.value = array('q', offset), array('q', map(value_of, writer, sequence))
        self.key, self.crc = array('q', map(key_of, key)), array('q', (-1 if c is None else c for c in crc))
        self.timestamp, self.headers = array('q', timestamp), array('q', headers)


class Partition:
    def __init__(self, topic, index):
        self.topic, self.index, self.polls, self.drains, self.deleted = topic, index, [], [], 0
        self.acks = array('q')  # rows of the topic's columns: sends acknowledged here
        self._seen = None

    def __str__(self):
        return f'{self.topic.name}-{self.index}'

    def readers(self):
        """The polls of each reader, in its order."""
        out = {}
        for poll in self.polls:
            out.setdefault(poll.reader, []).append(poll)
        return out

    def seen(self):
        """{offset: value}, of all polls; where they differ (K3) the first. Made once: ask when all is read."""
        if self._seen is None:
            self._seen, top = {}, -1
            for poll in self.polls:
                if poll.offset and poll.offset[0] > top:
                    new = dict(zip(poll.offset, poll.value))
                    if len(new) == len(poll.offset):
                        self._seen.update(new)
                        top = max(new)
                        continue
                for o, v in zip(poll.offset, poll.value):
                    self._seen.setdefault(o, v)
                    top = max(top, o)
        return self._seen

    def known(self):
        """{offset: value}, of all polls and acknowledgements, in order of offsets."""
        out = dict(self.seen())
        for o, v, _ in self.acknowledged():
            if o >= 0:
                out.setdefault(o, v)
        return dict(sorted(out.items()))

    def acknowledged(self):
        """(offset or -1, value, row) of each send to this partition that was answered with success."""
        t = self.topic
        return ((t.offset[i], t.value[i], i) for i in self.acks)

    def drained(self):
        """The offsets that the last drain's reader returned since it was set to its start."""
        out = []
        if self.drains:
            for poll in self.polls:
                if poll.reader == self.drains[-1]['reader']:
                    if poll.seek is not None:
                        out = []
                    out.extend(poll.offset)
        return out


class Topic:
    def __init__(self, name):
        self.name, self.options, self.origin, self.mirror, self.partitions = name, {}, None, {}, {}
        self.row = {}  # value -> row of the columns below
        self.value, self.offset = array('q'), array('q')
        self.t0, self.t1, self.outcome = array('q'), array('q'), array('b')
        self.key, self.crc = array('q'), array('q')

    def partition(self, index):
        if index not in self.partitions:
            self.partitions[index] = Partition(self, index)
        return self.partitions[index]

    def sends(self):
        """The topic that holds the sends of this one's records."""
        return self.origin.sends() if self.origin else self

    def acknowledged(self):
        """(partition, offset or -1, value, row) of each send that was answered with success."""
        for p in self.partitions.values():
            for o, v, i in p.acknowledged():
                yield p, o, v, i


class History:
    def __init__(self, rows_max, deadline):
        self.rows_max, self.deadline, self.rows, self.faults = rows_max, deadline, 0, 0
        self.topics, self.writers, self.writer_names, self.keys, self.key_names = {}, {}, [], {}, []
        self.duplicates_allowed = set()
        self.marks, self.commits, self.fetches, self.foreign = {}, {}, {}, set()
        self.assigns, self.translations, self.positions, self.failovers = [], [], [], []
        self.rule, self.judged, self.facts = None, 0, {}  # what the rules had to judge
        self.homes = None

    def judge(self, n, part):
        """A rule of several parts counts its facts in each."""
        name = f'{self.rule}.{part}'
        self.facts[name] = self.facts.get(name, 0) + n

    def sent_to(self, value):
        """The topics to which a record was sent."""
        if self.homes is None:
            self.homes = {}
            for t in self.direct():
                for v in t.row:
                    self.homes.setdefault(v, []).append(t)
        return self.homes.get(value, ())

    def topic(self, name):
        if name not in self.topics:
            self.topics[name] = Topic(name)
        return self.topics[name]

    def writer(self, name):
        if name not in self.writers:
            self.writers[name] = len(self.writers)
            self.writer_names.append(name)
        return self.writers[name]

    def value(self, writer, sequence):
        if writer is None:
            return NOBODY
        if not 0 <= sequence < 1 << SEQUENCE_BITS:
            raise ValueError(f'sequence {sequence}')
        return self.writer(writer) << SEQUENCE_BITS | sequence

    def key(self, text):
        if text not in self.keys:
            self.keys[text] = len(self.keys)
            self.key_names.append(text)
        return self.keys[text]

    def name(self, value):
        return 'a record of nobody' if value == NOBODY else f'{self.writer_names[value >> SEQUENCE_BITS]} #{value & (1 << SEQUENCE_BITS) - 1}'

    def direct(self):
        return [t for t in self.topics.values() if not t.origin]

    def mirrored(self):
        return [t for t in self.topics.values() if t.origin]

    def partitions(self):
        return [p for t in self.topics.values() for p in t.partitions.values()]

    def take(self, event):
        op = event['op']
        self.count([event])
        handler = getattr(self, 'on_' + op, None)
        if not handler:
            raise Undecided(f'unknown op {op!r}')
        handler(event)

    def count(self, rows):
        self.rows += len(rows)
        if self.rows > self.rows_max:
            raise Undecided(f'more than {self.rows_max} rows (--rows)')
        return rows

    def on_topic(self, e):
        self.topic(e['topic']).options = e

    def on_writer(self, e):
        if not e.get('idempotent', True):
            self.duplicates_allowed.add(self.writer(e['writer']))

    def on_mirror(self, e):
        t, s = self.topic(e['target']), self.topic(e['source'])
        if t is s.sends() or t.row or t.origin:
            raise Undecided(f'{t.name} cannot be a mirror of {s.name}')
        t.origin, t.mirror = s, e

    def on_send(self, e):
        t, writer = self.topic(e['topic']), self.writer(e['writer']) << SEQUENCE_BITS
        if t.origin:
            raise Undecided(f'{t.name} is a mirror: nobody sends to it')
        for sequence, at, offset, t0, t1, err, key, crc in self.count(e['rows']):
            value = writer | sequence
            if value >> SEQUENCE_BITS != writer >> SEQUENCE_BITS:
                raise ValueError(f'sequence {sequence}')
            if value in t.row:
                raise Undecided(f'{self.name(value)} to {t.name} is sent twice')
            i = t.row[value] = len(t.value)
            if err == 0:
                t.partition(at).acks.append(i)
            t.value.append(value), t.offset.append(-1 if offset is None else offset)
            t.t0.append(t0), t.t1.append(FOREVER if t1 is None else t1), t.outcome.append(outcome(err, REFUSED))
            t.key.append(self.key(key)), t.crc.append(-1 if crc is None else crc)

    def on_poll(self, e):
        self.topic(e['topic']).partition(e['partition']).polls.append(
            Poll(e['reader'], e.get('group'), e['t0'], e['t1'], e.get('seek'), self.count(e['rows']), self.value, self.key))

    def on_drain(self, e):
        self.topic(e['topic']).partition(e['partition']).drains.append(e)

    def on_delete(self, e):
        p = self.topic(e['topic']).partition(e['partition'])
        p.deleted = max(p.deleted, e['to'])

    def on_marks(self, e):
        self.marks.setdefault((e['reader'], e['topic'], e['partition']), []).append(e)

    def on_commit(self, e):
        self.commits.setdefault((e['group'], e['topic'], e['partition']), []).append(
            {**e, 't1': FOREVER if e['t1'] is None else e['t1'], 'outcome': outcome(e['err'], REFUSED_COMMIT)})

    def on_offset_fetch(self, e):
        self.fetches.setdefault((e['group'], e['topic'], e['partition']), []).append(e)

    def on_assign(self, e):
        self.assigns.append(e)

    def on_translate(self, e):
        self.translations.append(e)

    def on_position(self, e):
        self.positions.append(e)

    def on_failover(self, e):
        self.failovers.append(e)

    def on_group(self, e):
        self.foreign.add((e['group'], e['topic']))

    def on_fault(self, e):
        self.faults += 1


def outcome(err, refused):
    return OK if err == 0 else FAIL if err in refused else INFO


def in_time(h):
    if time.monotonic() > h.deadline:
        raise Undecided('time is up (--seconds)')


def read(file, rows_max, deadline):
    h = History(rows_max, deadline)
    number = 0
    while True:
        line = file.readline(LINE_BYTES + 1)
        if not line:
            return h
        number += 1
        if len(line) > LINE_BYTES:
            raise Undecided(f'line {number} is longer than {LINE_BYTES} bytes')
        in_time(h)
        try:
            h.take(json.loads(line))
        except Undecided as e:
            raise Undecided(f'line {number}: {e}')
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, AttributeError) as e:
            raise Undecided(f'line {number}: {type(e).__name__}: {e}')


def twice(h, t):
    """Each value of the topic that stands at a second place."""
    place = {}
    for p in t.partitions.values():
        for o, v in sorted(p.seen().items()):
            if v == NOBODY or v >> SEQUENCE_BITS in h.duplicates_allowed:
                continue
            h.judged += 1
            p0, o0 = place.setdefault(v, (p, o))
            if (p0, o0) != (p, o):
                yield f'{p} offset {o}: {h.name(v)}, which stands at {p0} offset {o0} too'
    if not t.origin:
        for p, o, v, i in t.acknowledged():
            p0, o0 = place.get(v, (p, o))
            if o >= 0 and (p0, o0) != (p, o):
                yield f'{p} offset {o}: acknowledged to {h.name(v)} at {t.t1[i]}, which is read at {p0} offset {o0}'
