/* Opening and recovering the metadata log. */
#include "broker/quorum/store_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define VOTERS_BYTES_MAX ((size_t)1 << 20)
#define PATH_SIZE        (SNAPSHOT_PATH_MAX + SNAPSHOT_NAME_MAX)

/* ---- the folder ---- */

static int write_partition_metadata(struct quorum_store *s, struct err *err)
{
    static const char text[] = "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ";
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/partition.metadata", s->dir);
    if (disk_kind(s->disk, path) != DISK_NONE)
        return 0;
    return disk_replace(s->disk, path, SLICE_LIT(text), err);
}

struct listing {
    struct quorum_store *s;
    char leftover[32][SNAPSHOT_NAME_MAX]; /* more than that go at the next start */
    unsigned leftovers_n;
    bool zero; /* the 0-0 checkpoint that formatting leaves */
    bool too_many;
};

static void list_one(void *arg, const char *name)
{
    struct listing *l = arg;
    struct snapshot_id id;
    switch (snapshot_name_parse(name, &id)) {
    case SNAPSHOT_PART:
    case SNAPSHOT_DELETED:
        if (l->leftovers_n < sizeof l->leftover / sizeof *l->leftover)
            snprintf(l->leftover[l->leftovers_n++], SNAPSHOT_NAME_MAX, "%s", name);
        break;
    case SNAPSHOT_COMPLETE:
        if (id.end_offset == 0) {
            l->zero = true;
        } else if (l->s->snapshots_n < QUORUM_SNAPSHOTS_MAX - 1) { /* one more is made before some go */
            l->s->snapshots[l->s->snapshots_n++] = (struct quorum_snapshot){.id = id};
        } else {
            l->too_many = true;
        }
        break;
    case SNAPSHOT_NONE: break;
    }
}

static int compare_snapshots(const void *a, const void *b)
{
    const struct snapshot_id *x = &((const struct quorum_snapshot *)a)->id,
                             *y = &((const struct quorum_snapshot *)b)->id;
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? -1 : 1;
    return (x->end_offset > y->end_offset) - (x->end_offset < y->end_offset);
}

static void measure_snapshot(struct quorum_store *s, struct quorum_snapshot *snap)
{
    char name[SNAPSHOT_NAME_MAX], path[PATH_SIZE];
    struct disk_file *f;
    snapshot_name(&snap->id, name);
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    if (disk_open(s->disk, path, DISK_READ, &f, NULL) < 0)
        return;
    snap->size_bytes = disk_size(f);
    snap->made_ms = disk_mtime_ms(s->disk, path);
    disk_close(f);
}

static int list_snapshots(struct quorum_store *s, bool *zero, struct err *err)
{
    struct listing l = {.s = s};
    int rc = disk_list(s->disk, s->dir, list_one, &l);
    if (rc < 0)
        return err_set(err, rc, "%s: %s", s->dir, err_str(rc));
    if (l.too_many)
        return err_set(err, -E_LIMIT, "%s holds more than %d snapshots", s->dir, QUORUM_SNAPSHOTS_MAX);
    for (unsigned i = 0; i < l.leftovers_n; i++) {
        char path[PATH_SIZE];
        snprintf(path, sizeof path, "%s/%s", s->dir, l.leftover[i]);
        (void)disk_unlink(s->disk, path); /* seen again at the next start, should it fail */
    }
    qsort(s->snapshots, s->snapshots_n, sizeof *s->snapshots, compare_snapshots);
    for (unsigned i = 0; i < s->snapshots_n; i++)
        measure_snapshot(s, &s->snapshots[i]);
    *zero = l.zero;
    return 0;
}

/* ---- snapshot and log ---- */

struct controls {
    struct quorum_store *s;
    struct err *err;
};

static int snapshot_control(void *arg, int type, struct slice value)
{
    const struct controls *c = arg;
    return quorum_store_control(c->s, type, value, c->err);
}

static int no_record(void *arg, const struct metadata_record *r)
{
    (void)arg, (void)r;
    return -E_CORRUPT; /* it stands for an empty log */
}

static int read_zero_snapshot(struct quorum_store *s, struct err *err)
{
    struct controls c = {s, err};
    char name[SNAPSHOT_NAME_MAX], path[PATH_SIZE];
    snapshot_name(&(struct snapshot_id){0, 0}, name);
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    return snapshot_read(s->disk, path, &(struct snapshot_reader){no_record, snapshot_control, &c}, err);
}

static int open_log(struct quorum_store *s, const struct quorum_store_options *o, struct err *err)
{
    const struct quorum_snapshot *latest = s->snapshots_n ? &s->snapshots[s->snapshots_n - 1] : NULL;
    struct log_open_options lo = {.files = o->files,
                                  .wall_ms = o->wall_ms,
                                  .create = true,
                                  .create_offset = latest ? latest->id.end_offset : 0,
                                  .clean = o->clean};
    int rc = log_open(o->disk, s->dir, o->config, &lo, &s->log, err);
    if (rc < 0)
        return rc;
    int64_t start = log_start_offset(s->log), end = log_end_offset(s->log);
    int32_t epoch = log_epoch_latest(s->log);
    /* a snapshot that was loaded, or made, just before a crash that lost the log's part of the change */
    if (latest && (latest->id.epoch > epoch || (latest->id.epoch == epoch && latest->id.end_offset > end)))
        return log_truncate_fully(s->log, latest->id.end_offset, o->wall_ms, err);
    if (start > 0 && (!latest || latest->id.end_offset < start))
        return err_set(err, -E_CORRUPT,
                       "%s begins at offset %" PRId64
                       " and no snapshot reaches it: restore the missing .checkpoint file",
                       s->dir, start);
    if (start > 0 && s->snapshots[0].id.end_offset > start)
        return log_set_start(s->log, s->snapshots[0].id.end_offset);
    return 0;
}

static int load_latest(struct quorum_store *s, const struct quorum_store_options *o, struct err *err)
{
    struct image *img;
    struct controls c = {s, err};
    int64_t next = 0;
    int rc = 0;
    if (s->snapshots_n == 0) {
        img = image_empty(o->cluster_id);
        if (!img)
            rc = err_set(err, -E_NOMEM, "no memory for the metadata image");
    } else {
        const struct snapshot_id *id = &s->snapshots[s->snapshots_n - 1].id;
        next = id->end_offset;
        s->voters_in_log = true; /* a snapshot in the middle of a log has what the log had */
        rc = snapshot_load(o->disk, s->dir, id, o->cluster_id, snapshot_control, &c, &img, err);
    }
    if (rc == 0)
        replay_init(&s->replay, img, next, o->reaper);
    return rc;
}

struct replaying {
    struct quorum_store *s;
    struct err *err;
};

static int replay_one(void *arg, struct slice batch)
{
    const struct replaying *r = arg;
    return quorum_store_replay(r->s, batch, r->err);
}

static int replay_log(struct quorum_store *s, struct err *err)
{
    struct replaying r = {s, err};
    int rc = log_each(s->log, s->replay.offset_next, log_end_offset(s->log), replay_one, &r, err);
    if (rc < 0)
        return err_wrap(err, "%s", s->dir);
    if (s->replay.offset_next != log_end_offset(s->log))
        return err_set(err, -E_CORRUPT, "%s ends at offset %" PRId64 ", its records at %" PRId64, s->dir,
                       log_end_offset(s->log), s->replay.offset_next);
    return 0;
}

static int read_state(struct quorum_store *s, struct err *err)
{
    s->state = QUORUM_STATE_NEW;
    int rc = quorum_state_read(s->disk, s->dir, &s->state, err);
    s->state_found = rc == 0;
    if (rc != -E_NOTFOUND)
        return rc;
    if (quorum_store_end(s) == 0 && s->snapshots_n == 0)
        return 0;
    return err_set(err, -E_CORRUPT,
                   "%s/" QUORUM_STATE_NAME
                   " is missing beside a log: who this node voted for is lost; restore the file "
                   "from a backup, or remove the whole directory if another node has the metadata",
                   s->dir);
}

int quorum_store_open(struct quorum_store *s, const struct quorum_store_options *o, struct err *err)
{
    bool zero = false;
    *s = (struct quorum_store){.disk = o->disk};
    arena_init(&s->voters_arena, VOTERS_BYTES_MAX);
    int n = snprintf(s->dir, sizeof s->dir, "%s/" QUORUM_FOLDER, o->metadata_dir);
    int rc = n < 0 || (size_t)n >= sizeof s->dir
                 ? err_set(err, -E_LIMIT, "%s: the path is too long", o->metadata_dir)
                 : disk_make_dirs(o->disk, s->dir, err);
    if (rc == 0)
        rc = list_snapshots(s, &zero, err);
    if (rc == 0 && zero)
        rc = read_zero_snapshot(s, err);
    if (rc == 0)
        rc = open_log(s, o, err);
    if (rc == 0)
        rc = write_partition_metadata(s, err);
    if (rc == 0)
        rc = read_state(s, err);
    /* A name whose sync failed before a kill is in the page cache only: what was read is made durable before it
     * counts. */
    if (rc == 0 && !o->clean && (rc = disk_sync_dir(o->disk, s->dir)))
        rc = err_set(err, rc, "cannot sync %s", s->dir);
    if (rc == 0)
        rc = load_latest(s, o, err);
    if (rc == 0)
        rc = replay_log(s, err);
    if (rc == 0)
        replay_set_kraft_version(&s->replay, s->kraft_version);
    if (rc < 0)
        quorum_store_close(s, false, NULL);
    else
        quorum_store_check(s);
    return rc;
}

int quorum_store_close(struct quorum_store *s, bool clean, struct err *err)
{
    int rc = 0;
    if (s->log && clean)
        rc = log_close(s->log, err);
    else if (s->log)
        log_abandon(s->log);
    s->log = NULL;
    if (s->replay.img)
        replay_fini(&s->replay);
    arena_fini(&s->voters_arena);
    return rc;
}
