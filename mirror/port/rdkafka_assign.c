/* What is read, from where. Before a partition is given to the library the source is asked whether our history is still
 * its history: the topic's id, and where the log of our last leader epoch ends (KIP-320; librdkafka 2.0.2 does not
 * ask). The same again whenever metadata shows a new leader epoch. */
#include "mirror/port/port_ask.h"
#include "mirror/port/rdkafka_parts.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Not in librdkafka before 2.1. */
int32_t rd_kafka_message_leader_epoch(const rd_kafka_message_t *message) __attribute__((weak));

static void ask_epoch(struct part *part, int32_t epoch);
static void apply_changes(struct port_rdk *p);

static uint32_t hash_of(const char *topic, int32_t partition)
{
    uint32_t h = 2166136261u ^ (uint32_t)partition * 2654435761u;
    for (; *topic; topic++)
        h = (h ^ (uint8_t)*topic) * 16777619u;
    return h % RDK_BUCKETS;
}

struct part *part_of(struct port_rdk *p, const char *topic, int32_t partition)
{
    struct part *at = p->bucket[hash_of(topic, partition)];
    while (at && (at->dropped || at->a.partition != partition || strcmp(at->topic, topic) != 0))
        at = at->same_hash;
    return at;
}

struct part *part_of_owner(struct port_rdk *p, const void *owner)
{
    list_each (at, &p->parts) {
        struct part *part = LIST_ENTRY(at, struct part, link);
        if (!part->dropped && part->a.owner == owner)
            return part;
    }
    return NULL;
}

static void part_free(struct part *part)
{
    struct port_rdk *p = part->port;
    struct part **at = &p->bucket[hash_of(part->topic, part->a.partition)];
    while (*at != part) {
        assert(*at);
        at = &(*at)->same_hash;
    }
    *at = part->same_hash;
    if (p->last_part == part)
        p->last_topic = NULL;
    if (part->check)
        client_cancel(p->client, part->check);
    list_remove(&part->link);
    if (list_linked(&part->change))
        list_remove(&part->change);
    free(part->topic);
    free(part);
}

void rdk_free_parts(struct port_rdk *p)
{
    list_each_safe(at, &p->parts) part_free(LIST_ENTRY(at, struct part, link));
}

/* The library is to be told of it: soon, with others of its kind. */
static void change(struct part *part)
{
    struct port_rdk *p = part->port;
    if (!list_linked(&part->change))
        list_push(&p->changes, &part->change);
    rdk_wake(p);
}

void part_stop(struct part *part)
{
    if (part->state == PART_STOPPED)
        return;
    part->state = PART_STOPPED;
    if (part->check) {
        client_cancel(part->port->client, part->check);
        part->check = NULL;
    }
    change(part);
}

/* ---- the checks ---- */

static void stop_with(struct part *part, enum port_event event, int64_t end, const char *text)
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

static void checked(struct part *part)
{
    const struct client_topic *t;
    const struct client_partition *m = metadata_of(part, &t);
    if (!same_topic(part, t))
        return;
    if (m)
        part->leader_epoch = m->leader_epoch;
    if (part->state == PART_CHECKING) {
        part->state = PART_ADDING;
        change(part);
    }
}

static void on_epoch(void *arg, const struct client_response *r)
{
    struct part *part = arg;
    part->check = NULL;
    const char *why;
    int64_t end = -1;
    enum port_answer answer = port_answer_epoch_end(r, &end, &why);
    if (answer == PORT_ANSWER_NONE) {
        checked(part); /* an old cluster: nothing can be asked */
        return;
    }
    if (answer != PORT_ANSWER_KNOWN) {
        rdk_event(part, PORT_TROUBLE, why);
        client_metadata_refresh(part->port->client); /* tried again on the next metadata */
        return;
    }
    /* At the start the epoch was given for `next`; later it holds for what was read before the metadata said so. A
     * library that does not tell the epochs of records (before 2.1) may have read on under a newer one than was ever
     * confirmed: then the start is not judged here, and a log that ends below us shows as out of range. */
    bool exact = rd_kafka_message_leader_epoch != NULL;
    int64_t read = part->state != PART_CHECKING ? part->confirmed : exact ? part->next : -1;
    if (end >= 0 && part->next >= 0 && end < read) {
        char text[128];
        snprintf(text, sizeof text, "the source's log was cut to %" PRId64 ", below our position %" PRId64,
                 end, read);
        stop_with(part, PORT_TRUNCATED, end, text);
        return;
    }
    checked(part);
}

static struct port_question question(struct part *part,
                                     void (*answered)(void *arg, const struct client_response *r))
{
    return (struct port_question){.topic = slice_str(part->topic),
                                  .partition = part->a.partition,
                                  .current_leader_epoch = -1,
                                  .retry = CLIENT_RETRY_SAFE,
                                  .call = &part->check,
                                  .answered = answered,
                                  .arg = part};
}

static void ask_epoch(struct part *part, int32_t epoch)
{
    assert(epoch >= 0 && part->next >= 0 && !part->dropped && part->state != PART_STOPPED);
    struct port_question q = question(part, on_epoch);
    port_ask_epoch_end(part->port->client, &q, epoch); /* without room: on the next metadata */
}

/* ---- out of range ---- */

static void ask_range(struct part *part, int64_t timestamp,
                      void (*answered)(void *arg, const struct client_response *r))
{
    const struct client_topic *t;
    const struct client_partition *m = metadata_of(part, &t);
    struct port_question q = question(part, answered);
    /* A deposed leader's end would be taken for a truncation: only the leader that metadata names may answer, so what
     * it refuses is asked anew, with newer metadata. */
    q.current_leader_epoch = m ? m->leader_epoch : -1;
    q.retry = CLIENT_RETRY_UNSENT;
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
    if (part->state != PART_READING || part->check || !m || m->leader_epoch < 0 ||
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

/* On each metadata answer: unfinished checks go on; a new leader epoch is a new check of what was read under the
 * old. */
void rdk_look_at_metadata(void *arg)
{
    struct port_rdk *p = arg;
    list_each_safe(at, &p->parts)
    {
        struct part *part = LIST_ENTRY(at, struct part, link);
        if (part->dropped || part->state == PART_STOPPED || part->check)
            continue;
        const struct client_topic *t;
        const struct client_partition *m = metadata_of(part, &t);
        if (!m || !same_topic(part, t))
            continue;
        if (part->out_of_range) {
            if (part->retry_at_us <= loop_now_us(p->loop))
                ask_range(part, PORT_ASK_EARLIEST, on_range_start);
        } else if (part->state == PART_CHECKING) {
            if (part->a.leader_epoch >= 0 && part->next >= 0)
                ask_epoch(part, part->a.leader_epoch);
            else
                checked(part);
        } else if (part->leader_epoch >= 0 && m->leader_epoch > part->leader_epoch && part->next >= 0) {
            ask_epoch(part, part->leader_epoch);
        } else if (part->leader_epoch < 0) {
            part->leader_epoch = m->leader_epoch;
        }
    }
    apply_changes(p);
}

/* ---- telling the library, on a helper thread ---- */

/* The library asks at once who leads a topic when a handle is made of it; of one that is only assigned it may learn from its
 * scan, a second later. A handle per topic (neighbours are of one), to be given back after the assignment. */
static int ask_leaders(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *l, rd_kafka_topic_t **out)
{
    int n = 0;
    for (int i = 0; out && i < l->cnt; i++)
        if (i == 0 || strcmp(l->elems[i].topic, l->elems[i - 1].topic) != 0) {
            out[n] = rd_kafka_topic_new(rk, l->elems[i].topic, NULL);
            n += out[n] != NULL; /* without it: a second later */
        }
    assert(n <= l->cnt);
    return n;
}

static rd_kafka_error_t *assign(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *l)
{
    rd_kafka_topic_t **topics = malloc((size_t)l->cnt * sizeof *topics);
    int n = ask_leaders(rk, l, topics);
    rd_kafka_error_t *e = rd_kafka_incremental_assign(rk, l);
    while (n > 0)
        rd_kafka_topic_destroy(topics[--n]);
    free(topics);
    return e;
}

static void run_changes(struct loop_job *job)
{
    struct port_rdk *p = LIST_ENTRY(job, struct port_rdk, job);
    rd_kafka_error_t *e = NULL;
    p->job_error[0] = '\0';
    if (p->drop->cnt > 0)
        e = rd_kafka_incremental_unassign(p->rk, p->drop);
    if (!e && p->add->cnt > 0)
        e = assign(p->rk, p->add);
    if (e) {
        snprintf(p->job_error, sizeof p->job_error, "%s", rd_kafka_error_string(e));
        rd_kafka_error_destroy(e);
    }
}

static void changes_done(struct loop_job *job)
{
    struct port_rdk *p = LIST_ENTRY(job, struct port_rdk, job);
    assert(p->job_busy && p->add && p->drop);
    p->job_busy = false;
    for (int i = 0; p->job_error[0] && i < p->add->cnt; i++) {
        struct part *part = part_of(p, p->add->elems[i].topic, p->add->elems[i].partition);
        if (part)
            stop_with(part, PORT_FAILED, -1, p->job_error);
    }
    rd_kafka_topic_partition_list_destroy(p->add);
    rd_kafka_topic_partition_list_destroy(p->drop);
    p->add = p->drop = NULL;
    apply_changes(p);
    rdk_wake(p);
}

static int64_t library_offset(int64_t offset)
{
    return offset == PORT_FROM_START ? RD_KAFKA_OFFSET_BEGINNING
           : offset == PORT_FROM_END ? RD_KAFKA_OFFSET_END
                                     : offset;
}

static void apply_changes(struct port_rdk *p)
{
    if (p->job_busy || p->closing || list_empty(&p->changes))
        return;
    assert(!p->add && !p->drop);
    p->add = rd_kafka_topic_partition_list_new(16);
    p->drop = rd_kafka_topic_partition_list_new(16);
    list_each_safe(at, &p->changes)
    {
        struct part *part = LIST_ENTRY(at, struct part, change);
        list_remove(&part->change);
        bool wanted = !part->dropped && part->state == PART_ADDING;
        if (part->in_library && !wanted) {
            rd_kafka_topic_partition_list_add(p->drop, part->topic, part->a.partition);
            part->in_library = false;
        } else if (wanted && !part->in_library) {
            /* One that has just been dropped under the same name is told of in the next lot. */
            if (rd_kafka_topic_partition_list_find(p->drop, part->topic, part->a.partition)) {
                list_push(&p->changes, &part->change);
                break;
            }
            rd_kafka_topic_partition_list_add(p->add, part->topic, part->a.partition)->offset =
                library_offset(part->next);
            assert(!part->dropped && part->state == PART_ADDING);
            part->in_library = true;
            part->state = PART_READING;
        }
        if (part->dropped)
            part_free(part);
    }
    p->job_busy = p->add->cnt > 0 || p->drop->cnt > 0;
    if (p->job_busy) {
        p->job = (struct loop_job){.run = run_changes, .done = changes_done};
        loop_job(p->loop, &p->job);
    } else {
        rd_kafka_topic_partition_list_destroy(p->add);
        rd_kafka_topic_partition_list_destroy(p->drop);
        p->add = p->drop = NULL;
    }
}

/* ---- the port's two calls ---- */

void rdk_unassign(struct port *port, void *owner)
{
    struct port_rdk *p = port_rdk(port);
    struct part *part = part_of_owner(p, owner);
    if (!part)
        return;
    list_each_safe(at, &p->events)
    {
        struct waiting_event *e = LIST_ENTRY(at, struct waiting_event, link);
        if (e->part != part)
            continue;
        assert(p->events_n > 0);
        list_remove(&e->link);
        p->events_n--;
        free(e);
    }
    if (part->check) {
        client_cancel(p->client, part->check);
        part->check = NULL;
    }
    rdk_drop_held(p, part);
    if (p->last_part == part)
        p->last_topic = NULL;
    part->dropped = true;
    change(part);
}

int rdk_assign(struct port *port, const struct port_assignment *a, struct err *err)
{
    struct port_rdk *p = port_rdk(port);
    assert(a->owner && a->topic.n > 0 && a->partition >= 0 && a->offset >= PORT_FROM_START && !p->closing);
    rdk_unassign(port, a->owner);
    struct part *part = calloc(1, sizeof *part);
    char *topic = strndup((const char *)a->topic.p, a->topic.n);
    if (!part || !topic || client_topic_follow(p->client, a->topic)) {
        free(part);
        free(topic);
        return err_set(err, -E_NOMEM, "%.*s-%d cannot be followed: out of memory, or too many topics",
                       SLICE_FMT(a->topic), a->partition);
    }
    *part = (struct part){.port = p,
                          .topic = topic,
                          .a = *a,
                          .state = PART_CHECKING,
                          .next = a->offset,
                          .leader_epoch = -1,
                          .confirmed = -1,
                          .record_epoch = -1};
    part->a.topic = slice_str(topic);
    list_init(&part->change);
    struct part **bucket = &p->bucket[hash_of(topic, a->partition)];
    part->same_hash = *bucket;
    *bucket = part;
    list_push(&p->parts, &part->link);
    p->last_topic = NULL;
    /* Known metadata serves at once; else its answer goes on from here. It may be older than the topic: */
    rdk_doubt(p);
    rdk_wake(p);
    client_metadata_refresh(p->client);
    return 0;
}
