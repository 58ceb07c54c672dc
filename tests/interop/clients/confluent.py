"""librdkafka >= 2.8 through confluent-kafka: admin, every codec, groups, commits, offsets by time, deletion."""
import sys, time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType)

boot, topic, N = sys.argv[1], sys.argv[2], 1000
admin = AdminClient({'bootstrap.servers': boot})
admin.create_topics([NewTopic(topic, 3, 1, config={'retention.ms': '86400000'})])[topic].result(60)


def until(what, probe, seconds=60):
    end = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def parts():
    t = admin.list_topics(timeout=60).topics.get(topic)
    return len(t.partitions) if t else 0


until('3 partitions', lambda: parts() == 3)
assert admin.list_topics(timeout=60).cluster_id
cfg = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)])
entries = list(cfg.values())[0].result(60)
assert entries['retention.ms'].value == '86400000', entries['retention.ms']
res = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[ConfigEntry('retention.ms', '172800000', incremental_operation=AlterConfigOpType.SET)])
list(admin.incremental_alter_configs([res]).values())[0].result(60)
assert list(admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values())[0].result(60)['retention.ms'].value == '172800000'

sent = {}
for codec in ('none', 'gzip', 'snappy', 'lz4', 'zstd'):
    p = Producer({'bootstrap.servers': boot, 'compression.type': codec, 'enable.idempotence': codec != 'none', 'linger.ms': 5})
    errors = []
    for i in range(N // 5):
        k = f'{codec}-{i}'.encode()
        sent[k] = b'v' * (i % 50) + k
        p.produce(topic, sent[k], k, headers=[('c', codec.encode())], on_delivery=lambda e, m: errors.append(e) if e else None)
    assert p.flush(60) == 0 and not errors, errors


def taken(commit):
    """A coordinator that has just come has to load first, and librdkafka does not ask again."""
    try:
        commit()
        return True
    except KafkaException as e:
        if e.args[0].retriable() or e.args[0].name() in ('COORDINATOR_LOAD_IN_PROGRESS', 'NOT_COORDINATOR', '_WAIT_COORD'):
            return False
        raise


def consume(n, group):
    c = Consumer({'bootstrap.servers': boot, 'group.id': group, 'auto.offset.reset': 'earliest', 'enable.auto.commit': False, 'session.timeout.ms': 30000})
    c.subscribe([topic])
    got, end = {}, time.monotonic() + 120
    while len(got) < n:
        assert time.monotonic() < end, f'{len(got)} of {n}'
        m = c.poll(0.5)
        if m is None: continue
        assert not m.error(), m.error()
        got[m.key()] = m.value()
        c.commit(message=m, asynchronous=True)
    until('the commit is taken', lambda: taken(lambda: c.commit(asynchronous=False)))
    c.close()
    return got


first = consume(400, topic + '-g')
second = consume(600, topic + '-g')
assert not set(first) & set(second) and {**first, **second} == sent, (len(first), len(second), len(set(first) & set(second)))
groups = admin.list_consumer_groups().result(60)
assert topic + '-g' in [g.group_id for g in groups.valid], groups.valid
until('the group is empty', lambda: list(admin.describe_consumer_groups([topic + '-g']).values())[0].result(60).state.name == 'EMPTY')
off = list(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(topic + '-g')]).values())[0].result(60)
assert sum(t.offset for t in off.topic_partitions) == N, off.topic_partitions
ends = admin.list_offsets({TopicPartition(topic, i): OffsetSpec.latest() for i in range(3)})
assert sum(f.result(60).offset for f in ends.values()) == N
list(admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(topic + '-g', [TopicPartition(topic, 0, 1)])]).values())[0].result(60)
list(admin.delete_records([TopicPartition(topic, 0, 5)]).values())[0].result(60)
c = Consumer({'bootstrap.servers': boot, 'group.id': 'x'})
assert c.get_watermark_offsets(TopicPartition(topic, 0), timeout=60)[0] == 5
assert c.offsets_for_times([TopicPartition(topic, 1, 1)], timeout=60)[0].offset == 0
c.close()
list(admin.create_partitions([NewPartitions(topic, 5)]).values())[0].result(60)
until('5 partitions', lambda: parts() == 5)
list(admin.delete_consumer_groups([topic + '-g']).values())[0].result(60)
list(admin.delete_topics([topic]).values())[0].result(60)
until('the topic is gone', lambda: topic not in admin.list_topics(timeout=60).topics)
# cooperative-sticky: two members, one joins late, one leaves
admin.create_topics([NewTopic(topic + '-c', 4, 1)])[topic + '-c'].result(60)
conf = {'bootstrap.servers': boot, 'group.id': topic + '-coop', 'partition.assignment.strategy': 'cooperative-sticky', 'session.timeout.ms': 30000}
a, b = Consumer(conf), Consumer({**conf, 'group.instance.id': 'static-b'})
a.subscribe([topic + '-c'])
end = time.monotonic() + 180
while len(a.assignment()) < 4: assert time.monotonic() < end; a.poll(0.2)
b.subscribe([topic + '-c'])
while not (len(a.assignment()) == 2 and len(b.assignment()) == 2): assert time.monotonic() < end, (a.assignment(), b.assignment()); a.poll(0.1); b.poll(0.1)
a.close()
end = time.monotonic() + 90
while len(b.assignment()) < 4: assert time.monotonic() < end; b.poll(0.2)
b.close()
print('ok confluent-kafka')
