/* Room on disk behind the end of the active segment: asked for while it grows, given back when it ends. On a real file
 * system, which must be able to reserve (ext4, XFS, btrfs, tmpfs). */
#include "base/world/disk_posix.h"
#include "tests/support/log/log_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MIB = 1 << 20, RECORDS = 200, VALUE = 1000 };

static struct disk *disk;
static struct log_rig rig;
static char root[] = "/tmp/sundog-reserve-XXXXXX";

static void setup(void)
{
    disk = disk_posix_create();
    cr_assert(mkdtemp(root));
    rig_init(&rig, disk, root);
    cr_assert_eq(rig_open(&rig, false, 0), 0, "%s", rig.err.text);
}

static void teardown(void)
{
    char command[80];
    rig_fini(&rig);
    disk_posix_destroy(disk);
    snprintf(command, sizeof command, "rm -rf %s", root);
    cr_assert_eq(system(command), 0);
}

TestSuite(reserve, .init = setup, .fini = teardown);

static struct stat segment(int64_t base)
{
    char path[300];
    struct stat st;
    snprintf(path, sizeof path, "%s/%020lld.log", rig.dir, (long long)base);
    cr_assert_eq(stat(path, &st), 0, "%s", path);
    return st;
}

static int64_t on_disk(int64_t base)
{
    return segment(base).st_blocks * 512;
}

static void append(int n)
{
    for (int i = 0; i < n; i++)
        rig_append(&rig, &(struct rig_batch){.records = RECORDS, .value_bytes = VALUE, .timestamp = 1000});
}

Test(reserve, grows_with_the_segment_and_is_given_back_when_it_rolls)
{
    rig.config.segment_bytes = 8 * MIB;
    log_configure(rig.l, &rig.config);
    append(3);
    cr_assert_leq(on_disk(0), MIB, "a small log reserves nothing");
    append(7);
    int64_t size = segment(0).st_size, reserved = on_disk(0);
    cr_assert(size > 2 * MIB - MIB / 10 && size < 2 * MIB + MIB / 10, "%ld: its end stays where records end",
              (long)size);
    cr_assert(reserved > size + MIB / 2 && reserved < 2 * size + MIB, "%ld of %ld", (long)reserved,
              (long)size);
    append(40);
    cr_assert_geq(log_segments(rig.l), 2);
    cr_assert_leq(on_disk(0), segment(0).st_size + 4096, "the closed one gave its room back");
}

Test(reserve, a_clean_stop_gives_back_and_a_kill_loses_nothing)
{
    append(10);
    int64_t size = segment(0).st_size;
    cr_assert_eq(rig_crash(&rig, 0), 0, "%s", rig.err.text);
    cr_assert_eq(log_end_offset(rig.l), 10 * RECORDS);
    cr_assert_eq(log_recovery(rig.l)->bytes_cut, 0);
    cr_assert_eq(segment(0).st_size, size);
    append(4);
    cr_assert_gt(on_disk(0), segment(0).st_size + MIB);
    rig_reopen(&rig);
    cr_assert_leq(on_disk(0), segment(0).st_size + 4096);
    cr_assert_eq(log_end_offset(rig.l), 14 * RECORDS);
}
