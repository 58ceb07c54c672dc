/* Whole batches: what passes as it lies, what is packed anew and how, what is not believed. */
#include "base/core/bytes.h"
#include "tests/unit/mirror/target/rig.h"

static struct rig r;
static struct buf batch;

/* A lane that appends, and nothing else to do. */
static void up(void)
{
    rig_init(&r, 1, 1, 1);
    r.batch_max = 1 << 20;
    rig_start(&r, 0);
    cr_assert(rig_finish(&r, 60 * SEC));
    buf_init(&batch, 16 << 20);
}

static void down(void)
{
    buf_fini(&batch);
    rig_fini(&r);
}

TestSuite(whole, .init = up, .fini = down);

/* `n` records from `base` on, each `step` offsets behind the one before. */
static struct batch_header make(const struct batch_options *o, int n, int step, size_t value_bytes)
{
    struct batch_builder b;
    struct batch_header h;
    char key[16], value[4096];
    buf_clear(&batch);
    batch_begin(&b, &batch, o);
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof key, "k%d", i);
        memset(value, 'a' + i % 26, sizeof value);
        struct record_header header = {SLICE_LIT("h"), slice_str(key)};
        const struct record_new rec = {.timestamp = wall(&r) - 1000 + i,
                                       .key = i % 3 ? slice_str(key) : SLICE_NULL,
                                       .value = i % 5 ? slice_of(value, value_bytes) : SLICE_NULL,
                                       .headers = &header,
                                       .headers_n = i % 2};
        cr_assert_eq(batch_add_at(&b, i * step, &rec), 0);
    }
    cr_assert_eq(batch_close(&b, &h), 0);
    return h;
}

static struct batch_options options(enum codec codec, int64_t base)
{
    struct batch_options o = BATCH_OPTIONS;
    o.codec = codec;
    o.base_offset = base;
    o.leader_epoch = 7;
    o.producer_id = 99;
    o.producer_epoch = 5;
    o.base_sequence = 1234;
    return o;
}

static int take(int64_t from, int64_t *next)
{
    *next = from;
    int rc = group_take_batch(&r.m[0].g, 0, &(struct port_batch){.bytes = buf_slice(&batch)}, next);
    if (!rc) {
        struct batch_header h;
        cr_assert_eq(batch_header_read(buf_slice(&batch), &h, NULL), 0);
        group_covered(&r.m[0].g, batch_last_offset(&h) + 1, 7);
    }
    return rc;
}

static void takes(int64_t from)
{
    int64_t next;
    cr_assert_eq(take(from, &next), 0);
}

static const struct target_batch *arrived(size_t n)
{
    rig_run(&r, 10 * SEC);
    cr_assert_eq(rig_status(&r, 0)->state, APPENDER_APPENDING, "%s", rig_status(&r, 0)->text);
    cr_assert_eq(r.t[0].log_n, n, "%zu batches", r.t[0].log_n);
    return &r.t[0].log[n - 1];
}

static bool same_record(const struct record *a, const struct record *b)
{
    return slice_eq(a->key, b->key) && slice_eq(a->value, b->value) && a->headers_n == b->headers_n &&
           slice_is_null(a->key) == slice_is_null(b->key) &&
           slice_is_null(a->value) == slice_is_null(b->value) && a->headers.n == b->headers.n &&
           memcmp(a->headers.p, b->headers.p, a->headers.n) == 0 && a->timestamp == b->timestamp;
}

/* The records of what arrived are those of the source's batch from its record `skip` on. */
static void same_records(const struct target_batch *t, int skip)
{
    struct codec_limits limits = codec_limits_for(CODEC_BYTES_MAX_DEFAULT);
    struct buf one, other;
    struct slice a, b;
    struct record_walk wa, wb;
    struct record ra, rb;
    struct batch_header h;
    int n = 0;
    buf_init(&one, 16 << 20);
    buf_init(&other, 16 << 20);
    cr_assert_eq(batch_read(buf_slice(&batch), &h, NULL), 0);
    cr_assert_eq(batch_payload(&h, buf_slice(&batch), &limits, &one, &a, NULL), 0);
    cr_assert_eq(batch_payload(&t->h, slice_of(t->bytes, t->size), &limits, &other, &b, NULL), 0);
    record_walk_init(&wa, &h, a);
    record_walk_init(&wb, &t->h, b);
    while (skip-- > 0)
        cr_assert_eq(record_next(&wa, &ra), 1);
    while (record_next(&wa, &ra) == 1) {
        cr_assert_eq(record_next(&wb, &rb), 1);
        cr_assert(same_record(&ra, &rb), "record %d", n);
        n++;
    }
    cr_assert_eq(record_next(&wb, &rb), 0);
    buf_fini(&one);
    buf_fini(&other);
}

Test(whole, passes_as_it_lies)
{
    int64_t base = 100;
    for (int codec = 0; codec < CODEC_COUNT; codec++) {
        struct batch_options o = options((enum codec)codec, base);
        o.attributes = codec % 2 ? BATCH_TRANSACTIONAL : 0;
        o.delete_horizon = codec % 3 ? wall(&r) : BATCH_NO_TIMESTAMP;
        struct batch_header h = make(&o, 200, 1, 50);
        takes(base);
        const struct target_batch *t = arrived((size_t)codec + 1);
        cr_assert_eq(t->size, batch.n);
        cr_assert_eq(
            memcmp(t->bytes + BATCH_HEADER_BYTES, batch.p + BATCH_HEADER_BYTES, batch.n - BATCH_HEADER_BYTES),
            0);
        cr_assert_eq(t->h.attributes, codec, "neither transactional nor with a delete horizon");
        cr_assert_eq(t->h.producer_id, RIG_PID);
        cr_assert_eq(t->h.producer_epoch, 0);
        cr_assert_eq(t->h.base_sequence, codec * 200);
        cr_assert_eq(t->h.max_timestamp, h.max_timestamp);
        cr_assert_eq(batch_read(slice_of(t->bytes, t->size), &h, NULL), 0);
        same_records(t, 0);
        cr_assert_eq(r.runs[r.runs_n - 1].src_start, base);
        cr_assert_eq(r.runs[r.runs_n - 1].dst_start, codec * 200);
        cr_assert_eq(r.runs[r.runs_n - 1].count, 200);
        base += 200 + 3; /* markers between */
    }
}

Test(whole, gaps_are_packed_anew_in_their_codec)
{
    for (int codec = 0; codec < CODEC_COUNT; codec++) {
        struct batch_options o = options((enum codec)codec, 100 + codec * 1000);
        struct batch_header h = make(&o, 100, 3, 500);
        cr_assert_neq(h.records_n, h.last_offset_delta + 1);
        takes(o.base_offset);
        const struct target_batch *t = arrived((size_t)codec + 1);
        cr_assert_eq(batch_codec(&t->h), codec);
        cr_assert_eq(t->h.last_offset_delta, 99);
        same_records(t, 0);
    }
    cr_assert_eq(r.runs_n, 500, "each record is a run of its own");
    cr_assert_eq(r.runs[7].src_start, 121);
    cr_assert_eq(r.runs[7].dst_start, 7);
}

Test(whole, the_sources_append_time_becomes_the_records_own)
{
    struct batch_options o = options(CODEC_LZ4, 100);
    make(&o, 50, 1, 100);
    batch_log_append_time_set(batch.p, batch.n, wall(&r) - 5);
    takes(100);
    const struct target_batch *t = arrived(1);
    cr_assert_not(batch_is(&t->h, BATCH_LOG_APPEND_TIME));
    cr_assert_eq(batch_codec(&t->h), CODEC_LZ4);
    same_records(t, 0);
}

Test(whole, begins_where_it_was_left)
{
    struct batch_options o = options(CODEC_ZSTD, 90); /* the lane has all below 100 */
    make(&o, 50, 1, 100);
    takes(100);
    same_records(arrived(1), 10);
    o.base_offset = 130; /* and all below 140 */
    make(&o, 20, 1, 100);
    takes(130);
    same_records(arrived(2), 10);
    o.base_offset = 120; /* and all of this */
    make(&o, 20, 1, 100);
    takes(120);
    arrived(2);
}

Test(whole, another_codec_where_the_options_name_one)
{
    rig_save(&r, 0);
    rig_kill(&r, 0);
    r.codec = CODEC_GZIP;
    rig_start(&r, 0);
    cr_assert(rig_finish(&r, 60 * SEC));
    struct batch_options o = options(CODEC_LZ4, 100);
    make(&o, 50, 1, 100);
    takes(100);
    const struct target_batch *t = arrived(1);
    cr_assert_eq(batch_codec(&t->h), CODEC_GZIP);
    same_records(t, 0);
    o = options(CODEC_GZIP, 150);
    make(&o, 50, 1, 100);
    takes(150);
    cr_assert_eq(arrived(2)->size, batch.n, "in that codec already");
}

Test(whole, small_ones_that_queue_go_together)
{
    for (int i = 0; i < 100; i++) {
        struct batch_options o = options(CODEC_NONE, 100 + i * 10);
        make(&o, 10, 1, 100);
        takes(o.base_offset);
    }
    rig_run(&r, 10 * SEC);
    cr_assert_eq(r.t[0].end, 1000);
    cr_assert_lt(r.t[0].log_n, 10);
    cr_assert_eq(r.runs_n, 2, "one run, told at each acknowledgement: %zu", r.runs_n);
}

Test(whole, small_and_large_keep_their_order)
{
    int64_t at = 100;
    for (int i = 0; i < 60; i++) {
        int n = i % 3 == 0 ? 50 : 2;
        struct batch_options o = options(i % 2 ? CODEC_LZ4 : CODEC_NONE, at);
        make(&o, n, i % 7 == 3 ? 2 : 1, 1000);
        takes(at);
        struct batch_header h;
        cr_assert_eq(batch_header_read(buf_slice(&batch), &h, NULL), 0);
        at = batch_last_offset(&h) + 1;
    }
    rig_run(&r, 10 * SEC);
    cr_assert_eq(r.t[0].end, 20 * 50 + 40 * 2);
    int64_t next = 0;
    for (size_t i = 0; i < r.t[0].log_n; i++) {
        cr_assert_eq(r.t[0].log[i].h.base_sequence, next);
        next += r.t[0].log[i].h.records_n;
    }
    cr_assert_eq(rig_status(&r, 0)->state, APPENDER_APPENDING);
}

Test(whole, what_the_target_finds_too_large_is_not_tried_again)
{
    r.t[0].batch_bytes_max = 20000;
    for (int i = 0; i < 10; i++) {
        struct batch_options o = options(CODEC_NONE, 100 + i * 30);
        make(&o, 30, 1, 1000);
        takes(o.base_offset);
        rig_run(&r, SEC);
    }
    rig_run(&r, 10 * SEC);
    cr_assert_eq(r.t[0].end, 300);
    cr_assert_eq(r.m[0].notes[APPENDER_SPLIT], 1, "split once, packed within the limit from then on");
    for (size_t i = 0; i < r.t[0].log_n; i++)
        cr_assert_leq(r.t[0].log[i].size, 20000);
}

Test(whole, halves_keep_their_codec)
{
    struct batch_options o = options(CODEC_GZIP, 100);
    make(&o, 400, 1, 1000);
    r.t[0].batch_bytes_max = batch.n - 1;
    takes(100);
    rig_run(&r, 10 * SEC);
    cr_assert_eq(r.t[0].end, 400);
    cr_assert_gt(r.t[0].log_n, 1);
    for (size_t i = 0; i < r.t[0].log_n; i++)
        cr_assert_eq(batch_codec(&r.t[0].log[i].h), CODEC_GZIP);
}

/* Its CRC is right, and its records cannot be read: nothing of it is taken, what came before goes on. */
Test(whole, records_that_cannot_be_read_are_not_taken)
{
    struct batch_options o = options(CODEC_LZ4, 100);
    int64_t next;
    make(&o, 50, 1, 100);
    takes(100);
    o.base_offset = 150;
    make(&o, 50, 2, 100);
    memset(batch.p + BATCH_HEADER_BYTES + 20, 0xff, 40);
    be32_put(batch.p + BATCH_CRC_AT, batch_crc(buf_slice(&batch)));
    cr_assert_eq(take(150, &next), -E_CORRUPT);
    cr_assert_eq(next, 150);
    o.codec = CODEC_NONE;
    make(&o, 50, 2, 100);
    batch.p[batch.n - 4] = 0x7e; /* the last header's value is longer than there is */
    be32_put(batch.p + BATCH_CRC_AT, batch_crc(buf_slice(&batch)));
    cr_assert_eq(take(150, &next), -E_CORRUPT);
    cr_assert_eq(next, 150 + 48 * 2 + 1, "all but the last: from there it is read again");
    rig_run(&r, 10 * SEC);
    cr_assert_eq(r.t[0].end, 50 + 49);
}

Test(whole, what_is_no_batch_is_not_taken)
{
    int64_t next;
    struct batch_options o = options(CODEC_NONE, 100);
    buf_put(&batch, "too short", 9);
    cr_assert_eq(take(100, &next), -E_TRUNCATED);
    make(&o, 5, 1, 10);
    batch.n--;
    cr_assert_eq(take(100, &next), -E_CORRUPT);
    o.attributes = BATCH_CONTROL | BATCH_TRANSACTIONAL;
    make(&o, 1, 1, 10);
    cr_assert_eq(take(100, &next), -E_CORRUPT, "a marker is no record");
    cr_assert_eq(group_take_batch(&r.m[0].g, 3, &(struct port_batch){.bytes = buf_slice(&batch)}, &next),
                 -E_NOTFOUND);
}

static struct {
    bool full;
    int asked, kept;
} answer;

static bool keep(void *of)
{
    cr_assert_eq(of, &answer);
    answer.asked++;
    answer.kept += !answer.full;
    return !answer.full;
}

static void let_go(void *of)
{
    cr_assert_eq(of, &answer);
    answer.kept--;
}

static void take_from_answer(int64_t base)
{
    static const struct port_memory memory = {keep, let_go};
    struct batch_options o = options(CODEC_NONE, base);
    int64_t next = base;
    make(&o, 20, 1, 1000);
    const struct port_batch b = {.bytes = buf_slice(&batch), .memory = &memory, .of = &answer};
    cr_assert_eq(group_take_batch(&r.m[0].g, 0, &b, &next), 0);
    group_covered(&r.m[0].g, base + 20, 7);
}

Test(whole, stays_where_the_answer_put_it)
{
    take_from_answer(100);
    struct lane *l = &r.m[0].g.lanes[0];
    cr_assert_eq(answer.kept, 1);
    cr_assert_eq((const void *)lane_batch_bytes(lane_head(l)).p, (const void *)batch.p, "no copy");
    cr_assert_geq(l->c.budget->used_bytes, batch.n, "and yet under the bound");
    same_records(arrived(1), 0);
    cr_assert_eq(answer.kept, 0, "acknowledged");
    answer.full = true;
    take_from_answer(120);
    cr_assert_eq(answer.asked, 2);
    cr_assert_neq((const void *)lane_batch_bytes(lane_head(l)).p, (const void *)batch.p);
    same_records(arrived(2), 0);
    answer.full = false;
    take_from_answer(140);
    cr_assert_eq(answer.kept, 1);
    lane_gone(l, APPENDER_REASON_TARGET_GONE, "gone");
    rig_run(&r, 10 * SEC);
    cr_assert_eq(answer.kept, 0, "dropped");
}

Test(whole, a_target_that_answers_at_once_needs_a_small_part_of_the_budget)
{
    const size_t mib = (size_t)1 << 20;
    struct appender_budget *b = appender_budget_create(48 * mib);
    cr_assert_eq(b->usual_bytes, 2 * mib);
    for (int i = 0; i < 3; i++) {
        b->used_bytes = b->usual_bytes;
        b->acked_bytes = 100 * mib;
        appender_budget_pace(b);
    }
    cr_assert_eq(b->usual_bytes, 2 * mib, "full, but nothing waits long");
    for (int i = 0; i < 10; i++) {
        b->used_bytes = b->usual_bytes;
        b->acked_bytes = 20 * mib;
        appender_budget_pace(b);
    }
    cr_assert_eq(b->usual_bytes, 48 * mib, "a long way, or somebody who does not answer");
    appender_budget_limit(b, 12 * mib);
    cr_assert_not(budget_room(b), "less than is held");
    b->used_bytes = 0;
    for (int i = 0; i < 5; i++)
        appender_budget_pace(b);
    cr_assert_eq(b->usual_bytes, 2 * mib);
    appender_budget_limit(b, mib);
    cr_assert_eq(b->usual_bytes, mib, "all of a small one");
    appender_budget_destroy(b);
}

/* What the rest needs in one turn of appending: `n` batches of `bytes`, all at once. */
static void use_batches(struct appender_budget *b, int n, size_t bytes)
{
    struct lane_batch *taken[16];
    static const uint8_t zeros[300000];
    cr_assert(n <= 16 && bytes <= sizeof zeros);
    for (int i = 0; i < n; i++) {
        taken[i] = lane_batch_take(b);
        cr_assert_not_null(taken[i]);
        buf_put(&taken[i]->bytes, zeros, bytes);
    }
    while (n > 0)
        lane_batch_give(b, taken[--n]);
}

Test(whole, buffers_that_a_smaller_load_does_not_need_are_freed)
{
    struct appender_budget *b = appender_budget_create((size_t)64 << 20);
    use_batches(b, 12, 300000);
    size_t high = b->spare_bytes;
    cr_assert_geq(high, 12 * 300000, "kept for the next");
    appender_budget_rest(b);
    use_batches(b, 12, 300000);
    cr_assert_eq(b->spare_bytes, high, "all of them have been in use since");
    appender_budget_rest(b);
    cr_assert_eq(b->spare_bytes, high);
    use_batches(b, 2, 300000);
    use_batches(b, 2, 1000);
    appender_budget_rest(b);
    cr_assert_eq(b->spare_bytes, high / 6, "two of twelve were in use");
    use_batches(b, 3, 300000);
    cr_assert_eq(b->spare_bytes, high / 4);
    appender_budget_rest(b);
    cr_assert_eq(b->spare_bytes, high / 4, "one has been made since");
    appender_budget_rest(b);
    cr_assert_eq(b->spare_bytes, 0, "nothing has been in use");
    appender_budget_destroy(b);
}
