/* proto/client: the core against scripted brokers. */
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

TestSuite(client, .init = up, .fini = down);

Test(client, asks_metadata_and_goes_to_the_leader)
{
    rig_ask(&r, 1, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    struct request q = rig_take(&r);
    cr_assert_eq(q.conn->broker->node_id, 2);
    cr_assert_eq(q.h.api_version, 11, "the highest that both have");
    cr_assert(slice_eq_str(q.h.client_id, "sundog"));
    rig_answer_offsets(&r, &q, KE_NONE);
    rig_run(&r);
    cr_assert_eq(g.n, 1);
    cr_assert_eq(g.status, 0);
    cr_assert_eq(g.version, 11);
    cr_assert_eq(r.metadata_asked, 1);
    cr_assert_gt(r.watches, 0);
    cr_assert(slice_eq_str(slice_str(r.core->cluster_id), "cluster-one"));
}

Test(client, takes_the_highest_common_version)
{
    rig_range(&r, kp_key_list_offsets)->max_version = 4;
    struct client_call *c = rig_call(&r, kp_key_list_offsets, &g);
    c->target = (struct client_target){.kind = CLIENT_LEADER, .name = SLICE_LIT("t"), .number = 0};
    c->version_max = 2;
    rig_send(&r, c);
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &h);
    rig_run(&r);
    cr_assert_eq(rig_take(&r).h.api_version, 2, "the caller's maximum");
    cr_assert_eq(rig_take(&r).h.api_version, 4, "the broker's");
}

Test(client, says_so_when_no_version_is_common)
{
    *rig_range(&r, kp_key_list_offsets) =
        (struct kp_api_versions_response_api_keys){kp_key_list_offsets, 12, 14};
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    cr_assert_eq(g.status, -E_VERSION);
    cr_assert_str_eq(g.text, "broker b:9001 serves ListOffsets 12 to 14, needed is 1 to 11");
    rig_range(&r, kp_key_list_offsets)->api_key = 999;
}

Test(client, says_so_when_an_api_is_not_served)
{
    rig_range(&r, kp_key_list_offsets)->api_key = 120;
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    cr_assert_eq(g.status, -E_VERSION);
    cr_assert_str_eq(g.text, "broker b:9001 does not serve ListOffsets");
}

Test(client, falls_back_when_the_broker_knows_an_older_api_versions)
{
    r.versions_error_first = KE_UNSUPPORTED_VERSION;
    rig_range(&r, kp_key_api_versions)->max_version = 0;
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    struct request q = rig_take(&r);
    rig_answer_offsets(&r, &q, KE_NONE);
    rig_run(&r);
    cr_assert_eq(g.status, 0);
}

Test(client, reads_answers_cut_at_any_byte)
{
    for (size_t piece = 1; piece < 40; piece++) {
        struct got one = {0};
        rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &one);
        rig_run(&r);
        struct request q = rig_take(&r);
        struct kp_list_offsets_response a = {0};
        rig_answer_piecewise(&r, &q, &a, piece);
        rig_run(&r);
        cr_assert_eq(one.n, 1);
        cr_assert_eq(one.status, 0);
    }
    cr_assert_eq(r.handles, 2, "one connection to boot, one to the leader");
}

Test(client, keeps_the_order_of_a_connection)
{
    struct got all[5] = {0};
    for (int i = 0; i < 5; i++)
        rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &all[i]);
    rig_run(&r);
    cr_assert_eq(r.requests_n, 5);
    for (int i = 0; i < 5; i++) {
        struct request q = rig_take(&r);
        rig_answer_offsets(&r, &q, KE_NONE);
    }
    rig_run(&r);
    for (int i = 0; i + 1 < 5; i++)
        cr_assert_lt(all[i].order, all[i + 1].order);
}

Test(client, closes_on_an_answer_out_of_order)
{
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &h);
    rig_run(&r);
    struct request first = rig_take(&r), second = rig_take(&r);
    rig_answer_offsets(&r, &second, KE_NONE);
    rig_run(&r);
    cr_assert_eq(g.status, -E_CORRUPT);
    cr_assert(g.sent);
    cr_assert_eq(h.n, 1);
    cr_assert_eq(r.closes, 1);
    cr_assert_not_null(strstr(g.text, "out of order"));
    (void)first;
}

Test(client, refuses_a_response_that_is_too_large)
{
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    struct request q = rig_take(&r);
    rig_bytes(&r, q.conn, slice_of("\x7f\xff\xff\xff", 4), 4);
    rig_run(&r);
    cr_assert_eq(g.status, -E_LIMIT);
    cr_assert_eq(r.closes, 1);
}

Test(client, an_undecodable_answer_fails_its_call_and_the_connection)
{
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &h);
    rig_run(&r);
    struct request q = rig_take(&r);
    uint8_t frame[] = {0, 0, 0, 9, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff};
    frame[7] = (uint8_t)q.h.correlation_id;
    rig_bytes(&r, q.conn, slice_of(frame, sizeof frame), 99);
    rig_run(&r);
    cr_assert_eq(g.status, -E_CORRUPT);
    cr_assert_eq(h.n, 1);
    cr_assert(h.sent);
    cr_assert_eq(r.closes, 1);
}

Test(client, a_leader_that_is_not_there_is_waited_for)
{
    r.metadata.topics[0].partitions[0].leader_id = -1;
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_pass(&r, SEC);
    cr_assert_eq(g.n, 0);
    int asked = r.metadata_asked;
    cr_assert_gt(asked, 2);
    cr_assert_leq(asked, 16, "metadata is asked for with pauses");
    r.metadata.topics[0].partitions[0].leader_id = 2;
    r.metadata.topics[0].partitions[0].leader_epoch = 6;
    rig_pass(&r, SEC);
    cr_assert_eq(rig_take(&r).conn->broker->node_id, 2);
}

Test(client, gives_up_early_what_cannot_be_sent)
{
    r.metadata.topics[0].partitions[0].leader_id = -1;
    struct client_call *c = rig_call(&r, kp_key_list_offsets, &g);
    c->target = (struct client_target){.kind = CLIENT_LEADER, .name = SLICE_LIT("t"), .number = 0};
    c->send_within_us = 5 * SEC;
    rig_send(&r, c);
    rig_pass(&r, 4 * SEC);
    cr_assert_eq(g.n, 0);
    rig_pass(&r, 2 * SEC);
    cr_assert_eq(g.status, -E_TIMEOUT);
    cr_assert_not(g.sent);
    cr_assert_not_null(strstr(g.text, "has no leader"));
}

/* A Fetch at a leader that was killed: the metadata keeps it for some seconds, then has another leader. */
Test(client, a_broker_that_leaves_the_metadata_is_not_waited_for)
{
    struct client_target two = {.kind = CLIENT_BROKER, .number = 2};
    client_metadata_want(r.core);
    rig_pass(&r, SEC);
    r.refuse = true;
    struct client_call *c = rig_call(&r, kp_key_list_offsets, &g);
    c->target = two;
    rig_send(&r, c);
    rig_pass(&r, 2 * SEC);
    cr_assert_eq(g.n, 0, "as long as it is in the metadata it may come back");
    r.refuse = false;
    r.metadata.brokers_n = 1;
    client_metadata_want(r.core);
    rig_pass(&r, 2 * SEC);
    cr_assert_eq(g.n, 1);
    cr_assert_eq(g.status, -E_NOTFOUND);
    cr_assert_not_null(strstr(g.text, "broker 2 is not in the metadata any more"), "%s", g.text);

    struct got later = {0};
    c = rig_call(&r, kp_key_list_offsets, &later);
    c->target = two;
    rig_send(&r, c);
    r.metadata.brokers_n = 2;
    rig_pass(&r, SEC);
    cr_assert_eq(rig_take(&r).conn->broker->node_id, 2, "the next answer has it again");
}

Test(client, says_at_the_deadline_what_it_waited_for)
{
    r.metadata.topics[0].error_code = KE_UNKNOWN_TOPIC_OR_PARTITION;
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_pass(&r, 31 * SEC);
    cr_assert_eq(g.status, -E_TIMEOUT);
    cr_assert_not(g.sent);
    cr_assert_not_null(strstr(g.text, "topic t partition 0: UNKNOWN_TOPIC_OR_PARTITION"), "%s", g.text);
}

Test(client, an_older_leader_epoch_is_not_believed)
{
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    r.metadata.topics[0].partitions[0].leader_id = 2;
    r.metadata.topics[0].partitions[0].leader_epoch = 4;
    client_metadata_want(r.core);
    rig_pass(&r, SEC);
    const struct client_topic *t = &client_topic_entry(r.core, SLICE_LIT("t"))->pub;
    cr_assert_eq(t->partitions[0].leader, 1);
    cr_assert_eq(t->partitions[0].leader_epoch, 5);
    r.metadata.topics[0].topic_id = uuid_small(8);
    client_metadata_want(r.core);
    rig_pass(&r, SEC);
    t = &client_topic_entry(r.core, SLICE_LIT("t"))->pub;
    cr_assert_eq(t->partitions[0].leader, 2, "another topic of the name begins anew");
    cr_assert_eq(t->partitions[0].leader_epoch, 4);
}

Test(client, an_error_in_an_answer_refreshes_metadata)
{
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    rig_pass(&r, SEC);
    int asked = r.metadata_asked;
    struct request q = rig_take(&r);
    rig_answer_offsets(&r, &q, KE_NOT_LEADER_OR_FOLLOWER);
    rig_run(&r);
    cr_assert_eq(g.n, 1, "the caller sees it");
    cr_assert_eq(r.metadata_asked, asked + 1);
}

Test(client, another_cluster_is_not_believed)
{
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    r.metadata.cluster_id = SLICE_LIT("cluster-two");
    r.metadata.topics[0].partitions[0].leader_id = 2;
    r.metadata.topics[0].partitions[0].leader_epoch = 99;
    client_metadata_want(r.core);
    rig_pass(&r, SEC);
    cr_assert_eq(client_topic_entry(r.core, SLICE_LIT("t"))->pub.partitions[0].leader_epoch, 5);
    cr_assert_str_eq(r.core->last_error.text,
                     "the address belongs to cluster cluster-two, expected is cluster-one");
}

static int brokers(void)
{
    int n = 0;
    list_each (at, &r.core->brokers)
        n++;
    return n;
}

/* -1 is how bootstrap addresses are kept: what an answer gives that number would be one more with each of them. */
Test(client, brokers_without_a_number_are_not_taken)
{
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    int before = brokers();
    r.metadata.brokers[1].node_id = -1;
    for (int i = 0; i < 5; i++) {
        client_metadata_want(r.core);
        rig_pass(&r, SEC);
    }
    cr_assert_leq(brokers(), before);
}

Test(client, refused_connections_are_tried_again_with_growing_pauses)
{
    r.refuse = true;
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_pass(&r, 29 * SEC);
    cr_assert_eq(g.n, 0);
    cr_assert_geq(r.core->counts.connects, 6);
    cr_assert_leq(r.core->counts.connects, 16);
    rig_pass(&r, 2 * SEC);
    cr_assert_eq(g.status, -E_TIMEOUT);
    cr_assert_not_null(strstr(g.text, "boot:9000: connection refused"), "%s", g.text);
    r.refuse = false;
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &h);
    rig_pass(&r, 7 * SEC);
    cr_assert_eq(r.requests_n, 1, "and again once it is back");
}

Test(client, a_connection_that_never_opens_does_not_hold_up_others)
{
    struct client_options o = {.bootstrap = "a:1,b:2"};
    rig_fini(&r);
    rig_init(&r, &o);
    r.hang = true;
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    cr_assert_eq(r.handles, 1);
    r.hang = false;
    rig_pass(&r, SEC);
    cr_assert_geq(r.handles, 2);
    cr_assert_eq(r.requests_n, 1);
    rig_pass(&r, 11 * SEC);
    cr_assert_eq(r.closes, 1, "given up after the connect time-out: %d %s", r.closes,
                 r.core->last_error.text);
}

Test(client, a_cancelled_call_is_forgotten)
{
    struct client_call *a = rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    client_core_cancel(r.core, call_of(a)); /* waiting */
    struct client_call *b = rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    client_core_cancel(r.core, call_of(b)); /* in flight */
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &h);
    rig_run(&r);
    struct request q1 = rig_take(&r), q2 = rig_take(&r);
    rig_answer_offsets(&r, &q1, KE_NONE);
    rig_answer_offsets(&r, &q2, KE_NONE);
    rig_run(&r);
    cr_assert_eq(g.n, 0);
    cr_assert_eq(h.n, 1);
    cr_assert_eq(r.core->calls, 0);
}

Test(client, taking_back_a_half_written_request_closes)
{
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &h);
    rig_run(&r);
    struct request q = rig_take(&r);
    rig_answer_offsets(&r, &q, KE_NONE);
    rig_run(&r);
    r.write_limit = 10;
    struct client_call *a = rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    client_core_cancel(r.core, call_of(a));
    rig_run(&r);
    cr_assert_eq(r.closes, 1);
    cr_assert_eq(g.n, 0);
    cr_assert_eq(r.core->calls, 0);
}

static void answer_coordinator(int16_t error, int32_t node)
{
    struct request q = rig_take(&r);
    cr_assert_eq(q.h.api_key, kp_key_find_coordinator);
    struct kp_find_coordinator_request *body = q.body;
    cr_assert_eq(body->coordinator_keys_n, 1);
    cr_assert(slice_eq_str(body->coordinator_keys[0], "group"));
    struct kp_find_coordinator_response_coordinators c = {.key = SLICE_LIT("group"),
                                                          .node_id = node,
                                                          .host = SLICE_LIT("b"),
                                                          .port = 9000 + node,
                                                          .error_code = error};
    struct kp_find_coordinator_response a = {.coordinators = &c, .coordinators_n = 1};
    rig_answer(&r, &q, &a);
    rig_run(&r);
}

Test(client, finds_the_coordinator_and_again_when_it_moves)
{
    struct client_call *c = rig_call(&r, kp_key_heartbeat, &g);
    c->target = (struct client_target){.kind = CLIENT_GROUP, .name = SLICE_LIT("group")};
    rig_send(&r, c);
    rig_run(&r);
    answer_coordinator(KE_COORDINATOR_NOT_AVAILABLE, -1);
    rig_pass(&r, SEC);
    answer_coordinator(KE_NONE, 2);
    struct request q = rig_take(&r);
    cr_assert_eq(q.conn->broker->node_id, 2);
    rig_answer(&r, &q, &(struct kp_heartbeat_response){.error_code = KE_NOT_COORDINATOR});
    rig_run(&r);
    cr_assert_eq(g.n, 1);
    c = rig_call(&r, kp_key_heartbeat, &h);
    c->target = (struct client_target){.kind = CLIENT_GROUP, .name = SLICE_LIT("group")};
    rig_send(&r, c);
    rig_run(&r);
    answer_coordinator(KE_NONE, 1);
    cr_assert_eq(rig_take(&r).conn->broker->node_id, 1);
}

Test(client, a_coordinator_without_a_number_is_asked_for_again_later)
{
    struct client_call *c = rig_call(&r, kp_key_heartbeat, &g);
    c->target = (struct client_target){.kind = CLIENT_GROUP, .name = SLICE_LIT("group")};
    rig_send(&r, c);
    rig_run(&r);
    int before = brokers();
    answer_coordinator(KE_NONE, -1);
    cr_assert_eq(brokers(), before);
    cr_assert_eq(r.requests_n, 0, "not at once");
    rig_pass(&r, SEC);
    answer_coordinator(KE_NONE, 2);
    cr_assert_eq(rig_take(&r).conn->broker->node_id, 2);
}

Test(client, a_coordinator_that_is_refused_ends_the_wait)
{
    struct client_call *c = rig_call(&r, kp_key_heartbeat, &g);
    c->target = (struct client_target){.kind = CLIENT_GROUP, .name = SLICE_LIT("group")};
    rig_send(&r, c);
    rig_run(&r);
    answer_coordinator(KE_GROUP_AUTHORIZATION_FAILED, -1);
    cr_assert_eq(g.status, -E_ACCESS);
    cr_assert_str_eq(g.text, "coordinator of group: GROUP_AUTHORIZATION_FAILED");
}

Test(client, parked_fetches_do_not_hold_up_others)
{
    struct client_call *f = rig_call(&r, kp_key_fetch, &g);
    f->target = (struct client_target){.kind = CLIENT_LEADER, .name = SLICE_LIT("t"), .number = 0};
    rig_send(&r, f);
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &h);
    rig_run(&r);
    struct request a = rig_take(&r), b = rig_take(&r);
    cr_assert_eq(a.conn->broker, b.conn->broker);
    cr_assert_neq(a.conn, b.conn);
}

Test(client, large_answers_wait_for_memory_that_callers_hold)
{
    struct client_options o = {.memory_max_bytes = 300 * 1024};
    rig_fini(&r);
    rig_init(&r, &o);
    g.keep = true;
    static const uint8_t zeros[200 * 1024];
    struct slice big = slice_of(zeros, sizeof zeros);
    struct kp_fetch_response_partitions p = {.records.bytes = big};
    struct kp_fetch_response_responses t = {.topic_id = uuid_small(7), .partitions = &p, .partitions_n = 1};
    struct kp_fetch_response a = {.responses = &t, .responses_n = 1};
    struct got *gots[2] = {&g, &h};
    struct request q[2];
    for (int i = 0; i < 2; i++) {
        struct client_call *f = rig_call(&r, kp_key_fetch, gots[i]);
        f->target = (struct client_target){.kind = CLIENT_LEADER, .name = SLICE_LIT("t"), .number = 0};
        rig_send(&r, f);
        rig_run(&r);
        q[i] = rig_take(&r);
    }
    rig_answer(&r, &q[0], &a);
    rig_run(&r);
    cr_assert_eq(g.n, 1);
    cr_assert_not_null(g.frame);
    struct buf out;
    buf_init(&out, 1 << 20);
    cr_assert_eq(kp_response_frame(q[1].api, q[1].h.api_version, q[1].h.correlation_id, &a, &out), 0);
    rig_bytes(&r, q[1].conn, slice_of(out.p, 1000), 1000);
    rig_run(&r);
    size_t room;
    client_conn_room(q[1].conn, &room);
    cr_assert_eq(room, 0, "the socket is not read");
    client_frame_unref(g.frame);
    rig_run(&r);
    client_conn_room(q[1].conn, &room);
    cr_assert_gt(room, 0);
    rig_bytes(&r, q[1].conn, slice_of(out.p + 1000, out.n - 1000), 7777);
    rig_run(&r);
    cr_assert_eq(h.status, 0);
    cr_assert_eq(h.n, 1);
    buf_fini(&out);
}

Test(client, a_frame_outlives_its_client)
{
    g.keep = true;
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    struct request q = rig_take(&r);
    rig_answer_offsets(&r, &q, KE_NONE);
    rig_run(&r);
    rig_fini(&r);
    rig_init(&r, NULL);
    cr_assert_gt(client_frame_bytes(g.frame), 0);
    client_frame_unref(g.frame);
}

Test(client, unused_connections_are_closed)
{
    rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    rig_run(&r);
    struct request q = rig_take(&r);
    rig_answer_offsets(&r, &q, KE_NONE);
    rig_pass(&r, 600 * SEC);
    cr_assert_eq(client_conn_state(q.conn), CONN_CLOSED);
}

Test(client, bootstrap_addresses_are_checked)
{
    static const char *bad[] = {"", "host", "host:", ":9092", "host:0", "host:70000", "a:1,b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct client_core *core;
        struct err err;
        cr_assert_eq(client_core_create(&(struct client_options){.bootstrap = bad[i]}, 1, 0, &core, &err),
                     -E_CONFIG, "%s", bad[i]);
    }
    struct client_core *core;
    cr_assert_eq(
        client_core_create(&(struct client_options){.bootstrap = "[::1]:9092, b:2"}, 1, 0, &core, NULL), 0);
    struct client_broker *b = LIST_ENTRY(core->brokers.next, struct client_broker, link);
    cr_assert_str_eq(b->host, "::1");
    cr_assert_eq(b->port, 9092);
    client_core_destroy(core);
}

Test(client, the_number_of_calls_is_bounded)
{
    struct client_options o = {.calls_max = 3};
    rig_fini(&r);
    rig_init(&r, &o);
    r.refuse = true;
    for (int i = 0; i < 3; i++)
        rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &g);
    cr_assert_null(client_core_call(r.core, kp_api_find(kp_key_metadata), false));
    rig_pass(&r, 31 * SEC);
    cr_assert_eq(g.n, 3);
    cr_assert_not_null(rig_ask(&r, 0, CLIENT_RETRY_UNSENT, &h));
}
