/* Tells the controller in which log dir each replica of this node lies, wherever its record says otherwise (KIP-858).
 *
 *   directories_wanted ─▶ after DIRECTORIES_DELAY: collect ─▶ AssignReplicasToDirs ─▶ more left: at once
 *                                                                                └─▶ an error: after DIRECTORIES_RETRY
 *
 * What is right is seen in the image, so nothing is remembered: what still differs is collected again. Threading: one
 * for each shard, its loop's thread. Lifetime: create … stop … destroy, when no loop runs any more. */
#ifndef SUNDOG_BROKER_LIFECYCLE_DIRECTORIES_H
#define SUNDOG_BROKER_LIFECYCLE_DIRECTORIES_H

#include "base/core/uuid.h"
#include "base/world/loop.h"
#include "broker/controller/control.h"

#define DIRECTORIES_CALL_MAX 1000 /* replicas a call */
#define DIRECTORIES_DELAY_US 50000
#define DIRECTORIES_RETRY_US 1000000

struct directories;

struct directories_options {
    struct loop *loop;
    struct control *control;
    int32_t node_id;
    const struct image *(*image)(void *arg); /* the shard's */
    /* Calls directories_add for each replica whose record names another directory. */
    void (*collect)(void *arg, struct directories *d);
    void *arg;
};

struct directories *directories_create(const struct directories_options *o); /* NULL: no memory */
/* There is something to collect. */
void directories_wanted(struct directories *d);
void directories_add(struct directories *d, const struct uuid *topic_id, int32_t index,
                     const struct uuid *directory);
void directories_stop(struct directories *d);
void directories_destroy(struct directories *d); /* NULL is fine */

#endif
