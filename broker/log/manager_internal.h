/* What manager.c (the folders) and manager_logs.c (the logs in them) share. Nothing here is for others. */
#ifndef SUNDOG_BROKER_LOG_MANAGER_INTERNAL_H
#define SUNDOG_BROKER_LOG_MANAGER_INTERNAL_H

#include "broker/log/manager.h"

#include <assert.h>
#include <stdatomic.h>

#define METADATA_FILE   "partition.metadata"
#define SMALL_FILE      4096
#define FOLDER_NAME_MAX (LOG_TOPIC_MAX + 16)

/* `why` is written by whoever made it FAILING, and read once it is OFFLINE. */
enum dir_state { DIR_ONLINE, DIR_FAILING, DIR_OFFLINE };

struct dir {
    char *path;
    struct disk_file *lock;
    _Atomic int state; /* enum dir_state */
    bool was_clean, kept;
    _Atomic bool doubted;
    int64_t broker_epoch;
    unsigned logs;
    char why[ERR_TEXT_MAX];
};

struct log_dirs {
    struct disk *disk;
    struct dir dirs[LOG_DIRS_MAX];
    unsigned n;
    struct log_found *found;
    size_t found_n;
};

static inline bool dir_is_online(const struct dir *dir)
{
    return atomic_load_explicit(&dir->state, memory_order_acquire) == DIR_ONLINE;
}

/* ---- manager_logs.c ---- */

/* "<dir>/<name>"; -E_LIMIT. */
int dir_join(char out[LOG_PATH_MAX], const char *dir, const char *name);
/* "<topic>-<partition>". */
void folder_name(const char *topic, int32_t partition, char out[FOLDER_NAME_MAX]);
/* The id in a folder's partition.metadata, zero when there is none; -E_CORRUPT. */
int folder_topic_id(struct disk *disk, const char *folder, struct uuid *out);
/* A power cut has left a folder that was being made: its id is not there, and no record ever was. */
bool folder_unfinished(struct disk *disk, const char *folder);

#endif
