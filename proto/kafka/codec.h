/* The compressions of record batches: gzip, snappy (plain and in xerial's frames), lz4 (LZ4F) and zstd.
 *
 * What comes in is hostile: output is made piece by piece and held against the limits, and no memory is taken
 * for a size that the input merely claims. Written so that Kafka's Java client reads it: snappy in xerial's
 * frames of 32 KiB, lz4 frames with independent 64 KiB blocks. No state between calls; any thread. */
#ifndef SUNDOG_PROTO_KAFKA_CODEC_H
#define SUNDOG_PROTO_KAFKA_CODEC_H

#include "base/core/buf.h"
#include "base/core/err.h"
#include "base/core/slice.h"

#include <limits.h>

/* The low three bits of a batch's attributes. */
enum codec { CODEC_NONE, CODEC_GZIP, CODEC_SNAPPY, CODEC_LZ4, CODEC_ZSTD, CODEC_COUNT };

#define CODEC_LEVEL_DEFAULT INT_MIN

/* How much may come out: `bytes_max` at most, and no more than `ratio_max` times the input once
 * `ratio_from_bytes` have come (small inputs of one repeated byte are legal and shrink a thousandfold). */
struct codec_limits {
    size_t bytes_max, ratio_from_bytes;
    uint32_t ratio_max;
};
#define CODEC_BYTES_MAX_DEFAULT ((size_t)100 << 20)
/* The default limits for a broker whose largest message is `message_bytes_max`. */
struct codec_limits codec_limits_for(size_t message_bytes_max);

/* "none", "gzip", …; "unknown" outside the enum. */
const char *codec_name(int codec);
/* 0, -E_INVALID for an unknown name ("producer" and "uncompressed" are the options' business). */
int codec_parse(struct slice name, enum codec *out);

/* Appends `in` compressed. 0, -E_NOMEM, -E_LIMIT (the buffer's), -E_INVALID (the level). */
int codec_compress(enum codec codec, int level, struct slice in, struct buf *out);
/* Appends `in` decompressed. 0, -E_CORRUPT, -E_LIMIT (limits or the buffer's), -E_NOMEM. On an error `out`
 * has its old length. */
int codec_decompress(enum codec codec, struct slice in, const struct codec_limits *limits, struct buf *out,
                     struct err *err);
/* The same, handing each piece to `sink` instead; what it returns, when not 0, ends the work and is returned.
 */
typedef int codec_sink(void *ctx, struct slice piece);
int codec_stream(enum codec codec, struct slice in, const struct codec_limits *limits, codec_sink *sink,
                 void *ctx, struct err *err);

#endif
