"""A proxy between a mirror and a broker that understands as much of Kafka's frames as it needs to cut a connection at one byte:
of the next request of one API, or of the answer to it."""
import asyncio, collections, socket, struct, threading

from site_rig import free_port


PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH, FIND, LIST_GROUPS = 0, 1, 2, 3, 8, 9, 10, 16
API_VERSIONS, INIT_PRODUCER, LEADER_EPOCH, DESCRIBE_CONFIGS, DESCRIBE_PRODUCERS = 18, 22, 23, 32, 61

REQUEST, ANSWER = 'request', 'answer'


class Order:
    """Cut the next frame of one kind, (api, way, with or without the marker), at byte `at`, or at that part of it where `at` is a
    fraction. A frame too short for it passes."""

    def __init__(self, kind, at):
        self.kind, self.at, self.done, self.cut = kind, at, threading.Event(), None

    def wants(self, kind, size):
        if kind != self.kind:
            return None
        at = int(self.at * size) if isinstance(self.at, float) else self.at
        return at if at < size else None


class Cutter(threading.Thread):
    """Listens at `port`, which the broker advertises, and passes on to `upstream`. One order at a time. A frame is of another kind
    where it, or what it answers, has `marker` in it."""

    def __init__(self, upstream, marker):
        super().__init__(daemon=True)
        self.upstream, self.marker, self.order, self.cuts = upstream, marker, None, 0
        self.smallest = {}  # kind: bytes of the smallest frame that went by
        self.loop, self.pairs, self.up = asyncio.new_event_loop(), set(), threading.Event()
        self.port = None
        self.start()
        assert self.up.wait(10), 'the proxy does not listen'

    def run(self):
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.listen())
        self.up.set()
        self.loop.run_forever()

    async def listen(self):
        for _ in range(20):
            try:
                port = free_port()
                self.server = await asyncio.start_server(self.serve, '127.0.0.1', port)
                self.port = port
                return
            except OSError:
                continue

    async def serve(self, reader, writer):
        try:
            there_reader, there_writer = await asyncio.open_connection('127.0.0.1', self.upstream)
        except OSError:
            writer.close()
            return
        pair = (writer, there_writer)
        self.pairs.add(pair)
        asked = collections.OrderedDict()  # correlation id: (api, the request)
        try:
            await asyncio.gather(self.requests(reader, there_writer, asked, pair), self.answers(there_reader, writer, asked, pair))
        except (OSError, asyncio.IncompleteReadError):
            pass
        self.end(pair)

    def end(self, pair, reset=False):
        self.pairs.discard(pair)
        for w in pair:
            s = w.get_extra_info('socket')
            if reset and s and s.fileno() >= 0:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            w.close()

    @staticmethod
    async def frame(reader):
        size = await reader.readexactly(4)
        return size + await reader.readexactly(struct.unpack('>i', size)[0])

    async def pass_on(self, api, way, frame, asked, writer, pair):
        kind = api, way, self.marker in frame or self.marker in asked
        self.smallest[kind] = min(self.smallest.get(kind, 1 << 30), len(frame))
        order = self.order
        at = order.wants(kind, len(frame)) if order else None
        writer.write(frame if at is None else frame[:at])
        await writer.drain()
        if at is None:
            return
        self.order, self.cuts = None, self.cuts + 1
        self.end(pair, reset=self.cuts % 2 == 0)
        order.cut = (at, len(frame))
        order.done.set()
        raise ConnectionResetError

    async def requests(self, reader, writer, asked, pair):
        while True:
            frame = await self.frame(reader)
            api, _, correlation = struct.unpack_from('>hhi', frame, 4)
            asked[correlation] = api, frame
            await self.pass_on(api, REQUEST, frame, b'', writer, pair)

    async def answers(self, reader, writer, asked, pair):
        while True:
            frame = await self.frame(reader)
            api, request = asked.pop(struct.unpack_from('>i', frame, 4)[0])
            await self.pass_on(api, ANSWER, frame, request, writer, pair)

    def arm(self, kind, at):
        order = Order(kind, at)
        self.loop.call_soon_threadsafe(setattr, self, 'order', order)
        return order

    def kick(self):
        """Ends every connection there is."""
        self.loop.call_soon_threadsafe(lambda: [self.end(p) for p in list(self.pairs)])

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.join(5)
