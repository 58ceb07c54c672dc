/* Batches, replay and snapshots: histories through files and back, and files that are damaged. */
#include "broker/metadata/snapshot.h"

#include "base/core/rng.h"
#include "base/world/disk_posix.h"
#include "broker/metadata/batches.h"
#include "broker/metadata/replay.h"
#include "proto/kafka/batch.h"
#include "tests/support/metadata_gen.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define BYTES_MAX ((size_t)1 << 24)

static struct disk *disk;
static char dir[64];

static void setup(void)
{
    snprintf(dir, sizeof dir, "/tmp/sundog-snapshot-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    disk = disk_posix_create();
}

static void teardown(void)
{
    disk_remove_tree(disk, dir);
    disk_posix_destroy(disk);
}

TestSuite(snapshot, .init = setup, .fini = teardown);

/* A log in memory, and the replay that follows it. */
struct history {
    struct rng rng;
    struct arena arena;
    struct metadata_records records;
    struct buf log;
    struct replay replay;
};

static void history_flush(struct history *h)
{
    size_t at = h->log.n;
    struct metadata_batch b = {h->replay.offset_next, 3, 1000 + h->replay.offset_next};
    struct err err = {0};
    cr_assert_eq(metadata_batch_put(&b, h->records.v, h->records.n, &h->log, &err), 0, "%s", err.text);
    cr_assert_eq(replay_batch(&h->replay, slice_of(h->log.p + at, h->log.n - at), &err), 0, "%s", err.text);
    h->records.n = 0;
}

static void history_init(struct history *h, uint64_t seed)
{
    *h = (struct history){.replay = {0}};
    rng_init(&h->rng, seed);
    arena_init(&h->arena, BYTES_MAX);
    metadata_records_init(&h->records, &h->arena);
    buf_init(&h->log, BYTES_MAX);
    replay_init(&h->replay, image_empty(SLICE_LIT("cluster")), 0, NULL);
    metadata_gen_start(&h->records);
    history_flush(h);
}

static void history_run(struct history *h, int batches)
{
    for (int i = 0; i < batches; i++) {
        metadata_gen_record(&h->rng, h->replay.img, &h->records);
        history_flush(h);
    }
}

static void history_fini(struct history *h)
{
    replay_fini(&h->replay);
    buf_fini(&h->log);
    arena_fini(&h->arena);
}

static void assert_same(const struct image *a, const struct image *b)
{
    struct buf x, y;
    buf_init(&x, BYTES_MAX);
    buf_init(&y, BYTES_MAX);
    metadata_gen_print(a, &x);
    metadata_gen_print(b, &y);
    cr_assert(slice_eq(buf_slice(&x), buf_slice(&y)));
    cr_assert_eq(image_offset(a), image_offset(b));
    cr_assert_eq(image_epoch(a), image_epoch(b));
    buf_fini(&x);
    buf_fini(&y);
}

static int replay_all(struct replay *r, struct slice log, struct err *err)
{
    while (log.n > 0) {
        struct batch_header h;
        int rc = batch_read(log, &h, err);
        if (rc == 0)
            rc = replay_batch(r, slice_of(log.p, batch_size(&h)), err);
        if (rc < 0)
            return rc;
        log = slice_of(log.p + batch_size(&h), log.n - batch_size(&h));
    }
    return 0;
}

Test(snapshot, a_snapshot_and_the_rest_of_the_log_give_what_the_whole_log_gives)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct history h;
        struct err err = {0};
        history_init(&h, seed);
        history_run(&h, (int)rng_below(&h.rng, 200));
        struct snapshot_id id = {image_offset(h.replay.img) + 1, image_epoch(h.replay.img)};
        int64_t size;
        cr_assert_eq(snapshot_write(disk, dir, h.replay.img, NULL, &size, &err), 0, "%s", err.text);
        size_t at = h.log.n;
        history_run(&h, (int)rng_below(&h.rng, 200));
        struct image *loaded;
        cr_assert_eq(snapshot_load(disk, dir, &id, SLICE_LIT("cluster"), NULL, NULL, &loaded, &err), 0, "%s",
                     err.text);
        struct replay again;
        replay_init(&again, loaded, id.end_offset, NULL);
        cr_assert_eq(replay_all(&again, slice_of(h.log.p + at, h.log.n - at), &err), 0, "%s", err.text);
        assert_same(h.replay.img, again.img);
        replay_fini(&again);
        history_fini(&h);
    }
}

Test(snapshot, a_cut_or_damaged_file_is_refused_whatever_the_place)
{
    struct history h;
    struct err err = {0};
    history_init(&h, 5);
    history_run(&h, 40);
    struct snapshot_id id = {image_offset(h.replay.img) + 1, image_epoch(h.replay.img)};
    cr_assert_eq(snapshot_write(disk, dir, h.replay.img, NULL, NULL, &err), 0);
    char name[SNAPSHOT_NAME_MAX], path[SNAPSHOT_PATH_MAX];
    snapshot_name(&id, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    struct slice whole;
    cr_assert_eq(disk_read_all(disk, path, BYTES_MAX, &whole, &err), 0);
    for (size_t cut = 0; cut < whole.n; cut += 1 + cut / 40) {
        struct image *loaded;
        cr_assert_eq(disk_replace(disk, path, slice_of(whole.p, cut), &err), 0);
        cr_assert_lt(snapshot_load(disk, dir, &id, SLICE_LIT("c"), NULL, NULL, &loaded, &err), 0,
                     "cut at %zu", cut);
        cr_assert(strstr(err.text, name), "%s", err.text);
        uint8_t *damaged = malloc(whole.n);
        memcpy(damaged, whole.p, whole.n);
        damaged[cut] ^= 0x10;
        cr_assert_eq(disk_replace(disk, path, slice_of(damaged, whole.n), &err), 0);
        free(damaged);
        int rc = snapshot_load(disk, dir, &id, SLICE_LIT("c"), NULL, NULL, &loaded, &err);
        if (rc == 0) { /* the epoch in a batch's header is outside of its CRC */
            assert_same(h.replay.img, loaded);
            image_unref(loaded);
        }
    }
    free((void *)(uintptr_t)whole.p);
    history_fini(&h);
}

Test(snapshot, names_are_kafkas_and_nothing_else_is_taken_for_one)
{
    struct snapshot_id id = {7, 3};
    char name[SNAPSHOT_NAME_MAX];
    snapshot_name(&id, name);
    cr_assert_str_eq(name, "00000000000000000007-0000000003.checkpoint");
    cr_assert_eq(snapshot_name_parse(name, &id), SNAPSHOT_COMPLETE);
    cr_assert(id.end_offset == 7 && id.epoch == 3);
    cr_assert_eq(snapshot_name_parse("00000000000000000007-0000000003.checkpoint.part", &id), SNAPSHOT_PART);
    cr_assert_eq(snapshot_name_parse("00000000000000000007-0000000003.checkpoint.deleted", &id),
                 SNAPSHOT_DELETED);
    static const char *const bad[] = {"",
                                      "x",
                                      "00000000000000000000.log",
                                      "00000000000000000007-0000000003.checkpointx",
                                      "00000000000000000007_0000000003.checkpoint",
                                      "99999999999999999999-0000000003.checkpoint",
                                      "00000000000000000007-9999999999.checkpoint",
                                      "bootstrap.checkpoint"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(snapshot_name_parse(bad[i], &id), SNAPSHOT_NONE, "%s", bad[i]);
}

static int no_record(void *arg, const struct metadata_record *r)
{
    (void)arg, (void)r;
    return 0;
}

static int count_control(void *arg, int type, struct slice value)
{
    cr_assert_gt(value.n, 0u);
    ((int *)arg)[type]++;
    return 0;
}

Test(snapshot, with_kraft_version_one_the_header_carries_the_voters)
{
    struct history h;
    struct err err = {0};
    history_init(&h, 9);
    struct kp_voters_record_voters voter = {.voter_id = 1};
    struct kp_voters_record voters = {.voters = &voter, .voters_n = 1};
    struct snapshot_quorum q = {1, &voters};
    cr_assert_eq(snapshot_write(disk, dir, h.replay.img, &q, NULL, &err), 0, "%s", err.text);
    struct snapshot_id id = {image_offset(h.replay.img) + 1, image_epoch(h.replay.img)};
    char name[SNAPSHOT_NAME_MAX], path[SNAPSHOT_PATH_MAX];
    snapshot_name(&id, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int seen[8] = {0};
    cr_assert_eq(snapshot_read(disk, path, &(struct snapshot_reader){no_record, count_control, seen}, &err),
                 0, "%s", err.text);
    cr_assert(seen[CONTROL_SNAPSHOT_HEADER] == 1 && seen[CONTROL_KRAFT_VERSION] == 1 &&
              seen[CONTROL_KRAFT_VOTERS] == 1);
    history_fini(&h);
}

Test(snapshot, an_open_transaction_shows_nothing_until_its_end)
{
    struct history h;
    history_init(&h, 11);
    metadata_records_add(&h.records, kp_type_begin_transaction_record, 0);
    struct kp_topic_record *t = metadata_records_add(&h.records, kp_type_topic_record, 0);
    *t = (struct kp_topic_record){SLICE_LIT("inside"), uuid_small(900)};
    history_flush(&h);
    cr_assert(h.replay.open);
    cr_assert_null(image_topic(h.replay.img, SLICE_LIT("inside")));
    cr_assert_eq(h.replay.offset_next, 3);
    cr_assert_eq(image_offset(h.replay.img), 0);
    metadata_records_add(&h.records, kp_type_end_transaction_record, 0);
    history_flush(&h);
    cr_assert_not_null(image_topic(h.replay.img, SLICE_LIT("inside")));
    cr_assert_eq(image_offset(h.replay.img), 3);
    history_fini(&h);
}

Test(snapshot, a_log_that_does_not_go_on_where_it_ended_is_refused)
{
    struct history h;
    struct err err = {0};
    struct buf b;
    history_init(&h, 12);
    buf_init(&b, BYTES_MAX);
    metadata_records_add(&h.records, kp_type_no_op_record, 0);
    cr_assert_eq(metadata_batch_put(&(struct metadata_batch){5, 3, 0}, h.records.v, 1, &b, &err), 0);
    cr_assert_eq(replay_batch(&h.replay, buf_slice(&b), &err), -E_CORRUPT);
    buf_fini(&b);
    history_fini(&h);
}

Test(record, frames_that_nobody_may_skip_are_refused)
{
    static const struct {
        uint8_t bytes[4];
        size_t n;
        int rc;
    } bad[] = {
        {{0}, 0, -E_CORRUPT},           {{1}, 1, -E_CORRUPT},           {{1, 20}, 2, -E_CORRUPT},
        {{0, 20, 0, 0}, 4, -E_VERSION}, {{2, 20, 0, 0}, 4, -E_VERSION}, {{1, 99, 0, 0}, 4, -E_VERSION},
        {{1, 6, 0, 0}, 4, -E_VERSION},  {{1, 20, 1, 0}, 4, -E_VERSION}, {{1, 2, 0, 0}, 4, -E_CORRUPT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct arena a;
        struct metadata_record r;
        struct err err = {0};
        arena_init(&a, 1 << 16);
        cr_assert_eq(metadata_record_decode(slice_of(bad[i].bytes, bad[i].n), &a, &r, &err), bad[i].rc, "%zu",
                     i);
        cr_assert(err.text[0]);
        arena_fini(&a);
    }
}

Test(record, a_batch_has_no_more_than_kafka_takes)
{
    struct arena a;
    struct metadata_records list;
    struct buf out;
    struct err err = {0};
    arena_init(&a, BYTES_MAX);
    buf_init(&out, BYTES_MAX);
    metadata_records_init(&list, &a);
    for (int i = 0; i <= METADATA_BATCH_RECORDS_MAX; i++)
        cr_assert_not_null(metadata_records_add(&list, kp_type_no_op_record, 0));
    struct metadata_batch b = {0, 1, 0};
    cr_assert_eq(metadata_batch_put(&b, list.v, list.n, &out, &err), -E_LIMIT);
    cr_assert_eq(out.n, 0u);
    cr_assert_eq(metadata_batch_put(&b, list.v, list.n - 1, &out, &err), 0);
    buf_fini(&out);
    arena_fini(&a);
}
