/* ListGroups: the groups of all shards, one after the other. */
#include "broker/api/group_request.h"

struct listing {
    struct groups_list list;
    unsigned shard;
    struct kp_list_groups_response out;
};

static void visit(struct api_request *req)
{
    struct listing *l = req->state;
    const struct kp_list_groups_request *in = req->body;
    struct groups_filter filter = {.states = in->states_filter,
                                   .types = in->types_filter,
                                   .states_n = in->states_filter_n,
                                   .types_n = in->types_filter_n};
    int16_t error = groups_list(req->shard->groups, &filter, &l->list);
    if (error)
        l->out.error_code = error;
    if (++l->shard < req->shard->count) {
        api_move(req, req->shard->all[l->shard], visit);
        return;
    }
    l->out.groups = l->list.v;
    l->out.groups_n = l->list.n;
    api_respond(req, &l->out);
}

void handle_list_groups(struct api_request *req)
{
    struct listing *l = API_NEW(req, struct listing);
    if (!l) {
        api_close(req, "out of memory");
        return;
    }
    l->list.arena = &req->arena;
    req->state = l;
    api_move(req, req->shard->all[0], visit);
}
