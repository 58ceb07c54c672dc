/* The rules for a batch that a client produces (Kafka's LogValidator; PROTOCOL §2.5): what is stored may be
 * read back by everyone else for years, so nothing malformed passes.
 *
 * Pure; any thread. Decompression is streamed: memory is bounded by the largest record and codec.h's limits.
 */
#ifndef SUNDOG_PROTO_KAFKA_BATCH_VALIDATE_H
#define SUNDOG_PROTO_KAFKA_BATCH_VALIDATE_H

#include "proto/kafka/batch.h"

enum batch_depth {
    BATCH_CHECK_HEADER,  /* header, size, count, CRC */
    BATCH_CHECK_RECORDS, /* and every record, unless compressed */
    BATCH_CHECK_ALL,     /* and the compressed ones */
};

struct batch_rules {
    enum batch_depth depth;
    size_t size_max;  /* max.message.bytes */
    bool needs_keys;  /* cleanup.policy has compact: compressed batches are looked into */
    bool create_time; /* message.timestamp.type=CreateTime: timestamps are held against the next two */
    int64_t before_max_ms, after_max_ms; /* message.timestamp.{before,after}.max.ms */
    int64_t now_ms;
    int16_t produce_version; /* zstd needs 7 */
    bool internal; /* written by the broker itself or a mirror's batch with any base offset: control bit and
                      base offset are not looked at */
};

#define BATCH_RECORD_ERRORS_MAX 64
struct batch_record_error {
    int32_t index; /* of the record in the batch */
    const char *text;
};

struct batch_verdict {
    struct batch_header header; /* as far as it could be read */
    int16_t kafka_error;        /* KE_NONE when 0 is returned */
    char text[160];
    struct batch_record_error
        errors[BATCH_RECORD_ERRORS_MAX]; /* records that break a rule of the topic (KIP-467) */
    int32_t errors_n;
    int64_t max_timestamp;              /* of the records, when they were walked: else the header's */
    int64_t max_timestamp_offset_delta; /* the first record that has it, -1 when not walked */
};

/* Are these bytes exactly one batch that may be appended? 0 or -E_CORRUPT, -E_INVALID, -E_LIMIT, -E_VERSION,
 * -E_NOMEM, with the Kafka error and a short text in `v`. */
int batch_validate(struct slice records, const struct batch_rules *rules, struct batch_verdict *v);
/* Every record of a batch whose header and CRC are known to be good: deltas 0..n-1 (or rising, with `gaps`: a
 * compacted log), lengths, header counts, null header keys. 0, -E_CORRUPT, -E_LIMIT, -E_NOMEM. */
int batch_records_check(const struct batch_header *h, struct slice batch, bool gaps,
                        const struct codec_limits *limits, struct err *err);

#endif
