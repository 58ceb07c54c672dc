/* proto/client: what becomes of calls when a connection breaks or an answer is an error: never sent twice, unless
 * told so. */
#include "tests/unit/proto/client/rig.h"

static struct rig r;
static struct got g, h, k;

static void up(void)
{
    g = h = k = (struct got){0};
    rig_init(&r, NULL);
}

static void down(void)
{
    rig_fini(&r);
}

TestSuite(client_broken, .init = up, .fini = down);

Test(client_broken, a_broken_connection_fails_what_was_sent_and_keeps_what_was_not)
{
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    struct request q = rig_take(&r);
    r.write_limit = 0;
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &h);
    rig_ask(&r, 0, CLIENT_RETRY_SAFE, &k);
    rig_run(&r);
    client_conn_broken(q.conn, -E_CLOSED, "reset", r.now);
    r.write_limit = 1 << 30;
    rig_run(&r);
    cr_assert_eq(g.status, -E_CLOSED);
    cr_assert(g.sent, "the broker may have acted on it");
    cr_assert_eq(h.n + k.n, 0);
    rig_pass(&r, SEC);
    cr_assert_eq(r.requests_n, 2, "both go out on a new connection");
    q = rig_take(&r);
    rig_answer_offsets(&r, &q, KE_NONE);
    rig_run(&r);
    cr_assert_eq(h.n, 1, "in their old order");
}

Test(client_broken, a_safe_call_is_sent_again)
{
    rig_ask(&r, 0, CLIENT_RETRY_SAFE, &g);
    rig_run(&r);
    struct request q = rig_take(&r);
    client_conn_broken(q.conn, -E_CLOSED, "reset", r.now);
    rig_pass(&r, SEC);
    q = rig_take(&r);
    rig_answer_offsets(&r, &q, KE_OFFSET_NOT_AVAILABLE);
    rig_run(&r);
    cr_assert_eq(g.n, 0, "a retriable error: again");
    rig_pass(&r, SEC);
    q = rig_take(&r);
    rig_answer_offsets(&r, &q, KE_NONE);
    rig_run(&r);
    cr_assert_eq(g.n, 1);
    cr_assert_eq(g.status, 0);
}

/* "Unknown topic" counts as retriable, and is the answer to who asks whether there is one. */
Test(client_broken, a_call_whose_errors_are_answers)
{
    rig_ask(&r, 0, CLIENT_RETRY_LOST, &g);
    rig_run(&r);
    struct request q = rig_take(&r);
    client_conn_broken(q.conn, -E_CLOSED, "reset", r.now);
    rig_pass(&r, SEC);
    q = rig_take(&r);
    rig_answer_offsets(&r, &q, KE_UNKNOWN_TOPIC_OR_PARTITION);
    rig_run(&r);
    cr_assert_eq(g.n, 1, "handed over at once");
    cr_assert_eq(g.status, 0);
}

Test(client_broken, a_safe_call_hands_over_its_last_answer)
{
    rig_ask(&r, 0, CLIENT_RETRY_SAFE, &g);
    for (int i = 0; i < 200 && !g.n; i++) {
        rig_pass(&r, SEC);
        while (r.requests_n) {
            struct request q = rig_take(&r);
            rig_answer_offsets(&r, &q, KE_OFFSET_NOT_AVAILABLE);
            rig_run(&r);
        }
    }
    cr_assert_eq(g.n, 1);
    cr_assert_eq(g.status, 0, "the answer with the error, not a time-out");
}

Test(client_broken, produce_behind_a_lost_produce_fails_unsent)
{
    static const uint8_t bytes[100];
    struct kp_produce_request_partition_data p = {.records.bytes = slice_of(bytes, sizeof bytes)};
    struct kp_produce_request_topic_data t = {
        .name = SLICE_LIT("t"), .topic_id = uuid_small(7), .partition_data = &p, .partition_data_n = 1};
    struct kp_produce_request body = {.acks = -1, .timeout_ms = 1, .topic_data = &t, .topic_data_n = 1};
    struct got *gots[2] = {&g, &h};
    for (int i = 0; i < 2; i++) {
        struct client_call *c = rig_call(&r, kp_key_produce, gots[i]);
        *(struct kp_produce_request *)c->body = body;
        c->target = (struct client_target){.kind = CLIENT_LEADER, .name = SLICE_LIT("t"), .number = 0};
        rig_send(&r, c);
        rig_run(&r);
        r.write_limit = 0;
    }
    struct request q = rig_take(&r);
    struct iovec v[8];
    int n = client_conn_gather(q.conn, v, 8), found = 0;
    for (int i = 0; i < n; i++)
        found += v[i].iov_base == (void *)(uintptr_t)bytes && v[i].iov_len == sizeof bytes;
    cr_assert_eq(found, 1, "records are referred to, not copied");
    client_conn_broken(q.conn, -E_CLOSED, "reset", r.now);
    rig_run(&r);
    cr_assert_eq(g.status, -E_CLOSED);
    cr_assert(g.sent);
    cr_assert_eq(h.status, -E_CLOSED);
    cr_assert_not(h.sent);
    cr_assert_lt(g.order, h.order);
}

Test(client_broken, a_request_without_answer_costs_the_connection)
{
    struct client_call *c = rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    (void)c;
    rig_run(&r);
    rig_take(&r);
    rig_pass(&r, 31 * SEC);
    cr_assert_eq(g.n, 1);
    cr_assert_eq(g.status, -E_TIMEOUT);
    cr_assert(g.sent);
    cr_assert_str_eq(g.text, "ListOffsets: b:9001 does not answer");
    cr_assert_eq(r.closes, 1);
}

Test(client_broken, who_leads_is_asked_elsewhere_when_a_node_says_nothing)
{
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    struct request q = rig_take(&r);
    rig_answer_offsets(&r, &q, KE_NONE);
    rig_pass(&r, 5 * SEC);
    int asked = r.metadata_asked, closes = r.closes;
    r.silent = true;
    client_metadata_want(r.core);
    rig_pass(&r, 100 * MS);
    r.silent = false; /* but the one that was asked stays as it is */
    rig_pass(&r, 1800 * MS);
    cr_assert_eq(r.metadata_asked, asked);
    rig_pass(&r, 600 * MS);
    cr_assert_eq(r.metadata_asked, asked + 1);
    cr_assert_eq(r.closes, closes + 1);
}

Test(client_broken, one_behind_another_ends_alone)
{
    struct client_call *slow = rig_call(&r, kp_key_list_offsets, &g);
    slow->target = (struct client_target){.kind = CLIENT_LEADER, .name = SLICE_LIT("t"), .number = 0};
    slow->timeout_us = 60 * SEC;
    rig_send(&r, slow);
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &h);
    rig_run(&r);
    rig_pass(&r, 31 * SEC);
    cr_assert_eq(h.status, -E_TIMEOUT);
    cr_assert_eq(g.n + r.closes, 0, "the first one may still be answered");
    struct request q1 = rig_take(&r), q2 = rig_take(&r);
    rig_answer_offsets(&r, &q1, KE_NONE);
    rig_answer_offsets(&r, &q2, KE_NONE);
    rig_run(&r);
    cr_assert_eq(g.status, 0);
    cr_assert_eq(h.n, 1);
    cr_assert_eq(r.core->calls + r.core->internal_calls, 0);
}
