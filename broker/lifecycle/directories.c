#include "broker/lifecycle/directories.h"

#include "base/runtime/log.h"
#include "broker/metadata/image_edit.h"

#include <assert.h>
#include <stdlib.h>

#define ARENA_BYTES_MAX ((size_t)1 << 20)
#define CALL_TIMEOUT_MS 10000
#define FAILURES_QUIET  5 /* at a start the registration may still be the one before */

/* An entry of the request each: topic and partition under its directory. */
struct row {
    struct kp_assign_replicas_to_dirs_request_directories directory;
    struct kp_assign_replicas_to_dirs_request_topics topic;
    struct kp_assign_replicas_to_dirs_request_partitions partition;
};

struct directories {
    struct directories_options o;
    struct loop_timer timer;
    struct arena arena; /* of the response */
    struct control_call call;
    struct kp_assign_replicas_to_dirs_request request;
    struct kp_assign_replicas_to_dirs_response response;
    struct kp_assign_replicas_to_dirs_request_directories list[DIRECTORIES_CALL_MAX];
    struct row rows[DIRECTORIES_CALL_MAX];
    int32_t n;
    unsigned failures; /* in a row */
    bool busy, stopped;
};

void directories_add(struct directories *d, const struct uuid *topic_id, int32_t index,
                     const struct uuid *directory)
{
    assert(!d->busy); /* the list is the request's */
    assert(index >= 0);
    assert(!uuid_is_zero(directory));
    if (d->n == DIRECTORIES_CALL_MAX)
        return; /* in the next call */
    assert(d->n < DIRECTORIES_CALL_MAX);
    struct row *r = &d->rows[d->n];
    r->partition.partition_index = index;
    r->topic = (struct kp_assign_replicas_to_dirs_request_topics){
        .topic_id = *topic_id, .partitions = &r->partition, .partitions_n = 1};
    d->list[d->n++] = (struct kp_assign_replicas_to_dirs_request_directories){
        .id = *directory, .topics = &r->topic, .topics_n = 1};
}

static int16_t first_error(const struct directories *d)
{
    if (d->call.error)
        return d->call.error;
    assert(d->response.directories_n <= d->n); /* an answer for each */
    for (int32_t i = 0; i < d->response.directories_n; i++)
        if (d->response.directories[i].topics[0].partitions[0].error_code)
            return d->response.directories[i].topics[0].partitions[0].error_code;
    return KE_NONE;
}

static void done(struct control_call *call)
{
    struct directories *d = call->arg;
    int16_t error = first_error(d);
    d->busy = false;
    arena_reset(&d->arena);
    if (d->stopped)
        return;
    d->failures = error ? d->failures + 1 : 0;
    if (d->failures == FAILURES_QUIET)
        log_warn("broker.lifecycle", "the log dirs of replicas could not be assigned, trying again error=%d",
                 error);
    loop_timer_in(&d->timer, error ? DIRECTORIES_RETRY_US : 0); /* what came meanwhile too */
}

static void collect(void *arg)
{
    struct directories *d = arg;
    const struct image *img = d->o.image(d->o.arg);
    const struct image_broker *self = img ? image_broker(img, d->o.node_id) : NULL;
    assert(!d->busy);
    assert(!d->stopped);
    if (!self || image_feature_level(img, SLICE_LIT(METADATA_VERSION_FEATURE)) < DIRECTORIES_LEVEL)
        return;
    d->n = 0;
    d->o.collect(d->o.arg, d);
    if (d->n == 0)
        return;
    d->request = (struct kp_assign_replicas_to_dirs_request){.broker_id = d->o.node_id,
                                                             .broker_epoch = self->epoch,
                                                             .directories = d->list,
                                                             .directories_n = d->n};
    d->busy = true;
    d->call = (struct control_call){.api_key = kp_key_assign_replicas_to_dirs,
                                    .request = &d->request,
                                    .response = &d->response,
                                    .arena = &d->arena,
                                    .home = d->o.loop,
                                    .timeout_ms = CALL_TIMEOUT_MS,
                                    .done = done,
                                    .arg = d};
    control_submit(d->o.control, &d->call);
}

struct directories *directories_create(const struct directories_options *o)
{
    struct directories *d = calloc(1, sizeof *d);
    assert(o->loop);
    assert(o->image);
    assert(o->collect);
    if (!d)
        return NULL;
    d->o = *o;
    arena_init(&d->arena, ARENA_BYTES_MAX);
    loop_timer_init(&d->timer, o->loop, collect, d);
    return d;
}

void directories_wanted(struct directories *d)
{
    if (!d->busy && !d->stopped && !d->timer.armed)
        loop_timer_in(&d->timer, DIRECTORIES_DELAY_US);
}

void directories_stop(struct directories *d)
{
    d->stopped = true;
    loop_timer_stop(&d->timer);
}

void directories_destroy(struct directories *d)
{
    if (!d)
        return;
    loop_timer_stop(&d->timer);
    arena_fini(&d->arena);
    free(d);
}
