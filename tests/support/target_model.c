/* See target_model.h. */
#include "tests/support/target_model.h"

#include <assert.h>
#include <stdlib.h>

void target_init(struct target_model *t, uint64_t seed)
{
    *t = (struct target_model){.expiration_ms = INT64_C(24) * 3600 * 1000,
                               .batch_bytes_max = 1048588,
                               .now_ms = INT64_C(1700000000000)};
    rng_init(&t->rng, seed);
    t->epochs_n = 1;
}

static void drop_from(struct target_model *t, size_t n)
{
    while (t->log_n > n)
        free(t->log[--t->log_n].bytes);
}

void target_fini(struct target_model *t)
{
    drop_from(t, 0);
    free(t->log);
}

int32_t target_epoch(const struct target_model *t)
{
    return t->epochs[t->epochs_n - 1].epoch;
}

int64_t target_epoch_end(const struct target_model *t, int32_t epoch)
{
    if (epoch > target_epoch(t))
        return -1;
    for (int i = 0; i + 1 < t->epochs_n; i++)
        if (epoch <= t->epochs[i].epoch || epoch < t->epochs[i + 1].epoch)
            return t->epochs[i + 1].start;
    return t->end;
}

static struct target_producer *producer(struct target_model *t, int64_t id)
{
    for (int i = 0; i < t->producers_n; i++)
        if (t->producers[i].id == id)
            return &t->producers[i];
    return NULL;
}

/* ---- appending ---- */

static int64_t store(struct target_model *t, struct slice batch)
{
    if (t->log_n == t->log_cap) {
        t->log_cap = t->log_cap ? t->log_cap * 2 : 64;
        t->log = realloc(t->log, t->log_cap * sizeof *t->log);
        assert(t->log);
    }
    struct target_batch *b = &t->log[t->log_n++];
    b->bytes = malloc(batch.n);
    assert(b->bytes);
    b->size = batch.n;
    memcpy(b->bytes, batch.p, batch.n);
    batch_offset_set(b->bytes, t->end);
    batch_leader_epoch_set(b->bytes, target_epoch(t));
    if (t->append_time)
        batch_log_append_time_set(b->bytes, b->size, t->now_ms);
    int rc = batch_header_read(slice_of(b->bytes, b->size), &b->h, NULL);
    assert(rc == 0);
    (void)rc;
    int64_t base = t->end;
    t->end = batch_last_offset(&b->h) + 1;
    if (!t->hold_watermark)
        t->visible = t->end;
    return base;
}

static void remember(struct target_model *t, const struct batch_header *h, int64_t base)
{
    struct target_producer *p = producer(t, h->producer_id);
    if (!p) {
        assert(t->producers_n < TARGET_PRODUCERS);
        p = &t->producers[t->producers_n++];
        *p = (struct target_producer){.id = h->producer_id};
    }
    if (p->epoch != h->producer_epoch)
        p->n = 0;
    p->epoch = h->producer_epoch;
    p->timestamp = t->wall_clock || t->append_time ? t->now_ms : h->max_timestamp;
    if (p->n == TARGET_REMEMBERED)
        memmove(&p->batches[0], &p->batches[1], (size_t)--p->n * sizeof p->batches[0]);
    p->last_sequence = batch_last_sequence(h);
    p->batches[p->n].first = h->base_sequence;
    p->batches[p->n].last = p->last_sequence;
    p->batches[p->n++].base = base;
}

/* The sequence check; NONE with *known set for a batch that is there already. */
static int16_t check_sequence(struct target_model *t, const struct batch_header *h, int64_t *base,
                              bool *known)
{
    struct target_producer *p = producer(t, h->producer_id);
    if (!p)
        return KE_NONE;
    if (h->producer_epoch < p->epoch)
        return KE_INVALID_PRODUCER_EPOCH;
    if (h->producer_epoch > p->epoch)
        return h->base_sequence == 0 ? KE_NONE : KE_OUT_OF_ORDER_SEQUENCE_NUMBER;
    for (int i = 0; i < p->n; i++) {
        if (p->batches[i].first == h->base_sequence && p->batches[i].last == batch_last_sequence(h)) {
            *base = p->batches[i].base;
            *known = true;
            return KE_NONE;
        }
    }
    return h->base_sequence == batch_sequence_add(p->last_sequence, 1) ? KE_NONE
                                                                       : KE_OUT_OF_ORDER_SEQUENCE_NUMBER;
}

static int16_t check_times(const struct target_model *t, const struct batch_header *h, struct slice batch)
{
    struct record_walk w;
    struct record r;
    struct buf scratch;
    struct slice payload;
    struct codec_limits limits = codec_limits_for(CODEC_BYTES_MAX_DEFAULT);
    int16_t error = KE_NONE;
    if (!t->ahead_ms_max && !t->before_ms_max)
        return KE_NONE;
    buf_init(&scratch, 64 << 20);
    int rc = batch_payload(h, batch, &limits, &scratch, &payload, NULL);
    assert(rc == 0);
    (void)rc;
    record_walk_init(&w, h, payload);
    while (record_next(&w, &r) == 1) {
        bool ahead = t->ahead_ms_max && r.timestamp - t->now_ms > t->ahead_ms_max;
        bool before = t->before_ms_max && r.timestamp >= 0 && t->now_ms - r.timestamp > t->before_ms_max;
        if (ahead || before)
            error = KE_INVALID_TIMESTAMP;
    }
    buf_fini(&scratch);
    return error;
}

int16_t target_produce(struct target_model *t, struct slice batch, int64_t *base)
{
    struct batch_header h;
    bool known = false;
    if (batch_read(batch, &h, NULL))
        return KE_CORRUPT_MESSAGE;
    assert(h.base_offset == 0 && h.records_n == h.last_offset_delta + 1 && h.records_n > 0);
    if (t->refuse_n > 0) {
        t->refuse_n--;
        return t->refuse;
    }
    if (batch.n > t->batch_bytes_max)
        return KE_MESSAGE_TOO_LARGE;
    int16_t error = check_times(t, &h, batch);
    if (error == KE_NONE)
        error = check_sequence(t, &h, base, &known);
    if (error != KE_NONE) {
        t->refused++;
        return error;
    }
    if (known) {
        t->doubled++;
    } else {
        *base = store(t, batch);
        remember(t, &h, *base);
        t->appended++;
    }
    if (t->hold_watermark)
        return KE_REQUEST_TIMED_OUT; /* acks=all waits for it */
    if (t->after_n > 0) {
        t->after_n--;
        return t->after;
    }
    return KE_NONE;
}

/* ---- questions ---- */

void target_read(const struct target_model *t, int64_t from, size_t max, struct buf *out)
{
    size_t start = out->n;
    for (size_t i = 0; i < t->log_n; i++) {
        const struct target_batch *b = &t->log[i];
        if (batch_last_offset(&b->h) < from || batch_last_offset(&b->h) >= t->visible)
            continue;
        size_t had = out->n - start;
        if (had > 0 && had + b->size > max) {
            buf_put(out, b->bytes, max > had ? max - had : 0); /* answers end anywhere but in their first batch */
            return;
        }
        buf_put(out, b->bytes, b->size);
    }
}

bool target_describe(const struct target_model *t, int64_t id, int32_t *epoch, int32_t *last,
                     int64_t *timestamp)
{
    for (int i = 0; i < t->producers_n; i++) {
        const struct target_producer *p = &t->producers[i];
        if (p->id != id)
            continue;
        *epoch = p->epoch;
        *last = p->last_sequence;
        *timestamp = p->timestamp;
        return true;
    }
    return false;
}

/* ---- events ---- */

void target_restart(struct target_model *t)
{
    for (int i = 0; i < t->producers_n; i++) {
        struct target_producer *p = &t->producers[i];
        if (p->n > 1)
            p->batches[0] = p->batches[p->n - 1];
        p->n = p->n ? 1 : 0;
    }
}

static void forget_at(struct target_model *t, int i)
{
    t->producers[i] = t->producers[--t->producers_n];
}

void target_expire(struct target_model *t)
{
    for (int i = t->producers_n - 1; i >= 0; i--)
        if (t->now_ms - t->producers[i].timestamp > t->expiration_ms)
            forget_at(t, i);
}

void target_forget(struct target_model *t, int64_t id)
{
    for (int i = t->producers_n - 1; i >= 0; i--)
        if (t->producers[i].id == id)
            forget_at(t, i);
}

void target_foreign(struct target_model *t, int records)
{
    struct buf out;
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    buf_init(&out, 1 << 20);
    batch_begin(&b, &out, &o);
    for (int i = 0; i < records; i++)
        batch_add(&b, &(struct record_new){.timestamp = t->now_ms, .value = SLICE_LIT("a stranger's")});
    int rc = batch_close(&b, NULL);
    assert(rc == 0);
    (void)rc;
    store(t, buf_slice(&out));
    buf_fini(&out);
}

void target_new_epoch(struct target_model *t)
{
    assert(t->epochs_n < TARGET_EPOCHS);
    t->epochs[t->epochs_n].epoch = target_epoch(t) + 1;
    t->epochs[t->epochs_n++].start = t->end;
}

/* Producer state as it would be built from what is left. */
static void rebuild(struct target_model *t)
{
    struct target_producer old[TARGET_PRODUCERS];
    int n = t->producers_n;
    memcpy(old, t->producers, sizeof old);
    t->producers_n = 0;
    for (size_t i = 0; i < t->log_n; i++)
        if (batch_has_producer(&t->log[i].h))
            remember(t, &t->log[i].h, t->log[i].h.base_offset);
    for (int i = t->producers_n - 1; i >= 0; i--) {
        bool was = false;
        for (int j = 0; j < n; j++)
            was = was || old[j].id == t->producers[i].id;
        if (!was)
            forget_at(t, i);
    }
}

void target_truncate(struct target_model *t, int64_t offset)
{
    size_t n = t->log_n;
    while (n && t->log[n - 1].h.base_offset >= offset)
        n--;
    drop_from(t, n);
    t->end = n ? batch_last_offset(&t->log[n - 1].h) + 1 : t->log_start;
    t->visible = t->end;
    while (t->epochs_n > 1 && t->epochs[t->epochs_n - 1].start >= t->end)
        t->epochs_n--;
    rebuild(t);
    target_new_epoch(t);
}

void target_delete_prefix(struct target_model *t, int64_t log_start)
{
    size_t gone = 0;
    assert(log_start <= t->end);
    while (gone < t->log_n && batch_last_offset(&t->log[gone].h) < log_start)
        free(t->log[gone++].bytes);
    t->log_n -= gone;
    memmove(t->log, t->log + gone, t->log_n * sizeof *t->log);
    if (log_start > t->log_start)
        t->log_start = log_start;
}

/* Rewrites one batch without some of its records; false when none is left. */
static bool thin(struct target_model *t, struct target_batch *b, uint32_t per_million)
{
    struct buf out;
    struct batch_builder n;
    struct batch_options o = BATCH_OPTIONS;
    struct record_walk w;
    struct record r;
    struct buf scratch;
    struct slice payload;
    struct codec_limits limits = codec_limits_for(CODEC_BYTES_MAX_DEFAULT);
    buf_init(&out, 64 << 20);
    buf_init(&scratch, 64 << 20);
    int rc = batch_payload(&b->h, slice_of(b->bytes, b->size), &limits, &scratch, &payload, NULL);
    assert(rc == 0);
    o.base_offset = b->h.base_offset;
    o.leader_epoch = b->h.leader_epoch;
    o.producer_id = b->h.producer_id;
    o.producer_epoch = b->h.producer_epoch;
    o.base_sequence = b->h.base_sequence;
    batch_begin(&n, &out, &o);
    record_walk_init(&w, &b->h, payload);
    while (record_next(&w, &r) == 1) {
        if (rng_chance(&t->rng, per_million))
            continue;
        batch_add_at(&n, r.offset_delta,
                     &(struct record_new){.timestamp = r.timestamp,
                                          .key = r.key,
                                          .value = r.value,
                                          .headers_n = r.headers_n,
                                          .headers_encoded = r.headers});
    }
    batch_last_offset_delta_set(&n, b->h.last_offset_delta);
    rc = batch_close(&n, NULL);
    assert(rc == 0);
    free(b->bytes);
    b->size = out.n;
    b->bytes = malloc(out.n);
    assert(b->bytes);
    memcpy(b->bytes, out.p, out.n);
    rc = batch_header_read(slice_of(b->bytes, b->size), &b->h, NULL);
    assert(rc == 0);
    buf_fini(&out);
    buf_fini(&scratch);
    return b->h.records_n > 0;
}

static bool last_of_producer(const struct target_model *t, size_t at)
{
    for (size_t i = at + 1; i < t->log_n; i++)
        if (t->log[i].h.producer_id == t->log[at].h.producer_id)
            return false;
    return batch_has_producer(&t->log[at].h);
}

void target_compact(struct target_model *t, uint32_t per_million)
{
    size_t kept = 0;
    for (size_t i = 0; i < t->log_n; i++) {
        bool some = thin(t, &t->log[i], per_million);
        if (some || last_of_producer(t, i))
            t->log[kept++] = t->log[i];
        else
            free(t->log[i].bytes);
    }
    t->log_n = kept;
}

void target_replicate(struct target_model *t)
{
    t->visible = t->end;
}
