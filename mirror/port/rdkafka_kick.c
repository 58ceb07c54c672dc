/* Starting a reading that the library has let sleep.
 *
 * librdkafka stops fetching when its queue is full and looks again when its broker thread wakes, a second later at
 * worst: a reader that empties a queue of some megabytes in milliseconds then waits for most of its life (2.0.2;
 * later ones have fetch.queue.backoff.ms, see rdkafka_conf.c). Any request to that broker wakes the thread, so once
 * half of the queue's bound has been taken, or all of it with the partition not at its end, one small question is
 * put: ListOffsets, which also brings the end up to date. At most one at a time, on a helper thread, and none for
 * what is caught up. */
#include "mirror/port/rdkafka_parts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define KICK_EVERY_US   2000
#define KICK_TIMEOUT_MS 1000
#define KICK_LOOKS      16 /* there may be thousands that are caught up */
#define KICK_LANE       3  /* not the store's: an answer may take its time */

static void run_kick(struct loop_job *job)
{
    struct port_rdk *p = LIST_ENTRY(job, struct port_rdk, kick.job);
    int64_t low, high;
    (void)rd_kafka_query_watermark_offsets(p->rk, p->kick.topic, p->kick.partition, &low, &high,
                                           KICK_TIMEOUT_MS);
}

static void kick_done(struct loop_job *job)
{
    struct port_rdk *p = LIST_ENTRY(job, struct port_rdk, kick.job);
    assert(p->kick.busy);
    free(p->kick.topic);
    p->kick.topic = NULL;
    p->kick.busy = false;
}

/* Read, and behind the end that its last answer named. */
static bool is_behind(struct part *part)
{
    int64_t low = -1, high = -1;
    return part->h.state == PART_READING && part->h.next >= 0 &&
           rd_kafka_get_watermark_offsets(part->port->rk, part->topic, part->a.partition, &low, &high) ==
               RD_KAFKA_RESP_ERR_NO_ERROR &&
           high > part->h.next;
}

/* Most likely the one that was read last; else one of the next in turn, for they may lie at several brokers. */
static struct part *one_behind(struct port_rdk *p)
{
    if (p->last_topic && p->last_part && is_behind(p->last_part))
        return p->last_part;
    for (int i = 0; i < KICK_LOOKS && !list_empty(&p->parts); i++) {
        struct part *part = LIST_ENTRY(list_pop(&p->parts), struct part, link);
        list_push(&p->parts, &part->link);
        if (is_behind(part))
            return part;
    }
    return NULL;
}

void rdk_kick(struct port_rdk *p, size_t taken_bytes)
{
    bool empty = taken_bytes == 0;
    p->kick.taken_bytes += taken_bytes;
    if (p->kick.busy || p->closing || (!empty && p->kick.taken_bytes < p->kick.bytes))
        return;
    int64_t now = loop_now_us(p->loop);
    if (now - p->kick.last_us < KICK_EVERY_US)
        return;
    struct part *part = one_behind(p);
    p->kick.last_us = now;
    p->kick.taken_bytes = 0;
    if (!part || !(p->kick.topic = strdup(part->topic)))
        return;
    p->kick.partition = part->a.partition;
    p->kick.busy = true;
    p->kick.job = (struct loop_job){.lane = KICK_LANE, .run = run_kick, .done = kick_done};
    loop_job(p->loop, &p->kick.job);
}
