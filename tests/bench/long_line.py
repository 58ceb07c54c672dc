"""One partition over a line of 100 ms there and back, between null brokers in network namespaces of their own: one JSON
line for each place of the daemon. A program of its own, because it leaves the namespace it was started in.

The window is five requests of a batch of 1 MB; the share of window / RTT is what counts. The bare mirror (bench_copy) does
not stand beside it: it asks for one answer at a time. What one bare connection carries is measured first."""
import json, os, socket, subprocess, sys, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, '..', 'support', 'py')]

import wan_rig  # noqa: E402

RTT_MS, BATCH, REQUESTS, SECONDS, RECORD = 100, 1_000_000, 5, 6, 1024


def widen(wan):
    """The devices' queues of 500 packets would lose what slow start sends; sockets may hold more than the window."""
    for letter in 'AB':
        wan_rig.sh(f'ip link set tun{letter} txqueuelen 20000')
    for _, enter in wan.places.values():
        subprocess.run([*enter, 'sysctl', '-qw', 'net.ipv4.tcp_wmem=4096 16384 33554432'], check=True)


def bare(wan):
    """MB/s of one connection from east to west, in its third second."""
    got = [0]
    server = wan.inside('west', lambda: socket.create_server((wan_rig.SITES['west'][0], 0)))

    def read():
        with server, server.accept()[0] as s:
            while n := len(s.recv(1 << 20)):
                got[0] += n
    threading.Thread(target=read, daemon=True).start()
    with wan.inside('east', lambda: socket.create_connection(server.getsockname(), 5)) as s:
        begin, block, at = time.monotonic(), bytes(1 << 18), None
        while time.monotonic() - begin < 3:
            s.sendall(block)
            if not at and time.monotonic() - begin >= 2:
                at = time.monotonic(), got[0]
        return round((got[0] - at[1]) / (time.monotonic() - at[0]) / 1e6, 1)


def measure(wan, place):
    """Bytes per second of the daemon at `place`."""
    from rows_batch import ALONE, bench, null
    from site_rig import Rig, free_port
    wan.set(delay=0)
    ports = {site: free_port() for site in wan.places}
    brokers = [null(ports[site], 1, RECORD, 0, BATCH, role, topic, *wan.places[site])
               for site, role, topic in (('east', 'source', 'load'), ('west', 'target', 'east.load'))]
    time.sleep(0.3)
    with Rig(places=wan.places, flows=[], bootstrap={s: f'{wan.places[s][0]}:{p}' for s, p in ports.items()}) as rig:
        host, enter = wan.places[place]
        daemon = rig.mirror_at('west', 'long', {**ALONE, 'topics': 'load', 'sundog.admin.listener': f'{host}:{free_port()}'}, ['east->west'])
        rig.mirrors['long'], daemon.enter = daemon, enter
        wan.set(delay=RTT_MS / 2)
        daemon.start(ready=False)
        ends = lambda n: bench('raw', 'ends', rig.bootstrap('west'), 'east.load', 1, n)['records']
        ends(20_000)  # slow start is over
        time.sleep(1)
        t, n = time.monotonic(), ends(0)
        time.sleep(SECONDS)
        rate = (ends(0) - n) / (time.monotonic() - t)
        lost = sum(w['lost'] for w in wan.counters().values())
    for b in brokers:
        b.kill()
        b.wait()
    return rate * RECORD, lost


def main():
    with wan_rig.Wan() as wan:  # before there are threads
        widen(wan)
        wan.set(delay=RTT_MS / 2)
        print(json.dumps(dict(side='line', what='bare connection', mb_per_s=bare(wan))), flush=True)
        for place, what in (('west', 'daemon at the target'), ('east', 'daemon at the source')):
            rate, lost = measure(wan, place)
            window = REQUESTS * BATCH / (RTT_MS / 1000)
            print(json.dumps(dict(what=what, mb_per_s=round(rate / 1e6, 1), of_window=round(rate / window, 3), packets_lost=lost)), flush=True)


if __name__ == '__main__':
    main()
