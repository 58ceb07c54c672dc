/* OffsetFetch: committed offsets of one group (to version 7) or many (from 8). */
#include "broker/api/group_request.h"

struct reading {
    struct group_walk walk;
    struct kp_offset_fetch_request_groups *groups;
    struct kp_offset_fetch_response_groups *answers;
    struct kp_offset_fetch_response out;
};

static struct slice group(struct group_walk *w, int32_t i)
{
    return LIST_ENTRY(w, struct reading, walk)->groups[i].group_id;
}

static void visit(struct group_walk *w, int32_t i)
{
    struct reading *r = LIST_ENTRY(w, struct reading, walk);
    groups_fetch(w->req->shard->groups, &r->groups[i], &w->req->arena, &r->answers[i]);
    group_walk_next(w);
}

/* Before version 2 the response has no place for an error of the group: it is in each partition. */
static void answer_one(struct reading *r)
{
    assert(r->walk.n == 1);
    struct api_request *req = r->walk.req;
    const struct kp_offset_fetch_response_groups *from = &r->answers[0];
    r->out.error_code = from->error_code;
    r->out.topics = API_NEWS(req, struct kp_offset_fetch_response_topics, from->topics_n);
    for (int32_t t = 0; r->out.topics && t < from->topics_n; t++) {
        const struct kp_offset_fetch_response_groups_topics *in = &from->topics[t];
        struct kp_offset_fetch_response_topics *to = &r->out.topics[r->out.topics_n++];
        to->name = in->name;
        to->partitions = API_NEWS(req, struct kp_offset_fetch_response_topics_partitions, in->partitions_n);
        for (int32_t p = 0; to->partitions && p < in->partitions_n; p++)
            to->partitions[to->partitions_n++] = (struct kp_offset_fetch_response_topics_partitions){
                .partition_index = in->partitions[p].partition_index,
                .committed_offset = in->partitions[p].committed_offset,
                .committed_leader_epoch = in->partitions[p].committed_leader_epoch,
                .metadata = in->partitions[p].metadata,
                .error_code = in->partitions[p].error_code,
            };
    }
}

static void finished(struct group_walk *w)
{
    struct reading *r = LIST_ENTRY(w, struct reading, walk);
    if (w->req->version < 8) {
        answer_one(r);
    } else {
        r->out.groups = r->answers;
        r->out.groups_n = w->n;
    }
    api_respond(w->req, &r->out);
}

/* The one group of an old request, in the words of the new. */
static struct kp_offset_fetch_request_groups *one_group(struct api_request *req)
{
    const struct kp_offset_fetch_request *in = req->body;
    int32_t n = in->topics_n;
    struct kp_offset_fetch_request_groups *g = API_NEW(req, struct kp_offset_fetch_request_groups);
    struct kp_offset_fetch_request_groups_topics *topics =
        API_NEWS(req, struct kp_offset_fetch_request_groups_topics, n < 0 ? 0 : n);
    for (int32_t t = 0; topics && t < n; t++) {
        topics[t].name = in->topics[t].name;
        topics[t].partition_indexes = in->topics[t].partition_indexes;
        topics[t].partition_indexes_n = in->topics[t].partition_indexes_n;
    }
    if (g)
        *g = (struct kp_offset_fetch_request_groups){
            .group_id = in->group_id, .member_epoch = -1, .topics = topics, .topics_n = n};
    return topics ? g : NULL;
}

void handle_offset_fetch(struct api_request *req)
{
    const struct kp_offset_fetch_request *in = req->body;
    int32_t n = req->version < 8 ? 1 : in->groups_n;
    struct reading *r = API_NEW(req, struct reading);
    if (r) {
        r->groups = req->version < 8 ? one_group(req) : in->groups;
        r->answers = API_NEWS(req, struct kp_offset_fetch_response_groups, n);
    }
    if (!r || !r->answers || (n > 0 && !r->groups)) {
        api_close(req, "out of memory");
        return;
    }
    r->walk = (struct group_walk){.req = req, .n = n, .group = group, .visit = visit, .finished = finished};
    group_walk_start(&r->walk);
}
