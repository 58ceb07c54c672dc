/* The power cut. Names first, newest change first: a change that no kept newer one stands on may be undone. Then every
 * file that still has a name: each sector that no sync has covered is the new or the old one; a size that no sync has
 * covered is the new one, the old one, or where the last kept sector ends. */
#include "tests/support/sim/sim_fs.h"

#include <assert.h>
#include <string.h>

static void undo(struct fs *fs, struct fs_change *c)
{
    switch (c->kind) {
    case FS_ADD: fs_drop_entry(fs, c->dir[0], c->name[0]); break;
    case FS_REMOVE: fs_add_entry(c->dir[0], c->name[0], c->inode); break;
    case FS_RENAME:
        fs_drop_entry(fs, c->dir[1], c->name[1]);
        if (c->replaced)
            fs_add_entry(c->dir[1], c->name[1], c->replaced);
        fs_add_entry(c->dir[0], c->name[0], c->inode);
        break;
    }
}

static bool needed_by_newer(const struct fs *fs, const struct fs_change *c)
{
    for (const struct list *at = c->link.next; at != &fs->changes; at = at->next) {
        const struct fs_change *newer = LIST_ENTRY(at, struct fs_change, link);
        if (newer->kept && fs_depends(newer, c))
            return true;
    }
    return false;
}

static void crash_names(struct fs *fs, struct rng *r, uint32_t keep)
{
    for (struct list *at = fs->changes.prev; at != &fs->changes; at = at->prev) {
        struct fs_change *c = LIST_ENTRY(at, struct fs_change, link);
        c->kept = rng_chance(r, keep) || needed_by_newer(fs, c);
        if (!c->kept)
            undo(fs, c);
    }
    while (!list_empty(&fs->changes))
        fs_drop_change(fs, LIST_ENTRY(fs->changes.next, struct fs_change, link));
}

/* Sectors that the platter has in an older version; from `cut_at` on it has kept what a truncation took away. */
static void crash_old_sectors(struct fs_inode *i, int64_t cut_at, struct rng *r, uint32_t keep)
{
    for (struct fs_sector *s = i->dirty; s; s = s->hh.next) {
        int64_t start = s->number * FS_SECTOR;
        bool kept = rng_chance(r, keep) && start + FS_SECTOR <= cut_at;
        if (start >= i->size || (kept && !s->lost))
            continue;
        int64_t n = i->size - start < FS_SECTOR ? i->size - start : FS_SECTOR;
        memcpy(i->data + start, s->old, (size_t)n);
    }
}

/* Sectors beyond what the platter has of the file; returns where the last kept one ends. */
static int64_t crash_new_sectors(struct fs_inode *i, struct rng *r, uint32_t keep)
{
    int64_t end = i->durable_size;
    for (int64_t at = (i->durable_size + FS_SECTOR - 1) / FS_SECTOR * FS_SECTOR; at < i->size;
         at += FS_SECTOR) {
        int64_t n = i->size - at < FS_SECTOR ? i->size - at : FS_SECTOR;
        if (rng_chance(r, keep))
            end = at + n;
        else
            memset(i->data + at, 0, (size_t)n);
    }
    return end;
}

static void crash_file(struct fs *fs, struct fs_inode *i, struct rng *r, uint32_t keep)
{
    int64_t new_size = i->size, old_size = i->durable_size;
    bool undone = new_size < old_size && !rng_chance(r, keep);
    if (undone)
        fs_resize(fs, i, old_size); /* the truncation never happened: what it took away is put back */
    crash_old_sectors(i, undone ? new_size : INT64_MAX, r, keep);
    if (new_size > old_size) {
        int64_t kept_end = crash_new_sectors(i, r, keep);
        if (keep == 0)
            fs_resize(fs, i, old_size);
        else if (rng_chance(r, 500000))
            fs_resize(fs, i, kept_end);
    }
    fs_forget_dirty(i, true);
    i->durable_size = i->size;
}

static void crash_folder(struct fs *fs, struct fs_inode *dir, struct rng *r, uint32_t keep)
{
    for (struct fs_entry *e = dir->entries; e; e = e->hh.next) {
        e->inode->locked = false;
        if (e->inode->kind == DISK_IS_DIR)
            crash_folder(fs, e->inode, r, keep);
        else
            crash_file(fs, e->inode, r, keep);
    }
}

void fs_crash(struct fs *fs, struct rng *r, uint32_t keep_per_million)
{
    crash_names(fs, r, keep_per_million);
    crash_folder(fs, fs->root, r, keep_per_million);
    assert(list_empty(&fs->changes));
}
