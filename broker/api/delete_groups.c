/* DeleteGroups: groups without members go, with their offsets. */
#include "broker/api/group_request.h"

struct deletion {
    struct group_walk walk;
    struct groups_call call; /* of the group at hand */
    int32_t at;
    struct kp_delete_groups_response *out;
};

static struct slice group(struct group_walk *w, int32_t i)
{
    return ((const struct kp_delete_groups_request *)w->req->body)->groups_names[i];
}

static void on_deleted(struct groups_call *call)
{
    struct deletion *d = LIST_ENTRY(call, struct deletion, call);
    d->out->results[d->at].error_code = call->error;
    group_walk_next(&d->walk);
}

static void visit(struct group_walk *w, int32_t i)
{
    struct deletion *d = LIST_ENTRY(w, struct deletion, walk);
    d->at = i;
    d->out->results[i].group_id = group(w, i);
    d->call = (struct groups_call){.version = w->req->version, .arena = &w->req->arena, .done = on_deleted};
    groups_delete(w->req->shard->groups, group(w, i), &d->call);
}

static void finished(struct group_walk *w)
{
    api_respond(w->req, LIST_ENTRY(w, struct deletion, walk)->out);
}

void handle_delete_groups(struct api_request *req)
{
    const struct kp_delete_groups_request *in = req->body;
    struct deletion *d = API_NEW(req, struct deletion);
    struct kp_delete_groups_response *out = API_NEW(req, struct kp_delete_groups_response);
    if (!d || !out ||
        !(out->results = API_NEWS(req, struct kp_delete_groups_response_results, in->groups_names_n))) {
        api_close(req, "out of memory");
        return;
    }
    out->results_n = in->groups_names_n;
    *d = (struct deletion){
        .walk = {.req = req, .n = in->groups_names_n, .group = group, .visit = visit, .finished = finished},
        .out = out};
    group_walk_start(&d->walk);
}
