/* A cluster of some brokers in two racks, for decisions on topics, configs and features. */
#ifndef SUNDOG_TESTS_UNIT_BROKER_CONTROLLER_DECIDE_RIG_H
#define SUNDOG_TESTS_UNIT_BROKER_CONTROLLER_DECIDE_RIG_H

#include "tests/unit/broker/controller/rig.h"

static inline bool statics(void *arg, struct slice key, struct arena *arena, struct slice *value,
                           bool *is_default)
{
    (void)arg, (void)arena;
    *is_default = false;
    *value = SLICE_LIT("3600000");
    if (slice_eq_str(key, "log.retention.ms"))
        return true;
    return slice_eq_str(key, "node.id");
}

static inline void add_broker(struct world *w, int32_t id, const char *rack, bool fenced)
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

static inline void world_init(struct world *w, int brokers)
{
    world_begin(w, &(struct decide_rules){.num_partitions = 2,
                                          .default_replication_factor = 1,
                                          .partitions_max = 20000,
                                          .delete_topics = true,
                                          .offsets_partitions = 50,
                                          .offsets_replication_factor = 3,
                                          .offsets_segment_bytes = 104857600,
                                          .statics = {statics, NULL}});
    for (int i = 1; i <= brokers; i++)
        add_broker(w, i, i % 2 ? "a" : "b", false);
}

static inline struct kp_create_topics_response_topics *
create(struct world *w, struct kp_create_topics_request_topics *t, int32_t n)
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

static inline int16_t create_one(struct world *w, const char *name, int32_t partitions, int16_t factor)
{
    struct kp_create_topics_request_topics t = {
        .name = slice_str(name), .num_partitions = partitions, .replication_factor = factor};
    int16_t error = create(w, &t, 1)[0].error_code;
    cr_assert(error == KE_NONE || w->records.n == 0, "a refused topic leaves no records");
    commit(w);
    return error;
}

#endif
