/* A reader with the port on our client before a source made of a script (source.h). It keeps all that it is given of
 * partition 0; of the others it only counts. */
#ifndef SUNDOG_TESTS_UNIT_MIRROR_PORT_RIG_H
#define SUNDOG_TESTS_UNIT_MIRROR_PORT_RIG_H

#include "mirror/port/port.h"
#include "proto/client/client.h"
#include "tests/unit/mirror/port/source.h"

#define EVENTS_MAX  64
#define OFFSETS_MAX 4096
#define PARTS_MAX   300

struct got_event {
    enum port_event event;
    int64_t next_offset, log_start, end;
    int16_t error;
    struct uuid topic_id;
    char text[160];
};

/* A partition other than 0. */
struct other {
    int64_t next;
    int records_n, stops_n, ends_n;
};

struct reader {
    struct source *source;
    struct other other[PARTS_MAX]; /* by partition; [0] only where nothing but counts is wanted */
    struct client *client;
    struct port *port;
    struct sim_node *node;
    struct loop_timer poll;
    bool counts_only; /* of partition 0 as well: it has more records than offsets has room for */
    bool read_uncommitted, whole_batches, hold; /* hold: release nothing, poll no more */
    size_t memory_max;
    struct port_property properties[4];
    size_t properties_n;
    char ignored[256]; /* keys */
    struct port_assignment first;
    struct port_delivery held[256];
    int held_n, held_max;
    int64_t offsets[OFFSETS_MAX];
    int32_t epochs[OFFSETS_MAX]; /* of the deliveries they came in */
    struct buf last_value, last_key;
    bool last_value_null, last_key_null;
    int32_t last_headers_n;
    int offsets_n, batches_n;
    int64_t next;
    struct got_event events[EVENTS_MAX];
    int events_n;
    int trims, gaps;
};

/* ---- the reader ---- */

static inline void copy_to(struct buf *b, bool *null, struct slice s)
{
    *null = slice_is_null(s);
    buf_clear(b);
    buf_put(b, s.p ? (const void *)s.p : "", s.n);
}

static inline void take_records(struct reader *r, const struct port_delivery *d)
{
    for (size_t i = 0; i < d->n; i++) {
        const struct port_record *at = &d->records[i];
        char value[64];
        cr_assert_lt(r->offsets_n, OFFSETS_MAX);
        cr_assert(r->offsets_n == 0 || at->offset > r->offsets[r->offsets_n - 1], "order");
        r->epochs[r->offsets_n] = d->leader_epoch;
        r->offsets[r->offsets_n++] = at->offset;
        cr_assert_lt(at->offset, d->next_offset);
        cr_assert_eq(at->timestamp_ms, 1000 + at->offset);
        snprintf(value, sizeof value, "value %lld of a record", (long long)at->offset);
        cr_assert(slice_is_null(at->value) || slice_eq_str(at->value, value), "value of %lld",
                  (long long)at->offset);
        copy_to(&r->last_key, &r->last_key_null, at->key);
        copy_to(&r->last_value, &r->last_value_null, at->value);
        r->last_headers_n = at->headers_n;
    }
}

static inline void take_whole(struct reader *r, const struct port_delivery *d)
{
    for (size_t i = 0; i < d->n; i++) {
        struct batch_header h;
        cr_assert_eq(batch_read(d->batches[i].bytes, &h, NULL), 0);
        cr_assert_eq(h.base_offset, d->batches[i].base_offset);
        cr_assert_not(batch_is(&h, BATCH_CONTROL));
        r->batches_n++;
        r->trims += d->batches[i].trim;
        r->gaps += d->batches[i].gaps;
    }
}

static inline void take_event(struct reader *r, const struct port_delivery *d)
{
    cr_assert_lt(r->events_n, EVENTS_MAX);
    struct got_event *e = &r->events[r->events_n++];
    *e = (struct got_event){d->event, d->next_offset, d->log_start, d->end, d->kafka_error, d->topic_id, ""};
    snprintf(e->text, sizeof e->text, "%s", d->text ? d->text : "");
}

static inline void take_other(struct other *o, const struct port_delivery *d)
{
    cr_assert_leq(o->next, d->next_offset);
    o->next = d->next_offset;
    o->records_n += d->what == PORT_RECORDS ? (int)d->n : 0;
    bool event = d->what == PORT_EVENT;
    o->ends_n += event && d->event == PORT_END;
    o->stops_n += event && d->event != PORT_END && d->event != PORT_POSITION && d->event != PORT_TROUBLE;
}

static inline void reader_poll(void *arg)
{
    struct reader *r = arg;
    struct port_delivery d;
    while ((!r->hold || r->held_n < r->held_max) && port_poll(r->port, &d)) {
        struct other *other = d.owner == r ? NULL : d.owner;
        cr_assert(!other || (other > r->other && other < r->other + PARTS_MAX));
        r->next = other ? r->next : d.next_offset;
        if (other)
            take_other(other, &d);
        else if (r->counts_only)
            take_other(&r->other[0], &d);
        else if (d.what == PORT_RECORDS)
            take_records(r, &d);
        else if (d.what == PORT_BATCHES)
            take_whole(r, &d);
        else
            take_event(r, &d);
        if (r->hold)
            r->held[r->held_n++] = d;
        else
            port_release(r->port, &d);
    }
}

/* Polling happens when the port says so; once a while too, since a reader may have other reasons. */
static inline void reader_ready(void *arg)
{
    struct reader *r = arg;
    loop_timer_in(&r->poll, 0);
}

static inline void reader_ignored(void *arg, const char *key, const char *why)
{
    struct reader *r = arg;
    size_t n = strlen(r->ignored);
    cr_assert_gt(strlen(why), 0);
    snprintf(r->ignored + n, sizeof r->ignored - n, "%s ", key);
}

static inline void *reader_boot(void *arg, struct sim_node *node)
{
    struct reader *r = arg;
    struct err err = {0};
    struct client_options o = {.bootstrap = "source:9092"};
    cr_assert_eq(client_create(sim_node_loop(node), sim_node_net(node), &o, &r->client, &err), 0, "%s",
                 err.text);
    struct port_options p = {.loop = sim_node_loop(node),
                             .client = r->client,
                             .bootstrap = o.bootstrap,
                             .read_uncommitted = r->read_uncommitted,
                             .memory_max_bytes = r->memory_max,
                             .properties = r->properties,
                             .properties_n = r->properties_n,
                             .ignored = reader_ignored,
                             .ready = reader_ready,
                             .arg = r};
    loop_timer_init(&r->poll, sim_node_loop(node), reader_poll, r);
    cr_assert_eq(port_client_create(&p, &r->port, &err), 0, "%s", err.text);
    r->first.topic = SLICE_LIT("t");
    r->first.owner = r;
    r->first.whole_batches = r->whole_batches;
    cr_assert_eq(port_assign(r->port, &r->first, &err), 0, "%s", err.text);
    for (int32_t i = 1; i < r->source->partitions_n; i++) {
        struct port_assignment a = {
            .topic = r->first.topic, .partition = i, .leader_epoch = -1, .owner = &r->other[i]};
        cr_assert_eq(port_assign(r->port, &a, &err), 0, "%s", err.text);
    }
    loop_timer_in(&r->poll, 0);
    return r;
}

static inline void reader_close(struct reader *r)
{
    while (r->held_n)
        port_release(r->port, &r->held[--r->held_n]);
    port_unassign(r->port, r);
    for (int32_t i = 1; i < r->source->partitions_n; i++)
        port_unassign(r->port, &r->other[i]);
    port_destroy(r->port, NULL, NULL);
    r->port = NULL;
}

static inline void reader_shut(void *arg, void *program)
{
    struct reader *r = arg;
    (void)program;
    if (r->port)
        reader_close(r);
    client_destroy(r->client);
    buf_fini(&r->last_key);
    buf_fini(&r->last_value);
}

/* ---- both ---- */

struct rig {
    struct sim *sim;
    uint64_t seed;                 /* 1 when 0 */
    struct source source, replica; /* the replica is there where the source prefers it */
    struct reader reader;
    struct sim_node *at_source, *at_replica, *at_reader;
};

static inline struct rig *rig_create(void)
{
    struct rig *g = calloc(1, sizeof *g);
    g->source.id = uuid_small(7);
    g->replica.id = g->source.id;
    g->source.epoch_end = g->source.diverging = g->replica.epoch_end = g->replica.diverging = -1;
    g->reader.first.leader_epoch = -1;
    g->reader.source = &g->source;
    buf_init(&g->reader.last_key, 1 << 20);
    buf_init(&g->reader.last_value, 1 << 20);
    return g;
}

/* Both begin; so much virtual time passes. */
static inline void rig_run(struct rig *g, int64_t us)
{
    if (!g->sim) {
        g->sim = sim_create(&(struct sim_options){.seed = g->seed ? g->seed : 1});
        g->at_source = sim_node_add(
            g->sim, &(struct sim_node_options){
                        .name = "source", .boot = source_boot, .destroy = source_shut, .arg = &g->source});
        g->at_reader = sim_node_add(
            g->sim, &(struct sim_node_options){
                        .name = "reader", .boot = reader_boot, .destroy = reader_shut, .arg = &g->reader});
        cr_assert(sim_start(g->at_source) && sim_start(g->at_reader));
        if (g->source.preferred) {
            g->at_replica = sim_node_add(g->sim, &(struct sim_node_options){.name = "replica",
                                                                            .boot = source_boot,
                                                                            .destroy = source_shut,
                                                                            .arg = &g->replica});
            cr_assert(sim_start(g->at_replica));
        }
    }
    sim_run_for(g->sim, us);
}

static inline void rig_destroy(struct rig *g)
{
    sim_destroy(g->sim);
    source_clear(&g->source);
    source_clear(&g->replica);
    free(g);
}

static inline const struct got_event *rig_event(const struct rig *g, enum port_event event)
{
    for (int i = 0; i < g->reader.events_n; i++)
        if (g->reader.events[i].event == event)
            return &g->reader.events[i];
    return NULL;
}

static inline int rig_events(const struct rig *g, enum port_event event)
{
    int n = 0;
    for (int i = 0; i < g->reader.events_n; i++)
        n += g->reader.events[i].event == event;
    return n;
}

#endif
