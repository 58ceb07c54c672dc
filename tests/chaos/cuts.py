"""Connections between a mirror and its brokers cut at chosen bytes of requests and answers: nothing is lost, doubled or told wrong, and
each time the next records arrive. For each kind of request one byte at random of request and answer, SUNDOG_CUT_BYTES=all
every byte of the smallest exchange of the kind (SUNDOG_CUT_PART=2/6: of six parts the third); and bytes of requests and answers full of records, at random."""
import os, random, sys, time

from confluent_kafka.admin import AdminClient, NewPartitions
from cutter import (ANSWER, API_VERSIONS, DESCRIBE_PRODUCERS, FETCH, INIT_PRODUCER, LEADER_EPOCH, LIST_GROUPS, LIST_OFFSETS, METADATA,
                    OFFSET_COMMIT, OFFSET_FETCH, PRODUCE, REQUEST, Cutter)
from kills import commit, create
from mirror_faults import ledger
from records import check_log, payload, read_topic, same
from site_rig import Late, Rig, free_port, run_cases, wait
from wire import Wire, batch

SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
BYTES = os.environ.get('SUNDOG_CUT_BYTES', '1')  # of each kind and way, or `all`
LARGE = int(os.environ.get('SUNDOG_CUT_LARGE', '2'))  # cuts in frames full of records
PART, PARTS = map(int, os.environ.get('SUNDOG_CUT_PART', '0/1').split('/'))  # every PARTS-th byte from this one on
WRITER = 'cut'


def cut_off(rig):
    """A proxy before each broker, for the mirrors alone; {site: Cutter}."""
    def edit(name, old, new):
        path = os.path.join(rig.dir, name)
        with open(path) as f:
            text = f.read()
        assert old in text, (old, text)
        with open(path, 'w') as f:
            f.write(text.replace(old, new))
    proxies = {}
    for s in rig.sites:
        behind = free_port()
        proxies[s] = Cutter(behind, f'{WRITER}:'.encode())
        own, here = f'PLAINTEXT://{rig.bootstrap(s)}', f'127.0.0.1:{proxies[s].port}'
        edit(f'{s}.broker.properties', f'listeners = {own}', f'listeners = {own},CUT://127.0.0.1:{behind}\n'
             f'advertised.listeners = {own},CUT://{here}\nlistener.security.protocol.map = PLAINTEXT:PLAINTEXT,CUT:PLAINTEXT')
        for m in rig.mirrors:
            edit(f'{m}-mirror.properties', f'{s}.bootstrap.servers = {rig.bootstrap(s)}', f'{s}.bootstrap.servers = {here}')
    return proxies


class World:
    """Two sites, a mirror with one engine, and what has been written so far."""

    def __init__(self, rig, engine):
        del rig.mirrors['east']
        self.rig, self.proxies = rig, cut_off(rig)
        for b in rig.brokers.values():
            b.start()
        create(rig, 'east', 'orders', 2)
        self.ends, self.sent, self.committed = [0, 0], 0, 0
        self.admin = AdminClient({'bootstrap.servers': rig.bootstrap('east')})
        self.here, self.there = Wire(rig.bootstrap('east'), timeout=60), Wire(rig.bootstrap('west'), timeout=60)
        rig.mirrors['west'].start(extra=[f'sundog.engine={engine}'])
        self.write(), self.arrive()
        self.commit(), self.grow(), self.write(), self.arrive()
        self.bounce(), self.write(), self.arrive()
        for p in self.proxies.values():  # whatever a new connection asks has gone by once
            p.kick()
        self.write(), self.arrive()

    def write(self, n=4, size=20):
        batches = {}
        for _ in range(n):
            p = self.sent % len(self.ends)
            key = b'p%d' % p
            batches.setdefault(p, []).append((key, payload(WRITER, self.sent, key, size), []))
            self.sent += 1
        for p, records in batches.items():
            def taken():
                self.here.send_batch('orders', p, batch(records, int(time.time() * 1000)))
                error, offset = self.here.produced()
                assert error or offset == self.ends[p], (p, offset, self.ends)
                return not error or None
            wait(f'partition {p} takes records', 30, taken)
            self.ends[p] += len(records)

    def at_target(self):
        """Log ends; -1 of partitions that are not there yet."""
        found = self.there.marks('east.orders', {p: 0 for p in range(len(self.ends))})
        return [-1 if found[p][0] else found[p][1] for p in range(len(self.ends))]

    def arrive(self, seconds=60):
        def probe():
            ends = self.at_target()
            assert all(have <= want for have, want in zip(ends, self.ends)), f'more at the target, {ends}, than written, {self.ends}'
            return ends == self.ends or None
        end = time.monotonic() + seconds
        while not probe():
            if time.monotonic() > end:
                raise Late(f'not within {seconds} s: {self.ends} at the target, there is {self.at_target()}')
            time.sleep(0.01)

    def commit(self):
        """Another offset of a group, which the mirror translates and commits at the target."""
        self.committed = self.committed % self.ends[0] + 1
        commit(self.rig, 'east', 'shop', 'orders', {0: self.committed})

    def synced(self):
        def probe():
            with Wire(self.rig.bootstrap('west')) as w:
                return w.committed('shop', 'east.orders', [0])[1].get(0, (None,))[0] == self.committed
        wait(f'the group stands at {self.committed}', 60, probe, 0.1)

    def grow(self):
        """A partition more: a producer id for its number, a survey of its target."""
        self.ends.append(0)
        for f in self.admin.create_partitions([NewPartitions('orders', len(self.ends))]).values():
            f.result(60)

    def bounce(self):
        """The source begins anew, under new leader epochs: where do the logs of those before end?"""
        self.rig.brokers['east'].kill(), self.rig.brokers['east'].start()
        self.here = Wire(self.rig.bootstrap('east'), timeout=60)

    def cut(self, site, kind, at, trigger=None, **records):
        proxy = self.proxies[site]
        order = proxy.arm(kind, at)
        if trigger == 'connect':
            proxy.kick()
        elif trigger:
            trigger()
        self.write(**records)
        if not order.done.wait(60):
            raise Late(f'{site}: no frame of kind {kind} came by to be cut at {at}')
        self.arrive()
        return order.cut

    def judge(self):
        self.commit(), self.synced()
        a, b = read_topic(self.rig.bootstrap('east'), 'orders'), read_topic(self.rig.bootstrap('west'), 'east.orders')
        same(a, b, 'orders')
        check_log(b, set(range(self.sent)), WRITER, 'east.orders')
        assert not ledger(self.rig), ledger(self.rig)

        def running():
            rows = [p for f in self.rig.mirrors['west'].status()['flows'] for p in f['partitions'] if p['topic'] == 'orders']
            told = [(p['partition'], p['state'], p['reason']) for p in rows if p['state'] not in ('mirroring', 'caught up')]
            assert len(rows) == len(self.ends) and not told, told
            return True
        wait('every partition runs', 60, running, 0.2)


# Of each site: (request, with records in it, what makes the mirror send it besides records).
SOURCE = [(FETCH, True, None), (FETCH, False, None), (METADATA, False, None), (API_VERSIONS, False, 'connect'), (LIST_OFFSETS, False, 'grow'),
          (OFFSET_FETCH, False, None), (LIST_GROUPS, False, None), (LEADER_EPOCH, False, 'bounce')]
TARGET = [(PRODUCE, True, None), (PRODUCE, False, None), (METADATA, False, None), (API_VERSIONS, False, 'connect'),
          (LIST_OFFSETS, False, 'grow'), (INIT_PRODUCER, False, 'grow'), (DESCRIBE_PRODUCERS, False, 'grow'), (OFFSET_COMMIT, False, 'commit')]


def cut_at_bytes(site, requests, large, engine):
    """`large`: the kind of frame that is full of records."""
    rng = random.Random(SEED)
    with Rig(flows=['east->west']) as rig:
        world = World(rig, engine)
        triggers = {'grow': world.grow, 'commit': world.commit, 'bounce': world.bounce}
        done = 0
        for api, marked, trigger in requests:
            for way in (REQUEST, ANSWER) if api != FETCH or not marked else (ANSWER,):
                kind = api, way, marked
                size = wait(f'a frame of kind {kind}', 30, lambda: world.proxies[site].smallest.get(kind))
                for at in range(PART, size, PARTS) if BYTES == 'all' else rng.sample(range(size), int(BYTES)):
                    found, _ = world.cut(site, kind, at, triggers.get(trigger, trigger))
                    assert found == at
                    if trigger == 'commit':
                        world.synced()
                    done += 1
        sizes = [world.cut(site, large, rng.random(), n=40, size=2000)[1] for _ in range(LARGE)]
        world.judge()
        assert done + LARGE == world.proxies[site].cuts
        print(f'{done} cuts at bytes of {len(requests)} kinds of requests and answers, {LARGE} in frames of up to {max(sizes)} bytes; '
              f'{world.sent} records in {len(world.ends)} partitions')


def source_cuts_off_the_record_engine():
    cut_at_bytes('east', SOURCE, (FETCH, ANSWER, True), 'record')


def source_cuts_off_the_batch_engine():
    cut_at_bytes('east', SOURCE, (FETCH, ANSWER, True), 'batch')


def target_cuts_off_the_record_engine():
    cut_at_bytes('west', TARGET, (PRODUCE, REQUEST, True), 'record')


def target_cuts_off_the_batch_engine():
    cut_at_bytes('west', TARGET, (PRODUCE, REQUEST, True), 'batch')


if __name__ == '__main__':
    print(f'seed {SEED} (SUNDOG_SEED={SEED} tests/chaos/run)', flush=True)
    os.environ['SUNDOG_SEED'] = str(SEED)
    sys.exit(run_cases([source_cuts_off_the_record_engine, source_cuts_off_the_batch_engine, target_cuts_off_the_record_engine,
                        target_cuts_off_the_batch_engine], sys.argv[1:], jobs=4))
