/* How each cluster is reached safely, by the keys of MM2's clients: security.protocol, sasl.*, ssl.*.
 *
 * A cluster has one identity: MM2 could give its consumer, producer and admin client one each, we refuse values that
 * differ (the error names both keys). The strongest of: a flow's prefix, the cluster's alias, the top of the file, each
 * with or without consumer., producer., admin. behind it. Pure; files are not opened here. */
#ifndef SUNDOG_MIRROR_ROUTE_SECURITY_H
#define SUNDOG_MIRROR_ROUTE_SECURITY_H

#include "base/runtime/props.h"
#include "mirror/route/config.h"
#include "proto/client/security.h"

/* Fills clusters[i].security of every cluster; the keys taken are marked as used. */
int security_read(struct props *p, struct mirror_config *c, struct err *err);
/* Whether a key without prefixes is one of those read here. */
bool security_key(const char *key);
/* One option of a sasl.jaas.config line into `out` (free it); -E_NOTFOUND when it is not there, -E_CONFIG. */
int security_jaas_option(const char *line, const char *name, char **out);

#endif
