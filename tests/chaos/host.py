"""What a host does to a process: kill -9 inside chosen system calls (strace), long pauses, steps of the wall clock.

The pauses and the clock's steps come from outside (SIGSTOP) and from a library in front of libc (host_shim.c); nothing in
the daemons knows of them. Each case ends with every record compared and the checker over the history."""
import http.client, math, os, random, signal, subprocess, sys, threading, time

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource
from history import now
from records import Follower, Load
from host_shim import Shim
from site_rig import BIN, Late, Rig, run_cases, wait
from kills import MIRROR, Background, compare, create, drain, loading, mirrored

SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
CALLS = os.environ.get('SUNDOG_CALLS', '12')  # kills at system calls, or `all`
ERRORS = os.environ.get('SUNDOG_ERRORS', '10')  # calls that fail
PAUSE = float(os.environ.get('SUNDOG_PAUSE', '12'))  # seconds that a stopped process stands still
HOUR = 3600
JUDGED = 'K1 K2 K3 K4 K6 K7 K8 K10 K15'  # what each history here has facts for
UNOPENED = 'not every log was open'
DEEPEST = 200  # `all`: the k-th call of a name up to this

BROKER_CALLS = ['openat', 'write', 'pwritev', 'fdatasync', 'fsync', 'rename', 'unlink', 'ftruncate', 'fallocate', 'sendmsg', 'sendfile',
                'close', 'mkdir', 'epoll_wait']
MIRROR_CALLS = ['openat', 'write', 'writev', 'pwrite64', 'pwritev', 'fdatasync', 'msync', 'mmap', 'ftruncate', 'sendmsg', 'recvmsg',
                'recvfrom', 'close']


class Commits:
    """Commits ever greater offsets of a group of its own, one after another, and looks now and then what is committed."""

    def __init__(self, rig, site, topic, group='counts'):
        self.rig, self.name, self.group, self.n, self.told, self.end = rig, f'{site}/{topic}', group, 0, 0, threading.Event()
        self.c = Consumer({'bootstrap.servers': rig.bootstrap(site), 'group.id': group, 'enable.auto.commit': False,
                           'reconnect.backoff.max.ms': 500, 'socket.timeout.ms': 5000, 'log_level': 2})
        self.topic = topic
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def event(self, op, t0, **fields):
        self.rig.history.event(op, group=self.group, topic=self.name, partition=0, t0=t0, t1=now(), **fields)

    def commit(self):
        self.n += 1
        t0 = now()
        try:
            self.c.commit(offsets=[TopicPartition(self.topic, 0, self.n)], asynchronous=False)
            self.event('commit', t0, offset=self.n, err=0)
            self.told += 1
        except KafkaException:
            self.event('commit', t0, offset=self.n, err=None)  # the library may have tried more than once

    def look(self):
        t0 = now()
        try:
            self.event('offset_fetch', t0, offset=max(-1, self.c.committed([TopicPartition(self.topic, 0)], timeout=10)[0].offset))
        except KafkaException:
            pass

    def run(self):
        while not self.end.is_set():
            self.commit()
            if self.n % 4 == 0:
                self.look()
            time.sleep(0.02)

    def stop(self):
        try:
            wait('20 commits are acknowledged', 60, lambda: self.told > 20)
        finally:
            self.end.set()
            self.thread.join()
        self.look()
        self.c.close()


# ---- kill -9 at the k-th call of a name ----

def strace(*words):
    """The daemon stays our own child (-D) and gets its own signals; no --seccomp-bpf: strace 6.1 then ignores signal=."""
    return ['strace', '-D', '-f', '-qq', *words]


def counts(daemon, names, out):
    """How often the daemon makes each of these calls from its start, under the load that is on, to its end by TERM."""
    daemon.start(seconds=60, under=strace('-c', '-o', out, '-e', 'trace=' + ','.join(names)))
    time.sleep(2)
    daemon.stop(60)
    wait('the table of calls', 30, lambda: os.path.exists(out) and 'total' in open(out).read())
    table = {}
    for line in open(out):
        words = line.split()
        if words and words[-1] in names:
            table[words[-1]] = int(words[3])
    return table


def killed_at(daemon, name, k, term_after):
    """Runs the daemon until its k-th call of that name kills it: True; or ends it: False. TERM comes in between, so that the
    calls of an orderly end are met too."""
    daemon.rig.fault(f'kill {daemon.name} at {name} {k}')
    daemon.start(ready=False, under=strace('-o', '/dev/null', '-e', f'trace={name}', '-e', f'inject={name}:signal=KILL:when={k}'))
    start, told = time.monotonic(), False
    while daemon.proc.poll() is None and time.monotonic() < start + term_after + 8:
        if not told and time.monotonic() > start + term_after:
            daemon.proc.terminate()
            told = True
        time.sleep(0.005)
    code = daemon.proc.poll()
    early = code == 1 and told and UNOPENED in daemon.tail()  # TERM came while it was still opening them
    assert early or code in (None, 0, -signal.SIGKILL), f'{daemon.name}, to be killed at {name} {k}, ended with {code}: {daemon.tail()}'
    daemon.kill()
    return code == -signal.SIGKILL


def samples(rng, tables):
    """(daemon, name, k): each name of each daemon in a shuffled order, again and again; k by its logarithm, up to 2/3 of what
    was counted."""
    while True:
        names = [(d, n) for d, table in tables.items() for n in sorted(table)]
        rng.shuffle(names)
        for d, n in names:
            yield d, n, round(math.exp(rng.uniform(0, math.log(max(1, tables[d][n] * 2 // 3)))))


def every(tables):
    for d, table in tables.items():
        for n in sorted(table):
            for k in range(1, min(DEEPEST, table[n]) + 1):
                yield d, n, k


def daemons_killed_at_chosen_system_calls():
    rng = random.Random(SEED)
    with Rig(flows=['east->west'], broker={'log.flush.offset.checkpoint.interval.ms': 300, 'log.segment.bytes': 1 << 20,
                                           'replica.high.watermark.checkpoint.interval.ms': 300, 'log.cleaner.backoff.ms': 300}) as rig:
        del rig.mirrors['east']
        rig.start()
        create(rig, 'east', 'orders')
        create(rig, 'west', 'keys', 1, cleanup_policy='compact', segment_ms='500', min_cleanable_dirty_ratio='0.01', max_compaction_lag_ms='500')
        east, keys = loading(rig, 'east', 'orders', 'e'), loading(rig, 'west', 'keys', 'k')
        running = Background(east, keys, rate=1000)
        follower, commits = Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders'), Commits(rig, 'east', 'orders')
        tables = {}
        for daemon, names in ((rig.brokers['east'], BROKER_CALLS), (rig.brokers['west'], BROKER_CALLS), (rig.mirrors['west'], MIRROR_CALLS)):
            daemon.stop(60)
            tables[daemon] = counts(daemon, names, os.path.join(rig.dir, daemon.name + '.calls'))
            daemon.start(seconds=60)
        met, missed = [], 0
        wanted = math.inf if CALLS == 'all' else int(CALLS)
        for daemon, name, k in every(tables) if CALLS == 'all' else samples(rng, tables):
            daemon.kill()
            if killed_at(daemon, name, k, rng.choice([0.5, 1.5])):
                met.append((daemon.name, name, k))
            else:
                missed += 1
            daemon.start(seconds=60)
            if len(met) >= wanted or missed > wanted:
                break
        running.stop()
        follower.stop(), commits.stop()
        assert not east.failed and not keys.failed, (east.failed, keys.failed)
        mirrored(rig, 'east', 'west', 'orders')
        n = compare(rig, 'east', 'west', 'orders', east)
        rig.history.event('topic', topic='west/keys', compact=True)
        drain(rig, 'west', 'keys')
        print(', '.join(f'{d.split("-")[0]} {d.split("-")[1]} {c} {k}' for d, c, k in met[:60]))
        print(f'{len(met)} kills at system calls ({len({(d, c) for d, c, _ in met})} calls of daemons), {missed} not reached, {n} records compared')
        if len(met) < missed:
            raise Late('too few of the calls were reached')
        print(rig.history.check(f'{JUDGED} {MIRROR} K12.back K12.last'))


def a_broker_is_asked_to_end_while_it_starts():
    """TERM at moments between the first line of main and the last log's opening, after a kill -9: it ends by itself, and says so where
    logs are left to be recovered; images were on their way to shards that had ended."""
    with Rig(sites=['east']) as rig:
        rig.mirrors.clear()
        broker, codes = rig.brokers['east'].start(), []
        for i in range(3):
            create(rig, 'east', f'many-{i}', 100)
        for n in range(8):
            broker.kill()
            broker.start(ready=False)
            time.sleep(0.02 + 0.03 * n)
            broker.proc.terminate()
            code = broker.proc.wait(60)
            early = code == 1 and UNOPENED in broker.tail()
            assert early or code in (0, -signal.SIGTERM), f'ended with {code}: {broker.tail(30)}'  # -15: before main listens
            codes.append(code)
        broker.proc = None
        broker.start()
        wait('all is served', 60, lambda: broker.status()['partitions_online'] == 300)
        print(f'ended with {codes}')


# ---- system calls that fail ----

BROKER_ERRORS = {'openat': ('EIO', 'EMFILE'), 'pwritev': ('EIO', 'ENOSPC', 'EDQUOT'), 'pread64': ('EIO',), 'fdatasync': ('EIO', 'ENOSPC'),
                 'fsync': ('EIO',), 'rename': ('EIO', 'ENOSPC'), 'unlink': ('EIO',), 'ftruncate': ('EIO',), 'fallocate': ('ENOSPC', 'EOPNOTSUPP'),
                 'mkdir': ('ENOSPC',), 'getdents64': ('EIO',), 'newfstatat': ('EIO',), 'sendfile': ('EIO', 'ECONNRESET'), 'accept4': ('EMFILE', 'ENOMEM'),
                 'sendmsg': ('ECONNRESET', 'ENOBUFS'), 'recvfrom': ('ECONNRESET',), 'epoll_wait': ('EINTR',)}
MIRROR_ERRORS = {'openat': ('EIO', 'EMFILE'), 'pwrite64': ('EIO', 'ENOSPC'), 'pwritev': ('EIO', 'ENOSPC'), 'writev': ('EIO', 'ENOSPC'),
                 'fdatasync': ('EIO', 'ENOSPC'), 'ftruncate': ('EIO', 'ENOSPC'), 'socket': ('EMFILE',), 'connect': ('ENETUNREACH',),
                 'mmap': ('ENOMEM',), 'sendmsg': ('ECONNRESET',), 'recvmsg': ('ECONNRESET',), 'recvfrom': ('ECONNRESET',)}


def before_main(daemon, name, out):
    """How many of these calls are the loader's, which may break by an error of them."""
    subprocess.run(['strace', '-f', '-qq', '-o', out, '-e', f'trace={name}', os.path.join(BIN, daemon.program), '--version'], check=True, stdout=subprocess.DEVNULL)
    return open(out).read().count(name + '(')


def told(rng, daemon, name, k, error):
    """Runs the daemon while its k-th call of that name, or every one from it on, fails; it may end, and say so, never break.
    How it came out."""
    from_then_on = rng.random() < 0.3 and error != 'EINTR'  # no kernel interrupts a wait for ever
    daemon.rig.fault(f'{error} for {daemon.name} at {name} {k}')
    daemon.start(ready=False, under=strace('-o', '/dev/null', '-e', f'trace={name}', '-e',
                                           f'inject={name}:error={error}:when={k}{"+" if from_then_on else ""}'))
    start = time.monotonic()
    while daemon.proc.poll() is None and time.monotonic() < start + 1.2:
        time.sleep(0.01)
    if daemon.proc.poll() is None:
        try:
            status, why = daemon.http('/healthz')
        except (OSError, http.client.HTTPException) as e:
            status, why = 0, str(e)
        daemon.proc.terminate()
        try:
            code = daemon.proc.wait(60)
        except subprocess.TimeoutExpired as e:
            raise Late(f'{daemon.name} does not end, with {name} {k}{"+" if from_then_on else ""} {error}') from e
    else:
        status, why, code = None, '', daemon.proc.returncode
    what = f'{daemon.name}: {name} {k}{"+" if from_then_on else ""} {error}: {"ended" if status is None else status}, {code}'
    assert code in (0, 1, 2, 127), f'{what}: {why} {daemon.tail(6)}'  # 2: of the options; 127: the loader's
    daemon.proc = None
    return what


def system_calls_that_fail():
    """Errors of every kind that a host can give, one or for good, anywhere between start and end."""
    rng = random.Random(SEED + 2)
    with Rig(flows=['east->west'], broker={'log.flush.offset.checkpoint.interval.ms': 300, 'log.segment.bytes': 1 << 20,
                                           'replica.high.watermark.checkpoint.interval.ms': 300}) as rig:
        del rig.mirrors['east']
        rig.start()
        create(rig, 'east', 'orders')
        load = loading(rig, 'east', 'orders', 'e')
        running = Background(load, rate=1000)
        follower, commits = Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders'), Commits(rig, 'east', 'orders')
        tables, errors, outcomes = {}, {}, []
        for daemon, of in ((rig.brokers['east'], BROKER_ERRORS), (rig.brokers['west'], BROKER_ERRORS), (rig.mirrors['west'], MIRROR_ERRORS)):
            daemon.stop(60)
            tables[daemon], errors[daemon] = counts(daemon, list(of), os.path.join(rig.dir, daemon.name + '.errors')), of
            daemon.start(seconds=60)
        loader = before_main(rig.mirrors['west'], 'mmap', os.path.join(rig.dir, 'loader'))
        for daemon, name, k in samples(rng, tables):
            daemon.kill()
            k += loader if name == 'mmap' else 0
            outcomes.append(told(rng, daemon, name, k, rng.choice(errors[daemon][name])))
            daemon.start(seconds=60)
            if len(outcomes) == int(ERRORS):
                break
        running.stop()
        follower.stop(), commits.stop()
        assert not load.failed, load.failed
        mirrored(rig, 'east', 'west', 'orders')
        print('\n'.join(outcomes))
        print(f'{len(outcomes)} calls failed, {compare(rig, "east", "west", "orders", load)} records compared')
        print(rig.history.check(f'{JUDGED} {MIRROR} K12.back K12.last'))


# ---- long pauses ----

def daemons_paused_for_longer_than_every_timeout():
    """SIGSTOP of the source's broker, the target's, the mirror: longer than clients wait for an answer, than a group's member may
    be silent, than a broker may be."""
    with Rig(flows=['east->west'], broker={'broker.session.timeout.ms': 4000, 'broker.heartbeat.interval.ms': 1000,
                                           'group.min.session.timeout.ms': 1000}) as rig:
        del rig.mirrors['east']
        rig.start()
        create(rig, 'east', 'orders')
        load = Load(rig.bootstrap('east'), 'orders', 'e', config={'socket.timeout.ms': 4000, 'request.timeout.ms': 3000}, history=rig.history, name='east/orders')
        running = Background(load, rate=400)
        follower, commits = Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders'), Commits(rig, 'east', 'orders')
        time.sleep(1)
        for daemon in (rig.brokers['east'], rig.brokers['west'], rig.mirrors['west']):
            daemon.freeze()
            time.sleep(PAUSE)
            acked = len(load.acked)
            daemon.signal(signal.SIGCONT)
            wait(f'load acknowledged after the pause of {daemon.name}', 60, lambda: len(load.acked) > acked + 100)
            wait(f'{daemon.name} healthy', 30, lambda: daemon.http('/healthz')[0] == 200)
        running.stop()
        follower.stop(), commits.stop()
        assert not load.failed, load.failed
        mirrored(rig, 'east', 'west', 'orders')
        n = compare(rig, 'east', 'west', 'orders', load)
        assert not any(p['state'].startswith('halted') for f in rig.mirrors['west'].status()['flows'] for p in f['partitions'])
        print(f'3 pauses of {PAUSE} s, {n} records compared')
        print(rig.history.check(f'{JUDGED} {MIRROR} K12.back K12.last'))


# ---- the wall clock steps ----

class Member:
    """A member of a group that must not lose its place: counts what it reads and how often it is told to go."""

    def __init__(self, bootstrap, topic, group):
        self.read, self.gone, self.end = 0, 0, threading.Event()
        self.c = Consumer({'bootstrap.servers': bootstrap, 'group.id': group, 'session.timeout.ms': 60000, 'heartbeat.interval.ms': 500,
                           'auto.offset.reset': 'earliest', 'auto.commit.interval.ms': 500, 'log_level': 2})
        self.c.subscribe([topic], on_revoke=self.left, on_lost=self.left)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def left(self, *_):
        self.gone += not self.end.is_set()

    def run(self):
        while not self.end.is_set():
            self.read += sum(1 for m in self.c.consume(1000, 0.1) if not m.error())

    def stop(self):
        self.end.set()
        self.thread.join()
        self.c.close()


def numbers(daemon, prefix):
    """{name with labels: value} of /metrics."""
    rows = [line.rsplit(' ', 1) for line in daemon.http('/metrics')[1].splitlines() if line.startswith(prefix)]
    return {name: float(value) for name, value in rows}


class Synced:
    """What a group has committed at the target, by the mirror: -1 where nothing; never goes back."""

    def __init__(self, rig, group, topic):
        self.c = Consumer({'bootstrap.servers': rig.bootstrap('west'), 'group.id': group, 'log_level': 2})
        self.places, self.last = [TopicPartition(topic, p) for p in range(3)], [-1] * 3

    def look(self):
        at = [max(-1, tp.offset) for tp in self.c.committed(self.places, timeout=10)]
        assert all(a >= b for a, b in zip(at, self.last)), f'offsets at the target went back from {self.last} to {at}'
        self.last = at
        return at


def waiting(mirror):
    """How many partitions wait until their target takes records of what is the future there."""
    return sum(p['state'] == 'paused' and 'timestamp too far ahead' in (p['reason'] or '') for f in mirror.status()['flows'] for p in f['partitions']
               if p['topic'] == 'orders')


def the_wall_clock_steps_by_an_hour():
    """All clocks an hour ahead, then an hour behind (the target then refuses records of the future: they wait), then the mirror's
    alone ahead. Nobody's session ends, nothing is deleted, ages are of the monotonic clock, offsets at the target never go back."""
    with Rig(flows=['east->west'], mirror={'sync.topic.configs.enabled': 'false'}, broker={
            'log.retention.check.interval.ms': 300, 'log.message.timestamp.after.max.ms': 2 * HOUR * 1000,
            'offsets.retention.check.interval.ms': 300, 'offsets.retention.minutes': 100}) as rig:
        del rig.mirrors['east']
        shims = {d: Shim(rig, d.name) for d in rig.daemons()}
        for d, shim in shims.items():
            d.start(env=shim.env)
        create(rig, 'east', 'orders', retention_ms=str(HOUR * 1500), segment_ms='1000')
        load = loading(rig, 'east', 'orders', 'e')
        running = Background(load, rate=300)
        follower, commits = Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders'), Commits(rig, 'east', 'orders')
        member = Member(rig.bootstrap('east'), 'orders', 'members')
        synced = Synced(rig, 'members', 'east.orders')
        wait('offsets of the group at the target', 60, lambda: min(synced.look()) > 0)
        before = numbers(rig.brokers['east'], 'sundog_broker_request_seconds_sum')
        limit = ConfigResource(ConfigResource.Type.TOPIC, 'east.orders', incremental_configs=[
            ConfigEntry('message.timestamp.after.max.ms', str(HOUR * 500), incremental_operation=AlterConfigOpType.SET)])
        admin = AdminClient({'bootstrap.servers': rig.bootstrap('west')})
        for f in admin.incremental_alter_configs([limit]).values():
            f.result(60)
        mirror = rig.mirrors['west']
        for shifts in ({d: HOUR for d in shims}, {d: -HOUR for d in shims}, {d: HOUR if d is mirror else 0 for d in shims}, {d: 0 for d in shims}):
            rig.fault('clocks: ' + ', '.join(f'{d.name} {s:+}' for d, s in shifts.items()))
            for d, s in shifts.items():
                shims[d].shift(s)
            acked, read = len(load.acked), member.read
            for _ in range(10):
                time.sleep(0.25)
                synced.look()
            wait('load and reader go on', 30, lambda: len(load.acked) > acked + 100 and member.read > read + 100)
            ages = numbers(mirror, 'sundog_mirror_groups_age_seconds') | numbers(mirror, 'sundog_mirror_progress_age_seconds')
            assert len(ages) == 2 and all(0 <= v < HOUR / 2 for v in ages.values()), ages
            assert all(0 <= v <= 2.5 * HOUR for v in numbers(mirror, 'sundog_mirror_lag_seconds').values())
            wait('all are healthy', 30, lambda: all(d.http('/healthz')[0] == 200 for d in shims))
            if shifts[rig.brokers['west']] < 0:
                wait('every partition waits', 30, lambda: waiting(mirror) == 3)
        running.stop()
        follower.stop(), commits.stop()
        assert not load.failed, load.failed
        assert member.gone == 0, f'the member of a group was sent away {member.gone} times'
        for name, was in before.items():
            assert numbers(rig.brokers['east'], name)[name] - was < HOUR / 2, f'{name} has grown by an hour'
        mirrored(rig, 'east', 'west', 'orders')
        wait('the group is synced', 60, lambda: sum(synced.look()) == len(load.acked))
        member.stop(), synced.c.close()
        n = compare(rig, 'east', 'west', 'orders', load)
        assert n == len(load.acked), f'{len(load.acked) - n} records deleted'
        print(f'4 steps, {n} records compared, none deleted')
        print(rig.history.check(f'{JUDGED} {MIRROR} K12.back K12.last'))


if __name__ == '__main__':
    print(f'seed {SEED} (SUNDOG_SEED={SEED} tests/chaos/run)', flush=True)
    os.environ['SUNDOG_SEED'] = str(SEED)  # of the processes that run the cases, two at a time: they wait more than they work
    sys.exit(run_cases([daemons_paused_for_longer_than_every_timeout, daemons_killed_at_chosen_system_calls, system_calls_that_fail,
                        the_wall_clock_steps_by_an_hour, a_broker_is_asked_to_end_while_it_starts], sys.argv[1:], jobs=2))
