/* The client's core without sockets: effects are carried out by the test, brokers are scripts. */
#ifndef SUNDOG_TESTS_UNIT_CLIENT_RIG_H
#define SUNDOG_TESTS_UNIT_CLIENT_RIG_H

#include "proto/client/client_internal.h"
#include "proto/client/token.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define MS           INT64_C(1000)
#define SEC          INT64_C(1000000)

#define RIG_CONNS    32
#define RIG_REQUESTS 64

/* A request that a scripted broker has received. */
struct request {
    struct client_conn *conn;
    struct kp_request_header h;
    const struct kp_api *api;
    void *body;
};

struct rig {
    struct client_core *core;
    int64_t now;
    struct arena arena;
    int handles;              /* connections opened so far; a handle is its number */
    bool refuse, hang, mute;  /* connects fail; never end; nothing is answered by itself */
    bool silent;              /* nor is Metadata */
    struct buf in[RIG_CONNS]; /* bytes the broker has, by handle */
    struct client_conn *conns[RIG_CONNS];
    struct request requests[RIG_REQUESTS];
    int requests_n, closes, watches;
    int owed[RIG_CONNS]; /* requests the test has not answered yet: later ones must wait for them */
    struct request deferred[RIG_REQUESTS];
    int deferred_n;
    int metadata_asked, write_limit;
    /* what the cluster is */
    struct kp_metadata_response metadata;
    struct kp_api_versions_response versions;
    int16_t versions_error_first;
};

struct got {
    int n, status;
    bool sent;
    int16_t version;
    char text[ERR_TEXT_MAX];
    struct client_frame *frame; /* kept when `keep` */
    bool keep;
    int order;
};

static int rig_order;

static inline void got_it(void *arg, const struct client_response *r)
{
    struct got *g = arg;
    g->n++;
    g->order = ++rig_order;
    g->status = r->status;
    g->sent = r->sent;
    g->version = r->version;
    cr_assert_eq(r->status == 0, r->body != NULL);
    snprintf(g->text, sizeof g->text, "%s", r->err ? r->err->text : "");
    if (g->keep && r->frame)
        g->frame = client_frame_ref(r->frame);
}

static inline void rig_versions(struct rig *r)
{
    size_t n;
    const struct kp_api *t = kp_api_table(&n);
    r->versions.api_keys = ARENA_NEWS(&r->arena, struct kp_api_versions_response_api_keys, n);
    for (size_t i = 0; i < n; i++)
        r->versions.api_keys[r->versions.api_keys_n++] = (struct kp_api_versions_response_api_keys){
            t[i].key, t[i].request.version_min, t[i].request.version_max};
}

static inline struct kp_api_versions_response_api_keys *rig_range(struct rig *r, int16_t key)
{
    for (int32_t i = 0; i < r->versions.api_keys_n; i++)
        if (r->versions.api_keys[i].api_key == key)
            return &r->versions.api_keys[i];
    return NULL;
}

/* Two brokers, topic "t" with two partitions led by 1 and 2 at epoch 5. */
static inline void rig_metadata(struct rig *r)
{
    struct kp_metadata_response *m = &r->metadata;
    kp_init(&kp_metadata_response_message, m);
    m->brokers = ARENA_NEWS(&r->arena, struct kp_metadata_response_brokers, 2);
    m->brokers_n = 2;
    for (int i = 0; i < 2; i++)
        m->brokers[i] = (struct kp_metadata_response_brokers){i + 1, SLICE_LIT("b"), 9001 + i, SLICE_NULL};
    m->cluster_id = SLICE_LIT("cluster-one");
    m->controller_id = 2;
    m->topics = ARENA_NEWS(&r->arena, struct kp_metadata_response_topics, 1);
    m->topics_n = 1;
    m->topics[0].name = SLICE_LIT("t");
    m->topics[0].topic_id = uuid_small(7);
    m->topics[0].partitions = ARENA_NEWS(&r->arena, struct kp_metadata_response_partitions, 2);
    m->topics[0].partitions_n = 2;
    for (int i = 0; i < 2; i++)
        m->topics[0].partitions[i] = (struct kp_metadata_response_partitions){
            .partition_index = i, .leader_id = i + 1, .leader_epoch = 5};
}

static inline void rig_init(struct rig *r, const struct client_options *o)
{
    struct client_options d = o ? *o : (struct client_options){0};
    struct err err = {0};
    *r = (struct rig){.now = 1000 * SEC, .write_limit = 1 << 30};
    arena_init(&r->arena, 16 << 20);
    d.bootstrap = d.bootstrap ? d.bootstrap : "boot:9000";
    cr_assert_eq(client_core_create(&d, 42, r->now, &r->core, &err), 0, "%s", err.text);
    rig_versions(r);
    rig_metadata(r);
}

static inline void rig_fini(struct rig *r)
{
    client_core_destroy(r->core);
    for (int i = 0; i < RIG_CONNS; i++)
        buf_fini(&r->in[i]);
    arena_fini(&r->arena);
}

static inline intptr_t handle_of(const struct client_conn *conn)
{
    return (intptr_t)conn->handle;
}

/* Bytes to the client, in pieces of `piece`. */
static inline void rig_bytes(struct rig *r, struct client_conn *conn, struct slice s, size_t piece)
{
    void *handle = conn->handle;
    while (s.n && conn->handle == handle) {
        size_t room;
        uint8_t *to = client_conn_room(conn, &room);
        if (!room)
            break;
        size_t n = s.n < room ? s.n : room;
        n = n < piece ? n : piece;
        memcpy(to, s.p, n);
        s.p += n;
        s.n -= n;
        client_conn_received(conn, n, r->now);
    }
}

static inline void rig_reply(struct rig *r, const struct request *q, const void *body, size_t piece)
{
    struct buf out;
    buf_init(&out, 64 << 20);
    cr_assert_eq(kp_response_frame(q->api, q->h.api_version, q->h.correlation_id, body, &out), 0);
    rig_bytes(r, q->conn, buf_slice(&out), piece);
    buf_fini(&out);
}

static inline bool rig_serve(struct rig *r, const struct request *q)
{
    if (r->mute)
        return false;
    if (q->h.api_key == kp_key_api_versions) {
        struct kp_api_versions_response a = r->versions;
        if (r->versions_error_first && q->h.api_version > 0) {
            /* KIP-511: version 0 whatever was asked */
            struct buf out;
            a.error_code = r->versions_error_first;
            buf_init(&out, 1 << 20);
            cr_assert_eq(kp_response_frame(q->api, 0, q->h.correlation_id, &a, &out), 0);
            rig_bytes(r, q->conn, buf_slice(&out), SIZE_MAX);
            buf_fini(&out);
        } else {
            rig_reply(r, q, &a, SIZE_MAX);
        }
        return true;
    }
    if (q->h.api_key == kp_key_metadata && !r->silent) {
        struct kp_metadata_request *m = q->body;
        r->metadata_asked++;
        cr_assert_not(m->allow_auto_topic_creation, "asking creates nothing");
        rig_reply(r, q, &r->metadata, SIZE_MAX);
        return true;
    }
    return false;
}

/* A broker answers in order: what it answers by itself may have to wait for the test. */
static inline void rig_undefer(struct rig *r, intptr_t handle)
{
    for (int i = 0; i < r->deferred_n && !r->owed[handle]; i++) {
        struct request q = r->deferred[i];
        if (handle_of(q.conn) != handle)
            continue;
        memmove(r->deferred + i, r->deferred + i + 1, (size_t)(--r->deferred_n - i) * sizeof q);
        if (!rig_serve(r, &q)) {
            r->requests[r->requests_n++] = q;
            r->owed[handle]++;
        }
        i = -1;
    }
}

static inline void rig_answer_piecewise(struct rig *r, const struct request *q, const void *body,
                                        size_t piece)
{
    intptr_t handle = handle_of(q->conn);
    rig_reply(r, q, body, piece);
    r->owed[handle]--;
    if (handle_of(q->conn) == handle)
        rig_undefer(r, handle);
}

static inline void rig_answer(struct rig *r, const struct request *q, const void *body)
{
    rig_answer_piecewise(r, q, body, SIZE_MAX);
}

static inline void rig_parse(struct rig *r, struct client_conn *conn)
{
    void *handle = conn->handle;
    struct buf *b = &r->in[handle_of(conn)];
    while (conn->handle == handle && b->n >= 4) {
        uint32_t size = __builtin_bswap32(*(uint32_t *)(void *)b->p);
        if (b->n < 4 + size)
            return;
        struct request q = {.conn = conn};
        size_t used;
        struct slice frame = arena_dup(&r->arena, slice_of(b->p + 4, size));
        buf_drop(b, 4 + size);
        cr_assert_eq(kp_request_header_decode(frame, &q.h, &used, NULL), 0);
        q.api = kp_api_find(q.h.api_key);
        q.body = arena_alloc(&r->arena, q.api->request.body->size_bytes);
        cr_assert_eq(kp_decode(&q.api->request, q.h.api_version, slice_of(frame.p + used, frame.n - used),
                               &r->arena, q.body, NULL, NULL),
                     0);
        cr_assert_lt(r->requests_n + r->deferred_n, RIG_REQUESTS);
        intptr_t h = (intptr_t)handle;
        bool own = q.h.api_key == kp_key_metadata || q.h.api_key == kp_key_api_versions;
        if (r->owed[h] && own) {
            r->deferred[r->deferred_n++] = q;
        } else if (!rig_serve(r, &q)) {
            r->requests[r->requests_n++] = q;
            r->owed[h]++;
        }
    }
}

static inline void rig_write(struct rig *r, struct client_conn *conn)
{
    struct iovec v[CONN_IOV_MAX];
    int n;
    while (client_conn_state(conn) > CONN_CONNECTING && r->write_limit > 0 &&
           (n = client_conn_gather(conn, v, CONN_IOV_MAX)) > 0) {
        size_t total = 0;
        for (int i = 0; i < n && total < (size_t)r->write_limit; i++) {
            size_t take = v[i].iov_len;
            if (take > (size_t)r->write_limit - total)
                take = (size_t)r->write_limit - total;
            buf_put(&r->in[handle_of(conn)], v[i].iov_base, take);
            total += take;
        }
        r->write_limit -= (int)total;
        client_conn_written(conn, total, r->now);
    }
    if (conn->handle)
        rig_parse(r, conn);
}

static inline void rig_effect(struct rig *r, const struct client_effect *e)
{
    switch (e->kind) {
    case EFFECT_CONNECT:
        if (r->refuse) {
            client_conn_broken(e->conn, -E_REFUSED, err_str(-E_REFUSED), r->now);
            break;
        }
        cr_assert_lt(r->handles + 1, RIG_CONNS);
        e->conn->handle = (void *)(intptr_t)++r->handles;
        buf_init(&r->in[r->handles], 64 << 20);
        r->conns[r->handles] = e->conn;
        if (!r->hang)
            client_conn_connected(e->conn, r->now);
        break;
    case EFFECT_CLOSE: r->closes++; break;
    case EFFECT_IO: rig_write(r, e->conn); break;
    case EFFECT_DELIVER:
        e->call->pub.on_response(e->call->pub.arg, &e->call->response);
        client_core_delivered(r->core, e->call);
        break;
    case EFFECT_TOKEN: {
        struct client_token t;
        struct err err = {0};
        client_token_get(r->core->o.security, &t, &err);
        client_core_token(r->core, t.text, &err, r->now);
        client_token_fini(&t);
        break;
    }
    case EFFECT_WATCHES: r->watches++; break;
    case EFFECT_NONE: break;
    }
}

/* Everything that can happen without time passing. */
static inline void rig_run(struct rig *r)
{
    bool more = true;
    for (int i = 0; more; i++) {
        cr_assert_lt(i, 1000, "it never comes to rest");
        struct client_effect e;
        more = false;
        client_core_time(r->core, r->now);
        while ((e = client_core_effect(r->core)).kind != EFFECT_NONE) {
            rig_effect(r, &e);
            more = true;
        }
    }
}

/* Time passes, stopping wherever the core wants to look. */
static inline void rig_pass(struct rig *r, int64_t us)
{
    int64_t end = r->now + us;
    rig_run(r);
    for (int i = 0; r->now < end; i++) {
        cr_assert_lt(i, 100000, "the core spins");
        int64_t due = client_core_due(r->core);
        r->now = due > r->now && due < end ? due : due <= r->now ? r->now + 1 : end;
        rig_run(r);
    }
}

static inline struct client_call *rig_call(struct rig *r, int16_t key, struct got *g)
{
    struct call *call = client_core_call(r->core, kp_api_find(key), false);
    cr_assert_not_null(call);
    call->pub.on_response = got_it;
    call->pub.arg = g;
    return &call->pub;
}

static inline void rig_send(struct rig *r, struct client_call *c)
{
    client_core_submit(r->core, call_of(c), r->now);
}

/* A ListOffsets to the leader of t-`partition`; a handy request. */
static inline struct client_call *rig_ask(struct rig *r, int32_t partition, enum client_retry retry,
                                          struct got *g)
{
    struct client_call *c = rig_call(r, kp_key_list_offsets, g);
    c->target = (struct client_target){.kind = CLIENT_LEADER, .name = SLICE_LIT("t"), .number = partition};
    c->retry = retry;
    rig_send(r, c);
    return c;
}

static inline void rig_answer_offsets(struct rig *r, const struct request *q, int16_t error)
{
    struct kp_list_offsets_response_partitions p = {.error_code = error, .offset = 3};
    struct kp_list_offsets_response_topics t = {.name = SLICE_LIT("t"), .partitions = &p, .partitions_n = 1};
    struct kp_list_offsets_response a = {.topics = &t, .topics_n = 1};
    rig_answer(r, q, &a);
}

/* Takes the oldest request that waits for the test. */
static inline struct request rig_take(struct rig *r)
{
    cr_assert_gt(r->requests_n, 0, "no request has come");
    struct request q = r->requests[0];
    memmove(r->requests, r->requests + 1, (size_t)--r->requests_n * sizeof q);
    return q;
}

#endif
