/* A simulated world: any number of nodes in one process and one thread, each with its own loop, network, disk
 * and clock, in virtual time; everything that happens comes from one seed.
 *
 *     struct sim *s = sim_create(&(struct sim_options){.seed = 42});
 *     struct sim_node *b = sim_node_add(s, &(struct sim_node_options){.name = "b1", .boot = boot_broker});
 *     sim_start(b);
 *     assert(sim_run_until(s, sim_now_us(s) + 10 * SIM_SECOND, all_records_arrived, &check) == SIM_TRUE);
 *     sim_power_cut(b);
 *     sim_start(b);        (the boot function again, on what the disk has kept)
 *     sim_destroy(s);
 *
 * The node's program is what `boot` builds on sim_node_loop/net/disk; it runs in turns exactly as on
 * loop_posix: ready sockets, due timers, messages and finished jobs, turn-end hooks. loop_job's `run` is
 * called on virtual time too: after a queueing delay, and `done` after what its disk calls cost; a kill may
 * fall before, between or after.
 *
 * Times are virtual microseconds (int64, since the start of the simulation). One thread. */
#ifndef SUNDOG_TESTS_SUPPORT_SIM_H
#define SUNDOG_TESTS_SUPPORT_SIM_H

#include "base/core/rng.h"
#include "base/world/disk.h"
#include "base/world/loop.h"
#include "base/world/net.h"

#include <stdbool.h>
#include <stdint.h>

#define SIM_MS     INT64_C(1000)
#define SIM_SECOND INT64_C(1000000)
#define SIM_MINUTE (60 * SIM_SECOND)

struct sim;
struct sim_node;

struct sim_options {
    uint64_t seed;
    uint64_t events_max; /* of the whole simulation; 0: 50 million. Passing it fails the test */
    bool log; /* log lines of all nodes to stderr with virtual time; also by the environment's SUNDOG_SIM_LOG
               */
};

/* Prints the seed if the process aborts while it exists. */
struct sim *sim_create(const struct sim_options *o);
/* Destroys the running programs (as sim_kill) and the world. */
void sim_destroy(struct sim *s);

int64_t sim_now_us(const struct sim *s);
/* The test's own randomness, apart from the world's. */
struct rng *sim_rng(struct sim *s);

/* ---- running ---- */
enum sim_end { SIM_TRUE, SIM_TIME, SIM_IDLE };
/* Runs events until `pred` holds (looked at after every event; NULL: never), virtual time `until_us` is
 * reached, or nothing is left to happen. Time then is `until_us`, unless `pred` was true earlier. */
enum sim_end sim_run_until(struct sim *s, int64_t until_us, bool (*pred)(void *arg), void *arg);
/* sim_run_until for so long, whatever happens. */
void sim_run_for(struct sim *s, int64_t us);
/* Calls `fn` at a virtual time, outside every node: a fault, a step of the test's script. */
void sim_at(struct sim *s, int64_t at_us, void (*fn)(void *arg), void *arg);
/* Looked at after every event: an invariant. It asserts. At most SIM_CHECKERS_MAX. */
#define SIM_CHECKERS_MAX 16
void sim_checker(struct sim *s, void (*fn)(void *arg), void *arg);
/* What has happened so far, as a number: two runs of one seed give the same. */
uint64_t sim_trace_hash(const struct sim *s);
uint64_t sim_events(const struct sim *s);
/* A line of the test's own in the trace (and on stderr when logging). */
void sim_trace(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- nodes ---- */
#define SIM_NODES_MAX 32
#define SIM_NAME_MAX  32

struct sim_node_options {
    const char *name; /* also its host name; its address is 10.0.0.<number from 1> */
    /* Builds the program and starts it; what it returns goes to `destroy`. NULL: a start that failed. */
    void *(*boot)(void *arg, struct sim_node *node);
    /* Frees the program's memory, at once, when the node is killed or the simulation ends: in it the world is
     * dead (writes vanish, reads fail with -E_CLOSED, timers and messages are ignored, jobs in flight never
     * finish). NULL: a killed program's memory is left where it is, and the leak checker is told so. */
    void (*destroy)(void *arg, void *program);
    void *arg;
    int64_t disk_bytes; /* 0: 1 GiB */
};

/* The options are copied; the name too. */
struct sim_node *sim_node_add(struct sim *s, const struct sim_node_options *o);
struct loop *sim_node_loop(struct sim_node *n);
struct net *sim_node_net(struct sim_node *n);
/* Tests may look into it too, without cost or fault; files they have open are gone after a kill or power cut. */
struct disk *sim_node_disk(struct sim_node *n);
struct sim *sim_node_sim(struct sim_node *n);
const char *sim_node_name(const struct sim_node *n);
const char *sim_node_address(const struct sim_node *n);
/* What `boot` returned; NULL while down. */
void *sim_node_program(struct sim_node *n);
bool sim_node_up(const struct sim_node *n);
/* The program has called loop_stop: it has finished in peace. */
bool sim_node_stopped(const struct sim_node *n);

/* Boots; false when `boot` gave NULL. */
bool sim_start(struct sim_node *n);
/* The process dies: connections are reset or end, locks are gone, the disk keeps all that was written. */
void sim_kill(struct sim_node *n);
/* The machine dies: peers hear nothing, the disk keeps what was synced and, as the seed says, parts of the
 * rest. */
void sim_power_cut(struct sim_node *n);
/* SIGSTOP and SIGCONT: no turn runs, kernel buffers still fill. */
void sim_pause(struct sim_node *n, bool pause);

/* ---- clocks ---- */
/* The node's wall clock jumps by so much. */
void sim_clock_step(struct sim_node *n, int64_t ms);
/* It gains so many microseconds in each second from now on. */
void sim_clock_drift(struct sim_node *n, int32_t us_per_s);

/* ---- network ---- */
struct sim_link {
    int64_t latency_us;  /* one way; default 100 */
    int64_t jitter_us;   /* added, exponentially distributed with this mean; default 50 */
    int64_t bytes_per_s; /* 0: unlimited */
    uint32_t loss; /* per million segments: each costs a retransmission's delay, as TCP hides it; default 0 */
    uint32_t reset;       /* per million segments: the connection breaks; default 0 */
    int64_t buffer_bytes; /* what a socket takes before it pushes back, per direction; default 262144 */
};

/* The values of a link that nobody has set. */
void sim_link_default(struct sim *s, const struct sim_link *link);
/* From a to b only. */
void sim_link_set(struct sim_node *a, struct sim_node *b, const struct sim_link *link);
/* Nothing gets from a to b (one way). TCP keeps what was sent and brings it after healing; a connection that
 * is cut for longer than SIM_TCP_TIMEOUT breaks, a connect fails after SIM_CONNECT_TIMEOUT. */
#define SIM_TCP_TIMEOUT     (120 * SIM_SECOND)
#define SIM_CONNECT_TIMEOUT (30 * SIM_SECOND)
void sim_cut(struct sim_node *a, struct sim_node *b);
void sim_heal(struct sim_node *a, struct sim_node *b);
void sim_cut_both(struct sim_node *a, struct sim_node *b);
/* The node from all others, both ways. */
void sim_isolate(struct sim_node *n);
void sim_heal_all(struct sim *s);
/* Every connection between the two is reset now. */
void sim_reset_connections(struct sim_node *a, struct sim_node *b);
/* Reads and writes move fewer bytes than they could, as the seed says: per million calls; default 300,000. */
void sim_partial_io(struct sim *s, uint32_t per_million);
/* Open connections that touch this node. */
unsigned sim_connections(const struct sim_node *n);

/* ---- disk ---- */
struct sim_disk_costs {
    int64_t open_us, write_us, bytes_per_s, sync_us, sync_jitter_us; /* jitter: mean of an exponential */
};
void sim_disk_costs(struct sim_node *n, const struct sim_disk_costs *c);

enum sim_disk_op {
    SIM_DISK_READ,
    SIM_DISK_WRITE,
    SIM_DISK_SYNC,
    SIM_DISK_SYNC_DIR,
    SIM_DISK_SYNC_ALL,
    SIM_DISK_RENAME,
    SIM_DISK_OPEN,
    SIM_DISK_TRUNCATE,
    SIM_DISK_UNLINK, /* and rmdir */
    SIM_DISK_MKDIR,
    SIM_DISK_OPS
};
/* The nth call from now (1: the next) of this kind fails with `code`, and `times` of them in all (0: for
 * ever). Only for paths that contain `path_part` (NULL: all). A failed sync loses what it should have synced,
 * and later syncs that succeed do not bring it back: pages are clean, content gone at a power cut. One fault
 * per kind of call. */
void sim_disk_fail(struct sim_node *n, enum sim_disk_op op, uint64_t nth, uint64_t times, int code,
                   const char *path_part);
void sim_disk_heal(struct sim_node *n);
/* The process dies (the machine, with `power`) at the nth call of this kind from now, just before it or just after it,
 * as the seed says: also in the middle of a turn, where sim_kill cannot fall. What the program still does in that turn
 * has no effect. `nth` 0: not any more. */
void sim_crash_at(struct sim_node *n, enum sim_disk_op op, uint64_t nth, bool power);
/* Calls of this kind so far: to count a run, then fail each of them in turn. */
uint64_t sim_disk_calls(const struct sim_node *n, enum sim_disk_op op);
/* Writes beyond `bytes` in all files fail with -E_NOSPACE, after writing what fits. */
void sim_disk_capacity(struct sim_node *n, int64_t bytes);
/* Flips bits of a byte, synced or not. */
void sim_disk_flip(struct sim_node *n, const char *path, int64_t at, uint8_t mask);
/* At a power cut each unsynced 512-byte sector is kept with this chance (default 500,000 per million), and
 * each unsynced name, rename or unlink likewise. */
void sim_disk_keep(struct sim_node *n, uint32_t per_million);
/* Copies the whole disk of one node, as it is now, over another's (which must be down). */
void sim_disk_copy(struct sim_node *to, struct sim_node *from);

#endif
