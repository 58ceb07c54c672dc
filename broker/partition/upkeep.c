/* What has its time: retention, sweeping, producer ids, checkpoints, compaction. One timer each, per shard. */
#include "broker/partition/internal.h"

#include "base/runtime/log.h"
#include "broker/partition/checkpoint.h"

#include <stdlib.h>

/* Deleted folders wait at most this long for their removal, deleted files for file.delete.delay.ms; one sweep looks
 * at all. */
#define SWEEP_US            INT64_C(61000000)
#define SWEEP_MIN_US        INT64_C(1000000)
#define EARLY_CHECKPOINT_US INT64_C(200000)

struct upkeep {
    struct partitions *ps;
    struct loop_timer sweep;
    int64_t sweep_every_us;  /* the shortest that was asked for since all was swept */
    struct loop_timer early; /* recovery points, before their time */
    bool stopped;
    struct loop_job folders; /* removes "-delete" folders */
    bool folders_busy, folders_due;
    struct loop_job compact;
    struct partition *compacting;
    struct metric_cell *retention_bytes, *compactions, *compaction_bytes;
};

static void sweep_files_soon(struct partition *p);

static int64_t cleanable_limit(const struct partition *p)
{
    return partition_limit(p, PARTITION_COMMITTED);
}

/* ---- retention ---- */

static void retain(void *arg, struct partition *p)
{
    struct upkeep *u = arg;
    struct log_retained gone = {0};
    struct err err = {0};
    int64_t wall = loop_wall_ms(u->ps->shard->loop);
    if (!partition_online(p))
        return;
    int64_t start = log_start_offset(p->log);
    assert(p->high_watermark <= log_end_offset(p->log));
    if (log_retain(p->log, wall, p->high_watermark, &gone, &err)) {
        log_error("broker.partition", "retention failed partition=%s-%d error=%s", p->topic, p->key.index,
                  err.text);
        if (log_fenced(p->log))
            partition_fenced(p);
        return;
    }
    assert(log_start_offset(p->log) >= start); /* P14 */
    assert(log_start_offset(p->log) <= p->high_watermark);
    log_expire_producers(p->log, wall);
    if (gone.segments > 0) {
        assert(gone.bytes >= 0);
        log_info("broker.partition", "segments deleted partition=%s-%d segments=%u bytes=%lld start=%lld",
                 p->topic, p->key.index, gone.segments, (long long)gone.bytes,
                 (long long)log_start_offset(p->log));
        metric_add(u->retention_bytes, gone.bytes);
        sweep_files_soon(p);
    }
    if (log_start_offset(p->log) != start)
        partition_changed(p); /* who waits below it must be told */
}

static void on_retention(void *arg)
{
    struct upkeep *u = arg;
    assert(!u->stopped);
    partitions_each(u->ps, retain, u);
    loop_timer_in(&u->ps->retention, u->ps->host->retention_interval_us);
}

static void sweep_one(void *arg, struct partition *p)
{
    unsigned *left = arg;
    if (partition_online(p))
        *left += log_sweep(p->log, loop_wall_ms(p->set->shard->loop));
}

static void folders_run(struct loop_job *job)
{
    struct upkeep *u = LIST_ENTRY(job, struct upkeep, folders);
    struct partition_host *h = u->ps->host;
    for (unsigned i = 0; i < log_dirs_count(h->dirs); i++)
        if (log_dir_online(h->dirs, i))
            log_dirs_sweep(h->disk, log_dir_of(h->dirs, i));
}

static void folders_done(struct loop_job *job)
{
    struct upkeep *u = LIST_ENTRY(job, struct upkeep, folders);
    assert(u->folders_busy);
    u->folders_busy = false;
    host_maybe_closed(u->ps);
}

static void on_sweep(void *arg)
{
    struct upkeep *u = arg;
    unsigned left = 0;
    assert(!u->stopped);
    partitions_each(u->ps, sweep_one, &left);
    if (u->folders_due && !u->folders_busy) {
        assert(!u->ps->closing);
        u->folders_due = false;
        u->folders_busy = true;
        u->folders = (struct loop_job){.lane = LANE_DIRS, .run = folders_run, .done = folders_done};
        loop_job(u->ps->shard->loop, &u->folders);
    }
    if (left > 0)
        loop_timer_in(&u->sweep, u->sweep_every_us);
    else
        u->sweep_every_us = SWEEP_US;
}

static void sweep_within(struct partitions *ps, int64_t us)
{
    struct upkeep *u = ps->upkeep;
    if (!u || ps->closing)
        return;
    bool sooner = us < u->sweep_every_us;
    if (sooner)
        u->sweep_every_us = us;
    assert(u->sweep_every_us >= SWEEP_MIN_US);
    assert(u->sweep_every_us <= SWEEP_US);
    if (!u->sweep.armed || sooner)
        loop_timer_in(&u->sweep, u->sweep_every_us);
}

void upkeep_sweep_soon(struct partitions *ps)
{
    sweep_within(ps, SWEEP_US);
}

/* This log has deleted files: looked at when their delay is over. */
static void sweep_files_soon(struct partition *p)
{
    int64_t delay_ms = p->config.file_delete_delay_ms;
    int64_t us = delay_ms < SWEEP_US / 1000 ? delay_ms * 1000 + SWEEP_MIN_US : SWEEP_US;
    sweep_within(p->set, us < SWEEP_US ? us : SWEEP_US);
}

void upkeep_folder_deleted(struct partitions *ps)
{
    ps->upkeep->folders_due = true;
    upkeep_sweep_soon(ps);
}

/* ---- checkpoints ---- */

static void want_checkpoint(void *arg, struct partition *p)
{
    (void)arg;
    if (!partition_online(p) || log_recovery_point(p->log) >= log_end_offset(p->log))
        return;
    assert(p->log);
    p->flush_checkpoint = true;
    flush_want(p);
}

/* The rows are those of the flushes asked for the last time. */
static void on_recovery(void *arg)
{
    struct partitions *ps = arg;
    assert(!ps->upkeep->stopped);
    checkpoint_collect(ps, LOG_CHECKPOINT_RECOVERY);
    checkpoint_collect(ps, LOG_CHECKPOINT_START);
    checkpoint_collect(ps, LOG_CHECKPOINT_CLEANER);
    partitions_each(ps, want_checkpoint, NULL);
    loop_timer_in(&ps->recovery, ps->host->recovery_interval_us);
}

static void on_early(void *arg)
{
    checkpoint_collect(((struct upkeep *)arg)->ps, LOG_CHECKPOINT_RECOVERY);
}

void upkeep_checkpoint_soon(struct partitions *ps)
{
    struct loop_timer *t = &ps->upkeep->early;
    if (!t->armed && !ps->upkeep->stopped)
        loop_timer_in(t, EARLY_CHECKPOINT_US);
}

static void flush_if_due(void *arg, struct partition *p)
{
    (void)arg;
    if (partition_online(p) && log_durable_offset(p->log) < log_end_offset(p->log))
        flush_want(p);
}

static void on_watermarks(void *arg)
{
    struct partitions *ps = arg;
    assert(!ps->upkeep->stopped);
    checkpoint_collect(ps, LOG_CHECKPOINT_REPLICATION);
    if (!ps->host->flush_before_ack)
        partitions_each(ps, flush_if_due, NULL);
    loop_timer_in(&ps->watermarks, ps->host->watermark_interval_us);
}

/* ---- compaction ---- */

struct choice {
    struct upkeep *u;
    struct log_compact_options o;
    struct partition *best;
    double ratio;
};

static void consider(void *arg, struct partition *p)
{
    struct choice *c = arg;
    struct log_dirtiness d = {0};
    if (!partition_online(p) || !p->config.cleanup_compact || p->clean_failed)
        return;
    c->o.limit_offset = cleanable_limit(p);
    c->o.clean_offset = p->clean_offset;
    if (log_dirtiness(p->log, &c->o, &d, NULL) || !d.due || d.dirty_bytes <= 0)
        return;
    double ratio = (double)d.dirty_bytes / (double)(d.dirty_bytes + d.clean_bytes);
    if (!c->best || ratio > c->ratio) {
        c->best = p;
        c->ratio = ratio;
    }
}

static void compact_run(struct loop_job *job)
{
    log_compact_run(LIST_ENTRY(job, struct upkeep, compact)->compacting->compaction);
}

static void compact_done(struct loop_job *job)
{
    struct upkeep *u = LIST_ENTRY(job, struct upkeep, compact);
    struct partition *p = u->compacting;
    struct log_compacted out = {0};
    struct err err = {0};
    assert(p);
    assert(p->log); /* a closing log waits for it */
    assert(p->compaction);
    assert(!p->host_job);
    int rc = log_compact_done(p->log, p->compaction, &out, &err);
    assert(rc <= 0);
    p->compaction = NULL;
    u->compacting = NULL;
    if (!rc) {
        assert(out.clean_offset >= 0);
        p->clean_offset = out.clean_offset;
        metric_add(u->compactions, 1);
        metric_add(u->compaction_bytes, out.bytes_before - out.bytes_after);
        log_info("broker.partition",
                 "compacted partition=%s-%d before=%lld after=%lld records=%lld clean=%lld", p->topic,
                 p->key.index, (long long)out.bytes_before, (long long)out.bytes_after,
                 (long long)out.records_after, (long long)out.clean_offset);
        sweep_files_soon(p);
    } else if (rc != -E_AGAIN && sm_state(&p->state) == PARTITION_ONLINE) {
        log_error("broker.partition", "compaction failed partition=%s-%d error=%s", p->topic, p->key.index,
                  err.text);
        p->clean_failed = true;
    }
    if (sm_state(&p->state) == PARTITION_CLOSING)
        host_quiet(p);
    else if (sm_state(&p->state) == PARTITION_ONLINE && log_fenced(p->log))
        partition_fenced(p);
    if (!u->ps->closing)
        loop_timer_in(&u->ps->cleaner, rc ? u->ps->host->cleaner_backoff_us : 0); /* there may be more */
    host_maybe_closed(u->ps);
}

static void on_cleaner(void *arg)
{
    struct upkeep *u = arg;
    struct partitions *ps = u->ps;
    struct choice c = {.u = u};
    assert(!u->stopped);
    if (u->compacting)
        return;
    c.o.wall_ms = loop_wall_ms(ps->shard->loop);
    c.o.map_bytes = ps->host->cleaner_map_bytes / ps->shard->count;
    c.o.seed = loop_random(ps->shard->loop);
    partitions_each(ps, consider, &c);
    if (c.best) {
        assert(!c.best->compaction);
        c.o.limit_offset = cleanable_limit(c.best);
        c.o.clean_offset = c.best->clean_offset;
        if (log_compact_begin(c.best->log, &c.o, &c.best->compaction, NULL) == 1) {
            u->compacting = c.best;
            u->compact = (struct loop_job){.lane = LANE_COMPACT, .run = compact_run, .done = compact_done};
            loop_job(ps->shard->loop, &u->compact);
            return;
        }
        c.best->compaction = NULL;
    }
    loop_timer_in(&ps->cleaner, ps->host->cleaner_backoff_us);
}

/* ---- */

int upkeep_create(struct partitions *ps)
{
    struct upkeep *u = calloc(1, sizeof *u);
    struct loop *l = ps->shard->loop;
    if (!u)
        return -E_NOMEM;
    u->ps = ps;
    u->sweep_every_us = SWEEP_US;
    loop_timer_init(&u->sweep, l, on_sweep, u);
    loop_timer_init(&ps->retention, l, on_retention, u);
    loop_timer_init(&ps->recovery, l, on_recovery, ps);
    loop_timer_init(&ps->watermarks, l, on_watermarks, ps);
    loop_timer_init(&u->early, l, on_early, u);
    loop_timer_init(&ps->cleaner, l, on_cleaner, u);
    struct metrics *m = ps->shard->metrics;
    unsigned s = ps->shard->index;
    u->retention_bytes = metrics_cell(m, s, M_sundog_broker_retention_bytes_total);
    u->compactions = metrics_cell(m, s, M_sundog_broker_compactions_total);
    u->compaction_bytes = metrics_cell(m, s, M_sundog_broker_compaction_bytes_total);
    assert(!ps->upkeep);
    ps->upkeep = u;
    return 0;
}

void upkeep_start(struct partitions *ps)
{
    const struct partition_host *h = ps->host;
    assert(h->retention_interval_us > 0);
    assert(h->recovery_interval_us > 0);
    assert(h->watermark_interval_us > 0);
    assert(!ps->upkeep->stopped);
    loop_timer_in(&ps->retention, h->retention_interval_us < 30000000 ? h->retention_interval_us : 30000000);
    loop_timer_in(&ps->recovery, h->recovery_interval_us);
    loop_timer_in(&ps->watermarks, h->watermark_interval_us);
    if (h->cleaner_backoff_us > 0)
        loop_timer_in(&ps->cleaner, h->cleaner_backoff_us);
    if (ps->shard->index == 0) { /* what was deleted before this start */
        ps->upkeep->folders_due = true;
        sweep_within(ps, SWEEP_MIN_US);
    }
}

void upkeep_stop(struct partitions *ps)
{
    struct loop_timer *timers[] = {&ps->retention, &ps->recovery,      &ps->watermarks,
                                   &ps->cleaner,   &ps->upkeep->sweep, &ps->upkeep->early};
    for (size_t i = 0; i < sizeof timers / sizeof *timers; i++)
        loop_timer_stop(timers[i]);
    assert(!ps->upkeep->stopped);
    ps->upkeep->stopped = true;
    /* Without an image nothing was opened: the files stay as they are. */
    for (int which = 0; ps->shard->image && which < LOG_CHECKPOINTS; which++)
        checkpoint_collect(ps, (enum log_checkpoint)which);
}

bool upkeep_busy(const struct partitions *ps)
{
    return ps->upkeep->folders_busy || ps->upkeep->compacting;
}

void upkeep_destroy(struct partitions *ps)
{
    struct upkeep *u = ps->upkeep;
    assert(!u->folders_busy);
    assert(!u->compacting);
    metrics_release(ps->shard->metrics, u->retention_bytes);
    metrics_release(ps->shard->metrics, u->compactions);
    metrics_release(ps->shard->metrics, u->compaction_bytes);
    free(u);
    ps->upkeep = NULL;
}
