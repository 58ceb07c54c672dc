#include "mirror/flow/internal.h"

#include <assert.h>
#include <stdlib.h>

#include "base/runtime/log.h"

/* From the port to the appenders. One turn: poll a bounded number of deliveries; what an appender cannot take waits
 * at its partition, in order, counted in held_bytes; above held_max nothing is polled, and the port stops reading its
 * sockets.
 * A partition whose appender waits for something (no leader, a refused timestamp) is parked: it leaves the port, so
 * that it holds up nobody, and comes back where it was. */

static void let_go(struct port_delivery *d)
{
    port_release(d->port, d);
}

/* ---- taking ---- */

/* A record that cannot be taken though there was room: the rest is read again from there. */
static void take_failed(struct part *p, int64_t offset, int rc)
{
    p->taken_next = offset;
    if (rc == -E_CORRUPT)
        part_damaged(p, KE_CORRUPT_MESSAGE, "its batch cannot be read");
    part_pause(p, "record %lld cannot be taken: %s", (long long)offset, err_str(rc));
    part_park(p);
    loop_timer_in(&p->retry, FLOW_RETRY_US);
}

static int take_records(struct part *p, const struct port_delivery *d)
{
    for (size_t i = 0; i < d->n; i++) {
        const struct port_record *r = &d->records[i];
        assert(r->offset >= p->taken_next); /* the port has no gaps backwards */
        int rc = appender_take(p->appender, route_partition(p->topic->rule, p->p, r->key), r);
        if (rc) {
            take_failed(p, r->offset, rc);
            return rc;
        }
        p->timestamp_ms = r->timestamp_ms;
    }
    return 0;
}

static int take_batches(struct part *p, const struct port_delivery *d)
{
    for (size_t i = 0; i < d->n; i++) {
        const struct port_batch *b = &d->batches[i];
        int64_t next = p->taken_next;
        assert(b->last_offset >= p->taken_next);
        assert(p->topic->rule.mode == ROUTE_KEEP);
        int rc = appender_take_batch(p->appender, p->p, b, &next);
        if (rc) {
            take_failed(p, next, rc);
            return rc;
        }
        p->taken_next = b->last_offset + 1;
        p->timestamp_ms = b->timestamp_max_ms;
    }
    return 0;
}

static void taken(struct part *p, const struct port_delivery *d)
{
    assert(d->next_offset >= p->taken_next);
    p->taken_next = d->next_offset;
    p->resume_epoch = d->leader_epoch;
    p->at_end = false;
    appender_covered(p->appender, d->next_offset, d->leader_epoch);
    part_refresh(p);
}

/* False: not now. The delivery stays the caller's either way. */
static bool take(struct part *p, const struct port_delivery *d)
{
    if (d->what == PORT_EVENT) {
        part_source_event(p, d);
        return true;
    }
    if (!appender_can_take(p->appender))
        return false;
    if ((d->what == PORT_BATCHES ? take_batches(p, d) : take_records(p, d)) == 0)
        taken(p, d);
    return true;
}

static bool hold(struct part *p, const struct port_delivery *d)
{
    struct held *h = calloc(1, sizeof *h);
    if (!h)
        return false;
    assert(p->assigned); /* nothing is held of a partition that nobody reads */
    h->d = *d;
    list_push(&p->held, &h->link);
    p->held_bytes += d->size_bytes;
    p->flow->held_bytes += d->size_bytes;
    assert(p->held_bytes <= p->flow->held_bytes);
    return true;
}

/* Off the list, still the caller's. */
static void unlink_held(struct part *p, struct held *h)
{
    list_remove(&h->link);
    struct flow *f = p->flow;
    assert(p->held_bytes >= h->d.size_bytes);
    assert(f->held_bytes >= p->held_bytes);
    p->held_bytes -= h->d.size_bytes;
    f->held_bytes -= h->d.size_bytes;
    assert(!list_empty(&p->held) || p->held_bytes == 0);
    if (f->feed_full && f->held_bytes <= f->held_max) {
        f->feed_full = false;
        feed_soon(f);
    }
}

static void drop_held(struct held *h)
{
    let_go(&h->d);
    free(h);
}

static void deliver(struct part *p, struct port_delivery *d)
{
    assert(p->assigned);
    assert(p->appender);
    if (d->what != PORT_EVENT || d->event != PORT_TROUBLE)
        contact_heard(&p->flow->source_contact);
    if (list_empty(&p->held) && take(p, d)) {
        let_go(d);
    } else if (!hold(p, d)) {
        let_go(d);
        part_park(p); /* out of memory: read again later */
        loop_timer_in(&p->retry, FLOW_RETRY_US);
    } else if (p->sm.state == PART_PAUSED) {
        part_park(p);
    }
}

/* ---- the turn ---- */

static bool feed_one(struct flow *f, struct port *port)
{
    struct port_delivery d;
    f->feed_full = f->held_bytes > f->held_max;
    if (f->feed_full || !port || !port_poll(port, &d))
        return false;
    deliver(d.owner, &d);
    return true;
}

static void feed(void *arg)
{
    struct flow *f = arg;
    if (f->sm.state != FLOW_RUNNING)
        return;
    for (int i = 0; i < FLOW_DELIVERIES_PER_TURN; i++) {
        bool some = false;
        for (int e = 0; e < FLOW_ENGINES; e++)
            some |= feed_one(f, f->ports[e]);
        if (!some)
            return; /* unlink_held or feed_ready come back */
    }
    feed_soon(f);
}

void feed_soon(struct flow *f)
{
    if (!f->feed_timer.loop)
        loop_timer_init(&f->feed_timer, f->loop, feed, f);
    if (!f->feed_timer.armed)
        loop_timer_in(&f->feed_timer, 0);
}

void feed_ready(void *flow)
{
    feed_soon(flow);
}

/* ---- where a partition reads ---- */

static void assign(struct part *p, int64_t offset, int32_t epoch)
{
    struct port_assignment a = {.topic = slice_str(p->topic->source),
                                .topic_id = p->topic->source_id,
                                .partition = p->p,
                                .offset = offset,
                                .leader_epoch = epoch,
                                .whole_batches = p->engine == ENGINE_BATCH,
                                .owner = p};
    struct err err = {0};
    struct port *port = part_port(p, &err);
    assert(!p->assigned); /* one reader at a time */
    assert(list_empty(&p->held));
    assert(p->appender);
    assert(offset >= 0);
    p->parked = false;
    p->taken_next = offset;
    p->at_end = false;
    p->assigned = port && port_assign(port, &a, &err) == 0;
    if (!p->assigned) {
        p->parked = true;
        p->resume_offset = offset;
        p->resume_epoch = epoch;
        part_pause(p, "the source cannot be read: %s", err.text);
        loop_timer_in(&p->retry, FLOW_RETRY_US);
    } else {
        feed_soon(p->flow);
    }
}

void part_stop_reading(struct part *p)
{
    while (!list_empty(&p->held)) {
        struct held *h = LIST_ENTRY(p->held.next, struct held, link);
        unlink_held(p, h);
        drop_held(h);
    }
    assert(p->held_bytes == 0);
    if (p->assigned)
        port_unassign(p->flow->ports[p->engine], p);
    p->assigned = false;
    assert(list_empty(&p->held));
}

void part_read_from(struct part *p, int64_t offset, int32_t epoch)
{
    part_stop_reading(p);
    if (p->sm.state == PART_HALTED || p->topic->gone || p->flow->sm.state != FLOW_RUNNING)
        return;
    assign(p, offset, epoch);
    appender_reading(p->appender);
}

void part_park(struct part *p)
{
    if (!p->assigned)
        return;
    part_stop_reading(p);
    p->parked = true;
    p->resume_offset = p->taken_next;
    assert(!p->assigned);
    assert(p->held_bytes == 0);
}

void part_room(struct part *p)
{
    struct flow *f = p->flow;
    if (p->sm.state == PART_HALTED || f->sm.state != FLOW_RUNNING)
        return;
    while (!list_empty(&p->held)) {
        /* Taking an event may stop the partition, or have it read elsewhere: what is held then goes, this one is
         * ours. */
        struct held *h = LIST_ENTRY(p->held.next, struct held, link);
        unlink_held(p, h);
        if (!take(p, &h->d)) {
            list_push_front(&p->held, &h->link);
            p->held_bytes += h->d.size_bytes;
            f->held_bytes += h->d.size_bytes;
            return;
        }
        drop_held(h);
    }
    if (p->parked && !p->topic->gone && appender_can_take(p->appender))
        assign(p, p->resume_offset, p->resume_epoch);
}
