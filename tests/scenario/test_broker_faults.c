/* One broker and what goes wrong around it: disks that fail or fill, restarts, topics that come and go, retention. */
#include "broker/lifecycle/identity.h"
#include "broker/metadata/image.h"
#include "broker/shard.h"
#include "tests/support/serve/sim_broker.h"
#include "tests/support/serve/sim_client.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

struct world {
    struct sim *sim;
    struct sim_node *broker;
    struct sim_client *client;
    struct sim_broker_options options;
};

static struct world *begin_in(const char *log_dirs, const char *properties)
{
    struct world *w = calloc(1, sizeof *w);
    w->options.properties = properties;
    w->options.log_dirs = log_dirs;
    w->sim = sim_create(&(struct sim_options){.seed = 7});
    w->broker = sim_node_add(
        w->sim, &(struct sim_node_options){.name = "broker", .boot = sim_broker_boot, .arg = &w->options});
    cr_assert(sim_start(w->broker), "%s", w->options.refused);
    w->client = sim_client_add(w->sim, "client", "broker:9092");
    cr_assert_eq(sim_run_until(w->sim, sim_now_us(w->sim) + 10 * SIM_SECOND, sim_broker_serving, w->broker),
                 SIM_TRUE);
    return w;
}

static struct world *begin(const char *properties)
{
    return begin_in(NULL, properties);
}

static void end(struct world *w)
{
    sim_client_free(w->client);
    sim_destroy(w->sim);
    free(w);
}

static void restart(struct world *w)
{
    if (sim_node_up(w->broker))
        sim_kill(w->broker);
    cr_assert(sim_start(w->broker), "%s", w->options.refused);
    cr_assert_eq(sim_run_until(w->sim, sim_now_us(w->sim) + 20 * SIM_SECOND, sim_broker_serving, w->broker),
                 SIM_TRUE);
}

Test(broker_faults, a_full_disk_refuses_and_room_lets_it_go_on)
{
    struct world *w = begin(NULL);
    int64_t offset = -1;
    cr_assert_eq(sim_client_create_topic(w->client, "orders", 1), KE_NONE);
    cr_assert_eq(sim_client_produce(w->client, "orders", 0, 3, NULL), KE_NONE);
    sim_disk_capacity(w->broker, 1);
    cr_expect_eq(sim_client_produce(w->client, "orders", 0, 100, NULL), KE_KAFKA_STORAGE_ERROR);
    cr_expect_eq(sim_client_fetch(w->client, "orders", 0, 3), 0, "reads go on");
    sim_disk_capacity(w->broker, INT64_C(1) << 30);
    cr_expect_eq(sim_client_produce(w->client, "orders", 0, 3, &offset), KE_NONE);
    cr_expect_eq(offset, 3, "nothing of the refused batch was kept");
    end(w);
}

static int16_t delete_records(struct world *w, const char *topic, int64_t offset)
{
    struct kp_delete_records_request_partitions p = {.offset = offset};
    struct kp_delete_records_request_topics t = {
        .name = slice_str(topic), .partitions = &p, .partitions_n = 1};
    struct kp_delete_records_request q = {.topics = &t, .topics_n = 1, .timeout_ms = 5000};
    const struct kp_delete_records_response *a =
        sim_client_ask(w->client, CLIENT_ANY, kp_key_delete_records, 1, &q, 60 * SIM_SECOND);
    return a ? a->topics[0].partitions[0].error_code : -1;
}

/* Not a byte is left. The last error is handed back. */
static int16_t fill(struct world *w)
{
    int full = 0;
    int16_t e = KE_NONE;
    for (int i = 0; i < 2000 && full < 10; i++) {
        e = sim_client_produce(w->client, "orders", 0, full ? 1 : 1000, NULL);
        full += e != KE_NONE;
    }
    return full == 10 ? e : KE_NONE;
}

/* Then is when an operator needs it: what writes down the new start has room of its own. */
Test(broker_faults, records_of_a_full_disk_can_be_deleted)
{
    struct world *w = begin("log.segment.bytes=1048576\nlog.retention.check.interval.ms=10000\n");
    cr_assert_eq(sim_client_create_topic(w->client, "orders", 1), KE_NONE);
    cr_assert_eq(sim_client_create_topic(w->client, "rows-of-the-file", 100),
                 KE_NONE);                 /* more than a record */
    sim_run_for(w->sim, 120 * SIM_SECOND); /* the spare room is made */
    sim_disk_capacity(w->broker, 5 << 20);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(fill(w), KE_KAFKA_STORAGE_ERROR);
        cr_assert_eq(delete_records(w, "orders", 1000 * (i + 1)), KE_NONE, "the %d. time", i + 1);
        cr_expect_eq(sim_client_offset(w->client, "orders", 0, -2), 1000 * (i + 1));
    }
    int64_t end_offset = sim_client_offset(w->client, "orders", 0, -1);
    cr_assert_eq(delete_records(w, "orders", -1), KE_NONE);
    sim_disk_capacity(w->broker, INT64_C(1) << 30);
    restart(w);
    cr_expect_eq(sim_client_offset(w->client, "orders", 0, -2), end_offset);
    end(w);
}

static bool stopped(void *arg)
{
    return sim_node_stopped(arg);
}

static void on_stopped(void *arg)
{
    loop_stop(sim_node_loop(arg));
}

/* A topic of five records whose log the next start cannot open. */
static void five_that_cannot_be_opened(struct world *w, enum sim_disk_op op, int code, const char *part)
{
    cr_assert_eq(sim_client_create_topic(w->client, "orders", 1), KE_NONE);
    cr_assert_eq(sim_client_produce(w->client, "orders", 0, 5, NULL), KE_NONE);
    sim_kill(w->broker);
    sim_disk_fail(w->broker, op, 1, 0, code, part);
    restart(w);
}

static void stop_well(struct world *w)
{
    broker_stop(sim_broker(w->broker), on_stopped, w->broker);
    cr_assert_eq(sim_run_until(w->sim, sim_now_us(w->sim) + 10 * SIM_SECOND, stopped, w->broker), SIM_TRUE,
                 "a stop takes less than ten seconds");
    broker_destroy(sim_broker(w->broker));
}

Test(broker_faults, a_stop_when_no_log_could_be_opened)
{
    struct world *w = begin(NULL);
    five_that_cannot_be_opened(w, SIM_DISK_OPEN, -E_IO, "orders-0/0");
    cr_expect_eq(sim_client_produce(w->client, "orders", 0, 1, NULL), KE_KAFKA_STORAGE_ERROR);
    stop_well(w);
    sim_disk_heal(w->broker);
    restart(w);
    cr_expect_eq(sim_client_offset(w->client, "orders", 0, -1), 5);
    end(w);
}

static int16_t delete_topic(struct world *w, const char *name)
{
    struct slice names = slice_str(name);
    struct kp_delete_topics_request q = {.topic_names = &names, .topic_names_n = 1, .timeout_ms = 5000};
    const struct kp_delete_topics_response *a =
        sim_client_ask(w->client, CLIENT_ANY, kp_key_delete_topics, 4, &q, 60 * SIM_SECOND);
    return a ? a->responses[0].error_code : -1;
}

/* Its folder would stand in the way of a new topic of the name, and take its room, until a restart. */
Test(broker_faults, a_topic_whose_log_could_not_be_opened_is_deleted)
{
    struct world *w = begin(NULL);
    struct disk *disk = sim_node_disk(w->broker);
    int64_t offset = -1;
    five_that_cannot_be_opened(w, SIM_DISK_OPEN, -E_IO, "orders-0/0");
    cr_expect_eq(sim_client_produce(w->client, "orders", 0, 1, NULL), KE_KAFKA_STORAGE_ERROR);
    sim_disk_heal(w->broker);
    cr_assert_eq(delete_topic(w, "orders"), KE_NONE);
    sim_run_for(w->sim, 2 * SIM_SECOND);
    cr_expect_eq(disk_kind(disk, "/data/orders-0"), DISK_NONE);
    cr_assert_eq(sim_client_create_topic(w->client, "orders", 1), KE_NONE);
    cr_expect_eq(sim_client_produce(w->client, "orders", 0, 2, &offset), KE_NONE);
    cr_expect_eq(offset, 0);
    restart(w);
    cr_expect_eq(sim_client_offset(w->client, "orders", 0, -1), 2);
    end(w);
}

/* A log that cannot be opened, or made, for lack of room is tried again while it lacks nothing but that. */
Test(broker_faults, a_log_without_room_to_be_opened_is_opened_with_room)
{
    struct world *w = begin(NULL);
    int64_t offset = -1;
    five_that_cannot_be_opened(w, SIM_DISK_WRITE, -E_NOSPACE, "orders-0/");
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(sim_client_produce(w->client, "orders", 0, 1, NULL), KE_KAFKA_STORAGE_ERROR);
        sim_run_for(w->sim, 61 * SIM_SECOND);
    }
    sim_disk_heal(w->broker);
    sim_run_for(w->sim, 61 * SIM_SECOND);
    cr_expect_eq(sim_client_produce(w->client, "orders", 0, 1, &offset), KE_NONE);
    cr_expect_eq(offset, 5);
    stop_well(w);
    restart(w);
    cr_expect_eq(sim_client_offset(w->client, "orders", 0, -1), 6);
    end(w);
}

Test(broker_faults, a_log_without_room_to_be_made_is_made_with_room)
{
    struct world *w = begin(NULL);
    int64_t offset = -1;
    sim_disk_fail(w->broker, SIM_DISK_WRITE, 1, 0, -E_NOSPACE, "orders-0/");
    cr_assert_eq(sim_client_create_topic(w->client, "orders", 1), KE_NONE);
    cr_expect_eq(sim_client_produce(w->client, "orders", 0, 1, NULL), KE_KAFKA_STORAGE_ERROR);
    sim_run_for(w->sim, 61 * SIM_SECOND);
    cr_expect_eq(sim_client_produce(w->client, "orders", 0, 1, NULL), KE_KAFKA_STORAGE_ERROR);
    sim_disk_heal(w->broker);
    sim_run_for(w->sim, 61 * SIM_SECOND);
    cr_expect_eq(sim_client_produce(w->client, "orders", 0, 1, &offset), KE_NONE);
    cr_expect_eq(offset, 0);
    restart(w);
    cr_expect_eq(sim_client_offset(w->client, "orders", 0, -1), 1);
    end(w);
}

Test(broker_faults, a_clean_stop_leaves_markers_and_a_start_without_recovery)
{
    struct world *w = begin(NULL);
    cr_assert_eq(sim_client_create_topic(w->client, "orders", 3), KE_NONE);
    for (int32_t i = 0; i < 3; i++)
        cr_assert_eq(sim_client_produce(w->client, "orders", i, 5, NULL), KE_NONE);
    stop_well(w);
    cr_expect_eq(disk_kind(sim_node_disk(w->broker), "/data/.kafka_cleanshutdown"), DISK_IS_FILE);
    sim_power_cut(w->broker); /* nothing may be lost: all was synced */
    restart(w);
    for (int32_t i = 0; i < 3; i++)
        cr_expect_eq(sim_client_offset(w->client, "orders", i, -1), 5);
    end(w);
}

/* The marker would have the next start trust what nobody has checked since the kill. */
Test(broker_faults, a_stop_before_the_logs_were_recovered_leaves_no_marker)
{
    struct world *w = begin(NULL);
    cr_assert_eq(sim_client_create_topic(w->client, "orders", 3), KE_NONE);
    cr_assert_eq(sim_client_produce(w->client, "orders", 0, 5, NULL), KE_NONE);
    for (int64_t after = 0; after < 60 * SIM_MS; after += 3 * SIM_MS) {
        sim_kill(w->broker);
        cr_assert(sim_start(w->broker), "%s", w->options.refused);
        sim_run_until(w->sim, sim_now_us(w->sim) + after, NULL, NULL);
        bool served = sim_broker_serving(w->broker);
        stop_well(w);
        bool marked = disk_kind(sim_node_disk(w->broker), "/data/.kafka_cleanshutdown") == DISK_IS_FILE;
        cr_expect(after > 0 || !marked, "not even begun");
        cr_expect(marked || !served);
        restart(w);
        cr_expect_eq(sim_client_offset(w->client, "orders", 0, -1), 5);
    }
    end(w);
}

#define PARTS 6

/* In which of /data and /more the log lies; -1: in none. */
static int dir_of(struct world *w, int32_t index)
{
    char path[2][40];
    bool there[2];
    for (int i = 0; i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/orders-%d", i ? "/more" : "/data", index);
        there[i] = disk_kind(sim_node_disk(w->broker), path[i]) == DISK_IS_DIR;
    }
    cr_assert(!there[0] || !there[1], "orders-%d is in both", index);
    return there[0] ? 0 : there[1] ? 1 : -1;
}

static bool all_assigned(void *arg)
{
    struct world *w = arg;
    struct meta_properties m[2];
    const struct image_topic *t = image_topic(sim_broker(w->broker)->shards[0]->image, SLICE_LIT("orders"));
    for (int i = 0; i < 2; i++)
        cr_assert_eq(meta_properties_read(sim_node_disk(w->broker), i ? "/more" : "/data", &m[i], NULL), 0);
    for (int32_t i = 0; i < PARTS; i++) {
        const struct image_partition *p = image_partition(t, i);
        if (p->directories_n != 1 || !uuid_eq(&p->directories[0], &m[dir_of(w, i)].directory_id))
            return false;
    }
    return true;
}

/* S24: which dir has a replica is on record, and a dir that is gone takes its replicas offline; none is made anew,
 * empty, in another. */
Test(broker_faults, a_log_dir_that_is_gone_takes_its_partitions_and_brings_them_back)
{
    struct world *w = begin_in("/data,/more", NULL);
    int in_more = 0;
    cr_assert_eq(sim_client_create_topic(w->client, "orders", PARTS), KE_NONE);
    for (int32_t i = 0; i < PARTS; i++)
        cr_assert_eq(sim_client_produce(w->client, "orders", i, 5, NULL), KE_NONE);
    cr_assert_eq(sim_run_until(w->sim, sim_now_us(w->sim) + 5 * SIM_SECOND, all_assigned, w), SIM_TRUE);
    sim_kill(w->broker);
    sim_disk_fail(w->broker, SIM_DISK_OPEN, 1, 0, -E_IO, "/more");
    restart(w);
    for (int32_t i = 0; i < PARTS; i++) {
        int16_t error = sim_client_produce(w->client, "orders", i, 1, NULL);
        cr_expect_eq(error == KE_NONE, dir_of(w, i) == 0, "orders-%d: %d", i, error);
        in_more += dir_of(w, i) == 1;
    }
    cr_expect(in_more > 0 && in_more < PARTS);
    sim_disk_heal(w->broker);
    restart(w);
    for (int32_t i = 0; i < PARTS; i++)
        cr_expect_eq(sim_client_offset(w->client, "orders", i, -1), dir_of(w, i) == 0 ? 6 : 5, "orders-%d",
                     i);
    cr_expect(all_assigned(w));
    end(w);
}

/* One failed sync, of one log: nothing of that dir is appended, read or synced again before a restart, idle logs neither;
 * the other dir goes on, and the controller knows. */
Test(broker_faults, a_failed_sync_takes_its_log_dir_offline_and_no_other)
{
    struct world *w = begin_in("/data,/more", NULL);
    int32_t bad = -1;
    cr_assert_eq(sim_client_create_topic(w->client, "orders", PARTS), KE_NONE);
    for (int32_t i = 0; i < PARTS; i++)
        cr_assert_eq(sim_client_produce(w->client, "orders", i, 5, NULL), KE_NONE);
    cr_assert_eq(sim_run_until(w->sim, sim_now_us(w->sim) + 5 * SIM_SECOND, all_assigned, w), SIM_TRUE);
    sim_disk_fail(w->broker, SIM_DISK_SYNC, 1, 1, -E_IO, "/more/");
    for (int32_t i = 0; i < PARTS; i++)
        bad = dir_of(w, i) == 1 ? i : bad;
    cr_expect_eq(sim_client_produce(w->client, "orders", bad, 3, NULL), KE_KAFKA_STORAGE_ERROR);
    uint64_t syncs = sim_disk_calls(w->broker, SIM_DISK_SYNC),
             writes = sim_disk_calls(w->broker, SIM_DISK_WRITE);
    for (int32_t i = 0; i < PARTS; i++) {
        if (dir_of(w, i) == 0)
            continue;
        cr_expect_eq(sim_client_produce(w->client, "orders", i, 3, NULL), KE_KAFKA_STORAGE_ERROR, "for good");
        cr_expect_eq(sim_client_fetch(w->client, "orders", i, 0), -KE_KAFKA_STORAGE_ERROR);
    }
    cr_expect_leq(sim_disk_calls(w->broker, SIM_DISK_SYNC), syncs + 20, "the metadata log only");
    cr_expect_leq(sim_disk_calls(w->broker, SIM_DISK_WRITE), writes + 20);
    for (int32_t i = 0; i < PARTS; i++)
        if (dir_of(w, i) == 0)
            cr_expect_eq(sim_client_produce(w->client, "orders", i, 3, NULL), KE_NONE);
    sim_run_for(w->sim, 3 * SIM_SECOND);
    const struct image_topic *t = image_topic(sim_broker(w->broker)->shards[0]->image, SLICE_LIT("orders"));
    for (int32_t i = 0; i < PARTS; i++)
        cr_expect_eq(image_partition(t, i)->leader, dir_of(w, i) == 0 ? 1 : -1);
    sim_disk_heal(w->broker);
    sim_power_cut(w->broker);
    restart(w);
    for (int32_t i = 0; i < PARTS; i++) {
        cr_expect_eq(sim_client_offset(w->client, "orders", i, -1), dir_of(w, i) == 0 ? 8 : 5,
                     "what was acknowledged, and nothing that was not");
        cr_expect_eq(sim_client_produce(w->client, "orders", i, 1, NULL), KE_NONE);
    }
    end(w);
}

Test(broker_faults, a_topic_made_again_under_its_name_is_empty_whenever_the_power_goes)
{
    for (int64_t cut_ms = 0; cut_ms < 120; cut_ms += 7) {
        struct world *w = begin("log.flush.offset.checkpoint.interval.ms=50\n");
        int64_t offset = -1;
        cr_assert_eq(sim_client_create_topic(w->client, "orders", 1), KE_NONE);
        cr_assert_eq(sim_client_produce(w->client, "orders", 0, 50, NULL), KE_NONE);
        sim_run_for(w->sim, 200 * SIM_MS);
        cr_assert_eq(delete_topic(w, "orders"), KE_NONE);
        cr_assert_eq(sim_client_create_topic(w->client, "orders", 1), KE_NONE);
        cr_assert_eq(sim_client_produce(w->client, "orders", 0, 2, &offset), KE_NONE);
        cr_expect_eq(offset, 0);
        sim_run_for(w->sim, cut_ms * SIM_MS);
        sim_power_cut(w->broker);
        restart(w);
        cr_expect_eq(sim_client_offset(w->client, "orders", 0, -1), 2, "cut after %ld ms", (long)cut_ms);
        cr_expect_eq(sim_client_produce(w->client, "orders", 0, 1, &offset), KE_NONE, "cut after %ld ms",
                     (long)cut_ms);
        cr_expect_eq(offset, 2);
        end(w);
    }
}

/* Nor do the checkpoints know of it that an earlier run of the broker has left. */
Test(broker_faults, a_topic_made_again_by_the_next_run_is_empty_too)
{
    struct world *w = begin(NULL);
    int64_t offset = -1;
    cr_assert_eq(sim_client_create_topic(w->client, "orders", 1), KE_NONE);
    cr_assert_eq(sim_client_produce(w->client, "orders", 0, 50, NULL), KE_NONE);
    cr_assert_eq(delete_records(w, "orders", 40), KE_NONE);
    cr_assert_eq(delete_topic(w, "orders"), KE_NONE);
    sim_run_for(w->sim, SIM_SECOND);
    restart(w);
    cr_assert_eq(sim_client_create_topic(w->client, "orders", 1), KE_NONE);
    cr_assert_eq(sim_client_produce(w->client, "orders", 0, 2, &offset), KE_NONE);
    cr_expect_eq(offset, 0);
    restart(w);
    cr_expect_eq(sim_client_offset(w->client, "orders", 0, -2), 0);
    cr_expect_eq(sim_client_offset(w->client, "orders", 0, -1), 2, "acknowledged");
    end(w);
}

Test(broker_faults, retention_deletes_what_is_old)
{
    struct world *w = begin("log.roll.ms=1000\nlog.retention.ms=3000\nlog.retention.check.interval.ms=500\n");
    cr_assert_eq(sim_client_create_topic(w->client, "orders", 1), KE_NONE);
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(sim_client_produce(w->client, "orders", 0, 5, NULL), KE_NONE);
        sim_run_for(w->sim, SIM_SECOND);
    }
    cr_expect_gt(sim_client_offset(w->client, "orders", 0, -2), 0);
    cr_expect_eq(sim_client_offset(w->client, "orders", 0, -1), 50);
    cr_expect_eq(sim_client_fetch(w->client, "orders", 0, 0), -KE_OFFSET_OUT_OF_RANGE);
    sim_run_for(w->sim, 20 * SIM_SECOND);
    cr_expect_eq(sim_client_offset(w->client, "orders", 0, -2), 50, "all of it in the end");
    end(w);
}

Test(broker_faults, compaction_keeps_the_last_of_each_key)
{
    struct world *w = begin("log.cleanup.policy=compact\nlog.roll.ms=500\nlog.cleaner.backoff.ms=500\n"
                            "log.cleaner.min.cleanable.ratio=0.01\n");
    cr_assert_eq(sim_client_create_topic(w->client, "orders", 1), KE_NONE);
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(sim_client_produce(w->client, "orders", 0, 20, NULL), KE_NONE);
        sim_run_for(w->sim, SIM_SECOND);
    }
    int64_t before = 10 * 20 * 15;
    sim_run_for(w->sim, 5 * SIM_SECOND);
    int64_t bytes = sim_client_fetch(w->client, "orders", 0, 0);
    cr_expect_gt(bytes, 0);
    cr_expect_lt(bytes, before / 2, "%ld bytes are left", (long)bytes);
    cr_expect_eq(sim_client_offset(w->client, "orders", 0, -1), 200);
    restart(w);
    cr_expect_eq(sim_client_offset(w->client, "orders", 0, -1), 200);
    end(w);
}
