/* What comes: answers to fetches, partition by partition. */
#include "mirror/port/client_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The partitions of a request that has ended. Whoever got something asks last: an answer that is full begins with the
 * others next time. */
static void end(struct raw_fetch *f)
{
    struct raw_node *node = f->node;
    list_remove(&f->link);
    list_remove(&f->node_link);
    assert(node->fetches_n > 0 && node->more_out >= f->more_n);
    assert(node->asked_bytes >= (size_t)f->asked_bytes && f->port->asked_bytes >= node->asked_bytes);
    node->fetches_n--;
    node->more_out -= f->more_n;
    node->asked_bytes -= (size_t)f->asked_bytes;
    f->port->asked_bytes -= (size_t)f->asked_bytes;
    for (int32_t i = 0; i < f->parts_n; i++) {
        assert(f->parts[i]->fetch == f && f->parts[i]->users > 0);
        f->parts[i]->fetch = NULL;
        f->parts[i]->stale = false;
    }
    for (int32_t i = 0; i < f->parts_n; i++)
        if (!f->parts[i]->got_some)
            raw_place(f->parts[i]);
    for (int32_t i = 0; i < f->parts_n; i++) {
        struct raw_part *part = f->parts[i];
        if (part->got_some)
            raw_place(part);
        part->got_some = false;
        part->users--;
        raw_release_part(part);
    }
}

void raw_fetch_cancel(struct raw_fetch *f)
{
    struct raw_port *p = f->port;
    struct client_call *call = f->call;
    if (f->session)
        raw_session_cancelled(f->node);
    end(f);
    client_cancel(p->client, call);
}

/* ---- answers ---- */

static bool keep_aborted(struct raw_chunk *c, const struct kp_fetch_response_partitions *m)
{
    if (m->aborted_transactions_n <= 0)
        return true;
    c->aborted = calloc((size_t)m->aborted_transactions_n, sizeof *c->aborted);
    if (!c->aborted)
        return false;
    for (; c->aborted_n < m->aborted_transactions_n; c->aborted_n++)
        c->aborted[c->aborted_n] = (struct raw_aborted){m->aborted_transactions[c->aborted_n].producer_id,
                                                        m->aborted_transactions[c->aborted_n].first_offset};
    return true;
}

static const char no_follower[] = "Fetch: no batch that follows what was read";

/* An answer without a whole batch to go on with: what cannot be read stops the partition, a piece of a batch must not
 * make it spin. A whole one behind a gap and not to be believed may be a deposed leader's; again, it is damaged. */
static void raw_unusable(struct raw_part *part, struct slice rest)
{
    struct batch_header h;
    struct err err = {0};
    int rc = rest.n ? batch_read(rest, &h, &err) : 0;
    bool again = part->troubled && strcmp(part->trouble, no_follower) == 0;
    if (rest.n && rc == 0 && again && h.base_offset > part->fetch_next) {
        rc = err_set(&err, -E_CORRUPT, "the batch at offset %lld does not follow what was read, %lld",
                     (long long)h.base_offset, (long long)part->fetch_next);
    }
    if (rc == 0 || rc == -E_TRUNCATED)
        raw_retry(part, no_follower);
    else if (list_empty(&part->chunks))
        raw_stop(part, PORT_FAILED, rc == -E_VERSION ? KE_UNSUPPORTED_FOR_MESSAGE_FORMAT : KE_CORRUPT_MESSAGE,
                 err.text);
    else
        raw_retry(part, NULL); /* what was read before it is handed out first */
}

struct span {
    size_t whole;   /* bytes of the batches that may be delivered */
    int64_t behind; /* their last offset + 1; -1: there is none */
    int32_t epoch;
};

/* The whole batches of an answer, up to the first that is not stable yet, or goes back: no broker sends one, none is
 * believed, and neither is the one before it that has left a gap: a base offset is under no CRC. */
static struct span whole_batches(struct slice batches, int64_t stable, int64_t wanted)
{
    struct batch_header h;
    struct span s = {.behind = -1, .epoch = -1}, before = s;
    bool gap = false, more;
    while ((more = batch_header_read(slice_of(batches.p + s.whole, batches.n - s.whole), &h, NULL) == 0 &&
                   batch_size(&h) <= batches.n - s.whole) &&
           (stable < 0 || h.base_offset < stable) && h.base_offset >= s.behind &&
           batch_last_offset(&h) >= h.base_offset && batch_last_offset(&h) < INT64_MAX) {
        before = s;
        gap = h.base_offset > (s.behind >= 0 ? s.behind : wanted);
        s.behind = batch_last_offset(&h) + 1;
        s.epoch = h.leader_epoch;
        s.whole += batch_size(&h);
    }
    return more && gap && h.base_offset < s.behind ? before : s;
}

static void take_batches(struct raw_part *part, const struct kp_fetch_response_partitions *m,
                         struct client_frame *frame)
{
    int64_t stable = part->port->read_uncommitted ? m->high_watermark : m->last_stable_offset;
    struct slice bytes = m->records.bytes;
    struct span s = bytes.n
                        ? whole_batches(bytes, part->port->read_uncommitted ? -1 : stable, part->fetch_next)
                        : (struct span){.behind = -1};
    part->troubled = part->troubled && bytes.n;
    if (bytes.n && s.behind <= part->fetch_next) {
        raw_unusable(part, slice_of(bytes.p + s.whole, bytes.n - s.whole));
        if (part->state == RAW_STOPPED)
            return;
    }
    assert(s.whole <= bytes.n && part->next <= part->fetch_next);
    if (s.behind > part->fetch_next) {
        assert(s.whole > 0);
        part->troubled = false;
        struct raw_chunk *c = calloc(1, sizeof *c);
        if (!c || !keep_aborted(c, m)) {
            free(c);
            raw_retry(part, "out of memory");
            return;
        }
        c->frame = client_frame_ref(frame);
        c->rest = slice_of(bytes.p, s.whole);
        c->bytes = s.whole;
        list_push(&part->chunks, &c->link);
        part->ahead_bytes += s.whole;
        part->port->buffered_bytes += s.whole;
        int64_t each = (int64_t)s.whole / (s.behind - part->fetch_next) + 1;
        part->each_bytes = each < INT32_MAX ? (int32_t)each : INT32_MAX;
        part->fetch_next = s.behind;
        part->fetch_epoch = s.epoch;
        part->end_told = false;
    }
    if (part->fetch_next >= stable && !part->end_told) {
        part->end_due = part->end_told = true;
    }
    if (part->end_due || !list_empty(&part->chunks))
        raw_ready(part);
}

/* Where the leader would have us read. True: there. */
static bool take_replica(struct raw_part *part, const struct kp_fetch_response_partitions *m)
{
    if (m->error_code || m->preferred_read_replica < 0 || m->preferred_read_replica == part->leader ||
        part->replica >= 0 || m->records.bytes.n)
        return false;
    part->replica = m->preferred_read_replica;
    part->replica_until_us = loop_now_us(part->port->loop) + part->port->replica_us;
    return true;
}

/* A replica that is not the leader judges nothing, its log may be behind: the leader is asked again. */
static bool refused_by_replica(struct raw_part *part, const struct kp_fetch_response_partitions *m)
{
    bool diverging = m->diverging_epoch.epoch >= 0 || m->diverging_epoch.end_offset >= 0;
    if (part->replica < 0 || (m->error_code == KE_NONE && !diverging))
        return false;
    char text[128];
    snprintf(text, sizeof text, "Fetch from replica %d: %s", part->replica,
             diverging ? "another history" : kafka_error_name(m->error_code));
    part->replica = -1;
    raw_retry(part, text);
    return true;
}

static void take_partition(struct raw_part *part, const struct kp_fetch_response_partitions *m,
                           struct client_frame *frame)
{
    char text[128];
    assert((part->fetch || part->still) && !part->ask && part->state == RAW_FETCHING);
    if (refused_by_replica(part, m) || take_replica(part, m))
        return;
    if (m->error_code == KE_NONE && (m->diverging_epoch.epoch >= 0 || m->diverging_epoch.end_offset >= 0)) {
        int64_t end = m->diverging_epoch.end_offset;
        if (part->fetch_next > part->next)
            raw_rewind(part);
        else
            raw_truncated(part, end < 0 ? part->next : end);
        return;
    }
    if (m->error_code == KE_NONE) {
        part->high_watermark = m->high_watermark;
        part->last_stable = m->last_stable_offset;
        part->log_start = m->log_start_offset >= 0 ? m->log_start_offset : part->log_start;
        take_batches(part, m, frame);
        return;
    }
    snprintf(text, sizeof text, "Fetch: %s", kafka_error_name(m->error_code));
    switch (m->error_code) {
    case KE_OFFSET_OUT_OF_RANGE:
        if (part->fetch_next > part->next)
            raw_rewind(part);
        else
            raw_ask_range(part);
        break;
    case KE_CORRUPT_MESSAGE:
        if (!list_empty(&part->chunks))
            raw_retry(part, NULL); /* what was read before it is handed out first */
        else
            raw_stop(part, PORT_FAILED, m->error_code, text);
        break;
    case KE_TOPIC_AUTHORIZATION_FAILED:
    case KE_UNSUPPORTED_COMPRESSION_TYPE:
    case KE_UNSUPPORTED_VERSION: raw_stop(part, PORT_FAILED, m->error_code, text); break;
    default: raw_retry(part, text); break;
    }
}

/* The partition that a row of an answer means; NULL: none that this request asked for. */
static struct raw_part *named(const struct raw_fetch *f, const struct kp_fetch_response_responses *t,
                              int32_t index)
{
    struct raw_part *part = raw_find_id(f->port, &t->topic_id, index);
    if (!part)
        part = raw_find_name(f->port, t->topic, index);
    if (f->session)
        return raw_session_row(f->node, part);
    return part && part->fetch == f ? part : NULL;
}

/* Of a session's answer, who is to be placed when it has been taken: whoever got something behind the others. */
struct in_hand {
    struct list got, others;
};

static void take_rows(struct raw_fetch *f, const struct kp_fetch_response_responses *t,
                      struct client_frame *frame, struct in_hand *hand)
{
    for (int32_t k = 0; k < t->partitions_n; k++) {
        const struct kp_fetch_response_partitions *answer = &t->partitions[k];
        struct raw_part *part = named(f, t, answer->partition_index);
        if (!part || part->dropped || part->stale || part->ask || part->state != RAW_FETCHING)
            continue;
        take_partition(part, answer, frame);
        if (!f->session)
            part->got_some = answer->records.bytes.n > 0;
        else if (!list_linked(&part->todo))
            list_push(answer->records.bytes.n > 0 ? &hand->got : &hand->others, &part->todo);
    }
}

void raw_fetched(void *arg, const struct client_response *r)
{
    struct raw_fetch *f = arg;
    struct raw_port *p = f->port;
    const struct kp_fetch_response *m = r->body;
    bool good = m && m->error_code == KE_NONE;
    struct in_hand hand;
    list_init(&hand.got);
    list_init(&hand.others);
    raw_pace(f, r->frame ? client_frame_bytes(r->frame) : 0, r->status == -E_TIMEOUT);
    if (m && m->throttle_time_ms > 0) /* KIP-219: the broker reads nothing of ours until then */
        f->node->not_before_us =
            loop_now_us(p->loop) +
            (m->throttle_time_ms < RAW_THROTTLE_MAX_MS ? m->throttle_time_ms : RAW_THROTTLE_MAX_MS) *
                INT64_C(1000);
    for (int32_t i = 0; good && i < m->responses_n; i++)
        take_rows(f, &m->responses[i], r->frame, &hand);
    if (f->session)
        raw_session_answered(f->node, r);
    while (!list_empty(&hand.others))
        raw_place(LIST_ENTRY(list_pop(&hand.others), struct raw_part, todo));
    while (!list_empty(&hand.got))
        raw_place(LIST_ENTRY(list_pop(&hand.got), struct raw_part, todo));
    for (int32_t i = 0; !good && i < f->parts_n; i++)
        f->parts[i]->replica = -1;
    for (int32_t i = 0; !good && i < f->parts_n; i++)
        if (!f->parts[i]->dropped && f->parts[i]->state == RAW_FETCHING)
            raw_retry(f->parts[i], r->err ? r->err->text : kafka_error_name(m->error_code));
    end(f);
    raw_work(p); /* the next one leaves before this one is looked into */
}
