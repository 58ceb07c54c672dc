/* mirror/route: names, patterns and partitions, held against what MM2 does. */
#include "mirror/route/partitioner.h"
#include "mirror/route/pattern.h"
#include "mirror/route/policy.h"

#include <criterion/criterion.h>

static struct policy named(enum policy_kind kind, const char *separator)
{
    return (struct policy){.kind = kind,
                           .separator = slice_str(separator),
                           .internal_separator = slice_str(separator),
                           .source = SLICE_LIT("east"),
                           .target = SLICE_LIT("west")};
}

static void expect_remote(const struct policy *p, const char *topic, const char *expected)
{
    struct buf b;
    buf_init(&b, 1000);
    policy_remote_topic(p, slice_str(topic), &b);
    cr_assert(slice_eq_str(buf_slice(&b), expected), "%s became %.*s", topic, SLICE_FMT(buf_slice(&b)));
    buf_fini(&b);
}

static void expect_slice(struct slice got, const char *expected)
{
    cr_assert(slice_eq(got, slice_str(expected)), "%.*s, not %s", SLICE_FMT(got), expected ? expected : "null");
}

Test(names, default_policy_prefixes_and_takes_prefixes_off)
{
    struct policy p = named(POLICY_DEFAULT, ".");
    expect_remote(&p, "orders", "east.orders");
    expect_remote(&p, "north.orders", "east.north.orders");
    expect_slice(policy_topic_source(&p, SLICE_LIT("east.orders")), "east");
    expect_slice(policy_topic_source(&p, SLICE_LIT("orders")), NULL);
    expect_slice(policy_topic_source(&p, SLICE_LIT("orders.")), NULL);
    expect_slice(policy_upstream_topic(&p, SLICE_LIT("west.east.orders")), "east.orders");
    expect_slice(policy_original_topic(&p, SLICE_LIT("west.east.orders")), "orders");
    expect_slice(policy_original_topic(&p, SLICE_LIT("orders")), "orders");
}

Test(names, identity_policy_prefixes_heartbeats_only)
{
    struct policy p = named(POLICY_IDENTITY, ".");
    expect_remote(&p, "orders", "orders");
    expect_remote(&p, "heartbeats", "east.heartbeats");
    expect_slice(policy_topic_source(&p, SLICE_LIT("orders")), "east");
    expect_slice(policy_topic_source(&p, SLICE_LIT("north.heartbeats")), "north");
    cr_assert(!policy_is_cycle(&p, SLICE_LIT("orders")));
    cr_assert(policy_is_cycle(&p, SLICE_LIT("west.heartbeats")));
}

Test(names, a_separator_of_several_bytes_splits_the_chain)
{
    struct policy p = named(POLICY_DEFAULT, "__");
    expect_remote(&p, "orders", "east__orders");
    expect_slice(policy_upstream_topic(&p, SLICE_LIT("a__b__c")), "b__c");
    cr_assert(policy_is_cycle(&p, SLICE_LIT("a__west__c")));
    cr_assert(!policy_is_cycle(&p, SLICE_LIT("a.west.c")));
}

Test(names, a_cycle_is_found_anywhere_in_the_prefix_chain)
{
    struct policy p = named(POLICY_DEFAULT, ".");
    static const char *const cycles[] = {"west.orders", "north.west.orders", "a.b.c.west.orders", "west.west.x"};
    static const char *const clean[] = {"orders",      "east.orders",     "north.south.orders",
                                        "orders.west", "westward.orders", "west"};
    for (size_t i = 0; i < sizeof cycles / sizeof *cycles; i++)
        cr_assert(policy_is_cycle(&p, slice_str(cycles[i])), "%s", cycles[i]);
    for (size_t i = 0; i < sizeof clean / sizeof *clean; i++)
        cr_assert(!policy_is_cycle(&p, slice_str(clean[i])), "%s", clean[i]);
}

Test(names, internal_topics_are_those_of_kafka_4)
{
    struct policy p = named(POLICY_DEFAULT, ".");
    static const char *const internal[] = {"__consumer_offsets",
                                           ".hidden",
                                           "mm2-offset-syncs.west.internal",
                                           "mm2-status.east.internal",
                                           "east.checkpoints.internal",
                                           "sundog-progress.east.internal"};
    static const char *const user[] = {"orders",          "orders.internal",
                                       "orders-internal", "east.mm2.internalx",
                                       "_schemas",        "sundog-progress.x"};
    for (size_t i = 0; i < sizeof internal / sizeof *internal; i++)
        cr_assert(policy_is_internal(&p, slice_str(internal[i])), "%s", internal[i]);
    for (size_t i = 0; i < sizeof user / sizeof *user; i++)
        cr_assert(!policy_is_internal(&p, slice_str(user[i])), "%s", user[i]);
    cr_assert(policy_is_heartbeats(&p, SLICE_LIT("heartbeats")));
    cr_assert(policy_is_heartbeats(&p, SLICE_LIT("a.b.heartbeats")));
    cr_assert(!policy_is_heartbeats(&p, SLICE_LIT("myheartbeats")));
}

Test(names, internal_names_take_their_own_separator)
{
    struct policy p = named(POLICY_DEFAULT, "_");
    struct buf b;
    buf_init(&b, 1000);
    policy_checkpoints_topic(&p, &b);
    buf_put_u8(&b, ' ');
    policy_offset_syncs_topic(&p, p.target, &b);
    p.internal_separator = SLICE_LIT(".");
    buf_put_u8(&b, ' ');
    policy_checkpoints_topic(&p, &b);
    expect_slice(buf_slice(&b), "east_checkpoints_internal mm2-offset-syncs_west_internal east.checkpoints.internal");
    buf_fini(&b);
}

Test(patterns, match_whole_names_only)
{
    static const char *const items[] = {"mm2.*\\.internal", ".*\\.replica", "__.*", "or|de"};
    struct pattern *p;
    struct err e;
    cr_assert_eq(pattern_compile(items, 4, &p, &e), 0);
    cr_assert(pattern_matches(p, SLICE_LIT("mm2-status.x.internal")));
    cr_assert(pattern_matches(p, SLICE_LIT("a.replica")));
    cr_assert(pattern_matches(p, SLICE_LIT("__consumer_offsets")));
    cr_assert(pattern_matches(p, SLICE_LIT("de")));
    cr_assert(!pattern_matches(p, SLICE_LIT("order")));
    cr_assert(!pattern_matches(p, SLICE_LIT("a.replica2")));
    cr_assert(!pattern_matches(p, SLICE_LIT("x__y")));
    pattern_destroy(p);
}

Test(patterns, java_classes_and_look_ahead_are_understood)
{
    static const char *const items[] = {".*[\\-\\.]internal", "(?!secret)[\\w]+-\\d{3}", "\\Qa.b\\E", "tab\\tx"};
    struct pattern *p;
    struct err e;
    cr_assert_eq(pattern_compile(items, 4, &p, &e), 0);
    cr_assert(pattern_matches(p, SLICE_LIT("x-internal")) && pattern_matches(p, SLICE_LIT("x.internal")));
    cr_assert(!pattern_matches(p, SLICE_LIT("xinternal")));
    cr_assert(pattern_matches(p, SLICE_LIT("orders-123")) && !pattern_matches(p, SLICE_LIT("secret-123")));
    cr_assert(pattern_matches(p, SLICE_LIT("a.b")) && !pattern_matches(p, SLICE_LIT("axb")));
    pattern_destroy(p);
}

Test(patterns, an_empty_list_matches_nothing)
{
    struct pattern *p;
    cr_assert_eq(pattern_compile(NULL, 0, &p, NULL), 0);
    cr_assert(!pattern_matches(p, SLICE_LIT("x")) && !pattern_matches(p, SLICE_LIT("")));
    pattern_destroy(p);
}

Test(patterns, a_bad_expression_is_named)
{
    static const char *const items[] = {"good", "bad("};
    struct pattern *p;
    struct err e;
    cr_assert_eq(pattern_compile(items, 2, &p, &e), -E_CONFIG);
    cr_assert(strstr(e.text, "\"bad(\""), "%s", e.text);
    static const char *const pair[] = {"a(", "b)"};
    cr_assert_eq(pattern_compile(pair, 2, &p, &e), -E_CONFIG, "two halves do not make one");
}

Test(patterns, endless_backtracking_ends_as_no_match)
{
    static const char *const items[] = {"(a*)*(b*)*(a*)*c"};
    struct pattern *p;
    cr_assert_eq(pattern_compile(items, 1, &p, NULL), 0);
    char name[250];
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = 'd';
    cr_assert(!pattern_matches(p, slice_of(name, sizeof name)));
    pattern_destroy(p);
}

Test(partitions, murmur2_is_javas)
{
    static const struct {
        const char *text;
        int32_t hash;
    } known[] = {{"21", -973932308},
                 {"foobar", -790332482},
                 {"a-little-bit-long-string", -985981536},
                 {"a-little-bit-longer-string", -1486304829},
                 {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
                 {"abc", 479470107}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        cr_assert_eq((int32_t)murmur2(slice_str(known[i].text)), known[i].hash, "%s", known[i].text);
}

Test(partitions, equal_counts_keep_the_number_and_others_hash_the_key)
{
    struct route_rule keep = route_rule_for(3, 3), hash = route_rule_for(3, 5);
    cr_assert_eq(keep.mode, ROUTE_KEEP);
    for (int32_t p = 0; p < 3; p++) {
        cr_assert_eq(route_partition(keep, p, SLICE_LIT("foobar")), p);
        cr_assert_eq(route_partition(hash, p, SLICE_LIT("foobar")), (int32_t)((uint32_t)-790332482 & 0x7fffffff) % 5);
        cr_assert_eq(route_partition(hash, p, SLICE_NULL), p % 5);
    }
    struct slice empty = SLICE_LIT("");
    cr_assert_eq(route_partition(hash, 1, empty), (int32_t)(murmur2(empty) & 0x7fffffff) % 5, "an empty key is a key");
    cr_assert_eq(route_partition(route_rule_for(9, 4), 7, SLICE_NULL), 3);
}

Test(partitions, fingerprints_tell_rules_apart_and_come_back)
{
    struct route_rule rules[] = {{ROUTE_KEEP, 0}, {ROUTE_HASH, 1}, {ROUTE_HASH, 7}, {ROUTE_HASH, 1000}};
    for (size_t i = 0; i < 4; i++) {
        struct route_rule back;
        cr_assert_eq(route_rule_of_fingerprint(route_rule_fingerprint(rules[i]), &back), 0);
        cr_assert(back.mode == rules[i].mode && back.target_partitions == rules[i].target_partitions);
        for (size_t j = 0; j < i; j++)
            cr_assert_neq(route_rule_fingerprint(rules[i]), route_rule_fingerprint(rules[j]));
    }
    struct route_rule any;
    cr_assert_eq(route_rule_of_fingerprint(0, &any), -E_INVALID);
    cr_assert_eq(route_rule_of_fingerprint(0x20000000, &any), -E_INVALID);
    cr_assert_eq(route_rule_of_fingerprint(0x20000000 | (ROUTE_PARTITIONS_MAX + 1), &any), -E_INVALID);
    cr_assert_eq(route_rule_of_fingerprint(0x10000003, &any), -E_INVALID);
}
