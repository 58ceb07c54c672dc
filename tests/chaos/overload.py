"""Overload: more connections, requests and bytes than there is room for, against a broker with a stated memory budget.

    tests/support/quiet_net python3 tests/chaos/overload.py [CASE ...]

In each case a client of its own (a process, so that this one's work does not delay it) produces a record and fetches it
back, all the time: the median of its p99s in windows of a quarter second, before and during the attack, is compared. It
asks a server of ours too, which nobody attacks and which only sends back what it gets: so much the machine itself is late.
Broker, client and that server run before everything else on the machine (SCHED_FIFO) where that is allowed; where it is not,
and the broker waited for a processor for more than a quarter of its time, latencies say nothing and are only printed.
The broker's resident memory may grow by its budget at most, every refusal is in /metrics and once in the log, and
afterwards the broker serves as before.

Raw sockets and the standard library only: a client library would not misbehave so."""
import contextlib, math, multiprocessing, os, resource, selectors, shutil, socket, struct, sys, time

import kafka_bytes
from kafka_bytes import Client, record, request, text
from site_rig import BIN, Late, Rig, run_cases, wait

MEMORY = int(os.environ.get('SUNDOG_MEMORY', 64 << 20))
# Below this nothing is compared: broker, client and echo are three threads for two processors, beside the kernel's own work
# for 10,000 sockets, and who wakes up may wait for as much as a slice of the scheduler (3 ms) before it runs.
FLOOR_MS = float(os.environ.get('SUNDOG_FLOOR_MS', '5'))
WINDOW_S = 0.25
CONNECTIONS = int(os.environ.get('SUNDOG_CONNECTIONS', '10000'))
MIB = 1 << 20


# ---- the protocol, as far as it is needed ----

def frame(key, version, body=b''):
    return request(key, version, body, client='overload')


def batch(size):
    """A batch of one record without key."""
    return kafka_bytes.batch(record(b'x' * size), 1)


def produce(topic, partitions, records):
    return kafka_bytes.produce(topic, records, partitions=partitions, timeout_ms=20000, client='overload')


def produced(answer, topic):
    """The errors of its partitions and the first one's offset."""
    at = 4 + 4 + 2 + len(topic)
    n, = struct.unpack_from('>i', answer, at)
    rows = [struct.unpack_from('>ihqqq', answer, at + 4 + 30 * i) for i in range(n)]
    return {r[1] for r in rows}, rows[0][2]


def fetch(topic, offset, size, wait_ms=500, partition=0):
    return frame(1, 11, struct.pack('>iiiibii', -1, wait_ms, 1, size, 0, 0, -1) + struct.pack('>i', 1) + text(topic) +
                 struct.pack('>iiiqqi', 1, partition, -1, offset, -1, size) + struct.pack('>i', 0) + text(''))


def fetched(answer, topic):
    """The partition's error and the bytes of its records."""
    at = 4 + 4 + 2 + 4 + 4 + 2 + len(topic) + 4
    _, error, _, _, _, _, _, n = struct.unpack_from('>ihqqqiii', answer, at)
    return error, n


def create_topic(name, partitions):
    return frame(19, 4, struct.pack('>i', 1) + text(name) + struct.pack('>ihiiib', partitions, 1, 0, 0, 20000, 0))


def find_coordinator(group):
    return frame(10, 2, text(group) + b'\0')


VERSIONS = frame(18, 0)


# ---- another client, which must not feel any of it ----

def produce_and_fetch(c, records):
    errors, offset = produced(c.ask(produce('probe', [0], records)), 'probe')
    assert errors == {0}, errors
    error, n = fetched(c.ask(fetch('probe', offset, 65536)), 'probe')
    assert error == 0 and n >= len(records), (error, n)


def first_of_all(pid, priority):
    """All threads of a process before everything that is not; False where that is not allowed."""
    try:
        for task in os.listdir(f'/proc/{pid}/task'):
            os.sched_setscheduler(int(task), os.SCHED_FIFO, os.sched_param(priority))
        return True
    except (PermissionError, OSError):
        return False


def echo_run(listener):
    """What nobody attacks: as many bytes back as a produce and a fetch have."""
    s, _ = listener.accept()
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while s.recv(4096):
        s.sendall(b'e' * 1100)


def timed(what):
    start = time.monotonic()
    what()
    return start, (time.monotonic() - start) * 1000


def probe_run(port, echo, pipe):
    try:
        c, e, records, asked, echoed = Client(port), Client(echo), batch(1024), [], []

        def ping():
            for _ in range(2):
                e.s.sendall(b'e' * 1100)
                e.exactly(1100)
        while True:
            if pipe.poll(0):
                pipe.recv()
                pipe.send((asked, echoed))
                asked, echoed = [], []
            asked.append(timed(lambda: produce_and_fetch(c, records)))
            echoed.append(timed(ping))
            time.sleep(0.002)
    except Exception as x:
        pipe.send(repr(x))


def windows_p99(times):
    """The median of the p99s of windows; a window with one slow answer is one of several."""
    windows = {}
    for at, ms in times:
        windows.setdefault(int(at / WINDOW_S), []).append(ms)
    p99 = sorted(sorted(w)[min(len(w) - 1, math.ceil(len(w) * 0.99))] for w in windows.values())
    return p99[len(p99) // 2] if p99 else 0.0


class Probe:
    def __init__(self, port):
        fork = multiprocessing.get_context('fork')
        with socket.create_server(('127.0.0.1', 0)) as listener:
            self.echo = fork.Process(target=echo_run, args=(listener,), daemon=True)
            self.echo.start()
            self.pipe, far = multiprocessing.Pipe()
            self.child = fork.Process(target=probe_run, args=(port, listener.getsockname()[1], far), daemon=True)
            self.child.start()
        far.close()

    def p99(self):
        """Of what it has measured since it was asked last: the broker's, the echo's, over how many seconds."""
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send('times')
        assert self.pipe.poll(30), 'the other client has had no answer for 30 s'
        times = self.pipe.recv()
        assert isinstance(times, tuple), f'the other client: {times}'
        asked, echoed = times
        return windows_p99(asked), windows_p99(echoed), asked[-1][0] - asked[0][0] if asked else 0.0

    def close(self):
        for child in (self.child, self.echo):
            child.kill()
            child.join()


# ---- the broker under fire ----

class Fire:
    def __init__(self, rig):
        self.rig, self.broker, self.port = rig, rig.brokers['east'], rig.port['east']
        self.pid = self.broker.proc.pid
        self.control = Client(self.port)
        self.create('probe', 1)
        produce_and_fetch(self.control, batch(1024))
        self.sockets, self.probe = [], Probe(self.port)
        self.first = first_of_all(self.pid, 1) and all(first_of_all(p.pid, 2) for p in (self.probe.child, self.probe.echo))

    def create(self, topic, partitions):
        answer = self.control.ask(create_topic(topic, partitions))
        error, = struct.unpack_from('>h', answer, 4 + 4 + 4 + 2 + len(topic))
        assert error == 0, f'{topic}: error {error}'
        for p in range(partitions):
            wait(f'{topic}-{p} is served', 60, lambda: fetched(self.control.ask(fetch(topic, 0, 1, 0, p)), topic)[0] == 0)

    def fill(self, topic, batches, size=1000000):
        request = produce(topic, [0], batch(size))
        for _ in range(batches):
            errors, _ = produced(self.control.ask(request), topic)
            assert errors == {0}, errors

    def memory(self, what):
        with open(f'/proc/{self.pid}/status') as f:
            return next(int(line.split()[1]) << 10 for line in f if line.startswith(what))

    def cpu(self):
        """Seconds of processor time so far."""
        with open(f'/proc/{self.pid}/stat') as f:
            fields = f.read().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')

    def load(self, meanwhile=lambda: None):
        """Seconds of processor time in a second."""
        start, used = time.monotonic(), self.cpu()
        for _ in range(10):
            time.sleep(0.1)
            meanwhile()
        return (self.cpu() - used) / (time.monotonic() - start)

    def healthy(self):
        assert self.broker.http('/healthz', 20)[0] == 200

    def schedule(self):
        """Nanoseconds on a processor, and waiting for one."""
        run = waited = 0
        for task in os.listdir(f'/proc/{self.pid}/task'):
            with open(f'/proc/{self.pid}/task/{task}/schedstat') as f:
                a, b, _ = map(int, f.read().split())
            run, waited = run + a, waited + b
        return run, waited

    def metrics(self):
        lines = self.broker.http('/metrics', 20)[1].splitlines()
        return {k: float(v) for k, v in (x.rsplit(' ', 1) for x in lines if x and x[0] != '#')}

    def closed(self, why):
        return int(self.metrics().get(f'sundog_broker_connections_closed_total{{why="{why}"}}', 0))

    def logged(self, words):
        with open(self.broker.log, errors='replace') as f:
            return sum(words in line for line in f)

    def attack(self):
        """Everything stands: what is measured from here on is the attack's."""
        self.probe.p99()
        time.sleep(2)
        self.before, self.echo_before, _ = self.probe.p99()
        self.idle = self.memory('VmRSS')
        with open(f'/proc/{self.pid}/clear_refs', 'w') as f:
            f.write('5')  # VmHWM starts anew
        self.scheduled = self.schedule()

    def connect(self, rcvbuf=None):
        s = socket.socket()
        if rcvbuf:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        s.settimeout(60)
        s.connect(('127.0.0.1', self.port))
        self.sockets.append(s)
        return s

    def wait_closed(self, why, n, seconds=90):
        wait(f'{n} connections closed: {why}', seconds, lambda: self.closed(why) >= n, 0.2)

    def ended(self, refused=None, said=None, note=''):
        """The attack is over: what was promised? `refused`: {reason in the metrics: count}; `said`: texts of the log."""
        (during, echo, seconds), peak = self.probe.p99(), self.memory('VmHWM')
        for s in self.sockets:
            s.close()
        figures = (f'RSS idle {self.idle / MIB:.1f}, peak {peak / MIB:.1f}, allowed {(self.idle + MEMORY) / MIB:.1f} MiB; '
                   f'p99 before {self.before:.2f}, during {during:.2f} ms ({seconds:.1f} s; echo {self.echo_before:.2f}, {echo:.2f})')
        counts = ''.join(f'; {n} × "{why}"' for why, n in (refused or {}).items())
        print(f'        {figures}{counts}{note and "; " + note}', flush=True)
        assert peak <= self.idle + MEMORY, f'more than the budget: {figures}'
        assert seconds > 6 * WINDOW_S, f'too short to tell: {figures}'
        run, waited = (b - a for a, b in zip(self.scheduled, self.schedule()))
        if self.first or waited <= (run + waited) / 4:
            if during > max(3 * max(self.before, echo), FLOOR_MS):
                raise Late(f'another client waits: {figures}')  # measured again: a broker that makes it wait does so each time
        else:
            print(f'        latencies are not judged: the broker waited {waited / 1e9:.2f} s for a processor and had it {run / 1e9:.2f} s')
        for why, n in (refused or {}).items():
            assert self.closed(why) == n, f'{why}: {self.closed(why)} counted, {n} seen'
        for words in said or refused or ():
            assert self.logged(words) == 1, f'"{words}" is {self.logged(words)} times in the log'
        wait('the connections are gone', 10, lambda: self.metrics()['sundog_broker_connections'] <= 2)
        assert self.broker.http('/healthz')[0] == 200
        c = Client(self.port)
        produce_and_fetch(c, batch(1024))
        c.close()


@contextlib.contextmanager
def fire(config=None, nofile=None):
    """A broker with a budget; records need not be on disk, because the disk is not what is looked at."""
    with Rig(sites=['east'], broker={'sundog.memory.max.bytes': MEMORY, 'sundog.flush.before.ack': 'false', **(config or {})}) as rig:
        rig.mirrors.clear()
        b = rig.brokers['east']
        if nofile:
            b.program, b.args = shutil.which('prlimit'), [f'--nofile={nofile}:{nofile}', os.path.join(BIN, 'sundog-broker'), *b.args]
        b.start()
        own = os.getpriority(os.PRIO_PROCESS, 0)
        f = Fire(rig)
        os.setpriority(os.PRIO_PROCESS, 0, min(own + 5, 19))  # below the broker, which is what is looked at
        try:
            yield f
        finally:
            f.probe.close()
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, 0, own)
            for s in f.sockets:
                s.close()


def refused(s):
    """A request, and whether the broker has closed the connection instead of answering."""
    try:
        s.sendall(VERSIONS)
        return not s.recv(4)
    except (ConnectionResetError, BrokenPipeError):
        return True


def push(sockets, data, seconds):
    """Sends `data` (a list, one each) as far as they are taken; those that have ended are left alone."""
    with selectors.DefaultSelector() as sel:
        for s, d in zip(sockets, data):
            s.setblocking(False)
            sel.register(s, selectors.EVENT_WRITE, memoryview(d))
        end = time.monotonic() + seconds
        while sel.get_map() and time.monotonic() < end:
            for key, _ in sel.select(0.1):
                try:
                    rest = key.data[key.fileobj.send(key.data[:MIB]):]
                except BlockingIOError:
                    continue
                except OSError:
                    rest = b''
                if len(rest):
                    sel.modify(key.fileobj, selectors.EVENT_WRITE, rest)
                else:
                    sel.unregister(key.fileobj)
        return len(sel.get_map())


# ---- the cases ----

def ten_thousand_connections():
    """Each sends one request and stays; those beyond max.connections are refused."""
    with fire({'max.connections': CONNECTIONS + 10}) as f:
        f.attack()
        all_of_them = [f.connect() for _ in range(CONNECTIONS)]
        assert not any(refused(s) for s in all_of_them)
        time.sleep(1)
        n = sum(refused(f.connect()) for _ in range(300))
        assert n == 292, n  # 10 more than the sockets, of which the other client and the one that sets up have two
        f.ended({'max.connections is reached': n}, ['connection refused limit='], f'{CONNECTIONS} connections open')


def clients_that_never_read():
    """They pipeline fetches of 1 MB; 200 of them fill more than the budget with requests if they are let."""
    with fire({'sundog.write.timeout.ms': 3000}) as f:
        f.create('big', 1)
        f.fill('big', 16)
        f.attack()
        n = 250
        lot = fetch('big', 0, 1000000) * 3000
        push([f.connect(65536) for _ in range(n)], [lot] * n, 1.5)
        f.wait_closed('the client does not read', n)
        f.ended({'the client does not read': n})


def requests_that_wait_for_ever():
    """Each connection pipelines 100 fetches of an end that nothing is written to: the broker holds them all."""
    with fire() as f:
        f.create('empty', 1)
        f.attack()
        n = 300
        push([f.connect() for _ in range(n)], [fetch('empty', 0, 1000000, 4000) * 100] * n, 3)
        time.sleep(2)
        f.ended(note=f'{n * 100} requests sent')


def a_byte_a_second():
    """From the first byte on; and after 100 KB of a request of 8 MB, for which the broker has taken memory already."""
    with fire({'sundog.request.timeout.ms': 3000}) as f:
        f.attack()
        slow = [f.connect() for _ in range(200)]
        begun = [f.connect() for _ in range(300)]
        one = produce('probe', [0], b'\0' * (8 << 20))
        push(begun, [one[:100000]] * len(begun), 1)
        why, n, at = 'a request took too long to arrive', len(slow) + len(begun), [0] * len(slow) + [100000] * len(begun)
        end = time.monotonic() + 90
        while f.closed(why) < n and time.monotonic() < end:
            for i, s in enumerate(slow + begun):
                with contextlib.suppress(OSError):
                    s.send(one[at[i]:at[i] + 1])
                    at[i] += 1
            time.sleep(1)
        f.ended({why: n})


def find_coordinator_of_100000_groups():
    """Asking where a group is makes nothing: resident memory stays where it is."""
    with fire() as f:
        clients = [Client(f.port) for _ in range(4)]
        f.sockets += [c.s for c in clients]

        def ask(first, n):
            for i in range(first, first + n, 400):
                for k, c in enumerate(clients):
                    c.s.sendall(b''.join(find_coordinator(f'group-{i + 100 * k + j}') for j in range(100)))
                for c in clients:
                    for _ in range(100):
                        error, = struct.unpack_from('>h', c.answer(), 8)
                        assert error == 0, error
        wait('a coordinator', 60, lambda: struct.unpack_from('>h', clients[0].ask(find_coordinator('first')), 8)[0] == 0)
        ask(0, 4000)
        f.attack()
        groups = f.metrics()['sundog_broker_groups']
        start = time.monotonic()
        ask(4000, 100000)
        seconds = time.monotonic() - start
        while time.monotonic() - start < 2:
            ask(4000, 20000)
        grown = f.memory('VmRSS') - f.idle
        assert grown <= 4 * MIB, f'resident memory has grown by {grown / MIB:.1f} MiB'
        assert f.metrics()['sundog_broker_groups'] == groups
        f.ended(note=f'100000 requests in {seconds:.1f} s; RSS grown by {grown / MIB:.2f} MiB')


def responses_of_500_mb():
    """Six consumers want 500 MB at once; two of them take a MiB and no more, until they are cut off."""
    with fire({'fetch.max.bytes': 600000000, 'sundog.write.timeout.ms': 3000}) as f:
        f.create('big', 1)
        f.fill('big', 505)
        f.attack()
        want, got, total = fetch('big', 0, 500000000), {}, 0
        into = bytearray(MIB)
        with selectors.DefaultSelector() as sel:
            for i in range(6):
                s = f.connect()
                s.sendall(want)
                if i < 2:
                    s.recv_into(into)
                    continue
                s.setblocking(False)
                sel.register(s, selectors.EVENT_READ)
                got[s] = 0
            end = time.monotonic() + 180
            while sel.get_map() and time.monotonic() < end:
                for key, _ in sel.select(0.1):
                    n = key.fileobj.recv_into(into)
                    assert n, 'closed by the broker'
                    got[key.fileobj] += n
                    if got[key.fileobj] > 499000000:
                        sel.unregister(key.fileobj)
            total = sum(got.values())
            if sel.get_map():
                raise Late(f'{total} bytes in 180 s')
        f.wait_closed('the client does not read', 2)
        f.ended({'the client does not read': 2}, note=f'{total / 1e9:.1f} GB read')


def no_descriptors_left():
    """The limit is low and partitions' files need some: clients are refused, the served go on, later ones come in."""
    # What the broker has open by itself is more than half of it: clients can have all that it does not keep for its files.
    with fire({'log.flush.offset.checkpoint.interval.ms': 500, 'replica.high.watermark.checkpoint.interval.ms': 500}, nofile=128) as f:
        f.create('files', 40)
        f.attack()
        usual = f.load()
        sockets = [f.connect() for _ in range(200)]
        time.sleep(0.5)
        spent = 1e9
        for _ in range(3):  # who spins does so all the time
            spent = min(spent, f.load(f.healthy))  # who wants to know why must be told now
        wait('refusals', 30, lambda: f.closed('no file descriptors left') > 0)
        out = 0
        for s in sockets:
            s.setblocking(False)
            try:
                out += not s.recv(1)
            except ConnectionResetError:
                out += 1
            except BlockingIOError:
                pass
        for s in sockets:
            s.close()
        assert out > 0, 'nobody was refused'
        wait('a connection after it', 60, lambda: not refused(f.connect()))
        counted = {w: f.closed(w) for w in ('no file descriptors left', 'max.connections is reached')}
        note = f'processor {usual:.2f} before, {spent:.2f} during; {out} closed, counted {counted}'
        assert spent <= usual + 0.25, f'it spins: {note}'
        assert sum(counted.values()) >= out, note
        f.ended(said=['no file descriptors left'], note=note)


def requests_larger_than_the_budget():
    """One frame that is too large is refused; many that are too large together wait for their turn."""
    with fire() as f:
        f.create('many', 16)
        f.create('empty', 1)
        f.attack()
        n = 10
        head = struct.pack('>i', 100000000) + frame(0, 7)[4:]
        push([f.connect() for _ in range(n)], [head + b'\0' * MIB] * n, 2)
        f.wait_closed('a frame above socket.request.max.bytes', n)
        f.connect().sendall(fetch('empty', 0, 1000000, 60000))  # a consumer that waits gives no memory back
        large = produce('many', range(16), batch(250000))
        clients = [Client(f.port) for _ in range(64)]
        f.sockets += [c.s for c in clients]
        start, rounds = time.monotonic(), 0
        while rounds == 0 or time.monotonic() - start < 2:
            left = push([c.s for c in clients], [large] * len(clients), 120)
            if left:
                raise Late(f'{left} requests not taken')
            for c in clients:
                c.s.settimeout(120)
                errors, _ = produced(c.answer(), 'many')
                assert errors == {0}, errors
            rounds += 1
        f.ended({'a frame above socket.request.max.bytes': n},
                note=f'{rounds} × {len(large) * len(clients) / MIB:.0f} MiB produced at once')


if __name__ == '__main__':
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.exit(run_cases([ten_thousand_connections, clients_that_never_read, requests_that_wait_for_ever, a_byte_a_second,
                        find_coordinator_of_100000_groups, responses_of_500_mb, no_descriptors_left,
                        requests_larger_than_the_budget], sys.argv[1:]))
