/* What the files of broker/partition know of each other. */
#ifndef SUNDOG_BROKER_PARTITION_INTERNAL_H
#define SUNDOG_BROKER_PARTITION_INTERNAL_H

#include "base/core/hash.h"
#include "base/core/sm.h"
#include "broker/log/compact.h"
#include "broker/partition/partitions.h"
#include "proto/kafka/batch_validate.h"
#include "proto/kafka/errors.h"

#define PARTITION_MAGIC 0x5061727469746e31ULL

/* OPENING: the log is being opened or made, or flushed for the first time: appends wait. ONLINE: served. FAILED: no
 * log (a bad disk, corruption): every request is told so. CLOSING: the log is being closed or deleted. */
enum partition_state { PARTITION_OPENING, PARTITION_ONLINE, PARTITION_FAILED, PARTITION_CLOSING };

struct partition_key {
    struct uuid topic_id;
    int32_t index;
    int32_t zero; /* no padding: it is hashed as bytes */
};

struct partition {
    uint64_t magic;
    struct partition_key key;
    UT_hash_handle hh;
    struct partitions *set;
    struct sm state;
    char topic[LOG_TOPIC_MAX + 1];
    char why[200]; /* FAILED: the reason, for the log and status */

    /* As the image says. */
    enum partition_role role;
    int32_t leader, leader_epoch, partition_epoch, replicas_n, isr_n;
    struct uuid directory; /* of this replica, zero: none is on record */

    /* As the topic's configuration says. */
    struct log_config config;
    struct batch_rules rules;
    int32_t min_insync_replicas;

    struct log *log; /* NULL unless ONLINE, or OPENING's last step */
    unsigned dir;
    int64_t high_watermark;

    /* append.c */
    struct list pending; /* appends of this turn */
    struct list parked;  /* acks=-1, behind the high watermark, in order */
    struct list dirty;   /* set->dirty: has pending ones */
    struct list waiting; /* set->waiting: has parked ones */

    /* flush.c */
    struct loop_job flush_job;
    struct log_flush *flush; /* under way */
    struct list to_flush;    /* set->to_flush */
    bool flush_checkpoint;   /* the next flush is to move the recovery point */
    bool flush_early;        /* the one under way does, before its time */
    bool first_flush;        /* of an OPENING partition: what recovery found is on disk when it has ended */
    unsigned lane;
    int64_t flush_began_us;
    uint64_t appended_bytes, flush_bytes, committed_bytes;
    uint64_t checkpoint_bytes; /* appended_bytes when the last checkpoint flush began */

    /* delete.c */
    struct list deletions; /* that wait for the disk */
    int64_t start_on_way;  /* the start that is being written: what a checkpoint says meanwhile; 0: none */

    /* wait.c */
    struct list waits;
    struct list advanced; /* set->advanced: waits are to be woken */
    bool changed;

    /* host.c */
    struct host_job *host_job;     /* under way */
    const struct log_found *found; /* the log was there at the start */
    bool remove;                   /* CLOSING: the log goes too */
    int retries;
    int64_t room_retry_us;
    struct loop_timer retry;

    /* upkeep.c */
    struct log_compaction *compaction;
    int64_t clean_offset;
    bool clean_failed; /* what is there cannot be compacted: not tried again */
};

struct partitions {
    struct shard *shard;
    struct partition_host *host;
    struct partition *all; /* uthash */
    struct log_files *files;
    struct list dirty, to_flush, advanced, waiting, watches;
    size_t opening_n, closing_n, flushing_n;
    struct list to_group;       /* host.c: logs to be made or deleted */
    struct host_group *group;   /* of them, under way */
    struct loop_timer timeouts; /* of parked appends */
    int64_t large_turn_us;      /* the turn of the loop that large_bytes were written in */
    size_t large_bytes;
    struct log_batch batches[PARTITION_PENDING_MAX];

    struct loop_timer retention, recovery, watermarks, cleaner;
    struct upkeep *upkeep;

    struct list deletions, deleting; /* delete.c: the next write's, and those of the one under way */
    size_t deletions_n;              /* of both */
    struct start_write *start_write; /* under way */

    bool misplaced;       /* see partitions_misplaced */
    unsigned dirs_failed; /* of host->dirs_failed, those that this shard has looked at */
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;
    bool clean[LOG_DIRS_MAX];

    struct metric_cell *appends_n, *append_bytes, *flushes, *flush_seconds, *parked_n, *online_n, *failed_n,
        *duplicates;
};

/* partition.c */
/* What always holds between two calls for a partition, and for the set. */
void partition_check(const struct partition *p);
void partitions_check(const struct partitions *ps);
#define INVARIANT(p) partition_check(p)
void partition_become(struct partition *p, const struct partition_spec *spec);
void partition_fail(struct partition *p, const char *why);
void partition_fail_unsaid(struct partition *p,
                           const char *why); /* no line in the log: what has failed is said there */
/* dirs.c: the log is fenced: the partition fails, and its log dir with it where the disk is to blame. */
void partition_fenced(struct partition *p);
/* False: its log dir is offline, and so is the partition now. */
bool partition_dir_online(struct partition *p);
/* Any thread. */
void partition_dir_failed(struct partition_host *h, unsigned dir, const char *why);
/* Each turn: partitions of log dirs that have failed meanwhile, by whichever shard, fail too. */
void partitions_look_at_dirs(struct partitions *ps);
/* Its log dir or its record may have changed. */
void partition_placed(struct partition *p);
/* Everyone who waits is told: the partition is not what it was. */
void partition_changed(struct partition *p);
void partition_tell_watches(struct partition *p, bool gone);

/* config.c: topic options from the image's entries, the broker's dynamic ones, and its defaults. */
void partition_configure(struct partition *p, const struct image *image);

/* host.c */
void host_open(struct partition *p);
void host_close(struct partition *p, bool remove);
void host_init_retry(struct partition *p);
/* Its folder was there at the start; any thread. */
bool host_found(const struct partition_host *h, const char *topic, int32_t index);
/* On shard 0, with the first image: logs that belong to none of its topics are said. */
void host_report_strays(const struct partition_host *h, const struct image *image);
/* Each turn: one job for all logs that are to be made or deleted by now. */
void host_turn(struct partitions *ps);
/* The first flush of an opened log has ended. */
void host_opened(struct partition *p);
/* The flush that a CLOSING partition waited for has ended; or its compaction. */
void host_quiet(struct partition *p);
/* A log of this dir is not well: neither note nor marker says that it is. */
void host_doubt(struct partitions *ps, unsigned dir);
/* Tells that all is closed, when it is. */
void host_maybe_closed(struct partitions *ps);

/* append.c */
/* One write; its bytes. */
size_t append_pending(struct partition *p);
/* Completes what the high watermark has passed. */
void append_release(struct partition *p);
void append_fail_all(struct partition *p, int16_t error);
void append_on_timeout(void *arg);

/* flush.c */
void flush_want(struct partition *p);
void flush_start(struct partition *p);
/* The committed end has moved to `offset`. */
void watermark_set(struct partition *p, int64_t offset);
/* … to the end of the log. */
void watermark_follow(struct partition *p);

/* delete.c */
/* Each turn: one write for all that were asked for meanwhile. */
void deletions_start(struct partitions *ps);
void deletion_fail_all(struct partition *p, int16_t error);

/* wait.c */
void wait_mark(struct partition *p);
void wait_wake(struct partition *p);
/* The partition goes: its waits are woken for the last time. */
void wait_end(struct partition *p);

/* upkeep.c */
int upkeep_create(struct partitions *ps);
void upkeep_start(struct partitions *ps);
void upkeep_stop(struct partitions *ps);
void upkeep_destroy(struct partitions *ps);
bool upkeep_busy(const struct partitions *ps);
/* Segments, or a folder, wait to be unlinked. */
void upkeep_sweep_soon(struct partitions *ps);
/* A log's recovery point has moved far: its row is written before its time. */
void upkeep_checkpoint_soon(struct partitions *ps);
void upkeep_folder_deleted(struct partitions *ps);

static inline bool partition_online(const struct partition *p)
{
    assert(p->magic == PARTITION_MAGIC);
    return sm_state(&p->state) == PARTITION_ONLINE;
}

#endif
