/* The checkpoints topic: a record for each group and target partition whose translation has changed. Keys of groups
 * and topics that are gone leave it, without tombstones, by writing the others once more and cutting off what
 * stands before (internal_topic.h says why). Checkpoints that an earlier run of the daemon wrote are written again
 * by this one when it has their groups; those it does not have go with the next cut. A topic
 * in which somebody else has written is not cut. */
#include "mirror/checkpoint/internal.h"

#include "mirror/checkpoint/records.h"
#include "mirror/sync/internal_topic.h"

#include <assert.h>

#define CHECKPOINT_TEXT_MAX 70000 /* group and topic name with their lengths, metadata */

int64_t upstream_of(const struct entry *e)
{
    for (size_t i = 0; i < e->v.commits_n; i++)
        if (e->v.commits[i].p == e->v.q)
            return e->v.commits[i].offset;
    return e->v.commits_n ? e->v.commits[0].offset : -1;
}

const struct watched *watched_of(const struct checkpoint *c, uint32_t number)
{
    for (size_t i = 0; i < c->topics_n; i++)
        if (c->topics[i].number == number)
            return &c->topics[i];
    return NULL;
}

/* False: there is no room for it now. */
static bool put(struct checkpoint *c, const struct group *g, struct entry *e, const struct watched *w)
{
    struct buf key, value;
    assert(e->emitted_offset >= 0);
    assert(w->number == e->key.topic);
    buf_init(&key, CHECKPOINT_TEXT_MAX);
    buf_init(&value, CHECKPOINT_TEXT_MAX);
    checkpoint_key_put(&key, slice_str(g->name), slice_str(w->target), e->v.q);
    checkpoint_value_put(&value, e->emitted_upstream, e->emitted_offset, e->v.metadata);
    bool done = !key.failed && !value.failed &&
                internal_topic_put(c->checkpoints, buf_slice(&key), buf_slice(&value)) == 0;
    buf_fini(&key);
    buf_fini(&value);
    return done;
}

static void emit_entry(struct checkpoint *c, const struct group *g, struct entry *e)
{
    const struct watched *w = watched_of(c, e->key.topic);
    int64_t upstream = upstream_of(e), offset_before = e->emitted_offset,
            upstream_before = e->emitted_upstream;
    if (!w || e->v.state == GROUP_NO_MAP || e->v.offset < 0 ||
        (offset_before == e->v.offset && upstream_before == upstream))
        return;
    e->emitted_offset = e->v.offset;
    e->emitted_upstream = upstream;
    if (!put(c, g, e, w)) {
        e->emitted_offset = offset_before;
        e->emitted_upstream = upstream_before;
    }
}

static size_t emitted(const struct checkpoint *c)
{
    struct group *g, *gn;
    struct entry *e, *en;
    size_t n = 0;
    HASH_ITER (hh, c->groups, g, gn)
        HASH_ITER (hh, g->entries, e, en)
            n += e->emitted_offset >= 0;
    return n;
}

/* Everything that was written and is not gone once more. What cannot be translated now keeps the checkpoint it had. */
static void write_anew(struct checkpoint *c)
{
    struct group *g, *gn;
    struct entry *e, *en;
    bool all = true;
    uint64_t from = internal_topic_puts(c->checkpoints);
    HASH_ITER (hh, c->groups, g, gn)
        HASH_ITER (hh, g->entries, e, en) {
            const struct watched *w = watched_of(c, e->key.topic);
            if (w && e->emitted_offset >= 0)
                all = all && put(c, g, e, w);
        }
    if (!all)
        return; /* with the next round */
    internal_topic_cut(c->checkpoints, from);
    c->gone = 0;
}

void emit(struct checkpoint *c, bool saw)
{
    struct group *g, *gn;
    struct entry *e, *en;
    if (!c->checkpoints ||
        loop_now_us(c->loop) - c->emitted_us < (int64_t)c->options->emit_checkpoints_s * 900000)
        return;
    c->emitted_us = loop_now_us(c->loop);
    HASH_ITER (hh, c->groups, g, gn)
        HASH_ITER (hh, g->entries, e, en)
            emit_entry(c, g, e);
    if (saw && c->groups_n < CHECKPOINT_GROUPS_MAX && internal_topic_wants_cut(c->checkpoints, c->gone, 0) &&
        internal_topic_wants_cut(c->checkpoints, c->gone, emitted(c)))
        write_anew(c);
}
