/* One thread's event loop: time, timers, messages from other threads, and jobs that may block.
 *
 * Two implementations stand behind the vtable: libevent's (loop_posix.h) and the simulator's virtual time
 * (tests/support/sim). Code that decides never sees which. Everything is for the loop's own thread but
 * loop_post. A turn: wait for readiness, sample the clock once, run what is due (I/O, timers, messages), then
 * the turn-end hooks: a batch is persisted and flushed once per turn. Nothing runs a handler from inside
 * another one's call. */
#ifndef SUNDOG_BASE_WORLD_LOOP_H
#define SUNDOG_BASE_WORLD_LOOP_H

#include "base/core/list.h"

#include <stdbool.h>
#include <stdint.h>

struct loop;

/* A one-shot timer, embedded in its owner. */
struct loop_timer {
    struct loop *loop;
    void (*fn)(void *arg);
    void *arg;
    int64_t due_us; /* monotonic; meaningful while armed */
    bool armed;
    void *impl; /* the loop's own */
};

/* A message to a loop; the memory is the sender's until `fn` has been called on the loop's thread. */
struct loop_msg {
    struct list link;
    void (*fn)(struct loop_msg *msg);
};

/* Work that may block: `run` on some other thread, then `done` on the loop. No bound on the queue but what
 * callers keep in flight: each caller states its own. `lane` picks a thread (lane modulo the number of
 * threads): jobs of one lane run in order, one at a time. */
struct loop_job {
    struct list link;
    struct loop *loop;
    unsigned lane;
    void (*run)(struct loop_job *job);
    void (*done)(struct loop_job *job);
};

/* A hook that runs at the end of every turn, in order of registration. */
struct loop_hook {
    struct list link;
    void (*fn)(void *arg);
    void *arg;
};

struct loop_ops {
    void (*timer_set)(struct loop *l, struct loop_timer *t);
    void (*timer_stop)(struct loop *l, struct loop_timer *t);
    void (*post)(struct loop *l, struct loop_msg *msg);
    void (*job)(struct loop *l, struct loop_job *job);
    void (*stop)(struct loop *l);
    uint64_t (*random)(struct loop *l);
};

struct loop {
    const struct loop_ops *ops;
    int64_t now_us;  /* monotonic, sampled once per turn */
    int64_t wall_ms; /* wall clock of the same moment, milliseconds since 1970 */
    struct list hooks;
};

/* Monotonic microseconds and wall milliseconds of this turn. */
static inline int64_t loop_now_us(const struct loop *l)
{
    return l->now_us;
}

static inline int64_t loop_wall_ms(const struct loop *l)
{
    return l->wall_ms;
}

static inline void loop_timer_init(struct loop_timer *t, struct loop *l, void (*fn)(void *arg), void *arg)
{
    *t = (struct loop_timer){.loop = l, .fn = fn, .arg = arg};
}

/* Arms or re-arms. A time that has passed is due in the next turn. The timer is disarmed before `fn` runs. */
static inline void loop_timer_at(struct loop_timer *t, int64_t due_us)
{
    t->due_us = due_us;
    t->loop->ops->timer_set(t->loop, t);
}

static inline void loop_timer_in(struct loop_timer *t, int64_t delay_us)
{
    loop_timer_at(t, t->loop->now_us + delay_us);
}

static inline void loop_timer_stop(struct loop_timer *t)
{
    if (t->armed)
        t->loop->ops->timer_stop(t->loop, t);
}

/* From any thread. Messages of one sender arrive in order. */
static inline void loop_post(struct loop *l, struct loop_msg *msg)
{
    l->ops->post(l, msg);
}

static inline void loop_job(struct loop *l, struct loop_job *job)
{
    job->loop = l;
    l->ops->job(l, job);
}

static inline void loop_hook_add(struct loop *l, struct loop_hook *h)
{
    list_push(&l->hooks, &h->link);
}

static inline void loop_hook_remove(struct loop_hook *h)
{
    list_remove(&h->link);
}

/* Ends loop_posix_run after this turn; from the loop's thread. */
static inline void loop_stop(struct loop *l)
{
    l->ops->stop(l);
}

/* Randomness for jitter, ids and elections: the kernel's, or the simulator's seed. */
static inline uint64_t loop_random(struct loop *l)
{
    return l->ops->random(l);
}

#endif
