"""Who is measured: Sundog, Apache Kafka, the null broker; each awake only while it is its turn."""
import contextlib, json, mmap, os, shutil, signal, subprocess, tempfile, time

from confluent_kafka.admin import AdminClient, NewPartitions
from site_rig import BIN, TOP, Rig, die_with_parent, free_port, wait

CREATE_MAX = 5000  # partitions: a controller takes 10,000 changes a request
KAFKA = os.path.join(TOP, 'tests', 'support', 'kafka')
PAGE_CACHE = {'sundog.flush.before.ack': 'false'}
WARM_SECONDS = 30
# As Kafka's own start script has it; tests elsewhere save memory.
JVM = {'KAFKA_NODE_JVM': '-Xms1g -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35',
       'KAFKA_MM2_JVM': '-Xms256m -Xmx2g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35'}


def bench(program, *args, timeout=400):
    r = subprocess.run([os.path.join(BIN, 'bench_' + program), *map(str, args)], capture_output=True, text=True, timeout=timeout)
    if r.returncode:
        raise SystemExit(f'bench_{program} {args}: {r.stderr}')
    return json.loads(r.stdout)


def cpu_of(pid, threads=''):
    """CPU seconds of a process, to the nanosecond; of those threads only whose name begins so."""
    total = 0
    for t in os.listdir(f'/proc/{pid}/task'):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if open(f'/proc/{pid}/task/{t}/comm').read().startswith(threads):
                total += int(open(f'/proc/{pid}/task/{t}/schedstat').read().split()[0])
    return total / 1e9


def rss_of(pid):
    with open(f'/proc/{pid}/status') as f:
        return round(next(int(l.split()[1]) / 1024 for l in f if l.startswith('VmRSS')), 1)


class Ours:
    name, jvm = 'sundog', False

    def __init__(self, flush=False, **keys):
        self.rig = Rig(sites=['east'], broker={**({} if flush else PAGE_CACHE), **keys})
        del self.rig.mirrors['east']
        self.rig.start()
        self.bootstrap = self.rig.bootstrap('east')
        self.data = os.path.join(self.rig.dir, 'east', 'data')

    @property
    def pid(self):
        return self.rig.brokers['east'].proc.pid

    def topic(self, name, partitions):
        at_once = min(partitions, CREATE_MAX)
        self.rig.cli('topic', 'create', name, '--partitions', str(at_once), '--bootstrap', self.bootstrap)
        if partitions > at_once:
            admin = AdminClient({'bootstrap.servers': self.bootstrap})
            for f in admin.create_partitions([NewPartitions(name, partitions)], operation_timeout=60).values():
                f.result(60)

    def drop(self, name):
        self.rig.cli('topic', 'delete', name, '--bootstrap', self.bootstrap)

    def stop(self, politely):
        b = self.rig.brokers['east']
        b.stop(60) if politely else b.kill()

    def start(self):
        self.rig.brokers['east'].start(ready=False)

    @contextlib.contextmanager
    def awake(self):
        yield

    def close(self):
        self.rig.close()


class Kafka:
    name, jvm = 'kafka', True

    def __init__(self, flush=False):
        self.dir = tempfile.mkdtemp(prefix='sundog-bench-kafka-')
        keys = ['broker.session.timeout.ms=600000']
        if flush:
            keys.append('log.flush.interval.messages=1')  # flush.messages=1 for every topic
        for _ in range(5):
            self.bootstrap = f'127.0.0.1:{free_port()}'
            if self.tool('start', self.dir, self.bootstrap.split(':')[1], *keys):
                break
        self.data = os.path.join(self.dir, 'data')

    @staticmethod
    def tool(*args):
        return subprocess.run([KAFKA, *args], capture_output=True, env={**os.environ, **JVM}).returncode == 0

    @property
    def pid(self):
        return int(open(self.dir + '/node.pid').read())

    def topic(self, name, partitions):
        for _ in range(5):  # it may have slept, and must find its feet
            if self.tool('tool', 'topics', '--bootstrap-server', self.bootstrap, '--create', '--if-not-exists', '--topic', name, '--partitions', str(partitions)):
                return
        raise SystemExit(f'Apache Kafka does not make {name}: see {self.dir}/node.log')

    def drop(self, name):
        self.tool('tool', 'topics', '--bootstrap-server', self.bootstrap, '--delete', '--topic', name)

    def stop(self, politely):
        pid = self.pid
        self.tool('kill', self.dir, 'TERM' if politely else 'KILL')
        wait('the node ends', 120, lambda: not os.path.exists(f'/proc/{pid}') or open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[0] == 'Z')

    def start(self):
        subprocess.Popen([KAFKA, 'restart', self.dir], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **JVM})

    @contextlib.contextmanager
    def awake(self):
        """Stopped by a signal while others are measured: an idle JVM still takes some percent of a processor."""
        if getattr(self, 'asleep', False):
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(0.5)
        yield
        os.kill(self.pid, signal.SIGSTOP)
        self.asleep = True

    def close(self):
        self.tool('kill', self.dir, 'KILL')
        shutil.rmtree(self.dir, ignore_errors=True)


class Null:
    name, jvm, data = 'null', False, None

    def __init__(self, partitions=10000, record_bytes=100):
        port = free_port()
        self.proc = subprocess.Popen([os.path.join(BIN, 'bench_null'), str(port), str(partitions), str(record_bytes)], preexec_fn=die_with_parent)
        self.bootstrap, self.pid = f'127.0.0.1:{port}', self.proc.pid
        time.sleep(0.3)

    def topic(self, name, partitions):
        pass

    drop = topic = lambda *_: None

    @contextlib.contextmanager
    def awake(self):
        yield

    def close(self):
        self.proc.kill()
        self.proc.wait()


def with_cpu(side, run):
    """What it measured, with the CPU seconds of the side's process, also per GB."""
    before = cpu_of(side.pid)
    got = run()
    got['broker_cpu_s'] = round(cpu_of(side.pid) - before, 4)
    got['broker_cpu_s_per_gb'] = round(got['broker_cpu_s'] / (got['bytes'] / 1e9), 4)
    return got


def alternate(row, sides, measure):
    """measure(side, add) for each side in turn, `row.rounds` times; JVMs first run it unheard for half a minute."""
    try:
        for side in sides:
            end = time.monotonic() + WARM_SECONDS
            with side.awake():
                while side.jvm and time.monotonic() < end:
                    measure(side, lambda *_, **__: None)
        for _ in range(row.rounds):
            for side in sides:
                with side.awake():
                    measure(side, lambda what, **m: row.add(side.name, what, **m))
    finally:
        for side in sides:
            side.close()


def touch_pages(gib):
    """Takes so much memory and gives it back: the host of a virtual machine may have taken free pages away (free page
    reporting), and whoever writes a page-cache page first would pay for getting it back."""
    m = mmap.mmap(-1, int(gib * (1 << 30)), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    m.close()


@contextlib.contextmanager
def fresh(side, partitions, gib=0):
    """A topic of its own, gone afterwards, files too: what one measurement wrote is no dirt in the next one's page cache.
    `gib` are about to be written."""
    fresh.n += 1
    name = f'bench{fresh.n}'
    side.topic(name, partitions)
    if gib:
        touch_pages(gib)
    yield name
    side.drop(name)
    if side.data:
        remove(side.data, name)


def remove(data, topic):
    """The broker has set the folders aside, to be unlinked in a minute: it is done here, at nobody's expense."""
    def left():
        return [d for d in os.listdir(data) if d.startswith((topic + '-', topic + '.'))]
    wait(f'{topic} is set aside', 300, lambda: all(d.endswith('-delete') for d in left()))
    for d in left():
        shutil.rmtree(os.path.join(data, d), ignore_errors=True)


fresh.n = 0


def pick(got, *names):
    return {n: got[n] for n in names}
