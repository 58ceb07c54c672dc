/* A source made of a script: one simulated broker with topic "t", whose answers the test decides. Where the test asks
 * for more partitions than one they all have the same log. */
#ifndef SUNDOG_TESTS_UNIT_MIRROR_PORT_SOURCE_H
#define SUNDOG_TESTS_UNIT_MIRROR_PORT_SOURCE_H

#include "base/core/bytes.h"
#include "proto/kafka/batch.h"
#include "proto/kafka/wire.h"
#include "tests/support/sim/sim.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define BATCHES_MAX   64
#define SOURCE_PORT   9092
#define SESSION_PARTS 300

/* A fetch session (KIP-227): who is in it, from where, and what was said of each last. */
struct source_session {
    int32_t id, epoch; /* id 0: there is none */
    bool in[SESSION_PARTS];
    struct kp_fetch_request_partitions row[SESSION_PARTS];
    int64_t high_watermark[SESSION_PARTS], start[SESSION_PARTS];
};

struct source {
    /* the log */
    struct buf batch[BATCHES_MAX];
    struct batch_header h[BATCHES_MAX];
    int batches_n;
    int64_t start, end, stable;
    int32_t partitions_n; /* 1 when 0 */
    /* the script */
    struct uuid id;
    int32_t epoch;
    bool no_topic;
    int16_t fetch_error;
    int fetch_errors;  /* so many times, of partition 0 */
    size_t answer_max; /* bytes of one answer, of all partitions; 0: what is asked for */
    int corrupt_batch; /* of partition 0, 1 for the first: a bit of it is turned over; 0: none */
    int64_t epoch_end; /* of any epoch but the newest; -1: what the log says */
    int64_t diverging; /* told to who sends a last epoch that is not the newest; -1: never */
    struct kp_fetch_response_aborted_transactions aborted[8];
    int32_t aborted_n;
    bool no_sessions;
    int16_t session_error; /* to each request that goes on with a session; it is dropped with 70 */
    int16_t fetch_version; /* the newest it knows; 0: ours */
    struct source_session session;
    /* what was asked */
    int sessions_n, incrementals_n, closed_n, sessionless_n;
    int named_n, named_last, forgotten_n; /* partitions in requests that went on with a session */
    int fetches, epochs_asked;
    size_t answer_most, answer_left; /* of the answer that is made */
    int32_t max_bytes_seen, max_bytes_last, part_bytes_seen;
    int32_t throttle_ms; /* said in each answer to a fetch */
    int32_t preferred;   /* a fetch with a rack is sent to this node, host "replica"; 0: to none */
    struct sim_node *node;
    struct net_listener *listener;
    struct peer *peers;
};

/* One connection at the source. An answer without anything in it waits a little, as a long poll does. */
struct peer {
    struct peer *next;
    struct source *source;
    struct net_conn *conn;
    struct buf in, out;
    struct loop_timer later;
    bool empty;
};

/* ---- the log ---- */

struct batch_spec {
    int64_t base;
    int n;
    enum codec codec;
    int64_t producer_id; /* 0: none */
    int attributes;
    int32_t epoch;
};

static inline void source_add(struct source *s, struct batch_spec b)
{
    cr_assert_lt(s->batches_n, BATCHES_MAX);
    struct buf *out = &s->batch[s->batches_n];
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder builder;
    buf_init(out, 64 << 20);
    o.codec = b.codec;
    o.base_offset = b.base;
    o.leader_epoch = b.epoch;
    o.attributes = b.attributes;
    if (b.producer_id) {
        o.producer_id = b.producer_id;
        o.producer_epoch = 0;
        o.base_sequence = 0;
    }
    batch_begin(&builder, out, &o);
    for (int i = 0; i < b.n; i++) {
        char key[32], value[64];
        struct record_header h[2] = {{SLICE_LIT("a"), SLICE_LIT("b")}, {SLICE_LIT("n"), SLICE_NULL}};
        snprintf(key, sizeof key, "k%lld", (long long)b.base + i);
        snprintf(value, sizeof value, "value %lld of a record", (long long)b.base + i);
        struct record_new r = {.timestamp = 1000 + b.base + i,
                               .key = i % 3 == 0   ? SLICE_NULL
                                      : i % 3 == 1 ? SLICE_LIT("")
                                                   : slice_str(key),
                               .value = i % 5 == 4 ? SLICE_NULL : slice_str(value),
                               .headers = h,
                               .headers_n = i % 2 ? 2 : 0};
        cr_assert_eq(batch_add(&builder, &r), 0);
    }
    cr_assert_eq(batch_close(&builder, &s->h[s->batches_n]), 0);
    s->batches_n++;
    s->end = s->stable = b.base + b.n;
}

static inline void source_marker(struct source *s, int64_t at, int64_t producer_id, enum control_type type)
{
    struct buf *out = &s->batch[s->batches_n];
    struct batch_options o = BATCH_OPTIONS;
    buf_init(out, 1 << 20);
    o.base_offset = at;
    o.producer_id = producer_id;
    o.producer_epoch = 0;
    o.leader_epoch = s->epoch;
    cr_assert_eq(batch_put_end_txn(out, &o, 1, type, 0), 0);
    cr_assert_eq(batch_header_read(buf_slice(out), &s->h[s->batches_n], NULL), 0);
    s->batches_n++;
    s->end = s->stable = at + 1;
}

static inline void source_clear(struct source *s)
{
    while (s->batches_n)
        buf_fini(&s->batch[--s->batches_n]);
}

/* ---- the broker ---- */

static inline void answer_metadata(struct source *s, struct arena *a, struct kp_metadata_response *m)
{
    kp_init(&kp_metadata_response_message, m);
    m->brokers = ARENA_NEW(a, struct kp_metadata_response_brokers);
    *m->brokers = (struct kp_metadata_response_brokers){1, SLICE_LIT("source"), SOURCE_PORT, SLICE_NULL};
    m->brokers_n = 1;
    if (s->preferred) {
        m->brokers = ARENA_NEWS(a, struct kp_metadata_response_brokers, 2);
        m->brokers[0] =
            (struct kp_metadata_response_brokers){1, SLICE_LIT("source"), SOURCE_PORT, SLICE_NULL};
        m->brokers[1] = (struct kp_metadata_response_brokers){s->preferred, SLICE_LIT("replica"), SOURCE_PORT,
                                                              SLICE_LIT("here")};
        m->brokers_n = 2;
    }
    m->cluster_id = SLICE_LIT("script");
    m->controller_id = 1;
    m->topics = ARENA_NEW(a, struct kp_metadata_response_topics);
    m->topics_n = 1;
    m->topics->name = SLICE_LIT("t");
    if (s->no_topic) {
        m->topics->error_code = KE_UNKNOWN_TOPIC_OR_PARTITION;
        return;
    }
    m->topics->topic_id = s->id;
    m->topics->partitions_n = s->partitions_n ? s->partitions_n : 1;
    m->topics->partitions = ARENA_NEWS(a, struct kp_metadata_response_partitions, m->topics->partitions_n);
    for (int32_t i = 0; i < m->topics->partitions_n; i++)
        m->topics->partitions[i] = (struct kp_metadata_response_partitions){
            .partition_index = i, .leader_id = 1, .leader_epoch = s->epoch};
}

static inline void fetch_records(struct source *s, struct arena *a,
                                 const struct kp_fetch_request_partitions *q, int32_t max_bytes,
                                 struct kp_fetch_response_partitions *p)
{
    struct buf all;
    buf_init(&all, 64 << 20);
    size_t most = (size_t)(max_bytes < q->partition_max_bytes ? max_bytes : q->partition_max_bytes);
    s->part_bytes_seen =
        q->partition_max_bytes > s->part_bytes_seen ? q->partition_max_bytes : s->part_bytes_seen;
    most = most < s->answer_left ? most : s->answer_left;
    for (int i = 0; i < s->batches_n; i++) {
        if (batch_last_offset(&s->h[i]) < q->fetch_offset ||
            (all.n + s->batch[i].n > most && (all.n || most < s->answer_most)))
            continue;
        buf_put(&all, s->batch[i].p, s->batch[i].n);
        if (q->partition == 0 && i == s->corrupt_batch - 1)
            all.p[all.n - 3] ^= 1;
    }
    p->records.bytes = arena_dup(a, buf_slice(&all));
    s->answer_left -= all.n < s->answer_left ? all.n : s->answer_left;
    buf_fini(&all);
}

static inline void fetch_partition(struct source *s, struct arena *a, const struct kp_fetch_request *q,
                                   const struct kp_fetch_request_partitions *one,
                                   struct kp_fetch_response_partitions *p)
{
    *p = (struct kp_fetch_response_partitions){.partition_index = one->partition,
                                               .high_watermark = s->end,
                                               .last_stable_offset = s->stable,
                                               .log_start_offset = s->start,
                                               .preferred_read_replica = -1,
                                               .diverging_epoch = {-1, -1},
                                               .current_leader = {-1, -1},
                                               .snapshot_id = {-1, -1}};
    p->records.bytes = SLICE_LIT("");
    if (one->partition == 0 && s->fetch_errors) {
        s->fetch_errors--;
        p->error_code = s->fetch_error;
    } else if (one->current_leader_epoch >= 0 && one->current_leader_epoch != s->epoch) {
        p->error_code =
            one->current_leader_epoch < s->epoch ? KE_FENCED_LEADER_EPOCH : KE_UNKNOWN_LEADER_EPOCH;
    } else if (one->fetch_offset < s->start || one->fetch_offset > s->end) {
        p->error_code = KE_OFFSET_OUT_OF_RANGE;
    } else if (s->diverging >= 0 && one->last_fetched_epoch >= 0 && one->last_fetched_epoch != s->epoch) {
        p->diverging_epoch = (struct kp_fetch_response_diverging_epoch){0, s->diverging};
    } else if (s->preferred && slice_eq_str(q->rack_id, "here")) {
        p->preferred_read_replica = s->preferred;
    } else {
        fetch_records(s, a, one, q->max_bytes, p);
        p->aborted_transactions = s->aborted;
        p->aborted_transactions_n = q->isolation_level ? s->aborted_n : -1;
    }
    if (p->error_code)
        p->high_watermark = p->last_stable_offset = p->log_start_offset = -1;
}

static inline bool row_news(const struct kp_fetch_response_partitions *p)
{
    return p->records.bytes.n || p->error_code || p->preferred_read_replica >= 0 ||
           p->diverging_epoch.epoch >= 0;
}

/* False: nothing is said of it. */
static inline bool session_says(struct source_session *s, const struct kp_fetch_response_partitions *p)
{
    int32_t i = p->partition_index;
    bool says =
        row_news(p) || s->high_watermark[i] != p->high_watermark || s->start[i] != p->log_start_offset;
    s->high_watermark[i] = p->error_code ? -1 : p->high_watermark;
    s->start[i] = p->log_start_offset;
    return says;
}

static inline void session_take(struct source_session *s, const struct kp_fetch_request *q)
{
    for (int32_t i = 0; i < q->topics_n; i++) {
        for (int32_t k = 0; k < q->topics[i].partitions_n; k++) {
            const struct kp_fetch_request_partitions *p = &q->topics[i].partitions[k];
            cr_assert_lt(p->partition, SESSION_PARTS);
            if (!s->in[p->partition])
                s->high_watermark[p->partition] = s->start[p->partition] = -1;
            s->in[p->partition] = true;
            s->row[p->partition] = *p;
        }
    }
    for (int32_t i = 0; i < q->forgotten_topics_data_n; i++)
        for (int32_t k = 0; k < q->forgotten_topics_data[i].partitions_n; k++) {
            cr_assert(s->in[q->forgotten_topics_data[i].partitions[k]], "forgets what was not there");
            s->in[q->forgotten_topics_data[i].partitions[k]] = false;
        }
}

static inline bool answer_incremental(struct source *s, struct arena *a, const struct kp_fetch_request *q,
                                      struct kp_fetch_response *m)
{
    struct source_session *session = &s->session;
    bool news = false;
    s->incrementals_n++;
    s->named_n += s->named_last = q->topics_n;
    s->forgotten_n += q->forgotten_topics_data_n;
    m->responses_n = 0;
    m->error_code = session->id == 0 || q->session_id != session->id ? KE_FETCH_SESSION_ID_NOT_FOUND
                    : q->session_epoch != session->epoch             ? KE_INVALID_FETCH_SESSION_EPOCH
                                                                     : s->session_error;
    if (m->error_code == KE_FETCH_SESSION_ID_NOT_FOUND)
        session->id = 0;
    if (m->error_code)
        return true;
    session_take(session, q);
    session->epoch = session->epoch == INT32_MAX ? 1 : session->epoch + 1;
    m->session_id = session->id;
    struct kp_fetch_response_partitions *p =
        ARENA_NEWS(a, struct kp_fetch_response_partitions, SESSION_PARTS);
    *m->responses =
        (struct kp_fetch_response_responses){.topic_id = s->id, .topic = SLICE_LIT("t"), .partitions = p};
    for (int32_t i = 0; i < SESSION_PARTS; i++) {
        struct kp_fetch_response_partitions *one = &p[m->responses->partitions_n];
        if (!session->in[i])
            continue;
        fetch_partition(s, a, q, &session->row[i], one);
        news = news || row_news(one);
        m->responses->partitions_n += session_says(session, one);
    }
    m->responses_n = m->responses->partitions_n > 0;
    return news;
}

/* A full request: whatever session it names ends, and with epoch 0 another one begins. */
static inline void session_begin(struct source *s, const struct kp_fetch_request *q,
                                 struct kp_fetch_response *m)
{
    if (q->session_id && q->session_id == s->session.id) {
        s->session.id = 0;
        s->closed_n++;
    }
    s->sessionless_n += q->session_epoch < 0;
    if (q->session_epoch < 0 || s->no_sessions || q->topics_n == 0)
        return;
    memset(&s->session, 0, sizeof s->session);
    m->session_id = s->session.id = 1000 + ++s->sessions_n;
    s->session.epoch = 1;
    session_take(&s->session, q);
    for (int32_t i = 0; i < m->responses_n; i++)
        session_says(&s->session, m->responses[i].partitions);
}

/* False: there is nothing in it, so the answer waits a little. */
static inline bool answer_fetch(struct source *s, struct arena *a, const struct kp_fetch_request *q,
                                struct kp_fetch_response *m)
{
    bool news = false;
    kp_init(&kp_fetch_response_message, m);
    s->fetches++;
    s->answer_left = s->answer_most = s->answer_max ? s->answer_max : SIZE_MAX;
    s->max_bytes_last = q->max_bytes;
    m->throttle_time_ms = s->throttle_ms;
    s->max_bytes_seen = q->max_bytes > s->max_bytes_seen ? q->max_bytes : s->max_bytes_seen;
    m->responses = ARENA_NEWS(a, struct kp_fetch_response_responses, q->topics_n + 1);
    if (q->session_epoch > 0)
        return answer_incremental(s, a, q, m) || q->max_wait_ms == 0;
    m->responses_n = q->topics_n;
    for (int32_t i = 0; i < q->topics_n; i++) {
        const struct kp_fetch_request_topics *t = &q->topics[i];
        struct kp_fetch_response_partitions *p =
            ARENA_NEWS(a, struct kp_fetch_response_partitions, t->partitions_n);
        for (int32_t k = 0; k < t->partitions_n; k++) {
            fetch_partition(s, a, q, &t->partitions[k], &p[k]);
            news = news || row_news(&p[k]);
        }
        m->responses[i] = (struct kp_fetch_response_responses){.topic_id = t->topic_id,
                                                               .topic = SLICE_LIT("t"),
                                                               .partitions = p,
                                                               .partitions_n = t->partitions_n};
    }
    session_begin(s, q, m);
    return news || q->max_wait_ms == 0 || q->topics_n == 0;
}

static inline void answer_offsets(struct source *s, struct arena *a, const struct kp_list_offsets_request *q,
                                  struct kp_list_offsets_response *m)
{
    kp_init(&kp_list_offsets_response_message, m);
    struct kp_list_offsets_response_partitions *p = ARENA_NEW(a, struct kp_list_offsets_response_partitions);
    *p = (struct kp_list_offsets_response_partitions){
        .partition_index = q->topics->partitions->partition_index,
        .offset = q->topics->partitions->timestamp == -2 ? s->start
                  : q->isolation_level                   ? s->stable
                                                         : s->end,
        .timestamp = -1,
        .leader_epoch = s->epoch};
    m->topics = ARENA_NEW(a, struct kp_list_offsets_response_topics);
    *m->topics = (struct kp_list_offsets_response_topics){SLICE_LIT("t"), p, 1};
    m->topics_n = 1;
}

static inline void answer_epoch(struct source *s, struct arena *a,
                                const struct kp_offset_for_leader_epoch_request *q,
                                struct kp_offset_for_leader_epoch_response *m)
{
    kp_init(&kp_offset_for_leader_epoch_response_message, m);
    s->epochs_asked++;
    bool newest = q->topics->partitions->leader_epoch >= s->epoch;
    struct kp_offset_for_leader_epoch_response_partitions *p =
        ARENA_NEW(a, struct kp_offset_for_leader_epoch_response_partitions);
    p->partition = q->topics->partitions->partition;
    p->leader_epoch = q->topics->partitions->leader_epoch;
    p->end_offset = newest || s->epoch_end < 0 ? s->end : s->epoch_end;
    m->topics = ARENA_NEW(a, struct kp_offset_for_leader_epoch_response_topics);
    m->topics->topic = SLICE_LIT("t");
    m->topics->partitions = p;
    m->topics->partitions_n = 1;
    m->topics_n = 1;
}

static inline void answer_versions(const struct source *s, struct arena *a,
                                   struct kp_api_versions_response *m)
{
    size_t n;
    const struct kp_api *t = kp_api_table(&n);
    kp_init(&kp_api_versions_response_message, m);
    m->api_keys = ARENA_NEWS(a, struct kp_api_versions_response_api_keys, n);
    for (size_t i = 0; i < n; i++)
        m->api_keys[m->api_keys_n++] = (struct kp_api_versions_response_api_keys){
            t[i].key, t[i].request.version_min,
            t[i].key == kp_key_fetch && s->fetch_version ? s->fetch_version : t[i].request.version_max};
}

static inline void peer_write(void *arg)
{
    struct peer *p = arg;
    while (p->conn && p->out.n) {
        struct iovec v = {p->out.p, p->out.n};
        ssize_t n = net_writev(p->conn, &v, 1);
        if (n <= 0)
            break;
        buf_drop(&p->out, (size_t)n);
    }
    if (p->conn)
        net_want(p->conn, p->out.n ? NET_WANT_READ | NET_WANT_WRITE : NET_WANT_READ);
}

static inline void source_answer(struct peer *p, struct slice frame)
{
    struct source *s = p->source;
    struct arena a;
    struct kp_request_header h;
    size_t used;
    arena_init(&a, 64 << 20);
    cr_assert_eq(kp_request_header_decode(frame, &h, &used, NULL), 0);
    const struct kp_api *api = kp_api_find(h.api_key);
    void *q = arena_alloc(&a, api->request.body->size_bytes);
    void *m = arena_alloc(&a, api->response.body->size_bytes);
    struct slice body = slice_of(frame.p + used, frame.n - used);
    cr_assert_eq(kp_decode(&api->request, h.api_version, body, &a, q, NULL, NULL), 0);
    p->empty = false;
    switch (h.api_key) {
    case kp_key_api_versions: answer_versions(s, &a, m); break;
    case kp_key_metadata: answer_metadata(s, &a, m); break;
    case kp_key_fetch: p->empty = !answer_fetch(s, &a, q, m); break;
    case kp_key_list_offsets: answer_offsets(s, &a, q, m); break;
    case kp_key_offset_for_leader_epoch: answer_epoch(s, &a, q, m); break;
    default: cr_assert_fail("API %d is not expected", h.api_key);
    }
    cr_assert_eq(kp_response_frame(api, h.api_version, h.correlation_id, m, &p->out), 0);
    arena_fini(&a);
}

static inline void peer_close(struct peer *p)
{
    loop_timer_stop(&p->later);
    if (p->conn)
        net_close(p->conn);
    p->conn = NULL;
}

static inline void peer_read(void *arg)
{
    struct peer *p = arg;
    uint8_t *to;
    ssize_t n = -E_CLOSED;
    while ((to = buf_room(&p->in, 65536)) && (n = net_read(p->conn, to, 65536)) > 0)
        buf_added(&p->in, (size_t)n);
    if (n != -E_AGAIN) {
        peer_close(p);
        return;
    }
    while (p->in.n >= 4) {
        size_t size = be32_get(p->in.p);
        if (p->in.n < 4 + size)
            break;
        source_answer(p, slice_of(p->in.p + 4, size));
        buf_drop(&p->in, 4 + size);
    }
    if (p->out.n)
        loop_timer_in(&p->later, p->empty ? 20 * SIM_MS : 0);
}

static inline void source_accept(void *arg, struct net_conn *c)
{
    static const struct net_conn_events events = {.readable = peer_read, .writable = peer_write};
    struct source *s = arg;
    struct peer *p = calloc(1, sizeof *p);
    *p = (struct peer){.next = s->peers, .source = s, .conn = c};
    s->peers = p;
    buf_init(&p->in, 64 << 20);
    buf_init(&p->out, 256 << 20);
    loop_timer_init(&p->later, sim_node_loop(s->node), peer_write, p);
    net_conn_set_events(c, &events, p);
    net_want(c, NET_WANT_READ);
}

static inline void *source_boot(void *arg, struct sim_node *node)
{
    struct source *s = arg;
    struct err err = {0};
    s->node = node;
    s->session.id = 0;
    cr_assert_eq(net_listen(sim_node_net(node), "0.0.0.0", SOURCE_PORT, source_accept, s, &s->listener, &err),
                 0, "%s", err.text);
    return s;
}

static inline void source_shut(void *arg, void *program)
{
    struct source *s = arg;
    (void)program;
    while (s->peers) {
        struct peer *p = s->peers;
        s->peers = p->next;
        peer_close(p);
        buf_fini(&p->in);
        buf_fini(&p->out);
        free(p);
    }
    net_listener_close(s->listener);
}

#endif
