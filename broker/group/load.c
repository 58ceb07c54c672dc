/* Reading a partition of __consumer_offsets from its start to its end, a piece per turn.
 *
 * Offsets are applied as they come. Of group records only the newest is kept, as bytes, and becomes a group when the
 * end is reached. What a transaction wrote (by an Apache Kafka broker, before) waits for its marker. The end is where
 * the log ended when the partition came here; groups are served when that is committed. A record that cannot be read
 * stops the load: to skip it could mean to answer with an older offset (KAFKA-5630). */
#include "broker/group/groups_internal.h"

#include "base/runtime/log.h"

#include <stdlib.h>

#define LOAD_PIECE_BYTES  ((size_t)1 << 20)
#define LOAD_TURN_PIECES  4
#define LOAD_BATCH_BYTES  ((size_t)128 << 20)
#define LOAD_RECORD_BYTES ((size_t)64 << 20)
#define LOAD_RETRY_US     10000
/* Offsets in transactions that are open while we read: all but a broken log has few. */
#define LOAD_OPEN_MAX 1000000

struct open_offset {
    struct open_offset *next;
    int64_t producer_id, record_offset;
    int32_t partition;
    struct offset at;
    bool tombstone;
    struct slice group, topic; /* behind the struct, as at.metadata */
};

struct load {
    struct coordinator *at;
    int64_t next, end;
    struct buf piece, payload;
    struct arena arena;
    struct open_offset *open; /* newest first */
    size_t open_n;
    struct groups_due retry;
    int64_t records, began_us;
    uint64_t others; /* records of protocols that we do not serve */
};

static void on_retry(struct groups_due *due)
{
    struct load *l = LIST_ENTRY(due, struct load, retry);
    assert(l->at->load == l);
    assert(!list_linked(&l->at->link));
    list_push(&l->at->gs->loading, &l->at->link);
    groups_wake(l->at->gs);
}

int load_begin(struct coordinator *c)
{
    assert(!c->load);
    struct load *l = calloc(1, sizeof *l);
    if (!l)
        return -E_NOMEM;
    l->at = c;
    l->next = partition_log_start(c->partition);
    l->end = partition_log_end(c->partition);
    l->began_us = loop_now_us(c->gs->shard->loop);
    assert(l->next >= 0);
    assert(l->next <= l->end);
    buf_init(&l->piece, LOAD_BATCH_BYTES);
    buf_init(&l->payload, LOAD_BATCH_BYTES);
    arena_init(&l->arena, LOAD_RECORD_BYTES);
    l->retry.fn = on_retry;
    wheel_entry_init(&l->retry.entry);
    c->load = l;
    return 0;
}

void load_end(struct coordinator *c)
{
    struct load *l = c->load;
    if (!l)
        return;
    groups_due_stop(c->gs, &l->retry);
    buf_fini(&l->piece);
    buf_fini(&l->payload);
    arena_fini(&l->arena);
    while (l->open) {
        struct open_offset *next = l->open->next;
        free(l->open);
        l->open = next;
    }
    free(l);
    c->load = NULL;
}

/* ---- records ---- */

static struct hosted *hosted_for(struct coordinator *c, struct slice group)
{
    struct hosted *h = hosted_find(c, group);
    return h ? h : hosted_add(c, group);
}

static int apply_offset(struct coordinator *c, struct slice group, struct slice topic, int32_t partition,
                        const struct offset *at, int64_t record_offset)
{
    struct hosted *h = at ? hosted_for(c, group) : hosted_find(c, group);
    struct offset_change change;
    if (!h)
        return at ? -E_NOMEM : 0;
    int rc = offsets_prepare(&h->offsets, topic, partition, at, &change);
    if (rc == 0)
        offsets_settle(&h->offsets, &change, record_offset);
    return rc;
}

static int apply_group(struct coordinator *c, const struct group_record *g)
{
    struct hosted *h = g->tombstone ? hosted_find(c, g->group) : hosted_for(c, g->group);
    if (!h)
        return g->tombstone ? 0 : -E_NOMEM;
    free((void *)(uintptr_t)h->loaded.p);
    h->loaded = SLICE_NULL;
    if (g->tombstone)
        return 0;
    uint8_t *copy = malloc(g->value.n + 1);
    if (!copy)
        return -E_NOMEM;
    memcpy(copy, g->value.p, g->value.n);
    h->loaded = slice_of(copy, g->value.n);
    return 0;
}

static struct slice put_text(uint8_t **to, struct slice s)
{
    struct slice copy = slice_of(*to, s.n);
    if (s.n)
        memcpy(*to, s.p, s.n);
    *to += s.n;
    return copy;
}

static int open_add(struct load *l, int64_t producer_id, const struct group_record *r, int64_t record_offset)
{
    size_t texts = r->group.n + r->topic.n + r->at.metadata.n;
    struct open_offset *o = l->open_n < LOAD_OPEN_MAX ? malloc(sizeof *o + texts + 1) : NULL;
    if (!o)
        return -E_NOMEM;
    uint8_t *text = (uint8_t *)(o + 1);
    *o = (struct open_offset){.next = l->open,
                              .producer_id = producer_id,
                              .record_offset = record_offset,
                              .partition = r->partition,
                              .at = r->at,
                              .tombstone = r->tombstone};
    o->group = put_text(&text, r->group);
    o->topic = put_text(&text, r->topic);
    o->at.metadata = put_text(&text, r->at.metadata);
    l->open = o;
    l->open_n++;
    return 0;
}

/* The marker decides; which offset is the newer one their own records say. */
static int open_decide(struct load *l, int64_t producer_id, bool commit)
{
    struct open_offset **at = &l->open, *mine = NULL;
    int rc = 0;
    while (*at) {
        struct open_offset *o = *at;
        if (o->producer_id != producer_id) {
            at = &o->next;
            continue;
        }
        assert(l->open_n > 0);
        *at = o->next;
        o->next = mine; /* oldest first now */
        mine = o;
        l->open_n--;
    }
    assert((l->open == NULL) == (l->open_n == 0));
    while (mine) {
        struct open_offset *o = mine;
        mine = o->next;
        if (commit && rc == 0)
            rc = apply_offset(l->at, o->group, o->topic, o->partition, o->tombstone ? NULL : &o->at,
                              o->record_offset);
        free(o);
    }
    return rc;
}

static int apply_record(struct load *l, const struct batch_header *h, const struct record *r, struct err *err)
{
    struct group_record g;
    arena_reset(&l->arena);
    int rc = group_record_read(r, &l->arena, &g, err);
    if (rc)
        return rc;
    if (g.kind == GROUP_RECORD_OTHER)
        l->others++;
    else if (g.kind == GROUP_RECORD_GROUP)
        rc = apply_group(l->at, &g);
    else if (batch_is(h, BATCH_TRANSACTIONAL))
        rc = open_add(l, h->producer_id, &g, r->offset);
    else
        rc = apply_offset(l->at, g.group, g.topic, g.partition, g.tombstone ? NULL : &g.at, r->offset);
    return rc ? err_set(err, rc, "no memory for the groups") : 0;
}

static int apply_marker(struct load *l, const struct batch_header *h, const struct record *r)
{
    enum control_type type;
    int rc = control_type_read(r, &type);
    if (rc || (type != CONTROL_ABORT && type != CONTROL_COMMIT))
        return rc;
    return open_decide(l, h->producer_id, type == CONTROL_COMMIT);
}

static int apply_batch(struct load *l, struct slice *rest, struct err *err)
{
    struct batch_header h;
    struct slice payload;
    struct codec_limits limits = codec_limits_for(LOAD_RECORD_BYTES);
    int rc = batch_read(*rest, &h, err);
    if (rc)
        return rc;
    struct slice batch = slice_of(rest->p, batch_size(&h));
    *rest = slice_of(rest->p + batch.n, rest->n - batch.n);
    buf_clear(&l->payload);
    rc = batch_payload(&h, batch, &limits, &l->payload, &payload, err);
    struct record_walk w;
    struct record r;
    if (rc == 0)
        record_walk_init(&w, &h, payload);
    int more = 0;
    while (rc == 0 && (more = record_next(&w, &r)) == 1) {
        rc = batch_is(&h, BATCH_CONTROL) ? apply_marker(l, &h, &r) : apply_record(l, &h, &r, err);
        l->records++;
    }
    if (rc == 0 && more < 0)
        rc = err_set(err, more, "malformed record after offset %lld", (long long)h.base_offset);
    if (rc)
        err_wrap(err, "batch at offset %lld", (long long)h.base_offset);
    return rc;
}

/* ---- the end ---- */

static int become_group(struct coordinator *c, struct hosted *h, struct arena *arena, struct err *err)
{
    struct group_restored from;
    assert(h->at == c);
    assert(!slice_is_null(h->loaded));
    assert(!h->recorded);
    arena_reset(arena);
    int rc = group_record_read_group(h->loaded, arena, &from, err);
    if (rc == 0)
        rc = group_restore(h->group, &from, groups_now(c->gs));
    if (rc)
        err_wrap(err, "group record of %.*s", SLICE_FMT(group_id(h->group)));
    h->recorded = true;
    free((void *)(uintptr_t)h->loaded.p);
    h->loaded = SLICE_NULL;
    return rc;
}

static int become_groups(struct coordinator *c, struct arena *arena, struct err *err)
{
    struct hosted *h, *next;
    HASH_ITER (hh, c->hosted, h, next) {
        int rc = slice_is_null(h->loaded) ? 0 : become_group(c, h, arena, err);
        if (rc)
            return rc;
    }
    return 0;
}

static void fail(struct coordinator *c, const struct err *err)
{
    log_error("broker.group", "groups cannot be loaded partition=%s-%d offset=%lld error=%s", GROUPS_TOPIC,
              c->index, (long long)c->load->next, err->text);
    coordinator_failed(c);
}

static void complete(struct coordinator *c)
{
    struct err err = {0};
    struct load *l = c->load;
    int64_t now = loop_now_us(c->gs->shard->loop);
    assert(l->next >= l->end);
    assert(partition_high_watermark(c->partition) >= l->end); /* G1 */
    if (become_groups(c, &l->arena, &err)) {
        fail(c, &err);
        return;
    }
    if (l->open_n)
        log_warn("broker.group", "offsets of open transactions are left out partition=%d offsets=%zu",
                 c->index, l->open_n);
    if (l->others)
        log_warn("broker.group", "records of protocols that are not served partition=%d records=%llu",
                 c->index, (unsigned long long)l->others);
    if (l->records)
        log_info("broker.group", "loaded partition=%d groups=%u records=%lld ms=%lld", c->index,
                 HASH_COUNT(c->hosted), (long long)l->records, (long long)((now - l->began_us) / 1000));
    coordinator_active(c);
    struct hosted *h, *next;
    HASH_ITER (hh, c->hosted, h, next) {
        hosted_step(h, &(struct group_event){.kind = GROUP_TICK}); /* arms its sessions */
        hosted_forget_if_void(h);
    }
}

/* One piece. True: there is more, at once. */
static bool load_piece(struct coordinator *c)
{
    struct load *l = c->load;
    struct err err = {0};
    assert(sm_state(&c->state) == COORDINATOR_LOADING);
    assert(list_linked(&c->link));
    if (l->next >= l->end) {
        if (partition_high_watermark(c->partition) < l->end) {
            list_remove(&c->link);
            groups_due_at(c->gs, &l->retry, loop_now_us(c->gs->shard->loop) + LOAD_RETRY_US);
        } else {
            complete(c);
        }
        return false;
    }
    int64_t next = l->next;
    buf_clear(&l->piece);
    int rc = partition_read(c->partition, l->next, l->end, LOAD_PIECE_BYTES, &l->piece, &next);
    struct slice rest = buf_slice(&l->piece);
    while (rc == 0 && rest.n > 0)
        rc = apply_batch(l, &rest, &err);
    if (rc == 0 && (next <= l->next || next > l->end))
        next = l->end; /* what follows is a hole that compaction has left */
    if (rc) {
        if (!err.code)
            err_set(&err, rc, "cannot read");
        fail(c, &err);
        return false;
    }
    assert(next > l->next);
    assert(next <= l->end);
    l->next = next;
    return true;
}

bool loads_turn(struct groups *gs)
{
    for (int pieces = 0; pieces < LOAD_TURN_PIECES && !list_empty(&gs->loading);) {
        struct coordinator *c = LIST_ENTRY(gs->loading.next, struct coordinator, link);
        if (!load_piece(c))
            continue; /* it has left the list */
        pieces++;
        list_remove(&c->link);
        list_push(&gs->loading, &c->link);
    }
    return !list_empty(&gs->loading);
}
