/* Memory runs out at the k-th allocation, for every k: an error or not, nothing leaks, and a later open finds what was
 * flushed. */
#include "base/world/disk_posix.h"
#include "broker/log/compact.h"
#include "tests/support/heap.h"
#include "tests/support/log/log_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char root[64];
static struct buf batches[8];
static struct disk *disk;
static int64_t flushed;

static void use(struct log *l)
{
    struct log_time_offset t;
    struct log_slice s;
    struct log_retained gone;
    struct log_flush *f;
    for (int i = 0; i < 8; i++) {
        struct log_batch b = {.bytes = batches[i].p, .size_bytes = batches[i].n};
        struct log_append_options o = {.leader_epoch = i / 3, .wall_ms = 1000};
        (void)log_append(l, &b, 1, &o, NULL);
        if (i % 3 == 2 && log_flush_begin(l, i % 2 ? LOG_FLUSH_DATA : LOG_FLUSH_CHECKPOINT, &f) == 1) {
            int64_t offset = log_flush_offset(f);
            log_flush_run(f);
            if (log_flush_done(l, f, NULL) == 0)
                flushed = offset;
        }
    }
    if (log_read(l, 0, INT64_MAX, 400, LOG_READ_AT_LEAST_ONE, &s, NULL) == 0)
        log_slice_drop(&s);
    (void)log_find_time(l, 3, INT64_MAX, &t, NULL);
    struct log_compact_options o = {.wall_ms = 1, .limit_offset = INT64_MAX, .map_bytes = 1 << 12, .seed = 3};
    struct log_compaction *c;
    struct log_compacted out;
    if (log_compact_begin(l, &o, &c, NULL) == 1) {
        log_compact_run(c);
        (void)log_compact_done(l, c, &out, NULL);
    }
    (void)log_set_start(l, 1);
    (void)log_retain(l, 1000, flushed, &gone, NULL);
    (void)log_sweep(l, 1000000);
    int64_t to = log_end_offset(l) - 1;
    if (to >= 0) {
        flushed = flushed < to ? flushed : to;
        (void)log_truncate(l, to, 1000, NULL);
    }
}

static void run(void)
{
    struct log_config config = log_config_default();
    struct log_files *files = log_files_create(disk, 8);
    struct log *l = NULL;
    char dir[300];
    snprintf(dir, sizeof dir, "%s/t-0", root);
    flushed = 0;
    config.segment_bytes = 600;
    config.index_interval_bytes = 100;
    config.cleanup_compact = true;
    config.retention_ms = -1;
    struct log_open_options o = {.files = files, .wall_ms = 1000, .create = true};
    if (files && log_open(disk, dir, &config, &o, &l, NULL) == 0) {
        use(l);
        int64_t end = log_end_offset(l);
        flushed = flushed < end ? flushed : end;
        (void)log_close(l, NULL);
    }
    log_files_destroy(files);
}

/* With memory again. */
static void check(void)
{
    struct log_config config = log_config_default();
    struct log_open_options o = {.files = log_files_create(disk, 8), .wall_ms = 1000, .create = true};
    struct log *l;
    char dir[300];
    snprintf(dir, sizeof dir, "%s/t-0", root);
    config.cleanup_compact = true;
    cr_assert_eq(log_open(disk, dir, &config, &o, &l, NULL), 0);
    cr_assert_geq(log_end_offset(l), flushed);
    log_abandon(l);
    log_files_destroy(o.files);
    cr_assert_eq(disk_remove_tree(disk, dir), 0);
}

Test(memory, runs_out_at_every_allocation, .timeout = 280)
{
    /* Where a sync costs nothing: there are some thousands. */
    snprintf(root, sizeof root, "%s/sundog-memory-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    cr_assert(mkdtemp(root));
    disk = disk_posix_create();
    for (int i = 0; i < 8; i++) {
        buf_init(&batches[i], 10000);
        rig_batch_put(&batches[i], &(struct rig_batch){.value_bytes = 150,
                                                       .tag = i,
                                                       .timestamp = i,
                                                       .key = "k%d",
                                                       .producer_id = 1 + i % 2,
                                                       .sequence = i / 2});
    }
    uint64_t k = 0;
    for (bool met = true; met;) {
        k++;
        for (int how = HEAP_FAIL_ONCE; how <= HEAP_FAIL_FROM_THERE; how++) {
            heap_fail_at(k, (enum heap_fail)how);
            run();
            met = heap_has_failed();
            heap_fail_at(0, HEAP_FAIL_ONCE);
            check();
        }
    }
    cr_assert_gt(k, 50);
    for (int i = 0; i < 8; i++)
        buf_fini(&batches[i]);
    cr_assert_eq(disk_remove_tree(disk, root), 0);
    disk_posix_destroy(disk);
}
