/* Decisions on topics and partitions: a request on an image, the errors and the records. */
#include "tests/unit/broker/controller/decide_rig.h"

#include <stdlib.h>

Test(decide, topics_are_created_or_refused_as_kafka_does)
{
    struct world w;
    world_init(&w, 1);
    cr_assert_eq(create_one(&w, "orders", 3, 1), KE_NONE);
    const struct image_topic *t = image_topic(w.img, SLICE_LIT("orders"));
    cr_assert_eq(t->partitions_n, 3);
    const struct image_partition *p = image_partition(t, 2);
    cr_assert(p->leader == 1 && p->leader_epoch == 0 && p->isr_n == 1 && p->directories_n == 1);
    struct uuid dir = uuid_small(1001);
    cr_assert(uuid_eq(&p->directories[0], &dir));
    static const struct {
        const char *name;
        int32_t partitions;
        int16_t factor, error;
    } cases[] = {
        {"orders", 1, 1, KE_TOPIC_ALREADY_EXISTS},
        {"", 1, 1, KE_INVALID_TOPIC_EXCEPTION},
        {"a/b", 1, 1, KE_INVALID_TOPIC_EXCEPTION},
        {"..", 1, 1, KE_INVALID_TOPIC_EXCEPTION},
        {"__cluster_metadata", 1, 1, KE_INVALID_REQUEST},
        {"x", 0, 1, KE_INVALID_PARTITIONS},
        {"x", -2, 1, KE_INVALID_PARTITIONS},
        {"x", 1, 0, KE_INVALID_REPLICATION_FACTOR},
        {"x", 1, 2, KE_INVALID_REPLICATION_FACTOR},
        {"x", 10000, 1, KE_POLICY_VIOLATION},
        {"x", INT32_MAX, 1, KE_POLICY_VIOLATION},
        {"x.y", 1, 1, KE_NONE},
        {"x_y", 1, 1, KE_INVALID_TOPIC_EXCEPTION},
        {"defaults", -1, -1, KE_NONE},
        {"__consumer_offsets", -1, -1, KE_NONE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_assert_eq(create_one(&w, cases[i].name, cases[i].partitions, cases[i].factor), cases[i].error,
                     "%s %d", cases[i].name, cases[i].partitions);
    cr_assert_eq(image_topic(w.img, SLICE_LIT("defaults"))->partitions_n, 2);
    const struct image_topic *offsets = image_topic(w.img, SLICE_LIT("__consumer_offsets"));
    cr_assert_eq(offsets->partitions_n, 50);
    cr_assert(offsets->internal);
    cr_assert_eq(image_partition(offsets, 0)->replicas_n, 1,
                 "one replica on a quorum of one, whatever the default");
    world_fini(&w);
}

Test(decide, topics_of_one_request_may_not_be_alike)
{
    struct world w;
    world_init(&w, 1);
    struct kp_create_topics_request_topics t[] = {
        {.name = SLICE_LIT("a"), .num_partitions = 1, .replication_factor = 1},
        {.name = SLICE_LIT("a"), .num_partitions = 1, .replication_factor = 1},
        {.name = SLICE_LIT("b.c"), .num_partitions = 1, .replication_factor = 1},
        {.name = SLICE_LIT("b_c"), .num_partitions = 1, .replication_factor = 1}};
    struct kp_create_topics_response_topics *r = create(&w, t, 4);
    cr_assert_eq(r[0].error_code, KE_INVALID_REQUEST);
    cr_assert_eq(r[1].error_code, KE_INVALID_REQUEST);
    cr_assert_eq(r[2].error_code, KE_NONE);
    cr_assert_eq(r[3].error_code, KE_INVALID_TOPIC_EXCEPTION);
    cr_assert_eq(w.records.n, 2u);
    world_fini(&w);
}

Test(decide, topic_configs_are_checked_by_name_and_value)
{
    struct world w;
    world_init(&w, 1);
    static const struct {
        const char *key, *value;
        int16_t error;
    } cases[] = {{"retention.ms", "5", KE_NONE},
                 {"retention.ms", "x", KE_INVALID_CONFIG},
                 {"retention.ms", NULL, KE_INVALID_CONFIG},
                 {"nonsense", "5", KE_INVALID_CONFIG},
                 {"remote.storage.enable", "true", KE_INVALID_CONFIG}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kp_create_topics_request_configs c = {slice_str(cases[i].key), slice_str(cases[i].value)};
        struct kp_create_topics_request_topics t = {.name = arena_printf(&w.arena, "t%zu", i),
                                                    .num_partitions = 1,
                                                    .replication_factor = 1,
                                                    .configs = &c,
                                                    .configs_n = 1};
        struct kp_create_topics_response_topics *r = create(&w, &t, 1);
        cr_assert_eq(r[0].error_code, cases[i].error, "%s", cases[i].key);
        if (cases[i].error) {
            cr_assert(strstr((const char *)r[0].error_message.p, cases[i].key), "the error names the key");
            continue;
        }
        int32_t found = 0;
        for (int32_t k = 0; k < r[0].configs_n; k++)
            found += slice_eq_str(r[0].configs[k].name, "retention.ms") &&
                     slice_eq_str(r[0].configs[k].value, "5") &&
                     r[0].configs[k].config_source == CONFIG_SOURCE_TOPIC;
        cr_assert_eq(found, 1);
        commit(&w);
    }
    world_fini(&w);
}

Test(decide, assignments_by_hand_are_checked)
{
    struct world w;
    world_init(&w, 3);
    add_broker(&w, 9, "c", true);
    static const struct {
        int32_t index[2], brokers[2][2], n[2];
        int16_t error;
    } cases[] = {
        {{0, 1}, {{1, 2}, {2, 3}}, {2, 2}, KE_NONE},
        {{0, 2}, {{1, 2}, {2, 3}}, {2, 2}, KE_INVALID_REPLICA_ASSIGNMENT},
        {{0, 1}, {{1, 2}, {2, 2}}, {2, 2}, KE_INVALID_REPLICA_ASSIGNMENT},
        {{0, 1}, {{1, 2}, {2, 7}}, {2, 2}, KE_INVALID_REPLICA_ASSIGNMENT},
        {{0, 1}, {{1, 2}, {2, 3}}, {2, 1}, KE_INVALID_REPLICA_ASSIGNMENT},
        {{0, 1}, {{1, 2}, {2, 3}}, {0, 0}, KE_INVALID_REPLICA_ASSIGNMENT},
        {{0, 1}, {{9, 2}, {9, 3}}, {1, 1}, KE_INVALID_REPLICA_ASSIGNMENT},
        {{1, 0}, {{1, 2}, {2, 3}}, {0, 2}, KE_INVALID_REPLICA_ASSIGNMENT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kp_create_topics_request_assignments a[2];
        for (int j = 0; j < 2; j++)
            a[j] = (struct kp_create_topics_request_assignments){
                cases[i].index[j], (int32_t *)(uintptr_t)cases[i].brokers[j], cases[i].n[j]};
        struct kp_create_topics_request_topics t = {.name = arena_printf(&w.arena, "t%zu", i),
                                                    .num_partitions = -1,
                                                    .replication_factor = -1,
                                                    .assignments = a,
                                                    .assignments_n = 2};
        cr_assert_eq(create(&w, &t, 1)[0].error_code, cases[i].error, "case %zu", i);
        t.num_partitions = 2;
        cr_assert_eq(create(&w, &t, 1)[0].error_code, KE_INVALID_REQUEST);
    }
    world_fini(&w);
}

Test(decide, more_assignments_than_records_are_refused_before_they_are_looked_at)
{
    enum { MANY = 2000000 };
    struct world w;
    world_init(&w, 1);
    int32_t one = 1;
    struct kp_create_topics_request_assignments *a = calloc(MANY, sizeof *a);
    cr_assert(a);
    for (int32_t i = 0; i < MANY; i++)
        a[i] = (struct kp_create_topics_request_assignments){MANY - 1 - i, &one, 1};
    struct kp_create_topics_request_topics t = {.name = SLICE_LIT("t"),
                                                .num_partitions = -1,
                                                .replication_factor = -1,
                                                .assignments = a,
                                                .assignments_n = MANY};
    cr_assert_eq(create(&w, &t, 1)[0].error_code, KE_POLICY_VIOLATION);
    free(a);
    world_fini(&w);
}

Test(decide, replicas_are_spread_over_racks_and_brokers)
{
    struct world w;
    world_init(&w, 4);
    add_broker(&w, 5, "a", true);
    cr_assert_eq(create_one(&w, "wide", 120, 2), KE_NONE);
    const struct image_topic *t = image_topic(w.img, SLICE_LIT("wide"));
    int32_t leads[6] = {0};
    for (int32_t i = 0; i < t->partitions_n; i++) {
        const struct image_partition *p = image_partition(t, i);
        cr_assert_neq(p->replicas[0] % 2, p->replicas[1] % 2, "two racks, two replicas: one in each (S22)");
        cr_assert_neq(p->replicas[0], 5, "fenced brokers come in last");
        cr_assert_neq(p->replicas[1], 5);
        leads[p->leader]++;
    }
    for (int id = 1; id <= 4; id++)
        cr_assert(leads[id] >= 20 && leads[id] <= 40, "broker %d leads %d of 120", id, leads[id]);
    cr_assert_eq(create_one(&w, "all", 3, 5), KE_NONE);
    const struct image_partition *p = image_partition(image_topic(w.img, SLICE_LIT("all")), 0);
    cr_assert(p->replicas_n == 5 && p->isr_n == 4 && p->leader != 5);
    cr_assert_eq(create_one(&w, "more", 3, 6), KE_INVALID_REPLICATION_FACTOR);
    world_fini(&w);
}

Test(decide, topics_go_by_name_or_id_once)
{
    struct world w;
    world_init(&w, 1);
    create_one(&w, "a", 1, 1);
    create_one(&w, "b", 1, 1);
    create_one(&w, "c", 1, 1);
    struct uuid a = image_topic(w.img, SLICE_LIT("a"))->id, b = image_topic(w.img, SLICE_LIT("b"))->id,
                c = image_topic(w.img, SLICE_LIT("c"))->id;
    struct kp_delete_topics_request_topics t[] = {
        {SLICE_LIT("a"), {{0}}}, {SLICE_NULL, a},     {SLICE_NULL, b},    {SLICE_LIT("zz"), {{0}}},
        {SLICE_NULL, {{7}}},     {SLICE_LIT("c"), c}, {SLICE_NULL, {{0}}}};
    static const int16_t errors[] = {
        KE_INVALID_REQUEST, /* twice: neither deletes it */
        KE_INVALID_REQUEST, KE_NONE,           KE_UNKNOWN_TOPIC_OR_PARTITION, KE_UNKNOWN_TOPIC_ID,
        KE_INVALID_REQUEST, KE_INVALID_REQUEST};
    struct kp_delete_topics_request q;
    struct kp_delete_topics_response r;
    kp_init(&kp_delete_topics_request_message, &q);
    kp_init(&kp_delete_topics_response_message, &r);
    q.topics = t;
    q.topics_n = 7;
    struct decide d = decide(&w);
    cr_assert_eq(decide_delete_topics(&d, &q, &r), KE_NONE);
    for (int i = 0; i < 7; i++)
        cr_assert_eq(r.responses[i].error_code, errors[i], "%d: %d", i, r.responses[i].error_code);
    cr_assert(slice_eq_str(r.responses[2].name, "b"));
    commit(&w);
    cr_assert_eq(image_topics_n(w.img), 2u);
    cr_assert_null(image_topic(w.img, SLICE_LIT("b")));
    world_fini(&w);
}

static int16_t grow(struct world *w, const char *name, int32_t count)
{
    struct kp_create_partitions_request_topics t = {
        .name = slice_str(name), .count = count, .assignments_n = -1};
    struct kp_create_partitions_request q;
    struct kp_create_partitions_response r;
    kp_init(&kp_create_partitions_request_message, &q);
    kp_init(&kp_create_partitions_response_message, &r);
    q.topics = &t;
    q.topics_n = 1;
    struct decide d = decide(w);
    cr_assert_eq(decide_create_partitions(&d, &q, &r), KE_NONE);
    commit(w);
    return r.results[0].error_code;
}

Test(decide, partitions_only_grow)
{
    struct world w;
    world_init(&w, 1);
    create_one(&w, "a", 3, 1);
    static const struct {
        const char *name;
        int32_t count;
        int16_t error;
    } cases[] = {{"a", 3, KE_INVALID_PARTITIONS},   {"a", 2, KE_INVALID_PARTITIONS},
                 {"a", -1, KE_INVALID_PARTITIONS},  {"zz", 5, KE_UNKNOWN_TOPIC_OR_PARTITION},
                 {"a", 20000, KE_POLICY_VIOLATION}, {"a", 5, KE_NONE}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(grow(&w, cases[i].name, cases[i].count), cases[i].error, "%s %d", cases[i].name,
                     cases[i].count);
    }
    const struct image_topic *t = image_topic(w.img, SLICE_LIT("a"));
    cr_assert(t->partitions_n == 5 && image_partition(t, 4)->leader == 1);
    world_fini(&w);
}

Test(decide, all_partitions_together_have_a_limit)
{
    struct world w;
    world_init(&w, 1);
    w.rules.partitions_max = 10;
    struct kp_create_topics_request_topics t = {
        .name = SLICE_LIT("b"), .num_partitions = 7, .replication_factor = 1};
    cr_assert_eq(create_one(&w, "a", 4, 1), KE_NONE);
    struct kp_create_topics_response_topics *r = create(&w, &t, 1);
    cr_expect_eq(r->error_code, KE_POLICY_VIOLATION);
    cr_expect(slice_eq_str(r->error_message, "The cluster would have 11 partitions, at most 10 are allowed "
                                             "(sundog.partitions.max)"));
    cr_expect_eq(create_one(&w, "b", 6, 1), KE_NONE);
    cr_expect_eq(grow(&w, "a", 5), KE_POLICY_VIOLATION);
    w.rules.partitions_max = 0;
    cr_expect_eq(grow(&w, "a", 5), KE_NONE);
    world_fini(&w);
}
