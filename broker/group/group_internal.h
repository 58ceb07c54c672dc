/* What the files of the membership machine share; see group.h. */
#ifndef SUNDOG_BROKER_GROUP_GROUP_INTERNAL_H
#define SUNDOG_BROKER_GROUP_GROUP_INTERNAL_H

#include "base/core/hash.h"
#include "base/core/list.h"
#include "base/core/sm.h"
#include "broker/group/group.h"

#include <assert.h>

#define GROUP_MAGIC 0x67726f75u

/* A member, or a pending one: an id that was given out (KIP-394) and has not come back yet. */
struct group_member {
    struct list link; /* members or pending, in order of arrival */
    UT_hash_handle by_id, by_instance;
    struct slice id, instance_id, client_id, client_host;
    struct group_protocol *protocols; /* one block with the bytes behind it */
    int32_t protocols_n;
    int32_t session_timeout_ms, rebalance_timeout_ms;
    struct slice assignment;
    void *join, *sync; /* parked requests */
    struct {
        uint64_t ticket; /* not 0: `join` waits for this record, without a rebalance */
        bool may_skip_assignment;
        struct slice leader_was; /* told to clients that cannot skip the assignment (before v9) */
    } swap;                      /* of a static member that took its predecessor's place in a Stable group */
    int64_t session_due_us;
    size_t bytes;
    bool pending;      /* only id and session_due_us count */
    bool fresh;        /* in its first rebalance: it cannot heartbeat, its join may expire */
    bool sync_missing; /* has been sent this generation and has not synced yet */
};

struct group {
    uint32_t magic;
    struct sm state;
    enum group_state state_before; /* of Preparing: an initial rebalance comes from Empty */
    const struct group_config *config;
    struct slice id;
    int32_t generation;
    int32_t generation_persisted; /* the last generation whose assignment is committed */
    int64_t state_since_ms;
    struct slice protocol_type, protocol_name;
    struct group_member *leader;

    struct list members, pending;
    struct group_member *by_id; /* both kinds */
    struct group_member *by_instance;
    size_t members_n, pending_n, joining_n, syncs_missing_n;
    size_t bytes;

    int64_t due_us; /* at or before the earliest of the deadlines below and the members' */
    int64_t join_due_us, sync_due_us;
    bool initial;            /* join_due_us ends a piece of the initial delay */
    bool member_added;       /* since that piece began */
    int64_t initial_left_us; /* of the rebalance timeout, after the piece under way */

    uint64_t ticket; /* of the last GROUP_PERSIST */
    struct {
        uint64_t ticket; /* 0: none under way */
        int32_t generation;
    } syncing; /* the leader's assignment, not yet committed */
};

/* What holds between steps and is told in constant time; asserts after each step. group_check looks at all members. */
void group_check_counts(const struct group *g);

/* ---- effects (group_effects.c) ---- */
/* Room for this many more, so that no later push fails. */
bool group_effects_reserve(struct group_effects *fx, size_t n);
struct group_effect *group_effect_push(struct group_effects *fx, enum group_effect_kind kind);
/* All memory of the machine is blocks, which a step does not free but hands to its effects: they may point there. */
void *group_block(size_t size);
void group_block_free(void *p);
void group_block_keep(struct group_effects *fx, void *p);
/* A copy as a block; a null slice stays null. *ok becomes false when there is no memory. */
struct slice group_dup(struct slice s, bool *ok);
void group_dup_free(struct slice s);
void group_dup_keep(struct group_effects *fx, struct slice s);

void group_answer(struct group_effects *fx, void *token, int16_t error);
void group_answer_join_error(struct group_effects *fx, void *token, int16_t error, struct slice member_id);
void group_answer_sync(struct group_effects *fx, void *token, int16_t error);

/* ---- members (group_member.c) ---- */
struct group_member *group_member_find(const struct group *g, struct slice id); /* not pending */
struct group_member *group_pending_find(const struct group *g, struct slice id);
struct group_member *group_static_find(const struct group *g, struct slice instance_id);
/* A member as its join says, everything copied, not in the group yet. NULL: out of memory. */
struct group_member *group_member_create(const struct group_event *join, struct slice id);
struct group_member *group_pending_create(struct slice id);
void group_member_destroy(struct group_member *m);
/* Into the group; the first one is the leader. False: out of memory, nothing changed. */
bool group_member_add(struct group *g, struct group_member *m);
/* Out of the group; parked requests are answered UNKNOWN_MEMBER_ID. */
void group_member_remove(struct group *g, struct group_member *m, struct group_effects *fx);
/* Takes over protocols and timeouts (and the id, of a static member) of `next`, a member just made, which is gone then.
 * False: out of memory, nothing changed. */
bool group_member_replace(struct group *g, struct group_member *m, struct group_member *next,
                          struct group_effects *fx);
/* `assignment` is a group_dup, taken over. */
void group_member_assign(struct group *g, struct group_member *m, struct slice assignment,
                         struct group_effects *fx);
/* KE_NONE, UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID. */
int16_t group_caller_check(const struct group *g, const struct group_caller *c);
void group_park_join(struct group *g, struct group_member *m, void *token, struct group_effects *fx);
void group_session_start(struct group *g, struct group_member *m, int32_t timeout_ms, struct group_now now);
int32_t group_rebalance_timeout_ms(const struct group *g);
void group_due_at_most(struct group *g, int64_t due_us);
void group_due_refresh(struct group *g);

/* ---- protocols (group_protocol.c) ---- */
bool group_protocols_same(const struct group_member *m, const struct group_event *join);
/* Is the type the group's, and would all members but `except` (may be NULL) share one of these protocols? */
bool group_protocols_fit(const struct group *g, const struct group_event *join,
                         const struct group_member *except);
/* The protocol with most votes among those that all members support. */
struct slice group_protocol_elect(const struct group *g);
struct slice group_protocol_metadata(const struct group_member *m, struct slice protocol);
/* Do both name the same topics? Kafka's rule for what cannot be read: yes. */
bool group_same_topics(struct slice type, struct slice subscription_a, struct slice subscription_b);

/* ---- rebalances (group_rebalance.c) ---- */
extern const struct sm_table group_state_table;
void group_move(struct group *g, enum group_state to, struct group_now now);
/* The membership has changed: from Stable, Completing or Empty to Preparing; in Preparing it may be complete now. */
void group_rebalance(struct group *g, struct group_now now, struct group_effects *fx);
void group_complete_join(struct group *g, struct group_now now, struct group_effects *fx);
void group_join_due(struct group *g, struct group_now now, struct group_effects *fx);
void group_sync_due(struct group *g, struct group_now now, struct group_effects *fx);
/* Answers every parked sync: with the assignments, or with an error (and forgets the assignments). */
void group_answer_syncs(struct group *g, int16_t error, struct group_now now, struct group_effects *fx);
/* Answers with the present generation. `leader` null: the group's. */
void group_answer_join(struct group *g, const struct group_member *m, void *token, struct group_effects *fx);
uint64_t group_persist(struct group *g, bool wanted, struct group_effects *fx);

/* ---- events (group_join.c, group_sync.c, group_stay.c) ---- */
void group_on_join(struct group *g, const struct group_event *e, struct group_now now,
                   struct group_effects *fx);
void group_on_sync(struct group *g, const struct group_event *e, struct group_now now,
                   struct group_effects *fx);
void group_on_persisted(struct group *g, const struct group_event *e, struct group_now now,
                        struct group_effects *fx);
void group_on_heartbeat(struct group *g, const struct group_event *e, struct group_now now,
                        struct group_effects *fx);
void group_on_commit(struct group *g, const struct group_event *e, struct group_now now,
                     struct group_effects *fx);
void group_on_leave(struct group *g, const struct group_event *e, struct group_now now,
                    struct group_effects *fx);
void group_on_tick(struct group *g, struct group_now now, struct group_effects *fx);

static inline bool group_in(const struct group *g, enum group_state s)
{
    return sm_state(&g->state) == (unsigned)s;
}

#endif
