/* DescribeCluster (KIP-700, 919, 1073): brokers and cluster id; controllers are not asked here. */
#include "broker/api/api.h"
#include "broker/broker.h"
#include "broker/metadata/image.h"

#define CLUSTER_OPERATIONS 8096 /* as metadata.c */
enum { ENDPOINT_BROKERS = 1, ENDPOINT_CONTROLLERS = 2 };

static void add(struct api_request *req, struct kp_describe_cluster_response *r, const struct image_broker *b)
{
    const struct kp_describe_cluster_request *in = req->body;
    const struct broker *self = req->shard->broker;
    const struct image_endpoint *at = image_endpoint(b, slice_str(req->listener->name));
    bool me = b->id == self->node_id;
    if ((b->fenced && !in->include_fenced_brokers) || (!at && !me))
        return;
    r->brokers[r->brokers_n++] = (struct kp_describe_cluster_response_brokers){
        .broker_id = b->id,
        .host = me ? slice_str(req->listener->advertised_host) : at->host,
        .port = me ? req->listener->advertised_port : at->port,
        .rack = b->rack,
        .is_fenced = b->fenced};
}

/* KIP-919: the controllers, asked on one's own listener. A quorum of one is this node. */
static void add_controller(struct api_request *req, struct kp_describe_cluster_response *r)
{
    r->brokers = API_NEW(req, struct kp_describe_cluster_response_brokers);
    if (!r->brokers)
        return;
    r->brokers_n = 1;
    r->brokers[0] =
        (struct kp_describe_cluster_response_brokers){.broker_id = req->shard->broker->node_id,
                                                      .host = slice_str(req->listener->advertised_host),
                                                      .port = req->listener->advertised_port,
                                                      .rack = SLICE_NULL};
}

void handle_describe_cluster(struct api_request *req)
{
    const struct kp_describe_cluster_request *in = req->body;
    const struct image *image = req->shard->image;
    struct kp_describe_cluster_response *r = API_NEW(req, struct kp_describe_cluster_response);
    if (!r) {
        api_close(req, "out of memory");
        return;
    }
    kp_init(&kp_describe_cluster_response_message, r);
    r->endpoint_type = in->endpoint_type;
    r->controller_id = req->shard->broker->node_id;
    r->cluster_id = image ? image_cluster_id(image) : SLICE_LIT("");
    if (req->listener->controller && in->endpoint_type == ENDPOINT_CONTROLLERS) {
        add_controller(req, r);
        api_respond(req, r);
        return;
    }
    if (in->endpoint_type != ENDPOINT_BROKERS || req->listener->controller) {
        bool known = in->endpoint_type == ENDPOINT_CONTROLLERS || in->endpoint_type == ENDPOINT_BROKERS;
        r->error_code = known ? KE_MISMATCHED_ENDPOINT_TYPE : KE_UNSUPPORTED_ENDPOINT_TYPE;
        r->error_message = req->listener->controller
                               ? SLICE_LIT("this is a controller's listener: ask for controllers")
                               : SLICE_LIT("this is a broker's listener: ask for brokers");
        api_respond(req, r);
        return;
    }
    if (in->include_cluster_authorized_operations)
        r->cluster_authorized_operations = CLUSTER_OPERATIONS;
    r->brokers =
        API_NEWS(req, struct kp_describe_cluster_response_brokers, image ? image_brokers_n(image) : 0);
    for (const struct image_broker *b = NULL; image && r->brokers && (b = image_broker_next(image, b));)
        add(req, r, b);
    api_respond(req, r);
}
