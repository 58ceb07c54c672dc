/* The broker's side of its life in the cluster (KRAFT §7): registers, heartbeats until it is unfenced, goes on
 * heartbeating, and at the end asks to be shut down.
 *
 *     WAITING ──▶ REGISTERING ──▶ STARTING ──▶ RUNNING ──▶ STOPPING ──▶ STOPPED
 *     (a controller)   │  ▲         │ heartbeats each 10 ms, want_fence until `ready`   (leaderships have moved)
 *                      └──┘ retried until initial.broker.registration.timeout.ms
 *
 * The node that is its own controller goes the same way as any other. A broker that was fenced by silence is unfenced
 * by its next heartbeat, under the same epoch. Partitions that it leads after an unclean election (ELR) are reported
 * recovered. Threading: shard 0's loop. Lifetime: create … start … (stop, then `stopped`) destroy. */
#ifndef SUNDOG_BROKER_LIFECYCLE_LIFECYCLE_H
#define SUNDOG_BROKER_LIFECYCLE_LIFECYCLE_H

#include "base/core/err.h"
#include "base/core/uuid.h"
#include "base/world/loop.h"
#include "broker/controller/control.h"

#define LIFECYCLE_STOP_MS 5000 /* a controlled shutdown takes no longer */

struct lifecycle;

struct lifecycle_options {
    struct loop *loop;
    struct control *control;
    int32_t node_id;
    const char *cluster_id;                   /* borrowed, like the next ones, as long as it lives */
    const char *rack;                         /* or NULL */
    struct uuid incarnation;                  /* of this process */
    int64_t previous_epoch;                   /* of the clean-shutdown marker; -1: there was none */
    const struct control_endpoint *listeners; /* advertised; not the controller's */
    unsigned listeners_n;
    const struct uuid *directory_ids; /* of the online log dirs */
    unsigned directories_n;
    int64_t heartbeat_ms;            /* broker.heartbeat.interval.ms */
    int64_t registration_timeout_ms; /* initial.broker.registration.timeout.ms */
    /* Everything that the images ask of this node is there: logs are open on every shard. Asked each 10 ms while
     * starting. */
    bool (*ready)(void *arg);
    void (*serving)(void *arg); /* unfenced for the first time */
    void (*failed)(void *arg,
                   const char *why); /* it cannot be, or can no longer be, a broker of this cluster */
    void (*stopped)(void *arg,
                    int64_t epoch); /* the controller lets it go (or time is up); epoch: for the marker */
    void *arg;
};

int lifecycle_create(const struct lifecycle_options *o, struct lifecycle **out, struct err *err);
void lifecycle_start(struct lifecycle *l);
void lifecycle_stop(struct lifecycle *l);
/* One of `directory_ids` has failed: told to the controller by the next heartbeat, which comes at once, and all
 * others. */
void lifecycle_dir_failed(struct lifecycle *l, const struct uuid *directory_id);
/* After `stopped`, or when no loop runs any more. */
void lifecycle_destroy(struct lifecycle *l);

/* -1: not registered. */
int64_t lifecycle_epoch(const struct lifecycle *l);
/* "running", … */
const char *lifecycle_state(const struct lifecycle *l);

#endif
