/* The crash disk as a disk: its operations, the faults that are asked for, and damage done by hand. */
#include "tests/support/log/crash_disk_internal.h"

static struct crash_disk *of(struct disk *d)
{
    return (struct crash_disk *)(void *)d;
}

static struct crash_file *file_of(struct disk_file *f)
{
    return (struct crash_file *)(void *)f;
}

/* ---- faults ---- */

static int step(struct crash_disk *d, enum crash_op op, const char *path)
{
    struct fault *f = &d->faults[op];
    d->calls[op]++;
    if (!f->on || (f->part[0] && !strstr(path, f->part)))
        return 0;
    if (f->nth > 1) {
        f->nth--;
        return 0;
    }
    if (!f->forever && f->times-- == 0) {
        f->on = false;
        return 0;
    }
    return f->code;
}

static void changed(struct crash_disk *d, enum crash_op op)
{
    if (d->hook)
        d->hook(d->hook_arg, op);
}

static int64_t used(const struct crash_disk *d)
{
    int64_t sum = 0;
    for (struct name *n = d->live; n; n = n->hh.next)
        sum += n->inode->size;
    return sum;
}

/* ---- the vtable ---- */

static int op_open(struct disk *disk, const char *path, unsigned how, struct disk_file **out, struct err *err)
{
    struct crash_disk *d = of(disk);
    int rc = step(d, CRASH_OPEN, path);
    if (rc)
        return err_set(err, rc, "open %s: injected", path);
    struct name *n = cd_name_find(d->live, path);
    bool made = false;
    if (n && n->inode->is_dir)
        return err_set(err, -E_INVALID, "%s is a folder", path);
    if (n && (how & DISK_EXCLUSIVE))
        return err_set(err, -E_EXISTS, "%s is there", path);
    if (!n) {
        if (!(how & DISK_CREATE))
            return err_set(err, -E_NOTFOUND, "%s is not there", path);
        struct inode *i = cd_inode_new(d, false);
        cd_name_put(&d->live, path, i);
        cd_change_add(d, MADE, path, NULL, i);
        n = cd_name_find(d->live, path);
        made = true;
    }
    struct crash_file *f = calloc(1, sizeof *f);
    assert(f);
    f->file.disk = disk;
    f->d = d;
    f->inode = n->inode;
    f->path = cd_copy_text(path);
    *out = &f->file;
    if ((how & DISK_TRUNCATE) && f->inode->size > 0) {
        cd_change_bytes(f->inode, 0, NULL, f->inode->size);
        cd_size_set(f->inode, 0);
        changed(d, CRASH_TRUNCATE);
    }
    if (made)
        changed(d, CRASH_OPEN);
    return 0;
}

static void op_close(struct disk_file *file)
{
    struct crash_file *f = file_of(file);
    if (f->lock)
        f->inode->locked = false;
    free(f->path);
    free(f);
}

static ssize_t op_pread(struct disk_file *file, void *p, size_t n, int64_t at)
{
    struct crash_file *f = file_of(file);
    int rc = step(f->d, CRASH_READ, f->path);
    if (rc)
        return rc;
    if (at >= f->inode->size)
        return 0;
    if ((int64_t)n > f->inode->size - at)
        n = (size_t)(f->inode->size - at);
    memcpy(p, f->inode->live + at, n);
    return (ssize_t)n;
}

static ssize_t op_pwritev(struct disk_file *file, const struct iovec *v, int n, int64_t at)
{
    struct crash_file *f = file_of(file);
    struct crash_disk *d = f->d;
    int64_t bytes = 0;
    for (int i = 0; i < n; i++)
        bytes += (int64_t)v[i].iov_len;
    uint8_t *all = malloc((size_t)bytes + 1);
    assert(all);
    int64_t done = 0;
    for (int i = 0; i < n; i++) {
        memcpy(all + done, v[i].iov_base, v[i].iov_len);
        done += (int64_t)v[i].iov_len;
    }
    int rc = step(d, CRASH_WRITE, f->path);
    int64_t fits = bytes;
    if (rc) {
        fits = bytes / 2; /* part of it was written */
    } else if (d->capacity >= 0 && at + bytes > f->inode->size) {
        int64_t left = d->capacity - used(d) + f->inode->size - at;
        if (left < bytes) {
            fits = left > 0 ? left : 0;
            rc = -E_NOSPACE;
        }
    }
    if (fits > 0)
        cd_change_bytes(f->inode, at, all, fits);
    f->inode->mtime = d->wall_ms;
    d->last_inode = f->inode;
    d->last_at = at;
    d->last_bytes = fits;
    free(all);
    changed(d, CRASH_WRITE);
    d->last_bytes = 0;
    return rc ? rc : (ssize_t)bytes;
}

static void inode_sync(struct inode *i)
{
    struct sector *s, *next;
    HASH_ITER (hh, i->dirty, s, next) {
        /* Dirtied since a failed sync or never: what is live now, where it was written since. */
        if (s->n > 1) {
            HASH_DEL(i->dirty, s);
            free(s->v);
            free(s);
        }
    }
    i->sizes_n = 1;
    i->sizes[0] = i->size;
}

static int op_fdatasync(struct disk_file *file)
{
    struct crash_file *f = file_of(file);
    struct crash_disk *d = f->d;
    int rc = step(d, CRASH_SYNC, f->path);
    if (rc) { /* the pages are clean now and will never be written: the synced versions stay the only ones */
        struct sector *s, *next;
        HASH_ITER (hh, f->inode->dirty, s, next)
            s->n = 1;
        f->inode->sizes_n = 1;
        return rc;
    }
    inode_sync(f->inode);
    list_each_safe(at, &d->changes)
    {
        struct change *c = LIST_ENTRY(at, struct change, link);
        if (c->kind == MADE && c->inode == f->inode) {
            cd_change_apply(&d->durable, c, c->inode);
            cd_change_free(c);
        }
    }
    changed(d, CRASH_SYNC);
    return 0;
}

static int op_truncate(struct disk_file *file, int64_t size)
{
    struct crash_file *f = file_of(file);
    int rc = step(f->d, CRASH_TRUNCATE, f->path);
    if (rc)
        return rc;
    if (size < f->inode->size)
        cd_change_bytes(f->inode, size, NULL, f->inode->size - size);
    else
        cd_reserve(f->inode, size);
    cd_size_set(f->inode, size);
    changed(f->d, CRASH_TRUNCATE);
    return 0;
}

static int op_allocate(struct disk_file *file, int64_t at, int64_t n)
{
    (void)file, (void)at, (void)n;
    return 0;
}

static int64_t op_size(struct disk_file *file)
{
    return file_of(file)->inode->size;
}

static int op_fd(struct disk_file *file)
{
    (void)file;
    return -1;
}

static int op_rename(struct disk *disk, const char *from, const char *to)
{
    struct crash_disk *d = of(disk);
    int rc = step(d, CRASH_RENAME, from);
    struct name *n = cd_name_find(d->live, from);
    if (rc || !n)
        return rc ? rc : -E_NOTFOUND;
    struct inode *i = n->inode;
    cd_change_add(d, MOVED, from, to, i);
    if (i->is_dir)
        cd_name_move(&d->live, from, to);
    else {
        cd_name_drop(&d->live, from);
        cd_name_put(&d->live, to, i);
    }
    changed(d, CRASH_RENAME);
    return 0;
}

static int op_unlink(struct disk *disk, const char *path)
{
    struct crash_disk *d = of(disk);
    int rc = step(d, CRASH_UNLINK, path);
    struct name *n = cd_name_find(d->live, path);
    if (rc || !n || n->inode->is_dir)
        return rc ? rc : -E_NOTFOUND;
    cd_change_add(d, GONE, path, NULL, n->inode);
    cd_name_drop(&d->live, path);
    changed(d, CRASH_UNLINK);
    return 0;
}

static int op_mkdir(struct disk *disk, const char *path)
{
    struct crash_disk *d = of(disk);
    int rc = step(d, CRASH_MKDIR, path);
    if (rc || cd_name_find(d->live, path))
        return rc ? rc : -E_EXISTS;
    struct inode *i = cd_inode_new(d, true);
    cd_name_put(&d->live, path, i);
    cd_change_add(d, MADE, path, NULL, i);
    changed(d, CRASH_MKDIR);
    return 0;
}

static int op_rmdir(struct disk *disk, const char *path)
{
    struct crash_disk *d = of(disk);
    struct name *n = cd_name_find(d->live, path);
    if (!n)
        return -E_NOTFOUND;
    cd_change_add(d, GONE, path, NULL, n->inode);
    cd_name_drop(&d->live, path);
    changed(d, CRASH_UNLINK);
    return 0;
}

static int op_sync_dir(struct disk *disk, const char *path)
{
    struct crash_disk *d = of(disk);
    int rc = step(d, CRASH_SYNC_DIR, path);
    if (rc)
        return rc;
    list_each_safe(at, &d->changes)
    {
        struct change *c = LIST_ENTRY(at, struct change, link);
        if (cd_in_dir(c->path, path)) {
            cd_change_apply(&d->durable, c, c->inode);
            cd_change_free(c);
        }
    }
    changed(d, CRASH_SYNC_DIR);
    return 0;
}

static int op_sync_all(struct disk *disk, const char *path)
{
    struct crash_disk *d = of(disk);
    int rc = step(d, CRASH_SYNC_ALL, path);
    if (rc)
        return rc;
    list_each (at, &d->inodes)
        inode_sync(LIST_ENTRY(at, struct inode, link));
    while (!list_empty(&d->changes)) {
        struct change *c = LIST_ENTRY(d->changes.next, struct change, link);
        cd_change_apply(&d->durable, c, c->inode);
        cd_change_free(c);
    }
    changed(d, CRASH_SYNC_ALL);
    return 0;
}

static int op_list(struct disk *disk, const char *path, void (*each)(void *arg, const char *name), void *arg)
{
    struct crash_disk *d = of(disk);
    struct name *n, *next;
    n = cd_name_find(d->live, path);
    if (!n || !n->inode->is_dir)
        return -E_NOTFOUND;
    HASH_ITER (hh, d->live, n, next) {
        if (cd_in_dir(n->path, path))
            each(arg, n->path + strlen(path) + 1);
    }
    return 0;
}

static enum disk_kind op_kind(struct disk *disk, const char *path)
{
    struct name *n = cd_name_find(of(disk)->live, path);
    return !n ? DISK_NONE : n->inode->is_dir ? DISK_IS_DIR : DISK_IS_FILE;
}

static int op_lock(struct disk *disk, const char *path, struct disk_file **out)
{
    int rc = op_open(disk, path, DISK_WRITE | DISK_CREATE, out, NULL);
    if (rc)
        return rc;
    struct crash_file *f = file_of(*out);
    if (f->inode->locked) {
        op_close(*out);
        return -E_BUSY;
    }
    f->lock = f->inode->locked = true;
    return 0;
}

static int64_t op_free_bytes(struct disk *disk, const char *path)
{
    (void)path;
    return of(disk)->capacity < 0 ? INT64_MAX : of(disk)->capacity - used(of(disk));
}

static int64_t op_mtime(struct disk *disk, const char *path)
{
    struct name *n = cd_name_find(of(disk)->live, path);
    return n ? n->inode->mtime : -E_NOTFOUND;
}

static int op_mounted(struct disk *disk, const char *path, char out[DISK_MOUNT_TEXT])
{
    (void)path;
    snprintf(out, DISK_MOUNT_TEXT, "crash disk, %u cuts", of(disk)->cuts);
    return 0;
}

static const struct disk_ops ops = {
    .open = op_open,
    .close = op_close,
    .pread = op_pread,
    .pwritev = op_pwritev,
    .fdatasync = op_fdatasync,
    .truncate = op_truncate,
    .allocate = op_allocate,
    .size = op_size,
    .fd = op_fd,
    .rename = op_rename,
    .unlink = op_unlink,
    .mkdir = op_mkdir,
    .rmdir = op_rmdir,
    .sync_dir = op_sync_dir,
    .sync_all = op_sync_all,
    .list = op_list,
    .kind = op_kind,
    .lock = op_lock,
    .free_bytes = op_free_bytes,
    .mtime_ms = op_mtime,
    .mounted = op_mounted,
};

/* ---- making, arming, damaging ---- */

struct crash_disk *crash_disk_create(void)
{
    struct crash_disk *d = calloc(1, sizeof *d);
    assert(d);
    d->disk.ops = &ops;
    d->capacity = -1;
    list_init(&d->inodes);
    list_init(&d->changes);
    return d;
}

void crash_disk_destroy(struct crash_disk *d)
{
    if (!d)
        return;
    cd_names_free(&d->live);
    cd_names_free(&d->durable);
    while (!list_empty(&d->changes))
        cd_change_free(LIST_ENTRY(d->changes.next, struct change, link));
    while (!list_empty(&d->inodes))
        cd_inode_free(LIST_ENTRY(d->inodes.next, struct inode, link));
    free(d);
}

struct disk *crash_disk_disk(struct crash_disk *d)
{
    return &d->disk;
}

int64_t crash_disk_last_write(const struct crash_disk *d)
{
    return d->last_bytes;
}

void crash_disk_hook(struct crash_disk *d, void (*hook)(void *arg, enum crash_op op), void *arg)
{
    d->hook = hook;
    d->hook_arg = arg;
}

uint64_t crash_disk_calls(const struct crash_disk *d, enum crash_op op)
{
    return d->calls[op];
}

void crash_disk_fail(struct crash_disk *d, enum crash_op op, uint64_t nth, uint64_t times, int code,
                     const char *part)
{
    assert(nth > 0);
    d->faults[op] =
        (struct fault){.nth = nth, .times = times, .code = code, .on = true, .forever = times == 0};
    snprintf(d->faults[op].part, sizeof d->faults[op].part, "%s", part ? part : "");
}

void crash_disk_capacity(struct crash_disk *d, int64_t bytes)
{
    d->capacity = bytes;
}

void crash_disk_time(struct crash_disk *d, int64_t wall_ms)
{
    d->wall_ms = wall_ms;
}

int64_t crash_disk_size(const struct crash_disk *d, const char *path)
{
    struct name *n = cd_name_find(d->live, path);
    return n ? n->inode->size : -1;
}

bool crash_disk_flip(struct crash_disk *d, const char *path, int64_t at, uint8_t mask)
{
    struct name *n = cd_name_find(d->live, path);
    if (!n || at >= n->inode->size)
        return false;
    n->inode->live[at] ^= mask;
    return true;
}

void crash_disk_set(struct crash_disk *d, const char *path, int64_t at, const void *p, size_t bytes)
{
    struct name *n = cd_name_find(d->live, path);
    assert(n);
    cd_change_bytes(n->inode, at, p, (int64_t)bytes);
    cd_settle(n->inode);
}

void crash_disk_resize(struct crash_disk *d, const char *path, int64_t size)
{
    struct name *n = cd_name_find(d->live, path);
    assert(n);
    cd_reserve(n->inode, size);
    n->inode->size = size;
    cd_clear_beyond(n->inode);
    cd_settle(n->inode);
}
