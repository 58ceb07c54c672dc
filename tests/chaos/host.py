"""What a host does to a process: kill -9 inside chosen system calls (strace), long pauses, steps of the wall clock.

The pauses and the clock's steps come from outside (SIGSTOP) and from a library in front of libc (host_shim.c); nothing in
the daemons knows of them. Each case ends with every record compared and the checker over the history."""
import math, os, random, signal, subprocess, sys, time

from records import Follower
from site_rig import Rig, run_cases, wait
from kills import Background, compare, create, drain, loading, mirrored

SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
CALLS = os.environ.get('SUNDOG_CALLS', '20')  # kills at system calls, or `all`
DEEPEST = 200  # `all`: the k-th call of a name up to this

BROKER_CALLS = ['openat', 'write', 'pwritev', 'fdatasync', 'fsync', 'rename', 'unlink', 'ftruncate', 'fallocate', 'sendmsg', 'sendfile',
                'close', 'mkdir', 'epoll_wait']
MIRROR_CALLS = ['openat', 'write', 'writev', 'pwrite64', 'pwritev', 'fdatasync', 'msync', 'mmap', 'ftruncate', 'sendmsg', 'recvmsg',
                'recvfrom', 'close']


# ---- kill -9 at the k-th call of a name ----

def strace(*words):
    """The daemon stays our own child (-D) and gets its own signals; no --seccomp-bpf: strace 6.1 then ignores signal=."""
    return ['strace', '-D', '-f', '-qq', *words]


def counts(daemon, names, out):
    """How often the daemon makes each of these calls from its start, under the load that is on, to its end by TERM."""
    daemon.start(seconds=30, under=strace('-c', '-o', out, '-e', 'trace=' + ','.join(names)))
    time.sleep(2)
    daemon.stop(30)
    wait('the table of calls', 5, lambda: os.path.exists(out) and 'total' in open(out).read())
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
    assert code in (None, 0, -signal.SIGKILL), f'{daemon.name}, to be killed at {name} {k}, ended with {code}: {daemon.tail()}'
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
        follower = Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders')
        tables = {}
        for daemon, names in ((rig.brokers['east'], BROKER_CALLS), (rig.brokers['west'], BROKER_CALLS), (rig.mirrors['west'], MIRROR_CALLS)):
            daemon.stop(30)
            tables[daemon] = counts(daemon, names, os.path.join(rig.dir, daemon.name + '.calls'))
            daemon.start(seconds=30)
        met, missed = [], 0
        wanted = math.inf if CALLS == 'all' else int(CALLS)
        for daemon, name, k in every(tables) if CALLS == 'all' else samples(rng, tables):
            daemon.kill()
            if killed_at(daemon, name, k, rng.choice([0.5, 1.5])):
                met.append((daemon.name, name, k))
            else:
                missed += 1
            daemon.start(seconds=30)
            if len(met) >= wanted or missed > wanted:
                break
        running.stop()
        follower.stop()
        assert not east.failed and not keys.failed, (east.failed, keys.failed)
        mirrored(rig, 'east', 'west', 'orders')
        n = compare(rig, 'east', 'west', 'orders', east)
        rig.history.event('topic', topic='west/keys', compact=True)
        drain(rig, 'west', 'keys')
        print(', '.join(f'{d.split("-")[0]} {d.split("-")[1]} {c} {k}' for d, c, k in met[:60]))
        print(f'{len(met)} kills at system calls ({len({(d, c) for d, c, _ in met})} calls of daemons), {missed} not reached, {n} records compared')
        assert len(met) >= missed, 'too few of the calls were reached'
        print(rig.history.check())


if __name__ == '__main__':
    print(f'seed {SEED} (SUNDOG_SEED={SEED} tests/chaos/run)', flush=True)
    sys.exit(run_cases([daemons_killed_at_chosen_system_calls], sys.argv[1:]))
