"""Rows of one broker: throughput, CPU, latency, counts."""
import tempfile, time

from peers import kafka
from sides import Null, Ours, alternate, bench, fresh, make_topic, pick, touch_pages, with_cpu

LATENCIES = ('p50_us', 'p99_us', 'p999_us')


def sides(row, **how):
    return [Ours(**how), kafka(**how)] if row.peer else [Ours(**how)]


def produce(row):
    """broker CPU-s per GB, librdkafka's producer, 100 B and 1 KiB in 1 MB batches, page cache"""
    def measure(side, add):
        for size, count in ((100, 6_000_000), (1024, 1_500_000)):
            with fresh(side, 4, gib=2) as topic:
                got = with_cpu(side, lambda: bench('rdk', 'produce', side.bootstrap, topic, 4, size, count))
                add(f'{size} B', **pick(got, 'broker_cpu_s_per_gb', 'records_per_s'))
    alternate(row, sides(row), measure)
    for size in (100, 1024):
        row.goal(f'{size} B', 'broker_cpu_s_per_gb', most=0.5, of='kafka')


def raw(row):
    """broker CPU-s per GB and MB/s, raw batches of 16 KB, 64 KB, 1 MB, one connection, 5 in flight, page cache"""
    def measure(side, add):
        for batch in (16_000, 64_000, 1_000_000):
            with fresh(side, 4, gib=2) as topic:
                got = with_cpu(side, lambda: bench('raw', 'produce', side.bootstrap, topic, 4, batch, 100, 1500))
                add(f'{batch} B', **pick(got, 'broker_cpu_s_per_gb', 'mb_per_s'))
    alternate(row, sides(row), measure)
    for batch in (16_000, 64_000):
        row.goal(f'{batch} B', 'broker_cpu_s_per_gb', most=0.25, of='kafka')
        row.goal(f'{batch} B', 'mb_per_s', least=4, of='kafka')


def fetch(row):
    """broker CPU-s per GB: raw fetches of 1 MiB, librdkafka's consumer at 100 B and 1 KiB"""
    all_sides = sides(row)
    for side in all_sides:
        with side.awake():
            for size, count in ((100, 6_000_000), (1024, 1_500_000)):
                make_topic(side.bootstrap, f'read{size}', 4)
                bench('rdk', 'produce', side.bootstrap, f'read{size}', 4, size, count)

    def measure(side, add):
        for size, count in ((100, 6_000_000), (1024, 1_500_000)):
            got = with_cpu(side, lambda: bench('rdk', 'consume', side.bootstrap, f'read{size}', 4, count))
            add(f'librdkafka {size} B', **pick(got, 'broker_cpu_s_per_gb', 'records_per_s'))
        got = with_cpu(side, lambda: bench('raw', 'fetch', side.bootstrap, 'read1024', 4, 1 << 20, 2))
        add('raw 1 MiB', **pick(got, 'broker_cpu_s_per_gb', 'mb_per_s'))
    alternate(row, all_sides, measure)
    for what in ('raw 1 MiB', 'librdkafka 100 B', 'librdkafka 1024 B'):
        row.goal(what, 'broker_cpu_s_per_gb', most=0.667, of='kafka')


def client(row):
    """records per second of one librdkafka client at 100 B, beside the null broker"""
    def measure(side, add):
        with fresh(side, 4) as topic:
            got = bench('rdk', 'produce', side.bootstrap, topic, 4, 100, 6_000_000)
            add('produce', **pick(got, 'records_per_s', 'client_cpu_s'))
            got = bench('rdk', 'consume', side.bootstrap, topic, 4, 6_000_000)
            add('consume', **pick(got, 'records_per_s', 'client_cpu_s'))
    alternate(row, [*sides(row), Null()], measure)
    for what in ('produce', 'consume'):
        row.goal(what, 'records_per_s', least=0.95, of='null')


def ack(row):
    """ack latency, 1 KiB, one in flight, page cache"""
    def measure(side, add):
        with fresh(side, 1) as topic:
            add('one in flight', **pick(bench('raw', 'ack', side.bootstrap, topic, 1024, 20000), *LATENCIES))
    alternate(row, sides(row), measure)
    for metric in ('p50_us', 'p99_us'):
        row.goal('one in flight', metric, most=0.8, of='kafka')


def paced(row):
    """ack latency, 1 KiB at 10,000 records/s (open loop), 1 and 4 partitions, page cache"""
    def measure(side, add):
        for partitions in (1, 4):
            with fresh(side, partitions) as topic:
                got = bench('many', side.bootstrap, topic, partitions, 1, 1, 1024, 10, 10000)
                add(f'{partitions} partitions', **pick(got, *LATENCIES))
    alternate(row, sides(row), measure)
    for partitions in (1, 4):
        for metric in ('p99_us', 'p999_us'):
            row.goal(f'{partitions} partitions', metric, most=0.1, of='kafka')


def fsync(row):
    """ack latency, 1 KiB, fsync before the ack on both sides: one in flight, 1,000 records/s, beside the bare disk"""
    def measure(side, add):
        with fresh(side, 1) as topic:
            add('one in flight', **pick(bench('raw', 'ack', side.bootstrap, topic, 1024, 10000), *LATENCIES))
            add('1000/s', **pick(bench('many', side.bootstrap, topic, 1, 1, 1, 1024, 10, 1000), *LATENCIES))
        if side.name == 'sundog':
            with tempfile.TemporaryDirectory(prefix='sundog-bench-disk-') as folder:
                for what, rate in (('one in flight', 0), ('1000/s', 1000)):
                    got = bench('disk', folder, 'room', 1024, 4.5, rate)
                    for room, name in (('append', 'disk'), ('reserved', 'disk_reserved'), ('written', 'disk_written')):
                        row.add(name, what, **pick(got[room], *LATENCIES))
    alternate(row, sides(row, flush=True), measure)
    row.goal('one in flight', 'p50_us', most=1, of='kafka')
    row.goal('one in flight', 'p99_us', most=0.5, of='kafka')
    row.goal('1000/s', 'p99_us', most=0.1, of='kafka')
    for metric in LATENCIES[:2]:
        row.goal('one in flight', metric, most=2, of='disk')


def group_commit(row):
    """acks per second of 64 producers, one 4 KiB record in flight each, fsync before the ack, beside the bare disk"""
    ours = sides(row, flush=True)
    writers = (1, 4, 16, 64)

    def measure(side, add):
        for n in writers:
            with fresh(side, 1) as topic:
                add(f'{n} producers', **pick(bench('many', side.bootstrap, topic, 1, n, 1, 4096, 4), 'acks_per_s', 'p50_us', 'p99_us'))
        if side.name == 'sundog':
            with tempfile.TemporaryDirectory(prefix='sundog-bench-disk-') as folder:
                for n in writers:
                    got = bench('disk', folder, n, 4096, 3)
                    row.add('disk', f'{n} producers', acks_per_s=got['commits_per_s'], syncs_per_s=got['syncs_per_s'])
    alternate(row, ours, measure)
    for n in writers:
        row.goal(f'{n} producers', 'acks_per_s', least=0.5, of='disk')


def counts(row):
    """acks per second at 1, 100, 10,000 partitions and connections, page cache, as ratios to the null broker at the same counts;
    steady state, into pages that the machine has: beside it, without a goal, the making of the partitions, the first records
    of each, and what a bare program pays to append to so many files (the null broker has none)"""
    kinds = [('partitions', 16_000, lambda n: (n, 1, 5)), ('connections', 1024, lambda n: (1, n, 1))]

    def measure(side, add):
        for kind, size, shape in kinds:
            for n in (1, 100, 10_000):
                partitions, connections, inflight = shape(n)
                began = time.monotonic()
                with fresh(side, partitions) as topic:
                    if partitions > 1000:
                        made = time.monotonic() - began
                        got = with_cpu(side, lambda: bench('many', side.bootstrap, topic, partitions, connections, inflight, 100, 4))
                        add(f'{n} {kind}, first records', made_s=round(made, 2), acks_per_s=got['acks_per_s'], records_each=got['acks'] // partitions,
                            broker_cpu_us_per_ack=round(got['broker_cpu_s'] / got['acks'] * 1e6, 2))
                    touch_pages(3)
                    got = with_cpu(side, lambda: bench('many', side.bootstrap, topic, partitions, connections, inflight, size, 4))
                    add(f'{n} {kind}', acks_per_s=got['acks_per_s'], broker_cpu_us_per_ack=round(got['broker_cpu_s'] / got['acks'] * 1e6, 2))
        if side.name == 'sundog':
            for n in (1, 100, 10_000):
                with tempfile.TemporaryDirectory(prefix='sundog-bench-disk-') as folder:
                    touch_pages(3)
                    row.add('disk', f'{n} partitions', **pick(bench('disk', folder, 'files', 16_000, 1, n), 'appends_per_s', 'cpu_us_per_append'))
    alternate(row, [Ours(), Null()], measure)
    for kind, _, _ in kinds:
        for n in (1, 100, 10_000):
            of = row.median('null', f'{n} {kind}', 'acks_per_s')
            row.add('of_null', f'{n} {kind}', acks_per_s=round(row.median('sundog', f'{n} {kind}', 'acks_per_s') / of, 3))
        for n in (100, 10_000):
            row.goal(f'{n} {kind}', 'acks_per_s', least=0.8, side='of_null', of_what=f'1 {kind}')


ROWS = {f.__name__: f for f in (produce, raw, fetch, client, ack, paced, fsync, group_commit, counts)}
