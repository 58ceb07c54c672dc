/* What the files of the crash disk share: the disk as it is, and what a cut may leave of it. */
#ifndef SUNDOG_TESTS_SUPPORT_LOG_CRASH_DISK_INTERNAL_H
#define SUNDOG_TESTS_SUPPORT_LOG_CRASH_DISK_INTERNAL_H

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

/* crash_disk_nodes.c */
char *cd_copy_text(const char *text);
struct name *cd_name_find(struct name *map, const char *path);
void cd_name_put(struct name **map, const char *path, struct inode *inode);
void cd_name_drop(struct name **map, const char *path);
void cd_names_free(struct name **map);
void cd_name_move(struct name **map, const char *from, const char *to);
void cd_change_add(struct crash_disk *d, enum change_kind kind, const char *path, const char *to,
                   struct inode *inode);
void cd_change_free(struct change *c);
void cd_change_apply(struct name **map, const struct change *c, struct inode *inode);
bool cd_in_dir(const char *path, const char *dir);
struct inode *cd_inode_new(struct crash_disk *d, bool is_dir);
void cd_inode_free(struct inode *i);
void cd_reserve(struct inode *i, int64_t size);
void cd_size_set(struct inode *i, int64_t size);
void cd_change_bytes(struct inode *i, int64_t at, const void *p, int64_t n);
void cd_settle(struct inode *i);
void cd_clear_beyond(struct inode *i);

#endif
