/* Decisions on topics, configs and features: a request on an image, the errors and the records. */
#include "broker/controller/decide.h"

#include "broker/controller/brokers.h"
#include "broker/metadata/image_edit.h"

#include <criterion/criterion.h>

#define ARENA_MAX ((size_t)64 << 20)

struct world {
    struct arena arena, response;
    struct metadata_records records;
    struct image *img;
    struct rng rng;
    struct decide_rules rules;
    int64_t next;
};

static bool statics(void *arg, struct slice key, struct arena *arena, struct slice *value, bool *is_default)
{
    (void)arg, (void)arena;
    *is_default = false;
    *value = SLICE_LIT("3600000");
    if (slice_eq_str(key, "log.retention.ms"))
        return true;
    return slice_eq_str(key, "node.id");
}

static struct decide decide(struct world *w)
{
    metadata_records_init(&w->records, &w->arena);
    return (struct decide){.img = w->img,
                           .offset_next = w->next,
                           .node_id = 1,
                           .rules = &w->rules,
                           .rng = &w->rng,
                           .arena = &w->response,
                           .out = &w->records};
}

/* What was decided is committed. */
static void commit(struct world *w)
{
    struct image_edit e;
    struct err err = {0};
    cr_assert_eq(image_edit_begin(&e, w->img), 0);
    for (size_t i = 0; i < w->records.n; i++)
        cr_assert_eq(image_edit_apply(&e, &w->records.v[i], &err), 0, "%s", err.text);
    w->next += (int64_t)w->records.n;
    struct image *next = image_edit_finish(&e, w->next - 1, 1, 0);
    image_unref(w->img);
    w->img = next;
    w->records.n = 0;
}

static void add_broker(struct world *w, int32_t id, const char *rack, bool fenced)
{
    struct decide d = decide(w);
    struct kp_register_broker_record *b = decide_record(&d, kp_type_register_broker_record);
    struct kp_register_broker_record_end_points *e =
        ARENA_NEW(&w->arena, struct kp_register_broker_record_end_points);
    *e = (struct kp_register_broker_record_end_points){SLICE_LIT("PLAINTEXT"), SLICE_LIT("h"), 9092, 0};
    size_t n;
    const struct feature_claim *claims = feature_claims(&n);
    b->features = ARENA_NEWS(&w->arena, struct kp_register_broker_record_features, n);
    for (size_t i = 0; i < n; i++)
        b->features[b->features_n++] = (struct kp_register_broker_record_features){
            slice_str(claims[i].name), claims[i].level_min, claims[i].level_max};
    b->broker_id = id;
    b->broker_epoch = 100 + id;
    b->rack = slice_str(rack);
    b->fenced = fenced;
    b->end_points = e;
    b->end_points_n = 1;
    b->log_dirs = ARENA_NEW(&w->arena, struct uuid);
    b->log_dirs[0] = uuid_small(1000 + (uint64_t)id);
    b->log_dirs_n = 1;
    commit(w);
}

static void world_init(struct world *w, int brokers)
{
    *w = (struct world){.rules = {.num_partitions = 2,
                                  .default_replication_factor = 1,
                                  .partitions_max = 20000,
                                  .delete_topics = true,
                                  .offsets_partitions = 50,
                                  .offsets_replication_factor = 3,
                                  .offsets_segment_bytes = 104857600,
                                  .statics = {statics, NULL}}};
    arena_init(&w->arena, ARENA_MAX);
    arena_init(&w->response, ARENA_MAX);
    rng_init(&w->rng, 5);
    w->img = image_empty(SLICE_LIT("cluster"));
    struct decide d = decide(w);
    struct kp_feature_level_record *f = decide_record(&d, kp_type_feature_level_record);
    *f = (struct kp_feature_level_record){SLICE_LIT(METADATA_VERSION_FEATURE), 25};
    commit(w);
    for (int i = 1; i <= brokers; i++)
        add_broker(w, i, i % 2 ? "a" : "b", false);
}

static void world_fini(struct world *w)
{
    image_unref(w->img);
    arena_fini(&w->arena);
    arena_fini(&w->response);
}

/* ---- topics ---- */

static struct kp_create_topics_response_topics *create(struct world *w,
                                                       struct kp_create_topics_request_topics *t, int32_t n)
{
    static struct kp_create_topics_response r;
    struct kp_create_topics_request q;
    struct decide d = decide(w);
    kp_init(&kp_create_topics_request_message, &q);
    kp_init(&kp_create_topics_response_message, &r);
    q.topics = t;
    q.topics_n = n;
    cr_assert_eq(decide_create_topics(&d, &q, &r), KE_NONE);
    cr_assert_eq(r.topics_n, n);
    for (int32_t i = 0; i < n; i++)
        cr_assert_eq(r.topics[i].error_code == KE_NONE, slice_is_null(r.topics[i].error_message));
    return r.topics;
}

static int16_t create_one(struct world *w, const char *name, int32_t partitions, int16_t factor)
{
    struct kp_create_topics_request_topics t = {
        .name = slice_str(name), .num_partitions = partitions, .replication_factor = factor};
    int16_t error = create(w, &t, 1)[0].error_code;
    cr_assert(error == KE_NONE || w->records.n == 0, "a refused topic leaves no records");
    commit(w);
    return error;
}

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

/* ---- log dirs ---- */

static int16_t assign(struct world *w, int64_t epoch, struct uuid topic, int32_t index, uint64_t dir)
{
    struct kp_assign_replicas_to_dirs_request_partitions p = {.partition_index = index};
    struct kp_assign_replicas_to_dirs_request_topics t = {
        .topic_id = topic, .partitions = &p, .partitions_n = 1};
    struct kp_assign_replicas_to_dirs_request_directories d = {
        .id = uuid_small(dir), .topics = &t, .topics_n = 1};
    struct kp_assign_replicas_to_dirs_request q = {
        .broker_id = 1, .broker_epoch = epoch, .directories = &d, .directories_n = 1};
    struct kp_assign_replicas_to_dirs_response r;
    struct decide decision = decide(w);
    kp_init(&kp_assign_replicas_to_dirs_response_message, &r);
    int16_t error = decide_assign_replicas_to_dirs(&decision, &q, &r);
    cr_assert_eq(error, r.error_code);
    if (error)
        return error;
    cr_assert(uuid_eq(&r.directories[0].id, &d.id) && uuid_eq(&r.directories[0].topics[0].topic_id, &topic));
    return r.directories[0].topics[0].partitions[0].error_code;
}

Test(decide, replicas_are_assigned_to_the_dirs_of_their_broker)
{
    struct world w;
    world_init(&w, 2);
    create_one(&w, "a", 2, 2);
    create_one(&w, "b", 1, 1); /* on one of the two */
    const struct image_topic *t = image_topic(w.img, SLICE_LIT("a"));
    struct uuid id = t->id, other = uuid_small(1002);
    int at = image_partition(t, 1)->replicas[0] == 1 ? 0 : 1;
    cr_expect_eq(assign(&w, 101, id, 1, 1001), KE_NONE);
    cr_expect_eq(w.records.n, 0u, "it is there already");
    cr_expect_eq(assign(&w, 100, id, 1, 1001), KE_STALE_BROKER_EPOCH);
    cr_expect_eq(assign(&w, 101, uuid_small(9), 1, 1001), KE_UNKNOWN_TOPIC_ID);
    cr_expect_eq(assign(&w, 101, id, 2, 1001), KE_UNKNOWN_TOPIC_OR_PARTITION);
    cr_expect_eq(assign(&w, 101, id, 1, 1002), KE_LOG_DIR_NOT_FOUND);
    cr_expect_eq(w.records.n, 0u);
    const struct image_topic *b = image_topic(w.img, SLICE_LIT("b"));
    cr_expect_eq(assign(&w, 101, b->id, 0, 1001),
                 image_partition(b, 0)->replicas[0] == 1 ? KE_NONE : KE_NOT_LEADER_OR_FOLLOWER);
    /* It was in another dir until now. */
    struct decide d = decide(&w);
    struct kp_partition_change_record *c = decide_record(&d, kp_type_partition_change_record);
    c->topic_id = id;
    c->partition_id = 1;
    c->directories = ARENA_NEWS(&w.arena, struct uuid, 2);
    c->directories[at] = uuid_small(UNASSIGNED_DIRECTORY);
    c->directories[1 - at] = other;
    c->directories_n = 2;
    commit(&w);
    int32_t leader_epoch = image_partition(image_topic(w.img, SLICE_LIT("a")), 1)->leader_epoch;
    cr_expect_eq(assign(&w, 101, id, 1, 1001), KE_NONE);
    commit(&w);
    const struct image_partition *p = image_partition(image_topic(w.img, SLICE_LIT("a")), 1);
    struct uuid mine = uuid_small(1001);
    cr_expect(uuid_eq(&p->directories[at], &mine) && uuid_eq(&p->directories[1 - at], &other));
    cr_expect_eq(p->leader_epoch, leader_epoch, "who leads goes on");
    world_fini(&w);
}

/* ---- configs ---- */

static int16_t alter(struct world *w, int8_t type, const char *name, const char *key, int8_t op,
                     const char *value)
{
    struct kp_incremental_alter_configs_request_configs c = {slice_str(key), op, slice_str(value)};
    struct kp_incremental_alter_configs_request_resources res = {type, slice_str(name), &c, 1};
    struct kp_incremental_alter_configs_request q = {.resources = &res, .resources_n = 1};
    struct kp_incremental_alter_configs_response r;
    struct decide d = decide(w);
    kp_init(&kp_incremental_alter_configs_response_message, &r);
    cr_assert_eq(decide_incremental_alter_configs(&d, &q, &r), KE_NONE);
    int16_t error = r.responses[0].error_code;
    cr_assert(error == KE_NONE || (w->records.n == 0 && r.responses[0].error_message.n > 0));
    commit(w);
    return error;
}

static bool value_is(struct world *w, int8_t type, const char *name, const char *key, const char *value)
{
    return slice_eq(image_config_value(image_config(w->img, (enum image_config_type)type, slice_str(name)),
                                       slice_str(key)),
                    slice_str(value));
}

enum { SET, DELETE, APPEND, SUBTRACT };

Test(decide, configs_are_set_deleted_appended_to_and_subtracted_from)
{
    struct world w;
    world_init(&w, 1);
    create_one(&w, "a", 1, 1);
    cr_assert_eq(alter(&w, 2, "a", "retention.ms", SET, " 7 "), KE_NONE);
    cr_assert(value_is(&w, 2, "a", "retention.ms", "7"));
    cr_assert_eq(alter(&w, 2, "a", "retention.ms", SET, "x"), KE_INVALID_CONFIG);
    cr_assert_eq(alter(&w, 2, "a", "nonsense", SET, "x"), KE_INVALID_CONFIG);
    cr_assert_eq(alter(&w, 2, "a", "nonsense", DELETE, NULL), KE_INVALID_CONFIG);
    cr_assert_eq(alter(&w, 2, "a", "retention.ms", SET, NULL), KE_INVALID_REQUEST);
    cr_assert_eq(alter(&w, 2, "a", "retention.ms", APPEND, "7"), KE_INVALID_CONFIG);
    cr_assert_eq(alter(&w, 2, "a", "cleanup.policy", APPEND, "compact"), KE_NONE);
    cr_assert(value_is(&w, 2, "a", "cleanup.policy", "delete,compact"), "on top of the default");
    cr_assert_eq(alter(&w, 2, "a", "cleanup.policy", SUBTRACT, "delete"), KE_NONE);
    cr_assert(value_is(&w, 2, "a", "cleanup.policy", "compact"));
    cr_assert_eq(alter(&w, 2, "a", "cleanup.policy", 7, "compact"), KE_INVALID_REQUEST);
    cr_assert_eq(alter(&w, 2, "a", "retention.ms", DELETE, NULL), KE_NONE);
    cr_assert(value_is(&w, 2, "a", "retention.ms", NULL));
    cr_assert_eq(alter(&w, 2, "a", "max.compaction.lag.ms", SET, "5"), KE_NONE);
    cr_assert_eq(alter(&w, 2, "a", "min.compaction.lag.ms", SET, "6"), KE_INVALID_CONFIG);
    cr_assert(value_is(&w, 2, "a", "min.compaction.lag.ms", NULL));
    cr_assert_eq(alter(&w, 2, "a", "min.compaction.lag.ms", SET, "5"), KE_NONE);
    cr_assert_eq(alter(&w, 2, "a", "max.compaction.lag.ms", DELETE, NULL), KE_NONE);
    cr_assert_eq(alter(&w, 2, "zz", "retention.ms", SET, "7"), KE_UNKNOWN_TOPIC_OR_PARTITION);
    cr_assert_eq(alter(&w, 16, "zz", "interval.ms", SET, "7"), KE_INVALID_REQUEST);
    world_fini(&w);
}

Test(decide, broker_configs_are_those_that_topics_inherit)
{
    struct world w;
    world_init(&w, 1);
    cr_assert_eq(alter(&w, 4, "", "log.retention.ms", SET, "9"), KE_NONE);
    cr_assert(value_is(&w, 4, "", "log.retention.ms", "9"));
    cr_assert_eq(alter(&w, 4, "1", "log.retention.ms", SET, "8"), KE_NONE);
    cr_assert_eq(alter(&w, 4, "2", "log.retention.ms", SET, "8"), KE_BROKER_ID_NOT_REGISTERED);
    cr_assert_eq(alter(&w, 4, "x", "log.retention.ms", SET, "8"), KE_INVALID_REQUEST);
    cr_assert_eq(alter(&w, 4, "1", "node.id", SET, "8"), KE_INVALID_REQUEST);
    cr_assert_eq(alter(&w, 4, "1", "nonsense", SET, "8"), KE_INVALID_CONFIG);
    struct config_view view = {w.img, 1, &w.rules.statics};
    struct config_value v[CONFIG_SYNONYMS_MAX];
    int32_t n =
        effective_topic_config(&view, NULL, topic_config_find(SLICE_LIT("retention.ms")), &w.arena, v);
    cr_assert_eq(n, 4);
    cr_assert(v[0].source == CONFIG_SOURCE_DYNAMIC_BROKER && slice_eq_str(v[0].value, "8"));
    cr_assert(v[1].source == CONFIG_SOURCE_DYNAMIC_CLUSTER && slice_eq_str(v[1].value, "9"));
    cr_assert(v[2].source == CONFIG_SOURCE_STATIC && slice_eq_str(v[2].value, "3600000"));
    cr_assert(v[3].source == CONFIG_SOURCE_DEFAULT && slice_eq_str(v[3].value, "604800000"));
    world_fini(&w);
}

Test(decide, altering_all_at_once_deletes_what_is_not_mentioned)
{
    struct world w;
    world_init(&w, 1);
    create_one(&w, "a", 1, 1);
    alter(&w, 2, "a", "retention.ms", SET, "7");
    alter(&w, 2, "a", "segment.ms", SET, "7");
    struct kp_alter_configs_request_configs c = {SLICE_LIT("segment.ms"), SLICE_LIT("8")};
    struct kp_alter_configs_request_resources res[] = {{2, SLICE_LIT("a"), &c, 1},
                                                       {2, SLICE_LIT("a"), &c, 1}};
    struct kp_alter_configs_request q = {.resources = res, .resources_n = 2};
    struct kp_alter_configs_response r;
    struct decide d = decide(&w);
    kp_init(&kp_alter_configs_response_message, &r);
    cr_assert_eq(decide_alter_configs(&d, &q, &r), KE_NONE);
    cr_assert_eq(r.responses[1].error_code, KE_INVALID_REQUEST, "each resource once");
    commit(&w);
    cr_assert(value_is(&w, 2, "a", "segment.ms", "8") && value_is(&w, 2, "a", "retention.ms", NULL));
    world_fini(&w);
}

/* ---- features, producer ids ---- */

static int16_t feature(struct world *w, const char *name, int16_t level, int8_t how)
{
    struct kp_update_features_request_feature_updates u = {slice_str(name), level, how, false};
    struct kp_update_features_request q = {.feature_updates = &u, .feature_updates_n = 1};
    struct kp_update_features_response r;
    struct decide d = decide(w);
    kp_init(&kp_update_features_response_message, &r);
    decide_update_features(&d, &q, &r);
    commit(w);
    return r.error_code;
}

Test(decide, features_move_within_what_is_served)
{
    struct world w;
    world_init(&w, 1);
    cr_assert_eq(feature(&w, METADATA_VERSION_FEATURE, 29, 1), KE_NONE);
    cr_assert_eq(image_feature_level(w.img, SLICE_LIT(METADATA_VERSION_FEATURE)), 29);
    cr_assert_eq(feature(&w, METADATA_VERSION_FEATURE, 26, 1), KE_INVALID_UPDATE_VERSION,
                 "not without saying so");
    cr_assert_eq(feature(&w, METADATA_VERSION_FEATURE, 26, 2), KE_NONE);
    cr_assert_eq(feature(&w, METADATA_VERSION_FEATURE, 30, 1), KE_NONE);
    cr_assert_eq(feature(&w, METADATA_VERSION_FEATURE, 26, 2), KE_INVALID_UPDATE_VERSION,
                 "30 has new records");
    cr_assert_eq(feature(&w, METADATA_VERSION_FEATURE, 31, 1), KE_INVALID_UPDATE_VERSION);
    cr_assert_eq(feature(&w, METADATA_VERSION_FEATURE, 24, 2), KE_INVALID_UPDATE_VERSION);
    cr_assert_eq(feature(&w, "group.version", 1, 1), KE_INVALID_UPDATE_VERSION, "not served");
    cr_assert_eq(feature(&w, "kraft.version", 1, 1), KE_INVALID_UPDATE_VERSION);
    world_fini(&w);
}

Test(decide, producer_ids_are_given_once)
{
    struct world w;
    world_init(&w, 1);
    for (int64_t i = 0; i < 3; i++) {
        struct kp_allocate_producer_ids_request q = {1, 101};
        struct kp_allocate_producer_ids_response r = {0};
        struct decide d = decide(&w);
        cr_assert_eq(decide_allocate_producer_ids(&d, &q, &r), KE_NONE);
        cr_assert(r.producer_id_start == i * 1000 && r.producer_id_len == 1000);
        commit(&w);
    }
    struct kp_allocate_producer_ids_request q = {1, 100};
    struct kp_allocate_producer_ids_response r = {0};
    struct decide d = decide(&w);
    cr_assert_eq(decide_allocate_producer_ids(&d, &q, &r), KE_STALE_BROKER_EPOCH);
    world_fini(&w);
}
