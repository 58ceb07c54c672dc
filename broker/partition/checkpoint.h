/* The checkpoint files of the log dirs; see checkpoint.c. */
#ifndef SUNDOG_BROKER_PARTITION_CHECKPOINT_H
#define SUNDOG_BROKER_PARTITION_CHECKPOINT_H

#include "broker/log/manager.h"

struct checkpoints;
struct loop;
struct partition_host;
struct partitions;

/* `home` is shard 0's loop. */
int checkpoints_create(struct partition_host *h, struct loop *home, unsigned shards,
                       struct checkpoints **out);
void checkpoints_destroy(struct checkpoints *c);
/* Sends this shard's rows on their way. */
void checkpoint_collect(struct partitions *ps, enum log_checkpoint which);
/* On shard 0, before the partitions are closed: what comes from now on is written by checkpoints_write_last. */
void checkpoints_end(struct checkpoints *c);
/* When all shards have closed their partitions and nothing is busy: blocks. */
void checkpoints_write_last(struct checkpoints *c);
bool checkpoints_busy(const struct checkpoints *c);

struct checkpoint_row {
    unsigned dir;
    struct log_checkpoint_row row;
};
/* Start offsets that cannot wait for their time. On the shard, before the job: rows that were collected until now would
 * take them back, and are not written any more. */
void checkpoint_raising(struct partitions *ps);
/* In LANE_DIRS: the files' rows are these or larger, on disk on return; `rc` by log dir. A dir that cannot be written for
 * another reason than room is offline then. */
void checkpoint_raise(struct checkpoints *c, const struct checkpoint_row *rows, size_t n,
                      int rc[LOG_DIRS_MAX]);

/* A partition is about to be deleted; any thread. */
void checkpoint_deleting(struct checkpoints *c);
/* In LANE_DIRS: its folder is gone. */
void checkpoint_deleted(struct checkpoints *c, const char *topic, int32_t index);
/* In LANE_DIRS, before a log is made. */
int checkpoint_purge(struct checkpoints *c, struct err *err);

#endif
