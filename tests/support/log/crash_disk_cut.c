/* Another disk with what a power cut, or a kill, may leave of this one. */
#include "tests/support/log/crash_disk_internal.h"

static struct inode *inode_copy(struct crash_disk *to, const struct inode *from, int64_t size)
{
    struct inode *i = cd_inode_new(to, from->is_dir);
    i->mtime = from->mtime;
    cd_reserve(i, from->room);
    if (from->room)
        memcpy(i->live, from->live, (size_t)from->room);
    i->size = size;
    cd_settle(i);
    return i;
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
    cd_clear_beyond(i);
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
        if (!cd_name_find(map, parent))
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
        cd_name_put(&c->live, n->path, inode_cut(c, n->inode, r, keep_per_million));
    list_each (at, &d->changes) {
        struct change *change = LIST_ENTRY(at, struct change, link);
        if (rng_chance(r, keep_per_million))
            cd_change_apply(&c->live, change, inode_cut(c, change->inode, r, keep_per_million));
    }
    drop_unreachable(c);
    for (struct name *n = c->live; n; n = n->hh.next)
        cd_name_put(&c->durable, n->path, n->inode);
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
        cd_clear_beyond(i->copy);
        cd_name_put(&c->live, n->path, n->inode->copy);
        cd_name_put(&c->durable, n->path, n->inode->copy);
    }
    return c;
}
