"""Checkpoints, heartbeats and offset syncs of our mirror at an Apache Kafka: groups and topics go, their keys leave by writing what
lives once more and DeleteRecords, and Kafka's own RemoteClusterUtils and MirrorClient read what is there before, while and after.
A checkpoint that somebody else writes into the same topic stays."""
import os, struct, subprocess, sys, threading, time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from peers import KAFKA, ApacheKafka
from site_rig import Rig, die_with_parent, run_cases, wait

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKPOINTS, SYNCS, HEARTBEATS = 'east.checkpoints.internal', 'mm2-offset-syncs.east.internal', 'heartbeats'
TOPICS, PARTITIONS = 4, 60


class Reader:
    """Asks Kafka's tools again and again; every answer is held against `must`."""

    def __init__(self, bootstrap, *groups):
        self.proc = subprocess.Popen([KAFKA, 'class', os.path.join(HERE, 'clients', 'java', 'Mm2Reader.java'), bootstrap, 'east', *groups],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                     preexec_fn=die_with_parent)
        self.must, self.answers, self.wrong, self.on = {}, 0, [], True
        self.last = {}
        threading.Thread(target=self.run, daemon=True).start()

    def ask(self):
        self.proc.stdin.write('\n'), self.proc.stdin.flush()
        line = self.proc.stdout.readline()
        assert line, self.proc.stderr.read()[-2000:]
        return dict(word.split('=', 1) for word in line.replace(', ', ',').split())

    def run(self):
        try:
            while self.on:
                said = self.ask()
                self.last, self.answers = said, self.answers + 1
                self.wrong += [(self.answers, k, v, said) for k, v in list(self.must.items())
                               if (said.get(k, '').split(':')[-1] if '=' not in v and v.isdigit() else said.get(k)) != v]
        except (AssertionError, OSError) as e:
            self.wrong.append(str(e))

    def more(self, n=3):
        had = self.answers
        wait(f'{n} answers of Kafka\'s tools', 60, lambda: self.answers >= had + n or self.wrong, 0.1)
        assert not self.wrong, self.wrong[:3]

    def end(self):
        self.on = False
        self.more(1)
        self.proc.stdin.close()
        self.proc.wait(20)


def topics(admin, *names, partitions=1):
    for f in admin.create_topics([NewTopic(n, partitions, 1) for n in names]).values():
        f.result(30)


def commit(bootstrap, group, offsets):
    c = Consumer({'bootstrap.servers': bootstrap, 'group.id': group})
    c.commit(offsets=[TopicPartition(t, p, o) for (t, p), o in offsets.items()], asynchronous=False)
    c.close()


def marks(bootstrap, topic):
    c = Consumer({'bootstrap.servers': bootstrap, 'group.id': 'marks'})
    found = c.get_watermark_offsets(TopicPartition(topic, 0), timeout=20, cached=False)
    c.close()
    return found


def keys_with(bootstrap, topic, text):
    c = Consumer({'bootstrap.servers': bootstrap, 'group.id': 'keys', 'enable.partition.eof': True})
    c.assign([TopicPartition(topic, 0, 0 if marks(bootstrap, topic)[0] == 0 else marks(bootstrap, topic)[0])])
    found, end = set(), False
    while not end:
        for m in c.consume(500, 5):
            end = bool(m.error())
            if not end:
                assert m.value() is not None, f'a null value in {topic}, which MirrorMaker 2 cannot read'
                found |= {m.key()} if text in m.key() else set()
    c.close()
    return found


def theirs(bootstrap, group, topic, partition, offset):
    """A checkpoint as MirrorMaker 2 writes it."""
    def text(s):
        return struct.pack('>h', len(s)) + s.encode()
    key = text(group) + text(topic) + struct.pack('>i', partition)
    p = Producer({'bootstrap.servers': bootstrap})
    p.produce(CHECKPOINTS, struct.pack('>hqq', 0, offset, offset) + text(''), key, partition=0)
    assert p.flush(20) == 0


def passing(n):
    return [f'passing-{i}' for i in n]


def fill(bootstrap):
    admin = AdminClient({'bootstrap.servers': bootstrap})
    topics(admin, 'kept')
    topics(admin, *passing(range(TOPICS)), partitions=PARTITIONS)
    p = Producer({'bootstrap.servers': bootstrap})
    for i in range(10):
        p.produce('kept', b'%d' % i, partition=0)
    for t in passing(range(TOPICS)):
        for q in range(PARTITIONS):
            p.produce(t, b'a', partition=q), p.produce(t, b'b', partition=q)
    assert p.flush(30) == 0
    commit(bootstrap, 'stays', {('kept', 0): 10})
    commit(bootstrap, 'goes', {(t, q): 2 for t in passing(range(TOPICS)) for q in range(PARTITIONS)})
    return admin


def go(admin, n):
    for f in admin.delete_topics(passing(n)).values():
        f.result(30)


def keys_leave_and_kafkas_tools_read_on():
    with ApacheKafka() as kafka:
        with Rig(bootstrap={'west': kafka.bootstrap}, flows=['east->west'],
                 mirror={'offset-syncs.topic.location': 'target'}) as rig:
            del rig.mirrors['east']
            west, east = kafka.bootstrap, rig.bootstrap('east')
            for b in rig.brokers.values():
                b.start()
            there, admin = AdminClient({'bootstrap.servers': west}), fill(east)
            mirror = rig.mirrors['west'].start()
            wait('the checkpoints are there', 60, lambda: CHECKPOINTS in there.list_topics(timeout=10).topics and
                 len(keys_with(west, CHECKPOINTS, b'passing')) == TOPICS * PARTITIONS and len(keys_with(west, CHECKPOINTS, b'stays')) == 1, 0.5)
            reader = Reader(west, 'stays', 'theirs')
            wait('Kafka\'s tools see the flow', 40, lambda: reader.wrong or 'heartbeats' in reader.last.get('heartbeats', ''), 0.2)
            reader.must = {'stays': '10', 'upstream': '[east]', 'hops': '1'}
            reader.more()

            # Half of the keys go, and with them those of the copies.
            go(admin, range(3))
            wait('the checkpoints are cut', 90, lambda: reader.wrong or marks(west, CHECKPOINTS)[0] > 0, 0.3)
            reader.more()
            left = keys_with(west, CHECKPOINTS, b'passing')
            assert len(left) == PARTITIONS and all(b'passing-3' in k for k in left), len(left)

            # And somebody else writes.
            start = marks(west, CHECKPOINTS)[0]
            theirs(west, 'theirs', 'east.kept', 0, 7)
            wait('theirs is read', 30, lambda: reader.wrong or reader.last.get('theirs') == '1:7', 0.1)
            reader.must['theirs'] = '7'
            topics(admin, *passing(range(TOPICS, TOPICS + 2)), partitions=PARTITIONS)
            p = Producer({'bootstrap.servers': east})
            new = {(t, q): 1 for t in passing(range(TOPICS, TOPICS + 2)) for q in range(PARTITIONS)}
            for t, q in new:
                p.produce(t, b'a', partition=q)
            assert p.flush(30) == 0
            commit(east, 'goes', new)
            wait('the new ones have theirs', 60, lambda: len(keys_with(west, CHECKPOINTS, b'passing')) == 3 * PARTITIONS, 0.5)
            go(admin, range(3, TOPICS + 2))

            def kept():
                with open(mirror.log) as f:
                    return f'topic keeps the keys of what is gone topic={CHECKPOINTS}' in f.read()
            wait('the mirror leaves it as it is', 90, lambda: reader.wrong or kept(), 0.3)
            time.sleep(2)
            reader.more()
            assert marks(west, CHECKPOINTS)[0] == start, 'what somebody else wrote was put at risk'
            commit(east, 'stays', {('kept', 0): 5})
            reader.must.pop('stays')
            wait('it is written to all the same', 40, lambda: reader.wrong or reader.last.get('stays') == '1:5', 0.1)
            reader.end()
            print(f'{reader.answers} answers of Kafka\'s tools; {reader.last}')


if __name__ == '__main__':
    sys.exit(run_cases([keys_leave_and_kafkas_tools_read_on], sys.argv[1:]))
