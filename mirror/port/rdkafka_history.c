#include "mirror/port/rdkafka_history.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

void history_begin(struct history *h, int64_t next, int32_t epoch, int64_t now_us)
{
    *h = (struct history){.state = PART_CHECKING,
                          .next = next,
                          .epoch = epoch,
                          .leader_epoch = -1,
                          .seen_epoch = -1,
                          .asked_epoch = -1,
                          .record_epoch = -1,
                          .last = {.offset = -1},
                          .confirmed = -1,
                          .checking_us = now_us};
}

bool history_stop(struct history *h)
{
    bool news = h->state != PART_STOPPED;
    h->state = PART_STOPPED;
    h->asking = HISTORY_NOTHING;
    h->proof = h->out_of_range = false;
    return news;
}

/* ---- effects ---- */

static struct history_effect nothing(void)
{
    return (struct history_effect){.log_start = -1, .end = -1};
}

static void tell(struct history_effect *e, enum port_event event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void tell(struct history_effect *e, enum port_event event, const char *fmt, ...)
{
    va_list args;
    assert(!e->tells);
    e->tells = true;
    e->event = event;
    va_start(args, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, args);
    va_end(args);
}

static void stop(struct history *h, struct history_effect *e)
{
    e->stops = history_stop(h);
    assert(e->stops && e->tells);
}

static void ask(struct history *h, struct history_effect *e, enum history_question q)
{
    assert(h->asking == HISTORY_NOTHING && h->state != PART_STOPPED);
    h->asking = e->ask = q;
}

/* Nobody would hear of it while it is at its end. */
static void trouble_over(struct history *h, struct history_effect *e)
{
    if (h->troubled && h->next >= 0)
        tell(e, PORT_POSITION, "%s", "");
    h->troubled = false;
}

/* Up to this leader epoch. */
static void checked(struct history *h, int32_t epoch, struct history_effect *e)
{
    assert(h->state == PART_CHECKING && h->asking == HISTORY_NOTHING);
    h->leader_epoch = epoch;
    if (!h->proof)
        trouble_over(h, e);
    h->state = PART_ADDING;
    e->changes = true;
}

static void cut(struct history *h, int64_t end, struct history_effect *e)
{
    tell(e, PORT_TRUNCATED, "the source's log was cut to %" PRId64 ", below our position %" PRId64, end,
         h->next);
    e->end = end;
    stop(h, e);
}

/* It did not succeed: again soon. Told when it has taken long: a leader that is just being elected is no trouble. */
static void check_again(struct history *h, const char *why, int64_t now_us, struct history_effect *e)
{
    h->retry_at_us = now_us + HISTORY_RETRY_US;
    if (!h->troubled && now_us - h->checking_us >= HISTORY_TELL_US) {
        h->troubled = true;
        tell(e, PORT_TROUBLE, "%s", why);
    }
    e->refresh = true;
}

/* Of one that is read, or was about to be. */
static void check_anew(struct history *h, int64_t now_us, struct history_effect *e)
{
    assert(h->asking == HISTORY_NOTHING && h->next >= 0 && h->state != PART_STOPPED);
    /* While a proof is owed the log of the same epoch is asked for again: it may end lower by now. A position that
     * came without an epoch, and that nothing has been read behind, has none to ask for. */
    if (h->record_epoch >= 0)
        h->epoch = h->record_epoch;
    else if (!h->proof && (h->epoch >= 0 || h->last.offset >= 0 || h->confirmed >= h->next))
        h->epoch = h->leader_epoch;
    h->out_of_range = false;
    h->state = PART_CHECKING;
    h->checking_us = now_us;
    h->retry_at_us = 0;
    e->forget = e->changes = true;
}

/* ---- leader epochs ---- */

static void seen(struct history *h, int32_t epoch, int64_t now_us, struct history_effect *e)
{
    bool ours = h->state == PART_READING || h->state == PART_ADDING;
    if (epoch > h->seen_epoch)
        h->seen_epoch = epoch;
    bool asks_range = h->out_of_range && (h->asking || !h->proof);
    if (ours && !asks_range && h->next >= 0 && h->leader_epoch >= 0 && epoch > h->leader_epoch)
        check_anew(h, now_us, e);
}

struct history_effect history_seen(struct history *h, int32_t epoch, int64_t now_us)
{
    struct history_effect e = nothing();
    seen(h, epoch, now_us, &e);
    return e;
}

/* The leader that was heard of last is the one to ask. */
static void ask_epoch_end(struct history *h, const struct history_leader *m, int64_t now_us,
                          struct history_effect *e)
{
    h->asked_epoch = m->epoch;
    if (m->epoch < h->seen_epoch || m->id < 0)
        check_again(h, "the partition has no leader", now_us, e);
    else
        ask(h, e, HISTORY_EPOCH_END);
}

struct history_effect history_look(struct history *h, const struct history_leader *m, int64_t now_us)
{
    struct history_effect e = nothing();
    if (h->state == PART_STOPPED || h->asking || !m)
        return e;
    if (h->out_of_range) {
        if (h->retry_at_us <= now_us)
            ask(h, &e, HISTORY_LOG_START);
        return e;
    }
    if (h->leader_epoch < 0 && h->state != PART_CHECKING)
        h->leader_epoch = m->epoch;
    seen(h, m->epoch > h->seen_epoch ? m->epoch : h->seen_epoch, now_us, &e);
    if (h->state != PART_CHECKING || h->retry_at_us > now_us)
        return e;
    if (h->epoch >= 0 && h->next >= 0)
        ask_epoch_end(h, m, now_us, &e);
    else
        checked(h, m->epoch, &e);
    return e;
}

struct history_effect history_epoch_end(struct history *h, enum port_answer answer, int64_t end,
                                        const char *why, int64_t now_us)
{
    struct history_effect e = nothing();
    assert(h->asking == HISTORY_EPOCH_END && h->state == PART_CHECKING && h->epoch >= 0 && h->next >= 0);
    h->asking = HISTORY_NOTHING;
    if (answer != PORT_ANSWER_KNOWN && answer != PORT_ANSWER_NONE) {
        check_again(h, why, now_us, &e);
        return e;
    }
    if (h->asked_epoch < h->seen_epoch) { /* by now another one leads, whose log may be another one */
        check_again(h, "the partition has another leader", now_us, &e);
        h->retry_at_us = 0;
        return e;
    }
    /* Of an old cluster nothing can be asked. */
    bool below = answer == PORT_ANSWER_KNOWN && end >= 0 && end < h->next;
    if (below && (h->record_epoch >= 0 || h->last.offset < 0)) {
        cut(h, end, &e);
        return e;
    }
    h->proof = below;
    h->cut_to = end;
    checked(h, h->asked_epoch, &e);
    return e;
}

/* ---- the proof ---- */

void history_handed_out(struct history *h, const struct history_record *last)
{
    assert(last->offset >= 0 && last->offset < h->next && !h->proof);
    h->last = *last;
}

struct history_effect history_prove(struct history *h, const struct history_record *r, bool end,
                                    int64_t now_us)
{
    struct history_effect e = nothing();
    assert(h->proof && h->state == PART_READING && h->last.offset >= 0);
    if (r->offset < h->last.offset || h->asking) /* what is asked decides, or it begins anew */
        return e;
    if (end && r->offset == h->last.offset) {
        /* A new leader's high watermark may be behind for a while. If the log ends here all the same, that is it. */
        if (!h->out_of_range)
            h->retry_at_us = now_us + HISTORY_END_US;
        h->out_of_range = true;
        return e;
    }
    h->proof = h->out_of_range = false;
    if (end || r->offset != h->last.offset || r->timestamp_ms != h->last.timestamp_ms ||
        r->crc != h->last.crc || r->key_bytes != h->last.key_bytes)
        cut(h, h->cut_to, &e);
    else
        trouble_over(h, &e);
    return e;
}

/* ---- out of range ---- */

struct history_effect history_out_of_range(struct history *h)
{
    struct history_effect e = nothing();
    if (h->state == PART_STOPPED)
        return e;
    assert(h->state == PART_READING);
    h->out_of_range = true;
    h->retry_at_us = 0;
    if (!h->asking) /* else when that is answered */
        ask(h, &e, HISTORY_LOG_START);
    return e;
}

static void range_known(struct history *h, int64_t end, int64_t now_us, struct history_effect *e)
{
    bool lost = h->next < h->range_start || h->next > end;
    if (!lost && h->proof &&
        h->last.offset < h->range_start) { /* retention has taken it: nothing can prove any more */
        cut(h, h->cut_to, e);
        return;
    }
    if (!lost && (h->record_epoch >= 0 || h->last.offset >= 0)) { /* cut, and grown since? */
        check_anew(h, now_us, e);
        return;
    }
    tell(e, PORT_OUT_OF_RANGE, "offset %" PRId64 " %s: the source's log reaches from %" PRId64 " to %" PRId64,
         h->next, lost ? "is not there" : "was not there and is now", h->range_start, end);
    e->kafka_error = KE_OFFSET_OUT_OF_RANGE;
    e->log_start = h->range_start;
    e->end = end;
    stop(h, e);
}

struct history_effect history_offset(struct history *h, enum port_answer answer, int64_t offset,
                                     const char *why, int64_t now_us)
{
    struct history_effect e = nothing();
    enum history_question asked = h->asking;
    assert((asked == HISTORY_LOG_START || asked == HISTORY_LOG_END) && h->out_of_range &&
           h->state == PART_READING);
    h->asking = HISTORY_NOTHING;
    if (answer == PORT_ANSWER_KNOWN && asked == HISTORY_LOG_START) {
        h->range_start = offset;
        ask(h, &e, HISTORY_LOG_END);
    } else if (answer == PORT_ANSWER_KNOWN) {
        range_known(h, offset, now_us, &e);
    } else if (answer == PORT_ANSWER_REFUSED) {
        tell(&e, PORT_FAILED, "%s", why);
        e.kafka_error = KE_TOPIC_AUTHORIZATION_FAILED;
        stop(h, &e);
    } else {
        if (!h->troubled)
            tell(&e, PORT_TROUBLE, "%s", why ? why : "the cluster is too old to say where its log is");
        h->troubled = true;
        h->retry_at_us = now_us + HISTORY_RETRY_US;
        e.refresh = true;
    }
    return e;
}

struct history_effect history_unsent(struct history *h, int64_t now_us)
{
    struct history_effect e = nothing();
    assert(h->asking != HISTORY_NOTHING);
    if (h->asking == HISTORY_EPOCH_END)
        check_again(h, "no room for another question", now_us, &e);
    else
        h->retry_at_us = now_us + HISTORY_RETRY_US;
    h->asking = HISTORY_NOTHING;
    return e;
}

/* ---- confirming ---- */

int32_t history_epoch(const struct history *h)
{
    if (h->record_epoch >= 0)
        return h->record_epoch;
    if (h->next < 0 || h->confirmed < h->next)
        return -1;
    return h->proof ? h->epoch : h->leader_epoch; /* a newer leader has not been found to have it */
}

struct history_effect history_confirm(struct history *h, const struct history_leader *m)
{
    struct history_effect e = nothing();
    if (h->state != PART_READING || h->asking || h->proof || !m || m->epoch < 0 ||
        m->epoch != h->leader_epoch || h->next < 0)
        return e;
    bool news = h->confirmed != h->next && h->record_epoch < 0;
    h->confirmed = h->next;
    if (news)
        tell(&e, PORT_POSITION, "%s", "");
    return e;
}

bool history_wants_confirming(const struct history *h)
{
    return h->state == PART_READING && h->next >= 0 && h->record_epoch < 0 && h->confirmed != h->next;
}
