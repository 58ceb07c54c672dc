/* Compressed data: codec, then the data. At once and piece by piece must agree. */
#include "proto/kafka/codec.h"

#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

#define ROOM ((size_t)4 << 20)

static const struct codec_limits limits = {.bytes_max = ROOM, .ratio_from_bytes = ROOM / 8, .ratio_max = 100};

static int collect(void *ctx, struct slice piece)
{
    buf_put(ctx, piece.p, piece.n);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 1)
        return 0;
    struct buf whole, pieces, again;
    enum codec codec = (enum codec)(data[0] % CODEC_COUNT);
    struct slice in = slice_of(data + 1, n - 1);
    buf_init(&whole, 2 * ROOM);
    buf_init(&pieces, 2 * ROOM);
    buf_init(&again, 2 * ROOM);
    int rc = codec_decompress(codec, in, &limits, &whole, NULL);
    if (codec_stream(codec, in, &limits, collect, &pieces, NULL) != rc)
        abort();
    if (rc == 0) {
        if (!slice_eq(buf_slice(&whole), buf_slice(&pieces)) || whole.n > ROOM)
            abort();
        if (codec_compress(codec, CODEC_LEVEL_DEFAULT, buf_slice(&whole), &again))
            abort();
    } else if (whole.n != 0) {
        abort();
    }
    buf_fini(&whole);
    buf_fini(&pieces);
    buf_fini(&again);
    return 0;
}
