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

/* Keys that will never be written again (of groups and topics that are gone) cannot be taken back by tombstones
 * where MM2's Java code reads: Checkpoint.deserializeRecord and OffsetSync's do not look for null values. Instead
 * the owner puts all that still counts once more, then what stands before is cut off by DeleteRecords. Brokers
 * allow that where cleanup.policy has delete too, so such a topic is made with `compact,delete` and is kept for
 * ever by time and size. One that has been made otherwise (by MM2), or that has a record of somebody else's before the
 * cut (own_records.h), stays as it is, with a key for all that ever was. */
#define INTERNAL_TOPIC_CUT_MIN 100 /* keys that are gone, before it is worth it */

struct internal_topic;

struct internal_topic_options {
    struct loop *loop;
    struct client *client;
    const char *name;           /* copied */
    int16_t replication_factor; /* -1: the broker's default */
    const char *factor_key;     /* the option that sets it, for the error */
    bool cuts;                  /* internal_topic_cut is going to be used */
    /* Once per cause: what cannot be done and which key or right would help. */
    void (*trouble)(void *arg, const char *text);
    void *arg;
};

int internal_topic_create(const struct internal_topic_options *o, struct internal_topic **out,
                          struct err *err);
void internal_topic_destroy(struct internal_topic *t);
/* Copies both; a null value is a tombstone. -E_LIMIT. */
int internal_topic_put(struct internal_topic *t, struct slice key, struct slice value);

/* Whether `gone` keys of the topic, beside `live` ones, are worth putting the live ones again, and it can be cut. */
bool internal_topic_wants_cut(const struct internal_topic *t, size_t gone, size_t live);
/* Puts so far. */
uint64_t internal_topic_puts(const struct internal_topic *t);
/* All that counts was put again after the first `from` puts. What stands before in the log is deleted as soon as they are
 * acknowledged; an error leaves it there. */
void internal_topic_cut(struct internal_topic *t, uint64_t from);

#endif
