/* What is made of the vtable's calls, the same on every disk. */
#include "base/world/disk.h"

#include "base/core/grow.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES_MAX 4096
#define TREE_DEPTH_MAX 64

int disk_make_dirs(struct disk *d, const char *path, struct err *err)
{
    assert(d);
    assert(path);
    char part[PATH_BYTES_MAX];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part)
        return err_set(err, -E_INVALID, "folder \"%.200s\": not a path", path);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (disk_kind(d, part) == DISK_IS_DIR)
            continue;
        int rc = disk_mkdir(d, part);
        if (rc && !(rc == -E_EXISTS && disk_kind(d, part) == DISK_IS_DIR))
            return err_set(err, rc, "folder %s: cannot make %s: %s; choose a folder that this user can make",
                           path, part, err_str(rc));
    }
    return 0;
}

/* The folder a path lies in: "." for a bare name. */
static void folder_of(const char *path, char out[PATH_BYTES_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    assert(n < PATH_BYTES_MAX);
    memcpy(out, path, n);
    out[n] = 0;
    if (n == 0)
        strncpy(out, slash ? "/" : ".", 2);
}

static int write_synced(struct disk *d, const char *path, struct slice content, struct err *err)
{
    struct disk_file *f;
    int rc = disk_open(d, path, DISK_WRITE | DISK_CREATE | DISK_TRUNCATE, &f, err);
    if (rc)
        return rc;
    const char *what = "write";
    ssize_t n = content.n ? disk_pwrite(f, content.p, content.n, 0) : 0;
    rc = n < 0 ? (int)n : 0;
    if (rc == 0) {
        what = "sync";
        rc = disk_fdatasync(f);
    }
    disk_close(f);
    return rc ? err_set(err, rc, "%s: cannot %s: %s", path, what, err_str(rc)) : 0;
}

int disk_replace(struct disk *d, const char *path, struct slice content, struct err *err)
{
    assert(d);
    assert(path);
    assert(!slice_is_null(content));
    char temporary[PATH_BYTES_MAX], folder[PATH_BYTES_MAX];
    if (strlen(path) + 5 > sizeof temporary)
        return err_set(err, -E_INVALID, "%.200s: the path is too long", path);
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    int rc = write_synced(d, temporary, content, err);
    if (rc == -E_NOSPACE)
        (void)disk_unlink(d, temporary); /* what fitted is of no use, and takes room */
    if (rc)
        return rc;
    rc = disk_rename(d, temporary, path);
    if (rc)
        return err_set(err, rc, "%s: cannot rename %s to it: %s", path, temporary, err_str(rc));
    folder_of(path, folder);
    rc = disk_sync_dir(d, folder);
    return rc ? err_set(err, rc, "%s: cannot sync its folder: %s", path, err_str(rc)) : 0;
}

int disk_read_all(struct disk *d, const char *path, size_t limit, struct slice *out, struct err *err)
{
    assert(d);
    assert(path);
    assert(out);
    struct disk_file *f;
    int rc = disk_open(d, path, DISK_READ, &f, err);
    if (rc)
        return rc;
    int64_t size = disk_size(f);
    uint8_t *p = NULL;
    ssize_t n = 0;
    if (size < 0)
        rc = (int)size;
    else if ((uint64_t)size > limit)
        rc = -E_LIMIT;
    else if (!(p = malloc((size_t)size + 1)))
        rc = -E_NOMEM;
    else if (size > 0 && (n = disk_pread(f, p, (size_t)size, 0)) < 0)
        rc = (int)n;
    disk_close(f);
    if (rc) {
        free(p);
        return err_set(err, rc, "%s: cannot read: %s", path, err_str(rc));
    }
    p[n] = 0;
    *out = slice_of(p, (size_t)n);
    return 0;
}

/* ---- disk_remove_tree ---- */

struct names {
    char **name;
    size_t n, cap;
    bool failed;
};

static void add_name(void *arg, const char *name)
{
    struct names *l = arg;
    l->failed = l->failed || !GROW(l->name, l->n, l->cap, 1);
    if (l->failed)
        return;
    l->name[l->n] = strdup(name);
    l->failed = !l->name[l->n];
    l->n += !l->failed;
}

static int remove_below(struct disk *d, const char *path, int depth)
{
    assert(depth >= 0);
    if (depth > TREE_DEPTH_MAX)
        return -E_LIMIT;
    enum disk_kind kind = disk_kind(d, path);
    if (kind == DISK_NONE)
        return 0;
    if (kind != DISK_IS_DIR)
        return disk_unlink(d, path);
    struct names l = {0};
    int rc = disk_list(d, path, add_name, &l);
    if (l.failed)
        rc = -E_NOMEM;
    for (size_t i = 0; i < l.n; i++) {
        char below[PATH_BYTES_MAX];
        int n = snprintf(below, sizeof below, "%s/%s", path, l.name[i]);
        if (rc == 0)
            rc = n < (int)sizeof below ? remove_below(d, below, depth + 1) : -E_INVALID;
        free(l.name[i]);
    }
    free(l.name);
    return rc ? rc : disk_rmdir(d, path);
}

int disk_remove_tree(struct disk *d, const char *path)
{
    return remove_below(d, path, 0);
}
