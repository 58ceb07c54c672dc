/* LZ4 frames. Kafka's reader wants independent blocks and takes no dictionary; 64 KiB is the block its writer uses. */
#include "proto/kafka/codec_internal.h"

#include <lz4frame.h>

#define LZ4_LEVEL_DEFAULT 0 /* the fast one; Java's 9 is a high-compression level in the C library */

static int unpack_frames(LZ4F_dctx *d, struct slice in, struct outlet *o)
{
    size_t at = 0, hint = 1;
    for (;;) {
        size_t got, used = in.n - at;
        uint8_t *room = outlet_room(o, 0, &got);
        if (!room)
            return outlet_refused(o, 0);
        size_t made = got;
        hint = LZ4F_decompress(d, room, &made, in.p + at, &used, NULL);
        if (LZ4F_isError(hint))
            return -E_CORRUPT;
        assert(used <= in.n - at && made <= got);
        at += used;
        int rc = outlet_made(o, made);
        if (rc)
            return rc;
        if (at == in.n && hint == 0)
            return 0;
        if ((at == in.n && made < got) || (used == 0 && made == 0))
            return -E_CORRUPT; /* it ends inside a frame */
    }
}

int codec_lz4_unpack(struct slice in, struct outlet *o)
{
    LZ4F_dctx *d;
    if (in.n == 0)
        return -E_CORRUPT;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&d, LZ4F_VERSION)))
        return -E_NOMEM;
    int rc = unpack_frames(d, in, o);
    LZ4F_freeDecompressionContext(d);
    return rc;
}

int codec_lz4_pack(int level, struct slice in, struct buf *out)
{
    LZ4F_preferences_t p = {
        .frameInfo = {.blockSizeID = LZ4F_max64KB, .blockMode = LZ4F_blockIndependent},
        .compressionLevel = level == CODEC_LEVEL_DEFAULT ? LZ4_LEVEL_DEFAULT : level,
    };
    size_t bound = LZ4F_compressFrameBound(in.n, &p);
    uint8_t *room = LZ4F_isError(bound) ? NULL : buf_room(out, bound);
    if (!room)
        return -E_LIMIT;
    size_t n = LZ4F_compressFrame(room, bound, in.p, in.n, &p);
    if (LZ4F_isError(n))
        return -E_NOMEM; /* the bound holds, so nothing else can go wrong */
    buf_added(out, n);
    return 0;
}
