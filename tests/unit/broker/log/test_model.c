/* Random operations against a model in memory: appends (plain, idempotent, at given offsets), rolls, reads, lookups by
 * time and epoch, start moves, retention, truncation, flushes, clean restarts, kills. size: one model with its
 * checks */
#include "proto/kafka/errors.h"
#include "tests/support/log/crash_disk.h"
#include "tests/support/log/log_rig.h"

#include "base/world/disk_posix.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PRODUCERS 4

struct model_batch {
    struct batch_header h;
    uint8_t *bytes; /* as they lie in the file */
    size_t n;
};

struct model_producer {
    int16_t epoch;
    int32_t next;
    int32_t first[5], last[5]; /* of the batches that must be known, newest last */
    int64_t base[5];
    unsigned known;
    bool any;
};

struct model {
    struct log_rig rig;
    struct rng rng;
    struct model_batch *v;
    size_t n, room;
    int64_t start, end, durable, now;
    int32_t epoch;
    struct {
        int32_t epoch;
        int64_t start;
    } epochs[20000];
    unsigned epochs_n;
    struct model_producer producers[PRODUCERS];
    int64_t tag, op;
    uint64_t seed;
};

static void die(struct model *m, const char *what)
{
    cr_assert_fail("seed %llu op %lld: %s (%s)", (unsigned long long)m->seed, (long long)m->op, what,
                   m->rig.err.text);
    abort();
}

static void expect(struct model *m, bool holds, const char *what)
{
    if (!holds)
        die(m, what);
}
#define EXPECT(m, e) expect(m, e, #e)

static uint64_t below(struct model *m, uint64_t n)
{
    return rng_below(&m->rng, n);
}

/* ---- the model's own ---- */

static void model_add(struct model *m, struct slice bytes)
{
    if (m->n == m->room) {
        m->room = m->room ? m->room * 2 : 1024;
        m->v = realloc(m->v, m->room * sizeof *m->v);
    }
    struct model_batch *b = &m->v[m->n++];
    EXPECT(m, batch_read(bytes, &b->h, NULL) == 0);
    b->n = bytes.n;
    b->bytes = malloc(bytes.n);
    memcpy(b->bytes, bytes.p, bytes.n);
    if (b->h.leader_epoch > m->epoch || m->epochs_n == 0) {
        m->epoch = b->h.leader_epoch;
        while (m->epochs_n && m->epochs[m->epochs_n - 1].start >= b->h.base_offset)
            m->epochs_n--;
        m->epochs[m->epochs_n].epoch = m->epoch;
        m->epochs[m->epochs_n++].start = b->h.base_offset;
    }
    m->end = batch_last_offset(&b->h) + 1;
}

static void model_start(struct model *m, int64_t start)
{
    if (start <= m->start)
        return;
    m->start = start;
    unsigned gone = 0;
    while (gone + 1 < m->epochs_n && m->epochs[gone + 1].start <= start)
        gone++;
    memmove(m->epochs, m->epochs + gone, (m->epochs_n - gone) * sizeof *m->epochs);
    m->epochs_n -= gone;
    if (m->epochs_n && m->epochs[0].start < start)
        m->epochs[0].start = start;
}

/* The first batch that ends at or after `offset`. */
static size_t model_at(const struct model *m, int64_t offset)
{
    size_t low = 0, high = m->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (batch_last_offset(&m->v[middle].h) < offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void producers_forget_old(struct model *m, bool only_last)
{
    for (unsigned i = 0; i < PRODUCERS; i++) {
        struct model_producer *p = &m->producers[i];
        if (only_last && p->known > 1) {
            p->first[0] = p->first[p->known - 1];
            p->last[0] = p->last[p->known - 1];
            p->base[0] = p->base[p->known - 1];
            p->known = 1;
        }
    }
}

/* After a truncation: from the batches that are left. */
static void producers_rebuild(struct model *m)
{
    memset(m->producers, 0, sizeof m->producers);
    for (size_t i = 0; i < m->n; i++) {
        const struct batch_header *h = &m->v[i].h;
        if (!batch_has_producer(h))
            continue;
        struct model_producer *p = &m->producers[h->producer_id - 1];
        p->any = true;
        p->epoch = h->producer_epoch;
        p->next = batch_sequence_add(batch_last_sequence(h), 1);
        p->known = 1;
        p->first[0] = h->base_sequence;
        p->last[0] = batch_last_sequence(h);
        p->base[0] = h->base_offset;
    }
}

/* ---- operations ---- */

static struct rig_batch random_batch(struct model *m)
{
    m->now += (int64_t)below(m, 5);
    return (struct rig_batch){
        .records = 1 + (int32_t)below(m, 4),
        .value_bytes = (int32_t)below(m, below(m, 10) ? 80 : 800),
        .timestamp = below(m, 8) ? m->now : m->now - (int64_t)below(m, 50),
        .codec = below(m, 4) ? CODEC_NONE : (enum codec)below(m, CODEC_COUNT),
        .tag = m->tag++,
        .epoch = m->epoch + (below(m, 60) == 0),
    };
}

static void op_append(struct model *m)
{
    unsigned n = 1 + (unsigned)below(m, below(m, 5) ? 2 : 12);
    struct buf bytes[12];
    struct log_batch v[12];
    int32_t epoch = m->epoch + (below(m, 60) == 0);
    for (unsigned i = 0; i < n; i++) {
        struct rig_batch b = random_batch(m);
        buf_init(&bytes[i], 1 << 20);
        rig_batch_put(&bytes[i], &b);
        v[i] = (struct log_batch){.bytes = bytes[i].p, .size_bytes = bytes[i].n};
    }
    struct log_append_options o = {.leader_epoch = epoch, .wall_ms = m->rig.wall_ms};
    EXPECT(m, log_append(m->rig.l, v, n, &o, &m->rig.err) == 0);
    for (unsigned i = 0; i < n; i++) {
        EXPECT(m, v[i].error == KE_NONE && v[i].base_offset == m->end);
        model_add(m, buf_slice(&bytes[i]));
        EXPECT(m, v[i].last_offset == m->end - 1);
        buf_fini(&bytes[i]);
    }
}

static void producer_note(struct model_producer *p, const struct rig_batch *b, int64_t base)
{
    if (p->epoch != b->producer_epoch)
        p->known = 0;
    if (p->known == 5) {
        memmove(p->first, p->first + 1, 4 * sizeof *p->first);
        memmove(p->last, p->last + 1, 4 * sizeof *p->last);
        memmove(p->base, p->base + 1, 4 * sizeof *p->base);
        p->known--;
    }
    p->first[p->known] = b->sequence;
    p->last[p->known] = batch_sequence_add(b->sequence, b->records - 1);
    p->base[p->known++] = base;
    p->epoch = b->producer_epoch;
    p->next = batch_sequence_add(b->sequence, b->records);
    p->any = true;
}

static void append_idempotent(struct model *m, struct rig_batch *b, int16_t error, int64_t duplicate_of)
{
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    rig_batch_put(&bytes, b);
    struct log_batch v = {.bytes = bytes.p, .size_bytes = bytes.n};
    struct log_append_options o = {.leader_epoch = b->epoch, .wall_ms = m->rig.wall_ms};
    EXPECT(m, log_append(m->rig.l, &v, 1, &o, &m->rig.err) == 0);
    EXPECT(m, v.error == error);
    EXPECT(m, v.duplicate == (duplicate_of >= 0));
    if (v.duplicate) {
        EXPECT(m, v.base_offset == duplicate_of && v.last_offset == duplicate_of + b->records - 1);
    } else if (!error) {
        EXPECT(m, v.base_offset == m->end);
        model_add(m, buf_slice(&bytes));
        producer_note(&m->producers[b->producer_id - 1], b, v.base_offset);
    }
    buf_fini(&bytes);
}

static void op_idempotent(struct model *m)
{
    struct rig_batch b = random_batch(m);
    unsigned id = (unsigned)below(m, PRODUCERS);
    struct model_producer *p = &m->producers[id];
    b.producer_id = id + 1;
    b.producer_epoch = p->epoch;
    b.sequence = p->any ? p->next : INT32_MAX - 20 + (int32_t)below(m, 20);
    switch (p->any ? below(m, 8) : 7) {
    case 0: /* again one that must be known */
        if (p->known) {
            unsigned which = (unsigned)below(m, p->known);
            b.sequence = p->first[which];
            b.records = (int32_t)(((int64_t)p->last[which] - p->first[which]) & INT32_MAX) + 1;
            append_idempotent(m, &b, KE_NONE, p->base[which]);
        }
        break;
    case 1: /* a gap */
        b.sequence = batch_sequence_add(p->next, 1 + (int32_t)below(m, 100));
        append_idempotent(m, &b, KE_OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
        break;
    case 2: /* a new epoch, in the wrong and in the right way */
        if (p->epoch > 20000)
            break;
        b.producer_epoch++;
        b.sequence = 1 + (int32_t)below(m, 5);
        append_idempotent(m, &b, KE_OUT_OF_ORDER_SEQUENCE_NUMBER, -1);
        b.sequence = 0;
        append_idempotent(m, &b, KE_NONE, -1);
        break;
    case 3:
        if (p->epoch > 0) {
            b.producer_epoch--;
            append_idempotent(m, &b, KE_INVALID_PRODUCER_EPOCH, -1);
        }
        break;
    default: append_idempotent(m, &b, KE_NONE, -1); break;
    }
}

static void op_as_is(struct model *m)
{
    struct buf bytes;
    buf_init(&bytes, 1 << 20);
    int64_t offset = m->end;
    size_t ends[8], n = 1 + below(m, 4);
    for (size_t i = 0; i < n; i++) {
        struct rig_batch b = random_batch(m);
        b.offset = offset;
        b.epoch = m->epoch;
        rig_batch_put(&bytes, &b);
        offset += b.records;
        ends[i] = bytes.n;
    }
    EXPECT(m, log_append_as_is(m->rig.l, buf_slice(&bytes), m->rig.wall_ms, &m->rig.err) == 0);
    for (size_t i = 0, from = 0; i < n; from = ends[i++])
        model_add(m, slice_of(bytes.p + from, ends[i] - from));
    EXPECT(m, m->end == offset);
    buf_fini(&bytes);
}

static void op_read(struct model *m)
{
    if (m->end == m->start)
        return;
    int64_t offset = m->start + (int64_t)below(m, (uint64_t)(m->end - m->start));
    size_t at = model_at(m, offset), max = 1 + below(m, 6000);
    int64_t limit = below(m, 2) ? m->end : offset + (int64_t)below(m, 60);
    struct log_slice s;
    enum log_read how = below(m, 2) ? LOG_READ_AT_LEAST_ONE : LOG_READ_WITHIN;
    EXPECT(m, log_read(m->rig.l, offset, limit, max, how, &s, &m->rig.err) == 0);
    struct buf got;
    buf_init(&got, 1 << 24);
    EXPECT(m, log_slice_load(&s, &got) == 0);
    size_t done = 0;
    int64_t next = offset;
    for (; done < got.n; at++) {
        const struct model_batch *b = &m->v[at];
        EXPECT(m, at < m->n && b->n <= got.n - done && memcmp(b->bytes, got.p + done, b->n) == 0);
        EXPECT(m, done > 0 || b->h.base_offset == s.first_offset);
        done += b->n;
        next = batch_last_offset(&b->h) + 1;
        EXPECT(m, next <= limit && next <= m->end);
    }
    EXPECT(m, s.next_offset == next);
    EXPECT(m, got.n <= max || (how == LOG_READ_AT_LEAST_ONE && at > 0 && m->v[at - 1].n == got.n));
    /* What was not given did not fit, or begins another segment. */
    if (got.n == 0) {
        const struct model_batch *b = &m->v[at];
        EXPECT(m, batch_last_offset(&b->h) >= limit || (how == LOG_READ_WITHIN && b->n > max));
    }
    buf_fini(&got);
    log_slice_drop(&s);
}

static void op_read_all(struct model *m)
{
    struct buf got;
    buf_init(&got, (size_t)1 << 30);
    EXPECT(m, rig_read(&m->rig, m->start, m->end, &got) == 0);
    size_t done = 0;
    for (size_t at = model_at(m, m->start); at < m->n; at++) {
        EXPECT(m, done + m->v[at].n <= got.n && memcmp(got.p + done, m->v[at].bytes, m->v[at].n) == 0);
        done += m->v[at].n;
    }
    EXPECT(m, done == got.n);
    buf_fini(&got);
}

static void op_time(struct model *m)
{
    int64_t time = m->now - (int64_t)below(m, 400), found = -1, found_time = -1;
    for (size_t at = model_at(m, m->start); at < m->n && found < 0; at++) {
        const struct batch_header *h = &m->v[at].h;
        for (int32_t i = 0; i <= h->last_offset_delta && found < 0; i++)
            if (h->base_offset + i >= m->start && h->base_timestamp + i >= time) {
                found = h->base_offset + i;
                found_time = h->base_timestamp + i;
            }
    }
    struct log_time_offset t;
    EXPECT(m, log_find_time(m->rig.l, time, m->end, &t, &m->rig.err) == 0);
    EXPECT(m, t.offset == found && t.timestamp_ms == found_time);
}

static void op_epoch(struct model *m)
{
    if (m->epochs_n == 0)
        return;
    int32_t latest = m->epochs[m->epochs_n - 1].epoch, asked = latest - (int32_t)below(m, 6);
    struct log_epoch_end want = {-1, -1}, got = log_epoch_end(m->rig.l, asked);
    if (asked < 0)
        return;
    if (asked == latest) {
        want = (struct log_epoch_end){latest, m->end};
    } else if (asked < m->epochs[0].epoch) {
        want = (struct log_epoch_end){asked, m->epochs[0].start};
    } else {
        for (unsigned i = 0; i + 1 < m->epochs_n; i++)
            if (m->epochs[i].epoch <= asked && asked < m->epochs[i + 1].epoch)
                want = (struct log_epoch_end){m->epochs[i].epoch, m->epochs[i + 1].start};
    }
    EXPECT(m, got.epoch == want.epoch && got.end_offset == want.end_offset);
    EXPECT(m, log_epoch_end(m->rig.l, latest + 1).epoch == -1);
}

static void op_truncate(struct model *m)
{
    if (m->end == m->start || below(m, 4))
        return;
    uint64_t most = below(m, 10) ? 20 : 400, all = (uint64_t)(m->end - m->start);
    int64_t offset = m->end - (int64_t)below(m, (most < all ? most : all) + 1);
    EXPECT(m, log_truncate(m->rig.l, offset, m->rig.wall_ms, &m->rig.err) == 0);
    while (m->n && batch_last_offset(&m->v[m->n - 1].h) >= offset)
        free(m->v[--m->n].bytes);
    m->end = m->n ? batch_last_offset(&m->v[m->n - 1].h) + 1 : log_end_offset(m->rig.l);
    EXPECT(m, log_end_offset(m->rig.l) == m->end);
    while (m->epochs_n && m->epochs[m->epochs_n - 1].start >= m->end)
        m->epochs_n--;
    m->epoch = m->epochs_n ? m->epochs[m->epochs_n - 1].epoch : 0;
    m->start = m->start < m->end ? m->start : m->end;
    m->durable = m->durable < m->end ? m->durable : m->end;
    producers_rebuild(m);
}

static void op_retain(struct model *m)
{
    struct log_retained gone;
    m->rig.config.retention_bytes = below(m, 3) ? -1 : 30000 + (int64_t)below(m, 60000);
    log_configure(m->rig.l, &m->rig.config);
    if (below(m, 3) == 0 && m->end > m->start) {
        int64_t to = m->start + (int64_t)below(m, (uint64_t)(m->end - m->start) / 8 + 1);
        EXPECT(m, log_set_start(m->rig.l, to) == 0);
        model_start(m, to);
    }
    int64_t limit = m->start + (int64_t)below(m, (uint64_t)(m->end - m->start) + 1);
    EXPECT(m, log_retain(m->rig.l, m->rig.wall_ms, limit, &gone, &m->rig.err) == 0);
    EXPECT(m, log_start_offset(m->rig.l) <= limit || gone.segments == 0);
    model_start(m, log_start_offset(m->rig.l));
    m->rig.wall_ms += 20000;
    (void)log_sweep(m->rig.l, m->rig.wall_ms);
}

static void op_flush(struct model *m)
{
    rig_flush(&m->rig, below(m, 3) ? LOG_FLUSH_DATA : LOG_FLUSH_CHECKPOINT);
    m->durable = m->end;
    EXPECT(m, log_durable_offset(m->rig.l) == m->end);
}

static void op_restart(struct model *m)
{
    int64_t point = log_recovery_point(m->rig.l), start = log_start_offset(m->rig.l);
    bool clean = below(m, 2);
    if (clean) {
        rig_reopen(&m->rig);
    } else {
        log_abandon(m->rig.l);
        struct log_open_options o = {.files = m->rig.files,
                                     .wall_ms = m->rig.wall_ms,
                                     .recovery_point = below(m, 2) ? point : 0,
                                     .start_offset = start};
        EXPECT(m, log_open(m->rig.disk, m->rig.dir, &m->rig.config, &o, &m->rig.l, &m->rig.err) == 0);
        EXPECT(m, log_recovery(m->rig.l)->bytes_cut == 0);
    }
    producers_forget_old(m, true);
}

static void op_check(struct model *m)
{
    EXPECT(m, log_start_offset(m->rig.l) == m->start);
    EXPECT(m, log_end_offset(m->rig.l) == m->end);
    EXPECT(m, log_epoch_at(m->rig.l, m->end) == (m->epochs_n ? m->epoch : -1));
    EXPECT(m, !log_fenced(m->rig.l));
}

static void run_model(struct disk *disk, const char *root, uint64_t seed, int64_t ops)
{
    struct model *m = calloc(1, sizeof *m);
    rig_init(&m->rig, disk, root);
    rng_init(&m->rng, seed);
    m->seed = seed;
    m->now = 1000;
    m->rig.config.segment_bytes = 4000 + (int32_t)below(m, 8000);
    m->rig.config.index_interval_bytes = (int32_t)below(m, 800);
    if (seed % 3 == 0)
        m->rig.config.segment_index_bytes = 12 * 8;
    EXPECT(m, rig_open(&m->rig, false, 0) == 0);
    for (m->op = 0; m->op < ops; m->op++) {
        uint64_t r = below(m, 1000);
        m->rig.wall_ms += (int64_t)below(m, 3);
        if (r < 300)
            op_append(m);
        else if (r < 450)
            op_idempotent(m);
        else if (r < 480)
            op_as_is(m);
        else if (r < 780)
            op_read(m);
        else if (r < 820)
            op_time(m);
        else if (r < 860)
            op_epoch(m);
        else if (r < 940)
            op_flush(m);
        else if (r < 960)
            EXPECT(m, log_roll(m->rig.l, m->rig.wall_ms, &m->rig.err) == 0);
        else if (r < 970)
            op_truncate(m);
        else if (r < 985)
            op_retain(m);
        else if (r < 996)
            op_restart(m);
        else
            op_read_all(m);
        op_check(m);
    }
    op_read_all(m);
    rig_fini(&m->rig);
    for (size_t i = 0; i < m->n; i++)
        free(m->v[i].bytes);
    free(m->v);
    free(m);
}

static void in_memory(uint64_t seed, int64_t ops)
{
    struct crash_disk *d = crash_disk_create();
    run_model(crash_disk_disk(d), "/logs", seed, ops);
    crash_disk_destroy(d);
}

Test(model, random_operations_1, .timeout = 280)
{
    for (uint64_t seed = 1; seed <= 10; seed++)
        in_memory(seed, 3000);
}

Test(model, random_operations_2, .timeout = 280)
{
    for (uint64_t seed = 11; seed <= 20; seed++)
        in_memory(seed, 3000);
}

Test(model, random_operations_3, .timeout = 280)
{
    for (uint64_t seed = 21; seed <= 30; seed++)
        in_memory(seed, 3000);
}

/* A real file system, whose syncs prove nothing here (nobody cuts its power) and cost most of the time: one of
 * SYNC_EACH reaches it. What syncs are worth is shown in memory: test_crash.c, test_faults.c. */
#define SYNC_EACH 16

static struct {
    struct disk_ops ops;
    const struct disk_ops *real;
    unsigned syncs;
} sparing;

static int spared_fdatasync(struct disk_file *f)
{
    return sparing.syncs++ % SYNC_EACH ? 0 : sparing.real->fdatasync(f);
}

static int spared_sync_dir(struct disk *d, const char *path)
{
    return sparing.syncs++ % SYNC_EACH ? 0 : sparing.real->sync_dir(d, path);
}

Test(model, random_operations_on_a_real_disk, .timeout = 280)
{
    struct disk *d = disk_posix_create();
    sparing.real = d->ops;
    sparing.ops = *d->ops;
    sparing.ops.fdatasync = spared_fdatasync;
    sparing.ops.sync_dir = spared_sync_dir;
    d->ops = &sparing.ops;
    char root[] = "/tmp/sundog-model-XXXXXX";
    cr_assert(mkdtemp(root));
    for (uint64_t seed = 31; seed <= 33; seed++) {
        char dir[64];
        snprintf(dir, sizeof dir, "%s/%d", root, (int)seed);
        run_model(d, dir, seed, 1500);
    }
    cr_assert_gt(sparing.syncs, 3 * SYNC_EACH);
    cr_assert_eq(disk_remove_tree(d, root), 0);
    d->ops = sparing.real;
    disk_posix_destroy(d);
}

/* SUNDOG_SEEDS=from-to: a longer search. */
Test(model, seeds_of_the_environment, .timeout = 3600)
{
    const char *range = getenv("SUNDOG_SEEDS");
    unsigned long long from = 1, to = 0;
    if (range && sscanf(range, "%llu-%llu", &from, &to) != 2)
        cr_assert_fail("SUNDOG_SEEDS=from-to");
    for (uint64_t seed = from; seed <= to; seed++)
        in_memory(seed, 3000);
}
