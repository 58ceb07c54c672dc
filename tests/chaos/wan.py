"""Two sites that mirror each other over a long line (tests/support/py/wan_rig.py): 100 ms there and back, measured first.

Cases, three at a time: swapped, doubled, damaged packets at 2 MB/s; 1 % and 5 % lost; connections reset again and again; the
line cut in both directions (one mirror is killed and started meanwhile) or in one (half-open). SUNDOG_CUT is the length of a
cut in seconds (20). Load and committing groups at both sites all the time. Held in each case:

- every record stands at the other site, once, in its order; nothing else does; a reader that is there all along agrees;
- each group stands at the other site at the very record that it would read next;
- from SAID seconds after a cut until its end the status of each mirror names the silent site, shows no partition as running
  and tells no lag in records; a lag that is told was true at some moment within AGE seconds;
- RECOVERED seconds after the heal all is as before; resident memory has grown by sundog.memory.max.bytes at most."""
import contextlib, os, random, sys, threading, time

from confluent_kafka import Consumer, TopicPartition
from kills import MIRROR, Background, create, drain_both, loading, strays
from history import now
from records import Follower, check_log, end_offsets, same
from site_rig import Late, Rig, run_cases, wait
from wan_rig import Wan, possible

SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
CUT = float(os.environ.get('SUNDOG_CUT', '20'))
SAID = 9       # seconds from the cut until both status pages must have said so
AGE = 14       # what is told of the source's end is at most that old
RECOVERED = 30  # and from the heal until all is as before
MEMORY = 32 << 20
TOPICS = {'east': 'orders', 'west': 'bills'}
OTHER = {'east': 'west', 'west': 'east'}


def resident(daemon):
    with open(f'/proc/{daemon.proc.pid}/status') as f:
        return int(next(l for l in f if l.startswith('VmRSS')).split()[1]) * 1024


class Watch:
    """Looks at the status of both mirrors all the time: what they say, and what the load had done by then."""

    def __init__(self, rig, loads):
        self.rig, self.loads, self.rows, self.end, self.peak, self.first = rig, loads, [], threading.Event(), {}, {}
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.end.is_set():
            for site, mirror in self.rig.mirrors.items():
                load = self.loads[OTHER[site]]
                at, acked = time.monotonic(), len(load.acked)
                try:
                    flow = mirror.status()['flows'][0]
                    size = resident(mirror)
                except (OSError, ValueError, AttributeError, StopIteration):
                    continue  # killed, or on its way up
                self.first.setdefault(site, size)
                self.peak[site] = max(self.peak.get(site, 0), size)
                parts = [p for p in flow['partitions'] if p['topic'] == load.topic and p['partition'] >= 0]
                self.rows.append((at, site, flow, parts, acked, load.sent))
            self.end.wait(0.2)

    def between(self, t0, t1, site):
        return [r for r in list(self.rows) if t0 <= r[0] <= t1 and r[1] == site]

    def stop(self):
        self.end.set()
        self.thread.join()

    def lags_were_true(self):
        """A lag that is told is that of some moment within the last AGE seconds."""
        told = 0
        for site in self.rig.mirrors:
            rows = self.between(0, 1e18, site)
            for t, _, _, parts, _, sent in rows:
                if not parts or any(p['lag_records'] is None for p in parts):
                    continue
                then = max((r[4] for r in rows if r[0] <= t - AGE), default=0)
                ends = sum(p['source_end'] for p in parts)
                assert then <= ends <= sent, f'{site}: at {t:.1f} the source ends at {ends}, but had {then} records {AGE} s before, {sent} then'
                assert all(p['lag_records'] == p['source_end'] - p['position'] for p in parts), (site, parts)
                told += 1
        if told <= 20:
            raise Late(f'only {told} lags were told')

    def said_what_was_wrong(self, cut_at, until):
        """By SAID seconds after the cut, and from then on. What is said later, and then until the end, is only late."""
        for site in self.rig.mirrors:
            rows = self.between(cut_at + SAID, until, site)
            wrong = [(t, why) for t, _, flow, parts, _, _ in rows if (why := self.unsaid(site, t - cut_at, flow, parts))]
            assert not wrong or wrong[-1][0] < rows[-1][0], f'{site}: {wrong[-1][1]}'
            if wrong or not rows:
                raise Late(f'{site}: {wrong[-1][1] if wrong else "no status during the cut"}')

    def unsaid(self, site, seconds, flow, parts):
        """What is wrong with a status so long after the cut."""
        if f'source {OTHER[site]}' not in flow['reason']:
            return f'{seconds:.1f} s into the cut the flow says {flow["reason"]!r}'
        for p in parts:
            if (p['state'] in ('mirroring', 'caught up') or not p['reason'] or p['lag_records'] is not None or
                    p['lag_seconds'] is not None and p['lag_seconds'] <= seconds - 3):
                return f'{seconds:.1f} s into the cut: {p}'
        return None

    def is_well(self, lag=None):
        for site, mirror in self.rig.mirrors.items():
            flow = mirror.status()['flows'][0]
            parts = [p for p in flow['partitions'] if p['topic'] == TOPICS[OTHER[site]]]
            if flow['reason'] or not parts or any(p['state'] not in ('mirroring', 'caught up') or p['reason'] or p['lag_records'] is None for p in parts):
                return None
            if lag is not None and any(p['lag_records'] > lag for p in parts):
                return None
        return True

    def memory_was_bounded(self):
        for site, first in self.first.items():
            grown = self.peak[site] - first
            assert grown <= MEMORY, f'{site}: the mirror grew by {grown >> 20} MiB, allowed are {MEMORY >> 20}'


class Readers:
    """Groups of a topic that have each read some of it: they commit now and then, further and further."""

    def __init__(self, rig, site, rng, groups=3):
        self.rig, self.site, self.rng, self.topic = rig, site, rng, TOPICS[site]
        self.at = {f'{self.topic}-readers-{i}': {} for i in range(groups)}
        self.consumers = {g: Consumer({'bootstrap.servers': rig.bootstrap(site), 'group.id': g, 'log_level': 2}) for g in self.at}

    def commit(self):
        ends = end_offsets(self.rig.bootstrap(self.site), self.topic)
        for group, c in self.consumers.items():
            at = self.at[group]
            for p, end in ends.items():
                at[p] = self.rng.randint(at.get(p, 0), end)
            def taken():
                c.commit(offsets=[TopicPartition(self.topic, p, o) for p, o in at.items()], asynchronous=False)
                return True
            t0 = now()
            wait(f'the commit of {group}', 60, taken)
            for p, o in at.items():
                self.rig.history.event('commit', group=group, topic=f'{self.site}/{self.topic}', partition=p, t0=t0, t1=now(), offset=o, err=0)

    def check(self, source, target):
        """Each group stands at the other site at the record that it would read next."""
        there, remote = OTHER[self.site], f'{self.site}.{self.topic}'
        wanted = {}
        for group, at in self.at.items():
            for p, o in at.items():
                assert source[p][0].offset == 0 and source[p][-1].offset == len(source[p]) - 1
                wanted[group, p] = target[p][o].offset if o < len(target[p]) else target[p][-1].offset + 1

        def synced():
            have = {}
            for group in self.at:
                c = Consumer({'bootstrap.servers': self.rig.bootstrap(there), 'group.id': group, 'log_level': 2})
                have.update({(group, tp.partition): tp.offset for tp in c.committed([TopicPartition(remote, p) for p in source], timeout=10)})
                c.close()
            wrong = {k: (have[k], w) for k, w in wanted.items() if have[k] != w}
            assert not wrong, f'{len(wrong)} of {len(wanted)} offsets of groups are wrong (have, want): {dict(list(wrong.items())[:3])}'
            return True
        wait(f'groups of {self.topic} stand at {there} where they do at {self.site}', 60, synced, 0.5)
        for group, at in self.at.items():
            for p, o in at.items():
                self.rig.history.event('translate', group=group, source=f'{self.site}/{self.topic}', source_partition=p, **{'from': o},
                                       target=f'{there}/{remote}', target_partition=p, to=wanted[group, p])
        for c in self.consumers.values():
            c.close()
        return len(wanted)


class Sites:
    def __init__(self, wan, rig):
        self.wan, self.rig, self.rng = wan, rig, random.Random(SEED)
        self.running = self.watch = None
        self.followers = []

    def start(self, rate):
        rig = self.rig
        rig.start()
        for site, topic in TOPICS.items():
            create(rig, site, topic, 2)
        self.loads = {s: loading(rig, s, t, s[0]) for s, t in TOPICS.items()}
        self.running = Background(*self.loads.values(), rate=rate)
        self.watch = Watch(rig, self.loads)
        self.readers = [Readers(rig, s, self.rng) for s in TOPICS]
        wait('both sites mirror', 60, lambda: self.watch.is_well(), 0.2)
        self.followers = [Follower(rig.bootstrap(OTHER[s]), f'{s}.{t}', rig.history, f'{OTHER[s]}/{s}.{t}') for s, t in TOPICS.items()]

    def close(self):
        """Ends the threads however the case ends: its next try leaves for namespaces of its own."""
        threads = [*(self.running.threads if self.running else ()), *(x.thread for x in (self.watch, *self.followers) if x)]
        for x in (self.running, self.watch, *self.followers):
            if x:
                x.end.set()
        for t in threads:
            t.join(30)

    def go_on(self, seconds):
        """The load goes on for so long; the groups commit meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for r in self.readers:
                r.commit()
            time.sleep(max(0, min(1, end - time.monotonic())))

    def go_on_until(self, what, done):
        def probe():
            self.go_on(0.5)
            return done()
        if not done():
            wait(what, 60, probe)

    def end(self):
        """All that was written arrives; and all of it is compared."""
        self.running.stop()
        for f in self.followers:
            f.stop()
        wait('all has arrived', 120, self.arrived, 0.2)
        wait('all is well', RECOVERED, lambda: self.watch.is_well(lag=0), 0.2)
        self.watch.stop()
        records = offsets = 0
        for r in self.readers:
            source, target = drain_both(self.rig, r.site, OTHER[r.site], r.topic)
            check_log(source, self.loads[r.site].acked, r.site[0], f'{r.site}/{r.topic}')
            same(source, target, f'{r.site}.{r.topic}')
            records += sum(map(len, source.values()))
            offsets += r.check(source, target)
        assert not any(l.failed for l in self.loads.values()), [l.failed for l in self.loads.values()]
        self.watch.lags_were_true()
        self.watch.memory_was_bounded()
        print(f'{records} records, {offsets} offsets of groups compared; the line: {self.wan.counters()}')
        strays(self.rig)
        print(self.rig.history.check(f'K1 K2 K3 K4 K6 K7 K8 K10 K15 {MIRROR} R5.skip R5.again'))

    def arrived(self):
        return all(end_offsets(self.rig.bootstrap(s), t) == end_offsets(self.rig.bootstrap(OTHER[s]), f'{s}.{t}') for s, t in TOPICS.items())


@contextlib.contextmanager
def sites(load=100, **settings):
    """Two sites at work, 100 ms from each other and back; `settings` of the line hold from the start."""
    with Wan(SEED) as wan:
        wan.set(delay=50, **settings)
        rtt = wait('a connection over the line', 60, lambda: wan.rtt(timeout=20))  # more where packets are lost
        assert rtt > 0.095, f'a connection takes {rtt * 1000:.1f} ms: packets miss the line'
        with Rig(places=wan.places, mirror={'sundog.memory.max.bytes': MEMORY}) as rig:
            s = Sites(wan, rig)
            try:
                s.start(load)
                yield s
            finally:
                s.close()


def lost(wan):
    return sum(w['lost'] for w in wan.counters().values())


def a_hundred_milliseconds_and_a_line_that_swaps_and_doubles():
    with sites(jitter=10, reorder=2, dup=2, corrupt=0.5, rate=2000, load=200) as s:
        s.go_on(8)
        s.end()


def one_packet_in_a_hundred_is_lost():
    with sites(loss=1, jitter=2) as s:
        s.go_on(8)
        s.go_on_until('5 packets are lost', lambda: lost(s.wan) > 5)
        s.end()


def five_packets_in_a_hundred_are_lost():
    with sites(loss=5, jitter=2) as s:
        s.go_on(8)
        s.go_on_until('25 packets are lost', lambda: lost(s.wan) > 25)
        s.end()


def connections_are_reset_again_and_again():
    with sites(jitter=2) as s:
        for _ in range(10):
            s.wan.set(reset=1)
            s.go_on(s.rng.uniform(0.1, 0.4))
            s.wan.set(reset=0)
            s.go_on(s.rng.uniform(0.2, 0.8))
        healed = time.monotonic()
        wait('both sites mirror again', RECOVERED, lambda: s.watch.is_well(), 0.2)
        print(f'well again {time.monotonic() - healed:.1f} s after the last reset')
        s.end()
        resets = sum(w['resets'] for w in s.wan.counters().values())
        if resets < 20:
            raise Late(f'only {resets} resets: {s.wan.counters()}')


def cut(s, cut_line, meanwhile=None):
    s.go_on(3)
    cut_line()
    cut_at = time.monotonic()
    s.rig.fault('the line is cut')
    s.go_on(CUT / 2)
    if meanwhile:
        meanwhile()
    s.go_on(cut_at + CUT - time.monotonic())
    s.wan.set(cut=0)
    healed = time.monotonic()
    s.rig.fault('the line is whole')
    wait('both sites mirror again', RECOVERED, lambda: s.watch.is_well(), 0.2)
    print(f'well again {time.monotonic() - healed:.1f} s after {CUT:.0f} s')
    s.watch.said_what_was_wrong(cut_at, healed)
    s.go_on(2)
    s.end()


def the_line_is_cut():
    """In both directions; the mirror at west is killed and started meanwhile."""
    with sites(jitter=2) as s:
        def restart():
            s.rig.mirrors['west'].kill()
            s.rig.mirrors['west'].start()
        cut(s, lambda: s.wan.set(cut=1), restart)


def the_line_is_cut_one_way():
    """What east sends is lost, what west sends arrives: connections are open at one end and dead at the other."""
    with sites(jitter=2) as s:
        cut(s, lambda: s.wan.set_from('east', cut=1))


if __name__ == '__main__':
    assert not possible(), possible()
    print(f'seed {SEED} (SUNDOG_SEED={SEED} tests/chaos/run)', flush=True)
    sys.exit(run_cases([the_line_is_cut, the_line_is_cut_one_way, connections_are_reset_again_and_again,
                        five_packets_in_a_hundred_are_lost, one_packet_in_a_hundred_is_lost,
                        a_hundred_milliseconds_and_a_line_that_swaps_and_doubles], sys.argv[1:], jobs=3))
