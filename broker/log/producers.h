/* What a partition remembers of its producers, to append each numbered batch once (KIP-98; PROTOCOL.md §2.5).
 *
 * Per producer id: its epoch and its last LOG_PRODUCER_BATCHES batches. Ids age by the wall clock of their last append,
 * not by the records' time as in Apache Kafka: a backfill of old records is guarded too (APPENDER.md §1). At most
 * LOG_PRODUCERS_MAX ids: above that the one silent longest is forgotten. Pure; one thread. */
#ifndef SUNDOG_BROKER_LOG_PRODUCERS_H
#define SUNDOG_BROKER_LOG_PRODUCERS_H

#include "base/core/buf.h"
#include "base/core/hash.h"
#include "base/core/list.h"
#include "broker/log/log.h"
#include "proto/kafka/batch.h"

struct producer_batch {
    int64_t last_offset, wall_ms;
    int32_t last_sequence, offset_delta;
};

struct producer {
    int64_t id;
    int64_t txn_first_offset; /* -1: no transaction is open */
    int64_t wall_ms;          /* of the last append */
    int32_t coordinator_epoch;
    int16_t epoch;
    uint8_t batches_n; /* oldest first */
    struct producer_batch batches[LOG_PRODUCER_BATCHES];
    uint64_t saved_in; /* the change in which its old state was put aside */
    struct list age;   /* by wall_ms, oldest first */
    UT_hash_handle hh;
};

struct producer_saved {
    bool is_new;
    struct producer was;
};

struct producers {
    struct producer *by_id;
    struct list by_age;
    uint64_t forgotten; /* for the limit */
    unsigned open_txns;
    uint64_t change; /* running number of the present change */
    bool changing;
    struct producer_saved *saved;
    unsigned saved_n;
    size_t saved_room;
};

enum producer_verdict { PRODUCER_NEW, PRODUCER_DUPLICATE, PRODUCER_OUT_OF_ORDER, PRODUCER_OLD_EPOCH };

void producers_init(struct producers *p);
void producers_fini(struct producers *p);
void producers_clear(struct producers *p);
unsigned producers_count(const struct producers *p);

/* May this batch of a client be appended next? `dup` is set for a duplicate. */
enum producer_verdict producers_check(const struct producers *p, const struct batch_header *h,
                                      struct producer_batch *dup);

/* Between begin and commit or rollback every state that is touched is put aside first. */
void producers_begin(struct producers *p);
void producers_commit(struct producers *p);
void producers_rollback(struct producers *p);
/* A data batch was appended at h->base_offset. -E_NOMEM: nothing changed. */
int producers_append(struct producers *p, const struct batch_header *h, int64_t wall_ms);
/* A transaction marker was. */
int producers_end_txn(struct producers *p, const struct batch_header *h, int32_t coordinator_epoch,
                      int64_t wall_ms);
/* A whole batch, of either kind; `batch` may be only the header when it is no control batch. */
int producers_replay(struct producers *p, const struct batch_header *h, struct slice batch, int64_t wall_ms);

unsigned producers_expire(struct producers *p, int64_t before_ms);
/* The oldest open transaction's first offset, -1. */
int64_t producers_first_unstable(const struct producers *p);
void producers_each(const struct producers *p, void (*each)(void *arg, const struct log_producer *one),
                    void *arg);
/* For each id the last offset it appended: what compaction must keep. */
const struct producer *producers_find(const struct producers *p, int64_t id);

/* ---- producer_snapshot.c ---- */

int producers_write(const struct producers *p, struct buf *out);
/* For reading a snapshot. */
int producers_enter(struct producers *p, const struct producer *as);
/* Adds to an empty set. -E_CORRUPT, -E_VERSION: it stays empty. */
int producers_read(struct producers *p, struct slice in, struct err *err);

#endif
