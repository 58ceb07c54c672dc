/* A log of __consumer_offsets as somebody else left it: transactions of an Apache Kafka broker, protocols that are not
 * served, records that cannot be read. */
#include "broker/group/group_record.h"
#include "tests/support/serve/rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define PARTITIONS 2
#define WALL_MS    INT64_C(1700000000000)

static const struct groups_options options = {
    .group = {.session_min_ms = 1, .session_max_ms = 1800000, .members_max = 1000},
    .offset_metadata_max_bytes = 4096,
    .commit_timeout_ms = RIG_PATIENCE_MS,
    .retention_ms = INT64_C(1) << 50,
    .retention_check_ms = 600000,
};

static struct rig *begin(const char *dir)
{
    struct rig *r = rig_create(&(struct rig_options){.dir = dir, .groups = &options});
    rig_topic(r, GROUPS_TOPIC, PARTITIONS, "cleanup.policy=compact");
    rig_topic(r, "orders", 5, NULL);
    return r;
}

/* ---- the log ---- */

struct log_text {
    struct buf bytes;
    int64_t next;
    struct batch_builder b;
};

static void batch_of(struct log_text *l, int64_t producer_id)
{
    struct batch_options o = BATCH_OPTIONS;
    o.base_offset = l->next;
    o.leader_epoch = 0;
    if (producer_id > 0) {
        o.producer_id = producer_id;
        o.producer_epoch = 0;
        o.base_sequence = 0;
        o.attributes = BATCH_TRANSACTIONAL;
    }
    batch_begin(&l->b, &l->bytes, &o);
}

static void end_batch(struct log_text *l)
{
    struct batch_header h;
    cr_assert_eq(batch_close(&l->b, &h), 0);
    l->next += h.last_offset_delta + 1;
}

static void offset(struct log_text *l, int32_t partition, int64_t at)
{
    struct offset o = {.offset = at, .metadata = SLICE_LIT("m"), .committed_ms = WALL_MS, .expires_ms = -1};
    cr_assert_eq(group_record_put_offset(&l->b, WALL_MS, SLICE_LIT("g"), SLICE_LIT("orders"), partition,
                                         at < 0 ? NULL : &o),
                 0);
}

static void marker(struct log_text *l, int64_t producer_id, enum control_type type)
{
    struct batch_options o = BATCH_OPTIONS;
    o.base_offset = l->next++;
    o.leader_epoch = 0;
    o.producer_id = producer_id;
    o.producer_epoch = 0;
    cr_assert_eq(batch_put_end_txn(&l->bytes, &o, WALL_MS, type, 0), 0);
}

static void raw(struct log_text *l, struct slice key, struct slice value)
{
    batch_of(l, 0);
    cr_assert_eq(batch_add(&l->b, &(struct record_new){.timestamp = WALL_MS, .key = key, .value = value}), 0);
    end_batch(l);
}

/* In place of every partition's log; found as after a kill. */
static void leave(const char *dir, const struct log_text *l)
{
    char path[400];
    for (int p = 0; p < PARTITIONS; p++) {
        snprintf(path, sizeof path, "%s/" GROUPS_TOPIC "-%d/00000000000000000000.log", dir, p);
        FILE *f = fopen(path, "wb");
        cr_assert(f && fwrite(l->bytes.p, 1, l->bytes.n, f) == l->bytes.n && fclose(f) == 0);
    }
    snprintf(path, sizeof path, "%s/.kafka_cleanshutdown", dir);
    remove(path);
}

static struct rig *begin_over(struct log_text *l)
{
    char dir[256];
    struct rig *r = begin(NULL);
    snprintf(dir, sizeof dir, "%s", rig_dir(r));
    rig_destroy(r, true);
    leave(dir, l);
    buf_fini(&l->bytes);
    return begin(dir);
}

static struct log_text text(void)
{
    struct log_text l = {.next = 0};
    buf_init(&l.bytes, 1 << 20);
    return l;
}

static int16_t fetch(struct rig *r, int32_t partition, int64_t *out)
{
    struct rig_call c;
    struct kp_offset_fetch_request_topics t = {
        .name = SLICE_LIT("orders"), .partition_indexes = &partition, .partition_indexes_n = 1};
    struct kp_offset_fetch_request q = {.group_id = SLICE_LIT("g"), .topics = &t, .topics_n = 1};
    int16_t error = KE_COORDINATOR_LOAD_IN_PROGRESS;
    for (int i = 0; i < 20000 && error == KE_COORDINATOR_LOAD_IN_PROGRESS; i++) {
        rig_turn(r, i ? 2 : 0);
        struct kp_offset_fetch_response *a = rig_ask(r, &c, kp_key_offset_fetch, 5, &q);
        cr_assert_not_null(a);
        error = a->error_code;
        *out = a->topics_n ? a->topics[0].partitions[0].committed_offset : -1;
        if (!error && a->topics_n)
            error = a->topics[0].partitions[0].error_code;
        rig_release(&c);
    }
    return error;
}

static void expect(struct rig *r, int32_t partition, int64_t offset_wanted)
{
    int64_t at;
    cr_assert_eq(fetch(r, partition, &at), KE_NONE);
    cr_assert_eq(at, offset_wanted, "partition %d: %lld", partition, (long long)at);
}

Test(load, offsets_of_transactions_count_by_their_markers)
{
    struct log_text l = text();
    batch_of(&l, 0);
    offset(&l, 0, 5);
    offset(&l, 4, 40);
    end_batch(&l);
    batch_of(&l, 7); /* committed below, after others have begun */
    offset(&l, 0, 9);
    offset(&l, 1, 4);
    offset(&l, 4, -1);
    end_batch(&l);
    batch_of(&l, 8); /* aborted */
    offset(&l, 1, 100);
    offset(&l, 2, 100);
    end_batch(&l);
    batch_of(&l, 9); /* never ended */
    offset(&l, 3, 55);
    end_batch(&l);
    marker(&l, 8, CONTROL_ABORT);
    batch_of(&l, 0); /* newer than what 7 wrote, though 7 commits later: the log's order decides */
    offset(&l, 1, 6);
    end_batch(&l);
    marker(&l, 7, CONTROL_COMMIT);
    raw(&l,
        SLICE_LIT("\0\7"
                  "a protocol to come"),
        SLICE_LIT("?"));
    struct rig *r = begin_over(&l);
    expect(r, 0, 9);
    expect(r, 1, 6);
    expect(r, 2, -1);
    expect(r, 3, -1);
    expect(r, 4, -1);
    rig_destroy(r, false);
}

static void expect_failed(struct log_text *l)
{
    int64_t at;
    struct rig *r = begin_over(l);
    int16_t error = fetch(r, 0, &at);
    cr_assert(error != KE_NONE && error != KE_COORDINATOR_LOAD_IN_PROGRESS, "%d", error);
    cr_assert_eq(at, -1);
    rig_destroy(r, false);
}

/* To pass over one could mean to answer with an older offset (KAFKA-5630). */
Test(load, a_record_that_cannot_be_read_stops_it)
{
    const struct {
        struct slice key, value;
    } bad[] = {
        {SLICE_NULL, SLICE_LIT("value")},                           /* no key */
        {SLICE_LIT("\0"), SLICE_LIT("value")},                      /* half a version */
        {SLICE_LIT("\0\1\0\1g"), SLICE_LIT("value")},               /* a cut key */
        {SLICE_LIT("\0\1\0\1g\0\1o\0\0\0\0"), SLICE_LIT("\0\11")},  /* a value of version 9 */
        {SLICE_LIT("\0\1\0\1g\0\1o\0\0\0\0"), SLICE_LIT("\0\3\0")}, /* a cut value */
        {SLICE_LIT("\0\2\0\1g"), SLICE_LIT("\0\3\377")},            /* a group record that is no group */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct log_text l = text();
        batch_of(&l, 0);
        offset(&l, 0, 5);
        end_batch(&l);
        raw(&l, bad[i].key, bad[i].value);
        expect_failed(&l);
    }
}

Test(load, an_open_transaction_is_given_up_when_the_load_fails)
{
    struct log_text l = text();
    batch_of(&l, 7);
    offset(&l, 0, 9);
    end_batch(&l);
    raw(&l, SLICE_NULL, SLICE_NULL);
    expect_failed(&l);
}
