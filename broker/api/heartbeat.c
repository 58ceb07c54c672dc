/* Heartbeat: a member lives, and hears when the group rebalances. */
#include "broker/api/group_request.h"

void handle_heartbeat(struct api_request *req)
{
    group_request(req, ((const struct kp_heartbeat_request *)req->body)->group_id, groups_heartbeat);
}
