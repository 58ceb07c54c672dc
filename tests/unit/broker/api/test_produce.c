/* PROTOCOL §2.5 and RELIABILITY §4, rows 11, 12, 14, 15: what is appended, what is answered. */
#include "tests/support/serve/rig.h"

#include "base/core/bytes.h"
#include "proto/kafka/batch.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct kp_produce_response_partition_responses answer;

static answer produce(struct rig *r, const char *topic, int16_t acks, struct rig_batch b)
{
    struct slice batch = rig_batch(r, &b);
    answer a = rig_produce(r, topic, 0, acks, batch);
    free((void *)(uintptr_t)batch.p);
    return a;
}

/* A good batch with some bytes changed, its CRC mended unless `at` lies in front of it. */
static int16_t produce_changed(struct rig *r, size_t at, const void *bytes, size_t n)
{
    struct slice batch = rig_batch(r, &(struct rig_batch){.n = 2});
    uint8_t *p = (uint8_t *)(uintptr_t)batch.p;
    memcpy(p + at, bytes, n);
    if (at > BATCH_CRC_AT)
        be32_put(p + BATCH_CRC_AT, batch_crc(batch));
    int64_t end = partition_log_end(rig_partition(r, "t", 0));
    answer a = rig_produce(r, "t", 0, -1, batch);
    cr_expect_eq(partition_log_end(rig_partition(r, "t", 0)), a.error_code ? end : end + 2,
                 "the log is unchanged");
    free(p);
    return a.error_code;
}

Test(produce, answers_offsets_in_order)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    for (int i = 0; i < 10; i++) {
        answer a = produce(r, "t", -1, (struct rig_batch){.n = 3});
        cr_assert_eq(a.error_code, KE_NONE);
        cr_expect_eq(a.base_offset, 3 * i);
        cr_expect_eq(a.log_append_time_ms, -1);
        cr_expect_eq(a.log_start_offset, 0);
    }
    rig_destroy(r, false);
}

Test(produce, what_is_no_good_batch_is_refused_and_the_log_unchanged)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    cr_expect_eq(produce_changed(r, 0, "\0\0\0\0\0\0\0\1", 8), KE_INVALID_RECORD, "base offset");
    cr_expect_neq(produce_changed(r, BATCH_MAGIC_AT, "\1", 1), KE_NONE);
    cr_expect_neq(produce_changed(r, BATCH_MAGIC_AT, "\3", 1), KE_NONE);
    cr_expect_eq(produce_changed(r, BATCH_CRC_AT, "\0\0\0\0", 4), KE_CORRUPT_MESSAGE);
    cr_expect_eq(produce_changed(r, BATCH_ATTRIBUTES_AT, "\0\x20", 2), KE_INVALID_RECORD, "control bit");
    cr_expect_eq(produce_changed(r, BATCH_LENGTH_AT, "\xff\xff\xff\xff", 4), KE_CORRUPT_MESSAGE);
    cr_expect_eq(produce_changed(r, 57, "\0\0\0\0", 4), KE_INVALID_RECORD, "no records");
    cr_expect_eq(produce_changed(r, 57, "\x7f\xff\xff\xff", 4), KE_INVALID_RECORD, "too many");
    cr_expect_eq(produce_changed(r, 61, "\x7e", 1), KE_INVALID_RECORD, "a record's length");
    cr_expect_eq(partition_log_end(rig_partition(r, "t", 0)), 0);
    cr_expect_eq(produce(r, "t", -1, (struct rig_batch){.n = 1}).error_code, KE_NONE);
    rig_destroy(r, false);
}

Test(produce, two_batches_and_none_are_refused)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    struct slice one = rig_batch(r, &(struct rig_batch){.n = 1});
    uint8_t *two = malloc(2 * one.n);
    memcpy(two, one.p, one.n);
    memcpy(two + one.n, one.p, one.n);
    cr_expect_eq(rig_produce(r, "t", 0, -1, slice_of(two, 2 * one.n)).error_code, KE_INVALID_RECORD);
    cr_expect_eq(rig_produce(r, "t", 0, -1, SLICE_NULL).error_code, KE_INVALID_RECORD);
    cr_expect_eq(rig_produce(r, "t", 0, -1, SLICE_LIT("")).error_code, KE_INVALID_RECORD);
    free(two);
    free((void *)(uintptr_t)one.p);
    rig_destroy(r, false);
}

Test(produce, too_large_is_told_from_broken)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, "max.message.bytes=200");
    cr_expect_eq(produce(r, "t", -1, (struct rig_batch){.n = 1}).error_code, KE_NONE);
    cr_expect_eq(produce(r, "t", -1, (struct rig_batch){.n = 50}).error_code, KE_MESSAGE_TOO_LARGE);
    rig_destroy(r, false);
}

Test(produce, unknown_partitions_and_topics)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    struct slice b = rig_batch(r, &(struct rig_batch){.n = 1});
    cr_expect_eq(rig_produce(r, "nowhere", 0, -1, b).error_code, KE_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(rig_produce(r, "t", 1, -1, b).error_code, KE_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(rig_produce(r, "t", -1, -1, b).error_code, KE_UNKNOWN_TOPIC_OR_PARTITION);
    free((void *)(uintptr_t)b.p);
    rig_destroy(r, false);
}

Test(produce, impossible_acks_are_an_error_of_each_partition)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    cr_expect_eq(produce(r, "t", 2, (struct rig_batch){.n = 1}).error_code, KE_INVALID_REQUIRED_ACKS);
    cr_expect_eq(produce(r, "t", -2, (struct rig_batch){.n = 1}).error_code, KE_INVALID_REQUIRED_ACKS);
    rig_destroy(r, false);
}

static void send_acks_0(struct rig *r, const char *topic, struct rig_call *c)
{
    struct slice b = rig_batch(r, &(struct rig_batch){.n = 1});
    struct kp_produce_request_partition_data data = {.records = {.bytes = b}};
    struct kp_produce_request_topic_data t = {
        .name = slice_str(topic), .partition_data = &data, .partition_data_n = 1};
    struct kp_produce_request q = {.acks = 0, .timeout_ms = 5000, .topic_data = &t, .topic_data_n = 1};
    rig_ask(r, c, kp_key_produce, 9, &q);
    free((void *)(uintptr_t)b.p);
}

Test(produce, acks_0_is_silent_and_an_error_closes)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    rig_topic(r, "t", 1, NULL);
    send_acks_0(r, "t", &c);
    cr_expect(c.dropped && !c.failed);
    rig_release(&c);
    send_acks_0(r, "nowhere", &c);
    cr_expect(c.failed);
    rig_release(&c);
    cr_expect_eq(partition_log_end(rig_partition(r, "t", 0)), 1);
    rig_destroy(r, false);
}

Test(produce, a_partition_named_twice_is_refused)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    rig_topic(r, "t", 3, NULL);
    struct slice b = rig_batch(r, &(struct rig_batch){.n = 1});
    struct kp_produce_request_partition_data data[] = {{.index = 1, .records = {.bytes = b}},
                                                       {.index = 0, .records = {.bytes = b}},
                                                       {.index = 1, .records = {.bytes = b}}};
    struct kp_produce_request_topic_data t = {
        .name = SLICE_LIT("t"), .partition_data = data, .partition_data_n = 3};
    struct kp_produce_request q = {.acks = -1, .timeout_ms = 5000, .topic_data = &t, .topic_data_n = 1};
    struct kp_produce_response *a = rig_ask(r, &c, kp_key_produce, 9, &q);
    cr_assert(a);
    cr_expect_eq(a->responses[0].partition_responses[0].error_code, KE_INVALID_REQUEST);
    cr_expect_eq(a->responses[0].partition_responses[1].error_code, KE_NONE);
    cr_expect_eq(a->responses[0].partition_responses[2].error_code, KE_INVALID_REQUEST);
    rig_release(&c);
    free((void *)(uintptr_t)b.p);
    rig_destroy(r, false);
}

Test(produce, idempotence_duplicates_gaps_and_old_epochs)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    struct rig_batch b = {.n = 2, .producer_id = 7, .epoch = 1, .sequence = 0};
    cr_expect_eq(produce(r, "t", -1, b).base_offset, 0);
    b.sequence = 2;
    cr_expect_eq(produce(r, "t", -1, b).base_offset, 2);
    answer again = produce(r, "t", -1, b);
    cr_expect_eq(again.error_code, KE_NONE);
    cr_expect_eq(again.base_offset, 2, "the original's offset");
    b.sequence = 6;
    cr_expect_eq(produce(r, "t", -1, b).error_code, KE_OUT_OF_ORDER_SEQUENCE_NUMBER);
    b.epoch = 0;
    b.sequence = 4;
    cr_expect_eq(produce(r, "t", -1, b).error_code, KE_INVALID_PRODUCER_EPOCH);
    b.epoch = 2;
    cr_expect_eq(produce(r, "t", -1, b).error_code, KE_OUT_OF_ORDER_SEQUENCE_NUMBER,
                 "a new epoch begins at 0");
    b.sequence = 0;
    cr_expect_eq(produce(r, "t", -1, b).base_offset, 4);
    rig_destroy(r, false);
}

Test(produce, idempotence_survives_a_restart)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    char dir[256];
    struct rig_batch b = {.n = 2, .producer_id = 7, .epoch = 1, .sequence = 0};
    rig_topic(r, "t", 1, NULL);
    cr_expect_eq(produce(r, "t", -1, b).base_offset, 0);
    snprintf(dir, sizeof dir, "%s", rig_dir(r));
    rig_destroy(r, true);
    r = rig_create(&(struct rig_options){.dir = dir});
    rig_topic(r, "t", 1, NULL); /* the same topic id: the rig's ids begin anew */
    cr_expect_eq(partition_log_end(rig_partition(r, "t", 0)), 2);
    cr_expect_eq(produce(r, "t", -1, b).base_offset, 0, "a duplicate");
    b.sequence = 2;
    cr_expect_eq(produce(r, "t", -1, b).base_offset, 2);
    rig_destroy(r, false);
}

Test(produce, log_append_time_is_stamped_and_told)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, "message.timestamp.type=LogAppendTime");
    answer a = produce(r, "t", -1, (struct rig_batch){.n = 2, .timestamp = 5});
    cr_expect_eq(a.error_code, KE_NONE);
    cr_expect_gt(a.log_append_time_ms, INT64_C(1600000000000));
    rig_destroy(r, false);
}

Test(produce, timestamps_of_the_far_future_and_records_without_key)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    rig_topic(r, "keyed", 1, "cleanup.policy=compact");
    int64_t future = loop_wall_ms(rig_shard(r)->loop) + 7200000;
    cr_expect_eq(produce(r, "t", -1, (struct rig_batch){.n = 1, .timestamp = future}).error_code,
                 KE_INVALID_TIMESTAMP);
    cr_expect_eq(produce(r, "keyed", -1, (struct rig_batch){.n = 1}).error_code, KE_INVALID_RECORD);
    rig_destroy(r, false);
}

Test(produce, transactional_ids_and_internal_topics_are_refused)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    rig_topic(r, "t", 1, NULL);
    rig_topic(r, "__consumer_offsets", 1, NULL);
    cr_expect_eq(produce(r, "__consumer_offsets", -1, (struct rig_batch){.n = 1}).error_code,
                 KE_INVALID_TOPIC_EXCEPTION);
    struct slice b = rig_batch(r, &(struct rig_batch){.n = 1});
    struct kp_produce_request_partition_data data = {.records = {.bytes = b}};
    struct kp_produce_request_topic_data t = {
        .name = SLICE_LIT("t"), .partition_data = &data, .partition_data_n = 1};
    struct kp_produce_request q = {.transactional_id = SLICE_LIT("tx"),
                                   .acks = -1,
                                   .timeout_ms = 5000,
                                   .topic_data = &t,
                                   .topic_data_n = 1};
    struct kp_produce_response *a = rig_ask(r, &c, kp_key_produce, 9, &q);
    cr_assert(a);
    cr_expect_eq(a->responses[0].partition_responses[0].error_code, KE_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
    rig_release(&c);
    free((void *)(uintptr_t)b.p);
    rig_destroy(r, false);
}

Test(produce, every_version_is_answered)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    for (int16_t v = 3; v <= 11; v++) {
        struct rig_call c;
        struct slice b = rig_batch(r, &(struct rig_batch){.n = 1});
        struct kp_produce_request_partition_data data = {.records = {.bytes = b}};
        struct kp_produce_request_topic_data t = {
            .name = SLICE_LIT("t"), .partition_data = &data, .partition_data_n = 1};
        struct kp_produce_request q = {.acks = -1, .timeout_ms = 5000, .topic_data = &t, .topic_data_n = 1};
        struct kp_produce_response *a = rig_ask(r, &c, kp_key_produce, v, &q);
        cr_assert(a);
        cr_expect_eq(a->responses[0].partition_responses[0].base_offset, v - 3);
        rig_release(&c);
        free((void *)(uintptr_t)b.p);
    }
    rig_destroy(r, false);
}

Test(produce, a_topic_that_goes_answers_what_waits)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    rig_topic(r, "t", 1, NULL);
    struct slice b = rig_batch(r, &(struct rig_batch){.n = 1});
    struct kp_produce_request_partition_data data = {.records = {.bytes = b}};
    struct kp_produce_request_topic_data t = {
        .name = SLICE_LIT("t"), .partition_data = &data, .partition_data_n = 1};
    struct kp_produce_request q = {.acks = -1, .timeout_ms = 5000, .topic_data = &t, .topic_data_n = 1};
    rig_send(r, &c, kp_key_produce, 9, &q);
    rig_remove_topic(r, "t");
    struct kp_produce_response *a = rig_answer(&c, RIG_PATIENCE_MS);
    cr_assert(a);
    cr_expect_eq(a->responses[0].partition_responses[0].error_code, KE_UNKNOWN_TOPIC_OR_PARTITION);
    rig_release(&c);
    free((void *)(uintptr_t)b.p);
    rig_destroy(r, false);
}
