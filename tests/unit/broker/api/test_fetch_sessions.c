/* The table of fetch sessions against a model of Kafka's contract. */
#include "broker/api/fetch_sessions.h"

#include <criterion/criterion.h>

#define SLOTS 4
#define KEYS  24
#define IDS   64

struct modelled {
    int32_t id, epoch; /* id 0: there is none */
    int64_t used_at_us;
    bool in[KEYS];
    int64_t offset[KEYS], high_watermark[KEYS], start[KEYS];
};

struct world {
    struct fetch_sessions table;
    struct modelled model[SLOTS];
    struct rng rng;
    int64_t now_us;
    int32_t old[IDS]; /* ids that were given, some still */
    int old_n;
    struct kp_fetch_request_partitions rows[KEYS];
    struct kp_fetch_request_topics topics[KEYS];
    struct kp_fetch_request_forgotten_topics_data forgotten[KEYS];
    int32_t partitions[KEYS];
};

static struct uuid topic_of(int key)
{
    return uuid_small((uint64_t)(1 + key / 8));
}

static bool is(int key, const struct uuid *topic, int32_t partition)
{
    struct uuid t = topic_of(key);
    return partition == key % 8 && uuid_eq(topic, &t);
}

static int key_of(const struct fetch_member *m)
{
    for (int k = 0; k < KEYS; k++)
        if (is(k, &m->key.topic, m->key.partition))
            return k;
    cr_assert_fail("a partition that nobody named");
    return -1;
}

static struct kp_fetch_request some(struct world *w)
{
    struct kp_fetch_request q = {.topics = w->topics, .forgotten_topics_data = w->forgotten};
    for (int n = (int)rng_below(&w->rng, KEYS / 2); n > 0; n--) {
        int k = (int)rng_below(&w->rng, KEYS), i = q.topics_n++;
        w->rows[i] = (struct kp_fetch_request_partitions){.partition = k % 8,
                                                          .fetch_offset = (int64_t)rng_below(&w->rng, 1000)};
        w->topics[i] = (struct kp_fetch_request_topics){
            .topic_id = topic_of(k), .partitions = &w->rows[i], .partitions_n = 1};
    }
    return q;
}

static void forget_some(struct world *w, struct kp_fetch_request *q)
{
    for (int n = (int)rng_below(&w->rng, KEYS / 2); n > 0; n--) {
        int k = (int)rng_below(&w->rng, KEYS), i = q->forgotten_topics_data_n++;
        w->partitions[i] = k % 8;
        w->forgotten[i] = (struct kp_fetch_request_forgotten_topics_data){
            .topic_id = topic_of(k), .partitions = &w->partitions[i], .partitions_n = 1};
    }
}

static struct modelled *modelled(struct world *w, int32_t id)
{
    for (int i = 0; id && i < SLOTS; i++)
        if (w->model[i].id == id)
            return &w->model[i];
    return NULL;
}

static void model_take(struct modelled *m, const struct kp_fetch_request *q)
{
    for (int32_t i = 0; i < q->topics_n; i++) {
        for (int k = 0; k < KEYS; k++) {
            if (!is(k, &q->topics[i].topic_id, q->topics[i].partitions->partition))
                continue;
            if (!m->in[k])
                m->high_watermark[k] = m->start[k] = -1;
            m->in[k] = true;
            m->offset[k] = q->topics[i].partitions->fetch_offset;
        }
    }
    for (int32_t i = 0; i < q->forgotten_topics_data_n; i++)
        for (int k = 0; k < KEYS; k++)
            if (is(k, &q->forgotten_topics_data[i].topic_id, q->forgotten_topics_data[i].partitions[0]))
                m->in[k] = false;
}

static size_t count(const struct modelled *m)
{
    size_t n = 0;
    for (int k = 0; k < KEYS; k++)
        n += m->in[k];
    return n;
}

static void check(struct world *w)
{
    size_t sessions = 0, members = 0;
    for (int i = 0; i < SLOTS; i++) {
        struct modelled *m = &w->model[i];
        if (!m->id)
            continue;
        struct fetch_session *s = fetch_session_find(&w->table, m->id, m->epoch);
        cr_assert(s && s->members_n == count(m));
        list_each (at, &s->members) {
            const struct fetch_member *one = LIST_ENTRY(at, struct fetch_member, link);
            int k = key_of(one);
            cr_assert(m->in[k] && one->row.fetch_offset == m->offset[k]);
        }
        sessions++;
        members += count(m);
    }
    cr_assert_eq(w->table.n, sessions);
    cr_assert_eq(w->table.bytes,
                 sessions * sizeof(struct fetch_session) + members * sizeof(struct fetch_member));
}

static void open_one(struct world *w)
{
    struct kp_fetch_request q = some(w);
    struct modelled *to = NULL, *oldest = &w->model[0];
    struct fetch_session *s;
    for (int i = 0; i < SLOTS; i++) {
        to = w->model[i].id ? to : &w->model[i];
        oldest = w->model[i].used_at_us < oldest->used_at_us ? &w->model[i] : oldest;
    }
    if (!to && w->now_us - oldest->used_at_us > FETCH_SESSION_IDLE_US)
        to = oldest;
    cr_assert_eq(fetch_session_take(&w->table, &q, 13, w->now_us, &s), KE_NONE);
    cr_assert_null(s);
    s = fetch_session_make(&w->table, w->now_us);
    cr_assert_eq(s != NULL, to != NULL, "a slot is free, or one has been idle for long");
    if (!s)
        return;
    *to = (struct modelled){.id = s->id, .epoch = 1, .used_at_us = w->now_us};
    model_take(to, &q);
    for (int32_t i = 0; i < q.topics_n; i++)
        cr_assert(fetch_session_add(&w->table, s, &q.topics[i].topic_id, q.topics[i].partitions));
    w->old[w->old_n++ % IDS] = s->id;
}

static int16_t expected(struct world *w, const struct kp_fetch_request *q, int16_t version)
{
    const struct modelled *m = modelled(w, q->session_id);
    return !m                             ? KE_FETCH_SESSION_ID_NOT_FOUND
           : m->epoch != q->session_epoch ? KE_INVALID_FETCH_SESSION_EPOCH
           : version < 13                 ? KE_FETCH_SESSION_TOPIC_ID_ERROR
                                          : KE_NONE;
}

static void answer(struct world *w, struct fetch_session *s, struct modelled *m)
{
    list_each_safe(at, &s->members)
    {
        const struct fetch_member *one = LIST_ENTRY(at, struct fetch_member, link);
        int k = key_of(one);
        struct uuid topic = topic_of(k);
        bool error = rng_below(&w->rng, 8) == 0;
        size_t bytes = rng_below(&w->rng, 4) == 0 && !error ? 100 : 0;
        struct kp_fetch_response_partitions p = {.partition_index = k % 8,
                                                 .error_code = error ? KE_NOT_LEADER_OR_FOLLOWER : KE_NONE,
                                                 .high_watermark = (int64_t)rng_below(&w->rng, 3),
                                                 .log_start_offset = (int64_t)rng_below(&w->rng, 2),
                                                 .preferred_read_replica = -1,
                                                 .diverging_epoch = {-1, rng_below(&w->rng, 20) ? -1 : 5}};
        bool says = bytes || error || p.diverging_epoch.end_offset >= 0 ||
                    m->high_watermark[k] != p.high_watermark || m->start[k] != p.log_start_offset;
        cr_assert_eq(fetch_session_says(s, &topic, &p, bytes), says);
        m->high_watermark[k] = error ? -1 : p.high_watermark;
        m->start[k] = p.log_start_offset;
        if (bytes)
            cr_assert_eq(LIST_ENTRY(s->members.prev, struct fetch_member, link), one, "it stands last");
    }
}

static void go_on(struct world *w)
{
    struct kp_fetch_request q = some(w);
    struct fetch_session *s;
    forget_some(w, &q);
    q.session_id = w->old_n ? w->old[rng_below(&w->rng, w->old_n < IDS ? (uint64_t)w->old_n : IDS)] : 77;
    struct modelled *m = modelled(w, q.session_id);
    q.session_epoch = m && rng_below(&w->rng, 10) ? m->epoch : 1 + (int32_t)rng_below(&w->rng, 5);
    int16_t version = rng_below(&w->rng, 20) ? 13 : 12;
    int16_t error = expected(w, &q, version);
    cr_assert_eq(fetch_session_take(&w->table, &q, version, w->now_us, &s), error);
    cr_assert(!error || !s);
    if (error)
        return;
    model_take(m, &q);
    m->epoch = m->epoch == INT32_MAX ? 1 : m->epoch + 1;
    m->used_at_us = w->now_us;
    if (count(m) == 0)
        *m = (struct modelled){0};
    cr_assert_eq(s != NULL, m->id != 0);
    if (s)
        answer(w, s, m);
}

static void end_one(struct world *w)
{
    struct modelled *m = &w->model[rng_below(&w->rng, SLOTS)];
    struct kp_fetch_request q = {.session_id = m->id, .session_epoch = rng_below(&w->rng, 2) ? 0 : -1};
    struct fetch_session *s;
    cr_assert_eq(fetch_session_take(&w->table, &q, 13, w->now_us, &s), KE_NONE);
    cr_assert_null(s);
    *m = (struct modelled){0};
}

Test(fetch_sessions, do_as_the_model_does)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct world w = {.now_us = 1000000};
        rng_init(&w.rng, seed);
        fetch_sessions_init(&w.table, 1, 2, (size_t)1 << 20, seed);
        w.table.slots = SLOTS;
        for (int i = 0; i < 2000; i++) {
            uint64_t what = rng_below(&w.rng, 20);
            if (what < 3)
                open_one(&w);
            else if (what < 4)
                end_one(&w);
            else
                go_on(&w);
            w.now_us += what == 19 ? (int64_t)rng_below(&w.rng, 150) * 1000000 : 1000;
            check(&w);
        }
        fetch_sessions_fini(&w.table);
    }
}

Test(fetch_sessions, the_epoch_goes_round)
{
    struct fetch_sessions t;
    struct fetch_session *s, *out;
    struct kp_fetch_request_partitions row = {.partition = 3};
    struct uuid topic = topic_of(0);
    fetch_sessions_init(&t, 0, 1, (size_t)1 << 20, 1);
    s = fetch_session_make(&t, 0);
    cr_assert(s && fetch_session_add(&t, s, &topic, &row));
    s->epoch = INT32_MAX;
    struct kp_fetch_request q = {.session_id = s->id, .session_epoch = INT32_MAX};
    cr_assert_eq(fetch_session_take(&t, &q, 13, 0, &out), KE_NONE);
    cr_assert_eq(out->epoch, 1);
    fetch_sessions_fini(&t);
}

/* More than there is room for: none of it is kept, and the client is told to begin anew. */
Test(fetch_sessions, keep_to_their_memory)
{
    struct fetch_sessions t;
    struct fetch_session *s, *out;
    struct kp_fetch_request_partitions row = {.partition = 3};
    struct uuid topic = topic_of(0);
    fetch_sessions_init(&t, 0, 1, sizeof *s + sizeof(struct fetch_member), 1);
    s = fetch_session_make(&t, 0);
    cr_assert(s && fetch_session_add(&t, s, &topic, &row));
    cr_assert_null(fetch_session_make(&t, 0));
    row.partition = 4;
    struct kp_fetch_request_topics more = {.topic_id = topic, .partitions = &row, .partitions_n = 1};
    struct kp_fetch_request q = {.session_id = s->id, .session_epoch = 1, .topics = &more, .topics_n = 1};
    cr_assert_eq(fetch_session_take(&t, &q, 13, 0, &out), KE_FETCH_SESSION_ID_NOT_FOUND);
    cr_assert_eq(t.n, 0);
    cr_assert_eq(t.bytes, 0);
    fetch_sessions_fini(&t);
}

Test(fetch_sessions, keep_to_their_size)
{
    struct fetch_sessions t;
    struct kp_fetch_request_partitions row = {.partition = 0};
    struct uuid topic = topic_of(0);
    fetch_sessions_init(&t, 0, 1, (size_t)64 << 20, 1);
    struct fetch_session *s = fetch_session_make(&t, 0);
    for (; row.partition < FETCH_SESSION_MEMBERS_MAX; row.partition++)
        cr_assert(fetch_session_add(&t, s, &topic, &row));
    cr_assert_not(fetch_session_add(&t, s, &topic, &row));
    row.partition--;
    cr_assert(fetch_session_add(&t, s, &topic, &row), "one that is in it");
    fetch_sessions_fini(&t);
}
