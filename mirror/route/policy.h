/* Names of mirrored topics and of MM2's internal topics: DefaultReplicationPolicy and IdentityReplicationPolicy, with
 * the internal-topic rules of Kafka 4.0 (KIP-690, KIP-949, KIP-1074) and cycle detection over the whole prefix chain.
 *
 * Pure; results are slices of the topic given or bytes appended to a buffer. */
#ifndef SUNDOG_MIRROR_ROUTE_POLICY_H
#define SUNDOG_MIRROR_ROUTE_POLICY_H

#include "base/core/buf.h"

#define POLICY_TOPIC_MAX 249 /* bytes of a topic's name, as Kafka has it */

enum policy_kind { POLICY_DEFAULT, POLICY_IDENTITY };

struct policy {
    enum policy_kind kind;
    struct slice separator;          /* "." unless replication.policy.separator says otherwise */
    struct slice internal_separator; /* of internal topics: the same, or "." (KIP-949) */
    struct slice source, target;     /* the flow's aliases */
};

/* `class` is replication.policy.class: the two of MM2, with or without their package. -E_CONFIG for any other. */
int policy_kind_parse(const char *class, enum policy_kind *out);

/* The name at the target of the source's `topic`. */
void policy_remote_topic(const struct policy *p, struct slice topic, struct buf *out);
/* The alias the topic came from by its name; null for a topic of its own cluster. */
struct slice policy_topic_source(const struct policy *p, struct slice topic);
/* The name one hop (upstream) or all hops (original) back; upstream is null where there is no hop. */
struct slice policy_upstream_topic(const struct policy *p, struct slice topic);
struct slice policy_original_topic(const struct policy *p, struct slice topic);

bool policy_is_heartbeats(const struct policy *p, struct slice topic);
bool policy_is_checkpoints(const struct policy *p, struct slice topic);
/* Never mirrored: Kafka's own, MM2's and ours. */
bool policy_is_internal(const struct policy *p, struct slice topic);
/* Some hop of the topic's name is the flow's target: it has been there. */
bool policy_is_cycle(const struct policy *p, struct slice topic);

/* "<source>.checkpoints.internal", "mm2-offset-syncs.<other>.internal", "sundog-progress.<source>.internal". */
void policy_checkpoints_topic(const struct policy *p, struct buf *out);
void policy_offset_syncs_topic(const struct policy *p, struct slice other, struct buf *out);
void policy_progress_topic(struct slice source, struct buf *out);

#define POLICY_HEARTBEATS "heartbeats"

#endif
