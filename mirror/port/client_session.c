/* Fetch sessions (KIP-227), one a leader, for the partitions at their ends: the broker keeps who they are and where they
 * stand, a request names those that have moved, an answer those that have news. What has more is read without: those
 * requests are several under way at a time, a session's are not, and each would name and forget what it reads.
 *
 *     tail's turns ──named──▶ still ──moved, has more, asked about, stopped──▶ loose ──named again──▶ still
 *                                                                                └──its next request──▶ forgotten
 *
 * The broker reads from where a partition was named last, whatever its answers came to: so a row that was not taken
 * loses nothing, but its marks are not said twice, and the session begins anew. It does so too after anything that is
 * not an answer in order, and with each request at a broker that gives none: epoch 0, everybody named. */
#include "mirror/port/client_parts.h"

#include <stdlib.h>

#define CLOSE_US      (INT64_C(5) * 1000000)
#define CLOSE_SEND_US (INT64_C(1) * 1000000)

/* One that the broker's session has and we have not: dropped, read elsewhere since, or its topic has another id. */
struct raw_left {
    struct list link;
    struct uuid id;
    int32_t partition;
    char topic[];
};

void raw_session_init(struct raw_session *s)
{
    *s = (struct raw_session){.replica_until_us = INT64_MAX};
    list_init(&s->still);
    list_init(&s->loose);
    list_init(&s->left);
}

static void free_left(struct raw_session *s)
{
    while (!list_empty(&s->left))
        free(LIST_ENTRY(list_pop(&s->left), struct raw_left, link));
    s->left_n = 0;
}

void raw_session_fini(struct raw_session *s)
{
    assert(s->still_n == 0 && s->loose_n == 0 && !s->under_way);
    free_left(s);
}

/* ---- members ---- */

static void detach(struct raw_part *part)
{
    struct raw_session *s = &part->session_of->session;
    assert(part->still ? s->still_n > 0 : s->loose_n > 0);
    s->still_n -= part->still;
    s->loose_n -= !part->still;
    list_remove(&part->session);
    part->still = false;
    part->session_of = NULL;
}

bool raw_session_keeps(const struct raw_part *part)
{
    assert(part->still && !part->fetch && !part->dropped);
    return part->state == RAW_FETCHING && !part->ask && part->retry_at_us <= loop_now_us(part->port->loop) &&
           raw_reads_at(part) == part->session_of->id && part->fetch_next >= raw_readable(part) &&
           part->fetch_next == part->said.next && part->fetch_epoch == part->said.epoch &&
           part->leader_epoch == part->said.leader_epoch;
}

void raw_session_loosen(struct raw_part *part)
{
    struct raw_session *s = &part->session_of->session;
    assert(part->still && s->still_n > 0);
    part->still = false;
    s->still_n--;
    s->loose_n++;
    list_remove(&part->session);
    list_push(&s->loose, &part->session);
}

void raw_session_leave(struct raw_part *part)
{
    if (!part->session_of)
        return;
    struct raw_session *s = &part->session_of->session;
    size_t n = strlen(part->topic) + 1;
    struct raw_left *l = s->left_n < RAW_LEFT_MAX ? malloc(sizeof *l + n) : NULL;
    detach(part);
    s->broken = s->broken || !l;
    if (!l)
        return;
    l->id = part->id.topic;
    l->partition = part->a.partition;
    memcpy(l->topic, part->topic, n);
    list_push(&s->left, &l->link);
    s->left_n++;
}

/* Back to the turns with everybody: the next request names them all. */
static void renew(struct raw_node *n)
{
    struct raw_session *s = &n->session;
    while (!list_empty(&s->loose))
        detach(LIST_ENTRY(s->loose.next, struct raw_part, session));
    while (!list_empty(&s->still)) {
        struct raw_part *part = LIST_ENTRY(s->still.next, struct raw_part, session);
        detach(part);
        if (!list_linked(&part->todo)) /* else whoever has it in hand places it */
            raw_place(part);
    }
    free_left(s);
    s->replica_until_us = INT64_MAX;
    s->epoch = 0;
    s->broken = false;
    assert(s->still_n == 0 && s->loose_n == 0);
}

/* ---- a request ---- */

/* Those to be named and those to be forgotten go together: a broker forgets last, so nobody may be both; and a session
 * names its topics by id or by name, for its life. */
static bool goes_on(const struct raw_node *n)
{
    const struct raw_session *s = &n->session;
    if (s->epoch == 0 || s->broken)
        return false;
    list_each (at, &s->left) {
        const struct raw_left *l = LIST_ENTRY(at, struct raw_left, link);
        const struct raw_part *part = raw_find_name(n->port, slice_str(l->topic), l->partition);
        if (part && part->turns == &n->tail && (!s->by_id || uuid_eq(&part->id.topic, &l->id)))
            return false;
    }
    list_each (at, &n->tail.list)
        if (s->by_id && uuid_is_zero(&LIST_ENTRY(at, struct raw_part, todo)->id.topic))
            return false;
    return true;
}

void raw_session_prepare(struct raw_node *n)
{
    struct raw_session *s = &n->session;
    assert(!s->under_way && s->epoch >= 0);
    if (s->replica_until_us <= loop_now_us(n->port->loop)) {
        s->replica_until_us = INT64_MAX;
        list_each_safe(at, &s->still)
        {
            struct raw_part *part = LIST_ENTRY(at, struct raw_part, session);
            raw_place(part); /* the leader is asked again */
            if (part->still && part->replica >= 0 && part->replica_until_us < s->replica_until_us)
                s->replica_until_us = part->replica_until_us;
        }
    }
    if (!goes_on(n))
        renew(n);
}

void raw_session_join(struct raw_node *n, struct raw_part *part)
{
    struct raw_session *s = &n->session;
    assert(!part->still && !part->fetch && part->state == RAW_FETCHING);
    if (part->session_of == n)
        detach(part);
    else
        raw_session_leave(part);
    part->session_of = n;
    part->still = true;
    part->said.next = part->fetch_next;
    part->said.epoch = part->fetch_epoch;
    part->said.leader_epoch = part->leader_epoch;
    list_push(&s->still, &part->session);
    s->still_n++;
    if (part->replica >= 0 && part->replica_until_us < s->replica_until_us)
        s->replica_until_us = part->replica_until_us;
}

/* Rows for all that may have to be forgotten; false: no memory. The caller names the tail's turns next. */
bool raw_session_room(struct raw_node *n, struct client_call *call)
{
    struct raw_session *s = &n->session;
    struct kp_fetch_request *q = call->body;
    int32_t most = s->loose_n + s->left_n;
    assert(!s->under_way && (s->epoch > 0 || most == 0));
    if (most == 0)
        return true;
    q->forgotten_topics_data = ARENA_NEWS(call->arena, struct kp_fetch_request_forgotten_topics_data, most);
    int32_t *partitions = ARENA_NEWS(call->arena, int32_t, most);
    for (int32_t i = 0; q->forgotten_topics_data && partitions && i < most; i++)
        q->forgotten_topics_data[i].partitions = &partitions[i];
    return q->forgotten_topics_data && partitions;
}

static void forget(struct kp_fetch_request *q, struct arena *a, const struct uuid *id, const char *topic,
                   int32_t partition)
{
    struct kp_fetch_request_forgotten_topics_data *row =
        &q->forgotten_topics_data[q->forgotten_topics_data_n++];
    row->topic_id = *id;
    row->topic = arena_dup(a, slice_str(topic));
    row->partitions[0] = partition;
    row->partitions_n = 1;
}

/* The tail's turns have joined: what is loose now is not to be read on. */
void raw_session_ask(struct raw_node *n, struct client_call *call)
{
    struct raw_session *s = &n->session;
    struct kp_fetch_request *q = call->body;
    q->session_id = s->id;
    q->session_epoch = s->epoch;
    call->version_min = s->epoch == 0 ? call->version_min : s->by_id ? 13 : 7;
    call->version_max = s->epoch == 0 || s->by_id ? call->version_max : 12;
    while (!list_empty(&s->loose)) {
        struct raw_part *part = LIST_ENTRY(s->loose.next, struct raw_part, session);
        forget(q, call->arena, &part->id.topic, part->topic, part->a.partition);
        detach(part);
    }
    list_each (at, &s->left) {
        const struct raw_left *l = LIST_ENTRY(at, struct raw_left, link);
        forget(q, call->arena, &l->id, l->topic, l->partition);
    }
    free_left(s);
    s->under_way = true;
    assert(s->still_n > 0 && (s->epoch > 0 || q->forgotten_topics_data_n == 0));
}

/* ---- its answer ---- */

struct raw_part *raw_session_row(struct raw_node *n, struct raw_part *part)
{
    assert(n->session.under_way);
    if (!part || part->session_of != n)
        return NULL;
    n->session.broken =
        n->session.broken || !part->still; /* what the row says is not taken, and not said again */
    return part->still ? part : NULL;
}

static void failed(struct raw_node *n, const char *text)
{
    struct raw_session *s = &n->session;
    while (!list_empty(&s->still)) {
        struct raw_part *part = LIST_ENTRY(s->still.next, struct raw_part, session);
        detach(part);
        part->replica = -1;
        raw_retry(part, text);
    }
    renew(n);
}

static bool session_error(int16_t error)
{
    return error == KE_FETCH_SESSION_ID_NOT_FOUND || error == KE_INVALID_FETCH_SESSION_EPOCH ||
           error == KE_FETCH_SESSION_TOPIC_ID_ERROR;
}

void raw_session_answered(struct raw_node *n, const struct client_response *r)
{
    struct raw_session *s = &n->session;
    const struct kp_fetch_response *m = r->body;
    int16_t error = m ? m->error_code : KE_NONE;
    assert(s->under_way && s->epoch >= 0);
    s->under_way = false;
    if (!m) {
        failed(n, r->err ? r->err->text : "Fetch: no answer");
    } else if (error == KE_NONE && m->session_id != 0 && (s->epoch == 0 || m->session_id == s->id)) {
        s->id = m->session_id;
        s->by_id = r->version >= 13;
        s->epoch = s->epoch == INT32_MAX ? 1 : s->epoch + 1;
    } else {
        /* An old one that the broker may still have is closed by the next request, which is a new one's first. */
        bool worked = s->epoch > 1;
        s->id = error == KE_FETCH_SESSION_ID_NOT_FOUND || error == KE_NONE ? 0 : s->id;
        if (error == KE_NONE || (worked && session_error(error)))
            renew(n); /* the broker gives none, or has dropped it */
        else
            failed(n, kafka_error_name(error));
    }
}

void raw_session_cancelled(struct raw_node *n)
{
    n->session.under_way = false;
    n->session.broken = true;
}

/* ---- the end ---- */

static void nothing(void *arg, const struct client_response *r)
{
    (void)arg;
    (void)r;
}

void raw_session_close(struct raw_node *n)
{
    const struct raw_session *s = &n->session;
    struct client_call *call = s->id ? client_call(n->port->client, kp_key_fetch) : NULL;
    if (!call)
        return; /* the broker drops one that nobody asks for, in its time */
    struct kp_fetch_request *q = call->body;
    q->session_id = s->id;
    q->session_epoch = -1;
    call->version_min = 7;
    call->target = (struct client_target){.kind = CLIENT_BROKER, .number = n->id};
    call->timeout_us = CLOSE_US;
    call->send_within_us = CLOSE_SEND_US;
    call->on_response = nothing;
    client_send(n->port->client, call);
}
