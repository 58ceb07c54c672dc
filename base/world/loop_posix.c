#include "base/world/loop_posix.h"

#include "base/world/clock.h"
#include "base/world/job_pool.h"
#include "base/world/libevent.h"
#include "base/world/loop_posix_internal.h"
#include "base/world/process.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define TIMERS_RESERVED 1024

struct loop_posix {
    struct turn turn; /* first */
    struct event_base *base;
    struct job_pool *jobs;
    unsigned jobs_running; /* given to the pool, `done` not yet run */

    int timer_fd;
    struct event timer_event;
    int64_t timer_fd_us; /* what it is armed for; INT64_MAX: nothing */

    int wake_fd;
    struct event wake_event;
    pthread_mutex_t lock; /* for what follows */
    struct list inbox;    /* struct loop_msg */
    struct list finished; /* struct loop_job */
    bool sleeping;        /* a poster must wake the loop, once */
    bool stop_asked;
};

static struct loop_posix *of(struct loop *l)
{
    return (struct loop_posix *)l;
}

/* ---- from other threads ---- */

/* Under the lock. A busy loop looks into its inbox anyway and costs the poster no system call. */
static void wake(struct loop_posix *l)
{
    if (!l->sleeping)
        return;
    l->sleeping = false;
    uint64_t one = 1;
    ssize_t n = write(l->wake_fd, &one, sizeof one);
    assert(n == sizeof one);
    (void)n;
}

static void posix_post(struct loop *loop, struct loop_msg *msg)
{
    struct loop_posix *l = of(loop);
    assert(msg->fn);
    pthread_mutex_lock(&l->lock);
    list_push(&l->inbox, &msg->link);
    wake(l);
    pthread_mutex_unlock(&l->lock);
}

static void job_finished(struct loop_job *job)
{
    struct loop_posix *l = of(job->loop);
    assert(job->done);
    assert(!list_linked(&job->link));
    pthread_mutex_lock(&l->lock);
    list_push(&l->finished, &job->link);
    wake(l);
    pthread_mutex_unlock(&l->lock);
}

void loop_posix_stop(struct loop_posix *l)
{
    pthread_mutex_lock(&l->lock);
    l->stop_asked = true;
    wake(l);
    pthread_mutex_unlock(&l->lock);
}

/* ---- the loop's own thread ---- */

static void posix_job(struct loop *loop, struct loop_job *job)
{
    struct loop_posix *l = of(loop);
    assert(l->jobs);
    assert(job->loop == loop);
    l->jobs_running++;
    job_pool_add(l->jobs, job, job_finished);
}

static void posix_stop(struct loop *loop)
{
    of(loop)->turn.stopping = true;
}

static uint64_t posix_random(struct loop *loop)
{
    (void)loop;
    return process_random();
}

static const struct loop_ops posix_ops = {
    .timer_set = turn_timer_set,
    .timer_stop = turn_timer_stop,
    .post = posix_post,
    .job = posix_job,
    .stop = posix_stop,
    .random = posix_random,
};

static void sample_clock(struct loop_posix *l)
{
    int64_t now_us = clock_now_us();
    assert(now_us >= l->turn.loop.now_us);
    l->turn.loop.now_us = now_us;
    l->turn.loop.wall_ms = clock_wall_ms();
}

static void on_timer_fd(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    uint64_t expirations;
    if (read(fd, &expirations, sizeof expirations) == sizeof expirations)
        ((struct loop_posix *)arg)->timer_fd_us = INT64_MAX;
}

static void on_wake_fd(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    (void)arg;
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof count);
    (void)n; /* woken is woken */
}

/* Armed only when the earliest time has become earlier: a timer that was stopped costs one idle wake-up at most. */
static void arm_timer_fd(struct loop_posix *l, int64_t due_us)
{
    assert(l->timer_fd >= 0);
    if (due_us >= l->timer_fd_us)
        return;
    int64_t at_us = due_us > 1 ? due_us : 1;
    struct itimerspec spec = {.it_value = {at_us / 1000000, at_us % 1000000 * 1000}};
    int rc = timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
    assert(rc == 0);
    (void)rc;
    l->timer_fd_us = due_us;
}

/* Whether the kernel may put this thread to sleep; from now on posters wake it. */
static bool may_sleep(struct loop_posix *l)
{
    pthread_mutex_lock(&l->lock);
    bool may = list_empty(&l->inbox) && list_empty(&l->finished) && !l->stop_asked &&
               !turn_pending(&l->turn) && !l->turn.stopping;
    l->sleeping = may;
    pthread_mutex_unlock(&l->lock);
    return may;
}

static void move_all(struct list *to, struct list *from)
{
    assert(to != from);
    if (list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    list_init(from);
}

static void take_inbox(struct loop_posix *l)
{
    unsigned finished = 0;
    pthread_mutex_lock(&l->lock);
    l->sleeping = false;
    move_all(&l->turn.messages, &l->inbox);
    list_each (at, &l->finished)
        finished++;
    move_all(&l->turn.finished, &l->finished);
    if (l->stop_asked)
        l->turn.stopping = true;
    l->stop_asked = false;
    pthread_mutex_unlock(&l->lock);
    assert(finished <= l->jobs_running);
    l->jobs_running -= finished;
}

void loop_posix_turn(struct loop_posix *l, int64_t wait_us)
{
    assert(wait_us >= -1);
    int64_t due_us = turn_timer_next(&l->turn), now_us = clock_now_us();
    /* What is due at once, "soon" in most of the code, costs no timer of the kernel's. */
    bool wait = wait_us != 0 && due_us > now_us && may_sleep(l);
    if (wait) {
        int64_t most_us = wait_us < 0 ? INT64_MAX : now_us + wait_us;
        arm_timer_fd(l, due_us < most_us ? due_us : most_us);
    }
    int rc = event_base_loop(l->base, EVLOOP_ONCE | (wait ? 0 : EVLOOP_NONBLOCK)); /* 1: wait for readiness */
    assert(rc >= 0);
    (void)rc;
    sample_clock(l); /* 2 */
    take_inbox(l);
    turn_run(&l->turn); /* 3 to 6 */
}

void loop_posix_run(struct loop_posix *l)
{
    while (!l->turn.stopping)
        loop_posix_turn(l, -1);
    l->turn.stopping = false;
}

struct loop *loop_posix_loop(struct loop_posix *l)
{
    return &l->turn.loop;
}

struct event_base *loop_posix_base(struct loop_posix *l)
{
    return l->base;
}

struct turn *loop_posix_turn_of(struct loop_posix *l)
{
    return &l->turn;
}

bool loop_posix_has_jobs(const struct loop_posix *l)
{
    return l->jobs != NULL;
}

/* ---- watched descriptors ---- */

struct loop_watch {
    struct turn_ready ready;
    struct loop_posix *loop;
    struct event event;
    void (*fn)(void *arg);
    void *arg;
};

static void on_watched(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct loop_watch *w = arg;
    turn_ready(&w->loop->turn, &w->ready);
}

static void run_watch(struct turn_ready *r)
{
    struct loop_watch *w = (struct loop_watch *)(void *)r;
    w->fn(w->arg);
}

int loop_posix_watch(struct loop_posix *l, int fd, void (*fn)(void *arg), void *arg, struct loop_watch **out,
                     struct err *err)
{
    assert(fd >= 0);
    assert(fn);
    assert(out);
    struct loop_watch *w = calloc(1, sizeof *w);
    if (!w)
        return err_set(err, -E_NOMEM, "watch: %s", err_str(-E_NOMEM));
    *w = (struct loop_watch){.ready = {.fn = run_watch}, .loop = l, .fn = fn, .arg = arg};
    if (event_assign(&w->event, l->base, fd, EV_READ | EV_PERSIST, on_watched, w) != 0 ||
        event_add(&w->event, NULL) != 0) {
        free(w);
        return err_set(err, -E_IO, "watch: descriptor %d cannot be watched: %s", fd, strerror(errno));
    }
    *out = w;
    return 0;
}

void loop_posix_unwatch(struct loop_watch *w)
{
    if (!w)
        return;
    event_del(&w->event);
    if (list_linked(&w->ready.link))
        list_remove(&w->ready.link);
    free(w);
}

/* ---- from start to end ---- */

static int open_own_fds(struct loop_posix *l, struct err *err)
{
    l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (l->timer_fd < 0 || l->wake_fd < 0)
        return err_set(err, err_from_errno(errno), "event loop: no descriptor: %s", strerror(errno));
    event_assign(&l->timer_event, l->base, l->timer_fd, EV_READ | EV_PERSIST, on_timer_fd, l);
    event_assign(&l->wake_event, l->base, l->wake_fd, EV_READ | EV_PERSIST, on_wake_fd, l);
    if (event_add(&l->timer_event, NULL) != 0 || event_add(&l->wake_event, NULL) != 0)
        return err_set(err, -E_IO, "event loop: cannot watch its own descriptors");
    return 0;
}

static struct event_base *make_base(void)
{
    struct event_config *config = event_config_new();
    if (!config)
        return NULL;
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK); /* other threads use the inbox only */
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

int loop_posix_create(const struct loop_posix_options *o, struct loop_posix **out, struct err *err)
{
    assert(o);
    assert(out);
    struct loop_posix *l = calloc(1, sizeof *l);
    if (!l)
        return err_set(err, -E_NOMEM, "event loop: %s", err_str(-E_NOMEM));
    turn_init(&l->turn, &posix_ops);
    l->jobs = o->jobs;
    l->timer_fd = l->wake_fd = -1;
    l->timer_fd_us = INT64_MAX;
    pthread_mutex_init(&l->lock, NULL);
    list_init(&l->inbox);
    list_init(&l->finished);
    l->base = turn_reserve(&l->turn, TIMERS_RESERVED) ? make_base() : NULL;
    int rc = l->base ? open_own_fds(l, err) : err_set(err, -E_NOMEM, "event loop: cannot be made");
    if (rc) {
        loop_posix_destroy(l);
        return rc;
    }
    sample_clock(l);
    *out = l;
    return 0;
}

/* What was asked for before the end still happens: jobs finish, messages arrive. */
static void drain(struct loop_posix *l)
{
    while (l->jobs_running > 0)
        loop_posix_turn(l, -1);
    while (!may_sleep(l) && !l->turn.stopping)
        loop_posix_turn(l, 0);
}

void loop_posix_destroy(struct loop_posix *l)
{
    if (!l)
        return;
    l->turn.stopping = false;
    if (l->base && l->wake_fd >= 0)
        drain(l);
    if (l->timer_fd >= 0)
        close(l->timer_fd);
    if (l->wake_fd >= 0)
        close(l->wake_fd);
    if (l->base)
        event_base_free(l->base);
    turn_fini(&l->turn);
    pthread_mutex_destroy(&l->lock);
    free(l);
}
