/* Content: bytes as programs see them, and what the platter has of them. */
#include "tests/support/sim/sim_fs.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static struct fs_sector *find_dirty(const struct fs_inode *i, int64_t number)
{
    struct fs_sector *s;
    HASH_FIND(hh, i->dirty, &number, sizeof number, s);
    return s;
}

static struct fs_sector *add_dirty(struct fs_inode *i, int64_t number)
{
    struct fs_sector *s = calloc(1, sizeof *s);
    assert(s);
    s->number = number;
    HASH_ADD(hh, i->dirty, number, sizeof s->number, s);
    return s;
}

void fs_forget_dirty(struct fs_inode *i, bool lost_too)
{
    struct fs_sector *s, *next;
    HASH_ITER (hh, i->dirty, s, next) {
        if (s->lost && !lost_too)
            continue;
        HASH_DEL(i->dirty, s);
        free(s);
    }
}

/* Bytes from..to are about to change: what the platter has of their sectors is put aside, once. */
static void put_aside(struct fs_inode *i, int64_t from, int64_t to)
{
    for (int64_t n = from / FS_SECTOR; n * FS_SECTOR < to; n++) {
        struct fs_sector *s = find_dirty(i, n);
        if (s) {
            s->lost = false; /* written anew: the next sync takes it along */
            continue;
        }
        int64_t start = n * FS_SECTOR;
        if (start >= i->durable_size)
            continue; /* the platter has nothing there */
        s = add_dirty(i, n);
        int64_t have = i->size - start < FS_SECTOR ? i->size - start : FS_SECTOR;
        if (have > 0)
            memcpy(s->old, i->data + start, (size_t)have);
    }
}

/* The bytes between the old and a larger size are zero. */
void fs_resize(struct fs *fs, struct fs_inode *i, int64_t size)
{
    assert(size >= 0);
    if (size > i->cap) {
        int64_t cap = i->cap ? i->cap : 4096;
        while (cap < size)
            cap *= 2;
        i->data = realloc(i->data, (size_t)cap);
        assert(i->data);
        i->cap = cap;
    }
    if (size > i->size)
        memset(i->data + i->size, 0, (size_t)(size - i->size));
    fs->used += size - i->size;
    i->size = size;
}

int64_t fs_write(struct fs *fs, struct fs_inode *i, const uint8_t *p, int64_t n, int64_t at)
{
    int64_t most = i->size + (fs->capacity > fs->used ? fs->capacity - fs->used : 0);
    int64_t end = at + n < most ? at + n : most;
    if (end <= at)
        return 0;
    put_aside(i, at < i->size ? at : i->size, end);
    if (end > i->size)
        fs_resize(fs, i, end);
    memcpy(i->data + at, p, (size_t)(end - at));
    return end - at;
}

void fs_truncate(struct fs *fs, struct fs_inode *i, int64_t size)
{
    if (size < i->size)
        put_aside(i, size, i->size);
    fs_resize(fs, i, size);
}

void fs_sync(struct fs_inode *i)
{
    fs_forget_dirty(i, false);
    i->durable_size = i->size;
}

void fs_sync_failed(struct fs_inode *i)
{
    int64_t first_new = (i->durable_size + FS_SECTOR - 1) / FS_SECTOR;
    for (int64_t n = first_new; n * FS_SECTOR < i->size; n++)
        if (!find_dirty(i, n))
            add_dirty(i, n); /* zeros */
    for (struct fs_sector *s = i->dirty; s; s = s->hh.next)
        s->lost = true;
    i->durable_size = i->size;
}

int64_t fs_dirty_bytes(const struct fs_inode *i)
{
    int64_t beyond = i->size > i->durable_size ? i->size - i->durable_size : 0;
    return beyond + (int64_t)HASH_COUNT(i->dirty) * FS_SECTOR;
}
