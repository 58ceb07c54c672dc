/* A group's committed offsets: the question, and the answer's two shapes as one. */
#include "mirror/checkpoint/visit.h"

#include <assert.h>

#define FIRST_OF_MANY 8 /* the version from which OffsetFetch asks for groups, here one */

int visit_ask_offsets(struct visit *v, struct client *client,
                      void (*on_response)(void *arg, const struct client_response *r))
{
    struct kp_offset_fetch_request *q =
        visit_ask(v, client, kp_key_offset_fetch, 2, FIRST_OF_MANY, on_response);
    if (q)
        q->groups = ARENA_NEW(v->call->arena, struct kp_offset_fetch_request_groups);
    if (!q || !q->groups) {
        if (q)
            client_cancel(client, v->call);
        v->call = NULL;
        return -E_NOMEM;
    }
    q->group_id = q->groups->group_id = slice_str(v->g->name);
    q->topics_n = q->groups->topics_n = -1;
    q->groups->member_epoch = -1;
    q->groups_n = 1;
    visit_send(v);
    return 0;
}

int16_t visit_offsets_error(const struct client_response *r)
{
    assert(r->status == 0);
    const struct kp_offset_fetch_response *a = r->body;
    if (r->version < FIRST_OF_MANY)
        return a->error_code;
    return a->groups_n == 1 ? a->groups[0].error_code : KE_UNKNOWN_SERVER_ERROR;
}

void visit_offsets_each(const struct client_response *r, void (*each)(void *arg, const struct committed *o),
                        void *arg)
{
    const struct kp_offset_fetch_response *a = r->body;
    assert(visit_offsets_error(r) == KE_NONE); /* else there may be no group in it */
    int32_t topics = r->version < FIRST_OF_MANY ? a->topics_n : a->groups[0].topics_n;
    for (int32_t t = 0; t < topics; t++) {
        int32_t n =
            r->version < FIRST_OF_MANY ? a->topics[t].partitions_n : a->groups[0].topics[t].partitions_n;
        for (int32_t p = 0; p < n; p++) {
            struct committed o;
            if (r->version < FIRST_OF_MANY)
                o = (struct committed){a->topics[t].name, a->topics[t].partitions[p].metadata,
                                       a->topics[t].partitions[p].partition_index,
                                       a->topics[t].partitions[p].committed_offset};
            else
                o = (struct committed){a->groups[0].topics[t].name,
                                       a->groups[0].topics[t].partitions[p].metadata,
                                       a->groups[0].topics[t].partitions[p].partition_index,
                                       a->groups[0].topics[t].partitions[p].committed_offset};
            if (o.offset >= 0 && o.partition >= 0)
                each(arg, &o);
        }
    }
}
