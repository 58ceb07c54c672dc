/* TCP as programs see it: a connection delivers its bytes in order or breaks.
 *
 * Every write becomes segments with an arrival time of their own; they are delivered in order. A segment that arrives
 * while its way is cut, or at a machine without power, is tried again with growing delay, as TCP retransmits; after
 * SIM_TCP_TIMEOUT the sender's end breaks. Bytes for an end that is closed or dead are answered by a reset, which is
 * not repeated when it gets lost; an end that waits for a dead machine breaks by keep-alive. */
#include "tests/support/sim/sim_net_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define SEGMENT_MAX     65536
#define RTO_FIRST_US    (200 * SIM_MS)
#define RTO_MAX_US      (10 * SIM_SECOND)
#define LOSSES_IN_A_ROW 6

enum segment_kind { SYN, SYN_ACK, DATA, FIN, RST };

struct segment {
    struct list link;
    struct sim_event event;
    struct sim_tcp *tcp;
    unsigned side; /* the sender's */
    enum segment_kind kind;
    bool arrived; /* and waits for one before it */
    bool poison;  /* breaks the connection where it arrives */
    int64_t first_us, rto_us;
    size_t n;
    uint8_t bytes[];
};

static void on_segment(struct sim_event *e);

const struct sim_link *sim_route_link(const struct sim_node *from, const struct sim_node *to)
{
    const struct sim_route *r = &from->routes[to->number];
    return r->set ? &r->link : &from->sim->link_default;
}

/* ---- leaving ---- */

static int64_t arrival_time(struct sim_node *from, struct sim_node *to, size_t n)
{
    struct sim *s = from->sim;
    struct sim_route *route = &from->routes[to->number];
    const struct sim_link *link = sim_route_link(from, to);
    int64_t at = s->now_us;
    if (link->bytes_per_s > 0) {
        at = route->free_at_us > at ? route->free_at_us : at;
        at += (int64_t)(n + 60) * 1000000 / link->bytes_per_s;
        route->free_at_us = at;
    }
    at += link->latency_us + rng_exponential(&s->rng, link->jitter_us);
    for (int i = 0; i < LOSSES_IN_A_ROW && rng_chance(&s->rng, link->loss); i++)
        at += RTO_FIRST_US << i;
    return at;
}

static struct segment *send_segment(struct sim_tcp *t, unsigned side, enum segment_kind kind, const void *p,
                                    size_t n)
{
    struct sim *s = t->sim;
    struct segment *seg = malloc(sizeof *seg + n);
    assert(seg);
    *seg = (struct segment){
        .event = {.fn = on_segment}, .tcp = t, .side = side, .kind = kind, .first_us = s->now_us, .n = n};
    seg->rto_us = RTO_FIRST_US;
    if (n)
        memcpy(seg->bytes, p, n);
    int64_t at = arrival_time(t->node[side], t->node[1 - side], n);
    if (kind == DATA || kind == FIN) {
        struct sim_stream *st = &t->stream[side];
        at = at > st->last_at_us ? at : st->last_at_us;
        st->last_at_us = at;
        list_push(&st->flight, &seg->link);
        seg->poison = rng_chance(&s->rng, sim_route_link(t->node[side], t->node[1 - side])->reset);
    } else {
        list_push(&t->control, &seg->link);
    }
    sim_schedule(s, &seg->event, at);
    return seg;
}

static void drop_segment(struct segment *seg)
{
    sim_unschedule(seg->tcp->sim, &seg->event);
    list_remove(&seg->link);
    free(seg);
}

static void drop_flight(struct sim_stream *st)
{
    while (!list_empty(&st->flight))
        drop_segment(LIST_ENTRY(st->flight.next, struct segment, link));
}

static void free_stream(struct sim *s, struct sim_stream *st)
{
    drop_flight(st);
    sim_unschedule(s, &st->ack);
    free(st->bytes);
}

static void free_tcp(struct sim_tcp *t)
{
    while (!list_empty(&t->control))
        drop_segment(LIST_ENTRY(t->control.next, struct segment, link));
    free_stream(t->sim, &t->stream[0]);
    free_stream(t->sim, &t->stream[1]);
    sim_unschedule(t->sim, &t->timeout);
    list_remove(&t->link);
    free(t);
}

/* Once both ends are closed and nothing is on its way any more. */
static void free_if_over(struct sim_tcp *t)
{
    if (!t->end[0] && !t->end[1] && list_empty(&t->control) && list_empty(&t->stream[0].flight) &&
        list_empty(&t->stream[1].flight))
        free_tcp(t);
}

/* ---- breaking ---- */

static void break_end(struct sim_tcp *t, unsigned side, int code)
{
    if (t->end[side])
        sim_sock_break(t->end[side], code);
}

static void on_timeout(struct sim_event *e)
{
    struct sim_tcp *t = SIM_OWNER(e, struct sim_tcp, timeout);
    break_end(t, 0, -E_CLOSED);
    break_end(t, 1, -E_CLOSED);
}

static void start_timeout(struct sim_tcp *t)
{
    if (!t->timeout.place)
        sim_schedule(t->sim, &t->timeout, t->sim->now_us + SIM_TCP_TIMEOUT);
}

void sim_tcp_reset(struct sim_tcp *t)
{
    sim_note(t->sim, "reset", t->port[0], t->port[1]);
    drop_flight(&t->stream[0]);
    drop_flight(&t->stream[1]);
    break_end(t, 0, -E_CLOSED);
    break_end(t, 1, -E_CLOSED);
}

/* ---- arriving ---- */

static void append(struct sim_stream *st, const uint8_t *p, size_t n)
{
    if (st->head + st->n + n > st->cap) {
        if (st->n)
            memmove(st->bytes, st->bytes + st->head, st->n);
        st->head = 0;
        if (st->n + n > st->cap) {
            st->cap = (st->n + n) * 2;
            st->bytes = realloc(st->bytes, st->cap);
            assert(st->bytes);
        }
    }
    memcpy(st->bytes + st->head + st->n, p, n);
    st->n += n;
}

static void deliver(struct sim_tcp *t, struct segment *seg)
{
    struct sim_stream *st = &t->stream[seg->side];
    sim_note(t->sim, seg->kind == FIN ? "fin" : "data", t->node[1 - seg->side]->number, seg->n);
    if (seg->kind == FIN)
        st->fin_arrived = true;
    else
        append(st, seg->bytes, seg->n);
}

/* What has arrived without a gap. The connection may be gone afterwards. */
static void deliver_in_order(struct sim_tcp *t, unsigned side)
{
    struct sim_stream *st = &t->stream[side];
    struct sim_sock *to = t->end[1 - side];
    if (!to || to->state == END_BROKEN) {
        bool data = LIST_ENTRY(st->flight.next, struct segment, link)->kind == DATA;
        drop_flight(st);
        if (data && t->end[side])
            send_segment(t, 1 - side, RST, NULL, 0);
        return;
    }
    while (!list_empty(&st->flight)) {
        struct segment *seg = LIST_ENTRY(st->flight.next, struct segment, link);
        if (!seg->arrived)
            break;
        if (seg->poison) {
            sim_tcp_reset(t);
            return;
        }
        deliver(t, seg);
        drop_segment(seg);
    }
    sim_sock_poll(to);
}

static void on_syn(struct sim_tcp *t, bool *again)
{
    struct sim_sock *from = t->end[0];
    if (!from || t->end[1])
        return; /* given up, or here already */
    bool full = false;
    struct sim_sock *accepted = sim_listener_take(t, &full);
    *again = full;
    if (accepted) {
        t->end[1] = accepted;
        send_segment(t, 1, SYN_ACK, NULL, 0);
    } else if (!full) {
        send_segment(t, 1, RST, NULL, 0);
    }
}

static void on_syn_ack(struct sim_tcp *t)
{
    struct sim_sock *from = t->end[0];
    if (!from) {
        send_segment(t, 0, RST, NULL, 0);
    } else if (from->state == END_CONNECTING) {
        from->state = END_OPEN;
        from->tell_connected = true;
        sim_sock_poll(from);
    }
}

static void on_rst(struct sim_tcp *t, unsigned to)
{
    struct sim_sock *e = t->end[to];
    if (e)
        sim_sock_break(e, e->state == END_CONNECTING ? -E_REFUSED : -E_CLOSED);
}

/* The segment did not get through: once more, later; or never. */
static void retry(struct segment *seg)
{
    struct sim_tcp *t = seg->tcp;
    struct sim *s = t->sim;
    int64_t limit = seg->kind == SYN ? SIM_CONNECT_TIMEOUT : SIM_TCP_TIMEOUT;
    bool sender_gone = !t->node[seg->side]->host_up;
    if (seg->kind == RST || sender_gone || s->now_us - seg->first_us > limit) {
        if (seg->kind == RST)
            start_timeout(t);
        else if (!sender_gone)
            break_end(t, seg->side, seg->kind == SYN ? -E_TIMEOUT : -E_CLOSED);
        drop_segment(seg);
        return;
    }
    sim_schedule(s, &seg->event, s->now_us + seg->rto_us + (int64_t)rng_below(&s->rng, RTO_FIRST_US));
    seg->rto_us = seg->rto_us * 2 < RTO_MAX_US ? seg->rto_us * 2 : RTO_MAX_US;
}

static bool gets_through(const struct segment *seg)
{
    const struct sim_node *from = seg->tcp->node[seg->side], *to = seg->tcp->node[1 - seg->side];
    return to->host_up && !from->routes[to->number].cut;
}

static void on_segment(struct sim_event *e)
{
    struct segment *seg = SIM_OWNER(e, struct segment, event);
    struct sim_tcp *t = seg->tcp;
    unsigned side = seg->side;
    enum segment_kind kind = seg->kind;
    if (!gets_through(seg)) {
        retry(seg);
    } else if (kind == DATA || kind == FIN) {
        seg->arrived = true;
        deliver_in_order(t, side);
    } else {
        bool again = false;
        if (kind == SYN)
            on_syn(t, &again);
        else if (kind == SYN_ACK)
            on_syn_ack(t);
        else
            on_rst(t, 1 - side);
        if (again)
            retry(seg);
        else
            drop_segment(seg);
    }
    free_if_over(t);
}

/* ---- what handles ask for ---- */

static void on_ack(struct sim_event *e);

static struct sim_tcp *new_tcp(struct sim *s)
{
    struct sim_tcp *t = calloc(1, sizeof *t);
    assert(t);
    t->sim = s;
    t->timeout.fn = on_timeout;
    list_init(&t->control);
    for (int i = 0; i < 2; i++) {
        list_init(&t->stream[i].flight);
        t->stream[i].tcp = t;
        t->stream[i].ack.fn = on_ack;
    }
    list_push(&s->connections, &t->link);
    return t;
}

struct sim_tcp *sim_tcp_connect(struct sim_sock *from, struct sim_node *to, uint16_t port)
{
    struct sim_tcp *t = new_tcp(from->node->sim);
    t->node[0] = from->node;
    t->node[1] = to;
    t->end[0] = from;
    t->port[0] = from->node->port_next++;
    t->port[1] = port;
    if (from->node->port_next < 1024)
        from->node->port_next = 40000;
    sim_note(t->sim, "connect", from->node->number, to->number);
    send_segment(t, 0, SYN, NULL, 0);
    return t;
}

int64_t sim_tcp_room(const struct sim_tcp *t, unsigned side)
{
    int64_t most = sim_route_link(t->node[side], t->node[1 - side])->buffer_bytes;
    int64_t used = t->stream[side].used;
    return used < most ? most - used : 0;
}

ssize_t sim_tcp_write(struct sim_tcp *t, unsigned side, const void *p, size_t n)
{
    struct sim_stream *st = &t->stream[side];
    assert(!st->fin_sent);
    int64_t room = sim_tcp_room(t, side);
    if (room == 0)
        return -E_AGAIN;
    size_t taken = n < (size_t)room ? n : (size_t)room;
    for (size_t at = 0; at < taken; at += SEGMENT_MAX)
        send_segment(t, side, DATA, (const uint8_t *)p + at,
                     taken - at < SEGMENT_MAX ? taken - at : SEGMENT_MAX);
    st->used += (int64_t)taken;
    return (ssize_t)taken;
}

/* The reader's word of what it has read reaches the writer: room. */
static void on_ack(struct sim_event *e)
{
    struct sim_stream *st = SIM_OWNER(e, struct sim_stream, ack);
    struct sim_tcp *t = st->tcp;
    unsigned side = st == &t->stream[1];
    struct sim_node *reader = t->node[1 - side], *writer = t->node[side];
    if (!reader->host_up)
        return;
    if (reader->routes[writer->number].cut || !writer->host_up) {
        sim_schedule(t->sim, e, t->sim->now_us + RTO_FIRST_US);
        return;
    }
    assert(st->ack_n <= st->used);
    st->used -= st->ack_n;
    st->ack_n = 0;
    if (t->end[side])
        sim_sock_poll(t->end[side]);
}

ssize_t sim_tcp_read(struct sim_tcp *t, unsigned side, void *p, size_t n)
{
    struct sim_stream *st = &t->stream[1 - side];
    if (st->n == 0)
        return st->fin_arrived ? 0 : -E_AGAIN;
    size_t taken = n < st->n ? n : st->n;
    memcpy(p, st->bytes + st->head, taken);
    st->head = st->n == taken ? 0 : st->head + taken;
    st->n -= taken;
    st->ack_n += (int64_t)taken;
    if (!st->ack.place && t->end[1 - side])
        sim_schedule(t->sim, &st->ack, arrival_time(t->node[side], t->node[1 - side], 0));
    return (ssize_t)taken;
}

bool sim_tcp_readable(const struct sim_tcp *t, unsigned side)
{
    const struct sim_stream *st = &t->stream[1 - side];
    return st->n > 0 || st->fin_arrived;
}

void sim_tcp_close(struct sim_tcp *t, unsigned side)
{
    struct sim_sock *e = t->end[side];
    assert(e);
    t->end[side] = NULL;
    bool open = e->state == END_OPEN;
    if (open && t->stream[1 - side].n > 0) {
        drop_flight(&t->stream[side]);
        send_segment(t, side, RST, NULL, 0);
    } else if (open) {
        t->stream[side].fin_sent = true;
        send_segment(t, side, FIN, NULL, 0);
    }
    free_if_over(t);
}

void sim_tcp_silence(struct sim_tcp *t, unsigned side)
{
    t->end[side] = NULL;
    drop_flight(&t->stream[side]);
    if (t->end[1 - side])
        start_timeout(t);
    free_if_over(t);
}

void sim_tcp_free_all(struct sim *s)
{
    while (!list_empty(&s->connections))
        free_tcp(LIST_ENTRY(s->connections.next, struct sim_tcp, link));
}
