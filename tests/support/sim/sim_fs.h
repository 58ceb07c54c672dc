/* The file system inside a simulated disk: a tree as programs see it now, and what is needed to know what of it a power
 * cut leaves. Pure but for the generator it is given.
 *
 * Content: a file remembers, for every 512-byte sector that was changed since the last sync, what the platter has
 * ("old"), and how long the file is there. Names: every create, mkdir, rename, unlink and rmdir is a change in a list
 * until a sync makes it durable, together with the older ones it stands on. */
#ifndef SUNDOG_TESTS_SUPPORT_SIM_FS_H
#define SUNDOG_TESTS_SUPPORT_SIM_FS_H

#include "base/core/hash.h"
#include "base/core/list.h"
#include "base/core/rng.h"
#include "base/world/disk.h"

#define FS_SECTOR   512
#define FS_NAME_MAX 256

struct fs_sector {
    int64_t number;
    bool lost; /* a sync failed: it will never be written, though pages are clean */
    uint8_t old[FS_SECTOR];
    UT_hash_handle hh;
};

struct fs_inode {
    enum disk_kind kind;
    unsigned refs; /* names, handles, changes */
    int64_t mtime_ms;
    uint8_t *data;
    int64_t size, cap, durable_size;
    struct fs_sector *dirty;  /* sectors that the platter has otherwise; beyond durable_size none is needed */
    struct fs_entry *entries; /* of a folder, in order of creation */
    bool locked;
};

struct fs_entry {
    char name[FS_NAME_MAX];
    struct fs_inode *inode;
    UT_hash_handle hh;
};

enum fs_change_kind { FS_ADD, FS_REMOVE, FS_RENAME };

struct fs_change {
    struct list link;
    enum fs_change_kind kind;
    struct fs_inode *dir[2]; /* [1]: where a rename goes */
    char name[2][FS_NAME_MAX];
    struct fs_inode *inode, *replaced;
    bool kept;
};

struct fs {
    struct fs_inode *root;
    struct list changes; /* oldest first */
    int64_t used, capacity;
};

void fs_init(struct fs *fs, int64_t capacity);
void fs_fini(struct fs *fs);

/* What stands at `path`, NULL when there is nothing (or the path is no path). */
struct fs_inode *fs_find(struct fs *fs, const char *path);
/* The folder of `path`, NULL when there is none; `name` gets the last part ("" for the root). */
struct fs_inode *fs_folder(struct fs *fs, const char *path, char name[FS_NAME_MAX]);
struct fs_inode *fs_entry_of(struct fs_inode *dir, const char *name);
void fs_ref(struct fs_inode *i);
void fs_unref(struct fs *fs, struct fs_inode *i);

/* Names. 0 or -E_…. */
int fs_make(struct fs *fs, const char *path, enum disk_kind kind, struct fs_inode **out);
int fs_remove(struct fs *fs, const char *path, enum disk_kind kind);
int fs_rename(struct fs *fs, const char *from, const char *to);
/* The changes of this folder's names (`dir`), or the creation of this file, are durable now. */
void fs_sync_dir(struct fs *fs, struct fs_inode *dir);
/* Everything. */
void fs_sync_all(struct fs *fs);
void fs_sync_name(struct fs *fs, struct fs_inode *file);

/* Content. fs_write gives the bytes that fitted. */
int64_t fs_write(struct fs *fs, struct fs_inode *i, const uint8_t *p, int64_t n, int64_t at);
void fs_truncate(struct fs *fs, struct fs_inode *i, int64_t size);
void fs_sync(struct fs_inode *i);
/* Pages are clean afterwards, but nothing was written. */
void fs_sync_failed(struct fs_inode *i);
int64_t fs_dirty_bytes(const struct fs_inode *i);

/* What a power cut leaves: each unsynced sector, size and change is kept with this chance. Handles must be closed. */
void fs_crash(struct fs *fs, struct rng *r, uint32_t keep_per_million);
/* Everything as it is now, durable. */
void fs_copy(struct fs *to, const struct fs *from);

/* For fs_crash.c. */
void fs_add_entry(struct fs_inode *dir, const char *name, struct fs_inode *inode);
void fs_drop_entry(struct fs *fs, struct fs_inode *dir, const char *name);
void fs_drop_change(struct fs *fs, struct fs_change *c);
bool fs_depends(const struct fs_change *newer, const struct fs_change *older);
void fs_resize(struct fs *fs, struct fs_inode *i, int64_t size);
void fs_forget_dirty(struct fs_inode *i, bool lost_too);

#endif
