#include "broker/log/producers.h"

#include <assert.h>
#include <stdlib.h>

#include "base/core/grow.h"
#include "base/core/mutant.h"

void producers_init(struct producers *p)
{
    *p = (struct producers){0};
    list_init(&p->by_age);
}

static void txn_set(struct producers *p, struct producer *one, int64_t first_offset)
{
    assert(one->id >= 0);
    p->open_txns += (unsigned)(first_offset >= 0);
    assert(p->open_txns >= (unsigned)(one->txn_first_offset >= 0));
    p->open_txns -= (unsigned)(one->txn_first_offset >= 0);
    one->txn_first_offset = first_offset;
}

static void forget(struct producers *p, struct producer *one)
{
    assert(p->by_id);
    txn_set(p, one, -1);
    HASH_DELETE(hh, p->by_id, one);
    list_remove(&one->age);
    free(one);
}

void producers_clear(struct producers *p)
{
    assert(!p->changing);
    while (!list_empty(&p->by_age))
        forget(p, LIST_ENTRY(p->by_age.next, struct producer, age));
    assert(!p->by_id);
}

void producers_fini(struct producers *p)
{
    assert(!p->changing);
    producers_clear(p);
    free(p->saved);
    p->saved = NULL;
}

unsigned producers_count(const struct producers *p)
{
    return HASH_COUNT(p->by_id);
}

const struct producer *producers_find(const struct producers *p, int64_t id)
{
    struct producer *one;
    HASH_FIND(hh, p->by_id, &id, sizeof id, one);
    return one;
}

static int32_t first_sequence(const struct producer_batch *b)
{
    assert(b->last_sequence >= 0 && b->offset_delta >= 0);
    int64_t first = (int64_t)b->last_sequence - b->offset_delta;
    return (int32_t)(first >= 0 ? first : first + INT32_MAX + 1);
}

enum producer_verdict producers_check(const struct producers *p, const struct batch_header *h,
                                      struct producer_batch *dup)
{
    assert(h->producer_id >= 0);
    const struct producer *one = producers_find(p, h->producer_id);
    if (!one || MUTANT("forgotten_sequence_check"))
        return PRODUCER_NEW; /* an id not known here may begin anywhere: its past may have been deleted */
    if (h->producer_epoch < one->epoch)
        return PRODUCER_OLD_EPOCH;
    if (h->producer_epoch > one->epoch)
        return h->base_sequence == 0 ? PRODUCER_NEW : PRODUCER_OUT_OF_ORDER;
    int32_t last = batch_last_sequence(h);
    for (unsigned i = 0; i < one->batches_n; i++) {
        const struct producer_batch *b = &one->batches[i];
        if (b->last_sequence == last && first_sequence(b) == h->base_sequence) {
            *dup = *b;
            return PRODUCER_DUPLICATE;
        }
    }
    if (one->batches_n == 0) /* only a marker is known of this epoch */
        return h->base_sequence == 0 ? PRODUCER_NEW : PRODUCER_OUT_OF_ORDER;
    int32_t expected = batch_sequence_add(one->batches[one->batches_n - 1].last_sequence, 1);
    return h->base_sequence == expected ? PRODUCER_NEW : PRODUCER_OUT_OF_ORDER;
}

void producers_begin(struct producers *p)
{
    assert(!p->changing && p->saved_n == 0);
    p->changing = true;
    p->change++;
}

void producers_commit(struct producers *p)
{
    assert(p->changing);
    p->changing = false;
    p->saved_n = 0;
    assert(p->open_txns <= producers_count(p));
    while (producers_count(p) > LOG_PRODUCERS_MAX) {
        forget(p, LIST_ENTRY(p->by_age.next, struct producer, age));
        p->forgotten++;
    }
}

void producers_rollback(struct producers *p)
{
    assert(p->changing);
    for (unsigned i = p->saved_n; i-- > 0;) {
        struct producer_saved *s = &p->saved[i];
        struct producer *one;
        HASH_FIND(hh, p->by_id, &s->was.id, sizeof s->was.id, one);
        assert(one);
        if (s->is_new) {
            forget(p, one);
            continue;
        }
        txn_set(p, one, s->was.txn_first_offset);
        one->wall_ms = s->was.wall_ms; /* its place in by_age stays too young: forgotten a little later */
        one->coordinator_epoch = s->was.coordinator_epoch;
        one->epoch = s->was.epoch;
        one->batches_n = s->was.batches_n;
        memcpy(one->batches, s->was.batches, sizeof one->batches);
    }
    p->changing = false;
    p->saved_n = 0;
}

static int save(struct producers *p, const struct producer *one, bool is_new)
{
    assert(p->saved_n <= p->saved_room);
    if (!p->changing || one->saved_in == p->change)
        return 0;
    if (!GROW(p->saved, p->saved_n, p->saved_room, 4))
        return -E_NOMEM;
    p->saved[p->saved_n++] = (struct producer_saved){.is_new = is_new, .was = *one};
    return 0;
}

static struct producer *add(struct producers *p, int64_t id)
{
    assert(!producers_find(p, id));
    struct producer *one = calloc(1, sizeof *one);
    if (!one)
        return NULL;
    one->id = id;
    one->epoch = BATCH_NO_PRODUCER_EPOCH;
    one->coordinator_epoch = -1;
    one->txn_first_offset = -1;
    list_init(&one->age);
    HASH_ADD(hh, p->by_id, id, sizeof one->id, one);
    if (!HASH_ADDED(one)) {
        free(one);
        return NULL;
    }
    return one;
}

/* The state to change, its old value put aside; NULL when memory is out. */
static struct producer *touch(struct producers *p, int64_t id, int64_t wall_ms)
{
    assert(id >= 0);
    struct producer *one;
    HASH_FIND(hh, p->by_id, &id, sizeof id, one);
    bool is_new = !one;
    if (is_new && !(one = add(p, id)))
        return NULL;
    if (save(p, one, is_new)) {
        if (is_new)
            forget(p, one);
        return NULL;
    }
    one->saved_in = p->change;
    list_remove(&one->age);
    list_push(&p->by_age, &one->age);
    one->wall_ms = wall_ms;
    return one;
}

int producers_enter(struct producers *p, const struct producer *as)
{
    assert(!p->changing && as->id >= 0 && as->batches_n <= LOG_PRODUCER_BATCHES);
    if (producers_find(p, as->id))
        return -E_CORRUPT;
    struct producer *one = touch(p, as->id, as->wall_ms);
    if (!one)
        return -E_NOMEM;
    one->epoch = as->epoch;
    one->coordinator_epoch = as->coordinator_epoch;
    one->batches_n = as->batches_n;
    memcpy(one->batches, as->batches, sizeof one->batches);
    txn_set(p, one, as->txn_first_offset);
    return 0;
}

static void epoch_set(struct producer *one, int16_t epoch)
{
    assert(one->batches_n <= LOG_PRODUCER_BATCHES);
    if (epoch != one->epoch)
        one->batches_n = 0;
    one->epoch = epoch;
}

int producers_append(struct producers *p, const struct batch_header *h, int64_t wall_ms)
{
    assert(h->producer_id >= 0 && h->base_offset >= 0 && !batch_is(h, BATCH_CONTROL));
    struct producer *one = touch(p, h->producer_id, wall_ms);
    if (!one)
        return -E_NOMEM;
    epoch_set(one, h->producer_epoch);
    if (batch_is(h, BATCH_TRANSACTIONAL) && one->txn_first_offset < 0)
        txn_set(p, one, h->base_offset);
    if (one->batches_n == LOG_PRODUCER_BATCHES) {
        memmove(one->batches, one->batches + 1, (LOG_PRODUCER_BATCHES - 1) * sizeof *one->batches);
        one->batches_n--;
    }
    one->batches[one->batches_n++] = (struct producer_batch){
        .last_offset = batch_last_offset(h),
        .last_sequence = batch_last_sequence(h),
        .offset_delta = h->last_offset_delta,
        .wall_ms = wall_ms,
    };
    assert(one->batches_n <= LOG_PRODUCER_BATCHES);
    return 0;
}

int producers_end_txn(struct producers *p, const struct batch_header *h, int32_t coordinator_epoch,
                      int64_t wall_ms)
{
    assert(h->producer_id >= 0 && batch_is(h, BATCH_CONTROL));
    struct producer *one = touch(p, h->producer_id, wall_ms);
    if (!one)
        return -E_NOMEM;
    if (h->producer_epoch > one->epoch)
        epoch_set(one, h->producer_epoch);
    txn_set(p, one, -1);
    one->coordinator_epoch = coordinator_epoch;
    return 0;
}

int producers_replay(struct producers *p, const struct batch_header *h, struct slice batch, int64_t wall_ms)
{
    assert(h->last_offset_delta >= 0);
    if (!batch_has_producer(h))
        return 0;
    if (!batch_is(h, BATCH_CONTROL))
        return h->base_sequence < 0 ? 0 : producers_append(p, h, wall_ms);
    assert(batch.n == batch_size(h));
    struct record_walk w;
    struct record r;
    enum control_type type;
    int32_t coordinator_epoch = -1;
    record_walk_init(&w, h, slice_of(batch.p + BATCH_HEADER_BYTES, batch.n - BATCH_HEADER_BYTES));
    if (record_next(&w, &r) != 1 || control_type_read(&r, &type))
        return 0; /* compacted away, or no marker */
    if (type != CONTROL_ABORT && type != CONTROL_COMMIT)
        return 0;
    (void)control_end_txn_read(&r, &coordinator_epoch);
    return producers_end_txn(p, h, coordinator_epoch, wall_ms);
}

unsigned producers_expire(struct producers *p, int64_t before_ms)
{
    assert(!p->changing);
    unsigned n = 0;
    list_each_safe(at, &p->by_age)
    {
        struct producer *one = LIST_ENTRY(at, struct producer, age);
        if (one->wall_ms >= before_ms || one->txn_first_offset >= 0)
            continue; /* the clock may have stepped: order by age is only nearly that of wall_ms */
        forget(p, one);
        n++;
    }
    return n;
}

int64_t producers_first_unstable(const struct producers *p)
{
    int64_t first = -1;
    if (p->open_txns == 0)
        return first;
    list_each (at, &p->by_age) {
        const struct producer *one = LIST_ENTRY(at, struct producer, age);
        if (one->txn_first_offset >= 0 && (first < 0 || one->txn_first_offset < first))
            first = one->txn_first_offset;
    }
    return first;
}

static int by_id(const void *a, const void *b)
{
    const struct producer *x = *(const struct producer *const *)a, *y = *(const struct producer *const *)b;
    return (x->id > y->id) - (x->id < y->id);
}

void producers_each(const struct producers *p, void (*each)(void *arg, const struct log_producer *one),
                    void *arg)
{
    assert(each);
    unsigned n = 0, count = producers_count(p);
    const struct producer **all = malloc((count + 1) * sizeof(struct producer *));
    if (!all)
        return;
    list_each (at, &p->by_age)
        all[n++] = LIST_ENTRY(at, struct producer, age);
    assert(n == count);
    qsort(all, n, sizeof *all, by_id);
    for (unsigned i = 0; i < n; i++) {
        const struct producer *one = all[i];
        const struct producer_batch *last = one->batches_n ? &one->batches[one->batches_n - 1] : NULL;
        each(arg, &(struct log_producer){
                      .producer_id = one->id,
                      .epoch = one->epoch,
                      .last_sequence = last ? last->last_sequence : BATCH_NO_SEQUENCE,
                      .coordinator_epoch = one->coordinator_epoch,
                      .last_offset = last ? last->last_offset : -1,
                      .last_timestamp_ms = one->wall_ms,
                      .txn_first_offset = one->txn_first_offset,
                  });
    }
    free(all);
}
