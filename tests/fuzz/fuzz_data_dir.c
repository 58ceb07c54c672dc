/* A data directory in which one file says anything. First byte: which file (names[]); 128: every batch in it gets the
 * CRC it should have, or nothing would get past it; 64: the node was stopped well. Opening ends with logs and an image,
 * or with a refusal that says why; what was opened takes a batch more and is opened again. */
#include "base/core/bytes.h"
#include "base/core/rng.h"
#include "broker/log/manager.h"
#include "broker/quorum/store.h"
#include "proto/kafka/batch.h"
#include "broker/metadata/batches.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/log/crash_disk.h"
#include "tests/support/metadata_gen.h"

#include <stdio.h>

#define DIR     "/data"
#define QUORUM  DIR "/" QUORUM_FOLDER "/"
#define ORDERS  DIR "/orders-0/"
#define WALL_MS INT64_C(1700000000000)

static const char *const names[] = {
    QUORUM "00000000000000000000.log",
    QUORUM "00000000000000000000.index",
    QUORUM "00000000000000000013-0000000003.checkpoint", /* replaced by the one that is there, see template */
    QUORUM "quorum-state",
    QUORUM "leader-epoch-checkpoint",
    QUORUM "00000000000000000000-0000000000.checkpoint",
    QUORUM "00000000000000000900-0000000004.checkpoint",
    DIR "/recovery-point-offset-checkpoint",
    DIR "/log-start-offset-checkpoint",
    DIR "/replication-offset-checkpoint",
    DIR "/cleaner-offset-checkpoint",
    DIR "/.kafka_cleanshutdown",
    ORDERS "partition.metadata",
    ORDERS "00000000000000000000.log",
    ORDERS "00000000000000000007.log",
    ORDERS "00000000000000000004.snapshot",
};
#define NAMES  (sizeof names / sizeof *names)
#define LATEST 2
static char latest[320];

static struct quorum_store store;

static struct quorum_store_options options(struct disk *disk, struct log_files *files,
                                           const struct log_config *c, bool clean)
{
    return (struct quorum_store_options){.disk = disk,
                                         .metadata_dir = DIR,
                                         .cluster_id = SLICE_LIT("c"),
                                         .files = files,
                                         .config = c,
                                         .wall_ms = WALL_MS,
                                         .clean = clean};
}

static int append(struct metadata_records *records, struct buf *batch)
{
    struct metadata_batch b = {store.replay.offset_next, 3, WALL_MS};
    buf_clear(batch);
    if (metadata_batch_put(&b, records->v, records->n, batch, NULL))
        abort();
    records->n = 0;
    return quorum_store_append(&store, buf_slice(batch), WALL_MS, NULL);
}

/* Some history, a snapshot, more history. */
static void fill_quorum(struct disk *disk, struct log_files *files, const struct log_config *config)
{
    struct quorum_store_options o = options(disk, files, config, false);
    struct metadata_records records;
    struct arena arena;
    struct buf batch;
    struct rng rng;
    char name[SNAPSHOT_NAME_MAX];
    rng_init(&rng, 1);
    arena_init(&arena, FUZZ_MEMORY_MAX);
    buf_init(&batch, FUZZ_MEMORY_MAX);
    metadata_records_init(&records, &arena);
    if (quorum_store_open(&store, &o, NULL) ||
        quorum_state_write(disk, store.dir, &(struct quorum_state){.epoch = 3, .leader_id = 1, .voted_id = 1},
                           0, &(int32_t){1}, 1, NULL))
        abort();
    metadata_gen_start(&records);
    for (int i = 0; i < 12; i++) {
        if (append(&records, &batch))
            abort();
        if (i == 6) {
            struct quorum_snapshot_job job = {.disk = disk, .dir = store.dir, .img = store.replay.img};
            struct snapshot_id id = {store.replay.offset_next, 3};
            quorum_snapshot_run(&job);
            if (job.rc)
                abort();
            snapshot_name(&id, name);
            snprintf(latest, sizeof latest, QUORUM "%s", name);
        }
        metadata_gen_record(&rng, store.replay.img, &records);
    }
    if (quorum_store_close(&store, true, NULL))
        abort();
    buf_fini(&batch);
    arena_fini(&arena);
}

static int put_orders(struct log *l, int64_t wall_ms)
{
    struct buf bytes;
    struct batch_builder w;
    struct batch_options o = BATCH_OPTIONS;
    struct record_new r = {.timestamp = wall_ms, .key = SLICE_LIT("k"), .value = SLICE_LIT("value")};
    struct log_append_options how = {.leader_epoch = INT32_MAX, .wall_ms = wall_ms};
    buf_init(&bytes, 1 << 20);
    batch_begin(&w, &bytes, &o);
    for (int i = 0; i < 2; i++)
        if (batch_add(&w, &r))
            abort();
    if (batch_close(&w, NULL))
        abort();
    struct log_batch b = {.bytes = bytes.p, .size_bytes = bytes.n};
    int rc = log_append(l, &b, 1, &how, NULL);
    buf_fini(&bytes);
    return rc;
}

static struct crash_disk *make_template(void)
{
    static const char *const paths[] = {DIR};
    struct crash_disk *d = crash_disk_create();
    struct disk *disk = crash_disk_disk(d);
    struct log_files *files = log_files_create(disk, 16);
    struct log_config config = log_config_default();
    struct uuid id = uuid_small(9);
    struct log_dirs *dirs;
    struct log_new it = {
        .topic = "orders", .topic_id = &id, .config = &config, .files = files, .wall_ms = WALL_MS};
    if (disk_make_dirs(disk, DIR, NULL))
        abort();
    fill_quorum(disk, files, &config);
    if (log_dirs_open(disk, paths, 1, &dirs, NULL))
        abort();
    log_dirs_make(dirs, (struct log_new *[]){&it}, 1);
    if (it.rc)
        abort();
    for (int i = 0; i < 3; i++)
        if (put_orders(it.log, WALL_MS + i))
            abort();
    if (log_close(it.log, NULL))
        abort();
    log_dirs_close(dirs, &(bool){true}, 1);
    log_files_destroy(files);
    return d;
}

/* ---- one directory ---- */

static void fix_crcs(uint8_t *p, size_t n)
{
    while (n >= BATCH_HEADER_BYTES) {
        uint32_t size = be32_get(p + BATCH_LENGTH_AT);
        if (size < BATCH_HEADER_BYTES - BATCH_PREFIX_BYTES || size > n - BATCH_PREFIX_BYTES)
            return;
        size += BATCH_PREFIX_BYTES;
        be32_put(p + BATCH_CRC_AT, batch_crc(slice_of(p, size)));
        p += size;
        n -= size;
    }
}

static void put_file(struct crash_disk *d, const char *path, const uint8_t *data, size_t n, bool fix)
{
    struct disk_file *f;
    uint8_t *copy = malloc(n + 1);
    memcpy(copy, data, n);
    if (fix)
        fix_crcs(copy, n);
    if (disk_open(crash_disk_disk(d), path, DISK_WRITE | DISK_CREATE | DISK_TRUNCATE, &f, NULL))
        abort();
    disk_close(f);
    crash_disk_set(d, path, 0, copy, n);
    free(copy);
}

static int print(void *arg, const struct metadata_record *r)
{
    return metadata_record_encode(r, arg);
}

static int open_quorum(struct disk *disk, struct log_files *files, const struct log_config *config,
                       bool clean)
{
    struct quorum_store_options o = options(disk, files, config, clean);
    struct err err = {0};
    int rc = quorum_store_open(&store, &o, &err);
    if (rc && !err.text[0])
        abort();
    return rc;
}

static void quorum(struct disk *disk, struct log_files *files, const struct log_config *config, bool clean)
{
    struct metadata_records records;
    struct arena arena;
    struct buf bytes;
    if (open_quorum(disk, files, config, clean))
        return;
    arena_init(&arena, FUZZ_MEMORY_MAX);
    buf_init(&bytes, FUZZ_MEMORY_MAX);
    metadata_records_init(&records, &arena);
    if (image_write(store.replay.img, print, &bytes, NULL))
        abort();
    struct kp_no_op_record *r = metadata_records_add(&records, kp_type_no_op_record, 0);
    (void)r;
    int64_t end = quorum_store_end(&store);
    bool more = !store.replay.open && end < INT64_MAX / 2 && quorum_store_last_epoch(&store) <= 3;
    if (more && append(&records, &bytes) == 0)
        end++;
    quorum_store_close(&store, false, NULL);
    if (open_quorum(disk, files, config, false) || quorum_store_end(&store) > end)
        abort(); /* what was opened is opened again, and has not grown */
    quorum_store_close(&store, true, NULL);
    buf_fini(&bytes);
    arena_fini(&arena);
}

static int count(void *arg, struct slice batch)
{
    *(size_t *)arg += batch.n;
    return 0;
}

static void logs(struct disk *disk, struct log_files *files, const struct log_config *config)
{
    static const char *const paths[] = {DIR};
    struct log_dirs *dirs;
    struct err err = {0};
    size_t n;
    if (log_dirs_open(disk, paths, 1, &dirs, &err)) {
        if (!err.text[0])
            abort();
        return;
    }
    const struct log_found *found = log_dirs_found(dirs, &n);
    for (size_t i = 0; i < n; i++) {
        struct log *l;
        size_t bytes = 0;
        if (strcmp(found[i].topic, "orders") != 0)
            continue;
        err = (struct err){0};
        int rc = log_dirs_load(dirs, &found[i], config, files, WALL_MS, &l, &err);
        if (rc && !err.text[0])
            abort();
        if (rc)
            continue;
        (void)log_each(l, log_start_offset(l), log_end_offset(l), count, &bytes, NULL);
        (void)put_orders(l, WALL_MS);
        (void)log_close(l, NULL);
    }
    log_dirs_close(dirs, &(bool){true}, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct crash_disk *template;
    if (n == 0)
        return 0;
    if (!template)
        template = make_template();
    unsigned which = (data[0] & 63) % NAMES;
    struct crash_disk *d = crash_disk_kill(template, -1);
    struct disk *disk = crash_disk_disk(d);
    struct log_files *files = log_files_create(disk, 16);
    struct log_config config = log_config_default();
    bool clean = data[0] & 64;
    put_file(d, which == LATEST ? latest : names[which], data + 1, n - 1, data[0] & 128);
    if (!clean)
        (void)disk_unlink(disk, names[11]);
    if (which < 7)
        quorum(disk, files, &config, clean);
    else
        logs(disk, files, &config);
    log_files_destroy(files);
    crash_disk_destroy(d);
    return 0;
}
