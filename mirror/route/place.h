/* Where a key of mm2.properties belongs: its prefixes taken apart against the clusters that there are. Pure. */
#ifndef SUNDOG_MIRROR_ROUTE_PLACE_H
#define SUNDOG_MIRROR_ROUTE_PLACE_H

#include "mirror/route/config.h"
#include "mirror/route/known_keys.h"

#define PLACE_KEY_MAX 512

enum scope { SCOPE_TOP, SCOPE_CLUSTER, SCOPE_FLOW };
struct place {
    enum scope scope;
    int source, target; /* the cluster's index is in `source` for SCOPE_CLUSTER */
    struct known_parts parts;
    char option[PLACE_KEY_MAX]; /* as flow_option_table has it, or would have it */
    bool old_name;              /* topics.blacklist and its kin, for which `option` has the new name */
};

/* Takes a key apart. An error is a flow between clusters that there are not. */
int place_key(const struct mirror_config *c, const char *key, struct place *at, struct err *err);
/* How strongly a key speaks for a flow (config.h has the order); 0: not at all. */
int place_rank(const struct place *at, int source, int target);
/* Could it ever speak for some flow? */
bool place_speaks(const struct place *at);
/* How strongly a client's key speaks for one cluster, whichever client it is: a flow's, a cluster's, everybody's; 0: not
 * at all. */
int place_cluster_rank(const struct place *at, int cluster);

#endif
