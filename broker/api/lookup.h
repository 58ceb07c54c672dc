/* What several handlers ask of a topic or a partition before they do their work. */
#ifndef SUNDOG_BROKER_API_LOOKUP_H
#define SUNDOG_BROKER_API_LOOKUP_H

#include "broker/api/api.h"
#include "broker/metadata/image.h"
#include "broker/partition/partition.h"

/* The topic of a name, or of an id when `by_id`; NULL and the error for it. */
const struct image_topic *lookup_topic(const struct api_request *req, bool by_id, struct slice name,
                                       const struct uuid *id, int16_t *error);
/* KE_NONE when this partition leads and the caller's idea of its epoch (-1: none) is right; `p` may be NULL: the image
 * has it, this shard does not. */
int16_t lookup_leader_error(const struct partition *p, int32_t current_leader_epoch);
/* Leader and epoch as the image has them, for answers that send a client elsewhere (KIP-951); false: unknown. */
bool lookup_current_leader(const struct api_request *req, const struct uuid *topic_id, int32_t index,
                           int32_t *leader, int32_t *epoch);
/* Where clients of this request's listener reach a broker; NULL: nowhere. */
const struct image_endpoint *lookup_endpoint(const struct api_request *req, int32_t broker_id);

#endif
