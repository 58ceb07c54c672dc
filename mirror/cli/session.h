/* A client that waits: one cluster, one loop of its own, calls that return when answered. For the command line. */
#ifndef SUNDOG_MIRROR_CLI_SESSION_H
#define SUNDOG_MIRROR_CLI_SESSION_H

#include "base/core/arena.h"
#include "proto/client/client.h"

struct session;

/* Where a cluster is, and how it is reached safely. Borrowed, as long as the session. */
struct session_address {
    const char *bootstrap;
    const struct client_security *security; /* NULL: PLAINTEXT */
};

/* Connects when first asked. `deadline` for everything: `timeout_ms` from now. */
int session_open(const struct session_address *at, int64_t timeout_ms, struct session **out, struct err *err);
void session_close(struct session *s);

struct loop *session_loop(struct session *s);

struct session_reply {
    int16_t version;
    const void *body; /* struct kp_…_response, good until the session's next call */
};

/* Sends `body` and waits. Safe requests (reading, and what may be done twice) are tried again until the deadline. */
int session_call(struct session *s, const struct client_target *target, int16_t api_key, int16_t version_min,
                 int16_t version_max, const void *body, struct session_reply *out, struct err *err);
/* The same, never sent a second time: for what may not be done twice. */
int session_call_once(struct session *s, const struct client_target *target, int16_t api_key,
                      int16_t version_min, int16_t version_max, const void *body, struct session_reply *out,
                      struct err *err);
/* Frees what replies took; every reply so far becomes invalid. */
void session_forget(struct session *s);
/* The deadline is `timeout_ms` from now. */
void session_extend(struct session *s, int64_t timeout_ms);
/* Turns the loop until `done` says so; -E_TIMEOUT at the deadline, -E_ACCESS at once when TLS or SASL fails,
 * -E_REFUSED when nobody listens at any address
 * (and nobody has since the session was opened). */
int session_wait(struct session *s, bool (*done)(void *arg), void *arg, struct err *err);
/* Milliseconds left before the deadline, 0 when it has passed. */
int64_t session_left_ms(const struct session *s);
/* Memory for what a request points to, until session_forget; and for what lives as long as the session. */
struct arena *session_arena(struct session *s);
struct arena *session_keep(struct session *s);

static inline struct client_target session_any(void)
{
    return (struct client_target){.kind = CLIENT_ANY};
}

static inline struct client_target session_group(const char *group)
{
    return (struct client_target){.kind = CLIENT_GROUP, .name = slice_str(group)};
}

static inline struct client_target session_leader(struct slice topic, int32_t partition)
{
    return (struct client_target){.kind = CLIENT_LEADER, .name = topic, .number = partition};
}

/* ---- what several commands ask ---- */

struct session_topic {
    struct slice name;
    struct uuid id;
    int32_t partitions_n;
    const struct kp_metadata_response_partitions *partitions;
    bool internal;
};

/* One topic by name. -E_NOTFOUND when it is not there; slices live as long as the session. */
int session_topic(struct session *s, const char *name, struct session_topic *out, struct err *err);
/* All topics, sorted by name, in the session's arena. */
int session_topics(struct session *s, struct session_topic **out, int32_t *n, struct err *err);
/* ListOffsets of one partition: `timestamp` -1 latest, -2 earliest. */
int session_offset(struct session *s, struct slice topic, int32_t partition, int64_t timestamp, int64_t *out,
                   struct err *err);
struct batch_header;
/* One Fetch: every whole batch that came, decompressed, but for control batches. `next` moves behind the last one
 * (behind control batches too); what `each` returns, when not 0, ends the walk and is returned. */
int session_fetch(struct session *s, struct slice topic, int32_t partition, int64_t *next,
                  int32_t max_wait_ms,
                  int (*each)(void *arg, const struct batch_header *h, struct slice payload, struct err *err),
                  void *arg, struct err *err);
/* The whole partition from its log start to the end it has now, read_committed. */
int session_read(struct session *s, struct slice topic, int32_t partition,
                 int (*each)(void *arg, const struct batch_header *h, struct slice payload, struct err *err),
                 void *arg, struct err *err);
/* "NAME: text" for a Kafka error code, with the broker's message where there is one. */
int session_kafka_error(struct err *err, int16_t code, struct slice message, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#endif
