/* One classic consumer group as a pure machine: group_step(group, event, now) → effects (KIP-62, 134, 345, 394, 814).
 *
 *     Empty ──join──► PreparingRebalance ──all in, or time──► CompletingRebalance ──leader's sync on disk──► Stable
 *       ▲                │     ▲     ▲                               │                                        │
 *       └──nobody left───┘     │     └────join, leave, expiry────────┘                                        │
 *                              └──────────join, leave, expiry─────────────────────────────────────────────────┘
 *     every state ──unload, delete──► Dead
 *
 * Requests that wait (join, sync) are opaque tokens: each one given to group_step comes back in exactly one answer
 * effect. Time comes in with each event; deadlines lie inside, group_due_us says when the next GROUP_TICK is wanted.
 * The group record is persisted by the driver, who tells how it ended with GROUP_PERSISTED.
 * No I/O, no clock, no randomness. One thread at a time. Limits: GROUP_BYTES_MAX for all members together. */
#ifndef SUNDOG_BROKER_GROUP_GROUP_H
#define SUNDOG_BROKER_GROUP_GROUP_H

#include "base/core/slice.h"
#include "proto/kafka/errors.h"

#include <stdint.h>

enum group_state { GROUP_EMPTY, GROUP_PREPARING, GROUP_COMPLETING, GROUP_STABLE, GROUP_DEAD };

/* Ids, subscriptions and assignments of a group's members. A join beyond it is refused. */
#define GROUP_BYTES_MAX ((size_t)8 << 20)
/* Of one join's protocols, and of all assignments in one sync: a group record must fit a batch. */
#define GROUP_REQUEST_BYTES_MAX ((size_t)1 << 20)
#define GROUP_PROTOCOLS_MAX     64
#define GROUP_NEVER             INT64_MAX

/* The options that concern groups; shared by all groups of a shard, set before the first one. */
struct group_config {
    int32_t session_min_ms, session_max_ms;
    int32_t initial_rebalance_delay_ms;
    int32_t new_member_join_timeout_ms; /* a joining member that cannot heartbeat yet */
    int32_t members_max;
};

struct group_now {
    int64_t us;      /* monotonic, for deadlines */
    int64_t wall_ms; /* for what is persisted */
};

struct group_protocol {
    struct slice name, metadata;
};

enum group_event_kind {
    GROUP_JOIN,
    GROUP_SYNC,
    GROUP_HEARTBEAT,
    GROUP_LEAVE,
    GROUP_COMMIT,    /* asks whether an offset commit of this member may be written; counts as a heartbeat */
    GROUP_TICK,      /* time has passed */
    GROUP_PERSISTED, /* the record of a GROUP_PERSIST is committed, or is not */
    GROUP_UNLOAD,    /* another broker takes over, or the group is deleted */
};

/* Who speaks: the member id, with the instance id of a static member (else null), and the generation it believes in. */
struct group_caller {
    struct slice member_id, instance_id;
    int32_t generation;
};

struct group_leaving {
    struct slice member_id, instance_id;
    int16_t error; /* out */
};

struct group_assignment {
    struct slice member_id, assignment;
};

/* What group_step borrows for the call; all that is kept is copied. */
struct group_event {
    enum group_event_kind kind;
    void *token; /* of the request; comes back in its answer. JOIN, SYNC, HEARTBEAT, LEAVE, COMMIT */
    struct group_caller caller; /* JOIN (without generation), SYNC, HEARTBEAT, COMMIT */
    union {
        struct {
            struct slice fresh_member_id; /* to be used if the caller has none: made by the driver */
            struct slice client_id, client_host;
            struct slice protocol_type;
            const struct group_protocol *protocols;
            int32_t protocols_n;
            int32_t session_timeout_ms, rebalance_timeout_ms;
            bool member_id_required;  /* v4: an unknown dynamic member is told its id first (KIP-394) */
            bool may_skip_assignment; /* v9 (KIP-814) */
        } join;
        struct {
            struct slice protocol_type, protocol_name; /* null: not checked (before v5) */
            const struct group_assignment *assignments;
            int32_t assignments_n;
        } sync;
        struct {
            struct group_leaving *members;
            int32_t members_n;
        } leave;
        struct {
            uint64_t ticket;
            int16_t error; /* as a group request is answered; see group_append_error */
        } persisted;
        int16_t unload_error; /* what parked requests are told */
    };
};

enum group_effect_kind {
    GROUP_ANSWER_JOIN,
    GROUP_ANSWER_SYNC,
    GROUP_ANSWER,  /* HEARTBEAT, LEAVE, COMMIT: the error alone (LEAVE: the members' are in the event) */
    GROUP_PERSIST, /* write the group record as it stands now (group_record.h); answer with GROUP_PERSISTED */
};

/* Slices live until group_effects_clear. */
struct group_effect {
    enum group_effect_kind kind;
    void *token;
    int16_t error;
    union {
        struct {
            int32_t generation;
            struct slice protocol_type, protocol_name; /* null on errors */
            struct slice leader, member_id;
            bool skip_assignment;
            bool with_members; /* the leader's: all members with their subscriptions, from the group */
        } join;
        struct {
            struct slice protocol_type, protocol_name, assignment;
        } sync;
        struct {
            uint64_t ticket;
            bool wanted; /* somebody waits for GROUP_PERSISTED */
        } persist;
    };
};

struct group_kept;

/* Not to be moved once initialised. Use one for all steps of a group: joins make room in it for the answers that the
 * parked requests will need later. */
struct group_effects {
    struct group_effect *v;
    size_t n, cap;
    struct group_kept *kept;    /* memory that effects still point to */
    struct group_effect few[2]; /* so that a refusal for lack of memory needs none */
};

struct group;
struct group_member;

void group_effects_init(struct group_effects *fx);
void group_effects_clear(struct group_effects *fx);
void group_effects_fini(struct group_effects *fx);

/* Empty, generation 0, nothing persisted. NULL: out of memory. `config` must outlive the group. */
struct group *group_create(struct slice id, const struct group_config *config, struct group_now now);
/* No parked request may be left (GROUP_UNLOAD answers them). NULL is fine. */
void group_destroy(struct group *g);

/* `fx` must be clear. Carry the effects out, in order, before the next step. Out of memory the request is answered
 * COORDINATOR_NOT_AVAILABLE and nothing has changed. */
void group_step(struct group *g, const struct group_event *e, struct group_now now, struct group_effects *fx);

/* ---- looking ---- */
enum group_state group_state(const struct group *g);
/* "Empty", "PreparingRebalance", … as clients know them. */
const char *group_state_name(const struct group *g);
struct slice group_id(const struct group *g);
int32_t group_generation(const struct group *g);
/* Null: none. */
struct slice group_protocol_type(const struct group *g);
struct slice group_protocol_name(const struct group *g);
struct slice group_leader(const struct group *g);
/* When the group became what it is, milliseconds since 1970; -1 unknown (a record of an old version). */
int64_t group_state_since_ms(const struct group *g);
/* When GROUP_TICK is wanted at the latest; GROUP_NEVER. */
int64_t group_due_us(const struct group *g);
size_t group_bytes(const struct group *g);
size_t group_members_n(const struct group *g);
/* In the order they came; NULL starts and ends. */
const struct group_member *group_member_next(const struct group *g, const struct group_member *after);
/* Plain looks at a member; `subscription` is its metadata for the protocol chosen (empty when there is none). */
struct group_member_view {
    struct slice id, instance_id, client_id, client_host;
    struct slice subscription, assignment;
    int32_t session_timeout_ms, rebalance_timeout_ms;
};
struct group_member_view group_member_view(const struct group *g, const struct group_member *m);
/* Empty, with no member on its way in: may be deleted. */
bool group_idle(const struct group *g);
/* Does a member's subscription name the topic? A consumer group whose subscriptions cannot be read counts as
 * subscribed to everything, any other group to nothing. */
bool group_subscribed(const struct group *g, struct slice topic);
/* May the offsets of subscribed topics expire by their commit time? Stable groups whose subscriptions can be read. */
bool group_subscriptions_known(const struct group *g);

/* ---- from the log ---- */
/* Builds the group of a group record: Stable with members, else Empty. Members get their session timeout from `now`
 * on. 0, -E_NOMEM, -E_INVALID (double member, protocol missing). */
struct group_restored_member {
    struct slice id, instance_id, client_id, client_host, subscription, assignment;
    int32_t session_timeout_ms, rebalance_timeout_ms;
};
struct group_restored {
    struct slice protocol_type, protocol_name, leader; /* null: none */
    int32_t generation;
    int64_t state_since_ms;
    const struct group_restored_member *members;
    int32_t members_n;
};
int group_restore(struct group *g, const struct group_restored *from, struct group_now now);

/* What a client is told when a group record could not be written. */
int16_t group_append_error(int16_t append_error);

/* Everything about the group that must hold between steps; asserts. For tests and after each step. */
void group_check(const struct group *g);

#endif
