/* Frames as text. */
#include "proto/kafka/frame_print.h"

#include "proto/kafka/batch.h"
#include "tests/support/kp_random.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define ROOM ((size_t)16 << 20)

static void holds(struct buf *out, const char *text)
{
    buf_put_u8(out, 0);
    cr_assert(strstr((const char *)out->p, text), "no \"%s\" in:\n%s", text, (const char *)out->p);
    out->n--;
}

Test(print, a_produce_request_shows_its_records)
{
    struct buf frame, out, batch;
    buf_init(&frame, ROOM);
    buf_init(&out, ROOM);
    buf_init(&batch, ROOM);
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    o.codec = CODEC_ZSTD;
    o.producer_id = 12;
    o.producer_epoch = 1;
    o.base_sequence = 5;
    batch_begin(&b, &batch, &o);
    struct record_header header = {SLICE_LIT("h"), SLICE_NULL};
    struct record_new r = {
        .timestamp = 99, .key = SLICE_LIT("key\n"), .value = SLICE_NULL, .headers = &header, .headers_n = 1};
    cr_assert_eq(batch_add(&b, &r), 0);
    cr_assert_eq(batch_close(&b, NULL), 0);
    struct kp_produce_request_partition_data p = {.index = 4, .records = {.bytes = buf_slice(&batch)}};
    struct kp_produce_request_topic_data t = {
        .name = SLICE_LIT("orders"), .partition_data = &p, .partition_data_n = 1};
    struct kp_produce_request q;
    kp_init(&kp_produce_request_message, &q);
    q.acks = -1;
    q.topic_data = &t;
    q.topic_data_n = 1;
    struct kp_request_header h = {kp_key_produce, 9, 4711, SLICE_LIT("\x1b[31mme")};
    cr_assert_eq(kp_request_frame(kp_api_find(kp_key_produce), &h, &q, &frame), 0);
    for (size_t skip = 0; skip <= 4; skip += 4) { /* with its size and without */
        buf_clear(&out);
        cr_assert_eq(frame_print(slice_of(frame.p + skip, frame.n - skip), NULL, &out, NULL), 0);
        holds(&out, "Produce request v9, correlation id 4711, client id \"\\x1b[31mme\"");
        holds(&out, "name: \"orders\"");
        holds(&out, "zstd");
        holds(&out, "producer 12 epoch 1 sequence 5");
        holds(&out, "0 at 99 key \"key\\x0a\" value null header \"h\"=null");
    }
    batch.p[batch.n - 1] ^= 1;
    buf_clear(&frame);
    buf_clear(&out);
    cr_assert_eq(kp_request_frame(kp_api_find(kp_key_produce), &h, &q, &frame), 0);
    cr_assert_eq(frame_print(buf_slice(&frame), NULL, &out, NULL), 0);
    holds(&out, "CRC");
    buf_fini(&frame);
    buf_fini(&out);
    buf_fini(&batch);
}

Test(print, a_response_needs_to_be_told_what_it_answers)
{
    struct buf frame, out;
    struct err err = {0};
    buf_init(&frame, ROOM);
    buf_init(&out, ROOM);
    struct kp_find_coordinator_response r;
    kp_init(&kp_find_coordinator_response_message, &r);
    r.host = SLICE_LIT("broker-1");
    cr_assert_eq(kp_response_frame(kp_api_find(kp_key_find_coordinator), 2, 8, &r, &frame), 0);
    struct frame_answers a = {kp_key_find_coordinator, 2};
    cr_assert_eq(frame_print(buf_slice(&frame), &a, &out, &err), 0);
    holds(&out, "FindCoordinator response v2, correlation id 8");
    holds(&out, "host: \"broker-1\"");
    a.api_version = 99;
    cr_assert_eq(frame_print(buf_slice(&frame), &a, &out, &err), -E_VERSION);
    a.api_version = 3;
    cr_assert_neq(frame_print(buf_slice(&frame), &a, &out, &err), 0);
    cr_assert_neq(err.text[0], 0);
    cr_assert_neq(frame_print(SLICE_LIT("GET / HTTP/1.1\r\n\r\n"), NULL, &out, &err), 0);
    cr_assert_neq(frame_print(SLICE_LIT(""), NULL, &out, &err), 0);
    buf_fini(&frame);
    buf_fini(&out);
}

Test(print, every_message_prints)
{
    const struct kp_named *all;
    size_t n = kp_every_message(&all);
    struct arena arena;
    struct buf out;
    arena_init(&arena, ROOM);
    buf_init(&out, ROOM);
    for (size_t i = 0; i < n; i++)
        for (int16_t v = all[i].message->version_min; v <= all[i].message->version_max; v++) {
            struct kp_random random = {.state = i, .arena = &arena, .list_max = 2, .string_max = 20};
            void *body = malloc(all[i].message->body->size_bytes);
            kp_random_fill(&random, all[i].message, v, body);
            kp_print(all[i].message, v, body, &out);
            for (size_t k = 0; k < out.n; k++)
                cr_assert(out.p[k] == '\n' || (out.p[k] >= 0x20 && out.p[k] < 0x7f), "%s prints raw bytes",
                          all[i].name);
            cr_assert(!out.failed);
            buf_clear(&out);
            arena_reset(&arena);
            free(body);
        }
    arena_fini(&arena);
    buf_fini(&out);
}
