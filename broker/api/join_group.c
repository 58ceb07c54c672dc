/* JoinGroup: waits on the group's shard until its generation begins. */
#include "broker/api/group_request.h"

void handle_join_group(struct api_request *req)
{
    group_request(req, ((const struct kp_join_group_request *)req->body)->group_id, groups_join);
}
