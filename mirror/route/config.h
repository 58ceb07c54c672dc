/* mm2.properties as clusters and flows: which clusters there are, how each is reached, and for every ordered pair what
 * its flow is told.
 *
 * A key is read under every prefix that MM2 takes. A later line of this list overrides an earlier one
 * (MirrorMakerConfig.connectorBaseConfig), <s> and <t> being the flow's source and target alias:
 *   KEY                               for any option of flow_options.def
 *   consumer.KEY, source.consumer.KEY, producer.KEY, target.producer.KEY, … (and with `override.` behind the client)
 *   <s>.consumer.KEY, <t>.producer.KEY, <t>.sundog.KEY
 *   <s>-><t>.KEY, and all of the forms of line 2 behind this prefix
 * A cluster is reached by <alias>.bootstrap.servers and what security.h reads. Every key of MM2, its worker and its
 * clients is accepted: what is not served, and what stands where it has no effect, is named in one warning each;
 * any other key is refused, and so is a value that asks a config provider (${…}).
 *
 * Pure but for the warnings, which go to the caller. The result owns its memory. */
#ifndef SUNDOG_MIRROR_ROUTE_CONFIG_H
#define SUNDOG_MIRROR_ROUTE_CONFIG_H

#include "base/runtime/options.h"
#include "mirror/route/policy.h"
#include "proto/client/security.h"

#define MIRROR_CLUSTERS_MAX 64
#define MIRROR_ALIAS_MAX    100

struct flow_options {
#define OPTION OPTION_FIELD
#include "mirror/route/flow_options.def"
#undef OPTION
};
extern const struct option_table flow_option_table;

struct mirror_cluster {
    char *alias;
    char *bootstrap; /* HOST:PORT, comma separated */
    struct client_security security;
};

/* A consumer's setting that is no option of ours: the source port takes it or says that it does not. */
struct config_property {
    char *key, *value; /* without the prefix */
};

struct mirror_flow {
    int source, target; /* indexes into clusters */
    char *name;         /* "east->west" */
    bool served;        /* enabled, and its target was asked for */
    struct flow_options o;
    struct config_property *consumer;
    int consumer_n;
};

struct mirror_config {
    struct mirror_cluster *clusters;
    int clusters_n;
    struct mirror_flow *flows; /* every ordered pair, in the order of `clusters` */
    int flows_n;
};

struct config_warnings {
    void (*line)(void *arg, const char *text);
    void *arg;
};

/* `targets` (n of them, 0: all) are the aliases of --clusters. `own` is the table of the reading program: its keys are
 * good at the top and behind an alias, see mirror_config_own. Keys taken are marked as used in `p`; others that are
 * used already are left alone. On error `out` holds nothing. */
int mirror_config_read(struct props *p, const char *const *targets, size_t targets_n,
                       const struct option_table *own, const struct config_warnings *warn,
                       struct mirror_config *out, struct err *err);
/* Only how the clusters are reached: `clusters`, bootstrap addresses, security; no flows. */
int mirror_config_addresses(struct props *p, struct mirror_config *out, struct err *err);
void mirror_config_fini(struct mirror_config *c);
/* The program's own options into `out` (of own->struct_bytes; options_fini frees it): KEY at the top, overridden by
 * <alias>.KEY. So one file may serve the mirrors of both sites. `alias` may be NULL. */
int mirror_config_own(const struct props *p, const struct option_table *own, const char *alias, void *out,
                      struct err *err);
/* The target of every served flow when it is the same one; NULL when there are several, or none. */
const char *mirror_config_only_target(const struct mirror_config *c);

/* -1 when there is none. */
int mirror_config_cluster(const struct mirror_config *c, const char *alias);
struct mirror_flow *mirror_config_flow(const struct mirror_config *c, const char *source, const char *target);
/* Naming of a flow; the slices point into the configuration. */
struct policy mirror_flow_policy(const struct mirror_config *c, const struct mirror_flow *f);

#endif
