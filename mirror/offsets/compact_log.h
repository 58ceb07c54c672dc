/* A one-partition compacted topic used as a table: made when missing, read to its end, appended to. The progress topic,
 * MM2's checkpoints, heartbeats and offset syncs stand on it.
 *
 * Loop thread only. Everything that may heal is tried again for ever with bounded backoff, and said by `trouble`.
 * Appends are with acks=all, one at a time; one that was answered by silence is sent again, so a record may be there
 * twice: it is a table. When the topic is deleted or made again while in use it is opened anew: `ready` comes again,
 * with another id; an append under way is then made to the new topic. */
#ifndef SUNDOG_MIRROR_OFFSETS_COMPACT_LOG_H
#define SUNDOG_MIRROR_OFFSETS_COMPACT_LOG_H

#include "base/core/err.h"
#include "base/core/slice.h"
#include "base/core/uuid.h"
#include "proto/client/client.h"

struct compact_log;

/* Largest batch to append: any broker's default takes it. */
#define COMPACT_LOG_BATCH_MAX 524288

struct compact_log_options {
    struct loop *loop;
    struct client *client;
    struct slice name;           /* copied */
    int16_t replication;         /* -1: the broker's default */
    const char *replication_key; /* what to name when the factor is impossible; a literal */
    /* The topic is there (its id, zero where the cluster has none), with what it holds. */
    void (*ready)(void *arg, const struct uuid *id, int64_t log_start, int64_t end);
    /* One line, once per cause; NULL when it has healed. */
    void (*trouble)(void *arg, const char *text);
    void *arg;
};

int compact_log_open(const struct compact_log_options *o, struct compact_log **out, struct err *err);
/* No callback comes after it. NULL is fine. */
void compact_log_close(struct compact_log *l);
bool compact_log_is_ready(const struct compact_log *l);

struct compact_record {
    int64_t offset, timestamp_ms;
    struct slice key, value; /* null or not; the callback's */
};

/* Reads a piece of [from, upto), as much as one fetch gives: `each` for every record; then `done` with where to go on,
 * `upto` when all is read. Where `from` lies before the log start it begins there. `done` gets -E_CORRUPT when a batch
 * cannot be read, -E_RANGE when the topic ends before `from`: it is not what it was. -E_BUSY while a read is under
 * way. */
int compact_log_read(struct compact_log *l, int64_t from, int64_t upto,
                     void (*each)(void *arg, const struct compact_record *r),
                     void (*done)(void *arg, int status, int64_t next), void *arg);

/* Appends one batch (without offset, producer id or sequence), which must stay until `done`. -E_BUSY while one is under
 * way. `done` comes when it is there. */
int compact_log_append(struct compact_log *l, struct slice batch,
                       void (*done)(void *arg, int64_t base_offset), void *arg);

#endif
