#include "tests/support/sim/sim.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A server that echoes, and a client that sends `total` bytes and checks what comes back. */
struct peer {
    struct sim_node *node;
    struct net_listener *listener;
    struct net_conn *conn;
    int accepted, connected, failed, code, eof, broken;
    int64_t at_us; /* of the last of these */
    uint64_t sent, received, total;
    uint8_t held[5000];
    size_t held_n;
    bool deaf; /* does not read */
};

static struct sim *s;
static struct sim_node *a, *b;
static struct peer client, server;

static void touch(struct peer *p)
{
    p->at_us = sim_now_us(s);
}

static void gone(struct peer *p, ssize_t n)
{
    touch(p);
    p->eof += n == 0;
    p->broken += n < 0;
    net_close(p->conn);
    p->conn = NULL;
}

static void on_connected(void *arg)
{
    struct peer *p = arg;
    p->connected++;
    touch(p);
    net_want(p->conn, NET_WANT_READ | NET_WANT_WRITE);
}

static void on_failed(void *arg, int code)
{
    struct peer *p = arg;
    p->failed++;
    p->code = code;
    touch(p);
}

static uint8_t byte_at(uint64_t i)
{
    return (uint8_t)(i * 2654435761u >> 13);
}

static void client_writable(void *arg)
{
    struct peer *p = arg;
    uint8_t bytes[3000];
    size_t n = p->total - p->sent < sizeof bytes ? p->total - p->sent : sizeof bytes;
    for (size_t i = 0; i < n; i++)
        bytes[i] = byte_at(p->sent + i);
    struct iovec v[3] = {{bytes, n / 3}, {bytes + n / 3, n - n / 3}, {bytes, 0}};
    ssize_t w = n ? net_writev(p->conn, v, 3) : 0;
    if (w < 0 && w != -E_AGAIN) {
        gone(p, w);
        return;
    }
    p->sent += w > 0 ? (uint64_t)w : 0;
    if (p->sent == p->total)
        net_want(p->conn, NET_WANT_READ);
}

static void client_readable(void *arg)
{
    struct peer *p = arg;
    uint8_t bytes[1000];
    ssize_t n = net_read(p->conn, bytes, sizeof bytes);
    if (n == -E_AGAIN)
        return;
    if (n <= 0) {
        gone(p, n);
        return;
    }
    for (ssize_t i = 0; i < n; i++)
        cr_assert_eq(bytes[i], byte_at(p->received + (uint64_t)i));
    p->received += (uint64_t)n;
    touch(p);
}

static void server_flush(struct peer *p)
{
    struct iovec v = {p->held, p->held_n};
    ssize_t w = net_writev(p->conn, &v, 1);
    if (w > 0) {
        memmove(p->held, p->held + w, p->held_n - (size_t)w);
        p->held_n -= (size_t)w;
    }
    if (w < 0 && w != -E_AGAIN)
        gone(p, w);
    else
        net_want(p->conn, p->deaf ? NET_WANT_NONE : p->held_n ? NET_WANT_WRITE : NET_WANT_READ);
}

static void server_readable(void *arg)
{
    struct peer *p = arg;
    ssize_t n = net_read(p->conn, p->held, sizeof p->held);
    if (n == -E_AGAIN)
        return;
    if (n <= 0) {
        gone(p, n);
        return;
    }
    p->held_n = (size_t)n;
    p->received += (uint64_t)n;
    server_flush(p);
}

static void server_writable(void *arg)
{
    server_flush(arg);
}

static const struct net_conn_events client_events = {on_connected, client_readable, client_writable,
                                                     on_failed};
static const struct net_conn_events server_events = {NULL, server_readable, server_writable, NULL};

static void on_accepted(void *arg, struct net_conn *c)
{
    struct peer *p = arg;
    p->accepted++;
    net_close(p->conn);
    p->conn = c;
    p->held_n = 0;
    net_conn_set_events(c, &server_events, p);
    net_want(c, p->deaf ? NET_WANT_NONE : NET_WANT_READ);
}

static void *boot_server(void *arg, struct sim_node *node)
{
    struct peer *p = arg;
    p->node = node;
    p->conn = NULL;
    struct err err;
    if (net_listen(sim_node_net(node), "0.0.0.0", 9092, on_accepted, p, &p->listener, &err) != 0)
        return NULL;
    return p;
}

static void *boot_client(void *arg, struct sim_node *node)
{
    struct peer *p = arg;
    p->node = node;
    cr_assert_eq(net_connect(sim_node_net(node), "server", 9092, &client_events, p, &p->conn, NULL), 0);
    return p;
}

static void destroy_peer(void *arg, void *program)
{
    struct peer *p = program;
    (void)arg;
    char byte;
    if (p->conn)
        cr_expect_eq(net_read(p->conn, &byte, 1), -E_CLOSED);
    net_close(p->conn);
    net_listener_close(p->listener);
    p->conn = NULL;
    p->listener = NULL;
}

static void open_world(uint64_t seed, uint64_t bytes)
{
    client = (struct peer){.total = bytes};
    server = (struct peer){0};
    s = sim_create(&(struct sim_options){.seed = seed});
    a = sim_node_add(s, &(struct sim_node_options){
                            .name = "client", .boot = boot_client, .destroy = destroy_peer, .arg = &client});
    b = sim_node_add(s, &(struct sim_node_options){
                            .name = "server", .boot = boot_server, .destroy = destroy_peer, .arg = &server});
}

static bool all_back(void *arg)
{
    (void)arg;
    return client.received == client.total;
}

static bool client_gone(void *arg)
{
    (void)arg;
    return client.eof || client.broken || client.failed;
}

Test(sim_net, bytes_come_back_in_order_whatever_the_seed)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        open_world(seed, 300000);
        sim_link_default(s, &(struct sim_link){
                                .latency_us = 1000, .jitter_us = 3000, .loss = 10000, .buffer_bytes = 20000});
        cr_assert(sim_start(b) && sim_start(a));
        cr_assert_eq(sim_run_until(s, 600 * SIM_SECOND, all_back, NULL), SIM_TRUE, "seed %lu", seed);
        cr_expect_eq(sim_connections(a), 1);
        cr_expect_eq(sim_connections(b), 1);
        sim_destroy(s);
    }
}

Test(sim_net, latency_is_what_was_asked_for)
{
    open_world(1, 1);
    sim_link_default(s, &(struct sim_link){.latency_us = 50000, .buffer_bytes = 1000});
    cr_assert(sim_start(b) && sim_start(a));
    int64_t start = sim_now_us(s);
    cr_assert_eq(sim_run_until(s, 10 * SIM_SECOND, all_back, NULL), SIM_TRUE);
    int64_t took = sim_now_us(s) - start;
    cr_expect(took >= 200000 && took < 201000, "%ld us for a handshake and an echo", took);
    sim_destroy(s);
}

Test(sim_net, a_slow_link_is_slow_and_pushes_back)
{
    open_world(1, 200000);
    sim_link_set(a, b, &(struct sim_link){.latency_us = 100, .bytes_per_s = 100000, .buffer_bytes = 10000});
    cr_assert(sim_start(b) && sim_start(a));
    int64_t start = sim_now_us(s);
    sim_run_for(s, SIM_SECOND);
    cr_expect_lt(client.sent, 120000);
    cr_assert_eq(sim_run_until(s, 10 * SIM_SECOND, all_back, NULL), SIM_TRUE);
    cr_expect_gt(sim_now_us(s) - start, 2 * SIM_SECOND);
    cr_expect_lt(sim_now_us(s) - start, 3 * SIM_SECOND);
    sim_destroy(s);
}

Test(sim_net, a_reader_that_does_not_read_stops_the_writer)
{
    open_world(1, 10000000);
    server.deaf = true;
    cr_assert(sim_start(b) && sim_start(a));
    sim_run_for(s, 10 * SIM_SECOND);
    cr_expect_eq(client.sent, 262144);
    uint64_t events = sim_events(s);
    sim_run_for(s, 60 * SIM_SECOND);
    cr_expect_eq(sim_events(s), events); /* and nobody spins */
    sim_destroy(s);
}

Test(sim_net, nobody_listens_nobody_there_nobody_known)
{
    open_world(1, 1);
    cr_assert(sim_start(a)); /* the machine is on, no process: a reset */
    cr_assert_eq(sim_run_until(s, 10 * SIM_SECOND, client_gone, NULL), SIM_TRUE);
    cr_expect_eq(client.code, -E_REFUSED);
    sim_kill(a);
    client = (struct peer){.total = 1};
    sim_power_cut(b); /* no machine: silence */
    cr_assert(sim_start(a));
    int64_t start = sim_now_us(s);
    cr_assert_eq(sim_run_until(s, start + 100 * SIM_SECOND, client_gone, NULL), SIM_TRUE);
    cr_expect_eq(client.code, -E_TIMEOUT);
    cr_expect_geq(client.at_us - start, SIM_CONNECT_TIMEOUT);
    struct net_conn *c;
    client.failed = 0;
    cr_assert_eq(net_connect(sim_node_net(a), "nowhere", 1, &client_events, &client, &c, NULL), 0);
    cr_expect_eq(client.failed, 0);
    sim_run_for(s, SIM_SECOND);
    cr_expect_eq(client.code, -E_NOTFOUND);
    net_close(c);
    sim_destroy(s);
}

Test(sim_net, a_partition_holds_bytes_back_and_healing_brings_them)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        open_world(seed, 2000000);
        cr_assert(sim_start(b) && sim_start(a));
        sim_run_for(s, 4 * SIM_MS);
        if (seed % 2)
            sim_cut(a, b);
        else
            sim_cut(b, a);
        sim_run_for(s, SIM_SECOND);
        uint64_t before = client.received;
        sim_run_for(s, 20 * SIM_SECOND);
        cr_expect_eq(client.received, before);
        cr_expect_lt(client.received, client.total);
        sim_heal_all(s);
        cr_assert_eq(sim_run_until(s, 100 * SIM_SECOND, all_back, NULL), SIM_TRUE, "seed %lu", seed);
        sim_destroy(s);
    }
}

Test(sim_net, a_partition_without_end_breaks_the_connection)
{
    open_world(1, 2000000);
    cr_assert(sim_start(b) && sim_start(a));
    sim_run_for(s, 4 * SIM_MS);
    sim_isolate(b);
    int64_t start = sim_now_us(s);
    cr_assert_eq(sim_run_until(s, 1000 * SIM_SECOND, client_gone, NULL), SIM_TRUE);
    cr_expect_eq(client.broken, 1);
    cr_expect_geq(client.at_us - start, SIM_TCP_TIMEOUT - SIM_SECOND);
    sim_destroy(s);
}

Test(sim_net, a_killed_process_ends_its_connections)
{
    int eof = 0, broken = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        open_world(seed, 10000000);
        cr_assert(sim_start(b) && sim_start(a));
        sim_run_for(s, 5 * SIM_MS + (int64_t)seed * 97);
        sim_kill(b);
        cr_expect_eq(sim_connections(b), 0);
        cr_assert_eq(sim_run_until(s, 10 * SIM_SECOND, client_gone, NULL), SIM_TRUE);
        eof += client.eof;
        broken += client.broken;
        sim_destroy(s);
    }
    cr_expect(eof + broken == 40 && broken > 5, "%d ends, %d resets", eof, broken);
}

Test(sim_net, a_power_cut_is_silence_until_the_machine_is_back)
{
    open_world(1, 10000000);
    cr_assert(sim_start(b) && sim_start(a));
    sim_run_for(s, 5 * SIM_MS);
    sim_power_cut(b);
    sim_run_for(s, 20 * SIM_SECOND);
    cr_expect_eq(client.eof + client.broken, 0);
    cr_assert(sim_start(b));
    cr_assert_eq(sim_run_until(s, 60 * SIM_SECOND, client_gone, NULL), SIM_TRUE);
    cr_expect_eq(client.broken, 1);
    sim_destroy(s);
}

Test(sim_net, an_idle_reader_learns_of_a_dead_machine_by_keep_alive)
{
    open_world(1, 1000);
    cr_assert(sim_start(b) && sim_start(a));
    cr_assert_eq(sim_run_until(s, 10 * SIM_SECOND, all_back, NULL), SIM_TRUE);
    sim_power_cut(b);
    cr_assert_eq(sim_run_until(s, 1000 * SIM_SECOND, client_gone, NULL), SIM_TRUE);
    cr_expect_eq(client.broken, 1);
    sim_destroy(s);
}

Test(sim_net, connections_can_be_reset_and_links_reset_by_themselves)
{
    open_world(1, 1000000);
    cr_assert(sim_start(b) && sim_start(a));
    sim_run_for(s, 5 * SIM_MS);
    sim_reset_connections(a, b);
    cr_assert_eq(sim_run_until(s, 10 * SIM_SECOND, client_gone, NULL), SIM_TRUE);
    cr_expect_eq(client.broken, 1);
    sim_destroy(s);
    open_world(2, 100000000);
    sim_link_set(a, b, &(struct sim_link){.latency_us = 100, .reset = 10000, .buffer_bytes = 100000});
    cr_assert(sim_start(b) && sim_start(a));
    cr_assert_eq(sim_run_until(s, 1000 * SIM_SECOND, client_gone, NULL), SIM_TRUE);
    cr_expect_eq(client.broken, 1);
    sim_destroy(s);
}

Test(sim_net, a_port_belongs_to_one_listener)
{
    open_world(1, 1);
    cr_assert(sim_start(b));
    struct net_listener *l = NULL, *m = NULL;
    struct err err = {0};
    struct net *net = sim_node_net(b);
    cr_expect_eq(net_listen(net, "server", 9092, on_accepted, &server, &l, &err), -E_BUSY);
    cr_expect_eq(net_listen(net, "client", 9093, on_accepted, &server, &l, &err), -E_INVALID);
    cr_expect_eq(net_listen(net, "nobody", 9093, on_accepted, &server, &l, &err), -E_NOTFOUND);
    cr_expect_eq(net_listen(net, "", 0, on_accepted, &server, &l, &err), 0);
    cr_expect_eq(net_listen(net, "127.0.0.1", 0, on_accepted, &server, &m, &err), 0);
    cr_expect_neq(net_listener_port(l), net_listener_port(m));
    net_listener_close(l);
    net_listener_close(m);
    net_listener_pause(server.listener, true);
    cr_assert(sim_start(a));
    sim_run_for(s, SIM_SECOND);
    cr_expect(client.connected == 1 && server.accepted == 0);
    char peer[NET_ADDRESS_MAX];
    net_peer(client.conn, peer);
    cr_expect_str_eq(peer, "10.0.0.2:9092");
    net_listener_pause(server.listener, false);
    cr_assert_eq(sim_run_until(s, 10 * SIM_SECOND, all_back, NULL), SIM_TRUE);
    sim_destroy(s);
}
