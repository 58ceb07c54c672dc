/* Names: the tree, and the list of its changes that no sync has made durable. */
#include "tests/support/sim/sim_fs.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fs_inode *new_inode(enum disk_kind kind)
{
    struct fs_inode *i = calloc(1, sizeof *i);
    assert(i);
    i->kind = kind;
    return i;
}

void fs_ref(struct fs_inode *i)
{
    i->refs++;
}

void fs_unref(struct fs *fs, struct fs_inode *i)
{
    assert(i->refs > 0);
    if (--i->refs > 0)
        return;
    struct fs_entry *e, *next;
    HASH_ITER (hh, i->entries, e, next) {
        HASH_DEL(i->entries, e);
        fs_unref(fs, e->inode);
        free(e);
    }
    fs_forget_dirty(i, true);
    fs->used -= i->size;
    free(i->data);
    free(i);
}

void fs_init(struct fs *fs, int64_t capacity)
{
    *fs = (struct fs){.capacity = capacity, .root = new_inode(DISK_IS_DIR)};
    fs_ref(fs->root);
    list_init(&fs->changes);
}

void fs_fini(struct fs *fs)
{
    while (!list_empty(&fs->changes))
        fs_drop_change(fs, LIST_ENTRY(fs->changes.next, struct fs_change, link));
    fs_unref(fs, fs->root);
    assert(fs->used == 0);
}

/* ---- paths ---- */

struct fs_inode *fs_entry_of(struct fs_inode *dir, const char *name)
{
    struct fs_entry *e;
    HASH_FIND_STR(dir->entries, name, e);
    return e ? e->inode : NULL;
}

struct fs_inode *fs_folder(struct fs *fs, const char *path, char name[FS_NAME_MAX])
{
    struct fs_inode *at = fs->root;
    name[0] = 0;
    while (*path) {
        size_t n = strcspn(path, "/");
        if (n >= FS_NAME_MAX || (n == 2 && memcmp(path, "..", 2) == 0))
            return NULL;
        if (n > 0 && !(n == 1 && path[0] == '.')) {
            if (name[0] && !(at = fs_entry_of(at, name)))
                return NULL;
            if (at->kind != DISK_IS_DIR)
                return NULL;
            memcpy(name, path, n);
            name[n] = 0;
        }
        path += n + (path[n] == '/');
    }
    return at;
}

struct fs_inode *fs_find(struct fs *fs, const char *path)
{
    char name[FS_NAME_MAX];
    struct fs_inode *dir = fs_folder(fs, path, name);
    return !dir || !name[0] ? dir : fs_entry_of(dir, name);
}

void fs_add_entry(struct fs_inode *dir, const char *name, struct fs_inode *inode)
{
    assert(dir->kind == DISK_IS_DIR && !fs_entry_of(dir, name));
    struct fs_entry *e = calloc(1, sizeof *e);
    assert(e);
    snprintf(e->name, sizeof e->name, "%s", name);
    e->inode = inode;
    fs_ref(inode);
    HASH_ADD_STR(dir->entries, name, e);
}

void fs_drop_entry(struct fs *fs, struct fs_inode *dir, const char *name)
{
    struct fs_entry *e;
    HASH_FIND_STR(dir->entries, name, e);
    assert(e);
    HASH_DEL(dir->entries, e);
    fs_unref(fs, e->inode);
    free(e);
}

/* ---- changes ---- */

static struct fs_change *note_change(struct fs *fs, enum fs_change_kind kind, struct fs_inode *dir,
                                     const char *name, struct fs_inode *inode)
{
    struct fs_change *c = calloc(1, sizeof *c);
    assert(c);
    c->kind = kind;
    c->dir[0] = dir;
    c->inode = inode;
    snprintf(c->name[0], sizeof c->name[0], "%s", name);
    fs_ref(dir);
    fs_ref(inode);
    list_push(&fs->changes, &c->link);
    return c;
}

void fs_drop_change(struct fs *fs, struct fs_change *c)
{
    list_remove(&c->link);
    fs_unref(fs, c->inode);
    if (c->replaced)
        fs_unref(fs, c->replaced);
    for (int i = 0; i < 2; i++)
        if (c->dir[i])
            fs_unref(fs, c->dir[i]);
    free(c);
}

bool fs_depends(const struct fs_change *newer, const struct fs_change *older)
{
    if (newer->inode == older->inode || newer->dir[0] == older->inode || newer->dir[1] == older->inode)
        return true;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            if (newer->dir[i] && newer->dir[i] == older->dir[j] &&
                strcmp(newer->name[i], older->name[j]) == 0)
                return true;
    return false;
}

/* And with it what it stands on. */
static void make_durable(struct fs *fs, struct fs_change *c)
{
    for (struct list *at = c->link.prev; at != &fs->changes;) {
        struct fs_change *older = LIST_ENTRY(at, struct fs_change, link);
        at = at->prev;
        if (fs_depends(c, older)) {
            make_durable(fs, older);
            at = c->link.prev; /* several may have gone */
        }
    }
    fs_drop_change(fs, c);
}

void fs_sync_dir(struct fs *fs, struct fs_inode *dir)
{
    for (struct list *at = fs->changes.prev; at != &fs->changes;) {
        struct fs_change *c = LIST_ENTRY(at, struct fs_change, link);
        at = at->prev;
        if (c->dir[0] == dir || c->dir[1] == dir || (c->kind == FS_ADD && c->inode == dir)) {
            make_durable(fs, c);
            at = fs->changes.prev;
        }
    }
}

static void sync_tree(struct fs_inode *i)
{
    if (i->kind == DISK_IS_FILE)
        fs_sync(i);
    for (struct fs_entry *e = i->entries; e; e = e->hh.next)
        sync_tree(e->inode);
}

void fs_sync_all(struct fs *fs)
{
    while (!list_empty(&fs->changes))
        fs_drop_change(fs, LIST_ENTRY(fs->changes.next, struct fs_change, link));
    sync_tree(fs->root);
}

void fs_sync_name(struct fs *fs, struct fs_inode *file)
{
    list_each (at, &fs->changes) {
        struct fs_change *c = LIST_ENTRY(at, struct fs_change, link);
        if (c->kind == FS_ADD && c->inode == file) {
            make_durable(fs, c);
            return;
        }
    }
}

/* ---- operations ---- */

int fs_make(struct fs *fs, const char *path, enum disk_kind kind, struct fs_inode **out)
{
    char name[FS_NAME_MAX];
    struct fs_inode *dir = fs_folder(fs, path, name);
    if (!dir)
        return -E_NOTFOUND;
    if (!name[0] || fs_entry_of(dir, name))
        return -E_EXISTS;
    struct fs_inode *i = new_inode(kind);
    fs_add_entry(dir, name, i);
    note_change(fs, FS_ADD, dir, name, i);
    if (out)
        *out = i;
    return 0;
}

int fs_remove(struct fs *fs, const char *path, enum disk_kind kind)
{
    char name[FS_NAME_MAX];
    struct fs_inode *dir = fs_folder(fs, path, name);
    struct fs_inode *i = dir && name[0] ? fs_entry_of(dir, name) : NULL;
    if (!i)
        return -E_NOTFOUND;
    if (i->kind != kind || i->entries)
        return -E_IO; /* a folder where a file is meant, or not empty */
    note_change(fs, FS_REMOVE, dir, name, i);
    fs_drop_entry(fs, dir, name);
    return 0;
}

int fs_rename(struct fs *fs, const char *from, const char *to)
{
    char name[2][FS_NAME_MAX];
    struct fs_inode *dir[2] = {fs_folder(fs, from, name[0]), fs_folder(fs, to, name[1])};
    struct fs_inode *i = dir[0] && name[0][0] ? fs_entry_of(dir[0], name[0]) : NULL;
    if (!i || !dir[1] || !name[1][0])
        return -E_NOTFOUND;
    struct fs_inode *replaced = fs_entry_of(dir[1], name[1]);
    if (replaced == i)
        return 0;
    if (replaced && (replaced->kind != i->kind || replaced->entries))
        return -E_IO;
    struct fs_change *c = note_change(fs, FS_RENAME, dir[0], name[0], i);
    c->dir[1] = dir[1];
    fs_ref(dir[1]);
    snprintf(c->name[1], sizeof c->name[1], "%s", name[1]);
    if (replaced) {
        c->replaced = replaced;
        fs_ref(replaced);
        fs_drop_entry(fs, dir[1], name[1]);
    }
    fs_add_entry(dir[1], name[1], i);
    fs_drop_entry(fs, dir[0], name[0]);
    return 0;
}

static void copy_tree(struct fs *to, struct fs_inode *into, const struct fs_inode *from)
{
    for (const struct fs_entry *e = from->entries; e; e = e->hh.next) {
        struct fs_inode *i = new_inode(e->inode->kind);
        i->mtime_ms = e->inode->mtime_ms;
        fs_add_entry(into, e->name, i);
        if (e->inode->size) {
            int64_t written = fs_write(to, i, e->inode->data, e->inode->size, 0);
            assert(written == e->inode->size);
        }
        fs_sync(i);
        copy_tree(to, i, e->inode);
    }
}

void fs_copy(struct fs *to, const struct fs *from)
{
    int64_t capacity = to->capacity > from->used ? to->capacity : from->used;
    fs_fini(to);
    fs_init(to, capacity);
    copy_tree(to, to->root, from->root);
}
