/* What checkpoint.c (rounds), visit.h (one group of one round) and emit.c (the checkpoints topic) share. */
#ifndef SUNDOG_MIRROR_CHECKPOINT_INTERNAL_H
#define SUNDOG_MIRROR_CHECKPOINT_INTERNAL_H

#include "base/core/hash.h"
#include "base/core/said.h"
#include "mirror/checkpoint/checkpoint.h"
#include "mirror/checkpoint/decide.h"
#include "mirror/offsets/topic_map.h"

struct pattern;
struct internal_topic;

/* A mirrored topic as the store had it at the beginning of the round. */
struct watched {
    uint32_t number;
    char *source, *target;
    struct stored_topic stored; /* names borrowed from the above */
    struct route_rule rule;
    int32_t partitions;
    bool loaded; /* its groups were read from the store */
};

/* One group in one target partition. */
struct entry {
    UT_hash_handle hh;
    struct {
        uint32_t topic;
        int32_t q;
    } key;
    struct group_entry v; /* slices and commits in `memory` */
    void *memory;
    int64_t emitted_offset, emitted_upstream; /* in the checkpoints topic; -1: not by this run */
    uint64_t round;                           /* in which the source had commits for it */
    int64_t told_foreign;                     /* the foreign offset that was told, -1: none */
};

struct group {
    UT_hash_handle hh;
    char *name;
    struct entry *entries;
    uint64_t round;
};

struct visit;

struct checkpoint {
    struct loop *loop;
    struct client *source, *target;
    struct store *store;
    uint32_t flow;
    const struct flow_options *options;
    struct policy policy;
    const struct checkpoint_events *events;
    void *arg;
    struct pattern *groups_take, *groups_exclude;
    struct internal_topic *checkpoints; /* NULL: not emitted */
    size_t gone;                        /* keys of it that were forgotten since it was written anew */
    struct watched *topics;
    size_t topics_n;
    struct group *groups;
    size_t groups_n;
    uint64_t round;
    int64_t round_ended_us, emitted_us, synced_us;
    bool apply_now; /* this round also commits at the target */
    /* The round under way. */
    struct client_call *call; /* of metadata and listings */
    int32_t brokers[64];
    int brokers_n, broker_at;
    bool listed_all;
    struct group *next_visit;
    int visits;
    struct list visiting;
    struct loop_timer timer;
    struct said said;
};

/* Finds or makes; NULL out of memory. */
struct entry *entry_of(struct group *g, uint32_t topic, int32_t q);
/* Replaces the entry's value by a copy. -E_NOMEM. */
int entry_set(struct entry *e, const struct group_entry *v);
/* The source has no commit for it any more. */
void entry_forget(struct checkpoint *c, struct group *g, struct entry *e);
const struct watched *watched_of(const struct checkpoint *c, uint32_t number);
/* The source offset that MM2's readers expect beside the translated one. */
int64_t upstream_of(const struct entry *e);
/* Checkpoints for what has changed; after a round that `saw` all groups the topic may be written anew. */
void emit(struct checkpoint *c, bool saw);
void checkpoint_trouble(struct checkpoint *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Polls, translates and applies one group; calls visit_done of checkpoint.c when it has ended. */
int visit_start(struct checkpoint *c, struct group *g);
void visit_cancel_all(struct checkpoint *c);
void visit_done(struct checkpoint *c, bool well);

#endif
