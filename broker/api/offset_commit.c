/* OffsetCommit: answered when the offsets are committed in __consumer_offsets. */
#include "broker/api/group_request.h"

void handle_offset_commit(struct api_request *req)
{
    group_request(req, ((const struct kp_offset_commit_request *)req->body)->group_id, groups_commit);
}
