/* Appending, reading, rolling, reopening. */
#include "proto/kafka/errors.h"
#include "tests/support/log/crash_disk.h"
#include "tests/support/log/log_rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct crash_disk *cd;
static struct log_rig rig;

static void setup(void)
{
    cd = crash_disk_create();
    rig_init(&rig, crash_disk_disk(cd), "/logs");
    cr_assert_eq(rig_open(&rig, false, 0), 0, "%s", rig.err.text);
}

static void teardown(void)
{
    rig_fini(&rig);
    crash_disk_destroy(cd);
}

TestSuite(log, .init = setup, .fini = teardown);

static void expect_offsets(int64_t start, int64_t end)
{
    cr_expect_eq(log_start_offset(rig.l), start);
    cr_expect_eq(log_end_offset(rig.l), end);
}

Test(log, appends_get_offsets_and_epoch_in_order)
{
    struct log_batch a = rig_append(&rig, &(struct rig_batch){.records = 3, .epoch = 4, .tag = 1});
    struct log_batch b = rig_append(&rig, &(struct rig_batch){.records = 2, .epoch = 5, .tag = 2});
    cr_assert_eq(a.base_offset, 0);
    cr_assert_eq(a.last_offset, 2);
    cr_assert_eq(b.base_offset, 3);
    cr_assert_eq(b.last_offset, 4);
    expect_offsets(0, 5);
    cr_assert_eq(log_epoch_latest(rig.l), 5);
    cr_assert_eq(log_epoch_at(rig.l, 2), 4);
    cr_assert_eq(log_epoch_at(rig.l, 3), 5);
    struct log_epoch_end e = log_epoch_end(rig.l, 4);
    cr_assert(e.epoch == 4 && e.end_offset == 3);
    e = log_epoch_end(rig.l, 5);
    cr_assert(e.epoch == 5 && e.end_offset == 5);
    e = log_epoch_end(rig.l, 6);
    cr_assert(e.epoch == -1 && e.end_offset == -1);
    e = log_epoch_end(rig.l, 2);
    cr_assert(e.epoch == 2 && e.end_offset == 0);
}

Test(log, reads_whole_batches_from_the_one_that_holds_the_offset)
{
    for (int i = 0; i < 10; i++)
        rig_append(&rig, &(struct rig_batch){.records = 3, .value_bytes = 100, .tag = i});
    struct log_slice s, one;
    cr_assert_eq(log_read(rig.l, 0, INT64_MAX, 1, LOG_READ_AT_LEAST_ONE, &one, NULL), 0);
    cr_assert(one.first_offset == 0 && one.next_offset == 3);
    size_t batch = one.size_bytes;
    log_slice_drop(&one);
    cr_assert_eq(log_read(rig.l, 4, INT64_MAX, batch * 3 + batch / 2, LOG_READ_WITHIN, &s, NULL), 0);
    cr_assert(s.first_offset == 3 && s.next_offset == 12 && s.size_bytes == batch * 3);
    log_slice_drop(&s);
    cr_assert_eq(log_read(rig.l, 4, 9, SIZE_MAX / 2, LOG_READ_WITHIN, &s, NULL), 0);
    cr_assert(s.first_offset == 3 && s.next_offset == 9);
    log_slice_drop(&s);
    cr_assert_eq(log_read(rig.l, 4, 5, SIZE_MAX / 2, LOG_READ_WITHIN, &s, NULL), 0);
    cr_assert(s.size_bytes == 0 && s.next_offset == 4, "a batch that reaches over the limit is not given");
    cr_assert_eq(log_read(rig.l, 4, INT64_MAX, batch - 1, LOG_READ_WITHIN, &s, NULL), 0);
    cr_assert_eq(s.size_bytes, 0);
    cr_assert_eq(log_read(rig.l, 30, INT64_MAX, 1000, LOG_READ_WITHIN, &s, NULL), 0);
    cr_assert_eq(s.size_bytes, 0);
    cr_assert_eq(log_read(rig.l, 31, INT64_MAX, 1000, LOG_READ_WITHIN, &s, NULL), -E_RANGE);
    cr_assert_eq(log_read(rig.l, -1, INT64_MAX, 1000, LOG_READ_WITHIN, &s, NULL), -E_RANGE);
}

Test(log, rolls_by_size_and_reads_across_segments)
{
    rig.config.segment_bytes = 4000;
    rig.config.index_interval_bytes = 300;
    log_configure(rig.l, &rig.config);
    for (int i = 0; i < 100; i++)
        rig_append(&rig, &(struct rig_batch){
                             .records = 2, .value_bytes = 100, .tag = i, .timestamp = 1000 + 10 * i});
    cr_assert_gt(log_segments(rig.l), 5);
    for (int round = 0; round < 3; round++) {
        for (int64_t at = 0; at < 200; at++) {
            struct log_slice s;
            cr_assert_eq(log_read(rig.l, at, INT64_MAX, 900, LOG_READ_AT_LEAST_ONE, &s, &rig.err), 0, "%s",
                         rig.err.text);
            cr_assert_leq(s.first_offset, at);
            cr_assert_gt(s.next_offset, at);
            struct buf b;
            struct batch_header h;
            buf_init(&b, 10000);
            cr_assert_eq(log_slice_load(&s, &b), 0);
            cr_assert_eq(batch_read(buf_slice(&b), &h, NULL), 0);
            cr_assert_eq(h.base_offset, s.first_offset);
            buf_fini(&b);
            log_slice_drop(&s);
        }
        if (round == 0)
            rig_reopen(&rig);
        else
            cr_assert_eq(rig_crash(&rig, 0), 0, "%s", rig.err.text);
        expect_offsets(0, 200);
        cr_assert_eq(log_recovery(rig.l)->bytes_cut, 0);
    }
}

Test(log, finds_offsets_by_time)
{
    rig.config.segment_bytes = 3000;
    rig.config.index_interval_bytes = 200;
    log_configure(rig.l, &rig.config);
    for (int i = 0; i < 50; i++)
        rig_append(&rig, &(struct rig_batch){.records = 4,
                                             .value_bytes = 50,
                                             .tag = i,
                                             .timestamp = 1000 + 10 * i,
                                             .codec = (enum codec)(i % CODEC_COUNT)});
    struct log_time_offset t;
    for (int round = 0; round < 2; round++) {
        for (int64_t ms = 0; ms < 1600; ms++) {
            cr_assert_eq(log_find_time(rig.l, ms, INT64_MAX, &t, &rig.err), 0, "%s", rig.err.text);
            int64_t expect =
                ms < 1000 ? 0 : (ms - 1000) / 10 * 4 + ((ms - 1000) % 10 < 4 ? (ms - 1000) % 10 : 4);
            if (ms > 1493)
                cr_assert(t.offset == -1 && t.timestamp_ms == -1, "%lld gave %lld", (long long)ms,
                          (long long)t.offset);
            else
                cr_assert_eq(t.offset, expect, "%lld gave %lld", (long long)ms, (long long)t.offset);
        }
        cr_assert_eq(log_find_max_time(rig.l, INT64_MAX, &t, NULL), 0);
        cr_assert(t.offset == 199 && t.timestamp_ms == 1493);
        cr_assert_eq(log_find_max_time(rig.l, 100, &t, NULL), 0);
        cr_assert(t.offset == 99 && t.timestamp_ms == 1243);
        rig_reopen(&rig);
    }
}

Test(log, one_call_with_batches_that_roll)
{
    rig.config.segment_bytes = 1000;
    log_configure(rig.l, &rig.config);
    struct buf b[20];
    struct log_batch v[20];
    for (int i = 0; i < 20; i++) {
        buf_init(&b[i], 10000);
        rig_batch_put(&b[i], &(struct rig_batch){.records = 2, .value_bytes = 100, .tag = i});
        v[i] = (struct log_batch){.bytes = b[i].p, .size_bytes = b[i].n};
    }
    struct log_append_options o = {.leader_epoch = 0, .wall_ms = rig.wall_ms};
    cr_assert_eq(log_append(rig.l, v, 20, &o, &rig.err), 0);
    for (int i = 0; i < 20; i++) {
        cr_assert(v[i].error == KE_NONE && v[i].base_offset == 2 * i);
        buf_fini(&b[i]);
    }
    cr_assert_gt(log_segments(rig.l), 4);
    expect_offsets(0, 40);
    cr_assert_eq(rig_crash(&rig, 0), 0);
    expect_offsets(0, 40);
}

Test(log, producer_sequences)
{
    struct rig_batch p = {.records = 2, .producer_id = 7, .producer_epoch = 1, .sequence = 10};
    cr_assert_eq(rig_append(&rig, &p).error, KE_NONE, "an unknown id may begin anywhere");
    struct log_batch again = rig_append(&rig, &p);
    cr_assert(again.duplicate && again.error == KE_NONE && again.base_offset == 0 && again.last_offset == 1);
    p.sequence = 13;
    cr_assert_eq(rig_append(&rig, &p).error, KE_OUT_OF_ORDER_SEQUENCE_NUMBER);
    p.sequence = 11;
    cr_assert_eq(rig_append(&rig, &p).error, KE_OUT_OF_ORDER_SEQUENCE_NUMBER, "overlap");
    p.sequence = 12;
    cr_assert_eq(rig_append(&rig, &p).base_offset, 2);
    p.producer_epoch = 0;
    cr_assert_eq(rig_append(&rig, &p).error, KE_INVALID_PRODUCER_EPOCH);
    p.producer_epoch = 2;
    cr_assert_eq(rig_append(&rig, &p).error, KE_OUT_OF_ORDER_SEQUENCE_NUMBER, "a new epoch begins at 0");
    p.sequence = 0;
    cr_assert_eq(rig_append(&rig, &p).base_offset, 4);
    expect_offsets(0, 6);
    rig_reopen(&rig);
    cr_assert(rig_append(&rig, &p).duplicate, "the last batch survives a clean restart");
    cr_assert_eq(rig_crash(&rig, 0), 0);
    cr_assert(rig_append(&rig, &p).duplicate, "and a kill");
}

Test(log, producer_sequence_wraps_and_five_are_remembered)
{
    struct rig_batch p = {.records = 3, .producer_id = 7, .sequence = INT32_MAX - 1};
    rig_append(&rig, &p);
    cr_assert(rig_append(&rig, &p).duplicate);
    struct rig_batch next = {.records = 1, .producer_id = 7, .sequence = 1};
    cr_assert_eq(rig_append(&rig, &next).base_offset, 3);
    for (int i = 2; i < 6; i++) {
        cr_assert(rig_append(&rig, &p).duplicate, "%d", i);
        next.sequence = i;
        cr_assert_eq(rig_append(&rig, &next).error, KE_NONE);
    }
    cr_assert_eq(rig_append(&rig, &p).error, KE_OUT_OF_ORDER_SEQUENCE_NUMBER, "the sixth last is forgotten");
}

Test(log, one_append_sees_its_own_sequences)
{
    struct buf b[4];
    struct log_batch v[4];
    int32_t sequences[4] = {0, 1, 0, 5};
    for (int i = 0; i < 4; i++) {
        buf_init(&b[i], 10000);
        rig_batch_put(&b[i], &(struct rig_batch){.producer_id = 3, .sequence = sequences[i]});
        v[i] = (struct log_batch){.bytes = b[i].p, .size_bytes = b[i].n};
    }
    struct log_append_options o = {.leader_epoch = 0, .wall_ms = rig.wall_ms};
    cr_assert_eq(log_append(rig.l, v, 4, &o, &rig.err), 0);
    cr_assert(v[0].base_offset == 0 && v[1].base_offset == 1);
    cr_assert(v[2].duplicate && v[2].base_offset == 0);
    cr_assert_eq(v[3].error, KE_OUT_OF_ORDER_SEQUENCE_NUMBER);
    for (int i = 0; i < 4; i++)
        buf_fini(&b[i]);
    expect_offsets(0, 2);
}

Test(log, producers_age_by_the_clock_of_their_append)
{
    rig.config.producer_id_expiration_ms = 1000;
    log_configure(rig.l, &rig.config);
    rig_append(&rig, &(struct rig_batch){.producer_id = 1, .timestamp = 5}); /* a backfill of 1970 */
    rig.wall_ms += 900;
    rig_append(&rig, &(struct rig_batch){.producer_id = 2});
    cr_assert_eq(log_expire_producers(rig.l, rig.wall_ms), 0);
    cr_assert_eq(log_expire_producers(rig.l, rig.wall_ms + 500), 1);
    cr_assert(rig_append(&rig, &(struct rig_batch){.producer_id = 2}).duplicate);
    cr_assert_eq(rig_append(&rig, &(struct rig_batch){.producer_id = 1, .sequence = 77}).error, KE_NONE);
}

Test(log, as_is_keeps_offsets_and_gaps)
{
    struct buf b;
    buf_init(&b, 10000);
    rig_batch_put(&b, &(struct rig_batch){.records = 2, .offset = 5, .epoch = 3});
    rig_batch_put(&b, &(struct rig_batch){.records = 1, .offset = 100, .epoch = 4});
    cr_assert_eq(log_append_as_is(rig.l, buf_slice(&b), rig.wall_ms, &rig.err), 0, "%s", rig.err.text);
    expect_offsets(0, 101);
    cr_assert_eq(log_append_as_is(rig.l, buf_slice(&b), rig.wall_ms, &rig.err), -E_RANGE);
    cr_assert_eq(log_epoch_at(rig.l, 6), 3);
    cr_assert_eq(log_epoch_latest(rig.l), 4);
    struct log_slice s;
    cr_assert_eq(log_read(rig.l, 50, INT64_MAX, 1, LOG_READ_AT_LEAST_ONE, &s, NULL), 0);
    cr_assert_eq(s.first_offset, 100);
    log_slice_drop(&s);
    buf_clear(&b);
    rig_batch_put(&b, &(struct rig_batch){.records = 2, .offset = 101, .epoch = 4});
    b.p[b.n - 1] ^= 1;
    cr_assert_eq(log_append_as_is(rig.l, buf_slice(&b), rig.wall_ms, &rig.err), -E_CORRUPT);
    expect_offsets(0, 101);
    buf_fini(&b);
}

Test(log, slices_outlive_everything)
{
    rig_append(&rig, &(struct rig_batch){.records = 3, .value_bytes = 50});
    struct log_slice s;
    struct buf b;
    struct batch_header h;
    cr_assert_eq(log_read(rig.l, 0, INT64_MAX, 10000, LOG_READ_WITHIN, &s, NULL), 0);
    log_abandon(rig.l);
    rig.l = NULL;
    buf_init(&b, 10000);
    cr_assert_eq(log_slice_load(&s, &b), 0);
    cr_assert_eq(batch_read(buf_slice(&b), &h, NULL), 0);
    buf_fini(&b);
    log_slice_drop(&s);
}

Test(log, rolls_by_time_of_the_first_batch)
{
    rig.config.segment_ms = 1000;
    log_configure(rig.l, &rig.config);
    rig_append(&rig, &(struct rig_batch){.timestamp = 5000});
    rig_append(&rig, &(struct rig_batch){.timestamp = 6000});
    cr_assert_eq(log_segments(rig.l), 1);
    rig_reopen(&rig);
    log_configure(rig.l, &rig.config);
    rig_append(&rig, &(struct rig_batch){.timestamp = 6001});
    cr_assert_eq(log_segments(rig.l), 2);
}
