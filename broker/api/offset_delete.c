/* OffsetDelete: a group forgets partitions that it does not read. */
#include "broker/api/group_request.h"

void handle_offset_delete(struct api_request *req)
{
    group_request(req, ((const struct kp_offset_delete_request *)req->body)->group_id, groups_offset_delete);
}
