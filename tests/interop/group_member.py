"""group_member.py BOOT TOPIC GROUP [key=value ...]: a member of a group in a process of its own. Prints a JSON line per
event: assigned, revoked, read (partition, next offset) after its commit, refused (a commit, and why). Ends at TERM,
leaving the group."""
import json, signal, sys, time

from confluent_kafka import Consumer, KafkaException

boot, topic, group = sys.argv[1:4]
conf = {'bootstrap.servers': boot, 'group.id': group, 'auto.offset.reset': 'earliest', 'enable.auto.commit': False,
        'session.timeout.ms': 6000, 'heartbeat.interval.ms': 500, **dict(a.split('=', 1) for a in sys.argv[4:])}
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))


def say(event, **what):
    print(json.dumps({'event': event, 'at': time.monotonic(), **what}), flush=True)


c = Consumer(conf)
c.subscribe([topic],
            on_assign=lambda _, parts: say('assigned', partitions=sorted(p.partition for p in parts)),
            on_revoke=lambda _, parts: say('revoked', partitions=sorted(p.partition for p in parts)),
            on_lost=lambda _, parts: say('revoked', partitions=sorted(p.partition for p in parts), lost=True))
while not stop:
    m = c.poll(0.1)
    if m is None:
        continue
    if m.error():
        say('error', why=str(m.error()))
        continue
    try:
        c.commit(message=m, asynchronous=False)
        say('read', partition=m.partition(), offset=m.offset() + 1)
    except KafkaException as e:
        say('refused', partition=m.partition(), offset=m.offset() + 1, why=e.args[0].name())
c.close()
say('left')
