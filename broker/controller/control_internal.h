/* The driver of the decisions, shared by control*.c. */
#ifndef SUNDOG_BROKER_CONTROLLER_CONTROL_INTERNAL_H
#define SUNDOG_BROKER_CONTROLLER_CONTROL_INTERNAL_H

#include "broker/controller/brokers.h"
#include "broker/controller/control.h"

#define CONTROL_ARENA_MAX    ((size_t)64 << 20) /* of one decision's records */
#define CONTROL_TIMEOUT_MS   60000
#define CONTROL_SESSION_PART 8 /* silent brokers are looked for so often per session timeout */
#define CONTROL_TEXT_MAX     256

struct control {
    struct control_options o;
    struct control_endpoint endpoints[CONTROL_ENDPOINTS_MAX];
    char *texts; /* of the endpoints */
    struct loop *loop;
    struct quorum *quorum;
    struct rng rng;
    struct arena arena;              /* of one decision */
    struct metadata_records records; /* of one decision */
    struct metadata_records bootstrap;
    struct arena bootstrap_arena;

    bool active;         /* the quorum's leader, with a metadata.version */
    bool stopping;       /* no new calls */
    struct list waiting; /* calls whose records are not yet committed and seen, by offset */
    uint32_t waiting_n;
    struct loop_timer deadline; /* the earliest of them */

    struct image *published; /* the newest committed image; NULL at first */
    struct list subscribers;

    struct broker_session sessions[BROKER_SESSIONS_MAX];
    int32_t sessions_n;
    struct loop_timer session_timer;
    int64_t sessions_checked_us;

    struct loop_timer idle_timer;
    int64_t appended_us; /* when the last records were */
};

/* A decision about to be made: empty lists, the newest image. */
struct decide control_decide(struct control *c, struct arena *response);
/* Appends the decision's records: the last one's offset, or the Kafka error, negated. More than fit into one batch
 * become a metadata transaction. There must be some. */
int64_t control_append(struct control *c);
/* What appending with this -E_… means to a caller. */
int16_t control_append_error(int rc);

/* control_calls.c */
void control_call_run(struct control *c, struct control_call *call);
/* Fills the response with one error for everything that was asked. */
void control_call_fail(struct control_call *call, int16_t error);

/* control_brokers.c */
void control_sessions_begin(struct control *c);
void control_sessions_end(struct control *c);
struct broker_session *control_session(struct control *c, int32_t broker_id);
int16_t control_run_registration(struct control *c, const struct decide *d, struct control_call *call);
int16_t control_run_heartbeat(struct control *c, const struct decide *d, struct control_call *call);
/* The records of a call on brokers have been appended, up to `offset`. */
void control_broker_appended(struct control *c, const struct control_call *call, int64_t offset);

/* control_subscribers.c */
void control_publish(struct control *c, const struct image *img);
/* control.c: some calls may be done. */
void control_complete(struct control *c);

/* activate.c */
void control_activate(struct control *c);
int control_read_bootstrap(struct control *c, struct err *err);
/* The metadata.version that an empty log will begin with. */
int16_t control_bootstrap_level(const struct control *c);

#endif
