#include "broker/api/fetch_sessions.h"

#include <stdlib.h>

#define VERSION_OF_IDS 13

static_assert(sizeof(struct fetch_session_key) == 20, "a hash key has no padding");

void fetch_sessions_init(struct fetch_sessions *t, unsigned shard, unsigned shards, size_t bytes_max,
                         uint64_t seed)
{
    assert(shard < shards);
    *t = (struct fetch_sessions){.slots = FETCH_SESSION_SLOTS / shards > 0 ? FETCH_SESSION_SLOTS / shards : 1,
                                 .bytes_max = bytes_max,
                                 .shard = shard,
                                 .shards = shards};
    list_init(&t->used);
    rng_init(&t->rng, seed);
}

void fetch_sessions_fini(struct fetch_sessions *t)
{
    while (!list_empty(&t->used))
        fetch_session_end(t, LIST_ENTRY(t->used.next, struct fetch_session, used));
    assert(t->n == 0);
    assert(t->bytes == 0);
}

/* ---- members ---- */

static struct fetch_member *member(struct fetch_session *s, const struct uuid *topic, int32_t partition)
{
    struct fetch_session_key key = {*topic, partition};
    struct fetch_member *m;
    HASH_FIND(hh, s->by_key, &key, sizeof key, m);
    return m;
}

static void drop(struct fetch_sessions *t, struct fetch_session *s, struct fetch_member *m)
{
    assert(s->members_n > 0);
    assert(t->bytes >= sizeof *m);
    HASH_DEL(s->by_key, m);
    list_remove(&m->link);
    s->members_n--;
    t->bytes -= sizeof *m;
    free(m);
}

bool fetch_session_add(struct fetch_sessions *t, struct fetch_session *s, const struct uuid *topic,
                       const struct kp_fetch_request_partitions *row)
{
    struct fetch_member *m = member(s, topic, row->partition);
    if (m) {
        m->row = *row; /* what was said of it stays said */
        return true;
    }
    bool room = s->members_n < FETCH_SESSION_MEMBERS_MAX && t->bytes + sizeof *m <= t->bytes_max;
    m = room ? calloc(1, sizeof *m) : NULL;
    if (!m)
        return false;
    m->key = (struct fetch_session_key){*topic, row->partition};
    m->row = *row;
    m->high_watermark = m->log_start = -1;
    HASH_ADD(hh, s->by_key, key, sizeof m->key, m);
    if (!m->hh.tbl) {
        free(m);
        return false;
    }
    list_push(&s->members, &m->link);
    s->members_n++;
    t->bytes += sizeof *m;
    return true;
}

/* ---- sessions ---- */

void fetch_session_end(struct fetch_sessions *t, struct fetch_session *s)
{
    assert(t->n > 0);
    assert(t->bytes >= sizeof *s);
    while (!list_empty(&s->members))
        drop(t, s, LIST_ENTRY(s->members.next, struct fetch_member, link));
    HASH_DEL(t->by_id, s);
    list_remove(&s->used);
    t->n--;
    t->bytes -= sizeof *s;
    free(s);
}

static struct fetch_session *find(const struct fetch_sessions *t, int32_t id)
{
    struct fetch_session *s;
    HASH_FIND(hh, t->by_id, &id, sizeof id, s);
    return s;
}

/* Above 0, this shard's, nobody's. */
static int32_t new_id(struct fetch_sessions *t)
{
    uint64_t most = ((uint64_t)INT32_MAX - t->shards) / t->shards;
    for (;;) {
        int32_t id = (int32_t)((1 + rng_below(&t->rng, most)) * t->shards + t->shard);
        assert(id > 0);
        assert((unsigned)id % t->shards == t->shard);
        if (!find(t, id))
            return id;
    }
}

struct fetch_session *fetch_session_make(struct fetch_sessions *t, int64_t now_us)
{
    if (t->n >= t->slots) {
        struct fetch_session *oldest = LIST_ENTRY(t->used.next, struct fetch_session, used);
        if (now_us - oldest->used_at_us <= FETCH_SESSION_IDLE_US)
            return NULL;
        fetch_session_end(t, oldest);
    }
    struct fetch_session *s = t->bytes + sizeof *s <= t->bytes_max ? calloc(1, sizeof *s) : NULL;
    if (!s)
        return NULL;
    s->id = new_id(t);
    s->epoch = 1;
    s->used_at_us = now_us;
    list_init(&s->members);
    HASH_ADD(hh, t->by_id, id, sizeof s->id, s);
    if (!s->hh.tbl) {
        free(s);
        return NULL;
    }
    list_push(&t->used, &s->used);
    t->n++;
    t->bytes += sizeof *s;
    assert(t->n <= t->slots);
    return s;
}

/* Named first, forgotten last, as Kafka does it. False: no room. */
static bool update(struct fetch_sessions *t, struct fetch_session *s, const struct kp_fetch_request *q)
{
    for (int32_t i = 0; i < q->topics_n; i++)
        for (int32_t k = 0; k < q->topics[i].partitions_n; k++)
            if (!fetch_session_add(t, s, &q->topics[i].topic_id, &q->topics[i].partitions[k]))
                return false;
    for (int32_t i = 0; i < q->forgotten_topics_data_n; i++) {
        const struct kp_fetch_request_forgotten_topics_data *f = &q->forgotten_topics_data[i];
        for (int32_t k = 0; k < f->partitions_n; k++) {
            struct fetch_member *m = member(s, &f->topic_id, f->partitions[k]);
            if (m)
                drop(t, s, m);
        }
    }
    return true;
}

int16_t fetch_session_take(struct fetch_sessions *t, const struct kp_fetch_request *q, int16_t version,
                           int64_t now_us, struct fetch_session **out)
{
    struct fetch_session *s = q->session_id ? find(t, q->session_id) : NULL;
    *out = NULL;
    if (q->session_epoch == 0 || q->session_epoch == -1) {
        if (s)
            fetch_session_end(t, s);
        return KE_NONE;
    }
    if (!s)
        return KE_FETCH_SESSION_ID_NOT_FOUND;
    if (s->epoch != q->session_epoch)
        return KE_INVALID_FETCH_SESSION_EPOCH;
    if (version < VERSION_OF_IDS)
        return KE_FETCH_SESSION_TOPIC_ID_ERROR;
    if (!update(t, s, q)) {
        fetch_session_end(t, s); /* its client makes another, smaller or none */
        return KE_FETCH_SESSION_ID_NOT_FOUND;
    }
    if (s->members_n == 0) {
        fetch_session_end(t, s);
        return KE_NONE;
    }
    s->epoch = s->epoch == INT32_MAX ? 1 : s->epoch + 1;
    s->used_at_us = now_us;
    list_remove(&s->used);
    list_push(&t->used, &s->used);
    *out = s;
    return KE_NONE;
}

/* ---- answers ---- */

struct fetch_session *fetch_session_find(struct fetch_sessions *t, int32_t id, int32_t epoch)
{
    struct fetch_session *s = find(t, id);
    return s && s->epoch == epoch ? s : NULL;
}

bool fetch_session_says(struct fetch_session *s, const struct uuid *topic,
                        const struct kp_fetch_response_partitions *p, size_t records_bytes)
{
    struct fetch_member *m = member(s, topic, p->partition_index);
    bool news = records_bytes > 0 || p->error_code != KE_NONE || p->diverging_epoch.epoch >= 0 ||
                p->diverging_epoch.end_offset >= 0 || p->preferred_read_replica >= 0;
    assert(m); /* of an answer of this session's last request */
    news = news || m->high_watermark != p->high_watermark || m->log_start != p->log_start_offset;
    m->high_watermark = p->error_code ? -1 : p->high_watermark; /* said again when the error is over */
    m->log_start = p->log_start_offset;
    if (records_bytes > 0) {
        list_remove(&m->link);
        list_push(&s->members, &m->link);
    }
    return news;
}
