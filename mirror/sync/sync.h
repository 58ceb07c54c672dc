/* The topics of one flow: finds what is to be mirrored, makes it at the target with the source's partition count and
 * configuration, lets partitions grow, and keeps configurations alike (DESIGN.md §4; MM2's MirrorSourceConnector).
 *
 * What is found is told by `topic`, again whenever something about it has changed; `gone` when the source has no such
 * topic any more (it stays at the target). Nothing is deleted at the target. One bad topic (its creation refused, say)
 * is told by `trouble` and holds up no other. Loop thread; callbacks come from clients' answers and timers, never from
 * inside a call of this API. Lifetime: until sync_destroy, which forgets what is under way. Limits: SYNC_TOPICS_MAX
 * topics, SYNC_BATCH of them a request. */
#ifndef SUNDOG_MIRROR_SYNC_SYNC_H
#define SUNDOG_MIRROR_SYNC_SYNC_H

#include "mirror/route/config.h"
#include "proto/client/client.h"

#define SYNC_TOPICS_MAX 100000
#define SYNC_BATCH      100

struct sync;

struct sync_topic {
    struct slice source, target;      /* names */
    struct uuid source_id, target_id; /* zero where a cluster has none */
    int32_t source_partitions, target_partitions;
};

struct sync_events {
    /* Both sides have the topic; valid for the call. */
    void (*topic)(void *arg, const struct sync_topic *t);
    void (*gone)(void *arg, struct slice source);
    /* For the operator, once per cause; `topic` may be null. */
    void (*trouble)(void *arg, struct slice topic, const char *text);
    /* Whether the topic has been mirrored partition by partition: then its target grows with the source. A target
     * that had another count from the start is left as it is (keys are hashed). */
    bool (*keeps_partitions)(void *arg, struct slice source);
    /* The first round has ended: all topics there are have been told. */
    void (*settled)(void *arg);
};

struct sync_options {
    struct loop *loop;
    struct client *source, *target;
    const struct flow_options *flow; /* outlives the sync */
    struct policy policy;            /* its slices too */
    const struct sync_events *events;
    void *arg;
};

/* Starts at once. -E_CONFIG when a pattern cannot be read, with its key. */
int sync_create(const struct sync_options *o, struct sync **out, struct err *err);
void sync_destroy(struct sync *s);
/* Looks soon, not at the next interval. */
void sync_wake(struct sync *s);
/* Topics told so far. */
size_t sync_topics(const struct sync *s);
/* The topics that could not be told yet, and why. */
void sync_each_waiting(const struct sync *s,
                       void (*each)(void *arg, const char *source, const char *target, const char *reason),
                       void *arg);

/* Whether a source topic is to be mirrored by the flow's lists, names and cycles. Pure. */
struct sync_filter;
int sync_filter_create(const struct flow_options *flow, struct sync_filter **out, struct err *err);
void sync_filter_destroy(struct sync_filter *f);
bool sync_filter_takes(struct sync_filter *f, const struct policy *policy, struct slice topic);

#endif
