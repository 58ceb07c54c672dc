#include "base/world/disk_posix.h"
#include "base/world/net_posix.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* One loop with a server and a client in it. */
static struct job_pool *pool;
static struct loop_posix *lp;
static struct net *net;
static struct net_listener *listener;
static char complaint[100];
static int complaints, refusals;

static void complain(void *arg, const char *text)
{
    (void)arg;
    complaints++;
    snprintf(complaint, sizeof complaint, "%s", text);
}

static void refused(void *arg)
{
    (void)arg;
    refusals++;
}

static void setup(void)
{
    struct err err = {0};
    cr_assert_eq(job_pool_create(4, &pool, &err), 0);
    cr_assert_eq(loop_posix_create(&(struct loop_posix_options){.jobs = pool}, &lp, &err), 0);
    cr_assert_eq(net_posix_create(lp, &(struct net_posix_options){.complain = complain, .refused = refused},
                                  &net, &err),
                 0);
}

static void teardown(void)
{
    net_listener_close(listener);
    net_posix_destroy(net);
    loop_posix_destroy(lp);
    job_pool_destroy(pool);
}

TestSuite(net, .init = setup, .fini = teardown);

struct end {
    struct net_conn *c;
    int connected, failed, code, readable, writable, eof;
    size_t in, out, out_max;
    bool close_in_readable;
    uint8_t sum;
};

static void on_connected(void *arg)
{
    ((struct end *)arg)->connected++;
}

static void on_failed(void *arg, int code)
{
    struct end *e = arg;
    e->failed++;
    e->code = code;
}

static void on_readable(void *arg)
{
    struct end *e = arg;
    uint8_t bytes[1000];
    e->readable++;
    ssize_t n = net_read(e->c, bytes, sizeof bytes);
    if (n > 0)
        for (ssize_t i = 0; i < n; i++)
            e->sum = (uint8_t)(e->sum * 31 + bytes[i]);
    e->in += n > 0 ? (size_t)n : 0;
    if (n <= 0 && n != -E_AGAIN) {
        e->eof++;
        e->code = (int)n;
        net_want(e->c, NET_WANT_NONE);
    }
    if (e->close_in_readable) {
        net_close(e->c);
        e->c = NULL;
    }
}

static void on_writable(void *arg)
{
    struct end *e = arg;
    e->writable++;
    static uint8_t bytes[100000];
    memset(bytes, 'x', sizeof bytes);
    while (e->out < e->out_max) {
        size_t n = e->out_max - e->out < sizeof bytes ? e->out_max - e->out : sizeof bytes;
        struct iovec v[2] = {{bytes, n / 2}, {bytes, n - n / 2}};
        ssize_t w = net_writev(e->c, v, 2);
        if (w < 0) {
            cr_expect(w == -E_AGAIN || w == -E_CLOSED);
            break;
        }
        e->out += (size_t)w;
    }
    if (e->out >= e->out_max)
        net_want(e->c, NET_WANT_READ);
}

static const struct net_conn_events events = {on_connected, on_readable, on_writable, on_failed};

static struct end server;
static int accepts;

static void on_accepted(void *arg, struct net_conn *c)
{
    struct end *e = arg;
    accepts++;
    if (e->c) {
        net_close(c);
        return;
    }
    e->c = c;
    net_conn_set_events(c, &events, e);
    net_want(c, NET_WANT_READ);
}

static void turn_until(const int *what, int value)
{
    for (int i = 0; i < 2000 && *what < value; i++)
        loop_posix_turn(lp, 5000);
    cr_assert_geq(*what, value);
}

static uint16_t listen_at(const char *host)
{
    struct err err = {0};
    cr_assert_eq(net_listen(net, host, 0, on_accepted, &server, &listener, &err), 0, "%s", err.text);
    return net_listener_port(listener);
}

static void connect_to(struct end *e, const char *host, uint16_t port)
{
    struct err err = {0};
    cr_assert_eq(net_connect(net, host, port, &events, e, &e->c, &err), 0, "%s", err.text);
    cr_expect_eq(e->connected + e->failed, 0); /* never inside the call */
}

Test(net, bytes_arrive_with_back_pressure)
{
    struct end client = {.out_max = 10000000};
    connect_to(&client, "127.0.0.1", listen_at("127.0.0.1"));
    turn_until(&client.connected, 1);
    turn_until(&accepts, 1);
    net_want(server.c, NET_WANT_NONE); /* the reader stops: so must the writer, soon */
    net_want(client.c, NET_WANT_WRITE);
    for (int i = 0; i < 20; i++)
        loop_posix_turn(lp, 2000);
    cr_expect_lt(client.out, client.out_max);
    cr_expect_eq(server.in, 0);
    net_want(server.c, NET_WANT_READ);
    for (int i = 0; i < 100000 && server.in < client.out_max; i++)
        loop_posix_turn(lp, 5000);
    cr_expect_eq(server.in, client.out_max);
    char a[NET_ADDRESS_MAX], b[NET_ADDRESS_MAX];
    net_peer(client.c, a);
    net_peer(server.c, b);
    cr_expect(strncmp(a, "127.0.0.1:", 10) == 0 && strncmp(b, "127.0.0.1:", 10) == 0);
    net_close(client.c);
    turn_until(&server.eof, 1);
    cr_expect_eq(server.code, 0);
    net_close(server.c);
}

Test(net, a_name_is_looked_up_and_ipv6_has_brackets)
{
    uint16_t port = listen_at("localhost");
    struct end client = {0};
    connect_to(&client, "localhost", port);
    turn_until(&client.connected, 1);
    net_close(client.c);
    struct end lost = {0};
    connect_to(&lost, "no-such-host.invalid", 1);
    turn_until(&lost.failed, 1);
    cr_expect_eq(lost.code, -E_NOTFOUND);
    cr_expect_eq(net_read(lost.c, &lost, 1), -E_CLOSED);
    net_close(lost.c);
    struct end unlooked = {0};
    connect_to(&unlooked, "localhost", port);
    net_close(unlooked.c); /* while the lookup runs */
    loop_posix_turn(lp, 20000);
    cr_expect_eq(unlooked.connected, 0);
    net_close(server.c);
}

Test(net, the_wildcard_serves_both_families)
{
    uint16_t port = listen_at("");
    struct end four = {0}, six = {0};
    connect_to(&four, "127.0.0.1", port);
    turn_until(&four.connected, 1);
    turn_until(&accepts, 1);
    char peer[NET_ADDRESS_MAX];
    net_peer(server.c, peer);
    cr_expect_eq(strncmp(peer, "127.0.0.1:", 10), 0, "%s", peer);
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd >= 0) {
        close(fd);
        connect_to(&six, "::1", port);
        for (int i = 0; i < 2000 && !six.connected && !six.failed; i++)
            loop_posix_turn(lp, 5000);
        net_peer(six.c, peer);
        cr_expect_eq(strncmp(peer, "[::1]:", 6), 0, "%s", peer);
        net_close(six.c);
    }
    net_close(four.c);
    net_close(server.c);
}

Test(net, refusal_and_a_port_in_use_are_told)
{
    uint16_t port = listen_at("127.0.0.1");
    struct net_listener *second = NULL;
    struct err err = {0};
    cr_expect_eq(net_listen(net, "127.0.0.1", port, on_accepted, NULL, &second, &err), -E_BUSY);
    char expected[160];
    snprintf(expected, sizeof expected,
             "listener 127.0.0.1:%u: cannot bind: Address already in use; end what listens there, or choose "
             "another port",
             port);
    cr_expect_str_eq(err.text, expected);
    cr_expect_eq(net_listen(net, "no-such-host.invalid", 0, on_accepted, NULL, &second, &err), -E_NOTFOUND);
    net_listener_close(listener);
    listener = NULL;
    struct end client = {0};
    connect_to(&client, "127.0.0.1", port);
    turn_until(&client.failed, 1);
    cr_expect_eq(client.code, -E_REFUSED);
    net_close(client.c);
}

Test(net, closing_inside_a_handler_ends_all_calls)
{
    struct end client = {.out_max = 10};
    server.close_in_readable = true;
    connect_to(&client, "127.0.0.1", listen_at("127.0.0.1"));
    turn_until(&client.connected, 1);
    turn_until(&accepts, 1);
    net_want(server.c, NET_WANT_READ | NET_WANT_WRITE);
    net_want(client.c, NET_WANT_WRITE);
    turn_until(&server.readable, 1);
    int writable = server.writable;
    for (int i = 0; i < 5; i++)
        loop_posix_turn(lp, 1000);
    cr_expect_eq(server.readable, 1);
    cr_expect_eq(server.writable, writable);
    cr_expect_null(server.c);
    net_close(client.c);
}

Test(net, files_go_out_by_sendfile)
{
    char path[] = "/tmp/sundog-net-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_eq(ftruncate(fd, 300000), 0);
    close(fd);
    struct disk *d = disk_posix_create();
    struct disk_file *f;
    cr_assert_eq(disk_open(d, path, DISK_READ, &f, NULL), 0);
    unlink(path);
    struct end client = {0};
    connect_to(&client, "127.0.0.1", listen_at("127.0.0.1"));
    turn_until(&client.connected, 1);
    turn_until(&accepts, 1);
    int64_t at = 0;
    for (int i = 0; i < 10000 && server.in < 300000; i++) {
        ssize_t n = net_sendfile(client.c, f, at, 1000000);
        at += n > 0 ? n : 0;
        loop_posix_turn(lp, 1000);
    }
    cr_expect_eq(server.in, 300000);
    cr_expect_eq(net_sendfile(client.c, f, 300000, 10), 0);
    net_close(server.c);
    ssize_t n = 1;
    for (int i = 0; i < 5000 && (n >= 0 || n == -E_AGAIN); i++) { /* the peer is gone: an error, no signal */
        n = net_sendfile(client.c, f, 0, 1000);
        loop_posix_turn(lp, 1000);
    }
    cr_expect_eq(n, -E_CLOSED);
    net_close(client.c);
    disk_close(f);
    disk_posix_destroy(d);
}

Test(net, two_loops_share_a_listener)
{
    struct loop_posix *lp2;
    struct net *net2;
    struct net_listener *shared;
    struct end second = {0}, client = {0};
    cr_assert_eq(loop_posix_create(&(struct loop_posix_options){.jobs = pool}, &lp2, NULL), 0);
    cr_assert_eq(net_posix_create(lp2, NULL, &net2, NULL), 0);
    uint16_t port = listen_at("127.0.0.1");
    cr_assert_eq(net_listen_share(net2, listener, on_accepted, &second, &shared, NULL), 0);
    cr_expect_eq(net_listener_port(shared), port);
    net_listener_close(listener);
    listener = NULL;
    connect_to(&client, "127.0.0.1", port);
    turn_until(&client.connected, 1);
    for (int i = 0; i < 2000 && !second.c; i++)
        loop_posix_turn(lp2, 5000);
    cr_expect(second.c);
    net_close(second.c);
    net_close(client.c);
    net_listener_close(shared);
    net_posix_destroy(net2);
    loop_posix_destroy(lp2);
}

Test(net, a_paused_listener_accepts_later)
{
    struct end client = {0};
    uint16_t port = listen_at("127.0.0.1");
    net_listener_pause(listener, true);
    connect_to(&client, "127.0.0.1", port);
    turn_until(&client.connected, 1); /* the kernel's queue */
    for (int i = 0; i < 5; i++)
        loop_posix_turn(lp, 1000);
    cr_expect_eq(accepts, 0);
    net_listener_pause(listener, false);
    turn_until(&accepts, 1);
    net_close(client.c);
    net_close(server.c);
}

Test(net, without_descriptors_the_listener_pauses_and_says_so_once)
{
    uint16_t port = listen_at("127.0.0.1");
    struct end client = {0}, late = {0};
    connect_to(&client, "127.0.0.1", port);
    turn_until(&client.connected, 1);
    turn_until(&accepts, 1);
    net_close(server.c);
    server.c = NULL;
    connect_to(&late, "127.0.0.1", port);
    int fds[4096], n = 0;
    struct rlimit limit = {256, 256};
    setrlimit(RLIMIT_NOFILE, &limit);
    while ((fds[n] = open("/dev/null", O_RDONLY)) >= 0)
        n++;
    int turns = 0;
    struct loop *l = loop_posix_loop(lp);
    for (int64_t end = loop_now_us(l) + 250000; loop_now_us(l) < end; turns++)
        loop_posix_turn(lp, 50000);
    cr_expect_eq(complaints, 1);
    cr_expect_leq(turns, 20); /* no spinning */
    cr_expect_eq(refusals, 1);
    cr_expect_eq(accepts, 1);
    while (n > 0)
        close(fds[--n]);
    struct end after = {0};
    connect_to(&after, "127.0.0.1", port);
    turn_until(&accepts, 2);
    net_close(after.c);
    net_close(late.c);
    net_close(client.c);
    net_close(server.c);
}

Test(net, sockets_that_files_may_need_are_refused)
{
    struct net *few;
    struct net_listener *l;
    struct end client = {0};
    struct err err = {0};
    const struct net_posix_options o = {.complain = complain, .refused = refused, .accept_below = 1};
    cr_assert_eq(net_posix_create(lp, &o, &few, &err), 0);
    cr_assert_eq(net_listen(few, "127.0.0.1", 0, on_accepted, &server, &l, &err), 0, "%s", err.text);
    connect_to(&client, "127.0.0.1", net_listener_port(l));
    turn_until(&client.connected, 1);
    net_want(client.c, NET_WANT_READ);
    turn_until(&client.eof, 1);
    cr_expect_eq(refusals, 1);
    cr_expect_eq(complaints, 1);
    cr_expect_eq(accepts, 0);
    net_close(client.c);
    net_listener_close(l);
    net_posix_destroy(few);
}

static struct net_conn *kept[8];
static int kept_n;

static void on_kept(void *arg, struct net_conn *c)
{
    (void)arg;
    cr_assert_lt(kept_n, 8);
    net_conn_set_events(c, &events, &server);
    kept[kept_n++] = c;
}

/* The admin port: it answers while clients have all there is. */
Test(net, a_reserve_is_served_when_no_descriptors_are_left)
{
    struct err err = {0};
    struct end client[3] = {0}, after = {0};
    cr_assert_eq(net_listen(net, "127.0.0.1", 0, on_kept, NULL, &listener, &err), 0);
    net_listener_reserve(listener, 2);
    for (int i = 0; i < 3; i++)
        connect_to(&client[i], "127.0.0.1", net_listener_port(listener));
    struct rlimit limit = {256, 256};
    setrlimit(RLIMIT_NOFILE, &limit);
    int fds[256], n = 0;
    while ((fds[n] = open("/dev/null", O_RDONLY)) >= 0)
        n++;
    turn_until(&refusals, 1);
    cr_expect_eq(kept_n, 2);
    cr_expect_eq(complaints, 1);
    /* What is given back is the reserve's again, before anybody else can have it. */
    net_close(kept[0]);
    cr_expect_lt(open("/dev/null", O_RDONLY), 0);
    close(fds[--n]);
    connect_to(&after, "127.0.0.1", net_listener_port(listener));
    turn_until(&kept_n, 3);
    while (n > 0)
        close(fds[--n]);
    net_close(kept[1]);
    net_close(kept[2]);
    for (int i = 0; i < 3; i++)
        net_close(client[i].c);
    net_close(after.c);
}

Test(net, a_reserve_may_have_what_files_may_need)
{
    struct net *few;
    struct net_listener *l;
    struct end client = {0};
    struct err err = {0};
    const struct net_posix_options o = {.complain = complain, .refused = refused, .accept_below = 1};
    cr_assert_eq(net_posix_create(lp, &o, &few, &err), 0);
    cr_assert_eq(net_listen(few, "127.0.0.1", 0, on_kept, NULL, &l, &err), 0, "%s", err.text);
    net_listener_reserve(l, 1);
    connect_to(&client, "127.0.0.1", net_listener_port(l));
    turn_until(&kept_n, 1);
    cr_expect_eq(refusals, 0);
    net_close(kept[0]);
    net_close(client.c);
    net_listener_close(l);
    net_posix_destroy(few);
}
