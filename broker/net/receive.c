/* Bytes to frames. Record bytes stay where they are received: a request with records holds a reference on the buffer.
 *
 * A connection without an open frame owns no memory: it reads into the shard's spare buffer, behind what requests
 * already hold of it. When a frame is cut by the end of what has arrived, up to STASH_MAX bytes are copied out between
 * turns (many idle connections must not hold a buffer each), more keep the buffer. A frame that does not fit gets one
 * of its own, whose size the connection has earned: by frames of that size that were complete, or by bytes that
 * came. */
#include "broker/net/internal.h"

#include "base/core/bytes.h"
#include "base/runtime/log.h"

#include <stdlib.h>

/* Small frames without records are copied, so that a parked request does not hold a large buffer. */
#define COPY_MAX       ((size_t)16 << 10)
#define STASH_MAX      ((size_t)16 << 10)
#define READS_PER_TURN 4
#define ROOM_MIN       ((size_t)32 << 10)
#define HEADER_BYTES   8 /* key, version, correlation id: no frame is shorter */

static size_t have(const struct connection *c)
{
    assert(c->end >= c->at);
    return c->end - c->at;
}

size_t receive_frame_bytes(const struct connection *c)
{
    return c->stash_n + have(c);
}

/* Size of the open frame with its prefix; 0 when that is not known yet. */
static size_t open_frame_bytes(const struct connection *c)
{
    return have(c) < FRAME_SIZE_BYTES ? 0 : FRAME_SIZE_BYTES + (size_t)be32_get(c->in->bytes + c->at);
}

static void give_back(struct connection *c)
{
    struct net_server *s = c->server;
    assert(c->at <= c->end);
    assert(c->in->used <= c->end);
    assert(c->end <= c->in->cap);
    c->in->used = c->end;
    if (!s->spare && c->in->cap == NET_BUFFER_BYTES)
        s->spare = c->in;
    else
        net_buffer_unref(c->in);
    c->in = NULL;
    c->at = c->end = 0;
}

/* The spare buffer, or a fresh one of its size. */
static struct net_buffer *take_spare(struct net_server *s)
{
    struct net_buffer *b = s->spare;
    s->spare = NULL;
    assert(!b || (b->refs > 0 && b->cap == NET_BUFFER_BYTES));
    if (b && b->refs == 1)
        b->used = 0; /* nobody looks at its bytes any more */
    if (b && b->cap - b->used >= ROOM_MIN + STASH_MAX)
        return b;
    if (b)
        net_buffer_unref(b);
    return net_buffer_take(&s->buffers, NET_BUFFER_BYTES);
}

/* When no request holds received bytes nothing would ever give them back (a parked Fetch does not): one connection at
 * a time is let on to the end of its frame. */
static bool favour(struct connection *c)
{
    struct net_server *s = c->server;
    assert(!s->favoured || s->favoured->socket);
    if (s->favoured)
        return s->favoured == c;
    if (s->holding_n > 0)
        return false;
    s->favoured = c;
    return true;
}

static void drop_stash(struct connection *c)
{
    assert(c->stash_n <= STASH_MAX);
    assert((c->stash || c->stash_n == 0));
    shard_memory_give(c->server->shard, c->stash_n);
    free(c->stash);
    c->stash = NULL;
    c->stash_n = 0;
    c->stash_whole = false;
}

static void unfavour(struct connection *c)
{
    if (c->server->favoured == c)
        c->server->favoured = NULL;
}

bool receive_may(const struct connection *c)
{
    return server_memory_has(c->server, c->starved_bytes, c->starved_eighths);
}

static bool may_take(struct connection *c, size_t size, unsigned eighths)
{
    assert(size > 0);
    assert(eighths >= MEMORY_BEGIN);
    assert(eighths <= MEMORY_SMALL);
    c->starved_bytes = size;
    c->starved_eighths = eighths;
    return receive_may(c) || favour(c);
}

/* When memory is short a small frame is read into the spare buffer, and what has come of it is put away. */
static bool begin(struct connection *c)
{
    struct net_server *s = c->server;
    assert(!c->in);
    assert(c->at == 0);
    assert(c->end == 0);
    bool large = c->frame_hint > NET_BUFFER_BYTES / 2;
    bool small = !large && c->stash_n < STASH_MAX;
    size_t size = large ? c->frame_hint + FRAME_SIZE_BYTES : NET_BUFFER_BYTES;
    if (!may_take(c, small ? STASH_MAX : size, large ? MEMORY_BEGIN : small ? MEMORY_SMALL : MEMORY_GROW))
        return false;
    c->in = large ? net_buffer_take(&s->buffers, size) : take_spare(s);
    if (!c->in)
        return false;
    c->at = c->end = c->in->used;
    assert(c->stash_n <= c->in->cap - c->end);
    if (c->stash_n) {
        memcpy(c->in->bytes + c->end, c->stash, c->stash_n);
        c->end += c->stash_n;
        drop_stash(c);
    }
    return true;
}

/* Moves the open frame's bytes to a buffer of `size`. */
static bool move_to(struct connection *c, size_t size)
{
    struct net_server *s = c->server;
    assert(c->in);
    assert(have(c) <= size);
    if (!may_take(c, size, MEMORY_GROW))
        return false;
    struct net_buffer *b = net_buffer_take(&s->buffers, size);
    if (!b)
        return false;
    size_t n = have(c);
    assert(n <= b->cap);
    memcpy(b->bytes, c->in->bytes + c->at, n);
    c->end = c->at; /* the moved bytes are nobody's there */
    give_back(c);
    c->in = b;
    c->at = 0;
    c->end = n;
    return true;
}

/* Room to read into. False: there is no memory, the connection waits for some. */
static bool prepare(struct connection *c)
{
    if (!c->in && !begin(c))
        return false;
    size_t room = c->in->cap - c->end, frame = open_frame_bytes(c);
    bool small = room == 0 || (have(c) == 0 && room < ROOM_MIN);
    if (frame <= c->in->cap - c->at && !small)
        return true;
    size_t earned = c->frame_hint > 4 * have(c) ? c->frame_hint : 4 * have(c);
    if (earned < NET_BUFFER_BYTES)
        earned = NET_BUFFER_BYTES;
    if (frame <= earned)
        return move_to(c, frame > NET_BUFFER_BYTES / 2 ? frame : NET_BUFFER_BYTES);
    return room > 0 || move_to(c, earned);
}

/* What one read may take: to the end of a large frame, so that the next one begins in a buffer of its own, and of all
 * large ones no more than belongs into a turn; when memory is short no more than can be put away. */
static size_t read_size(const struct connection *c, bool frugal)
{
    size_t room = c->in->cap - c->end, frame = open_frame_bytes(c);
    if (frugal && room > STASH_MAX - have(c))
        room = STASH_MAX - have(c);
    size_t missing = frame > have(c) ? frame - have(c) : 0;
    size_t n = missing >= ROOM_MIN && missing < room ? missing : room;
    assert(n > 0); /* a read of nothing would look like the peer's end */
    assert(n <= c->in->cap - c->end);
    return n < READ_PER_TURN ? n : READ_PER_TURN;
}

/* A plain-text or TLS client on this port is told apart, for the log's sake. */
static const char *refusal(const uint8_t *p, int32_t size)
{
    if (p[0] == 0x16 && p[1] == 0x03)
        return "TLS on a plain listener";
    if (memcmp(p, "GET ", 4) == 0 || memcmp(p, "POST", 4) == 0 || memcmp(p, "HEAD", 4) == 0)
        return "HTTP on a Kafka listener";
    if (memcmp(p, "SSH-", 4) == 0)
        return "SSH on a Kafka listener";
    return size < HEADER_BYTES ? "a frame of impossible size" : "a frame above socket.request.max.bytes";
}

/* A request of the frame at `at`; NULL: out of memory. */
static struct api_request *request_of(struct connection *c, size_t size)
{
    assert(size >= HEADER_BYTES);
    assert((int64_t)size <= c->server->o.request_max_bytes);
    assert(have(c) >= FRAME_SIZE_BYTES + size);
    struct api_request *req = api_take(c->server->shard);
    if (!req)
        return NULL;
    req->frame = slice_of(c->in->bytes + c->at + FRAME_SIZE_BYTES, size);
    const struct api_row *row = api_row_find((int16_t)be16_get(req->frame.p));
    if (size <= COPY_MAX && !(row && (row->flags & API_RECORDS))) {
        req->frame = arena_dup(&req->arena, req->frame);
        if (slice_is_null(req->frame)) {
            api_finish(req);
            return NULL;
        }
    } else {
        net_buffer_ref(c->in);
        req->buffer = c->in;
        c->server->holding_n++;
    }
    api_charge(req);
    req->connection = c;
    req->connection_id = c->id;
    req->client_host = c->host;
    req->listener = c->listener;
    return req;
}

static void enqueue(struct connection *c, struct api_request *req)
{
    struct err err = {0};
    assert(c->socket);
    assert(!req->started);
    assert(!c->frames_ended);
    assert(req->connection == c);
    list_push(&c->queue, &req->link);
    c->queue_n++;
    c->server->requests_n++;
    if (!c->next)
        c->next = req;
    if (api_read_header(req, &err)) {
        if (server_may_say(c->server, c->host))
            log_warn("broker.net", "request refused peer=%s error=%s", c->host, err.text);
        req->failure = "a request that is not served";
        c->said = c->read_ended = c->frames_ended = true;
    }
}

/* Makes requests of the frames that have arrived, while there is room. */
static void receive_frames(struct connection *c)
{
    while (!c->frames_ended && connection_has_room(c) && have(c) >= FRAME_SIZE_BYTES) {
        const uint8_t *p = c->in->bytes + c->at;
        int32_t size = (int32_t)be32_get(p);
        if (size < HEADER_BYTES || size > c->server->o.request_max_bytes) {
            connection_close(c, refusal(p, size));
            return;
        }
        if (have(c) - FRAME_SIZE_BYTES < (size_t)size)
            break;
        struct api_request *req = request_of(c, (size_t)size);
        if (!req) {
            connection_close(c, "out of memory");
            return;
        }
        c->at += FRAME_SIZE_BYTES + (size_t)size;
        c->frame_started_us = 0;
        unfavour(c);
        c->frame_hint -= c->frame_hint / 16;
        if (c->frame_hint < (size_t)size)
            c->frame_hint = (size_t)size;
        enqueue(c, req);
    }
    if (have(c) > 0 && c->frame_started_us == 0)
        c->frame_started_us = server_now(c->server);
}

/* What is kept between turns. */
static void put_away(struct connection *c)
{
    if (!c->in)
        return;
    size_t n = have(c);
    if (n > STASH_MAX)
        return;
    if (n > 0) {
        assert(!c->stash);
        c->stash = malloc(n);
        if (!c->stash)
            return; /* then the buffer stays */
        memcpy(c->stash, c->in->bytes + c->at, n);
        c->stash_n = n;
        c->stash_whole = !connection_has_room(c);
        shard_memory_take(c->server->shard, n);
        c->end = c->at;
    }
    give_back(c);
}

static void starve(struct connection *c)
{
    assert(c->starved_bytes > 0);
    assert(c->starved_eighths >= MEMORY_BEGIN);
    if (!list_linked(&c->starved)) {
        if (c->starved_eighths == MEMORY_SMALL)
            list_push_front(&c->server->starved, &c->starved);
        else
            list_push(&c->server->starved, &c->starved);
        metric_add(c->server->starving, 1);
    }
}

void receive_readable(struct connection *c)
{
    for (int i = 0; i < READS_PER_TURN && connection_has_room(c) && !c->read_ended; i++) {
        if (!prepare(c)) {
            starve(c);
            break;
        }
        bool large = open_frame_bytes(c) > NET_BUFFER_BYTES;
        if (large && !server_turn_has(c->server, &c->server->read, READ_PER_TURN))
            break; /* still readable in the next turn */
        bool frugal = server_memory_is_short(c->server) && c->server->favoured != c && have(c) < STASH_MAX;
        size_t n = read_size(c, frugal);
        ssize_t got = net_read(c->socket, c->in->bytes + c->end, n);
        if (got == -E_AGAIN)
            break;
        if (got < 0) {
            connection_close(c, NULL);
            return;
        }
        if (got == 0) {
            connection_drain(c);
            break;
        }
        assert((size_t)got <= n);
        c->end += (size_t)got;
        c->active_us = server_now(c->server);
        metric_add(c->server->received, got);
        if (large)
            c->server->read.bytes += (size_t)got;
        receive_frames(c);
        if (!c->socket || frugal || (size_t)got < n)
            break;
    }
    if (c->socket)
        put_away(c);
}

void receive_buffered(struct connection *c)
{
    if (!connection_has_room(c) || list_linked(&c->starved))
        return;
    if (!c->in && !c->stash_whole)
        return;
    if (!c->in && !begin(c)) {
        starve(c);
        return;
    }
    receive_frames(c);
    if (c->socket)
        put_away(c);
}

void receive_close(struct connection *c)
{
    unfavour(c);
    if (c->in) {
        c->end = c->at;
        give_back(c);
    }
    drop_stash(c);
}
