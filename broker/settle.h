/* Options as the rooms take them: what follows from several keys, units, defaults that depend. Pure. */
#ifndef SUNDOG_BROKER_SETTLE_H
#define SUNDOG_BROKER_SETTLE_H

#include "broker/group/groups.h"
#include "broker/net/listeners.h"
#include "broker/options.h"
#include "broker/partition/partitions.h"

/* sundog.shards, or what `cpus` suggests. */
unsigned settle_shards(const struct broker_options *o, unsigned cpus);
/* log.dirs, or log.dir where that is not set; -E_CONFIG when neither is. */
int settle_log_dirs(const struct broker_options *o, const char *paths[LOG_DIRS_MAX], unsigned *n,
                    struct err *err);
/* node.id, or broker.id. */
int32_t settle_node_id(const struct broker_options *o);
/* -E_CONFIG: roles or voters that are not served: this node is broker and controller, and the only voter. */
int settle_roles(const struct broker_options *o, struct err *err);
int settle_listeners(const struct broker_options *o, struct net_listeners *out, struct err *err);
struct net_options settle_net(const struct broker_options *o, int64_t fds);
/* All but disk, dirs and what is made of them. */
struct partition_host settle_partitions(const struct broker_options *o);
struct groups_options settle_groups(const struct broker_options *o);

#endif
