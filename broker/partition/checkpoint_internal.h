/* What the three files of the checkpoints share: checkpoint.c (gathered and written from time to time),
 * checkpoint_raise.c (starts that cannot wait), checkpoint_purge.c (rows of deleted names). */
#ifndef SUNDOG_BROKER_PARTITION_CHECKPOINT_INTERNAL_H
#define SUNDOG_BROKER_PARTITION_CHECKPOINT_INTERNAL_H

#include "broker/partition/checkpoint.h"

#include "base/core/arena.h"
#include "broker/partition/internal.h"

#define CHECKPOINT_ROWS_MAX ((size_t)256 << 20) /* bytes of the rows on their way to one file */
#define CHECKPOINT_NAME_MAX (LOG_TOPIC_MAX + 16)

struct checkpoint_rows;

struct deleted {
    UT_hash_handle hh;
    char name[CHECKPOINT_NAME_MAX];
};

struct checkpoints {
    struct partition_host *host;
    struct loop *home;
    unsigned shards;
    bool ending;                         /* rows are kept for checkpoints_write_last */
    _Atomic uint64_t deletions, *raises; /* raises by shard: of start offsets, by checkpoint_raise */
    struct deleted *deleted;             /* LANE_DIRS; uthash */
    bool looked;                         /* LANE_DIRS: rows of what was deleted before this start are gone */
    bool spare[LOG_DIRS_MAX];            /* LANE_DIRS: the room of spare.h is there */
    struct gather {
        struct checkpoints *owner;
        enum log_checkpoint which;
        struct loop_job job;
        bool busy;
        struct checkpoint_rows **latest, **writing; /* by shard */
        uint64_t written[LOG_DIRS_MAX];             /* hash of what is in the file */
    } gather[LOG_CHECKPOINTS];
};

/* "orders-3" */
void checkpoint_name(const char *topic, int32_t index, char name[CHECKPOINT_NAME_MAX]);
void checkpoint_forget_deleted(struct checkpoints *c);

/* A file's rows on their way from what it is to what it is to be; `arena` has them, and says when memory was short. */
struct file_rows {
    struct arena arena;
    struct log_checkpoint_row *rows;
    size_t n, cap;
};
void file_rows_add(struct file_rows *f, const char *topic, int32_t partition, int64_t offset);

#endif
