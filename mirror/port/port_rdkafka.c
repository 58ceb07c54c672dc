/* The record engine: librdkafka's consumer behind port.h. The library calls from threads of its own only to post one
 * message to the loop; everything else happens on the loop, without waiting: the consumer queue is read with time-out
 * 0, what may block (changes of assignment, destruction) runs on a helper thread. Backpressure is not reading: the
 * library's own queue is bounded in bytes and stops fetching. */
#include "base/runtime/log.h"
#include "mirror/port/rdkafka_parts.h"

#include "base/core/varint.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* From 2.1 on; not there in 2.0.2, neither header nor library. */
int32_t rd_kafka_message_leader_epoch(const rd_kafka_message_t *message) __attribute__((weak));

#define TICK_US 100000 /* unfinished checks and changes are looked at so often */

/* ---- waking ---- */

static void on_wake(struct loop_msg *msg)
{
    struct port_rdk *p = LIST_ENTRY(msg, struct port_rdk, wake);
    atomic_store(&p->waking, false);
    if (p->closing)
        return;
    rdk_look_at_metadata(p);
    if (p->hungry) {
        p->hungry = false;
        p->ready(p->arg);
    }
}

/* Any thread. */
void rdk_wake(struct port_rdk *p)
{
    if (!atomic_exchange(&p->waking, true))
        loop_post(p->loop, &p->wake);
}

static void on_queue(rd_kafka_t *rk, void *opaque)
{
    (void)rk;
    rdk_wake(opaque);
}

static void on_tick(void *arg)
{
    struct port_rdk *p = arg;
    rdk_confirm_tick(p);
    rdk_wake(p); /* a wake-up that the library may have owed us */
    loop_timer_in(&p->tick, TICK_US);
}

/* ---- events ---- */

struct waiting_event *rdk_event(struct part *part, enum port_event event, const char *text)
{
    struct port_rdk *p = part->port;
    struct waiting_event *e = p->events_n < RDK_EVENTS_MAX ? calloc(1, sizeof *e) : NULL;
    if (!e)
        return NULL;
    e->part = part;
    snprintf(e->text, sizeof e->text, "%s", text ? text : "");
    e->d = (struct port_delivery){.what = PORT_EVENT,
                                  .owner = part->a.owner,
                                  .next_offset = part->h.next,
                                  .leader_epoch = rdk_epoch(part),
                                  .event = event,
                                  .log_start = -1,
                                  .end = -1,
                                  .text = e->text};
    list_push(&p->events, &e->link);
    p->events_n++;
    if (event == PORT_OUT_OF_RANGE || event == PORT_TRUNCATED)
        rdk_doubt(p); /* of the same topic? */
    rdk_wake(p);
    return e;
}

/* ---- messages ---- */

static struct part *part_of_message(struct port_rdk *p, const rd_kafka_message_t *m)
{
    if (!m->rkt)
        return NULL;
    if (m->rkt != p->last_topic || m->partition != p->last_partition) {
        p->last_topic = m->rkt;
        p->last_partition = m->partition;
        p->last_part = part_of(p, rd_kafka_topic_name(m->rkt), m->partition);
    }
    return p->last_part;
}

/* Headers as a record batch has them; in the delivery's arena. */
static int copy_headers(struct rdk_delivery *d, const rd_kafka_headers_t *headers, struct port_record *r)
{
    const char *name;
    const void *value;
    size_t n, bytes = 0;
    size_t count = rd_kafka_header_cnt(headers);
    for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &n) == RD_KAFKA_RESP_ERR_NO_ERROR;
         i++)
        bytes += strlen(name) + (value ? n : 0) + 2 * UVARINT64_MAX_BYTES;
    uint8_t *at = arena_alloc(&d->headers, bytes);
    if (!at)
        return -E_NOMEM;
    r->headers.p = at;
    r->headers_n = (int32_t)count;
    for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &n) == RD_KAFKA_RESP_ERR_NO_ERROR;
         i++) {
        size_t len = strlen(name);
        at += varint_put(at, (int64_t)len);
        memcpy(at, name, len);
        at += len;
        at += varint_put(at, value ? (int64_t)n : -1);
        if (value && n)
            memcpy(at, value, n);
        at += value ? n : 0;
    }
    r->headers.n = (size_t)(at - r->headers.p);
    return 0;
}

static int take_record(struct rdk_delivery *d, rd_kafka_message_t *m)
{
    assert(d->n < RDK_RECORDS_MAX && m->offset >= 0);
    struct port_record *r = &d->records[d->n];
    rd_kafka_timestamp_type_t type;
    rd_kafka_headers_t *headers;
    *r = (struct port_record){.offset = m->offset, .timestamp_ms = rd_kafka_message_timestamp(m, &type)};
    if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
        r->timestamp_ms = -1;
    /* NULL is null; an empty key or value has an address. */
    r->key = m->key ? slice_of(m->key, m->key_len) : SLICE_NULL;
    r->value = m->payload ? slice_of(m->payload, m->len) : SLICE_NULL;
    if (rd_kafka_message_headers(m, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR && copy_headers(d, headers, r))
        return -E_NOMEM;
    d->messages[d->n++] = m;
    return 0;
}

/* What the library says about a partition instead of a record. */
static void take_error(struct port_rdk *p, struct part *part, const rd_kafka_message_t *m)
{
    const char *text = rd_kafka_message_errstr(m);
    struct waiting_event *e;
    /* Before the library has been told, what it says is about the reading before this one. */
    if (!part && (m->err == RD_KAFKA_RESP_ERR__AUTHENTICATION || m->err == RD_KAFKA_RESP_ERR__SSL))
        log_warn("mirror.port", "librdkafka: %s", text);
    if (!part || part->h.state != PART_READING)
        return;
    switch (m->err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        if (part->h.next >= 0 && m->offset < part->h.next)
            return;
        if (m->offset != part->h.next)
            part->h.record_epoch = -1;
        part->h.next = m->offset;
        if ((e = rdk_event(part, PORT_END, NULL)))
            e->d.end = m->offset;
        return;
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE: part_out_of_range(part); return;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        rdk_event(part, PORT_GONE, text);
        part_stop(part);
        return;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_INVALID_MSG: /* the broker finds its own batch corrupt */
    case RD_KAFKA_RESP_ERR__BAD_MSG:
    case RD_KAFKA_RESP_ERR__BAD_COMPRESSION:
    case RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED:
        if ((e = rdk_event(part, PORT_FAILED, text)))
            e->d.kafka_error = m->err > 0 ? (int16_t)m->err : KE_CORRUPT_MESSAGE;
        part_stop(part);
        return;
    default:
        client_metadata_refresh(p->client);
        if ((e = rdk_event(part, PORT_TROUBLE, text)))
            e->d.kafka_error = m->err > 0 ? (int16_t)m->err : 0;
    }
}

/* A message that was taken for the next delivery: of an assignment that ends now, it would be a jump in the next
 * one. */
void rdk_drop_held(struct port_rdk *p, const struct part *part)
{
    if (!p->held || part_of_message(p, p->held) != part)
        return;
    rd_kafka_message_destroy(p->held);
    p->held = NULL;
}

/* A record that belongs into a gap which was passed over: the batch behind that gap claims offsets that are not its
 * own (a base offset is under no CRC). Records that come twice never lie in one. */
static bool fills_gap(const struct part *part, const rd_kafka_message_t *m)
{
    return m->offset < part->h.next && m->offset >= part->gap_from && m->offset < part->gap_to;
}

static void take_contradiction(struct part *part, const rd_kafka_message_t *m)
{
    char text[128];
    struct waiting_event *e;
    snprintf(text, sizeof text,
             "offset %lld came behind %lld: a batch in between claims other offsets than its own",
             (long long)m->offset, (long long)part->gap_to);
    if ((e = rdk_event(part, PORT_FAILED, text)))
        e->d.kafka_error = KE_CORRUPT_MESSAGE;
    part->contradicted = e;
    part_stop(part);
}

/* What a delivery holds from behind the gap on is not handed out. (What was before, in an earlier one, is there.) */
static void take_back(struct rdk_delivery *d, struct part *part)
{
    size_t n = d->n;
    struct waiting_event *told = part->contradicted;
    part->contradicted = NULL;
    while (n && d->records[n - 1].offset >= part->gap_to)
        n--;
    if (n == d->n || d->records[n].offset != part->gap_to)
        return;
    while (d->n > n)
        rd_kafka_message_destroy(d->messages[--d->n]);
    part->h.next = told->d.next_offset = part->gap_from;
}

/* The next record of a partition that is read, or NULL when there is nothing more now. Errors become events. */
static rd_kafka_message_t *next_message(struct port_rdk *p, struct part **part)
{
    enum { ERRORS_MAX = 100 }; /* before the events they made are given out */
    for (int errors = 0; errors < ERRORS_MAX;) {
        rd_kafka_message_t *m = p->held;
        p->held = NULL;
        if (!m && !(m = rd_kafka_consume_queue(p->queue, 0)))
            return NULL;
        if (!rdk_sure(p)) { /* looked at behind it: doubt is raised before what it concerns is in the queue */
            p->held = m;
            return NULL;
        }
        *part = part_of_message(p, m);
        if (*part && (*part)->h.state == PART_READING && (*part)->h.proof &&
            (!m->err || m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)) {
            rdk_prove(*part, m);
            rd_kafka_message_destroy(m);
            continue;
        }
        bool wanted = *part && (*part)->h.state == PART_READING &&
                      !((*part)->h.next >= 0 && m->offset < (*part)->h.next);
        if (!m->err && wanted)
            return m;
        if (m->err) {
            take_error(p, *part, m);
            errors++;
        } else if (*part && (*part)->h.state == PART_READING && fills_gap(*part, m)) {
            take_contradiction(*part, m);
            errors++;
        }
        rd_kafka_message_destroy(m);
    }
    return NULL;
}

static struct rdk_delivery *delivery_take(struct port_rdk *p)
{
    enum { HEADERS_MAX = 256 << 20 };
    if (!list_empty(&p->free_deliveries))
        return LIST_ENTRY(list_pop(&p->free_deliveries), struct rdk_delivery, link);
    struct rdk_delivery *d = calloc(1, sizeof *d);
    if (d)
        arena_init(&d->headers, HEADERS_MAX);
    return d;
}

/* Records of one partition, as many as lie in front of the queue. */
static bool deliver_records(struct port_rdk *p, struct rdk_delivery *d, struct port_delivery *out)
{
    struct part *part = NULL, *of;
    size_t bytes = 0;
    rd_kafka_message_t *m;
    assert(d->n == 0 && !d->event);
    while (d->n < RDK_RECORDS_MAX && bytes < RDK_BYTES_MAX && list_empty(&p->events) &&
           (m = next_message(p, &of))) {
        if ((part && of != part) || take_record(d, m)) {
            p->held = m; /* for the next delivery */
            break;
        }
        part = of;
        assert(part->h.state == PART_READING && !part->dropped && m->offset >= part->h.next);
        if (part->h.next >= 0 && m->offset > part->h.next) {
            part->gap_from = part->h.next;
            part->gap_to = m->offset;
        }
        part->h.next = m->offset + 1;
        part->h.record_epoch = rd_kafka_message_leader_epoch ? rd_kafka_message_leader_epoch(m) : -1;
        bytes += m->len + m->key_len + RDK_MESSAGE_BYTES;
    }
    if (part && part->contradicted)
        take_back(d, part);
    if (d->n == 0)
        return false;
    rdk_handed_out(part, d->messages[d->n - 1]);
    assert(part &&
           part->h.next > d->records[d->n - 1].offset); /* an end that came behind them counts already */
    *out = (struct port_delivery){.what = PORT_RECORDS,
                                  .owner = part->a.owner,
                                  .next_offset = part->h.next,
                                  .leader_epoch = rdk_epoch(part),
                                  .records = d->records,
                                  .n = d->n,
                                  .size_bytes = bytes,
                                  .log_start = -1,
                                  .end = -1,
                                  .impl = d};
    return true;
}

static void rdk_release(struct port *port, struct port_delivery *delivery)
{
    struct port_rdk *p = port_rdk(port);
    struct rdk_delivery *d = delivery->impl;
    assert(p->out_n > 0);
    for (size_t i = 0; i < d->n; i++)
        rd_kafka_message_destroy(d->messages[i]);
    d->n = 0;
    free(d->event);
    d->event = NULL;
    arena_reset(&d->headers);
    list_push(&p->free_deliveries, &d->link);
    p->out_n--;
    delivery->impl = NULL;
}

/* In doubt nothing is handed out but that something is in the way. */
static struct waiting_event *next_event(struct port_rdk *p, bool sure)
{
    list_each (at, &p->events) {
        struct waiting_event *e = LIST_ENTRY(at, struct waiting_event, link);
        if (sure || e->d.event == PORT_TROUBLE)
            return e;
    }
    return NULL;
}

static bool rdk_poll(struct port *port, struct port_delivery *out)
{
    struct port_rdk *p = port_rdk(port);
    bool found = false, sure = rdk_sure(p);
    struct rdk_delivery *d = delivery_take(p);
    struct waiting_event *e = NULL;
    if (d && sure && list_empty(&p->events))
        found = deliver_records(p, d, out);
    if (d && !found && (e = next_event(p, sure))) {
        assert(p->events_n > 0 && !e->part->dropped);
        list_remove(&e->link);
        p->events_n--;
        d->event = e; /* the text lives as long as the delivery */
        *out = e->d;
        out->impl = d;
        found = true;
    }
    if (found) {
        if (out->size_bytes)
            rdk_kick(p, out->size_bytes);
        p->out_n++;
        return true;
    }
    if (d)
        list_push(&p->free_deliveries, &d->link);
    p->hungry = true;
    if (sure)
        rdk_kick(p, 0);
    return false;
}

static bool rdk_marks(struct port *port, void *owner, struct port_marks *out)
{
    struct port_rdk *p = port_rdk(port);
    struct part *part = part_of_owner(p, owner);
    if (!part)
        return false;
    int64_t low = -1, high = -1;
    *out = (struct port_marks){part->h.next, -1, -1, -1, rdk_epoch(part)};
    if (rd_kafka_get_watermark_offsets(p->rk, part->topic, part->a.partition, &low, &high) ==
        RD_KAFKA_RESP_ERR_NO_ERROR) {
        out->log_start = low >= 0 ? low : -1;
        out->high_watermark = high >= 0 ? high : -1;
    }
    return true;
}

/* ---- life ---- */

static void run_destroy(struct loop_job *job)
{
    struct port_rdk *p = LIST_ENTRY(job, struct port_rdk, job);
    rd_kafka_destroy_flags(p->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

static void destroy_done(struct loop_job *job)
{
    struct port_rdk *p = LIST_ENTRY(job, struct port_rdk, job);
    if (atomic_load(&p->waking)) {
        /* A message of ours is still on its way: the loop's order brings it before this one's next turn. */
        p->job.done = destroy_done;
        p->job.run = NULL;
        loop_timer_in(&p->tick, 1000);
        return;
    }
    void (*destroyed)(void *arg) = p->destroyed;
    void *arg = p->destroyed_arg;
    list_each_safe(at, &p->free_deliveries)
    {
        struct rdk_delivery *d = LIST_ENTRY(at, struct rdk_delivery, link);
        list_remove(at);
        arena_fini(&d->headers);
        free(d);
    }
    loop_timer_stop(&p->tick);
    free(p);
    if (destroyed)
        destroyed(arg);
}

static void destroy_again(void *arg)
{
    destroy_done(&((struct port_rdk *)arg)->job);
}

/* The library may only go when no change of assignment is under way. */
static void try_destroy(void *arg)
{
    struct port_rdk *p = arg;
    if (p->job_busy || p->kick.busy) {
        loop_timer_init(&p->tick, p->loop, try_destroy, p);
        loop_timer_in(&p->tick, 1000);
        return;
    }
    rd_kafka_queue_cb_event_enable(p->queue, NULL, NULL);
    if (p->held)
        rd_kafka_message_destroy(p->held);
    rdk_free_parts(p);
    list_each_safe(at, &p->events)
    {
        list_remove(at);
        free(LIST_ENTRY(at, struct waiting_event, link));
    }
    rd_kafka_queue_destroy(p->queue);
    loop_timer_init(&p->tick, p->loop, destroy_again, p);
    p->job = (struct loop_job){.run = run_destroy, .done = destroy_done};
    loop_job(p->loop, &p->job);
}

static void rdk_destroy(struct port *port, void (*destroyed)(void *arg), void *arg)
{
    struct port_rdk *p = port_rdk(port);
    assert(p->out_n == 0 && !p->closing);
    p->closing = true;
    p->destroyed = destroyed;
    p->destroyed_arg = arg;
    client_watch_remove(&p->watch);
    loop_timer_stop(&p->tick);
    rdk_doubt_stop(p);
    /* The client may go before us: no call of ours stays with it. */
    list_each (at, &p->parts) {
        struct part *part = LIST_ENTRY(at, struct part, link);
        if (part->check)
            client_cancel(p->client, part->check);
        part->check = NULL;
    }
    try_destroy(p);
}

int port_rdkafka_create(const struct port_options *o, struct port **out, struct err *err)
{
    static const struct port_ops ops = {rdk_assign, rdk_unassign, rdk_poll, rdk_release,
                                        rdk_marks,  rdk_destroy,  NULL};
    assert(o->loop && o->client && o->bootstrap && o->ready);
    char text[256];
    rd_kafka_conf_t *conf;
    struct port_rdk *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(err, -E_NOMEM, "out of memory");
    int rc = rdk_conf(o, &conf, err);
    if (!rc && (rc = rdk_doubt_conf(p, conf)))
        rd_kafka_conf_destroy(conf);
    if (rc) {
        free(p);
        return rc;
    }
    p->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof text);
    if (!p->rk) {
        rd_kafka_conf_destroy(conf);
        free(p);
        return err_set(err, -E_CONFIG, "librdkafka: %s", text);
    }
    if ((rc = rdk_start_security(p->rk, o->security, err))) {
        rd_kafka_destroy(p->rk);
        free(p);
        return rc;
    }
    rd_kafka_poll_set_consumer(p->rk);
    p->port.ops = &ops;
    p->loop = o->loop;
    p->client = o->client;
    p->ready = o->ready;
    p->arg = o->arg;
    p->hungry = true;
    p->kick.bytes = (o->memory_max_bytes ? o->memory_max_bytes : RDK_QUEUE_BYTES) / 2;
    p->wake.fn = on_wake;
    atomic_init(&p->waking, false); /* zero are the doubts and times, too: the library has threads already */
    list_init(&p->parts);
    list_init(&p->events);
    list_init(&p->changes);
    list_init(&p->free_deliveries);
    p->queue = rd_kafka_queue_get_consumer(p->rk);
    rd_kafka_queue_cb_event_enable(p->queue, on_queue, p);
    p->watch = (struct client_watch){.changed = rdk_metadata_changed, .arg = p};
    client_watch_add(o->client, &p->watch);
    loop_timer_init(&p->tick, o->loop, on_tick, p);
    loop_timer_in(&p->tick, TICK_US);
    *out = &p->port;
    return 0;
}
