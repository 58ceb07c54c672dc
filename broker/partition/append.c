/* Appends: checked when they come, written together at the end of the turn, answered when their time has come.
 *
 * The order of a partition's appends is the order of partition_append: nothing overtakes in `pending`, and log_append
 * keeps it. `parked` is sorted by offset: a duplicate of what is parked stands with the batch that it repeats. */
#include "broker/partition/internal.h"

#include "base/core/mutant.h"
#include "base/runtime/log.h"

#include <stdio.h>
#include <stdlib.h>

#define TIMEOUT_TICK_US 50000

static void finish(struct partition *p, struct partition_append *a, int16_t error, const char *text)
{
    assert(!list_linked(&a->link)); /* in no list any more: it is completed once */
    assert(a->done);
    /* S2, D6: acks=all is answered when every reader may see it, no sooner. */
    assert(error || a->acks != -1 || a->last_offset < p->high_watermark);
    a->error = error;
    a->error_text = text;
    a->log_start_offset = p->log ? log_start_offset(p->log) : -1;
    if (error)
        a->base_offset = a->last_offset = -1;
    a->done(a);
}

/* Kafka counts a topic with fewer replicas than min.insync.replicas as asking for all it has. */
static bool under_min_isr(const struct partition *p)
{
    int32_t min = p->min_insync_replicas < p->replicas_n ? p->min_insync_replicas : p->replicas_n;
    return p->isr_n < min;
}

/* KE_NONE when the partition takes appends now. */
static int16_t refusal(const struct partition *p, const struct partition_append *a)
{
    switch (sm_state(&p->state)) {
    case PARTITION_FAILED: return KE_KAFKA_STORAGE_ERROR;
    case PARTITION_CLOSING: return KE_NOT_LEADER_OR_FOLLOWER;
    default: break;
    }
    if (p->role != PARTITION_LEADER)
        return KE_NOT_LEADER_OR_FOLLOWER;
    if (a->leader_epoch >= 0 && a->leader_epoch != p->leader_epoch)
        return a->leader_epoch < p->leader_epoch ? KE_FENCED_LEADER_EPOCH : KE_UNKNOWN_LEADER_EPOCH;
    if (p->log && log_fenced(p->log))
        return KE_KAFKA_STORAGE_ERROR;
    if (a->acks == -1 && under_min_isr(p))
        return KE_NOT_ENOUGH_REPLICAS;
    return KE_NONE;
}

/* Holds a client's batch against the rules and puts the broker's stamp on it. False: the append is finished. */
static bool check(struct partition *p, struct partition_append *a)
{
    struct batch_verdict v;
    struct slice batch = slice_of(a->batch, a->batch_bytes);
    struct batch_rules rules = p->rules;
    rules.now_ms = loop_wall_ms(p->set->shard->loop);
    rules.produce_version = a->produce_version;
    rules.internal = a->origin == PARTITION_COORDINATOR;
    if (batch_validate(batch, &rules, &v)) {
        a->bad_record = v.errors_n ? v.errors[0].index : -1;
        snprintf(a->text, sizeof a->text, "%s", v.text);
        finish(p, a, v.kafka_error, a->text);
        return false;
    }
    if (!rules.create_time) {
        a->log_append_time_ms = rules.now_ms;
        batch_log_append_time_set(a->batch, a->batch_bytes, rules.now_ms);
    } else if (v.max_timestamp_offset_delta >= 0 && v.max_timestamp != v.header.max_timestamp) {
        batch_max_timestamp_set(a->batch, a->batch_bytes, v.max_timestamp);
    }
    return true;
}

/* A mutant: the client is told before anything is written; a copy is appended behind its back. */
struct early {
    struct partition_append append;
    uint8_t batch[];
};

static void early_done(struct partition_append *a)
{
    free(LIST_ENTRY(a, struct early, append));
}

static bool acked_too_early(struct partition *p, struct partition_append *a)
{
    struct early *e = a->acks ? calloc(1, sizeof *e + a->batch_bytes) : NULL;
    if (!e)
        return false;
    memcpy(e->batch, a->batch, a->batch_bytes);
    e->append = *a;
    e->append.batch = e->batch;
    e->append.acks = 0;
    e->append.done = early_done;
    list_push(&p->pending, &e->append.link);
    if (!list_linked(&p->dirty))
        list_push(&p->set->dirty, &p->dirty);
    a->base_offset = p->log ? log_end_offset(p->log) : 0;
    finish(p, a, KE_NONE, NULL);
    return true;
}

void partition_append(struct partition *p, struct partition_append *a)
{
    assert(p->magic == PARTITION_MAGIC);
    assert(a->done);
    assert(a->batch);
    assert(a->acks >= -1);
    assert(a->acks <= 1);
    list_init(&a->link);
    a->error = KE_NONE;
    a->error_text = NULL;
    a->bad_record = -1;
    a->log_append_time_ms = -1;
    a->base_offset = a->last_offset = -1;
    int16_t error = refusal(p, a);
    if (error) {
        finish(p, a, error, NULL);
        return;
    }
    if (!check(p, a))
        return;
    if (MUTANT("ack_before_append") && acked_too_early(p, a))
        return;
    list_push(&p->pending, &a->link);
    if (!list_linked(&p->dirty))
        list_push(&p->set->dirty, &p->dirty);
}

static void park(struct partition *p, struct partition_append *a)
{
    struct partitions *ps = p->set;
    assert(a->acks == -1);
    assert(partition_online(p));
    assert(a->last_offset >= p->high_watermark);
    assert(a->last_offset < log_end_offset(p->log)); /* the watermark will pass it */
    a->deadline_us = a->timeout_us > 0 ? loop_now_us(ps->shard->loop) + a->timeout_us : INT64_MAX;
    struct list *before = &p->parked; /* but for duplicates there is nothing to pass */
    while (before->prev != &p->parked &&
           LIST_ENTRY(before->prev, struct partition_append, link)->last_offset > a->last_offset)
        before = before->prev;
    list_insert(before, &a->link);
    metric_add(ps->parked_n, 1);
    if (!list_linked(&p->waiting))
        list_push(&ps->waiting, &p->waiting);
    if (!ps->timeouts.armed)
        loop_timer_in(&ps->timeouts, TIMEOUT_TICK_US);
}

/* What one batch came to. */
static void written(struct partition *p, struct partition_append *a, const struct log_batch *b)
{
    if (b->error) {
        finish(p, a, b->error, NULL);
        return;
    }
    assert(b->base_offset >= 0);
    assert(b->duplicate || b->last_offset >= b->base_offset);
    a->base_offset = b->base_offset;
    a->last_offset = b->last_offset;
    if (b->duplicate) {
        metric_add(p->set->duplicates, 1);
        if (!p->rules.create_time)
            a->log_append_time_ms = b->timestamp_ms;
    }
    if (a->acks != -1 || b->last_offset < p->high_watermark || MUTANT("ack_before_fsync"))
        finish(p, a, KE_NONE, NULL);
    else
        park(p, a);
}

/* A group of batches is one write while it is not larger than this; a larger batch is one by itself. */
#define WRITE_BYTES_MAX ((size_t)1 << 20)

/* From the front, while they are of one origin: a client's sequences are checked, a coordinator's are not. */
static unsigned take_pending(struct partition *p, struct list *taken, struct log_batch *batches)
{
    assert(p->log);
    assert(partition_online(p));
    unsigned n = 0;
    size_t bytes = 0;
    enum partition_origin origin = PARTITION_CLIENT;
    list_init(taken);
    while (!list_empty(&p->pending) && n < PARTITION_PENDING_MAX) {
        struct partition_append *a = LIST_ENTRY(p->pending.next, struct partition_append, link);
        if (n == 0)
            origin = a->origin;
        else if (a->origin != origin || bytes + a->batch_bytes > WRITE_BYTES_MAX)
            break;
        bytes += a->batch_bytes;
        assert(a->batch_bytes > 0);
        list_remove(&a->link);
        list_push(taken, &a->link);
        batches[n++] = (struct log_batch){.bytes = a->batch, .size_bytes = a->batch_bytes};
    }
    assert(n <= PARTITION_PENDING_MAX);
    assert((n == 0) == list_empty(taken));
    return n;
}

static bool is_coordinator(const struct list *taken)
{
    assert(!list_empty(taken));
    return LIST_ENTRY(taken->next, struct partition_append, link)->origin == PARTITION_COORDINATOR;
}

/* The role, the epoch or the disk may have changed since partition_append. */
static void refuse_stale(struct partition *p)
{
    list_each_safe(at, &p->pending)
    {
        struct partition_append *a = LIST_ENTRY(at, struct partition_append, link);
        int16_t error = refusal(p, a);
        if (!error)
            continue;
        list_remove(&a->link);
        finish(p, a, error, NULL);
    }
}

size_t append_pending(struct partition *p)
{
    struct partitions *ps = p->set;
    struct log_batch *batches = ps->batches;
    struct list taken;
    struct err err = {0};
    refuse_stale(p);
    unsigned n = take_pending(p, &taken, batches);
    if (n == 0)
        return 0;
    const struct log_append_options o = {.leader_epoch = p->leader_epoch,
                                         .wall_ms = loop_wall_ms(ps->shard->loop),
                                         .coordinator = is_coordinator(&taken)};
    int rc = log_append(p->log, batches, n, &o, &err);
    assert(rc <= 0);
    if (rc)
        log_error("broker.partition", "append failed partition=%s-%d error=%s", p->topic, p->key.index,
                  err.text);
    int64_t bytes = 0;
    for (unsigned i = 0; i < n; i++)
        bytes += batches[i].error || batches[i].duplicate ? 0 : (int64_t)batches[i].size_bytes;
    assert(bytes >= 0);
    p->appended_bytes += (uint64_t)bytes;
    assert(p->appended_bytes >= p->committed_bytes);
    metric_add(ps->appends_n, n);
    metric_add(ps->append_bytes, bytes);
    if (!ps->host->flush_before_ack || MUTANT("hw_follows_append"))
        watermark_follow(p);
    if (bytes > 0)
        flush_want(p);
    for (unsigned i = 0; i < n; i++)
        written(p, LIST_ENTRY(list_pop(&taken), struct partition_append, link), &batches[i]);
    assert(list_empty(&taken));
    if (rc && log_fenced(p->log))
        partition_fenced(p);
    INVARIANT(p);
    return (size_t)bytes;
}

static void unpark(struct partition *p, struct partition_append *a)
{
    assert(list_linked(&p->waiting));
    assert(list_linked(&a->link));
    list_remove(&a->link);
    metric_add(p->set->parked_n, -1);
    if (list_empty(&p->parked) && list_linked(&p->waiting))
        list_remove(&p->waiting);
}

void append_release(struct partition *p)
{
    assert(p->magic == PARTITION_MAGIC);
    while (!list_empty(&p->parked)) {
        struct partition_append *a = LIST_ENTRY(p->parked.next, struct partition_append, link);
        if (a->last_offset >= p->high_watermark)
            return;
        unpark(p, a);
        /* The records are kept whatever is said now. */
        finish(p, a, under_min_isr(p) ? KE_NOT_ENOUGH_REPLICAS_AFTER_APPEND : KE_NONE, NULL);
    }
}

void append_fail_all(struct partition *p, int16_t error)
{
    assert(error); /* nobody is told that it went well */
    while (!list_empty(&p->pending))
        finish(p, LIST_ENTRY(list_pop(&p->pending), struct partition_append, link), error, NULL);
    while (!list_empty(&p->parked)) {
        struct partition_append *a = LIST_ENTRY(p->parked.next, struct partition_append, link);
        unpark(p, a);
        finish(p, a, error, NULL);
    }
    if (list_linked(&p->dirty))
        list_remove(&p->dirty);
    assert(!list_linked(&p->waiting));
}

void append_on_timeout(void *arg)
{
    assert(!((struct partitions *)arg)->closing);
    struct partitions *ps = arg;
    int64_t now = loop_now_us(ps->shard->loop);
    list_each_safe(at, &ps->waiting)
    {
        struct partition *p = LIST_ENTRY(at, struct partition, waiting);
        list_each_safe(parked, &p->parked)
        {
            struct partition_append *a = LIST_ENTRY(parked, struct partition_append, link);
            if (a->deadline_us > now)
                continue;
            unpark(p, a);
            finish(p, a, KE_REQUEST_TIMED_OUT, NULL);
        }
    }
    if (!list_empty(&ps->waiting))
        loop_timer_in(&ps->timeouts, TIMEOUT_TICK_US);
}
