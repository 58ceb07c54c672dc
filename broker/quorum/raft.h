/* The quorum's roles and votes (KRaft: KIP-595, pre-vote KIP-996) as a pure step core: raft_step(state, event) →
 * effects.
 *
 * No clock, disk, network or randomness of its own: time comes with each event, jitter from the seed it was given, and
 * what must be done is a list of effects, in order. The driver carries them out one after the other and lets an effect
 * behind RAFT_PERSIST happen only when the write is durable: so every change of (epoch, leader, vote) is on disk before
 * anything reveals it. Events that come meanwhile wait. One thread.
 *
 *                      election timeout                     majority of pre-votes
 *        UNATTACHED ───────────────────────▶ PROSPECTIVE ─────────────────────────▶ CANDIDATE
 *         ▲      │ leader seen                │   ▲  refused, timeout ▲              │      │
 *  higher │      ▼                            ▼   │ fetch timeout     └── timeout ───┘      │ majority
 *  epoch, └── FOLLOWER ◀──────────────── (leader known)                                    ▼
 *  timeout ◀─ RESIGNED ◀────────────────────── no majority fetches, shutdown ───────────── LEADER
 *
 * A node that is not in the voter set is UNATTACHED or FOLLOWER. A sole voter goes from any start straight to LEADER of
 * the next epoch; one that was leader starts as RESIGNED and never leads that epoch again (KAFKA-10527). */
#ifndef SUNDOG_BROKER_QUORUM_RAFT_H
#define SUNDOG_BROKER_QUORUM_RAFT_H

#include "base/core/rng.h"
#include "base/core/sm.h"
#include "broker/quorum/quorum_state.h"

enum raft_role {
    RAFT_UNATTACHED,
    RAFT_PROSPECTIVE,
    RAFT_CANDIDATE,
    RAFT_LEADER,
    RAFT_FOLLOWER,
    RAFT_RESIGNED
};
extern const struct sm_table raft_roles;

/* A voter: the same id on another directory is a wiped disk, another voter. Zero directory: not known, matches all. */
struct raft_replica {
    int32_t id;
    struct uuid directory_id;
};

struct raft_voter {
    struct raft_replica who;
    int64_t end_offset;    /* durable there, as far as this leader knows; -1: nothing yet */
    int64_t fetched_us;    /* when it last fetched from this leader */
    bool granted, refused; /* in the present round of votes */
};

struct raft_log_end {
    int64_t end_offset;
    int32_t last_epoch; /* 0: empty */
};

struct raft_options {
    struct raft_replica self;
    const struct raft_replica *voters; /* 1 … QUORUM_VOTERS_MAX */
    int32_t voters_n;
    int64_t election_timeout_us; /* used: once to twice as long */
    int64_t fetch_timeout_us;
    uint64_t seed;
};

struct raft {
    struct sm role;
    struct quorum_state state; /* what is, or is about to be, on disk */
    struct raft_options options;
    struct raft_voter voters[QUORUM_VOTERS_MAX];
    int32_t voters_n;
    struct rng rng;
    struct raft_log_end log;
    bool fetched;               /* follower: from this leader, with success */
    int64_t due_us;             /* of the role's timer; INT64_MAX: none */
    int64_t epoch_start_offset; /* leader: where its epoch began */
    int64_t high_watermark;     /* -1: not known */
};

enum raft_event_kind {
    RAFT_START,         /* state, log: once, first */
    RAFT_TIME,          /* the timer is due, or may be */
    RAFT_LOG_APPENDED,  /* log: the local log's end has moved; its epoch is not above ours */
    RAFT_LOG_SYNCED,    /* offset: all below it is on this disk */
    RAFT_VOTE_REQUEST,  /* peer asks for (pre-)vote in `epoch`; log is the peer's */
    RAFT_VOTE_RESULT,   /* peer has answered ours: pre_vote, epoch, granted */
    RAFT_EPOCH_SEEN,    /* in any message: epoch, and leader_id or QUORUM_NOBODY */
    RAFT_VOTER_FETCHED, /* leader: peer has everything below `offset` (of our log) on its disk */
    RAFT_FETCH_OK,      /* follower: its leader has answered a fetch */
    RAFT_RESIGN,        /* shutdown */
};

struct raft_event {
    enum raft_event_kind kind;
    int64_t now_us;
    struct quorum_state state;
    struct raft_log_end log;
    int64_t offset;
    int32_t epoch, leader_id;
    struct raft_replica peer;
    bool pre_vote, granted;
};

enum raft_effect_kind {
    RAFT_PERSIST,              /* state */
    RAFT_ASK_VOTES,            /* of every other voter: pre_vote, epoch, log */
    RAFT_ANSWER_VOTE,          /* to the request of this step: granted, error */
    RAFT_APPEND_LEADER_CHANGE, /* at the end of the log: this epoch's first batch, with voters and who granted */
    RAFT_COMMIT,               /* high watermark is now `offset` */
};

struct raft_effect {
    enum raft_effect_kind kind;
    struct quorum_state state;
    struct raft_log_end log;
    int64_t offset;
    int32_t epoch;
    int16_t error; /* KE_… */
    bool pre_vote, granted;
};

#define RAFT_EFFECTS_MAX 8
/* A node that has got so far is refused: a start takes two more. */
#define RAFT_EPOCH_MAX (INT32_MAX - 16)

struct raft_effects {
    struct raft_effect v[RAFT_EFFECTS_MAX];
    unsigned n;
};

/* `r` stays where it is. */
void raft_init(struct raft *r, const struct raft_options *o);
/* `out` is emptied first. */
void raft_step(struct raft *r, const struct raft_event *e, struct raft_effects *out);

static inline enum raft_role raft_role(const struct raft *r)
{
    return (enum raft_role)sm_state(&r->role);
}
bool raft_is_voter(const struct raft *r);
/* The entry of a replica, or NULL. */
const struct raft_voter *raft_voter(const struct raft *r, const struct raft_replica *who);

#endif
