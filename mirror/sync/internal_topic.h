/* A compacted topic of the mirror's own (checkpoints, heartbeats, offset syncs): made when missing, written with keyed
 * records, the newest of a key counting.
 *
 * Records wait here, the newest of each key, until they are acknowledged (acks=all, one request in flight, tried again
 * with backoff for ever): a record written twice does no harm. Loop thread. Bound: INTERNAL_TOPIC_PENDING keys wait;
 * above it the write is refused and the caller writes again later. */
#ifndef SUNDOG_MIRROR_SYNC_INTERNAL_TOPIC_H
#define SUNDOG_MIRROR_SYNC_INTERNAL_TOPIC_H

#include "proto/client/client.h"

#define INTERNAL_TOPIC_PENDING 200000

struct internal_topic;

struct internal_topic_options {
    struct loop *loop;
    struct client *client;
    const char *name;           /* copied */
    int16_t replication_factor; /* -1: the broker's default */
    const char *factor_key;     /* the option that sets it, for the error */
    /* Once per cause: what cannot be done and which key or right would help. */
    void (*trouble)(void *arg, const char *text);
    void *arg;
};

int internal_topic_create(const struct internal_topic_options *o, struct internal_topic **out,
                          struct err *err);
void internal_topic_destroy(struct internal_topic *t);
/* Copies both; a null value is a tombstone. -E_LIMIT. */
int internal_topic_put(struct internal_topic *t, struct slice key, struct slice value);

#endif
