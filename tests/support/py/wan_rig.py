"""Two sites with a long line between them: network namespaces east and west, and in the middle this process in a namespace of
its own, with tests/chaos/wan_link.c carrying every packet. Clients in this process reach both sites without the line.

Nothing has a name outside these namespaces: they, their devices and processes are gone with this process, however it ends."""
import concurrent.futures, ctypes, os, socket, subprocess, threading, time

from site_rig import BIN, die_with_parent

CLONE_NEWNET = 0x40000000
SITES = {'east': ('10.1.0.1', '10.1.0.254', 'A'), 'west': ('10.2.0.1', '10.2.0.254', 'B')}
WAYS = {'east': 'ab', 'west': 'ba'}  # the direction of what a site sends
_libc = ctypes.CDLL(None, use_errno=True)


def possible():
    """Why there can be no such line here, or None."""
    if os.geteuid() != 0 or not os.path.exists('/dev/net/tun'):
        return 'needs root and /dev/net/tun'
    if subprocess.run(['unshare', '-n', 'ip', 'tuntap', 'add', 'probe', 'mode', 'tun'], capture_output=True).returncode:
        return 'needs network namespaces and tun devices'
    return None


def sh(line):
    r = subprocess.run(line.split(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert r.returncode == 0, f'{line}: {r.stderr}'


def setting(key, value):
    with open('/proc/sys/net/' + key.replace('.', '/'), 'w') as f:
        f.write(str(value))


class Wan:
    """Leaves this process in a network namespace of its own for good. Call before there are threads."""

    def __init__(self, seed=1):
        assert threading.active_count() == 1, 'threads that exist already would stay outside'
        if _libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), 'unshare')
        self.children, self.pid = [], {}
        sh('ip link set lo up')
        setting('ipv4.ip_forward', 1)
        setting('ipv4.tcp_congestion_control', 'reno')
        for k in ('all', 'default'):
            setting(f'ipv4.conf.{k}.rp_filter', 0)
        for site in SITES:
            self.make_site(site)
        self.link = self.child([os.path.join(BIN, 'wan_link'), 'tunA', 'tunB', str(seed)])
        for n, (_, _, letter) in enumerate(SITES.values()):
            sh(f'ip link set tun{letter} up')
            setting(f'ipv4.conf.tun{letter}.rp_filter', 0)
            sh(f'ip rule add iif w{letter} lookup {101 + n}')
            sh(f'ip route add default dev tun{letter} table {101 + n}')

    def child(self, argv):
        p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, preexec_fn=die_with_parent)
        self.children.append(p)
        assert p.stdout.readline().strip() == 'ok', argv
        return p

    def make_site(self, site):
        address, gateway, letter = SITES[site]
        start = 'ip link set lo up; echo reno >/proc/sys/net/ipv4/tcp_congestion_control 2>/dev/null; echo ok; read forever'
        self.pid[site] = self.child(['unshare', '-n', 'sh', '-c', start]).pid
        enter = ' '.join(self.enter(site))
        sh(f'ip link add w{letter} type veth peer name v{letter} netns {self.pid[site]}')
        sh(f'ip addr add {gateway}/24 dev w{letter}')
        sh(f'ip link set w{letter} up')
        sh(f'{enter} ip addr add {address}/24 dev v{letter}')
        sh(f'{enter} ip link set v{letter} up')
        sh(f'{enter} ip route add default via {gateway}')

    def enter(self, site):
        return ['nsenter', f'--net=/proc/{self.pid[site]}/ns/net', '--']

    @property
    def places(self):
        return {site: (a[0], self.enter(site)) for site, a in SITES.items()}

    def inside(self, site, function):
        """Calls it on a thread inside the site; sockets that it makes stay there."""
        def run():
            with open(f'/proc/{self.pid[site]}/ns/net') as ns:
                assert _libc.setns(ns.fileno(), CLONE_NEWNET) == 0
            return function()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(run).result()

    def set(self, **settings):
        """Both ways: delay, jitter (ms, one way), loss, dup, reorder, corrupt (%), rate (KB/s), cut, reset (0 or 1)."""
        self.tell('both', settings)

    def set_from(self, site, **settings):
        """Only for what this site sends."""
        self.tell(WAYS[site], settings)

    def tell(self, way, settings):
        self.link.stdin.write(way + ''.join(f' {k}={float(v)}' for k, v in settings.items()) + '\n')
        answer = self.link.stdout.readline().strip()
        assert answer == 'ok', f'wan_link: {answer!r} to {way} {settings}'

    def counters(self):
        """{way: {taken, given, lost, resets, held}}"""
        self.link.stdin.write('stats\n')
        out, words = {}, self.link.stdout.readline().split()
        for w in words:
            if '=' in w:
                k, v = w.split('=')
                out[way][k] = int(v)
            else:
                way = w
                out[way] = {}
        return out

    def rtt(self, timeout=5):
        """Seconds of one connection from east to west: packets that miss the line have none."""
        server = self.inside('west', lambda: socket.create_server((SITES['west'][0], 0)))

        def connect():
            t = time.monotonic()
            with socket.create_connection(server.getsockname(), timeout):
                return time.monotonic() - t
        try:
            return self.inside('east', connect)
        finally:
            server.close()

    def close(self):
        for p in self.children:
            p.kill()
            p.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()
