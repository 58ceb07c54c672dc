"""Kafka's protocol as bytes: for clients that misbehave, as no client library would, and for those that must see what a library
hides (wire.py). Non-flexible versions where possible. Standard library only."""
import socket, struct, time

CRC_TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
    CRC_TABLE.append(n)


def crc32c(data):
    crc = 0xffffffff
    for b in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ b) & 255]
    return crc ^ 0xffffffff


def i8(n): return struct.pack('>b', n)
def i16(n): return struct.pack('>h', n)
def i32(n): return struct.pack('>i', n)
def i64(n): return struct.pack('>q', n)
def text(s): return i16(-1) if s is None else i16(len(s := s.encode() if isinstance(s, str) else s)) + s
def data(s): return i32(len(s)) + s


def uvarint(n):
    out = b''
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def varint(n):
    return uvarint(n << 1 ^ n >> 63)


def header(key, version, client=b'hostile', correlation=7, tags=b''):
    return struct.pack('>hhi', key, version, correlation) + text(client) + tags


def framed(frame):
    return i32(len(frame)) + frame


def request(key, version, body=b'', **more):
    return framed(header(key, version, **more) + body)


VERSIONS = request(18, 0)


def record(value=b'v', key=None, headers=(), delta=0, count=None, ts=0):
    body = b'\0' + varint(ts) + varint(delta) + (varint(-1) if key is None else varint(len(key)) + key)
    body += varint(-1) if value is None else varint(len(value)) + value
    body += varint(len(headers) if count is None else count)
    for k, v in headers:
        body += (varint(-1) if k is None else varint(len(k)) + k) + (varint(-1) if v is None else varint(len(v)) + v)
    return varint(len(body)) + body


def batch(records=None, n=None, attributes=0, base=0, magic=2, length=None, last=None, pid=-1, epoch=-1, seq=-1, crc=None, ts=None,
          leader_epoch=0):
    """One batch; `records` is the payload as it shall stand there."""
    if records is None:
        records, n = record(), 1
    n = 1 if n is None else n
    ts = int(time.time() * 1000) if ts is None else ts
    body = struct.pack('>hiqqqhii', attributes, n - 1 if last is None else last, ts, ts, pid, epoch, seq, n) + records
    crc = crc32c(body) if crc is None else crc
    length = len(body) + 9 if length is None else length
    return struct.pack('>qiibI', base, length, leader_epoch, magic, crc) + body


def produce(topic, records, acks=-1, version=7, partitions=(0,), timeout_ms=30000, **more):
    parts = b''.join(i32(p) + data(records) for p in partitions)
    return request(0, version, struct.pack('>hhii', -1, acks, timeout_ms, 1) + text(topic) + i32(len(partitions)) + parts, **more)


def produced(answer, topic):
    """The first partition's error."""
    return struct.unpack_from('>h', answer, 4 + 4 + 2 + len(topic) + 4 + 4)[0]


def metadata(*topics, version=4, create=False):
    return request(3, version, i32(len(topics)) + b''.join(map(text, topics)) + (i8(create) if version >= 4 else b''))


def create_topics(*topics, version=2):
    """(name, partitions, factor, {config: value})"""
    body = i32(len(topics))
    for name, partitions, factor, configs in topics:
        body += text(name) + i32(partitions) + i16(factor) + i32(0) + i32(len(configs))
        body += b''.join(text(k) + text(v) for k, v in configs.items())
    return request(19, version, body + i32(30000) + b'\0')


def created(answer):
    """{name: error} of CreateTopics v2."""
    n, at, out = struct.unpack_from('>i', answer, 8)[0], 12, {}
    for _ in range(n):
        size, = struct.unpack_from('>h', answer, at)
        name = answer[at + 2:at + 2 + size].decode()
        error, message = struct.unpack_from('>hh', answer, at + 2 + size)
        out[name] = error
        at += 2 + size + 4 + max(message, 0)
    return out


def fetch(*partitions, version=4, replica=-1, wait=0, minimum=1, maximum=1 << 20, session=None, topic='t'):
    """partitions: (index, offset, bytes)"""
    body = struct.pack('>iiiib', replica, wait, minimum, maximum, 0)
    if version >= 7: body += struct.pack('>ii', *(session or (0, -1)))
    body += i32(1) + text(topic) + i32(len(partitions))
    for index, offset, size in partitions:
        body += i32(index) + i64(offset) + (i64(-1) if version >= 5 else b'') + i32(size)
    return request(1, version, body + (i32(0) if version >= 7 else b''))


def list_offset(topic, which=-1):
    return request(2, 1, i32(-1) + i32(1) + text(topic) + i32(1) + i32(0) + i64(which))


class Client:
    """One connection, one request after the other."""

    def __init__(self, port, timeout=60):
        self.s = socket.create_connection(('127.0.0.1', port), timeout)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def exactly(self, n):
        out, at = bytearray(n), 0
        view = memoryview(out)
        while at < n:
            got = self.s.recv_into(view[at:])
            if not got:
                raise ConnectionError('closed by the broker')
            at += got
        return out

    def answer(self):
        return self.exactly(struct.unpack('>i', self.exactly(4))[0])

    def ask(self, request):
        self.s.sendall(request)
        return self.answer()

    def close(self):
        self.s.close()

    def end_offset(self, topic):
        return struct.unpack('>q', self.ask(list_offset(topic))[-8:])[0]


def outcome(port, sent, timeout=10):
    """What became of a connection that sent these bytes: ('closed', s) or ('answer', bytes)."""
    begin = time.monotonic()
    try:
        with Client(port, timeout) as c:
            c.s.sendall(sent)
            try:
                return 'answer', c.answer()
            except (ConnectionError, OSError) as e:
                if isinstance(e, TimeoutError):
                    return 'silent', time.monotonic() - begin
    except (ConnectionError, OSError):
        pass # reset while we sent
    return 'closed', time.monotonic() - begin
