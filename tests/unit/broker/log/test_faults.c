/* A disk that fails: no space, errors, a lost fdatasync. */
#include "proto/kafka/errors.h"
#include "tests/support/log/crash_disk.h"
#include "tests/support/log/log_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static struct crash_disk *cd;
static struct log_rig rig;

static void setup(void)
{
    cd = crash_disk_create();
    rig_init(&rig, crash_disk_disk(cd), "/logs");
    rig.config.segment_bytes = 4000;
    cr_assert_eq(rig_open(&rig, false, 0), 0, "%s", rig.err.text);
}

static void teardown(void)
{
    rig_fini(&rig);
    crash_disk_destroy(cd);
}

TestSuite(faults, .init = setup, .fini = teardown);

static int flush(enum log_flush_how how)
{
    struct log_flush *f;
    int rc = log_flush_begin(rig.l, how, &f);
    if (rc <= 0)
        return rc;
    log_flush_run(f);
    return log_flush_done(rig.l, f, &rig.err);
}

/* The mutant "retry_fsync" must fail here. */
Test(faults, a_failed_fdatasync_fences_and_is_never_tried_again)
{
    rig_append(&rig, &(struct rig_batch){.tag = 1});
    cr_assert_eq(flush(LOG_FLUSH_DATA), 0);
    rig_append(&rig, &(struct rig_batch){.tag = 2});
    crash_disk_fail(cd, CRASH_SYNC, 1, 1, -E_IO, ".log");
    uint64_t syncs = crash_disk_calls(cd, CRASH_SYNC);
    cr_assert_eq(flush(LOG_FLUSH_DATA), -E_IO, "and not a retry that seems to work");
    cr_assert_eq(crash_disk_calls(cd, CRASH_SYNC), syncs + 1);
    cr_assert(log_fenced(rig.l));
    cr_assert_eq(log_durable_offset(rig.l), 1);
    struct log_batch b;
    cr_assert_eq(rig_try_append(&rig, &(struct rig_batch){.tag = 3}, &b), -E_FENCED);
    cr_assert_eq(b.error, KE_KAFKA_STORAGE_ERROR);
    cr_assert_eq(flush(LOG_FLUSH_DATA), -E_FENCED);
    cr_assert_eq(log_append_as_is(rig.l, SLICE_LIT("x"), 0, &rig.err), -E_FENCED);
    struct log_slice s;
    cr_assert_eq(log_read(rig.l, 0, 1, 1000, LOG_READ_WITHIN, &s, NULL), 0, "what is durable can be read");
    cr_assert_gt(s.size_bytes, 0);
    log_slice_drop(&s);
    cr_assert_eq(log_close(rig.l, &rig.err), -E_FENCED, "no clean shutdown");
    rig.l = NULL;
    cr_assert_eq(crash_disk_calls(cd, CRASH_SYNC), syncs + 1);
    struct rng r;
    rng_init(&r, 1);
    struct crash_disk *left = crash_disk_cut(cd, &r, 0);
    struct log_rig other = rig;
    other.disk = crash_disk_disk(left);
    other.files = log_files_create(other.disk, 8);
    cr_assert_eq(rig_open(&other, false, 0), 0);
    cr_assert_eq(log_end_offset(other.l), 1);
    rig_fini(&other);
    crash_disk_destroy(left);
}

/* What the process before has left in the page cache after a failed sync is clean there and not on disk: it is durable
 * only once it was written again. The mutant "page_cache_trusted" must fail here. */
static void restart_after_a_failed_sync(int batches, int durable, int64_t point)
{
    struct log_batch last = {0};
    cr_assert_eq(disk_sync_dir(rig.disk, "/logs"), 0); /* the manager's part */
    for (int i = 0; i < batches; i++) {
        if (i == durable)
            cr_assert_eq(flush(i == (int)point ? LOG_FLUSH_CHECKPOINT : LOG_FLUSH_DATA), 0);
        last = rig_append(&rig, &(struct rig_batch){.tag = i, .value_bytes = 700});
    }
    crash_disk_fail(cd, CRASH_SYNC, 1, 0, -E_IO, ".log");
    cr_assert_eq(flush(LOG_FLUSH_DATA), -E_IO);
    crash_disk_fail(cd, CRASH_SYNC, 1000000, 1, -E_IO, NULL);
    struct buf before, after;
    buf_init(&before, 1 << 20);
    buf_init(&after, 1 << 20);
    cr_assert_eq(rig_read(&rig, 0, last.last_offset + 1, &before), 0);
    cr_assert_eq(rig_crash(&rig, point), 0, "%s", rig.err.text);
    cr_assert_eq(log_end_offset(rig.l), batches, "the page cache has them still");
    cr_assert_eq(log_durable_offset(rig.l), point);
    cr_assert_eq(flush(LOG_FLUSH_DATA), 0);
    cr_assert_eq(log_durable_offset(rig.l), batches);
    struct rng r;
    rng_init(&r, 1);
    struct crash_disk *left = crash_disk_cut(cd, &r, 0);
    struct log_rig other = rig;
    other.disk = crash_disk_disk(left);
    other.files = log_files_create(other.disk, 8);
    other.l = NULL;
    cr_assert_eq(rig_open(&other, false, point), 0, "%s", other.err.text);
    cr_assert_eq(log_end_offset(other.l), batches, "%d batches, %d durable: durable was said to be %d",
                 batches, durable, (int)log_end_offset(other.l));
    cr_assert_eq(rig_read(&other, 0, batches, &after), 0);
    cr_assert(slice_eq(buf_slice(&before), buf_slice(&after)));
    buf_fini(&before);
    buf_fini(&after);
    rig_fini(&other);
    crash_disk_destroy(left);
}

Test(faults, what_a_failed_sync_left_in_the_page_cache_is_written_again)
{
    static const int cases[][3] = {{1, 0, 0},  {2, 1, 0},   {2, 1, 1},   {5, 5, 0},
                                   {30, 3, 3}, {30, 12, 0}, {30, 29, 29}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        teardown();
        setup();
        restart_after_a_failed_sync(cases[i][0], cases[i][1], cases[i][2]);
    }
}

Test(faults, what_a_kept_log_was_opened_with_is_written_again_by_its_first_flush)
{
    static const int cases[][3] = {{1, 0, 0}, {2, 1, 1}, {30, 3, 3}, {30, 12, 0}, {30, 29, 29}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        teardown();
        setup();
        rig.kept = rig.config.page_cache = true;
        restart_after_a_failed_sync(cases[i][0], cases[i][1], cases[i][2]);
    }
}

Test(faults, a_start_that_cannot_write_again_fails)
{
    rig_append(&rig, &(struct rig_batch){.tag = 1});
    crash_disk_fail(cd, CRASH_WRITE, 1, 1, -E_IO, ".log");
    cr_assert_eq(rig_crash(&rig, 0), -E_IO);
    cr_assert(strstr(rig.err.text, "written again"), "%s", rig.err.text);
    cr_assert_eq(rig_open(&rig, false, 0), 0, "%s", rig.err.text);
    cr_assert_eq(log_end_offset(rig.l), 1);
}

Test(faults, no_space_loses_nothing_and_passes)
{
    struct rig_batch p = {.producer_id = 4, .value_bytes = 500, .records = 2};
    rig_append(&rig, &p);
    int64_t end = log_end_offset(rig.l);
    crash_disk_capacity(cd, 1300);
    struct log_batch b;
    p.sequence = 2;
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(rig_try_append(&rig, &p, &b), -E_NOSPACE);
        cr_assert_eq(b.error, KE_KAFKA_STORAGE_ERROR);
        cr_assert_eq(log_end_offset(rig.l), end);
    }
    cr_assert(!log_fenced(rig.l));
    crash_disk_capacity(cd, -1);
    b = rig_append(&rig, &p);
    cr_assert(b.error == KE_NONE && !b.duplicate && b.base_offset == end,
              "the failed one left no sequence behind");
    cr_assert(rig_append(&rig, &p).duplicate);
    cr_assert_eq(flush(LOG_FLUSH_CHECKPOINT), 0);
    cr_assert_eq(rig_crash(&rig, log_recovery_point(rig.l)), 0, "%s", rig.err.text);
    cr_assert_eq(log_end_offset(rig.l), end + 2);
}

Test(faults, no_space_at_a_roll_and_for_a_snapshot)
{
    int64_t n = 0;
    while (log_size_bytes(rig.l) < 3800) {
        rig_append(&rig, &(struct rig_batch){.value_bytes = 100, .producer_id = 3, .sequence = (int32_t)n});
        n++;
    }
    crash_disk_fail(cd, CRASH_OPEN, 1, 2, -E_NOSPACE, NULL);
    struct log_batch b;
    struct rig_batch big = {.value_bytes = 2000, .producer_id = 3, .sequence = (int32_t)n};
    cr_assert_eq(rig_try_append(&rig, &big, &b), -E_NOSPACE);
    cr_assert_eq(log_segments(rig.l), 1);
    cr_assert_eq(rig_try_append(&rig, &big, &b), -E_NOSPACE);
    cr_assert_eq(rig_append(&rig, &big).base_offset, n);
    cr_assert_eq(log_segments(rig.l), 2);
    crash_disk_fail(cd, CRASH_WRITE, 1, 1, -E_NOSPACE, ".snapshot");
    int64_t point = log_recovery_point(rig.l);
    cr_assert_eq(flush(LOG_FLUSH_CHECKPOINT), 0, "the data is durable");
    cr_assert_eq(log_durable_offset(rig.l), n + 1);
    cr_assert_eq(log_recovery_point(rig.l), point);
    cr_assert(!log_fenced(rig.l));
    cr_assert_eq(flush(LOG_FLUSH_CHECKPOINT), 0);
    cr_assert_eq(log_recovery_point(rig.l), n + 1);
}

/* The same batch twice in one append, as a producer sends it that has lost patience with its first connection. */
static int append_twice(const struct rig_batch *p, struct log_batch out[2])
{
    struct buf bytes[2];
    for (int i = 0; i < 2; i++) {
        buf_init(&bytes[i], 1 << 20);
        rig_batch_put(&bytes[i], p);
        out[i] = (struct log_batch){.bytes = bytes[i].p, .size_bytes = bytes[i].n};
    }
    int rc = log_append(rig.l, out, 2, &(struct log_append_options){.wall_ms = rig.wall_ms}, &rig.err);
    for (int i = 0; i < 2; i++)
        buf_fini(&bytes[i]);
    return rc;
}

Test(faults, a_duplicate_of_a_batch_that_failed_has_failed)
{
    struct rig_batch p = {.producer_id = 4, .value_bytes = 500, .records = 2};
    struct log_batch b[2];
    crash_disk_capacity(cd, 100);
    cr_assert_eq(append_twice(&p, b), -E_NOSPACE);
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(b[i].error, KE_KAFKA_STORAGE_ERROR, "nothing of it was kept");
        cr_expect_not(b[i].duplicate);
        cr_expect_eq(b[i].last_offset, -1);
    }
    cr_assert_eq(log_end_offset(rig.l), 0);
    crash_disk_capacity(cd, -1);
    cr_assert_eq(append_twice(&p, b), 0);
    cr_expect(b[0].error == KE_NONE && !b[0].duplicate && b[0].last_offset == 1);
    cr_expect(b[1].error == KE_NONE && b[1].duplicate && b[1].last_offset == 1);
    crash_disk_capacity(cd, 1300);
    cr_assert_eq(append_twice(&p, b), 0, "what was there before is a duplicate on a full disk, too");
    cr_expect(b[0].error == KE_NONE && b[0].duplicate && b[1].duplicate);
}

/* What was written before a roll that failed is there, and says so. */
Test(faults, no_space_at_a_roll_within_one_append)
{
    struct rig_batch p = {.value_bytes = 2500};
    struct buf bytes[2];
    struct log_batch b[2];
    for (int i = 0; i < 2; i++) {
        buf_init(&bytes[i], 1 << 20);
        rig_batch_put(&bytes[i], &p);
        b[i] = (struct log_batch){.bytes = bytes[i].p, .size_bytes = bytes[i].n};
    }
    crash_disk_fail(cd, CRASH_OPEN, 1, 1, -E_NOSPACE, NULL);
    cr_assert_eq(log_append(rig.l, b, 2, &(struct log_append_options){0}, &rig.err), -E_NOSPACE);
    cr_expect(b[0].error == KE_NONE && b[0].last_offset == 0);
    cr_expect_eq(b[1].error, KE_KAFKA_STORAGE_ERROR);
    cr_expect_eq(log_end_offset(rig.l), 1);
    cr_expect_not(log_fenced(rig.l));
    for (int i = 0; i < 2; i++)
        buf_fini(&bytes[i]);
}

Test(faults, a_write_error_fences)
{
    rig_append(&rig, &(struct rig_batch){.tag = 1});
    crash_disk_fail(cd, CRASH_WRITE, 1, 1, -E_IO, ".log");
    struct log_batch b;
    cr_assert_eq(rig_try_append(&rig, &(struct rig_batch){.tag = 2}, &b), -E_IO);
    cr_assert(log_fenced(rig.l));
    cr_assert(strstr(log_fence_text(rig.l), "t-0"));
    cr_assert_eq(log_end_offset(rig.l), 1);
    cr_assert_eq(rig_crash(&rig, 0), 0, "%s", rig.err.text);
    cr_assert_eq(log_end_offset(rig.l), 1);
    cr_assert(!log_fenced(rig.l));
}

/* Every call of every kind fails once, in turn: an error or not, afterwards a restart finds all that was flushed. */
Test(faults, each_call_of_a_workload_fails_once, .timeout = 280)
{
    for (int op = CRASH_READ; op < CRASH_OPS; op++) {
        bool hit = true;
        for (uint64_t nth = 1; hit && nth < 400; nth++) {
            teardown();
            setup();
            crash_disk_fail(cd, (enum crash_op)op, nth, 1, nth % 2 ? -E_IO : -E_NOSPACE, NULL);
            uint64_t calls = crash_disk_calls(cd, (enum crash_op)op);
            int64_t flushed = 0, wrote = 0;
            for (int i = 0; i < 40 && !log_fenced(rig.l); i++) {
                struct log_batch b;
                struct log_retained gone;
                if (rig_try_append(&rig, &(struct rig_batch){.tag = i, .value_bytes = 300, .timestamp = i},
                                   &b) == 0)
                    wrote = b.last_offset + 1;
                cr_assert_eq(log_end_offset(rig.l), wrote);
                int64_t end = log_end_offset(rig.l);
                if (i % 5 == 0 && flush(i % 10 ? LOG_FLUSH_DATA : LOG_FLUSH_CHECKPOINT) == 0)
                    flushed = end;
                if (i == 30) {
                    (void)log_set_start(rig.l, 10);
                    (void)log_retain(rig.l, rig.wall_ms, flushed, &gone, NULL);
                }
                struct log_slice s;
                if (log_read(rig.l, end / 2, end, 500, LOG_READ_AT_LEAST_ONE, &s, NULL) == 0)
                    log_slice_drop(&s);
            }
            hit = crash_disk_calls(cd, (enum crash_op)op) >= calls + nth;
            struct rng r;
            rng_init(&r, nth);
            struct crash_disk *left = crash_disk_cut(cd, &r, nth % 3 ? 0 : 500000);
            struct log_rig other = rig;
            other.disk = crash_disk_disk(left);
            other.files = log_files_create(other.disk, 8);
            other.l = NULL;
            cr_assert_eq(rig_open(&other, false, 0), 0, "op %d nth %d: %s", op, (int)nth, other.err.text);
            cr_assert_geq(log_end_offset(other.l), flushed, "op %d nth %d", op, (int)nth);
            rig_fini(&other);
            crash_disk_destroy(left);
        }
    }
}

/* Thousands of quiet partitions are opened and closed without a sync each: an epoch that got no records is written
 * nowhere, and nothing is said of producers where nothing was ever appended. */
Test(faults, a_log_to_which_nothing_came_is_closed_without_a_sync)
{
    cr_assert_eq(flush(LOG_FLUSH_CHECKPOINT), 0); /* the name of its folder */
    for (int32_t epoch = 1; epoch <= 3; epoch++) {
        cr_assert_eq(log_epoch_assign(rig.l, epoch, log_end_offset(rig.l)), 0);
        uint64_t syncs = crash_disk_calls(cd, CRASH_SYNC) + crash_disk_calls(cd, CRASH_SYNC_DIR);
        cr_assert_eq(log_close(rig.l, &rig.err), 0);
        rig.l = NULL;
        cr_expect_eq(crash_disk_calls(cd, CRASH_SYNC) + crash_disk_calls(cd, CRASH_SYNC_DIR), syncs,
                     "epoch %d", epoch);
        cr_assert_eq(rig_open(&rig, true, 0), 0, "%s", rig.err.text);
        if (epoch == 2) {
            log_epoch_assign(rig.l, 2, log_end_offset(rig.l));
            rig_append(&rig, &(struct rig_batch){.records = 5, .epoch = 2, .producer_id = 9});
            rig_reopen(&rig);
            cr_expect_eq(log_end_offset(rig.l), 5);
        }
    }
    cr_expect_eq(log_epoch_at(rig.l, 4), 2, "an epoch with records stays");
    cr_expect_eq(log_recovery(rig.l)->producers, 1u);
}
