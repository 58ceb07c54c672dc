/* The simulator's own scenario, and an example of its use: a small store that acknowledges a record once a
 * group-committed fdatasync has covered it, a client that sends records 0, 1, 2, … and goes on after each break, and
 * faults of every kind by the seed. What was acknowledged must be there afterwards; a store that acknowledges too early
 * must be caught.
 *
 * Wire: the store greets a connection with the number of records it has (8 bytes), then sends the number of durable
 * records whenever it grows. The client sends records: 16 bytes, number and its complement. The file holds the same. */
#include "tests/support/sim/sim.h"

#include "base/runtime/log.h"

#include <assert.h>
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define RECORD  16
#define RECORDS 1500
#define PATH    "/store/log"

/* What the test knows of the world, outside every node. */
struct truth {
    uint64_t acknowledged; /* records that the client has been told of */
    bool early;            /* mutant: acknowledge before the sync */
    bool trusting;         /* mutant: believe after a restart what the page cache says */
};

/* ---- the store ---- */

struct store {
    struct sim_node *node;
    struct truth *truth;
    struct disk_file *file;
    struct net_listener *listener;
    struct net_conn *conn;
    struct loop_hook hook;
    struct loop_job flush;
    uint64_t written, flushing, durable, told;
    bool flush_running, fenced;
    uint8_t part[RECORD];
    size_t part_n;
};

static bool record_is(const uint8_t *p, uint64_t number)
{
    uint64_t v[2];
    memcpy(v, p, sizeof v);
    return v[0] == number && v[1] == ~number;
}

static void hang_up(struct store *st)
{
    net_close(st->conn);
    st->conn = NULL;
}

static void tell(struct store *st, uint64_t count)
{
    struct iovec v = {&count, sizeof count};
    ssize_t n = st->conn ? net_writev(st->conn, &v, 1) : 0;
    if (n == 0 || n == -E_AGAIN)
        return; /* the next one says it too */
    if (n != sizeof count)
        hang_up(st); /* a part of a number cannot be taken back: the client starts over */
    st->told = count;
}

static void flush_run(struct loop_job *job)
{
    struct store *st = LIST_ENTRY(job, struct store, flush);
    if (disk_fdatasync(st->file) != 0)
        st->fenced = true;
}

static void flush_done(struct loop_job *job)
{
    struct store *st = LIST_ENTRY(job, struct store, flush);
    st->flush_running = false;
    if (st->fenced) {
        log_error("store", "fenced after a failed sync");
        hang_up(st);
        return;
    }
    st->durable = st->flushing;
    tell(st, st->durable);
}

/* Once a turn: one flush for all that the turn has written. */
static void at_turn_end(void *arg)
{
    struct store *st = arg;
    if (st->fenced || st->flush_running || st->durable == st->written)
        return;
    st->flushing = st->written;
    st->flush_running = true;
    loop_job(sim_node_loop(st->node), &st->flush);
    if (st->truth->early)
        tell(st, st->written);
}

static bool take_record(struct store *st)
{
    if (!record_is(st->part, st->written))
        return false;
    ssize_t n = disk_pwrite(st->file, st->part, RECORD, (int64_t)(st->written * RECORD));
    if (n != RECORD)
        return false; /* no space: the client will come again */
    st->written++;
    return true;
}

static void store_readable(void *arg)
{
    struct store *st = arg;
    uint8_t bytes[200];
    ssize_t n = net_read(st->conn, bytes, sizeof bytes);
    bool good = n > 0 || n == -E_AGAIN;
    for (ssize_t i = 0; i < n && good && !st->fenced; i++) {
        st->part[st->part_n++] = bytes[i];
        if (st->part_n == RECORD) {
            st->part_n = 0;
            good = take_record(st);
        }
    }
    if (!good)
        hang_up(st);
}

static void store_writable(void *arg)
{
    (void)arg;
}

static const struct net_conn_events store_events = {NULL, store_readable, store_writable, NULL};

static void store_accepted(void *arg, struct net_conn *c)
{
    struct store *st = arg;
    hang_up(st);
    if (st->fenced) {
        net_close(c);
        return;
    }
    st->conn = c;
    st->part_n = 0;
    net_conn_set_events(c, &store_events, st);
    net_want(c, NET_WANT_READ);
    tell(st, st->durable);
}

/* Reads what the disk has kept, cuts what is torn. What it reads may come from pages that a failed sync has left clean
 * and unwritten, before this process lived: only written again they are sure to reach the platter. */
static bool recover(struct store *st)
{
    uint8_t r[RECORD];
    while (disk_pread(st->file, r, RECORD, (int64_t)(st->written * RECORD)) == RECORD &&
           record_is(r, st->written)) {
        if (!st->truth->trusting &&
            disk_pwrite(st->file, r, RECORD, (int64_t)(st->written * RECORD)) != RECORD)
            return false;
        st->written++;
    }
    st->durable = st->written;
    return disk_truncate(st->file, (int64_t)(st->written * RECORD)) == 0 && disk_fdatasync(st->file) == 0;
}

static void *boot_store(void *arg, struct sim_node *node)
{
    struct disk *d = sim_node_disk(node);
    struct store *st = calloc(1, sizeof *st);
    *st = (struct store){.node = node, .truth = arg};
    st->hook = (struct loop_hook){.fn = at_turn_end, .arg = st};
    st->flush = (struct loop_job){.run = flush_run, .done = flush_done};
    bool started = disk_make_dirs(d, "/store", NULL) == 0 &&
                   disk_open(d, PATH, DISK_WRITE | DISK_CREATE, &st->file, NULL) == 0 && recover(st) &&
                   net_listen(sim_node_net(node), "", 9092, store_accepted, st, &st->listener, NULL) == 0;
    if (!started) {
        disk_close(st->file);
        free(st);
        return NULL;
    }
    loop_hook_add(sim_node_loop(node), &st->hook);
    log_info("store", "started records=%llu", (unsigned long long)st->written);
    return st;
}

static void destroy_store(void *arg, void *program)
{
    struct store *st = program;
    (void)arg;
    hang_up(st);
    net_listener_close(st->listener);
    disk_close(st->file);
    free(st);
}

/* ---- the client ---- */

struct sender {
    struct sim_node *node;
    struct truth *truth;
    struct net_conn *conn;
    struct loop_timer again, silence;
    uint64_t next;
    bool greeted;
    uint8_t count[8], out[RECORD];
    size_t count_n, out_n; /* bytes received of a number, bytes left of a record */
};

static void connect_again(void *arg);

static void start_over(struct sender *c)
{
    net_close(c->conn);
    c->conn = NULL;
    loop_timer_stop(&c->silence);
    loop_timer_in(&c->again, 10 * SIM_MS + (int64_t)(loop_random(sim_node_loop(c->node)) % 100000));
}

static void on_silence(void *arg)
{
    start_over(arg);
}

static void sender_connected(void *arg)
{
    struct sender *c = arg;
    loop_timer_in(&c->silence, 2 * SIM_SECOND);
    net_want(c->conn, NET_WANT_READ);
}

static void sender_failed(void *arg, int code)
{
    (void)code;
    start_over(arg);
}

static void on_count(struct sender *c)
{
    uint64_t count;
    memcpy(&count, c->count, sizeof count);
    loop_timer_in(&c->silence, 2 * SIM_SECOND);
    /* The promise: what was acknowledged once stays. */
    assert(c->greeted || count >= c->truth->acknowledged);
    if (count > c->truth->acknowledged)
        c->truth->acknowledged = count;
    if (!c->greeted) {
        c->greeted = true;
        c->next = count;
        c->out_n = 0;
    }
    net_want(c->conn, NET_WANT_READ | NET_WANT_WRITE);
}

static void sender_readable(void *arg)
{
    struct sender *c = arg;
    ssize_t n = net_read(c->conn, c->count + c->count_n, sizeof c->count - c->count_n);
    if (n == -E_AGAIN)
        return;
    if (n <= 0) {
        start_over(c);
        return;
    }
    c->count_n += (size_t)n;
    if (c->count_n == sizeof c->count) {
        c->count_n = 0;
        on_count(c);
    }
}

static void sender_writable(void *arg)
{
    struct sender *c = arg;
    if (c->out_n == 0) {
        if (c->next == RECORDS || c->next > c->truth->acknowledged + 20) {
            net_want(c->conn, NET_WANT_READ); /* the window is full: on_count opens it */
            return;
        }
        uint64_t v[2] = {c->next, ~c->next};
        memcpy(c->out, v, sizeof v);
        c->out_n = RECORD;
        c->next++;
    }
    struct iovec v = {c->out + RECORD - c->out_n, c->out_n};
    ssize_t n = net_writev(c->conn, &v, 1);
    if (n > 0)
        c->out_n -= (size_t)n;
    else if (n != -E_AGAIN)
        start_over(c);
}

static const struct net_conn_events sender_events = {sender_connected, sender_readable, sender_writable,
                                                     sender_failed};

static void connect_again(void *arg)
{
    struct sender *c = arg;
    c->greeted = false;
    c->count_n = 0;
    loop_timer_in(&c->silence, 5 * SIM_SECOND);
    int rc = net_connect(sim_node_net(c->node), "store", 9092, &sender_events, c, &c->conn, NULL);
    assert(rc == 0);
}

static void *boot_sender(void *arg, struct sim_node *node)
{
    struct sender *c = calloc(1, sizeof *c);
    *c = (struct sender){.node = node, .truth = arg};
    loop_timer_init(&c->again, sim_node_loop(node), connect_again, c);
    loop_timer_init(&c->silence, sim_node_loop(node), on_silence, c);
    connect_again(c);
    return c;
}

static void destroy_sender(void *arg, void *program)
{
    struct sender *c = program;
    (void)arg;
    net_close(c->conn);
    free(c);
}

/* ---- the faults ---- */

struct world {
    struct sim *sim;
    struct sim_node *store, *sender;
    struct truth truth;
    bool calm; /* no more faults */
};

static void start_store(void *arg)
{
    struct world *w = arg;
    if (!sim_node_up(w->store) && !sim_start(w->store)) /* a fault met it while starting */
        sim_at(w->sim, sim_now_us(w->sim) + 100 * SIM_MS, start_store, w);
}

static void heal(void *arg)
{
    struct world *w = arg;
    sim_heal_all(w->sim);
    sim_disk_heal(w->store);
    sim_disk_capacity(w->store, INT64_C(1) << 30);
    if (sim_node_up(w->store))
        sim_pause(w->store, false);
}

static void strike(struct world *w)
{
    struct rng *r = sim_rng(w->sim);
    switch (rng_below(r, 10)) {
    case 0: sim_kill(w->store); break;
    case 1: sim_power_cut(w->store); break;
    case 2: sim_cut(w->store, w->sender); break;
    case 3: sim_cut(w->sender, w->store); break;
    case 4: sim_reset_connections(w->store, w->sender); break;
    case 5: sim_clock_step(w->store, rng_range(r, -3600000, 3600000)); break;
    case 6: sim_crash_at(w->store, SIM_DISK_WRITE, 1 + rng_below(r, 30), rng_below(r, 2)); break;
    case 7: sim_crash_at(w->store, SIM_DISK_SYNC, 1 + rng_below(r, 5), rng_below(r, 2)); break;
    case 8: sim_disk_fail(w->store, SIM_DISK_SYNC, 1 + rng_below(r, 3), 1, -E_IO, "log"); break;
    default:
        if (rng_below(r, 2))
            sim_disk_capacity(w->store, (int64_t)rng_below(r, RECORDS * RECORD));
        else if (sim_node_up(w->store))
            sim_pause(w->store, true);
    }
}

/* A fault, a while later its healing, a while later the next. A fenced store is started anew by its operator. */
static void next_fault(void *arg)
{
    struct world *w = arg;
    struct rng *r = sim_rng(w->sim);
    int64_t now = sim_now_us(w->sim);
    if (w->calm)
        return;
    strike(w);
    sim_at(w->sim, now + rng_range(r, 1, 300) * SIM_MS, heal, w);
    sim_at(w->sim, now + rng_range(r, 1, 300) * SIM_MS, start_store, w);
    sim_at(w->sim, now + rng_range(r, 300, 1000) * SIM_MS, next_fault, w);
}

static void restart_fenced(void *arg)
{
    struct world *w = arg;
    struct store *st = sim_node_program(w->store);
    if (st && st->fenced)
        sim_kill(w->store);
    start_store(w);
    sim_at(w->sim, sim_now_us(w->sim) + SIM_SECOND, restart_fenced, w);
}

static bool all_acknowledged(void *arg)
{
    return ((struct world *)arg)->truth.acknowledged == RECORDS;
}

static void check_file(struct world *w)
{
    struct slice all;
    cr_assert_eq(disk_read_all(sim_node_disk(w->store), PATH, 1 << 20, &all, NULL), 0);
    cr_assert_geq(all.n, RECORDS * RECORD);
    for (uint64_t i = 0; i < RECORDS; i++)
        cr_assert(record_is(all.p + i * RECORD, i));
    free((void *)all.p);
}

/* One whole run; returns the hash of its trace. */
static uint64_t run(uint64_t seed, bool early, bool trusting)
{
    struct world w = {.truth = {.early = early, .trusting = trusting}};
    w.sim = sim_create(&(struct sim_options){.seed = seed, .events_max = 5000000});
    w.store = sim_node_add(
        w.sim, &(struct sim_node_options){
                   .name = "store", .boot = boot_store, .destroy = destroy_store, .arg = &w.truth});
    w.sender = sim_node_add(
        w.sim, &(struct sim_node_options){
                   .name = "sender", .boot = boot_sender, .destroy = destroy_sender, .arg = &w.truth});
    sim_link_default(
        w.sim, &(struct sim_link){.latency_us = 5000, .jitter_us = 2000, .loss = 5000, .buffer_bytes = 4096});
    sim_disk_costs(w.store, &(struct sim_disk_costs){
                                .open_us = 20, .write_us = 5, .sync_us = 5000, .sync_jitter_us = 20000});
    cr_assert(sim_start(w.store) && sim_start(w.sender));
    sim_at(w.sim, sim_now_us(w.sim) + 50 * SIM_MS, next_fault, &w);
    sim_at(w.sim, sim_now_us(w.sim) + SIM_SECOND, restart_fenced, &w);
    sim_run_until(w.sim, 20 * SIM_SECOND, NULL, NULL);
    w.calm = true; /* and now it must get there */
    heal(&w);
    cr_assert_eq(sim_run_until(w.sim, 120 * SIM_SECOND, all_acknowledged, &w), SIM_TRUE, "seed %lu", seed);
    sim_power_cut(w.store);
    check_file(&w);
    uint64_t hash = sim_trace_hash(w.sim);
    sim_destroy(w.sim);
    return hash;
}

Test(sim_store, what_was_acknowledged_survives_every_fault_and_every_seed_runs_twice_the_same)
{
    for (uint64_t seed = 1; seed <= 100; seed++)
        cr_assert_eq(run(seed, false, false), run(seed, false, false), "seed %lu", seed);
    cr_expect_neq(run(1, false, false), run(2, false, false));
}

Test(sim_store, a_store_that_acknowledges_before_its_sync_is_caught, .signal = SIGABRT)
{
    for (uint64_t seed = 1; seed <= 20; seed++)
        run(seed, true, false);
}

Test(sim_store, a_store_that_trusts_the_page_cache_after_a_failed_sync_is_caught, .signal = SIGABRT)
{
    for (uint64_t seed = 1; seed <= 20; seed++)
        run(seed, false, true);
}
