/* struct disk on the simulated file system: what calls cost, which of them fail, at which of them the process dies.
 *
 * The node's own program pays for its calls in virtual time and meets the faults; a test that looks into the disk from
 * outside does not. A program that is dead, or about to die, changes nothing any more. */
#include "tests/support/sim/sim_fs.h"
#include "tests/support/sim/sim_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fault {
    bool on;
    uint64_t after, times; /* matching calls until it strikes; strikes left, 0: for ever */
    int code;
    char *path_part;
};

struct sim_disk {
    struct disk base; /* first */
    struct sim_node *node;
    struct fs fs;
    struct list handles;
    struct sim_disk_costs costs;
    uint32_t keep;
    unsigned cuts; /* of power */
    struct fault faults[SIM_DISK_OPS];
    uint64_t calls[SIM_DISK_OPS];
    uint64_t crash_after[SIM_DISK_OPS]; /* 0: not */
    bool crash_power;
};

struct handle {
    struct disk_file base; /* first */
    struct list link;
    struct sim_disk *disk;
    struct fs_inode *inode;
    char *path;
    bool writable, holds_lock;
};

static struct sim_disk *of(struct disk *d)
{
    return (struct sim_disk *)d;
}

static struct handle *handle_of(struct disk_file *f)
{
    return (struct handle *)f;
}

/* ---- who calls, and whether it may ---- */

static bool by_program(const struct sim_disk *d)
{
    return d->node->sim->current == d->node;
}

static bool dead(const struct sim_disk *d)
{
    return by_program(d) && sim_inert(d->node);
}

static void cost(struct sim_disk *d, int64_t us, int64_t bytes)
{
    if (!by_program(d))
        return;
    d->node->cost_us += us + (d->costs.bytes_per_s > 0 ? bytes * 1000000 / d->costs.bytes_per_s : 0);
}

static void sync_cost(struct sim_disk *d, int64_t bytes)
{
    if (by_program(d)) /* a test that looks in must not move the seed's numbers */
        cost(d, d->costs.sync_us + rng_exponential(&d->node->sim->rng, d->costs.sync_jitter_us), bytes);
}

static int strike(struct fault *f, const char *path)
{
    if (!f->on || (f->path_part && !strstr(path, f->path_part)))
        return 0;
    if (f->after > 1) {
        f->after--;
        return 0;
    }
    if (f->times == 1)
        f->on = false;
    f->times -= f->times > 0;
    return f->code;
}

/* At the start of every call: 0, or the code with which it fails. *die_after: it works, and is the last thing. */
static int gate(struct sim_disk *d, enum sim_disk_op op, const char *path, bool *die_after)
{
    *die_after = false;
    if (!by_program(d))
        return 0;
    if (sim_inert(d->node))
        return -E_IO;
    d->calls[op]++;
    sim_note(d->node->sim, "disk", op, d->calls[op]);
    if (d->crash_after[op] && --d->crash_after[op] == 0) {
        if (rng_chance(&d->node->sim->rng, 500000)) {
            sim_node_doom(d->node, d->crash_power);
            return -E_IO;
        }
        *die_after = true;
    }
    return strike(&d->faults[op], path);
}

static void leave(struct sim_disk *d, bool die_after)
{
    if (die_after)
        sim_node_doom(d->node, d->crash_power);
}

/* ---- files ---- */

static struct handle *new_handle(struct sim_disk *d, struct fs_inode *inode, const char *path, bool writable)
{
    struct handle *h = calloc(1, sizeof *h);
    assert(h);
    *h = (struct handle){
        .base = {&d->base}, .disk = d, .inode = inode, .path = strdup(path), .writable = writable};
    fs_ref(inode);
    list_push(&d->handles, &h->link);
    return h;
}

static int find_or_make(struct sim_disk *d, const char *path, unsigned how, struct fs_inode **out)
{
    *out = fs_find(&d->fs, path);
    if (*out && (how & DISK_EXCLUSIVE))
        return -E_EXISTS;
    if (*out)
        return (*out)->kind == DISK_IS_FILE ? 0 : -E_INVALID;
    if (!(how & DISK_CREATE))
        return -E_NOTFOUND;
    int rc = fs_make(&d->fs, path, DISK_IS_FILE, out);
    if (rc == 0)
        (*out)->mtime_ms = sim_node_wall_ms(d->node);
    return rc;
}

static int disk_open_(struct disk *base, const char *path, unsigned how, struct disk_file **out,
                      struct err *err)
{
    struct sim_disk *d = of(base);
    struct fs_inode *inode;
    bool last;
    assert((how & DISK_WRITE) || how == DISK_READ);
    int rc = gate(d, SIM_DISK_OPEN, path, &last);
    if (rc == 0)
        rc = find_or_make(d, path, how, &inode);
    if (rc)
        return err_set(err, rc, "%s: cannot open: %s", path, err_str(rc));
    if (how & DISK_TRUNCATE)
        fs_truncate(&d->fs, inode, 0);
    cost(d, d->costs.open_us, 0);
    *out = &new_handle(d, inode, path, how & DISK_WRITE)->base;
    leave(d, last);
    return 0;
}

static void disk_close_(struct disk_file *f)
{
    struct handle *h = handle_of(f);
    if (h->holds_lock)
        h->inode->locked = false;
    list_remove(&h->link);
    fs_unref(&h->disk->fs, h->inode);
    free(h->path);
    free(h);
}

static ssize_t disk_pread_(struct disk_file *f, void *p, size_t n, int64_t at)
{
    struct handle *h = handle_of(f);
    bool last;
    assert(at >= 0);
    int rc = gate(h->disk, SIM_DISK_READ, h->path, &last);
    if (rc)
        return rc;
    int64_t have = at < h->inode->size ? h->inode->size - at : 0;
    size_t got = (uint64_t)have < n ? (size_t)have : n;
    if (got)
        memcpy(p, h->inode->data + at, got);
    cost(h->disk, h->disk->costs.write_us, (int64_t)got);
    leave(h->disk, last);
    return (ssize_t)got;
}

static ssize_t disk_pwritev_(struct disk_file *f, const struct iovec *v, int n, int64_t at)
{
    struct handle *h = handle_of(f);
    struct sim_disk *d = h->disk;
    bool last;
    assert(at >= 0 && h->writable);
    int rc = gate(d, SIM_DISK_WRITE, h->path, &last);
    if (rc)
        return rc;
    int64_t done = 0;
    for (int i = 0; i < n; i++) {
        int64_t part = (int64_t)v[i].iov_len;
        int64_t w = part ? fs_write(&d->fs, h->inode, v[i].iov_base, part, at + done) : 0;
        done += w;
        if (w < part) {
            rc = -E_NOSPACE;
            break;
        }
    }
    h->inode->mtime_ms = sim_node_wall_ms(d->node);
    cost(d, d->costs.write_us, done);
    leave(d, last);
    return rc ? rc : done;
}

static int disk_fdatasync_(struct disk_file *f)
{
    struct handle *h = handle_of(f);
    struct sim_disk *d = h->disk;
    bool last;
    int rc = gate(d, SIM_DISK_SYNC, h->path, &last);
    if (rc && dead(d))
        return rc;
    sync_cost(d, fs_dirty_bytes(h->inode));
    if (rc) {
        fs_sync_failed(h->inode);
    } else {
        fs_sync(h->inode);
        fs_sync_name(&d->fs, h->inode);
    }
    leave(d, last);
    return rc;
}

static int disk_truncate_(struct disk_file *f, int64_t size)
{
    struct handle *h = handle_of(f);
    bool last;
    assert(size >= 0 && h->writable);
    int rc = gate(h->disk, SIM_DISK_TRUNCATE, h->path, &last);
    if (rc)
        return rc;
    fs_truncate(&h->disk->fs, h->inode, size);
    h->inode->mtime_ms = sim_node_wall_ms(h->disk->node);
    cost(h->disk, h->disk->costs.write_us, 0);
    leave(h->disk, last);
    return 0;
}

static int disk_allocate_(struct disk_file *f, int64_t at, int64_t n)
{
    struct handle *h = handle_of(f);
    struct fs *fs = &h->disk->fs;
    int64_t more = at + n - h->inode->size;
    return dead(h->disk) ? -E_IO : more > fs->capacity - fs->used ? -E_NOSPACE : 0;
}

static int64_t disk_size_(struct disk_file *f)
{
    return dead(handle_of(f)->disk) ? -E_IO : handle_of(f)->inode->size;
}

static int disk_fd_(struct disk_file *f)
{
    (void)f;
    return -1;
}

/* ---- names ---- */

/* One call on names: gate, cost, what is done, end. */
static int on_names(struct sim_disk *d, enum sim_disk_op op, const char *path, const char *to)
{
    bool last;
    int rc = gate(d, op, path, &last);
    if (rc)
        return rc;
    cost(d, d->costs.open_us, 0);
    switch (op) {
    case SIM_DISK_RENAME: rc = fs_rename(&d->fs, path, to); break;
    case SIM_DISK_MKDIR: rc = fs_make(&d->fs, path, DISK_IS_DIR, NULL); break;
    default: rc = fs_remove(&d->fs, path, to ? DISK_IS_DIR : DISK_IS_FILE); break;
    }
    leave(d, last);
    return rc;
}

static int disk_rename_(struct disk *d, const char *from, const char *to)
{
    return on_names(of(d), SIM_DISK_RENAME, from, to);
}

static int disk_unlink_(struct disk *d, const char *path)
{
    return on_names(of(d), SIM_DISK_UNLINK, path, NULL);
}

static int disk_mkdir_(struct disk *d, const char *path)
{
    return on_names(of(d), SIM_DISK_MKDIR, path, NULL);
}

static int disk_rmdir_(struct disk *d, const char *path)
{
    return on_names(of(d), SIM_DISK_UNLINK, path, "folder");
}

static int disk_sync_dir_(struct disk *base, const char *path)
{
    struct sim_disk *d = of(base);
    bool last;
    int rc = gate(d, SIM_DISK_SYNC_DIR, path, &last);
    if (rc)
        return rc;
    struct fs_inode *dir = fs_find(&d->fs, path);
    if (!dir || dir->kind != DISK_IS_DIR)
        return -E_NOTFOUND;
    sync_cost(d, 0);
    fs_sync_dir(&d->fs, dir);
    leave(d, last);
    return 0;
}

static int disk_sync_all_(struct disk *base, const char *path)
{
    struct sim_disk *d = of(base);
    bool last;
    int rc = gate(d, SIM_DISK_SYNC_ALL, path, &last);
    if (rc)
        return rc;
    sync_cost(d, 0);
    fs_sync_all(&d->fs);
    leave(d, last);
    return 0;
}

static int disk_list_(struct disk *base, const char *path, void (*each)(void *arg, const char *name),
                      void *arg)
{
    struct sim_disk *d = of(base);
    struct fs_inode *dir = fs_find(&d->fs, path);
    if (dead(d))
        return -E_IO;
    if (!dir || dir->kind != DISK_IS_DIR)
        return -E_NOTFOUND;
    unsigned n = HASH_COUNT(dir->entries), i = 0;
    char(*names)[FS_NAME_MAX] = calloc(n ? n : 1, sizeof *names); /* `each` may change the folder */
    assert(names);
    for (struct fs_entry *e = dir->entries; e; e = e->hh.next)
        memcpy(names[i++], e->name, FS_NAME_MAX);
    unsigned start = n && by_program(d) ? (unsigned)rng_below(&d->node->sim->rng, n) : 0; /* in no order */
    for (i = 0; i < n; i++)
        each(arg, names[(start + i) % n]);
    free(names);
    return 0;
}

static enum disk_kind disk_kind_(struct disk *base, const char *path)
{
    struct fs_inode *i = fs_find(&of(base)->fs, path);
    return i ? i->kind : DISK_NONE;
}

static int disk_lock_(struct disk *base, const char *path, struct disk_file **out)
{
    struct disk_file *f;
    int rc = disk_open_(base, path, DISK_WRITE | DISK_CREATE, &f, NULL);
    if (rc)
        return rc;
    struct handle *h = handle_of(f);
    if (h->inode->locked) {
        disk_close_(f);
        return -E_BUSY;
    }
    h->inode->locked = h->holds_lock = true;
    *out = f;
    return 0;
}

static int64_t disk_free_bytes_(struct disk *base, const char *path)
{
    struct fs *fs = &of(base)->fs;
    if (!fs_find(fs, path))
        return -E_NOTFOUND;
    return fs->capacity > fs->used ? fs->capacity - fs->used : 0;
}

static int64_t disk_mtime_ms_(struct disk *base, const char *path)
{
    struct fs_inode *i = fs_find(&of(base)->fs, path);
    return i ? i->mtime_ms : -E_NOTFOUND;
}

static int disk_mounted_(struct disk *base, const char *path, char out[DISK_MOUNT_TEXT])
{
    (void)path;
    snprintf(out, DISK_MOUNT_TEXT, "sim, %u cuts", of(base)->cuts);
    return 0;
}

static const struct disk_ops sim_disk_ops = {
    .open = disk_open_,
    .close = disk_close_,
    .pread = disk_pread_,
    .pwritev = disk_pwritev_,
    .fdatasync = disk_fdatasync_,
    .truncate = disk_truncate_,
    .allocate = disk_allocate_,
    .size = disk_size_,
    .fd = disk_fd_,
    .rename = disk_rename_,
    .unlink = disk_unlink_,
    .mkdir = disk_mkdir_,
    .rmdir = disk_rmdir_,
    .sync_dir = disk_sync_dir_,
    .sync_all = disk_sync_all_,
    .list = disk_list_,
    .kind = disk_kind_,
    .lock = disk_lock_,
    .free_bytes = disk_free_bytes_,
    .mtime_ms = disk_mtime_ms_,
    .mounted = disk_mounted_,
};

/* ---- with the node ---- */

struct sim_disk *sim_disk_new(struct sim_node *n, int64_t bytes)
{
    struct sim_disk *d = calloc(1, sizeof *d);
    assert(d);
    *d = (struct sim_disk){.base = {&sim_disk_ops}, .node = n, .keep = 500000};
    d->costs = (struct sim_disk_costs){
        .open_us = 20, .write_us = 5, .bytes_per_s = 1000000000, .sync_us = 120, .sync_jitter_us = 40};
    fs_init(&d->fs, bytes);
    list_init(&d->handles);
    return d;
}

void sim_disk_close_handles(struct sim_disk *d)
{
    while (!list_empty(&d->handles))
        disk_close_(&LIST_ENTRY(d->handles.next, struct handle, link)->base);
}

void sim_disk_free(struct sim_disk *d)
{
    sim_disk_close_handles(d);
    sim_disk_heal(d->node);
    fs_fini(&d->fs);
    free(d);
}

struct disk *sim_disk_vtable(struct sim_disk *d)
{
    return &d->base;
}

void sim_disk_crash(struct sim_disk *d)
{
    assert(list_empty(&d->handles));
    d->cuts++;
    fs_crash(&d->fs, &d->node->sim->rng, d->keep);
}

/* ---- the test's hold on it ---- */

void sim_disk_costs(struct sim_node *n, const struct sim_disk_costs *c)
{
    n->disk->costs = *c;
}

void sim_disk_fail(struct sim_node *n, enum sim_disk_op op, uint64_t nth, uint64_t times, int code,
                   const char *path_part)
{
    assert(op < SIM_DISK_OPS && nth > 0 && code < 0);
    struct fault *f = &n->disk->faults[op];
    free(f->path_part);
    *f = (struct fault){true, nth, times, code, path_part ? strdup(path_part) : NULL};
}

void sim_disk_heal(struct sim_node *n)
{
    for (int op = 0; op < SIM_DISK_OPS; op++) {
        free(n->disk->faults[op].path_part);
        n->disk->faults[op] = (struct fault){0};
    }
}

uint64_t sim_disk_calls(const struct sim_node *n, enum sim_disk_op op)
{
    assert(op < SIM_DISK_OPS);
    return n->disk->calls[op];
}

void sim_crash_at(struct sim_node *n, enum sim_disk_op op, uint64_t nth, bool power)
{
    assert(op < SIM_DISK_OPS);
    n->disk->crash_after[op] = nth;
    n->disk->crash_power = power;
}

void sim_disk_capacity(struct sim_node *n, int64_t bytes)
{
    n->disk->fs.capacity = bytes;
}

void sim_disk_keep(struct sim_node *n, uint32_t per_million)
{
    assert(per_million <= 1000000);
    n->disk->keep = per_million;
}

void sim_disk_flip(struct sim_node *n, const char *path, int64_t at, uint8_t mask)
{
    struct fs_inode *i = fs_find(&n->disk->fs, path);
    assert(i && i->kind == DISK_IS_FILE && at >= 0 && at < i->size);
    i->data[at] ^= mask;
}

void sim_disk_copy(struct sim_node *to, struct sim_node *from)
{
    assert(!to->up && list_empty(&to->disk->handles));
    fs_copy(&to->disk->fs, &from->disk->fs);
}
