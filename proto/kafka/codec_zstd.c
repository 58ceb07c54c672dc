/* Zstandard frames, several in a row allowed. */
#include "proto/kafka/codec_internal.h"

#include <zstd.h>

#define ZSTD_WINDOW_LOG_MAX                                                                                  \
    27 /* what level 22 uses and every reader must take; its memory is touched as data comes */
#define ZSTD_LEVEL_DEFAULT 3

static int unpack_frames(ZSTD_DCtx *d, struct slice from, struct outlet *o)
{
    ZSTD_inBuffer in = {from.p, from.n, 0};
    for (;;) {
        size_t got;
        uint8_t *room = outlet_room(o, 0, &got);
        if (!room)
            return outlet_refused(o, 0);
        ZSTD_outBuffer out = {room, got, 0};
        size_t in_before = in.pos, hint = ZSTD_decompressStream(d, &out, &in);
        if (ZSTD_isError(hint))
            return -E_CORRUPT;
        assert(in.pos <= in.size && out.pos <= got);
        int rc = outlet_made(o, out.pos);
        if (rc)
            return rc;
        if (in.pos == in.size && hint == 0)
            return 0;
        if ((in.pos == in.size && out.pos < got) || (in.pos == in_before && out.pos == 0))
            return -E_CORRUPT; /* it ends inside a frame */
    }
}

int codec_zstd_unpack(struct slice in, struct outlet *o)
{
    if (in.n == 0)
        return -E_CORRUPT;
    ZSTD_DCtx *d = ZSTD_createDCtx();
    if (!d)
        return -E_NOMEM;
    ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
    int rc = unpack_frames(d, in, o);
    ZSTD_freeDCtx(d);
    return rc;
}

int codec_zstd_pack(int level, struct slice in, struct buf *out)
{
    if (level == CODEC_LEVEL_DEFAULT)
        level = ZSTD_LEVEL_DEFAULT;
    if (level < ZSTD_minCLevel() || level > ZSTD_maxCLevel())
        return -E_INVALID;
    size_t bound = ZSTD_compressBound(in.n);
    uint8_t *room = ZSTD_isError(bound) ? NULL : buf_room(out, bound);
    if (!room)
        return -E_LIMIT;
    size_t n = ZSTD_compress(room, bound, in.p, in.n, level);
    if (ZSTD_isError(n))
        return -E_NOMEM;
    buf_added(out, n);
    return 0;
}
