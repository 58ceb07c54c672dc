/* Which keys of mm2.properties exist at all, and where: the names of MM2, Connect and their clients. Pure. */
#ifndef SUNDOG_MIRROR_ROUTE_KNOWN_KEYS_H
#define SUNDOG_MIRROR_ROUTE_KNOWN_KEYS_H

#include "base/core/slice.h"

enum known_key_of { OF_MIRROR = 1, OF_PRODUCER = 2, OF_CONSUMER = 4, OF_ADMIN = 8 };

/* The clients' or MM2's (or'ed known_key_of) for a key without any prefix; 0: nobody's. Families count as OF_MIRROR. */
unsigned known_key(const char *key);

/* A key taken apart: "east->west.source.consumer.fetch.max.bytes". */
struct known_parts {
    enum known_key_of of; /* whose key it is by its prefix: producer, consumer, admin; else OF_MIRROR */
    bool of_source;       /* a source. or source.cluster. stood in front */
    bool of_target;
    bool of_cluster; /* …cluster. : a client's setting for all clients of that cluster */
    const char *key; /* without those prefixes */
};
void known_key_parts(const char *key, struct known_parts *out);

/* The known key that looks most like `key` (up to a third of it different), or NULL: for "did you mean". */
const char *known_key_nearest(const char *key);

#endif
