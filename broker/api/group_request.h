/* What the handlers of consumer groups share: on which shard a group is, and requests that go through several shards.
 *
 * A request about one group moves to the group's shard and is answered from there. One about many is walked: it goes
 * from shard to shard, and on each handles the groups that are at home there; so it is never in two places. */
#ifndef SUNDOG_BROKER_API_GROUP_REQUEST_H
#define SUNDOG_BROKER_API_GROUP_REQUEST_H

#include "broker/api/api.h"
#include "broker/group/groups.h"

/* Answers a request about one group by `fn` on the group's shard. */
void group_request(struct api_request *req, struct slice group,
                   void (*fn)(struct groups *gs, struct groups_call *call));

/* A walk over `n` groups. */
struct group_walk {
    struct api_request *req;
    int32_t n;
    struct slice (*group)(struct group_walk *w, int32_t i);
    /* On the group's shard. Then or later, group_walk_next. */
    void (*visit)(struct group_walk *w, int32_t i);
    /* All have been visited; on any shard. */
    void (*finished)(struct group_walk *w);
    /* Private. */
    bool *visited;
    int32_t at, scan;
    bool running, again;
};

/* `w` lies in the request's arena; req->state is set to it. */
void group_walk_start(struct group_walk *w);
void group_walk_next(struct group_walk *w);

#endif
