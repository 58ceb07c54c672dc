/* The group's commits at the source through the store's map: each target partition's offset, its state, what of it has
 * changed, and which of them the target must be asked about. */
#include "mirror/checkpoint/visit.h"

#include "base/core/grow.h"

#include <assert.h>

struct gathered {
    struct visit *v;
    const char *topic;
    struct group_commit *list;
    size_t n, cap;
    struct slice metadata;
};

static void gather(void *arg, const struct committed *o)
{
    struct gathered *g = arg;
    if (!slice_eq_str(o->topic, g->topic) || g->n == GROUP_COMMITS_MAX)
        return; /* more than a topic can have partitions: said twice */
    if (g->n == g->cap) {
        size_t cap = g->cap ? g->cap * 2 : 16;
        struct group_commit *more = ARENA_NEWS(&g->v->arena, struct group_commit, cap);
        if (!more)
            return;
        if (g->n)
            memcpy(more, g->list, g->n * sizeof *more);
        g->list = more;
        g->cap = cap;
    }
    assert(g->n < g->cap);
    g->list[g->n++] = (struct group_commit){o->partition, o->offset};
    g->metadata = o->metadata;
}

static int wish(struct visit *v, struct entry *e, const struct watched *w, const struct decide_in *in)
{
    assert(e->v.q >= 0);
    assert(e->key.topic == w->number);
    assert(in->now.state != TRANSLATE_NO_MAP);
    if (!GROW(v->wishes, v->wishes_n, v->wishes_cap, 16))
        return -E_NOMEM;
    v->wishes[v->wishes_n++] = (struct wish){.entry = e, .topic = w, .in = *in};
    return 0;
}

static bool same_commits(const struct group_entry *a, const struct group_entry *b)
{
    if (a->commits_n != b->commits_n)
        return false;
    for (size_t i = 0; i < a->commits_n; i++)
        if (a->commits[i].p != b->commits[i].p || a->commits[i].offset != b->commits[i].offset)
            return false;
    return true;
}

/* One target partition: translated, kept when something has changed. */
static int translate_partition(struct visit *v, struct topic_map *m, const struct watched *w,
                               const struct gathered *g, int32_t q)
{
    struct checkpoint *c = v->c;
    struct translate_commits commits = {g->list, g->n, m->partitions};
    struct entry *e = entry_of(v->g, w->number, q);
    assert(q >= 0);
    assert(g->n > 0);
    struct decide_in in = {.apply = c->options->sync_group_offsets, .target = {.offset = -1}};
    struct decide_out out;
    int rc = e ? translate_forward(&m->map.map, m->rule, &commits, q, NULL, &in.now) : -E_NOMEM;
    if (rc)
        return rc;
    e->round = c->round;
    in.applied = e->v.applied;
    in.applied_offset = e->v.applied_offset;
    in.intends = e->v.intends;
    in.intended_offset = e->v.intended_offset;
    decide(&in, &out);
    struct group_entry n = e->v;
    n.group = slice_str(v->g->name);
    n.metadata = g->metadata;
    n.commits = g->list;
    n.commits_n = g->n;
    if (m->rule.mode == ROUTE_KEEP)
        for (size_t i = 0; i < g->n; i++)
            if (g->list[i].p == q) {
                n.commits = &g->list[i];
                n.commits_n = 1;
            }
    bool moved = n.offset != in.now.offset;
    n.offset = in.now.state == TRANSLATE_NO_MAP ? -1 : in.now.offset;
    n.reread = in.now.reread;
    bool waits = decide_needs_target(&in);
    /* What the target said last holds until something moves here or it is asked again. */
    if (moved || !waits || e->v.updated_ms == 0) {
        n.state = out.state;
        n.reason = slice_str(out.reason);
    }
    n.updated_ms = loop_wall_ms(c->loop);
    bool changed = moved || !same_commits(&n, &e->v) || n.state != e->v.state ||
                   !slice_eq(n.reason, e->v.reason) || e->v.updated_ms == 0;
    if (changed && (rc = entry_set(e, &n)))
        return rc;
    if (changed)
        c->events->save(c->arg, w->number, &e->v);
    return waits && c->apply_now ? wish(v, e, w, &in) : 0;
}

static int translate_topic(struct visit *v, struct store_view *view, const struct watched *w,
                           const struct gathered *g)
{
    struct topic_map m;
    int rc = topic_map_open(view, &w->stored, &m);
    if (rc <= 0)
        return rc;
    rc = 0;
    if (m.rule.mode == ROUTE_KEEP)
        for (size_t i = 0; !rc && i < g->n; i++)
            rc = translate_partition(v, &m, w, g, g->list[i].p);
    else
        for (int32_t q = 0; !rc && q < topic_map_targets(&m); q++)
            rc = translate_partition(v, &m, w, g, q);
    return rc;
}

int visit_translate(struct visit *v, const struct client_response *r, struct err *err)
{
    struct checkpoint *c = v->c;
    struct store_view *view = NULL;
    int rc = store_view_open(c->store, &view, err);
    for (size_t i = 0; !rc && i < c->topics_n; i++) {
        struct gathered g = {.v = v, .topic = c->topics[i].source};
        visit_offsets_each(r, gather, &g);
        if (g.n > 0)
            rc = translate_topic(v, view, &c->topics[i], &g);
        if (rc)
            err_set(err, rc, "topic %s: %s", c->topics[i].source, err_str(rc));
    }
    if (view)
        store_view_close(view);
    return rc;
}
