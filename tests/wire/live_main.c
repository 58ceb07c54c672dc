/* Our side of tests/wire/run: reads what Kafka's classes wrote and writes what they are to read.
 *
 *   wire_live frames-read FILE              wire_live batches-read FILE
 *   wire_live frames-write SEED COUNT FILE  wire_live batches-write SEED FILE
 *   wire_live verdicts SEED COUNT FILE      batches broken at random, with what batch_validate says
 */
#include "tests/wire/batch_file.h"
#include "tests/wire/frame_file.h"

#include "base/core/bytes.h"
#include "proto/kafka/batch_validate.h"
#include "tests/support/kp_random.h"

#include <stdio.h>
#include <stdlib.h>

#define ROOM      ((size_t)512 << 20)
#define TOLD_MAX  20
#define NOW       INT64_C(1700000000000)
#define TEXT_MAX_ 600

static int frames_read(const char *path)
{
    struct slice file = file_read(path), rest = file;
    struct frame_entry e;
    int rc, n = 0, unknown = 0, bad = 0;
    while ((rc = frame_entry_next(&rest, &e)) == 1) {
        char why[TEXT_MAX_];
        if (!e.message) {
            unknown++;
            continue;
        }
        n++;
        if (frame_entry_check(&e, why, sizeof why) && bad++ < TOLD_MAX)
            printf("%s\n", why);
    }
    printf("%d messages of Kafka read by Sundog, %d wrong (%d of APIs without rows)\n", n, bad, unknown);
    free((void *)(uintptr_t)file.p);
    return rc == 0 && n > 0 && bad == 0 ? 0 : 1;
}

static int save(const char *path, struct buf *b)
{
    FILE *f = fopen(path, "wb");
    size_t n = f ? fwrite(b->p, 1, b->n, f) : 0;
    int rc = !f || n != b->n || fclose(f) ? 1 : 0;
    buf_fini(b);
    return rc;
}

static int frames_write(uint64_t seed, int count, const char *path)
{
    const struct kp_named *all;
    size_t n = kp_every_message(&all), apis_n;
    const struct kp_api *apis = kp_api_table(&apis_n);
    struct buf out, bytes;
    struct arena arena;
    buf_init(&out, ROOM);
    buf_init(&bytes, ROOM);
    arena_init(&arena, ROOM);
    struct kp_random random = {.state = seed, .arena = &arena, .list_max = 3, .string_max = 14, .text = true};
    for (size_t i = 0; i < n; i++)
        for (int16_t v = all[i].message->version_min; v <= all[i].message->version_max; v++)
            for (int k = 0; k < count; k++) {
                bool record = i >= 2 * apis_n;
                struct frame_entry e = {.what = record  ? FRAME_RECORD
                                                : i % 2 ? FRAME_RESPONSE
                                                        : FRAME_REQUEST,
                                        .key = record ? -1 : apis[i / 2].key,
                                        .version = v};
                snprintf(e.name, sizeof e.name, "%s", all[i].name);
                void *body = arena_alloc(&arena, all[i].message->body->size_bytes);
                kp_random_fill(&random, all[i].message, v, body);
                buf_clear(&bytes);
                if (kp_encode(all[i].message, v, body, &bytes)) {
                    printf("%s v%d does not encode\n", e.name, v);
                    return 1;
                }
                e.bytes = buf_slice(&bytes);
                frame_entry_put(&out, &e);
                arena_reset(&arena);
            }
    buf_fini(&bytes);
    arena_fini(&arena);
    return save(path, &out);
}

static int batches_read(const char *path)
{
    struct slice file = file_read(path), rest = file;
    struct batch_entry e;
    int rc, n = 0, bad = 0;
    while ((rc = batch_entry_next(&rest, &e)) == 1) {
        char why[TEXT_MAX_];
        n++;
        if (batch_entry_check(&e, why, sizeof why) && bad++ < TOLD_MAX)
            printf("batch %d of Kafka: %s\n", n, why);
    }
    printf("%d batches of Kafka read by Sundog, %d wrong\n", n, bad);
    free((void *)(uintptr_t)file.p);
    return rc == 0 && n > 0 && bad == 0 ? 0 : 1;
}

/* ---- batches of ours ---- */

static struct slice text(struct kp_random *r, size_t most, bool null)
{
    if (null && kp_random_below(r, 5) == 0)
        return SLICE_NULL;
    struct slice s = kp_random_bytes(r, most);
    for (size_t i = 0; i < s.n; i++)
        ((uint8_t *)(uintptr_t)s.p)[i] = (uint8_t) "abcdefgh\0~"[s.p[i] % 10];
    return s;
}

static void put_bytes(struct buf *out, struct slice s)
{
    buf_put_be32(out, slice_is_null(s) ? UINT32_MAX : (uint32_t)s.n);
    buf_put(out, s.p, s.n);
}

static void add_random(struct kp_random *r, struct batch_builder *b, int32_t delta, int64_t base,
                       struct buf *listed)
{
    struct record_header headers[3];
    struct record_new n = {.timestamp = NOW + (int64_t)kp_random_below(r, 100000) - 50000,
                           .key = text(r, 20, true),
                           .value = text(r, kp_random_below(r, 20) ? 80 : 3000, true),
                           .headers = headers,
                           .headers_n = kp_random_below(r, 3) ? 0 : (int32_t)kp_random_below(r, 4)};
    buf_put_be64(listed, (uint64_t)(base + delta));
    buf_put_be64(listed, (uint64_t)n.timestamp);
    put_bytes(listed, n.key);
    put_bytes(listed, n.value);
    buf_put_be32(listed, (uint32_t)n.headers_n);
    for (int32_t i = 0; i < n.headers_n; i++) {
        headers[i] = (struct record_header){text(r, 8, false), text(r, 8, true)};
        for (size_t k = 0; k < headers[i].key.n; k++) /* Java keys are strings */
            ((uint8_t *)(uintptr_t)headers[i].key.p)[k] |= 0x20;
        put_bytes(listed, headers[i].key);
        put_bytes(listed, headers[i].value);
    }
    if (batch_add_at(b, delta, &n))
        abort();
}

static void write_batch(struct kp_random *r, enum codec codec, int n, bool gaps, struct buf *out)
{
    struct buf batch, listed;
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    buf_init(&batch, ROOM);
    buf_init(&listed, ROOM);
    o.codec = codec;
    o.base_offset = (int64_t)kp_random_below(r, 1000000);
    o.leader_epoch = (int32_t)kp_random_below(r, 500);
    if (kp_random_below(r, 2)) {
        o.producer_id = (int64_t)kp_random_below(r, 100000);
        o.producer_epoch = (int16_t)kp_random_below(r, 100);
        o.base_sequence = (int32_t)kp_random_below(r, 100000);
        o.attributes = kp_random_below(r, 2) ? BATCH_TRANSACTIONAL : 0;
    }
    if (gaps && kp_random_below(r, 2))
        o.delete_horizon = NOW + 86400000;
    batch_begin(&b, &batch, &o);
    int32_t delta = 0;
    for (int i = 0; i < n; i++, delta++) {
        delta += gaps ? (int32_t)kp_random_below(r, 3) : 0;
        add_random(r, &b, delta, o.base_offset, &listed);
    }
    if (gaps)
        batch_last_offset_delta_set(&b, delta + 5);
    if (batch_close(&b, NULL))
        abort();
    if (o.producer_id >= 0) { /* as the batch engine does */
        struct batch_patch p = {.producer_id = 7,
                                .producer_epoch = 1,
                                .base_sequence = 9,
                                .attributes_clear = BATCH_TRANSACTIONAL};
        batch_producer_set(batch.p, batch.n, &p);
        batch_offset_set(batch.p, o.base_offset);
    }
    buf_put_be32(out, (uint32_t)(8 + batch.n + listed.n));
    buf_put_be32(out, (uint32_t)batch.n);
    buf_put(out, batch.p, batch.n);
    buf_put_be32(out, (uint32_t)n);
    buf_put(out, listed.p, listed.n);
    buf_fini(&batch);
    buf_fini(&listed);
    arena_reset(r->arena);
}

static int batches_write(uint64_t seed, const char *path)
{
    static const int sizes[] = {0, 1, 2, 30, 3000};
    struct buf out;
    struct arena arena;
    buf_init(&out, ROOM);
    arena_init(&arena, ROOM);
    struct kp_random random = {.state = seed, .arena = &arena};
    for (int c = CODEC_NONE; c < CODEC_COUNT; c++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int round = 0; round < 6; round++)
                write_batch(&random, (enum codec)c, sizes[i], round % 2, &out);
    arena_fini(&arena);
    return save(path, &out);
}

/* ---- verdicts ---- */

/* A batch of a few records as a client sends it, records uncompressed until they have been broken. */
static void sane(struct kp_random *r, struct buf *plain)
{
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    struct buf unused;
    buf_init(&unused, ROOM);
    buf_clear(plain);
    if (kp_random_below(r, 2)) {
        o.producer_id = 5;
        o.producer_epoch = 1;
        o.base_sequence = 0;
    }
    batch_begin(&b, plain, &o);
    int n = 1 + (int)kp_random_below(r, 3);
    for (int i = 0; i < n; i++)
        add_random(r, &b, i, 0, &unused);
    if (batch_close(&b, NULL))
        abort();
    buf_fini(&unused);
}

/* Breaks one or two bytes, compresses, and corrects length and (mostly) CRC, so that the damage is what is judged. */
static void broken(struct kp_random *r, struct buf *plain, struct buf *out)
{
    enum codec codec = (enum codec)kp_random_below(r, CODEC_COUNT);
    struct slice records = slice_of(plain->p + BATCH_HEADER_BYTES, plain->n - BATCH_HEADER_BYTES);
    for (uint64_t k = kp_random_below(r, 3); k > 0; k--) {
        bool header = kp_random_below(r, 3) == 0 || records.n == 0;
        size_t at = header ? BATCH_ATTRIBUTES_AT +
                                 (size_t)kp_random_below(r, BATCH_HEADER_BYTES - BATCH_ATTRIBUTES_AT)
                           : BATCH_HEADER_BYTES + (size_t)kp_random_below(r, records.n);
        if (at == 22) /* the codec is put there below: only its other bits */
            plain->p[at] ^= (uint8_t)(8u << kp_random_below(r, 5));
        else if (kp_random_below(r, 2))
            plain->p[at] = (uint8_t)kp_random_next(r);
        else
            plain->p[at] ^= (uint8_t)(1u << kp_random_below(r, 8));
    }
    buf_clear(out);
    buf_put(out, plain->p, BATCH_HEADER_BYTES);
    if (codec_compress(codec, CODEC_LEVEL_DEFAULT, records, out))
        abort();
    /* The compressed form; not zstd's, of whose damaged frames newer libraries refuse some that older ones read. */
    bool packed = codec != CODEC_NONE && codec != CODEC_ZSTD && out->n > BATCH_HEADER_BYTES;
    if (packed && kp_random_below(r, 6) == 0)
        out->p[BATCH_HEADER_BYTES + kp_random_below(r, out->n - BATCH_HEADER_BYTES)] ^=
            (uint8_t)(1u << kp_random_below(r, 8));
    out->p[22] |= (uint8_t)codec;
    if (kp_random_below(r, 30) == 0)
        buf_put_u8(out, 0);
    be32_put(out->p + BATCH_LENGTH_AT, (uint32_t)(out->n - BATCH_PREFIX_BYTES));
    if (kp_random_below(r, 30))
        be32_put(out->p + BATCH_CRC_AT, batch_crc(buf_slice(out)));
}

static int verdicts(uint64_t seed, int count, const char *path)
{
    static const struct batch_rules rules = {.depth = BATCH_CHECK_ALL,
                                             .size_max = 1048588,
                                             .create_time = true,
                                             .before_max_ms = INT64_MAX,
                                             .after_max_ms = 3600000,
                                             .now_ms = NOW,
                                             .produce_version = 9};
    struct buf out, plain, batch;
    struct arena arena;
    buf_init(&out, ROOM);
    buf_init(&plain, ROOM);
    buf_init(&batch, ROOM);
    arena_init(&arena, ROOM);
    struct kp_random random = {.state = seed, .arena = &arena};
    for (int i = 0; i < count; i++) {
        struct batch_verdict v;
        sane(&random, &plain);
        broken(&random, &plain, &batch);
        batch_validate(buf_slice(&batch), &rules, &v);
        size_t n = strlen(v.text);
        buf_put_be32(&out, (uint32_t)(3 + n + batch.n));
        buf_put_be16(&out, (uint16_t)v.kafka_error);
        buf_put_u8(&out, (uint8_t)n);
        buf_put(&out, v.text, n);
        buf_put(&out, batch.p, batch.n);
        arena_reset(&arena);
    }
    buf_fini(&plain);
    buf_fini(&batch);
    arena_fini(&arena);
    return save(path, &out);
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";
    if (strcmp(what, "frames-read") == 0)
        return frames_read(argv[2]);
    if (strcmp(what, "batches-read") == 0)
        return batches_read(argv[2]);
    if (strcmp(what, "frames-write") == 0 && argc == 5)
        return frames_write(strtoull(argv[2], NULL, 10), (int)strtol(argv[3], NULL, 10), argv[4]);
    if (strcmp(what, "batches-write") == 0 && argc == 4)
        return batches_write(strtoull(argv[2], NULL, 10), argv[3]);
    if (strcmp(what, "verdicts") == 0 && argc == 5)
        return verdicts(strtoull(argv[2], NULL, 10), (int)strtol(argv[3], NULL, 10), argv[4]);
    fprintf(stderr, "see the top of tests/wire/live_main.c\n");
    return 2;
}
