/* What the simulator's files share: the event queue (sim.c), nodes and their loops (sim_node.c), TCP (sim_net.c,
 * sim_tcp.c), the disk (sim_disk.c, sim_fs.c, sim_crash.c). */
#ifndef SUNDOG_TESTS_SUPPORT_SIM_INTERNAL_H
#define SUNDOG_TESTS_SUPPORT_SIM_INTERNAL_H

#include "base/world/turn.h"
#include "tests/support/sim/sim.h"

/* ---- events ---- */

/* Embedded in what it is about; in the queue at most once. Equal times run in the order of scheduling. */
struct sim_event {
    int64_t at_us;
    uint64_t order;
    size_t place; /* in the heap, from 1; 0: not scheduled */
    void (*fn)(struct sim_event *e);
};

void sim_schedule(struct sim *s, struct sim_event *e, int64_t at_us);
void sim_unschedule(struct sim *s, struct sim_event *e);

#define SIM_OWNER(e, type, member) ((type *)(void *)((char *)(e)-offsetof(type, member)))

struct sim {
    uint64_t seed;
    struct rng rng;      /* the world's */
    struct rng test_rng; /* the test's */
    int64_t now_us;
    uint64_t events, events_max, orders, hash;
    bool log, logging;
    struct sim_event **heap;
    size_t heap_n, heap_cap;
    struct sim_node *nodes[SIM_NODES_MAX];
    unsigned nodes_n;
    struct sim_node *current; /* whose program is running */
    void *running_handle;     /* whose callback; NULL once closed in there */
    struct {
        void (*fn)(void *arg);
        void *arg;
    } checkers[SIM_CHECKERS_MAX];
    unsigned checkers_n;
    struct list scripts; /* sim_at */
    struct sim_link link_default;
    uint32_t partial_io;
    struct list connections; /* struct sim_tcp */
};

/* Into the trace's hash. */
void sim_note(struct sim *s, const char *what, uint64_t a, uint64_t b);

/* ---- nodes ---- */

#define SIM_LANES 4

struct sim_lane {
    struct sim_node *node;
    struct list queue; /* struct loop_job; the first one is the one at work */
    struct sim_event event;
    bool running; /* `run` has been called */
};

struct sim_route {
    struct sim_link link;
    bool set, cut;
    int64_t free_at_us; /* when the wire has sent what it was given */
};

struct sim_node {
    struct turn turn; /* first: the node's struct loop */
    struct sim *sim;
    unsigned number;
    char name[SIM_NAME_MAX], address[SIM_NAME_MAX];
    struct sim_node_options options;
    bool up;      /* a process runs */
    bool host_up; /* the machine has power: it answers with resets where no process does */
    bool paused, doomed, doomed_power;
    void *program;
    uint64_t boots;
    struct rng rng;
    struct sim_event turn_event, doom_event;
    int64_t busy_until_us, cost_us; /* what its calls have cost in this turn or job */
    struct sim_lane lanes[SIM_LANES];
    int64_t mono_offset_us, wall_offset_ms, drift_from_us;
    int32_t drift_us_per_s;
    struct net net;
    struct list ends, listeners; /* of sim_net.c */
    uint16_t port_next;
    struct sim_route routes[SIM_NODES_MAX]; /* to each node */
    struct sim_disk *disk;
};

/* The program's calls have no effect: it has been killed, or is about to be. */
static inline bool sim_inert(const struct sim_node *n)
{
    return !n->up || n->doomed;
}

/* A turn is due: something is ready, or a timer is armed. */
void sim_node_wake(struct sim_node *n);
/* Dies as soon as its running turn or job is over; until then inert. */
void sim_node_doom(struct sim_node *n, bool power);
int64_t sim_node_wall_ms(const struct sim_node *n);

/* ---- network ---- */

void sim_net_init(struct sim_node *n);
/* The process is gone: its ends break or finish (`silent`: nothing leaves the machine). Handles stay until
 * sim_net_free. */
void sim_net_detach(struct sim_node *n, bool silent);
void sim_net_free(struct sim_node *n);
void sim_tcp_free_all(struct sim *s);

/* ---- disk ---- */

struct sim_disk *sim_disk_new(struct sim_node *n, int64_t bytes);
void sim_disk_free(struct sim_disk *d);
struct disk *sim_disk_vtable(struct sim_disk *d);
void sim_disk_close_handles(struct sim_disk *d);
/* What a power cut leaves. */
void sim_disk_crash(struct sim_disk *d);

/* Leaks of a program without `destroy` are not the test's. */
void sim_leaks_ignore(bool ignore);

#endif
