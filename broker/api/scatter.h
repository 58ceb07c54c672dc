/* One request, many partitions on any shards: each item is run where its partition is, the request goes on when all
 * are done.
 *
 * Items live in the request's arena; while the scatter is under way an item is its shard's, the rest of the request
 * nobody's. `run` must, then or later, call scatter_done once per item, on the item's shard. On one shard all happens
 * within scatter_start unless items wait. */
#ifndef SUNDOG_BROKER_API_SCATTER_H
#define SUNDOG_BROKER_API_SCATTER_H

#include "broker/api/api.h"
#include "broker/partition/partition.h"

struct scatter_part;

struct scatter_item {
    struct scatter_item *next; /* private */
    struct scatter_part *part; /* private, but for part's shard: scatter_shard */
    struct uuid topic_id;
    int32_t index;
};

struct scatter {
    struct api_request *req;
    void (*run)(struct scatter_item *item, struct partition *p); /* `p` may be NULL */
    void (*finished)(struct api_request *req);                   /* at home */
    struct scatter_part *parts;                                  /* by shard */
    unsigned left;
};

/* `s` in the arena, with req, run and finished set. False: out of memory, nothing has begun. */
bool scatter_init(struct scatter *s);
/* Items whose topic is known. */
void scatter_add(struct scatter *s, struct scatter_item *item);
void scatter_start(struct scatter *s);
void scatter_done(struct scatter_item *item);
struct shard *scatter_shard(const struct scatter_item *item);

#endif
