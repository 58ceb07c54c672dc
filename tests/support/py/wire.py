"""A Kafka client of a few requests by hand, for what librdkafka hides from a history: generations and members of a group,
which commit was refused and how, the marks of a partition, an idempotent batch sent again after its answer was lost.

One connection, one request after another unless `send` and `receive` are used apart; not for several threads. Errors come
back as Kafka's numbers; a lost connection is an OSError (Lost), and what was under way may have happened."""
import socket, struct

import kafka_bytes
from kafka_bytes import data as blob, framed, header, record, text

PRODUCE, FETCH, LIST_OFFSETS, METADATA, COMMIT, OFFSETS, FIND, JOIN, HEARTBEAT, LEAVE, SYNC, DELETE_RECORDS, INIT_PRODUCER = 0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 21, 22
MEMBER_ID_REQUIRED = 79


class Lost(OSError):
    """The connection ended with a request under way."""


def array(items):
    return struct.pack('>i', len(items)) + b''.join(items)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        out = struct.unpack_from('>' + form, self.data, self.at)
        self.at += struct.calcsize('>' + form)
        return out[0] if len(out) == 1 else out

    def text(self):
        n = self.take('h')
        if n < 0:
            return None
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def blob(self):
        n = max(self.take('i'), 0)
        self.at += n
        return self.data[self.at - n:self.at]

    def array(self, one):
        return [one() for _ in range(max(self.take('i'), 0))]


class Wire:
    def __init__(self, bootstrap, client='hand', timeout=10):
        host, port = bootstrap.rsplit(':', 1)
        self.client, self.correlation = client, 0
        self.s = socket.create_connection((host, int(port)), timeout)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self):
        self.s.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, api, version, body):
        self.correlation += 1
        try:
            self.s.sendall(framed(header(api, version, self.client, self.correlation) + body))
        except OSError as e:
            raise Lost(str(e)) from e

    def exactly(self, n):
        out = b''
        while len(out) < n:
            try:
                got = self.s.recv(n - len(out))
            except OSError as e:
                raise Lost(str(e)) from e
            if not got:
                raise Lost('closed by the peer')
            out += got
        return out

    def receive(self):
        r = Reader(self.exactly(struct.unpack('>i', self.exactly(4))[0]))
        r.take('i')
        return r

    def call(self, api, version, body):
        self.send(api, version, body)
        return self.receive()

    # Groups: the classic protocol, assignments are [partition, ...] of one topic.

    def find(self, group):
        """The error of FindCoordinator: where the groups' topic is not yet there, it is made. A site here has one broker."""
        return self.call(FIND, 1, text(group) + b'\0').take('ih')[1]

    def join(self, group, member, session_ms, rebalance_ms):
        """(error, generation, leader, member, [members]): the last for the leader only."""
        protocols = array([text('hand') + blob(b'')])
        r = self.call(JOIN, 5, text(group) + struct.pack('>ii', session_ms, rebalance_ms) + text(member) + text(None) + text('consumer') + protocols)
        _, error, generation = r.take('ihi')
        r.text()
        leader, me = r.text(), r.text()

        def one():
            name = r.text()
            r.text(), r.blob()
            return name
        return error, generation, leader, me, r.array(one)

    def sync(self, group, generation, member, assignments):
        given = array([text(m) + blob(struct.pack(f'>{len(p)}i', *p)) for m, p in assignments.items()])
        r = self.call(SYNC, 3, text(group) + struct.pack('>i', generation) + text(member) + text(None) + given)
        _, error = r.take('ih')
        mine = r.blob()
        return error, list(struct.unpack(f'>{len(mine) // 4}i', mine))

    def heartbeat(self, group, generation, member):
        return self.call(HEARTBEAT, 3, text(group) + struct.pack('>i', generation) + text(member) + text(None)).take('ih')[1]

    def leave(self, group, member):
        return self.call(LEAVE, 1, text(group) + text(member)).take('ih')[1]

    def commit(self, group, generation, member, topic, offsets):
        """offsets: {partition: offset}; {partition: error}."""
        rows = array([struct.pack('>iqi', p, o, -1) + text('') for p, o in offsets.items()])
        r = self.call(COMMIT, 7, text(group) + struct.pack('>i', generation) + text(member) + text(None) + array([text(topic) + rows]))
        r.take('i')
        return dict(sum(r.array(lambda: (r.text(), r.array(lambda: r.take('ih')))[1]), []))

    def committed(self, group, topic, partitions):
        """(error, {partition: (offset, error)})"""
        r = self.call(OFFSETS, 5, text(group) + array([text(topic) + array([struct.pack('>i', p) for p in partitions])]))
        out = {}

        def one():
            p, offset, _ = r.take('iqi')
            r.text()
            out[p] = offset, r.take('h')
        r.take('i')
        r.array(lambda: (r.text(), r.array(one)))
        return r.take('h'), out

    # Partitions.

    def epochs(self, topic):
        """{partition: leader epoch}; {} for a topic that is not there."""
        r = self.call(METADATA, 7, array([text(topic)]) + b'\0')
        out = {}

        def partition():
            _, index, _, epoch = r.take('hiii')
            for _ in range(3):
                r.array(lambda: r.take('i'))
            out[index] = epoch

        def one():
            r.take('h'), r.text(), r.take('b'), r.array(partition)
        r.take('i'), r.array(lambda: (r.take('i'), r.text(), r.take('i'), r.text())), r.text(), r.take('i'), r.array(one)
        return out

    def starts(self, topic, partitions):
        """{partition: log start}, of those whose leader tells it."""
        rows = array([struct.pack('>iq', p, -2) for p in partitions])
        r = self.call(LIST_OFFSETS, 1, struct.pack('>i', -1) + array([text(topic) + rows]))
        return {p: o for _, found in r.array(lambda: (r.text(), r.array(lambda: r.take('ihqq')))) for p, e, _, o in found if not e}

    def marks(self, topic, at):
        """at: {partition: offset to fetch from}; {partition: (error, high watermark, last stable offset, log start)}."""
        rows = array([struct.pack('>iqqi', p, o, -1, 1) for p, o in at.items()])
        r = self.call(FETCH, 5, struct.pack('>iiiib', -1, 0, 0, 1, 0) + array([text(topic) + rows]))
        out = {}

        def one():
            p, error, high, stable, low = r.take('ihqqq')
            r.array(lambda: r.take('qq')), r.blob()
            out[p] = error, high, stable, low
        r.take('i'), r.array(lambda: (r.text(), r.array(one)))
        return out

    def delete_records(self, topic, offsets):
        """offsets: {partition: offset}; {partition: (log start, error)}"""
        rows = array([struct.pack('>iq', p, o) for p, o in offsets.items()])
        r = self.call(DELETE_RECORDS, 1, array([text(topic) + rows]) + struct.pack('>i', 20000))
        r.take('i')
        return {p: (low, e) for _, found in r.array(lambda: (r.text(), r.array(lambda: r.take('iqh')))) for p, low, e in found}

    # An idempotent producer.

    def init_producer(self):
        _, error, pid, epoch = self.call(INIT_PRODUCER, 1, text(None) + struct.pack('>i', 60000)).take('ihqh')
        return error, pid, epoch

    def send_batch(self, topic, partition, batch, acks=-1):
        self.send(PRODUCE, 7, text(None) + struct.pack('>hi', acks, 30000) + array([text(topic) + array([struct.pack('>i', partition) + blob(batch)])]))

    def produced(self):
        """(error, base offset) of the next answer to a batch."""
        r = self.receive()
        out = r.array(lambda: (r.text(), r.array(lambda: r.take('ihqqq'))))
        return out[0][1][0][1:3]


def batch(records, timestamp_ms, pid=-1, epoch=-1, sequence=-1):
    """A record batch of (key, value, [(header, value or None)]), uncompressed."""
    rows = b''.join(record(value, key, [(name.encode(), v) for name, v in headers], i) for i, (key, value, headers) in enumerate(records))
    return kafka_bytes.batch(rows, len(records), pid=pid, epoch=epoch, seq=sequence, ts=timestamp_ms, leader_epoch=-1)
