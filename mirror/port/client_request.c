/* What is asked: several fetches of a leader at a time, each for other partitions, as far as memory and the way allow.
 *
 * A partition's next offset is known when its last answer is here, so it is in one request only; over a long way one
 * partition alone gets an answer as large as the leader's room, many get several smaller ones at a time. An answer is
 * never larger than what comes in good time (`pace_bytes`): over a slow way nobody waits long behind it.
 *
 * Those at their ends are asked together, in the leader's session: where nobody has more, that request waits for news;
 * beside others who have more it does not wait, and goes now and then. */
#include "mirror/port/client_parts.h"

static int32_t tail_of(const struct raw_node *n)
{
    return n->tail.n + n->session.still_n;
}

static bool wants(const struct raw_node *n)
{
    return n->more.n || tail_of(n);
}

/* ---- how much ---- */

/* Of the memory, what one leader's answers may come to. */
static size_t room_of(const struct raw_port *p)
{
    size_t busy = 0;
    list_each (at, &p->nodes) {
        const struct raw_node *n = LIST_ENTRY(at, struct raw_node, link);
        busy += n->fetches_n || wants(n);
    }
    return p->memory_max / (busy ? busy : 1);
}

/* One answer: half of the room, cut into as many as there are partitions for, since half may be here already. */
static int32_t share_of(const struct raw_port *p, const struct raw_node *n, size_t room)
{
    int32_t cut = n->more.n + n->more_out < RAW_DEPTH ? n->more.n + n->more_out : RAW_DEPTH;
    size_t share = room / 2 / (size_t)(cut > 1 ? cut : 1);
    share = share < (size_t)n->pace_bytes ? share : (size_t)n->pace_bytes;
    share = share > RAW_SHARE_MIN ? share : RAW_SHARE_MIN;
    return share < (size_t)p->answer_max ? (int32_t)share : p->answer_max;
}

void raw_pace(struct raw_fetch *f, size_t bytes, bool late)
{
    struct raw_node *n = f->node;
    int64_t now = loop_now_us(f->port->loop);
    int64_t since = f->sent_at_us > n->answered_at_us ? f->sent_at_us : n->answered_at_us;
    assert(now >= since && n->pace_bytes >= RAW_SHARE_MIN);
    n->answered_at_us = now;
    bool full = bytes >= (size_t)f->asked_bytes / 2; /* or nearly: otherwise it may have waited for news */
    if (late || (full && now - since > RAW_PACE_SLOW_US))
        n->pace_bytes = n->pace_bytes / 2 > RAW_SHARE_MIN ? n->pace_bytes / 2 : RAW_SHARE_MIN;
    else if (full && now - since > RAW_PACE_NEAR_US && now - since < RAW_PACE_FAST_US &&
             (size_t)n->pace_bytes < f->port->memory_max && n->pace_bytes <= INT32_MAX / 2)
        n->pace_bytes *= 2;
}

/* What of a partition an answer may bring, as far as one can know. */
static int64_t expected(const struct raw_part *part, int32_t most)
{
    int64_t offsets = raw_readable(part) - part->fetch_next;
    int64_t each = part->each_bytes ? part->each_bytes : RAW_OFFSET_BYTES;
    return offsets < most / each ? offsets * each : most;
}

/* So many of those with more as fill an answer. */
static int32_t more_for(const struct raw_port *p, const struct raw_node *n, int32_t share)
{
    int64_t sum = 0;
    int32_t count = 0;
    list_each (at, &n->more.list) {
        if (sum >= share)
            break;
        sum += expected(LIST_ENTRY(at, struct raw_part, todo), p->part_max ? p->part_max : share);
        count++;
    }
    return count;
}

/* ---- the request ---- */

static void fill_row(struct kp_fetch_request_partitions *q, const struct raw_part *part)
{
    assert(part->next >= 0 && part->fetch_next >= part->next && part->leader_epoch >= -1);
    q->partition = part->a.partition;
    q->current_leader_epoch = part->leader_epoch;
    q->fetch_offset = part->fetch_next;
    q->last_fetched_epoch = part->fetch_epoch;
    q->log_start_offset = -1;
    q->partition_max_bytes = part->asked_bytes;
    q->high_watermark = INT64_MAX;
}

struct question {
    struct raw_node *node;
    int32_t share;
    bool session; /* for those at their ends; else for `more` of the others */
    int32_t more;
    bool ids;     /* all topics have one */
    bool replica; /* for somebody it is not the leader */
};

static void take_turns(struct raw_fetch *f, struct question *s, int32_t n, int32_t most,
                       struct kp_fetch_request *q)
{
    struct raw_turns *turns = s->session ? &s->node->tail : &s->node->more;
    assert(n <= turns->n);
    for (int32_t i = 0; i < n; i++) {
        struct raw_part *part = LIST_ENTRY(turns->list.next, struct raw_part, todo);
        struct kp_fetch_request_topics *topic = &q->topics[i];
        raw_unplace(part);
        topic->topic = slice_str(part->topic);
        topic->topic_id = part->id.topic;
        topic->partitions_n = 1;
        s->ids = s->ids && !uuid_is_zero(&topic->topic_id);
        s->replica = s->replica || part->replica >= 0;
        part->asked_bytes = f->port->part_max ? f->port->part_max : most;
        fill_row(topic->partitions, part);
        if (s->session) {
            topic->topic = arena_dup(f->call->arena, topic->topic); /* a member may be dropped meanwhile */
            raw_session_join(s->node, part);
            continue;
        }
        f->parts[f->parts_n++] = part;
        part->fetch = f;
        part->users++;
    }
}

static void fill(struct raw_fetch *f, struct question *s, struct kp_fetch_request *q)
{
    const struct raw_port *p = f->port;
    struct raw_node *n = s->node;
    bool waits = s->session && n->more.n == 0;
    int32_t most = s->share;
    if (s->session)
        most = waits && most / tail_of(n) > RAW_PART_BYTES ? most / tail_of(n) : RAW_PART_BYTES;
    q->max_wait_ms = waits || !s->session ? p->wait_ms : 0;
    q->min_bytes = 1;
    q->max_bytes = s->share;
    q->isolation_level = p->read_uncommitted ? 0 : 1;
    q->rack_id = slice_str(p->rack);
    s->replica = s->session && n->session.replica_until_us < INT64_MAX;
    take_turns(f, s, q->topics_n, most, q);
    if (s->session)
        raw_session_ask(n, f->call);
}

/* Room for so many rows, and for who is asked for in them; false: no memory. */
static bool rows(struct client_call *call, int32_t n)
{
    struct kp_fetch_request *q = call->body;
    struct kp_fetch_request_partitions *p = ARENA_NEWS(call->arena, struct kp_fetch_request_partitions, n);
    q->topics = ARENA_NEWS(call->arena, struct kp_fetch_request_topics, n);
    q->topics_n = n;
    for (int32_t i = 0; p && q->topics && i < n; i++)
        q->topics[i].partitions = &p[i];
    return p && q->topics;
}

static bool send(struct raw_port *p, struct question *s)
{
    struct raw_node *node = s->node;
    if (s->session)
        raw_session_prepare(node);
    if (s->session && tail_of(node) == 0)
        return true; /* all of them are asked for elsewhere from now on */
    int32_t n = s->session ? node->tail.n : s->more;
    assert(n >= s->more && node->fetches_n < RAW_FETCHES_MAX);
    struct client_call *call = client_call(p->client, kp_key_fetch);
    if (!call)
        return false;
    struct raw_fetch *f = ARENA_NEW(call->arena, struct raw_fetch);
    struct raw_part **parts = ARENA_NEWS(call->arena, struct raw_part *, s->more);
    if (!f || !parts || !rows(call, n) || (s->session && !raw_session_room(node, call))) {
        client_cancel(p->client, call);
        return false;
    }
    *f = (struct raw_fetch){.port = p,
                            .call = call,
                            .node = node,
                            .session = s->session,
                            .parts = parts,
                            .more_n = s->more,
                            .asked_bytes = s->share,
                            .sent_at_us = loop_now_us(p->loop)};
    s->ids = true;
    fill(f, s, call->body);
    call->target = (struct client_target){.kind = CLIENT_BROKER, .number = node->id};
    if (!s->ids)
        call->version_max = 12;
    call->timeout_us = RAW_FETCH_US;
    call->send_within_us = s->replica ? RAW_REPLICA_SEND_US : 0;
    call->on_response = raw_fetched;
    call->arg = f;
    node->tail_at_us = s->session ? f->sent_at_us : node->tail_at_us;
    node->fetches_n++;
    node->more_out += s->more;
    node->asked_bytes += (size_t)s->share;
    p->asked_bytes += (size_t)s->share;
    list_push(&p->fetches, &f->link);
    list_push(&node->fetches, &f->node_link);
    client_send(p->client, call);
    return true;
}

/* ---- whom ---- */

/* False: nothing is to be asked of this leader now. */
static bool next_question(const struct raw_port *p, struct raw_node *n, struct question *s)
{
    int64_t now = loop_now_us(p->loop);
    bool first = n->fetches_n == 0;
    if (!wants(n) || n->not_before_us > now || (!first && (!n->more.n || n->fetches_n >= RAW_FETCHES_MAX)))
        return false;
    size_t room = room_of(p);
    *s = (struct question){.node = n, .share = share_of(p, n, room)};
    size_t share = (size_t)s->share, ahead = 2 * (size_t)n->pace_bytes;
    if (first ? p->buffered_bytes >= p->memory_max / 2
              : p->buffered_bytes + p->asked_bytes + share > p->memory_max || n->asked_bytes + share > room ||
                    n->asked_bytes + share > ahead)
        return false;
    int64_t pause = RAW_TAIL_LEAST_US + tail_of(n) * RAW_TAIL_EACH_US;
    s->session = tail_of(n) && !n->session.under_way && (n->more.n == 0 || n->tail_at_us + pause <= now);
    s->more = s->session ? 0 : more_for(p, n, s->share);
    if (s->session && n->more.n && s->share / 4 >= RAW_SHARE_MIN)
        s->share /= 4; /* the room is for those who have more */
    return true;
}

/* Each leader one, then each another: none takes the room of the others. */
void raw_fetch_all(struct raw_port *p)
{
    for (bool asked = true; asked;) {
        asked = false;
        list_each (at, &p->nodes) {
            struct question s;
            struct raw_node *n = LIST_ENTRY(at, struct raw_node, link);
            if (wants(n) && n->not_before_us > loop_now_us(p->loop))
                raw_tick_by(p, n->not_before_us);
            if (!next_question(p, n, &s))
                continue;
            if (send(p, &s))
                asked = true;
            else
                raw_tick_by(p, loop_now_us(p->loop) + RAW_RETRY_US);
        }
    }
}
