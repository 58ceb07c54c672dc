#include "tests/support/sim/sim.h"
#include "tests/support/sim/sim_fs.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *boot_nothing(void *arg, struct sim_node *node)
{
    (void)node;
    return arg;
}

static int program;
static struct sim *s;
static struct sim_node *n;
static struct disk *d;

static void open_world(uint64_t seed)
{
    s = sim_create(&(struct sim_options){.seed = seed});
    n = sim_node_add(s, &(struct sim_node_options){.name = "n1", .boot = boot_nothing, .arg = &program});
    d = sim_node_disk(n);
    cr_assert(sim_start(n));
}

static void put(const char *path, const char *text, int64_t at, bool sync)
{
    struct disk_file *f;
    struct err err = {0};
    cr_assert_eq(disk_open(d, path, DISK_WRITE | DISK_CREATE, &f, &err), 0, "%s", err.text);
    cr_assert_eq(disk_pwrite(f, text, strlen(text), at), (ssize_t)strlen(text));
    if (sync)
        cr_assert_eq(disk_fdatasync(f), 0);
    disk_close(f);
}

/* The content, "" when empty, NULL when there is no such file. In static memory. */
static const char *content(const char *path)
{
    static char text[65536];
    struct slice all;
    if (disk_read_all(d, path, sizeof text - 1, &all, NULL) != 0)
        return NULL;
    memcpy(text, all.p, all.n);
    text[all.n] = 0;
    free((void *)all.p);
    return text;
}

Test(sim_disk, behaves_like_a_file_system)
{
    open_world(1);
    struct err err = {0};
    struct disk_file *f, *g;
    cr_expect_eq(disk_make_dirs(d, "/data/a/b", &err), 0, "%s", err.text);
    cr_expect_eq(disk_mkdir(d, "/data"), -E_EXISTS);
    cr_expect_eq(disk_mkdir(d, "/none/x"), -E_NOTFOUND);
    put("/data/a/f", "hello", 3, false);
    cr_assert_eq(disk_open(d, "/data//a/./f", DISK_READ, &f, NULL), 0);
    char bytes[20] = "";
    cr_expect_eq(disk_pread(f, bytes, sizeof bytes, 0), 8);
    cr_expect_eq(memcmp(bytes, "\0\0\0hello", 8), 0);
    cr_expect_eq(disk_pread(f, bytes, 5, 6), 2);
    cr_expect_eq(disk_pread(f, bytes, 5, 8), 0);
    cr_expect_eq(disk_rename(d, "/data/a/f", "/data/a/b/g"), 0);
    cr_expect_eq(disk_kind(d, "/data/a/f"), DISK_NONE);
    cr_expect_eq(disk_unlink(d, "/data/a/b/g"), 0);
    cr_expect_eq(disk_pread(f, bytes, sizeof bytes, 0), 8); /* open, though without a name */
    disk_close(f);
    cr_expect_eq(disk_rmdir(d, "/data/a"), -E_IO);
    cr_expect_eq(disk_unlink(d, "/data/a"), -E_IO);
    cr_expect_eq(disk_rmdir(d, "/data/a/b"), 0);
    cr_expect_eq(disk_open(d, "/data/a", DISK_READ, &f, &err), -E_INVALID);
    cr_expect_eq(disk_open(d, "/data/x", DISK_WRITE | DISK_CREATE | DISK_EXCLUSIVE, &f, &err), 0);
    cr_expect_eq(disk_open(d, "/data/x", DISK_WRITE | DISK_CREATE | DISK_EXCLUSIVE, &g, &err), -E_EXISTS);
    disk_close(f);
    cr_assert_eq(disk_lock(d, "/data/.lock", &f), 0);
    cr_expect_eq(disk_lock(d, "/data/.lock", &g), -E_BUSY);
    disk_close(f);
    cr_assert_eq(disk_lock(d, "/data/.lock", &f), 0);
    disk_close(f);
    cr_expect_eq(disk_replace(d, "/data/r", SLICE_LIT("one"), &err), 0);
    cr_expect_eq(disk_replace(d, "/data/r", SLICE_LIT("two!"), &err), 0);
    cr_expect_str_eq(content("/data/r"), "two!");
    int64_t before = disk_free_bytes(d, "/data");
    put("/data/big", "x", 99999, false);
    cr_expect_eq(before - disk_free_bytes(d, "/data"), 100000);
    cr_expect_eq(disk_remove_tree(d, "/data"), 0);
    cr_expect_eq(disk_kind(d, "/data"), DISK_NONE);
    sim_destroy(s);
}

Test(sim_disk, a_kill_keeps_everything)
{
    open_world(1);
    put("/f", "unsynced", 0, false);
    struct disk_file *f;
    cr_assert_eq(disk_lock(d, "/lock", &f), 0);
    sim_kill(n);
    cr_expect_str_eq(content("/f"), "unsynced");
    cr_expect_eq(disk_lock(d, "/lock", &f), 0);
    disk_close(f);
    sim_destroy(s);
}

Test(sim_disk, a_power_cut_keeps_what_was_synced)
{
    for (uint64_t seed = 1; seed <= 50; seed++) {
        open_world(seed);
        cr_assert_eq(disk_make_dirs(d, "/a/b", NULL), 0);
        put("/a/b/f", "synced", 0, true); /* and its name, and its folders' */
        put("/a/b/f", "+tail", 6, false);
        struct err err = {0};
        cr_assert_eq(disk_replace(d, "/a/meta", SLICE_LIT("v1"), &err), 0);
        cr_assert_eq(disk_replace(d, "/a/meta", SLICE_LIT("version 2"), &err), 0);
        cr_assert_eq(disk_unlink(d, "/a/b/f") | disk_sync_dir(d, "/a/b"), 0);
        put("/a/b/f", "again", 0, true);
        sim_power_cut(n);
        cr_expect_str_eq(content("/a/b/f"), "again");
        cr_expect_str_eq(content("/a/meta"), "version 2");
        sim_destroy(s);
    }
}

Test(sim_disk, a_power_cut_may_take_the_rest_in_pieces)
{
    int whole = 0, lost = 0, torn = 0, short_size = 0, names_lost = 0, unlinked = 0, came_back = 0,
        renamed = 0;
    enum { BIG = 20 * 512 };
    char big[BIG + 1];
    memset(big, 'n', BIG);
    big[BIG] = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        open_world(seed);
        put("/f", "head", 0, true);
        put("/gone", "x", 0, true);
        put("/old", "x", 0, true);
        put("/f", big, 512, false);
        put("/new", "y", 0, false);
        cr_assert_eq(disk_unlink(d, "/gone"), 0);
        cr_assert_eq(disk_rename(d, "/old", "/renamed"), 0);
        sim_power_cut(n);
        const char *text = content("/f");
        struct slice all;
        cr_assert_eq(disk_read_all(d, "/f", 100000, &all, NULL), 0);
        cr_expect_eq(memcmp(text, "head", 4), 0);
        int kept = 0;
        for (size_t at = 512; at < all.n; at += 512) {
            cr_expect(all.p[at] == 'n' || all.p[at] == 0);
            for (size_t i = at; i < at + 512 && i < all.n; i++)
                cr_expect_eq(all.p[i], all.p[at]); /* a sector is whole */
            kept += all.p[at] == 'n';
        }
        whole += kept == 20;
        lost += kept == 0;
        torn += kept > 0 && kept < 20;
        short_size += all.n < 512 + BIG;
        free((void *)all.p);
        names_lost += disk_kind(d, "/new") == DISK_NONE;
        unlinked += disk_kind(d, "/gone") == DISK_NONE;
        came_back += disk_kind(d, "/gone") == DISK_IS_FILE;
        renamed += disk_kind(d, "/renamed") == DISK_IS_FILE;
        cr_expect_neq(disk_kind(d, "/old"), disk_kind(d, "/renamed")); /* exactly one of the two */
        sim_destroy(s);
    }
    cr_expect(torn > 150 && short_size > 20 && short_size < 180, "%d torn, %d short", torn, short_size);
    cr_expect(names_lost > 50 && names_lost < 150);
    cr_expect(unlinked > 50 && came_back > 50 && renamed > 50 && renamed < 150);
    (void)whole, (void)lost;
}

Test(sim_disk, with_keep_0_nothing_unsynced_is_left)
{
    open_world(3);
    put("/f", "0123456789", 0, true);
    put("/f", "XX", 2, false);
    put("/f", "tail", 10, false);
    put("/g", "truncated content", 0, true);
    struct disk_file *f;
    cr_assert_eq(disk_open(d, "/g", DISK_WRITE, &f, NULL), 0);
    cr_assert_eq(disk_truncate(f, 3), 0);
    disk_close(f);
    put("/h", "new", 0, false);
    cr_assert_eq(disk_mkdir(d, "/dir"), 0);
    put("/dir/h", "new", 0, false);
    sim_disk_keep(n, 0);
    sim_power_cut(n);
    cr_expect_str_eq(content("/f"), "0123456789");
    cr_expect_str_eq(content("/g"), "truncated content");
    cr_expect_null(content("/h"));
    cr_expect_eq(disk_kind(d, "/dir"), DISK_NONE);
    sim_destroy(s);
}

Test(sim_disk, with_keep_all_everything_is_left)
{
    open_world(3);
    put("/f", "0123456789", 0, false);
    cr_assert_eq(disk_rename(d, "/f", "/g"), 0);
    put("/f", "second", 0, false);
    cr_assert_eq(disk_unlink(d, "/g"), 0);
    sim_disk_keep(n, 1000000);
    sim_power_cut(n);
    cr_expect_eq(memcmp(content("/f"), "second", 6), 0);
    cr_expect_null(content("/g"));
    sim_destroy(s);
}

Test(sim_disk, changes_of_names_survive_in_an_order_that_was_possible)
{
    for (uint64_t seed = 1; seed <= 300; seed++) {
        open_world(seed);
        put("/a", "A", 0, true);
        cr_assert_eq(disk_rename(d, "/a", "/b"), 0);
        put("/a", "new", 0, true); /* takes the rename along: it stands on it */
        cr_assert_eq(disk_rename(d, "/b", "/c"), 0);
        cr_assert_eq(disk_mkdir(d, "/dir"), 0);
        cr_assert_eq(disk_rename(d, "/c", "/dir/d"), 0);
        sim_power_cut(n);
        cr_expect_str_eq(content("/a"), "new");
        int homes = 0;
        homes += disk_kind(d, "/b") == DISK_IS_FILE;
        homes += disk_kind(d, "/c") == DISK_IS_FILE;
        homes += disk_kind(d, "/dir/d") == DISK_IS_FILE;
        cr_expect_eq(homes, 1, "seed %lu", seed);
        sim_destroy(s);
    }
}

/* ---- faults, met by a program ---- */

struct writer {
    struct loop_timer timer;
    struct disk_file *file;
    int rc[8];
    int calls;
};
static struct writer writer;

static void write_some(void *arg)
{
    struct writer *w = arg;
    w->rc[w->calls] = (int)disk_pwrite(w->file, "0123456789", 10, 10 * w->calls);
    if (w->rc[w->calls] == 10)
        w->rc[w->calls] = disk_fdatasync(w->file);
    if (++w->calls < 5)
        loop_timer_in(&w->timer, 1000);
}

static void *boot_writer(void *arg, struct sim_node *node)
{
    struct writer *w = arg;
    *w = (struct writer){0};
    if (disk_open(sim_node_disk(node), "/log", DISK_WRITE | DISK_CREATE, &w->file, NULL) != 0)
        return NULL;
    loop_timer_init(&w->timer, sim_node_loop(node), write_some, w);
    loop_timer_in(&w->timer, 1000);
    return w;
}

static void open_writer(uint64_t seed)
{
    s = sim_create(&(struct sim_options){.seed = seed});
    n = sim_node_add(s, &(struct sim_node_options){.name = "n1", .boot = boot_writer, .arg = &writer});
    d = sim_node_disk(n);
}

Test(sim_disk, a_sync_that_failed_has_lost_its_bytes_for_ever)
{
    open_writer(1);
    sim_disk_fail(n, SIM_DISK_SYNC, 2, 1, -E_IO, "/log");
    sim_disk_keep(n, 1000000);
    cr_assert(sim_start(n));
    sim_run_for(s, SIM_SECOND);
    cr_expect_eq(writer.calls, 5);
    cr_expect(writer.rc[0] == 0 && writer.rc[1] == -E_IO && writer.rc[2] == 0);
    cr_expect_eq(sim_disk_calls(n, SIM_DISK_SYNC), 5);
    struct slice all;
    cr_assert_eq(disk_read_all(d, "/log", 1000, &all, NULL), 0);
    cr_expect_eq(all.n, 50);
    cr_expect_eq(all.p[15], '5'); /* the page cache still has it */
    free((void *)all.p);
    sim_destroy(s);
}

Test(sim_disk, what_a_failed_sync_lost_only_a_new_write_brings_back)
{
    struct fs fs;
    struct rng r;
    struct fs_inode *f;
    uint8_t bytes[2048];
    memset(bytes, 'x', sizeof bytes);
    rng_init(&r, 1);
    fs_init(&fs, 1 << 20);
    cr_assert_eq(fs_make(&fs, "/f", DISK_IS_FILE, &f), 0);
    fs_sync_name(&fs, f);
    cr_expect_eq(fs_write(&fs, f, bytes, 2048, 0), 2048);
    fs_sync_failed(f);
    cr_expect_eq(fs_write(&fs, f, bytes, 512, 1024), 512);
    cr_expect_eq(fs_write(&fs, f, bytes, 512, 2048), 512);
    fs_sync(f); /* succeeds, and says nothing of sectors 0, 1 and 3 */
    fs_crash(&fs, &r, 1000000);
    cr_expect_eq(f->size, 2560);
    const char expected[5] = {0, 0, 'x', 0, 'x'};
    for (int i = 0; i < 5; i++)
        cr_expect_eq(f->data[512 * i + 100], expected[i], "sector %d", i);
    fs_fini(&fs);
}

Test(sim_disk, no_space_writes_what_fits)
{
    open_writer(1);
    sim_disk_capacity(n, 25);
    cr_assert(sim_start(n));
    sim_run_for(s, SIM_SECOND);
    cr_expect(writer.rc[1] == 0 && writer.rc[2] == -E_NOSPACE && writer.rc[4] == -E_NOSPACE);
    cr_expect_eq(strlen(content("/log")), 25);
    sim_disk_capacity(n, 1000);
    sim_destroy(s);
}

Test(sim_disk, any_call_may_fail)
{
    open_writer(1);
    sim_disk_fail(n, SIM_DISK_OPEN, 1, 1, -E_ACCESS, NULL);
    cr_expect_not(sim_start(n));
    cr_expect_not(sim_node_up(n));
    sim_disk_fail(n, SIM_DISK_WRITE, 3, 0, -E_IO, "log");
    cr_assert(sim_start(n));
    sim_run_for(s, SIM_SECOND);
    cr_expect(writer.rc[1] == 0 && writer.rc[2] == -E_IO && writer.rc[4] == -E_IO);
    sim_disk_flip(n, "/log", 3, 0x01);
    cr_expect_eq(content("/log")[3], '2');
    sim_destroy(s);
}

Test(sim_disk, death_can_fall_between_two_calls_of_a_turn)
{
    int written = 0, before = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        open_writer(seed);
        cr_assert(sim_start(n));
        sim_crash_at(n, SIM_DISK_WRITE, 2, false);
        sim_run_for(s, SIM_SECOND);
        cr_expect_not(sim_node_up(n));
        size_t bytes = strlen(content("/log"));
        cr_expect(bytes == 10 || bytes == 20);
        before += bytes == 10;
        written += bytes == 20;
        sim_destroy(s);
    }
    cr_expect(before > 5 && written > 5);
    open_writer(7);
    cr_assert(sim_start(n));
    sim_crash_at(n, SIM_DISK_SYNC, 2, true);
    sim_disk_keep(n, 0);
    sim_run_for(s, SIM_SECOND);
    cr_expect_not(sim_node_up(n));
    size_t bytes = strlen(content("/log"));
    cr_expect(bytes == 10 || bytes == 20);
    sim_destroy(s);
}

Test(sim_disk, a_disk_can_be_copied)
{
    open_world(1);
    struct sim_node *m =
        sim_node_add(s, &(struct sim_node_options){.name = "m", .boot = boot_nothing, .arg = &program});
    cr_assert_eq(disk_make_dirs(d, "/x/y", NULL), 0);
    put("/x/y/f", "copy me", 0, false);
    sim_disk_copy(m, n);
    sim_power_cut(m);
    d = sim_node_disk(m);
    cr_expect_str_eq(content("/x/y/f"), "copy me");
    sim_destroy(s);
}
