/* Between codec.c and the four codecs: where decompressed bytes go, held against the limits. */
#ifndef SUNDOG_PROTO_KAFKA_CODEC_INTERNAL_H
#define SUNDOG_PROTO_KAFKA_CODEC_INTERNAL_H

#include "proto/kafka/codec.h"

#include <assert.h>

#define CODEC_PIECE_BYTES ((size_t)64 << 10)

/* Either a buffer that grows or a sink that is fed from one piece of memory. */
struct outlet {
    struct buf *to; /* the caller's buffer, or `piece` */
    codec_sink *sink;
    void *ctx;
    struct buf piece;
    size_t allowed, made;
    struct err *err;
};

/* Room for at least `want` bytes (0: as much as is handy); `got` may be larger. NULL: see outlet_refused. */
uint8_t *outlet_room(struct outlet *o, size_t want, size_t *got);
/* Why there was no room: -E_LIMIT or -E_NOMEM. */
int outlet_refused(struct outlet *o, size_t want);
/* `n` bytes of the room have been filled. 0, or what the sink says. */
int outlet_made(struct outlet *o, size_t n);

int codec_gzip_unpack(struct slice in, struct outlet *o);
int codec_snappy_unpack(struct slice in, struct outlet *o);
int codec_lz4_unpack(struct slice in, struct outlet *o);
int codec_zstd_unpack(struct slice in, struct outlet *o);
/* `level` may be CODEC_LEVEL_DEFAULT. */
int codec_gzip_pack(int level, struct slice in, struct buf *out);
int codec_snappy_pack(struct slice in, struct buf *out);
int codec_lz4_pack(int level, struct slice in, struct buf *out);
int codec_zstd_pack(int level, struct slice in, struct buf *out);

#endif
