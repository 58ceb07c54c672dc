/* The folders of log.dirs: which logs are where, their checkpoint files, the clean-shutdown marker and the
 * lock.
 *
 * A directory that fails (I/O error) goes offline alone: its logs are abandoned by their shards, the others
 * go on. Threading: one owner at a time calls it (shard 0's thread or start-up); log_dirs_load may open logs
 * on jobs of its caller's making: each log_dirs_open call touches only its own folder and is safe on any
 * thread. Who does what: meta.properties belongs to lifecycle (log_dir_path tells where); what a topic id is,
 * to metadata.
 *
 * A log dir holds: .lock, meta.properties, .sundog-kept (kept.h), .sundog-spare (spare.h), .kafka_cleanshutdown
 * ({"version":0,"brokerEpoch":N}), recovery-point-offset-checkpoint, log-start-offset-checkpoint,
 * replication-offset-checkpoint, cleaner-offset-checkpoint, folders "<topic>-<partition>" with partition.metadata
 * in each, and folders "<topic>-<partition>.<hex>-delete" that wait to be removed. */
#ifndef SUNDOG_BROKER_LOG_MANAGER_H
#define SUNDOG_BROKER_LOG_MANAGER_H

#include "base/core/slice.h"
#include "base/core/uuid.h"
#include "broker/log/log.h"

#define LOG_DIRS_MAX  64
#define LOG_TOPIC_MAX 249

struct log_dirs;

/* Locks every folder (made if missing), reads and removes the clean-shutdown markers, reads the checkpoints,
 * lists the logs. A folder that cannot be used is offline
 * (log_dir_error); all of them: an error. -E_BUSY: another process has one (always an error, whichever
 * folder). */
int log_dirs_open(struct disk *disk, const char *const *paths, unsigned n, struct log_dirs **out,
                  struct err *err);
/* `clean`: every log of an online dir was closed well: its marker is written with this broker epoch. Unlocks,
 * frees. */
void log_dirs_close(struct log_dirs *d, const bool *clean, int64_t broker_epoch);

unsigned log_dirs_count(const struct log_dirs *d);
const char *log_dir_of(const struct log_dirs *d, unsigned dir);
bool log_dir_online(const struct log_dirs *d, unsigned dir);
const char *log_dir_error(const struct log_dirs *d, unsigned dir); /* "" while online */
bool log_dir_was_clean(const struct log_dirs *d, unsigned dir);
int64_t log_dir_broker_epoch(const struct log_dirs *d, unsigned dir); /* of the marker; -1: none */
/* From now on offline, for good; `why` is kept. False: it was already. This, log_dir_online and log_dir_error are for any
 * thread. */
bool log_dir_fail(struct log_dirs *d, unsigned dir, const char *why);

/* Every log there is open: the note of kept.h is written, unless one has failed. */
void log_dir_keep(struct log_dirs *d, unsigned dir);
/* One of its logs has failed, or was not opened: no note, now and later. Any thread. */
void log_dir_doubt(struct log_dirs *d, unsigned dir);

/* ---- logs ---- */

struct log_found {
    unsigned dir;
    char topic[LOG_TOPIC_MAX + 1];
    int32_t partition;
    struct uuid topic_id; /* zero: no partition.metadata */
    int64_t recovery_point, start_offset,
        high_watermark; /* of the checkpoints; high_watermark 0 when there is none */
};
/* What log_dirs_open found, in order of name. The same partition in two folders: an error of log_dirs_open.
 */
const struct log_found *log_dirs_found(const struct log_dirs *d, size_t *n);

/* Opens what was found; any thread, one log per call. */
int log_dirs_load(struct log_dirs *d, const struct log_found *found, const struct log_config *config,
                  struct log_files *files, int64_t wall_ms, struct log **out, struct err *err);
/* One that is to be made, in the online folder with the fewest logs. */
struct log_new {
    /* In. */
    const char *topic;
    int32_t partition;
    const struct uuid *topic_id;
    const struct log_config *config;
    struct log_files *files;
    int64_t wall_ms;
    struct err *err; /* or NULL */
    /* Out. */
    int rc;
    unsigned dir;
    struct log *log; /* NULL when `rc` is not 0 */
    bool begun;      /* private */
};
/* Folders, partition.metadata and first segments are on disk on return, with one sync for all when there are many.
 * After an error but -E_IO and -E_EXISTS nothing is left of that log. A power cut before leaves folders without an
 * id at most: log_dirs_open removes them. */
void log_dirs_make(struct log_dirs *d, struct log_new *const *all, size_t n);

struct log_gone {
    unsigned dir;
    struct log *log;               /* taken; NULL: could not be opened */
    const struct log_found *found; /* that one */
    uint64_t random[2];
    struct err *err; /* or NULL */
    int rc;          /* out */
};
/* Renames away and forgets (log_delete), one sync for all; the folders go with log_dirs_sweep. */
void log_dirs_delete(struct log_dirs *d, struct log_gone *const *all, size_t n);
/* Removes "-delete" folders; blocks: for a job. */
void log_dirs_sweep(struct disk *disk, const char *dir_path);
/* "orders-3" to topic and partition: -E_INVALID for any other name. */
int log_folder_parse(const char *name, char topic[LOG_TOPIC_MAX + 1], int32_t *partition);

/* ---- checkpoints: text files "0\n<count>\n<topic> <partition> <offset>\n…" ---- */

enum log_checkpoint {
    LOG_CHECKPOINT_RECOVERY,    /* recovery-point-offset-checkpoint */
    LOG_CHECKPOINT_START,       /* log-start-offset-checkpoint */
    LOG_CHECKPOINT_REPLICATION, /* replication-offset-checkpoint: high watermarks */
    LOG_CHECKPOINT_CLEANER,     /* cleaner-offset-checkpoint */
    LOG_CHECKPOINTS
};
struct log_checkpoint_row {
    const char *topic;
    int32_t partition;
    int64_t offset;
};
/* Replaces the whole file of a dir, on disk on return: for a job. Any thread, one writer per file at a time.
 */
int log_checkpoint_write(struct disk *disk, const char *dir_path, enum log_checkpoint which,
                         const struct log_checkpoint_row *rows, size_t n, struct err *err);
/* Calls `each` per row. A missing file has none; -E_CORRUPT for what is no checkpoint. */
int log_checkpoint_read(struct disk *disk, const char *dir_path, enum log_checkpoint which,
                        void (*each)(void *arg, const struct log_checkpoint_row *row), void *arg,
                        struct err *err);

#endif
