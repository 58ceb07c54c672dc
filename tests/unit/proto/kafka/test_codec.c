/* The compressions: there and back, cut, lying, and bombs. */
#include "proto/kafka/codec.h"

#include "base/core/bytes.h"

#include <criterion/criterion.h>
#include <lz4frame.h>
#include <snappy-c.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#define ROOM ((size_t)256 << 20)

static const struct codec_limits wide = {.bytes_max = ROOM, .ratio_from_bytes = ROOM, .ratio_max = 1};

/* Text that shrinks a little, a lot, or not at all. */
static void fill(struct buf *b, size_t n, int how)
{
    uint32_t state = 99;
    uint8_t *p = buf_room(b, n);
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        p[i] = how == 0 ? 'x' : how == 1 ? (uint8_t)("abcdefgh"[(state >> 24) & 7]) : (uint8_t)(state >> 24);
    }
    buf_added(b, n);
}

static int collect(void *ctx, struct slice piece)
{
    buf_put(ctx, piece.p, piece.n);
    return 0;
}

Test(codec, every_codec_gives_back_what_it_took)
{
    static const size_t sizes[] = {0, 1, 7, 1000, 32768, 32769, 65536, 300000, 3000001};
    for (int c = CODEC_NONE; c < CODEC_COUNT; c++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int how = 0; how < 3; how++) {
                struct buf text, packed, back, piecewise;
                buf_init(&text, ROOM);
                buf_init(&packed, ROOM);
                buf_init(&back, ROOM);
                buf_init(&piecewise, ROOM);
                fill(&text, sizes[i], how);
                buf_put(&packed, "before", 6);
                cr_assert_eq(codec_compress((enum codec)c, CODEC_LEVEL_DEFAULT, buf_slice(&text), &packed),
                             0);
                struct slice in = slice_of(packed.p + 6, packed.n - 6);
                cr_assert_eq(codec_decompress((enum codec)c, in, &wide, &back, NULL), 0, "%s %zu",
                             codec_name(c), sizes[i]);
                cr_assert(slice_eq(buf_slice(&back), buf_slice(&text)));
                cr_assert_eq(codec_stream((enum codec)c, in, &wide, collect, &piecewise, NULL), 0);
                cr_assert(slice_eq(buf_slice(&piecewise), buf_slice(&text)));
                buf_fini(&text);
                buf_fini(&packed);
                buf_fini(&back);
                buf_fini(&piecewise);
            }
}

Test(codec, levels)
{
    struct buf text, packed;
    buf_init(&text, ROOM);
    buf_init(&packed, ROOM);
    fill(&text, 10000, 1);
    for (int level = 1; level <= 9; level++)
        for (int c = CODEC_NONE; c < CODEC_COUNT; c++)
            cr_assert_eq(codec_compress((enum codec)c, level, buf_slice(&text), &packed), 0);
    cr_assert_eq(codec_compress(CODEC_GZIP, 77, buf_slice(&text), &packed), -E_INVALID);
    cr_assert_eq(codec_compress(CODEC_ZSTD, 77, buf_slice(&text), &packed), -E_INVALID);
    buf_fini(&text);
    buf_fini(&packed);
}

Test(codec, cut_data_is_corrupt)
{
    for (int c = CODEC_GZIP; c < CODEC_COUNT; c++) {
        struct buf text, packed, back;
        buf_init(&text, ROOM);
        buf_init(&packed, ROOM);
        buf_init(&back, ROOM);
        fill(&text, 500, 1);
        cr_assert_eq(codec_compress((enum codec)c, CODEC_LEVEL_DEFAULT, buf_slice(&text), &packed), 0);
        for (size_t n = 0; n < packed.n; n++) {
            uint8_t *exact = malloc(n + 1);
            memcpy(exact, packed.p, n);
            struct err err = {0};
            int rc = codec_decompress((enum codec)c, slice_of(exact, n), &wide, &back, &err);
            /* xerial's header alone is an empty text */
            if (!(c == CODEC_SNAPPY && n == 16)) {
                cr_assert_eq(rc, -E_CORRUPT, "%s cut at %zu of %zu gives %d", codec_name(c), n, packed.n, rc);
                cr_assert_neq(err.text[0], 0);
            }
            cr_assert_eq(back.n, 0);
            free(exact);
        }
        buf_put(&packed, "trailer", 7);
        int rc = codec_decompress((enum codec)c, buf_slice(&packed), &wide, &back, NULL);
        cr_assert_eq(rc, -E_CORRUPT, "%s with a trailer gives %d", codec_name(c), rc);
        buf_fini(&text);
        buf_fini(&packed);
        buf_fini(&back);
    }
}

Test(codec, plain_snappy_as_librdkafka_writes_it)
{
    struct buf text, back;
    buf_init(&text, ROOM);
    buf_init(&back, ROOM);
    fill(&text, 200000, 1);
    size_t n = snappy_max_compressed_length(text.n);
    uint8_t *packed = malloc(n);
    cr_assert_eq(snappy_compress((char *)text.p, text.n, (char *)packed, &n), SNAPPY_OK);
    cr_assert_eq(codec_decompress(CODEC_SNAPPY, slice_of(packed, n), &wide, &back, NULL), 0);
    cr_assert(slice_eq(buf_slice(&back), buf_slice(&text)));
    free(packed);
    buf_fini(&text);
    buf_fini(&back);
}

Test(codec, members_and_frames_in_a_row_are_one_text)
{
    for (int c = CODEC_GZIP; c < CODEC_COUNT; c++) {
        struct buf packed, back;
        buf_init(&packed, ROOM);
        buf_init(&back, ROOM);
        codec_compress((enum codec)c, CODEC_LEVEL_DEFAULT, SLICE_LIT("one, "), &packed);
        codec_compress((enum codec)c, CODEC_LEVEL_DEFAULT, SLICE_LIT("two"), &packed);
        cr_assert_eq(codec_decompress((enum codec)c, buf_slice(&packed), &wide, &back, NULL), 0, "%s",
                     codec_name(c));
        cr_assert(slice_eq_str(buf_slice(&back), "one, two"));
        buf_fini(&packed);
        buf_fini(&back);
    }
}

Test(codec, what_comes_out_is_held_against_the_cap)
{
    static const struct codec_limits exact = {.bytes_max = 300000, .ratio_from_bytes = ROOM, .ratio_max = 1},
                                     less = {.bytes_max = 299999, .ratio_from_bytes = ROOM, .ratio_max = 1};
    for (int c = CODEC_NONE; c < CODEC_COUNT; c++) {
        struct buf text, packed, back;
        buf_init(&text, ROOM);
        buf_init(&packed, ROOM);
        buf_init(&back, ROOM);
        fill(&text, 300000, 1);
        cr_assert_eq(codec_compress((enum codec)c, CODEC_LEVEL_DEFAULT, buf_slice(&text), &packed), 0);
        cr_assert_eq(codec_decompress((enum codec)c, buf_slice(&packed), &exact, &back, NULL), 0, "%s",
                     codec_name(c));
        buf_clear(&back);
        cr_assert_eq(codec_decompress((enum codec)c, buf_slice(&packed), &less, &back, NULL), -E_LIMIT, "%s",
                     codec_name(c));
        cr_assert_eq(back.n, 0);
        buf_fini(&back);
        buf_init(&back, 300000); /* the buffer's own limit, met exactly and not */
        cr_assert_eq(codec_decompress((enum codec)c, buf_slice(&packed), &exact, &back, NULL), 0, "%s",
                     codec_name(c));
        buf_fini(&back);
        buf_init(&back, 299999);
        cr_assert_eq(codec_decompress((enum codec)c, buf_slice(&packed), &exact, &back, NULL), -E_LIMIT);
        buf_fini(&text);
        buf_fini(&packed);
        buf_fini(&back);
    }
}

static int count(void *ctx, struct slice piece)
{
    *(size_t *)ctx += piece.n;
    return 0;
}

/* 1 GiB of zeros in about 1 MiB of gzip, and in a few hundred KiB of zstd and lz4. */
Test(codec, bombs_are_stopped_by_bytes_and_by_ratio)
{
    struct buf zeros, packed;
    buf_init(&zeros, ROOM);
    buf_init(&packed, ROOM);
    memset(buf_room(&zeros, (size_t)64 << 20), 0, (size_t)64 << 20);
    buf_added(&zeros, (size_t)64 << 20);
    for (int c = CODEC_GZIP; c < CODEC_COUNT; c++) {
        buf_clear(&packed);
        cr_assert_eq(codec_compress((enum codec)c, CODEC_LEVEL_DEFAULT, buf_slice(&zeros), &packed), 0);
        size_t one = packed.n, out = 0;
        struct codec_limits limits = codec_limits_for(1 << 20);
        if (c == CODEC_GZIP || c == CODEC_ZSTD) { /* beyond 400:1 */
            cr_assert_eq(codec_stream((enum codec)c, buf_slice(&packed), &limits, count, &out, NULL),
                         -E_LIMIT);
            cr_assert(out <= ((size_t)16 << 20) + one * 400, "%s let %zu through", codec_name(c), out);
        }
        for (int i = 1; i < 4; i++)
            buf_put(&packed, packed.p, one); /* 256 MiB */
        out = 0;
        cr_assert_eq(codec_stream((enum codec)c, buf_slice(&packed), &limits, count, &out, NULL), -E_LIMIT);
        cr_assert(out <= (size_t)100 << 20, "%s let %zu through", codec_name(c), out);
    }
    buf_fini(&zeros);
    buf_fini(&packed);
}

Test(codec, snappy_lies_about_its_length)
{
    static const uint8_t four_gib[] = {0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 'x'},
                         short_one[] = {0x64, 0x00, 'x'};
    struct buf back;
    buf_init(&back, ROOM);
    cr_assert_eq(codec_decompress(CODEC_SNAPPY, slice_of(four_gib, sizeof four_gib), &wide, &back, NULL),
                 -E_CORRUPT);
    cr_assert_eq(codec_decompress(CODEC_SNAPPY, slice_of(short_one, sizeof short_one), &wide, &back, NULL),
                 -E_CORRUPT);
    cr_assert(back.cap <= 65536, "%zu bytes were taken", back.cap);
    /* xerial: a chunk longer than what is there, a negative one, one of 22-fold claims */
    uint8_t frame[16 + 4 + 8] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1};
    static const uint32_t lengths[] = {9, 0x7fffffff, 0x80000000, 0xffffffff};
    for (size_t i = 0; i < 4; i++) {
        be32_put(frame + 16, lengths[i]);
        cr_assert_eq(codec_decompress(CODEC_SNAPPY, slice_of(frame, sizeof frame), &wide, &back, NULL),
                     -E_CORRUPT);
    }
    buf_fini(&back);
}

Test(codec, lz4_lies_about_its_content_size)
{
    struct buf text, back;
    buf_init(&text, ROOM);
    buf_init(&back, ROOM);
    fill(&text, 5000, 1);
    LZ4F_preferences_t p = {.frameInfo = {.contentSize = 4999}};
    LZ4F_cctx *c;
    uint8_t packed[20000];
    LZ4F_createCompressionContext(&c, LZ4F_VERSION);
    size_t n = LZ4F_compressBegin(c, packed, sizeof packed, &p);
    n += LZ4F_compressUpdate(c, packed + n, sizeof packed - n, text.p, 5000, NULL);
    size_t tail = LZ4F_compressEnd(c, packed + n, sizeof packed - n, NULL);
    if (LZ4F_isError(tail)) { /* the library will not write the lie's end: an end mark does */
        n += LZ4F_flush(c, packed + n, sizeof packed - n, NULL);
        memset(packed + n, 0, 4);
        tail = 4;
    }
    LZ4F_freeCompressionContext(c);
    cr_assert_eq(codec_decompress(CODEC_LZ4, slice_of(packed, n + tail), &wide, &back, NULL), -E_CORRUPT);
    buf_fini(&text);
    buf_fini(&back);
}

Test(codec, zstd_with_a_window_of_2_gib_is_refused)
{
    /* magic, descriptor without single segment, window descriptor: exponent 21 is 2^31 */
    static const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x09, 0x00, 0x00, 'x'};
    struct buf back;
    buf_init(&back, ROOM);
    cr_assert_eq(codec_decompress(CODEC_ZSTD, slice_of(frame, sizeof frame), &wide, &back, NULL), -E_CORRUPT);
    buf_fini(&back);
}

static int stop(void *ctx, struct slice piece)
{
    (void)ctx;
    (void)piece;
    return -77;
}

Test(codec, a_sink_may_end_the_work)
{
    struct buf packed;
    buf_init(&packed, ROOM);
    for (int c = CODEC_NONE; c < CODEC_COUNT; c++) {
        buf_clear(&packed);
        codec_compress((enum codec)c, CODEC_LEVEL_DEFAULT, SLICE_LIT("some text"), &packed);
        cr_assert_eq(codec_stream((enum codec)c, buf_slice(&packed), &wide, stop, NULL, NULL), -77);
    }
    buf_fini(&packed);
}

Test(codec, names)
{
    enum codec c;
    for (int i = 0; i < CODEC_COUNT; i++) {
        cr_assert_eq(codec_parse(slice_str(codec_name(i)), &c), 0);
        cr_assert_eq((int)c, i);
    }
    cr_assert_eq(codec_parse(SLICE_LIT("brotli"), &c), -E_INVALID);
    cr_assert_eq(codec_parse(SLICE_NULL, &c), -E_INVALID);
    cr_assert_str_eq(codec_name(5), "unknown");
    cr_assert_str_eq(codec_name(-1), "unknown");
}
