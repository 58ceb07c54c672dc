"""Two sites for interop and chaos tests, on loopback or in namespaces of their own: brokers, mirrors, ports, kills. Nothing
here is a mock.

Everything lives in one temporary directory; processes die with this one (PR_SET_PDEATHSIG) and are ended by pid."""
import collections, concurrent.futures, ctypes, fcntl, json, os, random, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request

from history import History, now

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..', '..'))
BIN = os.environ.get('SUNDOG_BIN', os.path.join(TOP, 'build', 'release', 'bin'))
TRIES = 3  # of a case that only is late
EVENTS_MAX, TAIL = 40, 30  # what is told of a case that failed: of the rig's history, and lines of each daemon's log
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    os.setsid()
    _libc.prctl(1, signal.SIGKILL)


_ports = None


def reserve(port):
    """True: no other test of this machine has this port, and none is given it as long as this process lives: what is to
    listen there may come later, or be away for a while."""
    global _ports
    if _ports is None:
        _ports = os.open(f'/tmp/sundog-test-ports-{os.getuid()}', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), set()
    fd, mine = _ports
    if port in mine:
        return False
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)  # of this process, one byte a port
    except OSError:
        return False
    mine.add(port)
    return True


def nobody_listens(port):
    with socket.socket() as s:
        try:
            s.bind(('127.0.0.1', port))
            return True
        except OSError:
            return False


def free_port(n=1):
    """The first of `n` ports in a row below the ephemeral range that nobody listens on now, and nobody else is given."""
    for _ in range(200):
        port = random.randint(20000, 32768 - n)
        if all(reserve(p) and nobody_listens(p) for p in range(port, port + n)):
            return port
    raise RuntimeError('no free port between 20000 and 32767')


BREAKS = [-int(x) for x in (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS)]


class Late(AssertionError):
    """Something awaited did not come in its time. Nothing is known to be wrong, lost or doubled, and no daemon broke."""


STALL = 0.1  # seconds that a sleep may be too long before that is the machine's doing
CALLS_TIMED_OUT = '_TIMED_OUT', '_TIMED_OUT_QUEUE', '_MSG_TIMED_OUT', 'REQUEST_TIMED_OUT'


def only_late(e):
    """A case that ended with `e` was late, or a call of it was: of a socket, a process, a future, a Kafka client."""
    name = getattr(e.args[0], 'name', None) if e.args else None  # of a KafkaException's error
    return (isinstance(e, (Late, TimeoutError, subprocess.TimeoutExpired, concurrent.futures.TimeoutError)) or
            callable(name) and name() in CALLS_TIMED_OUT)


def wait(what, seconds, probe, every=0.05):
    """Polls until probe() is true; what is waited for stands in the error. Time in which this process was not let run does not
    count, what is awaited was not either; the last look is after the end."""
    end = time.monotonic() + seconds
    while True:
        over = time.monotonic() >= end
        try:
            last = probe()
            if last:
                return last
        except Exception as e:
            last = e
        if over:
            raise Late(f'not within {seconds} s: {what} (last: {last!r})')
        before = time.monotonic()
        time.sleep(every)
        end += max(0, time.monotonic() - before - every - STALL)


class Daemon:
    """A child process with a configuration file, a log and a pid."""

    def __init__(self, rig, name, program, args, admin, site):
        self.rig, self.name, self.program, self.args, self.admin = rig, name, program, args, admin
        self.host, self.enter = rig.host(site), rig.places.get(site, (None, []))[1]
        self.log = os.path.join(rig.dir, name + '.log')
        self.proc = None

    def start(self, ready=True, seconds=60, extra=(), env=None, under=()):
        """`under`: words before the program's; what they run must become the program (`strace -D`)."""
        assert self.proc is None, self.name
        self.rig.happened(f'start {self.name}')
        with open(self.log, 'ab') as log:
            self.proc = subprocess.Popen([*self.enter, *under, os.path.join(BIN, self.program), *self.args, *extra], stdin=subprocess.DEVNULL,
                                         stdout=log, stderr=log, preexec_fn=die_with_parent, cwd=self.rig.dir,
                                         env={**os.environ, **(env or {})})
        if ready:
            self.wait_healthy(seconds)
        return self

    def http(self, path, timeout=20):
        try:
            with urllib.request.urlopen(f'http://{self.host}:{self.admin}{path}', timeout=timeout) as r:
                return r.status, r.read().decode()
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode()

    def status(self):
        return json.loads(self.http('/status')[1])

    def wait_healthy(self, seconds=60):
        def probe():
            if self.proc.poll() is not None:
                return True
            return self.http('/healthz')[0] == 200
        wait(f'{self.name} healthy', seconds, probe, 0.02)
        assert self.running, f'{self.name} ended with {self.proc.returncode}: {self.tail()}'

    def tail(self, n=5):
        with open(self.log, errors='replace') as f:
            return ''.join(f.readlines()[-n:])

    def signal(self, sig):
        self.rig.fault(f'signal {int(sig)} to {self.name}')
        os.kill(self.proc.pid, sig)

    def freeze(self):
        """Stopped, and no thread of it is in user mode any more: whatever it has not answered yet it never will."""
        self.signal(signal.SIGSTOP)

        def still():
            tasks = f'/proc/{self.proc.pid}/task'
            states = [open(f'{tasks}/{t}/stat').read().rsplit(')', 1)[1].split()[0] for t in os.listdir(tasks)]
            return all(s in 'TD' for s in states) or None
        wait(f'{self.name} stands still', 30, still, 0.001)

    def kill(self):
        if self.proc:
            self.rig.fault(f'kill {self.name}')
            self.proc.kill()
            self.proc.wait()
            self.proc = None

    def stop(self, seconds=30):
        """TERM; the exit code. More than `seconds` is late."""
        if not self.proc:
            return None
        self.rig.happened(f'stop {self.name}')
        self.proc.terminate()
        try:
            code = self.proc.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Late(f'{self.name} did not stop within {seconds} s')
        self.proc = None
        return code

    @property
    def running(self):
        return self.proc is not None and self.proc.poll() is None


class Rig:
    """`sites` brokers and a mirror at each that pulls from all others. `places`: {site: (address, command that enters its
    network namespace)}, for sites that are not on loopback."""

    def __init__(self, sites=('east', 'west'), broker=None, mirror=None, flows=None, dir=None, bootstrap=None, places=None):
        self.dir = dir or tempfile.mkdtemp(prefix='sundog-test-')
        self.keep = dir is not None
        self._history, self.events = None, collections.deque(maxlen=EVENTS_MAX)
        self.sites, self.places = list(sites), places or {}
        self.brokers, self.mirrors, self.port = {}, {}, {}
        for s in self.sites:
            self.port[s], admin = free_port(), free_port()
            if bootstrap and s in bootstrap:
                self.port[s] = int(bootstrap[s].split(':')[1])
                continue
            self.write(f'{s}.broker.properties', {
                'listeners': f'PLAINTEXT://{self.bootstrap(s)}', 'log.dirs': os.path.join(self.dir, s, 'data'),
                'sundog.admin.listener': f'{self.host(s)}:{admin}', **self.open_to_others(s), 'group.initial.rebalance.delay.ms': 0,
                'offsets.topic.num.partitions': 5, **(broker or {})})
            self.brokers[s] = Daemon(self, f'{s}-broker', 'sundog-broker', [f'{s}.broker.properties'], admin, s)
        for t in self.sites:
            self.mirrors[t] = self.mirror_at(t, f'{t}-mirror', mirror, flows)

    def mirror_at(self, target, name, options=None, flows=None):
        admin = free_port()
        keys = {'clusters': ', '.join(self.sites)}
        for s in self.sites:
            keys[f'{s}.bootstrap.servers'] = self.bootstrap(s)
        for s in self.sites:
            if s != target and (flows is None or f'{s}->{target}' in flows):
                keys[f'{s}->{target}.enabled'] = 'true'
        keys.update({
            'topics': '.*', 'groups': '.*', 'replication.factor': 1, 'sync.group.offsets.enabled': 'true',
            'checkpoints.topic.replication.factor': 1, 'heartbeats.topic.replication.factor': 1,
            'offset-syncs.topic.replication.factor': 1, 'refresh.topics.interval.seconds': 1,
            'refresh.groups.interval.seconds': 1, 'emit.checkpoints.interval.seconds': 1,
            'sync.group.offsets.interval.seconds': 1, 'sync.topic.configs.interval.seconds': 5,
            'sundog.store.dir': os.path.join(self.dir, name + '.store'), 'sundog.admin.listener': f'{self.host(target)}:{admin}',
            **({'sundog.engine': os.environ['SUNDOG_ENGINE']} if 'SUNDOG_ENGINE' in os.environ else {}),
            **self.open_to_others(target), **(options or {})})
        self.write(f'{name}.properties', keys)
        return Daemon(self, name, 'sundog-mirror', [f'{name}.properties', '--clusters', target], admin, target)

    def write(self, name, keys):
        with open(os.path.join(self.dir, name), 'w') as f:
            f.writelines(f'{k} = {v}\n' for k, v in keys.items())

    @property
    def history(self):
        """What clients do and see, for tests/chaos/check; in the rig's directory, or kept in that of SUNDOG_HISTORY."""
        if self._history is None:
            keep = os.environ.get('SUNDOG_HISTORY')
            if keep:
                os.makedirs(keep, exist_ok=True)
            where = os.path.join(keep, os.path.basename(self.dir)) if keep else os.path.join(self.dir, 'history')
            self._history = History(where + '.jsonl')
        return self._history

    def happened(self, what):
        """For the report of a case that fails."""
        self.events.append((time.time(), what))

    def fault(self, what):
        self.happened(what)
        if self._history:
            self._history.event('fault', t=now(), what=what)

    def host(self, site):
        return self.places[site][0] if site in self.places else '127.0.0.1'

    def open_to_others(self, site):
        return {'sundog.insecure': 'true'} if site in self.places else {}

    def bootstrap(self, site):
        return f'{self.host(site)}:{self.port[site]}'

    def start(self):
        for b in self.brokers.values():
            b.start()
        for m in self.mirrors.values():
            m.start()
        return self

    def cli(self, *args, check=True, timeout=120):
        r = subprocess.run([os.path.join(BIN, 'sundog'), *args], cwd=self.dir, stdin=subprocess.DEVNULL,
                           capture_output=True, text=True, timeout=timeout)
        if check and r.returncode:
            raise AssertionError(f'sundog {" ".join(args)}: exit {r.returncode}: {r.stderr or r.stdout}')
        return r

    def cli_json(self, *args, **kw):
        return json.loads(self.cli(*args, '--json', **kw).stdout)

    def daemons(self):
        return [*self.brokers.values(), *self.mirrors.values()]

    def tell(self):
        """What was done to the daemons, how each is, and the end of its log: a failure that comes once must be understood by that."""
        out = sys.stderr
        out.write(f'--- {self.dir}: what was done, as seconds before now ({time.strftime("%H:%M:%S", time.gmtime())} UTC)\n')
        out.writelines(f'{time.time() - t:8.2f} {what}\n' for t, what in list(self.events))
        for d in self.daemons():
            code = d.proc and d.proc.poll()
            state = 'is down' if not d.proc else f'runs, pid {d.proc.pid}' if code is None else f'has ended with {code}'
            try:
                page = d.http('/status', 1)[1][:2000] if d.running else ''
            except OSError as e:
                page = str(e)
            out.write(f'--- {d.name} {state}; {page}\nits log ends:\n{d.tail(TAIL) if os.path.exists(d.log) else ""}')

    def close(self, failed=False):
        if self._history:
            self._history.close()
        if failed:
            self.tell()
        for d in self.daemons():
            if d.running:
                try:
                    d.signal(signal.SIGCONT)
                except ProcessLookupError:
                    pass
                d.kill()
        if failed:
            sys.stderr.write(f'files kept in {self.dir}\n')
        elif not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        broke = [f'{d.name}: {-d.proc.poll()}' for d in self.daemons() if d.proc and (d.proc.poll() or 0) in BREAKS]
        self.close(failed=kind is not None)
        if broke:
            raise AssertionError(f'broken by a signal: {broke}') from value


def run_apart(names, jobs):
    """Each case in a process of its own, `jobs` at a time; their output in the order of their ends. (passed, failed)"""
    waiting, running, counts = list(names), {}, [0, 0]
    while waiting or running:
        while waiting and len(running) < jobs:
            out = tempfile.TemporaryFile()
            child = subprocess.Popen([sys.executable, sys.argv[0], waiting.pop(0)], stdin=subprocess.DEVNULL, stdout=out,
                                     stderr=out, preexec_fn=die_with_parent)
            running[child] = out
        for child in [c for c in running if c.poll() is not None]:
            with running.pop(child) as out:
                out.seek(0)
                text = out.read().decode(errors='replace')
            sys.stdout.write(''.join(x + '\n' for x in text.splitlines() if not x.startswith(f'{int(not child.returncode)} passed, ')))
            sys.stdout.flush()
            counts[child.returncode != 0] += 1
        time.sleep(0.05)
    return counts


def run_case(case):
    """One case and its line; whether it passed. One that only was late (machines stall) is tried again, and says so."""
    import traceback
    for attempt in range(1, TRIES + 1):
        start = time.monotonic()
        try:
            case()
            print(f'ok      {case.__name__} ({time.monotonic() - start:.1f} s){f", LATE {attempt - 1} times before" if attempt > 1 else ""}', flush=True)
            return True
        except Exception as e:
            traceback.print_exc()
            late = attempt < TRIES and only_late(e)
            print(f'{"LATE" if late else "FAILED"}  {case.__name__}: {e} ({time.monotonic() - start:.1f} s)', flush=True)
            if not late:
                return False


def run_cases(cases, wanted=(), jobs=1):
    """Runs functions, one after another or `jobs` at a time in processes, prints a line each and the closing counts;
    returns the exit status."""
    passed = failed = 0
    cases = [c for c in cases if not wanted or c.__name__ in wanted]
    if jobs > 1 and len(cases) > 1:
        passed, failed = run_apart([c.__name__ for c in cases], jobs)
        cases = []
    for case in cases:
        good = run_case(case)
        passed, failed = passed + good, failed + (not good)
    print(f'{passed} passed, {failed} failed')
    return 1 if failed or not passed else 0
