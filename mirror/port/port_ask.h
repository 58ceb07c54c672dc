/* What both sources ask a partition's leader, and what they make of its answer: where the log begins and ends, where
 * the log of a leader epoch ends (KIP-320), whether a topic is still the one that was meant. Each question is asked
 * once; when to ask again is the asker's. Loop thread only. */
#ifndef SUNDOG_MIRROR_PORT_PORT_ASK_H
#define SUNDOG_MIRROR_PORT_PORT_ASK_H

#include "mirror/port/port.h"
#include "proto/client/client.h"

#define PORT_ASK_US (INT64_C(15) * 1000000)

/* ListOffsets' timestamps with a meaning of their own. */
#define PORT_ASK_LATEST   INT64_C(-1)
#define PORT_ASK_EARLIEST INT64_C(-2)

struct port_question {
    struct slice topic;
    int32_t partition;
    int32_t
        current_leader_epoch; /* the answer of a leader of another epoch is an error; -1: anyone's will do */
    enum client_retry retry;
    struct client_call **call; /* the call while it is open; to be set to NULL when it is answered */
    void (*answered)(void *arg, const struct client_response *r);
    void *arg;
};

/* False: no room for another call, nothing is asked. `stable`: the end is the last stable offset, not the high
 * watermark. */
bool port_ask_offset(struct client *c, const struct port_question *q, int64_t timestamp, bool stable);
bool port_ask_epoch_end(struct client *c, const struct port_question *q, int32_t epoch);

enum port_answer {
    PORT_ANSWER_KNOWN,   /* the offset is there */
    PORT_ANSWER_NONE,    /* the cluster is too old for the question */
    PORT_ANSWER_REFUSED, /* not ours to read */
    PORT_ANSWER_AGAIN,   /* `why` says what stood in the way */
};

enum port_answer port_answer_offset(const struct client_response *r, int64_t *offset, const char **why);
/* `end` is -1 where the leader has no record of that epoch or an older one. */
enum port_answer port_answer_epoch_end(const struct client_response *r, int64_t *end, const char **why);

/* Another topic has the name: both ids are known, and they differ. */
bool port_recreated(const struct port_assignment *a, const struct client_topic *t);

#endif
