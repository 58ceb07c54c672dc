/* What a client sends to a whole broker (on the simulator: deterministic, no socket, no disk): frames of any API into
 * its own handlers. First byte: 1 the rest is the stream as it is, sizes included; else frames, each behind two bytes of
 * its length. Whatever came, the broker goes on: the next client is served. It lives for RUNS inputs, so that they meet
 * each other's topics, groups and producers; RUNS=1 in the environment gives each input a broker of its own. */
#include "base/core/bytes.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/serve/sim_broker.h"

#include <string.h>

#define RUNS     3000
#define FRAMES   64
#define WAIT_US  (2 * SIM_SECOND)
#define SERVE_US (60 * SIM_SECOND)

struct talk {
    struct net_conn *conn;
    const uint8_t *p;
    size_t n, sent, received;
    uint8_t head[64];
    bool connected, closed;
};

static struct sim *sim;
static struct sim_node *broker, *client;
static struct talk talk;
static struct loop_msg start;
static struct sim_broker_options options = {
    .properties =
        "sundog.flush.before.ack=false\nsundog.partitions.max=200\ngroup.initial.rebalance.delay.ms=0\n"
        "sundog.memory.max.bytes=67108864\nnum.partitions=2\nlog.index.size.max.bytes=4096\n"};

static void on_writable(void *arg)
{
    struct talk *t = arg;
    struct iovec v = {(void *)(uintptr_t)(t->p + t->sent), t->n - t->sent};
    ssize_t rc = v.iov_len ? net_writev(t->conn, &v, 1) : 0;
    if (rc > 0)
        t->sent += (size_t)rc;
    else if (rc < 0 && rc != -E_AGAIN)
        t->closed = true;
    net_want(t->conn, NET_WANT_READ | (t->sent < t->n ? NET_WANT_WRITE : 0));
}

static void on_readable(void *arg)
{
    struct talk *t = arg;
    uint8_t piece[65536];
    ssize_t rc = net_read(t->conn, piece, sizeof piece);
    if (rc > 0) {
        for (size_t i = 0; i < (size_t)rc && t->received + i < sizeof t->head; i++)
            t->head[t->received + i] = piece[i];
        t->received += (size_t)rc;
    } else if (rc != -E_AGAIN) {
        t->closed = true;
        net_want(t->conn, 0);
    }
}

static void on_connected(void *arg)
{
    struct talk *t = arg;
    t->connected = true;
    net_want(t->conn, NET_WANT_READ | NET_WANT_WRITE);
}

static void on_failed(void *arg, int code)
{
    (void)code;
    ((struct talk *)arg)->closed = true;
}

static void on_start(struct loop_msg *msg)
{
    static const struct net_conn_events events = {on_connected, on_readable, on_writable, on_failed};
    (void)msg;
    if (talk.conn)
        net_close(talk.conn);
    talk.conn = NULL;
    if (talk.p &&
        net_connect(sim_node_net(client), "broker", SIM_BROKER_PORT, &events, &talk, &talk.conn, NULL))
        abort();
}

static void *boot_client(void *arg, struct sim_node *node)
{
    (void)node;
    return arg;
}

static bool is_closed(void *arg)
{
    return ((struct talk *)arg)->closed;
}

static bool is_answered(void *arg)
{
    const struct talk *t = arg;
    return t->closed || t->received >= 10;
}

static void say(const uint8_t *p, size_t n, int64_t wait_us, bool (*done)(void *arg))
{
    struct net_conn *before = talk.conn;
    talk = (struct talk){.conn = before, .p = p, .n = n};
    loop_post(sim_node_loop(client), &start);
    (void)sim_run_until(sim, sim_now_us(sim) + wait_us, done, &talk);
}

static void end_world(void)
{
    if (!sim)
        return;
    talk = (struct talk){.conn = talk.conn};
    loop_post(sim_node_loop(client), &start);
    sim_run_for(sim, SIM_SECOND);
    sim_destroy(sim);
    sim = NULL;
}

static void open_world(void)
{
    talk = (struct talk){.closed = false};
    start = (struct loop_msg){.fn = on_start};
    sim = sim_create(&(struct sim_options){.seed = 1});
    broker = sim_node_add(
        sim, &(struct sim_node_options){.name = "broker", .boot = sim_broker_boot, .arg = &options});
    client =
        sim_node_add(sim, &(struct sim_node_options){.name = "client", .boot = boot_client, .arg = &talk});
    if (!sim_start(broker) || !sim_start(client) ||
        sim_run_until(sim, SERVE_US, sim_broker_serving, broker) != SIM_TRUE)
        abort();
}

/* ApiVersions v0, correlation 7: size, correlation, no error. */
static void is_served(void)
{
    static const uint8_t ask[] = {0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 255, 255};
    say(ask, sizeof ask, SERVE_US, is_answered);
    if (talk.received < 10 || be32_get(talk.head + 4) != 7 || be16_get(talk.head + 8) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static int runs, limit;
    struct buf stream;
    if (n < 1)
        return 0;
    if (!limit)
        limit = getenv("RUNS") ? (int)strtol(getenv("RUNS"), NULL, 10) : RUNS;
    if (runs++ % (limit > 0 ? limit : 1) == 0) {
        end_world();
        open_world();
    }
    buf_init(&stream, FUZZ_MEMORY_MAX);
    if (data[0] & 1) {
        buf_put(&stream, data + 1, n - 1);
    } else {
        struct slice in = slice_of(data + 1, n - 1);
        for (int i = 0; i < FRAMES && in.n >= 2; i++) {
            size_t size = be16_get(in.p);
            in = slice_of(in.p + 2, in.n - 2);
            size = size < in.n ? size : in.n;
            buf_put_be32(&stream, (uint32_t)size);
            buf_put(&stream, in.p, size);
            in = slice_of(in.p + size, in.n - size);
        }
    }
    say(stream.p, stream.n, WAIT_US, is_closed);
    is_served();
    if (!sim_broker_serving(broker))
        abort();
    buf_fini(&stream);
    return 0;
}
