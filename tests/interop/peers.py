"""Apache Kafka at either end of our mirror, and MirrorMaker 2 from and to our broker."""
import os, shutil, signal, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from records import end_offsets, partitions, read_topic, same
from site_rig import TOP, Rig, free_port, run_cases, wait

KAFKA = os.path.join(TOP, 'tests', 'support', 'kafka')


class ApacheKafka:
    def __init__(self, keys=None):
        """`keys` is asked for the node's further properties with the port it will have."""
        self.dir = tempfile.mkdtemp(prefix='sundog-kafka-')
        for _ in range(5):
            self.port = free_port(2)  # its controller's is the next one
            if subprocess.run([KAFKA, 'start', self.dir, str(self.port), *(keys(self.port) if keys else [])], capture_output=True).returncode == 0:
                break
            subprocess.run([KAFKA, 'kill', self.dir], capture_output=True)
            shutil.rmtree(self.dir); os.mkdir(self.dir)
        else:
            raise AssertionError('Apache Kafka did not start')
        self.bootstrap = f'127.0.0.1:{self.port}'

    def mm2(self, keys):
        path = os.path.join(self.dir, 'mm2.properties')
        with open(path, 'w') as f:
            f.writelines(f'{k}={v}\n' for k, v in keys.items())
        subprocess.run([KAFKA, 'mm2', self.dir, path], check=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in ('mm2.pid', 'node.pid'):  # nobody reads its files any more: no need to be polite
            try:
                with open(os.path.join(self.dir, name)) as f:
                    os.kill(int(f.read()), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                pass
        shutil.rmtree(self.dir, ignore_errors=True)


def two_apache_kafkas():
    with ThreadPoolExecutor(2) as pool:
        return [f.result() for f in [pool.submit(ApacheKafka) for _ in range(2)]]


def fill(bootstrap, topic, n, codec='lz4'):
    admin = AdminClient({'bootstrap.servers': bootstrap})  # must outlive its futures
    for f in admin.create_topics([NewTopic(topic, 3, 1)]).values():
        f.result(60)
    now = int(time.time() * 1000) - 3_600_000  # within any retention
    p = Producer({'bootstrap.servers': bootstrap, 'compression.type': codec, 'enable.idempotence': True})
    for i in range(n):
        p.produce(topic, b'value %d' % i, b'k%d' % (i % 50), timestamp=now + i, headers=[('h', b'%d' % i)])
        if i % 1000 == 0: p.poll(0)
    assert p.flush(60) == 0


def complete(source, target, topic, remote, seconds=180):
    want = end_offsets(source, topic)
    assert want, f'{source} does not know {topic}'
    wait(f'{remote} complete', seconds, lambda: partitions(target, remote) and end_offsets(target, remote) == want, 0.3)
    same(read_topic(source, topic), read_topic(target, remote), remote)


def complete_at_least_once(source, target, topic, remote, seconds=240):
    """As MirrorMaker 2 promises: a task that it stops in a hurry writes again what it has written. No two records of `fill` are equal."""
    def once(log):
        return {p: list({r[1:]: r for r in records}.values()) for p, records in log.items()}
    want = read_topic(source, topic)
    held = sum(map(len, want.values()))
    assert held and sum(len(v) for v in once(want).values()) == held
    wait(f'{remote} complete', seconds, lambda: partitions(target, remote) and sum(len(v) for v in once(read_topic(target, remote)).values()) == held, 0.5)
    same(want, once(read_topic(target, remote)), remote)


def our_mirror_between_two_apache_kafkas():
    one, two = two_apache_kafkas()
    with one as east, two as west:
        with Rig(bootstrap={'east': east.bootstrap, 'west': west.bootstrap}, flows=['east->west']) as rig:
            del rig.mirrors['east']
            fill(east.bootstrap, 'orders', 5000)
            rig.start()
            complete(east.bootstrap, west.bootstrap, 'orders', 'east.orders')
            mirror = rig.mirrors['west']
            for _ in range(3):
                p = Producer({'bootstrap.servers': east.bootstrap})
                for i in range(500): p.produce('orders', b'more %d' % i, b'k%d' % i)
                assert p.flush(60) == 0
                mirror.kill()
                mirror.start()
            complete(east.bootstrap, west.bootstrap, 'orders', 'east.orders')


def our_mirror_from_apache_kafka_to_ours_and_back():
    with ApacheKafka() as east:
        with Rig(bootstrap={'east': east.bootstrap}) as rig:
            fill(east.bootstrap, 'orders', 3000)
            rig.start()
            fill(rig.bootstrap('west'), 'bills', 3000, 'zstd')
            complete(east.bootstrap, rig.bootstrap('west'), 'orders', 'east.orders')
            complete(rig.bootstrap('west'), east.bootstrap, 'bills', 'west.bills')


def mirrormaker_2_mirrors_from_and_to_our_broker():
    with ApacheKafka() as east, Rig(sites=['west']) as rig:
        del rig.mirrors['west']
        rig.start()
        west = rig.bootstrap('west')
        fill(east.bootstrap, 'orders', 2000)
        fill(west, 'bills', 2000)
        keys = {'clusters': 'east,west', 'east.bootstrap.servers': east.bootstrap, 'west.bootstrap.servers': west,
                'east->west.enabled': 'true', 'west->east.enabled': 'true', 'topics': 'orders|bills', 'replication.factor': 1,
                'checkpoints.topic.replication.factor': 1, 'heartbeats.topic.replication.factor': 1,
                'offset-syncs.topic.replication.factor': 1, 'offset.storage.replication.factor': 1,
                'status.storage.replication.factor': 1, 'config.storage.replication.factor': 1,
                'refresh.topics.interval.seconds': 2, 'emit.checkpoints.interval.seconds': 2, 'offset.flush.interval.ms': 1000}
        east.mm2(keys)
        complete_at_least_once(east.bootstrap, west, 'orders', 'east.orders')
        complete_at_least_once(west, east.bootstrap, 'bills', 'west.bills')


if __name__ == '__main__':
    sys.exit(run_cases([mirrormaker_2_mirrors_from_and_to_our_broker, our_mirror_between_two_apache_kafkas,
                        our_mirror_from_apache_kafka_to_ours_and_back], sys.argv[1:], jobs=2))
