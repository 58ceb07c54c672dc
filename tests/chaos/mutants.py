"""tests/chaos/mutants.py [NAME ...]: daemons with one fault built in (base/core/mutant.h), under the rigs of this folder; the
checker must find each, by a rule that is named here, and nothing without a fault. Run by tests/chaos/mutants.

A story never asserts: it does what clients do, drains what there is, and leaves the judgement to the checker. Each mutant runs in
a process of its own."""
import collections, os, random, re, signal, subprocess, sys, time

from confluent_kafka import KafkaException
from history import CHECK
from members import Group, Impatient, Refused, Watch
from mirror_facts import Asked
from records import Follower, Load, drained, end_offsets, partitions, read_partition
from site_rig import Rig, die_with_parent, wait
from history import now
from kills import QUICK_SESSIONS, Background, create, loading, with_a_past
from power import Disk

SEED = int(os.environ.get('SUNDOG_SEED', random.SystemRandom().randrange(1 << 32)))
CUTS_MAX = 20
STORY_SECONDS = 300
TRIES = 3  # a mutant that was not met, or a story without a verdict: the machine may have been slow


def last_reading(rig, site, topic, partitions_n, name=None):
    """Drains every partition that there should be; of one that cannot be read nothing is left."""
    name = name or f'{site}/{topic}'
    for p in range(partitions_n):
        try:
            read_partition(rig.bootstrap(site), topic, p, 20, history=rig.history, name=name)
        except (AssertionError, KafkaException) as e:
            print(f'{name}-{p}: {e}')
            drained(rig.history, name, p, 0, 0, now(), [])


def stop(*clients):
    """A client of a broken broker may not end well: that is for the checker to say."""
    for c in clients:
        try:
            c.stop()
        except (AssertionError, KafkaException) as e:
            print(f'{getattr(c, "client", c)}: {e}')


def quietly(do):
    try:
        do()
    except (AssertionError, KafkaException, OSError) as e:
        print(f'{getattr(do, "__name__", do)}: {e}')


def judged(rig):
    """{rule: first witness} of what the checker finds now."""
    rig.history.flush()
    r = subprocess.run([sys.executable, CHECK, rig.history.path], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    if r.returncode == 2:
        raise AssertionError(f'nothing decided: {r.stdout}')
    return dict(re.findall(r'^([KR]\d+) (.*)$', r.stdout, re.M))


def broker(events=('kill', 'stop', 'kill', 'kill'), config=None):
    """One broker that is killed and stopped under producers and a group."""
    with Rig(sites=['east'], broker={**QUICK_SESSIONS, **(config or {})}) as rig:
        del rig.mirrors['east']
        it = rig.brokers['east'].start()
        create(rig, 'east', 'orders')
        load, watch = loading(rig, 'east', 'orders', 'e'), Watch(rig, 'east', 'orders', 0.05)
        follower = Follower(rig.bootstrap('east'), 'orders', rig.history, 'east/orders')
        running = Background(load, rate=2000)
        others = [Impatient(rig, 'east', 'orders', 1, 'impatient', SEED, pause=0.005), Refused(rig, 'east', 'orders', 3, 'refused')]
        group = Group(rig, 'east', 'readers', 'orders', 3, watch.ends, SEED, churn=0.5, pause=0.005)
        for what in events:
            time.sleep(1)
            others[0].deaf.set()  # it has sent what it does not know to have arrived
            time.sleep(0.3)
            it.kill() if what == 'kill' else it.stop()
            it.start(seconds=60)
            others[0].deaf.clear()
        quietly(lambda: wait('late commits', 60, lambda: group.late_n >= 5))
        quietly(running.stop)
        stop(*others, group, follower, watch)
        last_reading(rig, 'east', 'orders', 3)
        return judged(rig)


def power_cuts():
    """One broker on a file system of its own that loses what was not synced, cut after cut until the checker sees it."""
    rng, rig = random.Random(SEED), Rig(sites=['east'], broker=QUICK_SESSIONS)
    del rig.mirrors['east']
    disk = Disk(os.path.join(rig.dir, 'east'))
    try:
        with rig:
            it = rig.brokers['east'].start()
            create(rig, 'east', 'orders', 2)
            load, running = loading(rig, 'east', 'orders', 'e'), None
            for cut in range(1, CUTS_MAX + 1):
                running = Background(load, rate=2000)
                time.sleep(rng.uniform(0.3, 0.8))
                it.freeze(), disk.cut(), it.kill(), disk.remount()
                it.start(seconds=60)
                time.sleep(0.3)
                running.end.set()
                for t in running.threads:
                    t.join()
                quietly(lambda: load.flush(30))
                last_reading(rig, 'east', 'orders', 2)
                found = judged(rig)
                if found or (cut >= 3 and not os.environ.get('SUNDOG_MUTANT')):
                    break
            print(f'{cut} cuts')
            return found
    finally:
        for d in rig.daemons():
            d.kill()
        disk.umount()


def mirror(flows=('east->west',), kills=3):
    """Two brokers and the mirror between them, which is killed; a group that the mirror follows."""
    with Rig(flows=list(flows), broker=QUICK_SESSIONS) as rig:
        for b in rig.brokers.values():
            b.start()
        with_a_past(rig, 'east', 'orders')
        create(rig, 'east', 'late')
        names = ['west'] if len(flows) == 1 else ['west', 'east']
        for n in names:
            rig.mirrors[n].start()
        load, watch = loading(rig, 'east', 'orders', 'e'), Watch(rig, 'east', 'orders')
        wait('the watch sees the topic', 20, lambda: len(watch.ends()) == 3)
        group = Group(rig, 'east', 'readers', 'orders', 3, watch.ends, SEED)
        asked = Asked(rig, 'east', 'west', 'orders', watch.ends, SEED, 'readers', every=0.05)
        running = Background(load, rate=3000)
        for _ in range(kills):
            time.sleep(1.2)
            rig.mirrors['west'].kill()
            rig.mirrors['west'].start(seconds=60)
        time.sleep(1)
        quietly(running.stop)
        committed = group.stop()
        quietly(lambda: wait('as many there as here', 60, lambda: arrived(rig), 0.3))
        quietly(lambda: asked.settled(committed, 10))
        quietly(asked.checkpoints)
        stop(asked, watch)
        rig.history.event('mirror', source='east/orders', target='west/east.orders', keep=True, gaps=True)
        last_reading(rig, 'east', 'orders', 3), last_reading(rig, 'west', 'east.orders', 3)
        if len(flows) > 1:
            for site in rig.sites:
                for t in rig.cli_json('--bootstrap', rig.bootstrap(site), 'topic', 'list')['topics']:
                    if t['topic'].count('.') > 1 and t['topic'].endswith('.orders'):
                        last_reading(rig, site, t['topic'], t['partitions'])
        return judged(rig)


def again(events=3):
    """The source topic is deleted and made again while the mirror is killed: both incarnations belong to the target."""
    with Rig(flows=['east->west'], mirror={'sundog.on.new.incarnation': 'record-and-continue'}) as rig:
        rig.start()
        create(rig, 'east', 'orders', 1)
        rig.history.event('topic', topic='west/east.orders', open=True)
        for n in range(events):
            load = Load(rig.bootstrap('east'), 'orders', f'e{n}', history=rig.history, name=f'east/orders#{n}')
            load.send(2000)
            quietly(lambda: load.flush(20))
            quietly(lambda: wait('all there', 15, lambda: end_offsets(rig.bootstrap('west'), 'east.orders').get(0, 0) >= 2000 * (n + 1), 0.1))
            last_reading(rig, 'east', 'orders', 1, f'east/orders#{n}')
            if n + 1 < events:
                rig.mirrors['west'].kill()
                rig.cli('--bootstrap', rig.bootstrap('east'), 'topic', 'delete', 'orders')
                time.sleep(0.5)
                create(rig, 'east', 'orders', 1)
                rig.mirrors['west'].start(seconds=60)
        rig.history.event('mirror', source=f'east/orders#{events - 1}', target='west/east.orders')
        last_reading(rig, 'west', 'east.orders', 1)
        return judged(rig)


def arrived(rig):
    a, b = ({p: len(read_partition(rig.bootstrap(s), t, p, 20)) for p in partitions(rig.bootstrap(s), t)}
            for s, t in (('east', 'orders'), ('west', 'east.orders')))
    return a == b


def both_ways():
    return mirror(('east->west', 'west->east'), 1)


# Fault: the story it runs under, and the rules one of which must find it. The first six are in tests/run. Not here: what the
# daemon's own assertions, which stay on, do not let live (ack_before_fsync, hw_follows_append: tests/unit/mutants has them), and
# what only shows in a window of microseconds (progress_before_ack).
MUTANTS = {
    'no_fsync': (power_cuts, 'K1 K2'),
    'ack_before_append': (broker, 'K1 K2 K3'),
    'forgotten_sequence_check': (broker, 'K4'),
    'stale_generation_accepted': (broker, 'K12'),
    'commit_ack_before_append': (broker, 'K12'),
    'dedupe_state_lost': (broker, 'K4'),
    'partition_by_key_hash': (mirror, 'R4'),
    'generation_not_raised': (again, 'R1'),
    'translation_off_by_one': (mirror, 'R5'),
    'loop_guard_off': (both_ways, 'R7'),
}
DEFAULT = list(MUTANTS)[:6]


def one(name):
    """In a process of its own; the last line is the verdict."""
    story, rules = MUTANTS.get(name) or (globals()[name], '')
    found = story()
    for rule, witness in found.items():
        print(f'  {rule} {witness}'[:300])
    good = bool(set(found) & set(rules.split())) if rules else not found
    print(f'verdict {int(good)} ' + (' '.join(found) or 'nothing'))


def start(name, attempt):
    env = {k: v for k, v in os.environ.items() if k != 'SUNDOG_MUTANT'}
    if name in MUTANTS:
        env['SUNDOG_MUTANT'] = name
    env['SUNDOG_SEED'] = str(SEED + attempt)
    env.setdefault('ASAN_OPTIONS', 'detect_leaks=0')
    out = open(os.path.join(LOGS, name + '.log'), 'w+')
    return time.monotonic(), out, subprocess.Popen([sys.executable, sys.argv[0], '--one', name], stdin=subprocess.DEVNULL, stdout=out,
                                                   stderr=out, preexec_fn=die_with_parent, env=env)


def end(child):
    """By an interrupt, which leaves no mount behind, if that is heard."""
    child.send_signal(signal.SIGINT)
    try:
        child.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def main(names, jobs=2):
    """A line each; the stories of the chosen mutants also run without a fault."""
    stories = list(dict.fromkeys(MUTANTS[n][0].__name__ for n in names))
    waiting, running, counts, begun, tried = [*stories, *names], {}, [0, 0], time.monotonic(), collections.Counter()
    while waiting or running:
        while waiting and len(running) < jobs:
            n = waiting.pop(0)
            running[n] = start(n, tried[n])
            tried[n] += 1
        for n, (t0, out, child) in list(running.items()):
            late = time.monotonic() - t0 > STORY_SECONDS
            if child.poll() is None and not late:
                continue
            if late:
                end(child)
            del running[n]
            out.seek(0)
            text = out.read()
            verdict = re.findall(r'^verdict (\d) (.*)$', text, re.M)
            good = bool(verdict) and verdict[-1][0] == '1'
            took, seen = time.monotonic() - t0, verdict[-1][1] if verdict else 'no verdict' + (' in time' if late else '')
            what = (f'caught: {n}, by {seen}' if good else f'SURVIVED: {n} ({MUTANTS[n][1]} expected): {seen}') if n in MUTANTS \
                else f'{"ok" if good else "FAILED"}: {n} without a fault: {seen}'
            if not good:
                print(text[-12000:], flush=True)
            if not good and tried[n] < TRIES and (n in MUTANTS or not verdict):
                print(f'LATE    {what} ({took:.1f} s)', flush=True)
                waiting.insert(0, n)
                continue
            print(f'{what} ({took:.1f} s)', flush=True)
            counts[not good] += 1
        time.sleep(0.05)
    print(f'{len(names)} mutants in {time.monotonic() - begun:.0f} s')
    print(f'{counts[0]} passed, {counts[1]} failed')
    return 1 if counts[1] else 0


if __name__ == '__main__':
    if sys.argv[1:2] == ['--one']:
        one(sys.argv[2])
        sys.exit()
    import tempfile
    wanted = sys.argv[1:] or DEFAULT
    wanted = list(MUTANTS) if wanted == ['all'] else wanted
    if os.getuid() or subprocess.run(['losetup', '-f'], capture_output=True).returncode:
        print('no root, or no loop device: without those that need power cuts')
        wanted = [n for n in wanted if n not in MUTANTS or MUTANTS[n][0] is not power_cuts]
    if set(wanted) - set(MUTANTS):
        sys.exit(f'no such mutant: {" ".join(set(wanted) - set(MUTANTS))}; there are: {" ".join(MUTANTS)}')
    print(f'seed {SEED} (SUNDOG_SEED={SEED} tests/chaos/mutants)', flush=True)
    os.environ['SUNDOG_SEED'] = str(SEED)
    with tempfile.TemporaryDirectory(prefix='sundog-mutants-') as LOGS:
        sys.exit(main(wanted))
