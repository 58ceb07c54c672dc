#include "mirror/offsets/store_writer.h"

#include <assert.h>
#include <stdlib.h>

#define RETRY_US INT64_C(1000000)

struct store_writer {
    struct loop *loop;
    struct store *store;
    void (*trouble)(void *arg, const char *text);
    void *arg;
    struct store_batch *filling, *committing;
    struct list waits, waits_committing; /* for `filling`, for `committing` */
    struct loop_timer timer;
    struct loop_job job;
    bool running, failed; /* failed: `committing` is to be tried again */
    int status;
    struct err err;
    void (*closed)(void *arg);
    void *closed_arg;
};

static void drop_waits(struct list *waits)
{
    while (!list_empty(waits))
        list_pop(waits);
}

static void writer_free(struct store_writer *w)
{
    drop_waits(&w->waits);
    drop_waits(&w->waits_committing);
    assert(!w->timer.armed || !w->closed);
    void (*closed)(void *) = w->closed;
    void *arg = w->closed_arg;
    store_batch_destroy(w->filling);
    store_batch_destroy(w->committing);
    free(w);
    if (closed)
        closed(arg);
}

static void run(struct loop_job *job)
{
    struct store_writer *w = LIST_ENTRY(job, struct store_writer, job);
    w->status = store_commit(w->store, w->committing, &w->err);
}

static void start(void *arg)
{
    struct store_writer *w = arg;
    assert(!w->running);
    assert(w->failed ||
           store_batch_empty(w->committing)); /* one or the other holds what is not in the store */
    if (!w->failed) {
        struct store_batch *empty = w->committing;
        w->committing = w->filling;
        w->filling = empty;
        assert(list_empty(&w->waits_committing));
        while (!list_empty(&w->waits))
            list_push(&w->waits_committing, list_pop(&w->waits));
    }
    w->running = true;
    loop_job(w->loop, &w->job);
}

static void done(struct loop_job *job)
{
    struct store_writer *w = LIST_ENTRY(job, struct store_writer, job);
    assert(w->running && w->filling != w->committing);
    w->running = false;
    bool was_failed = w->failed;
    w->failed = w->status != 0;
    if (w->failed || was_failed)
        w->trouble(w->arg, w->failed ? w->err.text : NULL);
    if (!w->failed) {
        store_batch_clear(w->committing);
        while (!list_empty(&w->waits_committing)) {
            struct store_wait *wait = LIST_ENTRY(list_pop(&w->waits_committing), struct store_wait, link);
            wait->done(wait->arg);
        }
    }
    assert(!w->running);
    bool more = w->failed ? !w->closed : !store_batch_empty(w->filling);
    if ((more && w->closed) || (!w->failed && !list_empty(&w->waits))) {
        loop_timer_stop(&w->timer);
        start(w);
    } else if (more)
        loop_timer_in(&w->timer, w->failed ? RETRY_US : WRITER_DELAY_MS * INT64_C(1000));
    else if (w->closed)
        writer_free(w);
}

int store_writer_create(struct loop *loop, struct store *s, unsigned lane,
                        void (*trouble)(void *arg, const char *text), void *arg, struct store_writer **out,
                        struct err *err)
{
    struct store_writer *w = calloc(1, sizeof *w);
    if (w) {
        w->loop = loop;
        w->store = s;
        list_init(&w->waits);
        list_init(&w->waits_committing);
        w->trouble = trouble;
        w->arg = arg;
        w->filling = store_batch_create(s);
        w->committing = store_batch_create(s);
        w->job = (struct loop_job){.lane = lane, .run = run, .done = done};
        loop_timer_init(&w->timer, loop, start, w);
    }
    if (!w || !w->filling || !w->committing) {
        if (w)
            writer_free(w);
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    }
    *out = w;
    return 0;
}

struct store_batch *store_writer_batch(struct store_writer *w)
{
    assert(!w->closed);
    if (!w->running && !w->timer.armed)
        loop_timer_in(&w->timer, WRITER_DELAY_MS * INT64_C(1000));
    return w->filling;
}

void store_writer_sync(struct store_writer *w, struct store_wait *wait)
{
    assert(!w->closed && wait->done && !list_linked(&wait->link));
    list_push(&w->waits, &wait->link);
    if (w->running || w->failed)
        return; /* the next commit is theirs */
    loop_timer_stop(&w->timer);
    start(w);
}

void store_writer_close(struct store_writer *w, void (*closed)(void *arg), void *arg)
{
    if (!w) {
        closed(arg);
        return;
    }
    assert(!w->closed);
    w->closed = closed;
    w->closed_arg = arg;
    loop_timer_stop(&w->timer);
    if (w->running)
        return;
    if (w->failed || !store_batch_empty(w->filling))
        start(w);
    else
        writer_free(w);
}

void store_writer_abandon(struct store_writer *w)
{
    if (w)
        writer_free(w);
}
