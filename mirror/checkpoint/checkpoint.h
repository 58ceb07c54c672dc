/* The consumer groups of one flow: their committed offsets at the source are polled, translated through the offset map,
 * kept in the store, written as MM2's checkpoints, and committed at the target for groups that are not active there
 * (DESIGN.md §4; APPENDER.md rules 22, 23; MIRRORING.md 2.6).
 *
 * Each group, topic and target partition has a state with a reason (enum group_state): synced, ahead, blocked, no map,
 * rewound. A target offset that we wrote ourselves may go back when the source group goes back; one that somebody else
 * wrote is never overwritten. Loop thread; the store is only read here, what is to be kept goes out by `save`.
 * Nothing is forgotten while the source is away. Limits: CHECKPOINT_GROUPS_MAX groups, CHECKPOINT_CALLS requests
 * under way. */
#ifndef SUNDOG_MIRROR_CHECKPOINT_CHECKPOINT_H
#define SUNDOG_MIRROR_CHECKPOINT_CHECKPOINT_H

#include "mirror/offsets/store_writer.h"
#include "mirror/route/config.h"
#include "proto/client/client.h"

#define CHECKPOINT_GROUPS_MAX 100000
#define CHECKPOINT_CALLS      64

struct checkpoint;

struct checkpoint_events {
    /* Entries that have changed, for the next commit of the store; `gone` ones are to be deleted. Valid for the
     * call. */
    void (*save)(void *arg, uint32_t topic, const struct group_entry *entry);
    void (*forget)(void *arg, uint32_t topic, struct slice group, int32_t q);
    /* Calls `wait->done`, later, when all that was saved before is on disk. */
    void (*keep)(void *arg, struct store_wait *wait);
    void (*ledger)(void *arg, enum ledger_kind kind, struct slice topic, int32_t q, const char *text);
    void (*trouble)(void *arg, const char *text);
};

struct checkpoint_options {
    struct loop *loop;
    struct client *source, *target;
    struct store *store;
    uint32_t flow; /* its number in the store */
    const struct flow_options *options;
    struct policy policy;
    const struct checkpoint_events *events;
    void *arg;
};

int checkpoint_create(const struct checkpoint_options *o, struct checkpoint **out, struct err *err);
void checkpoint_destroy(struct checkpoint *c);
/* The topics of the flow have changed (a position was saved for a new one): the next round looks at the store again. */
void checkpoint_wake(struct checkpoint *c);

/* For the status page: each entry as it is now. */
struct checkpoint_row {
    struct slice group, topic; /* topic: the target's */
    int32_t partition;
    int64_t source_offset; /* of the source partition that decided, -1: several */
    const struct group_entry *entry;
};
void checkpoint_each(const struct checkpoint *c, void (*each)(void *arg, const struct checkpoint_row *row),
                     void *arg);
/* Milliseconds since the last complete poll of the source's groups, -1 before the first. */
int64_t checkpoint_age_ms(const struct checkpoint *c);

/* ---- heartbeats ---- */

/* A heartbeat record each interval to the topic `heartbeats` of `client`'s cluster: MM2 writes them at the source, from
 * where they are mirrored, and at the target. Refusal (no permission) is told once and tried again later. */
struct heartbeat;
struct heartbeat_options {
    struct loop *loop;
    struct client *client;
    struct policy policy; /* source and target alias of the flow it stands for */
    int16_t replication_factor;
    int64_t interval_ms;
    void (*trouble)(void *arg, const char *text);
    void *arg;
};
int heartbeat_create(const struct heartbeat_options *o, struct heartbeat **out, struct err *err);
void heartbeat_destroy(struct heartbeat *h);

/* ---- offset syncs ---- */

/* MM2's offset syncs, for tools that read them: fed with every acknowledged run, written by MM2's rule (first record,
 * offset.lag.max, any jump). `client` is the cluster that holds the topic. */
struct offset_syncs;
struct offset_syncs_options {
    struct loop *loop;
    struct client *client;
    struct store *store;
    uint32_t flow; /* its number in the store */
    const char *topic;
    int16_t replication_factor;
    int64_t lag_max;
    void (*trouble)(void *arg, const char *text);
    void *arg;
};
int offset_syncs_create(const struct offset_syncs_options *o, struct offset_syncs **out, struct err *err);
void offset_syncs_destroy(struct offset_syncs *s);
void offset_syncs_run(struct offset_syncs *s, struct slice source_topic, int32_t p, int64_t src_start,
                      int64_t dst_start, int64_t count);
/* The topic will not be written any more: what is kept of its partition goes. */
void offset_syncs_forget(struct offset_syncs *s, struct slice source_topic, int32_t p);
/* So many partitions have been forgotten by the store. */
void offset_syncs_gone(struct offset_syncs *s, size_t partitions);
/* To be called now and then, when the store holds what it was told: where many are gone the topic is written anew
 * from the store, without them (sync/internal_topic.h). */
void offset_syncs_tidy(struct offset_syncs *s);

#endif
