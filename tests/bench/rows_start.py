"""Rows of a start, and of what a broker takes when nothing happens."""
import os, subprocess, time

from peers import Kafka
from sides import BIN, Ours, bench, cpu_of, drop_topic, make_topic, remove, rss_of


def first_ack(side, since, limit=90):
    """Milliseconds from `since` to the first acknowledged record; the client is started anew until it succeeds."""
    while time.monotonic() - since < limit:
        if subprocess.run([os.path.join(BIN, 'bench_raw'), 'first', side.bootstrap, 'first'], capture_output=True).returncode == 0:
            return round((time.monotonic() - since) * 1000, 1)
        time.sleep(0.001)
    raise AssertionError(f'no acknowledgement within {limit} s')


def restart(side, politely):
    side.stop(politely)
    since = time.monotonic()
    side.start()
    return first_ack(side, since)


def served(side, n):
    """Waits until the last of n partitions takes a record."""
    for _ in range(600):
        if subprocess.run([os.path.join(BIN, 'bench_many'), side.bootstrap, 'wide', str(n), '1', '5', '100', '0.5'], capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f'{n} partitions are not served')


def restarts(row, side, what, hows=('clean', 'killed')):
    for _ in range(row.rounds):
        for how in hows:
            row.add(side.name, f'{what} {how}', first_ack_ms=restart(side, how == 'clean'))


def load(side, gib=5):
    """As much as the row says, in four partitions; whoever needs the newest of it last in the page cache."""
    make_topic(side.bootstrap, 'load', 4)
    bench('rdk', 'produce', side.bootstrap, 'load', 4, 1024, gib * (1 << 20))


def drop_load(side):
    drop_topic(side.bootstrap, 'load')
    remove(side, 'load')


def with_sides(row, run, flushes=(False,)):
    for make in [Ours, Kafka] if row.peer else [Ours]:
        for flush in flushes:
            side = make(flush=flush)
            try:
                with side.awake():
                    make_topic(side.bootstrap, 'first', 1)
                    run(side, flush)
            finally:
                side.close()


def start(row):
    """exec to the first acknowledged record: after a clean stop, after kill -9"""
    with_sides(row, lambda side, _: restarts(row, side, 'small'))
    row.goal('small clean', 'first_ack_ms', most=50)
    row.goal('small killed', 'first_ack_ms', most=100)


def start_wide(row):
    """the same with 1,000 partitions"""
    def run(side, _):
        make_topic(side.bootstrap, 'wide', 1000)
        served(side, 1000)
        restarts(row, side, '1000 partitions')
    with_sides(row, run)
    row.goal('1000 partitions clean', 'first_ack_ms', most=150)
    row.goal('1000 partitions killed', 'first_ack_ms', most=300)


def start_full(row):
    """the same after kill -9 with 5 GiB in four partitions: written in page-cache mode, and flushed before each ack"""
    def run(side, flush):
        for n in range(row.rounds):
            if n:
                time.sleep(10)  # what a start has left to do is done
                drop_load(side)
            load(side)
            row.add(side.name, '5 GiB flushed' if flush else '5 GiB page cache', first_ack_ms=restart(side, False))
    with_sides(row, run, (True, False))
    row.goal('5 GiB flushed', 'first_ack_ms', most=500)
    row.goal('5 GiB page cache', 'first_ack_ms', most=500)


def memory(row):
    """RSS and CPU idle, RSS with 1,000 partitions, RSS after 5 GiB of load"""
    def run(side, _):
        for n in range(row.rounds):
            restart(side, True)
            time.sleep(30 if side.jvm else 2)
            before = cpu_of(side.pid)
            time.sleep(10)
            row.add(side.name, 'idle', cpu_percent=round((cpu_of(side.pid) - before) * 10, 3), rss_mib=rss_of(side.pid))
        make_topic(side.bootstrap, 'wide', 1000)
        served(side, 1000)
        for n in range(row.rounds):
            restart(side, True)
            served(side, 1000)
            row.add(side.name, '1000 partitions', rss_mib=rss_of(side.pid))
        drop_topic(side.bootstrap, 'wide')
        for n in range(row.rounds):
            if n:
                drop_load(side)
            restart(side, True)
            load(side)
            row.add(side.name, 'after 5 GiB', rss_mib=rss_of(side.pid))
    with_sides(row, run)
    row.goal('idle', 'rss_mib', most=24)
    row.goal('idle', 'cpu_percent', most=0.2)
    row.goal('1000 partitions', 'rss_mib', most=64)
    row.goal('after 5 GiB', 'rss_mib', most=64)


ROWS = {f.__name__: f for f in (start, start_wide, start_full, memory)}
