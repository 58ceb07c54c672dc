/* Groups on a shard with a real log: commits, members, loading; requests in, answers out, restarts between. */
#include "tests/unit/broker/group/rig.h"

Test(coordinator, a_committed_offset_is_there_and_survives_a_restart)
{
    struct rig *r = begin();
    cr_assert_eq(fetched(r, "g", "orders", 0), -1);
    cr_assert_eq(commit(r, "g", "orders", 0, 42), KE_NONE);
    cr_assert_eq(commit(r, "g", "users", 2, 7), KE_NONE);
    cr_assert_eq(commit(r, "g", "orders", 0, 43), KE_NONE);
    cr_assert_eq(fetched(r, "g", "orders", 0), 43);
    r = restart(r, options());
    cr_assert_eq(fetched(r, "g", "orders", 0), 43);
    cr_assert_eq(fetched(r, "g", "users", 2), 7);
    cr_assert_eq(fetched(r, "g", "orders", 1), -1);
    cr_assert_str_eq(fetch(r, "g", "orders", 0).metadata, "meta");
    rig_destroy(r, false);
}

static int64_t committed_end(struct rig *r)
{
    int64_t end = 0;
    for (int32_t i = 0; i < 4; i++)
        end += partition_high_watermark(rig_partition(r, GROUPS_TOPIC, i));
    return end;
}

Test(coordinator, a_commit_is_acknowledged_after_its_record_is_committed)
{
    struct rig *r = begin();
    wait_ms(r, 20);
    for (int64_t i = 0; i < 20; i++) {
        cr_assert_eq(commit(r, "g", "orders", 0, i), KE_NONE);
        cr_assert_eq(committed_end(r), i + 1, "the record of commit %d is not committed", (int)i);
    }
    rig_destroy(r, false);
}

Test(coordinator, what_a_commit_may_not_is_refused_partition_by_partition)
{
    struct rig *r = begin();
    char big[4098];
    memset(big, 'm', sizeof big);
    big[4097] = 0;
    struct who simple = {"g", NULL, NULL, -1};
    cr_assert_eq(commit_as(r, 8, simple, "orders", 0, 1, big), KE_OFFSET_METADATA_TOO_LARGE);
    big[4096] = 0;
    cr_assert_eq(commit_as(r, 8, simple, "orders", 0, 1, big), KE_NONE);
    cr_assert_eq(commit_as(r, 8, simple, "nothing", 0, 1, ""), KE_UNKNOWN_TOPIC_OR_PARTITION);
    cr_assert_eq(commit_as(r, 8, (struct who){"h", "m", NULL, 3}, "orders", 0, 1, ""), KE_ILLEGAL_GENERATION);
    cr_assert_eq(commit_as(r, 9, (struct who){"h", "m", NULL, 3}, "orders", 0, 1, ""), KE_GROUP_ID_NOT_FOUND);
    cr_assert_eq(commit_as(r, 8, (struct who){"g", NULL, NULL, -2}, "orders", 0, 1, ""),
                 KE_ILLEGAL_GENERATION);
    for (int16_t v = 2; v <= 9; v++)
        cr_assert_eq(commit_as(r, v, simple, "users", v % 3, v, NULL), KE_NONE, "version %d", v);
    cr_assert_eq(fetched(r, "g", "users", 0), 9);
    rig_destroy(r, false);
}

/* Everything asked for is answered, in each version's shape. */
Test(coordinator, offsets_are_fetched_in_every_version)
{
    struct rig *r = begin();
    commit(r, "g", "orders", 0, 10);
    commit(r, "g", "orders", 2, 12);
    commit(r, "g", "users", 1, 21);
    int32_t both[] = {0, 1};
    for (int16_t v = 1; v <= 7; v++) {
        struct rig_call c;
        struct kp_offset_fetch_request_topics t = {
            .name = SLICE_LIT("orders"), .partition_indexes = both, .partition_indexes_n = 2};
        struct kp_offset_fetch_request q = {
            .group_id = SLICE_LIT("g"), .topics = &t, .topics_n = 1, .require_stable = v >= 7};
        struct kp_offset_fetch_response *a = rig_ask(r, &c, kp_key_offset_fetch, v, &q);
        cr_assert(a && a->error_code == KE_NONE && a->topics_n == 1 && a->topics[0].partitions_n == 2);
        cr_assert_eq(a->topics[0].partitions[0].committed_offset, 10);
        cr_assert_eq(a->topics[0].partitions[1].committed_offset, -1);
        cr_assert_eq(a->topics[0].partitions[1].error_code, KE_NONE);
        rig_release(&c);
    }
    struct rig_call c;
    struct kp_offset_fetch_request all = {.group_id = SLICE_LIT("g"), .topics_n = -1};
    struct kp_offset_fetch_response *a = rig_ask(r, &c, kp_key_offset_fetch, 5, &all);
    cr_assert(a && a->topics_n == 2 && a->topics[0].partitions_n + a->topics[1].partitions_n == 3);
    rig_release(&c);
    struct kp_offset_fetch_request_groups g[3] = {
        {.group_id = SLICE_LIT("g"), .topics_n = -1, .member_epoch = -1},
        {.group_id = SLICE_LIT("other"), .topics_n = -1, .member_epoch = -1},
        {.group_id = SLICE_LIT("g"), .member_epoch = -1}};
    struct kp_offset_fetch_request many = {.groups = g, .groups_n = 3};
    a = rig_ask(r, &c, kp_key_offset_fetch, 8, &many);
    cr_assert(a && a->groups_n == 3 && a->groups[0].topics_n == 2 && a->groups[1].topics_n == 0 &&
              a->groups[2].topics_n == 0);
    cr_assert(slice_eq_str(a->groups[1].group_id, "other") && a->groups[1].error_code == KE_NONE);
    rig_release(&c);
    rig_destroy(r, false);
}

/* G1: while the log is being read the answer is 14, and the first other answer is the right one. */
Test(coordinator, groups_that_are_being_loaded_say_so_and_never_none)
{
    struct rig *r = begin();
    char text[4000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    struct kp_offset_commit_request_partitions p[200];
    for (int round = 0; round < 12; round++) {
        struct rig_call c;
        for (int32_t i = 0; i < 200; i++)
            p[i] = (struct kp_offset_commit_request_partitions){.partition_index = i % 3,
                                                                .committed_offset = round,
                                                                .committed_leader_epoch = -1,
                                                                .committed_metadata = slice_str(text)};
        struct kp_offset_commit_request_topics t = {
            .name = SLICE_LIT("orders"), .partitions = p, .partitions_n = 200};
        struct kp_offset_commit_request q = {.group_id = SLICE_LIT("g"),
                                             .generation_id_or_member_epoch = -1,
                                             .member_id = SLICE_LIT(""),
                                             .group_instance_id = SLICE_NULL,
                                             .topics = &t,
                                             .topics_n = 1,
                                             .retention_time_ms = -1};
        struct kp_offset_commit_response *a = rig_ask(r, &c, kp_key_offset_commit, 8, &q);
        cr_assert(a && a->topics[0].partitions[199].error_code == KE_NONE);
        rig_release(&c);
    }
    cr_assert_eq(commit(r, "g", "users", 0, 99), KE_NONE); /* the last record of some 10 MB */
    struct groups_options o = options();
    char dir[256];
    snprintf(dir, sizeof dir, "%s", rig_dir(r));
    rig_destroy(r, true);
    r = rig_create(&(struct rig_options){.dir = dir, .groups = &o});
    rig_topic(r, GROUPS_TOPIC, 4, "cleanup.policy=compact"); /* open now: the load begins */
    unsigned loading = 0;
    struct got g;
    while ((g = fetch(r, "g", "users", 0)).error == KE_COORDINATOR_LOAD_IN_PROGRESS) {
        loading++;
        cr_assert_eq(g.offset, -1);
        rig_turn(r, 0);
    }
    cr_assert_eq(g.error, KE_NONE);
    cr_assert_eq(g.offset, 99);
    cr_assert(loading > 0, "the load was too short to be seen");
    rig_destroy(r, false);
}

Test(coordinator, other_requests_while_loading)
{
    struct rig *r = begin();
    for (int i = 0; i < 3000; i++)
        cr_assert_eq(commit_as(r, 8, (struct who){"g", NULL, NULL, -1}, "orders", 0, i,
                               i % 2 ? "" : "a longer text to fill the log with"),
                     KE_NONE);
    struct member m = only_member(r, "h");
    struct groups_options o = options();
    char dir[256];
    snprintf(dir, sizeof dir, "%s", rig_dir(r));
    rig_destroy(r, true);
    r = rig_create(&(struct rig_options){.dir = dir, .groups = &o});
    rig_topic(r, GROUPS_TOPIC, 4, "cleanup.policy=compact");
    rig_topic(r, "orders", 3, NULL);
    /* Whatever comes first, it is one of the two. */
    int16_t error = commit(r, "g", "orders", 0, 5);
    cr_assert(error == KE_COORDINATOR_LOAD_IN_PROGRESS || error == KE_NONE);
    cr_assert_eq(heartbeat(r, "h", &m), KE_NONE);
    cr_assert_eq(fetched(r, "g", "orders", 0), error ? 2999 : 5);
    cr_assert_eq(heartbeat(r, "h", &m), KE_NONE); /* its group has come back with it */
    cr_assert_eq(commit_as(r, 8, (struct who){"h", m.id, NULL, m.generation}, "orders", 1, 8, ""), KE_NONE);
    cr_assert_eq(commit_as(r, 8, (struct who){"h", m.id, NULL, m.generation - 1}, "orders", 1, 7, ""),
                 KE_ILLEGAL_GENERATION);
    rig_destroy(r, false);
}

Test(coordinator, without_the_topic_there_is_no_coordinator)
{
    struct groups_options o = options();
    struct rig *r = rig_create(&(struct rig_options){.groups = &o});
    rig_topic(r, "orders", 1, NULL);
    cr_assert_eq(commit(r, "g", "orders", 0, 1), KE_NOT_COORDINATOR);
    cr_assert_eq(fetch(r, "g", "orders", 0).error, KE_NOT_COORDINATOR);
    cr_assert_eq(delete_group(r, "g"), KE_NOT_COORDINATOR);
    rig_destroy(r, false);
}

/* ---- membership over requests ---- */

Test(coordinator, a_member_joins_commits_and_leaves)
{
    struct rig *r = begin();
    struct member m = only_member(r, "g");
    char state[64];
    state_of(r, "g", state, sizeof state);
    cr_assert_str_eq(state, "NONE/Stable/1");
    cr_assert_eq(heartbeat(r, "g", &m), KE_NONE);
    cr_assert_eq(commit_as(r, 8, (struct who){"g", m.id, NULL, m.generation}, "orders", 0, 5, ""), KE_NONE);
    cr_assert_eq(commit(r, "g", "orders", 0, 6), KE_UNKNOWN_MEMBER_ID);
    cr_assert_eq(delete_group(r, "g"), KE_NON_EMPTY_GROUP);
    cr_assert_eq(leave(r, 2, "g", "stranger"), KE_UNKNOWN_MEMBER_ID);
    cr_assert_eq(leave(r, 5, "g", m.id), KE_NONE);
    state_of(r, "g", state, sizeof state);
    cr_assert_str_eq(state, "NONE/Empty/0");
    cr_assert_eq(fetched(r, "g", "orders", 0), 5);
    cr_assert_eq(heartbeat(r, "g", &m), KE_UNKNOWN_MEMBER_ID);
    state_of(r, "nobody", state, sizeof state);
    cr_assert_str_eq(state, "NONE/Dead/0");
    rig_destroy(r, false);
}

Test(coordinator, a_stable_group_comes_back_after_a_restart)
{
    struct rig *r = begin();
    struct member m = only_member(r, "g");
    cr_assert_eq(commit_as(r, 8, (struct who){"g", m.id, NULL, m.generation}, "orders", 0, 5, ""), KE_NONE);
    r = restart(r, options());
    cr_assert_eq(fetched(r, "g", "orders", 0), 5);
    char state[64];
    state_of(r, "g", state, sizeof state);
    cr_assert_str_eq(state, "NONE/Stable/1");
    cr_assert_eq(heartbeat(r, "g", &m), KE_NONE);
    cr_assert_eq(sync_as(r, "g", &m, NULL), KE_NONE);
    cr_assert_eq(commit_as(r, 8, (struct who){"g", m.id, NULL, m.generation}, "orders", 0, 6, ""), KE_NONE);
    rig_destroy(r, false);
}

Test(coordinator, joins_of_every_version_are_answered)
{
    struct rig *r = begin();
    for (int16_t v = 0; v <= 9; v++) {
        struct rig_call c;
        char group[8], id[128] = "";
        snprintf(group, sizeof group, "g%d", v);
        for (int i = 0; i < 2; i++) {
            send_join(r, &c, v, group, id, to_orders);
            struct kp_join_group_response *a = rig_answer(&c, RIG_PATIENCE_MS);
            cr_assert(a);
            slice_cstr(a->member_id, id, sizeof id);
            if (a->error_code != KE_MEMBER_ID_REQUIRED)
                cr_assert_eq(a->error_code, KE_NONE, "version %d: %s", v, kafka_error_name(a->error_code));
            rig_release(&c);
        }
        struct member m = {.generation = 1};
        snprintf(m.id, sizeof m.id, "%s", id);
        cr_assert_eq(sync_as(r, group, &m, "x"), KE_NONE, "version %d", v);
        cr_assert_eq(leave(r, v > 5 ? 5 : v, group, id), KE_NONE);
    }
    rig_destroy(r, false);
}

Test(coordinator, empty_group_ids_are_refused_for_members)
{
    struct rig *r = begin();
    struct rig_call c;
    struct member m = {.id = "m"};
    send_join(r, &c, 9, "", "", to_orders);
    struct kp_join_group_response *a = rig_answer(&c, RIG_PATIENCE_MS);
    cr_assert(a && a->error_code == KE_INVALID_GROUP_ID);
    rig_release(&c);
    cr_assert_eq(heartbeat(r, "", &m), KE_INVALID_GROUP_ID);
    cr_assert_eq(sync_as(r, "", &m, NULL), KE_INVALID_GROUP_ID);
    cr_assert_eq(leave(r, 5, "", "m"), KE_INVALID_GROUP_ID);
    cr_assert_eq(leave(r, 5, "nobody", "m"), KE_UNKNOWN_MEMBER_ID);
    cr_assert_eq(commit(r, "", "orders", 0, 3), KE_NONE); /* as Kafka */
    cr_assert_eq(commit(r, "", "orders", 3, 3), KE_UNKNOWN_TOPIC_OR_PARTITION);
    cr_assert_eq(commit(r, "", "orders", -1, 3), KE_UNKNOWN_TOPIC_OR_PARTITION);
    cr_assert_eq(fetched(r, "", "orders", 0), 3);
    rig_destroy(r, false);
}

Test(coordinator, a_stopping_broker_answers_who_waits)
{
    struct rig *r = begin();
    struct member m = only_member(r, "g");
    struct rig_call c;
    send_join(r, &c, 9, "g", "", SLICE_LIT("s"));
    struct kp_join_group_response *a = rig_answer(&c, RIG_PATIENCE_MS);
    char id[128];
    slice_cstr(a->member_id, id, sizeof id);
    rig_release(&c);
    send_join(r, &c, 9, "g", id, SLICE_LIT("s")); /* waits for m, who does not come */
    wait_ms(r, 5);
    cr_assert(!c.answered && m.generation == 1);
    groups_stop(rig_shard(r)->groups);
    a = rig_answer(&c, RIG_PATIENCE_MS);
    cr_assert(a && a->error_code == KE_NOT_COORDINATOR);
    rig_release(&c);
    rig_destroy(r, false);
}

Test(coordinator, groups_hash_to_partitions_as_in_kafka)
{
    /* Java: Utils.abs("...".hashCode()) % 50 */
    cr_assert_eq(groups_partition_of(SLICE_LIT("g1"), 50), 42);
    cr_assert_eq(groups_partition_of(SLICE_LIT(""), 50), 0);
    cr_assert_eq(groups_partition_of(SLICE_LIT("polygenelubricants"), 50),
                 0); /* hashCode is Integer.MIN_VALUE */
    cr_assert_eq(groups_partition_of(SLICE_LIT("console-consumer-12345"), 50), 6);
}

Test(coordinator, the_coordinator_is_this_node)
{
    struct rig *r = begin();
    for (int16_t v = 0; v <= 5; v++) {
        struct rig_call c;
        struct slice keys[2] = {SLICE_LIT("g"), SLICE_LIT("h")};
        struct kp_find_coordinator_request q = {
            .key = keys[0], .coordinator_keys = keys, .coordinator_keys_n = 2};
        struct kp_find_coordinator_response *a = rig_ask(r, &c, kp_key_find_coordinator, v, &q);
        cr_assert(a);
        if (v < 4) {
            cr_assert(a->error_code == KE_NONE && a->node_id == RIG_NODE &&
                      slice_eq_str(a->host, "127.0.0.1"));
        } else {
            cr_assert(a->coordinators_n == 2 && a->coordinators[1].error_code == KE_NONE &&
                      a->coordinators[1].node_id == RIG_NODE && slice_eq_str(a->coordinators[1].key, "h"));
        }
        rig_release(&c);
        q.key_type = 1;
        if (v == 0)
            continue;
        a = rig_ask(r, &c, kp_key_find_coordinator, v, &q);
        int16_t error = v < 4 ? a->error_code : a->coordinators[0].error_code;
        cr_assert_eq(error, KE_TRANSACTIONAL_ID_AUTHORIZATION_FAILED);
        rig_release(&c);
    }
    rig_destroy(r, false);
}
