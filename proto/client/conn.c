/* One connection: opening, framing both ways, calls in order.
 *
 *   closed ─► connecting ─► securing ─► versions ─► ready ─► closed
 *                                                            (from each of them to closed)
 *
 * securing is SASL's (secure.c); without it, it is passed through at once. TLS lies below, in the net. Small
 * responses are read through a stage of 64 KiB, many per system call; of a larger one the rest goes straight into
 * its frame. */
#include "proto/client/client_internal.h"

#include "base/core/bytes.h"

#include <stdio.h>
#include <stdlib.h>

static bool conn_holds(const void *owner, unsigned state)
{
    const struct client_conn *conn = owner;
    bool open = state != CONN_CLOSED;
    return open || (!conn->handle && !conn->frame && list_empty(&conn->calls) && !conn->writing);
}

static const struct sm_state conn_states[] = {
    [CONN_CLOSED] = {"closed", SM_TO(CONN_CONNECTING)},
    [CONN_CONNECTING] = {"connecting", SM_TO(CONN_SECURING) | SM_TO(CONN_CLOSED)},
    [CONN_SECURING] = {"securing", SM_TO(CONN_VERSIONS) | SM_TO(CONN_CLOSED)},
    [CONN_VERSIONS] = {"versions", SM_TO(CONN_READY) | SM_TO(CONN_CLOSED)},
    [CONN_READY] = {"ready", SM_TO(CONN_CLOSED)},
};
_Static_assert(sizeof conn_states / sizeof *conn_states == CONN_STATES, "a row for every state");
static const struct sm_table conn_sm = SM_TABLE("client connection", conn_states, conn_holds);

void client_conn_init(struct client_conn *conn, struct client_core *core, struct client_broker *broker,
                      enum client_lane lane)
{
    *conn = (struct client_conn){.core = core, .broker = broker, .lane = lane};
    list_init(&conn->calls);
    list_init(&conn->io_link);
    sm_init(&conn->sm, &conn_sm, conn, CONN_CLOSED);
}

void client_conn_io(struct client_conn *conn)
{
    if (!conn->io)
        list_push(&conn->core->io, &conn->io_link);
    conn->io = true;
}

static void enter(struct client_conn *conn, enum conn_state state)
{
    sm_move(&conn->sm, state);
    conn->since_us = conn->core->now_us;
    client_conn_io(conn);
}

void client_conn_open(struct client_conn *conn)
{
    assert(client_conn_state(conn) == CONN_CLOSED);
    assert(!conn->handle);
    assert(!conn->sasl && !conn->stage);
    conn->core->counts.connects++;
    conn->used_us = conn->core->now_us;
    client_core_due_by(conn->core, conn->core->now_us + conn->core->o.connect_timeout_us);
    enter(conn, CONN_CONNECTING);
}

bool client_conn_idle(const struct client_conn *conn)
{
    return list_empty(&conn->calls);
}

/* ---- out ---- */

static int put_header(const struct client_conn *conn, struct call *call)
{
    struct slice id = slice_str(conn->core->client_id);
    bool flexible =
        call->api->request.flexible_since != KP_NEVER && call->version >= call->api->request.flexible_since;
    size_t n = 4 + 2 + 2 + 4 + 2 + id.n + (size_t)flexible;
    int rc = kp_encode_pieces(&call->api->request, call->version, call->body, n, &call->wire, &call->pieces);
    if (rc)
        return rc;
    assert(call->pieces.n > 0);
    assert(call->pieces.v[0].bytes.n >= n);
    uint8_t *p = (uint8_t *)(uintptr_t)call->pieces.v[0].bytes.p;
    be32_put(p, (uint32_t)(call->pieces.size_bytes - 4));
    be16_put(p + 4, (uint16_t)call->api->key);
    be16_put(p + 6, (uint16_t)call->version);
    be32_put(p + 8, (uint32_t)call->correlation);
    be16_put(p + 12, (uint16_t)id.n);
    memcpy(p + 14, id.p, id.n);
    if (flexible)
        p[14 + id.n] = 0;
    return 0;
}

static int put_call(struct client_conn *conn, struct call *call, struct err *err)
{
    arena_reset(&call->wire);
    call->correlation = conn->correlation;
    int rc = put_header(conn, call);
    if (rc)
        return err_set(err, rc, "%s v%d: the request cannot be encoded", call->api->name, call->version);
    conn->correlation = (conn->correlation + 1) & INT32_MAX;
    call->piece_at = call->piece_used = 0;
    call->started = call->written = false;
    call->state = CALL_QUEUED;
    call->conn = conn;
    list_push(&conn->calls, &call->link);
    if (!conn->writing)
        conn->writing = call;
    conn->core->counts.requests++;
    client_conn_io(conn);
    return 0;
}

static int16_t least(int16_t a, int16_t b)
{
    return a < b ? a : b;
}

static int16_t most(int16_t a, int16_t b)
{
    return a > b ? a : b;
}

int client_conn_queue(struct client_conn *conn, struct call *call, struct err *err)
{
    assert(client_conn_state(conn) == CONN_READY);
    assert(!conn->retiring);
    assert(call->state == CALL_WAITING);
    const struct kp_api *api = call->api;
    assert(api->key >= 0);
    assert(api->key < CONN_APIS);
    struct version_range r = conn->versions[api->key];
    if (r.max < 0)
        return err_set(err, -E_VERSION, "broker %s:%u does not serve %s", conn->broker->host,
                       conn->broker->port, api->name);
    int16_t low = most(most(api->request.version_min, call->pub.version_min), r.min);
    int16_t high = least(least(api->request.version_max, call->pub.version_max), r.max);
    if (low > high)
        return err_set(err, -E_VERSION, "broker %s:%u serves %s %d to %d, needed is %d to %d",
                       conn->broker->host, conn->broker->port, api->name, r.min, r.max,
                       most(api->request.version_min, call->pub.version_min),
                       least(api->request.version_max, call->pub.version_max));
    call->version = high;
    return put_call(conn, call, err);
}

int client_conn_gather(struct client_conn *conn, struct iovec *v, int max)
{
    int n = 0;
    if (!conn->writing)
        return 0;
    for (struct list *at = &conn->writing->link; at != &conn->calls && n < max; at = at->next) {
        struct call *call = LIST_ENTRY(at, struct call, link);
        size_t used = call->piece_used;
        for (size_t i = call->piece_at; i < call->pieces.n && n < max; i++, used = 0) {
            struct slice s = call->pieces.v[i].bytes;
            assert(!call->pieces.v[i].segment.file && s.n > used);
            v[n++] = (struct iovec){(void *)(uintptr_t)(s.p + used), s.n - used};
        }
    }
    return n;
}

/* The bytes of one call that went out; what is left of `n`. */
static size_t advance(struct call *call, size_t n)
{
    call->started = true;
    while (n && call->piece_at < call->pieces.n) {
        size_t left = call->pieces.v[call->piece_at].bytes.n - call->piece_used;
        size_t take = n < left ? n : left;
        call->piece_used += take;
        n -= take;
        if (take == left) {
            call->piece_at++;
            call->piece_used = 0;
        }
    }
    call->written = call->piece_at == call->pieces.n;
    return n;
}

void client_conn_written(struct client_conn *conn, size_t n, int64_t now_us)
{
    conn->core->now_us = now_us;
    conn->core->counts.bytes_out += n;
    conn->used_us = now_us;
    while (n) {
        struct call *call = conn->writing;
        assert(call);
        n = advance(call, n);
        if (!call->written)
            break;
        struct list *next = call->link.next;
        conn->writing = next == &conn->calls ? NULL : LIST_ENTRY(next, struct call, link);
    }
    assert(n == 0);
}

/* ---- in ---- */

uint8_t *client_conn_room(struct client_conn *conn, size_t *n)
{
    *n = 0;
    if (client_conn_state(conn) < CONN_SECURING || conn->stalled)
        return NULL;
    if (conn->frame) {
        assert(conn->frame_have < conn->frame->size);
        *n = conn->frame->size - conn->frame_have;
        return conn->frame->bytes + conn->frame_have;
    }
    *n = CONN_STAGE - conn->staged;
    return conn->stage + conn->staged;
}

static void take_frame(struct client_conn *conn)
{
    struct client_frame *frame = conn->frame;
    struct err err = {0};
    conn->frame = NULL;
    conn->frame_have = 0;
    conn->core->counts.responses++;
    assert(frame->refs > 0);
    bool good = client_answer(conn, frame, &err);
    client_frame_unref(frame);
    if (!good && client_conn_state(conn) != CONN_CLOSED)
        client_conn_close(conn, -E_CORRUPT, err.text);
}

/* Begins a frame of which `at` has the size and perhaps more; the bytes used, 0 when it must wait or has failed. */
static size_t begin_frame(struct client_conn *conn, const uint8_t *at, size_t n)
{
    uint32_t size = be32_get(at);
    if (size < 4 || size > conn->core->o.response_max_bytes) {
        char why[96];
        snprintf(why, sizeof why, "a response of %u bytes (at most %zu are taken)", size,
                 conn->core->o.response_max_bytes);
        client_conn_close(conn, -E_LIMIT, why);
        return 0;
    }
    conn->stalled = !client_frames_room(conn->core->frames, size);
    if (conn->stalled)
        return 0;
    conn->frame = client_frame_new(conn->core->frames, size);
    if (!conn->frame) {
        client_conn_close(conn, -E_NOMEM, "no memory for a response");
        return 0;
    }
    size_t have = n - 4 < size ? n - 4 : size;
    memcpy(conn->frame->bytes, at + 4, have);
    conn->frame_have = have;
    return 4 + have;
}

/* Cuts the stage into frames. */
static void parse(struct client_conn *conn)
{
    size_t at = 0;
    while (client_conn_state(conn) != CONN_CLOSED && conn->staged - at >= 4) {
        size_t used = begin_frame(conn, conn->stage + at, conn->staged - at);
        if (!used)
            break;
        at += used;
        if (conn->frame_have < conn->frame->size)
            break;
        take_frame(conn);
    }
    if (client_conn_state(conn) == CONN_CLOSED)
        return;
    assert(at <= conn->staged);
    assert(!conn->frame || at == conn->staged); /* the rest of it goes into the frame itself */
    conn->staged -= at;
    if (at && conn->staged)
        memmove(conn->stage, conn->stage + at, conn->staged);
}

void client_conn_received(struct client_conn *conn, size_t n, int64_t now_us)
{
    conn->core->now_us = now_us;
    if (client_conn_state(conn) < CONN_SECURING)
        return;
    conn->core->counts.bytes_in += n;
    conn->used_us = conn->received_us = now_us;
    if (conn->frame) {
        conn->frame_have += n;
        assert(conn->frame_have <= conn->frame->size);
        if (conn->frame_have == conn->frame->size)
            take_frame(conn);
        return;
    }
    conn->staged += n;
    assert(conn->staged <= CONN_STAGE);
    parse(conn);
}

void client_conn_unstall(struct client_conn *conn)
{
    if (!conn->stalled)
        return;
    conn->stalled = false;
    parse(conn);
    if (!conn->stalled && client_conn_state(conn) != CONN_CLOSED)
        client_conn_io(conn);
}

/* ---- opening and closing ---- */

void client_conn_connected(struct client_conn *conn, int64_t now_us)
{
    struct client_core *core = conn->core;
    core->now_us = now_us;
    if (client_conn_state(conn) != CONN_CONNECTING)
        return;
    conn->stage = malloc(CONN_STAGE);
    conn->staged = 0;
    conn->correlation = 1;
    if (!conn->stage) {
        client_conn_close(conn, -E_NOMEM, "no memory for a connection");
        return;
    }
    enter(conn, CONN_SECURING);
    client_secure(conn);
}

void client_conn_handshake(struct client_conn *conn, struct call *call, int16_t version)
{
    struct err err = {0};
    assert(call->internal);
    assert(list_empty(&conn->calls));
    assert(client_conn_state(conn) == CONN_SECURING || client_conn_state(conn) == CONN_VERSIONS);
    call->handshake = true;
    call->version = version;
    call->deadline_us = conn->since_us + conn->core->o.connect_timeout_us;
    client_core_due_by(conn->core, call->deadline_us);
    if (put_call(conn, call, &err)) {
        client_call_free(conn->core, call);
        client_conn_close(conn, err.code, err.text);
    }
}

void client_conn_ask_versions(struct client_conn *conn, int16_t version_max)
{
    struct client_core *core = conn->core;
    if (client_conn_state(conn) == CONN_SECURING)
        enter(conn, CONN_VERSIONS);
    struct call *call = client_core_call(core, kp_api_find(kp_key_api_versions), true);
    if (!call) {
        client_conn_close(conn, -E_NOMEM, "no memory for a request");
        return;
    }
    struct kp_api_versions_request *q = call->pub.body;
    q->client_software_name = slice_str(core->software_name);
    q->client_software_version = slice_str(core->software_version);
    client_conn_handshake(conn, call, least(call->api->request.version_max, version_max));
}

void client_conn_ready(struct client_conn *conn)
{
    conn->broker->failures = 0;
    conn->broker->retry_at_us = 0;
    enter(conn, CONN_READY);
}

/* What becomes of a call whose connection is gone. */
static void bereave(struct client_core *core, struct call *call, int code, const char *why)
{
    struct client_conn *conn = call->conn;
    call->conn = NULL;
    if (call->abandoned || call->handshake) {
        client_call_free(core, call);
        return;
    }
    call->response.sent = call->started;
    bool ordered = call->api->key == kp_key_produce;
    bool safe = call->pub.retry != CLIENT_RETRY_UNSENT;
    if (safe || (!call->started && !ordered)) {
        client_call_again(core, call, call->started ? client_core_backoff(core, call->attempts++) : 0);
        return;
    }
    client_call_finish(core, call, code == -E_TIMEOUT ? -E_CLOSED : code, "%s:%u: %s", conn->broker->host,
                       conn->broker->port, why);
}

void client_conn_close(struct client_conn *conn, int code, const char *why)
{
    struct client_core *core = conn->core;
    if (client_conn_state(conn) == CONN_CLOSED)
        return;
    bool quiet = client_conn_state(conn) == CONN_READY && list_empty(&conn->calls);
    if (!quiet) {
        client_core_failed(core, "%s:%u: %s", conn->broker->host, conn->broker->port, why);
        core->last_error.code = code;
        client_broker_failed(conn->broker, core);
    }
    struct list calls;
    list_init(&calls);
    while (!list_empty(&conn->calls))
        list_push(&calls, list_pop(&conn->calls));
    conn->writing = NULL;
    conn->closing = conn->handle;
    conn->handle = NULL;
    struct client_frame *frame = conn->frame;
    conn->frame = NULL;
    conn->frame_have = conn->staged = 0;
    conn->stalled = conn->retiring = conn->wants_token = false;
    sasl_destroy(conn->sasl);
    conn->sasl = NULL;
    free(conn->stage);
    conn->stage = NULL;
    enter(conn, CONN_CLOSED);
    client_frame_unref(frame);
    while (!list_empty(&calls))
        bereave(core, LIST_ENTRY(list_pop(&calls), struct call, link), code, why);
}

void client_conn_broken(struct client_conn *conn, int code, const char *why, int64_t now_us)
{
    conn->core->now_us = now_us;
    client_conn_close(conn, code, why);
}
