/* The raw client's core: the input is a script of what callers ask and what brokers send back. Every call must end,
 * once, and nothing may be left over. */
#include "base/core/bytes.h"
#include "proto/client/client_internal.h"
#include "tests/fuzz/fuzz.h"

#define SEC    INT64_C(1000000)
#define CALLS  64
#define ROUNDS 400

struct world {
    struct client_core *core;
    int64_t now;
    struct slice script;
    intptr_t handles;
    struct client_conn *last;
    struct client_call *calls[CALLS];
    int ended[CALLS], asked;
};

static uint8_t byte(struct world *w)
{
    if (!w->script.n)
        return 0;
    uint8_t b = w->script.p[0];
    w->script = slice_of(w->script.p + 1, w->script.n - 1);
    return b;
}

static struct slice bytes(struct world *w, size_t n)
{
    n = n < w->script.n ? n : w->script.n;
    struct slice s = slice_of(w->script.p, n);
    w->script = slice_of(w->script.p + n, w->script.n - n);
    return s;
}

static struct world world;

static void on_response(void *arg, const struct client_response *r)
{
    int i = (int)(intptr_t)arg;
    if (world.ended[i]++ || (r->status == 0) != (r->body != NULL) || (r->status && !r->err->text[0]))
        abort();
    world.calls[i] = NULL;
}

static void give(struct world *w, struct client_conn *conn, struct slice s)
{
    void *handle = conn->handle;
    while (s.n && handle && conn->handle == handle) {
        size_t room;
        uint8_t *to = client_conn_room(conn, &room);
        if (!room)
            return;
        size_t n = s.n < room ? s.n : room;
        memcpy(to, s.p, n);
        client_conn_received(conn, n, w->now);
        s = slice_of(s.p + n, s.n - n);
    }
}

/* A frame for the call that waits first, its correlation right, its body from the script or valid. */
static void answer(struct world *w, bool valid)
{
    struct client_conn *conn = w->last;
    struct buf out;
    if (!conn || list_empty(&conn->calls))
        return;
    struct call *call = LIST_ENTRY(conn->calls.next, struct call, link);
    buf_init(&out, 1 << 20);
    if (valid && call->api->key == kp_key_api_versions) {
        size_t n;
        const struct kp_api *t = kp_api_table(&n);
        struct kp_api_versions_response_api_keys *keys = calloc(n, sizeof *keys);
        for (size_t i = 0; i < n; i++)
            keys[i] = (struct kp_api_versions_response_api_keys){t[i].key, t[i].request.version_min,
                                                                 t[i].request.version_max};
        struct kp_api_versions_response body = {.api_keys = keys, .api_keys_n = (int32_t)n};
        kp_response_frame(call->api, call->version, call->correlation, &body, &out);
        free(keys);
    } else if (valid && call->api->key == kp_key_metadata) {
        struct kp_metadata_response_brokers b = {1, SLICE_LIT("b"), 9092, SLICE_NULL};
        struct kp_metadata_response_partitions p = {.leader_id = 1, .leader_epoch = byte(w)};
        struct kp_metadata_response_topics t = {
            .name = SLICE_LIT("t"), .topic_id = uuid_small(1), .partitions = &p, .partitions_n = 1};
        struct kp_metadata_response body = {.brokers = &b,
                                            .brokers_n = 1,
                                            .cluster_id = SLICE_LIT("c"),
                                            .controller_id = 1,
                                            .topics = &t,
                                            .topics_n = 1};
        kp_response_frame(call->api, call->version, call->correlation, &body, &out);
    } else {
        struct slice body = bytes(w, byte(w));
        bool flexible =
            call->version >= call->api->response.flexible_since && call->api->key != kp_key_api_versions;
        buf_put_be32(&out, (uint32_t)(4 + flexible + body.n));
        buf_put_be32(&out, (uint32_t)call->correlation);
        if (flexible)
            buf_put_u8(&out, 0);
        buf_put(&out, body.p, body.n);
    }
    give(w, conn, buf_slice(&out));
    buf_fini(&out);
}

static void ask(struct world *w)
{
    static const int16_t keys[] = {kp_key_list_offsets,  kp_key_metadata,        kp_key_fetch,
                                   kp_key_produce,       kp_key_heartbeat,       kp_key_join_group,
                                   kp_key_create_topics, kp_key_describe_configs};
    uint8_t how = byte(w);
    if (w->asked == CALLS)
        return;
    struct call *call = client_core_call(w->core, kp_api_find(keys[how % 8]), false);
    if (!call)
        return;
    call->pub.target = (struct client_target){
        .kind = (enum client_target_kind)(how / 8 % 6), .name = SLICE_LIT("t"), .number = how / 64 % 2};
    call->pub.retry = how & 128 ? CLIENT_RETRY_SAFE : CLIENT_RETRY_UNSENT;
    call->pub.on_response = on_response;
    call->pub.arg = (void *)(intptr_t)w->asked;
    w->calls[w->asked++] = &call->pub;
    client_core_submit(w->core, call, w->now);
}

static void effects(struct world *w)
{
    bool more = true;
    for (int i = 0; more && i < ROUNDS; i++) {
        struct client_effect e;
        more = false;
        client_core_time(w->core, w->now);
        while ((e = client_core_effect(w->core)).kind != EFFECT_NONE) {
            struct iovec v[CONN_IOV_MAX];
            int n;
            more = true;
            switch (e.kind) {
            case EFFECT_CONNECT:
                e.conn->handle = (void *)++w->handles;
                w->last = e.conn;
                client_conn_connected(e.conn, w->now);
                break;
            case EFFECT_IO:
                w->last = e.conn;
                while ((n = client_conn_gather(e.conn, v, CONN_IOV_MAX)) > 0) {
                    size_t total = 0;
                    for (int k = 0; k < n; k++)
                        total += v[k].iov_len;
                    client_conn_written(e.conn, total, w->now);
                }
                break;
            case EFFECT_DELIVER:
                e.call->pub.on_response(e.call->pub.arg, &e.call->response);
                client_core_delivered(w->core, e.call);
                break;
            default: break;
            }
        }
    }
    /* brokers come and go: a connection is only remembered while its broker is there */
    bool there = false;
    list_each (at, &w->core->brokers) {
        struct client_broker *b = LIST_ENTRY(at, struct client_broker, link);
        there = there || (w->last && w->last->broker == b);
    }
    if (!there)
        w->last = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct client_options o = {.bootstrap = "boot:9092", .response_max_bytes = 1 << 20};
    struct world *w = &world;
    *w = (struct world){.now = SEC, .script = slice_of(data, n)};
    if (client_core_create(&o, 1, w->now, &w->core, NULL))
        return 0;
    while (w->script.n) {
        uint8_t op = byte(w);
        switch (op % 8) {
        case 0: ask(w); break;
        case 1: answer(w, true); break;
        case 2: answer(w, false); break;
        case 3:
            if (w->last)
                give(w, w->last, bytes(w, byte(w)));
            break;
        case 4: w->now += (int64_t)byte(w) * 50000; break;
        case 5:
            if (w->last && w->last->handle)
                client_conn_broken(w->last, -E_CLOSED, "reset", w->now);
            break;
        case 6: {
            int i = byte(w) % CALLS;
            if (w->calls[i] && call_of(w->calls[i])->state != CALL_DONE) {
                client_core_cancel(w->core, call_of(w->calls[i]));
                w->calls[i] = NULL;
                w->ended[i]++;
            }
            break;
        }
        default: w->now += 1000; break;
        }
        effects(w);
    }
    for (int i = 0; i < 100; i++) {
        w->now += SEC;
        effects(w);
    }
    for (int i = 0; i < w->asked; i++)
        if (w->ended[i] != 1)
            abort();
    client_core_destroy(w->core);
    return 0;
}
