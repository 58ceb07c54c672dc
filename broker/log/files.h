/* Open files: counted references that any thread may drop, and the shard's bounded set of open ones.
 *
 * A handle belongs to a segment's file. It opens it on first use and puts it at the front of the LRU; the LRU closes
 * the one used longest ago when there are more than its bound. A pinned handle (the active segment's .log) is outside
 * the LRU. Closing drops the handle's reference only: readers keep theirs.
 *
 * Logs are opened and closed by jobs while the shard works: so opening and closing use a set of their own, nobody but
 * the shard opens into the shard's set (and so closes other logs' handles), and any thread may take its own log's
 * handles out of it: the list is under a lock. */
#ifndef SUNDOG_BROKER_LOG_FILES_H
#define SUNDOG_BROKER_LOG_FILES_H

#include "base/core/list.h"
#include "broker/log/log.h"

#include <pthread.h>

struct log_files {
    struct disk *disk;
    pthread_mutex_t lock;
    struct list lru; /* most recently used first */
    unsigned open, max;
};

int log_files_init(struct log_files *files, struct disk *disk, unsigned max);
void log_files_fini(struct log_files *files);

struct log_handle {
    struct list lru;
    struct log_files *files;
    struct log_file *file; /* NULL: closed */
    bool pinned;
};

void log_handle_init(struct log_handle *h, struct log_files *files);
/* The open file, still the handle's; `how` of enum disk_open. */
int log_handle_get(struct log_handle *h, struct disk *disk, const char *path, unsigned how,
                   struct log_file **out, struct err *err);
void log_handle_pin(struct log_handle *h);
void log_handle_unpin(struct log_handle *h);
void log_handle_close(struct log_handle *h);
/* Closes it unless it is pinned, and makes it one of this set. */
void log_handle_move(struct log_handle *h, struct log_files *to);

/* A new reference around an open file; NULL when memory is out (the file is then still the caller's). */
struct log_file *log_file_create(struct disk_file *f);

#endif
