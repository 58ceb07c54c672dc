"""Bad input on real sockets: rows of tests/wire/README.md against the real broker.

    tests/support/quiet_net python3 tests/wire/hostile.py [CASE ...]

Of each case is held: the named error, or the connection closed within a second; at most one log line a second; memory at
its peak and the broker's CPU time within what the case says; a bystander who produces and fetches all the time is served
within BYSTANDER_S; the broker lives on. SUNDOG_BIN=build/dev/bin runs the sanitizer build; SUNDOG_SLACK=N allows N times
the CPU time and memory (3 for that one)."""
import collections, contextlib, os, random, re, resource, select, socket, struct, sys, time, zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from hostile_rig import *
from hostile_rig import TOP
from site_rig import run_cases, wait


# ---- frames and headers: rows 1 to 10 ----

def frame_sizes():
    with Broker() as b:
        with b.under('sizes'):
            for _ in range(20):
                for size in (-2**31, -1, *range(8), 2**31 - 1, (100 << 20) + 1):
                    b.closed(struct.pack('>i', size) + bytes(20), f'size {size}')
        with b.under('a size, then silence'):
            waiting = [Client(b.port, 60) for _ in range(200)]
            begin = time.monotonic()
            for c in waiting:
                c.s.sendall(i32(1000000))  # within the limit: room is not taken for it
            for c in waiting:
                assert c.s.recv(1) == b''
            took = time.monotonic() - begin
            assert took >= REQUEST_MS / 1000 - 0.2, f'closed after {took:.2f} s, before the deadline'
            late(took <= 20, f'closed after {took:.2f} s')


def other_protocols():
    with Broker() as b, b.under('HTTP, TLS, SSH'):
        for hello in (b'GET / HTTP/1.1\r\nHost: x\r\n\r\n', b'\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03' + bytes(600), b'SSH-2.0-OpenSSH_9.2\r\n'):
            for _ in range(5):
                b.closed(hello, hello[:4])
    # one hint for each is asserted where the log is at hand
    with Broker() as b:
        b.closed(b'GET / HTTP/1.1\r\n\r\n', 'HTTP')
        time.sleep(1.2)  # a line a peer and second
        b.closed(b'\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03' + bytes(600), 'TLS')
        wait('a hint for each', 60, lambda: all(any(w in l for l in b.log_lines()) for w in ('HTTP on a', 'TLS on a')))


def golden():
    """A request of each API that is served, in its versions of the corpus: (name, frame without size)."""
    d = os.path.join(TOP, 'tests', 'fuzz', 'corpus', 'fuzz_request')
    served = set()
    for line in open(os.path.join(TOP, 'broker', 'api', 'apis.def')):
        if line.startswith('SERVE('):
            served.add(line[6:].split(',')[0].strip().replace('_', ''))
    for name in sorted(os.listdir(d)):
        if name.split('Request-')[0].lower() in served:
            yield name, open(os.path.join(d, name), 'rb').read()


def cut_requests():
    """Every served API cut at every byte, and with bytes behind its end: closed or refused, nothing done in part."""
    with Broker(**{'auto.create.topics.enable': 'false'}) as b:
        with Client(b.port) as c:
            topics = c.ask(metadata(version=1))
        counted = 0
        with b.under('requests cut at every byte', memory=8 * MIB, cpu=6):
            for name, frame in golden():
                if name.startswith(('CreateTopics', 'DeleteTopics', 'AlterConfigs', 'IncrementalAlterConfigs', 'CreatePartitions',
                                    'UpdateFeatures', 'DeleteRecords', 'JoinGroup', 'OffsetCommit')):
                    cuts = range(12, len(frame))
                else:
                    cuts = sorted({*range(0, min(len(frame), 24)), *random.Random(name).sample(range(len(frame)), min(20, len(frame)))})
                for cut in cuts:
                    kind, value = outcome(b.port, framed(frame[:cut]), 30)
                    # A golden frame may be cut behind its last member that matters: an answer is fine, silence is not.
                    assert kind != 'silent', f'{name} cut at {cut}'
                    counted += 1
                if not name.startswith('Metadata'):
                    b.closed(framed(frame + b'\0\1\2'), f'{name} with bytes behind it')
        with Client(b.port) as c:
            assert c.ask(metadata(version=1)) == topics, 'something was done in part'
        print(f'  {counted} cut requests')


def slow_loris():
    with Broker() as b, b.under('a byte now and then', cpu=1.0):
        frame = request(3, 1, i32(0) + bytes(64))
        slow = [(Client(b.port), k) for k in range(60)]
        begin, sent = time.monotonic(), 0
        while slow and time.monotonic() - begin < 60:
            for c, k in list(slow):
                at = min(sent + k % 12, len(frame) - 2)
                try:
                    c.s.sendall(frame[at:at + 1])
                    c.s.setblocking(False)
                    with contextlib.suppress(BlockingIOError):
                        if c.s.recv(1) == b'':
                            raise ConnectionError
                    c.s.setblocking(True)
                except (ConnectionError, OSError):
                    slow.remove((c, k))
            sent += 1
            time.sleep(0.25)
        assert not slow, f'{len(slow)} are still there'


def resets_and_versions():
    with Broker() as b:
        with b.under('connections reset with answers under way', memory=24 * MIB, cpu=3):
            for _ in range(40):
                with Client(b.port) as c:
                    c.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                    with contextlib.suppress(OSError):
                        c.s.settimeout(0.2)
                        c.s.sendall(VERSIONS * 2000)
        with b.under('keys and versions that are not served'):
            for key, version in ((-1, 0), (32767, 0), (3, -1), (3, 14), (0, 13), (1, 19), (18, -1), (24, 0), (17, 0), (36, 0), (52, 0), (58, 0)):
                b.closed(request(key, version, bytes(40)), f'API {key} version {version}')
            with Client(b.port) as c:
                for version in (5, 100, 32767):
                    answer = c.ask(request(18, version, bytes(9)))
                    assert struct.unpack_from('>h', answer, 4)[0] == UNSUPPORTED_VERSION and len(answer) > 20, answer[:12]


def client_ids():
    with Broker() as b, b.under('client ids', memory=2 * MIB):
        ids = (None, b'', b'\xff\xfe\xc3', b'a\0b', b'two\nlines level=error', b'\x1b[31mred\x1b[0m', b'x' * 32767, 'ü"\\'.encode())
        for n in ids:
            for _ in range(3):
                with Client(b.port) as c:
                    c.ask(request(18, 0, client=n))
                    c.ask(request(3, 1, i32(0), client=n))
                b.closed(request(3, 1, b'\x7f', client=n), 'a malformed body')
        for k in range(500):
            with Client(b.port) as c:
                c.ask(request(18, 0, client=b'client-%d' % k))
        page = b.daemon.http('/metrics')[1]
        assert len(page.splitlines()) < 3000 and 'client-4' not in page, 'a label of strangers'


def numbers_and_counts():
    """Varints, counts and tagged sections that lie."""
    def heartbeat(group, rest):
        return request(12, 4, group + rest, tags=b'\0')
    good = b'\2g' + i32(1) + b'\2m' + b'\0' + b'\0'
    with Broker() as b, b.under('varints, counts, tags', memory=8 * MIB):
        for bad in (b'\x82\x80\x80\x80\x10', b'\x82\x80\x80\x80\x80\x00', b'\xff\xff\xff\xff\xff\xff', b'\xff' * 40, b'\x80\x80\x80\x80\x08', b'\0'):
            b.closed(heartbeat(bad, b'g' + good[2:]), f'varint {bad!r}')
        for tags in (b'\xff\xff\xff\xff\x0f', b'\x80\x80\x80\x80\x08', b'\2\5\1x\3\1x', b'\2\5\1x\5\1y', b'\1\5\x7fx', b'\1\5\xff\xff\xff\xff\x07x',
                     uvarint(10**6) + b'\x90\x4e\0' * 10**6):
            b.closed(heartbeat(b'\2g', i32(1) + b'\2m' + b'\0' + tags), f'tags {tags[:8]!r}')
        with Client(b.port) as c:
            c.ask(heartbeat(b'\2g', i32(1) + b'\2m' + b'\0' + b'\2\x14\3abc\x15\0'))  # unknown ones of good size are passed over
        for count in (2**31 - 1, 100_000_000, 65536, -2, -2**31):
            b.closed(request(3, 1, i32(count) + bytes(300)), f'{count} names')
            b.closed(request(0, 7, struct.pack('>hhii', -1, 1, 1, 1) + text('t') + i32(count) + bytes(100)), f'{count} partitions')
            b.closed(request(9, 1, text('g') + i32(1) + text('t') + i32(count)), f'{count} indexes')
        for null in (request(12, 0, i16(-1) + i32(1) + text('m')), request(10, 0, i16(-1)), request(19, 2, i32(1) + i16(-1) + bytes(30))):
            b.closed(null, 'null where none may be')


def many_small_elements():
    """Elements of a byte each in frames of 6 MiB: what they decode to is charged before it is taken."""
    with Broker() as b, b.under('a million elements', memory=48 * MIB, cpu=2.0):
        for _ in range(4):
            names = 6 * MIB
            kind, value = outcome(b.port, request(42, 2, uvarint(names + 1) + b'\1' * names + b'\0', tags=b'\0'), 60)
            assert kind == 'closed', f'{kind}: {len(value) if isinstance(value, bytes) else value}'


# ---- records: rows 11 to 15 ----

def broken_batches():
    good = record()
    with Broker() as b, b.under('batches', memory=2 * MIB), Client(b.port) as c:
        whole = len(batch()) - 12
        for what, bad, *errors in (
                ('length - 1', batch(length=whole - 1), RECORD, CORRUPT), ('length + 1', batch(length=whole + 1), CORRUPT),
                ('length -1', batch(length=-1), CORRUPT), ('length 2^31-1', batch(length=2**31 - 1), CORRUPT, TOO_LARGE),
                ('length 48', batch(length=48), CORRUPT), ('two batches', batch() * 2, RECORD), ('overlapping', batch() + batch()[:30], RECORD, CORRUPT),
                ('magic 0', batch(magic=0), FORMAT, RECORD), ('magic 1', batch(magic=1), FORMAT, RECORD), ('magic 3', batch(magic=3), FORMAT, RECORD, CORRUPT),
                ('CRC', batch(crc=1), CORRUPT), ('control', batch(attributes=32), RECORD), ('reserved bit', batch(attributes=128), RECORD),
                ('bit 15', batch(attributes=-32768), RECORD), ('codec 5', batch(attributes=5), COMPRESSION, RECORD),
                ('count -1', batch(good, -1, last=0), RECORD), ('count 0', batch(good, 0, last=0), RECORD), ('count 2^31-1', batch(good, 2**31 - 1), RECORD),
                ('last offset delta', batch(good, 1, last=5), RECORD), ('a record\'s length', batch(b'\x7e' + good[1:]), RECORD),
                ('header count -1', batch(record(count=-1)), RECORD), ('a million headers', batch(record(count=10**6)), RECORD),
                ('null header key', batch(record(headers=[(None, b'x')])), RECORD), ('base offset', batch(base=9), RECORD),
                ('nothing', b'', RECORD), ('a byte', b'\0', CORRUPT), ('id without sequence', batch(pid=5), RECORD), ('id -2', batch(pid=-2), RECORD)):
            try:
                b.refused(c, 't', bad, *errors)
            except AssertionError as e:
                raise AssertionError(f'{what}: {e}') from None
        for acks in (2, -2, 32767, -32768):
            b.refused(c, 't', batch(), ACKS, acks=acks)
        for ts in (-2**63, 2**63 - 1, -2):
            assert produced(c.ask(produce('t', batch(ts=ts))), 't') in (32, RECORD, 0), ts
        b.refused(c, 't', batch(), REQUEST) if False else None
        kind, value = outcome(b.port, produce('nowhere', batch(), acks=0), 30)
        assert kind == 'closed', f'acks=0 with an error: {kind}'


def large_record(size):
    """The bytes in front of a value of so many: a record that a reader follows to its end."""
    head = b'\0' + varint(0) + varint(0) + varint(-1) + varint(size)
    return varint(len(head) + size + 1) + head


def zstd_bomb(out_bytes):
    """A frame of blocks that repeat one byte: 4 bytes give 128 KiB."""
    blocks, first = out_bytes >> 17, large_record(min(out_bytes, 2**31 - 100))
    block = lambda size, kind, last: struct.pack('<I', size << 3 | kind << 1 | last)[:3]
    # magic, no content size, window 2 MiB; a raw block, then the repeating ones
    return (b'\x28\xb5\x2f\xfd\0\x58' + block(len(first), 0, 0) + first +
            b''.join(block(128 << 10, 1, k == blocks - 1) + b'a' for k in range(blocks)))


def lz4_bomb(in_bytes):
    """Sequences whose match length goes on for ever: 255 bytes out of each byte in."""
    size = 16000  # of a block: 4 MiB out
    first = large_record(in_bytes * 250)
    def block(literals):
        n = len(literals)
        return bytes([min(n, 15) << 4 | 15]) + (bytes([n - 15]) if n >= 15 else b'') + literals + b'\1\0' + b'\xff' * size + b'\0' + b'\x50aaaaa'
    blocks = [block(first)] + [block(b'a')] * (in_bytes // size)
    return b'\x04\x22\x4d\x18\x60\x70\x73' + b''.join(struct.pack('<I', len(x)) + x for x in blocks) + bytes(4)


def snappy_bomb(claim, copies):
    first = large_record(64 * copies)
    return uvarint(claim) + bytes([len(first) - 1 << 2]) + first + b'\xfe\1\0' * copies


def gzip_of(content):
    z = zlib.compressobj(9, zlib.DEFLATED, 31)
    return z.compress(content) + z.flush()


def gzip_bomb(megabytes):
    z = zlib.compressobj(9, zlib.DEFLATED, 31)
    return z.compress(large_record(megabytes * MIB)) + b''.join(z.compress(bytes(MIB)) for _ in range(megabytes)) + z.flush()


def bombs():
    """A second of CPU time for each MiB that came in, and a few times its size in memory: what comes out is looked at and not
    kept. (Plain snappy is no stream: it gives 22 times its size at most, and that it takes.)"""
    packed = [('zstd 10 GiB', 4, zstd_bomb(10 << 30)), ('zstd window 2^31', 4, b'\x28\xb5\x2f\xfd\0\xa8' + b'\0' * 200),
              ('zstd 1 GiB', 4, zstd_bomb(1 << 30)), ('gzip 400 MiB', 1, gzip_bomb(400)), ('lz4 255:1', 3, lz4_bomb(900 << 10)),
              ('lz4 content size', 3, b'\x04\x22\x4d\x18\x68\x70' + b'\xff' * 8 + b'\0' + bytes(100)),
              ('snappy 4 GiB', 2, snappy_bomb(2**32 - 1, 300000)), ('snappy 20:1', 2, snappy_bomb(300000 * 64 + 17, 300000)), ('snappy 1 GiB in 3 bytes', 2, uvarint(1 << 30) + b'\0a'),
              ('xerial chunk', 2, b'\x82SNAPPY\0\0\0\0\1\0\0\0\1' + i32(2**31 - 1) + bytes(100)),
              ('xerial negative', 2, b'\x82SNAPPY\0\0\0\0\1\0\0\0\1' + i32(-5) + bytes(100))]
    good = record()
    raw = [('zstd', 4, b'\x28\xb5\x2f\xfd\0\x58' + struct.pack('<I', len(good) << 3 | 1)[:3] + good),
           ('gzip', 1, gzip_of(good)), ('snappy', 2, uvarint(len(good)) + bytes([len(good) - 1 << 2]) + good),
           ('lz4', 3, b'\x04\x22\x4d\x18\x60\x70\x73' + struct.pack('<I', len(good) | 1 << 31) + good + bytes(4))]
    with Broker() as b:
        with Client(b.port) as c:  # the frames around the bombs are right: with a record inside they are taken
            for what, codec, payload in raw:
                assert produced(c.ask(produce('t', batch(payload, 1, attributes=codec))), 't') == 0, what
        for what, codec, payload in packed:
            bad = batch(payload, 1, attributes=codec)
            with b.under(f'{what} of {len(bad) >> 10} KiB', memory=max(6 * MIB, (23 if codec == 2 else 6) * len(bad)), cpu=max(0.3, len(bad) / MIB)), Client(b.port) as c:
                for _ in range(3 if len(bad) < 100000 else 1):
                    b.refused(c, 't', bad, RECORD, CORRUPT, COMPRESSION, TOO_LARGE)


def sequences():
    with Broker() as b:
        with b.under('sequences', memory=2 * MIB), Client(b.port) as c:
            ok = lambda **k: produced(c.ask(produce('t', batch(**k))), 't')
            big = 2**31 - 1
            assert ok(pid=9000, epoch=0, seq=big) == 0, 'an unknown id may begin anywhere'
            assert ok(pid=9000, epoch=0, seq=0) == 0, 'it goes on at 0 behind 2^31-1'
            b.refused(c, 't', batch(pid=9000, epoch=0, seq=5), OUT_OF_ORDER)
            assert ok(pid=9000, epoch=3, seq=0) == 0
            b.refused(c, 't', batch(pid=9000, epoch=2, seq=1), OLD_EPOCH)
            b.refused(c, 't', batch(pid=9000, epoch=4, seq=1), OUT_OF_ORDER)
            assert ok(pid=-1, epoch=0, seq=7) == 0, 'a sequence without an id means nothing: sarama sends it, Kafka takes it'
        with b.under('100,000 InitProducerId', memory=24 * MIB, cpu=6), Client(b.port) as c:
            ask = request(22, 0, i16(-1) + i32(1000))
            ids = set()
            for _ in range(500):
                c.s.sendall(ask * 200)
                ids |= {struct.unpack_from('>q', c.answer(), 10)[0] for _ in range(200)}
            assert len(ids) == 100000, 'an id was given twice'


# ---- fetching, topics, groups: rows 16 to 19 ----

def fetches():
    with Broker() as b:
        big = b'x' * 400000
        with Client(b.port) as c:
            for _ in range(3):
                assert produced(c.ask(produce('t', batch(record(big), 1))), 't') == 0
        with b.under('fetches that ask for everything', memory=12 * MIB, cpu=2), Client(b.port) as c:
            answer = c.ask(fetch(*[(k, 0, 2**31 - 1) for k in range(10000)], maximum=2**31 - 1, minimum=2**31 - 1, wait=2**31 - 1))
            assert len(answer) < 4 * MIB, len(answer)
            for minimum, wait_ms in ((-1, -1), (-2**31, -2**31), (1, 0)):
                c.ask(fetch((0, 0, 100), minimum=minimum, wait=wait_ms, maximum=-5))
        with b.under('a fetch that waits for ever, given up', memory=4 * MIB), Client(b.port) as c:
            waiting = [Client(b.port) for _ in range(100)]
            for w in waiting:
                w.s.sendall(fetch((0, 3, 2**31 - 1), minimum=2**31 - 1, wait=2**31 - 1, maximum=2**31 - 1))
            time.sleep(0.3)
            for w in waiting:
                w.s.close()
        with b.under('sessions and replicas that are not', memory=2 * MIB), Client(b.port) as c:
            top = lambda request: struct.unpack_from('>h', c.ask(request), 8)[0]
            for session in ((1, 1), (2**31 - 1, 5), (0, 5), (-7, 2)):
                assert top(fetch((0, 0, 100), version=7, session=session)) == SESSION_ID, session
            for replica in (0, 1, 2**31 - 1):
                assert top(fetch((0, 0, 100), version=7, replica=replica)) == CLUSTER_AUTH, replica
            for offset in (-1, -2**63, 99, 2**63 - 1):
                answer = c.ask(fetch((0, offset, 100)))
                assert struct.unpack_from('>h', answer, 4 + 4 + 4 + 3 + 4 + 4)[0] == OFFSET_RANGE, offset
            for n in range(20000):
                c.s.sendall(fetch((0, 3, 100), version=7, session=(0, 0)))
                if n % 100 == 99:
                    for _ in range(100):
                        c.answer()


def topics():
    bad = ['', '.', '..', '../x', '../../etc/x', 'a/b', 'x' * 250, 'a\0b', 'a b', 'a\nb', 'ü', '\x1b[0m', '__cluster_metadata']
    with Broker(**{'sundog.partitions.max': 3000}) as b:
        folders = lambda: set(os.listdir(os.path.join(b.rig.dir, 'east', 'data')))
        before = folders()
        with b.under('topic names', memory=2 * MIB), Client(b.port) as c:
            for name in bad:
                error = created(c.ask(create_topics((name, 1, 1, {}))))
                assert list(error.values())[0] in (INVALID_TOPIC, REQUEST), (name, error)
                if name == '__cluster_metadata':
                    continue
                answer = c.ask(metadata(name, create=True))
                assert INVALID_TOPIC.to_bytes(2, 'big') in answer, name
            assert created(c.ask(create_topics(('a.b', 1, 1, {}))))['a.b'] == 0
            assert created(c.ask(create_topics(('a_b', 1, 1, {}))))['a_b'] == INVALID_TOPIC
        assert folders() - before <= {'a.b-0'} and not os.path.exists(os.path.join(b.rig.dir, 'east', 'x-0')), folders() - before
        with b.under('sizes and options of topics', memory=2 * MIB), Client(b.port) as c:
            for parts, factor, configs, *errors in ((10**6, 1, {}, PARTITIONS, 44), (2**31 - 1, 1, {}, PARTITIONS, 44), (0, 1, {}, PARTITIONS),
                                                    (-5, 1, {}, PARTITIONS), (1, 0, {}, FACTOR), (1, -2, {}, FACTOR), (1, 32767, {}, FACTOR),
                                                    (1, 1, {'no.such': 'x'}, CONFIG), (1, 1, {'retention.ms': 'soon'}, CONFIG),
                                                    (1, 1, {'segment.bytes': '1'}, CONFIG), (1, 1, {'cleanup.policy': 'x' * 30000}, CONFIG)):
                got = created(c.ask(create_topics(('sized', parts, factor, configs))))['sized']
                assert got in errors, f'{parts} partitions, factor {factor}, {list(configs)}: {got}'
            answer = c.ask(request(21, 0, i32(1) + text('t') + i32(1) + i32(0) + i64(100) + i32(1000)))
            assert struct.unpack('>h', answer[-2:])[0] == OFFSET_RANGE, 'DeleteRecords past the high watermark'
        with b.under('Metadata of 100,000 names', memory=40 * MIB, cpu=3), Client(b.port, 60) as c:
            answer = c.ask(metadata(*[f'name-{k:06}' for k in range(100000)]))
            assert len(answer) > 100000
        with b.under('a storm of first uses', memory=40 * MIB, cpu=8), Client(b.port, 60) as c:
            for k in range(20):
                c.ask(metadata(*[f'storm-{k}-{n}' for n in range(200)], create=True))
            made = len([f for f in folders() if f.startswith('storm-')])
            assert 0 < made <= 1200, f'{made} topics were made'


REBALANCE_MS = 5000  # who does not come again within it leaves room for others


def join(group, member=b'', metadata_bytes=b'', protocols=1):
    body = text(group) + i32(60000) + i32(REBALANCE_MS) + text(member) + text('consumer') + i32(protocols)
    return request(11, 2, body + (text('range') + data(metadata_bytes)) * protocols)


def groups():
    with Broker(**{'group.max.size': 100, 'offset.metadata.max.bytes': 4096}) as b:
        with Client(b.port) as c:
            wait('the coordinator is there', 60, lambda: struct.unpack_from('>h', c.ask(request(10, 0, text('g'))), 4)[0] == 0, 0.2)
        with b.under('groups', memory=34 * MIB, cpu=2), Client(b.port, 60) as c:
            error = lambda request, at=4: struct.unpack_from('>h', c.ask(request), at)[0]
            wait('groups are loaded', 60, lambda: error(request(12, 0, text('g') + i32(1) + text('m'))) == UNKNOWN_MEMBER, 0.1)
            assert error(join('big', metadata_bytes=bytes(10 * MIB)), 8) not in (0, -1), '10 MiB of subscription'
            answer = c.ask(join('g'))
            throttle, code, generation = struct.unpack_from('>ihi', answer, 4)
            assert code == 0, code
            size, = struct.unpack_from('>h', answer, 14)
            at = 16 + size
            size, = struct.unpack_from('>h', answer, at)
            at += 2 + size
            size, = struct.unpack_from('>h', answer, at)
            member = answer[at + 2:at + 2 + size]
            sync = lambda generation, member, assignments=b'': request(14, 0, text('g') + i32(generation) + text(member) + (assignments or i32(0)))
            assert error(sync(generation, b'stranger')) == UNKNOWN_MEMBER
            assert error(sync(-2, member)) == ILLEGAL_GENERATION
            assert error(sync(generation + 1, member)) == ILLEGAL_GENERATION
            commit = lambda generation, member, metadata_text: request(8, 2, text('g') + i32(generation) + text(member) + i64(-1) + i32(1) +
                                                                       text('t') + i32(1) + i32(0) + i64(7) + text(metadata_text))
            code = lambda request: struct.unpack('>h', c.ask(request)[-2:])[0]
            assert error(sync(generation, member, i32(1) + text(member) + data(b'x'))) == 0
            assert code(commit(generation, member, b'm' * 32767)) == METADATA_LARGE
            assert code(commit(-2, member, b'')) == ILLEGAL_GENERATION
            assert code(commit(generation + 9, member, b'')) == ILLEGAL_GENERATION
            assert code(commit(generation, b'other', b'')) == UNKNOWN_MEMBER
            offset = struct.unpack_from('>q', c.ask(request(9, 1, text('g') + i32(1) + text('t') + i32(1) + i32(0))), 4 + 4 + 3 + 4 + 4)[0]
            assert offset == -1, f'offset {offset} was committed by somebody'
        with b.under('members beyond the limit', memory=12 * MIB, cpu=2):
            members, answers = [Client(b.port, 60) for _ in range(300)], []
            for m in members:
                m.s.sendall(join('crowd'))
            silent = {m.s: m for m in members}
            def decided():  # all but those who are in and wait for the first ones, who never come again
                for s in select.select(list(silent), [], [], 0)[0]:
                    answers.append(struct.unpack_from('>hi', silent.pop(s).answer(), 8))
                return len(silent) <= 100
            wait('all but 100 are answered', 60, decided)
            for m in members:
                m.s.close()
            counts = collections.Counter(answers)  # (error, generation)
            assert {e for e, _ in counts} <= {0, GROUP_FULL} and max(n for (e, _), n in counts.items() if e == 0) <= 100, counts
            late(sum(n for (e, _), n in counts.items() if e == GROUP_FULL) >= 100, f'some had left before others came: {counts}')


# ---- descriptors, the admin port: rows 25 and 30 ----

def descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        b = Broker()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with b:
        with b.under('400 connections to 256 descriptors', memory=4 * MIB, cpu=1.0):
            held = []
            for _ in range(400):
                with contextlib.suppress(OSError):
                    held.append(socket.create_connection(('127.0.0.1', b.port), 2))
            spent = b.cpu()
            time.sleep(1.5)
            spent = b.cpu() - spent
            late(spent < 0.5 * SLACK, f'{spent:.2f} s of CPU time in 1.5 s: it spins')
            assert b.daemon.http('/healthz')[0] == 200, 'the admin port has no descriptor'
            for s in held:
                s.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def admin_port():
    with Broker() as b:
        def ask(*parts, timeout=30):
            with socket.create_connection(('127.0.0.1', b.daemon.admin), timeout) as s:
                out = b''
                with contextlib.suppress(OSError):
                    for p in parts:
                        s.sendall(p)
                    while not re.match(rb'HTTP/1\.[01] \d+ ', out):
                        got = s.recv(65536)
                        if not got:
                            break
                        out += got
                return int(out.split()[1]) if out.startswith(b'HTTP/1.') else None
        host = b'Host: 127.0.0.1:%d\r\n' % b.daemon.admin
        with b.under('the admin port', memory=3 * MIB, cpu=1.5):
            assert ask(b'GET /healthz HTTP/1.1\r\n' + host + b'\r\n') == 200
            for what, sent in {
                    '1 MiB header': [b'GET / HTTP/1.1\r\n' + host + b'X: ' + b'a' * MIB], '100,000 headers': [b'GET / HTTP/1.1\r\n' + host + b'a: b\r\n' * 100000],
                    'chunked 0x': [b'POST / HTTP/1.1\r\n' + host + b'Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n'],
                    'chunked +': [b'GET / HTTP/1.1\r\n' + host + b'Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n'],
                    'chunked -': [b'GET / HTTP/1.1\r\n' + host + b'Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n'],
                    'Content-Length twice': [b'GET / HTTP/1.1\r\n' + host + b'Content-Length: 0\r\nContent-Length: 5\r\n\r\n'],
                    'both lengths': [b'GET / HTTP/1.1\r\n' + host + b'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n'],
                    'dots': [b'GET /..%2f..%2fetc/passwd HTTP/1.1\r\n' + host + b'\r\n'], 'POST': [b'POST /status HTTP/1.1\r\n' + host + b'Content-Length: 0\r\n\r\n'],
                    'another host': [b'GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n'], 'no host': [b'GET /status HTTP/1.1\r\n\r\n'],
                    'HTTP/9': [b'GET / HTTP/9.9\r\n' + host + b'\r\n'], 'NUL': [b'GET /\0 HTTP/1.1\r\n' + host + b'\r\n'],
                    'folded': [b'GET / HTTP/1.1\r\n' + host + b'A: b\r\n c\r\n\r\n'], 'a Kafka frame': [VERSIONS]}.items():
                code = ask(*sent)
                assert code is None and what in ('1 MiB header', '100,000 headers', 'a Kafka frame') or code and 400 <= code <= 505, f'{what}: {code}'
            idle = [socket.create_connection(('127.0.0.1', b.daemon.admin), 5) for _ in range(100)]
            for s in idle:
                s.close()
        listening = [l.split()[1] for l in open('/proc/net/tcp').readlines()[1:] if l.split()[3] == '0A']
        assert [l for l in listening if l.endswith(f':{b.daemon.admin:04X}')] == [f'0100007F:{b.daemon.admin:04X}'], 'bound to loopback alone'


from hostile_dirs import data_directories, source_records

CASES = [frame_sizes, other_protocols, cut_requests, slow_loris, resets_and_versions, client_ids, numbers_and_counts, many_small_elements,
         broken_batches, bombs, sequences, fetches, topics, groups, descriptors, admin_port, data_directories,
         source_records]

if __name__ == '__main__':
    sys.exit(run_cases(CASES, sys.argv[1:], jobs=int(os.environ.get('SUNDOG_JOBS', '1'))))
