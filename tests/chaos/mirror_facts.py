"""What a mirror says of itself while it runs, for the history: translations of single offsets, its positions, the checkpoints
it has written, the offsets it has applied to groups at the target."""
import random, struct, threading

from history import now
from records import read_partition
from site_rig import wait
from wire import Wire

UNBOUNDED = 1 << 40  # of a checkpoint it is not known whether it was ahead of the mirror: only what it skips is judged


def look(rig, site, group, topic, partitions):
    """{partition: committed offset}, as OffsetFetch tells it and the history hears it; {} where it is not to be had."""
    t0 = now()
    try:
        with Wire(rig.bootstrap(site), 'look') as w:
            error, found = w.committed(group, topic, list(partitions))
    except OSError:
        return {}
    out = {p: o for p, (o, e) in found.items() if not error and not e}
    for p, o in out.items():
        rig.history.event('offset_fetch', group=group, topic=f'{site}/{topic}', partition=p, t0=t0, t1=now(), offset=o)
    return out


class Asked(threading.Thread):
    """Asks the mirror at `target`, whose daemon and brokers come and go, all the time where random offsets of a source topic
    stand, how far it has got, and what it has applied to `group`. `ends()`: {partition: offset} at the source."""

    def __init__(self, rig, source, target, topic, ends, seed=0, group=None, store=None, every=0.1):
        super().__init__(daemon=True)
        self.rig, self.source, self.target, self.topic, self.ends, self.group, self.every = rig, source, target, topic, ends, group, every
        self.there, self.rng, self.end = f'{source}.{topic}', random.Random(f'{seed}asked'), threading.Event()
        self.store, self.answers, self.error = store or f'{target}-mirror.store', 0, None
        if group:
            rig.history.event('group', group=group, topic=f'{target}/{self.there}')
        self.start()

    def run(self):
        while not self.end.wait(self.every):
            try:
                for what in (self.translation, self.position, self.applied):
                    what()
            except Exception as e:
                self.error = self.error or e
                return

    def cli(self, *args):
        """None while the store is not there or not yet known to."""
        try:
            return self.rig.cli_json(*args)
        except (AssertionError, ValueError):
            return None

    def translation(self, offset=None, partition=None):
        ends = self.ends()
        if not ends:
            return
        p = self.rng.choice(list(ends)) if partition is None else partition
        o = self.rng.randint(0, ends[p]) if offset is None else offset
        t = self.cli('translate', '--store', self.store, '--flow', f'{self.source}->{self.target}', '--topic', self.topic,
                     '--partition', str(p), '--offset', str(o))
        if t and t.get('state') == 'exact':
            self.answers += 1
            self.tell('(asked)', p, o, t['partition'], t['offset'], t['reread'])

    def tell(self, group, p, from_, q, to, bound):
        self.rig.history.event('translate', group=group, source=f'{self.source}/{self.topic}', source_partition=p, target=f'{self.target}/{self.there}',
                               target_partition=q, bound=bound, **{'from': from_, 'to': to})

    def position(self):
        store = self.cli('dump', 'store', self.store)
        rows = [t for t in store['topics'] if t['source_topic'] == self.topic] if store else []
        if not rows or not rows[-1]['positions']:
            return
        t = now()
        try:
            with Wire(self.rig.bootstrap(self.target), 'position') as w:
                marks = w.marks(self.there, {lane['partition']: lane['end_offset'] for x in rows[-1]['positions'] for lane in x['lanes']})
        except OSError:
            return
        for x in rows[-1]['positions']:
            ends = [[lane['partition'], marks[lane['partition']][1]] for lane in x['lanes'] if not marks[lane['partition']][0]]
            self.rig.history.event('position', t=t, source=f'{self.source}/{self.topic}', source_partition=x['partition'], position=x['next_offset'],
                                   target=f'{self.target}/{self.there}', ends=ends)

    def applied(self):
        if self.group:
            look(self.rig, self.target, self.group, self.there, self.ends())

    def stop(self):
        self.end.set()
        self.join(30)
        if self.error:
            raise self.error

    def settled(self, committed, seconds=90):
        """Waits until the group's last commits {partition: offset} have been applied at the target; tells the history of that
        translation, which re-reads nothing, of the checkpoints on the way, and of the ends of the map."""
        args = '-c', f'{self.target}-mirror.properties', 'translate', '--group', self.group

        def probe():
            rows = [r for r in (self.cli(*args) or {'partitions': []})['partitions'] if r['source_topic'] == self.topic]
            have = {r['partition']: r['source_offset'] for r in rows if r['state'] in ('synced', 'rewound') and r['applied']}
            if have != committed:
                return None
            return {r['partition']: r['offset'] for r in rows} == look(self.rig, self.target, self.group, self.there, committed) and rows
        for r in wait(f'{self.group} applied at {self.target} as committed: {committed}', seconds, probe, 0.3):
            self.tell(f'{self.group} (applied)', r['partition'], r['source_offset'], r['partition'], r['offset'], 0)
        for p, end in self.ends().items():
            for o in (0, end, *(self.rng.randint(0, end) for _ in range(5))):
                self.translation(o, p)
        return self.checkpoints()

    def checkpoints(self):
        """Every checkpoint of the topic's groups that is still there; how many."""
        n = 0
        for r in read_partition(self.rig.bootstrap(self.target), f'{self.source}.checkpoints.internal', 0):
            group, topic, p = key(r.key)
            if topic == self.there and r.value is not None:
                _, up, down = struct.unpack_from('>hqq', r.value)
                self.tell(f'{group} (checkpoints)', p, up, p, down, UNBOUNDED)
                n += 1
        return n


def key(data):
    """Group, topic and partition of MM2's checkpoint."""
    out, at = [], 0
    for _ in range(2):
        n = struct.unpack_from('>h', data, at)[0]
        out.append(data[at + 2:at + 2 + n].decode())
        at += 2 + n
    return (*out, struct.unpack_from('>i', data, at)[0])
