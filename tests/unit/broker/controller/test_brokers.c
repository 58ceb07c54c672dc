/* Brokers register, live, are fenced and go; leaders and ISRs follow. */
#include "broker/controller/elect.h"
#include "tests/unit/broker/controller/rig.h"

static bool no_statics(void *arg, struct slice key, struct arena *arena, struct slice *value,
                       bool *is_default)
{
    (void)arg, (void)key, (void)arena, (void)value, (void)is_default;
    return false;
}

static struct broker_session sessions[4]; /* of the test at hand: each has its own process */

static void check_invariants(const struct image *img)
{
    for (const struct image_topic *t = image_topic_next(img, NULL); t; t = image_topic_next(img, t)) {
        for (int32_t i = 0; i < t->partitions_n; i++) {
            const struct image_partition *p = image_partition(t, i);
            bool leads = p->leader < 0;
            for (int32_t k = 0; k < p->isr_n; k++) {
                const struct image_broker *b = image_broker(img, p->isr[k]);
                leads |= p->isr[k] == p->leader;
                cr_assert(broker_is_active(b) || p->isr_n == 1, "S14: a fenced broker in an ISR of several");
                for (int32_t e = 0; e < p->elr_n; e++)
                    cr_assert_neq(p->elr[e], p->isr[k], "S14: ISR and ELR are disjoint");
            }
            cr_assert(leads, "S14: the leader is in the ISR");
            cr_assert(p->leader < 0 || broker_is_active(image_broker(img, p->leader)), "S22");
            cr_assert(!p->recovering || p->leader < 0 || p->isr_n == 1, "S17");
        }
    }
}

static void settle(struct world *w)
{
    commit(w);
    check_invariants(w->img);
}

static void world_init(struct world *w, bool elr)
{
    world_begin(w, &(struct decide_rules){
                       .num_partitions = 1, .default_replication_factor = 1, .statics = {no_statics, NULL}});
    memset(sessions, 0, sizeof sessions);
    if (elr)
        world_level(w, "eligible.leader.replicas.version", 1);
}

/* Registers; `previous` is what the marker of the last clean stop said. */
static int16_t reg(struct world *w, int32_t id, uint64_t incarnation, int64_t previous, bool live,
                   const char *cluster)
{
    struct kp_broker_registration_request_listeners l = {SLICE_LIT("PLAINTEXT"), SLICE_LIT("h"), 9092, 0};
    struct kp_broker_registration_request_features f[8];
    struct uuid dir = uuid_small(1000 + (uint64_t)id);
    struct kp_broker_registration_request q;
    struct kp_broker_registration_response r;
    size_t n;
    const struct feature_claim *claims = feature_claims(&n);
    for (size_t i = 0; i < n; i++)
        f[i] = (struct kp_broker_registration_request_features){slice_str(claims[i].name),
                                                                claims[i].level_min, claims[i].level_max};
    kp_init(&kp_broker_registration_request_message, &q);
    kp_init(&kp_broker_registration_response_message, &r);
    q.broker_id = id;
    q.cluster_id = slice_str(cluster);
    q.incarnation_id = uuid_small(incarnation);
    q.listeners = &l;
    q.listeners_n = 1;
    q.features = f;
    q.features_n = (int32_t)n;
    q.log_dirs = &dir;
    q.log_dirs_n = 1;
    q.previous_broker_epoch = previous;
    struct decide d = decide(w);
    int16_t error = decide_broker_registration(&d, &q, &sessions[id], live, &r);
    cr_assert_eq(error, r.error_code);
    if (error)
        return error;
    int64_t epoch = r.broker_epoch;
    settle(w);
    cr_assert_eq(image_broker(w->img, id)->epoch, epoch);
    sessions[id] = (struct broker_session){.id = id, .registered_offset = w->next - 1, .shutdown_offset = -1};
    return KE_NONE;
}

struct beat {
    bool fence, down;
    int64_t offset, lowest;
    struct uuid *offline; /* a log dir; NULL: none */
};

static struct kp_broker_heartbeat_response beat(struct world *w, int32_t id, struct beat b)
{
    struct kp_broker_heartbeat_request q;
    struct kp_broker_heartbeat_response r;
    kp_init(&kp_broker_heartbeat_request_message, &q);
    kp_init(&kp_broker_heartbeat_response_message, &r);
    q.broker_id = id;
    q.broker_epoch = image_broker(w->img, id)->epoch;
    q.current_metadata_offset = b.offset;
    q.want_fence = b.fence;
    q.want_shut_down = b.down;
    q.offline_log_dirs = b.offline;
    q.offline_log_dirs_n = b.offline ? 1 : 0;
    struct decide d = decide(w);
    cr_assert_eq(decide_broker_heartbeat(&d, &q, &sessions[id], b.lowest, &r), KE_NONE);
    if (w->records.n > 0 && b.down)
        sessions[id].shutdown_offset = w->next + (int64_t)w->records.n - 1;
    settle(w);
    return r;
}

static struct uuid topic(struct world *w, int32_t partitions, const int32_t *replicas, int32_t n)
{
    struct decide d = decide(w);
    struct kp_topic_record *t = decide_record(&d, kp_type_topic_record);
    struct uuid id = uuid_small(5000);
    *t = (struct kp_topic_record){SLICE_LIT("orders"), id};
    for (int32_t i = 0; i < partitions; i++)
        cr_assert_not_null(decide_partition(&d, &id, i, replicas, n));
    settle(w);
    return id;
}

static const struct image_partition *part(struct world *w)
{
    return image_partition(image_topic(w->img, SLICE_LIT("orders")), 0);
}

static void up(struct world *w, int32_t id)
{
    cr_assert_eq(reg(w, id, 7000 + (uint64_t)w->next, -1, false, "cluster"), KE_NONE);
    cr_assert_not(beat(w, id, (struct beat){.offset = w->next}).is_fenced);
}

Test(brokers, registration_is_checked)
{
    struct world w;
    world_init(&w, false);
    cr_assert_eq(reg(&w, 1, 7, -1, false, "another"), KE_INCONSISTENT_CLUSTER_ID);
    cr_assert_eq(reg(&w, 1, 7, -1, false, "cluster"), KE_NONE);
    cr_assert(image_broker(w.img, 1)->fenced);
    cr_assert_eq(reg(&w, 1, 8, -1, true, "cluster"), KE_DUPLICATE_BROKER_REGISTRATION);
    int64_t epoch = image_broker(w.img, 1)->epoch;
    cr_assert_eq(reg(&w, 1, 7, -1, true, "cluster"), KE_NONE, "the same process amends");
    cr_assert_eq(image_broker(w.img, 1)->epoch, epoch);
    cr_assert_eq(reg(&w, 1, 8, -1, false, "cluster"), KE_NONE);
    cr_assert_gt(image_broker(w.img, 1)->epoch, epoch, "S15");
    struct decide d = decide(&w);
    *(struct kp_feature_level_record *)decide_record(&d, kp_type_feature_level_record) =
        (struct kp_feature_level_record){SLICE_LIT("from.the.future"), 1};
    settle(&w);
    cr_assert_eq(reg(&w, 2, 9, -1, false, "cluster"), KE_UNSUPPORTED_VERSION);
    world_fini(&w);
}

Test(brokers, unfenced_only_when_it_knows_its_registration)
{
    struct world w;
    world_init(&w, false);
    reg(&w, 1, 7, -1, false, "cluster");
    struct kp_broker_heartbeat_response r = beat(&w, 1, (struct beat){.offset = w.next - 2});
    cr_assert(r.is_fenced && !r.is_caught_up);
    r = beat(&w, 1, (struct beat){.offset = w.next - 1, .fence = true});
    cr_assert(r.is_fenced && r.is_caught_up);
    r = beat(&w, 1, (struct beat){.offset = w.next - 1});
    cr_assert_not(r.is_fenced);
    cr_assert_not(image_broker(w.img, 1)->fenced);
    r = beat(&w, 1, (struct beat){.offset = w.next, .fence = true});
    cr_assert(r.is_fenced && image_broker(w.img, 1)->fenced);
    world_fini(&w);
}

Test(brokers, a_sole_replica_goes_without_leader_and_comes_back)
{
    struct world w;
    world_init(&w, false);
    up(&w, 1);
    topic(&w, 1, (const int32_t[]){1}, 1);
    cr_assert_eq(part(&w)->leader, 1);
    struct kp_broker_heartbeat_response r = beat(&w, 1, (struct beat){.down = true, .lowest = INT64_MAX});
    cr_assert_not(r.should_shut_down);
    cr_assert_eq(part(&w)->leader, -1);
    cr_assert_eq(part(&w)->isr_n, 1, "without ELR the last one stays");
    r = beat(&w, 1, (struct beat){.down = true, .lowest = INT64_MAX});
    cr_assert(r.should_shut_down && image_broker(w.img, 1)->fenced);
    up(&w, 1);
    cr_assert_eq(part(&w)->leader, 1);
    cr_assert_eq(part(&w)->leader_epoch, 2);
    world_fini(&w);
}

/* Broker `id` has two log dirs, and its replica of orders-0 lies in the second. */
static void second_dir(struct world *w, int32_t id, const struct uuid *topic_id, struct uuid dirs[2])
{
    struct decide d = decide(w);
    dirs[0] = uuid_small(1000 + (uint64_t)id);
    dirs[1] = uuid_small(2000 + (uint64_t)id);
    struct kp_broker_registration_change_record *c =
        decide_record(&d, kp_type_broker_registration_change_record);
    *c = (struct kp_broker_registration_change_record){.broker_id = id,
                                                       .broker_epoch = image_broker(w->img, id)->epoch,
                                                       .log_dirs = dirs,
                                                       .log_dirs_n = 2,
                                                       .cordoned_log_dirs_n = -1};
    struct kp_partition_change_record *p = decide_record(&d, kp_type_partition_change_record);
    p->topic_id = *topic_id;
    p->partition_id = 0;
    p->directories = &dirs[1];
    p->directories_n = 1;
    settle(w);
}

Test(brokers, a_log_dir_that_fails_takes_its_replicas_and_no_others)
{
    struct world w;
    struct uuid dirs[2];
    world_init(&w, false);
    up(&w, 1);
    struct uuid id = topic(&w, 2, (const int32_t[]){1}, 1);
    second_dir(&w, 1, &id, dirs);
    const struct image_topic *t = image_topic(w.img, SLICE_LIT("orders"));
    cr_assert(image_partition(t, 0)->leader == 1 && image_partition(t, 1)->leader == 1);
    for (int twice = 0; twice < 2; twice++) {
        int64_t next = w.next;
        struct kp_broker_heartbeat_response r =
            beat(&w, 1, (struct beat){.offset = w.next, .lowest = INT64_MAX, .offline = &dirs[1]});
        cr_assert_not(r.is_fenced);
        cr_assert_eq(w.next == next, twice == 1, "said again it changes nothing");
        t = image_topic(w.img, SLICE_LIT("orders"));
        cr_assert(image_partition(t, 0)->leader == -1 && image_partition(t, 0)->isr_n == 1);
        cr_assert_eq(image_partition(t, 1)->leader, 1);
        cr_assert_eq(image_broker(w.img, 1)->log_dirs_n, 1);
        cr_assert(uuid_eq(&image_broker(w.img, 1)->log_dirs[0], &dirs[0]));
    }
    up(&w, 1);
    cr_assert_eq(part(&w)->leader, -1, "it came back without that dir");
    world_fini(&w);
}

Test(brokers, leaderships_move_before_a_broker_is_fenced_and_others_must_have_seen_it)
{
    struct world w;
    world_init(&w, false);
    up(&w, 1);
    up(&w, 2);
    up(&w, 3);
    topic(&w, 1, (const int32_t[]){1, 2, 3}, 3);
    struct kp_broker_heartbeat_response r = beat(&w, 1, (struct beat){.down = true, .lowest = 0});
    cr_assert_eq(part(&w)->leader, 2);
    cr_assert_eq(part(&w)->isr_n, 2);
    r = beat(&w, 1, (struct beat){.down = true, .lowest = sessions[1].shutdown_offset - 1});
    cr_assert_not(r.should_shut_down, "S20");
    r = beat(&w, 1, (struct beat){.down = true, .lowest = sessions[1].shutdown_offset});
    cr_assert(r.should_shut_down);
    struct decide d = decide(&w);
    cr_assert_eq(decide_fence(&d, 2), KE_NONE);
    settle(&w);
    cr_assert(part(&w)->leader == 3 && part(&w)->isr_n == 1);
    world_fini(&w);
}

Test(brokers, with_elr_on_an_unclean_stop_costs_the_place_and_a_clean_one_does_not)
{
    for (int clean = 0; clean < 2; clean++) {
        struct world w;
        world_init(&w, true);
        up(&w, 1);
        topic(&w, 1, (const int32_t[]){1}, 1);
        beat(&w, 1, (struct beat){.down = true, .lowest = INT64_MAX});
        beat(&w, 1, (struct beat){.down = true, .lowest = INT64_MAX});
        cr_assert(part(&w)->isr_n == 0 && part(&w)->elr_n == 1 && part(&w)->last_known_elr_n == 1);
        int64_t epoch = image_broker(w.img, 1)->epoch;
        cr_assert_eq(reg(&w, 1, 8000, clean ? epoch : -1, false, "cluster"), KE_NONE);
        cr_assert_eq(part(&w)->elr_n, clean);
        beat(&w, 1, (struct beat){.offset = w.next});
        cr_assert_eq(part(&w)->leader, 1, "the last known leader, if nobody else");
        cr_assert_eq(part(&w)->recovering, !clean);
        cr_assert(part(&w)->isr_n == 1 && part(&w)->elr_n == 0 && part(&w)->last_known_elr_n == 0);
        world_fini(&w);
    }
}

static void topic_option(struct world *w, const char *key, const char *value)
{
    struct decide d = decide(w);
    *(struct kp_config_record *)decide_record(&d, kp_type_config_record) =
        (struct kp_config_record){IMAGE_CONFIG_TOPIC, SLICE_LIT("orders"), slice_str(key), slice_str(value)};
    settle(w);
}

Test(brokers, after_an_unclean_election_nobody_is_eligible_by_what_was_before)
{
    struct world w;
    world_init(&w, true);
    up(&w, 1);
    up(&w, 2);
    topic(&w, 1, (const int32_t[]){1, 2}, 2);
    topic_option(&w, "min.insync.replicas", "2");
    topic_option(&w, "unclean.leader.election.enable", "true");
    beat(&w, 2, (struct beat){.offset = w.next, .fence = true});
    cr_assert(part(&w)->isr_n == 1 && part(&w)->elr_n == 1);
    up(&w, 2); /* with its disk not as it was: neither in the ISR nor eligible */
    cr_assert(part(&w)->isr_n == 1 && part(&w)->elr_n == 0);
    beat(&w, 1, (struct beat){.offset = w.next, .fence = true});
    cr_assert(part(&w)->leader == 2 && part(&w)->recovering);
    cr_assert(part(&w)->isr_n == 1 && part(&w)->elr_n == 0, "S17: what 2 takes now, 1 does not have");
    world_fini(&w);
}

Test(brokers, a_random_cluster_keeps_the_invariants)
{
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct world w;
        uint64_t incarnation = 9000;
        world_init(&w, seed % 2);
        rng_init(&w.rng, seed);
        for (int32_t id = 1; id <= 3; id++)
            up(&w, id);
        topic(&w, 6, (const int32_t[]){1, 2, 3}, 3);
        for (int i = 0; i < 80; i++) {
            int32_t id = 1 + (int32_t)rng_below(&w.rng, 3);
            struct decide d;
            switch (rng_below(&w.rng, 4)) {
            case 0:
                d = decide(&w);
                cr_assert_eq(decide_fence(&d, id), KE_NONE);
                settle(&w);
                break;
            case 1:
                reg(&w, id, ++incarnation, rng_chance(&w.rng, 500000) ? image_broker(w.img, id)->epoch : -1,
                    false, "cluster");
                break;
            case 2: beat(&w, id, (struct beat){.down = true, .lowest = INT64_MAX}); break;
            default: beat(&w, id, (struct beat){.offset = w.next}); break;
            }
        }
        world_fini(&w);
    }
}

/* ---- AlterPartition ---- */

static int16_t propose(struct world *w, int32_t sender, int32_t leader_epoch, int32_t partition_epoch,
                       int32_t replica, int64_t replica_epoch)
{
    struct kp_alter_partition_request_new_isr_with_epochs isr[] = {{sender, -1}, {replica, replica_epoch}};
    struct kp_alter_partition_request_partitions p = {.leader_epoch = leader_epoch,
                                                      .partition_epoch = partition_epoch,
                                                      .new_isr_with_epochs = isr,
                                                      .new_isr_with_epochs_n = replica ? 2 : 1};
    struct kp_alter_partition_request_topics t = {uuid_small(5000), &p, 1};
    struct kp_alter_partition_request q = {.broker_id = sender,
                                           .broker_epoch = image_broker(w->img, sender)->epoch,
                                           .topics = &t,
                                           .topics_n = 1};
    struct kp_alter_partition_response r;
    kp_init(&kp_alter_partition_response_message, &r);
    struct decide d = decide(w);
    cr_assert_eq(decide_alter_partition(&d, &q, &r), KE_NONE);
    settle(w);
    return r.topics[0].partitions[0].error_code;
}

Test(brokers, an_isr_is_changed_by_its_leader_under_the_right_epochs_only)
{
    struct world w;
    world_init(&w, false);
    up(&w, 1);
    up(&w, 2);
    topic(&w, 1, (const int32_t[]){1, 2}, 2);
    cr_assert_eq(propose(&w, 1, 1, 0, 0, -1), KE_NOT_CONTROLLER, "ahead of us");
    cr_assert_eq(propose(&w, 2, 0, 0, 0, -1), KE_INVALID_REQUEST, "not the leader");
    cr_assert_eq(propose(&w, 1, 0, 0, 3, -1), KE_INVALID_REQUEST, "no replica");
    cr_assert_eq(propose(&w, 1, 0, 0, 0, -1), KE_NONE);
    cr_assert(part(&w)->isr_n == 1 && part(&w)->partition_epoch == 1 && part(&w)->leader_epoch == 0);
    cr_assert_eq(propose(&w, 1, 0, 0, 2, -1), KE_INVALID_UPDATE_VERSION);
    cr_assert_eq(propose(&w, 1, 0, 1, 2, 12345), KE_INELIGIBLE_REPLICA, "S16: another incarnation");
    cr_assert_eq(propose(&w, 1, 0, 1, 2, image_broker(w.img, 2)->epoch), KE_NONE);
    cr_assert_eq(part(&w)->isr_n, 2);
    struct decide d = decide(&w);
    decide_fence(&d, 1);
    settle(&w);
    cr_assert_eq(propose(&w, 1, 0, 2, 0, -1), KE_FENCED_LEADER_EPOCH);
    world_fini(&w);
}
