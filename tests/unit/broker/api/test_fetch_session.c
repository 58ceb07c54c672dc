/* Fetch sessions as clients meet them: what is left out, what is read, what ends one. */
#include "tests/support/serve/rig.h"

#include "broker/api/fetch_sessions.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define PARTS 8

struct asked {
    int32_t id, epoch;
    int32_t from, to;    /* partitions that are named */
    int32_t offset;      /* of them */
    int32_t forgotten_n; /* from 0 */
    int32_t wait_ms;
    int16_t version; /* 13 when 0 */
};

static void ask(struct rig *r, struct rig_call *c, struct asked a)
{
    struct kp_fetch_request_partitions p[PARTS];
    int32_t forgotten[PARTS];
    const struct image_topic *t = image_topic(rig_shard(r)->image, SLICE_LIT("t"));
    for (int32_t i = a.from; i < a.to; i++)
        p[i] = (struct kp_fetch_request_partitions){.partition = i,
                                                    .current_leader_epoch = -1,
                                                    .fetch_offset = a.offset,
                                                    .last_fetched_epoch = -1,
                                                    .log_start_offset = -1,
                                                    .partition_max_bytes = 1 << 20,
                                                    .high_watermark = INT64_MAX};
    for (int32_t i = 0; i < a.forgotten_n; i++)
        forgotten[i] = i;
    struct kp_fetch_request_topics topic = {
        .topic_id = t->id, .topic = SLICE_LIT("t"), .partitions = p + a.from, .partitions_n = a.to - a.from};
    struct kp_fetch_request_forgotten_topics_data gone = {
        .topic_id = t->id, .topic = SLICE_LIT("t"), .partitions = forgotten, .partitions_n = a.forgotten_n};
    struct kp_fetch_request q = {.replica_id = -1,
                                 .max_wait_ms = a.wait_ms,
                                 .min_bytes = 1,
                                 .max_bytes = 1 << 20,
                                 .session_id = a.id,
                                 .session_epoch = a.epoch,
                                 .topics = &topic,
                                 .topics_n = a.to > a.from ? 1 : 0,
                                 .forgotten_topics_data = &gone,
                                 .forgotten_topics_data_n = a.forgotten_n > 0 ? 1 : 0,
                                 .rack_id = SLICE_LIT("")};
    q.replica_state = (struct kp_fetch_request_replica_state){-1, -1};
    rig_send(r, c, kp_key_fetch, a.version ? a.version : 13, &q);
}

/* What an answer says, in brief. */
struct said {
    int16_t error;
    int32_t id, rows, topics;
    bool names[PARTS];
    size_t bytes;
};

static struct said answered(struct rig_call *c)
{
    const struct kp_fetch_response *m = rig_answer(c, RIG_PATIENCE_MS);
    cr_assert(m);
    struct said s = {.error = m->error_code, .id = m->session_id, .topics = m->responses_n};
    for (int32_t i = 0; i < m->responses_n; i++) {
        for (int32_t k = 0; k < m->responses[i].partitions_n; k++) {
            s.rows++;
            s.bytes += m->responses[i].partitions[k].records.bytes.n;
            s.names[m->responses[i].partitions[k].partition_index] = true;
        }
    }
    rig_release(c);
    return s;
}

static struct said fetch(struct rig *r, struct asked a)
{
    struct rig_call c;
    ask(r, &c, a);
    return answered(&c);
}

static size_t put(struct rig *r, int32_t index)
{
    struct slice b = rig_batch(r, &(struct rig_batch){.n = 1, .text = "x"});
    cr_assert_eq(rig_produce(r, "t", index, -1, b).error_code, KE_NONE);
    free((void *)(uintptr_t)b.p);
    return b.n;
}

static struct rig *with_topic(void)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "t", PARTS, NULL);
    return r;
}

static int32_t begun(struct rig *r)
{
    struct said s = fetch(r, (struct asked){.to = PARTS});
    cr_assert_eq(s.error, KE_NONE);
    cr_assert_gt(s.id, 0);
    cr_assert_eq(s.rows, PARTS);
    cr_assert_eq(s.topics, 1);
    return s.id;
}

Test(fetch_session, an_answer_says_what_is_new)
{
    struct rig *r = with_topic();
    int32_t id = begun(r);
    struct said s = fetch(r, (struct asked){.id = id, .epoch = 1, .wait_ms = 10});
    cr_expect(s.error == KE_NONE && s.id == id && s.rows == 0);
    size_t n = put(r, 3);
    s = fetch(r, (struct asked){.id = id, .epoch = 2, .wait_ms = 60000});
    cr_expect(s.rows == 1 && s.names[3] && s.bytes == n);
    /* Not named with its new position: it is read from the old one. */
    s = fetch(r, (struct asked){.id = id, .epoch = 3});
    cr_expect(s.rows == 1 && s.names[3] && s.bytes == n);
    s = fetch(r, (struct asked){.id = id, .epoch = 4, .from = 3, .to = 4, .offset = 1});
    cr_expect_eq(s.rows, 0);
    /* News of several, the one that got something last behind. */
    put(r, 1), put(r, 3), put(r, 6);
    s = fetch(r, (struct asked){.id = id, .epoch = 5});
    cr_expect(s.rows == 3 && s.topics == 1 && s.names[1] && s.names[3] && s.names[6]);
    cr_expect_eq(s.bytes, 3 * n);
    rig_destroy(r, false);
}

Test(fetch_session, one_that_waits_is_woken)
{
    struct rig *r = with_topic();
    struct rig_call c;
    int32_t id = begun(r);
    ask(r, &c, (struct asked){.id = id, .epoch = 1, .wait_ms = 60000});
    for (int i = 0; i < 5; i++)
        rig_turn(r, 1);
    cr_expect_not(c.answered);
    put(r, 5);
    struct said s = answered(&c);
    cr_expect(s.rows == 1 && s.names[5] && s.bytes > 0);
    rig_destroy(r, false);
}

Test(fetch_session, partitions_come_and_go)
{
    struct rig *r = with_topic();
    struct said s = fetch(r, (struct asked){.to = 4});
    int32_t id = s.id;
    cr_assert_gt(id, 0);
    s = fetch(r, (struct asked){.id = id, .epoch = 1, .from = 4, .to = PARTS});
    cr_expect(s.rows == 4 && s.names[4] && s.names[7]);
    s = fetch(r, (struct asked){.id = id, .epoch = 2, .forgotten_n = 2});
    cr_expect_eq(s.rows, 0);
    for (int i = 0; i < PARTS; i++)
        put(r, i);
    s = fetch(r, (struct asked){.id = id, .epoch = 3});
    cr_expect(s.rows == PARTS - 2 && !s.names[0] && !s.names[1]);
    /* The last one gone, it ends. */
    s = fetch(r, (struct asked){.id = id, .epoch = 4, .forgotten_n = PARTS});
    cr_expect(s.error == KE_NONE && s.id == 0 && s.rows == 0);
    cr_expect_eq(fetch(r, (struct asked){.id = id, .epoch = 5}).error, KE_FETCH_SESSION_ID_NOT_FOUND);
    rig_destroy(r, false);
}

Test(fetch_session, what_is_not_in_order_is_refused)
{
    struct rig *r = with_topic();
    int32_t id = begun(r);
    cr_expect_eq(fetch(r, (struct asked){.id = id, .epoch = 2}).error, KE_INVALID_FETCH_SESSION_EPOCH);
    cr_expect_eq(fetch(r, (struct asked){.id = id, .epoch = 1, .version = 12}).error,
                 KE_FETCH_SESSION_TOPIC_ID_ERROR);
    cr_expect_eq(fetch(r, (struct asked){.id = id + 1, .epoch = 1}).error, KE_FETCH_SESSION_ID_NOT_FOUND);
    cr_expect_eq(fetch(r, (struct asked){.id = id, .epoch = 1}).error, KE_NONE, "it is none the worse");
    /* Another in its place. */
    struct said s = fetch(r, (struct asked){.id = id, .epoch = 0, .to = PARTS});
    cr_expect(s.id > 0 && s.id != id && s.rows == PARTS);
    cr_expect_eq(fetch(r, (struct asked){.id = id, .epoch = 2}).error, KE_FETCH_SESSION_ID_NOT_FOUND);
    /* The end. */
    cr_expect_eq(fetch(r, (struct asked){.id = s.id, .epoch = -1}).id, 0);
    cr_expect_eq(fetch(r, (struct asked){.id = s.id, .epoch = 1}).error, KE_FETCH_SESSION_ID_NOT_FOUND);
    cr_expect_eq(fetch(r, (struct asked){.to = PARTS, .version = 12}).id, 0, "topics by name: none");
    rig_destroy(r, false);
}

/* The answer that nobody waited for: what it says is not what the client is told. */
Test(fetch_session, a_request_that_was_overtaken_says_nothing)
{
    struct rig *r = with_topic();
    struct rig_call c;
    int32_t id = begun(r);
    ask(r, &c, (struct asked){.id = id, .epoch = 1, .wait_ms = 60000});
    struct said s = fetch(r, (struct asked){.id = id, .epoch = 2, .to = 1});
    cr_expect_eq(s.error, KE_NONE);
    put(r, 5);
    s = answered(&c);
    cr_expect(s.error == KE_INVALID_FETCH_SESSION_EPOCH && s.rows == 0);
    s = fetch(r, (struct asked){.id = id, .epoch = 3});
    cr_expect(s.rows == 1 && s.names[5]);
    rig_destroy(r, false);
}

Test(fetch_session, an_error_is_said_each_time)
{
    struct rig *r = with_topic();
    int32_t id = begun(r);
    struct rig_call c;
    ask(r, &c, (struct asked){.id = id, .epoch = 1, .wait_ms = 60000});
    rig_remove_topic(r, "t");
    struct said s = answered(&c);
    cr_expect_gt(s.rows, 0, "it does not wait for a topic that has gone");
    rig_topic(r, "t", 1, NULL); /* another one of that name */
    for (int32_t epoch = 2; epoch < 4; epoch++) {
        s = fetch(r, (struct asked){.id = id, .epoch = epoch, .wait_ms = 60000});
        cr_expect_eq(s.error, KE_NONE);
        cr_expect_eq(s.rows, PARTS);
        cr_expect_eq(s.bytes, 0);
    }
    rig_destroy(r, false);
}
