/* Logs as the first format version left them (tests/data/log/v1, written by log_sample, never made again) open and hold
 * what they held. */
#include "base/core/crc32c.h"
#include "base/world/disk_posix.h"
#include "tests/support/log/crash_disk.h"
#include "tests/support/log/log_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define DATA "tests/data/log/v1/"

struct copying {
    struct disk *from;
    struct log_rig *to;
    struct crash_disk *cd;
    const char *name;
};

static void copy(void *arg, const char *file)
{
    struct copying *c = arg;
    char from[600], to[600];
    struct slice content;
    struct disk_file *f;
    snprintf(from, sizeof from, DATA "%s/%s", c->name, file);
    snprintf(to, sizeof to, "%s/%s", c->to->dir, file);
    cr_assert_eq(disk_read_all(c->from, from, 1 << 20, &content, NULL), 0);
    cr_assert_eq(disk_open(c->to->disk, to, DISK_WRITE | DISK_CREATE, &f, NULL), 0);
    disk_close(f);
    crash_disk_set(c->cd, to, 0, content.p, content.n);
    free((void *)content.p);
}

static int producers;

static void producer_seen(void *arg, const struct log_producer *p)
{
    (void)arg, (void)p;
    producers++;
}

struct golden {
    const char *name;
    bool compacted;
    int64_t end;
    uint32_t crc; /* of all batches */
    int producers;
    int32_t epoch;
};

static void check(const struct golden *g, bool clean)
{
    struct crash_disk *cd = crash_disk_create();
    struct disk *posix = disk_posix_create();
    struct log_rig rig;
    struct buf all;
    rig_init(&rig, crash_disk_disk(cd), "/logs");
    rig.config.cleanup_compact = g->compacted;
    rig.config.segment_bytes = 8000;
    cr_assert_eq(disk_mkdir(rig.disk, rig.dir), 0);
    struct copying c = {posix, &rig, cd, g->name};
    char dir[300];
    snprintf(dir, sizeof dir, DATA "%s", g->name);
    cr_assert_eq(disk_list(posix, dir, copy, &c), 0, "run from the top of the tree");
    cr_assert_eq(rig_open(&rig, clean, clean ? g->end : 0), 0, "%s", rig.err.text);
    cr_assert_eq(log_recovery(rig.l)->bytes_cut, 0);
    cr_assert_eq(log_recovery(rig.l)->indexes_rebuilt > 0, !clean);
    buf_init(&all, 1 << 20);
    cr_assert_eq(rig_read(&rig, 0, log_end_offset(rig.l), &all), 0);
    producers = 0;
    log_each_producer(rig.l, producer_seen, NULL);
    cr_assert_eq(log_end_offset(rig.l), g->end);
    cr_assert_eq(producers, g->producers);
    cr_assert_eq(log_epoch_latest(rig.l), g->epoch);
    cr_assert_eq(crc32c(all.p, all.n), g->crc, "%s: %08x", g->name, crc32c(all.p, all.n));
    buf_fini(&all);
    rig_fini(&rig);
    disk_posix_destroy(posix);
    crash_disk_destroy(cd);
}

static const struct golden plain = {"plain-0", false, 600, 0x0e407d36, 2, 3},
                           compacted = {"compacted-0", true, 450, 0x94ee4249, 1, 0};

Test(golden, version_1)
{
    check(&plain, true);
    check(&plain, false);
    check(&compacted, true);
    check(&compacted, false);
}
