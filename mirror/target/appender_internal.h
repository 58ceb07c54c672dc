/* The appender's driver: carries the lanes' effects out on a client and a loop. */
#ifndef SUNDOG_MIRROR_TARGET_APPENDER_INTERNAL_H
#define SUNDOG_MIRROR_TARGET_APPENDER_INTERNAL_H

#include "mirror/target/group.h"

#define APPENDER_REQUEST_US (INT64_C(30) * 1000000)
#define APPENDER_SEND_US                                                                                     \
    (INT64_C(5) * 1000000) /* no connection, no leader: so long, then the lane shows it */
#define APPENDER_ASK_US        (INT64_C(15) * 1000000)
#define APPENDER_GONE_US       (INT64_C(60) * 1000000) /* a topic missing for so long is gone */
#define APPENDER_READ_BYTES    (1024 * 1024)
#define APPENDER_FETCH_WAIT_MS 100

struct appender {
    struct loop *loop;
    struct client *client;
    struct lane_group group;
    char *topic;
    struct uuid topic_id;
    int64_t request_timeout_us;
    const struct appender_events *events;
    void *arg;
    struct loop_timer due, soon, gone;
    struct client_watch watch;
    struct budget_waiter waiter;
    struct list asks; /* struct ask: calls that are open */
    bool topic_there; /* the topic is what it should be: only then anything is asked of it */
    bool draining, again;
    struct appender_budget *budget;
    void (*drained)(void *arg);
    void *drained_arg;
    void (*settled)(void *arg);
    void *settled_arg;
};

/* One open call; in the call's arena. */
struct ask {
    struct list link;
    struct appender *appender;
    struct lane *lane;
    struct client_call *call;
    enum lane_effect_kind kind;
    uint32_t ticket;
    int64_t from;
    struct lane_batch *batch; /* LANE_PRODUCE */
    int64_t log_start;        /* LANE_OFFSETS: the first half's answer */
};

/* appender_ask.c: the questions, and Produce. A call that cannot be had is answered at once. */
void appender_ask(struct appender *a, struct lane *l, const struct lane_effect *e);
void appender_cancel(struct appender *a, struct lane_batch *b);
/* What the client knows of the topic; NULL when it is not there. */
const struct client_topic *appender_topic(const struct appender *a);

/* appender.c: after an answer. */
void appender_answered(struct appender *a);

#endif
