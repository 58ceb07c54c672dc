/* Plain values of the offset map: what is written to the progress topic and kept in the store.
 *
 * Words: `p` is a partition of the source topic, `q` one of the target's; S the source offset up to which everything
 * has arrived; T_q the target's end behind it. A run says that source records src_start … src_start+count-1 of p are
 * dst_start … at q. */
#ifndef SUNDOG_MIRROR_OFFSETS_TYPES_H
#define SUNDOG_MIRROR_OFFSETS_TYPES_H

#include "base/core/arena.h"
#include "base/core/slice.h"
#include "base/core/uuid.h"

/* A source topic: by its id, or by its name where the cluster has no ids. */
struct topic_key {
    struct slice name;
    struct uuid id;
};

struct map_run {
    int32_t q;
    int64_t src_start, dst_start, count;
};

struct map_lane {
    int32_t q;
    int64_t number_next, end_offset, source_next, timestamp_max;
    int32_t end_epoch;
    int64_t source_idle; /* so many offsets before source_next held no record for q */
};

struct map_position {
    struct topic_key topic;
    int32_t p;
    int64_t next_offset;
    int32_t leader_epoch;
    int64_t producer_id;
    int32_t generation;
    uint32_t fingerprint;
    struct slice target_topic;
    struct uuid target_topic_id;
    int64_t written_ms;
    const struct map_lane *lanes;
    size_t lanes_n;
};

struct map_producer_id {
    int64_t producer_id;
    int16_t epoch;
    int64_t offered_at; /* offset in the progress topic */
};

/* A group's state per target partition; the names are shown. */
#define GROUP_STATES(X)                                                                                      \
    X(SYNCED, "synced") /* translated, and applied where that is asked for */                                \
    X(AHEAD, "ahead")   /* the group is past what has been mirrored: translated again when that has come */  \
    X(BLOCKED,                                                                                               \
      "blocked") /* translated, but not ours to commit: active at the target, or written by somebody else */ \
    X(NO_MAP, "no map")   /* cannot be translated */                                                         \
    X(REWOUND, "rewound") /* the group went back at the source, and our commit at the target followed */
enum group_state {
#define X(name, text) GROUP_##name,
    GROUP_STATES(X)
#undef X
        GROUP_STATES_N
};
const char *mirror_group_state_name(enum group_state s);

/* Of one group in one topic: as many as a topic can have partitions. */
#define GROUP_COMMITS_MAX 100000

struct group_commit {
    int32_t p;
    int64_t offset;
};

struct group_entry {
    struct slice group;
    int32_t q;
    int64_t offset, reread;
    enum group_state state;
    struct slice reason, metadata;
    const struct group_commit *commits;
    size_t commits_n;
    bool applied;
    int64_t applied_offset, applied_ms, updated_ms;
    bool intends; /* to commit intended_offset at the target: after a crash it may stand there, and is ours */
    int64_t intended_offset;
};

/* What happened to a flow that somebody may want to know years later. The names are the ledger's words. */
#define LEDGER_KINDS(X)                                                                                      \
    X(GAP, "gap")                         /* source records that were deleted before they were mirrored */   \
    X(STRANGER, "stranger")               /* others' records in a mirrored topic */                          \
    X(TRUNCATED, "truncated")             /* the source's log was cut below our position */                  \
    X(NEW_INCARNATION, "new incarnation") /* the source topic was deleted and created again */               \
    X(DOUBLE, "double")                   /* a number of ours found twice at the target */                   \
    X(ORPHANS, "orphans")                 /* our records at the target that the source no longer has */      \
    X(TRIMMED, "trimmed")                 /* source records gone while a stop was being reconciled */        \
    X(SPLIT, "split")                     /* the target takes smaller batches than ours */                   \
    X(APPEND_TIME, "append time")         /* the target topic stamps records itself */                       \
    X(HALTED, "halted")                   /* a partition stopped for the operator */                         \
    X(REBUILT, "rebuilt")                 /* the store was built from the progress topic */                  \
    X(PROGRESS_OVERWRITTEN, "progress overwritten") /* a stale daemon wrote an older position over ours */   \
    X(DAMAGED, "damaged")               /* what the source has there cannot be read: the partition waits */  \
    X(FOREIGN_OFFSET, "foreign offset") /* a group's target offset was written by somebody else: left alone */
enum ledger_kind {
#define X(name, text) LEDGER_##name,
    LEDGER_KINDS(X)
#undef X
        LEDGER_KINDS_N
};
const char *ledger_kind_name(enum ledger_kind k);

struct ledger_event {
    uint64_t number; /* of the store; 0 before it is there */
    int64_t wall_ms;
    struct slice flow, kind, topic, text;
    int32_t partition; /* -1: none */
    int64_t from, count;
};

#endif
