/* One flow: the topics of a source cluster reproduced at a target, with everything that belongs to it: clients, source
 * port, appenders, progress, topic and group synchronisation.
 *
 * A flow lives on one loop and its thread; flow_snapshot may be called from any. It starts at once and for ever tries
 * again what may heal; what may not heal stops one partition (or the flow, where a pinned alias answers with another
 * cluster) with a reason.
 *
 * Memory: `memory_bytes` bounds what is held between source and target, and what each partition takes by itself
 * (FLOW_PART_BYTES). Of the rest FLOW_PORT_SHARE is received and not yet taken, FLOW_APPEND_SHARE in batches that are not
 * acknowledged, what is left for answers. */
#ifndef SUNDOG_MIRROR_FLOW_FLOW_H
#define SUNDOG_MIRROR_FLOW_FLOW_H

#include "base/runtime/metrics.h"
#include "base/world/net.h"
#include "mirror/offsets/store.h"
#include "mirror/port/port.h"
#include "mirror/route/config.h"

#define FLOW_PORT_SHARE   3 / 8
#define FLOW_APPEND_SHARE 3 / 8
#define FLOW_CLIENT_SHARE 1 / 8 /* for each of the two clients */
/* What a partition itself takes, and its row of `status`: off the top of memory_bytes, as long as FLOW_DATA_LEAST of it
 * is left for what the shares are for. */
#define FLOW_PART_BYTES ((size_t)5 * 1024)
#define FLOW_DATA_LEAST 1 / 4

struct flow;

struct flow_setup {
    struct loop *loop;
    struct net *net;
    struct store *store;
    unsigned lane; /* of jobs that commit the store */
    const struct mirror_config *config;
    const struct mirror_flow *flow; /* of the configuration, which outlives the flow */
    size_t memory_bytes;
    /* The record engine and the batch engine (mirror/port). */
    int (*port_create)(const struct port_options *o, struct port **out, struct err *err);
    int (*batch_port_create)(const struct port_options *o, struct port **out, struct err *err);
    struct metrics *metrics; /* may be NULL */
    bool
        heartbeats_back; /* write the heartbeats of the reverse flow at the source too: nobody else here does */
    /* The configuration cannot be right (an alias answers with another cluster than it is pinned to): one line. The
     * flow has halted; a program that has only just started ends with it. Flow's thread. */
    void (*misconfigured)(void *arg, const char *line);
    void *arg;
};

int flow_create(const struct flow_setup *o, struct flow **out, struct err *err);

/* Drains: takes nothing more, waits for what is in flight, writes progress; at most `deadline_ms`. Then frees
 * everything and calls `stopped`. The flow must not be used after this call but by flow_snapshot's callers, who stop
 * first. */
void flow_stop(struct flow *f, int64_t deadline_ms, void (*stopped)(void *arg), void *arg);

/* At once, without draining: the simulator's kill. */
void flow_destroy(struct flow *f);

/* What anybody may ask about the flow, as of some 500 ms ago. */
struct flow_snapshot {
    bool serving;              /* the target answers and progress has been read */
    char reason[ERR_TEXT_MAX]; /* why not; or what is wrong all the same */
};
/* `json` (may be NULL) gets one object of the status document. Any thread. */
void flow_snapshot(struct flow *f, struct flow_snapshot *out, struct buf *json);
const char *flow_name(const struct flow *f);

#endif
