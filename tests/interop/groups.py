"""Consumer groups as clients live through them: members die, stall and restart, the broker is killed, and what has been
committed stays. RELIABILITY's G1 and G2 on real sockets and disks; the offsets' log against Apache Kafka both ways."""
import json, os, random, shutil, signal, subprocess, sys, threading, time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from peers import ApacheKafka
from records import commit
from site_rig import TOP, Rig, die_with_parent, run_cases, wait

HERE = os.path.dirname(os.path.abspath(__file__))
KAFKA = os.path.join(TOP, 'tests', 'support', 'kafka')


def until(seconds, probe):
    """Waits for it; what it is judged by comes behind."""
    end = time.monotonic() + seconds
    while not probe() and time.monotonic() < end:
        time.sleep(0.05)


class Member:
    def __init__(self, boot, topic, group, *conf):
        self.events = []
        self.proc = subprocess.Popen([sys.executable, os.path.join(HERE, 'group_member.py'), boot, topic, group, *conf],
                                     stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        for line in self.proc.stdout:
            self.events.append(json.loads(line))

    def of(self, event):
        return [e for e in list(self.events) if e['event'] == event]

    def owns(self):
        own = set()
        for e in list(self.events):
            if e['event'] == 'assigned': own |= set(e['partitions'])
            if e['event'] == 'revoked': own -= set(e['partitions'])
        return own

    def kill(self, sig=signal.SIGKILL):
        self.proc.send_signal(sig)
        if sig in (signal.SIGKILL, signal.SIGTERM):
            self.proc.wait(60)
            self.thread.join(30)


class Watch:
    """Reads a group's committed offsets every 10 ms: they never go back, and never read as none once there was one."""

    def __init__(self, boot, group, topic, parts):
        self.best, self.reads, self.wrong, self.errors, self.on = {}, 0, [], 0, True
        self.args = boot, group, [TopicPartition(topic, p) for p in range(parts)]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        boot, group, parts = self.args
        c = Consumer({'bootstrap.servers': boot, 'group.id': group, 'log_level': 0})
        while self.on:
            try:
                for tp in c.committed(parts, timeout=2):
                    if tp.error:
                        self.errors += 1
                    elif tp.offset < self.best.get(tp.partition, -1001):
                        self.wrong.append((tp.partition, self.best[tp.partition], tp.offset))
                    elif tp.offset >= 0:
                        self.best[tp.partition] = tp.offset
                self.reads += 1
            except KafkaException:
                self.errors += 1
            time.sleep(0.01)
        c.close()

    def end(self, least=50):
        until(30, lambda: self.reads >= least)
        self.on = False
        self.thread.join(60)
        assert not self.wrong, f'committed offsets went back (partition, from, to): {self.wrong[:5]}'
        assert self.reads >= least, f'only {self.reads} reads, {self.errors} errors'


class Writer:
    """Writes numbered records until told to stop."""

    def __init__(self, boot, topic, parts):
        self.sent, self.on, self.args = 0, True, (boot, topic, parts)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        boot, topic, parts = self.args
        p = Producer({'bootstrap.servers': boot, 'linger.ms': 1, 'log_level': 0})
        while self.on:
            p.produce(topic, str(self.sent), partition=self.sent % parts)
            self.sent += 1
            p.poll(0.005)
        assert p.flush(60) == 0

    def end(self):
        self.on = False
        self.thread.join(90)


def make(rig, topic, parts=4):
    admin = AdminClient({'bootstrap.servers': rig.bootstrap('east')})
    admin.create_topics([NewTopic(topic, parts, 1)])[topic].result(60)
    return admin


def one_broker(**keys):
    return Rig(sites=['east'], broker={k.replace('_', '.'): v for k, v in keys.items()})


def starting(rig):
    rig.mirrors.clear()
    rig.start()
    return rig.bootstrap('east')


def committed(boot, group, topic, parts):
    c = Consumer({'bootstrap.servers': boot, 'group.id': group})
    def asked():
        got = c.committed([TopicPartition(topic, p) for p in range(parts)], timeout=20)
        return not any(tp.error for tp in got) and got
    try:
        return [tp.offset for tp in wait(f'what {group} has committed', 60, asked)]
    finally:
        c.close()


def all_read(boot, group, topic, parts, n):
    wait(f'{n} records read and committed', 120, lambda: sum(max(o, 0) for o in committed(boot, group, topic, parts)) == n, 0.3)


def shared(members, parts=4, seconds=120):
    def probe():
        own = [m.owns() for m in members]
        return sum(map(len, own)) == parts and set().union(*own) == set(range(parts)) and all(own)
    wait(f'{parts} partitions shared among {len(members)}', seconds, probe)


def read_once(members):
    """(partition, offset) that more than one commit was made for."""
    seen, double = set(), set()
    for m in members:
        for e in m.of('read'):
            k = e['partition'], e['offset']
            (double if k in seen else seen).add(k)
    return seen, double


def a_dead_member_is_replaced_and_nothing_goes_back():
    with one_broker() as rig:
        boot = starting(rig)
        make(rig, 't')
        writer, watch = Writer(boot, 't', 4), Watch(boot, 'g', 't', 4)
        a, b = Member(boot, 't', 'g'), Member(boot, 't', 'g')
        shared([a, b])
        wait('it has committed', 60, lambda: len(a.of('read')) > 10)
        a.kill()
        # Its last commit was asked for after the one before it had been answered, and began a session of 6 s.
        heard = a.of('read')[-2]['at']
        wait('the survivor owns all', 60, lambda: b.owns() == {0, 1, 2, 3})
        took = max(e['at'] for e in b.of('assigned')) - heard
        assert took > 5.5, f'{took:.1f} s: it was dropped before its session ended'
        c = Member(boot, 't', 'g')
        shared([b, c])
        b.kill(signal.SIGTERM)
        wait('who is left owns all', 60, lambda: c.owns() == {0, 1, 2, 3})
        writer.end()
        all_read(boot, 'g', 't', 4, writer.sent)
        watch.end()
        seen, double = read_once([a, b, c])
        assert not double, f'committed twice: {sorted(double)[:5]}'
        c.kill(signal.SIGTERM)


def a_stalled_member_is_fenced():
    with one_broker() as rig:
        boot = starting(rig)
        make(rig, 't')
        writer, watch = Writer(boot, 't', 4), Watch(boot, 'g', 't', 4)
        a, b = Member(boot, 't', 'g'), Member(boot, 't', 'g')
        shared([a, b])
        # Not before each of its partitions has been read: librdkafka 2.8.2 that learns its first position only after the
        # stall takes it, late, for the next generation's and starts from the beginning.
        wait('both have read', 60, lambda: all({e['partition'] for e in m.of('read')} >= m.owns() for m in (a, b)))
        before = len(a.of('read'))
        a.kill(signal.SIGSTOP)
        wait('the other owns all', 60, lambda: b.owns() == {0, 1, 2, 3})
        time.sleep(1)
        a.kill(signal.SIGCONT)
        shared([a, b])
        wait('the one that stalled reads again', 60, lambda: len(a.of('read')) > before + 10)
        writer.end()
        all_read(boot, 'g', 't', 4, writer.sent)
        watch.end() # a zombie's commit would have gone back
        a.kill(signal.SIGTERM)
        b.kill(signal.SIGTERM)


def a_static_member_restarts_without_a_rebalance():
    with one_broker() as rig:
        boot = starting(rig)
        make(rig, 't')
        a = Member(boot, 't', 'g', 'group.instance.id=a', 'session.timeout.ms=60000')
        b = Member(boot, 't', 'g', 'group.instance.id=b', 'session.timeout.ms=60000')
        shared([a, b])
        had, assigned = b.owns(), len(a.of('assigned'))
        for sig in (signal.SIGTERM, signal.SIGKILL):
            b.kill(sig)
            time.sleep(0.5)
            b = Member(boot, 't', 'g', 'group.instance.id=b', 'session.timeout.ms=60000')
            wait('the restarted one has what it had', 60, lambda: b.owns() == had)
        time.sleep(2)
        assert len(a.of('assigned')) == assigned and not a.of('revoked')[1:], 'the other member was disturbed'
        zombie = Member(boot, 't', 'g', 'group.instance.id=b', 'session.timeout.ms=60000') # takes b's place
        wait('the successor owns', 60, lambda: zombie.owns() == had)
        wait('the predecessor is fenced', 60, lambda: b.of('error') or not b.owns())
        for m in (a, b, zombie):
            m.kill()


def incremental_rebalances_keep_what_need_not_move():
    with one_broker() as rig:
        boot = starting(rig)
        make(rig, 't', 6)
        conf = 'partition.assignment.strategy=cooperative-sticky',
        a = Member(boot, 't', 'g', *conf)
        wait('one owns all', 60, lambda: len(a.owns()) == 6)
        b = Member(boot, 't', 'g', *conf)
        shared([a, b], 6)
        assert len(a.owns()) == 3 and sum(len(e['partitions']) for e in a.of('revoked')) == 3, a.of('revoked')
        c = Member(boot, 't', 'g', *conf)
        shared([a, b, c], 6)
        b.kill()
        shared([a, c], 6)
        a.kill(signal.SIGTERM)
        wait('the last owns all', 60, lambda: len(c.owns()) == 6)
        c.kill(signal.SIGTERM)


def acknowledged_commits_survive_kills():
    seed = int(os.environ.get('SUNDOG_SEED', random.randrange(1 << 30)))
    print('seed', seed, flush=True)
    rng = random.Random(seed)
    kills = int(os.environ.get('SUNDOG_GROUP_KILLS', 10))
    with one_broker() as rig:
        boot = starting(rig)
        make(rig, 't', 1)
        state = {'acked': 0, 'tried': 0, 'commits': 0, 'on': True}

        def commit():
            c = Consumer({'bootstrap.servers': boot, 'group.id': 'g', 'enable.auto.commit': False, 'log_level': 0,
                          'reconnect.backoff.max.ms': 100})
            while state['on']:
                state['tried'] += 1
                try:
                    r = c.commit(offsets=[TopicPartition('t', 0, state['tried'])], asynchronous=False)
                    if not r[0].error:
                        state['acked'] = state['tried']
                        state['commits'] += 1
                except KafkaException:
                    pass
            c.close()

        thread = threading.Thread(target=commit, daemon=True)
        thread.start()
        watch = Watch(boot, 'g', 't', 1)
        reader = Consumer({'bootstrap.servers': boot, 'group.id': 'g', 'log_level': 0, 'reconnect.backoff.max.ms': 100})
        wait('the first commit', 60, lambda: state['acked'] > 0)
        for _ in range(kills):
            time.sleep(rng.uniform(0.05, 0.6))
            more = state['commits'] + 6
            wait('commits go on', 60, lambda: state['commits'] >= more, 0.01)
            rig.brokers['east'].kill()
            acked = state['acked']
            rig.brokers['east'].start(ready=False)

            def answer():
                try:
                    got = reader.committed([TopicPartition('t', 0)], timeout=3)[0]
                    return None if got.error else got
                except KafkaException:
                    return None
            got = wait('an answer after the kill', 90, answer, 0.01)
            assert acked <= got.offset <= state['tried'], f'{got} after {acked} was acknowledged (seed {seed})'
        state['on'] = False
        thread.join(90)
        watch.end(least=10)
        assert state['commits'] > 50 * kills / 10, state
        last = committed(boot, 'g', 't', 1)[0]
        assert last >= state['acked'], (last, state)
        print(f'{state["commits"]} commits, {kills} kills, {watch.reads} reads', flush=True)
        reader.close()


def wait_groups(admin, names):
    wait(f'{len(names)} groups are listed', 60, lambda: {g.group_id for g in admin.list_consumer_groups().result(60).valid} == names)


def groups_spread_over_two_shards():
    with one_broker(sundog_shards=2, offsets_topic_num_partitions=20) as rig:
        boot = starting(rig)
        admin = make(rig, 't', 4)
        groups = [f'group-{i}' for i in range(40)]
        for i, g in enumerate(groups):
            c = Consumer({'bootstrap.servers': boot, 'group.id': g})
            commit(c, [TopicPartition('t', p, 100 * i + p) for p in range(4)])
            c.close()
        a, b = (Member(boot, 't', 'group-7', 'session.timeout.ms=300000') for _ in range(2))
        shared([a, b])
        wait_groups(admin, set(groups))
        for restart in (False, True):
            if restart:
                a.kill(); b.kill()
                rig.brokers['east'].kill()
                rig.brokers['east'].start()
            states = wait('all groups are described', 60, lambda: {g: f.result(60).state.name for g, f in admin.describe_consumer_groups(groups).items()})
            assert states.pop('group-7') == 'STABLE' and set(states.values()) == {'EMPTY'}, states
            for i, g in enumerate(groups):
                assert committed(boot, g, 't', 4) == [100 * i + p for p in range(4)], g
        gone = groups[10:30]
        for f in admin.delete_consumer_groups(gone).values():
            f.result(60)
        wait_groups(admin, set(groups) - set(gone))
        try:
            list(admin.delete_consumer_groups(['group-7']).values())[0].result(60)
            raise AssertionError('a group with members was deleted')
        except KafkaException as e:
            assert e.args[0].name() == 'NON_EMPTY_GROUP', e


def kafka(*args, timeout=240):
    r = subprocess.run([KAFKA, *args], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout)
    assert r.returncode == 0, f'kafka {" ".join(args)}: {r.stderr[-800:] or r.stdout[-800:]}'
    return r.stdout


def kafka_reads_our_offsets_log():
    with one_broker(offsets_topic_num_partitions=1) as rig:
        boot = starting(rig)
        admin = make(rig, 't')
        w = Writer(boot, 't', 4)
        m = Member(boot, 't', 'g', 'group.instance.id=one')
        wait('it reads', 60, lambda: len(m.of('read')) > 5)
        w.end()
        m.kill(signal.SIGTERM)
        c = Consumer({'bootstrap.servers': boot, 'group.id': 'simple'})
        commit(c, [TopicPartition('t', 2, 77)])
        list(admin.delete_consumer_groups(['simple']).values())[0].result(60)
        c.close()
        log = os.path.join(rig.dir, 'east', 'data', '__consumer_offsets-0', '0' * 20 + '.log')
        text = kafka('tool', 'dump-log', '--offsets-decoder', '--files', log)
        for words in ('"group":"g"', '"topic":"t"', '"offset":77', '"protocolType":"consumer"', '"groupInstanceId":"one"',
                      '"generation":1', 'payload: <DELETE>', 'isvalid: true'):
            assert words in text, f'{words} is not in\n{text[:3000]}'
        for bad in ('isvalid: false', 'corrupt', 'Exception'):
            assert bad not in text, text[:3000]


def leave_history(at):
    """Groups of every kind in an Apache Kafka's log; what g has committed."""
    admin = AdminClient({'bootstrap.servers': at})
    admin.create_topics([NewTopic('t', 4, 1)])['t'].result(60)
    w = Writer(at, 't', 4)
    m = Member(at, 't', 'g', 'group.instance.id=one', 'session.timeout.ms=300000')
    wait('it reads', 60, lambda: len(m.of('read')) > 20)
    w.end()
    all_read(at, 'g', 't', 4, w.sent)
    m.kill() # its group stays Stable in the log
    tx = Producer({'bootstrap.servers': at, 'transactional.id': 'tx'})
    c = Consumer({'bootstrap.servers': at, 'group.id': 'txg', 'enable.auto.commit': False, 'auto.offset.reset': 'earliest'})
    c.subscribe(['t'])
    wait('a member', 60, lambda: c.poll(0.5))
    tx.init_transactions(60)
    for offset, commit in ((5, True), (9, False)):
        tx.begin_transaction()
        tx.send_offsets_to_transaction([TopicPartition('t', 1, offset)], c.consumer_group_metadata(), 60)
        tx.commit_transaction(60) if commit else tx.abort_transaction(60)
    c.close()
    return committed(at, 'g', 't', 4)


def put_in_place(theirs, ours):
    """Another broker's offsets topic instead of ours: same partitions, same formats."""
    for p in range(5):
        name = f'__consumer_offsets-{p}'
        for f in os.listdir(os.path.join(ours, name)):
            if f != 'partition.metadata': os.remove(os.path.join(ours, name, f))
        for f in os.listdir(os.path.join(theirs, name)):
            if f.endswith('.log'): shutil.copy(os.path.join(theirs, name, f), os.path.join(ours, name))
    for f in os.listdir(ours):
        if f.endswith('checkpoint') or f == '.kafka_cleanshutdown': os.remove(os.path.join(ours, f))


def we_read_kafkas_offsets_log():
    with one_broker() as rig:
        boot = starting(rig)
        make(rig, 't')
        c = Consumer({'bootstrap.servers': boot, 'group.id': 'x'})
        commit(c, [TopicPartition('t', 0, 1)]) # now the topic is there
        c.close()
        assert rig.brokers['east'].stop() == 0
        with ApacheKafka() as peer:
            want = leave_history(peer.bootstrap)
            kafka('stop', peer.dir)
            put_in_place(os.path.join(peer.dir, 'data'), os.path.join(rig.dir, 'east', 'data'))
        rig.brokers['east'].start()
        assert committed(boot, 'g', 't', 4) == want, want
        assert committed(boot, 'txg', 't', 4)[1] == 5, 'the committed transaction counts, the aborted one does not'
        assert committed(boot, 'x', 't', 4)[0] < 0
        admin = AdminClient({'bootstrap.servers': boot})  # must outlive its futures
        d = wait('the group is described', 60, lambda: admin.describe_consumer_groups(['g'])['g'].result(60))
        assert d.state.name == 'STABLE' and [x.group_instance_id for x in d.members] == ['one'], d.state


if __name__ == '__main__':
    sys.exit(run_cases([a_dead_member_is_replaced_and_nothing_goes_back, a_stalled_member_is_fenced,
                        a_static_member_restarts_without_a_rebalance, incremental_rebalances_keep_what_need_not_move,
                        acknowledged_commits_survive_kills, groups_spread_over_two_shards, kafka_reads_our_offsets_log,
                        we_read_kafkas_offsets_log], sys.argv[1:], jobs=3))
