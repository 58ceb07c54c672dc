/* What the files of the group coordinator share; see groups.h. The machine's own secrets are in group_internal.h. */
#ifndef SUNDOG_BROKER_GROUP_GROUPS_INTERNAL_H
#define SUNDOG_BROKER_GROUP_GROUPS_INTERNAL_H

#include "base/core/hash.h"
#include "base/core/list.h"
#include "base/core/sm.h"
#include "base/core/wheel.h"
#include "broker/group/group_record.h"
#include "broker/group/groups.h"
#include "broker/partition/partition.h"

#define GROUPS_MAGIC      0x67727073u
#define COORDINATOR_MAGIC 0x636f6f72u

struct coordinator;
struct load;

/* A deadline in the shard's wheel. */
struct groups_due {
    struct wheel_entry entry;
    void (*fn)(struct groups_due *due);
};

/* A group with its offsets: what this broker keeps of it. */
struct hosted {
    UT_hash_handle hh;
    struct coordinator *at; /* NULL: dropped, lives only until its records have ended */
    struct groups *gs;
    struct group *group;
    struct offsets offsets;
    struct groups_due due;
    unsigned ops;           /* its records on their way */
    bool recorded;          /* the log has, or will have, a group record */
    bool deleting;          /* tombstones of the whole group are on their way: nobody may begin anything */
    bool delete_failed;     /* one of them */
    uint64_t failed_ticket; /* a record that could not even be made, for lack of memory */
    struct slice
        loaded; /* while loading: the newest group record's value (a malloc), null: none or deleted */
};

enum coordinator_state { COORDINATOR_LOADING, COORDINATOR_ACTIVE, COORDINATOR_FAILED, COORDINATOR_GONE };

/* A partition of __consumer_offsets that is led here. */
struct coordinator {
    uint32_t magic;
    UT_hash_handle hh;
    struct groups *gs;
    int32_t index;
    struct partition *partition;
    int32_t leader_epoch;
    struct sm state;
    struct hosted *hosted; /* by group id */
    struct load *load;     /* while loading */
    struct list link;      /* of the loading */
};

/* What there is to do when the record of an op is committed or refused. */
enum group_op_kind { OP_GROUP, OP_COMMIT, OP_DELETE };

/* One batch on its way into the log. */
struct group_op {
    struct list link; /* finished ones */
    enum group_op_kind kind;
    struct hosted *hosted;
    struct partition_append append;
    struct buf batch;
    struct batch_builder builder;
    struct groups_call *call;      /* NULL: nobody waits (any more) */
    struct groups_due due;         /* COMMIT: when the call is told that it takes too long */
    uint64_t ticket;               /* GROUP; 0: nobody waits */
    bool deletes_group;            /* DELETE: the group itself too */
    struct offset_change *changes; /* COMMIT, DELETE */
    int32_t changes_n, changes_max;
    int64_t started_us;
};

struct groups {
    uint32_t magic;
    struct shard *shard;
    struct groups_options options;
    struct partition_watch watch;
    struct coordinator *coordinators; /* by index */
    struct list loading;
    struct list finished; /* ops to be looked at */
    struct list answered; /* calls whose `done` is due: it may call us again, so it is called last */
    struct loop_msg work; /* posted while there is something to do outside a callback */
    bool work_posted, stopped;
    struct wheel wheel;
    struct loop_timer timer;
    struct loop_timer check; /* retention */
    struct group_effects fx; /* of all steps on this shard */
    bool stepping;
    size_t hosted_n, ops_n;
    struct metric_cell *groups_cell, *loading_cell, *rebalances, *commits, *records_failed;
};

/* ---- groups.c ---- */
struct group_now groups_now(const struct groups *gs);
/* There is something to do outside a callback: it is done soon, from the loop. */
void groups_wake(struct groups *gs);
void groups_due_at(struct groups *gs, struct groups_due *due, int64_t due_us);
void groups_due_stop(struct groups *gs, struct groups_due *due);
/* The call is over; `done` runs in groups_flush. */
void groups_answer(struct groups *gs, struct groups_call *call, int16_t error);
/* The last thing that every entry from outside does. */
void groups_flush(struct groups *gs);
/* The coordinator of a group, if it may be asked now; else NULL and the error. */
struct coordinator *groups_coordinator(struct groups *gs, struct slice group, int16_t *error);
/* A group that may be asked: not being deleted. NULL: `error` says why, KE_NONE when it just is not there. */
struct hosted *groups_find(struct groups *gs, struct slice group, struct coordinator **at, int16_t *error);

/* ---- hosted.c ---- */
struct hosted *hosted_find(const struct coordinator *c, struct slice group);
/* NULL: too many, or out of memory. */
struct hosted *hosted_add(struct coordinator *c, struct slice group);
/* Parked requests are told `error`. Freed at once, or when its last record has ended. */
void hosted_drop(struct hosted *h, int16_t error);
void hosted_free_if_done(struct hosted *h);
/* One step of the machine and its effects. The error of a plain answer is returned (KE_NONE: none). */
int16_t hosted_step(struct hosted *h, const struct group_event *e);
/* An empty group that the log does not know and nobody has committed to is forgotten. */
void hosted_forget_if_void(struct hosted *h);

/* ---- coordinator.c ---- */
void coordinators_watch(struct groups *gs);
void coordinator_unload(struct coordinator *c, int16_t error);
void coordinator_active(struct coordinator *c);
void coordinator_failed(struct coordinator *c);

/* ---- load.c ---- */
int load_begin(struct coordinator *c);
void load_end(struct coordinator *c);
/* Reads a piece of each log that is being read; true while there is more to do at once. */
bool loads_turn(struct groups *gs);

/* ---- op.c ---- */
/* A batch to be filled through op->builder. NULL: too many, or out of memory. */
struct group_op *group_op_begin(struct hosted *h, enum group_op_kind kind, struct groups_call *call);
/* Room for this many changes; op_change adds one and the record for it. 0 or -E_…. */
int group_op_changes(struct group_op *op, size_t n);
int group_op_change(struct group_op *op, struct slice topic, int32_t partition, const struct offset *at);
/* Gives it to the log. What became of it is looked at by group_ops_finished. */
void group_op_write(struct group_op *op);
/* Nothing was written: takes the changes back. */
void group_op_drop(struct group_op *op);
void group_ops_finished(struct groups *gs);

/* ---- hosted_answer.c ---- */
/* Fills the response of the parked call of a JOIN or SYNC effect and answers it. */
void hosted_answer_join(struct hosted *h, const struct group_effect *e);
void hosted_answer_sync(struct hosted *h, const struct group_effect *e);

/* ---- delete.c ---- */
/* Tombstones for a group, in as many batches as it takes. */
struct deletion {
    struct hosted *h;
    struct groups_call *call; /* answered when all is committed; may be NULL */
    struct group_op *op;
    int rc;
};
void deletion_begin(struct deletion *d, struct hosted *h, struct groups_call *call);
/* Of a partition that the group knows. */
void deletion_add(struct deletion *d, struct slice topic, int32_t partition);
/* With `whole` the group itself goes too. Not KE_NONE: nothing was given to the log and nobody will be answered. With
 * KE_NONE and call->left 0 there was nothing to do. */
int16_t deletion_end(struct deletion *d, bool whole);
/* All offsets of a topic, of all groups. */
void groups_forget_topic(struct groups *gs, struct slice topic);
void groups_expire(struct groups *gs);

#endif
