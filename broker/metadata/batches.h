/* Metadata records in the batches of the log and of snapshots: uncompressed, no producer, epoch in the header, one
 * time stamp for all records of a batch. Any thread; no state. */
#ifndef SUNDOG_BROKER_METADATA_BATCHES_H
#define SUNDOG_BROKER_METADATA_BATCHES_H

#include "base/core/buf.h"
#include "broker/metadata/record.h"

/* Kafka's limit of one batch of the metadata log, and of the records that a controller puts into one. */
#define METADATA_BATCH_BYTES_MAX   (8u << 20)
#define METADATA_BATCH_RECORDS_MAX 10000

struct metadata_batch {
    int64_t base_offset;
    int32_t epoch;
    int64_t timestamp_ms;
};

/* Appends one batch of `n` ≥ 1 records. -E_LIMIT: more than a batch may hold; `out` is as before. */
int metadata_batch_put(const struct metadata_batch *b, const struct metadata_record *v, size_t n,
                       struct buf *out, struct err *err);

/* The records of a data batch in order, decoded into `arena`. `each` may stop the walk by a negative result, which is
 * returned. -E_CORRUPT, -E_VERSION, -E_NOMEM as metadata_record_decode; the CRC has been checked by the caller. */
int metadata_batch_each(struct slice batch, struct arena *arena,
                        int (*each)(void *arg, int64_t offset, const struct metadata_record *r), void *arg,
                        struct err *err);

#endif
