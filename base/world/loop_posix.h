/* struct loop on libevent: readiness from libevent, timers in a heap of our own behind one timerfd, messages
 * from other threads behind an eventfd, jobs on a pool of threads.
 *
 * A turn (loop_posix_run): 1 wait for readiness; 2 sample the clock, once; 3 handlers of ready sockets; 4
 * timers that are due; 5 messages, and jobs that are done; 6 the turn-end hooks. A loop without work sleeps
 * in the kernel. create, run and destroy belong to one thread; only loop_post may be called from others. */
#ifndef SUNDOG_BASE_WORLD_LOOP_POSIX_H
#define SUNDOG_BASE_WORLD_LOOP_POSIX_H

#include "base/core/err.h"
#include "base/world/loop.h"

struct event_base;
struct loop_posix;
struct job_pool;

#define JOB_THREADS_DEFAULT 4
#define JOB_THREADS_MAX     64

/* Threads for loop_job, shared by any number of loops; lane modulo threads picks one. The threads are started
 * here and joined by destroy, which runs what is still queued; every loop that uses the pool must be
 * destroyed before. */
int job_pool_create(unsigned threads, struct job_pool **out, struct err *err);
void job_pool_destroy(struct job_pool *p);

struct loop_posix_options {
    struct job_pool *jobs; /* NULL: loop_job must not be used */
};

int loop_posix_create(const struct loop_posix_options *o, struct loop_posix **out, struct err *err);
/* Waits for jobs that are running and lets their `done` and the messages already posted run; then frees.
 * Sockets of this loop must be closed before. */
void loop_posix_destroy(struct loop_posix *l);
struct loop *loop_posix_loop(struct loop_posix *l);
/* Until loop_stop. */
void loop_posix_run(struct loop_posix *l);
/* One turn; waits at most `wait_us` (0: not at all, -1: for ever). For tests and for programs that drive
 * themselves. */
void loop_posix_turn(struct loop_posix *l, int64_t wait_us);
/* loop_stop from any thread. */
void loop_posix_stop(struct loop_posix *l);

/* A descriptor of somebody else's (librdkafka's queue, a signalfd) watched by this loop: `fn` runs in step 3
 * while `fd` is readable. */
struct loop_watch;
int loop_posix_watch(struct loop_posix *l, int fd, void (*fn)(void *arg), void *arg, struct loop_watch **out,
                     struct err *err);
void loop_posix_unwatch(struct loop_watch *w);

#endif
