/* Whether our history is the source's (KIP-320; librdkafka 2.0.2 does not ask): before a partition is given to the
 * library, and whenever a newer leader epoch is seen, the leader of that epoch is asked where the log of ours ends.
 * Meanwhile the library does not have the partition, and what it had fetched is forgotten: nothing is handed out
 * that was read under a leader whom nobody has asked. It then begins anew at our position, with the leader that it
 * finds by itself.
 *
 * A library that does not tell the epochs of records (before 2.1) may have read on under a newer leader before we
 * heard of it: a log of our epoch that ends below our position is then a truncation, or it is not. The last record
 * that was handed out proves it: the library begins there, and unless it brings that very record the log was cut. */
#include "mirror/port/port_ask.h"
#include "mirror/port/rdkafka_parts.h"

#include "base/core/crc32c.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Positions whose epoch is not known are confirmed so often, and no more often than this for each partition there is:
 * metadata names them all. */
#define CONFIRM_US      INT64_C(1000000)
#define CONFIRM_PART_US 1000
#define TELL_US         INT64_C(2000000) /* a check that takes longer is told */

/* ---- the checks ---- */

void rdk_stop_with(struct part *part, enum port_event event, int64_t end, const char *text)
{
    struct waiting_event *e = rdk_event(part, event, text);
    if (e) {
        e->d.end = end;
        e->d.log_start = -1;
    }
    part_stop(part);
}

static const struct client_partition *metadata_of(struct part *part, const struct client_topic **topic)
{
    *topic = client_topic(part->port->client, slice_str(part->topic));
    return *topic && !(*topic)->error && part->a.partition < (*topic)->partitions_n
               ? &(*topic)->partitions[part->a.partition]
               : NULL;
}

/* False: not as far as metadata says. That may be older than the assignment: rdkafka_doubt.c finds out, and ends the
 * partition where the topic is another one. */
static bool same_topic(struct part *part, const struct client_topic *t)
{
    if (!t || t->error || !port_recreated(&part->a, t))
        return true;
    rdk_doubt(part->port);
    client_metadata_refresh(part->port->client);
    return false;
}

/* Up to this leader epoch. */
static void checked(struct part *part, int32_t epoch)
{
    assert(part->state == PART_CHECKING && !part->check);
    part->leader_epoch = epoch;
    if (part->troubled && part->next >= 0)
        rdk_event(part, PORT_POSITION, NULL); /* or nobody would hear of it while it is at its end */
    part->troubled = false;
    part->state = PART_ADDING;
    rdk_change(part);
}

static void cut(struct part *part, int64_t end)
{
    char text[128];
    snprintf(text, sizeof text, "the source's log was cut to %" PRId64 ", below our position %" PRId64, end,
             part->next);
    part->proof = false;
    rdk_stop_with(part, PORT_TRUNCATED, end, text);
}

/* It did not succeed: again soon. Told when it has taken long: a leader that is just being elected is no trouble. */
static void check_again(struct part *part, const char *why)
{
    struct port_rdk *p = part->port;
    int64_t now = loop_now_us(p->loop);
    part->retry_at_us = now + RDK_RETRY_US;
    if (!part->troubled && now - part->checking_us >= TELL_US) {
        part->troubled = true;
        rdk_event(part, PORT_TROUBLE, why);
    }
    client_metadata_refresh(p->client);
}

static void on_epoch(void *arg, const struct client_response *r)
{
    struct part *part = arg;
    part->check = NULL;
    const char *why;
    int64_t end = -1;
    enum port_answer answer = port_answer_epoch_end(r, &end, &why);
    if (answer != PORT_ANSWER_KNOWN && answer != PORT_ANSWER_NONE) {
        check_again(part, why);
        return;
    }
    /* Of an old cluster nothing can be asked. */
    if (answer == PORT_ANSWER_KNOWN && end >= 0 && end < part->next) {
        if (part->record_epoch >= 0 || part->last.offset < 0) {
            cut(part, end);
            return;
        }
        part->proof = true;
        part->cut_to = end;
    }
    checked(part, part->asked_epoch);
}

static struct port_question question(struct part *part,
                                     void (*answered)(void *arg, const struct client_response *r))
{
    const struct client_topic *t;
    const struct client_partition *m = metadata_of(part, &t);
    /* A deposed leader's answer would hide a truncation, or make one: only the leader that metadata names may answer, so
     * what it refuses is asked anew, with newer metadata. */
    return (struct port_question){.topic = slice_str(part->topic),
                                  .partition = part->a.partition,
                                  .current_leader_epoch = m ? m->leader_epoch : -1,
                                  .retry = CLIENT_RETRY_UNSENT,
                                  .call = &part->check,
                                  .answered = answered,
                                  .arg = part};
}

/* The leader that was heard of last is the one to ask. */
static void ask_epoch(struct part *part, const struct client_partition *m)
{
    assert(part->state == PART_CHECKING && part->a.leader_epoch >= 0 && part->next >= 0 && !part->dropped);
    struct port_question q = question(part, on_epoch);
    part->asked_epoch = m->leader_epoch;
    if (m->leader_epoch < part->seen_epoch || m->leader < 0)
        check_again(part, "the partition has no leader");
    else if (!port_ask_epoch_end(part->port->client, &q, part->a.leader_epoch))
        check_again(part, "no room for another question");
}

/* Of one that is read, or was about to be. */
static void check_anew(struct part *part)
{
    assert(!part->check && part->next >= 0 && part->state != PART_STOPPED);
    /* While a proof is owed the log of the same epoch is asked for again: it may end lower by now. */
    if (!part->proof)
        part->a.leader_epoch = part->record_epoch >= 0 ? part->record_epoch : part->leader_epoch;
    part->proof = part->out_of_range = false;
    part->state = PART_CHECKING;
    part->checking_us = loop_now_us(part->port->loop);
    part->retry_at_us = 0;
    rdk_drop_held(part->port, part);
    rdk_change(part);
}

void rdk_epoch_seen(struct part *part, int32_t epoch)
{
    bool ours = part->state == PART_READING || part->state == PART_ADDING;
    if (epoch > part->seen_epoch)
        part->seen_epoch = epoch;
    if (!ours || part->dropped || part->out_of_range || part->next < 0 || part->leader_epoch < 0 ||
        epoch <= part->leader_epoch)
        return;
    check_anew(part);
}

/* ---- the proof ---- */

static struct rdk_last last_of(const rd_kafka_message_t *m)
{
    rd_kafka_timestamp_type_t type;
    uint32_t crc = crc32c(m->key, m->key_len);
    return (struct rdk_last){m->offset, rd_kafka_message_timestamp(m, &type),
                             crc32c_more(crc, m->payload, m->len), m->key_len};
}

void rdk_handed_out(struct part *part, const rd_kafka_message_t *last)
{
    if (part->record_epoch < 0)
        part->last = last_of(last);
}

void rdk_prove(struct part *part, const rd_kafka_message_t *m)
{
    assert(part->proof && part->state == PART_READING && part->last.offset >= 0);
    struct rdk_last now = m->err ? part->last : last_of(m);
    /* An end in front of it proves nothing: a new leader's high watermark may be behind for a while. */
    if (m->offset < part->last.offset || (m->err && m->offset == part->last.offset))
        return;
    if (m->err || now.offset != part->last.offset || now.timestamp_ms != part->last.timestamp_ms ||
        now.crc != part->last.crc || now.key_bytes != part->last.key_bytes)
        cut(part, part->cut_to);
    part->proof = false;
}

/* ---- out of range ---- */

static void ask_range(struct part *part, int64_t timestamp,
                      void (*answered)(void *arg, const struct client_response *r))
{
    struct port_question q = question(part, answered);
    if (!port_ask_offset(part->port->client, &q, timestamp, false))
        part->retry_at_us = loop_now_us(part->port->loop) + RDK_RETRY_US;
}

/* False: it is asked again, or the partition has ended. */
static bool range_known(struct part *part, const struct client_response *r, int64_t *offset)
{
    const char *why;
    enum port_answer answer = port_answer_offset(r, offset, &why);
    assert(part->out_of_range && part->state != PART_STOPPED && !part->dropped);
    part->check = NULL;
    if (answer == PORT_ANSWER_KNOWN)
        return true;
    if (answer == PORT_ANSWER_REFUSED) {
        struct waiting_event *e = rdk_event(part, PORT_FAILED, why);
        if (e)
            e->d.kafka_error = KE_TOPIC_AUTHORIZATION_FAILED;
        part_stop(part);
        return false;
    }
    if (!part->troubled)
        rdk_event(part, PORT_TROUBLE, why ? why : "the cluster is too old to say where its log is");
    part->troubled = true;
    part->retry_at_us = loop_now_us(part->port->loop) + RDK_RETRY_US;
    client_metadata_refresh(part->port->client);
    return false;
}

static void on_range_end(void *arg, const struct client_response *r)
{
    struct part *part = arg;
    int64_t end;
    if (!range_known(part, r, &end))
        return;
    char text[160];
    bool lost = part->next < part->range_start || part->next > end;
    if (!lost && (part->record_epoch >= 0 || part->last.offset >= 0)) { /* cut, and grown since? */
        check_anew(part);
        return;
    }
    snprintf(text, sizeof text,
             "offset %" PRId64 " %s: the source's log reaches from %" PRId64 " to %" PRId64, part->next,
             lost ? "is not there" : "was not there and is now", part->range_start, end);
    struct waiting_event *e = rdk_event(part, PORT_OUT_OF_RANGE, text);
    if (e) {
        e->d.kafka_error = KE_OFFSET_OUT_OF_RANGE;
        e->d.log_start = part->range_start;
        e->d.end = end;
    }
    part_stop(part);
}

static void on_range_start(void *arg, const struct client_response *r)
{
    struct part *part = arg;
    if (range_known(part, r, &part->range_start))
        ask_range(part, PORT_ASK_LATEST, on_range_end);
}

void part_out_of_range(struct part *part)
{
    if (part->state == PART_STOPPED)
        return;
    part->out_of_range = true;
    part->retry_at_us = 0;
    if (!part->check) /* else when that is answered */
        ask_range(part, PORT_ASK_EARLIEST, on_range_start);
}

int32_t rdk_epoch(const struct part *part)
{
    if (part->record_epoch >= 0)
        return part->record_epoch;
    return part->next >= 0 && part->confirmed >= part->next ? part->leader_epoch : -1;
}

/* What has been delivered by now was read under the epoch that this answer shows, or under an older one. */
static void confirm(struct part *part)
{
    const struct client_topic *t;
    const struct client_partition *m = metadata_of(part, &t);
    if (part->state != PART_READING || part->check || part->proof || !m || m->leader_epoch < 0 ||
        m->leader_epoch != part->leader_epoch || part->next < 0)
        return;
    bool news = part->confirmed != part->next && part->record_epoch < 0;
    part->confirmed = part->next;
    if (news)
        rdk_event(part, PORT_POSITION, NULL);
}

void rdk_metadata_changed(void *arg)
{
    struct port_rdk *p = arg;
    list_each (at, &p->parts) {
        struct part *part = LIST_ENTRY(at, struct part, link);
        if (!part->dropped)
            confirm(part);
    }
    rdk_look_at_metadata(p);
}

void rdk_confirm_tick(struct port_rdk *p)
{
    int64_t parts = 0, now = loop_now_us(p->loop);
    bool wanted = false;
    if (p->confirm_at_us > now)
        return;
    list_each (at, &p->parts) {
        struct part *part = LIST_ENTRY(at, struct part, link);
        wanted = wanted || (part->state == PART_READING && part->next >= 0 && part->record_epoch < 0 &&
                            part->confirmed != part->next);
        parts++;
    }
    p->confirm_at_us = now + CONFIRM_US + parts * CONFIRM_PART_US;
    if (wanted)
        client_metadata_refresh(p->client);
}

static void look_at(struct part *part, int64_t now)
{
    const struct client_topic *t;
    const struct client_partition *m = metadata_of(part, &t);
    if (!m || !same_topic(part, t))
        return;
    if (part->out_of_range) {
        if (part->retry_at_us <= now)
            ask_range(part, PORT_ASK_EARLIEST, on_range_start);
        return;
    }
    if (part->leader_epoch < 0 && part->state != PART_CHECKING)
        part->leader_epoch = m->leader_epoch;
    rdk_epoch_seen(part, m->leader_epoch > part->seen_epoch ? m->leader_epoch : part->seen_epoch);
    if (part->state != PART_CHECKING || part->retry_at_us > now)
        return;
    if (part->a.leader_epoch >= 0 && part->next >= 0)
        ask_epoch(part, m);
    else
        checked(part, m->leader_epoch);
}

/* On each metadata answer, and on each tick: unfinished checks go on; a new leader epoch is a new check. */
void rdk_look_at_metadata(void *arg)
{
    struct port_rdk *p = arg;
    int64_t now = loop_now_us(p->loop);
    list_each_safe(at, &p->parts)
    {
        struct part *part = LIST_ENTRY(at, struct part, link);
        if (!part->dropped && part->state != PART_STOPPED && !part->check)
            look_at(part, now);
    }
    rdk_apply_changes(p);
}
