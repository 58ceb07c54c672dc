/* Lists of groups, their deletion, and how offsets and groups age. */
#include "tests/unit/broker/group/rig.h"

#include "base/world/clock.h"

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

Test(coordinator_age, lists_are_filtered_by_state_and_type)
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

Test(coordinator_age, a_deleted_group_is_gone_for_good)
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
Test(coordinator_age, a_deletion_covers_commits_under_way)
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
    cr_assert_eq(((struct kp_delete_groups_response *)rig_answer(&b, RIG_PATIENCE_MS))->results[0].error_code,
                 KE_NONE);
    cr_assert(rig_answer(&a, RIG_PATIENCE_MS));
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

Test(coordinator_age, offsets_of_topics_nobody_reads_may_be_deleted)
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

Test(coordinator_age, offsets_go_with_their_topic)
{
    struct rig *r = begin();
    commit(r, "g", "orders", 0, 5);
    commit(r, "g", "users", 0, 6);
    rig_remove_topic(r, "orders");
    for (int i = 0; i < 30000 && fetched(r, "g", "orders", 0) != -1; i++)
        rig_turn(r, 1);
    cr_assert_eq(fetched(r, "g", "orders", 0), -1);
    rig_topic(r, "orders", 3, NULL); /* another of the same name begins without */
    cr_assert_eq(fetched(r, "g", "orders", 0), -1);
    cr_assert_eq(fetched(r, "g", "users", 0), 6);
    rig_destroy(r, false);
}

Test(coordinator_age, offsets_and_groups_expire)
{
    struct groups_options o = options();
    o.retention_ms = 300;
    o.retention_check_ms = 20;
    struct rig *r = begin_with(NULL, o);
    struct member m = only_member(r, "live");
    cr_assert_eq(commit_as(r, 8, (struct who){"live", m.id, NULL, m.generation}, "orders", 0, 1, ""),
                 KE_NONE);
    cr_assert_eq(commit_as(r, 8, (struct who){"live", m.id, NULL, m.generation}, "users", 0, 1, ""), KE_NONE);
    int64_t start = clock_now_us(); /* a busy disk may take longer for these than they are kept */
    struct member n = only_member(r, "left");
    cr_assert_eq(commit_as(r, 8, (struct who){"left", n.id, NULL, n.generation}, "orders", 0, 2, ""),
                 KE_NONE);
    leave(r, 5, "left", n.id);
    commit(r, "simple", "orders", 0, 3);
    wait_ms(r, 100);
    int64_t left = fetched(r, "left", "orders", 0);
    int groups_n = list(r, 5, NULL, NULL);
    cr_assert((left == 2 && groups_n == 3) || clock_now_us() - start > o.retention_ms * 1000,
              "gone too early");
    wait_ms(r, 600);
    for (int i = 0; i < 30000 && (list(r, 5, NULL, NULL) > 1 || fetched(r, "live", "users", 0) != -1); i++)
        rig_turn(r, 1);
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

Test(coordinator_age, an_offset_may_be_kept_for_ever)
{
    struct rig *r = begin();
    retention_ms = INT64_MAX;
    cr_assert_eq(commit_as(r, 4, (struct who){"g", NULL, NULL, -1}, "orders", 0, 7, ""), KE_NONE);
    cr_assert_eq(fetched(r, "g", "orders", 0), 7);
    rig_destroy(r, false);
}
