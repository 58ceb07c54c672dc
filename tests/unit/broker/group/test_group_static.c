/* Static members (KIP-345): who comes back by its instance's name. */
#include "tests/support/group_script.h"

#include "proto/kafka/wire.h"

#include <criterion/criterion.h>

static const struct script_join as_x = {.instance = "x"}, as_y = {.instance = "y"};

static struct group_script *two_static(void)
{
    struct group_script *s = group_script_create(NULL);
    script_join(s, "A", &as_x);
    script_join(s, "B", &as_y);
    script_run(s, 6000);
    script_sync(s, "B", NULL);
    script_sync(s, "A", "A1=0 B2=1");
    script_trace(s);
    return s;
}

Test(group_static, restart_takes_over_without_a_rebalance)
{
    struct group_script *s = two_static();
    script_join(s, "C", &as_y);
    script_heartbeat(s, "A");
    script_sync(s, "C", NULL);
    script_expect(s, "6000 record Stable gen=1\n"
                     "6000 C join gen=1 range leader=A1\n"
                     "6000 A heartbeat NONE\n"
                     "6000 C sync 1\n");
    script_heartbeat(s, "B"); /* the predecessor is fenced for good */
    cr_assert_eq(script_commit(s, "B", 0), KE_FENCED_INSTANCE_ID);
    script_join(s, "B", NULL);
    script_leave(s, "B");
    script_expect(s, "6000 B heartbeat FENCED_INSTANCE_ID\n"
                     "6000 B join FENCED_INSTANCE_ID\n"
                     "6000 B leave NONE\n"
                     "6000 B left FENCED_INSTANCE_ID\n");
    group_script_destroy(s);
}

Test(group_static, restarted_leader_skips_the_assignment)
{
    struct group_script *s = two_static();
    script_join(s, "C", &as_x);
    script_expect(s, "6000 record Stable gen=1\n"
                     "6000 C join gen=1 range leader=C3 skip members=C3 B2\n");
    struct script_join v8 = {.instance = "x", .version = 8};
    script_join(s, "D", &v8); /* may not: is told that the dead one leads */
    script_sync(s, "D", NULL);
    script_expect(s, "6000 record Stable gen=1\n"
                     "6000 D join gen=1 range leader=C3\n"
                     "6000 D sync 0\n");
    group_script_destroy(s);
}

Test(group_static, restart_waits_for_its_record)
{
    struct group_script *s = two_static();
    script_auto_persist(s, false);
    script_join(s, "C", &as_y);
    script_expect(s, "6000 record Stable gen=1\n");
    script_persisted(s, KE_COORDINATOR_NOT_AVAILABLE);
    script_expect(s, "6000 C join COORDINATOR_NOT_AVAILABLE\n");
    script_join(s, "C", &as_y);
    script_join(s, "A", &as_x); /* a rebalance overtakes the record */
    script_persisted(s, KE_NONE);
    script_expect(s, "6000 record Stable gen=1\n"
                     "6000 A join gen=2 range leader=A1 members=A1 C4\n"
                     "6000 C join gen=2 range leader=A1\n");
    group_script_destroy(s);
}

Test(group_static, restart_with_another_protocol_rebalances)
{
    struct group_script *s = group_script_create(NULL);
    struct script_join x = {.instance = "x", .protocols = "range:t sticky:t"};
    struct script_join y = {.instance = "y", .protocols = "range:t sticky:t"};
    struct script_join only = {.instance = "y", .protocols = "sticky:t"};
    script_join(s, "A", &x);
    script_join(s, "B", &y);
    script_run(s, 6000);
    script_sync(s, "A", "A1=0 B2=1");
    script_trace(s);
    script_join(s, "C", &only);
    script_heartbeat(s, "A");
    script_join(s, "A", &x);
    script_expect(s, "6000 A heartbeat REBALANCE_IN_PROGRESS\n"
                     "6000 A join gen=2 sticky leader=A1 members=A1 C3\n"
                     "6000 C join gen=2 sticky leader=A1\n");
    group_script_destroy(s);
}

Test(group_static, restart_in_completing_rebalances)
{
    struct group_script *s = two_static();
    script_join(s, "A", &as_x);
    script_join(s, "B", NULL);
    script_trace(s);
    cr_assert_eq(group_state(script_group(s)), GROUP_COMPLETING);
    script_sync(s, "B", NULL);
    script_join(s, "C", &as_y); /* the leader may have B's id in hand */
    script_expect(s, "6000 B sync FENCED_INSTANCE_ID\n");
    script_join(s, "A", NULL);
    script_expect(s, "6000 A join gen=3 range leader=A1 members=A1 C5\n"
                     "6000 C join gen=3 range leader=A1\n");
    group_script_destroy(s);
}

Test(group_static, absent_static_member_stays_until_its_session_ends)
{
    struct group_script *s = two_static();
    struct script_join dynamic = {.version = 3, .rebalance_ms = 1000};
    script_join(s, "D", &dynamic);
    script_join(s, "A", NULL);
    script_run(s, 15000);
    script_expect(s, "");
    script_run(s, 16000); /* B's session */
    script_expect(s, "16000 A join gen=2 range leader=A1 members=A1 D3\n"
                     "16000 D join gen=2 range leader=A1\n");
    group_script_destroy(s);
}

Test(group_static, administrator_removes_an_instance)
{
    struct group_script *s = two_static();
    script_member_id_set(s, "B", ""); /* only the instance id is named */
    script_leave(s, "B");
    script_heartbeat(s, "A");
    script_expect(s, "6000 B leave NONE\n"
                     "6000 A heartbeat REBALANCE_IN_PROGRESS\n");
    script_leave(s, "B");
    script_expect(s, "6000 B leave NONE\n"
                     "6000 B left UNKNOWN_MEMBER_ID\n");
    group_script_destroy(s);
}
