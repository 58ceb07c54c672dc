"""What the cases of hostile.py share: a broker with a bystander, and the bounds that hold around an attack."""
import contextlib, multiprocessing, os, re, sys, time

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))
sys.path[:0] = [os.path.join(TOP, 'tests', 'support', 'py'), os.path.dirname(os.path.abspath(__file__))]

from kafka_bytes import *
from site_rig import Late, Rig, wait

SLACK = float(os.environ.get('SUNDOG_SLACK', '1'))
BYSTANDER_S = 2.0  # two busy processors delay a request for long, whatever the broker does: one that waited longer is Late
CPU_SLOW = 6  # what is over its bound by less may be the machine's: it is Late, too
MEMORY = 64 << 20
MIB = 1 << 20
REQUEST_MS = 1500
# Kafka's errors
UNKNOWN_TOPIC, CORRUPT, TOO_LARGE, OFFSET_RANGE, INVALID_TOPIC, UNKNOWN_MEMBER, REBALANCE = 3, 2, 10, 1, 17, 25, 27
ILLEGAL_GENERATION, METADATA_LARGE, ACKS, CLUSTER_AUTH, UNSUPPORTED_VERSION, PARTITIONS, FACTOR = 22, 12, 21, 31, 35, 37, 38
CONFIG, REQUEST, FORMAT, OUT_OF_ORDER, OLD_EPOCH, SESSION_ID, RECORD, COMPRESSION, GROUP_FULL = 40, 42, 43, 45, 47, 70, 87, 76, 81


def bystander(port, stop, worst):
    """Produces a record and fetches it, all the time; the longest time that took."""
    offset = 0
    with Client(port, 60) as c:
        while not stop.is_set():
            begin = time.monotonic()
            answer = c.ask(produce('bystander', batch()))
            assert produced(answer, 'bystander') == 0, answer
            c.ask(fetch((0, offset, 1000), topic='bystander'))
            offset += 1
            worst.value = max(worst.value, time.monotonic() - begin)
            time.sleep(0.02)


def late(in_time, what):
    """A measure that a stall of the machine lengthens: taken again when it is too long, which a fault is each time."""
    if not in_time:
        raise Late(what)


def stretched(seconds):
    """What takes so long on processors of its own, where it shares them with as many as run now."""
    return seconds * max(1, os.getloadavg()[0] / os.cpu_count())


class Broker:
    def __init__(self, **options):
        self.rig = Rig(sites=['east'], broker={'sundog.memory.max.bytes': MEMORY, 'sundog.request.timeout.ms': REQUEST_MS,
                                               'sundog.shards': 1, 'num.partitions': 1, **options})
        self.daemon = self.rig.brokers['east'].start(env={'ASAN_OPTIONS': 'quarantine_size_mb=1'})
        self.port, self.pid = self.rig.port['east'], self.daemon.proc.pid
        with Client(self.port) as c:
            assert created(c.ask(create_topics(('t', 1, 1, {}), ('bystander', 1, 1, {})))) == {'t': 0, 'bystander': 0}
        self.stop, self.worst = multiprocessing.Event(), multiprocessing.Value('d', 0.0)
        self.other = multiprocessing.Process(target=bystander, args=(self.port, self.stop, self.worst), daemon=True)
        self.other.start()
        wait('the bystander is served', 60, lambda: self.worst.value > 0)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.stop.set()
        self.other.join(60)
        code = self.daemon.stop() if kind is None else None
        self.rig.close(failed=kind is not None)
        assert kind or code == 0, f'exit {code}'

    def memory(self, which):
        return int(re.search(which + r':\s+(\d+)', open(f'/proc/{self.pid}/status').read())[1]) << 10

    def cpu(self):
        fields = open(f'/proc/{self.pid}/stat').read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def log_lines(self):
        return open(self.daemon.log, errors='replace').read().splitlines()

    def clients_gone(self):
        count = lambda: float(re.search(r'^sundog_broker_connections (\S+)', self.daemon.http('/metrics')[1], re.M)[1])
        wait('only the bystander is left', 60, lambda: count() <= 1)

    @contextlib.contextmanager
    def under(self, what, memory=MIB, cpu=1.0):
        """Holds the bounds around what is done inside."""
        open(f'/proc/{self.pid}/clear_refs', 'w').write('5')
        before, spent, lines, begin = self.memory('VmRSS'), self.cpu(), len(self.log_lines()), time.monotonic()
        self.worst.value = 0.0
        yield
        with Client(self.port) as c:
            c.ask(VERSIONS)
        self.clients_gone()
        seconds = time.monotonic() - begin
        grown, spent, said = self.memory('VmHWM') - before, self.cpu() - spent, self.log_lines()[lines:]
        print(f'  {what}: {seconds:.1f} s, {spent:.2f} s CPU, peak +{grown / MIB:.1f} MiB, {len(said)} log lines, '
              f'bystander {1000 * self.worst.value:.0f} ms', flush=True)
        assert grown <= memory * SLACK + MIB * (SLACK > 1) * 16, f'{what}: memory grew by {grown / MIB:.1f} MiB'
        bound = (cpu + 0.02 * seconds) * SLACK + 0.2
        assert spent <= CPU_SLOW * bound, f'{what}: {spent:.2f} s of CPU time'
        late(spent <= bound, f'{what}: {spent:.2f} s of CPU time')
        assert len(said) <= 3 + seconds, f'{what}: {len(said)} log lines in {seconds:.1f} s: {said[:5]}'
        assert not any('\x1b' in l or '\0' in l for l in said), said
        assert self.daemon.running and self.other.is_alive(), f'{what}: {self.daemon.tail()}'
        late(self.worst.value <= stretched(BYSTANDER_S), f'{what}: the bystander waited {self.worst.value:.2f} s')

    def closed(self, sent, what, within=1.0):
        kind, value = outcome(self.port, sent, 30)
        assert kind == 'closed', f'{what}: {kind} {value!r}'
        late(value <= stretched(within * max(1, SLACK) + 1), f'{what}: closed after {value:.2f} s')

    def refused(self, c, topic, b, *errors, acks=-1):
        """The batch gets one of the errors and the log stays as it is."""
        end = c.end_offset(topic)
        got = produced(c.ask(produce(topic, b, acks)), topic)
        assert got in errors, f'error {got}, not {errors}'
        assert c.end_offset(topic) == end, 'the log has changed'
