#include "base/world/disk_posix.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static struct disk *d;
static char top[64];

static void setup(void)
{
    strcpy(top, "/tmp/sundog-test-XXXXXX");
    cr_assert(mkdtemp(top));
    d = disk_posix_create();
}

static void teardown(void)
{
    cr_expect_eq(disk_remove_tree(d, top), 0);
    disk_posix_destroy(d);
}

static const char *at(const char *name)
{
    static char path[4][300];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", top, name);
    return p;
}

TestSuite(disk, .init = setup, .fini = teardown);

Test(disk, writes_all_of_a_vector)
{
    struct disk_file *f;
    struct err err = {0};
    cr_assert_eq(disk_open(d, at("a"), DISK_WRITE | DISK_CREATE | DISK_EXCLUSIVE, &f, &err), 0, "%s",
                 err.text);
    struct iovec v[3000];
    char bytes[3000];
    for (int i = 0; i < 3000; i++) {
        bytes[i] = (char)(i * 7);
        v[i] = (struct iovec){&bytes[i], 1};
    }
    cr_expect_eq(disk_pwritev(f, v, 3000, 10), 3000); /* more than IOV_MAX */
    char back[4000];
    cr_expect_eq(disk_pread(f, back, sizeof back, 0), 3010);
    cr_expect_eq(memcmp(back + 10, bytes, 3000), 0);
    cr_expect_eq(disk_pread(f, back, sizeof back, 3010), 0);
    cr_expect_eq(disk_allocate(f, 0, 100000), 0);
    cr_expect_eq(disk_size(f), 3010);
    cr_expect_eq(disk_truncate(f, 5), 0);
    cr_expect_eq(disk_size(f), 5);
    cr_expect_eq(disk_fdatasync(f), 0);
    cr_expect_geq(disk_fd(f), 0);
    disk_close(f);
    cr_expect_eq(disk_open(d, at("a"), DISK_WRITE | DISK_CREATE | DISK_EXCLUSIVE, &f, &err), -E_EXISTS);
    cr_expect(strstr(err.text, "/a: cannot open: File exists"));
    cr_expect_eq(disk_open(d, at("none"), DISK_READ, &f, &err), -E_NOTFOUND);
    cr_expect_eq(disk_open(d, top, DISK_READ, &f, &err), -E_INVALID);
}

static void count(void *arg, const char *name)
{
    (void)name;
    ++*(int *)arg;
}

Test(disk, folders_and_names)
{
    struct err err = {0};
    cr_expect_eq(disk_make_dirs(d, at("x/y/z"), &err), 0, "%s", err.text);
    cr_expect_eq(disk_make_dirs(d, at("x/y/z"), &err), 0);
    cr_expect_eq(disk_mkdir(d, at("x")), -E_EXISTS);
    cr_expect_eq(disk_replace(d, at("x/f"), SLICE_LIT("old"), &err), 0);
    cr_expect_eq(disk_replace(d, at("x/f"), SLICE_LIT("new text"), &err), 0);
    cr_expect_eq(disk_kind(d, at("x/f.tmp")), DISK_NONE);
    cr_expect_eq(disk_kind(d, at("x/f")), DISK_IS_FILE);
    cr_expect_eq(disk_kind(d, at("x/y")), DISK_IS_DIR);
    cr_expect_eq(disk_make_dirs(d, at("x/f/g"), &err), -E_EXISTS);
    struct slice s;
    cr_expect_eq(disk_read_all(d, at("x/f"), 100, &s, &err), 0);
    cr_expect_str_eq((const char *)s.p, "new text");
    free((void *)s.p);
    cr_expect_eq(disk_read_all(d, at("x/f"), 3, &s, &err), -E_LIMIT);
    cr_expect_eq(disk_replace(d, at("empty"), SLICE_LIT(""), &err), 0);
    cr_expect_eq(disk_read_all(d, at("empty"), 100, &s, &err), 0);
    cr_expect_eq(s.n, 0);
    free((void *)s.p);
    int names = 0;
    cr_expect_eq(disk_list(d, at("x"), count, &names), 0);
    cr_expect_eq(names, 2);
    cr_expect_eq(disk_list(d, at("nothing"), count, &names), -E_NOTFOUND);
    cr_expect_eq(disk_rename(d, at("x/f"), at("x/g")), 0);
    cr_expect_eq(disk_unlink(d, at("x/f")), -E_NOTFOUND);
    cr_expect_eq(disk_rmdir(d, at("x")), -E_IO); /* not empty */
    cr_expect_gt(disk_free_bytes(d, top), 0);
    cr_expect_gt(disk_mtime_ms(d, at("x/g")), INT64_C(1600000000000));
    cr_assert_eq(symlink("/nowhere", at("link")), 0);
    cr_expect_eq(disk_kind(d, at("link")), DISK_IS_OTHER);
    cr_expect_eq(disk_remove_tree(d, at("x")), 0);
    cr_expect_eq(disk_kind(d, at("x")), DISK_NONE);
    cr_expect_eq(disk_remove_tree(d, at("x")), 0);
}

Test(disk, a_lock_excludes_until_it_is_closed)
{
    struct disk_file *a, *b;
    cr_assert_eq(disk_lock(d, at(".lock"), &a), 0);
    cr_expect_eq(disk_lock(d, at(".lock"), &b), -E_BUSY);
    disk_close(a);
    cr_assert_eq(disk_lock(d, at(".lock"), &b), 0);
    disk_close(b);
}

Test(disk, a_file_limit_shows_as_an_error)
{
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {4096, 4096};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    struct err err = {0};
    char big[8192] = "";
    cr_expect_eq(disk_replace(d, at("big"), slice_of(big, sizeof big), &err), -E_IO);
    cr_expect(strstr(err.text, "big.tmp: cannot write"));
    cr_expect_eq(disk_kind(d, at("big")), DISK_NONE);
}
