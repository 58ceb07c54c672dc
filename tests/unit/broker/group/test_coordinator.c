/* Groups on a shard with a real log: requests in, answers out, restarts between.
 * size: one list of cases on one rig; its helpers (ask, answer, restart) would only be repeated. */
#include "tests/support/serve/rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static struct groups_options options(void)
{
    return (struct groups_options){
        .group = {.session_min_ms = 1,
                  .session_max_ms = 1800000,
                  .initial_rebalance_delay_ms = 0,
                  .new_member_join_timeout_ms = 300000,
                  .members_max = 1000},
        .offset_metadata_max_bytes = 4096,
        .commit_timeout_ms = 5000,
        .retention_ms = 7 * 86400000LL,
        .retention_check_ms = 600000,
    };
}

static struct rig *begin_with(const char *dir, struct groups_options o)
{
    struct rig *r = rig_create(&(struct rig_options){.dir = dir, .groups = &o});
    rig_topic(r, GROUPS_TOPIC, 4, "cleanup.policy=compact");
    rig_topic(r, "orders", 3, NULL);
    rig_topic(r, "users", 3, NULL);
    return r;
}

static struct rig *begin(void)
{
    return begin_with(NULL, options());
}

static void wait_ms(struct rig *r, int ms)
{
    for (int i = 0; i < ms; i++)
        rig_turn(r, 1);
}

static struct rig *restart(struct rig *r, struct groups_options o)
{
    char dir[256];
    snprintf(dir, sizeof dir, "%s", rig_dir(r));
    rig_destroy(r, true);
    return begin_with(dir, o);
}

struct who {
    const char *group, *member, *instance;
    int32_t generation;
};

static int64_t retention_ms = -1; /* asked for by commits */

/* Commits one offset; the partition's error. */
static int16_t commit_as(struct rig *r, int16_t version, struct who who, const char *topic, int32_t partition,
                         int64_t offset, const char *metadata)
{
    struct rig_call c;
    struct kp_offset_commit_request_partitions p = {.partition_index = partition,
                                                    .committed_offset = offset,
                                                    .committed_leader_epoch = -1,
                                                    .committed_metadata = slice_str(metadata)};
    struct kp_offset_commit_request_topics t = {
        .name = slice_str(topic), .partitions = &p, .partitions_n = 1};
    struct kp_offset_commit_request q = {.group_id = slice_str(who.group),
                                         .generation_id_or_member_epoch = who.generation,
                                         .member_id = slice_str(who.member ? who.member : ""),
                                         .group_instance_id = slice_str(who.instance),
                                         .retention_time_ms = retention_ms,
                                         .topics = &t,
                                         .topics_n = 1};
    struct kp_offset_commit_response *a = rig_ask(r, &c, kp_key_offset_commit, version, &q);
    cr_assert(a && a->topics_n == 1 && a->topics[0].partitions_n == 1);
    int16_t error = a->topics[0].partitions[0].error_code;
    rig_release(&c);
    return error;
}

static int16_t commit(struct rig *r, const char *group, const char *topic, int32_t partition, int64_t offset)
{
    return commit_as(r, 8, (struct who){group, NULL, NULL, -1}, topic, partition, offset, "meta");
}

struct got {
    int64_t offset;
    int16_t error;
    char metadata[32];
};

static struct got fetch(struct rig *r, const char *group, const char *topic, int32_t partition)
{
    struct rig_call c;
    struct kp_offset_fetch_request_groups_topics t = {
        .name = slice_str(topic), .partition_indexes = &partition, .partition_indexes_n = 1};
    struct kp_offset_fetch_request_groups g = {
        .group_id = slice_str(group), .member_epoch = -1, .topics = &t, .topics_n = 1};
    struct kp_offset_fetch_request q = {.groups = &g, .groups_n = 1};
    struct kp_offset_fetch_response *a = rig_ask(r, &c, kp_key_offset_fetch, 9, &q);
    cr_assert(a && a->groups_n == 1);
    struct kp_offset_fetch_response_groups *x = &a->groups[0];
    struct got got = {.error = x->error_code, .offset = -2};
    if (x->topics_n) {
        got.offset = x->topics[0].partitions[0].committed_offset;
        slice_cstr(x->topics[0].partitions[0].metadata, got.metadata, sizeof got.metadata);
        if (!got.error)
            got.error = x->topics[0].partitions[0].error_code;
    }
    rig_release(&c);
    return got;
}

static int64_t fetched(struct rig *r, const char *group, const char *topic, int32_t partition)
{
    struct got g;
    for (int i = 0; i < 1000; i++) {
        g = fetch(r, group, topic, partition);
        if (g.error != KE_COORDINATOR_LOAD_IN_PROGRESS)
            break;
        rig_turn(r, 1);
    }
    cr_assert_eq(g.error, KE_NONE, "%s", kafka_error_name(g.error));
    return g.offset;
}

static int16_t delete_group(struct rig *r, const char *group)
{
    struct rig_call c;
    struct slice name = slice_str(group);
    struct kp_delete_groups_request q = {.groups_names = &name, .groups_names_n = 1};
    struct kp_delete_groups_response *a = rig_ask(r, &c, kp_key_delete_groups, 2, &q);
    cr_assert(a && a->results_n == 1);
    int16_t error = a->results[0].error_code;
    rig_release(&c);
    return error;
}

static void state_of(struct rig *r, const char *group, char *out, size_t cap)
{
    struct rig_call c;
    struct slice name = slice_str(group);
    struct kp_describe_groups_request q = {.groups = &name, .groups_n = 1};
    struct kp_describe_groups_response *a = rig_ask(r, &c, kp_key_describe_groups, 5, &q);
    cr_assert(a && a->groups_n == 1);
    snprintf(out, cap, "%s/%.*s/%d", kafka_error_name(a->groups[0].error_code),
             SLICE_FMT(a->groups[0].group_state), a->groups[0].members_n);
    rig_release(&c);
}

/* ---- members ---- */

struct member {
    char id[128];
    int32_t generation;
    bool leader;
};

static void send_join(struct rig *r, struct rig_call *c, int16_t version, const char *group,
                      const char *member, struct slice metadata)
{
    struct kp_join_group_request_protocols p = {.name = SLICE_LIT("range"), .metadata = metadata};
    struct kp_join_group_request q = {.group_id = slice_str(group),
                                      .session_timeout_ms = 10000,
                                      .rebalance_timeout_ms = 10000,
                                      .member_id = slice_str(member),
                                      .protocol_type = SLICE_LIT("consumer"),
                                      .protocols = &p,
                                      .protocols_n = 1,
                                      .group_instance_id = SLICE_NULL,
                                      .reason = SLICE_NULL};
    rig_send(r, c, kp_key_join_group, version, &q);
}

/* A consumer's subscription to "orders". */
static const struct slice to_orders = {(const uint8_t *)"\0\0\0\0\0\1\0\6orders\xff\xff\xff\xff", 18};

static int16_t sync_as(struct rig *r, const char *group, const struct member *m, const char *assignment)
{
    struct rig_call c;
    struct kp_sync_group_request_assignments a = {.member_id = slice_str(m->id),
                                                  .assignment = slice_str(assignment)};
    struct kp_sync_group_request q = {.group_id = slice_str(group),
                                      .generation_id = m->generation,
                                      .member_id = slice_str(m->id),
                                      .assignments = &a,
                                      .assignments_n = assignment ? 1 : 0,
                                      .group_instance_id = SLICE_NULL,
                                      .protocol_type = SLICE_LIT("consumer"),
                                      .protocol_name = SLICE_LIT("range")};
    struct kp_sync_group_response *b = rig_ask(r, &c, kp_key_sync_group, 5, &q);
    cr_assert(b);
    int16_t error = b->error_code;
    if (!error && assignment)
        cr_assert(slice_eq_str(b->assignment, assignment));
    rig_release(&c);
    return error;
}

/* One member, alone, Stable. */
static struct member only_member(struct rig *r, const char *group)
{
    struct rig_call c;
    struct member m = {0};
    send_join(r, &c, 9, group, "", to_orders);
    struct kp_join_group_response *a = rig_answer(&c, 5000);
    cr_assert(a && a->error_code == KE_MEMBER_ID_REQUIRED);
    slice_cstr(a->member_id, m.id, sizeof m.id);
    rig_release(&c);
    cr_assert(strncmp(m.id, "rig-", 4) == 0 && strlen(m.id) == 4 + 36, "%s", m.id);
    send_join(r, &c, 9, group, m.id, to_orders);
    a = rig_answer(&c, 5000);
    cr_assert(a && a->error_code == KE_NONE && a->members_n == 1);
    m.generation = a->generation_id;
    rig_release(&c);
    cr_assert_eq(sync_as(r, group, &m, "all"), KE_NONE);
    return m;
}

static int16_t heartbeat(struct rig *r, const char *group, const struct member *m)
{
    struct rig_call c;
    struct kp_heartbeat_request q = {.group_id = slice_str(group),
                                     .generation_id = m->generation,
                                     .member_id = slice_str(m->id),
                                     .group_instance_id = SLICE_NULL};
    struct kp_heartbeat_response *a = rig_ask(r, &c, kp_key_heartbeat, 4, &q);
    cr_assert(a);
    int16_t error = a->error_code;
    rig_release(&c);
    return error;
}

static int16_t leave(struct rig *r, int16_t version, const char *group, const char *member)
{
    struct rig_call c;
    struct kp_leave_group_request_members m = {
        .member_id = slice_str(member), .group_instance_id = SLICE_NULL, .reason = SLICE_NULL};
    struct kp_leave_group_request q = {
        .group_id = slice_str(group), .member_id = slice_str(member), .members = &m, .members_n = 1};
    struct kp_leave_group_response *a = rig_ask(r, &c, kp_key_leave_group, version, &q);
    cr_assert(a);
    int16_t error = a->error_code ? a->error_code : version >= 3 ? a->members[0].error_code : KE_NONE;
    rig_release(&c);
    return error;
}

/* ---- offsets ---- */

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
            struct kp_join_group_response *a = rig_answer(&c, 5000);
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
    struct kp_join_group_response *a = rig_answer(&c, 1000);
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
    struct kp_join_group_response *a = rig_answer(&c, 1000);
    char id[128];
    slice_cstr(a->member_id, id, sizeof id);
    rig_release(&c);
    send_join(r, &c, 9, "g", id, SLICE_LIT("s")); /* waits for m, who does not come */
    wait_ms(r, 5);
    cr_assert(!c.answered && m.generation == 1);
    groups_stop(rig_shard(r)->groups);
    a = rig_answer(&c, 1000);
    cr_assert(a && a->error_code == KE_NOT_COORDINATOR);
    rig_release(&c);
    rig_destroy(r, false);
}

/* ---- lists, deletions, age ---- */

static int32_t list(struct rig *r, int16_t version, const char *state, const char *type)
{
    struct rig_call c;
    struct slice s = slice_str(state), t = slice_str(type);
    struct kp_list_groups_request q = {.states_filter = &s,
                                       .states_filter_n = state ? 1 : 0,
                                       .types_filter = &t,
                                       .types_filter_n = type ? 1 : 0};
    struct kp_list_groups_response *a = rig_ask(r, &c, kp_key_list_groups, version, &q);
    cr_assert(a && a->error_code == KE_NONE);
    int32_t n = a->groups_n;
    rig_release(&c);
    return n;
}

Test(coordinator, lists_are_filtered_by_state_and_type)
{
    struct rig *r = begin();
    wait_ms(r, 20);
    commit(r, "one", "orders", 0, 1);
    commit(r, "two", "orders", 0, 1);
    only_member(r, "three");
    for (int16_t v = 0; v <= 5; v++)
        cr_assert_eq(list(r, v, NULL, NULL), 3);
    cr_assert_eq(list(r, 4, "Empty", NULL), 2);
    cr_assert_eq(list(r, 5, "stable", "Classic"), 1);
    cr_assert_eq(list(r, 5, NULL, "consumer"), 0);
    cr_assert_eq(list(r, 5, "nonsense", NULL), 0);
    rig_destroy(r, false);
}

Test(coordinator, a_deleted_group_is_gone_for_good)
{
    struct rig *r = begin();
    struct member m = only_member(r, "g");
    for (int32_t p = 0; p < 3; p++)
        cr_assert_eq(commit_as(r, 8, (struct who){"g", m.id, NULL, m.generation}, "orders", p, p + 5, ""),
                     KE_NONE);
    leave(r, 5, "g", m.id);
    cr_assert_eq(delete_group(r, "g"), KE_NONE);
    cr_assert_eq(fetched(r, "g", "orders", 1), -1);
    cr_assert_eq(delete_group(r, "g"), KE_GROUP_ID_NOT_FOUND);
    r = restart(r, options());
    cr_assert_eq(fetched(r, "g", "orders", 1), -1);
    char state[64];
    state_of(r, "g", state, sizeof state);
    cr_assert_str_eq(state, "NONE/Dead/0");
    cr_assert_eq(list(r, 5, NULL, NULL), 0);
    rig_destroy(r, false);
}

/* The commit is on its way when the deletion comes: its offset must not outlive the group. */
Test(coordinator, a_deletion_covers_commits_under_way)
{
    struct rig *r = begin();
    commit(r, "g", "orders", 0, 1);
    struct rig_call a, b;
    struct kp_offset_commit_request_partitions p = {.partition_index = 1,
                                                    .committed_offset = 2,
                                                    .committed_leader_epoch = -1,
                                                    .committed_metadata = SLICE_NULL};
    struct kp_offset_commit_request_topics t = {
        .name = SLICE_LIT("orders"), .partitions = &p, .partitions_n = 1};
    struct kp_offset_commit_request q = {.group_id = SLICE_LIT("g"),
                                         .generation_id_or_member_epoch = -1,
                                         .member_id = SLICE_LIT(""),
                                         .group_instance_id = SLICE_NULL,
                                         .topics = &t,
                                         .topics_n = 1};
    struct slice name = SLICE_LIT("g");
    struct kp_delete_groups_request d = {.groups_names = &name, .groups_names_n = 1};
    rig_send(r, &a, kp_key_offset_commit, 8, &q);
    rig_send(r, &b, kp_key_delete_groups, 2, &d);
    cr_assert(!a.answered && !b.answered);
    cr_assert_eq(commit(r, "g", "orders", 2, 3), KE_COORDINATOR_NOT_AVAILABLE); /* it is being deleted */
    cr_assert_eq(((struct kp_delete_groups_response *)rig_answer(&b, 5000))->results[0].error_code, KE_NONE);
    cr_assert(rig_answer(&a, 5000));
    rig_release(&a);
    rig_release(&b);
    for (int32_t i = 0; i < 3; i++)
        cr_assert_eq(fetched(r, "g", "orders", i), -1);
    r = restart(r, options());
    for (int32_t i = 0; i < 3; i++)
        cr_assert_eq(fetched(r, "g", "orders", i), -1);
    rig_destroy(r, false);
}

static int16_t offset_delete(struct rig *r, const char *group, const char *topic, int32_t partition,
                             int16_t *top)
{
    struct rig_call c;
    struct kp_offset_delete_request_partitions p = {.partition_index = partition};
    struct kp_offset_delete_request_topics t = {
        .name = slice_str(topic), .partitions = &p, .partitions_n = 1};
    struct kp_offset_delete_request q = {.group_id = slice_str(group), .topics = &t, .topics_n = 1};
    struct kp_offset_delete_response *a = rig_ask(r, &c, kp_key_offset_delete, 0, &q);
    cr_assert(a);
    *top = a->error_code;
    int16_t error = a->topics_n ? a->topics[0].partitions[0].error_code : KE_NONE;
    rig_release(&c);
    return error;
}

Test(coordinator, offsets_of_topics_nobody_reads_may_be_deleted)
{
    struct rig *r = begin();
    int16_t top;
    struct member m = only_member(r, "g");
    struct who me = {"g", m.id, NULL, m.generation};
    commit_as(r, 8, me, "orders", 0, 5, "");
    commit_as(r, 8, me, "users", 0, 6, "");
    cr_assert_eq(offset_delete(r, "g", "orders", 0, &top), KE_GROUP_SUBSCRIBED_TO_TOPIC);
    cr_assert_eq(offset_delete(r, "g", "users", 0, &top), KE_NONE);
    cr_assert_eq(top, KE_NONE);
    cr_assert_eq(offset_delete(r, "g", "users", 1, &top), KE_NONE); /* there is none: as well */
    cr_assert_eq(fetched(r, "g", "orders", 0), 5);
    cr_assert_eq(fetched(r, "g", "users", 0), -1);
    offset_delete(r, "nobody", "users", 0, &top);
    cr_assert_eq(top, KE_GROUP_ID_NOT_FOUND);
    rig_destroy(r, false);
}

Test(coordinator, offsets_go_with_their_topic)
{
    struct rig *r = begin();
    commit(r, "g", "orders", 0, 5);
    commit(r, "g", "users", 0, 6);
    rig_remove_topic(r, "orders");
    for (int i = 0; i < 1000 && fetched(r, "g", "orders", 0) != -1; i++)
        rig_turn(r, 1);
    cr_assert_eq(fetched(r, "g", "orders", 0), -1);
    rig_topic(r, "orders", 3, NULL); /* another of the same name begins without */
    cr_assert_eq(fetched(r, "g", "orders", 0), -1);
    cr_assert_eq(fetched(r, "g", "users", 0), 6);
    rig_destroy(r, false);
}

Test(coordinator, offsets_and_groups_expire)
{
    struct groups_options o = options();
    o.retention_ms = 300;
    o.retention_check_ms = 20;
    struct rig *r = begin_with(NULL, o);
    struct member m = only_member(r, "live");
    cr_assert_eq(commit_as(r, 8, (struct who){"live", m.id, NULL, m.generation}, "orders", 0, 1, ""),
                 KE_NONE);
    cr_assert_eq(commit_as(r, 8, (struct who){"live", m.id, NULL, m.generation}, "users", 0, 1, ""), KE_NONE);
    struct member n = only_member(r, "left");
    cr_assert_eq(commit_as(r, 8, (struct who){"left", n.id, NULL, n.generation}, "orders", 0, 2, ""),
                 KE_NONE);
    leave(r, 5, "left", n.id);
    commit(r, "simple", "orders", 0, 3);
    wait_ms(r, 100);
    cr_assert_eq(fetched(r, "left", "orders", 0), 2);
    cr_assert_eq(list(r, 5, NULL, NULL), 3);
    wait_ms(r, 600);
    cr_assert_eq(fetched(r, "left", "orders", 0), -1);
    cr_assert_eq(fetched(r, "simple", "orders", 0), -1);
    cr_assert_eq(fetched(r, "live", "orders", 0), 1, "a subscribed topic's offsets stay");
    cr_assert_eq(fetched(r, "live", "users", 0), -1, "another's go by their commit");
    cr_assert_eq(list(r, 5, NULL, NULL), 1);
    r = restart(r, options());
    cr_assert_eq(fetched(r, "left", "orders", 0), -1);
    cr_assert_eq(fetched(r, "live", "orders", 0), 1);
    rig_destroy(r, false);
}

/* ---- where groups are ---- */

Test(coordinator, an_offset_may_be_kept_for_ever)
{
    struct rig *r = begin();
    retention_ms = INT64_MAX;
    cr_assert_eq(commit_as(r, 4, (struct who){"g", NULL, NULL, -1}, "orders", 0, 7, ""), KE_NONE);
    cr_assert_eq(fetched(r, "g", "orders", 0), 7);
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
