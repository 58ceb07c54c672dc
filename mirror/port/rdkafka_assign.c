/* What is read, from where: the port's partitions, and telling the library of them. It is given a partition when
 * rdkafka_check.c has found that our history is the source's. */
#include "mirror/port/rdkafka_parts.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

void rdk_change(struct part *part)
{
    struct port_rdk *p = part->port;
    if (!list_linked(&part->change))
        list_push(&p->changes, &part->change);
    rdk_wake(p);
}

void rdk_leave(struct part *part)
{
    assert(part->h.state == PART_STOPPED);
    if (part->check) {
        client_cancel(part->port->client, part->check);
        part->check = NULL;
    }
    rdk_change(part);
}

void part_stop(struct part *part)
{
    if (history_stop(&part->h))
        rdk_leave(part);
}

/* ---- telling the library, on a helper thread ---- */

/* The library asks at once who leads a topic when a handle is made of it; of one that is only assigned it may learn
 * from its scan, a second later. A handle per topic (neighbours are of one), to be given back after the assignment. */
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
            rdk_stop_with(part, PORT_FAILED, -1, p->job_error);
    }
    rd_kafka_topic_partition_list_destroy(p->add);
    rd_kafka_topic_partition_list_destroy(p->drop);
    p->add = p->drop = NULL;
    rdk_apply_changes(p);
    rdk_wake(p);
}

static int64_t library_offset(int64_t offset)
{
    return offset == PORT_FROM_START ? RD_KAFKA_OFFSET_BEGINNING
           : offset == PORT_FROM_END ? RD_KAFKA_OFFSET_END
                                     : offset;
}

void rdk_apply_changes(struct port_rdk *p)
{
    if (p->job_busy || p->closing || list_empty(&p->changes))
        return;
    struct list again;
    assert(!p->add && !p->drop);
    list_init(&again);
    p->add = rd_kafka_topic_partition_list_new(16);
    p->drop = rd_kafka_topic_partition_list_new(16);
    list_each_safe(at, &p->changes)
    {
        struct part *part = LIST_ENTRY(at, struct part, change);
        list_remove(&part->change);
        bool wanted = !part->dropped && part->h.state == PART_ADDING;
        if (part->in_library) {
            assert(part->h.state != PART_READING || part->dropped);
            rd_kafka_topic_partition_list_add(p->drop, part->topic, part->a.partition);
            part->in_library = false;
            if (wanted) /* checked again by now: begins anew, in the next lot */
                list_push(&again, &part->change);
        } else if (wanted && !part->in_library) {
            /* One that has just been dropped under the same name is told of in the next lot. */
            if (rd_kafka_topic_partition_list_find(p->drop, part->topic, part->a.partition)) {
                list_push(&p->changes, &part->change);
                break;
            }
            rd_kafka_topic_partition_list_add(p->add, part->topic, part->a.partition)->offset =
                library_offset(part->h.proof ? part->h.last.offset : part->h.next);
            assert(!part->dropped && part->h.state == PART_ADDING);
            part->in_library = true;
            part->h.state = PART_READING;
        }
        if (part->dropped)
            part_free(part);
    }
    while (!list_empty(&again))
        list_push(&p->changes, list_pop(&again));
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
    rdk_change(part);
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
    *part = (struct part){.port = p, .topic = topic, .a = *a};
    history_begin(&part->h, a->offset, a->leader_epoch, loop_now_us(p->loop));
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
