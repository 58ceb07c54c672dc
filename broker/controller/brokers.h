/* Brokers come, live and go: registration, heartbeats, fencing (KRAFT §7, §9). Pure decisions; what is remembered of
 * each broker beside the image is `struct broker_session`, the active controller's own, begun afresh with each one. */
#ifndef SUNDOG_BROKER_CONTROLLER_BROKERS_H
#define SUNDOG_BROKER_CONTROLLER_BROKERS_H

#include "broker/controller/decide.h"

#define BROKER_SESSIONS_MAX 1000

struct broker_session {
    int32_t id;
    int64_t contact_us;        /* of the last heartbeat or registration */
    int64_t metadata_offset;   /* of its published image, as it said last */
    int64_t registered_offset; /* it may be unfenced from there on */
    int64_t shutdown_offset;   /* it may go when all active brokers are there; -1: not asked */
};

/* `live`: its session has not run out. */
int16_t decide_broker_registration(const struct decide *d, const struct kp_broker_registration_request *q,
                                   const struct broker_session *session, bool live,
                                   struct kp_broker_registration_response *r);

/* `lowest_offset`: the smallest metadata offset among the other active brokers; INT64_MAX: there are none. */
int16_t decide_broker_heartbeat(const struct decide *d, const struct kp_broker_heartbeat_request *q,
                                const struct broker_session *session, int64_t lowest_offset,
                                struct kp_broker_heartbeat_response *r);

/* A silent broker is fenced. KE_NONE. */
int16_t decide_fence(const struct decide *d, int32_t broker_id);

int16_t decide_controller_registration(const struct decide *d,
                                       const struct kp_controller_registration_request *q,
                                       struct kp_controller_registration_response *r);

/* The features a node of this version declares, kraft.version among them. Levels 0 … 1 of what Kafka has on by
 * default (share groups, streams groups …) are claimed where a directory formatted by Kafka has them finalized: its
 * log keeps them; ApiVersions shows what is served (DESIGN §8). */
struct feature_claim {
    const char *name;
    int16_t level_min, level_max;
};
const struct feature_claim *feature_claims(size_t *n);

#endif
