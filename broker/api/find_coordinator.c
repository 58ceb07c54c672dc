/* FindCoordinator: which broker leads the partition of __consumer_offsets that a group belongs to. The topic is made
 * when the first client asks. */
#include "broker/api/lookup.h"
#include "broker/broker.h"
#include "broker/controller/control.h"
#include "broker/group/groups.h"

#include "base/runtime/log.h"

enum { KEY_GROUP = 0, KEY_TRANSACTION = 1 };

struct search {
    struct api_request *req;
    struct kp_find_coordinator_response *out;
    struct control_call call; /* creation */
};

static const struct image_topic *offsets_topic(const struct api_request *req)
{
    int16_t error;
    return lookup_topic(req, false, SLICE_LIT(GROUPS_TOPIC), NULL, &error);
}

/* This node by the address of the listener that was asked, others as they have registered. */
static int16_t put_node(struct api_request *req, int32_t node,
                        struct kp_find_coordinator_response_coordinators *out)
{
    const struct image_endpoint *at = lookup_endpoint(req, node);
    if (node == req->shard->broker->node_id) {
        out->host = slice_str(req->listener->advertised_host);
        out->port = req->listener->advertised_port;
    } else if (at) {
        out->host = at->host;
        out->port = at->port;
    } else {
        return KE_COORDINATOR_NOT_AVAILABLE;
    }
    out->node_id = node;
    return KE_NONE;
}

static int16_t find_group(struct search *s, struct slice group,
                          struct kp_find_coordinator_response_coordinators *out)
{
    const struct image_topic *t = offsets_topic(s->req);
    if (!t || t->partitions_n <= 0)
        return KE_COORDINATOR_NOT_AVAILABLE;
    const struct image_partition *p = image_partition(t, groups_partition_of(group, t->partitions_n));
    if (!p || p->leader < 0)
        return KE_COORDINATOR_NOT_AVAILABLE;
    return put_node(s->req, p->leader, out);
}

static struct kp_find_coordinator_response_coordinators find(struct search *s, struct slice key)
{
    const struct kp_find_coordinator_request *in = s->req->body;
    struct kp_find_coordinator_response_coordinators r = {
        .key = key, .node_id = -1, .host = slice_of("", 0), .port = -1, .error_message = SLICE_NULL};
    if (in->key_type == KEY_GROUP) {
        r.error_code = find_group(s, key, &r);
    } else if (in->key_type == KEY_TRANSACTION) {
        /* Final to every client: what is retriable would be retried for ever. */
        r.error_code = KE_TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        r.error_message = SLICE_LIT("This broker does not serve transactions.");
    } else {
        r.error_code = KE_INVALID_REQUEST;
    }
    return r;
}

static void answer(struct search *s)
{
    struct api_request *req = s->req;
    const struct kp_find_coordinator_request *in = req->body;
    struct kp_find_coordinator_response *out = s->out;
    if (req->version < 4) {
        struct kp_find_coordinator_response_coordinators r = find(s, in->key);
        out->error_code = r.error_code;
        out->error_message = r.error_message;
        out->node_id = r.node_id;
        out->host = r.host;
        out->port = r.port;
    } else {
        out->coordinators =
            API_NEWS(req, struct kp_find_coordinator_response_coordinators, in->coordinator_keys_n);
        for (int32_t i = 0; i < in->coordinator_keys_n && out->coordinators; i++)
            out->coordinators[out->coordinators_n++] = find(s, in->coordinator_keys[i]);
    }
    api_respond(req, out);
}

static void on_created(struct control_call *call)
{
    if (call->error)
        log_warn("broker.api", "%s not made error=%s", GROUPS_TOPIC, kafka_error_name(call->error));
    answer(call->arg);
}

void handle_find_coordinator(struct api_request *req)
{
    static const struct slice names[] = {{(const uint8_t *)GROUPS_TOPIC, sizeof GROUPS_TOPIC - 1}};
    const struct kp_find_coordinator_request *in = req->body;
    struct search *s = API_NEW(req, struct search);
    struct kp_find_coordinator_response *out = API_NEW(req, struct kp_find_coordinator_response);
    if (!s || !out) {
        api_close(req, "out of memory");
        return;
    }
    kp_init(&kp_find_coordinator_response_message, out);
    *s = (struct search){.req = req, .out = out};
    struct control *control = req->shard->broker->control;
    if (in->key_type != KEY_GROUP || offsets_topic(req) || !control) {
        answer(s);
        return;
    }
    s->call =
        (struct control_call){.arena = &req->arena, .home = req->shard->loop, .done = on_created, .arg = s};
    control_create_on_use(control, &s->call, names, 1);
}
