/* OffsetFetch, DescribeGroups, ListGroups: what is, at once. */
#include "broker/group/groups_internal.h"

#include <assert.h>
#include <strings.h>

/* ---- offsets ---- */

static void put_offset(struct arena *arena, int32_t partition, const struct offset *at,
                       struct kp_offset_fetch_response_groups_topics_partitions *out)
{
    *out = (struct kp_offset_fetch_response_groups_topics_partitions){
        .partition_index = partition,
        .committed_offset = at ? at->offset : -1,
        .committed_leader_epoch = at ? at->leader_epoch : -1,
        .metadata = at ? arena_dup(arena, at->metadata) : slice_of("", 0),
    };
}

static void fetch_asked(const struct offsets *o, const struct kp_offset_fetch_request_groups *in,
                        struct arena *arena, int16_t error, struct kp_offset_fetch_response_groups *out)
{
    out->topics = ARENA_NEWS(arena, struct kp_offset_fetch_response_groups_topics, in->topics_n);
    for (int32_t t = 0; out->topics && t < in->topics_n; t++) {
        const struct kp_offset_fetch_request_groups_topics *from = &in->topics[t];
        struct kp_offset_fetch_response_groups_topics *to = &out->topics[t];
        to->name = from->name;
        to->partitions = ARENA_NEWS(arena, struct kp_offset_fetch_response_groups_topics_partitions,
                                    from->partition_indexes_n);
        if (!to->partitions)
            return;
        out->topics_n++;
        for (int32_t p = 0; p < from->partition_indexes_n; p++) {
            int32_t index = from->partition_indexes[p];
            const struct offset *at = o ? offsets_find(o, from->name, index) : NULL;
            put_offset(arena, index, at, &to->partitions[p]);
            to->partitions[p].error_code = error;
            to->partitions_n++;
        }
    }
}

static void fetch_all(const struct offsets *o, struct arena *arena,
                      struct kp_offset_fetch_response_groups *out)
{
    struct kp_offset_fetch_response_groups_topics *to = NULL;
    struct offset_walk w = {0};
    struct slice name = SLICE_NULL;
    out->topics = ARENA_NEWS(arena, struct kp_offset_fetch_response_groups_topics, offsets_topics_n(o));
    while (out->topics && offsets_next(o, &w)) {
        if (!w.at)
            continue;
        if (!to || !slice_eq(name, w.name)) {
            assert((size_t)out->topics_n < offsets_topics_n(o));
            name = w.name;
            to = &out->topics[out->topics_n++];
            to->name = arena_dup(arena, name);
            to->partitions = ARENA_NEWS(arena, struct kp_offset_fetch_response_groups_topics_partitions,
                                        offsets_topic_entries_n(o, name));
        }
        if (!to->partitions)
            return;
        put_offset(arena, w.partition, w.at, &to->partitions[to->partitions_n++]);
    }
}

void groups_fetch(struct groups *gs, const struct kp_offset_fetch_request_groups *in, struct arena *arena,
                  struct kp_offset_fetch_response_groups *out)
{
    int16_t error;
    struct coordinator *c = groups_coordinator(gs, in->group_id, &error);
    const struct hosted *h =
        c ? hosted_find(c, in->group_id) : NULL; /* being deleted: until that is committed */
    out->group_id = in->group_id;
    out->error_code = error;
    if (in->topics_n >= 0)
        fetch_asked(h ? &h->offsets : NULL, in, arena, error, out);
    else if (h)
        fetch_all(&h->offsets, arena, out);
}

/* ---- groups ---- */

static void describe_members(const struct group *g, struct arena *arena,
                             struct kp_describe_groups_response_groups *out)
{
    bool stable = group_state(g) == GROUP_STABLE; /* before that there is nothing that holds */
    out->members = ARENA_NEWS(arena, struct kp_describe_groups_response_members, group_members_n(g));
    for (const struct group_member *m = NULL; out->members && (m = group_member_next(g, m));) {
        struct group_member_view v = group_member_view(g, m);
        out->members[out->members_n++] = (struct kp_describe_groups_response_members){
            .member_id = arena_dup(arena, v.id),
            .group_instance_id = arena_dup(arena, v.instance_id),
            .client_id = arena_dup(arena, v.client_id),
            .client_host = arena_dup(arena, v.client_host),
            .member_metadata = stable ? arena_dup(arena, v.subscription) : slice_of("", 0),
            .member_assignment = stable ? arena_dup(arena, v.assignment) : slice_of("", 0),
        };
    }
    assert(!out->members || (size_t)out->members_n == group_members_n(g));
}

static struct slice dup_or_empty(struct arena *arena, struct slice s)
{
    return s.n ? arena_dup(arena, s) : slice_of("", 0);
}

void groups_describe(struct groups *gs, struct slice group, struct arena *arena,
                     struct kp_describe_groups_response_groups *out)
{
    int16_t error;
    struct coordinator *c = groups_coordinator(gs, group, &error);
    const struct hosted *h = c ? hosted_find(c, group) : NULL;
    *out = (struct kp_describe_groups_response_groups){
        .error_code = error,
        .group_id = group,
        .group_state = error ? slice_of("", 0) : SLICE_LIT("Dead"), /* what a group is that is not there */
        .protocol_type = slice_of("", 0),
        .protocol_data = slice_of("", 0),
        .authorized_operations = INT32_MIN,
    };
    if (!h)
        return;
    bool stable = group_state(h->group) == GROUP_STABLE;
    out->group_state = slice_str(group_state_name(h->group));
    out->protocol_type = dup_or_empty(arena, group_protocol_type(h->group));
    out->protocol_data = stable ? dup_or_empty(arena, group_protocol_name(h->group)) : slice_of("", 0);
    describe_members(h->group, arena, out);
}

static bool is_listed(const struct slice *wanted, int32_t n, const char *is)
{
    size_t len = strlen(is);
    for (int32_t i = 0; i < n; i++)
        if (wanted[i].n == len && strncasecmp((const char *)wanted[i].p, is, len) == 0)
            return true;
    return n <= 0;
}

static bool make_room(struct groups_list *to)
{
    if (to->n < to->cap)
        return true;
    int32_t cap = to->cap ? 2 * to->cap : 64;
    struct kp_list_groups_response_groups *v =
        ARENA_NEWS(to->arena, struct kp_list_groups_response_groups, cap);
    if (!v)
        return false;
    if (to->n)
        memcpy(v, to->v, (size_t)to->n * sizeof *v);
    to->v = v;
    to->cap = cap;
    return true;
}

static bool put_group(const struct group *g, struct groups_list *to)
{
    if (!make_room(to))
        return false;
    assert(to->n < to->cap);
    to->v[to->n++] = (struct kp_list_groups_response_groups){
        .group_id = arena_dup(to->arena, group_id(g)),
        .protocol_type = dup_or_empty(to->arena, group_protocol_type(g)),
        .group_state = slice_str(group_state_name(g)),
        .group_type = SLICE_LIT("classic"),
    };
    return true;
}

int16_t groups_list(struct groups *gs, const struct groups_filter *filter, struct groups_list *to)
{
    int16_t error = KE_NONE;
    for (const struct coordinator *c = gs->coordinators; c; c = c->hh.next) {
        if (sm_state(&c->state) == COORDINATOR_LOADING)
            error = KE_COORDINATOR_LOAD_IN_PROGRESS;
        if (sm_state(&c->state) != COORDINATOR_ACTIVE ||
            !is_listed(filter->types, filter->types_n, "classic"))
            continue;
        for (const struct hosted *h = c->hosted; h; h = h->hh.next)
            if (is_listed(filter->states, filter->states_n, group_state_name(h->group)) &&
                !put_group(h->group, to))
                return error;
    }
    return error;
}
