/* What is asked: several fetches of a leader at a time, each for other partitions, as far as memory and the way allow.
 *
 * A partition's next offset is known when its last answer is here, so it is in one request only; over a long way one
 * partition alone gets an answer as large as the leader's room, many get several smaller ones at a time. An answer is
 * never larger than what comes in good time (`pace_bytes`): over a slow way nobody waits long behind it. */
#include "mirror/port/client_parts.h"

static bool wants(const struct raw_node *n)
{
    return n->more.n || n->tail.n;
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
    else if (full && now - since < RAW_PACE_FAST_US && (size_t)n->pace_bytes < f->port->memory_max &&
             n->pace_bytes <= INT32_MAX / 2)
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
    int32_t share, tail, more;
    bool ids;     /* all topics have one */
    bool replica; /* for somebody it is not the leader */
};

static void take_turns(struct raw_fetch *f, struct question *s, struct raw_turns *turns, int32_t n,
                       int32_t most, struct kp_fetch_request_topics *topics,
                       struct kp_fetch_request_partitions *rows)
{
    assert(n <= turns->n);
    while (n-- > 0) {
        struct raw_part *part = LIST_ENTRY(turns->list.next, struct raw_part, todo);
        int32_t i = f->parts_n++;
        raw_unplace(part);
        topics[i].topic = slice_str(part->topic);
        topics[i].topic_id = part->id.topic;
        s->ids = s->ids && !uuid_is_zero(&topics[i].topic_id);
        s->replica = s->replica || part->replica >= 0;
        topics[i].partitions = &rows[i];
        topics[i].partitions_n = 1;
        part->asked_bytes = f->port->part_max ? f->port->part_max : most;
        fill_row(&rows[i], part);
        f->parts[i] = part;
        part->fetch = f;
        part->users++;
    }
}

static void fill(struct raw_fetch *f, struct question *s, struct kp_fetch_request *q)
{
    const struct raw_port *p = f->port;
    struct kp_fetch_request_topics *topics = q->topics;
    struct kp_fetch_request_partitions *rows = topics[0].partitions;
    int32_t tail_most =
        s->more == 0 && s->share / s->tail > RAW_PART_BYTES ? s->share / s->tail : RAW_PART_BYTES;
    q->max_wait_ms = p->wait_ms;
    q->min_bytes = 1;
    q->max_bytes = s->share;
    q->isolation_level = p->read_uncommitted ? 0 : 1;
    q->rack_id = slice_str(p->rack);
    q->topics_n = s->tail + s->more;
    take_turns(f, s, &s->node->tail, s->tail, tail_most, topics, rows); /* what is new at an end goes first */
    take_turns(f, s, &s->node->more, s->more, s->share, topics, rows);
    assert(f->parts_n == q->topics_n);
}

static bool send(struct raw_port *p, struct question *s)
{
    struct raw_node *node = s->node;
    int32_t n = s->tail + s->more;
    assert(n > 0 && node->fetches_n < RAW_FETCHES_MAX);
    struct client_call *call = client_call(p->client, kp_key_fetch);
    if (!call)
        return false;
    struct kp_fetch_request *q = call->body;
    struct raw_fetch *f = ARENA_NEW(call->arena, struct raw_fetch);
    struct raw_part **parts = ARENA_NEWS(call->arena, struct raw_part *, n);
    struct kp_fetch_request_partitions *rows = ARENA_NEWS(call->arena, struct kp_fetch_request_partitions, n);
    q->topics = ARENA_NEWS(call->arena, struct kp_fetch_request_topics, n);
    if (!f || !parts || !rows || !q->topics) {
        client_cancel(p->client, call);
        return false;
    }
    q->topics[0].partitions = rows;
    *f = (struct raw_fetch){.port = p,
                            .call = call,
                            .node = node,
                            .parts = parts,
                            .more_n = s->more,
                            .asked_bytes = s->share,
                            .sent_at_us = loop_now_us(p->loop)};
    s->ids = true;
    fill(f, s, q);
    call->target = (struct client_target){.kind = CLIENT_BROKER, .number = node->id};
    if (!s->ids)
        call->version_max = 12;
    call->timeout_us = RAW_FETCH_US;
    call->send_within_us = s->replica ? RAW_REPLICA_SEND_US : 0;
    call->on_response = raw_fetched;
    call->arg = f;
    node->tail_at_us = s->tail ? f->sent_at_us : node->tail_at_us;
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
    s->more = more_for(p, n, s->share);
    bool tail_due = n->tail_at_us + n->tail.n * RAW_TAIL_EACH_US <= now;
    s->tail = s->more == 0 || tail_due ? n->tail.n : 0;
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
