"""Data directories that are damaged while the broker is down, and sources with odd records: rows 27 to 29."""
import contextlib, os, re, shutil, struct, time

from hostile_rig import *
from site_rig import Rig, wait


def flip(path, at):
    with open(path, 'r+b') as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 16]))


def data_directories():
    """A clean stop, damage, a start: it serves all it had, or ends with one line that names the file."""
    log, quorum = 't-0/00000000000000000000', '__cluster_metadata-0'
    def grow(path, content):
        with open(path, 'ab') as f:
            f.write(content)
    def write(path, content):
        with open(path, 'wb') as f:
            f.write(content)
    def meta(d, old, new):
        path = os.path.join(d, 'meta.properties')
        text = open(path).read()
        assert re.search(old, text), text
        write(path, re.sub(old, new, text).encode())
    # what is done, whether it is served, words of the line if not; unclean: as after kill -9
    damages = [
        ('short index', lambda d: os.truncate(f'{d}/{log}.index', 3), True, ()), ('index past the log', lambda d: grow(f'{d}/{log}.index', struct.pack('>ii', 5000, 99999)), True, ()),
        ('no indexes', lambda d: [os.unlink(f'{d}/{log}{x}') for x in ('.index', '.timeindex')], True, ()),
        ('zero tail, killed', lambda d: (os.unlink(f'{d}/.kafka_cleanshutdown'), grow(f'{d}/{log}.log', bytes(5000))), True, ()),
        ('half a batch, killed', lambda d: (os.unlink(f'{d}/.kafka_cleanshutdown'), grow(f'{d}/{log}.log', batch()[:40])), True, ()),
        ('stray files', lambda d: [write(f'{d}/{x}', b'?') for x in ('README', 't-0/x.tmp', 't-0/00000000000000000000.log.cleaned', 't-0/notes')], True, ()),
        ('a stray folder', lambda d: os.mkdir(f'{d}/lost+found'), True, ()), ('damaged marker', lambda d: write(f'{d}/.kafka_cleanshutdown', b'{'), True, ()),
        ('another node', lambda d: meta(d, r'node.id=\d+', 'node.id=77'), False, ('node.id',)),
        ('a later version', lambda d: meta(d, r'version=\d+', 'version=9'), False, ('version', 'meta.properties')),
        ('no cluster id', lambda d: meta(d, r'cluster.id=\S+', 'x=y'), False, ('cluster.id',)),
        ('damaged checkpoint', lambda d: write(f'{d}/recovery-point-offset-checkpoint', b'0\n2\nt 0 x\n'), None, ('recovery-point-offset-checkpoint',)),
        ('metadata: a flipped bit', lambda d: flip(f'{d}/{quorum}/00000000000000000000.log', 100), False, (quorum,)),
        ('metadata: garbage in quorum-state', lambda d: write(f'{d}/{quorum}/quorum-state', b'{"leaderId":'), False, ('quorum-state',)),
        ('metadata: epoch 2^31-1', lambda d: write(f'{d}/{quorum}/quorum-state', b'{"clusterId":"","leaderId":-1,"leaderEpoch":2147483647,"votedId":-1,'
            b'"appliedOffset":0,"currentVoters":[{"voterId":1}],"data_version":0}'), False, ('epoch',)),
        ('metadata: no quorum-state', lambda d: os.unlink(f'{d}/{quorum}/quorum-state'), False, ('quorum-state',)),
        ('metadata: a snapshot of nothing', lambda d: write(f'{d}/{quorum}/00000000000000099999-0000000099.checkpoint', b''), False, ('checkpoint',)),
        ('metadata: a torn tail, killed', lambda d: (os.unlink(f'{d}/.kafka_cleanshutdown'), grow(f'{d}/{quorum}/00000000000000000000.log', bytes(30))), True, ()),
    ]
    with Broker() as b:
        with Client(b.port) as c:
            for k in range(5):
                assert produced(c.ask(produce('t', batch(record(b'record %d' % k)))), 't') == 0
        b.stop.set()
        b.other.join(60)
        assert b.daemon.stop() == 0
        data, kept = os.path.join(b.rig.dir, 'east', 'data'), os.path.join(b.rig.dir, 'kept')
        shutil.copytree(data, kept)
        for what, damage, served, words in damages:
            shutil.rmtree(data)
            shutil.copytree(kept, data)
            damage(data)
            begin = len(b.log_lines())
            b.daemon.start(ready=False, env={'ASAN_OPTIONS': 'detect_leaks=0'})  # a refused start leaves what ends with the process
            end = time.monotonic() + 60
            while b.daemon.running and time.monotonic() < end:
                with contextlib.suppress(OSError):
                    if b.daemon.http('/healthz')[0] == 200:
                        break
                time.sleep(0.02)
            said = b.log_lines()[begin:]
            if b.daemon.running:
                assert served is not False, f'{what}: it serves: {said[-5:]}'
                with Client(b.port) as c:
                    wait(f'{what}: five records', 60, lambda: c.end_offset('t') == 5)
                    assert b'record 4' in c.ask(fetch((0, 4, 10000))), what
                    assert produced(c.ask(produce('t', batch())), 't') == 0, what
                assert b.daemon.stop() == 0, what
            else:
                code, b.daemon.proc = b.daemon.proc.returncode, None
                assert served is not True and code in (1, 2), f'{what}: exit {code}: {said[-3:]}'
                assert all(w in said[-1] for w in words), f'{what}: {said[-1]}'
            print(f'  {what}: {"served" if served else said[-1][:150]}', flush=True)
        b.daemon.start()


def records_of(c, topic):
    """(timestamp, what follows the offset delta) of all records of partition 0; batches are uncompressed."""
    out, offset, end = [], 0, c.end_offset(topic)
    while offset < end:
        answer = c.ask(fetch((0, offset, 8 * MIB), topic=topic, maximum=8 * MIB))
        at = 4 + 4 + 4 + 2 + len(topic) + 4 + 4 + 2 + 8 + 8
        at += 4 + max(0, struct.unpack_from('>i', answer, at)[0]) * 16
        rest = answer[at + 4:]
        while len(rest) > 61:
            base, size = struct.unpack_from('>qi', rest)
            one, rest = rest[:size + 12], rest[size + 12:]
            first_ts, n = struct.unpack_from('>q', one, 27)[0], struct.unpack_from('>i', one, 57)[0]
            p = 61
            def number():
                nonlocal p
                shift = value = 0
                while True:
                    byte = one[p]
                    p += 1
                    value |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        return (value >> 1) ^ -(value & 1)
            for _ in range(n):
                length = number()
                stop = p + length
                p += 1
                ts = first_ts + number()
                delta = number()
                if base + delta >= offset:
                    out.append((ts, one[p:stop]))
                p = stop
            offset = base + struct.unpack_from('>i', one, 23)[0] + 1
    return out


def source_records():
    """Odd records of a source arrive as they are, in their order, and stop nothing."""
    with Rig(broker={'log.retention.ms': -1}) as rig:  # some are of 1970
        rig.start()
        now = int(time.time() * 1000)
        many = [(b'h%d' % k, b'v' if k % 2 else None) for k in range(10000)]
        forged = [(b'sundog-origin', b'west'), (b'__sundog.hops', b'\xff' * 300), (b'MirrorMaker', b'west'), (b'', b''), (b'\xff\xfe', None)]  # a NUL in a name librdkafka cuts off: README.md
        odd = [batch(record(None, None)), batch(record(b'', b'')), batch(record(None, b'key')), batch(record(b'v', None, many)),
               batch(record(b'v', b'k', forged)), batch(record(b'v'), ts=-1), batch(record(b'v'), ts=0),
               batch(b''.join(record(b'v%d' % k, b'\xff\xfe\0', delta=k, ts=-k) for k in range(50)), 50, ts=now),
               batch(record(b'x' * 1000000, b'k'), 1), batch(record(b'last'))]
        with Client(rig.port['east'], 60) as c:
            assert created(c.ask(create_topics(('odd', 1, 1, {})))) == {'odd': 0}
            for b in odd:
                assert produced(c.ask(produce('odd', b)), 'odd') == 0, b[:80]
            ours = records_of(c, 'odd')
        with Client(rig.port['west'], 60) as c:
            def arrived():
                with contextlib.suppress(struct.error):
                    return c.end_offset('east.odd') >= len(ours)
            wait('all are there', 120, arrived, 0.2)
            theirs = records_of(c, 'east.odd')
            assert len(theirs) == len(ours) == 59, (len(theirs), len(ours))
            for k, (a, b) in enumerate(zip(ours, theirs)):
                assert a == b, f"record {k}: {a[0]} {a[1][:40]!r} ... {a[1][-40:]!r} became {b[0]} {b[1][:40]!r} ... {b[1][-40:]!r}"
            assert c.end_offset('east.odd') == 59, 'once each'
