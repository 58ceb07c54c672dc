/* Fetch sessions (KIP-227): what a client has asked for and was told, kept so that a request names only what
 * changes and an answer only what is new. As Kafka's FetchSession.scala, for requests that name topics by id
 * (version 13); others are given none.
 *
 * One table a shard, for the connections of that shard, its thread only. Pure: time comes in, nothing goes out.
 *
 *   full request, epoch 0   ── answered ──▶ a session at epoch 1, if there is room
 *   epoch n, the one due    ── its changes are kept, the epoch moves on ── answered: what is new since the last answer
 *   anything else           ── an error; the client makes another
 *   epoch -1, or 0 with the id of a session: that one ends
 *
 * Limits: `slots` sessions, `bytes_max` for all of them, FETCH_SESSION_MEMBERS_MAX partitions of one. One that has
 * not been used for FETCH_SESSION_IDLE_US makes way; otherwise a client that comes when all are taken is given
 * none. */
#ifndef SUNDOG_BROKER_API_FETCH_SESSIONS_H
#define SUNDOG_BROKER_API_FETCH_SESSIONS_H

#include "base/core/hash.h"
#include "base/core/list.h"
#include "base/core/rng.h"
#include "base/core/uuid.h"
#include "proto/kafka/errors.h"
#include "proto/kafka/wire.h"

#include <stdbool.h>

#define FETCH_SESSION_SLOTS 1000 /* of a broker; its shards share them */
/* Of one: what a request for all of them takes stays well below API_ARENA_MAX. */
#define FETCH_SESSION_MEMBERS_MAX 16384
#define FETCH_SESSION_IDLE_US     (INT64_C(120) * 1000000)

struct fetch_session_key {
    struct uuid topic;
    int32_t partition;
};

/* A partition of a session: as it was asked for last, and what was said of it last. */
struct fetch_member {
    struct list link; /* in the order of reading: whoever got records last stands last */
    UT_hash_handle hh;
    struct fetch_session_key key;
    struct kp_fetch_request_partitions row;
    int64_t high_watermark, log_start; /* -1: nothing is known to have been said */
};

struct fetch_session {
    struct list used; /* of the table, the one used last at the end */
    UT_hash_handle hh;
    int32_t id, epoch; /* of the next request */
    int64_t used_at_us;
    struct list members;
    struct fetch_member *by_key;
    size_t members_n;
};

struct fetch_sessions {
    struct fetch_session *by_id;
    struct list used;
    size_t n, slots, bytes, bytes_max;
    unsigned shard,
        shards; /* ids are told apart by shard: a client that comes back elsewhere finds nobody else's */
    struct rng rng;
};

void fetch_sessions_init(struct fetch_sessions *t, unsigned shard, unsigned shards, size_t bytes_max,
                         uint64_t seed);
void fetch_sessions_fini(struct fetch_sessions *t);

/* A request's session, moved on: its changes are in it, `*out` is what is to be read and the answer's. NULL without an
 * error: a full request (a session it names has ended), or one that has forgotten the last partition. */
int16_t fetch_session_take(struct fetch_sessions *t, const struct kp_fetch_request *q, int16_t version,
                           int64_t now_us, struct fetch_session **out);

/* A new one for a full request that is being answered, by whoever adds the partitions then; NULL: none is to be had. */
struct fetch_session *fetch_session_make(struct fetch_sessions *t, int64_t now_us);
bool fetch_session_add(struct fetch_sessions *t, struct fetch_session *s, const struct uuid *topic,
                       const struct kp_fetch_request_partitions *row);
void fetch_session_end(struct fetch_sessions *t, struct fetch_session *s);

/* The session whose answer is being made; NULL: it has ended, or moved on without it. */
struct fetch_session *fetch_session_find(struct fetch_sessions *t, int32_t id, int32_t epoch);
/* Whether the answer must name the partition; what it says is kept as said. */
bool fetch_session_says(struct fetch_session *s, const struct uuid *topic,
                        const struct kp_fetch_response_partitions *p, size_t records_bytes);

#endif
