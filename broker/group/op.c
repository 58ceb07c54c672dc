/* Batches on their way into the log: the only way anything of a group becomes true. */
#include "broker/group/groups_internal.h"

#include "base/runtime/log.h"

#include <stdlib.h>

/* Any batch: partitions refuse what is larger than max.message.bytes long before. */
#define OP_BYTES_MAX ((size_t)64 << 20)

/* The record may still become committed: only the client is told, its offset follows the log. */
static void on_due(struct groups_due *due)
{
    struct group_op *op = LIST_ENTRY(due, struct group_op, due);
    struct groups_call *call = op->call;
    assert(op->kind == OP_COMMIT);
    assert(call);
    assert(call->left == 1);
    op->call = NULL;
    call->left = 0;
    log_warn("broker.group", "record takes too long group=%.*s timeout_ms=%d",
             SLICE_FMT(group_id(op->hosted->group)), op->hosted->gs->options.commit_timeout_ms);
    groups_answer(op->hosted->gs, call, group_append_error(KE_REQUEST_TIMED_OUT));
}

struct group_op *group_op_begin(struct hosted *h, enum group_op_kind kind, struct groups_call *call)
{
    static const struct batch_options plain = BATCH_OPTIONS;
    assert(h->at);
    assert(h->gs->ops_n <= GROUPS_OPS_MAX);
    struct group_op *op = h->gs->ops_n < GROUPS_OPS_MAX ? calloc(1, sizeof *op) : NULL;
    if (!op)
        return NULL;
    op->kind = kind;
    op->hosted = h;
    op->call = call;
    op->due.fn = on_due;
    wheel_entry_init(&op->due.entry);
    buf_init(&op->batch, OP_BYTES_MAX);
    batch_begin(&op->builder, &op->batch, &plain);
    return op;
}

int group_op_changes(struct group_op *op, size_t n)
{
    assert(!op->changes);
    assert(op->kind != OP_GROUP);
    assert(n <= INT32_MAX);
    op->changes = calloc(n + 1, sizeof *op->changes);
    op->changes_max = (int32_t)n;
    return op->changes ? 0 : -E_NOMEM;
}

/* Each change is one record of the batch, in order: its offset in the log follows from its place. */
int group_op_change(struct group_op *op, struct slice topic, int32_t partition, const struct offset *at)
{
    struct hosted *h = op->hosted;
    struct offset_change change;
    int64_t wall_ms = groups_now(h->gs).wall_ms;
    assert(op->changes);
    assert(op->builder.h.records_n == op->changes_n);
    assert(op->changes_n < op->changes_max);
    assert((at == NULL) == (op->kind == OP_DELETE));
    int rc = offsets_prepare(&h->offsets, topic, partition, at, &change);
    if (rc)
        return rc;
    rc = group_record_put_offset(&op->builder, wall_ms, group_id(h->group), topic, partition, at);
    if (rc) {
        offsets_settle(&h->offsets, &change, -1);
        return rc;
    }
    op->changes[op->changes_n++] = change;
    return 0;
}

static void op_free(struct group_op *op)
{
    assert(op->changes_n == 0);
    assert(!op->due.entry.armed);
    assert(!list_linked(&op->link));
    buf_fini(&op->batch);
    free(op->changes);
    free(op);
}

static void settle(struct group_op *op, bool committed)
{
    assert(!committed || op->append.base_offset >= 0);
    for (int32_t i = 0; i < op->changes_n; i++)
        offsets_settle(&op->hosted->offsets, &op->changes[i], committed ? op->append.base_offset + i : -1);
    op->changes_n = 0;
}

void group_op_drop(struct group_op *op)
{
    settle(op, false);
    op_free(op);
}

static void on_appended(struct partition_append *a)
{
    struct group_op *op = LIST_ENTRY(a, struct group_op, append);
    struct groups *gs = op->hosted->gs;
    assert(gs->ops_n > 0);
    assert(op->hosted->ops > 0);
    assert(!list_linked(&op->link)); /* told once */
    list_push(&gs->finished, &op->link);
    groups_wake(gs);
}

void group_op_write(struct group_op *op)
{
    struct hosted *h = op->hosted;
    struct groups *gs = h->gs;
    assert(h->at);
    assert(h->at->partition);
    assert(sm_state(&h->at->state) == COORDINATOR_ACTIVE);
    assert(op->kind != OP_COMMIT || !h->deleting);
    h->ops++;
    gs->ops_n++;
    op->started_us = loop_now_us(gs->shard->loop);
    int rc = batch_close(&op->builder, NULL);
    if (rc) {
        op->append.error = rc == -E_LIMIT ? KE_MESSAGE_TOO_LARGE : KE_COORDINATOR_NOT_AVAILABLE;
        on_appended(&op->append);
        return;
    }
    if (op->call && op->kind == OP_COMMIT)
        groups_due_at(gs, &op->due, op->started_us + (int64_t)gs->options.commit_timeout_ms * 1000);
    /* No time-out of the partition's: what is in the log stays there, and our books must say what became of it. */
    op->append = (struct partition_append){.batch = op->batch.p,
                                           .batch_bytes = op->batch.n,
                                           .origin = PARTITION_COORDINATOR,
                                           .acks = -1,
                                           .leader_epoch = h->at->leader_epoch,
                                           .done = on_appended};
    partition_append(h->at->partition, &op->append);
}

/* ---- what became of them ---- */

static void deleted(struct group_op *op, int16_t error)
{
    struct hosted *h = op->hosted;
    h->delete_failed |= error != KE_NONE;
    assert(op->kind == OP_DELETE);
    if (!op->deletes_group)
        return;
    assert(h->deleting);
    bool ok = !h->delete_failed;
    h->deleting = h->delete_failed = false;
    if (ok && h->at) {
        assert(h->offsets.entries_n == 0);
        assert(group_idle(h->group));
        log_info("broker.group", "deleted group=%.*s", SLICE_FMT(group_id(h->group)));
        hosted_drop(h, KE_COORDINATOR_NOT_AVAILABLE);
    }
}

static int16_t commit_error(int16_t append_error)
{
    bool large = append_error == KE_MESSAGE_TOO_LARGE || append_error == KE_RECORD_LIST_TOO_LARGE;
    return large ? KE_INVALID_COMMIT_OFFSET_SIZE : group_append_error(append_error);
}

static void answer(struct group_op *op, int16_t error)
{
    struct groups *gs = op->hosted->gs;
    struct groups_call *call = op->call;
    groups_due_stop(gs, &op->due);
    if (!call)
        return;
    assert(call->left > 0);
    if (error)
        call->error = error;
    if (--call->left == 0)
        groups_answer(gs, call, call->error);
}

static void finish(struct group_op *op)
{
    struct hosted *h = op->hosted;
    struct groups *gs = h->gs;
    int16_t error = op->append.error;
    h->ops++; /* held while we look */
    settle(op, error == KE_NONE);
    if (error) {
        metric_add(gs->records_failed, 1);
        log_warn("broker.group", "record refused group=%.*s error=%s", SLICE_FMT(group_id(h->group)),
                 kafka_error_name(error));
    }
    if (op->kind == OP_GROUP) {
        if (op->ticket && h->at)
            hosted_step(h, &(struct group_event){.kind = GROUP_PERSISTED,
                                                 .persisted = {op->ticket, group_append_error(error)}});
    } else {
        answer(op, commit_error(error));
        if (op->kind == OP_DELETE)
            deleted(op, error);
    }
    op_free(op);
    assert(h->ops >= 2);
    assert(gs->ops_n > 0);
    gs->ops_n--;
    h->ops -= 2;
    if (h->at)
        hosted_forget_if_void(h);
    else
        hosted_free_if_done(h);
}

void group_ops_finished(struct groups *gs)
{
    while (!list_empty(&gs->finished))
        finish(LIST_ENTRY(list_pop(&gs->finished), struct group_op, link));
}
