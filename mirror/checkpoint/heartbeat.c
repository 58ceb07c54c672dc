#include "mirror/checkpoint/checkpoint.h"
#include "mirror/checkpoint/records.h"
#include "mirror/sync/internal_topic.h"

#include <assert.h>
#include <stdlib.h>

#define HEARTBEAT_BYTES_MAX 1024

struct heartbeat {
    struct loop *loop;
    struct internal_topic *topic;
    struct loop_timer timer;
    int64_t interval_ms;
    struct buf key, value;
};

static void beat(void *arg)
{
    struct heartbeat *h = arg;
    assert(h->key.n > 0);
    buf_clear(&h->value);
    heartbeat_value_put(&h->value, loop_wall_ms(h->loop));
    /* One key: what could not be written is replaced by the newer one. */
    internal_topic_put(h->topic, buf_slice(&h->key), buf_slice(&h->value));
    loop_timer_in(&h->timer, h->interval_ms * 1000);
}

int heartbeat_create(const struct heartbeat_options *o, struct heartbeat **out, struct err *err)
{
    struct heartbeat *h = calloc(1, sizeof *h);
    if (!h)
        return err_set(err, -E_NOMEM, "out of memory");
    h->loop = o->loop;
    h->interval_ms = o->interval_ms;
    buf_init(&h->key, HEARTBEAT_BYTES_MAX);
    buf_init(&h->value, HEARTBEAT_BYTES_MAX);
    heartbeat_key_put(&h->key, o->policy.source, o->policy.target);
    loop_timer_init(&h->timer, o->loop, beat, h);
    struct internal_topic_options t = {.loop = o->loop,
                                       .client = o->client,
                                       .name = POLICY_HEARTBEATS,
                                       .replication_factor = o->replication_factor,
                                       .factor_key = "heartbeats.topic.replication.factor",
                                       .trouble = o->trouble,
                                       .arg = o->arg};
    int rc =
        h->key.failed ? err_set(err, -E_NOMEM, "out of memory") : internal_topic_create(&t, &h->topic, err);
    if (rc) {
        heartbeat_destroy(h);
        return rc;
    }
    loop_timer_in(&h->timer, 0);
    *out = h;
    return 0;
}

void heartbeat_destroy(struct heartbeat *h)
{
    if (!h)
        return;
    loop_timer_stop(&h->timer);
    internal_topic_destroy(h->topic);
    buf_fini(&h->key);
    buf_fini(&h->value);
    free(h);
}
