/* Batches in memory and the budget that bounds them. A batch and its buffer are used again and again: appending costs
 * no allocation per record, and none per batch once buffers have grown. */
#include "mirror/target/lane.h"

#include "base/core/grow.h"

#include <stdlib.h>

#define BATCH_BYTES_MAX ((size_t)INT32_MAX) /* what a batch can be at all */
/* The least part of the limit that is used, and the least bytes where the limit is more. */
#define USUAL_SHARE 24
#define USUAL_LEAST ((size_t)2 << 20)
/* Full, and less than this many times acknowledged within BUDGET_PACE_US: batches wait for 20 ms and more. */
#define USUAL_TURNOVERS 25

static size_t usual_least(const struct appender_budget *b)
{
    size_t share = b->limit_bytes / USUAL_SHARE > USUAL_LEAST ? b->limit_bytes / USUAL_SHARE : USUAL_LEAST;
    return share < b->limit_bytes ? share : b->limit_bytes;
}

struct appender_budget *appender_budget_create(size_t limit_bytes)
{
    assert(limit_bytes > 0);
    struct appender_budget *b = calloc(1, sizeof *b);
    if (b) {
        b->limit_bytes = limit_bytes;
        b->usual_bytes = usual_least(b);
        list_init(&b->spare);
        list_init(&b->waiters);
    }
    return b;
}

static void free_batch(struct lane_batch *b)
{
    buf_fini(&b->bytes);
    free(b->segments);
    free(b);
}

static size_t batch_memory(const struct lane_batch *b)
{
    return b->bytes.cap + b->segments_cap * sizeof *b->segments;
}

void appender_budget_destroy(struct appender_budget *b)
{
    if (!b)
        return;
    assert(b->used_bytes == 0);
    assert(list_empty(&b->waiters)); /* its appenders are gone */
    while (!list_empty(&b->spare))
        free_batch(LIST_ENTRY(list_pop(&b->spare), struct lane_batch, link));
    free(b);
}

size_t appender_budget_used(const struct appender_budget *b)
{
    return b->used_bytes;
}

static void tell_waiters(struct appender_budget *b)
{
    while (budget_room(b) && !list_empty(&b->waiters)) {
        struct budget_waiter *w = LIST_ENTRY(list_pop(&b->waiters), struct budget_waiter, link);
        w->room(w->arg);
    }
}

void appender_budget_limit(struct appender_budget *b, size_t limit_bytes)
{
    assert(limit_bytes > 0);
    b->limit_bytes = limit_bytes;
    if (b->usual_bytes > limit_bytes || b->usual_bytes < usual_least(b))
        b->usual_bytes = usual_least(b);
    while (b->spare_bytes > limit_bytes / 4 && !list_empty(&b->spare)) {
        struct lane_batch *oldest = LIST_ENTRY(b->spare.prev, struct lane_batch, link);
        b->spare_bytes -= batch_memory(oldest);
        list_remove(&oldest->link);
        free_batch(oldest);
    }
    b->spare_least = b->spare_least < b->spare_bytes ? b->spare_least : b->spare_bytes;
    tell_waiters(b);
}

void appender_budget_pace(struct appender_budget *b)
{
    size_t least = usual_least(b), most = b->limit_bytes;
    bool slow = b->acked_bytes / USUAL_TURNOVERS < b->usual_bytes;
    assert(b->usual_bytes >= least);
    assert(b->usual_bytes <= most);
    if (b->was_full && slow)
        b->usual_bytes = b->usual_bytes < most / 2 ? 2 * b->usual_bytes : most;
    else if (b->used_bytes < b->usual_bytes / 4)
        b->usual_bytes = b->usual_bytes / 2 > least ? b->usual_bytes / 2 : least;
    b->acked_bytes = 0;
    b->was_full = !budget_room(b);
    tell_waiters(b);
}

/* Each that is taken may grow to the largest batch: without this the pool fills up with buffers of that size, though
 * a load that has become smaller needs few. The ones at the end have been there longest. */
void appender_budget_rest(struct appender_budget *b)
{
    size_t unused = b->spare_least;
    while (!list_empty(&b->spare)) {
        struct lane_batch *oldest = LIST_ENTRY(b->spare.prev, struct lane_batch, link);
        size_t bytes = batch_memory(oldest);
        assert(b->spare_bytes >= bytes);
        if (bytes > unused)
            break;
        unused -= bytes;
        b->spare_bytes -= bytes;
        list_remove(&oldest->link);
        free_batch(oldest);
    }
    assert(!list_empty(&b->spare) || b->spare_bytes == 0);
    b->spare_least = b->spare_bytes;
}

struct lane_batch *lane_batch_take(struct appender_budget *budget)
{
    struct lane_batch *b;
    if (!list_empty(&budget->spare)) {
        b = LIST_ENTRY(list_pop(&budget->spare), struct lane_batch, link);
        assert(budget->spare_bytes >= batch_memory(b));
        budget->spare_bytes -= batch_memory(b);
        if (budget->spare_bytes < budget->spare_least)
            budget->spare_least = budget->spare_bytes;
    } else {
        budget->spare_least = 0;
        b = calloc(1, sizeof *b);
        if (!b)
            return NULL;
        buf_init(&b->bytes, BATCH_BYTES_MAX);
    }
    struct buf bytes = b->bytes;
    struct lane_segment *segments = b->segments;
    size_t cap = b->segments_cap;
    *b = (struct lane_batch){.bytes = bytes, .segments = segments, .segments_cap = cap, .timestamp_max = -1};
    buf_clear(&b->bytes);
    list_init(&b->link);
    return b;
}

void lane_batch_give(struct appender_budget *budget, struct lane_batch *b)
{
    assert(!b->driver); /* no call sends from its bytes any more */
    assert(budget->used_bytes >= b->counted);
    budget->used_bytes -= b->counted;
    b->counted = 0;
    tell_waiters(budget);
    if (list_linked(&b->link))
        list_remove(&b->link);
    if (b->lent.memory)
        b->lent.memory->let_go(b->lent.of);
    b->lent.memory = NULL;
    size_t spare = budget->spare_bytes + batch_memory(b);
    if (spare > budget->limit_bytes / 4 || budget->used_bytes + spare > budget->limit_bytes) {
        free_batch(b);
        return;
    }
    budget->spare_bytes += batch_memory(b);
    assert(budget->spare_bytes <= budget->limit_bytes / 4);
    assert(budget->spare_least <= budget->spare_bytes);
    list_push_front(&budget->spare, &b->link);
}

static void count_bytes(struct lane *l, struct lane_batch *b)
{
    size_t now = lane_batch_bytes(b).n;
    l->c.budget->used_bytes += now - b->counted; /* wraps and comes back when it has become less */
    l->c.budget->was_full = l->c.budget->was_full || !budget_room(l->c.budget);
    b->counted = now;
    assert(l->c.budget->used_bytes >= b->counted);
}

int lane_batch_begin(struct lane *l, struct lane_batch *b, int64_t number, int codec)
{
    assert(number >= 0);
    assert(b->count == 0 && b->counted == 0 && !b->lent.memory);
    struct batch_options o = BATCH_OPTIONS;
    o.codec = (enum codec)codec;
    o.level = l->c.codec_level;
    o.producer_id = l->c.producer_id;
    o.producer_epoch = l->c.producer_epoch;
    o.base_sequence = lane_sequence(number);
    b->number = number;
    b->codec = codec;
    b->state = LANE_BATCH_OPEN;
    batch_begin(&b->builder, &b->bytes, &o);
    return b->builder.failed;
}

static int add_segment(struct lane_batch *b, int64_t src)
{
    if (b->segments_n && src == b->src_last + 1)
        return 0;
    if (!GROW(b->segments, b->segments_n, b->segments_cap, 16))
        return -E_NOMEM;
    b->segments[b->segments_n++] = (struct lane_segment){src, b->count};
    return 0;
}

int lane_batch_add(struct lane *l, struct lane_batch *b, const struct record_new *r, int64_t src)
{
    assert(b->state == LANE_BATCH_OPEN);
    assert(b->count == 0 || src > b->src_last);
    int rc = add_segment(b, src);
    if (!rc)
        rc = batch_add(&b->builder, r);
    if (rc)
        return rc;
    if (b->count++ == 0)
        b->src_first = src;
    b->src_last = src;
    if (r->timestamp > b->timestamp_max)
        b->timestamp_max = r->timestamp;
    count_bytes(l, b);
    return 0;
}

int lane_batch_seal(struct lane *l, struct lane_batch *b)
{
    struct batch_header h;
    assert(b->state == LANE_BATCH_OPEN);
    assert(b->count > 0);
    int rc = batch_close(&b->builder, &h);
    if (rc)
        return rc;
    assert(h.records_n == b->count);
    assert(h.last_offset_delta == b->count - 1);
    b->state = LANE_BATCH_SEALED;
    count_bytes(l, b);
    return 0;
}

/* Where the source's answer put it, or a copy where so much is kept already. */
static uint8_t *hold_bytes(struct lane_batch *b, const struct port_batch *whole)
{
    uint8_t *p = (uint8_t *)(uintptr_t)whole->bytes.p; /* port_memory: kept bytes are the keeper's */
    if (whole->memory && whole->memory->keep(whole->of)) {
        b->lent.p = p;
        b->lent.n = whole->bytes.n;
        b->lent.memory = whole->memory;
        b->lent.of = whole->of;
        return p;
    }
    buf_put(&b->bytes, p, whole->bytes.n);
    return b->bytes.failed ? NULL : b->bytes.p;
}

/* Bits 4 and 6 of its attributes are the source's own business (rule 29). A delete horizon stands where the base of the
 * timestamps does, and they are counted from it: they stay what they are. */
int lane_batch_pass(struct lane *l, struct lane_batch *b, int64_t number, const struct batch_header *h,
                    const struct port_batch *whole)
{
    assert(h->records_n > 0);
    assert(h->records_n == h->last_offset_delta + 1); /* a number for every offset */
    assert(!batch_is(h, BATCH_CONTROL));
    assert(whole->bytes.n == batch_size(h));
    assert(b->count == 0 && b->bytes.n == 0 && !b->lent.memory);
    int rc = add_segment(b, h->base_offset);
    uint8_t *at = rc ? NULL : hold_bytes(b, whole);
    if (!at)
        return rc ? rc : -E_NOMEM;
    const struct batch_patch patch = {.producer_id = l->c.producer_id,
                                      .producer_epoch = l->c.producer_epoch,
                                      .base_sequence = lane_sequence(number),
                                      .attributes_clear = BATCH_TRANSACTIONAL | BATCH_DELETE_HORIZON};
    batch_offset_set(at, 0);
    batch_leader_epoch_set(at, BATCH_NO_LEADER_EPOCH);
    batch_producer_set(at, whole->bytes.n, &patch);
    b->number = number;
    b->codec = batch_codec(h);
    b->count = h->records_n;
    b->src_first = h->base_offset;
    b->src_last = batch_last_offset(h);
    b->timestamp_max = h->max_timestamp;
    b->state = LANE_BATCH_SEALED;
    count_bytes(l, b);
    return 0;
}

int64_t lane_batch_src(const struct lane_batch *b, int32_t at)
{
    assert(at >= 0 && at < b->count);
    size_t low = 0, high = b->segments_n;
    while (high - low > 1) {
        size_t mid = (low + high) / 2;
        if (b->segments[mid].at <= at)
            low = mid;
        else
            high = mid;
    }
    assert(b->segments[low].at <= at);
    return b->segments[low].src + (at - b->segments[low].at);
}
