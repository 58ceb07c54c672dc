/* Decisions on log dirs, configs, features and producer ids: a request on an image, the errors and the records. */
#include "tests/unit/broker/controller/decide_rig.h"

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

enum { SET, DELETE, APPEND, SUBTRACT };

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

/* As Apache Kafka: neither counts. A topic and a broker of one name are two. */
Test(decide, a_resource_named_twice_is_altered_by_neither)
{
    struct world w;
    world_init(&w, 1);
    create_one(&w, "1", 1, 1);
    create_one(&w, "b", 1, 1);
    struct kp_incremental_alter_configs_request_configs topic = {SLICE_LIT("retention.ms"), SET,
                                                                 SLICE_LIT("7")};
    struct kp_incremental_alter_configs_request_configs broker = {SLICE_LIT("log.retention.ms"), SET,
                                                                  SLICE_LIT("8")};
    struct kp_incremental_alter_configs_request_resources list[] = {{2, SLICE_LIT("b"), &topic, 1},
                                                                    {2, SLICE_LIT("1"), &topic, 1},
                                                                    {4, SLICE_LIT("1"), &broker, 1},
                                                                    {2, SLICE_LIT("b"), &topic, 1}};
    struct kp_incremental_alter_configs_request q = {.resources = list, .resources_n = 4};
    struct kp_incremental_alter_configs_response r;
    struct decide d = decide(&w);
    kp_init(&kp_incremental_alter_configs_response_message, &r);
    cr_assert_eq(decide_incremental_alter_configs(&d, &q, &r), KE_NONE);
    static const int16_t want[] = {KE_INVALID_REQUEST, KE_NONE, KE_NONE, KE_INVALID_REQUEST};
    for (int i = 0; i < 4; i++)
        cr_expect_eq(r.responses[i].error_code, want[i], "resource %d: %d", i, r.responses[i].error_code);
    commit(&w);
    cr_expect(value_is(&w, 2, "1", "retention.ms", "7") && value_is(&w, 4, "1", "log.retention.ms", "8"));
    cr_expect(!value_is(&w, 2, "b", "retention.ms", "7"));
    world_fini(&w);
}

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
    struct kp_alter_configs_request_resources res = {2, SLICE_LIT("a"), &c, 1};
    struct kp_alter_configs_request q = {.resources = &res, .resources_n = 1};
    struct kp_alter_configs_response r;
    struct decide d = decide(&w);
    kp_init(&kp_alter_configs_response_message, &r);
    cr_assert_eq(decide_alter_configs(&d, &q, &r), KE_NONE);
    cr_assert_eq(r.responses[0].error_code, KE_NONE);
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
