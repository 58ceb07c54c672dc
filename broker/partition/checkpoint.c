/* The checkpoint files of the log dirs: recovery points, start offsets, high watermarks, cleaned offsets.
 *
 * A file holds the partitions of all shards: each shard sends its rows to shard 0, which writes them together in
 * LANE_DIRS when the last shard's have come; a file that would not change is not written. A row must never outlive its
 * partition: a new log of the same name would be trusted further than it is durable. So rows that were collected
 * before a deletion are thrown away (`deletions`), and before a log is made the files are rid of deleted names. */
#include "broker/partition/checkpoint.h"

#include "base/core/arena.h"
#include "base/runtime/log.h"
#include "broker/partition/internal.h"

#include <stdio.h>
#include <stdlib.h>

#define ROWS_ARENA_MAX ((size_t)256 << 20)

struct row {
    unsigned dir;
    struct log_checkpoint_row row;
};

struct checkpoint_rows {
    struct loop_msg msg;
    struct checkpoints *to;
    enum log_checkpoint which;
    unsigned shard;
    uint64_t deletions;
    struct arena arena;
    struct row *rows;
    size_t n;
};

struct deleted {
    struct deleted *next;
    int32_t index;
    char topic[LOG_TOPIC_MAX + 1];
};

struct checkpoints {
    struct partition_host *host;
    struct loop *home;
    unsigned shards;
    bool ending; /* rows are kept for checkpoints_write_last */
    _Atomic uint64_t deletions;
    struct deleted *deleted; /* LANE_DIRS */
    struct gather {
        struct checkpoints *owner;
        enum log_checkpoint which;
        struct loop_job job;
        bool busy;
        struct checkpoint_rows **latest, **writing; /* by shard */
        uint64_t written[LOG_DIRS_MAX];             /* hash of what is in the file */
    } gather[LOG_CHECKPOINTS];
};

int checkpoints_create(struct partition_host *h, struct loop *home, unsigned shards, struct checkpoints **out)
{
    struct checkpoints *c = calloc(1, sizeof *c);
    if (!c)
        return -E_NOMEM;
    *c = (struct checkpoints){.host = h, .home = home, .shards = shards};
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
    while (c->deleted) {
        struct deleted *next = c->deleted->next;
        free(c->deleted);
        c->deleted = next;
    }
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
    uint64_t sum = UINT64_C(0xcbf29ce484222325);
    for (unsigned s = 0; s < g->owner->shards; s++) {
        for (size_t i = 0; g->writing[s] && i < g->writing[s]->n; i++) {
            const struct row *r = &g->writing[s]->rows[i];
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

static void write_all(struct gather *g)
{
    struct partition_host *h = g->owner->host;
    size_t n = 0;
    for (unsigned s = 0; s < g->owner->shards; s++) {
        if (g->writing[s] && g->writing[s]->deletions != atomic_load(&g->owner->deletions))
            return; /* the next round will be right */
        n += g->writing[s] ? g->writing[s]->n : 0;
    }
    struct log_checkpoint_row *all = calloc(n ? n : 1, sizeof *all);
    if (!all)
        return;
    for (unsigned dir = 0; dir < log_dirs_count(h->dirs); dir++)
        if (log_dir_online(h->dirs, dir))
            write_dir(g, dir, all);
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
    drop_written(g);
    g->busy = false;
}

static void take_latest(struct gather *g)
{
    for (unsigned s = 0; s < g->owner->shards; s++) {
        g->writing[s] = g->latest[s];
        g->latest[s] = NULL;
    }
}

static void arrived(struct loop_msg *msg)
{
    struct checkpoint_rows *r = LIST_ENTRY(msg, struct checkpoint_rows, msg);
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
    switch (which) {
    case LOG_CHECKPOINT_RECOVERY: return log_recovery_point(p->log);
    case LOG_CHECKPOINT_START: return log_start_offset(p->log);
    case LOG_CHECKPOINT_REPLICATION: return p->high_watermark;
    case LOG_CHECKPOINT_CLEANER: return p->clean_offset;
    case LOG_CHECKPOINTS: break;
    }
    return 0;
}

void checkpoint_collect(struct partitions *ps, enum log_checkpoint which)
{
    struct checkpoints *c = ps->host->checkpoints;
    struct checkpoint_rows *r = calloc(1, sizeof *r);
    if (!r)
        return;
    arena_init(&r->arena, ROWS_ARENA_MAX);
    r->to = c;
    r->which = which;
    r->shard = ps->shard->index;
    r->deletions = atomic_load(&c->deletions);
    r->rows = ARENA_NEWS(&r->arena, struct row, HASH_COUNT(ps->all));
    struct partition *p, *next;
    HASH_ITER (hh, ps->all, p, next) {
        if (!r->rows || !partition_online(p) ||
            (which == LOG_CHECKPOINT_CLEANER && !p->config.cleanup_compact))
            continue;
        char *topic = arena_cstr(&r->arena, slice_str(p->topic));
        if (topic)
            r->rows[r->n++] = (struct row){p->dir, {topic, p->key.index, value(p, which)}};
    }
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

/* ---- deletions ---- */

void checkpoint_deleting(struct checkpoints *c)
{
    atomic_fetch_add(&c->deletions, 1);
}

void checkpoint_deleted(struct checkpoints *c, const char *topic, int32_t index)
{
    struct deleted *d = calloc(1, sizeof *d);
    if (!d)
        return;
    d->index = index;
    snprintf(d->topic, sizeof d->topic, "%s", topic);
    d->next = c->deleted;
    c->deleted = d;
}

struct purge {
    struct checkpoints *c;
    struct arena arena;
    struct log_checkpoint_row *rows;
    size_t n, cap, dropped;
};

static void keep_row(void *arg, const struct log_checkpoint_row *row)
{
    struct purge *u = arg;
    for (const struct deleted *d = u->c->deleted; d; d = d->next) {
        if (d->index == row->partition && strcmp(d->topic, row->topic) == 0) {
            u->dropped++;
            return;
        }
    }
    if (u->n == u->cap) {
        struct log_checkpoint_row *more = ARENA_NEWS(&u->arena, struct log_checkpoint_row, 2 * u->cap + 64);
        if (!more)
            return;
        if (u->n)
            memcpy(more, u->rows, u->n * sizeof *more);
        u->rows = more;
        u->cap = 2 * u->cap + 64;
    }
    char *topic = arena_cstr(&u->arena, slice_str(row->topic));
    if (topic)
        u->rows[u->n++] = (struct log_checkpoint_row){topic, row->partition, row->offset};
}

int checkpoint_purge(struct checkpoints *c, struct err *err)
{
    struct partition_host *h = c->host;
    int rc = 0;
    for (unsigned dir = 0; c->deleted && dir < log_dirs_count(h->dirs); dir++) {
        for (int which = 0; log_dir_online(h->dirs, dir) && which < LOG_CHECKPOINTS; which++) {
            struct purge u = {.c = c};
            arena_init(&u.arena, ROWS_ARENA_MAX);
            const char *path = log_dir_of(h->dirs, dir);
            int r = log_checkpoint_read(h->disk, path, (enum log_checkpoint)which, keep_row, &u, err);
            if (!r && arena_failed(&u.arena))
                r = -E_NOMEM;
            if (!r && u.dropped > 0) {
                c->gather[which].written[dir] = 0;
                r = log_checkpoint_write(h->disk, path, (enum log_checkpoint)which, u.rows, u.n, err);
            }
            arena_fini(&u.arena);
            rc = rc ? rc : r;
        }
    }
    while (!rc && c->deleted) {
        struct deleted *next = c->deleted->next;
        free(c->deleted);
        c->deleted = next;
    }
    return rc;
}
