/* Groups as they come back from the log, and what their members' subscriptions say. */
#include "tests/support/group_script.h"

#include "proto/kafka/wire.h"

#include <criterion/criterion.h>

Test(group, restored_group_is_stable_and_its_silent_members_expire)
{
    struct group_config c = {6000, 1800000, 3000, 300000, 1000};
    struct group *g = group_create(slice_str("g"), &c, (struct group_now){0, 0});
    struct group_restored_member m[2] = {
        {.id = slice_str("m1"),
         .client_id = slice_str("c"),
         .client_host = slice_str("h"),
         .subscription = slice_str("s1"),
         .assignment = slice_str("a1"),
         .session_timeout_ms = 10000,
         .rebalance_timeout_ms = 60000,
         .instance_id = SLICE_NULL},
        {.id = slice_str("m2"),
         .client_id = slice_str("c"),
         .client_host = slice_str("h"),
         .subscription = slice_str("s2"),
         .assignment = slice_str("a2"),
         .session_timeout_ms = 20000,
         .rebalance_timeout_ms = 60000,
         .instance_id = slice_str("i")},
    };
    struct group_restored r = {.protocol_type = slice_str("consumer"),
                               .protocol_name = slice_str("range"),
                               .leader = slice_str("m2"),
                               .generation = 7,
                               .state_since_ms = 5,
                               .members = m,
                               .members_n = 2};
    cr_assert_eq(group_restore(g, &r, (struct group_now){0, 0}), 0);
    group_check(g);
    cr_assert_eq(group_state(g), GROUP_STABLE);
    cr_assert_eq(group_generation(g), 7);
    cr_assert(slice_eq_str(group_leader(g), "m2"));
    struct group_member_view v = group_member_view(g, group_member_next(g, NULL));
    cr_assert(slice_eq_str(v.subscription, "s1") && slice_eq_str(v.assignment, "a1"));
    struct group_effects fx;
    group_effects_init(&fx);
    struct group_event commit = {
        .kind = GROUP_COMMIT, .token = &fx, .caller = {slice_str("m1"), SLICE_NULL, 7}};
    group_step(g, &commit, (struct group_now){0, 0}, &fx);
    cr_assert_eq(fx.v[0].error, KE_NONE);
    group_effects_clear(&fx);
    group_step(g, &(struct group_event){.kind = GROUP_TICK}, (struct group_now){20000000, 0}, &fx);
    group_effects_clear(&fx);
    group_step(g, &(struct group_event){.kind = GROUP_UNLOAD, .unload_error = KE_NOT_COORDINATOR},
               (struct group_now){20000000, 0}, &fx);
    group_effects_fini(&fx);
    group_destroy(g);
}

Test(group, restored_group_without_members_is_empty)
{
    struct group_config c = {6000, 1800000, 3000, 300000, 1000};
    struct group *g = group_create(slice_str("g"), &c, (struct group_now){0, 0});
    struct group_restored r = {.protocol_type = slice_str("consumer"), .generation = 3, .state_since_ms = 9};
    cr_assert_eq(group_restore(g, &r, (struct group_now){0, 0}), 0);
    group_check(g);
    cr_assert(group_idle(g));
    cr_assert_eq(group_state_since_ms(g), 9);
    group_destroy(g);
}

Test(group, generations_begin_anew_behind_the_last_number)
{
    static const int32_t found[] = {INT32_MAX, -5};
    for (int i = 0; i < 2; i++) {
        struct group_config c = {6000, 1800000, 0, 300000, 1000};
        struct group *g = group_create(slice_str("g"), &c, (struct group_now){0, 0});
        struct group_restored r = {.protocol_type = slice_str("consumer"), .generation = found[i]};
        struct group_protocol p = {slice_str("range"), slice_str("")};
        struct group_effects fx;
        int64_t us = 0;
        group_effects_init(&fx);
        cr_assert_eq(group_restore(g, &r, (struct group_now){0, 0}), 0);
        struct group_event join = {.kind = GROUP_JOIN,
                                   .token = &fx,
                                   .join = {.fresh_member_id = slice_str("m1"),
                                            .client_id = slice_str("c"),
                                            .client_host = slice_str("h"),
                                            .protocol_type = slice_str("consumer"),
                                            .protocols = &p,
                                            .protocols_n = 1,
                                            .session_timeout_ms = 10000,
                                            .rebalance_timeout_ms = 10000}};
        /* Each time it comes again, and no assignment is ever written. */
        for (int32_t want = 1; want <= 3; want++) {
            group_step(g, &join, (struct group_now){us, 0}, &fx);
            group_effects_clear(&fx);
            group_step(g, &(struct group_event){.kind = GROUP_TICK}, (struct group_now){us += 1000, 0}, &fx);
            group_effects_clear(&fx);
            cr_assert_eq(group_state(g), GROUP_COMPLETING);
            cr_assert_eq(group_generation(g), want);
            group_check(g);
            join.caller.member_id = slice_str("m1");
            p.metadata = slice_str(want == 1 ? "x" : "y"); /* news */
        }
        group_step(g, &(struct group_event){.kind = GROUP_UNLOAD, .unload_error = KE_NOT_COORDINATOR},
                   (struct group_now){us, 0}, &fx);
        group_effects_fini(&fx);
        group_destroy(g);
    }
}

Test(group, record_with_the_same_member_twice_is_refused)
{
    struct group_config c = {6000, 1800000, 3000, 300000, 1000};
    struct group *g = group_create(slice_str("g"), &c, (struct group_now){0, 0});
    struct group_restored_member m[2] = {{.id = slice_str("m1")}, {.id = slice_str("m1")}};
    struct group_restored r = {.protocol_type = slice_str("consumer"),
                               .protocol_name = slice_str("range"),
                               .generation = 3,
                               .members = m,
                               .members_n = 2};
    cr_assert_neq(group_restore(g, &r, (struct group_now){0, 0}), 0);
    group_destroy(g);
}

/* ---- subscriptions ---- */

static struct slice subscription(struct arena *a, const char *const *topics, int32_t n)
{
    struct buf b;
    buf_init(&b, 1 << 16);
    buf_put_be16(&b, 1); /* a later version than the one that is read */
    struct slice names[8];
    for (int32_t i = 0; i < n; i++)
        names[i] = slice_str(topics[i]);
    struct kp_consumer_protocol_subscription s = {.topics = names, .topics_n = n, .user_data = SLICE_NULL};
    cr_assert_eq(kp_encode(&kp_consumer_protocol_subscription_message, 1, &s, &b), 0);
    struct slice copy = arena_dup(a, buf_slice(&b));
    buf_fini(&b);
    return copy;
}

static struct group *consumers(const struct group_config *c, struct slice one, struct slice two)
{
    struct group *g = group_create(slice_str("g"), c, (struct group_now){0, 0});
    struct group_restored_member m[2] = {{.id = slice_str("m1"), .subscription = one},
                                         {.id = slice_str("m2"), .subscription = two}};
    struct group_restored r = {.protocol_type = slice_str("consumer"),
                               .protocol_name = slice_str("range"),
                               .generation = 1,
                               .members = m,
                               .members_n = 2};
    cr_assert_eq(group_restore(g, &r, (struct group_now){0, 0}), 0);
    return g;
}

Test(group, subscribed_topics_are_those_of_all_members)
{
    struct group_config c = {6000, 1800000, 3000, 300000, 1000};
    struct arena a;
    arena_init(&a, 1 << 20);
    struct group *g = consumers(&c, subscription(&a, (const char *[]){"orders", "users"}, 2),
                                subscription(&a, (const char *[]){"users", "clicks"}, 2));
    cr_assert(group_subscriptions_known(g));
    cr_assert(group_subscribed(g, slice_str("orders")) && group_subscribed(g, slice_str("clicks")));
    cr_assert(!group_subscribed(g, slice_str("order")));
    group_destroy(g);
    g = consumers(&c, subscription(&a, (const char *[]){"orders"}, 1), slice_str("\0"));
    cr_assert(!group_subscriptions_known(g));
    cr_assert(group_subscribed(g, slice_str("anything")), "what cannot be read may be subscribed");
    group_destroy(g);
    arena_fini(&a);
}
