/* What a client may append, and the answer to what it may not (RELIABILITY §4, rows 11 to 13). */
#include "proto/kafka/batch_validate.h"

#include "base/core/bytes.h"
#include "base/core/rng.h"
#include "proto/kafka/errors.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <time.h>

#define ROOM ((size_t)300 << 20)
#define NOW  INT64_C(1700000000000)

static const struct batch_rules rules = {.depth = BATCH_CHECK_ALL,
                                         .size_max = 1048588,
                                         .create_time = true,
                                         .before_max_ms = INT64_MAX,
                                         .after_max_ms = 3600000,
                                         .now_ms = NOW,
                                         .produce_version = 9};

static void good(struct buf *out, enum codec codec, int n)
{
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    o.codec = codec;
    batch_begin(&b, out, &o);
    for (int i = 0; i < n; i++) {
        struct record_header header = {SLICE_LIT("h"), SLICE_LIT("v")};
        struct record_new r = {.timestamp = NOW + i,
                               .key = SLICE_LIT("key"),
                               .value = SLICE_LIT("some value"),
                               .headers = &header,
                               .headers_n = 1};
        cr_assert_eq(batch_add(&b, &r), 0);
    }
    cr_assert_eq(batch_close(&b, NULL), 0);
}

/* Corrects length and CRC after a test has broken something else. */
static void seal(struct buf *b)
{
    be32_put(b->p + BATCH_LENGTH_AT, (uint32_t)(b->n - BATCH_PREFIX_BYTES));
    be32_put(b->p + BATCH_CRC_AT, batch_crc(buf_slice(b)));
}

/* A batch around raw record bytes, which may be anything. */
static void around(struct buf *out, enum codec codec, int32_t records_n, const void *records, size_t n)
{
    struct batch_header h = {.leader_epoch = -1,
                             .attributes = (int16_t)codec,
                             .last_offset_delta = records_n - 1,
                             .base_timestamp = NOW,
                             .max_timestamp = NOW,
                             .producer_id = -1,
                             .producer_epoch = -1,
                             .base_sequence = -1,
                             .records_n = records_n};
    buf_clear(out);
    batch_header_write(&h, buf_room(out, BATCH_HEADER_BYTES));
    buf_added(out, BATCH_HEADER_BYTES);
    cr_assert_eq(codec_compress(codec, CODEC_LEVEL_DEFAULT, slice_of(records, n), out), 0);
    seal(out);
}

static int validate(struct buf *b, const struct batch_rules *r, struct batch_verdict *v)
{
    uint8_t *exact = malloc(b->n + 1);
    memcpy(exact, b->p ? b->p : (uint8_t *)"", b->n);
    int rc = batch_validate(slice_of(exact, b->n), r, v);
    cr_assert_eq(rc == 0, v->kafka_error == KE_NONE);
    cr_assert(rc == 0 || v->text[0] || v->errors_n);
    free(exact);
    return rc;
}

static void refused(struct buf *b, enum kafka_error expected, const char *what)
{
    struct batch_verdict v;
    validate(b, &rules, &v);
    cr_assert_eq(v.kafka_error, expected, "%s: %s, expected %s (%s)", what, kafka_error_name(v.kafka_error),
                 kafka_error_name((int16_t)expected), v.text);
}

Test(validate, good_batches_pass_at_every_depth)
{
    struct buf b;
    buf_init(&b, ROOM);
    for (int c = CODEC_NONE; c < CODEC_COUNT; c++)
        for (int depth = BATCH_CHECK_HEADER; depth <= BATCH_CHECK_ALL; depth++) {
            struct batch_rules r = rules;
            struct batch_verdict v;
            r.depth = (enum batch_depth)depth;
            r.needs_keys = depth == BATCH_CHECK_ALL;
            buf_clear(&b);
            good(&b, (enum codec)c, 1000);
            cr_assert_eq(validate(&b, &r, &v), 0, "%s: %s", codec_name(c), v.text);
            cr_assert_eq(v.max_timestamp, NOW + 999);
            cr_assert_eq(v.header.records_n, 1000);
        }
    buf_fini(&b);
}

Test(validate, frames)
{
    struct buf b;
    buf_init(&b, ROOM);
    refused(&b, KE_INVALID_RECORD, "nothing");
    good(&b, CODEC_NONE, 3);
    size_t whole = b.n;
    for (b.n = 1; b.n < whole; b.n++)
        refused(&b, KE_CORRUPT_MESSAGE, "a cut batch");
    static const int32_t lengths[] = {-1, 0, 48, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < 5; i++) {
        buf_clear(&b);
        good(&b, CODEC_NONE, 3);
        be32_put(b.p + BATCH_LENGTH_AT, (uint32_t)lengths[i]);
        refused(&b, KE_CORRUPT_MESSAGE, "length");
    }
    for (int by = -1; by <= 1; by += 2) {
        buf_clear(&b);
        good(&b, CODEC_NONE, 3);
        be32_put(b.p + BATCH_LENGTH_AT, be32_get(b.p + BATCH_LENGTH_AT) + (uint32_t)by);
        refused(&b, by < 0 ? KE_INVALID_RECORD : KE_CORRUPT_MESSAGE, "length by one");
    }
    static const struct {
        uint8_t magic;
        enum kafka_error expected;
    } magics[] = {
        {0, KE_INVALID_RECORD}, {1, KE_INVALID_RECORD}, {3, KE_CORRUPT_MESSAGE}, {255, KE_CORRUPT_MESSAGE}};
    for (size_t i = 0; i < 4; i++) {
        buf_clear(&b);
        good(&b, CODEC_NONE, 3);
        b.p[BATCH_MAGIC_AT] = magics[i].magic;
        refused(&b, magics[i].expected, "magic");
    }
    buf_clear(&b);
    good(&b, CODEC_NONE, 3);
    b.p[BATCH_CRC_AT] ^= 1;
    refused(&b, KE_CORRUPT_MESSAGE, "CRC");
    buf_clear(&b);
    good(&b, CODEC_NONE, 3);
    good(&b, CODEC_NONE, 3);
    refused(&b, KE_INVALID_RECORD, "two batches");
    struct batch_rules r = rules;
    struct batch_verdict v;
    buf_clear(&b);
    good(&b, CODEC_NONE, 3);
    r.size_max = b.n;
    cr_assert_eq(validate(&b, &r, &v), 0);
    r.size_max = b.n - 1;
    cr_assert_eq(validate(&b, &r, &v), -E_LIMIT);
    cr_assert_eq(v.kafka_error, KE_MESSAGE_TOO_LARGE);
    buf_fini(&b);
}

static void with(struct buf *b, size_t at, size_t n, int64_t value, enum kafka_error expected,
                 const char *what)
{
    buf_clear(b);
    good(b, CODEC_NONE, 3);
    for (size_t i = 0; i < n; i++)
        b->p[at + i] = (uint8_t)((uint64_t)value >> (8 * (n - 1 - i)));
    seal(b);
    refused(b, expected, what);
}

Test(validate, headers)
{
    struct buf b;
    buf_init(&b, ROOM);
    with(&b, 0, 8, 5, KE_INVALID_RECORD, "base offset");
    with(&b, 21, 2, 5, KE_UNSUPPORTED_COMPRESSION_TYPE, "codec 5");
    with(&b, 21, 2, 7, KE_UNSUPPORTED_COMPRESSION_TYPE, "codec 7");
    with(&b, 21, 2, BATCH_LOG_APPEND_TIME, KE_INVALID_TIMESTAMP, "LogAppendTime");
    with(&b, 21, 2, BATCH_TRANSACTIONAL, KE_INVALID_RECORD, "transactional without producer id");
    with(&b, 21, 2, BATCH_CONTROL, KE_INVALID_RECORD, "control");
    with(&b, 21, 2, BATCH_DELETE_HORIZON, KE_INVALID_RECORD, "delete horizon");
    with(&b, 21, 2, 0x80, KE_INVALID_RECORD, "reserved bit 7");
    with(&b, 21, 2, 0x8000, KE_INVALID_RECORD, "reserved bit 15");
    static const int32_t counts[] = {-1, 0, 2, 4, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 6; i++) {
        with(&b, 57, 4, counts[i], KE_INVALID_RECORD, "record count");
        with(&b, 23, 4, counts[i] == 2 ? 3 : counts[i], KE_INVALID_RECORD, "last offset delta");
    }
    with(&b, 43, 8, -2, KE_INVALID_RECORD, "producer id -2");
    with(&b, 43, 8, 5, KE_INVALID_RECORD, "producer id without sequence");
    /* Sarama sends sequence 0 without a producer id. */
    buf_clear(&b);
    good(&b, CODEC_NONE, 3);
    be32_put(b.p + 53, 0);
    seal(&b);
    struct batch_verdict v;
    cr_assert_eq(validate(&b, &rules, &v), 0);
    buf_fini(&b);
}

Test(validate, zstd_needs_produce_7)
{
    struct buf b;
    struct batch_verdict v;
    struct batch_rules r = rules;
    buf_init(&b, ROOM);
    good(&b, CODEC_ZSTD, 3);
    r.produce_version = 6;
    cr_assert_eq(validate(&b, &r, &v), -E_INVALID);
    cr_assert_eq(v.kafka_error, KE_UNSUPPORTED_COMPRESSION_TYPE);
    r.produce_version = 7;
    cr_assert_eq(validate(&b, &r, &v), 0);
    buf_fini(&b);
}

Test(validate, records)
{
    static const struct {
        const char *what;
        int32_t n;
        uint8_t bytes[40];
        size_t size;
    } cases[] = {
        {"one too few", 2, {16, 0, 0, 0, 2, 'k', 2, 'v', 0}, 9},
        {"one too many", 1, {16, 0, 0, 0, 2, 'k', 2, 'v', 0, 16, 0, 0, 2, 2, 'k', 2, 'v', 0}, 18},
        {"bytes left over", 1, {16, 0, 0, 0, 2, 'k', 2, 'v', 0, 1}, 10},
        {"length past the end", 1, {18, 0, 0, 0, 2, 'k', 2, 'v', 0}, 9},
        {"length too short", 1, {14, 0, 0, 0, 2, 'k', 2, 'v', 0}, 9},
        {"negative length", 1, {1, 0, 0, 0, 2, 'k', 2, 'v', 0}, 9},
        {"length of five high bytes", 1, {0xff, 0xff, 0xff, 0xff, 0x1f, 0, 0, 0, 1, 1, 0}, 11},
        {"empty record", 1, {0}, 1},
        {"offset delta 1 first", 1, {16, 0, 0, 2, 2, 'k', 2, 'v', 0}, 9},
        {"offset delta -1", 1, {16, 0, 0, 1, 2, 'k', 2, 'v', 0}, 9},
        {"offset delta twice", 2, {16, 0, 0, 0, 2, 'k', 2, 'v', 0, 16, 0, 0, 0, 2, 'k', 2, 'v', 0}, 18},
        {"key length past the end", 1, {16, 0, 0, 0, 60, 'k', 2, 'v', 0}, 9},
        {"key length -2", 1, {16, 0, 0, 0, 3, 'k', 2, 'v', 0}, 9},
        {"value length past the end", 1, {16, 0, 0, 0, 2, 'k', 60, 'v', 0}, 9},
        {"negative header count", 1, {16, 0, 0, 0, 2, 'k', 2, 'v', 1}, 9},
        {"a million headers", 1, {20, 0, 0, 0, 2, 'k', 2, 'v', 0x80, 0x89, 0x7a}, 11},
        {"null header key", 1, {20, 0, 0, 0, 2, 'k', 2, 'v', 2, 1, 1}, 11},
        {"a header too few", 1, {22, 0, 0, 0, 2, 'k', 2, 'v', 4, 2, 'h', 1}, 12},
        {"header bytes left over", 1, {24, 0, 0, 0, 2, 'k', 2, 'v', 2, 2, 'h', 1, 9}, 13},
        {"header value past the end", 1, {22, 0, 0, 0, 2, 'k', 2, 'v', 2, 2, 'h', 40}, 12},
    };
    static const uint8_t fine[] = {16, 0, 0, 0, 2, 'k', 2, 'v', 0},
                         header[] = {22, 0, 0, 0, 2, 'k', 2, 'v', 2, 2, 'h', 1};
    struct buf b;
    struct batch_verdict v;
    buf_init(&b, ROOM);
    for (int c = CODEC_NONE; c < CODEC_COUNT; c++) {
        around(&b, (enum codec)c, 1, fine, sizeof fine);
        cr_assert_eq(validate(&b, &rules, &v), 0, "%s", v.text);
        around(&b, (enum codec)c, 1, header, sizeof header);
        cr_assert_eq(validate(&b, &rules, &v), 0, "%s", v.text);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            around(&b, (enum codec)c, cases[i].n, cases[i].bytes, cases[i].size);
            refused(&b, KE_INVALID_RECORD, cases[i].what);
            struct batch_header h;
            struct codec_limits limits = codec_limits_for(1 << 20);
            cr_assert_eq(batch_read(buf_slice(&b), &h, NULL), 0);
            cr_assert_eq(batch_records_check(&h, buf_slice(&b), false, &limits, NULL), -E_CORRUPT);
        }
    }
    buf_fini(&b);
}

/* What record_next, which takes no short cut, says of an uncompressed batch. */
static bool walks(const struct batch_header *h, struct slice batch)
{
    struct record_walk w;
    struct record r;
    int rc;
    record_walk_init(&w, h, slice_of(batch.p + BATCH_HEADER_BYTES, batch.n - BATCH_HEADER_BYTES));
    for (int32_t i = 0; (rc = record_next(&w, &r)) == 1; i++)
        if (r.offset_delta != i || record_headers_check(&r))
            return false;
    return rc == 0;
}

static void mixed_records(struct buf *out, struct rng *g)
{
    static const uint8_t filler[20000];
    static const int32_t lengths[] = {-1, 0, 1, 3, 63, 64, 100, 8191, 8192, 20000};
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    struct record_header header = {SLICE_LIT("h"), SLICE_NULL};
    buf_clear(out);
    batch_begin(&b, out, &o);
    for (int i = 0, n = (int)rng_range(g, 1, 40); i < n; i++) {
        int32_t key = lengths[rng_below(g, 7)], value = lengths[rng_below(g, 10)];
        cr_assert_eq(
            batch_add(&b,
                      &(struct record_new){.timestamp = NOW + rng_range(g, -9000, 9000) * (i > 0),
                                           .key = key < 0 ? SLICE_NULL : slice_of(filler, (size_t)key),
                                           .value = value < 0 ? SLICE_NULL : slice_of(filler, (size_t)value),
                                           .headers = &header,
                                           .headers_n = rng_chance(g, 100000)}),
            0);
    }
    cr_assert_eq(batch_close(&b, NULL), 0);
}

Test(validate, the_short_cut_for_plain_records_takes_and_refuses_the_same)
{
    struct rng g;
    struct buf b;
    struct batch_header h;
    struct codec_limits limits = codec_limits_for(1 << 20);
    int taken = 0, rounds = 20000;
    rng_init(&g, 20261121);
    buf_init(&b, ROOM);
    for (int i = 0; i < rounds; i++) {
        mixed_records(&b, &g);
        /* Near the front lie the fields; fillers are long. */
        size_t payload = b.n - BATCH_HEADER_BYTES, near = payload < 16 ? payload : 16;
        if (i % 4 != 0)
            b.p[BATCH_HEADER_BYTES + rng_below(&g, rng_chance(&g, 900000) ? near : payload)] =
                (uint8_t)rng_next(&g);
        seal(&b);
        cr_assert_eq(batch_read(buf_slice(&b), &h, NULL), 0);
        bool ok = walks(&h, buf_slice(&b));
        cr_assert_eq(batch_records_check(&h, buf_slice(&b), false, &limits, NULL) == 0, ok, "round %d", i);
        taken += ok;
    }
    cr_assert(taken > rounds / 4 && taken < rounds - rounds / 10, "%d of %d", taken, rounds);
    buf_fini(&b);
}

Test(validate, compressed_records_are_left_alone_unless_asked)
{
    static const uint8_t bad[] = {16, 0, 0, 2, 2, 'k', 2, 'v', 0};
    struct batch_rules r = rules;
    struct batch_verdict v;
    struct buf b;
    buf_init(&b, ROOM);
    around(&b, CODEC_LZ4, 1, bad, sizeof bad);
    r.depth = BATCH_CHECK_RECORDS;
    cr_assert_eq(validate(&b, &r, &v), 0);
    r.needs_keys = true;
    cr_assert_eq(validate(&b, &r, &v), -E_CORRUPT);
    around(&b, CODEC_NONE, 1, bad, sizeof bad);
    r.needs_keys = false;
    cr_assert_eq(validate(&b, &r, &v), -E_CORRUPT);
    r.depth = BATCH_CHECK_HEADER;
    cr_assert_eq(validate(&b, &r, &v), 0);
    buf_fini(&b);
}

Test(validate, a_compacted_topic_names_the_records_without_key)
{
    for (int c = CODEC_NONE; c < CODEC_COUNT; c++) {
        struct batch_options o = BATCH_OPTIONS;
        struct batch_builder builder;
        struct batch_rules r = rules;
        struct batch_verdict v;
        struct buf b;
        buf_init(&b, ROOM);
        o.codec = (enum codec)c;
        batch_begin(&builder, &b, &o);
        for (int i = 0; i < 300; i++) {
            struct record_new n = {.timestamp = NOW,
                                   .key = i == 3 || i >= 100 ? SLICE_NULL : SLICE_LIT(""),
                                   .value = SLICE_LIT("v")};
            batch_add(&builder, &n);
        }
        cr_assert_eq(batch_close(&builder, NULL), 0);
        r.depth = BATCH_CHECK_HEADER;
        r.needs_keys = true;
        cr_assert_eq(validate(&b, &r, &v), -E_INVALID);
        cr_assert_eq(v.kafka_error, KE_INVALID_RECORD);
        cr_assert_eq(v.errors_n, BATCH_RECORD_ERRORS_MAX);
        cr_assert_eq(v.errors[0].index, 3);
        cr_assert_eq(v.errors[1].index, 100);
        buf_fini(&b);
    }
}

static enum kafka_error at_time(int64_t timestamp, const struct batch_rules *r, enum codec codec)
{
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder builder;
    struct batch_verdict v;
    struct buf b;
    buf_init(&b, ROOM);
    o.codec = codec;
    batch_begin(&builder, &b, &o);
    struct record_new n = {.timestamp = timestamp, .value = SLICE_LIT("v")};
    batch_add(&builder, &n);
    cr_assert_eq(batch_close(&builder, NULL), 0);
    validate(&b, r, &v);
    cr_assert(v.kafka_error == KE_NONE || codec != CODEC_NONE || v.errors_n == 1);
    buf_fini(&b);
    return (enum kafka_error)v.kafka_error;
}

Test(validate, timestamps)
{
    struct batch_rules r = rules;
    cr_assert_eq(at_time(-1, &r, CODEC_NONE), KE_NONE);
    cr_assert_eq(at_time(0, &r, CODEC_NONE), KE_NONE);
    cr_assert_eq(at_time(NOW + 3600000, &r, CODEC_NONE), KE_NONE);
    cr_assert_eq(at_time(NOW + 3600001, &r, CODEC_NONE), KE_INVALID_TIMESTAMP);
    cr_assert_eq(at_time(INT64_MAX, &r, CODEC_NONE), KE_INVALID_TIMESTAMP);
    cr_assert_eq(at_time(INT64_MIN, &r, CODEC_NONE), KE_INVALID_TIMESTAMP);
    r.before_max_ms = 1000;
    cr_assert_eq(at_time(NOW - 1000, &r, CODEC_NONE), KE_NONE);
    cr_assert_eq(at_time(NOW - 1001, &r, CODEC_NONE), KE_INVALID_TIMESTAMP);
    r.depth = BATCH_CHECK_RECORDS; /* the header alone shows the future */
    cr_assert_eq(at_time(NOW + 3600001, &r, CODEC_GZIP), KE_INVALID_TIMESTAMP);
    r.create_time = false;
    cr_assert_eq(at_time(INT64_MAX, &r, CODEC_NONE), KE_NONE);
    cr_assert_eq(at_time(INT64_MIN, &r, CODEC_NONE), KE_NONE);
}

Test(validate, the_brokers_own_batches_may_be_control_and_anywhere)
{
    struct batch_options o = BATCH_OPTIONS;
    struct batch_rules r = rules;
    struct batch_verdict v;
    struct buf b;
    buf_init(&b, ROOM);
    o.base_offset = 77;
    o.producer_id = 5;
    o.producer_epoch = 0;
    r.internal = true;
    batch_put_end_txn(&b, &o, NOW, CONTROL_ABORT, 1);
    cr_assert_eq(validate(&b, &r, &v), 0, "%s", v.text);
    buf_fini(&b);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

Test(validate, bombs_cost_bounded_time_and_memory)
{
    struct buf b, zeros;
    buf_init(&b, ROOM);
    buf_init(&zeros, ROOM);
    /* One record with a value of 200 MiB of zeros, which every codec but snappy shrinks a lot. */
    size_t n = (size_t)200 << 20;
    buf_put_varint(&zeros, (int64_t)n + 9);
    buf_put(&zeros, "\0\0\0\1", 4); /* attributes, two deltas, no key */
    buf_put_varint(&zeros, (int64_t)n);
    memset(buf_room(&zeros, n), 0, n);
    buf_added(&zeros, n);
    for (int c = CODEC_GZIP; c < CODEC_COUNT; c++) {
        struct batch_rules r = rules;
        struct batch_verdict v;
        around(&b, (enum codec)c, 1, zeros.p, zeros.n);
        r.size_max = b.n;
        double before = seconds();
        cr_assert_eq(batch_validate(buf_slice(&b), &r, &v), -E_LIMIT, "%s: %s", codec_name(c), v.text);
        cr_assert_eq(v.kafka_error, KE_MESSAGE_TOO_LARGE);
        double took = seconds() - before;
        cr_assert(took < 60, "%s took %.1f s", codec_name(c), took); /* with sanitizers */
    }
    buf_fini(&b);
    buf_fini(&zeros);
}
