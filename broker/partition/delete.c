/* DeleteRecords: a start is written to the log dir's checkpoint file before anybody sees it, so that what was deleted
 * does not come back with a kill or a power cut.
 *
 * One write of a shard is under way, for all that its partitions were asked for before; what comes meanwhile is the
 * next one's, which begins in the turn in which the first one has ended. A start that is on its way is what the
 * checkpoints say (start_on_way), so that none of them takes it back. */
#include "broker/partition/internal.h"

#include "base/core/arena.h"
#include "base/runtime/log.h"
#include "broker/partition/checkpoint.h"

#include <stdlib.h>

/* Of a shard; their memory is their requests'. */
#define DELETIONS_MAX        ((size_t)1 << 18)
#define START_ROWS_ARENA_MAX ((size_t)256 << 20)

struct start_write {
    struct loop_job job;
    struct partitions *ps;
    struct arena arena;
    struct checkpoint_row *rows;
    size_t n;
    int rc[LOG_DIRS_MAX];
};

static void finish(struct partition_deletion *d, int16_t error)
{
    assert(!list_linked(&d->link));
    assert(!list_linked(&d->of_partition));
    d->error = error;
    d->partition = NULL;
    d->done(d);
}

static void leave(struct partition_deletion *d)
{
    struct partitions *ps = d->partition->set;
    assert(ps->deletions_n > 0);
    assert(list_linked(&d->of_partition));
    ps->deletions_n--;
    if (list_linked(&d->link))
        list_remove(&d->link);
    list_remove(&d->of_partition);
}

void partition_delete_records(struct partition *p, struct partition_deletion *d)
{
    struct partitions *ps = p->set;
    assert(partition_online(p));
    assert(d->done);
    list_init(&d->link);
    list_init(&d->of_partition);
    if (d->offset == -1)
        d->offset = p->high_watermark;
    int16_t error = KE_NONE;
    if (!p->config.cleanup_delete)
        error = KE_POLICY_VIOLATION;
    else if (d->offset < 0 || d->offset > p->high_watermark)
        error = KE_OFFSET_OUT_OF_RANGE;
    else if (ps->deletions_n >= DELETIONS_MAX)
        error = KE_REQUEST_TIMED_OUT;
    if (error || d->offset <= log_start_offset(p->log)) { /* what is seen as the start is on disk */
        finish(d, error);
        return;
    }
    d->partition = p;
    ps->deletions_n++;
    list_push(&ps->deletions, &d->link);
    list_push(&p->deletions, &d->of_partition);
    INVARIANT(p);
}

void deletion_fail_all(struct partition *p, int16_t error)
{
    assert(error);
    p->start_on_way = 0;
    while (!list_empty(&p->deletions)) {
        struct partition_deletion *d = LIST_ENTRY(p->deletions.next, struct partition_deletion, of_partition);
        leave(d);
        finish(d, error);
    }
}

/* ---- the write ---- */

static void write_run(struct loop_job *job)
{
    struct start_write *w = LIST_ENTRY(job, struct start_write, job);
    struct partition_host *h = w->ps->host;
    checkpoint_raise(h->checkpoints, w->rows, w->n, w->rc);
}

static void end_one(struct partition_deletion *d, int rc)
{
    struct partition *p = d->partition;
    assert(rc <= 0);
    assert(partition_online(p)); /* else it was answered then: deletion_fail_all */
    assert(d->offset <= p->high_watermark);
    leave(d);
    p->start_on_way = 0;
    if (!rc) {
        rc = log_set_start(p->log, d->offset);
        INVARIANT(p);
        partition_changed(p); /* who waits below the new start must be told */
    }
    finish(d, rc ? KE_KAFKA_STORAGE_ERROR : KE_NONE);
}

static void write_free(struct start_write *w)
{
    arena_fini(&w->arena);
    free(w);
}

static void write_done(struct loop_job *job)
{
    struct start_write *w = LIST_ENTRY(job, struct start_write, job);
    struct partitions *ps = w->ps;
    assert(ps->start_write == w);
    ps->start_write = NULL;
    partitions_look_at_dirs(ps); /* the write may have failed: then these have been answered */
    while (!list_empty(&ps->deleting)) {
        struct partition_deletion *d = LIST_ENTRY(ps->deleting.next, struct partition_deletion, link);
        end_one(d, w->rc[d->partition->dir]);
    }
    write_free(w);
    host_maybe_closed(ps);
}

static bool add_row(struct start_write *w, struct partition_deletion *d)
{
    struct partition *p = d->partition;
    char *topic = arena_cstr(&w->arena, slice_str(p->topic));
    if (!topic)
        return false;
    assert(w->n < w->ps->deletions_n); /* the room of `rows` */
    assert(p->dir < LOG_DIRS_MAX);
    p->start_on_way = d->offset > p->start_on_way ? d->offset : p->start_on_way;
    w->rows[w->n++] = (struct checkpoint_row){p->dir, {topic, p->key.index, d->offset}};
    return true;
}

static struct start_write *write_create(struct partitions *ps)
{
    struct start_write *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->ps = ps;
    w->job = (struct loop_job){.lane = LANE_DIRS, .run = write_run, .done = write_done};
    arena_init(&w->arena, START_ROWS_ARENA_MAX);
    w->rows = ARENA_NEWS(&w->arena, struct checkpoint_row, ps->deletions_n);
    bool fine = w->rows != NULL;
    for (struct list *at = ps->deletions.next; fine && at != &ps->deletions; at = at->next)
        fine = add_row(w, LIST_ENTRY(at, struct partition_deletion, link));
    if (fine)
        return w;
    write_free(w);
    return NULL;
}

void deletions_start(struct partitions *ps)
{
    if (ps->start_write || list_empty(&ps->deletions))
        return;
    assert(list_empty(&ps->deleting));
    assert(ps->deletions_n > 0);
    assert(!ps->closing); /* every partition is closing, too: none has any */
    ps->start_write = write_create(ps);
    if (!ps->start_write)
        log_error("broker.partition", "no memory to delete records partitions=%zu", ps->deletions_n);
    while (!list_empty(&ps->deletions)) {
        struct partition_deletion *d = LIST_ENTRY(list_pop(&ps->deletions), struct partition_deletion, link);
        list_push(&ps->deleting, &d->link);
        if (!ps->start_write)
            end_one(d, -E_NOMEM);
    }
    if (!ps->start_write)
        return;
    checkpoint_raising(ps);
    loop_job(ps->shard->loop, &ps->start_write->job);
}
