"""Writes what clients did and saw, for tests/chaos/check: JSON lines, described in tests/chaos/CHECKER.md.

Any thread may write; rows are gathered and leave in lines of at most ROWS. Standard library only."""
import json, os, subprocess, sys, threading, time, zlib

ROWS = 2000
CHECK = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'chaos', 'check')


def now():
    """Microseconds of this machine's monotonic clock: the one clock of a history."""
    return time.monotonic_ns() // 1000


def crc(key, value):
    """Of key and value as they travel; None for a tombstone."""
    return None if value is None else zlib.crc32(value, zlib.crc32(key or b''))


def headers_crc(headers):
    return zlib.crc32(repr(tuple(headers)).encode()) if headers else 0


def text(key):
    return None if key is None else key.decode('latin-1')


class History:
    def __init__(self, path):
        self.path, self.file, self.lock, self.sends = path, open(path, 'w'), threading.Lock(), {}
        self.topics = set()  # of which it holds anything

    def event(self, op, **fields):
        line = json.dumps({'op': op, **fields}, separators=(',', ':')) + '\n'
        with self.lock:
            if self.file.closed:
                return  # by a thread that a failed case has left behind
            self.topics.add(fields.get('topic'))
            self.file.write(line)

    def send(self, topic, writer, row):
        """row: (sequence, partition, offset, t0, t1, err, key, crc), when the send has come to its end."""
        with self.lock:
            rows = self.sends.setdefault((topic, writer), [])
            rows.append(row)
            if len(rows) < ROWS:
                return
            self.sends[topic, writer] = []
        self.event('send', topic=topic, writer=writer, rows=rows)

    def polls(self, reader, topic, partition, t0, t1, rows, seek=None, **more):
        """What one reader got: rows of (offset, writer, sequence, key, crc, timestamp, headers_crc); `seek` is the offset it
        was set to before."""
        for i in range(0, max(len(rows), 1), ROWS):
            self.event('poll', reader=reader, topic=topic, partition=partition, t0=t0, t1=t1, seek=seek, rows=rows[i:i + ROWS], **more)
            seek = None

    def flush(self):
        with self.lock:
            sends, self.sends = self.sends, {}
        for (topic, writer), rows in sends.items():
            if rows:
                self.event('send', topic=topic, writer=writer, rows=rows)
        with self.lock:
            if not self.file.closed:
                self.file.flush()

    def check(self, must=''):
        """What the checker counted and held; AssertionError with its witnesses when a rule is violated, when nothing was decided;
        Late when one of `must` (names with blanks between) had nothing to judge. The counts go to the file of SUNDOG_JUDGED too."""
        self.flush()
        start = time.monotonic()
        args = ['--must', ','.join(must.split())] if must else []
        r = subprocess.run([sys.executable, CHECK, *args, self.path], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        if 'nothing was there to judge' in r.stdout:
            from site_rig import Late  # which stands on this
            raise Late(f'too little was done: {r.stdout}')
        assert r.returncode == 0, f'tests/chaos/check {self.path}: exit {r.returncode}\n{r.stdout}{r.stderr}'
        lines = r.stdout.strip().split('\n')
        if os.environ.get('SUNDOG_JUDGED'):
            with open(os.environ['SUNDOG_JUDGED'], 'a') as f:
                f.write(lines[1] + '\n')
        return f'{lines[0]}: {lines[-1]} ({time.monotonic() - start:.1f} s)'

    def close(self):
        self.flush()
        self.file.close()
