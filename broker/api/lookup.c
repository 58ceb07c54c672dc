#include "broker/api/lookup.h"

const struct image_topic *lookup_topic(const struct api_request *req, bool by_id, struct slice name,
                                       const struct uuid *id, int16_t *error)
{
    const struct image *image = req->shard->image;
    const struct image_topic *t = NULL;
    *error = by_id ? KE_UNKNOWN_TOPIC_ID : KE_UNKNOWN_TOPIC_OR_PARTITION;
    if (image)
        t = by_id ? image_topic_by_id(image, id) : image_topic(image, name);
    if (t)
        *error = KE_NONE;
    return t;
}

int16_t lookup_leader_error(const struct partition *p, int32_t current_leader_epoch)
{
    if (!p)
        return KE_NOT_LEADER_OR_FOLLOWER;
    if (partition_is_failed(p))
        return KE_KAFKA_STORAGE_ERROR;
    if (current_leader_epoch >= 0 && current_leader_epoch != partition_leader_epoch(p))
        return current_leader_epoch < partition_leader_epoch(p) ? KE_FENCED_LEADER_EPOCH
                                                                : KE_UNKNOWN_LEADER_EPOCH;
    return partition_role(p) == PARTITION_LEADER ? KE_NONE : KE_NOT_LEADER_OR_FOLLOWER;
}

bool lookup_current_leader(const struct api_request *req, const struct uuid *topic_id, int32_t index,
                           int32_t *leader, int32_t *epoch)
{
    const struct image_topic *t = req->shard->image ? image_topic_by_id(req->shard->image, topic_id) : NULL;
    const struct image_partition *p = t ? image_partition(t, index) : NULL;
    if (!p)
        return false;
    *leader = p->leader;
    *epoch = p->leader_epoch;
    return true;
}

const struct image_endpoint *lookup_endpoint(const struct api_request *req, int32_t broker_id)
{
    const struct image_broker *b = req->shard->image ? image_broker(req->shard->image, broker_id) : NULL;
    return b ? image_endpoint(b, slice_str(req->listener->name)) : NULL;
}
