/* Two loops, a pool of job threads and two outside senders at once: what the thread sanitizer must find clean.
 * A plain program, because Criterion aborts under it. */
#include "base/world/loop_posix.h"
#include "base/world/thread.h"

#include <stdio.h>
#include <stdlib.h>

#define MESSAGES 5000
#define JOBS     300

struct shard {
    struct loop_posix *lp;
    struct loop *loop;
    struct shard *other;
    int pings, jobs_done, outside; /* the loop's thread only */
    pthread_t thread;
};

struct message {
    struct loop_msg msg;
    struct shard *to;
    int left;
};

struct work {
    struct loop_job job;
    struct shard *shard;
    int input, output; /* handed over by the queues alone */
};

static void finish(struct shard *s)
{
    if (s->pings == MESSAGES && s->jobs_done == JOBS && s->outside == MESSAGES)
        loop_stop(s->loop);
}

static void ping(struct loop_msg *msg)
{
    struct message *m = (struct message *)(void *)msg;
    struct shard *s = m->to;
    s->pings++;
    if (m->left-- > 0) {
        m->to = s->other;
        loop_post(m->to->loop, msg);
    } else {
        free(m);
    }
    finish(s);
}

static void from_outside(struct loop_msg *msg)
{
    struct message *m = (struct message *)(void *)msg;
    m->to->outside++;
    finish(m->to);
    free(m);
}

static void run(struct loop_job *job)
{
    struct work *w = (struct work *)(void *)job;
    w->output = w->input * 2;
}

static void done(struct loop_job *job)
{
    struct work *w = (struct work *)(void *)job;
    if (w->output != w->input * 2)
        abort();
    w->shard->jobs_done++;
    finish(w->shard);
    free(w);
}

static void run_shard(void *arg)
{
    struct shard *s = arg;
    for (int i = 0; i < JOBS; i++) {
        struct work *w = malloc(sizeof *w);
        *w = (struct work){{.lane = (unsigned)i, .run = run, .done = done}, s, i, 0};
        loop_job(s->loop, &w->job);
    }
    loop_posix_run(s->lp);
}

static void send_from_outside(void *arg)
{
    struct shard *s = arg;
    for (int i = 0; i < MESSAGES; i++) {
        struct message *m = malloc(sizeof *m);
        *m = (struct message){{.fn = from_outside}, s, 0};
        loop_post(s->loop, &m->msg);
    }
}

int main(void)
{
    struct shard shards[2] = {0};
    struct job_pool *pool;
    pthread_t outside[2];
    if (job_pool_create(3, &pool, NULL) != 0)
        return 1;
    for (int i = 0; i < 2; i++) {
        if (loop_posix_create(&(struct loop_posix_options){.jobs = pool}, &shards[i].lp, NULL) != 0)
            return 1;
        shards[i].loop = loop_posix_loop(shards[i].lp);
        shards[i].other = &shards[1 - i];
    }
    struct message *m = malloc(sizeof *m);
    *m = (struct message){{.fn = ping}, &shards[0], 2 * MESSAGES - 1};
    loop_post(shards[0].loop, &m->msg);
    for (int i = 0; i < 2; i++) {
        thread_start(&shards[i].thread, "shard", run_shard, &shards[i], NULL);
        thread_start(&outside[i], "outside", send_from_outside, &shards[i], NULL);
    }
    for (int i = 0; i < 2; i++) {
        thread_join(outside[i]);
        thread_join(shards[i].thread);
    }
    for (int i = 0; i < 2; i++)
        loop_posix_destroy(shards[i].lp);
    job_pool_destroy(pool);
    printf("pings=%d+%d jobs=%d+%d\n", shards[0].pings, shards[1].pings, shards[0].jobs_done,
           shards[1].jobs_done);
    return 0;
}
