/* DescribeGroups: state, protocol and members. A group that is not there is "Dead", as clients expect (before v6). */
#include "broker/api/group_request.h"

/* READ, DELETE, DESCRIBE: bits of AclOperation, all allowed while there is no authorizer. */
#define GROUP_OPERATIONS (1 << 3 | 1 << 6 | 1 << 8)

struct description {
    struct group_walk walk;
    struct kp_describe_groups_response *out;
};

static struct slice group(struct group_walk *w, int32_t i)
{
    return ((const struct kp_describe_groups_request *)w->req->body)->groups[i];
}

static void visit(struct group_walk *w, int32_t i)
{
    struct description *d = LIST_ENTRY(w, struct description, walk);
    const struct kp_describe_groups_request *in = w->req->body;
    struct kp_describe_groups_response_groups *g = &d->out->groups[i];
    groups_describe(w->req->shard->groups, group(w, i), &w->req->arena, g);
    if (in->include_authorized_operations)
        g->authorized_operations = GROUP_OPERATIONS;
    group_walk_next(w);
}

static void finished(struct group_walk *w)
{
    api_respond(w->req, LIST_ENTRY(w, struct description, walk)->out);
}

void handle_describe_groups(struct api_request *req)
{
    const struct kp_describe_groups_request *in = req->body;
    struct description *d = API_NEW(req, struct description);
    struct kp_describe_groups_response *out = API_NEW(req, struct kp_describe_groups_response);
    if (!d || !out ||
        !(out->groups = API_NEWS(req, struct kp_describe_groups_response_groups, in->groups_n))) {
        api_close(req, "out of memory");
        return;
    }
    out->groups_n = in->groups_n;
    *d = (struct description){
        .walk = {.req = req, .n = in->groups_n, .group = group, .visit = visit, .finished = finished},
        .out = out};
    group_walk_start(&d->walk);
}
