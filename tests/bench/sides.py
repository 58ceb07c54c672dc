"""Who is measured: Sundog, Apache Kafka (peers.py), the null broker; each awake only while it is its turn."""
import contextlib, json, mmap, os, shutil, subprocess, sys, time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic
from site_rig import BIN, Rig, die_with_parent, free_port, wait

CREATE_MAX = 5000  # partitions: a controller takes 10,000 changes a request
PAGE_CACHE = {'sundog.flush.before.ack': 'false'}


def bench(program, *args, timeout=250):
    r = subprocess.run([os.path.join(BIN, 'bench_' + program), *map(str, args)], capture_output=True, text=True, timeout=timeout)
    if r.returncode:
        raise AssertionError(f'bench_{program} {args}: {r.stderr}')
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


def settle(futures, fine):
    """Waits for an administrator's request; `fine`: the error that says it was done before."""
    for f in futures.values():
        try:
            f.result(60)
        except KafkaException as e:
            if e.args[0].code() != fine:
                raise


def again(what):
    """Up to five times: a JVM that slept must find its feet."""
    for left in range(4, -1, -1):
        try:
            return what()
        except KafkaException:
            if not left:
                raise
            time.sleep(1)


def make_topic(bootstrap, name, partitions):
    admin, first = AdminClient({'bootstrap.servers': bootstrap, 'log_level': 4}), min(partitions, CREATE_MAX)
    again(lambda: settle(admin.create_topics([NewTopic(name, first, 1)], operation_timeout=60, request_timeout=60), KafkaError.TOPIC_ALREADY_EXISTS))
    if partitions > first:
        again(lambda: settle(admin.create_partitions([NewPartitions(name, partitions)], operation_timeout=60, request_timeout=60), KafkaError.INVALID_PARTITIONS))
    bench('raw', 'ready', bootstrap, name, partitions)


def drop_topic(bootstrap, name):
    admin = AdminClient({'bootstrap.servers': bootstrap, 'log_level': 4})
    again(lambda: settle(admin.delete_topics([name], operation_timeout=60, request_timeout=60), KafkaError.UNKNOWN_TOPIC_OR_PART))


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


class Null:
    name, jvm, data = 'null', False, None

    def __init__(self, partitions=10000, record_bytes=100):
        port = free_port()
        self.proc = subprocess.Popen([os.path.join(BIN, 'bench_null'), str(port), str(partitions), str(record_bytes)], preexec_fn=die_with_parent)
        self.bootstrap, self.pid = f'127.0.0.1:{port}', self.proc.pid
        time.sleep(0.3)

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
    """measure(side, add) for each side in turn, `row.rounds` times; JVMs first run it unheard for a while."""
    try:
        for side in sides:
            end = time.monotonic() + (side.warm_seconds() if side.jvm else 0)
            with side.awake():
                while side.jvm and time.monotonic() < end:
                    measure(side, lambda *_, **__: None)
        for _ in range(row.rounds):
            for side in sides:
                with side.awake():
                    measure(side, lambda what, **m: row.add(side.name, what, **m))
    except Exception:
        for side in sides:
            if isinstance(side, Ours):
                sys.stderr.write(side.rig.brokers['east'].tail(10))
        raise
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
    if side.data:
        make_topic(side.bootstrap, name, partitions)
    if gib:
        touch_pages(gib)
    yield name
    if side.data:
        drop_topic(side.bootstrap, name)
        remove(side, name)


def remove(side, topic):
    """The broker has set the folders aside, to be unlinked in a minute: it is done here, at nobody's expense. Apache Kafka
    renames each file before it unlinks it, and ends when one is not there: only their content goes."""
    def left():
        return [os.path.join(side.data, d) for d in os.listdir(side.data) if d.startswith((topic + '-', topic + '.'))]
    wait(f'{topic} is set aside', 300, lambda: all(d.endswith('-delete') for d in left()))
    for d in left():
        if not side.jvm:
            shutil.rmtree(d, ignore_errors=True)
            continue
        for f in os.listdir(d):
            if f.endswith('.log'):
                with contextlib.suppress(FileNotFoundError):
                    os.truncate(os.path.join(d, f), 0)


fresh.n = 0


def pick(got, *names):
    return {n: got[n] for n in names}
