/* A net that remembers who refuses: connections pass through it unchanged, and it knows which of a list of addresses
 * have said that nobody listens there. For a command that need not wait then. One thread; lives longer than the client
 * that connects through it. */
#ifndef SUNDOG_MIRROR_CLI_REFUSALS_H
#define SUNDOG_MIRROR_CLI_REFUSALS_H

#include "base/world/net.h"

struct refusals;

/* `inner` makes the connections and outlives it. NULL: out of memory. */
struct refusals *refusals_create(struct net *inner);
void refusals_destroy(struct refusals *r);
struct net *refusals_net(struct refusals *r);
/* So many different addresses have refused and no connection has been made: an address that once answered may only be
 * starting anew. */
bool refusals_all(const struct refusals *r, size_t addresses);

#endif
