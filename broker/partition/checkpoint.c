/* The checkpoint files of the log dirs: recovery points, start offsets, high watermarks, cleaned offsets. Here they are
 * written from time to time; checkpoint_raise.c writes starts that cannot wait, checkpoint_purge.c takes rows out.
 *
 * A file holds the partitions of all shards: each shard sends its rows to shard 0, which writes them together in
 * LANE_DIRS when the last shard's have come; a file that would not change is not written. A row must never outlive its
 * partition: a new log of the same name would be trusted further than it is durable. So rows that were collected
 * before a deletion are thrown away (`deletions`), and before a log is made the files are rid of deleted names: those of
 * this run, and before the first one those of runs before, which have rows but were not found. */
#include "broker/partition/checkpoint_internal.h"

#include "base/runtime/log.h"
#include "broker/log/spare.h"

#include <stdlib.h>

struct checkpoint_rows {
    struct loop_msg msg;
    struct checkpoints *to;
    enum log_checkpoint which;
    unsigned shard;
    uint64_t deletions, raises;
    struct arena arena;
    struct checkpoint_row *rows;
    size_t n;
};

int checkpoints_create(struct partition_host *h, struct loop *home, unsigned shards, struct checkpoints **out)
{
    struct checkpoints *c = calloc(1, sizeof *c);
    assert(shards > 0);
    if (!c)
        return -E_NOMEM;
    *c = (struct checkpoints){.host = h, .home = home, .shards = shards};
    c->raises = calloc(shards, sizeof *c->raises);
    if (!c->raises) {
        free(c);
        return -E_NOMEM;
    }
    for (int i = 0; i < LOG_CHECKPOINTS; i++) {
        struct gather *g = &c->gather[i];
        g->owner = c;
        g->which = (enum log_checkpoint)i;
        g->latest = calloc(shards, sizeof(struct checkpoint_rows *));
        g->writing = calloc(shards, sizeof(struct checkpoint_rows *));
        if (!g->latest || !g->writing) {
            checkpoints_destroy(c);
            return -E_NOMEM;
        }
    }
    *out = c;
    return 0;
}

static void rows_free(struct checkpoint_rows *r)
{
    if (!r)
        return;
    arena_fini(&r->arena);
    free(r);
}

void checkpoints_destroy(struct checkpoints *c)
{
    if (!c)
        return;
    for (int i = 0; i < LOG_CHECKPOINTS; i++) {
        struct gather *g = &c->gather[i];
        assert(!g->busy);
        for (unsigned s = 0; g->latest && s < c->shards; s++)
            rows_free(g->latest[s]);
        free(g->latest);
        free(g->writing);
    }
    checkpoint_forget_deleted(c);
    free(c->raises);
    free(c);
}

/* ---- writing ---- */

static uint64_t hash(uint64_t h, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * UINT64_C(0x100000001b3); /* FNV-1a */
    return h;
}

static void write_dir(struct gather *g, unsigned dir, struct log_checkpoint_row *all)
{
    struct partition_host *h = g->owner->host;
    struct err err = {0};
    size_t n = 0;
    assert(dir < LOG_DIRS_MAX);
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (unsigned s = 0; s < g->owner->shards; s++) {
        for (size_t i = 0; g->writing[s] && i < g->writing[s]->n; i++) {
            const struct checkpoint_row *r = &g->writing[s]->rows[i];
            if (r->dir != dir)
                continue;
            all[n++] = r->row;
            sum = hash(hash(hash(sum, r->row.topic, strlen(r->row.topic)), &r->row.partition, 4),
                       &r->row.offset, 8);
        }
    }
    if (sum == g->written[dir])
        return;
    int rc = log_checkpoint_write(h->disk, log_dir_of(h->dirs, dir), g->which, all, n, &err);
    if (!rc)
        g->written[dir] = sum;
    else
        log_error("broker.partition", "checkpoint failed error=%s", err.text);
    if (rc == -E_IO)
        partition_dir_failed(h, dir, err.text);
}

/* What has happened since the rows were collected makes them wrong. */
static bool is_old(const struct gather *g, const struct checkpoint_rows *r)
{
    const struct checkpoints *c = g->owner;
    assert(r->shard < c->shards);
    assert(r->which == g->which);
    return r->deletions != atomic_load(&c->deletions) ||
           (g->which == LOG_CHECKPOINT_START && r->raises != atomic_load(&c->raises[r->shard]));
}

static void write_all(struct gather *g)
{
    struct partition_host *h = g->owner->host;
    size_t n = 0;
    for (unsigned s = 0; s < g->owner->shards; s++) {
        if (g->writing[s] && is_old(g, g->writing[s]))
            return; /* the next round will be right */
        n += g->writing[s] ? g->writing[s]->n : 0;
    }
    struct log_checkpoint_row *all = calloc(n ? n : 1, sizeof *all);
    if (!all)
        return;
    for (unsigned dir = 0; dir < log_dirs_count(h->dirs); dir++) {
        if (!log_dir_online(h->dirs, dir))
            continue;
        write_dir(g, dir, all);
        if (g->which == LOG_CHECKPOINT_START && !g->owner->spare[dir])
            g->owner->spare[dir] = spare_fill(h->disk, log_dir_of(h->dirs, dir)) == 0;
    }
    free(all);
}

static void run(struct loop_job *job)
{
    write_all(LIST_ENTRY(job, struct gather, job));
}

static void drop_written(struct gather *g)
{
    for (unsigned s = 0; s < g->owner->shards; s++) {
        rows_free(g->writing[s]);
        g->writing[s] = NULL;
    }
}

static void done(struct loop_job *job)
{
    struct gather *g = LIST_ENTRY(job, struct gather, job);
    assert(g->busy);
    drop_written(g);
    g->busy = false;
}

static void take_latest(struct gather *g)
{
    for (unsigned s = 0; s < g->owner->shards; s++) {
        assert(!g->writing[s]);
        g->writing[s] = g->latest[s];
        g->latest[s] = NULL;
    }
}

static void arrived(struct loop_msg *msg)
{
    struct checkpoint_rows *r = LIST_ENTRY(msg, struct checkpoint_rows, msg);
    assert(r->which < LOG_CHECKPOINTS);
    assert(r->shard < r->to->shards);
    struct gather *g = &r->to->gather[r->which];
    rows_free(g->latest[r->shard]);
    g->latest[r->shard] = r;
    if (g->busy || r->to->ending)
        return;
    for (unsigned s = 0; s < r->to->shards; s++)
        if (!g->latest[s])
            return;
    take_latest(g);
    g->busy = true;
    g->job.lane = LANE_DIRS;
    g->job.run = run;
    g->job.done = done;
    loop_job(r->to->home, &g->job);
}

void checkpoints_end(struct checkpoints *c)
{
    c->ending = true;
}

void checkpoints_write_last(struct checkpoints *c)
{
    assert(c->ending);
    for (int i = 0; i < LOG_CHECKPOINTS; i++) {
        struct gather *g = &c->gather[i];
        assert(!g->busy);
        bool all = true;
        for (unsigned s = 0; s < c->shards; s++)
            all &= g->latest[s] != NULL;
        if (!all)
            continue;
        take_latest(g);
        write_all(g);
        drop_written(g);
    }
}

bool checkpoints_busy(const struct checkpoints *c)
{
    for (int i = 0; i < LOG_CHECKPOINTS; i++)
        if (c->gather[i].busy)
            return true;
    return false;
}

/* ---- collecting ---- */

static int64_t value(const struct partition *p, enum log_checkpoint which)
{
    assert(p->log);
    switch (which) {
    case LOG_CHECKPOINT_RECOVERY: return log_recovery_point(p->log);
    case LOG_CHECKPOINT_START: {
        int64_t start = log_start_offset(p->log);
        return start > p->start_on_way ? start : p->start_on_way;
    }
    case LOG_CHECKPOINT_REPLICATION: return p->high_watermark;
    case LOG_CHECKPOINT_CLEANER: return p->clean_offset;
    case LOG_CHECKPOINTS: break;
    }
    return 0;
}

/* A log that is still being opened, or could not be, is as the checkpoints have it: without its row it would be checked
 * from the beginning, and deleted records come back. */
static bool row_of(const struct partition *p, enum log_checkpoint which, struct checkpoint_row *out)
{
    bool failed = sm_state(&p->state) == PARTITION_FAILED;
    bool compacts = which != LOG_CHECKPOINT_CLEANER || p->config.cleanup_compact;
    out->dir = p->dir;
    if (partition_online(p) || (failed && p->log && which == LOG_CHECKPOINT_START)) {
        out->row.offset = value(p, which);
        return compacts;
    }
    bool waits = sm_state(&p->state) == PARTITION_OPENING || (failed && !p->log);
    if (!waits || !p->found)
        return false;
    out->dir = p->found->dir;
    switch (which) {
    case LOG_CHECKPOINT_RECOVERY: out->row.offset = p->found->recovery_point; break;
    case LOG_CHECKPOINT_START: out->row.offset = p->found->start_offset; break;
    case LOG_CHECKPOINT_REPLICATION: out->row.offset = p->found->high_watermark; break;
    case LOG_CHECKPOINT_CLEANER:
    case LOG_CHECKPOINTS: return false;
    }
    return true;
}

void checkpoint_collect(struct partitions *ps, enum log_checkpoint which)
{
    struct checkpoints *c = ps->host->checkpoints;
    assert(which < LOG_CHECKPOINTS);
    assert(ps->shard->index < c->shards);
    struct checkpoint_rows *r = calloc(1, sizeof *r);
    if (!r)
        return;
    arena_init(&r->arena, CHECKPOINT_ROWS_MAX);
    r->to = c;
    r->which = which;
    r->shard = ps->shard->index;
    r->deletions = atomic_load(&c->deletions);
    r->raises = atomic_load(&c->raises[r->shard]);
    r->rows = ARENA_NEWS(&r->arena, struct checkpoint_row, HASH_COUNT(ps->all));
    struct partition *p, *next;
    HASH_ITER (hh, ps->all, p, next) {
        struct checkpoint_row row;
        if (!r->rows || !row_of(p, which, &row))
            continue;
        row.row.topic = arena_cstr(&r->arena, slice_str(p->topic));
        row.row.partition = p->key.index;
        if (row.row.topic)
            r->rows[r->n++] = row;
    }
    assert(r->n <= HASH_COUNT(ps->all));
    if (arena_failed(&r->arena)) {
        rows_free(r);
        return;
    }
    r->msg.fn = arrived;
    if (ps->shard->index == 0)
        arrived(&r->msg);
    else
        loop_post(c->home, &r->msg);
}
