/* Whether our history is the source's (KIP-320; librdkafka 2.0.2 does not ask): before a partition is given to the
 * library, and whenever a newer leader epoch is seen, the leader of that epoch is asked where the log of ours ends.
 * Meanwhile the library does not have the partition, and what it had fetched is forgotten: nothing is handed out
 * that was read under a leader whom nobody has asked. It then begins anew at our position, with the leader that it
 * finds by itself.
 *
 * A library that does not tell the epochs of records (before 2.1) may have read on under a newer leader before we
 * heard of it: a log of our epoch that ends below our position is then a truncation, or it is not. The last record
 * that was handed out proves it: the library begins there, and unless it brings that very record the log was cut.
 *
 * What follows from what is rdkafka_history.c's; here it is asked and done. */
#include "mirror/port/port_ask.h"
#include "mirror/port/rdkafka_parts.h"

#include "base/core/crc32c.h"

#include <assert.h>
#include <string.h>

/* Positions whose epoch is not known are confirmed so often, and no more often than this for each partition there is:
 * metadata names them all. */
#define CONFIRM_US      INT64_C(1000000)
#define CONFIRM_PART_US 1000

static void act(struct part *part, const struct history_effect *e);

static int64_t now_of(const struct part *part)
{
    return loop_now_us(part->port->loop);
}

/* ---- what metadata says ---- */

/* False: nothing. */
static bool leader_of(struct part *part, const struct client_topic **topic, struct history_leader *out)
{
    const struct client_topic *t = *topic = client_topic(part->port->client, slice_str(part->topic));
    if (!t || t->error || part->a.partition >= t->partitions_n)
        return false;
    const struct client_partition *m = &t->partitions[part->a.partition];
    *out = (struct history_leader){.id = m->leader, .epoch = m->leader_epoch};
    return true;
}

/* False: not as far as metadata says. That may be older than the assignment: rdkafka_doubt.c finds out, and ends the
 * partition where the topic is another one. */
static bool same_topic(struct part *part, const struct client_topic *t)
{
    if (!port_recreated(&part->a, t))
        return true;
    rdk_doubt(part->port);
    client_metadata_refresh(part->port->client);
    return false;
}

/* ---- questions ---- */

static void on_epoch(void *arg, const struct client_response *r)
{
    struct part *part = arg;
    const char *why;
    int64_t end = -1;
    enum port_answer answer = port_answer_epoch_end(r, &end, &why);
    part->check = NULL;
    struct history_effect e = history_epoch_end(&part->h, answer, end, why, now_of(part));
    act(part, &e);
}

static void on_offset(void *arg, const struct client_response *r)
{
    struct part *part = arg;
    const char *why;
    int64_t offset = -1;
    enum port_answer answer = port_answer_offset(r, &offset, &why);
    part->check = NULL;
    struct history_effect e = history_offset(&part->h, answer, offset, why, now_of(part));
    act(part, &e);
}

/* A deposed leader's answer would hide a truncation, or make one: only the leader that metadata names may answer, so what it
 * refuses is asked anew, with newer metadata. */
static void ask(struct part *part, enum history_question what)
{
    const struct client_topic *t;
    struct history_leader m = {.id = -1, .epoch = -1};
    struct client *c = part->port->client;
    bool known = leader_of(part, &t, &m), sent;
    assert(!part->check && !part->dropped && part->h.asking == what);
    struct port_question q = {.topic = slice_str(part->topic),
                              .partition = part->a.partition,
                              .current_leader_epoch = known ? m.epoch : -1,
                              .retry = CLIENT_RETRY_UNSENT,
                              .call = &part->check,
                              .answered = what == HISTORY_EPOCH_END ? on_epoch : on_offset,
                              .arg = part};
    switch (what) {
    case HISTORY_EPOCH_END: sent = port_ask_epoch_end(c, &q, part->h.epoch); break;
    case HISTORY_LOG_START: sent = port_ask_offset(c, &q, PORT_ASK_EARLIEST, false); break;
    default: sent = port_ask_offset(c, &q, PORT_ASK_LATEST, false); break;
    }
    if (sent)
        return;
    struct history_effect e = history_unsent(&part->h, now_of(part));
    act(part, &e);
}

static void act(struct part *part, const struct history_effect *e)
{
    struct waiting_event *told = NULL;
    assert(!part->dropped);
    if (e->forget)
        rdk_drop_held(part->port, part);
    if (e->tells && (told = rdk_event(part, e->event, e->text[0] ? e->text : NULL))) {
        told->d.kafka_error = e->kafka_error;
        told->d.log_start = e->log_start;
        told->d.end = e->end;
    }
    if (e->stops)
        rdk_leave(part);
    else if (e->changes)
        rdk_change(part);
    if (e->refresh)
        client_metadata_refresh(part->port->client);
    if (e->ask)
        ask(part, e->ask);
}

/* ---- what has been seen ---- */

void rdk_epoch_seen(struct part *part, int32_t epoch)
{
    if (part->dropped)
        return;
    struct history_effect e = history_seen(&part->h, epoch, now_of(part));
    act(part, &e);
}

void part_out_of_range(struct part *part)
{
    struct history_effect e = history_out_of_range(&part->h);
    act(part, &e);
}

static struct history_record record_of(const rd_kafka_message_t *m)
{
    rd_kafka_timestamp_type_t type;
    uint32_t crc = crc32c(m->key, m->key_len);
    return (struct history_record){m->offset, rd_kafka_message_timestamp(m, &type),
                                   crc32c_more(crc, m->payload, m->len), m->key_len};
}

void rdk_handed_out(struct part *part, const rd_kafka_message_t *last)
{
    struct history_record r = record_of(last);
    history_handed_out(&part->h, &r);
}

void rdk_prove(struct part *part, const rd_kafka_message_t *m)
{
    struct history_record r = m->err ? (struct history_record){.offset = m->offset} : record_of(m);
    struct history_effect e = history_prove(&part->h, &r, m->err != 0, now_of(part));
    act(part, &e);
}

void rdk_stop_with(struct part *part, enum port_event event, int64_t end, const char *text)
{
    struct waiting_event *e = rdk_event(part, event, text);
    if (e) {
        e->d.end = end;
        e->d.log_start = -1;
    }
    part_stop(part);
}

int32_t rdk_epoch(const struct part *part)
{
    return history_epoch(&part->h);
}

/* ---- on metadata, on ticks ---- */

void rdk_metadata_changed(void *arg)
{
    struct port_rdk *p = arg;
    list_each (at, &p->parts) {
        struct part *part = LIST_ENTRY(at, struct part, link);
        const struct client_topic *t;
        struct history_leader m;
        if (part->dropped || !leader_of(part, &t, &m))
            continue;
        struct history_effect e = history_confirm(&part->h, &m);
        act(part, &e);
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
        wanted = wanted || history_wants_confirming(&LIST_ENTRY(at, struct part, link)->h);
        parts++;
    }
    p->confirm_at_us = now + CONFIRM_US + parts * CONFIRM_PART_US;
    if (wanted)
        client_metadata_refresh(p->client);
}

/* On each metadata answer, and on each tick: unfinished checks go on; a new leader epoch is a new check. */
void rdk_look_at_metadata(void *arg)
{
    struct port_rdk *p = arg;
    list_each_safe(at, &p->parts)
    {
        struct part *part = LIST_ENTRY(at, struct part, link);
        const struct client_topic *t;
        struct history_leader m;
        assert(part->dropped || (part->check != NULL) == (part->h.asking != HISTORY_NOTHING));
        if (part->dropped || part->h.state == PART_STOPPED || part->check || !leader_of(part, &t, &m) ||
            !same_topic(part, t))
            continue;
        struct history_effect e = history_look(&part->h, &m, now_of(part));
        act(part, &e);
    }
    rdk_apply_changes(p);
}
