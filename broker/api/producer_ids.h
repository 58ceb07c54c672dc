/* A shard's block of producer ids; see init_producer_id.c. Shard's thread. */
#ifndef SUNDOG_BROKER_API_PRODUCER_IDS_H
#define SUNDOG_BROKER_API_PRODUCER_IDS_H

#include "broker/api/api.h"

/* Sets shard->producer_ids. */
int producer_ids_create(struct shard *shard);
void producer_ids_destroy(struct producer_ids *ids);

#endif
