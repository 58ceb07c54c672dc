/* Large records pass the check without being kept: it takes and refuses the same as reading them whole. */
#include "base/core/bytes.h"
#include "base/core/rng.h"
#include "base/core/varint.h"
#include "proto/kafka/batch_validate.h"
#include "proto/kafka/errors.h"
#include "proto/kafka/record_stream.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define ROOM ((size_t)64 << 20)

/* Records as they stand in a batch: a few of any size, with headers. */
static struct slice random_payload(struct rng *rng, struct buf *out, int32_t *n)
{
    static uint8_t value[1 << 20];
    static struct record_header headers[3];
    struct batch_builder w;
    struct batch_options o = BATCH_OPTIONS;
    batch_begin(&w, out, &o);
    *n = 1 + (int32_t)rng_below(rng, 4);
    for (int32_t i = 0; i < *n; i++) {
        size_t large = rng_chance(rng, 500000) ? rng_below(rng, sizeof value / 2) : rng_below(rng, 200);
        size_t of_header = rng_chance(rng, 300000) ? rng_below(rng, sizeof value / 2) : rng_below(rng, 20);
        for (size_t k = 0; k < sizeof headers / sizeof *headers; k++)
            headers[k] = (struct record_header){SLICE_LIT("header"), slice_of(value, of_header)};
        struct record_new r = {.timestamp = 1000 + (int64_t)rng_below(rng, 9),
                               .key = rng_chance(rng, 300000) ? SLICE_NULL
                                                              : slice_of(value, rng_below(rng, 100)),
                               .value = rng_chance(rng, 100000) ? SLICE_NULL : slice_of(value, large),
                               .headers = headers,
                               .headers_n = (int32_t)rng_below(rng, 4)};
        if (rng_chance(rng, 100000))
            r.key = slice_of(value, 200000);
        cr_assert_eq(batch_add(&w, &r), 0);
    }
    cr_assert_eq(batch_close(&w, NULL), 0);
    return slice_of(out->p + BATCH_HEADER_BYTES, out->n - BATCH_HEADER_BYTES);
}

/* A batch around a payload, compressed. */
static void wrap(struct slice payload, const struct batch_header *like, enum codec codec, struct buf *out)
{
    struct batch_header h = *like;
    uint8_t header[BATCH_HEADER_BYTES] = {0};
    buf_put(out, header, sizeof header);
    cr_assert_eq(codec_compress(codec, CODEC_LEVEL_DEFAULT, payload, out), 0);
    h.attributes = (int16_t)codec;
    batch_header_write(&h, out->p);
    be32_put(out->p + BATCH_LENGTH_AT, (uint32_t)(out->n - BATCH_PREFIX_BYTES));
    be32_put(out->p + BATCH_CRC_AT, batch_crc(buf_slice(out)));
}

static bool whole_is_good(struct slice payload, const struct batch_header *h, bool keys)
{
    struct record_walk w;
    struct record r;
    int rc, n = 0;
    record_walk_init(&w, h, payload);
    while ((rc = record_next(&w, &r)) == 1)
        if (r.offset_delta != n++ || record_headers_check(&r) || (keys && slice_is_null(r.key)))
            return false;
    return rc == 0 && n == h->records_n;
}

static int judged[2];

static void compare(struct slice payload, const struct batch_header *h, enum codec codec, bool keys)
{
    struct batch_rules rules = {.depth = BATCH_CHECK_ALL,
                                .size_max = ROOM,
                                .needs_keys = keys,
                                .before_max_ms = INT64_MAX,
                                .after_max_ms = INT64_MAX,
                                .produce_version = 9};
    struct batch_verdict v;
    struct buf batch;
    buf_init(&batch, ROOM);
    wrap(payload, h, codec, &batch);
    bool good = batch_validate(buf_slice(&batch), &rules, &v) == 0;
    cr_assert_eq(good, whole_is_good(payload, h, keys), "%s: %s", codec_name((int)codec), v.text);
    judged[good]++;
    buf_fini(&batch);
}

Test(record_stream, large_records_are_taken_and_refused_as_whole_ones, .timeout = 280)
{
    struct rng rng;
    rng_init(&rng, 7);
    judged[0] = judged[1] = 0;
    for (int i = 0; i < 24; i++) {
        struct buf plain;
        struct batch_header h;
        int32_t n;
        buf_init(&plain, ROOM);
        struct slice payload = random_payload(&rng, &plain, &n);
        cr_assert_eq(batch_header_read(buf_slice(&plain), &h, NULL), 0);
        enum codec codec = (enum codec)(1 + i % 4);
        compare(payload, &h, codec, i & 1);
        for (int k = 0; k < 12; k++) { /* a length, a count, any byte of it; the end of it */
            uint8_t *at = plain.p + BATCH_HEADER_BYTES + rng_below(&rng, k % 3 ? 24 : payload.n), was = *at;
            *at = (uint8_t)rng_below(&rng, 256);
            compare(payload, &h, codec, false);
            *at = was;
            compare(slice_of(payload.p, payload.n - 1 - rng_below(&rng, k < 6 ? 20 : payload.n)), &h, codec,
                    false);
        }
        buf_fini(&plain);
    }
    cr_assert(judged[0] > 200 && judged[1] > 40, "%d refused, %d taken", judged[0], judged[1]);
}

static void number(struct buf *b, int64_t v)
{
    uint8_t bytes[UVARINT64_MAX_BYTES];
    buf_put(b, bytes, varint_put(bytes, v));
}

/* 100 MiB of zeroes in 100 KiB: not one of them is kept. */
Test(record_stream, keeps_nothing_of_what_passes)
{
    enum { VALUE = 100 << 20 };
    struct buf b;
    struct record_stream s;
    static uint8_t piece[65536];
    int64_t body = 1 + 1 + 1 + 1 + (int64_t)varint_size(VALUE) + VALUE + 1;
    buf_init(&b, 2 * sizeof piece);
    number(&b, body);
    buf_put(&b, "\0\0\0\1", 4); /* attributes, two deltas, no key */
    number(&b, VALUE);
    record_stream_begin(&s);
    for (int64_t left = VALUE; left > 0; left -= (int64_t)sizeof piece) {
        cr_assert_eq(record_stream_read(&s, &b), 0);
        cr_assert_lt(b.n, 16);
        buf_put(&b, piece, left < (int64_t)sizeof piece ? (size_t)left : sizeof piece);
    }
    buf_put_u8(&b, 0); /* no headers */
    cr_assert_eq(record_stream_read(&s, &b), 1);
    cr_assert(!record_stream_open(&s) && b.n == 0 && slice_is_null(s.record.key));
    buf_fini(&b);
}
