/* PROTOCOL §2.3: what a Fetch is given, when it waits and when it is woken. */
#include "tests/support/serve/rig.h"

#include "base/world/clock.h"
#include "proto/kafka/batch.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#pragma GCC diagnostic ignored "-Woverride-init"

struct ask {
    int16_t version; /* 0: 11 */
    const char *topic;
    int32_t partitions; /* 0: one */
    int64_t offset;
    int32_t wait_ms, min_bytes, max_bytes, partition_bytes;
    int32_t epoch, session_epoch, session_id, last_fetched_epoch;
    int8_t isolation;
    int32_t replica;
};
#define ASK(...)                                                                                             \
    (struct ask)                                                                                             \
    {                                                                                                        \
        .version = 11, .topic = "t", .partitions = 1, .min_bytes = 1, .max_bytes = 1 << 20,                  \
        .partition_bytes = 1 << 20, .epoch = -1, .session_epoch = -1, .last_fetched_epoch = -1,              \
        .replica = -1, __VA_ARGS__                                                                           \
    }

static void send_fetch(struct rig *r, struct rig_call *c, struct ask a)
{
    struct kp_fetch_request_partitions p[64];
    for (int32_t i = 0; i < a.partitions; i++)
        p[i] = (struct kp_fetch_request_partitions){.partition = i,
                                                    .current_leader_epoch = a.epoch,
                                                    .fetch_offset = a.offset,
                                                    .last_fetched_epoch = a.last_fetched_epoch,
                                                    .log_start_offset = -1,
                                                    .partition_max_bytes = a.partition_bytes,
                                                    .high_watermark = INT64_MAX};
    const struct image_topic *known = image_topic(rig_shard(r)->image, slice_str(a.topic));
    struct kp_fetch_request_topics t = {
        .topic = slice_str(a.topic), .partitions = p, .partitions_n = a.partitions};
    if (known)
        t.topic_id = known->id;
    struct kp_fetch_request q = {.replica_id = a.replica,
                                 .max_wait_ms = a.wait_ms,
                                 .min_bytes = a.min_bytes,
                                 .max_bytes = a.max_bytes,
                                 .isolation_level = a.isolation,
                                 .session_id = a.session_id,
                                 .session_epoch = a.session_epoch,
                                 .topics = &t,
                                 .topics_n = 1,
                                 .rack_id = SLICE_LIT("")};
    q.replica_state.replica_id = a.replica;
    q.replica_state.replica_epoch = -1;
    rig_send(r, c, kp_key_fetch, a.version, &q);
}

static struct kp_fetch_response *fetch(struct rig *r, struct rig_call *c, struct ask a)
{
    send_fetch(r, c, a);
    struct kp_fetch_response *out = rig_answer(c, RIG_PATIENCE_MS);
    cr_assert(out);
    return out;
}

static struct kp_fetch_response_partitions *first(struct kp_fetch_response *out)
{
    return &out->responses[0].partitions[0];
}

static int16_t fetch_error(struct rig *r, struct ask a)
{
    struct rig_call c;
    int16_t e = first(fetch(r, &c, a))->error_code;
    rig_release(&c);
    return e;
}

static size_t put(struct rig *r, int32_t index, int n, const char *text)
{
    struct slice b = rig_batch(r, &(struct rig_batch){.n = n, .text = text});
    cr_assert_eq(rig_produce(r, "t", index, -1, b).error_code, KE_NONE);
    free((void *)(uintptr_t)b.p);
    return b.n;
}

Test(fetch, gives_whole_batches_from_the_one_that_holds_the_offset)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    struct batch_header h;
    rig_topic(r, "t", 1, NULL);
    size_t a = put(r, 0, 3, "one"), b = put(r, 0, 2, "two");
    struct kp_fetch_response_partitions *p = first(fetch(r, &c, ASK(.offset = 1)));
    cr_expect_eq(p->error_code, KE_NONE);
    cr_expect_eq(p->high_watermark, 5);
    cr_expect_eq(p->last_stable_offset, 5);
    cr_expect_eq(p->log_start_offset, 0);
    cr_expect_eq(p->preferred_read_replica, -1);
    cr_expect_eq(p->records.bytes.n, a + b);
    cr_assert_eq(batch_read(p->records.bytes, &h, NULL), 0);
    cr_expect_eq(h.base_offset, 0);
    cr_expect_eq(h.leader_epoch, 0);
    rig_release(&c);
    p = first(fetch(r, &c, ASK(.offset = 3)));
    cr_expect_eq(p->records.bytes.n, b);
    rig_release(&c);
    rig_destroy(r, false);
}

Test(fetch, every_version_is_answered)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    size_t n = put(r, 0, 3, "one");
    for (int16_t v = 4; v <= 17; v++) {
        struct rig_call c;
        struct kp_fetch_response_partitions *p = first(fetch(r, &c, ASK(.version = v)));
        cr_expect_eq(p->error_code, KE_NONE);
        cr_expect_eq(p->records.bytes.n, n);
        rig_release(&c);
    }
    rig_destroy(r, false);
}

Test(fetch, limits_and_the_oversize_rule)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    rig_topic(r, "t", 3, NULL);
    size_t n = 0;
    for (int32_t i = 0; i < 3; i++)
        n = put(r, i, 1, "0123456789");
    /* Smaller than one batch: the first partition gives one all the same, the later ones obey. */
    struct kp_fetch_response *out =
        fetch(r, &c, ASK(.partitions = 3, .max_bytes = 10, .partition_bytes = 10));
    cr_expect_eq(out->responses[0].partitions[0].records.bytes.n, n);
    cr_expect_eq(out->responses[0].partitions[1].records.bytes.n, 0);
    cr_expect_eq(out->responses[0].partitions[2].records.bytes.n, 0);
    rig_release(&c);
    /* Room for two. */
    out = fetch(r, &c, ASK(.partitions = 3, .max_bytes = (int32_t)(2 * n + 5)));
    cr_expect_eq(out->responses[0].partitions[1].records.bytes.n, n);
    cr_expect_eq(out->responses[0].partitions[2].records.bytes.n, 0);
    rig_release(&c);
    /* A partition's own limit. */
    put(r, 0, 1, "0123456789");
    out = fetch(r, &c, ASK(.partitions = 1, .partition_bytes = (int32_t)(n + 1)));
    cr_expect_eq(first(out)->records.bytes.n, n);
    rig_release(&c);
    rig_destroy(r, false);
}

Test(fetch, errors_are_answered_at_once)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    put(r, 0, 2, "x");
    cr_expect_eq(fetch_error(r, ASK(.offset = 3, .wait_ms = 60000)), KE_OFFSET_OUT_OF_RANGE);
    cr_expect_eq(fetch_error(r, ASK(.offset = -1, .wait_ms = 60000)), KE_OFFSET_OUT_OF_RANGE);
    cr_expect_eq(fetch_error(r, ASK(.epoch = 1, .wait_ms = 60000, .offset = 2)), KE_UNKNOWN_LEADER_EPOCH);
    cr_expect_eq(fetch_error(r, ASK(.topic = "nowhere", .wait_ms = 60000)), KE_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(fetch_error(r, ASK(.topic = "nowhere", .version = 13, .wait_ms = 60000)),
                 KE_UNKNOWN_TOPIC_ID);
    cr_expect_eq(fetch_error(r, ASK(.partitions = 2, .wait_ms = 60000)), KE_NONE,
                 "the first; the second does not exist");
    cr_expect_eq(fetch_error(r, ASK(.replica = 3)), KE_CLUSTER_AUTHORIZATION_FAILED);
    rig_destroy(r, false);
}

Test(fetch, the_first_of_a_broker_may_be_refused)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", 1, NULL);
    cr_expect_eq(fetch_error(r, ASK(.replica = 3, .version = 13)), KE_CLUSTER_AUTHORIZATION_FAILED);
    rig_destroy(r, false);
}

Test(fetch, sessions_that_were_never_given_are_not_found)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    rig_topic(r, "t", 1, NULL);
    cr_expect_eq(fetch(r, &c, ASK(.session_id = 77, .session_epoch = 5))->error_code,
                 KE_FETCH_SESSION_ID_NOT_FOUND);
    rig_release(&c);
    struct kp_fetch_response *out = fetch(r, &c, ASK(.session_epoch = 0));
    cr_expect_eq(out->error_code, KE_NONE);
    cr_expect_eq(out->session_id, 0, "none for those who name topics by name");
    rig_release(&c);
    rig_destroy(r, false);
}

Test(fetch, waits_for_records_and_is_woken_by_them)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    rig_topic(r, "t", 2, NULL);
    int64_t start = clock_now_us();
    send_fetch(r, &c, ASK(.partitions = 2, .wait_ms = 60000));
    for (int i = 0; i < 3; i++)
        rig_turn(r, 5);
    cr_assert_not(c.answered);
    size_t n = put(r, 1, 1, "x");
    struct kp_fetch_response *out = rig_answer(&c, RIG_PATIENCE_MS);
    cr_assert(out);
    cr_expect_eq(out->responses[0].partitions[1].records.bytes.n, n);
    cr_expect_lt(clock_now_us() - start, 50000000); /* not by the end of its wait */
    rig_release(&c);
    rig_destroy(r, false);
}

Test(fetch, waits_until_min_bytes_have_come)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    rig_topic(r, "t", 2, NULL);
    size_t n = put(r, 0, 1, "x");
    send_fetch(r, &c, ASK(.partitions = 2, .wait_ms = 60000, .min_bytes = (int32_t)(3 * n)));
    put(r, 1, 1, "x");
    for (int i = 0; i < 3; i++)
        rig_turn(r, 5);
    cr_assert_not(c.answered, "two batches are not three");
    put(r, 1, 1, "x");
    struct kp_fetch_response *out = rig_answer(&c, RIG_PATIENCE_MS);
    cr_assert(out);
    cr_expect_eq(out->responses[0].partitions[0].records.bytes.n, n);
    cr_expect_eq(out->responses[0].partitions[1].records.bytes.n, 2 * n);
    rig_release(&c);
    rig_destroy(r, false);
}

Test(fetch, the_time_ends_it_without_an_error)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    rig_topic(r, "t", 1, NULL);
    int64_t start = clock_now_us();
    struct kp_fetch_response_partitions *p = first(fetch(r, &c, ASK(.wait_ms = 200)));
    cr_expect_eq(p->error_code, KE_NONE);
    cr_expect_eq(p->records.bytes.n, 0);
    cr_expect_geq(clock_now_us() - start, 190000);
    rig_release(&c);
    rig_destroy(r, false);
}

Test(fetch, a_topic_that_goes_wakes_it)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    rig_topic(r, "t", 1, NULL);
    send_fetch(r, &c, ASK(.wait_ms = 60000));
    rig_turn(r, 5);
    rig_remove_topic(r, "t");
    struct kp_fetch_response *out = rig_answer(&c, RIG_PATIENCE_MS);
    cr_assert(out);
    cr_expect_neq(first(out)->error_code, KE_NONE);
    rig_release(&c);
    rig_destroy(r, false);
}

static void nothing(struct partition_append *a)
{
    (void)a;
}

Test(fetch, records_that_are_not_yet_durable_are_not_given)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    rig_topic(r, "t", 1, NULL);
    struct slice b = rig_batch(r, &(struct rig_batch){.n = 1});
    struct partition_append a = {
        .batch = (uint8_t *)(uintptr_t)b.p, .batch_bytes = b.n, .acks = 1, .leader_epoch = -1};
    a.done = nothing;
    struct partition *p = rig_partition(r, "t", 0);
    partition_append(p, &a);
    partitions_turn(rig_shard(r)->partitions); /* written, the flush has begun */
    cr_expect_eq(partition_log_end(p), 1);
    cr_expect_eq(partition_high_watermark(p), 0);
    send_fetch(r, &c, ASK());
    cr_assert(c.answered);
    cr_expect_eq(first(rig_answer(&c, 0))->records.bytes.n, 0);
    rig_release(&c);
    free((void *)(uintptr_t)b.p);
    rig_destroy(r, false);
}

Test(fetch, a_divergent_epoch_is_told)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct rig_call c;
    rig_topic(r, "t", 1, NULL);
    put(r, 0, 2, "x");
    struct kp_fetch_response_partitions *p =
        first(fetch(r, &c, ASK(.version = 12, .offset = 2, .last_fetched_epoch = 0)));
    cr_expect_eq(p->error_code, KE_NONE);
    cr_expect_eq(p->diverging_epoch.epoch, -1);
    rig_release(&c);
    cr_expect_eq(fetch_error(r, ASK(.version = 12, .offset = 2, .last_fetched_epoch = 5)),
                 KE_OFFSET_OUT_OF_RANGE);
    rig_destroy(r, false);
}
