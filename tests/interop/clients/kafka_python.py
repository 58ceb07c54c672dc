"""kafka-python (2.0.2 and the newest): admin, groups, commits, codecs that need no extra module."""
import sys, time

try:  # 2.0.2 brings a six that Python 3.12 and newer cannot load: the one beside it stands in
    import six
    sys.modules['kafka.vendor.six'], sys.modules['kafka.vendor.six.moves'] = six, six.moves
except ImportError:
    pass

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewPartitions, NewTopic

boot, topic, N = sys.argv[1], sys.argv[2], 600
PATIENT = {'bootstrap_servers': boot, 'api_version_auto_timeout_ms': 60000}  # 2 s is what it waits for a first answer
admin = KafkaAdminClient(**PATIENT)
admin.create_topics([NewTopic(topic, 3, 1)])
sent = {}
for codec in (None, 'gzip', 'lz4', 'snappy', 'zstd'):
    p = KafkaProducer(**PATIENT, compression_type=codec, acks='all', linger_ms=5)
    fs = []
    for i in range(N // 5):
        k = f'{codec}-{i}'.encode()
        sent[k] = b'value ' * (i % 20) + k
        fs.append(p.send(topic, sent[k], k, headers=[('h', b'x')]))
    p.flush()
    for f in fs: f.get(60)
    p.close()


def consume(n, group):
    c = KafkaConsumer(topic, **PATIENT, group_id=group, auto_offset_reset='earliest', enable_auto_commit=False, max_poll_records=50,
                      session_timeout_ms=30000)
    got, end = {}, time.monotonic() + 120
    while len(got) < n:
        assert time.monotonic() < end, f'{len(got)} of {n}'
        for rs in c.poll(500, max_records=min(50, n - len(got))).values():
            for r in rs: got[r.key] = r.value
        c.commit()
    c.close()
    return got


first = consume(250, topic + '-g')
second = consume(N - 250, topic + '-g')
assert not set(first) & set(second) and {**first, **second} == sent, (len(first), len(second))
c = KafkaConsumer(**PATIENT)
tps = [TopicPartition(topic, i) for i in range(3)]
assert sum(c.end_offsets(tps).values()) == N and sum(c.beginning_offsets(tps).values()) == 0
assert c.offsets_for_times({tps[0]: 1})[tps[0]].offset == 0
c.close()
def group_ids():
    listed = admin.list_consumer_groups() if hasattr(admin, 'list_consumer_groups') else admin.list_groups()
    return [g[0] if isinstance(g, tuple) else g['group_id'] if isinstance(g, dict) else g.group_id for g in listed]
assert topic + '-g' in group_ids(), group_ids()
admin.create_partitions({topic: NewPartitions(5)})
admin.delete_topics([topic])
admin.close()
print('ok kafka-python', kafka.__version__)
