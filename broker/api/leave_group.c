/* LeaveGroup: members go, or are removed by an administrator. */
#include "broker/api/group_request.h"

void handle_leave_group(struct api_request *req)
{
    group_request(req, ((const struct kp_leave_group_request *)req->body)->group_id, groups_leave);
}
