#include "proto/kafka/batch.h"
#include "tests/support/serve/rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int16_t produce(struct rig *r, int16_t acks, struct rig_batch b, int64_t *offset)
{
    struct slice batch = rig_batch(r, &b);
    struct kp_produce_response_partition_responses a = rig_produce(r, "orders", 0, acks, batch);
    free((void *)(uintptr_t)batch.p);
    if (offset)
        *offset = a.base_offset;
    return a.error_code;
}

Test(append, acks_all_is_answered_when_the_records_are_on_disk)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    int64_t offset;
    rig_topic(r, "orders", 1, NULL);
    cr_assert_eq(produce(r, -1, (struct rig_batch){.n = 3}, &offset), KE_NONE);
    cr_expect_eq(offset, 0);
    struct partition *p = rig_partition(r, "orders", 0);
    cr_expect_eq(log_durable_offset(partition_log(p)), 3);
    cr_expect_eq(partition_high_watermark(p), 3);
    cr_assert_eq(produce(r, -1, (struct rig_batch){.n = 2}, &offset), KE_NONE);
    cr_expect_eq(offset, 3);
    rig_destroy(r, false);
}

Test(append, acks_one_is_answered_before_the_flush_and_not_read_until_then)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "orders", 1, NULL);
    struct partition *p = rig_partition(r, "orders", 0);
    cr_assert_eq(produce(r, 1, (struct rig_batch){.n = 3}, NULL), KE_NONE);
    cr_expect_eq(partition_log_end(p), 3);
    cr_expect_leq(partition_high_watermark(p), log_durable_offset(partition_log(p)));
    rig_destroy(r, false);
}

struct own {
    struct partition_append append;
    struct slice batch;
    int done;
};

static void own_done(struct partition_append *a)
{
    LIST_ENTRY(a, struct own, append)->done++;
}

static void append(struct rig *r, struct own *o, int16_t acks, enum partition_origin origin)
{
    o->batch = rig_batch(r, &(struct rig_batch){.n = 2});
    o->done = 0;
    o->append = (struct partition_append){.batch = (uint8_t *)(uintptr_t)o->batch.p,
                                          .batch_bytes = o->batch.n,
                                          .origin = origin,
                                          .acks = acks,
                                          .leader_epoch = -1,
                                          .timeout_us = 5000000,
                                          .done = own_done};
    partition_append(rig_partition(r, "orders", 0), &o->append);
}

static bool is_done(void *arg)
{
    return ((struct own *)arg)->done > 0;
}

static void drop(struct own *o)
{
    free((void *)(uintptr_t)o->batch.p);
}

Test(append, one_write_and_one_flush_for_all_of_a_turn)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct own o[20];
    rig_topic(r, "orders", 1, NULL);
    int64_t before = metrics_value(rig_shard(r)->metrics, M_sundog_broker_flushes_total);
    for (int i = 0; i < 20; i++)
        append(r, &o[i], -1, i % 3 ? PARTITION_CLIENT : PARTITION_COORDINATOR);
    for (int i = 0; i < 20; i++) {
        cr_assert(rig_until(r, is_done, &o[i], RIG_PATIENCE_MS));
        cr_expect_eq(o[i].append.error, KE_NONE);
        cr_expect_eq(o[i].append.base_offset, 2 * i, "in order, whoever wrote");
        cr_expect_eq(o[i].done, 1);
        drop(&o[i]);
    }
    cr_expect_leq(metrics_value(rig_shard(r)->metrics, M_sundog_broker_flushes_total) - before, 2);
    rig_destroy(r, false);
}

struct ordered {
    struct partition_append append;
    struct slice batch;
    int *turn, at;
};

static void ordered_done(struct partition_append *a)
{
    struct ordered *o = LIST_ENTRY(a, struct ordered, append);
    o->at = ++*o->turn;
}

static bool all_done(void *arg)
{
    return *(int *)arg == 3;
}

/* What repeats a batch is acknowledged with it, not with what has come since. */
Test(append, a_duplicate_waits_no_longer_than_what_it_repeats)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    rig_topic(r, "orders", 1, NULL);
    struct ordered o[3];
    const int32_t sequences[] = {0, 2, 0};
    int turn = 0;
    for (int i = 0; i < 3; i++) {
        o[i].batch = rig_batch(r, &(struct rig_batch){.n = 2, .producer_id = 7, .sequence = sequences[i]});
        o[i].turn = &turn;
        o[i].append = (struct partition_append){.batch = (uint8_t *)(uintptr_t)o[i].batch.p,
                                                .batch_bytes = o[i].batch.n,
                                                .acks = -1,
                                                .leader_epoch = -1,
                                                .timeout_us = 5000000,
                                                .done = ordered_done};
        partition_append(rig_partition(r, "orders", 0), &o[i].append);
        if (i != 1)
            rig_turn(r, 0); /* the first one's flush is under way when the others are written */
    }
    cr_assert(rig_until(r, all_done, &turn, 5000));
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(o[i].append.error, KE_NONE);
        cr_expect_eq(o[i].append.base_offset, sequences[i]);
        free((void *)(uintptr_t)o[i].batch.p);
    }
    cr_expect_lt(o[0].at, o[2].at);
    cr_expect_lt(o[2].at, o[1].at);
    rig_destroy(r, false);
}

/* The row of orders-0 in recovery-point-offset-checkpoint; -1: there is none. */
static int64_t recovery_row(struct rig *r)
{
    char path[300], topic[64];
    long long partition, offset, found = -1;
    snprintf(path, sizeof path, "%s/recovery-point-offset-checkpoint", rig_dir(r));
    FILE *f = fopen(path, "r");
    for (char line[200]; f && fgets(line, sizeof line, f);)
        if (sscanf(line, "%63s %lld %lld", topic, &partition, &offset) == 3 && strcmp(topic, "orders") == 0)
            found = offset;
    if (f)
        fclose(f);
    return found;
}

static bool has_moved(void *arg)
{
    return recovery_row(arg) > 0;
}

Test(append, the_recovery_point_follows_many_bytes_before_its_time)
{
    char text[1001];
    memset(text, 't', 1000);
    text[1000] = 0;
    for (int page_cache = 0; page_cache <= 1; page_cache++) {
        struct rig *r = rig_create(&(struct rig_options){.page_cache = page_cache});
        rig_topic(r, "orders", 1, NULL);
        cr_assert_eq(produce(r, -1, (struct rig_batch){.n = 100}, NULL), KE_NONE);
        cr_expect_not(rig_until(r, has_moved, r, 500), "a little waits for the minute");
        for (int i = 0; i < 70; i++)
            cr_assert_eq(produce(r, -1, (struct rig_batch){.n = 500, .text = text}, NULL), KE_NONE);
        cr_expect_eq(rig_until(r, has_moved, r, page_cache ? 500 : RIG_PATIENCE_MS), !page_cache);
        rig_destroy(r, false);
    }
}

Test(append, more_than_a_write_holds_is_written_all_the_same)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    enum { N = PARTITION_PENDING_MAX + 50 };
    struct own *o = calloc(N, sizeof *o);
    rig_topic(r, "orders", 1, NULL);
    for (int i = 0; i < N; i++)
        append(r, &o[i], 1, PARTITION_CLIENT);
    for (int i = 0; i < N; i++) {
        cr_assert(rig_until(r, is_done, &o[i], RIG_PATIENCE_MS));
        cr_expect_eq(o[i].append.base_offset, 2 * i);
        drop(&o[i]);
    }
    free(o);
    rig_destroy(r, false);
}

Test(append, a_partition_that_is_being_opened_takes_what_comes)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct own o;
    struct uuid id = uuid_small(77);
    partitions_host(rig_shard(r)->partitions, &(struct partition_spec){.topic = SLICE_LIT("early"),
                                                                       .topic_id = id,
                                                                       .leader = RIG_NODE,
                                                                       .leader_epoch = 0,
                                                                       .replicas_n = 1,
                                                                       .isr_n = 1});
    struct partition *p = partition_find(rig_shard(r), &id, 0);
    cr_assert(partition_is_opening(p));
    o.batch = rig_batch(r, &(struct rig_batch){.n = 2});
    o.done = 0;
    o.append = (struct partition_append){.batch = (uint8_t *)(uintptr_t)o.batch.p,
                                         .batch_bytes = o.batch.n,
                                         .acks = -1,
                                         .leader_epoch = 0,
                                         .done = own_done};
    partition_append(p, &o.append);
    cr_expect_eq(o.done, 0);
    cr_assert(rig_until(r, is_done, &o, RIG_PATIENCE_MS));
    cr_expect_eq(o.append.error, KE_NONE);
    cr_expect_eq(o.append.last_offset, 1);
    drop(&o);
    rig_destroy(r, false);
}

static struct partition_spec spec_of(struct rig *r, int32_t leader, int32_t epoch)
{
    const struct image_topic *t = image_topic(rig_shard(r)->image, SLICE_LIT("orders"));
    return (struct partition_spec){.topic = t->name,
                                   .topic_id = t->id,
                                   .leader = leader,
                                   .leader_epoch = epoch,
                                   .replicas_n = 2,
                                   .isr_n = 1};
}

Test(append, who_no_longer_leads_answers_so_and_epochs_fence)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct own o;
    rig_topic(r, "orders", 1, NULL);
    append(r, &o, -1, PARTITION_CLIENT);
    struct partition_spec away = spec_of(r, 9, 1), back = spec_of(r, RIG_NODE, 2);
    partitions_host(rig_shard(r)->partitions, &away);
    cr_expect_eq(o.done, 1);
    cr_expect_eq(o.append.error, KE_NOT_LEADER_OR_FOLLOWER);
    drop(&o);
    append(r, &o, 1, PARTITION_CLIENT);
    cr_expect_eq(o.append.error, KE_NOT_LEADER_OR_FOLLOWER);
    drop(&o);
    partitions_host(rig_shard(r)->partitions, &back);
    append(r, &o, 1, PARTITION_CLIENT);
    cr_assert(rig_until(r, is_done, &o, RIG_PATIENCE_MS));
    cr_expect_eq(o.append.error, KE_NONE);
    drop(&o);
    cr_expect_eq(partition_leader_epoch(rig_partition(r, "orders", 0)), 2);
    rig_destroy(r, false);
}

Test(append, too_few_in_sync_refuse_acks_all_only)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct own o;
    rig_topic(r, "orders", 1, "min.insync.replicas=2");
    append(r, &o, -1, PARTITION_CLIENT);
    cr_assert(rig_until(r, is_done, &o, RIG_PATIENCE_MS));
    cr_expect_eq(o.append.error, KE_NONE, "one replica cannot be asked for two");
    drop(&o);
    struct partition_spec two = spec_of(r, RIG_NODE, 0);
    partitions_host(rig_shard(r)->partitions, &two);
    append(r, &o, -1, PARTITION_CLIENT);
    cr_expect_eq(o.append.error, KE_NOT_ENOUGH_REPLICAS);
    drop(&o);
    append(r, &o, 1, PARTITION_CLIENT);
    cr_assert(rig_until(r, is_done, &o, RIG_PATIENCE_MS));
    cr_expect_eq(o.append.error, KE_NONE);
    drop(&o);
    rig_destroy(r, false);
}

/* As Kafka (LogValidator): the largest timestamp of a batch is what its records say, whatever its producer wrote
 * there; the CRC follows, and nothing else changes. */
static void max_timestamp_of(const char *config, enum codec codec, int64_t claimed, int64_t want)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct slice sent = rig_batch(r, &(struct rig_batch){.n = 3, .timestamp = 1700000000000, .codec = codec});
    struct batch_header h;
    struct buf out;
    int64_t next, before = loop_wall_ms(rig_shard(r)->loop);
    buf_init(&out, 1 << 20);
    rig_topic(r, "orders", 1, config);
    batch_max_timestamp_set((uint8_t *)(uintptr_t)sent.p, sent.n, claimed);
    cr_assert_eq(rig_produce(r, "orders", 0, -1, sent).error_code, KE_NONE, "%d claims %lld", codec,
                 (long long)claimed);
    cr_assert_eq(partition_read(rig_partition(r, "orders", 0), 0, 3, 1 << 20, &out, &next), 0);
    cr_assert_eq(batch_read(buf_slice(&out), &h, NULL), 0, "the CRC is that of what is stored");
    cr_expect(want >= 0 ? h.max_timestamp == want : h.max_timestamp >= before, "%d claims %lld: %lld", codec,
              (long long)claimed, (long long)h.max_timestamp);
    cr_expect_eq(batch_is(&h, BATCH_LOG_APPEND_TIME), want < 0);
    cr_assert_eq(out.n, sent.n);
    cr_expect_arr_eq(out.p + BATCH_HEADER_BYTES, sent.p + BATCH_HEADER_BYTES, sent.n - BATCH_HEADER_BYTES);
    buf_fini(&out);
    free((void *)(uintptr_t)sent.p);
    rig_destroy(r, false);
}

Test(append, the_largest_timestamp_is_what_the_records_say)
{
    static const enum codec codecs[] = {CODEC_NONE, CODEC_LZ4, CODEC_ZSTD};
    static const int64_t claims[] = {1700000000000, 5, 1700000000001, INT64_C(99999999999999), -1};
    for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++) {
        for (size_t j = 0; j < sizeof claims / sizeof *claims; j++)
            max_timestamp_of(NULL, codecs[i], claims[j], 1700000000000);
        max_timestamp_of("message.timestamp.type=LogAppendTime", codecs[i], 5, -1);
    }
}

struct told {
    struct partition_watch watch;
    int changed, gone;
};

static void on_changed(struct partition_watch *w, struct partition *p)
{
    struct told *t = LIST_ENTRY(w, struct told, watch);
    cr_expect_str_eq(partition_topic(p), "orders");
    t->changed++;
}

static void on_gone(struct partition_watch *w, struct partition *p)
{
    (void)p;
    LIST_ENTRY(w, struct told, watch)->gone++;
}

Test(watch, hears_of_its_topic_alone)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct told t = {.watch = {.topic = "orders", .changed = on_changed, .gone = on_gone}};
    rig_topic(r, "other", 2, NULL);
    rig_topic(r, "orders", 2, NULL);
    partition_watch(rig_shard(r), &t.watch);
    cr_expect_eq(t.changed, 2, "those that are there");
    struct partition_spec again = spec_of(r, RIG_NODE, 1);
    partitions_host(rig_shard(r)->partitions, &again);
    cr_expect_eq(t.changed, 3);
    rig_remove_topic(r, "other");
    cr_expect_eq(t.gone, 0);
    rig_remove_topic(r, "orders");
    cr_expect_eq(t.gone, 2);
    rig_destroy(r, false);
}

Test(read, copies_whole_batches_up_to_a_limit)
{
    struct rig *r = rig_create(&(struct rig_options){0});
    struct buf out;
    int64_t next;
    buf_init(&out, 1 << 20);
    rig_topic(r, "orders", 1, NULL);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(produce(r, -1, (struct rig_batch){.n = 2}, NULL), KE_NONE);
    struct partition *p = rig_partition(r, "orders", 0);
    cr_assert_eq(partition_read(p, 0, 10, 1, &out, &next), 0);
    cr_expect_eq(next, 2, "one at least");
    cr_assert_eq(partition_read(p, 3, 7, 1 << 20, &out, &next), 0);
    cr_expect_eq(next, 6);
    cr_assert_eq(partition_read(p, 10, 10, 1 << 20, &out, &next), 0);
    cr_expect_eq(next, 10);
    cr_expect_eq(partition_read(p, 11, 11, 1 << 20, &out, &next), -E_RANGE);
    buf_fini(&out);
    rig_destroy(r, false);
}
