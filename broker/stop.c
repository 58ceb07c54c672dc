/* The end of a broker, step by step; each step is done on every shard before the next begins:
 *
 *   lifecycle (leaderships moved, fenced) → clients drained → logs closed → quorum stopped → (loops end) → destroy
 */
#include "broker/parts.h"

#include "base/runtime/log.h"
#include "broker/api/api.h"
#include "broker/api/producer_ids.h"
#include "broker/group/groups.h"
#include "broker/partition/checkpoint.h"

#include <stdlib.h>

/* Of the ten seconds that a stop may take. */
#define DRAIN_US 3000000
#define QUIET_US 1000

static void step_home(struct loop_msg *msg)
{
    struct broker_parts *p = LIST_ENTRY(msg, struct shard_parts, up)->parts;
    assert(p->waiting_n > 0);
    assert(p->waiting_n <= p->broker.shards_n);
    assert(p->phase == BROKER_STOPPING);
    if (--p->waiting_n == 0)
        p->next_step(p);
}

/* One shard has done its part. */
static void step_done(void *arg)
{
    struct shard_parts *s = arg;
    s->up.fn = step_home;
    loop_post(s->parts->shards[0].shard.loop, &s->up);
}

static void on_every_shard(struct broker_parts *p, void (*fn)(struct loop_msg *msg),
                           void (*next)(struct broker_parts *p))
{
    assert(p->waiting_n == 0);
    assert(p->phase == BROKER_STOPPING);
    p->waiting_n = p->broker.shards_n;
    p->next_step = next;
    for (unsigned i = 0; i < p->broker.shards_n; i++) {
        p->shards[i].down.fn = fn;
        loop_post(p->shards[i].shard.loop, &p->shards[i].down);
    }
}

static void drain(struct loop_msg *msg)
{
    struct shard_parts *s = LIST_ENTRY(msg, struct shard_parts, down);
    groups_stop(s->shard.groups); /* whoever waits for a rebalance is answered, and drains */
    net_server_drain(s->shard.server, DRAIN_US, step_done, s);
}

static void close_logs(struct loop_msg *msg)
{
    struct shard_parts *s = LIST_ENTRY(msg, struct shard_parts, down);
    directories_stop(s->directories);
    partitions_close(s->shard.partitions, step_done, s);
}

static void stop_control(struct broker_parts *p)
{
    control_stop(p->broker.control);
}

static void after_drain(struct broker_parts *p)
{
    checkpoints_end(p->host.checkpoints);
    on_every_shard(p, close_logs, stop_control);
}

void broker_stop_begin(struct broker_parts *p)
{
    assert(p->phase == BROKER_STOPPING);
    lifecycle_stop(p->lifecycle);
}

void broker_stop_drained_lifecycle(void *arg, int64_t epoch)
{
    struct broker_parts *p = arg;
    assert(epoch >= -1);
    p->epoch = epoch;
    on_every_shard(p, drain, after_drain);
}

/* A checkpoint that is being written holds the end up. */
static void when_quiet(void *arg)
{
    struct broker_parts *p = arg;
    assert(p->phase == BROKER_STOPPING);
    assert(p->waiting_n == 0);
    if (checkpoints_busy(p->host.checkpoints)) {
        loop_timer_init(&p->quiet, p->shards[0].shard.loop, when_quiet, p);
        loop_timer_in(&p->quiet, QUIET_US);
        return;
    }
    p->phase = BROKER_STOPPED;
    admin_http_destroy(p->admin);
    p->admin = NULL;
    void (*stopped)(void *) = p->stopped;
    p->stopped = NULL;
    assert(stopped);
    stopped(p->stopped_arg);
}

void broker_stop_control(void *arg)
{
    when_quiet(arg);
}

/* ---- after the loops ---- */

static void close_dirs(struct broker_parts *p, bool control_clean)
{
    assert(p->metadata_dir < p->dirs_n);
    bool clean[LOG_DIRS_MAX];
    for (unsigned d = 0; d < LOG_DIRS_MAX; d++) {
        clean[d] = d != p->metadata_dir || control_clean;
        for (unsigned i = 0; i < p->broker.shards_n; i++)
            clean[d] &= partitions_clean(p->shards[i].shard.partitions)[d];
    }
    log_dirs_close(p->log_dirs, clean, p->epoch);
}

static void free_shards(struct broker_parts *p)
{
    for (unsigned i = 0; i < p->broker.shards_n; i++) {
        struct shard_parts *s = &p->shards[i];
        net_server_destroy(s->shard.server);
        directories_destroy(s->directories);
        partitions_destroy(s->shard.partitions);
        groups_destroy(s->shard.groups);
        producer_ids_destroy(s->shard.producer_ids);
        api_pool_destroy(s->shard.requests);
        loop_hook_remove(&s->hook);
        loop_timer_stop(&s->again);
        assert(s->shard.memory.used_bytes == 0);
    }
}

int broker_destroy(struct broker *b)
{
    struct broker_parts *p = b->parts;
    struct err err = {0};
    assert(p->phase == BROKER_STOPPED);
    lifecycle_destroy(p->lifecycle);
    checkpoints_write_last(p->host.checkpoints);
    for (unsigned i = 0; i < b->shards_n; i++)
        control_unsubscribe(&p->shards[i].images);
    int rc = control_close(b->control, true, &err);
    if (rc)
        log_error("broker", "the metadata log was not closed well error=%s", err.text);
    for (unsigned i = 0; i < b->shards_n && !rc; i++)
        for (unsigned d = 0; d < p->dirs_n; d++)
            if (!partitions_clean(p->shards[i].shard.partitions)[d])
                rc = -E_IO;
    if (rc)
        log_warn("broker", "not every log was open, or closed well; the next start recovers what it must");
    close_dirs(p, rc == 0);
    free_shards(p);
    checkpoints_destroy(p->host.checkpoints);
    partition_host_fini(&p->host);
    log_files_destroy(p->quorum_files);
    net_listeners_fini(&p->listeners);
    metrics_destroy(b->metrics);
    free(p->shard_list);
    free(p->shards);
    free(p);
    return rc;
}
