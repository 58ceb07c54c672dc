/* A source on our own client: raw fetches, several requests per leader at a time, partitions read ahead within the
 * memory bound. Works wherever loop and net do, so on the simulator too; hands out records, or whole batches as
 * they lie. */
#include "mirror/port/client_parts.h"
#include "mirror/port/port_ask.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- events ---- */

void raw_ready(struct raw_part *part)
{
    struct raw_port *p = part->port;
    assert(!part->dropped);
    if (!list_linked(&part->ready))
        list_push(&p->ready_parts, &part->ready);
    raw_wake(p);
}

void raw_event(struct raw_part *part, enum port_event e, int16_t error, const char *text)
{
    snprintf(part->text, sizeof part->text, "%s", text ? text : "");
    part->event = (struct port_delivery){.what = PORT_EVENT,
                                         .owner = part->a.owner,
                                         .event = e,
                                         .next_offset = part->next,
                                         .leader_epoch = part->last_epoch,
                                         .log_start = part->log_start,
                                         .end = part->high_watermark,
                                         .kafka_error = error,
                                         .text = part->text};
    part->event_there = true;
    raw_ready(part);
}

void raw_stop(struct raw_part *part, enum port_event e, int16_t error, const char *text)
{
    assert(part->state != RAW_STOPPED && !part->dropped && !part->ask);
    part->state = RAW_STOPPED;
    part->end_due = false; /* nothing comes after the reason */
    raw_drop_chunks(part);
    raw_place(part);
    raw_event(part, e, error, text);
    assert(part->event_there && list_linked(&part->ready));
}

void raw_retry(struct raw_part *part, const char *why)
{
    part->retry_at_us = loop_now_us(part->port->loop) + RAW_RETRY_US;
    raw_place(part);
    client_metadata_refresh(part->port->client);
    bool told = part->troubled && why && strncmp(part->trouble, why, sizeof part->trouble - 1) == 0;
    if (why && !told && !part->event_there) {
        part->troubled = true;
        part->end_told = false; /* that it is over is told, though nothing else may come for long */
        snprintf(part->trouble, sizeof part->trouble, "%s", why);
        raw_event(part, PORT_TROUBLE, KE_NONE, why);
    }
    raw_tick_by(part->port, part->retry_at_us);
}

/* ---- partitions ---- */

const struct client_topic *raw_topic(const struct raw_part *part)
{
    const struct client_topic *t = client_topic(part->port->client, slice_str(part->topic));
    return t && t->error == KE_NONE && part->a.partition < t->partitions_n ? t : NULL;
}

void raw_drop_chunks(struct raw_part *part)
{
    while (!list_empty(&part->chunks))
        raw_chunk_free(part, LIST_ENTRY(part->chunks.next, struct raw_chunk, link));
    assert(part->ahead_bytes == 0);
}

void raw_rewind(struct raw_part *part)
{
    assert(part->next < 0 || part->fetch_next >= part->next);
    raw_drop_chunks(part);
    part->fetch_next = part->next;
    part->fetch_epoch = part->last_epoch;
    part->end_due = part->end_told = false;
    part->stale = part->fetch != NULL;
}

void raw_release_part(struct raw_part *part)
{
    if (!part->dropped || part->users)
        return;
    assert(part->state == RAW_STOPPED && !part->ask && !part->fetch && list_empty(&part->chunks));
    list_remove(&part->link);
    free(part->name);
    free(part);
}

static void drop(struct raw_part *part)
{
    if (part->ask)
        client_cancel(part->port->client, part->ask);
    part->ask = NULL;
    raw_drop_chunks(part);
    raw_session_leave(part); /* while it has its id */
    raw_unfind(part);
    if (list_linked(&part->ready))
        list_remove(&part->ready);
    part->state = RAW_STOPPED;
    part->dropped = true;
    raw_unplace(part);
    raw_wake(part->port); /* it may have held what others wait for */
    raw_release_part(part);
}

static void raw_unassign(struct port *port, void *owner)
{
    struct raw_part *part = raw_find_owner(raw_port(port), owner);
    if (part)
        drop(part);
}

static int raw_assign(struct port *port, const struct port_assignment *a, struct err *err)
{
    struct raw_port *p = raw_port(port);
    assert(a->owner && a->topic.n > 0 && a->partition >= 0 && a->offset >= PORT_FROM_START && !p->closing);
    raw_unassign(port, a->owner);
    if (a->topic.n > RAW_TOPIC_MAX)
        return err_set(err, -E_INVALID, "a topic's name of %zu bytes", a->topic.n);
    struct raw_part *part = calloc(1, sizeof *part);
    struct raw_name *name = part ? malloc(RAW_NAME_BYTES + a->topic.n + 1) : NULL;
    if (!name || client_topic_follow(p->client, a->topic))
        goto no_room;
    name->partition = a->partition;
    *part = (struct raw_part){.port = p,
                              .name = name,
                              .topic = slice_cstr(a->topic, name->topic, a->topic.n + 1),
                              .a = *a,
                              .next = a->offset,
                              .fetch_next = a->offset,
                              .leader = -1,
                              .replica = -1,
                              .leader_epoch = -1,
                              .last_epoch = a->offset >= 0 ? a->leader_epoch : -1,
                              .fetch_epoch = a->offset >= 0 ? a->leader_epoch : -1,
                              .log_start = -1,
                              .high_watermark = -1,
                              .last_stable = -1};
    part->a.topic = slice_str(part->topic);
    if (!raw_make_findable(part))
        goto no_room;
    list_init(&part->chunks);
    list_init(&part->ready);
    list_init(&part->todo);
    list_init(&part->session);
    list_push(&p->parts, &part->link);
    raw_place(part);
    raw_wake(p);
    return 0;
no_room:
    free(part);
    free(name);
    return err_set(err, -E_NOMEM, "no room for partition %.*s-%d", SLICE_FMT(a->topic), a->partition);
}

/* ---- what is to be done ---- */

/* The topic as metadata has it now; true when the partition may be asked about. */
static bool identified(struct raw_part *part)
{
    const struct client_topic *any = client_topic(part->port->client, slice_str(part->topic));
    const struct client_topic *t = raw_topic(part);
    int64_t now = loop_now_us(part->port->loop);
    if (any && !t && (any->error == KE_UNKNOWN_TOPIC_OR_PARTITION || any->error == KE_NONE)) {
        if (!part->gone_since_us)
            part->gone_since_us = now;
        if (now - part->gone_since_us >= RAW_GONE_US)
            raw_stop(part, PORT_GONE, KE_UNKNOWN_TOPIC_OR_PARTITION, "no such topic or partition");
        else
            raw_retry(part, "the topic or partition is not there");
        return false;
    }
    if (!t) {
        raw_retry(part, NULL);
        return false;
    }
    part->gone_since_us = 0;
    if (port_recreated(&part->a, t)) {
        raw_stop(part, PORT_RECREATED, KE_NONE, "another topic has the name");
        part->event.topic_id = t->id;
        return false;
    }
    if (!uuid_eq(&part->id.topic, &t->id))
        raw_session_leave(part);
    if (!raw_keep_id(part, &t->id)) {
        raw_retry(part, "out of memory");
        return false;
    }
    const struct client_partition *l = &t->partitions[part->a.partition];
    part->replica = part->leader == l->leader ? part->replica : -1;
    part->leader = l->leader;
    if (l->leader_epoch != part->leader_epoch) {
        /* KIP-320: does the new leader have what we have read? */
        part->leader_epoch = l->leader_epoch;
        part->state = RAW_ASKING;
        raw_rewind(part);
    }
    if (part->leader < 0)
        raw_retry(part, "the partition has no leader");
    return part->leader >= 0;
}

static void look_at(struct raw_part *part, int64_t now)
{
    if (part->dropped || part->state == RAW_STOPPED || part->ask)
        return;
    if (part->retry_at_us <= now && identified(part) && part->state == RAW_ASKING)
        raw_check(part);
    raw_place(part);
}

/* Where something has changed; everywhere when metadata has. */
static void look_around(struct raw_port *p, int64_t now)
{
    while (!list_empty(&p->retrying)) {
        struct raw_part *part = LIST_ENTRY(p->retrying.next, struct raw_part, todo);
        if (part->retry_at_us > now)
            break;
        list_remove(&part->todo);
        list_push(&p->attention, &part->todo);
    }
    struct list now_due;
    list_init(&now_due);
    while (!list_empty(&p->attention))
        list_push(&now_due, list_pop(&p->attention));
    while (!list_empty(&now_due)) /* a partition comes back to `attention` at most, for the next turn */
        look_at(LIST_ENTRY(list_pop(&now_due), struct raw_part, todo), now);
    if (!p->metadata_new)
        return;
    p->metadata_new = false;
    list_each_safe(at, &p->parts)
    {
        look_at(LIST_ENTRY(at, struct raw_part, link), now);
    }
}

void raw_work(struct raw_port *p)
{
    int64_t now = loop_now_us(p->loop);
    look_around(p, now);
    raw_fetch_all(p);
    if (!list_empty(&p->retrying))
        raw_tick_by(p, LIST_ENTRY(p->retrying.next, struct raw_part, todo)->retry_at_us);
    bool some = !list_empty(&p->ready_parts);
    if (some && p->hungry) {
        p->hungry = false;
        p->ready(p->arg);
    }
}

static void on_tick(void *arg)
{
    raw_work(arg);
}

static void on_metadata(void *arg)
{
    ((struct raw_port *)arg)->metadata_new = true;
    raw_wake(arg);
}

void raw_tick_by(struct raw_port *p, int64_t at_us)
{
    if (!p->closing && (!p->tick.armed || p->tick.due_us > at_us))
        loop_timer_at(&p->tick, at_us);
}

void raw_wake(struct raw_port *p)
{
    bool soon = p->tick.armed && p->tick.due_us <= loop_now_us(p->loop);
    if (!p->closing && !soon)
        loop_timer_in(&p->tick, 0);
}

/* ---- deliveries ---- */

static struct raw_delivery *take_delivery(struct raw_port *p)
{
    if (!list_empty(&p->free_deliveries))
        return LIST_ENTRY(list_pop(&p->free_deliveries), struct raw_delivery, link);
    struct raw_delivery *d = calloc(1, sizeof *d);
    if (d) {
        list_init(&d->link);
        buf_init(&d->payload, RAW_PAYLOAD_MAX);
    }
    return d;
}

static void free_delivery(struct raw_delivery *d)
{
    buf_fini(&d->payload);
    free(d->records);
    free(d->batches);
    free(d);
}

static bool end_event(struct raw_part *part, struct port_delivery *out)
{
    *out = (struct port_delivery){.what = PORT_EVENT,
                                  .owner = part->a.owner,
                                  .event = part->end_due ? PORT_END : PORT_POSITION,
                                  .next_offset = part->next,
                                  .leader_epoch = part->last_epoch,
                                  .log_start = part->log_start,
                                  .end = part->port->read_uncommitted ? part->high_watermark
                                                                      : part->last_stable};
    part->end_due = false;
    return true;
}

/* What one partition has to say next; false: nothing any more. */
static bool poll_part(struct raw_part *part, struct port_delivery *out)
{
    struct raw_port *p = part->port;
    assert(!part->dropped);
    while (!list_empty(&part->chunks)) {
        struct raw_delivery *d = take_delivery(p);
        if (!d)
            return false;
        if (raw_deliver(part, d, out)) {
            out->impl = d;
            return true;
        }
        list_push(&p->free_deliveries, &d->link);
        if (part->state == RAW_STOPPED)
            break;
        if (list_empty(&part->chunks) && !part->end_due)
            return end_event(part, out); /* passed over, to its end */
    }
    if (part->event_there) {
        part->event_there = false;
        *out = part->event;
        return true;
    }
    return part->end_due && end_event(part, out);
}

static bool has_more(const struct raw_part *part)
{
    return !list_empty(&part->chunks) || part->event_there || part->end_due;
}

static bool raw_poll(struct port *port, struct port_delivery *out)
{
    struct raw_port *p = raw_port(port);
    while (!list_empty(&p->ready_parts)) {
        struct raw_part *part = LIST_ENTRY(list_pop(&p->ready_parts), struct raw_part, ready);
        bool found = poll_part(part, out);
        raw_place(part); /* there may be room for more of it */
        /* An event that came up meanwhile has linked it already. */
        if (has_more(part) && !list_linked(&part->ready))
            list_push(&p->ready_parts, &part->ready);
        else if (!has_more(part) && list_linked(&part->ready))
            list_remove(&part->ready);
        if (found) {
            assert(out->owner == part->a.owner && !part->dropped);
            p->out_n++;
            raw_wake(p);
            return true;
        }
        if (has_more(part)) { /* no memory for a delivery */
            loop_timer_in(&p->tick, RAW_RETRY_US);
            break;
        }
    }
    p->hungry = true;
    return false;
}

static void raw_release(struct port *port, struct port_delivery *d)
{
    struct raw_port *p = raw_port(port);
    struct raw_delivery *own = d->impl;
    assert(p->out_n > 0);
    p->out_n--;
    raw_wake(p); /* there may be room for another fetch */
    if (!own)
        return;
    assert(own->frame && p->buffered_bytes >= own->held_bytes);
    client_frame_unref(own->frame);
    own->frame = NULL;
    p->buffered_bytes -= own->held_bytes;
    own->held_bytes = 0;
    if (own->payload.cap > RAW_PAYLOAD_KEPT) {
        buf_fini(&own->payload);
        buf_init(&own->payload, RAW_PAYLOAD_MAX);
    }
    list_push(&p->free_deliveries, &own->link);
    d->impl = NULL;
}

static bool raw_marks(struct port *port, void *owner, struct port_marks *out)
{
    const struct raw_part *part = raw_find_owner(raw_port(port), owner);
    if (!part)
        return false;
    *out = (struct port_marks){part->next, part->log_start, part->high_watermark, part->last_stable,
                               part->leader_epoch};
    return true;
}

/* ---- life ---- */

static void raw_destroy(struct port *port, void (*destroyed)(void *arg), void *arg)
{
    struct raw_port *p = raw_port(port);
    assert(p->out_n == 0 && !p->closing);
    p->closing = true;
    loop_timer_stop(&p->tick);
    client_watch_remove(&p->watch);
    while (!list_empty(&p->fetches))
        raw_fetch_cancel(LIST_ENTRY(p->fetches.next, struct raw_fetch, link));
    list_each (at, &p->nodes)
        raw_session_close(LIST_ENTRY(at, struct raw_node, link));
    list_each_safe(at, &p->parts)
    {
        drop(LIST_ENTRY(at, struct raw_part, link));
    }
    loop_timer_stop(&p->tick);
    while (!list_empty(&p->free_deliveries))
        free_delivery(LIST_ENTRY(list_pop(&p->free_deliveries), struct raw_delivery, link));
    assert(p->buffered_bytes == 0);
    raw_nodes_free(p);
    free(p->rack);
    free(p);
    if (destroyed)
        destroyed(arg);
}

static void raw_memory(struct port *port, size_t max_bytes)
{
    struct raw_port *p = raw_port(port);
    assert(max_bytes > 0);
    p->memory_max = max_bytes;
    raw_wake(p);
}

static const struct port_ops raw_ops = {raw_assign, raw_unassign, raw_poll,  raw_release,
                                        raw_marks,  raw_destroy,  raw_memory};

int port_client_create(const struct port_options *o, struct port **out, struct err *err)
{
    struct raw_port *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p)
        return err_set(err, -E_NOMEM, "source");
    *p = (struct raw_port){.port = {&raw_ops},
                           .loop = o->loop,
                           .client = o->client,
                           .read_uncommitted = o->read_uncommitted,
                           .memory_max = o->memory_max_bytes ? o->memory_max_bytes : RAW_MEMORY_DEFAULT,
                           .ready = o->ready,
                           .arg = o->arg,
                           .hungry = true};
    list_init(&p->parts);
    list_init(&p->ready_parts);
    list_init(&p->fetches);
    list_init(&p->free_deliveries);
    list_init(&p->nodes);
    list_init(&p->attention);
    list_init(&p->retrying);
    loop_timer_init(&p->tick, p->loop, on_tick, p);
    p->watch = (struct client_watch){.changed = on_metadata, .arg = p};
    client_watch_add(p->client, &p->watch);
    if (!raw_configure(p, o)) {
        raw_destroy(&p->port, NULL, NULL);
        return err_set(err, -E_NOMEM, "source");
    }
    *out = &p->port;
    return 0;
}
