#include "broker/api/group_request.h"

struct one {
    struct groups_call call;
    struct api_request *req;
    void (*fn)(struct groups *gs, struct groups_call *call);
};

static void on_done(struct groups_call *call)
{
    struct one *o = LIST_ENTRY(call, struct one, call);
    api_respond(o->req, call->response);
}

static void arrived(struct api_request *req)
{
    struct one *o = req->state;
    o->fn(req->shard->groups, &o->call);
}

/* Without __consumer_offsets any shard says what is to be said. */
static struct shard *home_of(const struct api_request *req, struct slice group)
{
    struct shard *to = groups_shard_of(req->shard, group);
    return to ? to : req->shard;
}

void group_request(struct api_request *req, struct slice group,
                   void (*fn)(struct groups *gs, struct groups_call *call))
{
    const struct kp_message *m = &req->api->response;
    struct one *o = API_NEW(req, struct one);
    void *response = arena_alloc(&req->arena, m->body->size_bytes);
    if (!o || !response) {
        api_close(req, "out of memory");
        return;
    }
    kp_init(m, response);
    *o = (struct one){.req = req,
                      .fn = fn,
                      .call = {.version = req->version,
                               .client_id = req->client_id,
                               .client_host = req->client_host,
                               .request = req->body,
                               .response = response,
                               .arena = &req->arena,
                               .done = on_done}};
    req->state = o;
    api_move(req, home_of(req, group), arrived);
}

/* ---- walks ---- */

static void arrived_at_shard(struct api_request *req)
{
    struct group_walk *w = req->state;
    w->scan = 0;
    group_walk_next(w);
}

static bool at_home(struct group_walk *w, int32_t i)
{
    return home_of(w->req, w->group(w, i)) == w->req->shard;
}

/* The rest of the list for this shard, then the first that is elsewhere: each shard is come to once. False: the walk is
 * not ours any more. */
static bool visit_one(struct group_walk *w)
{
    int32_t left = -1;
    for (int32_t i = w->scan; i < w->n; i++)
        if (!w->visited[i] && at_home(w, i)) {
            w->scan = i + 1;
            w->visited[i] = true;
            w->visit(w, i);
            return true;
        }
    for (int32_t i = 0; i < w->n && left < 0; i++)
        left = w->visited[i] ? -1 : i;
    w->running = false;
    if (left < 0)
        w->finished(w);
    else
        api_move(w->req, home_of(w->req, w->group(w, left)), arrived_at_shard);
    return false;
}

/* A visit that is over at once comes back here from within the loop: thousands of groups must not be as deep a
 * stack. */
void group_walk_next(struct group_walk *w)
{
    w->again = true;
    if (w->running)
        return;
    w->running = true;
    while (w->again) {
        w->again = false;
        if (!visit_one(w))
            return;
    }
    w->running = false; /* the visit goes on by itself, and comes back */
}

void group_walk_start(struct group_walk *w)
{
    w->visited = API_NEWS(w->req, bool, w->n);
    w->req->state = w;
    if (!w->visited)
        api_close(w->req, "out of memory");
    else
        group_walk_next(w);
}
