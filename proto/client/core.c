/* The core: the life of calls from submission to callback, deadlines, and effects for the driver. */
#include "proto/client/client_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define NEVER INT64_MAX
/* Calls of our own (metadata, coordinators, versions) do not count against the caller's maximum. */
#define INTERNAL_CALLS_MAX 1024
/* Between two pieces of an answer. */
#define ARRIVING_US (INT64_C(10) * 1000000)

static void defaults(struct client_options *o)
{
    static const struct client_options d = {
        .connect_timeout_us = 10 * 1000000LL,
        .request_timeout_us = 30 * 1000000LL,
        .backoff_min_us = 100 * 1000LL,
        .backoff_max_us = 5 * 1000000LL,
        .metadata_max_age_us = 300 * 1000000LL,
        .idle_max_us = 540 * 1000000LL,
        .response_max_bytes = (size_t)128 << 20,
        .memory_max_bytes = (size_t)64 << 20,
        .calls_max = 4096,
    };
#define DEFAULT(member) o->member = o->member ? o->member : d.member
    DEFAULT(connect_timeout_us);
    DEFAULT(request_timeout_us);
    DEFAULT(backoff_min_us);
    DEFAULT(backoff_max_us);
    DEFAULT(metadata_max_age_us);
    DEFAULT(idle_max_us);
    DEFAULT(response_max_bytes);
    DEFAULT(memory_max_bytes);
    DEFAULT(calls_max);
#undef DEFAULT
}

/* "[::1]:9092" or "host:9092" from the front of `rest`, up to the next comma. */
static int take_address(const char **rest, struct slice *host, int *port, struct err *err)
{
    const char *at = *rest, *end = strchr(at, ',');
    size_t n = end ? (size_t)(end - at) : strlen(at);
    *rest = end ? end + 1 : at + n;
    const char *colon = memrchr(at, ':', n);
    long value = colon ? strtol(colon + 1, NULL, 10) : 0;
    if (!colon || colon == at || value < 1 || value > 65535)
        return err_set(err, -E_CONFIG, "bootstrap address '%.*s' is not host:port", (int)n, at);
    size_t host_n = (size_t)(colon - at);
    if (host_n > 2 && at[0] == '[' && at[host_n - 1] == ']') {
        at++;
        host_n -= 2;
    }
    if (host_n >= CLIENT_HOST_MAX)
        return err_set(err, -E_CONFIG, "bootstrap address '%.*s…' is too long", 40, at);
    *host = slice_of(at, host_n);
    *port = (int)value;
    return 0;
}

static int add_bootstrap(struct client_core *core, const char *list, struct err *err)
{
    int n = 0;
    while (list && *list) {
        struct slice host;
        int port = 0, rc;
        while (*list == ' ' || *list == ',')
            list++;
        if (!*list)
            break;
        if ((rc = take_address(&list, &host, &port, err)))
            return rc;
        if (++n > CLIENT_BOOTSTRAP_MAX)
            return err_set(err, -E_CONFIG, "more than %d bootstrap addresses", CLIENT_BOOTSTRAP_MAX);
        if (!client_broker_add(core, -1, host, port))
            return err_set(err, -E_NOMEM, "bootstrap addresses");
    }
    return n ? 0 : err_set(err, -E_CONFIG, "no bootstrap address");
}

static void frames_freed(void *arg)
{
    struct client_core *core = arg;
    core->memory_freed = true;
    if (core->wake)
        core->wake(core->wake_arg);
}

int client_core_create(const struct client_options *o, uint64_t seed, int64_t now_us,
                       struct client_core **out, struct err *err)
{
    struct client_core *core = calloc(1, sizeof *core);
    *out = NULL;
    if (!core)
        return err_set(err, -E_NOMEM, "client");
    core->o = *o;
    defaults(&core->o);
    rng_init(&core->rng, seed);
    core->now_us = now_us;
    core->due_us = core->metadata_age_us = NEVER;
    core->controller = -1;
    list_init(&core->waiting);
    list_init(&core->done);
    list_init(&core->all);
    list_init(&core->io);
    list_init(&core->brokers);
    core->client_id = strdup(o->client_id ? o->client_id : "sundog");
    core->software_name = strdup(o->software_name ? o->software_name : "sundog");
    core->software_version = strdup(o->software_version ? o->software_version : "0");
    core->frames = client_frames_create(core->o.memory_max_bytes, frames_freed, core);
    int rc = 0;
    if (!core->client_id || !core->software_name || !core->software_version || !core->frames)
        rc = err_set(err, -E_NOMEM, "client");
    if (!rc)
        rc = add_bootstrap(core, o->bootstrap, err);
    if (rc) {
        client_core_destroy(core);
        return rc;
    }
    *out = core;
    return 0;
}

static void free_call(struct call *call)
{
    arena_fini(&call->arena);
    arena_fini(&call->wire);
    arena_fini(&call->answer);
    free(call);
}

void client_core_destroy(struct client_core *core)
{
    if (!core)
        return;
    list_each_safe(at, &core->all)
    {
        struct call *call = LIST_ENTRY(at, struct call, all);
        client_frame_unref(call->response.frame);
        free_call(call);
    }
    while (core->kept_n)
        free_call(core->kept[--core->kept_n]);
    list_each_safe(at, &core->brokers)
    {
        struct client_broker *b = LIST_ENTRY(at, struct client_broker, link);
        for (int lane = 0; lane < CLIENT_LANES; lane++) {
            free(b->conns[lane].stage);
            sasl_destroy(b->conns[lane].sasl);
            client_frame_unref(b->conns[lane].frame);
        }
        free(b);
    }
    client_metadata_free(core);
    client_coordinators_free(core);
    client_frames_destroy(core->frames);
    free(core->client_id);
    free(core->software_name);
    free(core->software_version);
    free(core->cluster_id);
    free(core);
}

int64_t client_core_backoff(struct client_core *core, unsigned failures)
{
    int64_t delay = core->o.backoff_min_us;
    assert(delay > 0);
    for (unsigned i = 0; i < failures && delay < core->o.backoff_max_us; i++)
        delay *= 2;
    if (delay > core->o.backoff_max_us)
        delay = core->o.backoff_max_us;
    return delay + rng_range(&core->rng, -delay / 5, delay / 5);
}

void client_core_failed(struct client_core *core, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    core->last_error.code = -E_IO;
    vsnprintf(core->last_error.text, sizeof core->last_error.text, fmt, ap);
    va_end(ap);
    core->counts.failures++;
}

/* ---- calls ---- */

struct call *client_core_call(struct client_core *core, const struct kp_api *api, bool internal)
{
    if (!api || (internal ? core->internal_calls >= INTERNAL_CALLS_MAX : core->calls >= core->o.calls_max))
        return NULL;
    struct call *call = core->kept_n ? core->kept[--core->kept_n] : calloc(1, sizeof *call);
    if (!call)
        return NULL;
    struct arena arena = call->arena, wire = call->wire, answer = call->answer;
    if (arena.limit_bytes == 0) {
        arena_init_small(&arena, CALL_ARENA_BYTES_MAX);
        arena_init_small(&wire, CALL_ARENA_BYTES_MAX);
        arena_init_small(&answer, CALL_ARENA_BYTES_MAX);
    }
    *call = (struct call){.magic = CALL_MAGIC, .api = api, .internal = internal, .seq = core->seq++};
    call->arena = arena;
    call->wire = wire;
    call->answer = answer;
    list_init(&call->link);
    list_push(&core->all, &call->all);
    internal ? core->internal_calls++ : core->calls++;
    call->pub = (struct client_call){.arena = &call->arena,
                                     .version_min = api->request.version_min,
                                     .version_max = api->request.version_max,
                                     .target = {.kind = CLIENT_ANY}};
    call->pub.body = arena_alloc(&call->arena, api->request.body->size_bytes);
    if (!call->pub.body) {
        client_call_free(core, call);
        return NULL;
    }
    kp_init(&api->request, call->pub.body);
    call->body = call->pub.body;
    return call;
}

void client_call_free(struct client_core *core, struct call *call)
{
    assert(call->magic == CALL_MAGIC);
    assert((call->internal ? core->internal_calls : core->calls) > 0);
    client_frame_unref(call->response.frame);
    call->response.frame = NULL;
    list_remove(&call->link);
    list_remove(&call->all);
    call->internal ? core->internal_calls-- : core->calls--;
    call->magic = 0;
    assert(core->kept_n <= CALLS_KEPT);
    if (core->kept_n == CALLS_KEPT) {
        free_call(call);
        return;
    }
    arena_reset(&call->arena);
    arena_reset(&call->wire);
    arena_reset(&call->answer);
    core->kept[core->kept_n++] = call;
}

void client_core_due_by(struct client_core *core, int64_t at_us)
{
    if (at_us < core->due_us)
        core->due_us = at_us;
}

/* Into the waiting list, by order of submission. */
static void wait_in_order(struct client_core *core, struct call *call)
{
    struct list *at = core->waiting.prev;
    while (at != &core->waiting && LIST_ENTRY(at, struct call, link)->seq > call->seq)
        at = at->prev;
    list_insert(at->next, &call->link);
    call->state = CALL_WAITING;
}

void client_core_submit(struct client_core *core, struct call *call, int64_t now_us)
{
    assert(call->state == CALL_NEW); /* once */
    assert(call->internal || call->pub.on_response);
    assert(call->pub.target.lane < CLIENT_LANES);
    core->now_us = now_us > core->now_us ? now_us : core->now_us;
    struct client_target *t = &call->pub.target;
    if (t->kind == CLIENT_LEADER || t->kind == CLIENT_GROUP || t->kind == CLIENT_TRANSACTION)
        t->name = arena_dup(&call->arena, t->name);
    call->seq = core->seq++;
    int64_t timeout = call->pub.timeout_us > 0 ? call->pub.timeout_us : core->o.request_timeout_us;
    call->asked_us = core->now_us;
    call->deadline_us = core->now_us + timeout;
    call->send_by_us = call->pub.send_within_us > 0 ? core->now_us + call->pub.send_within_us : INT64_MAX;
    client_core_due_by(core, call->send_by_us);
    client_core_due_by(core, call->deadline_us);
    wait_in_order(core, call);
    err_set(&call->err, -E_TIMEOUT, "no connection yet");
    if (arena_failed(&call->arena))
        client_call_finish(core, call, -E_LIMIT, "%s: the request is too large", call->api->name);
    if (core->wake)
        core->wake(core->wake_arg);
}

void client_call_again(struct client_core *core, struct call *call, int64_t delay_us)
{
    assert(call->state == CALL_QUEUED);
    assert(!call->abandoned && !call->handshake);
    assert(delay_us >= 0);
    if (core->now_us + delay_us >= call->deadline_us) {
        client_call_finish(core, call, -E_TIMEOUT, "%s: out of time after %u attempts; last: %s",
                           call->api->name, call->attempts + 1, core->last_error.text);
        return;
    }
    core->counts.retries++;
    list_remove(&call->link);
    call->not_before_us = delay_us ? core->now_us + delay_us : 0;
    if (delay_us)
        client_core_due_by(core, call->not_before_us);
    wait_in_order(core, call);
}

void client_call_finish(struct client_core *core, struct call *call, int code, const char *fmt, ...)
{
    assert(call->state != CALL_DONE);
    assert(code <= 0);
    assert(code || call->response.body);
    if (code) {
        va_list ap;
        va_start(ap, fmt);
        call->err.code = code;
        vsnprintf(call->err.text, sizeof call->err.text, fmt, ap);
        va_end(ap);
    }
    call->response.status = code;
    call->response.err = code ? &call->err : NULL;
    call->response.version = call->version;
    call->conn = NULL;
    call->state = CALL_DONE;
    list_remove(&call->link);
    list_push(&core->done, &call->link);
}

/* Written or half-written: the answer must still be awaited, or the connection go. */
static void abandon(struct client_core *core, struct call *call)
{
    struct client_conn *conn = call->conn;
    assert(conn);
    assert(call->state == CALL_QUEUED);
    if (!call->started) {
        if (conn->writing == call) {
            struct list *next = call->link.next;
            conn->writing = next == &conn->calls ? NULL : LIST_ENTRY(next, struct call, link);
        }
        client_call_free(core, call);
        return;
    }
    call->abandoned = true;
    if (!call->written)
        client_conn_close(conn, -E_CLOSED, "a request was taken back while it was being sent");
}

void client_core_cancel(struct client_core *core, struct call *call)
{
    assert(!call->abandoned);
    if (call->state == CALL_QUEUED)
        abandon(core, call);
    else
        client_call_free(core, call);
    if (core->wake)
        core->wake(core->wake_arg);
}

void client_core_delivered(struct client_core *core, struct call *call)
{
    assert(call->state == CALL_DONE);
    client_call_free(core, call);
}

/* ---- time ---- */

/* The place of an answer that nobody waits for any more, when the call itself is to end. */
static bool leave_ghost(struct client_core *core, struct call *call)
{
    struct call *ghost = client_core_call(core, call->api, true);
    if (!ghost)
        return false;
    struct call *head = LIST_ENTRY(call->conn->calls.next, struct call, link);
    ghost->abandoned = ghost->started = ghost->written = true;
    ghost->state = CALL_QUEUED;
    ghost->conn = call->conn;
    ghost->version = call->version;
    ghost->correlation = call->correlation;
    ghost->deadline_us = head->deadline_us; /* it cannot be answered before */
    list_insert(&call->link, &ghost->link);
    return true;
}

/* A call at the head of its connection that gets no answer costs the connection: the broker does not answer there.
 * One behind another may only be waiting its turn. */
static void expire(struct client_core *core, struct call *call)
{
    struct client_conn *conn = call->conn;
    if (call->state == CALL_WAITING) {
        char why[ERR_TEXT_MAX];
        memcpy(why, call->err.text, sizeof why);
        client_call_finish(core, call, -E_TIMEOUT, "%s: %.200s; last failure: %.200s", call->api->name, why,
                           core->last_error.text[0] ? core->last_error.text : "none");
        return;
    }
    assert(call->state == CALL_QUEUED);
    assert(conn);
    bool behind = conn->calls.next != &call->link && call->written && leave_ghost(core, call);
    if (!call->abandoned && !call->handshake) {
        if (conn->writing == call) {
            struct list *next = call->link.next;
            conn->writing = next == &conn->calls ? NULL : LIST_ENTRY(next, struct call, link);
        }
        call->response.sent = call->started;
        client_call_finish(core, call, -E_TIMEOUT, "%s: %s:%u does not answer", call->api->name,
                           conn->broker->host, conn->broker->port);
    } else if (behind) {
        client_call_free(core, call);
    }
    if (!behind)
        client_conn_close(conn, -E_TIMEOUT, "no answer in time");
}

/* An answer whose bytes are coming is not late, nor is what stands behind it, nor one that waits for memory which
 * callers hold. Then when to look again; else 0. */
static int64_t arriving_until(const struct client_core *core, const struct call *call)
{
    const struct client_conn *conn = call->state == CALL_QUEUED ? call->conn : NULL;
    if (!conn || !call->written || call->handshake)
        return 0;
    if (conn->stalled)
        return core->now_us + ARRIVING_US;
    return conn->frame && core->now_us < conn->received_us + ARRIVING_US ? conn->received_us + ARRIVING_US
                                                                         : 0;
}

static struct call *find_expired(struct client_core *core)
{
    list_each (at, &core->all) {
        struct call *call = LIST_ENTRY(at, struct call, all);
        if (call->state != CALL_WAITING && call->state != CALL_QUEUED)
            continue;
        bool unsent = call->state == CALL_WAITING && call->attempts == 0;
        int64_t until_us =
            unsent && call->send_by_us < call->deadline_us ? call->send_by_us : call->deadline_us;
        if (until_us <= core->now_us && !(until_us = arriving_until(core, call)))
            return call;
        client_core_due_by(core, until_us);
    }
    return NULL;
}

/* A session whose end is near: no more calls, and closed when it has answered. Returns whether it is closed. */
static bool retire(struct client_conn *conn)
{
    enum { LOOK_AGAIN_US = 50 * 1000 };
    struct client_core *core = conn->core;
    if (client_conn_state(conn) != CONN_READY || !conn->retire_us)
        return false;
    conn->retiring = core->now_us >= conn->retire_us;
    if (conn->retiring && client_conn_idle(conn)) {
        client_conn_close(conn, -E_CLOSED, "the session ends");
        return true;
    }
    client_core_due_by(core, conn->retiring ? core->now_us + LOOK_AGAIN_US : conn->retire_us);
    return false;
}

/* Connections that take too long to open or have not been used. */
static void check_conns(struct client_core *core)
{
    list_each (at, &core->brokers) {
        struct client_broker *b = LIST_ENTRY(at, struct client_broker, link);
        for (int lane = 0; lane < CLIENT_LANES; lane++) {
            struct client_conn *conn = &b->conns[lane];
            enum conn_state state = client_conn_state(conn);
            if (state == CONN_CLOSED)
                continue;
            if (retire(conn))
                continue;
            bool opening = state != CONN_READY;
            int64_t at_us =
                opening ? conn->since_us + core->o.connect_timeout_us : conn->used_us + core->o.idle_max_us;
            if (opening && core->now_us >= at_us)
                client_conn_close(conn, -E_TIMEOUT, "no connection in time");
            else if (!opening && core->now_us >= at_us && client_conn_idle(conn))
                client_conn_close(conn, -E_CLOSED, "unused");
            else if (at_us > core->now_us)
                client_core_due_by(core, at_us);
        }
    }
}

/* The time after which something may have to be done is found anew; what waits in routing adds its own. */
static void look_at_clock(struct client_core *core)
{
    struct call *call;
    core->due_us = NEVER;
    while ((call = find_expired(core)))
        expire(core, call);
    check_conns(core);
}

static void route_waiting(struct client_core *core)
{
    list_each_safe(at, &core->waiting)
    {
        struct call *call = LIST_ENTRY(at, struct call, link);
        if (call->not_before_us > core->now_us) {
            client_core_due_by(core, call->not_before_us);
            continue;
        }
        struct client_conn *conn = client_route(core, call);
        if (!conn)
            continue;
        struct err err = {0};
        list_remove(&call->link);
        if (client_conn_queue(conn, call, &err))
            client_call_finish(core, call, err.code, "%s", err.text);
    }
}

void client_core_time(struct client_core *core, int64_t now_us)
{
    core->now_us = now_us > core->now_us ? now_us : core->now_us;
    if (core->memory_freed) {
        core->memory_freed = false;
        list_each_safe(at, &core->brokers)
        {
            struct client_broker *b = LIST_ENTRY(at, struct client_broker, link);
            for (int lane = 0; lane < CLIENT_LANES; lane++)
                client_conn_unstall(&b->conns[lane]);
        }
    }
    if (core->now_us >= core->due_us)
        look_at_clock(core);
    uint64_t seq;
    do { /* routing asks for metadata and coordinators, whose questions are routed in turn */
        seq = core->seq;
        route_waiting(core);
        client_metadata_step(core);
    } while (core->seq != seq);
    client_brokers_sweep(core);
}

int64_t client_core_due(const struct client_core *core)
{
    return core->due_us;
}

struct client_effect client_core_effect(struct client_core *core)
{
    while (!list_empty(&core->io)) {
        struct client_conn *conn = LIST_ENTRY(core->io.next, struct client_conn, io_link);
        if (conn->closing) {
            void *handle = conn->closing;
            conn->closing = NULL;
            return (struct client_effect){.kind = EFFECT_CLOSE, .conn = conn, .handle = handle};
        }
        list_remove(&conn->io_link);
        conn->io = false;
        enum conn_state state = client_conn_state(conn);
        if (state == CONN_CONNECTING && !conn->handle)
            return (struct client_effect){.kind = EFFECT_CONNECT, .conn = conn};
        if (state > CONN_CONNECTING)
            return (struct client_effect){.kind = EFFECT_IO, .conn = conn};
    }
    if (core->token_wanted) {
        core->token_wanted = false;
        return (struct client_effect){.kind = EFFECT_TOKEN};
    }
    if (core->metadata_news) {
        core->metadata_news = false;
        return (struct client_effect){.kind = EFFECT_WATCHES};
    }
    if (!list_empty(&core->done)) {
        struct call *call = LIST_ENTRY(list_pop(&core->done), struct call, link);
        return (struct client_effect){.kind = EFFECT_DELIVER, .call = call};
    }
    return (struct client_effect){.kind = EFFECT_NONE};
}
