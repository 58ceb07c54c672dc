"""Records that tell by themselves who wrote them, and the comparison of two logs: what chaos and interop tests check.

A payload is `writer:sequence:padding` with a CRC32 over key and text; a reader alone can name writer and sequence."""
import collections, concurrent.futures, gc, threading, time, zlib

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from history import crc, headers_crc, now, text
from site_rig import Late, wait

gc.disable()  # millions of records without a cycle among them: looking for one takes longer than reading them
Record = collections.namedtuple('Record', 'offset timestamp key value headers')


def payload(writer, sequence, key, size):
    body = f'{writer}:{sequence}:'.ljust(size, 'x')
    return f'{body}:{zlib.crc32(key + body.encode()):08x}'.encode()


def parse(key, value):
    """(writer, sequence); AssertionError when key and value do not belong together."""
    text = value.decode()
    body, crc = text.rsplit(':', 1)
    assert zlib.crc32((key or b'') + body.encode()) == int(crc, 16), f'payload damaged: {text[:60]}'
    writer, sequence, _ = body.split(':', 2)
    return writer, int(sequence)


def partitions(bootstrap, topic, timeout=30):
    """By a consumer: an AdminClient's question makes the topic where topics are made on use."""
    c = Consumer({'bootstrap.servers': bootstrap, 'group.id': 'sundog-test-looks', 'allow.auto.create.topics': False})
    try:
        return partitions_of(c, topic, timeout)
    finally:
        c.close()


def partitions_of(client, topic, timeout=30):
    t = client.list_topics(topic, timeout=timeout).topics.get(topic)
    return sorted(t.partitions) if t and t.error is None else []


def seen(records):
    """Records as rows of a history; who wrote a damaged one is not known."""
    rows = []
    for r in records:
        try:
            writer, sequence = parse(r.key, r.value)
        except (AssertionError, ValueError, AttributeError):
            writer, sequence = None, 0
        rows.append((r.offset, writer, sequence, text(r.key), crc(r.key, r.value), r.timestamp, headers_crc(r.headers)))
    return rows


def drained(history, name, partition, low, high, t0, records, clean=None):
    """Tells the history of a reader that came for this one partition and read all of it; below `clean` all was compacted."""
    reader = f'drain-{t0}'
    history.polls(reader, name, partition, t0, now(), seen(records), seek=low)
    history.event('drain', reader=reader, topic=name, partition=partition, low=low, high=high, **({'clean': clean} if clean else {}))
    history.event('marks', reader='drains', topic=name, partition=partition, t=t0, low=low, high=high)


def read_partition(bootstrap, topic, partition, timeout=60, isolation='read_committed', history=None, name=None, clean=None):
    """The whole partition from its log start to its end at the time of the call."""
    t0 = now()
    c = Consumer({'bootstrap.servers': bootstrap, 'group.id': 'sundog-test-reader', 'enable.auto.commit': False,
                  'auto.offset.reset': 'error', 'isolation.level': isolation, 'check.crcs': True,
                  'enable.partition.eof': True, 'fetch.wait.max.ms': 50})
    try:
        partitions_of(c, topic)  # a client that knows the leaders does not wait a second for them
        low, high = c.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout)
        c.assign([TopicPartition(topic, partition, low)])
        out, end = [], time.monotonic() + timeout
        at = low
        while at < high:
            if time.monotonic() >= end:
                raise Late(f'{topic}-{partition}: read up to {at} of {high} in {timeout} s')
            for m in c.consume(10000, 0.2):
                if m.error():
                    if m.error().code() == KafkaError._PARTITION_EOF:
                        at = max(at, m.offset())
                        continue
                    raise AssertionError(f'{topic}-{partition}: {m.error()}')
                if m.offset() >= high:
                    at = high
                    break
                at = m.offset() + 1
                out.append(Record(m.offset(), m.timestamp()[1], m.key(), m.value(), tuple(m.headers() or ())))
        if history:
            drained(history, name, partition, low, high, t0, out, clean)
        return out
    finally:
        c.close()


def read_topic(bootstrap, topic, timeout=240, history=None, name=None, clean=None):
    """`name` is the topic's in the history: site/topic. `clean`: {partition: offset below which all was compacted}. All
    partitions at once: a consumer may need a second to close."""
    wanted = partitions(bootstrap, topic)

    def read(p):
        return read_partition(bootstrap, topic, p, timeout, history=history, name=name, clean=(clean or {}).get(p))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return dict(zip(wanted, pool.map(read, wanted)))


def commit(consumer, offsets, seconds=90):
    """Until it is taken: a coordinator that has just come has to load first, and the client does not ask again. [TopicPartition]"""
    end = time.monotonic() + seconds
    while True:
        try:
            return consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as e:
            if not e.args[0].name() in ('COORDINATOR_LOAD_IN_PROGRESS', 'COORDINATOR_NOT_AVAILABLE', 'NOT_COORDINATOR', 'REQUEST_TIMED_OUT',
                                        '_TRANSPORT', '_TIMED_OUT', '_WAIT_COORD'):
                raise
            if time.monotonic() > end:
                raise Late(f'commit: {e}') from e
        time.sleep(0.05)


def end_offsets(bootstrap, topic, timeout=30):
    c = Consumer({'bootstrap.servers': bootstrap, 'group.id': 'sundog-test-ends'})
    try:
        return {p: c.get_watermark_offsets(TopicPartition(topic, p), timeout=timeout)[1] for p in partitions_of(c, topic, timeout)}
    finally:
        c.close()


def held(bootstrap, topic, timeout=30):
    """{partition: offsets between log start and end}: as many records as there are, but where a log was compacted or has marks."""
    c = Consumer({'bootstrap.servers': bootstrap, 'group.id': 'sundog-test-ends'})
    try:
        marks = {p: c.get_watermark_offsets(TopicPartition(topic, p), timeout=timeout) for p in partitions_of(c, topic, timeout)}
        return {p: high - low for p, (low, high) in marks.items()}
    finally:
        c.close()


def same(source, target, what):
    """Both are {partition: [Record]}: equal content, order, timestamps and headers, partition by partition."""
    assert sorted(source) == sorted(target), f'{what}: partitions {sorted(source)} and {sorted(target)}'
    for p in source:
        a, b = source[p], target[p]
        for i, (x, y) in enumerate(zip(a, b)):
            assert x[1:] == y[1:], f'{what}-{p}: record {i}: source offset {x.offset} {str(x[1:])[:150]}, target offset {y.offset} {str(y[1:])[:150]}'
        assert len(a) == len(b), f'{what}-{p}: {len(a)} records at the source, {len(b)} at the target'


class Load:
    """An idempotent producer in this process: keyed records until stopped; remembers what was acknowledged, and tells it
    the history, where the topic is called `name` (site/topic)."""

    def __init__(self, bootstrap, topic, writer, size=200, config=None, history=None, name=None):
        self.topic, self.writer, self.size, self.history, self.name = topic, writer, size, history, name
        self.headers = [('w', writer.encode()), ('n', None)]
        self.open = {}  # sequence -> (key, crc, t0): sent and not answered, for the history
        self.sent, self.acked, self.failed = 0, set(), collections.Counter()
        self.p = Producer({'bootstrap.servers': bootstrap, 'enable.idempotence': True, 'acks': 'all', 'linger.ms': 5,
                           'message.timeout.ms': 300000, 'queue.buffering.max.messages': 200000,
                           'retry.backoff.ms': 50, 'reconnect.backoff.max.ms': 500, 'log_level': 2, **(config or {})})

    def send(self, n, keys=50):
        for _ in range(n):
            seq = self.sent
            key = f'k{seq % keys}'.encode()
            value = payload(self.writer, seq, key, self.size)
            if self.history:
                self.open[seq] = key, crc(key, value), now()
            while True:
                try:
                    self.p.produce(self.topic, value, key, headers=self.headers,
                                   on_delivery=lambda e, m, s=seq: self.answered(s, e, m))
                    break
                except BufferError:
                    self.p.poll(0.05)
            self.sent += 1
        self.p.poll(0)

    def answered(self, seq, e, m):
        if e is None:
            self.acked.add(seq)
        else:
            self.failed.update([str(e)])
        if self.history:
            # librdkafka does not say whether an earlier attempt may have arrived: only what it never sends is a refusal
            local = e is not None and e.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._QUEUE_FULL)
            self.tell(seq, m.partition(), m.offset(), now(), 0 if e is None else e.code() if local else None)

    def tell(self, seq, partition, offset, t1, err):
        key, value_crc, t0 = self.open.pop(seq)
        known = offset is not None and offset >= 0
        self.history.send(self.name, self.writer, (seq, partition, offset if known else None, t0, t1, err, text(key), value_crc))

    def flush(self, timeout=60):
        left = self.p.flush(timeout)
        for seq in list(self.open):
            self.tell(seq, None, None, None, None)
        if left:
            raise Late(f'{left} records not acknowledged within {timeout} s')


class Follower:
    """A reader that is there all the time, from the log starts on or from `start` {partition: offset}, at a source or at a
    mirror's target, which it waits for: what it has seen must still stand there in the end. `group`: for which it reads."""

    def __init__(self, bootstrap, topic, history, name, start=None, group=None):
        self.start, self.group, self.at = start or {}, group, {}
        self.topic, self.history, self.name, self.error, self.end, self.read = topic, history, name, None, threading.Event(), 0
        self.c = Consumer({'bootstrap.servers': bootstrap, 'group.id': 'sundog-test-follower', 'enable.auto.commit': False,
                           'auto.offset.reset': 'error', 'check.crcs': True, 'fetch.wait.max.ms': 50,
                           'allow.auto.create.topics': False, 'reconnect.backoff.max.ms': 500, 'log_level': 2})
        self.sought = set()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def found(self):
        """The partitions of the topic, once it is there; it starts at the log starts and never resets again."""
        while not self.end.is_set():
            try:
                parts = partitions_of(self.c, self.topic, 2)
                low = {p: self.c.get_watermark_offsets(TopicPartition(self.topic, p), timeout=5)[0] for p in parts}
            except KafkaException:
                continue
            if parts:
                return {**low, **self.start}
            self.end.wait(0.1)
        return {}

    def run(self):
        low = self.found()
        if low:
            self.c.assign([TopicPartition(self.topic, p, o) for p, o in low.items()])
        while not self.end.is_set():
            t0, got = now(), {}
            for m in self.c.consume(5000, 0.2):
                if not m.error():
                    got.setdefault(m.partition(), []).append(
                        Record(m.offset(), m.timestamp()[1], m.key(), m.value(), tuple(m.headers() or ())))
                elif m.error().code() == KafkaError._AUTO_OFFSET_RESET:
                    self.error = self.error or str(m.error())
            for p, records in got.items():
                self.read += len(records)
                self.at[p] = records[-1].offset + 1
                self.history.polls(f'{self.group or "follower"} of {self.name}', self.name, p, t0, now(), seen(records),
                                   seek=None if p in self.sought else low[p], **({'group': self.group} if self.group else {}))
                self.sought.add(p)

    def stop(self):
        try:
            wait(f'a follower of {self.name} reads', 30, lambda: self.read or self.error, 0.02)  # it may have come late
        finally:
            self.end.set()
            self.thread.join()
            self.c.close()
        assert not self.error, f'a follower of {self.name} lost its place: {self.error}'


def check_log(log, acked, writer, what):
    """K1, K2, K4, K8 for one writer: every acknowledged record once, each key's records in the order of sending."""
    seen, last = set(), {}
    for p, records in log.items():
        for r in records:
            w, seq = parse(r.key, r.value)
            if w != writer:
                continue
            assert seq not in seen, f'{what}: record {seq} of {w} twice (again at {p}:{r.offset})'
            seen.add(seq)
            assert last.get(r.key, -1) < seq, f'{what}: key {r.key}: {seq} after {last[r.key]}'
            last[r.key] = seq
    lost = acked - seen
    assert not lost, f'{what}: {len(lost)} acknowledged records of {writer} lost, first {sorted(lost)[:5]}'
    return seen
