/* A log on some disk, and batches to put in it: what the tests of broker/log share. */
#ifndef SUNDOG_TESTS_SUPPORT_LOG_LOG_RIG_H
#define SUNDOG_TESTS_SUPPORT_LOG_LOG_RIG_H

#include "base/core/rng.h"
#include "broker/log/log.h"
#include "proto/kafka/batch.h"

#define RIG_DIR "/logs/t-0"

struct log_rig {
    struct disk *disk;
    struct log_files *files;
    struct log *l;
    struct log_config config;
    int64_t wall_ms;
    bool kept; /* opens as after a kill in the same mount (broker/log/kept.h) */
    char dir[256];
    struct err err;
};

/* `root` is made; the log will be root/t-0. */
void rig_init(struct log_rig *r, struct disk *disk, const char *root);
/* Closes without writing what is open. */
void rig_fini(struct log_rig *r);
/* log_open with create; the result in r->l. */
int rig_open(struct log_rig *r, bool clean, int64_t recovery_point);
/* As after log_close: clean. Asserts that both succeed. */
void rig_reopen(struct log_rig *r);
/* As after kill -9. */
int rig_crash(struct log_rig *r, int64_t recovery_point);
void rig_flush(struct log_rig *r, enum log_flush_how how);

struct rig_batch {
    int32_t records;     /* 0: 1 */
    int32_t value_bytes; /* of each record */
    int64_t timestamp;   /* of the first; each next one +1 */
    int64_t producer_id; /* 0: none */
    int16_t producer_epoch;
    int32_t sequence;
    enum codec codec;
    const char *key; /* NULL: none; "%d" is the record's number in the batch */
    bool tombstone;
    int64_t tag;    /* goes into each value, so that contents can be told apart */
    int64_t offset; /* of a batch for log_append_as_is */
    int32_t epoch;
    int attributes;
};
/* Appends one whole batch to `out`. */
void rig_batch_put(struct buf *out, const struct rig_batch *b);
/* One batch by log_append; its outcome. Asserts that log_append gives 0. */
struct log_batch rig_append(struct log_rig *r, const struct rig_batch *b);
/* The same, giving log_append's result. */
int rig_try_append(struct log_rig *r, const struct rig_batch *b, struct log_batch *out);

/* All bytes of the log in [from, to) as one run of batches. */
int rig_read(struct log_rig *r, int64_t from, int64_t to, struct buf *out);
/* Calls for each record in the log. */
int rig_each_record(struct log_rig *r, int64_t from, int64_t to,
                    void (*each)(void *arg, const struct batch_header *h, const struct record *rec),
                    void *arg);

#endif
