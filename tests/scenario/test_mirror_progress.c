/* What a mirror writes down about itself, and what becomes of it: progress is never ahead of the target, and the one
 * place that is left of it is enough to go on. */
#include "mirror/offsets/store.h"
#include "tests/support/sites.h"

#include <criterion/criterion.h>
#include <string.h>

#define TOPIC    "orders"
#define MIRRORED "east.orders"
#define PROGRESS "sundog-progress.east.internal"
#define NUMBERS  4096

static uint64_t there[NUMBERS], here[NUMBERS];

static int at_target(struct sites *s)
{
    return sites_read(s, WEST, MIRRORED, 0, here, NUMBERS);
}

static void must_be_mirrored(struct sites *s, const char *when)
{
    int n = -1, m = -2;
    for (int tries = 0; tries < 120 && n != m; tries++) {
        sim_run_for(s->sim, SIM_SECOND);
        n = sites_read(s, EAST, TOPIC, 0, there, NUMBERS);
        m = at_target(s);
    }
    cr_assert_eq(n, m, "%s: %d records at the source, %d at the target", when, n, m);
    cr_assert_eq(memcmp(there, here, (size_t)n * sizeof *here), 0, "%s: the records differ", when);
    sim_run_for(s->sim, 10 * SIM_SECOND);
    cr_assert_eq(at_target(s), m, "%s: more came", when);
}

static void read_altered(void *arg, const void *body)
{
    const struct kp_incremental_alter_configs_response *r = body;
    *(int16_t *)arg = r->responses_n == 1 ? r->responses[0].error_code : KE_UNKNOWN_SERVER_ERROR;
}

static void topic_config(struct sites *s, int site, const char *topic, const char *key, const char *value)
{
    enum { TOPIC_RESOURCE = 2, SET = 0 };
    struct kp_incremental_alter_configs_request_configs c = {slice_str(key), SET, slice_str(value)};
    struct kp_incremental_alter_configs_request_resources t = {
        .resource_type = TOPIC_RESOURCE, .resource_name = slice_str(topic), .configs = &c, .configs_n = 1};
    const struct kp_incremental_alter_configs_request q = {.resources = &t, .resources_n = 1};
    int16_t error = KE_UNKNOWN_SERVER_ERROR;
    cr_assert(sites_ask(s, site, &(struct client_target){.kind = CLIENT_CONTROLLER},
                        kp_key_incremental_alter_configs, 1, &q, read_altered, &error));
    cr_assert_eq(error, KE_NONE);
}

static struct sites *mirrored_site(uint64_t seed)
{
    struct sites *s = sites_create(seed);
    sites_topic(s, EAST, TOPIC, 1);
    cr_assert(sites_produce(s, EAST, TOPIC, 0, 0, 100));
    cr_assert(sim_start(s->mirror));
    must_be_mirrored(s, "at first");
    return s;
}

/* The target refuses the records, but takes what is written about them. */
Test(progress, what_the_target_has_not_acknowledged_is_no_progress)
{
    struct sites *s = mirrored_site(1);
    topic_config(s, WEST, MIRRORED, "max.message.bytes", "70"); /* less than any batch */
    for (int i = 1; i <= 5; i++) {
        cr_assert(sites_produce(s, EAST, TOPIC, 0, (uint64_t)i * 100, 100));
        sim_run_for(s->sim, 2 * SIM_SECOND);
    }
    cr_assert_eq(at_target(s), 100, "the target took what it should have refused: the test shows nothing");
    sim_kill(s->mirror);
    topic_config(s, WEST, MIRRORED, "max.message.bytes", "1048588");
    cr_assert(sim_start(s->mirror));
    must_be_mirrored(s, "after the refusal");
    sites_destroy(s);
}

Test(progress, a_lost_store_is_read_from_the_progress_topic)
{
    struct sites *s = mirrored_site(2);
    for (int round = 1; round <= 3; round++) {
        sim_kill(s->mirror);
        sites_lose_store(s, s->mirror);
        cr_assert(sites_produce(s, EAST, TOPIC, 0, (uint64_t)round * 100, 100));
        cr_assert(sim_start(s->mirror));
        must_be_mirrored(s, "after the loss of the store");
    }
    sites_destroy(s);
}

Test(progress, a_lost_progress_topic_is_written_from_the_store)
{
    struct sites *s = mirrored_site(3);
    sim_kill(s->mirror);
    sites_topic_delete(s, WEST, PROGRESS);
    cr_assert(sites_produce(s, EAST, TOPIC, 0, 100, 100));
    cr_assert(sim_start(s->mirror));
    must_be_mirrored(s, "after the loss of the topic while the mirror was down");
    sites_topic_delete(s, WEST, PROGRESS);
    cr_assert(sites_produce(s, EAST, TOPIC, 0, 200, 100));
    must_be_mirrored(s, "after the loss of the topic under the mirror");
    /* What was written again is enough by itself. */
    sim_run_for(s->sim, 10 * SIM_SECOND);
    sim_kill(s->mirror);
    sites_lose_store(s, s->mirror);
    cr_assert(sites_produce(s, EAST, TOPIC, 0, 300, 100));
    cr_assert(sim_start(s->mirror));
    must_be_mirrored(s, "after the loss of the store too");
    sites_destroy(s);
}

Test(progress, a_target_that_is_away_for_minutes_is_caught_up_with)
{
    struct sites *s = mirrored_site(4);
    sim_cut_both(s->mirror, s->broker[WEST]);
    for (int i = 1; i <= 10; i++) {
        cr_assert(sites_produce(s, EAST, TOPIC, 0, (uint64_t)i * 100, 100));
        sim_run_for(s->sim, 20 * SIM_SECOND);
    }
    sim_heal_all(s->sim);
    must_be_mirrored(s, "after minutes without the target");
    sites_destroy(s);
}

Test(progress, a_source_topic_that_is_made_again_halts_and_harms_nothing)
{
    struct sites *s = mirrored_site(5);
    sites_topic_delete(s, EAST, TOPIC);
    sim_run_for(s->sim, 5 * SIM_SECOND);
    sites_topic(s, EAST, TOPIC, 1);
    cr_assert(sites_produce(s, EAST, TOPIC, 0, 5000, 20));
    sim_run_for(s->sim, 60 * SIM_SECOND);
    cr_assert_eq(at_target(s), 100, "the new topic is another one: its records wait for a decision");
    sim_kill(s->mirror);
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 60 * SIM_SECOND);
    cr_assert_eq(at_target(s), 100, "and still do after a restart");
    sites_destroy(s);
}

struct left {
    const char *topic;
    int rows;
};

static int count_position(void *arg, const struct map_position *p)
{
    (void)p;
    ((struct left *)arg)->rows++;
    return 0;
}

static int count_run(void *arg, int32_t p, const struct map_run *r)
{
    (void)p, (void)r;
    ((struct left *)arg)->rows++;
    return 0;
}

struct looking {
    struct left *left;
    struct store_view *view;
};

static int count_topic(void *arg, const struct stored_topic *t)
{
    struct looking *l = arg;
    if (!slice_eq_str(t->topic.name, l->left->topic))
        return 0;
    l->left->rows++;
    cr_assert_eq(store_positions_each(l->view, t->number, count_position, l->left), 0);
    return store_runs_each(l->view, t->number, -1, count_run, l->left);
}

/* What the store, of a mirror that is down, knows of a source topic. */
static int rows_of(struct sites *s, const char *topic)
{
    struct left left = {.topic = topic};
    struct store *store;
    struct looking l = {&left, NULL};
    struct err err;
    const struct store_options o = {.path = s->store_dir, .mode = STORE_READER};
    cr_assert_eq(store_open(&o, &store, &err), 0, "%s", err.text);
    cr_assert_eq(store_view_open(store, &l.view, &err), 0, "%s", err.text);
    cr_assert_eq(store_topics_each(l.view, count_topic, &l), 0);
    store_view_close(l.view);
    store_close(store);
    return left.rows;
}

/* And another topic behind it: the number of the newest is never forgotten. */
static struct sites *mirrored_with_later(uint64_t seed)
{
    struct sites *s = mirrored_site(seed);
    sim_run_for(s->sim, 10 * SIM_SECOND);
    sim_kill(s->mirror);
    s->mirror_settings = "topics = orders, later\n";
    sites_topic(s, EAST, "later", 1);
    cr_assert(sites_produce(s, EAST, "later", 0, 0, 10));
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 30 * SIM_SECOND);
    return s;
}

/* Its map is needed as long as the target has the copy, and by nobody afterwards. */
Test(progress, a_topic_that_both_sides_have_deleted_leaves_nothing)
{
    struct sites *s = mirrored_with_later(9);
    sites_topic_delete(s, EAST, TOPIC);
    sim_run_for(s->sim, 300 * SIM_SECOND);
    sim_kill(s->mirror);
    cr_assert_geq(rows_of(s, TOPIC), 3, "the target has its copy still");
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 10 * SIM_SECOND);
    sites_topic_delete(s, WEST, MIRRORED);
    /* In the first round: where many topics come and go, minutes for each lot are too slow. */
    sim_run_for(s->sim, 70 * SIM_SECOND);
    sim_kill(s->mirror);
    cr_assert_eq(rows_of(s, TOPIC), 0, "%d rows are left", rows_of(s, TOPIC));
    cr_assert_geq(rows_of(s, "later"), 3);
    /* The progress topic has tombstones: a store that is read from it knows nothing of the topic either. */
    sites_lose_store(s, s->mirror);
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 200 * SIM_SECOND);
    sim_kill(s->mirror);
    cr_assert_eq(rows_of(s, TOPIC), 0, "%d rows are read again", rows_of(s, TOPIC));
    /* A new topic of the name is nobody's next incarnation. */
    cr_assert(sim_start(s->mirror));
    sites_topic(s, EAST, TOPIC, 1);
    cr_assert(sites_produce(s, EAST, TOPIC, 0, 7000, 50));
    must_be_mirrored(s, "made anew");
    sites_destroy(s);
}

/* The source may be mirrored to it again one day: that is the operator's to say. */
Test(progress, a_topic_deleted_at_the_target_alone_is_remembered)
{
    struct sites *s = mirrored_with_later(10);
    sites_topic_delete(s, WEST, MIRRORED);
    sim_run_for(s->sim, 300 * SIM_SECOND);
    sim_kill(s->mirror);
    cr_assert_geq(rows_of(s, TOPIC), 3);
    sites_destroy(s);
}

/* Where it is gone no leader answers; who waits for one must not have all groups of the round wait. */
Test(progress, a_topic_that_the_target_has_not_holds_up_no_group)
{
    struct sites *s = mirrored_with_later(12);
    int32_t epoch;
    while (!sites_commit(s, EAST, "one", TOPIC, 0, 10) || !sites_commit(s, EAST, "two", "later", 0, 1))
        sim_run_for(s->sim, SIM_SECOND / 10);
    sim_run_for(s->sim, 10 * SIM_SECOND);
    cr_assert_eq(sites_committed(s, WEST, "one", MIRRORED, 0, &epoch), 10);
    cr_assert_eq(sites_committed(s, WEST, "two", "east.later", 0, &epoch), 1);
    sim_kill(s->mirror);
    sites_topic_delete(s, WEST, MIRRORED);
    s->mirror_settings = "topics = later\n"; /* it is not made again */
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 20 * SIM_SECOND);
    for (int i = 2; i < 8; i++) {
        cr_assert(sites_commit(s, EAST, "one", TOPIC, 0, 10 + i));
        cr_assert(sites_commit(s, EAST, "two", "later", 0, i));
        sim_run_for(s->sim, 5 * SIM_SECOND);
        int64_t there_now = sites_committed(s, WEST, "two", "east.later", 0, &epoch);
        cr_assert_eq(there_now, i, "%lld of %d after 5 s", (long long)there_now, i);
    }
    sites_destroy(s);
}

static void read_deleted(void *arg, const void *body)
{
    const struct kp_delete_records_response *r = body;
    *(int16_t *)arg = r->topics_n == 1 ? r->topics[0].partitions[0].error_code : KE_UNKNOWN_SERVER_ERROR;
}

static void delete_before(struct sites *s, int site, const char *topic, int64_t offset)
{
    struct kp_delete_records_request_partitions p = {.partition_index = 0, .offset = offset};
    struct kp_delete_records_request_topics t = {
        .name = slice_str(topic), .partitions = &p, .partitions_n = 1};
    const struct kp_delete_records_request q = {.topics = &t, .topics_n = 1, .timeout_ms = 10000};
    const struct client_target to = {.kind = CLIENT_LEADER, .name = slice_str(topic), .number = 0};
    int16_t error = KE_UNKNOWN_SERVER_ERROR;
    cr_assert(sites_ask(s, site, &to, kp_key_delete_records, 1, &q, read_deleted, &error));
    cr_assert_eq(error, KE_NONE);
}

/* Records 100 to 149 are gone before the mirror could see them. */
static struct sites *gap(const char *settings)
{
    struct sites *s = mirrored_site(6);
    sim_run_for(s->sim, 10 * SIM_SECOND);
    sim_kill(s->mirror);
    cr_assert(sites_produce(s, EAST, TOPIC, 0, 100, 50));
    cr_assert(sites_produce(s, EAST, TOPIC, 0, 150, 50));
    delete_before(s, EAST, TOPIC, 150);
    s->mirror_settings = settings;
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 60 * SIM_SECOND);
    return s;
}

Test(progress, a_gap_halts_the_partition)
{
    struct sites *s = gap(NULL);
    cr_assert_eq(at_target(s), 100);
    sites_destroy(s);
}

Test(progress, a_gap_is_passed_where_the_policy_says_so)
{
    struct sites *s = gap("sundog.on.log.start = record-and-continue\n");
    cr_assert_eq(at_target(s), 150);
    for (uint64_t i = 0; i < 150; i++)
        cr_assert_eq(here[i], i < 100 ? i : i + 50);
    sites_destroy(s);
}

/* The target has 0 to 99 of the old topic; the new one begins at offset 0 again, under numbers of a new generation. */
static void reborn(struct sites *s)
{
    sites_topic_delete(s, EAST, TOPIC);
    sim_run_for(s->sim, 5 * SIM_SECOND);
    sites_topic(s, EAST, TOPIC, 1);
    cr_assert(sites_produce(s, EAST, TOPIC, 0, 5000, 150));
    sim_run_for(s->sim, 60 * SIM_SECOND);
}

static void must_follow(struct sites *s, int n, const char *when)
{
    cr_assert_eq(at_target(s), 100 + n, "%s: %d at the target", when, at_target(s));
    for (int i = 0; i < 100 + n; i++)
        cr_assert_eq(here[i], i < 100 ? (uint64_t)i : (uint64_t)(4900 + i), "%s: record %d is %lu", when, i,
                     here[i]);
}

Test(progress, another_incarnation_follows_the_old_one_where_the_policy_says_so)
{
    struct sites *s = mirrored_site(7);
    sim_kill(s->mirror);
    s->mirror_settings = "sundog.on.new.incarnation = record-and-continue\n";
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 10 * SIM_SECOND);
    reborn(s);
    must_follow(s, 150, "made again under the mirror");
    sim_kill(s->mirror);
    cr_assert(sites_produce(s, EAST, TOPIC, 0, 5150, 50));
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 60 * SIM_SECOND);
    must_follow(s, 200, "after a restart");
    sim_kill(s->mirror);
    sites_lose_store(s, s->mirror);
    cr_assert(sites_produce(s, EAST, TOPIC, 0, 5200, 50));
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 60 * SIM_SECOND);
    must_follow(s, 250, "after the loss of the store");
    sites_destroy(s);
}

Test(progress, another_incarnation_made_while_the_mirror_was_down_follows_too)
{
    struct sites *s = mirrored_site(8);
    sim_run_for(s->sim, 10 * SIM_SECOND);
    sim_kill(s->mirror);
    s->mirror_settings = "sundog.on.new.incarnation = record-and-continue\n";
    sites_topic_delete(s, EAST, TOPIC);
    sim_run_for(s->sim, 5 * SIM_SECOND);
    sites_topic(s, EAST, TOPIC, 1);
    cr_assert(sites_produce(s, EAST, TOPIC, 0, 5000, 150));
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 60 * SIM_SECOND);
    must_follow(s, 150, "at the start");
    sites_destroy(s);
}
