/* Answers to parked requests: what the machine says, as the response of the version asked in. */
#include "broker/group/groups_internal.h"

#include <assert.h>

static struct slice or_empty(struct slice s)
{
    return slice_is_null(s) ? slice_of("", 0) : s;
}

static void add_members(const struct hosted *h, struct groups_call *call, struct kp_join_group_response *r)
{
    size_t n = group_members_n(h->group);
    r->members = ARENA_NEWS(call->arena, struct kp_join_group_response_members, n);
    assert(group_state(h->group) == GROUP_COMPLETING || group_state(h->group) == GROUP_STABLE);
    if (!r->members)
        return;
    for (const struct group_member *m = group_member_next(h->group, NULL); m;
         m = group_member_next(h->group, m)) {
        struct group_member_view v = group_member_view(h->group, m);
        r->members[r->members_n++] = (struct kp_join_group_response_members){
            .member_id = arena_dup(call->arena, v.id),
            .group_instance_id = arena_dup(call->arena, v.instance_id),
            .metadata = arena_dup(call->arena, v.subscription)};
    }
    assert((size_t)r->members_n == n);
}

void hosted_answer_join(struct hosted *h, const struct group_effect *e)
{
    struct groups_call *call = e->token;
    struct kp_join_group_response *r = call->response;
    assert(r);
    assert(e->kind == GROUP_ANSWER_JOIN);
    assert((e->error || e->join.generation > 0));
    struct slice name = e->join.protocol_name;
    *r = (struct kp_join_group_response){
        .error_code = e->error,
        .generation_id = e->join.generation,
        .protocol_type = arena_dup(call->arena, e->join.protocol_type),
        .protocol_name = arena_dup(call->arena, call->version < 7 ? or_empty(name) : name),
        .leader = arena_dup(call->arena, e->join.leader),
        .skip_assignment = e->join.skip_assignment,
        .member_id = arena_dup(call->arena, e->join.member_id),
    };
    if (e->join.with_members)
        add_members(h, call, r);
    groups_answer(h->gs, call, e->error);
}

void hosted_answer_sync(struct hosted *h, const struct group_effect *e)
{
    struct groups_call *call = e->token;
    struct kp_sync_group_response *r = call->response;
    assert(r);
    assert(e->kind == GROUP_ANSWER_SYNC);
    *r = (struct kp_sync_group_response){
        .error_code = e->error,
        .protocol_type = arena_dup(call->arena, e->sync.protocol_type),
        .protocol_name = arena_dup(call->arena, e->sync.protocol_name),
        .assignment = arena_dup(call->arena, or_empty(e->sync.assignment)),
    };
    groups_answer(h->gs, call, e->error);
}
