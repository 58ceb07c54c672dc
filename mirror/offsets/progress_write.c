#include <assert.h>
#include <stdlib.h>

#include "base/core/bytes.h"

#include "base/core/grow.h"
#include "mirror/offsets/progress_internal.h"

/* One commit: records are built into batches while it is filled; then the batches are appended one after the other,
 * what others have written in between is read, and the store follows. */

static void append_next(struct progress *p);

/* ---- filling ---- */

static void fail(struct progress *p, const char *text)
{
    p->failed = true;
    p->trouble(p->arg, text);
}

static void close_piece(struct progress *p)
{
    if (!p->building)
        return;
    p->building = false;
    struct batch_header h;
    size_t at = p->builder.start;
    if (batch_close(&p->builder, &h)) {
        fail(p, "a progress record cannot be built: out of memory");
        return;
    }
    if (!GROW(p->pieces, p->pieces_n, p->pieces_cap, 8)) {
        fail(p, "a progress record cannot be built: out of memory");
        return;
    }
    assert(at < p->records.n && h.records_n > 0);
    assert(p->pieces_n == 0 || p->pieces[p->pieces_n - 1].at + p->pieces[p->pieces_n - 1].n == at);
    p->pieces[p->pieces_n++] = (struct piece){.at = at, .n = p->records.n - at, .records = h.records_n};
}

/* A record from p->key and, unless it is a tombstone, p->value. Returns its place in its batch. */
static int32_t put_record(struct progress *p, bool tombstone)
{
    assert(p->key.n > 0 && !p->key.failed && !p->value.failed);
    struct record_new r = {.timestamp = loop_wall_ms(p->loop),
                           .key = buf_slice(&p->key),
                           .value = tombstone ? SLICE_NULL : buf_slice(&p->value)};
    if (p->building && batch_bytes(&p->builder) + batch_record_bound(&r) > COMPACT_LOG_BATCH_MAX)
        close_piece(p);
    if (!p->building) {
        struct batch_options o = BATCH_OPTIONS;
        batch_begin(&p->builder, &p->records, &o);
        p->building = true;
    }
    int32_t index = p->builder.h.records_n;
    if (batch_add(&p->builder, &r))
        fail(p, "a progress record cannot be built: too many changes at once");
    buf_clear(&p->key);
    buf_clear(&p->value);
    return index;
}

static void run_key(struct progress *p, const struct topic_key *key, int32_t partition,
                    const struct map_run *r)
{
    struct progress_key k = {.kind = PROGRESS_RUN, .topic = *key, .p = partition, .src_start = r->src_start};
    if (progress_key_encode(&k, &p->key))
        fail(p, "a progress key cannot be built");
}

void progress_put_run(struct progress *p, uint32_t topic, const struct topic_key *key, int32_t partition,
                      const struct map_run *r)
{
    assert(topic > 0 && partition >= 0 && r->count > 0);
    run_key(p, key, partition, r);
    if (run_encode(r, &p->value))
        fail(p, "a run cannot be written");
    put_record(p, false);
    if (p->state == PROGRESS_OPENED)
        store_put_run(p->batch, topic, partition, r);
}

void progress_forget_run(struct progress *p, uint32_t topic, const struct topic_key *key, int32_t partition,
                         const struct map_run *r)
{
    run_key(p, key, partition, r);
    put_record(p, true);
    store_delete_run(p->batch, topic, partition, r);
}

void progress_put_position(struct progress *p, uint32_t topic, const struct map_position *pos)
{
    struct progress_key k = {.kind = PROGRESS_POSITION, .topic = pos->topic, .p = pos->p};
    if (progress_key_encode(&k, &p->key) || position_encode(pos, &p->value))
        fail(p, "a position cannot be written");
    put_record(p, false);
    if (p->state == PROGRESS_OPENED)
        store_put_position(p->batch, topic, pos);
}

struct forgetting {
    struct progress *p;
    const struct stored_topic *t;
    size_t runs_left, positions;
};

static int forget_each_run(void *arg, int32_t partition, const struct map_run *r)
{
    struct forgetting *f = arg;
    if (f->runs_left == 0)
        return 1;
    f->runs_left--;
    progress_forget_run(f->p, f->t->number, &f->t->topic, partition, r);
    return 0;
}

static int forget_each_position(void *arg, const struct map_position *pos)
{
    struct forgetting *f = arg;
    struct progress_key k = {.kind = PROGRESS_POSITION, .topic = f->t->topic, .p = pos->p};
    if (progress_key_encode(&k, &f->p->key))
        fail(f->p, "a progress key cannot be built");
    put_record(f->p, true);
    store_delete_position(f->p->batch, f->t->number, pos->p);
    f->positions++;
    return 0;
}

static int forget_each_group(void *arg, const struct group_entry *g)
{
    struct forgetting *f = arg;
    store_delete_group(f->p->batch, f->t->number, g->group, g->q);
    return 0;
}

bool progress_forget_topic(struct progress *p, const struct stored_topic *t, size_t runs_max,
                           size_t *positions)
{
    assert(p->state == PROGRESS_OPENED && !p->committing && t->number > 0 && t->flow == p->flow.number);
    struct forgetting f = {p, t, runs_max, 0};
    struct store_view *v;
    if (store_view_open(p->store, &v, NULL))
        return false;
    int rc = store_runs_each(v, t->number, -1, forget_each_run, &f);
    if (!rc)
        rc = store_positions_each(v, t->number, forget_each_position, &f);
    if (!rc)
        rc = store_groups_each(v, t->number, forget_each_group, &f);
    store_view_close(v);
    if (rc)
        return false;
    store_delete_topic(p->batch, t->number);
    progress_topic_drop(p, &t->topic);
    *positions += f.positions;
    return true;
}

static int32_t put_offer(struct progress *p, int32_t partition, const struct map_producer_id *id)
{
    struct progress_key k = {.kind = PROGRESS_PRODUCER_ID, .p = partition};
    be64_put(k.nonce, loop_random(p->loop));
    be64_put(k.nonce + 8, loop_random(p->loop));
    if (progress_key_encode(&k, &p->key) || producer_id_encode(id, &p->value))
        fail(p, "an offer cannot be written");
    return put_record(p, false);
}

void progress_offer(struct progress *p, int32_t partition, int64_t producer_id, int16_t epoch)
{
    struct map_producer_id id = {producer_id, epoch, -1};
    int32_t index = put_offer(p, partition, &id);
    if (!GROW(p->own_offers, p->own_offers_n, p->own_offers_cap, 8)) {
        fail(p, "an offer cannot be written: out of memory");
        return;
    }
    /* Its batch is the one being built, whatever its number will be. */
    p->own_offers[p->own_offers_n++] = (struct own_offer){partition, id, p->pieces_n, index};
}

/* ---- after the batches ---- */

static void finish(struct progress *p)
{
    assert(p->appended == p->pieces_n && !p->building);
    p->records.n = 0;
    p->pieces_n = p->appended = p->own_offers_n = 0;
    if (p->state == PROGRESS_REWRITING) {
        p->state = PROGRESS_OPENED;
        p->flow.progress_topic_id = p->topic_id;
        p->rewrite = false;
    }
    progress_store(p);
}

static bool is_own(const struct progress *p, int64_t offset)
{
    for (size_t i = 0; i < p->pieces_n; i++)
        if (offset >= p->pieces[i].base && offset < p->pieces[i].base + p->pieces[i].records)
            return true;
    return false;
}

static void each_foreign(void *arg, const struct compact_record *r)
{
    struct progress *p = arg;
    if (!is_own(p, r->offset))
        progress_apply_foreign(p, r);
}

static void on_foreign(void *arg, int status, int64_t next)
{
    struct progress *p = arg;
    if (status) {
        p->rewrite = true; /* it is not the topic it was */
        finish(p);
        return;
    }
    p->foreign_from = next;
    if (next >= p->flow.progress_next ||
        compact_log_read(p->log, next, p->flow.progress_next, each_foreign, on_foreign, p))
        finish(p);
}

static void all_appended(struct progress *p)
{
    for (size_t i = 0; i < p->own_offers_n; i++) {
        struct own_offer *o = &p->own_offers[i];
        assert(o->piece < p->pieces_n && o->index < p->pieces[o->piece].records);
        o->id.offered_at = p->pieces[o->piece].base + o->index;
        progress_offer_enter(p, o->partition, &o->id);
    }
    if (p->foreign_from < 0 || p->state == PROGRESS_REWRITING)
        finish(p);
    else
        on_foreign(p, 0, p->foreign_from);
}

static void on_appended(void *arg, int64_t base_offset)
{
    struct progress *p = arg;
    assert(p->appended < p->pieces_n && base_offset >= 0);
    struct piece *piece = &p->pieces[p->appended++];
    piece->base = base_offset;
    if (base_offset < p->flow.progress_next && p->state == PROGRESS_OPENED)
        p->rewrite = true; /* cut or made again: what stood before is no longer there */
    else if (base_offset > p->flow.progress_next && p->foreign_from < 0)
        p->foreign_from = p->flow.progress_next;
    p->flow.progress_next = base_offset + piece->records;
    append_next(p);
}

static void append_next(struct progress *p)
{
    if (p->appended == p->pieces_n) {
        all_appended(p);
        return;
    }
    const struct piece *piece = &p->pieces[p->appended];
    int rc = compact_log_append(p->log, slice_of(p->records.p + piece->at, piece->n), on_appended, p);
    assert(rc == 0); /* one commit at a time */
    (void)rc;
}

void progress_commit(struct progress *p, void (*done)(void *arg), void *arg)
{
    assert(!progress_busy(p) && p->said_ready && p->appended == 0);
    p->committing = true;
    p->done = done;
    p->done_arg = arg;
    p->foreign_from = -1;
    close_piece(p);
    append_next(p);
}

/* ---- everything again ---- */

struct rewriting {
    struct progress *p;
    const struct stored_topic *topic;
    struct store_view *view;
};

static int rewrite_run(void *arg, int32_t partition, const struct map_run *r)
{
    struct rewriting *w = arg;
    progress_put_run(w->p, w->topic->number, &w->topic->topic, partition, r);
    return w->p->failed ? -E_LIMIT : 0;
}

static int rewrite_position(void *arg, const struct map_position *pos)
{
    struct rewriting *w = arg;
    progress_put_position(w->p, w->topic->number, pos);
    return w->p->failed ? -E_LIMIT : 0;
}

static int rewrite_topic(void *arg, const struct stored_topic *t)
{
    struct rewriting *w = arg;
    if (t->flow != w->p->flow.number)
        return 0;
    w->topic = t;
    int rc = store_runs_each(w->view, t->number, -1, rewrite_run, w);
    return rc ? rc : store_positions_each(w->view, t->number, rewrite_position, w);
}

static int rewrite_offer(void *arg, int32_t partition, const struct map_producer_id *id)
{
    put_offer(((struct rewriting *)arg)->p, partition, id);
    return 0;
}

void progress_rewrite(struct progress *p)
{
    struct rewriting w = {.p = p};
    struct err err;
    assert(!p->committing && !p->job_running && p->pieces_n == 0 && !p->building);
    p->state = PROGRESS_REWRITING;
    p->rewrite = false;
    p->foreign_from = -1;
    p->flow.progress_next = 0;
    int rc = store_view_open(p->store, &w.view, &err);
    if (!rc) {
        rc = store_producer_ids_each(w.view, p->flow.number, rewrite_offer, &w);
        if (!rc)
            rc = store_topics_each(w.view, rewrite_topic, &w);
        store_view_close(w.view);
    }
    close_piece(p);
    if (rc || p->failed) {
        p->trouble(
            p->arg,
            "the progress topic was lost, and the store cannot be written to it again: restart the mirror");
        return;
    }
    append_next(p);
}
