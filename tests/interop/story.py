"""The main job on real input: two sites, both directions, every codec, three hops, a group that moves and comes back."""
import concurrent.futures, ctypes, os, random, subprocess, sys, time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from records import commit, end_offsets, partitions, read_topic, same
from site_rig import Late, Rig, run_cases, wait

KEEP = {'log.retention.ms': -1}  # of records of long ago
MEGABYTES = int(os.environ.get('SUNDOG_STORY_MB', '50'))


def text_lines(megabytes):
    """Package descriptions, repeated until long enough: real text, one keyed record a line."""
    out = subprocess.run(['apt-cache', 'dumpavail'], capture_output=True).stdout
    if len(out) < 1000:
        out = ''.join(open(os.path.join(d, f), errors='replace').read() for d, _, fs in os.walk('/usr/share/common-licenses') for f in fs).encode()
    lines = [l for l in out.split(b'\n') if l and b'|' not in l]
    total, n = 0, 0
    while total < megabytes * 1_000_000:
        line = lines[n % len(lines)]
        yield b'%d|%d %s' % (n % 997, n, line)
        total += len(line) + 12
        n += 1


def kcat(*args, data=None, timeout=300):
    r = subprocess.run(['kcat', *args], input=data, capture_output=True, timeout=timeout)
    assert r.returncode == 0, f'kcat {args}: {r.stderr.decode()[:500]}'
    return r.stdout


def wait_same(rig, source, target, topic, remote=None, seconds=180):
    remote = remote or f'{source}.{topic}'
    want = end_offsets(rig.bootstrap(source), topic)
    assert want, f'{source} does not know {topic}'

    def probe():
        return end_offsets(rig.bootstrap(target), remote) == want or None
    wait(f'{remote} at {target} as long as {topic} at {source}', seconds, probe, 0.2)
    a, b = read_topic(rig.bootstrap(source), topic), read_topic(rig.bootstrap(target), remote)
    same(a, b, remote)
    return a


def make(rig, site, topic, n, **config):
    admin = AdminClient({'bootstrap.servers': rig.bootstrap(site)})  # must outlive its futures
    for f in admin.create_topics([NewTopic(topic, n, 1, config=config)]).values():
        f.result(60)


def a_large_file_crosses_in_both_directions():
    with Rig() as rig:
        rig.start()
        make(rig, 'east', 'packages', 4), make(rig, 'west', 'archive', 3)
        lines = list(text_lines(MEGABYTES))
        data = b'\n'.join(lines) + b'\n'
        jobs = [subprocess.Popen(['kcat', '-P', '-b', rig.bootstrap(s), '-t', t, '-K', '|', '-H', 'origin=' + s, '-H', 'empty='],
                                 stdin=subprocess.PIPE) for s, t in (('east', 'packages'), ('west', 'archive'))]
        import threading
        feeders = [threading.Thread(target=lambda j=j: (j.stdin.write(data), j.stdin.close())) for j in jobs]
        for f in feeders: f.start()
        for f in feeders: f.join()
        for j in jobs: assert j.wait(300) == 0
        for s, t, topic in (('east', 'west', 'packages'), ('west', 'east', 'archive')):
            log = wait_same(rig, s, t, topic)
            got = sorted(r.key + b'|' + r.value for p in log.values() for r in p)
            assert got == sorted(lines), f'{topic}: {len(got)} records for {len(lines)} lines'
        for site in ('east', 'west'):
            bad = [t for t in AdminClient({'bootstrap.servers': rig.bootstrap(site)}).list_topics(timeout=60).topics
                   if 'packages' in t and t.count('east') > 1 or t.startswith(f'{site}.')]
            assert not bad, f'a record crossed twice: {site} has {bad}'
        print(f'{len(lines)} records of {len(data) / 1e6:.0f} MB each way')


def every_codec_and_every_size():
    with Rig(flows=['east->west'], broker=KEEP) as rig:
        rig.start()
        rng = random.Random(7)
        for codec in ('none', 'gzip', 'snappy', 'lz4', 'zstd'):
            topic = f'sizes-{codec}'
            make(rig, 'east', topic, 2)
            p = Producer({'bootstrap.servers': rig.bootstrap('east'), 'compression.type': codec, 'message.max.bytes': 1048588, 'linger.ms': 20})
            for n in [0, 1, 2, 127, 128, 16383, 16384, 100_000, 1_000_000] + [rng.randrange(5000) for _ in range(300)]:
                half = n // 2
                value = rng.randbytes(half) + b'text ' * ((n - half) // 5 + 1)
                for key, v in ((b'', value[:n]), (None, value[:n]), (b'k%d' % (n % 7), value[:n])):
                    while True:
                        try:
                            p.produce(topic, v, key, timestamp=1_600_000_000_000 + n, headers=[('h', b''), ('h', None), ('n', b'%d' % n)])
                            break
                        except BufferError: p.poll(0.1)
            p.produce(topic, None, b'tombstone')
            assert p.flush(60) == 0
            wait_same(rig, 'east', 'west', topic)


def a_backlog_larger_than_every_buffer_is_caught_up_with():
    """The source is ahead by far more than the mirror may hold: each bound is met over and over, and left again."""
    with Rig(flows=['east->west'], mirror={'sundog.memory.max.bytes': '16777216'}, broker={'sundog.flush.before.ack': 'false'}) as rig:
        for b in rig.brokers.values():
            b.start()
        make(rig, 'east', 'backlog', 4)
        value = b'v' * 90
        kcat('-P', '-b', rig.bootstrap('east'), '-t', 'backlog', '-K', '|', data=b''.join(b'%d|%s\n' % (i, value) for i in range(1_000_000)))
        rig.mirrors['west'].start()
        wait_same(rig, 'east', 'west', 'backlog')


def three_hops_are_named_hop_by_hop():
    """east -> west -> north -> east: prefixes pile up, and no topic returns to a site it has been at."""
    with Rig(sites=('east', 'west', 'north'), flows=['east->west', 'west->north', 'north->east']) as rig:
        rig.start()
        make(rig, 'east', 'orders', 1)
        p = Producer({'bootstrap.servers': rig.bootstrap('east')})
        for i in range(100): p.produce('orders', b'v%d' % i, b'k')
        assert p.flush(60) == 0
        wait('west.east.orders at north', 120, lambda: partitions(rig.bootstrap('north'), 'west.east.orders'))
        wait_same(rig, 'east', 'north', 'orders', 'west.east.orders')
        time.sleep(4)
        topics = AdminClient({'bootstrap.servers': rig.bootstrap('east')}).list_topics(timeout=60).topics
        assert not [t for t in topics if t.endswith('east.orders')], sorted(topics)


def consume(bootstrap, group, topic, n, timeout=120):
    """Reads exactly n records in the group and commits behind them: their (partition, offset, value)."""
    c = Consumer({'bootstrap.servers': bootstrap, 'group.id': group, 'enable.auto.commit': False, 'auto.offset.reset': 'error',
                  'session.timeout.ms': 45000})
    c.subscribe([topic])
    out, at, end = [], {}, time.monotonic() + timeout
    while len(out) < n:
        if time.monotonic() >= end:
            raise Late(f'group {group} read {len(out)} of {n} from {topic} in {timeout} s')
        m = c.poll(0.2)
        if m is None: continue
        if m.error():
            if m.error().code() in (KafkaError._PARTITION_EOF, KafkaError.UNKNOWN_TOPIC_OR_PART): continue
            raise AssertionError(str(m.error()))
        out.append((m.partition(), m.offset(), m.value()))
        at[m.partition()] = m.offset() + 1
    commit(c, [TopicPartition(topic, p, o) for p, o in at.items()])
    c.close()
    return out


def synced(rig, mirror_file, group, want, seconds=90):
    """Waits until the mirror's own account says that the group's offsets were translated exactly as of `want` {partition: offset}."""
    def probe():
        rows = rig.cli_json('-c', mirror_file, 'translate', '--group', group, check=False)
        have = {r['partition']: r['source_offset'] for r in rows.get('partitions', []) if r.get('source_topic') == 'orders' and r['reread'] == 0}
        return all(have.get(p) == o for p, o in want.items()) or None
    wait(f'group {group} followed up to {want}', seconds, probe, 0.3)


def a_group_fails_over_and_back_at_exact_offsets():
    with Rig() as rig:
        rig.start()
        make(rig, 'east', 'orders', 3)
        p = Producer({'bootstrap.servers': rig.bootstrap('east'), 'linger.ms': 5})
        for i in range(30_000): p.produce('orders', b'%d' % i, b'k%d' % (i % 100))
        assert p.flush(60) == 0
        c = Consumer({'bootstrap.servers': rig.bootstrap('east'), 'group.id': 'shop'})
        commit(c, [TopicPartition('orders', q, 0) for q in range(3)])
        c.close()
        first = consume(rig.bootstrap('east'), 'shop', 'orders', 11_000)
        committed = {}
        for q, o, _ in first: committed[q] = max(committed.get(q, 0), o + 1)
        wait_same(rig, 'east', 'west', 'orders')
        wait_mapped(rig, 'orders')  # else it may be translated to what comes before
        synced(rig, 'west-mirror.properties', 'shop', committed)
        rig.brokers['east'].kill()
        moved = rig.cli_json('-c', 'west-mirror.properties', 'failover', '--to', 'west', '--group', 'shop')
        assert sum(x.get('reread', 0) for x in moved['partitions']) == 0, moved
        second = consume(rig.bootstrap('west'), 'shop', 'east.orders', 9_000)
        values = [v for _, _, v in first + second]
        assert len(values) == len(set(values)), 'a record was read again after the failover'
        rig.brokers['east'].start()
        back = rig.cli_json('-c', 'west-mirror.properties', 'failback', '--to', 'east', '--group', 'shop', '--partial')
        assert back['partitions'], back
        third = consume(rig.bootstrap('east'), 'shop', 'orders', 10_000)
        values = sorted(int(v) for _, _, v in first + second + third)
        assert values == list(range(30_000)), f'{len(values)} read, {len(set(values))} different, of 30000'


def translate(rig, topic, p, offset):
    return rig.cli_json('translate', '--store', 'west-mirror.store', '--flow', 'east->west', '--topic', topic, '--partition', str(p), '--offset', str(offset))


def wait_mapped(rig, topic):
    """Until the store has the map up to the source's ends: it is told of records after they have arrived."""
    ends = end_offsets(rig.bootstrap('east'), topic)
    assert ends
    wait(f'the map of {topic} up to {ends}', 90, lambda: all(translate(rig, topic, p, end)['state'] == 'exact' for p, end in ends.items()), 0.2)


def stranger_records(rig):
    """How many the mirror's ledger tells of: batches of one producer may be read, and told of, in parts."""
    return sum(e['count'] for e in rig.cli_json('dump', 'store', 'west-mirror.store')['ledger'] if e['kind'] == 'stranger')


def a_stranger_writes_into_a_mirrored_topic():
    with Rig(flows=['east->west']) as rig:
        rig.start()
        make(rig, 'east', 'orders', 1)
        p = Producer({'bootstrap.servers': rig.bootstrap('east')})
        for i in range(500): p.produce('orders', b'%d' % i)
        assert p.flush(60) == 0
        wait('first half mirrored', 90, lambda: end_offsets(rig.bootstrap('west'), 'east.orders').get(0) == 500)
        s = Producer({'bootstrap.servers': rig.bootstrap('west')})

        def disturb(n):
            for _ in range(n): s.produce('east.orders', b'stranger')
            assert s.flush(60) == 0
        disturb(5)
        for i in range(500, 1000): p.produce('orders', b'%d' % i)
        assert p.flush(60) == 0
        wait('second half mirrored', 90, lambda: end_offsets(rig.bootstrap('west'), 'east.orders').get(0) == 1005)
        log = read_topic(rig.bootstrap('west'), 'east.orders')[0]
        assert [r.value for r in log if r.value != b'stranger'] == [b'%d' % i for i in range(1000)]
        place = {r.value: r.offset for r in log}
        wait_mapped(rig, 'orders')
        for n in (0, 250, 499, 500, 731, 999):
            t = translate(rig, 'orders', 0, n)
            assert t['offset'] in (place[b'%d' % n], 500 if n == 500 else -1), (n, t, place[b'%d' % n])
        # Found by a read on the side, after the acknowledgement of what came behind them.
        wait('the ledger tells of the strangers', 30, lambda: stranger_records(rig) == 5)
        disturb(3)
        time.sleep(2.5)  # the partition is idle: its mirror looks at the target's end, and nothing of its own is in doubt
        p.produce('orders', b'1000')
        assert p.flush(60) == 0
        wait('the ledger tells of those before the look, too', 30, lambda: stranger_records(rig) == 8)


def produce_ids(rig, first, n):
    p = Producer({'bootstrap.servers': rig.bootstrap('east'), 'linger.ms': 5})
    for i in range(first, first + n): p.produce('ids', b'%d' % i, b'k%d' % (i % 500))
    assert p.flush(60) == 0


def ids_arrived(rig):
    """The ids of both logs, by partition; None while some are missing."""
    source, target = read_topic(rig.bootstrap('east'), 'ids'), read_topic(rig.bootstrap('west'), 'east.ids')
    ours = {q: [r for r in log if r.value != b'stranger'] for q, log in target.items()}
    return (source, target) if {q: len(r) for q, r in ours.items()} == {q: len(r) for q, r in source.items()} else None


def ten_thousand_positions_translate_exactly():
    """Random positions of a log that begins late, mirrored across kills, among strangers' records, against a model that knows
    each record by its id: exact is any offset behind the last record before the position and not behind the first after it."""
    seed = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
    print(f'seed {seed}', flush=True)
    rng = random.Random(seed)
    with Rig(flows=['east->west']) as rig:
        for b in rig.brokers.values():
            b.start()
        make(rig, 'east', 'ids', 3)
        produce_ids(rig, 0, 6000)
        cut = [TopicPartition('ids', q, rng.randrange(n)) for q, n in end_offsets(rig.bootstrap('east'), 'ids').items()]
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(cut))  # delete_records gives away a reference that it does not own
        admin = AdminClient({'bootstrap.servers': rig.bootstrap('east')})
        for f in admin.delete_records(cut).values():
            f.result(60)
        rig.mirrors['west'].start()
        stranger = Producer({'bootstrap.servers': rig.bootstrap('west')})
        for round in range(5):
            if round == 2:
                rig.mirrors['west'].kill()
            produce_ids(rig, 6000 + 4000 * round, 4000)
            if round == 2:
                rig.mirrors['west'].start()
            wait('all ids at west', 180, lambda: ids_arrived(rig), 0.2)
            for _ in range(rng.randrange(1, 8)):
                stranger.produce('east.ids', b'stranger', partition=rng.randrange(3))
            assert stranger.flush(60) == 0
        produce_ids(rig, 26000, 1000)
        source, target = wait('all ids at west', 180, lambda: ids_arrived(rig), 0.2)
        wait_mapped(rig, 'ids')
        place = {q: {r.value: r.offset for r in log} for q, log in target.items()}
        wanted = {(q, n): (place[q][log[i - 1].value] if i else -1, place[q][log[i].value])
                  for q, log in source.items() for i in range(len(log)) for n in range(log[i - 1].offset + 1 if i else log[i].offset, log[i].offset + 1)}

        def wrong(at):
            t = translate(rig, 'ids', *at)
            before, after = wanted[at]
            return None if before < t['offset'] <= after else (at, t, wanted[at])
        positions = rng.sample(sorted(wanted), 10_000)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            bad = [w for w in pool.map(wrong, positions) if w]
        assert not bad, f'{len(bad)} of 10,000 positions (seed {seed}), first: {bad[0]}'


if __name__ == '__main__':
    sys.exit(run_cases([a_large_file_crosses_in_both_directions, every_codec_and_every_size,
                        a_backlog_larger_than_every_buffer_is_caught_up_with, three_hops_are_named_hop_by_hop,
                        a_group_fails_over_and_back_at_exact_offsets, a_stranger_writes_into_a_mirrored_topic,
                        ten_thousand_positions_translate_exactly], sys.argv[1:]))
