/* JoinGroup, SyncGroup, Heartbeat, LeaveGroup: from requests to events of the machine. */
#include "broker/group/groups_internal.h"

#include <stdio.h>

/* Clients that have no instance id send null, some send "". */
static struct slice instance_of(struct slice s)
{
    return s.n ? s : SLICE_NULL;
}

/* ---- join ---- */

static void refuse_join(struct groups *gs, struct groups_call *call, int16_t error)
{
    const struct kp_join_group_request *in = call->request;
    *(struct kp_join_group_response *)call->response = (struct kp_join_group_response){
        .error_code = error,
        .generation_id = -1,
        .protocol_name = call->version < 7 ? slice_of("", 0) : SLICE_NULL,
        .leader = slice_of("", 0),
        .member_id = in->member_id,
    };
    groups_answer(gs, call, error);
}

/* As Kafka names members: the instance or client id, a dash, a random UUID. */
static struct slice make_member_id(struct groups *gs, struct groups_call *call, struct slice instance)
{
    uint64_t a = loop_random(gs->shard->loop), b = loop_random(gs->shard->loop);
    struct slice who = instance.n ? instance : call->client_id;
    return arena_printf(call->arena, "%.*s-%08x-%04x-4%03x-%04x-%012llx", SLICE_FMT(who), (unsigned)(a >> 32),
                        (unsigned)(a >> 16) & 0xffff, (unsigned)a & 0xfff,
                        ((unsigned)(b >> 48) & 0x3fff) | 0x8000, (unsigned long long)(b & 0xffffffffffff));
}

static struct group_protocol *protocols_of(struct groups_call *call)
{
    const struct kp_join_group_request *in = call->request;
    struct group_protocol *v = ARENA_NEWS(call->arena, struct group_protocol, in->protocols_n);
    for (int32_t i = 0; v && i < in->protocols_n; i++)
        v[i] = (struct group_protocol){in->protocols[i].name, in->protocols[i].metadata};
    return v;
}

static void join(struct groups *gs, struct hosted *h, struct groups_call *call)
{
    const struct kp_join_group_request *in = call->request;
    struct slice instance = instance_of(in->group_instance_id);
    assert(h->at);
    assert(!h->deleting);
    struct group_event e = {
        .kind = GROUP_JOIN,
        .token = call,
        .caller = {in->member_id, instance, 0},
        .join = {.fresh_member_id = make_member_id(gs, call, instance),
                 .client_id = slice_is_null(call->client_id) ? slice_of("", 0) : call->client_id,
                 .client_host = arena_printf(call->arena, "/%s", call->client_host),
                 .protocol_type = in->protocol_type,
                 .protocols = protocols_of(call),
                 .protocols_n = in->protocols_n,
                 .session_timeout_ms = in->session_timeout_ms,
                 .rebalance_timeout_ms =
                     call->version == 0 ? in->session_timeout_ms : in->rebalance_timeout_ms,
                 .member_id_required = call->version >= 4,
                 .may_skip_assignment = call->version >= 9},
    };
    if (arena_failed(call->arena))
        refuse_join(gs, call, KE_COORDINATOR_NOT_AVAILABLE);
    else
        hosted_step(h, &e);
    hosted_forget_if_void(h);
}

void groups_join(struct groups *gs, struct groups_call *call)
{
    const struct kp_join_group_request *in = call->request;
    struct coordinator *c;
    int16_t error;
    struct hosted *h = groups_find(gs, in->group_id, &c, &error);
    if (in->group_id.n == 0)
        error = KE_INVALID_GROUP_ID;
    if (error == KE_NONE && !h) {
        /* A group begins with somebody who has no id yet. */
        error = in->member_id.n ? KE_UNKNOWN_MEMBER_ID : KE_NONE;
        h = error == KE_NONE ? hosted_add(c, in->group_id) : NULL;
        if (error == KE_NONE && !h)
            error = KE_COORDINATOR_NOT_AVAILABLE;
    }
    if (error != KE_NONE)
        refuse_join(gs, call, error);
    else
        join(gs, h, call);
    groups_flush(gs);
}

/* ---- sync ---- */

static void refuse_sync(struct groups *gs, struct groups_call *call, int16_t error)
{
    /* The members of a group that is being loaded must join anew anyway. */
    if (error == KE_COORDINATOR_LOAD_IN_PROGRESS)
        error = KE_REBALANCE_IN_PROGRESS;
    *(struct kp_sync_group_response *)call->response =
        (struct kp_sync_group_response){.error_code = error, .assignment = slice_of("", 0)};
    groups_answer(gs, call, error);
}

static struct group_assignment *assignments_of(struct groups_call *call)
{
    const struct kp_sync_group_request *in = call->request;
    struct group_assignment *v = ARENA_NEWS(call->arena, struct group_assignment, in->assignments_n);
    for (int32_t i = 0; v && i < in->assignments_n; i++)
        v[i] = (struct group_assignment){in->assignments[i].member_id, in->assignments[i].assignment};
    return v;
}

void groups_sync(struct groups *gs, struct groups_call *call)
{
    const struct kp_sync_group_request *in = call->request;
    struct coordinator *c;
    int16_t error;
    struct hosted *h = groups_find(gs, in->group_id, &c, &error);
    struct group_event e = {
        .kind = GROUP_SYNC,
        .token = call,
        .caller = {in->member_id, instance_of(in->group_instance_id), in->generation_id},
        .sync = {.protocol_type = call->version >= 5 ? in->protocol_type : SLICE_NULL,
                 .protocol_name = call->version >= 5 ? in->protocol_name : SLICE_NULL,
                 .assignments = assignments_of(call),
                 .assignments_n = in->assignments_n},
    };
    if (in->group_id.n == 0)
        error = KE_INVALID_GROUP_ID;
    else if (error == KE_NONE && !h)
        error = KE_UNKNOWN_MEMBER_ID;
    else if (error == KE_NONE && arena_failed(call->arena))
        error = KE_COORDINATOR_NOT_AVAILABLE;
    if (error != KE_NONE)
        refuse_sync(gs, call, error);
    else
        hosted_step(h, &e);
    groups_flush(gs);
}

/* ---- heartbeat ---- */

void groups_heartbeat(struct groups *gs, struct groups_call *call)
{
    const struct kp_heartbeat_request *in = call->request;
    struct coordinator *c;
    int16_t error;
    struct hosted *h = groups_find(gs, in->group_id, &c, &error);
    if (in->group_id.n == 0) {
        error = KE_INVALID_GROUP_ID;
    } else if (error == KE_COORDINATOR_LOAD_IN_PROGRESS) {
        error =
            KE_NONE; /* its session begins when the group is there: clients know no other answer to wait on */
    } else if (error == KE_NONE && !h) {
        error = KE_UNKNOWN_MEMBER_ID;
    } else if (error == KE_NONE) {
        struct group_event e = {
            .kind = GROUP_HEARTBEAT,
            .token = call,
            .caller = {in->member_id, instance_of(in->group_instance_id), in->generation_id},
        };
        error = hosted_step(h, &e);
    }
    ((struct kp_heartbeat_response *)call->response)->error_code = error;
    groups_answer(gs, call, error);
    groups_flush(gs);
}

/* ---- leave ---- */

static int32_t leaving_of(struct groups_call *call, struct group_leaving **out)
{
    const struct kp_leave_group_request *in = call->request;
    int32_t n = call->version < 3 ? 1 : in->members_n;
    assert(n >= 0);
    struct group_leaving *v = ARENA_NEWS(call->arena, struct group_leaving, n);
    *out = v;
    if (v && call->version < 3)
        v[0] = (struct group_leaving){in->member_id, SLICE_NULL, KE_NONE};
    for (int32_t i = 0; v && call->version >= 3 && i < n; i++)
        v[i] = (struct group_leaving){in->members[i].member_id, instance_of(in->members[i].group_instance_id),
                                      KE_NONE};
    return n;
}

static void fill_left(struct groups_call *call, const struct group_leaving *v, int32_t n)
{
    const struct kp_leave_group_request *in = call->request;
    struct kp_leave_group_response *r = call->response;
    if (call->version < 3) {
        r->error_code = v[0].error;
        return;
    }
    r->members = ARENA_NEWS(call->arena, struct kp_leave_group_response_members, n);
    for (int32_t i = 0; r->members && i < n; i++)
        r->members[r->members_n++] = (struct kp_leave_group_response_members){
            .member_id = in->members[i].member_id,
            .group_instance_id = in->members[i].group_instance_id,
            .error_code = v[i].error,
        };
}

void groups_leave(struct groups *gs, struct groups_call *call)
{
    const struct kp_leave_group_request *in = call->request;
    struct kp_leave_group_response *r = call->response;
    struct coordinator *c;
    struct group_leaving *v;
    int16_t error;
    struct hosted *h = groups_find(gs, in->group_id, &c, &error);
    int32_t n = leaving_of(call, &v);
    if (in->group_id.n == 0)
        error = KE_INVALID_GROUP_ID;
    else if (error == KE_NONE && !v)
        error = KE_COORDINATOR_NOT_AVAILABLE;
    for (int32_t i = 0; error == KE_NONE && !h && i < n; i++)
        v[i].error = KE_UNKNOWN_MEMBER_ID; /* said of each member, not of the request */
    if (error == KE_NONE && h) {
        struct group_event e = {.kind = GROUP_LEAVE, .token = call, .leave = {v, n}};
        error = hosted_step(h, &e);
        hosted_forget_if_void(h);
    }
    r->error_code = error;
    if (error == KE_NONE)
        fill_left(call, v, n);
    groups_answer(gs, call, error);
    groups_flush(gs);
}
