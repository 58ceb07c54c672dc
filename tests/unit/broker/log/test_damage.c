/* Damaged files: what is cut, what is refused, what is made again. */
#include "proto/kafka/errors.h"
#include "tests/support/log/crash_disk.h"
#include "tests/support/log/log_rig.h"

#include "base/core/bytes.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static struct crash_disk *cd;
static struct log_rig rig;

static void setup(void)
{
    cd = crash_disk_create();
    rig_init(&rig, crash_disk_disk(cd), "/logs");
    rig.config.index_interval_bytes = 300;
    cr_assert_eq(rig_open(&rig, false, 0), 0, "%s", rig.err.text);
}

static void teardown(void)
{
    rig_fini(&rig);
    crash_disk_destroy(cd);
}

TestSuite(damage, .init = setup, .fini = teardown);

static int64_t positions[200]; /* of batch i */

static const char *path_of(int64_t base, const char *suffix)
{
    static char path[300];
    snprintf(path, sizeof path, "%s/%020lld%s", rig.dir, (long long)base, suffix);
    return path;
}

/* One record a batch, so batch i has offset i. */
static void fill(int n)
{
    for (int i = 0; i < n; i++) {
        positions[i] = log_size_bytes(rig.l);
        rig_append(&rig, &(struct rig_batch){
                             .value_bytes = 60 + i % 90, .tag = i, .timestamp = 1000 + i, .epoch = i / 20});
    }
    positions[n] = log_size_bytes(rig.l);
}

static int64_t crash_end(int64_t point)
{
    int rc = rig_crash(&rig, point);
    return rc ? rc : log_end_offset(rig.l);
}

Test(damage, a_torn_tail_is_cut_at_every_byte)
{
    fill(10);
    for (int64_t size = positions[10] - 1; size >= positions[7]; size--) {
        int whole = size >= positions[9] ? 9 : size >= positions[8] ? 8 : 7;
        crash_disk_resize(cd, path_of(0, ".log"), size);
        cr_assert_eq(crash_end(0), whole, "%lld: %s", (long long)size, rig.err.text);
        cr_assert_eq(log_recovery(rig.l)->bytes_cut, size - positions[whole]);
        cr_assert_eq(crash_disk_size(cd, path_of(0, ".log")), positions[whole]);
    }
    cr_assert_eq(rig_append(&rig, &(struct rig_batch){.tag = 99, .epoch = 9}).base_offset, 7);
    cr_assert_eq(crash_end(0), 8);
}

Test(damage, zeroes_at_the_end_are_no_records)
{
    fill(10);
    crash_disk_resize(cd, path_of(0, ".log"), positions[10] + 100000);
    cr_assert_eq(crash_end(0), 10, "%s", rig.err.text);
    cr_assert_eq(log_recovery(rig.l)->bytes_cut, 100000);
    cr_assert_eq(log_recovery(rig.l)->batches_lost, 0);
}

Test(damage, garbage_at_the_end_is_cut)
{
    fill(10);
    struct rng r;
    uint8_t junk[3000];
    rng_init(&r, 3);
    for (size_t n = 1; n < sizeof junk; n = n * 2 + 1) {
        rng_fill(&r, junk, n);
        crash_disk_set(cd, path_of(0, ".log"), positions[10], junk, n);
        cr_assert_eq(crash_end(0), 10, "%zu: %s", n, rig.err.text);
    }
}

Test(damage, a_bad_batch_before_valid_ones_is_corruption)
{
    fill(20);
    int64_t size = crash_disk_size(cd, path_of(0, ".log"));
    for (int64_t at = positions[10]; at < positions[11]; at++)
        for (int bit = 0; bit < 8; bit++) {
            crash_disk_flip(cd, path_of(0, ".log"), at, (uint8_t)(1 << bit));
            cr_assert_eq(rig_crash(&rig, 0), -E_CORRUPT, "byte %lld bit %d", (long long)(at - positions[10]),
                         bit);
            cr_assert(strstr(rig.err.text, "00000000000000000000.log position"), "%s", rig.err.text);
            cr_assert_eq(crash_disk_size(cd, path_of(0, ".log")), size, "nothing is cut");
            crash_disk_flip(cd, path_of(0, ".log"), at, (uint8_t)(1 << bit));
        }
    cr_assert_eq(crash_end(0), 20, "%s", rig.err.text);
}

Test(damage, below_the_recovery_point_nothing_is_cut)
{
    fill(20);
    rig_flush(&rig, LOG_FLUSH_CHECKPOINT);
    int64_t size = crash_disk_size(cd, path_of(0, ".log"));
    cr_assert_eq(log_recovery_point(rig.l), 20);
    for (int64_t at = positions[19]; at < positions[20];
         at += 7) { /* the last batch: else it would be a torn tail */
        crash_disk_flip(cd, path_of(0, ".log"), at, 4);
        cr_assert_eq(rig_crash(&rig, 20), -E_CORRUPT);
        cr_assert_eq(crash_disk_size(cd, path_of(0, ".log")), size);
        crash_disk_flip(cd, path_of(0, ".log"), at, 4);
    }
    crash_disk_resize(cd, path_of(0, ".log"), positions[19]);
    cr_assert_eq(rig_crash(&rig, 20), -E_CORRUPT, "the file has lost a flushed batch");
    cr_assert(strstr(rig.err.text, "19"), "%s", rig.err.text);
}

Test(damage, a_closed_segment_is_held_against_the_next)
{
    fill(10);
    cr_assert_eq(log_roll(rig.l, rig.wall_ms, NULL), 0);
    fill(5);
    crash_disk_flip(cd, path_of(0, ".log"), 40, 1);
    cr_assert_eq(rig_crash(&rig, 0), -E_CORRUPT);
    crash_disk_flip(cd, path_of(0, ".log"), 40, 1);
    cr_assert_eq(crash_end(0), 15);
    int64_t size = crash_disk_size(cd, path_of(0, ".log"));
    crash_disk_flip(cd, path_of(0, ".log"), size - 3, 1);
    cr_assert_eq(rig_crash(&rig, 0), -E_CORRUPT, "its last batch, and valid ones in the next segment");
    crash_disk_flip(cd, path_of(0, ".log"), size - 3, 1);
    crash_disk_resize(cd, path_of(0, ".log"), size - 3);
    cr_assert_eq(crash_end(0), 9, "too short: the unflushed end of a power cut");
    cr_assert_eq(log_recovery(rig.l)->batches_lost, 5);
    cr_assert_eq(log_segments(rig.l), 1);
}

Test(damage, sectors_that_a_power_cut_lost_are_told_from_corruption)
{
    fill(60);
    uint8_t zero[512] = {0};
    int64_t sector = positions[30] / 512 * 512 + 512;
    crash_disk_set(cd, path_of(0, ".log"), sector, zero, sizeof zero);
    int64_t end = crash_end(0);
    cr_assert(end > 20 && end < 40 && positions[end] <= sector + 512, "%lld %s", (long long)end,
              rig.err.text);
    cr_assert_gt(log_recovery(rig.l)->batches_lost, 10);
    cr_assert_gt(log_recovery(rig.l)->bytes_cut, 0);
}

Test(damage, indexes_are_made_again)
{
    fill(100);
    cr_assert_eq(log_close(rig.l, &rig.err), 0);
    rig.l = NULL;
    int64_t index = crash_disk_size(cd, path_of(0, ".index")),
            times = crash_disk_size(cd, path_of(0, ".timeindex"));
    cr_assert(index > 80 && times > 120);
    for (int what = 0; what < 6; what++) {
        uint8_t far[8];
        be32_put(far, 0x7fffffff);
        be32_put(far + 4, 0x7fffffff);
        switch (what) {
        case 0: disk_unlink(rig.disk, path_of(0, ".index")); break;
        case 1: disk_unlink(rig.disk, path_of(0, ".timeindex")); break;
        case 2: crash_disk_set(cd, path_of(0, ".index"), index - 8, far, 8); break; /* past the log */
        case 3: crash_disk_resize(cd, path_of(0, ".index"), 5); break;
        case 4: crash_disk_resize(cd, path_of(0, ".index"), index + 8000); break; /* Kafka's, killed */
        case 5: crash_disk_flip(cd, path_of(0, ".index"), index / 2 / 8 * 8 + 6, 0x10); break;
        }
        cr_assert_eq(rig_open(&rig, true, 0), 0, "%s", rig.err.text);
        for (int64_t at = 0; at < 100; at++) {
            struct log_slice s;
            cr_assert_eq(log_read(rig.l, at, INT64_MAX, 1, LOG_READ_AT_LEAST_ONE, &s, &rig.err), 0, "%s",
                         rig.err.text);
            cr_assert_eq(s.first_offset, at, "%d", what);
            log_slice_drop(&s);
            struct log_time_offset t;
            cr_assert_eq(log_find_time(rig.l, 1000 + at, INT64_MAX, &t, &rig.err), 0);
            cr_assert_eq(t.offset, at);
        }
        cr_assert_eq(log_close(rig.l, &rig.err), 0, "%s", rig.err.text);
        rig.l = NULL;
        if (what != 5) {
            cr_assert_eq(crash_disk_size(cd, path_of(0, ".index")), index, "%d", what);
            cr_assert_eq(crash_disk_size(cd, path_of(0, ".timeindex")), times, "%d", what);
        }
    }
}

Test(damage, a_flipped_bit_anywhere_is_never_a_record)
{
    /* Whatever bit of the log file flips, behind or below the recovery point: opening refuses, or cuts the flipped
     * batch and what follows; or (fields outside the CRC of the last batch) the record's own bytes are untouched. */
    fill(12);
    rig_flush(&rig, LOG_FLUSH_CHECKPOINT);
    for (int64_t at = 0; at < positions[12]; at += 3) {
        for (int64_t point = 0; point <= 12; point += 12) {
            crash_disk_flip(cd, path_of(0, ".log"), at, (uint8_t)(1 << (at % 8)));
            struct crash_disk *copy = crash_disk_kill(cd, -1);
            struct log_rig other = rig;
            other.disk = crash_disk_disk(copy);
            other.files = log_files_create(other.disk, 8);
            other.l = NULL;
            int rc = rig_open(&other, false, point);
            cr_assert(rc == 0 || rc == -E_CORRUPT);
            if (rc == 0 && point == 12)
                cr_assert_eq(log_end_offset(other.l), 12, "below the recovery point nothing is cut");
            if (rc == 0) {
                struct buf b;
                buf_init(&b, 1 << 20);
                int read = rig_read(&other, 0, log_end_offset(other.l), &b);
                cr_assert(read == 0 || read == -E_CORRUPT);
                if (point == 0 && read == 0)
                    for (struct slice left = buf_slice(&b); left.n;) {
                        struct batch_header h;
                        cr_assert_eq(batch_read(left, &h, NULL), 0, "byte %lld is served", (long long)at);
                        left = slice_of(left.p + batch_size(&h), left.n - batch_size(&h));
                    }
                buf_fini(&b);
            }
            rig_fini(&other);
            crash_disk_destroy(copy);
            crash_disk_flip(cd, path_of(0, ".log"), at, (uint8_t)(1 << (at % 8)));
        }
    }
}

Test(damage, snapshots_and_epochs_with_flipped_bits)
{
    fill(50);
    rig_append(&rig, &(struct rig_batch){.producer_id = 5, .sequence = 3, .epoch = 7});
    cr_assert_eq(log_close(rig.l, &rig.err), 0);
    rig.l = NULL;
    char epochs[300];
    snprintf(epochs, sizeof epochs, "%s/leader-epoch-checkpoint", rig.dir);
    int64_t snapshot = crash_disk_size(cd, path_of(51, ".snapshot")), text = crash_disk_size(cd, epochs);
    cr_assert(snapshot == 56 && text > 10);
    for (int64_t at = 0; at < snapshot; at++) {
        struct crash_disk *copy = crash_disk_kill(cd, -1);
        struct log_rig other = rig;
        other.disk = crash_disk_disk(copy);
        other.files = log_files_create(other.disk, 8);
        crash_disk_flip(copy, path_of(51, ".snapshot"), at, 0x20);
        cr_assert_eq(rig_open(&other, true, 51), 0);
        struct rig_batch again = {.producer_id = 5, .sequence = 3, .epoch = 7};
        cr_assert(rig_append(&other, &again).duplicate, "the log itself tells");
        rig_fini(&other);
        crash_disk_destroy(copy);
    }
    for (int64_t at = 0; at < text; at++) {
        struct crash_disk *copy = crash_disk_kill(cd, -1);
        struct log_rig other = rig;
        other.disk = crash_disk_disk(copy);
        other.files = log_files_create(other.disk, 8);
        crash_disk_flip(copy, epochs, at, 0x40); /* never a digit again */
        cr_assert_eq(rig_open(&other, true, 51), 0);
        for (int e = 0; e < 2; e++)
            cr_assert_eq(log_epoch_end(other.l, e).end_offset, 20 * (e + 1));
        rig_fini(&other);
        crash_disk_destroy(copy);
    }
}

Test(damage, strays_and_half_done_work_are_cleared)
{
    fill(20);
    struct disk_file *f;
    static const char *const junk[] = {
        "00000000000000000007.log.deleted", "00000000000000000003.index.cleaned",
        "00000000000000000000.log.cleaned", "leader-epoch-checkpoint.tmp",
        "00000000000000000099.index",       "00000000000000000099.snapshot"};
    for (int i = 0; i < 6; i++) {
        char path[300];
        snprintf(path, sizeof path, "%s/%s", rig.dir, junk[i]);
        cr_assert_eq(disk_open(rig.disk, path, DISK_WRITE | DISK_CREATE, &f, NULL), 0);
        disk_close(f);
    }
    cr_assert_eq(crash_end(0), 20);
    for (int i = 0; i < 6; i++) {
        char path[300];
        snprintf(path, sizeof path, "%s/%s", rig.dir, junk[i]);
        cr_assert_eq(disk_kind(rig.disk, path), DISK_NONE, "%s", junk[i]);
    }
}

/* What a clean stop left is taken as it is, so bits that rot later are met while serving. */
Test(damage, a_rotten_header_is_not_searched_by_time)
{
    struct log_time_offset found;
    fill(6);
    cr_assert_eq(log_find_time(rig.l, 1003, INT64_MAX, &found, &rig.err), 0);
    cr_assert_eq(found.offset, 3);
    for (int64_t byte = BATCH_CRC_AT; byte < BATCH_HEADER_BYTES; byte++) {
        if (byte >= 35 && byte < 43) /* the max timestamp: whether to look at all */
            continue;
        cr_assert(crash_disk_flip(cd, path_of(0, ".log"), positions[3] + byte, 0x80));
        int rc = log_find_time(rig.l, 1003, INT64_MAX, &found, &rig.err);
        cr_assert_lt(rc, 0, "byte %lld: offset %lld", (long long)byte, (long long)found.offset);
        crash_disk_flip(cd, path_of(0, ".log"), positions[3] + byte, 0x80);
    }
}

/* The base offset is under no CRC: wherever it says that a batch lies, a reader is told, not shown a gap up to the
 * end. */
Test(damage, a_batch_that_claims_other_offsets_is_no_gap)
{
    static const struct {
        int64_t byte;
        uint8_t bits;
    } damage[] = {{0, 0x25},
                  {3, 0x01},
                  {7, 0x04},
                  {7, 0x08},
                  {BATCH_ATTRIBUTES_AT + 2, 0x01},
                  {BATCH_ATTRIBUTES_AT + 5, 0x10}};
    fill(12);
    for (size_t i = 0; i < sizeof damage / sizeof damage[0]; i++) {
        int64_t at = positions[5] + damage[i].byte;
        struct log_slice s;
        cr_assert(crash_disk_flip(cd, path_of(0, ".log"), at, damage[i].bits));
        int rc = log_read(rig.l, 5, INT64_MAX, 1 << 20, LOG_READ_AT_LEAST_ONE, &s, &rig.err);
        cr_assert_eq(rc, -E_CORRUPT, "byte %lld: %d, %zu bytes", (long long)damage[i].byte, rc, s.size_bytes);
        cr_assert_eq(log_read(rig.l, 4, INT64_MAX, 1, LOG_READ_AT_LEAST_ONE, &s, &rig.err), 0, "%s",
                     rig.err.text);
        log_slice_drop(&s);
        crash_disk_flip(cd, path_of(0, ".log"), at, damage[i].bits);
    }
}

/* Nor must each reader who comes there have the segment read from its beginning: the index is made anew once. */
Test(damage, a_damaged_batch_has_the_index_made_anew_once)
{
    struct log_slice s;
    fill(150);
    crash_disk_flip(cd, path_of(0, ".log"), positions[80] + BATCH_LENGTH_AT, 0x80);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(log_read(rig.l, 80, INT64_MAX, 1 << 20, LOG_READ_AT_LEAST_ONE, &s, &rig.err),
                     -E_CORRUPT);
    cr_assert_eq(log_recovery(rig.l)->indexes_rebuilt, 1u);
    cr_assert(rig.err.text[0]);
    cr_assert_eq(log_read(rig.l, 60, INT64_MAX, 1, LOG_READ_AT_LEAST_ONE, &s, &rig.err), 0, "%s",
                 rig.err.text);
    log_slice_drop(&s);
    crash_disk_flip(cd, path_of(0, ".log"), positions[80] + BATCH_LENGTH_AT, 0x80);
    for (int64_t at = 70; at < 150; at += 10) {
        cr_assert_eq(log_read(rig.l, at, INT64_MAX, 1, LOG_READ_AT_LEAST_ONE, &s, &rig.err), 0, "%s",
                     rig.err.text);
        log_slice_drop(&s);
    }
}

/* A marker of a clean stop beside an index that is gone and a batch that is no good: while it was looked for the end the
 * index was half rebuilt. */
Test(damage, a_clean_stop_that_was_none_is_recovered)
{
    fill(40);
    cr_assert_eq(log_close(rig.l, &rig.err), 0);
    rig.l = NULL;
    crash_disk_resize(cd, path_of(0, ".index"), 3);
    crash_disk_flip(cd, path_of(0, ".log"), positions[30] + BATCH_LENGTH_AT, 0x80);
    int rc = rig_open(&rig, true, 35);
    cr_assert(rc == -E_CORRUPT && rig.err.text[0], "%d: %s", rc, rig.err.text);
    crash_disk_flip(cd, path_of(0, ".log"), positions[30] + BATCH_LENGTH_AT, 0x80);
    cr_assert_eq(rig_open(&rig, false, 0), 0, "%s", rig.err.text);
    cr_assert_eq(log_end_offset(rig.l), 40);
}
