/* RFC 1952; several members in a row are one text, as for Java's GZIPInputStream. */
#include "proto/kafka/codec_internal.h"

#include <zlib.h>

#define GZIP_WINDOW_BITS (15 + 16) /* 32 KiB, gzip header */
#define GZIP_MEMORY      8

static int unpack_members(z_stream *z, struct outlet *o)
{
    for (;;) {
        size_t got;
        uint8_t *room = outlet_room(o, 0, &got);
        if (!room)
            return outlet_refused(o, 0);
        assert(got <= UINT_MAX);
        z->next_out = room;
        z->avail_out = (uInt)got;
        int z_rc = inflate(z, Z_NO_FLUSH);
        assert(z->avail_out <= got);
        int rc = outlet_made(o, got - z->avail_out);
        if (rc)
            return rc;
        if (z_rc == Z_MEM_ERROR)
            return -E_NOMEM;
        if (z_rc == Z_STREAM_END) {
            if (z->avail_in == 0)
                return 0;
            if (inflateReset(z) != Z_OK)
                return -E_CORRUPT;
        } else if (z_rc != Z_OK || (z->avail_in == 0 && z->avail_out != 0)) {
            return -E_CORRUPT; /* malformed, or it ends before its trailer */
        }
    }
}

int codec_gzip_unpack(struct slice in, struct outlet *o)
{
    if (in.n > UINT_MAX)
        return -E_LIMIT;
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in.p, .avail_in = (uInt)in.n};
    if (inflateInit2(&z, GZIP_WINDOW_BITS) != Z_OK)
        return -E_NOMEM;
    int rc = unpack_members(&z, o);
    inflateEnd(&z);
    return rc;
}

int codec_gzip_pack(int level, struct slice in, struct buf *out)
{
    if (level == CODEC_LEVEL_DEFAULT)
        level = Z_DEFAULT_COMPRESSION;
    if (in.n > UINT_MAX / 2)
        return -E_LIMIT;
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in.p, .avail_in = (uInt)in.n};
    int z_rc = deflateInit2(&z, level, Z_DEFLATED, GZIP_WINDOW_BITS, GZIP_MEMORY, Z_DEFAULT_STRATEGY);
    if (z_rc != Z_OK)
        return z_rc == Z_MEM_ERROR ? -E_NOMEM : -E_INVALID;
    size_t bound = deflateBound(&z, (uLong)in.n);
    uint8_t *room = buf_room(out, bound);
    int rc = -E_LIMIT;
    if (room) {
        z.next_out = room;
        z.avail_out = (uInt)bound;
        z_rc = deflate(&z, Z_FINISH);
        assert(z_rc == Z_STREAM_END);
        buf_added(out, bound - z.avail_out);
        rc = 0;
    }
    deflateEnd(&z);
    return rc;
}
