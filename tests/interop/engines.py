"""The record engine and the batch engine mirror the same random topics of one Apache Kafka to two sites: the same records,
order, timestamps, headers and translated offsets. Then each goes on where the other stood. And what no engine should meet:
segments of old formats, batches damaged on the source's disk."""
import glob, json, os, random, struct, subprocess, sys, time, zlib
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from peers import KAFKA, ApacheKafka
from records import end_offsets, read_topic, same
from site_rig import Rig, run_cases, wait

SEED = int(os.environ.get('SUNDOG_SEED', '1'))
RECORDS = int(os.environ.get('SUNDOG_ENGINES_RECORDS', '2000'))
CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd']
TOPICS = {  # name: configuration at the source
    'mixed': {},
    'transactions': {},
    'compacted': {'cleanup.policy': 'compact', 'segment.ms': '1000', 'min.cleanable.dirty.ratio': '0.01',
                  'segment.bytes': '1048576', 'max.compaction.lag.ms': '1000'},
    'stamped': {'message.timestamp.type': 'LogAppendTime'},
    'cut': {},
}


def record(r, keys=None):
    size = r.choice([0, 1, 1, 10, 100, 100, 1000, 10_000, 100_000]) if r.random() < 0.995 else 900_000
    body = r.randbytes(min(size, 50)) * (size // 50 + 1)  # something to compress
    value = None if r.random() < 0.05 else body[:size]
    key = b'k%d' % r.randrange(keys or 200) if keys or r.random() < 0.7 else None
    if key is None and value is None: value = b''
    headers = [(r.choice(['a', 'b', 'long-' * 10]), r.choice([None, b'', b'x' * r.randrange(30)])) for _ in range(r.randrange(4))]
    return key, value, headers


def produce(bootstrap, topic, r, n, keys=None):
    """In parts, each by a producer with a codec and batches of its own."""
    now = int(time.time() * 1000) - 3_600_000
    while n > 0:
        part = min(n, r.randrange(1, 600))
        p = Producer({'bootstrap.servers': bootstrap, 'compression.type': r.choice(CODECS), 'linger.ms': r.choice([0, 1, 20]),
                      'batch.num.messages': r.choice([1, 3, 100, 10_000]), 'enable.idempotence': r.random() < 0.5})
        for _ in range(part):
            key, value, headers = record(r, keys)
            p.produce(topic, value, key, partition=r.randrange(3), headers=headers, timestamp=now + r.randrange(3_000_000))
        assert p.flush(60) == 0
        n -= part


def transact(bootstrap, topic, r, n):
    producers = []
    for i in range(3):
        p = Producer({'bootstrap.servers': bootstrap, 'transactional.id': f'engines-{i}-{r.random()}', 'linger.ms': 0,
                      'compression.type': r.choice(CODECS), 'batch.num.messages': r.choice([1, 5, 1000])})
        p.init_transactions(60)
        producers.append(p)
    plain = Producer({'bootstrap.servers': bootstrap, 'linger.ms': 0})
    for _ in range(n // 60):
        chosen = r.sample(producers, r.randrange(1, 4))  # some are open at the same time
        for p in chosen: p.begin_transaction()
        for _ in range(60):
            key, value, headers = record(r)
            r.choice(chosen + [plain]).produce(topic, value, key, partition=r.randrange(3), headers=headers)
            if r.random() < 0.1:
                for p in chosen: p.flush(60)
        for p in chosen:
            assert p.flush(60) == 0  # what is purged would leave a hole in librdkafka's sequences
            (p.abort_transaction if r.random() < 0.4 else p.commit_transaction)(60)
    assert plain.flush(60) == 0


def more(bootstrap, r, n):
    produce(bootstrap, 'mixed', r, n)
    transact(bootstrap, 'transactions', r, n)
    produce(bootstrap, 'stamped', r, n // 4)
    produce(bootstrap, 'cut', r, n // 4)


def delete_half(bootstrap, topic):
    admin = AdminClient({'bootstrap.servers': bootstrap})
    halves = [TopicPartition(topic, p, end // 2) for p, end in end_offsets(bootstrap, topic).items()]
    for f in admin.delete_records(halves).values(): f.result(60)


def compact(bootstrap, folder, r):
    """Until some of it has gone, which shows as gaps between offsets; the cleaner comes when it comes."""
    produce(bootstrap, 'compacted', r, 1500, keys=40)
    def gone():
        produce(bootstrap, 'compacted', r, 3, keys=3)  # rolls the segment
        return sum(len(v) for v in read_topic(bootstrap, 'compacted').values()) < 1000 or None
    wait('the source is compacted', 180, gone, 1)
    # Both sites must read the same: not what the cleaner is about to take away.
    wait('the cleaner has nothing left to do', 180, lambda: cleaned(bootstrap, folder), 0.5)


def cleaned(bootstrap, folder):
    """No key is twice in what the cleaner may touch, which is all but a partition's last segment."""
    for p, log in read_topic(bootstrap, 'compacted').items():
        active = max(int(os.path.basename(f)[:-4]) for f in glob.glob(f'{folder}/data/compacted-{p}/*.log'))
        keys = [r.key for r in log if r.offset < active]
        if len(keys) != len(set(keys)):
            return False
    return True


def engine_of(mirror):
    return {p['engine'] for f in mirror.status()['flows'] for p in f['partitions'] if p['topic'] in TOPICS and p['partition'] >= 0}


def complete(rig, site, mirror):
    """All that the mirror knows of has been mirrored; what was, as {topic: {partition: [Record]}}. It may not know of all yet."""
    def caught_up():
        rows = [p for f in mirror.status()['flows'] for p in f['partitions'] if p['topic'] in TOPICS]
        return len(rows) == 3 * len(TOPICS) and all(p['state'] == 'caught up' and p['lag_records'] == 0 for p in rows) or None
    wait(f'{site} has caught up', 180, caught_up, 0.2)
    return {t: read_topic(rig.bootstrap(site), f'east.{t}') for t in TOPICS}


def translated(rig, site, r):
    """A sample of the map, by what `sundog translate` says of the same positions."""
    said = []
    for t in TOPICS:
        ends = end_offsets(rig.bootstrap('east'), t)
        for p, end in sorted(ends.items()):
            for _ in range(6):
                said.append(rig.cli_json('translate', '--store', f'{site}-mirror.store', '--flow', f'east->{site}', '--topic', t,
                                         '--partition', str(p), '--offset', str(r.randrange(end + 1))))
    return said


def alike(rig, west, south):
    a, b = complete(rig, 'west', west), complete(rig, 'south', south)
    for t in TOPICS:
        if t != 'compacted':  # its source goes on shrinking
            same(read_topic(rig.bootstrap('east'), t), b[t], f'{t} at the source and by batches')
        same(a[t], b[t], f'{t} by records and by batches')
    assert sum(len(v) for v in b['transactions'].values()) > 0


def translated_alike(rig, seed):
    one, other = (translated(rig, s, random.Random(seed)) for s in ('west', 'south'))
    for x, y in zip(one, other):
        assert x == y or 'compacted' in x['topic'], f'translated: {x} and {y}'


def in_the_end(seconds, check):
    """What is mirrored and told to the store arrives when it arrives; what is wrong with it stays wrong."""
    end = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > end:
                raise
        time.sleep(0.5)


def compare(rig, west, south, seed):
    in_the_end(120, lambda: alike(rig, west, south))
    in_the_end(60, lambda: translated_alike(rig, seed))


def both_engines_say_the_same():
    r = random.Random(SEED)
    print(f'SUNDOG_SEED={SEED}', flush=True)
    with ApacheKafka(lambda port: ['log.cleaner.backoff.ms=500', 'transaction.state.log.num.partitions=3']) as east:
        admin = AdminClient({'bootstrap.servers': east.bootstrap})
        for f in admin.create_topics([NewTopic(t, 3, 1, config=c) for t, c in TOPICS.items()]).values(): f.result(60)
        more(east.bootstrap, r, RECORDS)
        delete_half(east.bootstrap, 'cut')
        compact(east.bootstrap, east.dir, r)
        with Rig(sites=('east', 'west', 'south'), bootstrap={'east': east.bootstrap}, flows=['east->west', 'east->south'],
                 mirror={'topics': ','.join(TOPICS)}) as rig:
            del rig.mirrors['east']
            west, south = rig.mirrors['west'], rig.mirrors['south']
            for b in rig.brokers.values(): b.start()
            west.start(extra=['sundog.engine=record'])
            south.start()
            compare(rig, west, south, 1)
            assert engine_of(west) == {'record'} and engine_of(south) == {'batch'}, (engine_of(west), engine_of(south))
            more(east.bootstrap, r, RECORDS // 4)
            for m, engine, end in ((west, 'batch', west.kill), (south, 'record', south.stop)):
                end()
                m.start(extra=[f'sundog.engine={engine}'])
            more(east.bootstrap, r, RECORDS // 4)
            compare(rig, west, south, 2)
            assert engine_of(west) == {'batch'} and engine_of(south) == {'record'}


def old_message(magic, offset, key, value, timestamp):
    """A message as brokers wrote it before 0.11: no batch, a CRC-32 of its own."""
    body = struct.pack('>bb', magic, 0) + (struct.pack('>q', timestamp) if magic else b'')
    for field in (key, value):
        body += struct.pack('>i', -1) if field is None else struct.pack('>i', len(field)) + field
    return struct.pack('>qiI', offset, len(body) + 4, zlib.crc32(body)) + body


def kcat_reads(bootstrap, topic, partition):
    """Newer librdkafkas than the distribution's do not hand out what is older than batches."""
    argv = ['kcat', '-b', bootstrap, '-C', '-t', topic, '-p', str(partition), '-o', 'beginning', '-e', '-f', '%o|%K|%k|%S|%s\n']
    return subprocess.run(argv, capture_output=True, check=True, timeout=120).stdout.split(b'\n')[:-1]


def segments_of_old_formats_go_to_the_record_engine():
    with ApacheKafka() as east:
        admin = AdminClient({'bootstrap.servers': east.bootstrap})
        admin.create_topics([NewTopic('old', 2, 1)])['old'].result(60)
        subprocess.run([KAFKA, 'stop', east.dir], check=True)
        folder = f'{east.dir}/data/old-0'
        for f in glob.glob(folder + '/*.index') + glob.glob(folder + '/*.timeindex') + glob.glob(folder + '/*.snapshot'): os.remove(f)
        now = int(time.time() * 1000) - 3_600_000
        with open(folder + '/00000000000000000000.log', 'wb') as f:
            for i in range(300):
                f.write(old_message(i // 150, i, b'k%d' % i if i % 3 else None, b'v%d' % i if i % 7 else None, now + i))
        if os.path.exists(f'{east.dir}/data/.kafka_cleanshutdown'): os.remove(f'{east.dir}/data/.kafka_cleanshutdown')
        subprocess.run([KAFKA, 'restart', east.dir], check=True)
        p = Producer({'bootstrap.servers': east.bootstrap})
        for i in range(1000): p.produce('old', b'new %d' % i, partition=i % 2)
        assert p.flush(60) == 0
        with Rig(bootstrap={'east': east.bootstrap}, flows=['east->west'], mirror={'topics': 'old'}) as rig:
            del rig.mirrors['east']
            rig.start()
            west = rig.mirrors['west']
            def caught_up():
                rows = [p for f in west.status()['flows'] for p in f['partitions'] if p['topic'] == 'old']
                return len(rows) == 2 and all(p['state'] == 'caught up' for p in rows) and rows
            wait('as many arrived', 120, lambda: end_offsets(rig.bootstrap('west'), 'east.old') == {0: 800, 1: 500}, 0.2)
            rows = sorted(wait('mirrored', 60, caught_up, 0.2), key=lambda p: p['partition'])
            for q in range(2):
                there, here = kcat_reads(east.bootstrap, 'old', q), kcat_reads(rig.bootstrap('west'), 'east.old', q)
                assert there == here and len(here) == (800, 500)[q], (q, len(there), len(here))
            assert [p['engine'] for p in rows] == ['record', 'batch'], rows
            assert 'magic' in rows[0]['engine_reason'], rows


def damage(rig, byte):
    """Of the fourth batch of orders-1 on the source's disk; its first offset."""
    path, = glob.glob(os.path.join(rig.dir, 'east', 'data', 'orders-1', '*.log'))
    with open(path, 'r+b') as f:
        at = 0
        for _ in range(4):
            good = struct.unpack('>q', os.pread(f.fileno(), 8, at))[0]
            size, before = struct.unpack('>i', os.pread(f.fileno(), 4, at + 8))[0] + 12, at
            at += size
        was = os.pread(f.fileno(), 1, before + byte)[0]
        os.pwrite(f.fileno(), bytes([was ^ 0x25]), before + byte)
    return good


def damaged(engine, byte):
    with Rig(flows=['east->west']) as rig:
        for b in rig.brokers.values(): b.start()
        admin = AdminClient({'bootstrap.servers': rig.bootstrap('east')})
        admin.create_topics([NewTopic('orders', 3, 1)])['orders'].result(60)
        p = Producer({'bootstrap.servers': rig.bootstrap('east'), 'batch.num.messages': 10, 'linger.ms': 20})
        for i in range(300):
            p.produce('orders', b'value %d' % i, partition=i % 3)
        assert p.flush(60) == 0
        good = damage(rig, byte)
        other = {'record': 'batch', 'batch': 'record'}[engine]
        west = rig.mirrors['west'].start(extra=[f'sundog.engine={other}', f'sundog.engine.{engine}.topics=nothing, ord.*'])
        def stands():
            rows = {p['partition']: p for f in west.status()['flows'] for p in f['partitions'] if p['topic'] == 'orders'}
            return len(rows) == 3 and rows[0]['state'] == rows[2]['state'] == 'caught up' and rows[1]['state'] == 'paused' and rows[1]['position'] == good and rows
        rows = wait(f'the others are mirrored, and what was read before {good} acknowledged', 120, stands, 0.2)
        assert rows[1]['reason'] and rows[1]['engine'] == engine, rows[1]
        more = [p.produce('orders', b'more', partition=i % 3) for i in range(30)]
        assert p.flush(60) == 0 and more
        wait('the others go on', 90, lambda: [end_offsets(rig.bootstrap('west'), 'east.orders')[q] for q in range(3)] == [110, good, 110], 0.2)
        def said():
            with open(west.log) as f:
                return [line for line in f if 'ledger' in line and 'kind="damaged"' in line]
        wait('the ledger tells of it', 60, said)
        time.sleep(3)  # it is tried again, and said once
        told = said()
        assert len(told) == 1 and f'partition=1 from={good} ' in told[0], (byte, told)


def a_batch_damaged_on_the_sources_disk_stops_its_partition_alone():
    """In the base offset (under no CRC: within the log, and far behind it), the length, the magic, the last offset's delta, the
    records: nothing of what it hides is passed over."""
    work = [(engine, byte) for engine in ('record', 'batch') for byte in (0, 7, 8, 16, 23, 45, 70)]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(damaged, *w) for w in work]:
            done.result()


if __name__ == '__main__':
    sys.exit(run_cases([both_engines_say_the_same, segments_of_old_formats_go_to_the_record_engine,
                        a_batch_damaged_on_the_sources_disk_stops_its_partition_alone], sys.argv[1:], jobs=2))
