/* What every loop's turn is made of, whoever provides readiness: timers in a heap, ready things, messages, hooks.
 * loop_posix and the simulator stand on it, so that a program meets the same order in both.
 *
 * turn_run carries out steps 3 to 6 of loop_posix.h's list with the clock that the caller has sampled into `loop`.
 * Nothing that becomes ready, due or posted during a turn runs in that same turn: a turn ends. One thread. */
#ifndef SUNDOG_BASE_WORLD_TURN_H
#define SUNDOG_BASE_WORLD_TURN_H

#include "base/world/loop.h"

#include <stddef.h>

/* A thing that has work in step 3: a socket, a listener, a descriptor. Embedded; removing `link` takes it back. */
struct turn_ready {
    struct list link;
    void (*fn)(struct turn_ready *r);
};

struct turn_timer {
    int64_t due_us;
    uint64_t order; /* first armed, first run, among equal times */
    struct loop_timer *timer;
};

struct turn {
    struct loop loop; /* first: a loop is cast to its turn */
    struct list ready;
    struct list messages;
    struct list finished;      /* jobs whose `done` is to run */
    struct turn_timer *timers; /* a binary heap */
    size_t timers_n, timers_cap;
    uint64_t timers_order;
    bool stopping;
};

void turn_init(struct turn *t, const struct loop_ops *ops);
/* Room for so many timers at once; false without memory. Above it the heap grows, and a timer that finds no memory then
 * ends the process. */
bool turn_reserve(struct turn *t, size_t timers);
/* Disarms what is armed; frees the heap. */
void turn_fini(struct turn *t);
void turn_run(struct turn *t);

void turn_timer_set(struct loop *l, struct loop_timer *timer);
void turn_timer_stop(struct loop *l, struct loop_timer *timer);
/* When the next timer is due, INT64_MAX when none is armed. */
int64_t turn_timer_next(const struct turn *t);
/* In the next turn; once, however often it is said. */
void turn_ready(struct turn *t, struct turn_ready *r);
/* Something waits for a turn already. */
bool turn_pending(const struct turn *t);

#endif
