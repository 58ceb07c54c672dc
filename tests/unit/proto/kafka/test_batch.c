/* Record batches: built, walked, patched. */
#include "proto/kafka/batch.h"

#include "base/core/bytes.h"
#include "base/core/crc32c.h"
#include "proto/kafka/batch_validate.h"
#include "tests/support/kp_random.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define ROOM ((size_t)64 << 20)

static struct codec_limits limits;

static void build(struct buf *out, enum codec codec, int n, struct batch_header *h)
{
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    o.codec = codec;
    o.base_offset = 1000;
    o.leader_epoch = 7;
    o.producer_id = 4711;
    o.producer_epoch = 3;
    o.base_sequence = 55;
    o.attributes = BATCH_TRANSACTIONAL;
    batch_begin(&b, out, &o);
    for (int i = 0; i < n; i++) {
        char key[16], value[40];
        snprintf(key, sizeof key, "key-%d", i);
        snprintf(value, sizeof value, "the value of number %d", i * i);
        struct record_header headers[2] = {{SLICE_LIT("trace"), slice_str(key)}, {SLICE_LIT(""), SLICE_NULL}};
        struct record_new r = {.timestamp = 1700000000000 + (i % 3) * 1000 - i,
                               .key = i % 4 == 1 ? SLICE_NULL : slice_str(key),
                               .value = i % 5 == 1 ? SLICE_NULL : slice_str(value),
                               .headers = headers,
                               .headers_n = i % 3};
        cr_assert_eq(batch_add(&b, &r), 0);
    }
    cr_assert_eq(batch_close(&b, h), 0);
}

Test(batch, what_is_built_is_what_is_walked)
{
    limits = codec_limits_for(1 << 20);
    for (int c = CODEC_NONE; c < CODEC_COUNT; c++) {
        struct buf out, scratch;
        struct batch_header h, back;
        buf_init(&out, ROOM);
        buf_init(&scratch, ROOM);
        buf_put(&out, "in front", 8);
        build(&out, (enum codec)c, 100, &h);
        struct slice batch = slice_of(out.p + 8, out.n - 8), payload;
        cr_assert_eq(batch_read(batch, &back, NULL), 0);
        cr_assert(memcmp(&h, &back, sizeof h) == 0);
        cr_assert_eq(batch_size(&h), batch.n);
        cr_assert_eq(h.records_n, 100);
        cr_assert_eq(batch_last_offset(&h), 1099);
        cr_assert_eq(batch_last_sequence(&h), 154);
        cr_assert_eq(batch_codec(&h), c);
        cr_assert_eq(h.max_timestamp, 1700000001998);
        cr_assert_eq(batch_payload(&h, batch, &limits, &scratch, &payload, NULL), 0);
        struct record_walk w;
        struct record r;
        record_walk_init(&w, &h, payload);
        for (int i = 0; i < 100; i++) {
            char key[16], value[40];
            snprintf(key, sizeof key, "key-%d", i);
            snprintf(value, sizeof value, "the value of number %d", i * i);
            cr_assert_eq(record_next(&w, &r), 1);
            cr_assert_eq(r.offset, 1000 + i);
            cr_assert_eq(r.timestamp, 1700000000000 + (i % 3) * 1000 - i);
            cr_assert(slice_eq(r.key, i % 4 == 1 ? SLICE_NULL : slice_str(key)));
            cr_assert(slice_eq(r.value, i % 5 == 1 ? SLICE_NULL : slice_str(value)));
            cr_assert_eq(r.headers_n, i % 3);
            cr_assert_eq(record_headers_check(&r), 0);
            struct slice rest = r.headers;
            struct record_header header;
            for (int k = 0; k < r.headers_n; k++) {
                cr_assert_eq(record_header_next(&rest, &header), 1);
                cr_assert(slice_eq(header.key, k ? SLICE_LIT("") : SLICE_LIT("trace")));
                cr_assert(slice_eq(header.value, k ? SLICE_NULL : slice_str(key)));
            }
            cr_assert_eq(record_header_next(&rest, &header), 0);
        }
        cr_assert_eq(record_next(&w, &r), 0);
        cr_assert_eq(batch_records_check(&h, batch, false, &limits, NULL), 0);
        buf_fini(&out);
        buf_fini(&scratch);
    }
}

Test(batch, headers_pass_on_undecoded)
{
    struct buf first, second, scratch;
    struct batch_header h, h2;
    buf_init(&first, ROOM);
    buf_init(&second, ROOM);
    buf_init(&scratch, ROOM);
    build(&first, CODEC_NONE, 20, &h);
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    struct record_walk w, w2;
    struct record r, r2;
    batch_begin(&b, &second, &o);
    record_walk_init(&w, &h, slice_of(first.p + BATCH_HEADER_BYTES, first.n - BATCH_HEADER_BYTES));
    while (record_next(&w, &r) == 1) {
        struct record_new n = {.timestamp = r.timestamp,
                               .key = r.key,
                               .value = r.value,
                               .headers_n = r.headers_n,
                               .headers_encoded = r.headers};
        cr_assert(batch_record_bound(&n) >= r.raw.n);
        cr_assert_eq(batch_add(&b, &n), 0);
    }
    cr_assert_eq(batch_close(&b, &h2), 0);
    record_walk_init(&w, &h, slice_of(first.p + BATCH_HEADER_BYTES, first.n - BATCH_HEADER_BYTES));
    record_walk_init(&w2, &h2, slice_of(second.p + BATCH_HEADER_BYTES, second.n - BATCH_HEADER_BYTES));
    while (record_next(&w, &r) == 1) {
        cr_assert_eq(record_next(&w2, &r2), 1);
        cr_assert(slice_eq(r.headers, r2.headers) && slice_eq(r.key, r2.key) && slice_eq(r.value, r2.value));
        cr_assert_eq(r.timestamp, r2.timestamp);
    }
    buf_fini(&first);
    buf_fini(&second);
    buf_fini(&scratch);
}

Test(batch, compaction_leaves_gaps_and_keeps_the_last_offset)
{
    struct buf out;
    struct batch_header h;
    limits = codec_limits_for(1 << 20);
    buf_init(&out, ROOM);
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    o.base_offset = 500;
    o.delete_horizon = 1800000000000;
    batch_begin(&b, &out, &o);
    struct record_new r = {.timestamp = 1700000000000, .key = SLICE_LIT("k"), .value = SLICE_NULL};
    cr_assert_eq(batch_add_at(&b, 3, &r), 0);
    cr_assert_eq(batch_add_at(&b, 9, &r), 0);
    batch_last_offset_delta_set(&b, 20);
    cr_assert_eq(batch_close(&b, &h), 0);
    cr_assert_eq(batch_last_offset(&h), 520);
    cr_assert(batch_is(&h, BATCH_DELETE_HORIZON) && h.base_timestamp == 1800000000000);
    cr_assert_eq(batch_records_check(&h, buf_slice(&out), true, &limits, NULL), 0);
    cr_assert_eq(batch_records_check(&h, buf_slice(&out), false, &limits, NULL), -E_CORRUPT);
    struct record_walk w;
    struct record back;
    record_walk_init(&w, &h, slice_of(out.p + BATCH_HEADER_BYTES, out.n - BATCH_HEADER_BYTES));
    cr_assert_eq(record_next(&w, &back), 1);
    cr_assert_eq(back.timestamp, 1700000000000);
    cr_assert_eq(back.offset, 503);
    buf_fini(&out);
}

Test(batch, an_empty_batch_keeps_its_place)
{
    struct buf out;
    struct batch_header h;
    limits = codec_limits_for(1 << 20);
    buf_init(&out, ROOM);
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    o.base_offset = 10;
    o.codec = CODEC_ZSTD;
    batch_begin(&b, &out, &o);
    batch_last_offset_delta_set(&b, 4);
    cr_assert_eq(batch_close(&b, &h), 0);
    cr_assert_eq(out.n, BATCH_HEADER_BYTES);
    cr_assert_eq(batch_codec(&h), CODEC_NONE);
    cr_assert_eq(batch_last_offset(&h), 14);
    cr_assert_eq(batch_read(buf_slice(&out), &h, NULL), 0);
    cr_assert_eq(batch_records_check(&h, buf_slice(&out), true, &limits, NULL), 0);
    buf_fini(&out);
}

Test(batch, offsets_and_leader_epochs_lie_outside_the_crc)
{
    struct buf out;
    struct batch_header h;
    buf_init(&out, ROOM);
    build(&out, CODEC_LZ4, 10, &h);
    batch_offset_set(out.p, INT64_C(1) << 40);
    batch_leader_epoch_set(out.p, 99);
    cr_assert_eq(batch_read(buf_slice(&out), &h, NULL), 0);
    cr_assert_eq(h.base_offset, INT64_C(1) << 40);
    cr_assert_eq(h.leader_epoch, 99);
    buf_fini(&out);
}

Test(batch, a_patched_producer_has_the_crc_of_a_new_walk)
{
    struct arena a;
    arena_init(&a, 4096);
    struct kp_random random = {.state = 7, .arena = &a};
    for (int round = 0; round < 300; round++) {
        struct buf out;
        struct batch_header h;
        buf_init(&out, ROOM);
        build(&out, (enum codec)(round % CODEC_COUNT), 1 + round * 7, &h);
        struct batch_patch p = {.producer_id = (int64_t)kp_random_next(&random),
                                .producer_epoch = (int16_t)kp_random_next(&random),
                                .base_sequence = (int32_t)kp_random_next(&random),
                                .attributes_clear = BATCH_TRANSACTIONAL | BATCH_DELETE_HORIZON,
                                .attributes_set = round % 2 ? BATCH_CONTROL : 0};
        batch_producer_set(out.p, out.n, &p);
        cr_assert_eq(be32_get(out.p + BATCH_CRC_AT), batch_crc(buf_slice(&out)));
        cr_assert_eq(batch_read(buf_slice(&out), &h, NULL), 0);
        cr_assert_eq(h.producer_id, p.producer_id);
        cr_assert_eq(h.producer_epoch, p.producer_epoch);
        cr_assert_eq(h.base_sequence, p.base_sequence);
        cr_assert(!batch_is(&h, BATCH_TRANSACTIONAL) && batch_is(&h, BATCH_CONTROL) == (round % 2));
        batch_log_append_time_set(out.p, out.n, 1234567890123);
        cr_assert_eq(batch_read(buf_slice(&out), &h, NULL), 0);
        cr_assert(batch_is(&h, BATCH_LOG_APPEND_TIME) && h.max_timestamp == 1234567890123);
        batch_max_timestamp_set(out.p, out.n, 5);
        cr_assert_eq(batch_read(buf_slice(&out), &h, NULL), 0);
        cr_assert_eq(h.max_timestamp, 5);
        /* A batch that was damaged on its way does not become sound by being patched. */
        out.p[out.n - 1] ^= 1;
        batch_producer_set(out.p, out.n, &p);
        cr_assert_eq(batch_read(buf_slice(&out), &h, NULL), -E_CORRUPT);
        buf_fini(&out);
    }
    arena_fini(&a);
}

Test(batch, log_append_time_is_every_records_time)
{
    struct buf out;
    struct batch_header h;
    struct record_walk w;
    struct record r;
    buf_init(&out, ROOM);
    build(&out, CODEC_NONE, 5, &h);
    batch_log_append_time_set(out.p, out.n, 42);
    cr_assert_eq(batch_read(buf_slice(&out), &h, NULL), 0);
    record_walk_init(&w, &h, slice_of(out.p + BATCH_HEADER_BYTES, out.n - BATCH_HEADER_BYTES));
    while (record_next(&w, &r) == 1)
        cr_assert_eq(r.timestamp, 42);
    buf_fini(&out);
}

Test(batch, sequences_wrap_to_zero)
{
    cr_assert_eq(batch_sequence_add(INT32_MAX, 1), 0);
    cr_assert_eq(batch_sequence_add(INT32_MAX - 2, 5), 2);
    cr_assert_eq(batch_sequence_add(0, 5), 5);
    struct batch_header h = {.base_sequence = INT32_MAX, .last_offset_delta = 3};
    cr_assert_eq(batch_last_sequence(&h), 2);
    h.base_sequence = BATCH_NO_SEQUENCE;
    cr_assert_eq(batch_last_sequence(&h), BATCH_NO_SEQUENCE);
}

Test(batch, cut_batches_are_truncated_not_corrupt)
{
    struct buf out;
    struct batch_header h;
    buf_init(&out, ROOM);
    build(&out, CODEC_NONE, 3, &h);
    for (size_t n = 0; n < out.n; n++) {
        uint8_t *exact = malloc(n + 1);
        memcpy(exact, out.p, n);
        cr_assert_eq(batch_read(slice_of(exact, n), &h, NULL), -E_TRUNCATED);
        free(exact);
    }
    for (size_t at = BATCH_ATTRIBUTES_AT; at < out.n; at++) {
        out.p[at] ^= 0x40;
        cr_assert_eq(batch_read(buf_slice(&out), &h, NULL), -E_CORRUPT);
        out.p[at] ^= 0x40;
    }
    out.p[BATCH_MAGIC_AT] = 1;
    cr_assert_eq(batch_read(buf_slice(&out), &h, NULL), -E_VERSION);
    buf_fini(&out);
}

Test(batch, a_full_buffer_ends_a_batch_that_stays_whole)
{
    struct buf out;
    buf_init(&out, 200);
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    struct batch_header h;
    batch_begin(&b, &out, &o);
    struct record_new r = {.timestamp = 5, .value = SLICE_LIT("0123456789012345678901234567890123456789")};
    int added = 0;
    while (batch_add(&b, &r) == 0)
        added++;
    cr_assert_eq(added, 2);
    cr_assert_eq(batch_close(&b, &h), 0);
    cr_assert_eq(h.records_n, 2);
    cr_assert_eq(batch_read(buf_slice(&out), &h, NULL), 0);
    buf_fini(&out);
    buf_init(&out, 10); /* not even a header */
    batch_begin(&b, &out, &o);
    cr_assert_eq(batch_add(&b, &r), -E_LIMIT);
    cr_assert_eq(batch_close(&b, &h), -E_LIMIT);
    cr_assert_eq(out.n, 0);
    buf_fini(&out);
}

Test(batch, a_null_header_key_is_not_written)
{
    struct buf out;
    buf_init(&out, ROOM);
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    batch_begin(&b, &out, &o);
    struct record_header null_key = {SLICE_NULL, SLICE_LIT("v")};
    struct record_new r = {.value = SLICE_LIT("v"), .headers = &null_key, .headers_n = 1};
    cr_assert_eq(batch_add(&b, &r), -E_INVALID);
    batch_drop(&b);
    cr_assert_eq(out.n, 0);
    buf_fini(&out);
}

/* ---- control batches ---- */

static struct record only_record(struct buf *out, struct batch_header *h)
{
    struct record_walk w;
    struct record r;
    cr_assert_eq(batch_read(buf_slice(out), h, NULL), 0);
    cr_assert(batch_is(h, BATCH_CONTROL));
    record_walk_init(&w, h, slice_of(out->p + BATCH_HEADER_BYTES, out->n - BATCH_HEADER_BYTES));
    cr_assert_eq(record_next(&w, &r), 1);
    return r;
}

Test(batch, transaction_markers)
{
    struct buf out;
    struct batch_header h;
    buf_init(&out, ROOM);
    struct batch_options o = BATCH_OPTIONS;
    o.producer_id = 9;
    o.producer_epoch = 2;
    o.base_sequence = 77;
    cr_assert_eq(batch_put_end_txn(&out, &o, 1000, CONTROL_COMMIT, 31), 0);
    struct record r = only_record(&out, &h);
    enum control_type type;
    int32_t epoch;
    cr_assert(batch_is(&h, BATCH_TRANSACTIONAL) && h.producer_id == 9 &&
              h.base_sequence == BATCH_NO_SEQUENCE);
    cr_assert_eq(control_type_read(&r, &type), 0);
    cr_assert_eq(type, CONTROL_COMMIT);
    cr_assert_eq(control_end_txn_read(&r, &epoch), 0);
    cr_assert_eq(epoch, 31);
    cr_assert_eq(r.timestamp, 1000);
    r.key.n = 3;
    cr_assert_eq(control_type_read(&r, &type), -E_CORRUPT);
    r.value.n = 5;
    cr_assert_eq(control_end_txn_read(&r, &epoch), -E_CORRUPT);
    r.key = SLICE_LIT("\0\0\0\x63");
    cr_assert_eq(control_type_read(&r, &type), 0);
    cr_assert_eq(type, CONTROL_UNKNOWN);
    buf_fini(&out);
}

Test(batch, quorum_control_records)
{
    struct buf out;
    struct arena a;
    struct batch_header h;
    buf_init(&out, ROOM);
    arena_init(&a, 1 << 16);
    struct batch_options o = BATCH_OPTIONS;
    struct batch_builder b;
    o.attributes = BATCH_CONTROL;
    struct kp_leader_change_message_voters voter = {.voter_id = 1};
    struct kp_leader_change_message m = {.leader_id = 1, .voters = &voter, .voters_n = 1};
    batch_begin(&b, &out, &o);
    cr_assert_eq(batch_add_control(&b, 5, CONTROL_LEADER_CHANGE, &kp_leader_change_message_message, 0, &m),
                 0);
    cr_assert_eq(batch_close(&b, NULL), 0);
    struct record r = only_record(&out, &h);
    enum control_type type;
    struct kp_leader_change_message back;
    cr_assert_eq(control_type_read(&r, &type), 0);
    cr_assert_eq(type, CONTROL_LEADER_CHANGE);
    cr_assert_eq(kp_decode(&kp_leader_change_message_message, 0, r.value, &a, &back, NULL, NULL), 0);
    cr_assert_eq(back.leader_id, 1);
    cr_assert_eq(back.voters_n, 1);
    arena_fini(&a);
    buf_fini(&out);
}
