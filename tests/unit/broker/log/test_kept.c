/* What a start believes of a process that was killed while all was well: the note, and a log opened by its headers. */
#include "broker/log/kept.h"
#include "broker/log/manager.h"
#include "tests/support/log/crash_disk.h"
#include "tests/support/log/log_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define NOTE "/logs/.sundog-kept"

static struct crash_disk *cd;
static struct log_rig rig;

static void setup(void)
{
    cd = crash_disk_create();
    rig_init(&rig, crash_disk_disk(cd), "/logs");
    rig.kept = rig.config.page_cache = true;
    cr_assert_eq(rig_open(&rig, false, 0), 0, "%s", rig.err.text);
}

static void teardown(void)
{
    rig_fini(&rig);
    crash_disk_destroy(cd);
}

TestSuite(kept, .init = setup, .fini = teardown);

static void fill(int batches)
{
    for (int i = 0; i < batches; i++)
        rig_append(&rig, &(struct rig_batch){.tag = i, .records = 100, .value_bytes = 1000});
}

static const char first[] = RIG_DIR "/00000000000000000000.log";

Test(kept, headers_are_enough_but_for_the_end)
{
    fill(80);
    crash_disk_flip(cd, first, 150000, 1);
    cr_assert_eq(rig_crash(&rig, 0), 0, "%s", rig.err.text);
    cr_assert_eq(log_end_offset(rig.l), 8000);
    cr_assert_eq(log_durable_offset(rig.l), 0, "nothing is on disk because it was found");
    crash_disk_flip(cd, first, crash_disk_size(cd, first) - 150000, 1);
    cr_assert_eq(rig_crash(&rig, 0), -E_CORRUPT, "the end of a file is checked");
}

Test(kept, a_log_that_promises_the_disk_is_checked_whole)
{
    fill(80);
    crash_disk_flip(cd, first, 150000, 1);
    rig.config.page_cache = false;
    cr_assert_eq(rig_crash(&rig, 0), -E_CORRUPT);
}

Test(kept, a_write_cut_by_the_kill_leaves_whole_batches)
{
    rig_append(&rig, &(struct rig_batch){.tag = 1});
    rig_append(&rig, &(struct rig_batch){.tag = 2, .value_bytes = 50});
    int64_t last = crash_disk_last_write(cd);
    for (int64_t n = 0; n <= last; n++) {
        struct log_rig other;
        struct crash_disk *left = crash_disk_kill(cd, n);
        rig_init(&other, crash_disk_disk(left), "/logs");
        other.kept = other.config.page_cache = true;
        cr_assert_eq(rig_open(&other, false, 0), 0, "%s", other.err.text);
        cr_assert_eq(log_end_offset(other.l), n == last ? 2 : 1);
        rig_append(&other, &(struct rig_batch){.tag = 3});
        rig_flush(&other, LOG_FLUSH_CHECKPOINT);
        cr_assert_eq(rig_crash(&other, log_recovery_point(other.l)), 0, "%s", other.err.text);
        cr_assert_eq(log_end_offset(other.l), n == last ? 3 : 2);
        rig_fini(&other);
        crash_disk_destroy(left);
    }
}

Test(kept, segments_epochs_and_producers_come_back)
{
    rig.config.segment_bytes = 300000;
    log_configure(rig.l, &rig.config);
    for (int i = 0; i < 20; i++)
        rig_append(&rig,
                   &(struct rig_batch){
                       .tag = i, .records = 70, .value_bytes = 1000, .producer_id = 5, .sequence = 70 * i});
    unsigned segments = log_segments(rig.l);
    cr_assert_gt(segments, 3);
    cr_assert_eq(rig_crash(&rig, 0), 0, "%s", rig.err.text);
    cr_assert_eq(log_segments(rig.l), segments);
    cr_assert_eq(log_end_offset(rig.l), 1400);
    struct log_batch b = rig_append(
        &rig, &(struct rig_batch){
                  .tag = 19, .records = 70, .value_bytes = 1000, .producer_id = 5, .sequence = 1330});
    cr_assert(b.duplicate && b.last_offset == 1399, "sequences are known");
    struct buf all;
    buf_init(&all, 8 << 20);
    cr_assert_eq(rig_read(&rig, 0, 1400, &all), 0, "and every record can be found");
    buf_fini(&all);
}

/* ---- the note ---- */

static bool noted(struct crash_disk *d)
{
    return disk_kind(crash_disk_disk(d), NOTE) != DISK_NONE;
}

Test(kept, the_note_holds_for_one_start_in_the_same_mount)
{
    struct disk *disk = crash_disk_disk(cd);
    cr_assert(!kept_take(disk, "/logs"), "there is none");
    kept_write(disk, "/logs");
    struct crash_disk *killed = crash_disk_kill(cd, -1);
    cr_assert(kept_take(crash_disk_disk(killed), "/logs"));
    cr_assert(!noted(killed) && !kept_take(crash_disk_disk(killed), "/logs"), "once");
    crash_disk_destroy(killed);
    crash_disk_resize(cd, NOTE, crash_disk_size(cd, NOTE) - 1);
    cr_assert(!kept_take(disk, "/logs"), "half a note");
}

/* The mutant "kept_over_a_power_cut" must fail here. */
Test(kept, a_power_cut_ends_it_even_where_the_note_survives)
{
    struct rng r;
    rng_init(&r, 1);
    kept_write(crash_disk_disk(cd), "/logs");
    struct crash_disk *left = crash_disk_cut(cd, &r, 1000000);
    cr_assert(noted(left));
    cr_assert(!kept_take(crash_disk_disk(left), "/logs"));
    cr_assert(!noted(left));
    crash_disk_destroy(left);
}

Test(kept, one_log_that_fails_takes_the_note_and_no_other_comes)
{
    struct log_dirs *d;
    const char *const dirs[] = {"/logs"};
    cr_assert_eq(log_dirs_open(rig.disk, dirs, 1, &d, &rig.err), 0, "%s", rig.err.text);
    log_dir_keep(d, 0);
    cr_assert(noted(cd));
    log_dir_doubt(d, 0);
    cr_assert(!noted(cd));
    log_dir_keep(d, 0);
    cr_assert(!noted(cd));
    log_dirs_close(d, NULL, 0);
    cr_assert_eq(log_dirs_open(rig.disk, dirs, 1, &d, &rig.err), 0, "%s", rig.err.text);
    log_dir_keep(d, 0);
    log_dirs_close(d, NULL, 0);
    cr_assert(!noted(cd), "an end has its own marker");
}
