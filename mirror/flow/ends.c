#include "mirror/flow/internal.h"

#include <assert.h>
#include <stdio.h>

#include "mirror/port/port_ask.h"

/* Where the source's partitions end, asked of their leaders on our own: the port only knows what its last answer
 * said, which may have been on its way since before a cut, or come never while the port finds no way back. An end
 * that was not confirmed for FLOW_END_OLD_US, or while the source is silent, is not known, and neither is the lag.
 * One request per leader and round, of at most ENDS_PARTS partitions. */

#define EVERY_US   INT64_C(5000000)
#define ENDS_PARTS 1000

/* The name means this topic still. */
static bool is_there(const struct flow_topic *t)
{
    return !t->gone && !t->reborn && !t->halted[0];
}

static bool due(const struct part *p, int64_t now)
{
    return is_there(p->topic) && now - p->end_asked_us >= EVERY_US;
}

/* A topic that halted before it was read is followed from here on. */
static int32_t leader_of(const struct part *p)
{
    const struct client_topic *t = client_topic(p->flow->source, slice_str(p->topic->source));
    if (!t && client_topic_follow(p->flow->source, slice_str(p->topic->source)))
        return -1;
    return t && p->p < t->partitions_n ? t->partitions[p->p].leader : -1;
}

/* There is more at the source, nothing comes, and nothing of ours is in its way: whatever the engine knows of it,
 * that is not passed over in silence. The next delivery ends it. */
static void look_for_stillness(struct part *p)
{
    struct flow *f = p->flow;
    int64_t now = loop_now_us(f->loop);
    bool reads = p->sm.state == PART_MIRRORING || p->sm.state == PART_CAUGHT_UP;
    bool waits =
        reads && p->assigned && list_empty(&p->held) && !f->feed_full && p->source_end > p->taken_next;
    if (!waits || p->still_next != p->taken_next) {
        p->still_next = waits ? p->taken_next : -1;
        p->still_us = now;
    } else if (now - p->still_us >= FLOW_STILL_US) {
        char text[128];
        snprintf(text, sizeof text,
                 "nothing has come for %d s of %s-%d from offset %lld on, though it ends at %lld",
                 (int)((now - p->still_us) / 1000000), p->topic->source, p->p, (long long)p->taken_next,
                 (long long)p->source_end);
        part_trouble(p, text);
    }
}

static void take(struct flow *f, const struct kp_list_offsets_response_topics *t, int64_t sent_us)
{
    char name[512];
    struct flow_topic *topic = flow_topic_find(f, slice_cstr(t->name, name, sizeof name));
    for (int32_t i = 0; topic && i < t->partitions_n; i++) {
        const struct kp_list_offsets_response_partitions *o = &t->partitions[i];
        bool ours = o->partition_index >= 0 && o->partition_index < topic->parts_n;
        struct part *p = ours ? topic->parts[o->partition_index] : NULL;
        if (!p || o->error_code || o->offset < 0)
            continue;
        if (o->offset > p->source_end)
            p->source_end = o->offset;
        if (sent_us > p->end_known_us)
            p->end_known_us = sent_us;
        look_for_stillness(p);
    }
}

static void answered(void *arg, const struct client_response *r)
{
    struct ends_call *e = arg;
    const struct kp_list_offsets_response *m = r->status ? NULL : r->body;
    e->call = NULL;
    for (int32_t i = 0; m && i < m->topics_n; i++)
        take(e->flow, &m->topics[i], e->sent_us);
}

/* All that is due at one leader, in the order of the flow; partitions of one topic mostly stand together. */
static void fill(struct flow *f, struct client_call *c, int32_t leader, int64_t now)
{
    struct kp_list_offsets_request *q = c->body;
    struct kp_list_offsets_request_topics *topics =
        ARENA_NEWS(c->arena, struct kp_list_offsets_request_topics, ENDS_PARTS);
    struct kp_list_offsets_request_partitions *at =
        ARENA_NEWS(c->arena, struct kp_list_offsets_request_partitions, ENDS_PARTS);
    const struct flow_topic *last = NULL;
    int n = 0;
    q->replica_id = -1;
    q->isolation_level = strcmp(f->o.flow->o.isolation_level, "read_uncommitted") != 0;
    q->topics = topics;
    list_each (link, &f->parts) {
        struct part *p = LIST_ENTRY(link, struct part, link);
        if (!topics || !at || n == ENDS_PARTS)
            return;
        if (!due(p, now) || leader_of(p) != leader)
            continue;
        p->end_asked_us = now;
        if (p->topic != last)
            topics[q->topics_n++] = (struct kp_list_offsets_request_topics){
                .name = arena_dup(c->arena, slice_str(p->topic->source)), .partitions = &at[n]};
        last = p->topic;
        assert(q->topics_n > 0);
        assert(q->topics_n <= ENDS_PARTS);
        topics[q->topics_n - 1].partitions_n++;
        at[n++] = (struct kp_list_offsets_request_partitions){
            .partition_index = p->p, .current_leader_epoch = -1, .timestamp = PORT_ASK_LATEST};
    }
}

static bool ask(struct flow *f, struct ends_call *e, int32_t leader, int64_t now)
{
    assert(!e->call);
    assert(leader >= 0);
    e->flow = f;
    e->sent_us = now;
    e->call = client_ask(f->source, &(struct client_ask){.api = kp_key_list_offsets,
                                                         .version_min = 1,
                                                         .version_max = 7,
                                                         .retry = CLIENT_RETRY_UNSENT,
                                                         .target = {.kind = CLIENT_BROKER, .number = leader},
                                                         .timeout_us = PORT_ASK_US,
                                                         .on_response = answered,
                                                         .arg = e});
    if (!e->call)
        return false;
    fill(f, e->call, leader, now);
    client_send(f->source, e->call);
    return true;
}

void ends_tick(struct flow *f)
{
    int64_t now = loop_now_us(f->loop);
    size_t slot = 0;
    if (f->source_contact.silent)
        return;
    list_each (at, &f->parts) {
        struct part *p = LIST_ENTRY(at, struct part, link);
        while (slot < FLOW_ENDS_CALLS && f->ends[slot].call)
            slot++;
        if (slot == FLOW_ENDS_CALLS)
            return;
        int32_t leader = due(p, now) ? leader_of(p) : -1;
        if (leader >= 0 && !ask(f, &f->ends[slot], leader, now))
            return;
    }
}

bool ends_known(const struct part *p)
{
    return is_there(p->topic) && !p->flow->source_contact.silent &&
           loop_now_us(p->flow->loop) - p->end_known_us <= FLOW_END_OLD_US;
}

void ends_stop(struct flow *f)
{
    for (size_t i = 0; i < FLOW_ENDS_CALLS; i++) {
        if (f->ends[i].call)
            client_cancel(f->source, f->ends[i].call);
        f->ends[i].call = NULL;
    }
}
