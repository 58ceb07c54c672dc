"""TLS and SASL between our mirror and an Apache Kafka with each of them: both engines' clients and the appender, both ways.

One node has a listener for each way in; its certificates are made on the spot."""
import base64, json, os, shutil, ssl, subprocess, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from peers import KAFKA, ApacheKafka, complete, fill
from site_rig import Late, Rig, free_port, run_cases, wait

STORE_PASSWORD = 'store-word'
JAAS = 'org.apache.kafka.common.security'


def openssl(folder, *args):
    subprocess.run(['openssl', *args], cwd=folder, check=True, capture_output=True, stdin=subprocess.DEVNULL)


def issue(folder, name, alt):
    openssl(folder, 'req', '-new', '-newkey', 'rsa:2048', '-nodes', '-keyout', f'{name}.key', '-out', f'{name}.csr', '-subj', f'/CN={name}')
    with open(os.path.join(folder, f'{name}.ext'), 'w') as f:
        f.write(f'subjectAltName={alt}\n')
    openssl(folder, 'x509', '-req', '-in', f'{name}.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2',
            '-extfile', f'{name}.ext', '-out', f'{name}.crt')
    openssl(folder, 'pkcs12', '-export', '-in', f'{name}.crt', '-inkey', f'{name}.key', '-name', name, '-out', f'{name}.p12',
            '-passout', f'pass:{STORE_PASSWORD}')


def authorities(folder):
    for name in ('ca', 'stranger'):
        openssl(folder, 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', f'{name}.key', '-out', f'{name}.pem', '-days', '2', '-subj', f'/CN={name}')
    issue(folder, 'broker', 'IP:127.0.0.1,DNS:localhost')
    issue(folder, 'elsewhere', 'DNS:elsewhere')
    issue(folder, 'mirror', 'DNS:mirror')
    with open(os.path.join(folder, 'broker.crt')) as a, open(os.path.join(folder, 'ca.pem')) as b, open(os.path.join(folder, 'trust.pem'), 'w') as out:
        out.write(b.read())
    subprocess.run(['keytool', '-importcert', '-noprompt', '-alias', 'ca', '-file', 'ca.pem', '-keystore', 'trust.p12', '-storetype', 'PKCS12',
                    '-storepass', STORE_PASSWORD], cwd=folder, check=True, capture_output=True)


def token(lifetime=3600):
    """An unsecured one: Kafka takes them where no validator is configured."""
    def part(x): return base64.urlsafe_b64encode(json.dumps(x).encode()).rstrip(b'=').decode()
    return f'{part({"alg": "none"})}.{part({"sub": "ann", "iat": int(time.time()) - 5, "exp": int(time.time()) + lifetime})}.'


class Endpoint(BaseHTTPRequestHandler):
    """Gives tokens to ann, over TLS."""
    asked = 0

    def do_POST(self):
        who = base64.b64decode(self.headers['Authorization'].split()[1]).decode()
        form = self.rfile.read(int(self.headers['Content-Length'])).decode()
        Endpoint.asked += 1
        good = who == 'ann:open:sesame' and form == 'grant_type=client_credentials&scope=logs%20all'
        body = json.dumps({'access_token': token(), 'expires_in': 60, 'token_type': 'bearer'} if good else {'error': 'invalid_client'}).encode()
        self.send_response(200 if good else 401)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def endpoint(folder):
    server = ThreadingHTTPServer(('127.0.0.1', 0), Endpoint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(folder, 'broker.crt'), os.path.join(folder, 'broker.key'))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f'https://127.0.0.1:{server.server_address[1]}/token'


class Secured(ApacheKafka):
    """Apache Kafka with SSL (client certificate asked for), SASL_PLAINTEXT and SASL_SSL beside PLAINTEXT."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix='sundog-keys-')
        authorities(self.folder)
        super().__init__(self.keys)
        for mechanism in ('SCRAM-SHA-256', 'SCRAM-SHA-512'):
            subprocess.run([KAFKA, 'tool', 'configs', '--bootstrap-server', self.bootstrap, '--alter', '--entity-type', 'users',
                            '--entity-name', 'ann', '--add-config', f'{mechanism}=[password=open sesame]'], check=True, capture_output=True)

    def keys(self, port):
        self.ssl, self.sasl, self.both = free_port(), free_port(), free_port()
        here = {'PLAINTEXT': port, 'SSL': self.ssl, 'SASL_PLAINTEXT': self.sasl, 'SASL_SSL': self.both}
        listeners = ','.join(f'{name}://127.0.0.1:{at}' for name, at in here.items())
        keys = {'listeners': f'{listeners},CONTROLLER://127.0.0.1:{port + 1}', 'advertised.listeners': listeners,
                'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,' + ','.join(f'{n}:{n}' for n in here),
                'inter.broker.listener.name': 'PLAINTEXT', 'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER',
                'ssl.keystore.location': os.path.join(self.folder, 'broker.p12'), 'ssl.keystore.password': STORE_PASSWORD,
                'ssl.key.password': STORE_PASSWORD, 'ssl.keystore.type': 'PKCS12',
                'ssl.truststore.location': os.path.join(self.folder, 'trust.p12'), 'ssl.truststore.password': STORE_PASSWORD,
                'ssl.truststore.type': 'PKCS12', 'listener.name.ssl.ssl.client.auth': 'required'}
        for name in ('sasl_plaintext', 'sasl_ssl'):
            keys[f'listener.name.{name}.plain.sasl.jaas.config'] = f'{JAAS}.plain.PlainLoginModule required user_ann="open sesame";'
            for m in ('scram-sha-256', 'scram-sha-512'):
                keys[f'listener.name.{name}.{m}.sasl.jaas.config'] = f'{JAAS}.scram.ScramLoginModule required;'
            keys[f'listener.name.{name}.oauthbearer.sasl.jaas.config'] = f'{JAAS}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
            keys[f'listener.name.{name}.connections.max.reauth.ms'] = '3000'
        return [f'{k}={v}' for k, v in keys.items()]

    def file(self, name):
        return os.path.join(self.folder, name)

    def login(self, protocol, mechanism, word='open sesame'):
        module = 'plain.PlainLoginModule' if mechanism == 'PLAIN' else 'scram.ScramLoginModule'
        return {'east.security.protocol': protocol, 'east.sasl.mechanism': mechanism,
                'east.sasl.jaas.config': f'{JAAS}.{module} required username="ann" password="{word}";'}

    def __exit__(self, *_):
        super().__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)


def both_ways(east, port, name, keys):
    """Records from the secured cluster to ours, and back through the appender."""
    with Rig(bootstrap={'east': f'127.0.0.1:{port}'}, mirror={**keys, 'topics': f'{name}.*'}) as rig:
        fill(east.bootstrap, f'{name}-out', 500)
        rig.start()
        west = rig.bootstrap('west')
        fill(west, f'{name}-in', 500)
        complete(east.bootstrap, west, f'{name}-out', f'east.{name}-out')
        complete(west, east.bootstrap, f'{name}-in', f'west.{name}-in')
        shown = rig.cli('-c', 'west-mirror.properties', '--cluster', 'east', 'topic', 'list').stdout
        assert f'west.{name}-in' in shown, shown
        return rig.mirrors['west'].tail(50)


def each_way_in():
    begin = time.monotonic()
    with Secured() as east:
        trust = {'east.ssl.truststore.location': east.file('trust.pem')}
        java = {'east.ssl.truststore.location': east.file('trust.p12'), 'east.ssl.truststore.password': STORE_PASSWORD,
                'east.ssl.truststore.type': 'PKCS12'}
        mutual = {'east.security.protocol': 'SSL', 'east.ssl.keystore.location': east.file('mirror.p12'),
                  'east.ssl.keystore.password': STORE_PASSWORD, **java}
        bearer = {'east.security.protocol': 'SASL_SSL', 'east.sasl.mechanism': 'OAUTHBEARER',
                  'east.sasl.oauthbearer.token.endpoint.url': 'file://' + east.file('token'), **trust}
        with open(east.file('token'), 'w') as f:
            f.write(token() + '\n')
        url = endpoint(east.folder)
        asked = {**bearer, 'east.sasl.oauthbearer.token.endpoint.url': url, 'east.sasl.oauthbearer.scope': 'logs all',
                 'east.sasl.oauthbearer.client.credentials.client.id': 'ann'}
        secret = 'east.sasl.oauthbearer.client.credentials.client.secret'
        work = [(both_ways, east, east.ssl, 'mutual', mutual),
                (both_ways, east, east.sasl, 'plain', east.login('SASL_PLAINTEXT', 'PLAIN')),
                (both_ways, east, east.both, 'scram256', {**east.login('SASL_SSL', 'SCRAM-SHA-256'), **trust}),
                (both_ways, east, east.both, 'scram512', {**east.login('SASL_SSL', 'SCRAM-SHA-512'), **java}),
                (both_ways, east, east.both, 'bearer', bearer),
                (both_ways, east, east.both, 'asked', {**asked, secret: 'open:sesame'}),
                (it_is_one_clear_line, east.both, {**asked, secret: 'wrong'}, 'answers 401'),
                (sessions_end_and_nothing_is_lost, east, {**east.login('SASL_SSL', 'SCRAM-SHA-256'), **trust}),
                *wrong(east, trust)]
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(*w) for w in work]:
                done.result()
        took = time.monotonic() - begin
        print(f'{Endpoint.asked} tokens asked for in {took:.0f} s', flush=True)
        assert Endpoint.asked < 20 + took / 12, f'{Endpoint.asked} tokens were asked for: they are not kept'


def sessions_end_and_nothing_is_lost(east, keys):
    """The broker ends every session after 3 s; the mirror goes on for several of them."""
    with Rig(bootstrap={'east': f'127.0.0.1:{east.both}'}, mirror={**keys, 'topics': 'long.*'}) as rig:
        rig.start()
        fill(east.bootstrap, 'long', 1)
        fill(rig.bootstrap('west'), 'longback', 1)
        for _ in range(8):
            time.sleep(1)
            more(east.bootstrap, 'long')
            more(rig.bootstrap('west'), 'longback')
        complete(east.bootstrap, rig.bootstrap('west'), 'long', 'east.long')
        complete(rig.bootstrap('west'), east.bootstrap, 'longback', 'west.longback')


def more(bootstrap, topic):
    from confluent_kafka import Producer
    p = Producer({'bootstrap.servers': bootstrap})
    for i in range(50): p.produce(topic, b'm%d' % i, b'k%d' % i)
    assert p.flush(60) == 0


def wrong(east, trust):
    cases = [
        (east.both, {**east.login('SASL_SSL', 'PLAIN', 'wrong'), **trust}, 'Invalid username or password'),
        (east.both, {**east.login('SASL_SSL', 'SCRAM-SHA-256', 'wrong'), **trust}, 'SASL_AUTHENTICATION_FAILED'),
        (east.both, {**east.login('SASL_SSL', 'PLAIN'), 'east.ssl.truststore.location': east.file('stranger.pem')}, 'not trusted'),
        (east.ssl, {'east.security.protocol': 'SSL', **trust}, 'certificate'),
        (east.port, {'east.security.protocol': 'SSL', **trust}, 'TLS'),
    ]
    return [(it_is_one_clear_line, *c) for c in cases]


def it_is_one_clear_line(port, keys, says):
    with Rig(bootstrap={'east': f'127.0.0.1:{port}'}, mirror=keys, flows=['east->west']) as rig:
        del rig.mirrors['east']
        rig.brokers['west'].start()
        rig.mirrors['west'].start(ready=False)
        wait(f'the log says "{says}"', 90, lambda: says in rig.mirrors['west'].tail(1000))
        start = time.monotonic()
        r = rig.cli('-c', 'west-mirror.properties', '--cluster', 'east', '--timeout', '100', 'topic', 'list', check=False, timeout=150)
        assert r.returncode == 1 and says in r.stderr, (r.returncode, r.stderr)
        assert r.stderr.count('\n') <= 3, r.stderr
        if time.monotonic() - start > 50:  # of the 100 that it may try for
            raise Late(f'{r.stderr}after {time.monotonic() - start:.0f} s')


if __name__ == '__main__':
    sys.exit(run_cases([each_way_in], sys.argv[1:]))
