/* Logs made and deleted in groups: what is asked for by the end of a turn, or while one group is under way, is one job of
 * LANE_DIRS, and shares its syncs. */
#include "broker/partition/host_internal.h"

#include "base/runtime/log.h"
#include "broker/partition/checkpoint.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* Logs that are made or deleted by one job: who waits for LANE_DIRS waits for so many. */
#define GROUP_MAX 256

/* The folder of a topic that is no more, under the name that a new one needs. */
static void set_aside(const struct partition_host *h, const struct log_found *row, const uint64_t random[2])
{
    char from[LOG_PATH_MAX], to[LOG_PATH_MAX];
    const char *dir = log_dir_of(h->dirs, row->dir);
    int n = snprintf(from, sizeof from, "%s/%s-%d", dir, row->topic, row->partition);
    int m = snprintf(to, sizeof to, "%s/%.200s-%d.%016llx%016llx-stray", dir, row->topic, row->partition,
                     (unsigned long long)random[0], (unsigned long long)random[1]);
    if (n < 0 || (size_t)n >= sizeof from || m < 0 || (size_t)m >= sizeof to)
        return;
    if (disk_rename(h->disk, from, to) == 0) {
        disk_sync_dir(h->disk, dir);
        log_warn("broker.partition", "log of a deleted topic set aside folder=%s now=%s", from, to);
    }
}

struct host_group {
    struct loop_job job;
    struct partitions *ps;
    struct list jobs;
};

static void delete_group(struct host_group *g)
{
    struct partition_host *h = g->ps->host;
    struct log_gone gone[GROUP_MAX], *all[GROUP_MAX];
    struct host_job *jobs[GROUP_MAX];
    size_t n = 0;
    list_each (at, &g->jobs) {
        struct host_job *j = LIST_ENTRY(at, struct host_job, link);
        if (j->what != HOST_DELETE)
            continue;
        assert(n < GROUP_MAX);
        assert(j->log || j->found);
        gone[n] = (struct log_gone){.dir = j->log ? j->dir : j->found->row->dir,
                                    .log = j->log,
                                    .found = j->log ? NULL : j->found->row,
                                    .random = {j->random[0], j->random[1]},
                                    .err = &j->err};
        all[n] = &gone[n];
        jobs[n++] = j;
    }
    if (n == 0)
        return;
    log_dirs_delete(h->dirs, all, n);
    for (size_t i = 0; i < n; i++) {
        assert(gone[i].rc <= 0);
        jobs[i]->rc = gone[i].rc;
        checkpoint_deleted(h->checkpoints, jobs[i]->p->topic, jobs[i]->p->key.index);
    }
}

/* Those that are still wanted; their names are free of what was there at the start. */
static size_t to_be_made(struct host_group *g, struct host_job *jobs[GROUP_MAX])
{
    struct partition_host *h = g->ps->host;
    size_t n = 0;
    list_each (at, &g->jobs) {
        struct host_job *j = LIST_ENTRY(at, struct host_job, link);
        if (j->what != HOST_CREATE)
            continue;
        j->skipped = atomic_load(&h->ending);
        if (j->skipped) {
            j->dir = j->found ? j->found->row->dir : j->dir;
            continue;
        }
        if (j->found && !atomic_exchange(&j->found->claimed, true)) {
            set_aside(h, j->found->row, j->random);
            checkpoint_deleted(h->checkpoints, j->p->topic, j->p->key.index);
        }
        assert(n < GROUP_MAX);
        jobs[n++] = j;
    }
    return n;
}

static void create_group(struct host_group *g)
{
    struct partition_host *h = g->ps->host;
    struct log_new made[GROUP_MAX], *all[GROUP_MAX];
    struct host_job *jobs[GROUP_MAX];
    struct err err = {0};
    size_t n = to_be_made(g, jobs);
    if (n == 0)
        return;
    int rc = checkpoint_purge(h->checkpoints, &err);
    for (size_t i = 0; i < n; i++) {
        struct host_job *j = jobs[i];
        made[i] = (struct log_new){.topic = j->p->topic,
                                   .partition = j->p->key.index,
                                   .topic_id = &j->p->key.topic_id,
                                   .config = &j->config,
                                   .files = g->ps->files,
                                   .wall_ms = j->wall_ms,
                                   .err = &j->err,
                                   .dir = j->dir};
        all[i] = &made[i];
        if (rc)
            made[i].rc = err_set(&j->err, rc, "%s", err.text);
    }
    if (!rc)
        log_dirs_make(h->dirs, all, n);
    for (size_t i = 0; i < n; i++) {
        assert((made[i].rc == 0) == (made[i].log != NULL));
        assert(made[i].dir < log_dirs_count(h->dirs) || made[i].rc);
        jobs[i]->rc = made[i].rc;
        jobs[i]->dir = made[i].dir;
        jobs[i]->log = made[i].log;
    }
}

/* Deletions first: a name is free for the log that takes it, and its rows are gone (checkpoint_purge). */
static void group_run(struct loop_job *job)
{
    struct host_group *g = LIST_ENTRY(job, struct host_group, job);
    delete_group(g);
    create_group(g);
}

static void group_done(struct loop_job *job)
{
    struct host_group *g = LIST_ENTRY(job, struct host_group, job);
    struct partitions *ps = g->ps;
    assert(ps->group == g);
    assert(!list_empty(&g->jobs));
    ps->group = NULL;
    while (!list_empty(&g->jobs))
        host_job_ended(LIST_ENTRY(list_pop(&g->jobs), struct host_job, link));
    free(g);
}

/* Without memory it is the next turn's. */
void host_turn(struct partitions *ps)
{
    if (ps->group || list_empty(&ps->to_group))
        return;
    struct host_group *g = calloc(1, sizeof *g);
    if (!g)
        return;
    g->ps = ps;
    list_init(&g->jobs);
    for (unsigned n = 0; n < GROUP_MAX && !list_empty(&ps->to_group); n++)
        list_push(&g->jobs, list_pop(&ps->to_group));
    assert(!list_empty(&g->jobs));
    g->job = (struct loop_job){.lane = LANE_DIRS, .run = group_run, .done = group_done};
    ps->group = g;
    loop_job(ps->shard->loop, &g->job);
}
