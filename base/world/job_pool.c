#include "base/world/job_pool.h"

#include "base/world/thread.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

struct worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct list queue; /* under lock */
    bool quit;         /* under lock */
    void (*finished)(struct loop_job *job);
};

struct job_pool {
    unsigned n;
    struct worker workers[];
};

static void work(void *arg)
{
    struct worker *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (list_empty(&w->queue) && !w->quit)
            pthread_cond_wait(&w->wake, &w->lock);
        if (list_empty(&w->queue))
            break; /* told to quit, and nothing left */
        struct loop_job *job = LIST_ENTRY(list_pop(&w->queue), struct loop_job, link);
        void (*finished)(struct loop_job *) = w->finished;
        pthread_mutex_unlock(&w->lock);
        assert(finished);
        assert(!list_linked(&job->link));
        job->run(job);
        finished(job);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
}

static void stop_workers(struct job_pool *p, unsigned n)
{
    assert(n <= p->n);
    for (unsigned i = 0; i < n; i++) {
        struct worker *w = &p->workers[i];
        pthread_mutex_lock(&w->lock);
        w->quit = true;
        pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->lock);
        thread_join(w->thread);
        assert(list_empty(&w->queue));
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->lock);
    }
}

int job_pool_create(unsigned threads, struct job_pool **out, struct err *err)
{
    if (threads == 0 || threads > JOB_THREADS_MAX)
        return err_set(err, -E_INVALID, "job threads: from 1 to %d, not %u", JOB_THREADS_MAX, threads);
    struct job_pool *p = calloc(1, sizeof *p + threads * sizeof p->workers[0]);
    if (!p)
        return err_set(err, -E_NOMEM, "job threads: %s", err_str(-E_NOMEM));
    p->n = threads;
    for (unsigned i = 0; i < threads; i++) {
        struct worker *w = &p->workers[i];
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->wake, NULL);
        list_init(&w->queue);
        char name[16];
        snprintf(name, sizeof name, "job-%u", i);
        int rc = thread_start(&w->thread, name, work, w, err);
        if (rc) {
            pthread_cond_destroy(&w->wake);
            pthread_mutex_destroy(&w->lock);
            stop_workers(p, i);
            free(p);
            return rc;
        }
    }
    *out = p;
    return 0;
}

void job_pool_destroy(struct job_pool *p)
{
    if (!p)
        return;
    stop_workers(p, p->n);
    free(p);
}

void job_pool_add(struct job_pool *p, struct loop_job *job, void (*finished)(struct loop_job *job))
{
    assert(job->run);
    assert(job->done);
    struct worker *w = &p->workers[job->lane % p->n];
    pthread_mutex_lock(&w->lock);
    assert(!w->quit);
    w->finished = finished; /* the same for every loop of the process */
    list_push(&w->queue, &job->link);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}
