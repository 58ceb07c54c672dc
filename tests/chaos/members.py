"""Clients that tell the history what librdkafka keeps to itself: groups with members that come, leave and die, their
generations, assignments and commits (Group); what a partition says of itself while it is written (Watch); producers
whose answers get lost (Impatient) and who are refused (Refused). Threads of this process, on connections of their own (wire.py); each ends with `stop`."""
import random, socket, threading, time

from history import crc, now, text
from records import payload
from site_rig import Late
from wire import MEMBER_ID_REQUIRED, Lost, Wire, batch

NOT_COORDINATOR, ILLEGAL_GENERATION, UNKNOWN_MEMBER, REBALANCING = 16, 22, 25, 27
OUT_OF_ORDER, DUPLICATE = 45, 46


class Client(threading.Thread):
    """A thread with one connection that is made again whenever it is lost."""

    def __init__(self, rig, site, name):
        super().__init__(daemon=True)
        self.rig, self.site, self.end, self.error, self.wire = rig, site, threading.Event(), None, None
        self.client = name

    def connected(self):
        while not self.wire and not self.end.is_set():
            try:
                self.wire = Wire(self.rig.bootstrap(self.site), self.client)
            except OSError:
                self.end.wait(0.05)
        return self.wire

    def lost(self):
        if self.wire:
            self.wire.close()
        self.wire = None

    def run(self):
        while not self.end.is_set():
            try:
                if self.connected():
                    self.step()
            except OSError:
                self.lost()
            except Exception as e:
                self.error = self.error or e
                break
        self.lost()

    def stop(self):
        self.end.set()
        self.join(60)
        if self.error:
            raise self.error
        if self.is_alive():
            raise Late(f'{self.client} does not end')


class Member(Client):
    """Owns partitions, commits one offset after another in each, and looks now and then at what was committed. Where a new
    generation has begun, it may commit once more in the old one, as a member would that has slept."""

    def __init__(self, group, name):
        super().__init__(group.rig, group.site, name)
        self.g, self.rng = group, random.Random(f'{group.seed}{name}')
        self.member, self.generation, self.at, self.beaten = '', -1, None, 0
        self.start()

    def step(self):
        if self.at is None:
            return self.rejoin()
        if time.monotonic() - self.beaten > 0.15:
            self.beaten = time.monotonic()
            self.heard(self.wire.heartbeat(self.g.name, self.generation, self.member))
        if self.at:
            p = self.rng.choice(list(self.at))
            self.at[p] = max(self.at[p], min(self.at[p] + self.rng.randint(1, 40), self.g.ends().get(p, 0)))
            self.heard(self.commit(self.generation, p, self.at[p]))
            if self.rng.random() < 0.3:
                self.look(p)
        self.end.wait(self.g.pause)

    def heard(self, error):
        if error in (ILLEGAL_GENERATION, UNKNOWN_MEMBER, REBALANCING):
            if error == UNKNOWN_MEMBER:
                self.member = ''
            self.at = None

    def rejoin(self):
        old, owned = self.generation, self.g.owned.get(self.client, [])
        error, generation, leader, member, members = self.wire.join(self.g.name, self.member, self.g.session_ms, 3000)
        if error == MEMBER_ID_REQUIRED:
            self.member = member
            return
        if error:
            if error == UNKNOWN_MEMBER:
                self.member = ''
            if error == NOT_COORDINATOR:
                self.wire.find(self.g.name)
            self.end.wait(0.05)
            return
        self.member = member
        plan = {}
        if leader == member:
            members = sorted(members)
            plan = {m: [p for p in range(self.g.partitions) if p % len(members) == i] for i, m in enumerate(members)}
        error, mine = self.wire.sync(self.g.name, generation, member, plan)
        if error:
            self.generation = -1
            return
        self.generation = generation
        self.g.learned(self, generation, member, mine)
        if old >= 0 and old < generation and owned and self.rng.random() < self.g.late:
            self.commit(old, owned[0], 1 << 40)  # refused, or every reader of it will know
            self.g.late_n += 1
        error, found = self.wire.committed(self.g.name, self.g.topic, mine)
        if error or any(e for _, e in found.values()):
            self.end.wait(0.05)
            return
        self.at = {p: max(o, 0) for p, (o, _) in found.items()}

    def commit(self, generation, partition, offset):
        t0, t1, error = now(), None, None
        try:
            error = self.wire.commit(self.g.name, generation, self.member, self.g.topic, {partition: offset})[partition]
            t1 = now()
        finally:
            self.g.history.event('commit', group=self.g.name, topic=self.g.told, partition=partition, t0=t0, t1=t1, offset=offset,
                                 err=error, generation=generation, member=self.member)
        return error

    def look(self, partition):
        self.g.look(self.wire, partition)

    def die(self):
        """Without a word to the group: its session runs out."""
        self.end.set()
        try:
            self.wire.s.shutdown(socket.SHUT_RDWR)
        except (AttributeError, OSError):
            pass  # it has none now
        self.join(30)

    def leave(self):
        self.die()
        try:
            with Wire(self.rig.bootstrap(self.site), self.client) as w:
                w.leave(self.g.name, self.member)
        except OSError:
            pass


class Group:
    """A group over one topic whose membership changes all the time until `stop`. `ends()` says up to where there are records:
    {partition: offset}. `late`: how often who has a new generation commits in the one before; `late_n` such commits were answered."""

    def __init__(self, rig, site, name, topic, partitions, ends, seed=0, members=3, pause=0.02, churn=1.0, session_ms=1500, late=1):
        self.late, self.late_n = late, 0
        self.rig, self.site, self.name, self.topic, self.told = rig, site, name, topic, f'{site}/{topic}'
        self.partitions, self.ends, self.pause, self.session_ms = partitions, ends, pause, session_ms
        self.history, self.seed, self.owned, self.made = rig.history, seed, {}, 0
        self.want, self.churn, self.rng, self.end = members, churn, random.Random(f'{seed}{name}'), threading.Event()
        self.members = [self.new() for _ in range(members)]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def new(self):
        self.made += 1
        return Member(self, f'{self.name}-{self.made}')

    def run(self):
        while not self.end.wait(self.rng.uniform(0.3, 1.7) * self.churn):
            what = self.rng.choice(['die', 'leave', 'join', 'join'])
            if what == 'join' and len(self.members) < self.want + 1:
                self.members.append(self.new())
            elif what != 'join' and len(self.members) > 1:
                getattr(self.members.pop(self.rng.randrange(len(self.members))), what)()

    def learned(self, member, generation, name, partitions):
        self.owned[member.client] = partitions
        self.history.event('assign', group=self.name, generation=generation, member=name, t=now(), partitions=[[self.told, p] for p in partitions])

    def look(self, wire, partition):
        t0 = now()
        error, found = wire.committed(self.name, self.topic, [partition])
        offset, wrong = found[partition]
        if not error and not wrong:
            self.history.event('offset_fetch', group=self.name, topic=self.told, partition=partition, t0=t0, t1=now(), offset=offset)
            return offset
        return None

    def stop(self):
        """What is committed in the end: {partition: offset}, of those that have anything."""
        self.end.set()
        self.thread.join()
        for m in self.members:
            m.end.set()
        for m in self.members:
            m.join(10)  # its last commit is answered
            m.die()
            m.stop()
        last, found = None, {}
        for _ in range(60):  # one who died just now may have left a commit on its way
            try:
                with Wire(self.rig.bootstrap(self.site), 'last') as w:
                    last, found = found, {p: o for p in range(self.partitions) for o in [self.look(w, p)] if o is not None}
            except OSError:
                continue
            if len(found) == self.partitions and found == last:
                break
            time.sleep(0.5)
        return {p: o for p, o in found.items() if o >= 0}


class Watch(Client):
    """Asks a topic's partitions for their marks and leader epochs all the time. `ends()`: {partition: high watermark}."""

    def __init__(self, rig, site, topic, every=0.1):
        super().__init__(rig, site, f'watch of {site}/{topic}')
        self.topic, self.every, self.high = topic, every, {}
        self.start()

    def step(self):
        if not self.high:
            self.high = self.wire.starts(self.topic, self.wire.epochs(self.topic))
        if self.high:
            t0, epochs = now(), self.wire.epochs(self.topic)
            for p, (error, high, stable, low) in self.wire.marks(self.topic, self.high).items():
                if error:
                    continue
                self.high[p] = high
                self.rig.history.event('marks', reader=self.client, topic=f'{self.site}/{self.topic}', partition=p, t=t0, low=low, high=high,
                                       stable=stable, epoch=epochs.get(p))
        self.end.wait(self.every)

    def ends(self):
        return dict(self.high)


class Impatient(Client):
    """An idempotent producer that hears few of its answers: it sends batches of one partition, often closes the connection
    instead of listening, and then sends all of them again. Every record is acknowledged in the end, or its fate unknown."""

    def __init__(self, rig, site, topic, partition, writer, seed=0, records=3, pause=0.02):
        super().__init__(rig, site, writer)
        self.topic, self.partition, self.told, self.writer = topic, partition, f'{site}/{topic}', writer
        self.rng, self.records, self.pause = random.Random(f'{seed}{writer}'), records, pause
        self.deaf = threading.Event()  # while set: it sends, hears nothing, and waits
        self.closing, self.pid, self.epoch, self.next, self.open, self.acked, self.again, self.wrong = False, None, 0, 0, [], 0, 0, None
        self.start()

    def step(self):
        if self.pid is None:
            error, pid, self.epoch = self.wire.init_producer()
            self.pid = None if error else pid
            return
        if self.closing and not self.open:
            self.end.set()
        again = len(self.open)
        for data, _ in self.open:
            self.wire.send_batch(self.topic, self.partition, data)
        self.again += again
        for _ in range(self.rng.randint(1, 5 - again) if again < 5 and not self.closing else 0):
            self.open.append(self.make())
            self.wire.send_batch(self.topic, self.partition, self.open[-1][0])
        if (self.deaf.is_set() or self.rng.random() < 0.4) and not again:
            self.lost()  # whether they have arrived shows when they are sent again
            while self.deaf.is_set() and not self.end.is_set():
                time.sleep(0.01)
            return
        while self.open:
            error, base = self.wire.produced()
            if error in (OUT_OF_ORDER, DUPLICATE) and again:  # it has arrived, and others behind it; the broker no longer knows where
                self.unknown(self.open.pop(0)[1])
                again -= 1
                continue
            if error:
                self.wrong = self.wrong or time.monotonic()
                if time.monotonic() - self.wrong > 60:
                    raise Late(f'{self.client}: answers {error} again and again')
                self.end.wait(0.02)
                return self.lost()
            for sequence, (key, value, t0) in enumerate(self.open.pop(0)[1], base):
                self.tell(key, value, t0, sequence, 0)
                self.acked += 1
            self.wrong = None
        self.end.wait(self.pause)

    def make(self):
        rows, t0 = [], now()
        for _ in range(self.records):
            key = f'i{self.next % 20}'.encode()
            rows.append((key, payload(self.writer, self.next, key, 120), t0))
            self.next += 1
        data = batch([(k, v, [('w', self.writer.encode())]) for k, v, _ in rows], int(time.time() * 1000), self.pid, self.epoch, self.next - self.records)
        return data, rows

    def unknown(self, rows):
        for key, value, t0 in rows:
            self.tell(key, value, t0, None, None)

    def tell(self, key, value, t0, offset, error):
        sequence = int(value.split(b':')[1])
        self.rig.history.send(self.told, self.writer, (sequence, self.partition, offset, t0, None if error is None else now(), error,
                                                       text(key), crc(key, value)))

    def stop(self):
        """Ends when all is acknowledged, or 60 s later."""
        end = time.monotonic() + 60
        self.closing = True
        while time.monotonic() < end and self.is_alive():
            time.sleep(0.01)
        super().stop()
        for _, rows in self.open:
            self.unknown(rows)


class Refused(Client):
    """A producer of which every record is refused for certain: too many acknowledgements asked for, no such partition. Nobody
    may ever read one."""

    def __init__(self, rig, site, topic, partitions, writer, pause=0.1):
        super().__init__(rig, site, writer)
        self.topic, self.partitions, self.writer, self.pause, self.next, self.answers = topic, partitions, writer, pause, 0, 0
        self.start()

    def step(self):
        key, partition, acks = b'r', self.partitions + 5 if self.next % 2 else 0, -1 if self.next % 2 else 2
        value, t0, error = payload(self.writer, self.next, key, 100), now(), None
        self.next += 1
        try:
            self.wire.send_batch(self.topic, partition, batch([(key, value, [])], int(time.time() * 1000)), acks)
            error, _ = self.wire.produced()
            self.answers += 1
        finally:
            self.rig.history.send(f'{self.site}/{self.topic}', self.writer, (self.next - 1, partition, None, t0, None if error is None else now(),
                                                                             error, text(key), crc(key, value)))
        if error == 0:
            raise AssertionError(f'{self.client}: accepted a record with acks={acks} for partition {partition} of {self.partitions}')
        self.end.wait(self.pause)
