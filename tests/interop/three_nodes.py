"""The nodes of a three-node Apache Kafka, source and target of mirrors with both engines, are killed; its log is cut by an unclean
election. Nothing is lost, doubled or silent."""
import os, random, re, shutil, signal, subprocess, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from faults import edit, rows, told
from kills import Background, create
from peers import KAFKA
from records import Load, check_log, end_offsets, read_topic, same
from site_rig import Late, Rig, free_port, reserve, run_cases, wait

SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
KILLS = int(os.environ.get('SUNDOG_KILLS', '4'))
STILL = 3  # seconds that one engine may stand still for longer than the other
RACK_STILL = 8  # the same, longer than the source itself, whose leader waits for a dead follower
SMALL = '-Xms64m -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1'


class ThreeNodes:
    """Three combined nodes of Apache Kafka; number i has node id i + 1."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix='sundog-kafka-')
        self.ports = [self.port() for _ in range(3)]
        voters = ','.join(f'{i + 1}@127.0.0.1:{p + 1}' for i, p in enumerate(self.ports))
        keys = [f'controller.quorum.voters={voters}', 'offsets.topic.replication.factor=3', 'transaction.state.log.replication.factor=3',
                'share.coordinator.state.topic.replication.factor=3', 'default.replication.factor=3', 'broker.session.timeout.ms=3000',
                'broker.heartbeat.interval.ms=500', 'replica.lag.time.max.ms=5000',
                'replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector']
        self.env = {**os.environ, 'KAFKA_NODE_JVM': SMALL, 'KAFKA_CLUSTER_ID': 'A' + ''.join(random.choices('abcdefghijklmnopqrstuvwxyz', k=20)) + 'A'}
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda i: self.kafka('start', self.node(i), str(self.ports[i]), f'node.id={i + 1}', f'broker.rack=r{i + 1}', *keys), range(3)))

    @staticmethod
    def port():
        while True:
            p = free_port()
            if reserve(p + 1):
                return p

    @property
    def bootstrap(self):
        return ','.join(f'127.0.0.1:{p}' for p in self.ports)

    def node(self, i):
        return os.path.join(self.dir, str(i))

    def kafka(self, *args):
        done = subprocess.run([KAFKA, *args], env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, (args, done.stdout, done.stderr)

    def kill(self, i):
        self.kafka('kill', self.node(i))

    def restart(self, i):
        self.kafka('restart', self.node(i))

    def topic(self, name):
        """{partition: (leader, replicas in sync)}, as any node that answers says."""
        admin = AdminClient({'bootstrap.servers': self.bootstrap, 'log_level': 2})
        t = admin.list_topics(name, timeout=10).topics[name]
        return {p: (m.leader, set(m.isrs)) for p, m in t.partitions.items()}

    def whole(self, *topics):
        wait('every replica is in sync', 60, lambda: all(len(isr) == 3 for t in topics for _, isr in self.topic(t).values()), 0.3)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for i in range(3):
            try:
                with open(os.path.join(self.node(i), 'node.pid')) as f:
                    os.kill(int(f.read()), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                pass
        shutil.rmtree(self.dir, ignore_errors=True)


def make(bootstrap, topic, partitions, factor, config=None, replicas=None):
    new = NewTopic(topic, partitions, factor, config=config or {}) if not replicas else NewTopic(topic, partitions, replica_assignment=replicas, config=config or {})
    admin = AdminClient({'bootstrap.servers': bootstrap})  # must outlive its futures
    admin.create_topics([new])[topic].result(30)


def arrived(source, target, topic, remote, acked, writer, seconds=90):
    """All that the source has stands at the target, once, in order."""
    def probe():
        same(read_topic(source, topic), read_topic(target, remote), remote)
        return True
    wait(f'{remote} is complete', seconds, probe, 1)
    check_log(read_topic(target, remote), acked, writer, remote)


def three_sites(east, mirror=None, flows=None):
    """`east` is the cluster; the mirror at west and what flows from west has the record engine, at south the batch engine."""
    rig = Rig(sites=('east', 'west', 'south'), bootstrap={'east': f'127.0.0.1:{east.ports[0]}'},
              flows=flows or ['east->west', 'east->south', 'west->east', 'south->east'],
              mirror={'east->west.sundog.engine': 'record', 'west->east.sundog.engine': 'record', 'east->south.sundog.engine': 'batch',
                      'south->east.sundog.engine': 'batch', **(mirror or {})})
    for name in rig.mirrors:
        edit(rig, f'{name}-mirror.properties', (f'east.bootstrap.servers = {rig.bootstrap("east")}', f'east.bootstrap.servers = {east.bootstrap}'))
    edit(rig, 'east-mirror.properties', ('replication.factor = 1', 'replication.factor = 3'))
    return rig


class Stillness(threading.Thread):
    """How long partitions of a topic that is written to all the time stood still at each of some mirrors."""

    def __init__(self, mirrors, topic):
        super().__init__(daemon=True)
        self.mirrors, self.topic, self.end = mirrors, topic, threading.Event()
        self.moved, self.longest = {}, {}  # (mirror, partition): (position, when it came there); seconds
        self.start()

    def look(self, site, now):
        for q, row in rows(self.mirrors[site], self.topic).items():
            position, since = self.moved.get((site, q), (None, now))
            if row['position'] != position:
                self.moved[site, q] = row['position'], now
            self.longest[site, q] = max(self.longest.get((site, q), 0), now - since)

    def run(self):
        while not self.end.wait(0.1):
            for site in self.mirrors:
                try:
                    self.look(site, time.monotonic())
                except OSError:
                    pass

    def stop(self):
        self.end.set()
        self.join()
        return {site: max(s for (m, _), s in self.longest.items() if m == site) for site in self.mirrors}


def nodes_of_a_cluster_are_killed():
    """The leaders of the mirrored topics, at the source and at the target, one node at a time, under load in all four flows."""
    rng = random.Random(SEED)
    with ThreeNodes() as east, three_sites(east) as rig:
        make(east.bootstrap, 'orders', 3, 3, {'min.insync.replicas': '2'})
        for b in rig.brokers.values(): b.start()
        for s in ('west', 'south'): create(rig, s, 'bills', 3)
        for m in rig.mirrors.values(): m.start(seconds=30)
        loads = [Load(east.bootstrap, 'orders', 'orders'), *(Load(rig.bootstrap(s), 'bills', s) for s in ('west', 'south'))]
        running = Background(*loads, rate=1000)
        copies = [f'{s}.bills' for s in ('west', 'south')]
        wait('the copies are there', 30, lambda: all(sum(end_offsets(east.bootstrap, t).values()) > 100 for t in copies), 0.3)
        still, killed = Stillness({s: rig.mirrors[s] for s in ('west', 'south')}, 'orders'), []
        for k in range(KILLS):
            topic = rng.choice(['orders', *copies]) if k > 1 else ('orders', copies[1])[k]
            victim = rng.choice([leader for leader, _ in east.topic(topic).values()]) - 1
            killed.append(victim + 1)
            east.kill(victim)
            time.sleep(rng.uniform(1, 6))
            east.restart(victim)
            east.whole('orders', *copies)
        stood = still.stop()
        running.stop()
        assert stood['west'] <= stood['south'] + STILL, f'the record engine stood still for longer: {still.longest}'
        assert not any(l.failed for l in loads), [l.failed for l in loads]
        for s in ('west', 'south'):
            arrived(east.bootstrap, rig.bootstrap(s), 'orders', 'east.orders', loads[0].acked, 'orders')
        for s, load in zip(('west', 'south'), loads[1:]):
            arrived(rig.bootstrap(s), east.bootstrap, 'bills', f'{s}.bills', load.acked, s)
        for s, topic in (('west', 'orders'), ('south', 'orders')):
            engines = {p['engine'] for p in rows(rig.mirrors[s], topic).values()}
            assert engines == {'record' if s == 'west' else 'batch'}, engines
        for m in rig.mirrors.values():
            with open(m.log, errors='replace') as f:
                ledger = [line for line in f if 'ledger' in line]
                assert not ledger, (m.name, ledger)
        print(f'killed {killed}; {[len(l.acked) for l in loads]} records; stood still at most '
              f'{", ".join(f"{v:.1f} s ({k})" for k, v in stood.items())}')


def an_unclean_election_cuts_the_source():
    """A replica that lacks what has been mirrored becomes leader: of one partition it is soon longer than what was mirrored, of the other
    it stays shorter. Both halt, the ledger has it, nothing of the other history is written, with either engine."""
    with ThreeNodes() as east, three_sites(east, flows=['east->west', 'east->south']) as rig:
        del rig.mirrors['east']
        make(east.bootstrap, 'calm', 1, 3)
        make(east.bootstrap, 'risky', 2, 2, {'unclean.leader.election.enable': 'true', 'min.insync.replicas': '1'}, [[1, 2], [1, 2]])
        for b in rig.brokers.values(): b.start()
        for m in rig.mirrors.values(): m.start(seconds=30)

        def put(topic, n, partition, word):
            p = Producer({'bootstrap.servers': east.bootstrap, 'acks': 1, 'log_level': 2})
            for i in range(n): p.produce(topic, b'%s %d' % (word, i), partition=partition)
            assert p.flush(60) == 0

        def ends(s, topic='east.risky'):
            return end_offsets(rig.bootstrap(s), topic)
        for q in range(2): put('risky', 1000, q, b'kept')
        for s in rig.mirrors: wait(f'{s} has the first', 30, lambda: ends(s) == {0: 1000, 1: 1000}, 0.2)
        east.kill(1)
        wait('the leader is alone', 30, lambda: all(isr == {1} for _, isr in east.topic('risky').values()), 0.3)
        for q in range(2): put('risky', 500, q, b'lost')
        for s in rig.mirrors: wait(f'{s} has what will be cut', 30, lambda: ends(s) == {0: 1500, 1: 1500}, 0.2)
        for m in rig.mirrors.values(): m.freeze()
        east.kill(0)
        east.restart(1)
        wait('the other leads', 60, lambda: all(leader == 2 for leader, _ in east.topic('risky').values()), 0.3)
        put('risky', 2000, 0, b'new'), put('risky', 10, 1, b'new'), put('calm', 100, 0, b'calm')
        for m in rig.mirrors.values(): m.signal(signal.SIGCONT)
        for s, m in rig.mirrors.items():
            found = wait(f'{s} halts', 40, lambda: (r := rows(m, 'risky')) and all(p['state'] == 'halted' for p in r.values()) and r, 0.3)
            assert all('orphans' in p['reason'] for p in found.values()), found
            assert len(told(m, 'truncated')) == 2, told(m, 'truncated')
            wait(f'{s}: the other topic goes on', 30, lambda: ends(s, 'east.calm') == {0: 100}, 0.3)
        east.restart(0)
        put('calm', 100, 0, b'calm')
        for s, m in rig.mirrors.items():
            wait(f'{s}: the other topic goes on', 30, lambda: ends(s, 'east.calm') == {0: 200}, 0.3)
            m.kill(), m.start(seconds=30)
            try:
                wait(f'{s} halts again', 40, lambda: (r := rows(m, 'risky')) and all(p['state'] == 'halted' for p in r.values()), 0.3)
            except Late:
                assert max(ends(s).values()) == 1500, f'{s} mirrors the other history: {rows(m, "risky")}'
                raise
            log = read_topic(rig.bootstrap(s), 'east.risky')
            assert all([r.value.split()[0] for r in log[q]] == [b'kept'] * 1000 + [b'lost'] * 500 for q in range(2)), ends(s)
            engine = {p['engine'] for p in rows(m, 'risky').values()}
            assert engine == {'record' if s == 'west' else 'batch'}, engine


def received(mirror, port):
    """Bytes that the mirror's open connections to a node have received."""
    out = subprocess.run(['ss', '-tinpOH', f'dport = :{port}'], capture_output=True, text=True, check=True).stdout
    return sum(int(re.search(r'bytes_received:(\d+)', line + ' bytes_received:0')[1]) for line in out.splitlines() if f'pid={mirror.proc.pid},' in line)


def the_replica_in_our_rack_is_read():
    """KIP-392: what comes comes from the node in the mirror's rack; of the leader again when that node is killed; nothing is lost or
    doubled, with either engine."""
    with ThreeNodes() as east, three_sites(east, flows=['east->west', 'east->south'], mirror={'east.consumer.client.rack': 'r3'}) as rig:
        del rig.mirrors['east']
        make(east.bootstrap, 'orders', 2, 3, {'min.insync.replicas': '2'}, [[1, 2, 3], [1, 2, 3]])
        for b in rig.brokers.values(): b.start()
        for m in rig.mirrors.values(): m.start(seconds=30)
        load = Load(east.bootstrap, 'orders', 'orders', size=2000)
        load.send(100), load.flush()
        mirrored = {s: lambda s=s: sum(end_offsets(rig.bootstrap(s), 'east.orders').values()) for s in rig.mirrors}
        for s in rig.mirrors: wait(f'{s} has the first', 30, lambda: mirrored[s]() == 100, 0.2)

        def from_nodes(n):
            before = {s: [received(m, p) for p in east.ports] for s, m in rig.mirrors.items()}
            load.send(n), load.flush()
            for s in rig.mirrors: wait(f'{s} has {load.sent}', 60, lambda: mirrored[s]() == load.sent, 0.2)
            return {s: [received(m, p) - b for p, b in zip(east.ports, before[s])] for s, m in rig.mirrors.items()}

        whole = 1000 * 2000
        got = from_nodes(1000)
        for s, (leader, _, near) in got.items():
            assert near > 0.9 * whole and leader < 0.1 * whole, f'{s}: bytes from the nodes: {got}'
        running = Background(load, rate=500)
        still = Stillness(rig.mirrors, 'orders')
        time.sleep(2)
        east.kill(2)
        end = time.monotonic() + 30
        acked, since, source = len(load.acked), time.monotonic(), 0
        while time.monotonic() < end:
            now = time.monotonic()
            source = max(source, now - since)
            if len(load.acked) != acked:
                acked, since = len(load.acked), now
            time.sleep(0.1)
        stood = still.stop()
        running.stop()
        assert max(stood.values()) < source + RACK_STILL, f'stood still for {still.longest}, the source itself for {source:.1f} s'
        east.restart(2)
        for s in rig.mirrors:
            arrived(east.bootstrap, rig.bootstrap(s), 'orders', 'east.orders', load.acked, 'orders')
            assert {p['engine'] for p in rows(rig.mirrors[s], 'orders').values()} == {'record' if s == 'west' else 'batch'}
        print(f'bytes of {whole} from nodes 1, 2, 3: {got}; {len(load.acked)} records; stood still at most {stood}, the source {source:.1f} s')


if __name__ == '__main__':
    print(f'seed {SEED}', flush=True)
    sys.exit(run_cases([nodes_of_a_cluster_are_killed, an_unclean_election_cuts_the_source, the_replica_in_our_rack_is_read], sys.argv[1:]))
