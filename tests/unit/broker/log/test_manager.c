/* Log dirs, their markers and checkpoint files; retention and truncation through the log's own calls. */
#include "broker/log/dump.h"
#include "broker/log/manager.h"
#include "tests/support/log/crash_disk.h"
#include "tests/support/log/log_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static struct crash_disk *cd;
static struct disk *disk;
static struct log_files *files;
static struct log_config config;
static struct err err;
static const char *const dirs[] = {"/a", "/b"};

static void setup(void)
{
    cd = crash_disk_create();
    disk = crash_disk_disk(cd);
    files = log_files_create(disk, 8);
    config = log_config_default();
    config.segment_bytes = 1000;
    config.retention_ms = -1;
}

static void teardown(void)
{
    log_files_destroy(files);
    crash_disk_destroy(cd);
}

TestSuite(manager, .init = setup, .fini = teardown);

static struct log *create(struct log_dirs *d, const char *topic, int partition, unsigned *dir)
{
    struct uuid id = uuid_small(7);
    struct log_new it = {.topic = topic,
                         .partition = partition,
                         .topic_id = &id,
                         .config = &config,
                         .files = files,
                         .wall_ms = 5000,
                         .err = &err};
    log_dirs_make(d, (struct log_new *[]){&it}, 1);
    cr_assert_eq(it.rc, 0, "%s", err.text);
    *dir = it.dir;
    return it.log;
}

static int delete_one(struct log_dirs *d, unsigned dir, struct log *l, const uint64_t random[2])
{
    struct log_gone it = {.dir = dir, .log = l, .random = {random[0], random[1]}, .err = &err};
    log_dirs_delete(d, (struct log_gone *[]){&it}, 1);
    return it.rc;
}

Test(manager, two_dirs_share_the_logs_and_survive_a_clean_stop)
{
    struct log_dirs *d, *other;
    unsigned dir;
    int in[2] = {0, 0};
    cr_assert_eq(log_dirs_open(disk, dirs, 2, &d, &err), 0, "%s", err.text);
    cr_assert_eq(log_dirs_open(disk, dirs, 2, &other, &err), -E_BUSY);
    cr_assert(strstr(err.text, "/a/.lock"), "%s", err.text);
    for (int i = 0; i < 10; i++) {
        struct log *l = create(d, i % 2 ? "orders-eu" : "t", i, &dir);
        in[dir]++;
        cr_assert_eq(log_close(l, &err), 0);
    }
    cr_assert(in[0] == 5 && in[1] == 5);
    struct log_checkpoint_row rows[] = {{"t", 0, 12}, {"orders-eu", 3, 34}};
    cr_assert_eq(log_checkpoint_write(disk, "/a", LOG_CHECKPOINT_REPLICATION, rows, 2, &err), 0);
    bool clean[2] = {true, false};
    log_dirs_close(d, clean, 77);
    cr_assert_eq(log_dirs_open(disk, dirs, 2, &d, &err), 0, "%s", err.text);
    cr_assert(log_dir_was_clean(d, 0) && !log_dir_was_clean(d, 1));
    cr_assert_eq(log_dir_broker_epoch(d, 0), 77);
    cr_assert_eq(log_dir_broker_epoch(d, 1), -1);
    cr_assert_eq(disk_kind(disk, "/a/.kafka_cleanshutdown"), DISK_NONE, "a crash from now on is unclean");
    size_t n;
    const struct log_found *f = log_dirs_found(d, &n);
    cr_assert_eq(n, 10);
    struct uuid id = uuid_small(7);
    for (size_t i = 0; i < n; i++) {
        struct log *l;
        cr_assert(uuid_eq(&f[i].topic_id, &id));
        cr_assert(i == 0 || strcmp(f[i - 1].topic, f[i].topic) <= 0);
        if (strcmp(f[i].topic, "t") == 0 && f[i].partition == 0)
            cr_assert_eq(f[i].high_watermark, f[i].dir == 0 ? 12 : 0);
        cr_assert_eq(log_dirs_load(d, &f[i], &config, files, 5000, &l, &err), 0, "%s", err.text);
        log_abandon(l);
    }
    log_dirs_close(d, NULL, 0);
}

static void count_deleted(void *arg, const char *name)
{
    *(int *)arg += strstr(name, "-delete") != NULL;
}

Test(manager, deleted_logs_leave_and_their_folders_too)
{
    struct log_dirs *d;
    unsigned dir;
    uint64_t random[2] = {1, 2};
    size_t n;
    char topic[250];
    memset(topic, 'x', 249);
    topic[249] = 0;
    cr_assert_eq(log_dirs_open(disk, dirs, 1, &d, &err), 0);
    struct log *l = create(d, topic, 0, &dir);
    cr_assert_eq(delete_one(d, dir, l, random), 0, "%s", err.text);
    l = create(d, topic, 0, &dir);
    random[0] = 3;
    cr_assert_eq(delete_one(d, dir, l, random), 0);
    log_dirs_close(d, NULL, 0);
    cr_assert_eq(log_dirs_open(disk, dirs, 1, &d, &err), 0);
    log_dirs_found(d, &n);
    cr_assert_eq(n, 0);
    log_dirs_sweep(disk, "/a");
    int names = 0;
    disk_list(disk, "/a", count_deleted, &names);
    cr_assert_eq(names, 0);
    log_dirs_close(d, NULL, 0);
}

Test(manager, the_same_partition_twice_is_refused)
{
    struct log_dirs *d;
    cr_assert_eq(disk_make_dirs(disk, "/a/t-0", NULL), 0);
    cr_assert_eq(disk_make_dirs(disk, "/b/t-0", NULL), 0);
    cr_assert_eq(log_dirs_open(disk, dirs, 2, &d, &err), -E_EXISTS);
    cr_assert(strstr(err.text, "t-0 is in /a and in /b"), "%s", err.text);
}

Test(manager, one_dir_fails_alone)
{
    struct log_dirs *d;
    crash_disk_fail(cd, CRASH_MKDIR, 1, 0, -E_IO, "/b");
    cr_assert_eq(log_dirs_open(disk, dirs, 2, &d, &err), 0, "%s", err.text);
    cr_assert(log_dir_online(d, 0) && !log_dir_online(d, 1));
    cr_assert(strstr(log_dir_error(d, 1), "/b"));
    unsigned dir;
    struct log *l = create(d, "t", 0, &dir);
    cr_assert_eq(dir, 0);
    log_abandon(l);
    log_dir_fail(d, 0, "gone");
    struct uuid id = uuid_small(1);
    struct log_new u = {.topic = "u", .topic_id = &id, .config = &config, .files = files, .err = &err};
    log_dirs_make(d, (struct log_new *[]){&u}, 1);
    cr_assert_eq(u.rc, -E_IO);
    log_dirs_close(d, NULL, 0);
}

Test(manager, folder_names)
{
    char topic[LOG_TOPIC_MAX + 1];
    int32_t p;
    static const char *const bad[] = {
        "",     "-0",           "t-",    "t",     "t-01",
        "t--x", "t-2147483648", "a/b-0", ".lock", "t-0.0123456789abcdef0123456789abcdef-delete"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(log_folder_parse(bad[i], topic, &p), -E_INVALID, "%s", bad[i]);
    cr_assert_eq(log_folder_parse("a-b.c_d-12", topic, &p), 0);
    cr_assert(strcmp(topic, "a-b.c_d") == 0 && p == 12);
}

static void row_seen(void *arg, const struct log_checkpoint_row *row)
{
    *(int64_t *)arg += row->offset;
}

Test(manager, checkpoint_files_are_kafkas)
{
    struct log_checkpoint_row rows[] = {{"t", 0, 12}, {"orders", 3, 34}};
    struct slice text;
    int64_t sum = 0;
    cr_assert_eq(disk_make_dirs(disk, "/a", NULL), 0);
    cr_assert_eq(log_checkpoint_read(disk, "/a", LOG_CHECKPOINT_START, row_seen, &sum, &err), 0);
    cr_assert_eq(sum, 0);
    cr_assert_eq(log_checkpoint_write(disk, "/a", LOG_CHECKPOINT_START, rows, 2, &err), 0);
    cr_assert_eq(disk_read_all(disk, "/a/log-start-offset-checkpoint", 1000, &text, &err), 0);
    cr_assert_str_eq((const char *)text.p, "0\n2\nt 0 12\norders 3 34\n");
    free((void *)text.p);
    cr_assert_eq(log_checkpoint_read(disk, "/a", LOG_CHECKPOINT_START, row_seen, &sum, &err), 0);
    cr_assert_eq(sum, 46);
    static const char *const bad[] = {"",
                                      "1\n0\n",
                                      "0\n3\nt 0 1\n",
                                      "0\n1\nt x 1\n",
                                      "0\n1\nt 0 1\nmore",
                                      "0\n-1\n",
                                      "0\n1\nt 0 99999999999999999999\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(disk_replace(disk, "/a/log-start-offset-checkpoint", slice_str(bad[i]), &err), 0);
        cr_assert_eq(log_checkpoint_read(disk, "/a", LOG_CHECKPOINT_START, row_seen, &sum, &err), -E_CORRUPT,
                     "%zu", i);
    }
}

/* ---- retention ---- */

static struct log_rig rig;

static void rig_with(int batches)
{
    rig_init(&rig, disk, "/logs");
    rig.config = config;
    rig.config.file_delete_delay_ms = 100;
    cr_assert_eq(rig_open(&rig, false, 0), 0);
    for (int i = 0; i < batches; i++)
        rig_append(&rig, &(struct rig_batch){.value_bytes = 200, .tag = i, .timestamp = 1000 + i});
}

Test(manager, retention_by_time_size_and_start)
{
    struct log_retained gone;
    rig_with(30);
    unsigned before = log_segments(rig.l);
    struct log_slice held;
    cr_assert_eq(log_read(rig.l, 0, INT64_MAX, 500, LOG_READ_WITHIN, &held, NULL), 0);
    rig.config.retention_ms = 10;
    log_configure(rig.l, &rig.config);
    cr_assert_eq(log_retain(rig.l, 1020, 30, &gone, &err), 0);
    cr_assert(gone.segments > 0 && gone.segments < before);
    int64_t start = log_start_offset(rig.l);
    cr_assert(start > 0 && start <= 10);
    cr_assert_eq(log_sweep(rig.l, 1050), gone.segments * 3);
    cr_assert_eq(log_sweep(rig.l, 1200), 0);
    struct buf b;
    buf_init(&b, 10000);
    cr_assert_eq(log_slice_load(&held, &b), 0, "who reads, reads on");
    buf_fini(&b);
    log_slice_drop(&held);

    rig.config.retention_ms = -1;
    rig.config.retention_bytes = 2000;
    log_configure(rig.l, &rig.config);
    cr_assert_eq(log_retain(rig.l, 1200, start + 1, &gone, &err), 0);
    cr_assert_eq(gone.segments, 0, "never at or past the limit");
    cr_assert_eq(log_retain(rig.l, 1200, 30, &gone, &err), 0);
    cr_assert(log_size_bytes(rig.l) >= 2000 && log_size_bytes(rig.l) < 3300);

    cr_assert_eq(log_set_start(rig.l, 31), -E_RANGE);
    cr_assert_eq(log_set_start(rig.l, 30), 0);
    cr_assert_eq(log_retain(rig.l, 1200, 30, &gone, &err), 0);
    cr_assert(log_start_offset(rig.l) == 30 && log_segments(rig.l) == 1 && log_size_bytes(rig.l) == 0);
    cr_assert_eq(rig_append(&rig, &(struct rig_batch){.tag = 1}).base_offset, 30);
    rig_reopen(&rig);
    cr_assert(log_start_offset(rig.l) == 30 && log_end_offset(rig.l) == 31);
    rig_fini(&rig);
}

Test(manager, truncate_fully_begins_anew)
{
    rig_with(20);
    cr_assert_eq(log_truncate_fully(rig.l, 500, 1, &err), 0, "%s", err.text);
    cr_assert(log_start_offset(rig.l) == 500 && log_end_offset(rig.l) == 500 &&
              log_durable_offset(rig.l) == 500);
    cr_assert_eq(log_epoch_latest(rig.l), -1);
    cr_assert_eq(rig_append(&rig, &(struct rig_batch){.tag = 1}).base_offset, 500);
    rig_reopen(&rig);
    cr_assert_eq(log_end_offset(rig.l), 501);
    cr_assert_eq(log_truncate_fully(rig.l, 3, 1, &err), 0, "back as well");
    cr_assert_eq(rig_append(&rig, &(struct rig_batch){.tag = 1}).base_offset, 3);
    cr_assert_eq(rig_crash(&rig, 0), 0, "%s", rig.err.text);
    cr_assert(log_start_offset(rig.l) == 3 && log_end_offset(rig.l) == 4);
    rig_fini(&rig);
}

/* ---- dump ---- */

struct lines {
    int n;
    char all[20000];
};

static void line_seen(void *arg, const char *line)
{
    struct lines *l = arg;
    l->n++;
    strncat(l->all, line, sizeof l->all - strlen(l->all) - 2);
    strncat(l->all, "\n", 2);
}

Test(manager, dump_prints_every_file)
{
    struct lines out = {0};
    rig_with(12);
    rig_append(&rig,
               &(struct rig_batch){.producer_id = 9, .sequence = 4, .key = "k%d", .tag = 5, .epoch = 3});
    cr_assert_eq(log_close(rig.l, &rig.err), 0);
    rig.l = NULL;
    cr_assert_eq(
        log_dump_print(disk, "/logs/t-0/00000000000000000000.log", LOG_DUMP_RECORDS, line_seen, &out, &err),
        0, "%s", err.text);
    cr_assert(strstr(out.all, "offsets 0..0 records 1 epoch 0 data codec none"), "%s", out.all);
    cr_assert(strstr(out.all, "offset 1 timestamp 1001 key null value \"1.0."), "%s", out.all);
    out = (struct lines){0};
    cr_assert_eq(
        log_dump_print(disk, "/logs/t-0/00000000000000000013.snapshot", LOG_DUMP_JSON, line_seen, &out, &err),
        0);
    cr_assert(strstr(out.all, "{\"producerId\":9,\"producerEpoch\":0,\"lastSequence\":4,\"lastOffset\":12,"),
              "%s", out.all);
    out = (struct lines){0};
    cr_assert_eq(log_dump_print(disk, "/logs/t-0/leader-epoch-checkpoint", 0, line_seen, &out, &err), 0);
    cr_assert_str_eq(out.all, "epoch 0 starts at offset 0\nepoch 3 starts at offset 12\n");
    out = (struct lines){0};
    cr_assert_eq(log_dump_print(disk, "/logs/t-0/00000000000000000000.timeindex", 0, line_seen, &out, &err),
                 0);
    cr_assert(strstr(out.all, "timestamp 100"), "%s", out.all);
    cr_assert_eq(log_dump_print(disk, "/logs/t-0/00000000000000000000.index", 0, line_seen, &out, &err), 0);
    crash_disk_flip(cd, "/logs/t-0/00000000000000000000.log", 100, 1);
    out = (struct lines){0};
    cr_assert_eq(
        log_dump_print(disk, "/logs/t-0/00000000000000000000.log", LOG_DUMP_RECORDS, line_seen, &out, &err),
        -E_CORRUPT);
    cr_assert(strstr(out.all, "WRONG"));
    cr_assert_gt(out.n, 2, "what follows is printed too");
    cr_assert_eq(log_dump_print(disk, "/logs/t-0/x.txt", 0, line_seen, &out, &err), -E_INVALID);
    rig_fini(&rig);
}

/* ---- many at once ---- */

#define MANY 70

static void make_many(struct log_dirs *d, struct log_new made[MANY], const struct uuid *id)
{
    struct log_new *all[MANY];
    for (int i = 0; i < MANY; i++) {
        made[i] = (struct log_new){.topic = "many",
                                   .partition = i,
                                   .topic_id = id,
                                   .config = &config,
                                   .files = files,
                                   .wall_ms = 5000,
                                   .err = &err};
        all[i] = &made[i];
    }
    log_dirs_make(d, all, MANY);
}

/* What was made before a power cut at this moment is whole or not there; `all`: it is there. */
static void whole_after_cut(const struct crash_disk *from, struct rng *r, const struct uuid *id, bool all)
{
    struct crash_disk *cut = crash_disk_cut(from, r, 500000);
    struct log_files *own = log_files_create(crash_disk_disk(cut), 8);
    struct log_dirs *d;
    size_t n;
    cr_assert_eq(log_dirs_open(crash_disk_disk(cut), dirs, 2, &d, &err), 0, "%s", err.text);
    for (unsigned i = 0; i < 2; i++)
        cr_assert(log_dir_online(d, i), "%s", log_dir_error(d, i));
    const struct log_found *f = log_dirs_found(d, &n);
    cr_assert(n == MANY || (n < MANY && !all), "%zu", n);
    for (size_t i = 0; i < n; i++) {
        struct log *l;
        cr_assert(uuid_eq(&f[i].topic_id, id) || (uuid_is_zero(&f[i].topic_id) && !all));
        cr_assert_eq(log_dirs_load(d, &f[i], &config, own, 5000, &l, &err), 0, "%s", err.text);
        cr_assert_eq(log_end_offset(l), 0);
        log_abandon(l);
    }
    log_dirs_close(d, NULL, 0);
    log_files_destroy(own);
    crash_disk_destroy(cut);
}

static struct {
    struct rng rng;
    struct uuid id;
    unsigned calls;
} cutting;

static void cut_here(void *arg, enum crash_op op)
{
    (void)arg, (void)op;
    if (cutting.calls++ % 5 == 0 || op == CRASH_SYNC_ALL)
        whole_after_cut(cd, &cutting.rng, &cutting.id, false);
}

Test(manager, many_logs_are_made_with_one_sync_and_outlive_a_power_cut, .timeout = 280)
{
    struct log_dirs *d;
    struct log_new made[MANY];
    rng_init(&cutting.rng, 11);
    cutting.id = uuid_small(7);
    cr_assert_eq(log_dirs_open(disk, dirs, 2, &d, &err), 0, "%s", err.text);
    disk_sync_dir(disk, "/");
    uint64_t syncs = crash_disk_calls(cd, CRASH_SYNC), folders = crash_disk_calls(cd, CRASH_SYNC_DIR);
    crash_disk_hook(cd, cut_here, NULL);
    make_many(d, made, &cutting.id);
    crash_disk_hook(cd, NULL, NULL);
    cr_assert_geq(cutting.calls, 4 * MANY);
    cr_assert_eq(crash_disk_calls(cd, CRASH_SYNC_ALL), 2); /* one a log dir */
    cr_assert_eq(crash_disk_calls(cd, CRASH_SYNC), syncs);
    cr_assert_eq(crash_disk_calls(cd, CRASH_SYNC_DIR), folders);
    for (int i = 0; i < MANY; i++) {
        cr_assert(made[i].rc == 0 && made[i].log, "%s", err.text);
        cr_assert_eq(made[i].dir, (unsigned)i % 2);
    }
    for (int i = 0; i < 10; i++)
        whole_after_cut(cd, &cutting.rng, &cutting.id, true);
    struct log_gone gone[MANY], *all[MANY];
    for (int i = 0; i < MANY; i++) {
        gone[i] = (struct log_gone){.dir = made[i].dir, .log = made[i].log, .random = {1, (uint64_t)i}};
        all[i] = &gone[i];
    }
    log_dirs_delete(d, all, MANY);
    cr_assert_eq(crash_disk_calls(cd, CRASH_SYNC_DIR), folders + 2);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(gone[i].rc, 0);
    log_dirs_close(d, NULL, 0);
}

Test(manager, of_logs_that_could_not_be_synced_nothing_is_left)
{
    struct log_dirs *d;
    struct log_new made[MANY];
    struct uuid id = uuid_small(7);
    cr_assert_eq(log_dirs_open(disk, dirs, 2, &d, &err), 0, "%s", err.text);
    crash_disk_fail(cd, CRASH_SYNC_ALL, 1, 1, -E_NOSPACE, "/b");
    make_many(d, made, &id);
    for (int i = 0; i < MANY; i++) {
        char path[32];
        snprintf(path, sizeof path, "/%c/many-%d", "ab"[i % 2], i);
        cr_assert_eq(made[i].rc, i % 2 ? -E_NOSPACE : 0);
        cr_assert_eq(disk_kind(disk, path), i % 2 ? DISK_NONE : DISK_IS_DIR);
        if (made[i].log)
            log_abandon(made[i].log);
    }
    log_dirs_close(d, NULL, 0);
}

Test(manager, a_blank_id_beside_records_is_no_unfinished_log)
{
    struct log_dirs *d;
    unsigned dir;
    cr_assert_eq(log_dirs_open(disk, dirs, 1, &d, &err), 0, "%s", err.text);
    cr_assert_eq(log_close(create(d, "t", 0, &dir), &err), 0);
    log_dirs_close(d, NULL, 0);
    crash_disk_resize(cd, "/a/t-0/partition.metadata", 0);
    crash_disk_set(cd, "/a/t-0/00000000000000000000.log", 0, "x", 1);
    cr_assert_neq(log_dirs_open(disk, dirs, 1, &d, &err), 0);
    cr_assert(strstr(err.text, "partition.metadata cannot be read"), "%s", err.text);
    cr_assert_eq(disk_kind(disk, "/a/t-0"), DISK_IS_DIR);
}
