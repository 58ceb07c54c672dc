/* Requests that the active controller decides: they go to it as they are and come back as they are answered.
 * CreateTopics, DeleteTopics, CreatePartitions, AlterConfigs, IncrementalAlterConfigs, UpdateFeatures,
 * DescribeQuorum. */
#include "broker/api/api.h"
#include "broker/broker.h"
#include "broker/controller/control.h"

static void answered(struct control_call *call)
{
    api_respond(call->arg, call->response);
}

/* The request's own arena holds call and response; it lives until the answer has left. */
static void pass_on(struct api_request *req, const struct kp_message *response, int32_t timeout_ms)
{
    struct control_call *call = API_NEW(req, struct control_call);
    void *body = arena_alloc(&req->arena, response->body->size_bytes);
    if (!call || !body) {
        api_close(req, "out of memory");
        return;
    }
    *call = (struct control_call){.api_key = req->api->key,
                                  .request = req->body,
                                  .response = body,
                                  .arena = &req->arena,
                                  .home = req->shard->loop,
                                  .timeout_ms = timeout_ms,
                                  .done = answered,
                                  .arg = req};
    control_submit(req->shard->broker->control, call);
}

void handle_create_topics(struct api_request *req)
{
    const struct kp_create_topics_request *in = req->body;
    pass_on(req, &kp_create_topics_response_message, in->timeout_ms);
}

void handle_delete_topics(struct api_request *req)
{
    const struct kp_delete_topics_request *in = req->body;
    pass_on(req, &kp_delete_topics_response_message, in->timeout_ms);
}

void handle_create_partitions(struct api_request *req)
{
    const struct kp_create_partitions_request *in = req->body;
    pass_on(req, &kp_create_partitions_response_message, in->timeout_ms);
}

void handle_alter_configs(struct api_request *req)
{
    pass_on(req, &kp_alter_configs_response_message, 0);
}

void handle_incremental_alter_configs(struct api_request *req)
{
    pass_on(req, &kp_incremental_alter_configs_response_message, 0);
}

void handle_update_features(struct api_request *req)
{
    const struct kp_update_features_request *in = req->body;
    pass_on(req, &kp_update_features_response_message, in->timeout_ms);
}

void handle_describe_quorum(struct api_request *req)
{
    pass_on(req, &kp_describe_quorum_response_message, 0);
}
