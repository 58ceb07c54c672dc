/* The membership machine, event by event, and what a client is answered. */
#include "tests/support/group_script.h"

#include "proto/kafka/wire.h"

#include <criterion/criterion.h>

/* A and B together in a Stable group of generation 1, B1's id from v4's two steps. */
static struct group_script *two_stable(void)
{
    struct group_script *s = group_script_create(NULL);
    script_join(s, "A", NULL);
    script_join(s, "A", NULL);
    script_join(s, "B", NULL);
    script_join(s, "B", NULL);
    script_run(s, 6000);
    script_sync(s, "B", NULL);
    script_sync(s, "A", "A1=0 B3=1");
    cr_assert_eq(group_state(script_group(s)), GROUP_STABLE);
    script_trace(s);
    return s;
}

Test(group, first_member_is_told_its_id_then_waits_for_the_initial_delay)
{
    struct group_script *s = group_script_create(NULL);
    script_join(s, "A", NULL);
    script_run(s, 100);
    script_join(s, "A", NULL);
    script_run(s, 4000);
    script_sync(s, "A", "A1=all");
    script_expect(s, "0 A join MEMBER_ID_REQUIRED id=A1\n"
                     "3100 A join gen=1 range leader=A1 members=A1\n"
                     "4000 record CompletingRebalance gen=1\n"
                     "4000 A sync all\n");
    group_script_destroy(s);
}

Test(group, initial_delay_is_extended_by_new_members_up_to_the_rebalance_timeout)
{
    struct group_script *s = group_script_create(NULL);
    struct script_join old = {.version = 3, .rebalance_ms = 7000};
    script_join(s, "A", &old);
    script_run(s, 2000);
    script_join(s, "B", &old); /* the first piece ends at 3000, the next at 6000 */
    script_run(s, 4000);
    script_join(s, "C", &old); /* one second of the rebalance timeout is left */
    script_run(s, 6500);
    script_expect(s, "");
    script_run(s, 7000);
    script_expect(s, "7000 A join gen=1 range leader=A1 members=A1 B2 C3\n"
                     "7000 B join gen=1 range leader=A1\n"
                     "7000 C join gen=1 range leader=A1\n");
    group_script_destroy(s);
}

Test(group, followers_sync_waits_for_the_leaders_and_that_for_its_record)
{
    struct group_script *s = group_script_create(NULL);
    struct script_join old = {.version = 3};
    script_join(s, "A", &old);
    script_join(s, "B", &old);
    script_run(s, 6000);
    script_trace(s);
    script_auto_persist(s, false);
    script_sync(s, "B", "A1=lies B2=lies"); /* a follower's assignments count for nothing */
    script_sync(s, "A", "A1=0 B2=1 Z9=2");
    script_expect(s, "6000 record CompletingRebalance gen=1\n");
    cr_assert_eq(script_commit(s, "A", 0), KE_REBALANCE_IN_PROGRESS);
    script_persisted(s, KE_NONE);
    script_expect(s, "6000 A sync 0\n"
                     "6000 B sync 1\n");
    cr_assert_eq(script_commit(s, "A", 0), KE_NONE);
    script_sync(s, "B", NULL); /* once more, in Stable */
    script_expect(s, "6000 B sync 1\n");
    group_script_destroy(s);
}

Test(group, failed_record_of_the_assignment_fails_the_syncs_and_rebalances)
{
    struct group_script *s = two_stable();
    script_auto_persist(s, false);
    script_join(s, "A", NULL);
    script_join(s, "B", NULL);
    script_sync(s, "B", NULL);
    script_sync(s, "A", "A1=0 B3=1");
    script_persisted(s, group_append_error(KE_KAFKA_STORAGE_ERROR));
    script_expect(s, "6000 A join gen=2 range leader=A1 members=A1 B3\n"
                     "6000 B join gen=2 range leader=A1\n"
                     "6000 record CompletingRebalance gen=2\n"
                     "6000 A sync NOT_COORDINATOR\n"
                     "6000 B sync NOT_COORDINATOR\n");
    cr_assert_eq(group_state(script_group(s)), GROUP_PREPARING);
    group_script_destroy(s);
}

Test(group, new_member_makes_the_others_rejoin)
{
    struct group_script *s = two_stable();
    script_join(s, "C", NULL);
    script_heartbeat(s, "A"); /* an id alone disturbs nobody */
    script_join(s, "C", NULL);
    script_heartbeat(s, "A");
    script_heartbeat(s, "B");
    script_join(s, "A", NULL);
    script_run(s, 6500);
    script_join(s, "B", NULL);
    script_expect(s, "6000 C join MEMBER_ID_REQUIRED id=C5\n"
                     "6000 A heartbeat NONE\n"
                     "6000 A heartbeat REBALANCE_IN_PROGRESS\n"
                     "6000 B heartbeat REBALANCE_IN_PROGRESS\n"
                     "6500 A join gen=2 range leader=A1 members=A1 B3 C5\n"
                     "6500 B join gen=2 range leader=A1\n"
                     "6500 C join gen=2 range leader=A1\n");
    group_script_destroy(s);
}

Test(group, member_that_does_not_rejoin_in_time_is_dropped)
{
    struct group_script *s = two_stable();
    struct script_join quick = {.rebalance_ms = 2000};
    script_join(s, "C", &quick);
    script_join(s, "C", &quick);
    script_join(s, "B", NULL);
    for (int64_t t = 7000; t <= 66000; t += 1000) {
        script_run(s, t);
        if (t < 66000)
            script_heartbeat(s, "A"); /* alive, but deaf to REBALANCE_IN_PROGRESS */
    }
    const char *trace = script_trace(s);
    cr_assert(strstr(trace, "66000 B join gen=2 range leader=B3 members=B3 C5\n"
                            "66000 C join gen=2 range leader=B3\n"),
              "%s", trace);
    script_heartbeat(s, "A");
    script_expect(s, "66000 A heartbeat UNKNOWN_MEMBER_ID\n");
    group_script_destroy(s);
}

Test(group, silent_member_expires_and_the_others_go_on)
{
    struct group_script *s = two_stable();
    script_run(s, 10000);
    script_heartbeat(s, "A");
    script_run(s, 16500); /* B was last heard of at 6000 */
    script_heartbeat(s, "A");
    script_join(s, "A", NULL);
    script_sync(s, "A", "A1=all");
    script_expect(s, "10000 A heartbeat NONE\n"
                     "16500 A heartbeat REBALANCE_IN_PROGRESS\n"
                     "16500 A join gen=2 range leader=A1 members=A1\n"
                     "16500 record CompletingRebalance gen=2\n"
                     "16500 A sync all\n");
    script_run(s, 100000);
    cr_assert_eq(group_state(script_group(s)), GROUP_EMPTY);
    cr_assert(group_idle(script_group(s)));
    group_script_destroy(s);
}

Test(group, zombie_is_told_what_it_is)
{
    struct group_script *s = two_stable();
    script_join(s, "A", NULL); /* the leader rejoins: generation 2 without B */
    script_leave(s, "B");
    script_sync(s, "A", "A1=all");
    script_trace(s);
    cr_assert_eq(script_commit(s, "B", 0), KE_UNKNOWN_MEMBER_ID);
    cr_assert_eq(script_commit(s, "A", -1), KE_ILLEGAL_GENERATION);
    cr_assert_eq(script_commit(s, "A", 1), KE_ILLEGAL_GENERATION);
    cr_assert_eq(script_commit(s, "A", 0), KE_NONE);
    cr_assert_eq(script_simple_commit(s), KE_UNKNOWN_MEMBER_ID);
    script_heartbeat(s, "B");
    script_sync(s, "B", NULL);
    script_leave(s, "B");
    script_expect(s, "6000 B heartbeat UNKNOWN_MEMBER_ID\n"
                     "6000 B sync UNKNOWN_MEMBER_ID\n"
                     "6000 B leave NONE\n"
                     "6000 B left UNKNOWN_MEMBER_ID\n");
    group_script_destroy(s);
}

Test(group, stale_generation_is_refused_everywhere)
{
    struct group_script *s = two_stable();
    script_join(s, "A", NULL);
    script_join(s, "B", NULL); /* generation 2 */
    script_sync(s, "A", "A1=0 B3=1");
    script_trace(s);
    cr_assert_eq(script_commit(s, "B", -1), KE_ILLEGAL_GENERATION);
    cr_assert_eq(script_commit(s, "B", 0), KE_NONE);
    cr_assert_eq(script_simple_commit(s), KE_UNKNOWN_MEMBER_ID);
    group_script_destroy(s);
}

/* S32: what is committed under a generation must not be undone by an older one that the log brings back. */
Test(group, commit_of_a_generation_without_a_record_waits)
{
    struct group_script *s = two_stable();
    script_join(s, "A", NULL);
    cr_assert_eq(script_commit(s, "B", 0), KE_NONE, "the old generation is on disk");
    script_join(s, "B", NULL); /* generation 2, never synced */
    script_join(s, "C", NULL);
    script_join(s, "C", NULL);
    cr_assert_eq(group_state(script_group(s)), GROUP_PREPARING);
    cr_assert_eq(script_commit(s, "B", 0), KE_REBALANCE_IN_PROGRESS);
    group_script_destroy(s);
}

Test(group, leave_of_the_last_member_empties_the_group)
{
    struct group_script *s = two_stable();
    script_leave(s, "A");
    script_leave(s, "B");
    script_expect(s, "6000 A leave NONE\n"
                     "6000 B leave NONE\n"
                     "6000 record Empty gen=2\n");
    cr_assert_eq(script_simple_commit(s), KE_NONE);
    cr_assert_eq(script_commit(s, "A", -3), KE_ILLEGAL_GENERATION, "-2 is nobody's");
    cr_assert(slice_is_null(group_protocol_name(script_group(s))));
    cr_assert(slice_eq_str(group_protocol_type(script_group(s)), "test"));
    group_script_destroy(s);
}

Test(group, leader_that_leaves_is_succeeded)
{
    struct group_script *s = two_stable();
    script_leave(s, "A");
    script_heartbeat(s, "B");
    script_join(s, "B", NULL);
    script_expect(s, "6000 A leave NONE\n"
                     "6000 B heartbeat REBALANCE_IN_PROGRESS\n"
                     "6000 B join gen=2 range leader=B3 members=B3\n");
    group_script_destroy(s);
}

Test(group, follower_that_rejoins_unchanged_disturbs_nobody)
{
    struct group_script *s = two_stable();
    script_join(s, "B", NULL);
    script_heartbeat(s, "A");
    script_expect(s, "6000 B join gen=1 range leader=A1\n"
                     "6000 A heartbeat NONE\n");
    struct script_join other = {.protocols = "range:u"};
    script_join(s, "B", &other); /* its subscription has changed */
    script_heartbeat(s, "A");
    script_expect(s, "6000 A heartbeat REBALANCE_IN_PROGRESS\n");
    group_script_destroy(s);
}

Test(group, repeated_join_in_completing_gets_the_same_generation)
{
    struct group_script *s = two_stable();
    script_join(s, "A", NULL);
    script_join(s, "B", NULL);
    script_join(s, "A", NULL); /* the answer was lost */
    script_join(s, "B", NULL);
    script_expect(s, "6000 A join gen=2 range leader=A1 members=A1 B3\n"
                     "6000 B join gen=2 range leader=A1\n"
                     "6000 A join gen=2 range leader=A1 members=A1 B3\n"
                     "6000 B join gen=2 range leader=A1\n");
    group_script_destroy(s);
}

Test(group, request_of_a_dead_connection_is_answered_when_the_client_comes_again)
{
    struct group_script *s = two_stable();
    script_join(s, "A", NULL);
    script_join(s, "A", NULL);
    script_expect(s, "6000 A join REBALANCE_IN_PROGRESS\n");
    script_join(s, "B", NULL);
    script_sync(s, "B", NULL);
    script_sync(s, "B", NULL);
    script_expect(s, "6000 A join gen=2 range leader=A1 members=A1 B3\n"
                     "6000 B join gen=2 range leader=A1\n"
                     "6000 B sync REBALANCE_IN_PROGRESS\n");
    group_script_destroy(s);
}

Test(group, members_that_never_sync_are_removed_after_the_rebalance_timeout)
{
    struct group_script *s = two_stable();
    script_join(s, "A", NULL);
    script_join(s, "B", NULL);
    script_sync(s, "A", "A1=0 B3=1");
    script_trace(s);
    for (int64_t t = 12000; t <= 66000; t += 6000) {
        script_run(s, t);
        if (t < 66000)
            script_heartbeat(s, "B");
        script_heartbeat(s, "A");
    }
    const char *trace = script_trace(s);
    cr_assert(strstr(trace, "60000 A heartbeat NONE"), "%s", trace);
    cr_assert(strstr(trace, "66000 A heartbeat REBALANCE_IN_PROGRESS"), "%s", trace);
    script_heartbeat(s, "B");
    script_expect(s, "66000 B heartbeat UNKNOWN_MEMBER_ID\n");
    group_script_destroy(s);
}

Test(group, protocols_must_have_one_in_common)
{
    struct group_script *s = group_script_create(NULL);
    struct script_join both = {.version = 3, .protocols = "sticky:t range:t"};
    struct script_join range = {.version = 3, .protocols = "range:t"};
    struct script_join other = {.version = 3, .protocols = "round:t"};
    struct script_join type = {.version = 3, .type = "connect"};
    struct script_join untyped = {.version = 3, .type = ""};
    script_join(s, "Z", &untyped);
    script_join(s, "A", &both);
    script_join(s, "B", &range);
    script_join(s, "C", &other);
    script_join(s, "D", &type);
    script_run(s, 6000);
    script_expect(s, "0 Z join INCONSISTENT_GROUP_PROTOCOL\n"
                     "0 C join INCONSISTENT_GROUP_PROTOCOL\n"
                     "0 D join INCONSISTENT_GROUP_PROTOCOL\n"
                     "6000 A join gen=1 range leader=A2 members=A2 B3\n"
                     "6000 B join gen=1 range leader=A2\n");
    group_script_destroy(s);
}

Test(group, most_votes_choose_the_protocol)
{
    struct group_script *s = group_script_create(NULL);
    struct script_join range = {.version = 3, .protocols = "range:t sticky:t"};
    struct script_join sticky = {.version = 3, .protocols = "sticky:t range:t"};
    script_join(s, "A", &range);
    script_join(s, "B", &sticky);
    script_join(s, "C", &sticky);
    script_run(s, 6000);
    cr_assert(slice_eq_str(group_protocol_name(script_group(s)), "sticky"));
    group_script_destroy(s);
}

Test(group, session_timeout_has_bounds)
{
    struct group_script *s = group_script_create(NULL);
    struct script_join low = {.session_ms = 5999}, high = {.session_ms = 1800001};
    script_join(s, "A", &low);
    script_join(s, "A", &high);
    script_expect(s, "0 A join INVALID_SESSION_TIMEOUT\n"
                     "0 A join INVALID_SESSION_TIMEOUT\n");
    cr_assert(group_idle(script_group(s)));
    group_script_destroy(s);
}

Test(group, unknown_member_id_and_generation_minus_two_change_nothing)
{
    struct group_script *s = two_stable();
    size_t bytes = group_bytes(script_group(s));
    struct script_join foreign = {.member_id = "nobody"};
    script_join(s, "C", &foreign);
    script_expect(s, "6000 C join UNKNOWN_MEMBER_ID\n");
    cr_assert_eq(script_commit(s, "A", -3), KE_ILLEGAL_GENERATION);
    cr_assert_eq(group_bytes(script_group(s)), bytes);
    cr_assert_eq(group_state(script_group(s)), GROUP_STABLE);
    group_script_destroy(s);
}

Test(group, pending_id_that_never_comes_back_expires)
{
    struct group_script *s = group_script_create(NULL);
    script_join(s, "A", NULL);
    cr_assert(!group_idle(script_group(s)));
    script_run(s, 10000);
    cr_assert(group_idle(script_group(s)));
    script_join(s, "A", NULL);
    script_expect(s, "0 A join MEMBER_ID_REQUIRED id=A1\n"
                     "10000 A join UNKNOWN_MEMBER_ID\n");
    group_script_destroy(s);
}

Test(group, rebalance_waits_for_a_pending_id)
{
    struct group_script *s = two_stable();
    script_join(s, "C", NULL); /* has its id, not yet joined */
    script_join(s, "A", NULL);
    script_join(s, "B", NULL);
    script_expect(s, "6000 C join MEMBER_ID_REQUIRED id=C5\n");
    script_run(s, 16000);
    script_expect(s, "16000 A join gen=2 range leader=A1 members=A1 B3\n"
                     "16000 B join gen=2 range leader=A1\n");
    group_script_destroy(s);
}

Test(group, new_members_join_expires_after_five_minutes)
{
    struct group_config c = {6000, 1800000, 1000000, 300000, 1000};
    struct group_script *s = group_script_create(&c);
    struct script_join slow = {.version = 3, .rebalance_ms = 2000000};
    script_join(s, "A", &slow);
    script_run(s, 300000);
    script_expect(s, "300000 A join UNKNOWN_MEMBER_ID\n");
    cr_assert_eq(group_members_n(script_group(s)), 0);
    group_script_destroy(s);
}

Test(group, size_limit_refuses_new_members_and_sheds_the_last)
{
    struct group_config c = {6000, 1800000, 0, 300000, 2};
    struct group_script *s = group_script_create(&c);
    struct script_join old = {.version = 3};
    script_join(s, "A", &old);
    script_run(s, 0);
    script_sync(s, "A", "A1=all");
    script_join(s, "B", &old);
    script_join(s, "A", &old);
    script_sync(s, "A", "A1=0 B2=1");
    script_sync(s, "B", NULL);
    script_trace(s);
    script_join(s, "C", &old);
    script_heartbeat(s, "A");
    script_expect(s, "0 C join GROUP_MAX_SIZE_REACHED\n"
                     "0 A heartbeat NONE\n");
    group_script_destroy(s);
}

Test(group, oversized_subscription_and_assignment_are_refused_without_change)
{
    struct group_script *s = two_stable();
    size_t bytes = group_bytes(script_group(s));
    size_t n = GROUP_REQUEST_BYTES_MAX + 1;
    char *big = malloc(n + 16);
    memcpy(big, "range:", 6);
    memset(big + 6, 'x', n);
    big[n + 6] = 0;
    struct script_join how = {.protocols = big};
    script_join(s, "C", &how);
    script_join(s, "A", &how);
    script_expect(s, "6000 C join GROUP_MAX_SIZE_REACHED\n"
                     "6000 A join GROUP_MAX_SIZE_REACHED\n");
    cr_assert_eq(group_bytes(script_group(s)), bytes);
    script_join(s, "A", NULL);
    script_join(s, "B", NULL);
    script_trace(s);
    memcpy(big, "A1=", 3);
    script_sync(s, "A", big);
    script_expect(s, "6000 A sync MESSAGE_TOO_LARGE\n");
    free(big);
    group_script_destroy(s);
}

Test(group, group_bytes_are_capped)
{
    struct group_script *s = group_script_create(NULL);
    char *half = calloc(1, GROUP_REQUEST_BYTES_MAX / 2);
    memset(half, 'x', GROUP_REQUEST_BYTES_MAX / 2 - 1);
    memcpy(half, "range:", 6);
    struct script_join how = {.version = 3, .protocols = half};
    unsigned in = 0;
    for (char name[8] = "A"; name[0] <= 'Z'; name[0]++) {
        script_join(s, name, &how);
        in += script_waiting(s, name);
    }
    cr_assert(in >= 14 && in <= 16, "%u", in);
    cr_assert(group_bytes(script_group(s)) <= GROUP_BYTES_MAX);
    free(half);
    group_script_destroy(s);
}

Test(group, unload_answers_everybody)
{
    struct group_script *s = two_stable();
    script_join(s, "A", NULL);
    script_join(s, "C", NULL);
    script_trace(s);
    group_script_destroy(s); /* unloads, and asserts that no request is left */
}
