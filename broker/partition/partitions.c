/* The set: made, fed with images, given its turns, closed. */
#include "broker/partition/internal.h"

#include "base/runtime/log.h"

#include <stdatomic.h>
#include <stdlib.h>

/* Of one partition: a write takes batches of one origin only. */
#define WRITES_PER_TURN 16
/* Of batches larger than LARGE_BATCH, of all partitions. */
#define LARGE_BATCH    ((size_t)64 << 10)
#define LARGE_PER_TURN ((size_t)256 << 10)

static void take_cells(struct partitions *ps)
{
    struct metrics *m = ps->shard->metrics;
    unsigned s = ps->shard->index;
    ps->appends_n = metrics_cell(m, s, M_sundog_broker_appends_total);
    ps->append_bytes = metrics_cell(m, s, M_sundog_broker_append_bytes_total);
    ps->duplicates = metrics_cell(m, s, M_sundog_broker_append_duplicates_total);
    ps->flushes = metrics_cell(m, s, M_sundog_broker_flushes_total);
    ps->flush_seconds = metrics_cell(m, s, M_sundog_broker_flush_seconds);
    ps->parked_n = metrics_cell(m, s, M_sundog_broker_appends_parked);
    ps->online_n = metrics_cell(m, s, M_sundog_broker_partitions_online);
    ps->failed_n = metrics_cell(m, s, M_sundog_broker_partitions_failed);
}

static void release_cells(struct partitions *ps)
{
    struct metric_cell *cells[] = {ps->appends_n,     ps->append_bytes, ps->duplicates, ps->flushes,
                                   ps->flush_seconds, ps->parked_n,     ps->online_n,   ps->failed_n};
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
        metrics_release(ps->shard->metrics, cells[i]);
}

int partitions_create(struct shard *shard, struct partition_host *host, struct err *err)
{
    struct partitions *ps = calloc(1, sizeof *ps);
    assert(shard->index < shard->count);
    assert(!shard->partitions);
    assert(host->dirs);
    if (!ps)
        return err_set(err, -E_NOMEM, "no memory for partitions");
    ps->shard = shard;
    ps->host = host;
    struct list *lists[] = {&ps->dirty,   &ps->to_flush,  &ps->advanced, &ps->waiting,
                            &ps->watches, &ps->deletions, &ps->deleting, &ps->to_group};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_init(lists[i]);
    loop_timer_init(&ps->timeouts, shard->loop, append_on_timeout, ps);
    for (unsigned i = 0; i < LOG_DIRS_MAX; i++)
        ps->clean[i] = true;
    ps->files = log_files_create(shard->disk, host->files_max);
    if (!ps->files || upkeep_create(ps)) {
        log_files_destroy(ps->files);
        free(ps);
        return err_set(err, -E_NOMEM, "no memory for partitions");
    }
    take_cells(ps);
    shard->partitions = ps;
    return 0;
}

/* ---- images ---- */

struct apply {
    struct partitions *ps;
    const struct image *now;
};

/* This node's place among the replicas; -1: none. */
static int32_t replica_here(const struct partitions *ps, const struct image_partition *p)
{
    for (int32_t i = 0; i < p->replicas_n; i++)
        if (p->replicas[i] == ps->host->node_id)
            return i;
    return -1;
}

static bool owned(const struct partitions *ps, const struct uuid *topic_id, int32_t index)
{
    return shard_index_of(topic_id, index, ps->shard->count) == ps->shard->index;
}

static void on_topic_removed(void *arg, const struct image_topic *was)
{
    struct apply *a = arg;
    for (int32_t i = 0; i < was->partitions_n; i++)
        partitions_drop(a->ps, &was->id, i);
}

static void on_partition(void *arg, const struct image_topic *t, int32_t index,
                         const struct image_partition *was, const struct image_partition *now)
{
    struct apply *a = arg;
    (void)was;
    if (!owned(a->ps, &t->id, index))
        return;
    int32_t at = now ? replica_here(a->ps, now) : -1;
    if (at < 0) {
        partitions_drop(a->ps, &t->id, index);
        return;
    }
    assert(at < now->replicas_n);
    partitions_host(a->ps,
                    &(struct partition_spec){.topic = t->name,
                                             .topic_id = t->id,
                                             .index = index,
                                             .leader = now->leader,
                                             .leader_epoch = now->leader_epoch,
                                             .partition_epoch = now->partition_epoch,
                                             .replicas_n = now->replicas_n,
                                             .isr_n = now->isr_n,
                                             .directory = at < now->directories_n ? now->directories[at]
                                                                                  : (struct uuid){{0}}});
}

static void on_config(void *arg, const struct image_config *was, const struct image_config *now)
{
    struct apply *a = arg;
    const struct image_config *c = now ? now : was;
    struct partition *p, *next;
    if (c->type != IMAGE_CONFIG_TOPIC && c->type != IMAGE_CONFIG_BROKER)
        return;
    HASH_ITER (hh, a->ps->all, p, next)
        /* the log of one that is being deleted is in the hands of its job */
        if (!p->remove && (c->type == IMAGE_CONFIG_BROKER || slice_eq_str(c->name, p->topic)))
            partition_configure(p, a->now);
}

void partitions_apply(struct partitions *ps, const struct image *was, const struct image *now)
{
    assert(now);
    assert(was == ps->shard->image);
    static const struct image_changes changes = {
        .topic_removed = on_topic_removed, .partition = on_partition, .config = on_config};
    struct apply a = {ps, now};
    ps->shard->image = now;
    if (ps->closing)
        return;
    if (!was && ps->shard->index == 0)
        host_report_strays(ps->host, now);
    image_diff(was, now, &changes, &a);
    if (!was)
        upkeep_start(ps);
}

size_t partitions_opening(const struct partitions *ps)
{
    return ps->opening_n;
}

bool partitions_misplaced(struct partitions *ps)
{
    bool misplaced = ps->misplaced;
    ps->misplaced = false;
    return misplaced;
}

void partitions_each(struct partitions *ps, void (*each)(void *arg, struct partition *p), void *arg)
{
    struct partition *p, *next;
    HASH_ITER (hh, ps->all, p, next)
        if (sm_state(&p->state) != PARTITION_CLOSING)
            each(arg, p);
}

/* ---- turns ---- */

/* Small batches first, and of large ones what belongs into a turn: who sends them must not keep the others waiting. */
static bool is_large(const struct partition *p)
{
    return !list_empty(&p->pending) &&
           LIST_ENTRY(p->pending.next, struct partition_append, link)->batch_bytes > LARGE_BATCH;
}

static bool turn_has(struct partitions *ps)
{
    int64_t now = loop_now_us(ps->shard->loop);
    if (ps->large_turn_us != now) {
        ps->large_turn_us = now;
        ps->large_bytes = 0;
    }
    return ps->large_bytes < LARGE_PER_TURN;
}

static void write_pending(struct partitions *ps, bool large)
{
    struct list later;
    list_init(&later);
    while (!list_empty(&ps->dirty)) {
        struct partition *p = LIST_ENTRY(list_pop(&ps->dirty), struct partition, dirty);
        if (!partition_online(p))
            continue; /* opening: host_opened puts it here again */
        for (int i = 0; i < WRITES_PER_TURN && !list_empty(&p->pending) && partition_online(p); i++) {
            if (is_large(p) && !(large && turn_has(ps)))
                break;
            ps->large_bytes += append_pending(p);
        }
        if (!list_empty(&p->pending) && !list_linked(&p->dirty))
            list_push(&later, &p->dirty);
    }
    while (!list_empty(&later))
        list_push(&ps->dirty, list_pop(&later));
}

/* 1 write what is pending; 2 start a flush where one is due and none is under way, the write of new starts, the
 * making and deleting of logs; 3 wake parked fetches. */
bool partitions_turn(struct partitions *ps)
{
    partitions_check(ps);
    partitions_look_at_dirs(ps);
    write_pending(ps, false);
    write_pending(ps, true);
    while (!list_empty(&ps->to_flush)) {
        struct partition *p = LIST_ENTRY(list_pop(&ps->to_flush), struct partition, to_flush);
        if (partition_online(p) && !p->flush)
            flush_start(p); /* else flush_done asks again */
    }
    deletions_start(ps);
    host_turn(ps);
    while (!list_empty(&ps->advanced))
        wait_wake(LIST_ENTRY(list_pop(&ps->advanced), struct partition, advanced));
    partitions_check(ps);
    return !list_empty(&ps->dirty);
}

/* ---- the end ---- */

void partitions_close(struct partitions *ps, void (*closed)(void *arg), void *arg)
{
    struct partition *p, *next;
    assert(!ps->closing);
    assert(closed);
    atomic_store(&ps->host->ending, true);
    for (unsigned d = 0; !ps->shard->image && d < log_dirs_count(ps->host->dirs); d++)
        ps->clean[d] &= log_dir_was_clean(ps->host->dirs, d); /* nobody has looked at what is there */
    upkeep_stop(ps);
    loop_timer_stop(&ps->timeouts);
    /* Held up by one of our own until all are asked, so that `closed` runs once and last. */
    ps->closing = true;
    ps->closing_n++;
    HASH_ITER (hh, ps->all, p, next)
        host_close(p, false);
    ps->closed = closed;
    ps->closed_arg = arg;
    ps->closing_n--;
    host_maybe_closed(ps);
}

const bool *partitions_clean(const struct partitions *ps)
{
    return ps->clean;
}

void partitions_destroy(struct partitions *ps)
{
    if (!ps)
        return;
    assert(!ps->all);
    assert(ps->opening_n == 0);
    assert(ps->closing_n == 0);
    assert(ps->flushing_n == 0);
    assert(ps->deletions_n == 0);
    assert(!ps->group);
    assert(list_empty(&ps->to_group));
    assert(!ps->start_write);
    upkeep_destroy(ps);
    log_files_destroy(ps->files);
    release_cells(ps);
    ps->shard->partitions = NULL;
    free(ps);
}
