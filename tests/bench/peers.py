"""Apache Kafka nodes, kept warm over the rows of a run: starting a JVM and warming it takes longer than most rows."""
import contextlib, os, shutil, signal, subprocess, tempfile, time

from site_rig import TOP, free_port, wait

KAFKA = os.path.join(TOP, 'tests', 'support', 'kafka')
WARM_SECONDS, WARM_AGAIN_SECONDS = 30, 8
# As Kafka's own start script has it; tests elsewhere save memory.
JVM = {'KAFKA_NODE_JVM': '-Xms1g -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35',
       'KAFKA_MM2_JVM': '-Xms256m -Xmx2g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35'}


class Kafka:
    """Stopped by a signal except within awake(): an idle JVM still takes some percent of a processor."""
    name, jvm = 'kafka', True

    def __init__(self, flush=False, kept=False):
        self.kept, self.warm, self.users = kept, False, 0
        self.dir = tempfile.mkdtemp(prefix='sundog-bench-kafka-')
        # One that sleeps is not to lose its session; one that is killed waits for the end of its own (9 s) when it is back.
        keys = ['broker.session.timeout.ms=1800000'] if kept else []
        if flush:
            keys.append('log.flush.interval.messages=1')  # flush.messages=1 for every topic
        for _ in range(5):
            self.bootstrap = f'127.0.0.1:{free_port()}'
            if self.tool('start', self.dir, self.bootstrap.split(':')[1], *keys):
                break
        else:
            raise AssertionError(f'Apache Kafka does not start: see {self.dir}/node.log')
        self.data = os.path.join(self.dir, 'data')
        self.signal(signal.SIGSTOP)

    @staticmethod
    def tool(*args):
        return subprocess.run([KAFKA, *args], capture_output=True, env={**os.environ, **JVM}).returncode == 0

    @property
    def pid(self):
        return int(open(self.dir + '/node.pid').read())

    @property
    def alive(self):
        try:
            return open(f'/proc/{self.pid}/stat').read().rsplit(')', 1)[1].split()[0] != 'Z'
        except OSError:
            return False

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stop(self, politely):
        self.tool('kill', self.dir, 'TERM' if politely else 'KILL')
        wait('the node ends', 120, lambda: not self.alive)

    def start(self):
        subprocess.Popen([KAFKA, 'restart', self.dir], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **JVM})

    @contextlib.contextmanager
    def awake(self):
        self.users += 1
        if self.users == 1:
            self.signal(signal.SIGCONT)
            time.sleep(0.5)
        try:
            yield
        finally:
            self.users -= 1
            if self.users == 0:
                self.signal(signal.SIGSTOP)

    def warm_seconds(self):
        """How long a row is to be run unheard first: longer the first time."""
        seconds = WARM_AGAIN_SECONDS if self.warm else WARM_SECONDS
        self.warm = True
        return seconds

    def close(self):
        if not self.kept:
            self.end()

    def end(self):
        self.signal(signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)


_nodes = {}


def kafka(flush=False, which=0):
    """The same node for all rows."""
    node = _nodes.get((flush, which))
    if not node or not node.alive:
        if node:
            node.end()
        node = _nodes[flush, which] = Kafka(flush, kept=True)
    return node


def close():
    for node in _nodes.values():
        node.end()
    _nodes.clear()
