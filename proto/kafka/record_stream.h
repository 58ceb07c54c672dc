/* One large record, read as it comes out of a decompressor without being kept: keys, values and headers pass by, their
 * lengths are checked. What a batch of a few hundred KiB may decompress to need not lie in memory to be refused.
 *
 * The caller gathers bytes in a buffer and gives it again and again; what has been read is dropped from its front, and
 * some bytes at most stay. Pure; one thread. */
#ifndef SUNDOG_PROTO_KAFKA_RECORD_STREAM_H
#define SUNDOG_PROTO_KAFKA_RECORD_STREAM_H

#include "base/core/buf.h"
#include "proto/kafka/batch.h"

/* Records that take more than this are read so; smaller ones lie whole in the buffer. */
#define RECORD_STREAM_FROM_BYTES ((size_t)64 << 10)

enum record_stream_at {
    RECORD_STREAM_IDLE,
    RECORD_STREAM_LENGTH,
    RECORD_STREAM_ATTRIBUTES,
    RECORD_STREAM_TIMESTAMP,
    RECORD_STREAM_OFFSET,
    RECORD_STREAM_KEY,
    RECORD_STREAM_VALUE,
    RECORD_STREAM_HEADERS,
    RECORD_STREAM_HEADER_KEY,
    RECORD_STREAM_HEADER_VALUE,
    RECORD_STREAM_END,
};

struct record_stream {
    enum record_stream_at at;
    int64_t left;    /* bytes of the record that have not been read */
    int64_t passing; /* of these, bytes of a key or value that only pass */
    int32_t headers_left;
    struct record record; /* deltas; key null or empty; no value, no headers: they have been checked */
};

static inline bool record_stream_open(const struct record_stream *s)
{
    return s->at != RECORD_STREAM_IDLE;
}

/* The record that stands at the front of the buffer, not all of it. */
static inline void record_stream_begin(struct record_stream *s)
{
    *s = (struct record_stream){.at = RECORD_STREAM_LENGTH};
}

/* Reads on: 1 the record has ended (s->record, and the stream is idle again), 0 more is needed, -E_CORRUPT. */
int record_stream_read(struct record_stream *s, struct buf *from);

#endif
