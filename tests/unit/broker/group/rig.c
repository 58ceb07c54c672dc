#include "tests/unit/broker/group/rig.h"

struct groups_options options(void)
{
    return (struct groups_options){
        .group = {.session_min_ms = 1,
                  .session_max_ms = 1800000,
                  .initial_rebalance_delay_ms = 0,
                  .new_member_join_timeout_ms = 300000,
                  .members_max = 1000},
        .offset_metadata_max_bytes = 4096,
        .commit_timeout_ms = RIG_PATIENCE_MS,
        .retention_ms = 7 * 86400000LL,
        .retention_check_ms = 600000,
    };
}

struct rig *begin_with(const char *dir, struct groups_options o)
{
    struct rig *r = rig_create(&(struct rig_options){.dir = dir, .groups = &o});
    rig_topic(r, GROUPS_TOPIC, 4, "cleanup.policy=compact");
    rig_topic(r, "orders", 3, NULL);
    rig_topic(r, "users", 3, NULL);
    return r;
}

struct rig *begin(void)
{
    return begin_with(NULL, options());
}

void wait_ms(struct rig *r, int ms)
{
    for (int i = 0; i < ms; i++)
        rig_turn(r, 1);
}

struct rig *restart(struct rig *r, struct groups_options o)
{
    char dir[256];
    snprintf(dir, sizeof dir, "%s", rig_dir(r));
    rig_destroy(r, true);
    return begin_with(dir, o);
}

int64_t retention_ms = -1;

/* Commits one offset; the partition's error. */
int16_t commit_as(struct rig *r, int16_t version, struct who who, const char *topic, int32_t partition,
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

int16_t commit(struct rig *r, const char *group, const char *topic, int32_t partition, int64_t offset)
{
    return commit_as(r, 8, (struct who){group, NULL, NULL, -1}, topic, partition, offset, "meta");
}

struct got fetch(struct rig *r, const char *group, const char *topic, int32_t partition)
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

int64_t fetched(struct rig *r, const char *group, const char *topic, int32_t partition)
{
    struct got g;
    for (int i = 0; i < 30000; i++) {
        g = fetch(r, group, topic, partition);
        if (g.error != KE_COORDINATOR_LOAD_IN_PROGRESS)
            break;
        rig_turn(r, 1);
    }
    cr_assert_eq(g.error, KE_NONE, "%s", kafka_error_name(g.error));
    return g.offset;
}

int16_t delete_group(struct rig *r, const char *group)
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

void state_of(struct rig *r, const char *group, char *out, size_t cap)
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

void send_join(struct rig *r, struct rig_call *c, int16_t version, const char *group, const char *member,
               struct slice metadata)
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
const struct slice to_orders = {(const uint8_t *)"\0\0\0\0\0\1\0\6orders\xff\xff\xff\xff", 18};

int16_t sync_as(struct rig *r, const char *group, const struct member *m, const char *assignment)
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
struct member only_member(struct rig *r, const char *group)
{
    struct rig_call c;
    struct member m = {0};
    send_join(r, &c, 9, group, "", to_orders);
    struct kp_join_group_response *a = rig_answer(&c, RIG_PATIENCE_MS);
    cr_assert(a && a->error_code == KE_MEMBER_ID_REQUIRED);
    slice_cstr(a->member_id, m.id, sizeof m.id);
    rig_release(&c);
    cr_assert(strncmp(m.id, "rig-", 4) == 0 && strlen(m.id) == 4 + 36, "%s", m.id);
    send_join(r, &c, 9, group, m.id, to_orders);
    a = rig_answer(&c, RIG_PATIENCE_MS);
    cr_assert(a && a->error_code == KE_NONE && a->members_n == 1);
    m.generation = a->generation_id;
    rig_release(&c);
    cr_assert_eq(sync_as(r, group, &m, "all"), KE_NONE);
    return m;
}

int16_t heartbeat(struct rig *r, const char *group, const struct member *m)
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

int16_t leave(struct rig *r, int16_t version, const char *group, const char *member)
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
