/* Snappy, plain (librdkafka, Go) or in the frames of xerial's snappy-java (Kafka's own clients):
 *
 *   0x82 "SNAPPY" 0, int32 version, int32 lowest compatible version, then chunks: int32 length, plain snappy
 *
 * A stream may be several such in a row. Plain blocks say their length up front, which is believed only as far as
 * the format could reach it. */
#include "proto/kafka/codec_internal.h"

#include "base/core/bytes.h"

#include <snappy-c.h>

#define XERIAL_HEADER_BYTES 16
#define XERIAL_CHUNK_BYTES  ((size_t)32 << 10)
/* A copy of 64 bytes takes three: no block grows more than that. */
#define SNAPPY_RATIO_MAX 22

static const uint8_t magic[8] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0};

static int unpack_block(struct slice in, struct outlet *o)
{
    size_t n, got;
    const char *from = (const char *)in.p;
    if (snappy_uncompressed_length(from, in.n, &n) != SNAPPY_OK || n / SNAPPY_RATIO_MAX > in.n)
        return -E_CORRUPT;
    uint8_t *room = outlet_room(o, n, &got);
    if (!room)
        return outlet_refused(o, n);
    assert(got >= n);
    if (snappy_uncompress(from, in.n, (char *)room, &n) != SNAPPY_OK)
        return -E_CORRUPT;
    return outlet_made(o, n);
}

static bool is_header(struct slice in)
{
    return in.n >= XERIAL_HEADER_BYTES && memcmp(in.p, magic, sizeof magic) == 0;
}

int codec_snappy_unpack(struct slice in, struct outlet *o)
{
    if (!is_header(in))
        return unpack_block(in, o);
    while (in.n > 0) {
        if (is_header(in)) {
            in = slice_of(in.p + XERIAL_HEADER_BYTES, in.n - XERIAL_HEADER_BYTES);
            continue;
        }
        uint32_t n = in.n < 4 ? UINT32_MAX : be32_get(in.p);
        if (in.n < 4 || n > in.n - 4)
            return -E_CORRUPT;
        int rc = unpack_block(slice_of(in.p + 4, n), o);
        if (rc)
            return rc;
        in = slice_of(in.p + 4 + n, in.n - 4 - n);
    }
    return 0;
}

int codec_snappy_pack(struct slice in, struct buf *out)
{
    buf_put(out, magic, sizeof magic);
    buf_put_be32(out, 1);
    buf_put_be32(out, 1);
    for (size_t at = 0, n; at < in.n; at += n) {
        n = in.n - at < XERIAL_CHUNK_BYTES ? in.n - at : XERIAL_CHUNK_BYTES;
        size_t bound = snappy_max_compressed_length(n), packed = bound;
        uint8_t *room = buf_room(out, 4 + bound);
        if (!room)
            return -E_LIMIT;
        snappy_status rc = snappy_compress((const char *)in.p + at, n, (char *)room + 4, &packed);
        assert(rc == SNAPPY_OK && packed <= bound);
        (void)rc;
        be32_put(room, (uint32_t)packed);
        buf_added(out, 4 + packed);
    }
    return out->failed ? -E_LIMIT : 0;
}
