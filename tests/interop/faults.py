"""Targets that refuse what mirrors of both engines bring: too large, no room, not allowed. Other partitions go on, status says what
it is, and nothing is lost when the cause is gone."""
import os, sys, time

from confluent_kafka import Producer
from confluent_kafka.admin import (AclBinding, AclBindingFilter, AclOperation, AclPermissionType, AdminClient, AlterConfigOpType,
                                   ConfigEntry, ConfigResource, ResourcePatternType, ResourceType)
from host_disks import fill, make_room
from kills import create
from peers import ApacheKafka
from power import Disk
from records import end_offsets, read_topic, same
from security import JAAS
from site_rig import Rig, free_port, run_cases, wait


def edit(rig, name, *changes):
    path = os.path.join(rig.dir, name)
    with open(path) as f:
        text = f.read()
    for old, new in changes:
        assert old in text, (old, text)
        text = text.replace(old, new)
    with open(path, 'w') as f:
        f.write(text)


def rows(mirror, topic, source='east'):
    return {p['partition']: p for f in mirror.status()['flows'] if f['source'] == source for p in f['partitions'] if p['topic'] == topic}


def told(mirror, kind):
    with open(mirror.log, errors='replace') as f:
        return [line for line in f if 'ledger' in line and f'kind="{kind}"' in line]


def two_sources(**rig):
    """Of the mirror at west: from east with the record engine, from south with the batch engine."""
    return Rig(sites=('east', 'south', 'west'), flows=['east->west', 'south->west'], **{**rig, 'mirror': {
        'east->west.sundog.engine': 'record', 'south->west.sundog.engine': 'batch', **rig.get('mirror', {})}})


SOURCES = 'east', 'south'


def only_west(rig):
    for s in SOURCES: del rig.mirrors[s]
    return rig.mirrors['west']


def put(rig, site, topic, n, size, partition):
    p = Producer({'bootstrap.servers': rig.bootstrap(site), 'linger.ms': 50, 'message.max.bytes': 2_000_000, 'batch.size': 1_000_000})
    for i in range(n):
        p.produce(topic, (b'%d ' % i).ljust(size, b'x'), partition=partition)
    assert p.flush(60) == 0


def complete(rig, topic, target=None, seconds=60):
    for s in SOURCES:
        def probe():
            same(read_topic(rig.bootstrap(s), topic), read_topic(target or rig.bootstrap('west'), f'{s}.{topic}'), f'{s}.{topic}')
            return True
        wait(f'{s}.{topic} is complete', seconds, probe, 0.5)


def a_target_takes_smaller_batches():
    """Batches larger than the target's limit are split; a record larger than it halts its partition alone, until the limit rises."""
    with two_sources() as rig:
        west = only_west(rig)
        edit(rig, 'west.broker.properties', ('listeners =', 'message.max.bytes = 60000\nlisteners ='))
        for b in rig.brokers.values(): b.start()
        for s in SOURCES: create(rig, s, 'orders', 3)
        for s in SOURCES:
            for q in range(3): put(rig, s, 'orders', 3000, 1000, q)
        west.start()
        complete(rig, 'orders')
        for s in SOURCES: put(rig, s, 'orders', 1, 200_000, 1), put(rig, s, 'orders', 100, 1000, 1)
        for s in SOURCES:
            row = wait(f'{s}: the partition halts', 30, lambda: (p := rows(west, 'orders', s)[1])['state'] == 'halted' and p, 0.2)
            assert 'source offset 3000 ' in row['reason'] and 'max.message.bytes' in row['reason'], row
            put(rig, s, 'orders', 50, 1000, 0), put(rig, s, 'orders', 50, 1000, 2)
            wait(f'{s}: the others go on', 30, lambda: end_offsets(rig.bootstrap('west'), f'{s}.orders') == {0: 3050, 1: 3000, 2: 3050}, 0.2)
            assert {p['engine'] for p in rows(west, 'orders', s).values()} == {'record' if s == 'east' else 'batch'}
        assert len(told(west, 'halted')) == 2, told(west, 'halted')
        admin = AdminClient({'bootstrap.servers': rig.bootstrap('west')})
        for s in SOURCES:
            entry = ConfigEntry('max.message.bytes', '1000000', incremental_operation=AlterConfigOpType.SET)
            for f in admin.incremental_alter_configs([ConfigResource(ConfigResource.Type.TOPIC, f'{s}.orders', incremental_configs=[entry])]).values(): f.result(20)
        west.kill(), west.start(extra=['sync.topic.configs.enabled=false'])
        complete(rig, 'orders')


def a_disk_of_the_target_is_full():
    """What lies on it waits and says why, the rest goes on; with room it goes on by itself."""
    rig = two_sources()
    west, disks = only_west(rig), {}
    edit(rig, 'west.broker.properties', (f'log.dirs = {os.path.join(rig.dir, "west", "data")}',
                                         'log.dirs = disk1,disk2\nmetadata.log.dir = disk1\nlog.segment.bytes = 1048576'))
    try:
        disks = {name: Disk(os.path.join(rig.dir, name), 64) for name in ('disk1', 'disk2')}
        with rig:
            for b in rig.brokers.values(): b.start()
            for s in SOURCES: create(rig, s, 'orders', 6), [put(rig, s, 'orders', 100, 1000, q) for q in range(6)]
            west.start()
            complete(rig, 'orders')
            full = {s: [q for q in range(6) if os.path.isdir(os.path.join(disks['disk2'].path, f'{s}.orders-{q}'))] for s in SOURCES}
            assert all(0 < len(f) < 6 for f in full.values()), full
            fill(disks['disk2'])
            for s in SOURCES: [put(rig, s, 'orders', 1000, 1000, q) for q in range(6)]
            for s in SOURCES:
                def stands():
                    found = rows(west, 'orders', s)
                    return all((p['state'] == 'paused') == (q in full[s]) and bool(p['reason']) == (q in full[s]) for q, p in found.items()) and found
                wait(f'{s}: what is on the full disk waits', 30, stands, 0.3)
                have = end_offsets(rig.bootstrap('west'), f'{s}.orders')
                assert all(have[q] == 1100 for q in have if q not in full[s]) and all(have[q] < 1100 for q in full[s]), (have, full)
            make_room(disks['disk2'])
            complete(rig, 'orders')
            assert not told(west, 'halted')
            print(f'on the full disk: {full}')
            west.stop(20)
            rig.brokers['west'].stop(30)
    finally:
        for d in disks.values(): d.umount()


def a_target_denies_a_topic():
    """Apache Kafka with an authorizer: a topic that may not be written waits and says so, another goes on; allowed, it arrives whole."""
    def keys(port):
        keys.sasl = free_port()
        here = f'PLAINTEXT://127.0.0.1:{port},SASL_PLAINTEXT://127.0.0.1:{keys.sasl}'
        return [f'listeners={here},CONTROLLER://127.0.0.1:{port + 1}', f'advertised.listeners={here}', 'inter.broker.listener.name=PLAINTEXT',
                'listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT',
                'sasl.enabled.mechanisms=PLAIN', 'super.users=User:ANONYMOUS',
                'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer',
                f'listener.name.sasl_plaintext.plain.sasl.jaas.config={JAAS}.plain.PlainLoginModule required user_ann="word";']
    with ApacheKafka(keys) as kafka:
        admin = AdminClient({'bootstrap.servers': kafka.bootstrap})

        def allow(kind, name, operation=AclOperation.ALL, permission=AclPermissionType.ALLOW):
            return AclBinding(kind, name, ResourcePatternType.LITERAL, 'User:ann', '*', operation, permission)
        for f in admin.create_acls([allow(ResourceType.TOPIC, '*'), allow(ResourceType.GROUP, '*'), allow(ResourceType.BROKER, 'kafka-cluster')]).values():
            f.result(20)
        login = {'west.security.protocol': 'SASL_PLAINTEXT', 'west.sasl.mechanism': 'PLAIN',
                 'west.sasl.jaas.config': f'{JAAS}.plain.PlainLoginModule required username="ann" password="word";'}
        with two_sources(bootstrap={'west': f'127.0.0.1:{keys.sasl}'}, mirror=login) as rig:
            west = only_west(rig)
            for b in rig.brokers.values(): b.start()
            for s in SOURCES: create(rig, s, 'secret', 2), create(rig, s, 'calm', 1), put(rig, s, 'secret', 500, 100, 0), put(rig, s, 'calm', 500, 100, 0)
            west.start(seconds=30)
            complete(rig, 'secret', kafka.bootstrap), complete(rig, 'calm', kafka.bootstrap)
            deny = [allow(ResourceType.TOPIC, f'{s}.secret', AclOperation.WRITE, AclPermissionType.DENY) for s in SOURCES]
            for f in admin.create_acls(deny).values(): f.result(20)
            time.sleep(1)
            for s in SOURCES: put(rig, s, 'secret', 500, 100, 0), put(rig, s, 'secret', 500, 100, 1), put(rig, s, 'calm', 500, 100, 0)
            complete(rig, 'calm', kafka.bootstrap)
            for s in SOURCES:
                found = wait(f'{s}.secret waits', 30, lambda: (r := rows(west, 'secret', s)) and all(p['state'] == 'paused' for p in r.values()) and r, 0.3)
                assert all('authori' in p['reason'].lower() for p in found.values()), found
                assert end_offsets(kafka.bootstrap, f'{s}.secret') == {0: 500, 1: 0}
            for d in deny:
                f = AclBindingFilter(d.restype, d.name, d.resource_pattern_type, d.principal, d.host, d.operation, d.permission_type)
                for done in admin.delete_acls([f]).values(): assert done.result(20)
            complete(rig, 'secret', kafka.bootstrap)
            assert not told(west, 'halted')


if __name__ == '__main__':
    sys.exit(run_cases([a_target_takes_smaller_batches, a_disk_of_the_target_is_full, a_target_denies_a_topic], sys.argv[1:]))
