/* The write path: sequence checks, offsets, one pwritev for all batches of a call (one per segment when it rolls), then
 * what follows from it: indexes, epochs, producers. */
#include "broker/log/log_internal.h"

#include "base/core/bytes.h"
#include "proto/kafka/errors.h"

#include <stdalign.h>
#include <stdlib.h>

/* Batches that go to the active segment in one write. */
struct run {
    unsigned n, most;
    int64_t bytes;
    struct batch_header *heads;
    struct iovec *v;
};

/* For up to `most` batches, in one piece of memory behind `heads`. */
static int run_init(struct run *r, unsigned most)
{
    assert(most > 0 && most <= LOG_APPEND_BATCHES_MAX);
    *r = (struct run){.most = most, .heads = malloc(most * (sizeof *r->heads + sizeof *r->v))};
    r->v = (struct iovec *)(void *)(r->heads + most);
    return r->heads ? 0 : -E_NOMEM;
}

static void run_fini(struct run *r)
{
    free(r->heads);
}

static_assert(sizeof(struct batch_header) % alignof(struct iovec) == 0, "iovecs lie behind the headers");

/* ---- rolling ---- */

/* Spreads rolls: the same segment always gets the same jitter. */
static int64_t jitter(const struct log *l, const struct segment *s)
{
    ASSERT_SEGMENT(s);
    if (l->config.segment_jitter_ms <= 0)
        return 0;
    uint64_t hash = UINT64_C(14695981039346656037) ^ (uint64_t)s->base_offset;
    for (const char *p = l->dir; *p; p++)
        hash = (hash ^ (uint8_t)*p) * UINT64_C(1099511628211);
    int64_t most = l->config.segment_jitter_ms < l->config.segment_ms ? l->config.segment_jitter_ms
                                                                      : l->config.segment_ms;
    return most > 0 ? (int64_t)(hash % (uint64_t)most) : 0;
}

static bool must_roll(struct log *l, const struct run *r, const struct batch_header *h, int64_t wall_ms)
{
    assert(h->base_offset >= l->end && r->bytes >= 0);
    struct segment *s = log_active(l);
    int64_t bytes = s->size_bytes + r->bytes;
    if (bytes == 0)
        return false;
    if (bytes + (int64_t)batch_size(h) > l->config.segment_bytes ||
        batch_last_offset(h) - s->base_offset > INT32_MAX)
        return true;
    int64_t first =
        r->n > 0 && s->size_bytes == 0 ? r->heads[0].max_timestamp : segment_first_timestamp(l, s);
    int64_t age = first >= 0 ? h->max_timestamp - first : wall_ms - s->created_ms;
    int64_t segment_ms = l->config.segment_ms;
    if (l->config.cleanup_compact && l->config.max_compaction_lag_ms < segment_ms)
        segment_ms = l->config.max_compaction_lag_ms;
    if (age > segment_ms - jitter(l, s))
        return true;
    uint32_t most = (uint32_t)(l->config.segment_index_bytes / 12);
    return index_entries(&s->offsets) + r->n >= most || index_entries(&s->times) + r->n + 1 >= most;
}

static int roll_at(struct log *l, int64_t base, int64_t wall_ms, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    struct segment *old = log_active(l), *s = segment_create(l, base);
    assert(base >= l->end && base > old->base_offset && old->size_bytes > 0);
    if (!s)
        return err_set(err, -E_NOMEM, "no memory for a segment of %s", l->dir);
    int rc = segment_make(l, s, wall_ms, err);
    if (!rc && (rc = log_segments_insert(l, l->segments_n, s)))
        err_set(err, rc, "no memory for a segment of %s", l->dir);
    if (rc) {
        segment_destroy(s);
        return rc == -E_NOSPACE || rc == -E_NOMEM ? rc : log_broken(l, rc, err);
    }
    (void)segment_spill(l, old, true,
                        NULL); /* if it fails the tail stays and a checkpoint flush tries again */
    segment_trim(old);
    old->next_offset = base;
    assert(log_active(l) == s && s->size_bytes == 0 && s->data.pinned);
    log_handle_unpin(&old->data);
    (void)log_snapshot_want(l, l->end); /* without it recovery replays a little more */
    return 0;
}

int log_roll(struct log *l, int64_t wall_ms, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    if (l->fenced)
        return err_set(err, -E_FENCED, "%s is fenced: %s", l->dir, log_fence_text(l));
    if (log_active(l)->size_bytes == 0)
        return 0;
    return roll_at(l, l->end, wall_ms, err);
}

/* ---- writing ---- */

/* After a failed write: the file as it was. What no longer can be made so fences. */
static int write_failed(struct log *l, struct segment *s, int code, struct err *err)
{
    assert(code < 0 && s->data.pinned);
    struct disk_file *f = log_file_disk(s->data.file);
    err_set(err, code, "cannot append to segment %lld of %s: %s", (long long)s->base_offset, l->dir,
            err_str(code));
    if (code != -E_NOSPACE)
        return log_broken(l, code, err);
    int rc = disk_truncate(f, s->size_bytes);
    s->reserved_bytes = 0;
    if (!rc)
        rc = disk_fdatasync(f); /* what comes next must not mix with pieces of what failed */
    if (rc)
        log_broken(l, rc, NULL);
    return code;
}

static int run_write(struct log *l, struct run *r, struct err *err)
{
    assert(r->n > 0 && r->n <= r->most && r->bytes > 0 && !l->fenced);
    struct segment *s = log_active(l);
    int n = 0;
    for (unsigned i = 0; i < r->n; i++) { /* neighbours in memory are one piece */
        if (n > 0 && (uint8_t *)r->v[n - 1].iov_base + r->v[n - 1].iov_len == r->v[i].iov_base)
            r->v[n - 1].iov_len += r->v[i].iov_len;
        else
            r->v[n++] = r->v[i];
    }
    segment_reserve(l, s, r->bytes);
    ssize_t written = disk_pwritev(log_file_disk(s->data.file), r->v, n, s->size_bytes);
    if (written < 0)
        return write_failed(l, s, (int)written, err);
    assert(written == r->bytes);
    return 0;
}

/* What follows from a run that is in the file. Lack of memory here would leave state behind the log: it fences. */
static void run_enter(struct log *l, const struct run *r, int64_t wall_ms)
{
    assert(r->n > 0 && r->heads[0].base_offset >= l->end);
    struct segment *s = log_active(l);
    int rc = 0;
    for (unsigned i = 0; i < r->n && !rc; i++) {
        const struct batch_header *h = &r->heads[i];
        if (!(rc = segment_note(l, s, h, s->size_bytes)))
            rc = epochs_assign(&l->epochs, h->leader_epoch, h->base_offset);
        s->size_bytes += (int64_t)batch_size(h);
        l->unflushed_records += h->last_offset_delta + 1;
    }
    if (rc)
        log_broken(l, rc, NULL);
    if (!s->dirty)
        l->unflushed_since_ms = wall_ms;
    s->dirty = true;
    l->end = s->next_offset = batch_last_offset(&r->heads[r->n - 1]) + 1;
    assert(s->size_bytes <= INT32_MAX);
    l->appends[l->appends_at++ % LOG_HINTS] = (struct log_hint){l->end, s->base_offset, s->size_bytes};
}

/* ---- the leader's append ---- */

static int16_t verdict_error(enum producer_verdict v)
{
    return v == PRODUCER_OUT_OF_ORDER ? KE_OUT_OF_ORDER_SEQUENCE_NUMBER
           : v == PRODUCER_OLD_EPOCH  ? KE_INVALID_PRODUCER_EPOCH
                                      : KE_NONE;
}

/* Is this batch to be appended? Else its outcome is set. */
static bool admit(struct log *l, struct log_batch *b, struct batch_header *h,
                  const struct log_append_options *o)
{
    assert(b->bytes || b->size_bytes == 0);
    b->error = KE_NONE;
    b->duplicate = false;
    b->base_offset = b->last_offset = b->timestamp_ms = -1;
    if (walk_header(slice_of(b->bytes, b->size_bytes), h) || batch_size(h) != b->size_bytes) {
        b->error = KE_CORRUPT_MESSAGE;
        return false;
    }
    if (b->size_bytes > (size_t)l->config.segment_bytes) {
        b->error = KE_RECORD_LIST_TOO_LARGE;
        return false;
    }
    if (o->coordinator || !batch_has_producer(h) || h->base_sequence < 0)
        return true;
    struct producer_batch dup = {0};
    enum producer_verdict v = producers_check(&l->producers, h, &dup);
    b->error = verdict_error(v);
    if (v == PRODUCER_DUPLICATE) {
        b->duplicate = true;
        b->last_offset = dup.last_offset;
        b->base_offset = dup.last_offset - dup.offset_delta;
        b->timestamp_ms = dup.wall_ms;
    }
    assert(v != PRODUCER_DUPLICATE || (b->duplicate && b->base_offset >= 0 && b->error == KE_NONE));
    return v == PRODUCER_NEW;
}

static void run_add(struct run *r, struct log_batch *b, const struct batch_header *h)
{
    assert(batch_size(h) == b->size_bytes);
    assert(r->n < r->most);
    r->heads[r->n] = *h;
    r->v[r->n++] = (struct iovec){b->bytes, b->size_bytes};
    r->bytes += (int64_t)b->size_bytes;
    b->base_offset = h->base_offset;
    b->last_offset = batch_last_offset(h);
    batch_offset_set(b->bytes, h->base_offset);
    batch_leader_epoch_set(b->bytes, h->leader_epoch);
}

struct appending {
    struct log_batch *batches;
    unsigned n, from, at; /* [from, at) are in the run, or settled */
    int64_t next;         /* offset */
    bool roll;            /* the batch at `at` begins a segment */
};

/* Takes batches into the run until one needs a new segment. */
static int run_fill(struct log *l, struct run *r, struct appending *a, const struct log_append_options *o)
{
    assert(a->at < a->n && l->producers.changing);
    r->n = 0;
    r->bytes = 0;
    a->roll = false;
    a->next = l->end;
    assert(a->next == log_active(l)->next_offset);
    for (a->from = a->at; a->at < a->n; a->at++) {
        struct log_batch *b = &a->batches[a->at];
        struct batch_header h;
        if (!admit(l, b, &h, o))
            continue;
        h.base_offset = a->next;
        h.leader_epoch = o->leader_epoch;
        if (must_roll(l, r, &h, o->wall_ms)) {
            a->roll = true;
            return 0;
        }
        int rc = producers_replay(&l->producers, &h, slice_of(b->bytes, b->size_bytes), o->wall_ms);
        if (rc)
            return rc;
        run_add(r, b, &h);
        a->next = batch_last_offset(&h) + 1;
    }
    return 0;
}

/* A duplicate of a batch that failed here is in no log: it fails with it. */
static void fail_from(const struct log *l, struct appending *a)
{
    assert(a->from <= a->n);
    for (unsigned i = a->from; i < a->n; i++) {
        struct log_batch *b = &a->batches[i];
        if (b->error != KE_NONE || (b->duplicate && b->last_offset < l->end))
            continue;
        b->error = KE_KAFKA_STORAGE_ERROR;
        b->duplicate = false;
        b->base_offset = b->last_offset = -1;
    }
}

int log_append(struct log *l, struct log_batch *batches, unsigned n, const struct log_append_options *o,
               struct err *err)
{
    assert(l->magic == LOG_MAGIC && n > 0 && n <= LOG_APPEND_BATCHES_MAX && o->leader_epoch >= 0);
    struct appending a = {.batches = batches, .n = n};
    for (unsigned i = 0; i < n; i++) {
        batches[i].error = KE_NONE;
        batches[i].duplicate = false;
    }
    if (l->fenced) {
        fail_from(l, &a);
        return err_set(err, -E_FENCED, "%s is fenced: %s", l->dir, log_fence_text(l));
    }
    struct run r;
    int rc = run_init(&r, n);
    while (!rc && a.at < n) {
        producers_begin(&l->producers);
        rc = run_fill(l, &r, &a, o);
        if (!rc && r.n > 0)
            rc = run_write(l, &r, err);
        if (rc) {
            producers_rollback(&l->producers);
            break;
        }
        producers_commit(&l->producers);
        if (r.n > 0)
            run_enter(l, &r, o->wall_ms);
        a.from = a.at;
        if (a.roll)
            rc = l->fenced ? -E_FENCED : roll_at(l, l->end, o->wall_ms, err);
    }
    run_fini(&r);
    INVARIANT(l);
    if (rc)
        fail_from(l, &a);
    return rc == -E_NOMEM ? err_set(err, rc, "no memory to append to %s", l->dir) : rc;
}

/* ---- appending what has its offsets ---- */

/* Reads all headers and checks everything; counts the batches. */
static int as_is_check(const struct log *l, struct slice bytes, unsigned *n, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    const struct segment *s = log_active(l);
    int64_t expected = l->end;
    *n = 0;
    int32_t epoch = -1;
    while (bytes.n > 0) {
        struct batch_header h;
        int rc = batch_read(bytes, &h, err);
        if (!rc)
            rc = walk_header(bytes, &h);
        if (rc)
            return err_set(err, -E_CORRUPT, "batch to be appended at %lld of %s: %s", (long long)expected,
                           l->dir, err_str(rc));
        if (h.base_offset < expected || h.leader_epoch < epoch)
            return err_set(err, -E_RANGE, "batch of offset %lld, epoch %d after end %lld, epoch %d of %s",
                           (long long)h.base_offset, h.leader_epoch, (long long)expected, epoch, l->dir);
        if (s->size_bytes == 0 && batch_last_offset(&h) - s->base_offset > INT32_MAX)
            return err_set(err, -E_RANGE, "offset %lld is too far from the empty segment %lld of %s",
                           (long long)h.base_offset, (long long)s->base_offset, l->dir);
        if ((int64_t)batch_size(&h) > l->config.segment_bytes)
            return err_set(err, -E_LIMIT, "a batch of %zu bytes is larger than a segment of %s",
                           batch_size(&h), l->dir);
        expected = batch_last_offset(&h) + 1;
        epoch = h.leader_epoch;
        ++*n;
        bytes = slice_of(bytes.p + batch_size(&h), bytes.n - batch_size(&h));
    }
    return 0;
}

/* Fills a run from the front of `bytes`; what is left begins a segment or another run. */
static int as_is_fill(struct log *l, struct run *r, struct slice *bytes, bool *roll, int64_t wall_ms)
{
    assert(l->producers.changing && bytes->n > 0);
    r->n = 0;
    r->bytes = 0;
    *roll = false;
    while (bytes->n > 0 && r->n < r->most) {
        struct batch_header h;
        int rc = walk_header(*bytes, &h);
        assert(rc == 0);
        if (must_roll(l, r, &h, wall_ms)) {
            *roll = true;
            return 0;
        }
        struct slice batch = slice_of(bytes->p, batch_size(&h));
        if ((rc = producers_replay(&l->producers, &h, batch, wall_ms)))
            return rc;
        r->heads[r->n] = h;
        r->v[r->n++] = (struct iovec){(void *)(uintptr_t)batch.p, batch.n};
        r->bytes += (int64_t)batch.n;
        *bytes = slice_of(bytes->p + batch.n, bytes->n - batch.n);
    }
    return 0;
}

int log_append_as_is(struct log *l, struct slice bytes, int64_t wall_ms, struct err *err)
{
    assert(l->magic == LOG_MAGIC);
    if (l->fenced)
        return err_set(err, -E_FENCED, "%s is fenced: %s", l->dir, log_fence_text(l));
    unsigned n;
    struct run r;
    int rc = as_is_check(l, bytes, &n, err);
    if (rc || n == 0)
        return rc;
    if (run_init(&r, n < LOG_APPEND_BATCHES_MAX ? n : LOG_APPEND_BATCHES_MAX))
        return err_set(err, -E_NOMEM, "no memory to append to %s", l->dir);
    while (!rc && bytes.n > 0) {
        bool roll;
        producers_begin(&l->producers);
        rc = as_is_fill(l, &r, &bytes, &roll, wall_ms);
        if (!rc && r.n > 0)
            rc = run_write(l, &r, err);
        if (rc) {
            producers_rollback(&l->producers);
            break;
        }
        producers_commit(&l->producers);
        if (r.n > 0)
            run_enter(l, &r, wall_ms);
        if (roll)
            rc = roll_at(l, (int64_t)be64_get(bytes.p), wall_ms, err);
    }
    run_fini(&r);
    INVARIANT(l);
    return rc;
}
