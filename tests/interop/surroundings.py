"""Bad configuration and bad surroundings: one clear line on stderr and the documented exit code, or waiting with backoff
where the world may heal."""
import os, shutil, signal, socket, subprocess, sys, tempfile, time

from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from records import end_offsets
from site_rig import BIN, Rig, free_port, run_cases, wait


def start_fails(program, args, code, *words, cwd=None):
    """Ends with `code` and exactly one line on stderr that has every one of `words`; one that goes on is late."""
    r = subprocess.run([os.path.join(BIN, program), *args], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, cwd=cwd)
    lines = r.stderr.strip().split('\n')
    assert r.returncode == code, f'exit {r.returncode}, not {code}: {r.stderr}'
    assert len(lines) == 1 and lines[0], f'{len(lines)} lines: {r.stderr}'
    for w in words:
        assert w in lines[0], f'"{w}" is not in: {lines[0]}'


def broker_file(dir, **keys):
    path = os.path.join(dir, 'broker.properties')
    with open(path, 'w') as f:
        f.writelines(f'{k.replace("_", ".")}={v}\n' for k, v in
                     {'listeners': f'PLAINTEXT://127.0.0.1:{free_port()}', 'log.dirs': dir + '/data', **keys}.items())
    return path


def a_broker_says_what_is_wrong_with_its_file():
    with tempfile.TemporaryDirectory() as d:
        start_fails('sundog-broker', [], 2)
        start_fails('sundog-broker', [d + '/missing.properties'], 2, 'missing.properties')
        start_fails('sundog-broker', [broker_file(d, log_retention_hourz=3)], 2, 'log.retention.hourz')
        start_fails('sundog-broker', [broker_file(d, num_partitions='many')], 2, 'num.partitions', 'many')
        start_fails('sundog-broker', [broker_file(d, num_partitions=0)], 2, 'num.partitions')
        start_fails('sundog-broker', [broker_file(d, listeners='nonsense')], 2, 'listeners')
        start_fails('sundog-broker', [broker_file(d, listeners='PLAINTEXT://0.0.0.0:%d' % free_port())], 2, 'sundog.insecure')
        path = os.path.join(d, 'empty.properties')
        open(path, 'w').close()
        start_fails('sundog-broker', [path], 2, 'listeners')
        start_fails('sundog-broker', [broker_file(d), 'unknown.key=1'], 2, 'unknown.key')
        start_fails('sundog-broker', ['--frobnicate'], 2, '--frobnicate', 'usage')
        start_fails('sundog-broker', [broker_file(d), 'notakeyvalue'], 2, 'notakeyvalue', 'key=value')
        start_fails('sundog-broker', [broker_file(d), 'node.id=3', 'broker.id=2'], 2, 'broker.id', 'node.id=3')
        start_fails('sundog-broker', [broker_file(d), 'process.roles=broker'], 2, 'process.roles')
        start_fails('sundog-broker', [broker_file(d), 'compression.type=brotli'], 2, 'compression.type', 'producer')
        start_fails('sundog-broker', [broker_file(d), 'sundog.admin.listener=0.0.0.0:%d' % free_port()], 2, 'sundog.insecure')
        start_fails('sundog-broker', [broker_file(d, listeners='SSL://127.0.0.1:%d' % free_port())], 2, 'listeners', 'SSL', 'PLAINTEXT')


def a_broker_says_what_is_wrong_with_its_surroundings():
    with tempfile.TemporaryDirectory() as d, socket.socket() as taken:
        port = free_port()
        taken.bind(('127.0.0.1', port))
        taken.listen()
        start_fails('sundog-broker', [broker_file(d, listeners=f'PLAINTEXT://127.0.0.1:{port}')], 1, str(port))
        with open(d + '/afile', 'w') as f:
            f.write('x')
        start_fails('sundog-broker', [broker_file(d, log_dirs=d + '/afile')], 1, 'afile')
        start_fails('sundog-broker', [broker_file(d, log_dirs='/proc/nowhere')], 1, '/proc/nowhere')
        start_fails('sundog-broker', [broker_file(d), f'sundog.admin.listener=127.0.0.1:{port}'], 1, 'sundog.admin.listener', str(port), 'choose')
        for text, words in (('garbage\n', ['meta.properties']), ('version=9\ncluster.id=AAAAAAAAAAAAAAAAAAAAZQ\nnode.id=1\n', ['version=9'])):
            os.makedirs(d + '/other', exist_ok=True)
            with open(d + '/other/meta.properties', 'w') as f:
                f.write(text)
            start_fails('sundog-broker', [broker_file(d, log_dirs=d + '/other')], 1, d + '/other', *words)
        os.makedirs(d + '/headless/t-0')
        start_fails('sundog-broker', [broker_file(d, log_dirs=d + '/headless')], 1, 'meta.properties', 'headless')
        with Rig(sites=['east'], dir=d) as rig:
            del rig.mirrors['east']
            rig.start()
            start_fails('sundog-broker', ['east.broker.properties', f'listeners=PLAINTEXT://127.0.0.1:{free_port()}', f'sundog.admin.listener=127.0.0.1:{free_port()}'], 1, 'data', cwd=d)
            rig.brokers['east'].stop()
            meta = os.path.join(d, 'east', 'data', 'meta.properties')
            text = open(meta).read()
            old = next(l for l in text.split('\n') if l.startswith('cluster.id='))
            start_fails('sundog-broker', ['east.broker.properties', 'sundog.cluster.id=AAAAAAAAAAAAAAAAAAAAZQ'], 1, 'cluster.id', cwd=d)
            start_fails('sundog-broker', ['east.broker.properties', 'node.id=77'], 1, 'node.id', cwd=d)
            assert old in open(meta).read(), 'the data directory was changed by a refused start'
            rig.brokers['east'].start()


def a_folder_that_may_not_be_read_is_named():
    """As a user who may not: only root can become one."""
    if os.geteuid() != 0:
        return
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        os.mkdir(d + '/secret', 0o700)
        copy = shutil.copytree(BIN, d + '/bin', ignore=lambda _, names: [n for n in names if not n.startswith('sundog')])
        broker = broker_file(d, log_dirs=d + '/secret')
        with open(d + '/mirror.properties', 'w') as f:
            f.write(f'clusters = a, b\na.bootstrap.servers = 127.0.0.1:1\nb.bootstrap.servers = 127.0.0.1:2\n'
                    f'a->b.enabled = true\nsundog.store.dir = {d}/secret\n')
        nobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
        for program, file, key in (('sundog-broker', broker, 'log.dirs'), ('sundog-mirror', d + '/mirror.properties', 'sundog.store.dir')):
            r = subprocess.run(['setpriv', *nobody, os.path.join(copy, program), file], capture_output=True, text=True, timeout=30)
            assert r.returncode == 1 and r.stderr.count('\n') == 1, r
            for w in (key, d + '/secret', 'permission denied', 'choose'):
                assert w in r.stderr, f'"{w}" is not in: {r.stderr}'


def keys_that_are_not_served_get_one_warning_each():
    unserved = {'tasks.max': 4, 'sync.topic.acls.enabled': 'true', 'exactly.once.source.support': 'enabled',
                'offset.flush.interval.ms': 1000, 'key.converter': 'x', 'rest.port': 8083, 'topics.blacklist': 'old'}
    with Rig(flows=['east->west'], mirror=unserved, broker={'ssl.keystore.location': '/x', 'num.io.threads': 8, 'compression.type': 'gzip'}) as rig:
        rig.start()
        wait('the mirror has spoken', 60, lambda: ' INFO mirror: mirror runs' in rig.mirrors['west'].tail(1000))
        for daemon, keys in ((rig.mirrors['west'], unserved), (rig.brokers['east'], ('ssl.keystore.location', 'num.io.threads', 'compression.type'))):
            with open(daemon.log) as f:
                warnings = [line for line in f if ' WARN ' in line]
            for key in keys:
                assert len([w for w in warnings if key in w]) == 1, f'{key}: {warnings}'
            daemon.signal(signal.SIGHUP)
            time.sleep(0.2)
            wait(f'{daemon.name} healthy after HUP', 30, lambda: not daemon.running or daemon.http('/healthz')[0] == 200)
            assert daemon.running, f'{daemon.name} after HUP'
            daemon.signal(signal.SIGINT)
            assert daemon.proc.wait(30) == 0, f'{daemon.name} after INT'
            daemon.proc = None


def any_fetch_max_bytes_of_kafka_is_taken():
    """librdkafka alone refuses what is below its message.max.bytes, and Kafka's common 100 MiB."""
    with Rig(flows=['east->west']) as rig:
        for b in rig.brokers.values(): b.start()
        m, n = rig.mirrors['west'], 0
        for size in (100, 104857600, 2147483000):
            m.start(extra=[f'east.consumer.fetch.max.bytes={size}'])
            p = Producer({'bootstrap.servers': rig.bootstrap('east')})
            for i in range(20): p.produce('orders', b'x' * 2000)
            assert p.flush(60) == 0
            n += 20
            wait(f'mirrored with {size}', 90, lambda: sum(end_offsets(rig.bootstrap('west'), 'east.orders').values()) == n)
            assert m.stop() == 0


def a_replication_factor_that_cannot_be_is_named():
    with Rig(flows=['east->west'], mirror={'replication.factor': 2}) as rig:
        rig.start()
        p = Producer({'bootstrap.servers': rig.bootstrap('east')})
        p.produce('orders', b'x')
        assert p.flush(60) == 0
        m = rig.mirrors['west']
        def told():
            with open(m.log) as f:
                return any('replication.factor' in line and 'orders' in line for line in f)
        wait('the log names the key', 60, told)
        wait('and so does the status', 60, lambda: any(r['topic'] == 'orders' and 'replication.factor' in r['reason'] for r in m.status()['flows'][0]['partitions']))
        wait('and the command line', 60, lambda: 'replication.factor' in rig.cli('-c', 'west-mirror.properties', 'status').stdout)
        wait('and the page', 60, lambda: 'replication.factor' in m.http('/')[1])


def a_mirror_says_what_is_wrong_with_its_file():
    with Rig() as rig:
        def fails(code, *words, **keys):
            m = rig.mirror_at('west', 'bad', {k.replace('_', '.'): v for k, v in keys.items()})
            start_fails('sundog-mirror', m.args, code, *words, cwd=rig.dir)
        start_fails('sundog-mirror', [], 2)
        start_fails('sundog-mirror', [rig.dir + '/missing.properties'], 2, 'missing.properties')
        fails(2, 'tobics', tobics='x')
        fails(2, 'refresh.topics.interval.seconds', refresh_topics_interval_seconds='soon')
        fails(2, 'topics', topics='(')
        fails(2, '${file', topics='${file:/x:y}')
        fails(1, '/proc/nowhere', sundog_store_dir='/proc/nowhere')
        fails(2, 'replication.factor', '-1', replication_factor=0)
        fails(2, 'north', 'clusters', north_bootstrap_servers='127.0.0.1:1')
        fails(2, 'east->north.enabled', **{'east->north_enabled': 'true'})
        fails(2, 'east.security.protocol', 'SASL_SSL', east_security_protocol='TLS')
        fails(2, '/no/such/file', east_security_protocol='SSL', east_ssl_truststore_location='/no/such/file')
        fails(2, 'replication.policy.class', replication_policy_class='org.foo.Custom')
        fails(2, 'east.bootstrap.servers', east_bootstrap_servers='nonsense')
        fails(2, 'sundog.insecure', sundog_admin_listener='0.0.0.0:%d' % free_port())
        m = rig.mirror_at('west', 'bad')
        start_fails('sundog-mirror', [m.args[0], '--clusters', 'north'], 2, 'north', cwd=rig.dir)
        start_fails('sundog-mirror', [m.args[0], '--frobnicate'], 2, '--frobnicate', 'usage', cwd=rig.dir)
        start_fails('sundog-mirror', [m.args[0], 'second.properties'], 2, 'second.properties', 'usage', cwd=rig.dir)
        start_fails('sundog-mirror', [m.args[0], '--clusters'], 2, '--clusters', cwd=rig.dir)
        with socket.socket() as taken:
            taken.bind(('127.0.0.1', 0))
            taken.listen()
            fails(1, 'sundog.admin.listener', str(taken.getsockname()[1]), sundog_admin_listener='127.0.0.1:%d' % taken.getsockname()[1])


def a_mirror_waits_for_its_sites_and_goes_on():
    with Rig(flows=['east->west']) as rig:
        m = rig.mirrors['west']
        m.start(ready=False)
        wait('status page names the target while both sites are away', 60, lambda: (lambda code, text: code == 503 and 'west' in text)(*m.http('/healthz')))
        rig.brokers['west'].start()
        wait('healthy while only the source is away', 60, lambda: m.http('/healthz')[0] == 200)
        rig.brokers['east'].start()
        p = Producer({'bootstrap.servers': rig.bootstrap('east')})
        for i in range(100): p.produce('orders', b'%d' % i)
        assert p.flush(60) == 0
        wait('mirrored', 90, lambda: sum(end_offsets(rig.bootstrap('west'), 'east.orders').values()) == 100)
        assert m.stop() == 0, 'TERM ends with 0'
        assert all(b.stop() == 0 for b in rig.brokers.values())


def an_alias_that_points_at_another_cluster_is_refused():
    with Rig(sites=('east', 'west', 'north'), flows=['east->west']) as rig:
        for b in rig.brokers.values(): b.start()
        m = rig.mirrors['west'].start()
        p = Producer({'bootstrap.servers': rig.bootstrap('east')})
        p.produce('orders', b'x')
        assert p.flush(60) == 0
        wait('mirrored', 90, lambda: sum(end_offsets(rig.bootstrap('west'), 'east.orders').values()) == 1)
        m.stop()
        keys = open(os.path.join(rig.dir, 'west-mirror.properties')).read()
        with open(os.path.join(rig.dir, 'west-mirror.properties'), 'w') as f:
            f.write(keys.replace(rig.bootstrap('east'), rig.bootstrap('north')))
        m.start(ready=False)
        def told(): return [line for line in m.tail(1000).split('\n') if 'pinned' in line]
        wait('the mirror says so', 60, told)
        wait('and ends, or is not healthy', 60, lambda: (m.proc.poll() not in (None, 0)) or m.http('/healthz')[0] == 503)
        text = told()[0]
        assert 'east' in text and 'cluster' in text, text
        assert sum(end_offsets(rig.bootstrap('west'), 'east.orders').values()) == 1, 'nothing is written from the wrong cluster'


def the_command_line_names_the_thing_and_the_remedy():
    with Rig(sites=['east']) as rig:
        del rig.mirrors['east']
        rig.start()
        boot = rig.bootstrap('east')
        for args, code in ((['nonsense'], 2), (['topic', 'create'], 2), (['topic', 'describe', 'none', '--bootstrap', boot], 1),
                           (['topic', 'list', '--bootstrap', f'127.0.0.1:{free_port()}', '--timeout', '50'], 1),
                           (['topic', 'create', 'bad name', '--bootstrap', boot], 1),
                           (['--frobnicate'], 2), (['topic'], 2), (['topic', 'list', '--frobnicate', '--bootstrap', boot], 2),
                           (['topic', 'delete', 'none', '--bootstrap', boot], 1),
                           (['translate', '--group', 'g', '-c', 'missing.properties'], 2), (['status'], 2),
                           (['group', 'describe', 'none', '--bootstrap', boot], 1), (['dump', 'log', '/nowhere.log'], 1),
                           (['dump', 'store', '/nowhere'], 1), (['consume', 'none', '--bootstrap', boot], 1),
                           (['translate', '--store', rig.dir + '/nostore', '--flow', 'east->west', '--topic', 't', '--partition', '0', '--offset', '1'], 1)):
            r = rig.cli(*args, check=False)
            assert r.returncode == code or (code == 1 and r.returncode == 4), f'{args}: exit {r.returncode}, not {code}: {r.stderr}'
            assert 1 <= len(r.stderr.strip().split('\n')) <= 3 and r.stderr.strip(), f'{args}: {r.stderr!r}'
        for program in ('sundog', 'sundog-broker', 'sundog-mirror'):
            r = subprocess.run([os.path.join(BIN, program), '--version'], capture_output=True, text=True, timeout=30)
            assert r.returncode == 0 and r.stdout.startswith(program + ' ') and not r.stderr, r
            r = subprocess.run([os.path.join(BIN, program), '--help'], capture_output=True, text=True, timeout=30)
            assert r.returncode == 0 and r.stdout.startswith('usage: ' + program) and not r.stderr, r
        rig.cli('topic', 'create', 'orders', '--partitions', '2', '--bootstrap', boot)
        subprocess.run([os.path.join(BIN, 'sundog'), 'produce', 'orders', '--bootstrap', boot], input=b'a\nb\nc\n', check=True, timeout=60)
        r = rig.cli('consume', 'orders', '--bootstrap', boot, '--from-beginning', '--count', '3')
        assert sorted(r.stdout.split()) == ['a', 'b', 'c'], r.stdout
        admin = AdminClient({'bootstrap.servers': boot})
        admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions('g')])['g'].result(60)
        r = rig.cli('topic', 'delete', '__consumer_offsets', '--bootstrap', boot, check=False)
        assert r.returncode == 3 and 'internal' in r.stderr, f'an internal topic: exit {r.returncode}: {r.stderr}'
        d = rig.cli_json('topic', 'describe', 'orders', '--bootstrap', boot)
        assert sum(p['end_offset'] for p in d['partitions']) == 3, d


if __name__ == '__main__':
    sys.exit(run_cases([a_broker_says_what_is_wrong_with_its_file, a_broker_says_what_is_wrong_with_its_surroundings,
                        a_folder_that_may_not_be_read_is_named, keys_that_are_not_served_get_one_warning_each,
                        any_fetch_max_bytes_of_kafka_is_taken,
                        a_replication_factor_that_cannot_be_is_named, a_mirror_says_what_is_wrong_with_its_file, a_mirror_waits_for_its_sites_and_goes_on,
                        an_alias_that_points_at_another_cluster_is_refused, the_command_line_names_the_thing_and_the_remedy], sys.argv[1:]))
