#include "mirror/checkpoint/checkpoint.h"
#include "mirror/checkpoint/records.h"
#include "mirror/sync/internal_topic.h"

#include "base/core/hash.h"

#include <assert.h>
#include <stdlib.h>

#define SYNC_KEY_MAX   512
#define SYNC_VALUE_MAX 64

/* What MM2 keeps of one source partition to decide when to write (OffsetSyncWriter's PartitionState). */
struct synced {
    UT_hash_handle hh;
    int64_t last_up, last_down, next_up, next_down;
    size_t key_bytes;
    uint8_t key[];
};

struct offset_syncs {
    struct store *store;
    uint32_t flow;
    size_t gone; /* keys, since the topic was written anew */
    struct internal_topic *topic;
    struct synced *partitions;
    int64_t lag_max;
};

int offset_syncs_create(const struct offset_syncs_options *o, struct offset_syncs **out, struct err *err)
{
    struct offset_syncs *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, -E_NOMEM, "out of memory");
    s->lag_max = o->lag_max;
    s->store = o->store;
    s->flow = o->flow;
    struct internal_topic_options t = {.loop = o->loop,
                                       .client = o->client,
                                       .name = o->topic,
                                       .replication_factor = o->replication_factor,
                                       .factor_key = "offset-syncs.topic.replication.factor",
                                       .cuts = true,
                                       .trouble = o->trouble,
                                       .arg = o->arg};
    int rc = internal_topic_create(&t, &s->topic, err);
    if (rc) {
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void offset_syncs_destroy(struct offset_syncs *s)
{
    if (!s)
        return;
    struct synced *p, *next;
    HASH_ITER (hh, s->partitions, p, next) {
        HASH_DELETE(hh, s->partitions, p);
        free(p);
    }
    internal_topic_destroy(s->topic);
    free(s);
}

static struct synced *synced_of(struct offset_syncs *s, struct slice key)
{
    struct synced *p;
    HASH_FIND(hh, s->partitions, key.p, key.n, p);
    if (p || !(p = calloc(1, sizeof *p + key.n)))
        return p;
    p->last_up = p->next_up = -1;
    p->key_bytes = key.n;
    memcpy(p->key, key.p, key.n);
    HASH_ADD_KEYPTR(hh, s->partitions, p->key, p->key_bytes, p);
    if (HASH_ADDED(p))
        return p;
    free(p);
    return NULL;
}

static void write_sync(struct offset_syncs *s, struct synced *p, int64_t up, int64_t down)
{
    uint8_t value[16];
    struct buf b = {.p = value, .cap = sizeof value, .limit = sizeof value};
    offset_sync_value_put(&b, up, down);
    if (internal_topic_put(s->topic, slice_of(p->key, p->key_bytes), buf_slice(&b)) == 0) {
        p->last_up = up;
        p->last_down = down;
    }
}

void offset_syncs_run(struct offset_syncs *s, struct slice source_topic, int32_t partition, int64_t src_start,
                      int64_t dst_start, int64_t count)
{
    uint8_t bytes[SYNC_KEY_MAX];
    struct buf b = {.p = bytes, .cap = sizeof bytes, .limit = sizeof bytes};
    offset_sync_key_put(&b, source_topic, partition);
    struct synced *p = b.failed ? NULL : synced_of(s, buf_slice(&b));
    assert(count > 0);
    assert(src_start >= 0);
    assert(dst_start >= 0);
    if (!p)
        return;
    /* MM2: the first record, a jump on either side, or offset.lag.max records since the last sync. */
    bool jump = p->next_up != src_start || p->next_down != dst_start;
    if (p->last_up < 0 || jump || dst_start - (p->last_down + 1) >= s->lag_max)
        write_sync(s, p, src_start, dst_start);
    if (dst_start + count - 1 - (p->last_down + 1) >= s->lag_max)
        write_sync(s, p, src_start + count - 1, dst_start + count - 1);
    p->next_up = src_start + count;
    p->next_down = dst_start + count;
}

void offset_syncs_forget(struct offset_syncs *s, struct slice source_topic, int32_t partition)
{
    uint8_t bytes[SYNC_KEY_MAX];
    struct buf b = {.p = bytes, .cap = sizeof bytes, .limit = sizeof bytes};
    struct synced *p = NULL;
    offset_sync_key_put(&b, source_topic, partition);
    if (!b.failed)
        HASH_FIND(hh, s->partitions, bytes, b.n, p);
    if (!p)
        return;
    HASH_DELETE(hh, s->partitions, p);
    free(p);
}

/* ---- without what is gone ---- */

struct anew {
    struct offset_syncs *s;
    struct store_view *view;
    const struct stored_topic *t;
    bool puts;   /* or only counts */
    size_t keys; /* of all topics in the store */
};

/* The last record of p that is known to be mirrored: of what p feeds, where the source is furthest. */
static int last_sync(const struct anew *a, const struct map_position *pos, int64_t *up, int64_t *down)
{
    *up = -1;
    for (size_t i = 0; i < pos->lanes_n; i++) {
        struct map_run r;
        int rc = store_last_run(a->view, a->t->number, pos->p, pos->lanes[i].q, &r);
        if (rc < 0)
            return rc;
        if (rc > 0 && r.src_start + r.count - 1 > *up) {
            *up = r.src_start + r.count - 1;
            *down = r.dst_start + r.count - 1;
        }
    }
    return *up >= 0;
}

static int anew_position(void *arg, const struct map_position *pos)
{
    struct anew *a = arg;
    uint8_t bytes[SYNC_KEY_MAX], value[16];
    struct buf key = {.p = bytes, .cap = sizeof bytes, .limit = sizeof bytes};
    struct buf sync = {.p = value, .cap = sizeof value, .limit = sizeof value};
    struct synced *p = NULL;
    int64_t up = 0, down = 0;
    a->keys++;
    if (!a->puts)
        return 0;
    offset_sync_key_put(&key, a->t->topic.name, pos->p);
    if (key.failed)
        return 0;
    HASH_FIND(hh, a->s->partitions, bytes, key.n, p);
    if (p &&
        p->last_up >= 0) { /* readers take a source offset that goes back for a topic that was made again */
        up = p->last_up;
        down = p->last_down;
    } else {
        int rc = last_sync(a, pos, &up, &down);
        if (rc <= 0)
            return rc;
    }
    offset_sync_value_put(&sync, up, down);
    return internal_topic_put(a->s->topic, buf_slice(&key), buf_slice(&sync));
}

static int anew_topic(void *arg, const struct stored_topic *t)
{
    struct anew *a = arg;
    struct stored_topic newest;
    if (t->flow != a->s->flow || store_topic_named(a->view, t->flow, t->topic.name, false, &newest) != 1 ||
        newest.number != t->number)
        return 0;
    a->t = t;
    return store_positions_each(a->view, t->number, anew_position, a);
}

void offset_syncs_gone(struct offset_syncs *s, size_t partitions)
{
    s->gone += partitions;
}

void offset_syncs_tidy(struct offset_syncs *s)
{
    struct anew a = {.s = s};
    if (!internal_topic_wants_cut(s->topic, s->gone, 0) || store_view_open(s->store, &a.view, NULL))
        return;
    int rc = store_topics_each(a.view, anew_topic, &a);
    if (rc == 0 && internal_topic_wants_cut(s->topic, s->gone, a.keys)) {
        uint64_t from = internal_topic_puts(s->topic);
        a.puts = true;
        rc = store_topics_each(a.view, anew_topic, &a);
        if (rc == 0) {
            internal_topic_cut(s->topic, from);
            s->gone = 0;
        }
    }
    store_view_close(a.view);
}
