/* Two simulated sites, east and west, of one broker each, a mirror of the flow east->west, and a client to ask both;
 * one process, virtual time, a seed. What the programs are built of is the product's own but for the threads; the
 * mirror's store is LMDB in a temporary folder of this machine, which a power cut therefore leaves as it is.
 *
 * One thread: the test's. Times are virtual. A failed step aborts with the seed. */
#ifndef SUNDOG_TESTS_SUPPORT_SITES_H
#define SUNDOG_TESTS_SUPPORT_SITES_H

#include "proto/client/client.h"
#include "proto/kafka/batch.h"
#include "tests/support/sim/sim.h"

enum { EAST, WEST, SITES_N };

struct sites {
    struct sim *sim;
    struct sim_node *broker[SITES_N], *mirror, *ops;
    struct sim_node
        *other; /* a second mirror of the same flow, with a store of its own; nobody starts it unasked */
    char store_dir[64], other_dir[64];
    const char *mirror_settings; /* more lines for the mirror's file, from its next start on; NULL: none */
};

/* All nodes run and both brokers serve. */
struct sites *sites_create(uint64_t seed);
void sites_destroy(struct sites *s);

/* Asks a site and waits; `read` sees the answer while it is valid. False: no answer within ten seconds. */
bool sites_ask(struct sites *s, int site, const struct client_target *target, int16_t key,
               int16_t version_max, const void *body, void (*read)(void *arg, const void *body), void *arg);
/* Waits until a site's broker serves; starts it where it is down. */
void sites_serve(struct sites *s, int site);

void sites_topic(struct sites *s, int site, const char *name, int32_t partitions);
void sites_topic_delete(struct sites *s, int site, const char *name);
/* `n` records with the numbers from `first` on as key and value. False: no acknowledgement came, they may be there. */
bool sites_produce(struct sites *s, int site, const char *topic, int32_t partition, uint64_t first, int n);
/* The numbers in a partition's log, at most `max` of them; -1: it cannot be read now. */
int sites_read(struct sites *s, int site, const char *topic, int32_t partition, uint64_t *out, int max);
/* Each record of a partition, from where its log starts; false: it cannot be read now. */
bool sites_each(struct sites *s, int site, const char *topic, int32_t partition,
                void (*each)(void *arg, const struct record *r), void *arg);
bool sites_commit(struct sites *s, int site, const char *group, const char *topic, int32_t partition,
                  int64_t offset);
/* -1: none. `epoch` gets what was committed with it. */
int64_t sites_committed(struct sites *s, int site, const char *group, const char *topic, int32_t partition,
                        int32_t *epoch);
/* The store of `mirror` or `other` is removed; it must be down. */
void sites_lose_store(struct sites *s, struct sim_node *mirror);

#endif
