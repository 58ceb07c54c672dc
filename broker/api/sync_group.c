/* SyncGroup: waits on the group's shard for the leader's assignment. */
#include "broker/api/group_request.h"

void handle_sync_group(struct api_request *req)
{
    group_request(req, ((const struct kp_sync_group_request *)req->body)->group_id, groups_sync);
}
