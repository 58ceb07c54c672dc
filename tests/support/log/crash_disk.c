/* size: one model, told in one piece */
#include "tests/support/log/crash_disk.h"

#include "base/core/hash.h"
#include "base/core/list.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define SECTOR 512

/* All contents a sector had since the last sync, the synced one first. */
struct sector {
    UT_hash_handle hh;
    int64_t index;
    unsigned n;
    uint8_t (*v)[SECTOR];
};

struct inode {
    struct list link;
    bool is_dir;
    uint8_t *live;
    int64_t size, room;
    struct sector *dirty; /* hash by index */
    int64_t *sizes;       /* since the last sync, the synced one first */
    unsigned sizes_n;
    int64_t mtime;
    bool locked;
    struct inode *copy; /* while a disk is copied */
};

struct name {
    UT_hash_handle hh;
    struct inode *inode;
    char path[];
};

enum change_kind { MADE, MOVED, GONE };

/* A name changed and its folder was not synced since. */
struct change {
    struct list link;
    enum change_kind kind;
    struct inode *inode;
    char *path, *to;
};

struct crash_disk {
    struct disk disk;
    struct list inodes;
    struct name *live, *durable; /* hashes by path */
    struct list changes;
    void (*hook)(void *arg, enum crash_op op);
    void *hook_arg;
    uint64_t calls[CRASH_OPS];
    struct fault {
        uint64_t nth, times;
        int code;
        bool on, forever;
        char part[128];
    } faults[CRASH_OPS];
    int64_t capacity, wall_ms;
    unsigned cuts;
    struct inode *last_inode; /* of the last write */
    int64_t last_at, last_bytes;
};

struct crash_file {
    struct disk_file file;
    struct crash_disk *d;
    struct inode *inode;
    char *path;
    bool lock;
};

static struct crash_disk *of(struct disk *d)
{
    return (struct crash_disk *)(void *)d;
}

static struct crash_file *file_of(struct disk_file *f)
{
    return (struct crash_file *)(void *)f;
}

static char *copy_text(const char *text)
{
    char *p = malloc(strlen(text) + 1);
    assert(p);
    return memcpy(p, text, strlen(text) + 1);
}

/* ---- names ---- */

static struct name *name_find(struct name *map, const char *path)
{
    struct name *n;
    HASH_FIND_STR(map, path, n);
    return n;
}

static void name_put(struct name **map, const char *path, struct inode *inode)
{
    struct name *n = name_find(*map, path);
    if (!n) {
        n = malloc(sizeof *n + strlen(path) + 1);
        assert(n);
        memcpy(n->path, path, strlen(path) + 1);
        HASH_ADD_STR(*map, path, n);
    }
    n->inode = inode;
}

static void name_drop(struct name **map, const char *path)
{
    struct name *n = name_find(*map, path);
    if (n) {
        HASH_DEL(*map, n);
        free(n);
    }
}

static void names_free(struct name **map)
{
    struct name *n, *next;
    HASH_ITER (hh, *map, n, next) {
        HASH_DEL(*map, n);
        free(n);
    }
}

/* With everything below it when it is a folder. */
static void name_move(struct name **map, const char *from, const char *to)
{
    struct name *n, *next;
    size_t len = strlen(from);
    struct {
        char *path;
        struct inode *inode;
    } moved[512];
    unsigned count = 0;
    HASH_ITER (hh, *map, n, next) {
        if (strncmp(n->path, from, len) != 0 || (n->path[len] && n->path[len] != '/'))
            continue;
        char path[1024];
        snprintf(path, sizeof path, "%s%s", to, n->path + len);
        assert(count < 512);
        moved[count].path = copy_text(path);
        moved[count++].inode = n->inode;
        HASH_DEL(*map, n);
        free(n);
    }
    for (unsigned i = 0; i < count; i++) {
        name_put(map, moved[i].path, moved[i].inode);
        free(moved[i].path);
    }
}

static void change_add(struct crash_disk *d, enum change_kind kind, const char *path, const char *to,
                       struct inode *inode)
{
    struct change *c = calloc(1, sizeof *c);
    assert(c);
    *c = (struct change){
        .kind = kind, .inode = inode, .path = copy_text(path), .to = to ? copy_text(to) : NULL};
    list_push(&d->changes, &c->link);
}

static void change_free(struct change *c)
{
    list_remove(&c->link);
    free(c->path);
    free(c->to);
    free(c);
}

static void change_apply(struct name **map, const struct change *c, struct inode *inode)
{
    struct name *n;
    switch (c->kind) {
    case MADE: name_put(map, c->path, inode); break;
    case GONE:
        n = name_find(*map, c->path);
        if (n && n->inode == inode)
            name_drop(map, c->path);
        break;
    case MOVED:
        if (inode->is_dir) {
            if (name_find(*map, c->path))
                name_move(map, c->path, c->to);
            break;
        }
        n = name_find(*map, c->path);
        if (n && n->inode == inode)
            name_drop(map, c->path);
        name_put(map, c->to, inode);
        break;
    }
}

static bool in_dir(const char *path, const char *dir)
{
    size_t n = strcmp(dir, "/") == 0 ? 0 : strlen(dir);
    return strncmp(path, dir, n) == 0 && path[n] == '/' && !strchr(path + n + 1, '/');
}

/* ---- inodes ---- */

static struct inode *inode_new(struct crash_disk *d, bool is_dir)
{
    struct inode *i = calloc(1, sizeof *i);
    assert(i);
    i->is_dir = is_dir;
    i->sizes = calloc(1, sizeof *i->sizes);
    i->sizes_n = 1;
    i->mtime = d->wall_ms;
    list_push(&d->inodes, &i->link);
    return i;
}

static void sectors_free(struct inode *i)
{
    struct sector *s, *next;
    HASH_ITER (hh, i->dirty, s, next) {
        HASH_DEL(i->dirty, s);
        free(s->v);
        free(s);
    }
}

static void inode_free(struct inode *i)
{
    sectors_free(i);
    free(i->live);
    free(i->sizes);
    list_remove(&i->link);
    free(i);
}

static void reserve(struct inode *i, int64_t size)
{
    size = (size + SECTOR - 1) / SECTOR * SECTOR;
    if (size <= i->room)
        return;
    int64_t room = i->room * 2 > size ? i->room * 2 : size;
    i->live = realloc(i->live, (size_t)room);
    assert(i->live);
    memset(i->live + i->room, 0, (size_t)(room - i->room));
    i->room = room;
}

static void version_push(struct sector *s, const uint8_t *content)
{
    if (s->n > 0 && memcmp(s->v[s->n - 1], content, SECTOR) == 0)
        return; /* written again: no other state */
    s->v = realloc(s->v, (s->n + 1) * SECTOR);
    assert(s->v);
    memcpy(s->v[s->n++], content, SECTOR);
}

/* Before a change: the synced content is kept; after it: the new one is a version. */
static void touch(struct inode *i, int64_t at, int64_t n, bool after)
{
    for (int64_t index = at / SECTOR; n > 0 && index <= (at + n - 1) / SECTOR; index++) {
        struct sector *s;
        HASH_FIND(hh, i->dirty, &index, sizeof index, s);
        if (!s) {
            assert(!after);
            s = calloc(1, sizeof *s);
            assert(s);
            s->index = index;
            HASH_ADD(hh, i->dirty, index, sizeof index, s);
            version_push(s, i->live + index * SECTOR);
        }
        if (after)
            version_push(s, i->live + index * SECTOR);
    }
}

static void size_set(struct inode *i, int64_t size)
{
    if (size == i->size)
        return;
    i->size = size;
    i->sizes = realloc(i->sizes, (i->sizes_n + 1) * sizeof *i->sizes);
    assert(i->sizes);
    i->sizes[i->sizes_n++] = size;
}

static void change_bytes(struct inode *i, int64_t at, const void *p, int64_t n)
{
    if (n == 0)
        return;
    reserve(i, at + n);
    touch(i, at, n, false);
    if (p)
        memcpy(i->live + at, p, (size_t)n);
    else
        memset(i->live + at, 0, (size_t)n);
    touch(i, at, n, true);
    if (p && at + n > i->size)
        size_set(i, at + n);
}

static void settle(struct inode *i)
{
    sectors_free(i);
    i->sizes_n = 1;
    i->sizes[0] = i->size;
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
    struct name *n = name_find(d->live, path);
    bool made = false;
    if (n && n->inode->is_dir)
        return err_set(err, -E_INVALID, "%s is a folder", path);
    if (n && (how & DISK_EXCLUSIVE))
        return err_set(err, -E_EXISTS, "%s is there", path);
    if (!n) {
        if (!(how & DISK_CREATE))
            return err_set(err, -E_NOTFOUND, "%s is not there", path);
        struct inode *i = inode_new(d, false);
        name_put(&d->live, path, i);
        change_add(d, MADE, path, NULL, i);
        n = name_find(d->live, path);
        made = true;
    }
    struct crash_file *f = calloc(1, sizeof *f);
    assert(f);
    f->file.disk = disk;
    f->d = d;
    f->inode = n->inode;
    f->path = copy_text(path);
    *out = &f->file;
    if ((how & DISK_TRUNCATE) && f->inode->size > 0) {
        change_bytes(f->inode, 0, NULL, f->inode->size);
        size_set(f->inode, 0);
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
        change_bytes(f->inode, at, all, fits);
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
            change_apply(&d->durable, c, c->inode);
            change_free(c);
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
        change_bytes(f->inode, size, NULL, f->inode->size - size);
    else
        reserve(f->inode, size);
    size_set(f->inode, size);
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
    struct name *n = name_find(d->live, from);
    if (rc || !n)
        return rc ? rc : -E_NOTFOUND;
    struct inode *i = n->inode;
    change_add(d, MOVED, from, to, i);
    if (i->is_dir)
        name_move(&d->live, from, to);
    else {
        name_drop(&d->live, from);
        name_put(&d->live, to, i);
    }
    changed(d, CRASH_RENAME);
    return 0;
}

static int op_unlink(struct disk *disk, const char *path)
{
    struct crash_disk *d = of(disk);
    int rc = step(d, CRASH_UNLINK, path);
    struct name *n = name_find(d->live, path);
    if (rc || !n || n->inode->is_dir)
        return rc ? rc : -E_NOTFOUND;
    change_add(d, GONE, path, NULL, n->inode);
    name_drop(&d->live, path);
    changed(d, CRASH_UNLINK);
    return 0;
}

static int op_mkdir(struct disk *disk, const char *path)
{
    struct crash_disk *d = of(disk);
    int rc = step(d, CRASH_MKDIR, path);
    if (rc || name_find(d->live, path))
        return rc ? rc : -E_EXISTS;
    struct inode *i = inode_new(d, true);
    name_put(&d->live, path, i);
    change_add(d, MADE, path, NULL, i);
    changed(d, CRASH_MKDIR);
    return 0;
}

static int op_rmdir(struct disk *disk, const char *path)
{
    struct crash_disk *d = of(disk);
    struct name *n = name_find(d->live, path);
    if (!n)
        return -E_NOTFOUND;
    change_add(d, GONE, path, NULL, n->inode);
    name_drop(&d->live, path);
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
        if (in_dir(c->path, path)) {
            change_apply(&d->durable, c, c->inode);
            change_free(c);
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
        change_apply(&d->durable, c, c->inode);
        change_free(c);
    }
    changed(d, CRASH_SYNC_ALL);
    return 0;
}

static int op_list(struct disk *disk, const char *path, void (*each)(void *arg, const char *name), void *arg)
{
    struct crash_disk *d = of(disk);
    struct name *n, *next;
    n = name_find(d->live, path);
    if (!n || !n->inode->is_dir)
        return -E_NOTFOUND;
    HASH_ITER (hh, d->live, n, next) {
        if (in_dir(n->path, path))
            each(arg, n->path + strlen(path) + 1);
    }
    return 0;
}

static enum disk_kind op_kind(struct disk *disk, const char *path)
{
    struct name *n = name_find(of(disk)->live, path);
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
    struct name *n = name_find(of(disk)->live, path);
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

/* ---- making, copying, cutting ---- */

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
    names_free(&d->live);
    names_free(&d->durable);
    while (!list_empty(&d->changes))
        change_free(LIST_ENTRY(d->changes.next, struct change, link));
    while (!list_empty(&d->inodes))
        inode_free(LIST_ENTRY(d->inodes.next, struct inode, link));
    free(d);
}

struct disk *crash_disk_disk(struct crash_disk *d)
{
    return &d->disk;
}

static struct inode *inode_copy(struct crash_disk *to, const struct inode *from, int64_t size)
{
    struct inode *i = inode_new(to, from->is_dir);
    i->mtime = from->mtime;
    reserve(i, from->room);
    if (from->room)
        memcpy(i->live, from->live, (size_t)from->room);
    i->size = size;
    settle(i);
    return i;
}

/* Bytes beyond the size read as zeroes should the file grow again. */
static void clear_beyond(struct inode *i)
{
    if (i->room > i->size)
        memset(i->live + i->size, 0, (size_t)(i->room - i->size));
}

/* Once per cut, and only what has a name: most inodes of a long run are of files that are gone. */
static struct inode *inode_cut(struct crash_disk *to, struct inode *from, struct rng *r, uint32_t keep)
{
    if (from->copy)
        return from->copy;
    int64_t size = from->sizes[0];
    if (from->sizes_n > 1 && rng_chance(r, keep))
        size = from->sizes[1 + rng_below(r, from->sizes_n - 1)];
    struct inode *i = from->copy = inode_copy(to, from, size);
    struct sector *s, *next;
    HASH_ITER (hh, from->dirty, s, next) {
        unsigned version = s->n > 1 && rng_chance(r, keep) ? 1 + (unsigned)rng_below(r, s->n - 1) : 0;
        memcpy(i->live + s->index * SECTOR, s->v[version], SECTOR);
    }
    clear_beyond(i);
    return i;
}

static void copies_forget(const struct crash_disk *d)
{
    list_each (at, &d->inodes)
        LIST_ENTRY(at, struct inode, link)->copy = NULL;
}

/* What lies in a folder that is not there is not there. */
static bool reachable(struct name *map, const char *path)
{
    char parent[1024];
    snprintf(parent, sizeof parent, "%s", path);
    for (char *slash = strrchr(parent, '/'); slash && slash != parent; slash = strrchr(parent, '/')) {
        *slash = 0;
        if (!name_find(map, parent))
            return false;
    }
    return true;
}

static void drop_unreachable(struct crash_disk *d)
{
    struct name *n, *next;
    HASH_ITER (hh, d->live, n, next) {
        if (!reachable(d->live, n->path)) {
            HASH_DEL(d->live, n);
            free(n);
        }
    }
}

struct crash_disk *crash_disk_cut(const struct crash_disk *d, struct rng *r, uint32_t keep_per_million)
{
    struct crash_disk *c = crash_disk_create();
    c->wall_ms = d->wall_ms;
    c->cuts = d->cuts + 1;
    copies_forget(d);
    for (struct name *n = d->durable; n; n = n->hh.next)
        name_put(&c->live, n->path, inode_cut(c, n->inode, r, keep_per_million));
    list_each (at, &d->changes) {
        struct change *change = LIST_ENTRY(at, struct change, link);
        if (rng_chance(r, keep_per_million))
            change_apply(&c->live, change, inode_cut(c, change->inode, r, keep_per_million));
    }
    drop_unreachable(c);
    for (struct name *n = c->live; n; n = n->hh.next)
        name_put(&c->durable, n->path, n->inode);
    return c;
}

struct crash_disk *crash_disk_kill(const struct crash_disk *d, int64_t last_write_bytes)
{
    struct crash_disk *c = crash_disk_create();
    c->wall_ms = d->wall_ms;
    c->cuts = d->cuts;
    copies_forget(d);
    for (struct name *n = d->live; n; n = n->hh.next) {
        struct inode *i = n->inode;
        int64_t size = i->size;
        if (i == d->last_inode && last_write_bytes >= 0 && last_write_bytes < d->last_bytes)
            size = d->last_at + last_write_bytes;
        i->copy = inode_copy(c, i, size);
        clear_beyond(i->copy);
        name_put(&c->live, n->path, n->inode->copy);
        name_put(&c->durable, n->path, n->inode->copy);
    }
    return c;
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
    struct name *n = name_find(d->live, path);
    return n ? n->inode->size : -1;
}

bool crash_disk_flip(struct crash_disk *d, const char *path, int64_t at, uint8_t mask)
{
    struct name *n = name_find(d->live, path);
    if (!n || at >= n->inode->size)
        return false;
    n->inode->live[at] ^= mask;
    return true;
}

void crash_disk_set(struct crash_disk *d, const char *path, int64_t at, const void *p, size_t bytes)
{
    struct name *n = name_find(d->live, path);
    assert(n);
    change_bytes(n->inode, at, p, (int64_t)bytes);
    settle(n->inode);
}

void crash_disk_resize(struct crash_disk *d, const char *path, int64_t size)
{
    struct name *n = name_find(d->live, path);
    assert(n);
    reserve(n->inode, size);
    n->inode->size = size;
    clear_beyond(n->inode);
    settle(n->inode);
}
