/* Record batches, magic 2 (KIP-98): reading, walking, building, patching.
 *
 *   at  bytes                       at  bytes
 *    0  8  base offset              27  8  base timestamp (or the delete horizon, KIP-534)
 *    8  4  length of what follows   35  8  max timestamp
 *   12  4  partition leader epoch   43  8  producer id
 *   16  1  magic                    51  2  producer epoch
 *   17  4  CRC-32C from 21 on       53  4  base sequence
 *   21  2  attributes               57  4  number of records
 *   23  4  last offset delta        61     records, compressed as one when the attributes say so
 *
 * Plain values and borrowed bytes: records are slices of the batch (or of its decompressed payload) and
 * nothing is allocated for them. No state, any thread. batch_validate.h has the rules for batches from
 * outside. */
#ifndef SUNDOG_PROTO_KAFKA_BATCH_H
#define SUNDOG_PROTO_KAFKA_BATCH_H

#include "base/core/buf.h"
#include "base/core/err.h"
#include "base/core/slice.h"
#include "proto/kafka/codec.h"
#include "proto/kafka/wire.h"

enum {
    BATCH_LENGTH_AT = 8,
    BATCH_LEADER_EPOCH_AT = 12,
    BATCH_MAGIC_AT = 16,
    BATCH_CRC_AT = 17,
    BATCH_ATTRIBUTES_AT = 21,
    BATCH_HEADER_BYTES = 61,
    BATCH_PREFIX_BYTES = 12, /* base offset and length; a batch takes this + length */
};

enum batch_attribute {
    BATCH_CODEC = 0x07,
    BATCH_LOG_APPEND_TIME = 0x08,
    BATCH_TRANSACTIONAL = 0x10,
    BATCH_CONTROL = 0x20,
    BATCH_DELETE_HORIZON = 0x40,
    BATCH_ATTRIBUTES = 0x7f, /* all that have a meaning */
};

#define BATCH_NO_PRODUCER_ID    INT64_C(-1)
#define BATCH_NO_PRODUCER_EPOCH INT16_C(-1)
#define BATCH_NO_SEQUENCE       INT32_C(-1)
#define BATCH_NO_TIMESTAMP      INT64_C(-1)
#define BATCH_NO_LEADER_EPOCH   INT32_C(-1)

struct batch_header {
    int64_t base_offset;
    int32_t length, leader_epoch;
    uint32_t crc;
    int16_t attributes;
    int32_t last_offset_delta;
    int64_t base_timestamp, max_timestamp; /* the delete horizon stands in base_timestamp */
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    int32_t records_n;
};

static inline size_t batch_size(const struct batch_header *h)
{
    return (size_t)h->length + BATCH_PREFIX_BYTES;
}

static inline int batch_codec(const struct batch_header *h)
{
    return h->attributes & BATCH_CODEC;
}

static inline bool batch_is(const struct batch_header *h, enum batch_attribute a)
{
    return (h->attributes & (int)a) != 0;
}

static inline int64_t batch_last_offset(const struct batch_header *h)
{
    return (int64_t)((uint64_t)h->base_offset +
                     (uint64_t)h->last_offset_delta); /* strangers' sums may wrap */
}

static inline bool batch_has_producer(const struct batch_header *h)
{
    return h->producer_id >= 0;
}

/* Sequences wrap from 2^31-1 to 0. */
static inline int32_t batch_sequence_add(int32_t sequence, int32_t n)
{
    return (int32_t)(((int64_t)sequence + n) & INT32_MAX);
}

static inline int32_t batch_last_sequence(const struct batch_header *h)
{
    return h->base_sequence < 0 ? h->base_sequence
                                : batch_sequence_add(h->base_sequence, h->last_offset_delta);
}

/* Reads the header from the front of `in`; the rest of the batch need not be there.
 * -E_TRUNCATED: fewer bytes than a header; -E_VERSION: another magic; -E_CORRUPT: an impossible length or
 * count. */
int batch_header_read(struct slice in, struct batch_header *out, struct err *err);
/* Writes the 61 bytes, `crc` as given. */
void batch_header_write(const struct batch_header *h, uint8_t to[BATCH_HEADER_BYTES]);
/* The batch at the front of `in`: header, all its bytes there (-E_TRUNCATED), CRC and counts right (-E_CORRUPT). */
int batch_read(struct slice in, struct batch_header *out, struct err *err);
/* The CRC of a whole batch, as it should be. */
uint32_t batch_crc(struct slice batch);

/* ---- walking ---- */

struct record {
    struct slice raw; /* all of it, with its length */
    int32_t offset_delta;
    int64_t offset, timestamp_delta, timestamp;
    struct slice key, value;
    int32_t headers_n;
    struct slice headers; /* still encoded: see record_header_next */
};

struct record_walk {
    const uint8_t *p, *end;
    int64_t base_offset, base_timestamp, append_timestamp;
    bool log_append_time; /* append_timestamp is every record's */
    int32_t left;
};

#define RECORD_HEADER_BYTES_MIN 2 /* two lengths */

struct record_header {
    struct slice key, value; /* value may be null */
};

/* Over the records of a batch in the order they lie; `payload` is what batch_payload gives. */
void record_walk_init(struct record_walk *w, const struct batch_header *h, struct slice payload);
/* 1 and a record; 0 at the end; -E_CORRUPT when a record is malformed, too few, or bytes are left over.
 * Headers are checked by record_headers_check only. */
int record_next(struct record_walk *w, struct record *out);
/* The same for one record anywhere: reads one from *p. -E_TRUNCATED when it ends beyond `end`. */
int record_read(const uint8_t **p, const uint8_t *end, struct record *out);
/* Takes one header off the front of `rest` (start with record.headers). 1, 0 at the end, -E_CORRUPT. */
int record_header_next(struct slice *rest, struct record_header *out);
/* 0 or -E_CORRUPT: count, lengths, no null key. */
int record_headers_check(const struct record *r);

/* The records' bytes: a slice of the batch, or decompressed at the end of `scratch` (limits: see codec.h). */
int batch_payload(const struct batch_header *h, struct slice batch, const struct codec_limits *limits,
                  struct buf *scratch, struct slice *payload, struct err *err);

/* ---- building ---- */

struct batch_options {
    enum codec codec;
    int level; /* CODEC_LEVEL_DEFAULT */
    int64_t base_offset;
    int32_t leader_epoch;
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    int attributes; /* of enum batch_attribute, without the codec; the horizon is set by the next member */
    int64_t delete_horizon; /* BATCH_NO_TIMESTAMP: none */
};
#define BATCH_OPTIONS                                                                                        \
    {                                                                                                        \
        .level = CODEC_LEVEL_DEFAULT, .leader_epoch = BATCH_NO_LEADER_EPOCH,                                 \
        .producer_id = BATCH_NO_PRODUCER_ID, .producer_epoch = BATCH_NO_PRODUCER_EPOCH,                      \
        .base_sequence = BATCH_NO_SEQUENCE, .delete_horizon = BATCH_NO_TIMESTAMP                             \
    }

struct batch_builder {
    struct buf *out;
    size_t start; /* of this batch in `out` */
    struct batch_header h;
    enum codec codec;
    int level;
    int failed;      /* sticky: the first -E_… */
    bool timestamps; /* base_timestamp is set */
};

/* A record to add. Headers come as an array, or still encoded with their count (as struct record has them).
 */
struct record_new {
    int64_t timestamp;
    struct slice key, value; /* null or not */
    const struct record_header *headers;
    int32_t headers_n;
    struct slice headers_encoded; /* when `headers` is NULL */
};

/* Begins a batch at the end of `out`, which must not change until batch_close or batch_drop. */
void batch_begin(struct batch_builder *b, struct buf *out, const struct batch_options *options);
/* Adds at the next offset. 0, -E_LIMIT (the buffer's, or 2^31-1 bytes or records), -E_INVALID (null header
 * key). */
int batch_add(struct batch_builder *b, const struct record_new *r);
/* Adds at a higher offset delta than any before: compaction leaves gaps. */
int batch_add_at(struct batch_builder *b, int32_t offset_delta, const struct record_new *r);
/* The last offset, when it is beyond the last record's (compaction keeps it). */
void batch_last_offset_delta_set(struct batch_builder *b, int32_t delta);
/* Bytes so far, header included, before compression. */
size_t batch_bytes(const struct batch_builder *b);
/* How many bytes `r` adds at most. */
size_t batch_record_bound(const struct record_new *r);
/* Compresses, writes header and CRC. `h` (may be NULL) gets the header. On an error nothing of the batch is
 * left. A batch without records is legal (compaction keeps them for their producer state). */
int batch_close(struct batch_builder *b, struct batch_header *h);
void batch_drop(struct batch_builder *b);

/* ---- patching in place: `batch` points to a whole batch of `n` bytes ---- */

/* Outside the CRC. */
void batch_offset_set(uint8_t *batch, int64_t base_offset);
void batch_leader_epoch_set(uint8_t *batch, int32_t leader_epoch);

/* Inside the CRC: the new CRC follows from the old one, whatever the batch's length. A wrong CRC stays wrong.
 */
struct batch_patch {
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    int attributes_clear, attributes_set; /* cleared first */
};
void batch_producer_set(uint8_t *batch, size_t n, const struct batch_patch *patch);
/* Stamps a batch with the broker's time: LogAppendTime on, max timestamp. */
void batch_log_append_time_set(uint8_t *batch, size_t n, int64_t timestamp);
/* Corrects the max timestamp (CreateTime batches). */
void batch_max_timestamp_set(uint8_t *batch, size_t n, int64_t timestamp);

/* ---- control records (KIP-98, KIP-595, KIP-630, KIP-853) ---- */

enum control_type {
    CONTROL_ABORT = 0,
    CONTROL_COMMIT = 1,
    CONTROL_LEADER_CHANGE = 2,
    CONTROL_SNAPSHOT_HEADER = 3,
    CONTROL_SNAPSHOT_FOOTER = 4,
    CONTROL_KRAFT_VERSION = 5,
    CONTROL_KRAFT_VOTERS = 6,
    CONTROL_UNKNOWN = -1,
};

/* The type in a control record's key; CONTROL_UNKNOWN for what we do not know (to be skipped). -E_CORRUPT. */
int control_type_read(const struct record *r, enum control_type *out);
/* Adds one control record whose value is a message of the rows (leader change, snapshot header, …). The
 * builder's batch must have BATCH_CONTROL. */
int batch_add_control(struct batch_builder *b, int64_t timestamp, enum control_type type,
                      const struct kp_message *m, int16_t version, const void *body);
/* A whole transaction marker batch: COMMIT or ABORT of `options`' producer. */
int batch_put_end_txn(struct buf *out, const struct batch_options *options, int64_t timestamp,
                      enum control_type commit_or_abort, int32_t coordinator_epoch);
/* The coordinator epoch of a marker's value. -E_CORRUPT. */
int control_end_txn_read(const struct record *r, int32_t *coordinator_epoch);

#endif
