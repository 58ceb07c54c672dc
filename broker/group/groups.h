/* The groups of a shard: those whose partition of __consumer_offsets this shard leads.
 *
 * A group belongs to one partition (groups_partition_of) and with it to one shard and one broker. When the partition
 * comes here, its log is read to the end, a piece per turn; until that is done its groups answer
 * COORDINATOR_LOAD_IN_PROGRESS. When it goes, whoever waits is told NOT_COORDINATOR. Everything that is promised is a
 * record first: commits and assignments are answered when the partition says that their record is committed.
 *
 * Threading: the shard's thread only. Lifetime: one per shard, made after partitions_create, destroyed after
 * partitions_destroy.
 * Limits: GROUPS_MAX groups, GROUPS_OPS_MAX records on their way; beyond, COORDINATOR_NOT_AVAILABLE. */
#ifndef SUNDOG_BROKER_GROUP_GROUPS_H
#define SUNDOG_BROKER_GROUP_GROUPS_H

#include "base/core/arena.h"
#include "base/core/list.h"
#include "broker/group/group.h"
#include "broker/shard.h"
#include "proto/kafka/wire.h"

#define GROUPS_TOPIC   "__consumer_offsets"
#define GROUPS_MAX     100000
#define GROUPS_OPS_MAX 10000

struct image;
struct group_op;
struct groups;

struct groups_options {
    int32_t node_id;
    struct group_config group;
    int32_t offset_metadata_max_bytes;
    int32_t commit_timeout_ms;
    int64_t retention_ms;       /* of offsets of groups without members */
    int64_t retention_check_ms; /* how often they are looked at */
};

/* The calls below that have `done` answer by it exactly once, at once or later. Request, response, arena and the
 * texts are the caller's and must stay until then; what is put into the response is copied to the arena. An arena that
 * has overflowed is the caller's to notice. */
struct groups_call {
    /* In. */
    int16_t version;
    struct slice client_id;  /* may be null */
    const char *client_host; /* an address */
    const void *request;     /* struct kp_…_request */
    void *response;          /* struct kp_…_response, zeroed by the caller; filled in */
    struct arena *arena;
    void (*done)(struct groups_call *call);
    /* Out: the error of the whole call; where the response has a place for it, it is there too. */
    int16_t error;
    /* Private. */
    struct list link;
    unsigned left;                                         /* records still on their way */
    void (*fill)(struct groups_call *call, int16_t error); /* puts a late error into the response */
};

/* NULL: out of memory. shard->partitions is there; sets shard->groups; the options are copied. */
struct groups *groups_create(struct shard *shard, const struct groups_options *options);
/* Answers everybody who waits: NOT_COORDINATOR. No new calls after this but they are refused. */
void groups_stop(struct groups *gs);
/* After the shard's partitions have gone. NULL is fine. */
void groups_destroy(struct groups *gs);
/* Offsets of topics that are no more are deleted. Call when the shard has been given another image. */
void groups_on_image(struct groups *gs, const struct image *was, const struct image *now);

/* Kafka's hash. `partitions` > 0. */
int32_t groups_partition_of(struct slice group, int32_t partitions);
/* The shard that owns a group, by this shard's image. NULL: there is no __consumer_offsets yet. */
struct shard *groups_shard_of(const struct shard *shard, struct slice group);

/* ---- on the group's shard, with `done` ---- */
void groups_join(struct groups *gs, struct groups_call *call);      /* JoinGroup */
void groups_sync(struct groups *gs, struct groups_call *call);      /* SyncGroup */
void groups_heartbeat(struct groups *gs, struct groups_call *call); /* Heartbeat */
void groups_leave(struct groups *gs, struct groups_call *call);     /* LeaveGroup */
void groups_commit(struct groups *gs, struct groups_call *call);    /* OffsetCommit */
void groups_offset_delete(struct groups *gs, struct groups_call *call);
/* One group of a DeleteGroups: `request` and `response` are not used. */
void groups_delete(struct groups *gs, struct slice group, struct groups_call *call);

/* ---- at once ---- */
/* Fills an OffsetFetch answer for one group; `in` has the topics asked for, all when topics_n is -1. */
void groups_fetch(struct groups *gs, const struct kp_offset_fetch_request_groups *in, struct arena *arena,
                  struct kp_offset_fetch_response_groups *out);
void groups_describe(struct groups *gs, struct slice group, struct arena *arena,
                     struct kp_describe_groups_response_groups *out);
/* Adds this shard's groups to the list; slices are copied. Null filters take all. COORDINATOR_LOAD_IN_PROGRESS when
 * some cannot be told yet. */
struct groups_filter {
    const struct slice *states, *types;
    int32_t states_n, types_n;
};
struct groups_list {
    struct arena *arena;
    struct kp_list_groups_response_groups *v;
    int32_t n, cap;
};
int16_t groups_list(struct groups *gs, const struct groups_filter *filter, struct groups_list *to);

#endif
