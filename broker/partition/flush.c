/* Group commit and the high watermark.
 *
 * With sundog.flush.before.ack the watermark of a leader alone is its durable offset: one flush of a log is under way,
 * whatever is appended meanwhile is covered by the next, which begins in the turn in which the first one ends. Without
 * it the watermark follows the append and flushes come from flush.messages, flush.ms and the checkpoints only. */
#include "broker/partition/internal.h"

#define CHECKPOINT_EVERY_BYTES ((uint64_t)32 << 20)

void watermark_set(struct partition *p, int64_t offset)
{
    if (offset <= p->high_watermark)
        return;
    assert(p->log);
    assert(offset <= log_end_offset(p->log)); /* and it never goes back: above */
    p->high_watermark = offset;
    wait_mark(p);
    append_release(p);
}

void watermark_follow(struct partition *p)
{
    assert(p->appended_bytes >= p->committed_bytes);
    p->committed_bytes = p->appended_bytes;
    watermark_set(p, log_end_offset(p->log));
}

void flush_want(struct partition *p)
{
    assert(partition_online(p));
    bool due = p->set->host->flush_before_ack || p->flush_checkpoint ||
               log_flush_due(p->log, loop_wall_ms(p->set->shard->loop));
    if (due && !list_linked(&p->to_flush))
        list_push(&p->set->to_flush, &p->to_flush);
}

static void flush_run(struct loop_job *job)
{
    struct partition *p = LIST_ENTRY(job, struct partition, flush_job);
    log_flush_run(p->flush);
}

static void flush_done(struct loop_job *job)
{
    struct partition *p = LIST_ENTRY(job, struct partition, flush_job);
    struct partitions *ps = p->set;
    struct err err = {0};
    assert(p->magic == PARTITION_MAGIC);
    assert(p->flush);
    assert(!p->host_job);
    assert(ps->flushing_n > 0);
    int rc = log_flush_done(p->log, p->flush, &err);
    assert(rc <= 0);
    p->flush = NULL;
    ps->flushing_n--;
    metric_add(ps->flushes, 1);
    metric_observe(ps->flush_seconds, loop_now_us(ps->shard->loop) - p->flush_began_us);
    if (sm_state(&p->state) == PARTITION_CLOSING || sm_state(&p->state) == PARTITION_FAILED) {
        host_quiet(p);
        return;
    }
    if (rc) {
        partition_fenced(p);
        return;
    }
    if (p->first_flush) {
        p->first_flush = false;
        host_opened(p);
        return;
    }
    if (p->flush_early)
        upkeep_checkpoint_soon(ps);
    if (ps->host->flush_before_ack) {
        assert(p->flush_bytes >= p->committed_bytes);
        p->committed_bytes = p->flush_bytes;
        watermark_set(p, log_durable_offset(p->log));
    }
    if (log_end_offset(p->log) > log_durable_offset(p->log))
        flush_want(p);
    INVARIANT(p);
}

/* Where every ack waits for the disk a checkpoint costs little more: often enough, a start after kill -9 has little
 * to look at. Without flushes it would write what the page cache may still keep. */
static bool checkpoint_is_far(const struct partition *p)
{
    assert(p->appended_bytes >= p->checkpoint_bytes);
    return p->set->host->flush_before_ack &&
           p->appended_bytes - p->checkpoint_bytes >= CHECKPOINT_EVERY_BYTES;
}

void flush_start(struct partition *p)
{
    struct partitions *ps = p->set;
    assert(p->log);
    assert(!p->flush);
    assert(!p->host_job);
    assert(!list_linked(&p->to_flush));
    p->flush_early = !p->flush_checkpoint && checkpoint_is_far(p);
    p->flush_checkpoint = p->flush_checkpoint || p->flush_early;
    if (p->flush_checkpoint)
        p->checkpoint_bytes = p->appended_bytes;
    int rc = log_flush_begin(p->log, p->flush_checkpoint ? LOG_FLUSH_CHECKPOINT : LOG_FLUSH_DATA, &p->flush);
    if (rc < 0) {
        if (log_fenced(p->log))
            partition_fenced(p);
        else
            partition_fail(p, err_str(rc));
        return;
    }
    p->flush_checkpoint = false;
    if (rc == 0)
        return;
    assert(p->flush);
    p->flush_bytes = p->appended_bytes;
    p->flush_began_us = loop_now_us(ps->shard->loop);
    ps->flushing_n++;
    p->flush_job.lane = p->lane;
    p->flush_job.run = flush_run;
    p->flush_job.done = flush_done;
    loop_job(ps->shard->loop, &p->flush_job);
}
