/* Compaction: the last value of each key, tombstones, producers, crashes in the middle. */
#include "broker/log/compact.h"
#include "proto/kafka/errors.h"
#include "tests/support/log/crash_disk.h"
#include "tests/support/log/log_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static struct crash_disk *cd;
static struct log_rig rig;
static struct log_compact_options options;

static void setup(void)
{
    cd = crash_disk_create();
    rig_init(&rig, crash_disk_disk(cd), "/logs");
    rig.config.segment_bytes = 2000;
    rig.config.index_interval_bytes = 200;
    rig.config.cleanup_compact = true;
    rig.config.cleanup_delete = false;
    rig.config.delete_retention_ms = 1000;
    options = (struct log_compact_options){
        .wall_ms = rig.wall_ms, .limit_offset = INT64_MAX, .map_bytes = 1 << 16, .seed = 42};
    cr_assert_eq(rig_open(&rig, false, 0), 0, "%s", rig.err.text);
}

static void teardown(void)
{
    rig_fini(&rig);
    crash_disk_destroy(cd);
}

TestSuite(compact, .init = setup, .fini = teardown);

static int compact(struct log_compacted *out)
{
    struct log_compaction *c;
    rig_flush(&rig, LOG_FLUSH_CHECKPOINT);
    int rc = log_compact_begin(rig.l, &options, &c, &rig.err);
    if (rc <= 0)
        return rc;
    log_compact_run(c);
    rc = log_compact_done(rig.l, c, out, &rig.err);
    return rc ? rc : 1;
}

struct seen {
    int64_t newest[64]; /* by key k0 … k63: offset of the newest record, and its tag; -1 */
    int64_t tag[64];
    int records, tombstones;
    int64_t last;
};

static void see(void *arg, const struct batch_header *h, const struct record *r)
{
    struct seen *s = arg;
    (void)h;
    cr_assert_gt(r->offset, s->last);
    s->last = r->offset;
    s->records++;
    s->tombstones += slice_is_null(r->value);
    int k = r->key.p ? atoi((const char *)r->key.p + 1) : 63;
    s->newest[k] = r->offset;
    s->tag[k] = r->value.p ? strtoll((const char *)r->value.p, NULL, 10) : -1;
}

static struct seen look(void)
{
    struct seen s = {.last = -1};
    memset(s.newest, -1, sizeof s.newest);
    cr_assert_eq(rig_each_record(&rig, log_start_offset(rig.l), log_end_offset(rig.l), see, &s), 0, "%s",
                 rig.err.text);
    return s;
}

static void put(int key, int tag, bool tombstone)
{
    char name[16];
    snprintf(name, sizeof name, "k%d", key);
    rig_append(&rig, &(struct rig_batch){.key = name,
                                         .tag = tag,
                                         .value_bytes = 50,
                                         .tombstone = tombstone,
                                         .timestamp = 1000 + tag,
                                         .codec = (enum codec)(tag % CODEC_COUNT)});
}

Test(compact, keeps_the_last_value_of_each_key)
{
    for (int i = 0; i < 300; i++)
        put(i % 10, i, false);
    unsigned segments = log_segments(rig.l);
    int64_t end = log_end_offset(rig.l);
    struct log_compacted out;
    struct seen before = look();
    cr_assert_eq(compact(&out), 1, "%s", rig.err.text);
    struct seen after = look();
    cr_assert_leq(log_segments(rig.l), segments);
    cr_assert_lt(after.records, before.records);
    cr_assert_leq(out.bytes_after, out.bytes_before);
    for (int k = 0; k < 10; k++)
        cr_assert(after.newest[k] == before.newest[k] && after.tag[k] == before.tag[k], "key %d", k);
    cr_assert_eq(log_end_offset(rig.l), end);
    cr_assert_gt(out.clean_offset, 200);
    options.clean_offset = out.clean_offset;
    cr_assert_eq(compact(&out), 0, "nothing is dirty");
    for (int round = 0; round < 2; round++) {
        struct log_slice s;
        for (int64_t at = 0; at <= end; at++) {
            cr_assert_eq(log_read(rig.l, at, end, 500, LOG_READ_AT_LEAST_ONE, &s, &rig.err), 0, "%s",
                         rig.err.text);
            cr_assert(at == end || s.next_offset > at);
            log_slice_drop(&s);
        }
        rig_reopen(&rig);
        struct seen again = look();
        cr_assert_eq(again.records, after.records);
    }
    cr_assert_eq(rig_crash(&rig, log_recovery_point(rig.l)), 0, "%s", rig.err.text);
    cr_assert_eq(look().records, after.records);
    cr_assert_eq(rig_crash(&rig, 0), 0, "%s", rig.err.text);
    cr_assert_eq(look().records, after.records);
}

Test(compact, tombstones_stay_for_their_time_and_go)
{
    put(1, 1, false);
    put(1, 2, true);
    for (int i = 0; i < 100; i++)
        put(2 + i % 3, 10 + i, false);
    struct log_compacted out;
    cr_assert_eq(compact(&out), 1);
    cr_assert_eq(look().tombstones, 1, "marked now");
    for (int i = 0; i < 100; i++)
        put(2 + i % 3, 200 + i, false);
    options.clean_offset = out.clean_offset;
    options.wall_ms += 999;
    cr_assert_eq(compact(&out), 1);
    cr_assert_eq(look().tombstones, 1, "not yet");
    for (int i = 0; i < 100; i++)
        put(2 + i % 3, 300 + i, false);
    options.clean_offset = out.clean_offset;
    options.wall_ms += 1;
    cr_assert_eq(compact(&out), 1);
    cr_assert_eq(look().tombstones, 0);
    cr_assert_eq(look().newest[1], -1);
}

Test(compact, producer_state_survives)
{
    for (int i = 0; i < 20; i++)
        rig_append(&rig, &(struct rig_batch){
                             .key = "k1", .tag = i, .producer_id = 5, .sequence = i, .value_bytes = 90});
    for (int i = 0; i < 100; i++)
        put(1, 100 + i, false);
    struct log_compacted out;
    cr_assert_eq(compact(&out), 1);
    cr_assert_eq(log_close(rig.l, &rig.err), 0);
    rig.l = NULL;
    char path[300];
    for (int64_t at = 0; at <= 200; at++) { /* no snapshot: only the log can tell */
        snprintf(path, sizeof path, "%s/%020lld.snapshot", rig.dir, (long long)at);
        (void)disk_unlink(rig.disk, path);
    }
    cr_assert_eq(rig_open(&rig, true, 0), 0);
    struct log_batch b = rig_append(&rig, &(struct rig_batch){.key = "k1", .producer_id = 5, .sequence = 19});
    cr_assert(b.duplicate && b.base_offset == 19, "its last batch was kept, empty");
    b = rig_append(&rig, &(struct rig_batch){.key = "k1", .producer_id = 5, .sequence = 21});
    cr_assert_eq(b.error, KE_OUT_OF_ORDER_SEQUENCE_NUMBER);
}

Test(compact, a_small_map_takes_several_rounds)
{
    options.map_bytes = 64 * 24; /* 48 keys */
    for (int i = 0; i < 600; i++)
        put(i % 60, i, false);
    struct seen before = look();
    struct log_compacted out;
    int rounds = 0;
    while (compact(&out) == 1 && rounds++ < 100) {
        cr_assert_gt(out.clean_offset, options.clean_offset);
        options.clean_offset = out.clean_offset;
    }
    cr_assert(rounds > 3 && rounds < 100, "%d", rounds);
    struct seen after = look();
    for (int k = 0; k < 60; k++)
        cr_assert(after.newest[k] == before.newest[k] && after.tag[k] == before.tag[k]);
    cr_assert_lt(after.records, 400);
}

Test(compact, nothing_above_the_limit_or_too_young)
{
    for (int i = 0; i < 200; i++)
        put(i % 4, i, false);
    options.limit_offset = 100;
    struct log_compacted out;
    cr_assert_eq(compact(&out), 1);
    cr_assert_leq(out.clean_offset, 100);
    struct seen s = look();
    cr_assert_geq(s.records, 100);
    options.limit_offset = INT64_MAX;
    options.clean_offset = out.clean_offset;
    rig.config.min_compaction_lag_ms = 1000;
    log_configure(rig.l, &rig.config);
    options.wall_ms = 1000 + 1000 + 150; /* records of tag 150 and later are too young */
    cr_assert_eq(compact(&out), 1);
    cr_assert_leq(out.clean_offset, 152);
    struct log_dirtiness d;
    options.clean_offset = 0;
    options.wall_ms = INT64_C(1) << 40;
    cr_assert_eq(log_dirtiness(rig.l, &options, &d, NULL), 0);
    cr_assert(d.due && d.dirty_bytes > 0 && d.clean_bytes == 0);
}

/* A key for each topic that ever was: the share that is dirty gets less and less. */
Test(compact, small_segments_do_not_wait_for_their_share)
{
    struct log_compacted out;
    struct log_dirtiness d;
    unsigned most = 0;
    rig.config.segment_bytes = 1 << 20;
    rig.config.segment_ms = 1;
    rig.config.min_cleanable_dirty_ratio = 0.9;
    log_configure(rig.l, &rig.config);
    for (int i = 0; i < 400; i++) {
        put(i, 2 * i, false);
        rig_flush(&rig, LOG_FLUSH_CHECKPOINT);
        cr_assert_eq(log_dirtiness(rig.l, &options, &d, NULL), 0);
        if (d.due) {
            cr_assert_eq(compact(&out), 1, "%s", rig.err.text);
            options.clean_offset = out.clean_offset;
        }
        if (log_segments(rig.l) > most)
            most = log_segments(rig.l);
    }
    cr_assert(most >= 8 && most <= 10, "%u segments", most);
    for (int i = 0; i < 20; i++)
        put(i, 1000 + 2 * i, false);
    rig_flush(&rig, LOG_FLUSH_CHECKPOINT);
    cr_assert_eq(log_dirtiness(rig.l, &options, &d, NULL), 0);
    cr_assert(d.due && d.clean_bytes > 9 * d.dirty_bytes);
    rig.config.segment_bytes = 1000; /* what would not become one segment waits for its share */
    log_configure(rig.l, &rig.config);
    cr_assert_eq(log_dirtiness(rig.l, &options, &d, NULL), 0);
    cr_assert(!d.due);
}

Test(compact, a_corrupt_batch_stops_it_and_nothing_changes)
{
    for (int i = 0; i < 200; i++)
        put(i % 4, i, false);
    rig_flush(&rig, LOG_FLUSH_CHECKPOINT);
    char path[300];
    snprintf(path, sizeof path, "%s/%020d.log", rig.dir, 0);
    crash_disk_flip(cd, path, 300, 1);
    struct log_compacted out;
    int64_t size = log_size_bytes(rig.l);
    cr_assert_eq(compact(&out), -E_CORRUPT);
    cr_assert_eq(log_size_bytes(rig.l), size);
    cr_assert(!log_fenced(rig.l));
    crash_disk_flip(cd, path, 300, 1);
    cr_assert_eq(compact(&out), 1);
}

/* At each change of the disk during a compaction: power cuts and a kill; whatever is left opens and has the same last
 * values. */
struct crashes {
    struct rng rng;
    struct seen want;
    int64_t point, end;
    int states;
};

static void check_crash(struct crashes *c, struct crash_disk *left)
{
    struct log_rig keep = rig;
    struct crash_disk *keep_cd = cd;
    cd = left;
    rig.disk = crash_disk_disk(left);
    rig.files = log_files_create(rig.disk, 8);
    rig.l = NULL;
    cr_assert_eq(rig_open(&rig, false, c->point), 0, "state %d: %s", c->states, rig.err.text);
    struct seen got = look();
    cr_assert_eq(log_end_offset(rig.l), c->end);
    for (int k = 0; k < 64; k++)
        cr_assert(got.newest[k] == c->want.newest[k] && got.tag[k] == c->want.tag[k], "state %d key %d",
                  c->states, k);
    log_abandon(rig.l);
    log_files_destroy(rig.files);
    crash_disk_destroy(left);
    rig = keep;
    cd = keep_cd;
    c->states++;
}

static void on_change(void *arg, enum crash_op op)
{
    struct crashes *c = arg;
    (void)op;
    for (int i = 0; i < 4; i++)
        check_crash(c, crash_disk_cut(cd, &c->rng, 500000));
    check_crash(c, crash_disk_kill(cd, -1));
}

Test(compact, survives_a_crash_at_every_step)
{
    for (int i = 0; i < 250; i++)
        put(i % 20, i, false);
    rig_flush(&rig, LOG_FLUSH_CHECKPOINT);
    struct crashes c = {.want = look(), .point = log_recovery_point(rig.l), .end = log_end_offset(rig.l)};
    rng_init(&c.rng, 7);
    crash_disk_hook(cd, on_change, &c);
    struct log_compacted out;
    cr_assert_eq(compact(&out), 1, "%s", rig.err.text);
    rig_flush(&rig, LOG_FLUSH_DATA);
    crash_disk_hook(cd, NULL, NULL);
    cr_assert_gt(c.states, 100);
}

Test(compact, a_stopped_one_leaves_nothing)
{
    for (int i = 0; i < 200; i++)
        put(i % 4, i, false);
    rig_flush(&rig, LOG_FLUSH_CHECKPOINT);
    struct log_compaction *c;
    struct log_compacted out;
    int64_t size = log_size_bytes(rig.l);
    cr_assert_eq(log_compact_begin(rig.l, &options, &c, &rig.err), 1);
    cr_assert_eq(log_compact_begin(rig.l, &options, &c, &rig.err), -E_BUSY);
    cr_assert_eq(log_truncate(rig.l, 10, rig.wall_ms, NULL), -E_BUSY);
    log_compact_stop(c);
    log_compact_run(c);
    cr_assert_eq(log_compact_done(rig.l, c, &out, &rig.err), -E_AGAIN);
    cr_assert_eq(log_size_bytes(rig.l), size);
    cr_assert_eq(compact(&out), 1);
}
