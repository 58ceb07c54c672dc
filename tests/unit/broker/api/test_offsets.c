/* PROTOCOL §2.4: ListOffsets, OffsetForLeaderEpoch, DeleteRecords, DescribeProducers. */
#include "tests/support/serve/rig.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static void put(struct rig *r, struct rig_batch b)
{
    struct slice s = rig_batch(r, &b);
    cr_assert_eq(rig_produce(r, "t", 0, -1, s).error_code, KE_NONE);
    free((void *)(uintptr_t)s.p);
}

static struct kp_list_offsets_response_partitions list(struct rig *r, int16_t version, int64_t timestamp,
                                                       int32_t epoch)
{
    struct rig_call c;
    struct kp_list_offsets_request_partitions p = {.current_leader_epoch = epoch, .timestamp = timestamp};
    struct kp_list_offsets_request_topics t = {.name = SLICE_LIT("t"), .partitions = &p, .partitions_n = 1};
    struct kp_list_offsets_request q = {.replica_id = -1, .topics = &t, .topics_n = 1};
    struct kp_list_offsets_response *a = rig_ask(r, &c, kp_key_list_offsets, version, &q);
    cr_assert(a);
    struct kp_list_offsets_response_partitions out = a->topics[0].partitions[0];
    rig_release(&c);
    return out;
}

Test(list_offsets, ends_and_times)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, "message.timestamp.before.max.ms=9223372036854775807");
    put(r, (struct rig_batch){.n = 2, .timestamp = 1000});
    put(r, (struct rig_batch){.n = 3, .timestamp = 3000});
    put(r, (struct rig_batch){.n = 1, .timestamp = 2000});
    for (int16_t v = 1; v <= 10; v++) {
        cr_expect_eq(list(r, v, -1, -1).offset, 6);
        cr_expect_eq(list(r, v, -2, -1).offset, 0);
        cr_expect_eq(list(r, v, 0, -1).offset, 0);
        cr_expect_eq(list(r, v, 1001, -1).offset, 2);
        cr_expect_eq(list(r, v, 1001, -1).timestamp, 3000);
        cr_expect_eq(list(r, v, 3001, -1).offset, -1);
        cr_expect_eq(list(r, v, 3001, -1).timestamp, -1);
    }
    cr_expect_eq(list(r, 7, -3, -1).offset, 2);
    cr_expect_eq(list(r, 7, -3, -1).timestamp, 3000);
    cr_expect_eq(list(r, 6, -3, -1).error_code, KE_UNSUPPORTED_VERSION);
    cr_expect_eq(list(r, 8, -4, -1).offset, 0);
    cr_expect_eq(list(r, 9, -5, -1).offset, -1);
    cr_expect_eq(list(r, 9, -6, -1).error_code, KE_UNSUPPORTED_VERSION);
    cr_expect_eq(list(r, 4, -1, -1).leader_epoch, 0);
    cr_expect_eq(list(r, 4, -1, 3).error_code, KE_UNKNOWN_LEADER_EPOCH);
    rig_destroy(r, false);
}

static struct kp_offset_for_leader_epoch_response_partitions end_of(struct rig *r, int32_t epoch)
{
    struct rig_call c;
    struct kp_offset_for_leader_epoch_request_partitions p = {.current_leader_epoch = -1,
                                                              .leader_epoch = epoch};
    struct kp_offset_for_leader_epoch_request_topics t = {
        .topic = SLICE_LIT("t"), .partitions = &p, .partitions_n = 1};
    struct kp_offset_for_leader_epoch_request q = {.replica_id = -1, .topics = &t, .topics_n = 1};
    struct kp_offset_for_leader_epoch_response *a = rig_ask(r, &c, kp_key_offset_for_leader_epoch, 2, &q);
    cr_assert(a);
    struct kp_offset_for_leader_epoch_response_partitions out = a->topics[0].partitions[0];
    rig_release(&c);
    return out;
}

Test(offset_for_leader_epoch, latest_is_the_end_and_above_is_undefined)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    put(r, (struct rig_batch){.n = 2});
    cr_expect_eq(end_of(r, 0).end_offset, 2);
    cr_expect_eq(end_of(r, 0).leader_epoch, 0);
    cr_expect_eq(end_of(r, 5).end_offset, -1);
    rig_destroy(r, false);
}

static struct kp_delete_records_response_partitions delete_to(struct rig *r, int64_t offset)
{
    struct rig_call c;
    struct kp_delete_records_request_partitions p = {.offset = offset};
    struct kp_delete_records_request_topics t = {.name = SLICE_LIT("t"), .partitions = &p, .partitions_n = 1};
    struct kp_delete_records_request q = {.topics = &t, .topics_n = 1, .timeout_ms = 1000};
    struct kp_delete_records_response *a = rig_ask(r, &c, kp_key_delete_records, 2, &q);
    cr_assert(a);
    struct kp_delete_records_response_partitions out = a->topics[0].partitions[0];
    rig_release(&c);
    return out;
}

Test(delete_records, moves_the_start_and_never_past_the_high_watermark)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    put(r, (struct rig_batch){.n = 5});
    cr_expect_eq(delete_to(r, 6).error_code, KE_OFFSET_OUT_OF_RANGE);
    cr_expect_eq(delete_to(r, -2).error_code, KE_OFFSET_OUT_OF_RANGE);
    cr_expect_eq(delete_to(r, 3).low_watermark, 3);
    cr_expect_eq(list(r, 4, -2, -1).offset, 3);
    cr_expect_eq(delete_to(r, 1).low_watermark, 3, "never back");
    cr_expect_eq(delete_to(r, -1).low_watermark, 5);
    rig_destroy(r, false);
}

Test(delete_records, a_start_survives_a_restart)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    put(r, (struct rig_batch){.n = 5});
    cr_expect_eq(delete_to(r, 3).low_watermark, 3);
    char *dir = strdup(rig_dir(r));
    rig_destroy(r, true);
    r = rig_create(&(struct rig_options){.dir = dir});
    rig_topic(r, "t", 1, NULL);
    cr_expect_eq(list(r, 4, -2, -1).offset, 3);
    free(dir);
    rig_destroy(r, false);
}

Test(delete_records, compacted_topics_refuse)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, "cleanup.policy=compact");
    cr_expect_eq(delete_to(r, 0).error_code, KE_POLICY_VIOLATION);
    rig_destroy(r, false);
}

Test(describe_producers, names_who_wrote)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    int32_t index = 0;
    rig_topic(r, "t", 1, NULL);
    put(r, (struct rig_batch){.n = 2, .producer_id = 9, .epoch = 3, .sequence = 0});
    struct kp_describe_producers_request_topics t = {
        .name = SLICE_LIT("t"), .partition_indexes = &index, .partition_indexes_n = 1};
    struct kp_describe_producers_request q = {.topics = &t, .topics_n = 1};
    struct kp_describe_producers_response *a = rig_ask(r, &c, kp_key_describe_producers, 0, &q);
    cr_assert(a);
    struct kp_describe_producers_response_partitions *p = &a->topics[0].partitions[0];
    cr_assert_eq(p->active_producers_n, 1);
    cr_expect_eq(p->active_producers[0].producer_id, 9);
    cr_expect_eq(p->active_producers[0].producer_epoch, 3);
    cr_expect_eq(p->active_producers[0].last_sequence, 1);
    rig_release(&c);
    rig_destroy(r, false);
}
