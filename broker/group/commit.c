/* OffsetCommit: checked by the group, written to the log, seen and acknowledged when it is committed there. */
#include "broker/group/groups_internal.h"

#include <assert.h>

#include "base/core/mutant.h"
#include "broker/metadata/image.h"

/* What is not an error of its own fails as the whole does. */
static void fill(struct groups_call *call, int16_t error)
{
    struct kp_offset_commit_response *r = call->response;
    for (int32_t t = 0; t < r->topics_n; t++)
        for (int32_t p = 0; p < r->topics[t].partitions_n; p++)
            if (r->topics[t].partitions[p].error_code == KE_NONE)
                r->topics[t].partitions[p].error_code = error;
}

static int32_t partitions_of(const struct groups *gs, struct slice name)
{
    const struct image_topic *t = gs->shard->image ? image_topic(gs->shard->image, name) : NULL;
    return t ? t->partitions_n : 0;
}

static int16_t check_partition(const struct groups *gs, int32_t partitions,
                               const struct kp_offset_commit_request_partitions *in)
{
    if (in->partition_index < 0 || in->partition_index >= partitions)
        return KE_UNKNOWN_TOPIC_OR_PARTITION;
    if (in->committed_metadata.n > (size_t)gs->options.offset_metadata_max_bytes)
        return KE_OFFSET_METADATA_TOO_LARGE;
    return KE_NONE;
}

/* The answer as it will be if the log takes it; the number of offsets to write, or -1 out of memory. */
static int64_t prepare(struct groups *gs, struct groups_call *call)
{
    const struct kp_offset_commit_request *in = call->request;
    struct kp_offset_commit_response *r = call->response;
    int64_t n = 0;
    r->topics = ARENA_NEWS(call->arena, struct kp_offset_commit_response_topics, in->topics_n);
    for (int32_t t = 0; r->topics && t < in->topics_n; t++) {
        const struct kp_offset_commit_request_topics *from = &in->topics[t];
        struct kp_offset_commit_response_topics *to = &r->topics[t];
        int32_t partitions = partitions_of(gs, from->name);
        to->name = from->name;
        to->partitions =
            ARENA_NEWS(call->arena, struct kp_offset_commit_response_partitions, from->partitions_n);
        if (!to->partitions)
            return -1;
        r->topics_n++;
        for (int32_t p = 0; p < from->partitions_n; p++) {
            struct kp_offset_commit_response_partitions *out = &to->partitions[to->partitions_n++];
            out->partition_index = from->partitions[p].partition_index;
            out->error_code = check_partition(gs, partitions, &from->partitions[p]);
            n += out->error_code == KE_NONE;
        }
    }
    assert(!r->topics || r->topics_n == in->topics_n);
    return r->topics ? n : -1;
}

static struct offset offset_of(const struct groups *gs, const struct groups_call *call,
                               const struct kp_offset_commit_request_partitions *p)
{
    const struct kp_offset_commit_request *in = call->request;
    int64_t now_ms = groups_now(gs).wall_ms;
    bool own = call->version <= 4 && in->retention_time_ms >= 0;
    bool for_ever = in->retention_time_ms > INT64_MAX - now_ms; /* as long as there are numbers */
    return (struct offset){
        .offset = p->committed_offset,
        .leader_epoch = p->committed_leader_epoch,
        .metadata = slice_is_null(p->committed_metadata) ? slice_of("", 0) : p->committed_metadata,
        .committed_ms = now_ms,
        .expires_ms = !own       ? OFFSET_NO_EXPIRY
                      : for_ever ? INT64_MAX
                                 : now_ms + in->retention_time_ms,
    };
}

static int add_changes(struct groups *gs, struct groups_call *call, struct group_op *op)
{
    const struct kp_offset_commit_request *in = call->request;
    const struct kp_offset_commit_response *r = call->response;
    int rc = 0;
    assert(op->kind == OP_COMMIT);
    assert(r->topics_n == in->topics_n);
    for (int32_t t = 0; rc == 0 && t < in->topics_n; t++)
        for (int32_t p = 0; rc == 0 && p < in->topics[t].partitions_n; p++) {
            struct offset at = offset_of(gs, call, &in->topics[t].partitions[p]);
            if (r->topics[t].partitions[p].error_code == KE_NONE)
                rc =
                    group_op_change(op, in->topics[t].name, in->topics[t].partitions[p].partition_index, &at);
        }
    return rc;
}

/* KE_NONE: the log has it, the op will answer. */
static int16_t write(struct groups *gs, struct hosted *h, struct groups_call *call, size_t n)
{
    assert(n > 0);
    assert(h->at);
    assert(!h->deleting);
    assert(call->left == 0);
    struct group_op *op = group_op_begin(h, OP_COMMIT, call);
    if (!op)
        return KE_COORDINATOR_NOT_AVAILABLE;
    int rc = group_op_changes(op, n);
    if (rc == 0)
        rc = add_changes(gs, call, op);
    if (rc) {
        group_op_drop(op);
        return rc == -E_LIMIT ? KE_INVALID_COMMIT_OFFSET_SIZE : KE_COORDINATOR_NOT_AVAILABLE;
    }
    assert((size_t)op->changes_n == n);
    metric_add(gs->commits, 1);
    call->left = 1;
    if (MUTANT("commit_ack_before_append")) {
        op->call = NULL;
        call->left = 0;
        groups_answer(gs, call, KE_NONE);
    }
    group_op_write(op);
    return KE_NONE;
}

/* A group that is not there begins with the first offset of a consumer that assigns itself. */
static struct hosted *find_or_add(struct groups *gs, struct groups_call *call, int16_t *error)
{
    const struct kp_offset_commit_request *in = call->request;
    struct coordinator *c;
    struct hosted *h = groups_find(gs, in->group_id, &c, error);
    if (h || *error != KE_NONE)
        return h;
    if (in->generation_id_or_member_epoch != -1) {
        *error = call->version >= 9 ? KE_GROUP_ID_NOT_FOUND : KE_ILLEGAL_GENERATION;
        return NULL;
    }
    h = hosted_add(c, in->group_id);
    if (!h)
        *error = KE_COORDINATOR_NOT_AVAILABLE;
    return h;
}

static int16_t commit(struct groups *gs, struct groups_call *call)
{
    const struct kp_offset_commit_request *in = call->request;
    int16_t error;
    int64_t n = prepare(gs, call);
    struct hosted *h = n < 0 ? NULL : find_or_add(gs, call, &error);
    if (n < 0)
        return KE_COORDINATOR_NOT_AVAILABLE;
    if (!h)
        return error;
    struct group_event e = {
        .kind = GROUP_COMMIT,
        .token = call,
        .caller = {in->member_id, in->group_instance_id.n ? in->group_instance_id : SLICE_NULL,
                   in->generation_id_or_member_epoch},
    };
    error = hosted_step(h, &e);
    if (error == KE_NONE && n > 0)
        error = write(gs, h, call, (size_t)n);
    else if (error == KE_NONE)
        groups_answer(gs, call, KE_NONE);
    hosted_forget_if_void(h);
    return error;
}

void groups_commit(struct groups *gs, struct groups_call *call)
{
    call->fill = fill;
    int16_t error = commit(gs, call);
    if (error != KE_NONE)
        groups_answer(gs, call, error);
    groups_flush(gs);
}
