"""Three sites that mirror each other, in a ring and each to each, while daemons are killed: a record comes to a site once on
every way that its name can take, and never home again, whatever its headers claim."""
import os, random, sys, time

from kills import Background, SEED, create, drain, loading, mirrored
from records import check_log, same
from site_rig import Rig, run_cases

TOPICS = {'east': 'orders', 'west': 'bills', 'south': 'stock'}  # a site's own
RING = [('east', 'west'), ('west', 'south'), ('south', 'east')]
MUST = 'K1 K2 K3 K4 K8 K10 K15 R1 R2 R3 R4.content R4.partition R7'
FORGED = [('w', b'x'), ('sundog.origin', b'east,west,south'), ('mm2.source.cluster', b'south'), ('n', None)]
KILLS = int(os.environ.get('SUNDOG_RING_KILLS', '3'))


def ways(flows, site):
    """Where the site's topic must be, as (source, its name there, target): a chain that never comes to a site twice."""
    found, ends = [], [((site,), TOPICS[site])]
    while ends:
        chain, name = ends.pop()
        for a, b in flows:
            if a == chain[-1] and b not in chain:
                found.append((a, name, b))
                ends.append((chain + (b,), f'{a}.{name}'))
    return found


def mirroring(flows):
    rng = random.Random(f'{SEED}{len(flows)}')
    with Rig(sites=list(TOPICS), flows=[f'{a}->{b}' for a, b in flows]) as rig:
        rig.start()
        loads = []
        for site, topic in TOPICS.items():
            create(rig, site, topic, 2)
            loads.append(loading(rig, site, topic, site[0]))
            loads[-1].headers = FORGED
        load = Background(*loads, rate=500)
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.3, 1))
            victim = rng.choice(rig.daemons())
            victim.kill()
            victim.start(seconds=60)
        load.stop()
        of = {site: ways(flows, site) for site in TOPICS}
        for source, name, target in sum(of.values(), []):
            mirrored(rig, source, target, name, still=0)
        time.sleep(1)  # for what would come twice, or home
        have = {(site, t['topic']) for site in TOPICS for t in rig.cli_json('--bootstrap', rig.bootstrap(site), 'topic', 'list')['topics']
                if not t['internal'] and not t['topic'].endswith(('heartbeats', '.internal'))}
        want = set(TOPICS.items()) | {(target, f'{source}.{name}') for source, name, target in sum(of.values(), [])}
        assert have == want, f'too many: {sorted(have - want)[:9]}, missing: {sorted(want - have)}'
        for l, (site, topic) in zip(loads, TOPICS.items()):
            assert not l.failed, l.failed
            logs = {(site, topic): drain(rig, site, topic)}
            check_log(logs[site, topic], l.acked, l.writer, f'{site}/{topic}')
            for source, name, target in of[site]:
                there = target, f'{source}.{name}'
                rig.history.event('mirror', source=f'{source}/{name}', target='/'.join(there), keep=True)
                logs[there] = drain(rig, *there)
                same(logs[source, name], logs[there], '/'.join(there))
        print(f'{sum(map(len, of.values()))} ways, {KILLS} kills; {rig.history.check(MUST)}')


def three_sites_in_a_ring():
    mirroring(RING)


def three_sites_each_to_each():
    mirroring([(a, b) for a in TOPICS for b in TOPICS if a != b])


if __name__ == '__main__':
    print(f'seed {SEED} (SUNDOG_SEED={SEED} tests/chaos/run)', flush=True)
    os.environ['SUNDOG_SEED'] = str(SEED)
    sys.exit(run_cases([three_sites_in_a_ring, three_sites_each_to_each], sys.argv[1:], jobs=2))
