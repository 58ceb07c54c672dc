/* Who this node is, as its log dirs say: `meta.properties` in each, `bootstrap.checkpoint` beside the metadata log.
 *
 * A first start formats the directories, as `kafka-storage format` would; a directory that either has formatted starts
 * on the other. A directory of another cluster or node is refused in one line that names it, the key and the remedy.
 *
 *   meta.properties: version=1, cluster.id, node.id, directory.id (unique per directory; a wiped one gets a new id,
 *   which is how a lost disk is told from a restart)
 *
 * Written in an order that a crash cannot confuse: bootstrap.checkpoint and the 0-0 checkpoint first, then
 * meta.properties of the metadata directory, then those of the others. Blocks; before the loops run, with the
 * directories locked. */
#ifndef SUNDOG_BROKER_LIFECYCLE_IDENTITY_H
#define SUNDOG_BROKER_LIFECYCLE_IDENTITY_H

#include "base/core/err.h"
#include "base/core/uuid.h"
#include "base/world/disk.h"
#include "broker/log/manager.h"

#define META_PROPERTIES_NAME   "meta.properties"
#define BOOTSTRAP_NAME         "bootstrap.checkpoint"
#define CLUSTER_ID_MAX         255
#define IDENTITY_ENDPOINTS_MAX 16

struct meta_properties {
    char cluster_id[CLUSTER_ID_MAX + 1];
    int32_t node_id;
    struct uuid directory_id; /* zero: the file has none (before Kafka 3.7) */
};

/* -E_NOTFOUND: no file. -E_CONFIG: one that is not version 1, or without a key. */
int meta_properties_read(struct disk *disk, const char *dir, struct meta_properties *out, struct err *err);
int meta_properties_parse(struct slice text, const char *origin, struct meta_properties *out,
                          struct err *err);
int meta_properties_write(struct disk *disk, const char *dir, const struct meta_properties *m,
                          int64_t wall_ms, struct err *err);

/* Where the controller listener is reached; with at least one the node is formatted with kraft.version 1. */
struct identity_endpoint {
    const char *listener, *host;
    uint16_t port;
};

struct identity_options {
    struct disk *disk;
    const char *const *dirs; /* those that are online, all locked */
    unsigned dirs_n;
    unsigned metadata_dir; /* its index among them */
    int32_t node_id;
    const char *cluster_id; /* sundog.cluster.id, or NULL */
    const struct identity_endpoint *endpoints;
    unsigned endpoints_n;
    int64_t wall_ms;
    uint64_t (*random)(void *arg);
    void *random_arg;
};

struct identity {
    char cluster_id[CLUSTER_ID_MAX + 1];
    struct uuid directory_ids[LOG_DIRS_MAX]; /* in the order of options.dirs */
    bool formatted;                          /* this was the first start */
};

int identity_prepare(const struct identity_options *o, struct identity *out, struct err *err);

/* Random (version 4), not reserved, and not beginning with "-" as text, like Kafka's own. */
struct uuid identity_uuid(uint64_t (*draw)(void *arg), void *arg);

#endif
