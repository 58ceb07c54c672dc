/* Metadata: brokers, topics, partitions, as the image has them; and topics made on first use (PROTOCOL.md §2.2). */
#include "broker/api/lookup.h"
#include "broker/broker.h"
#include "broker/controller/control.h"

#include "base/runtime/log.h"

#define TOPIC_NAME_MAX 249
/* One request makes at most so many; what is over is made for the client's next one. */
#define CREATE_MAX 64
/* The operations that Kafka lists when there is no authorizer: bits of AclOperation. */
#define TOPIC_OPERATIONS   3576
#define CLUSTER_OPERATIONS 8096

struct metadata {
    struct api_request *req;
    struct kp_metadata_response *out;
    struct control_call call; /* creation */
    bool created;
};

static void answer(struct metadata *m);

static bool name_ok(struct slice name)
{
    if (name.n == 0 || name.n > TOPIC_NAME_MAX || slice_eq_str(name, ".") || slice_eq_str(name, ".."))
        return false;
    for (size_t i = 0; i < name.n; i++) {
        uint8_t c = name.p[i];
        bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!word && c != '.' && c != '_' && c != '-')
            return false;
    }
    return true;
}

/* ---- topics ---- */

static bool fenced(const struct image *image, int32_t broker)
{
    const struct image_broker *b = image_broker(image, broker);
    return !b || b->fenced;
}

static void fill_partition(struct api_request *req, const struct image_topic *t, int32_t index,
                           struct kp_metadata_response_partitions *out)
{
    const struct image *image = req->shard->image;
    const struct image_partition *p = image_partition(t, index);
    bool leads = p->leader >= 0 && !fenced(image, p->leader);
    *out = (struct kp_metadata_response_partitions){.error_code = leads ? KE_NONE : KE_LEADER_NOT_AVAILABLE,
                                                    .partition_index = index,
                                                    .leader_id = leads ? p->leader : -1,
                                                    .leader_epoch = p->leader_epoch,
                                                    .replica_nodes = (int32_t *)(uintptr_t)p->replicas,
                                                    .replica_nodes_n = p->replicas_n,
                                                    .isr_nodes = (int32_t *)(uintptr_t)p->isr,
                                                    .isr_nodes_n = p->isr_n};
    out->offline_replicas = API_NEWS(req, int32_t, p->replicas_n);
    for (int32_t i = 0; i < p->replicas_n && out->offline_replicas; i++)
        if (fenced(image, p->replicas[i]))
            out->offline_replicas[out->offline_replicas_n++] = p->replicas[i];
}

static void fill_topic(struct api_request *req, const struct image_topic *t,
                       struct kp_metadata_response_topics *out)
{
    const struct kp_metadata_request *in = req->body;
    *out = (struct kp_metadata_response_topics){.name = t->name,
                                                .topic_id = t->id,
                                                .is_internal = t->internal,
                                                .topic_authorized_operations = INT32_MIN};
    if (in->include_topic_authorized_operations)
        out->topic_authorized_operations = TOPIC_OPERATIONS;
    out->partitions = API_NEWS(req, struct kp_metadata_response_partitions, t->partitions_n);
    if (!out->partitions)
        return;
    out->partitions_n = t->partitions_n;
    for (int32_t i = 0; i < t->partitions_n; i++)
        fill_partition(req, t, i, &out->partitions[i]);
}

static void fill_all(struct metadata *m)
{
    struct api_request *req = m->req;
    const struct image *image = req->shard->image;
    m->out->topics = API_NEWS(req, struct kp_metadata_response_topics, image ? image_topics_n(image) : 0);
    for (const struct image_topic *t = NULL; image && m->out->topics && (t = image_topic_next(image, t));)
        fill_topic(req, t, &m->out->topics[m->out->topics_n++]);
    assert(!image || !m->out->topics || (size_t)m->out->topics_n == image_topics_n(image));
}

/* What creation said of this name, where it failed. */
static int16_t creation_error(const struct metadata *m, struct slice name)
{
    const struct kp_create_topics_response *r = m->call.response;
    if (!m->created || m->call.error)
        return KE_UNKNOWN_TOPIC_OR_PARTITION;
    for (int32_t i = 0; r && i < r->topics_n; i++) {
        int16_t e = r->topics[i].error_code;
        if (slice_eq(r->topics[i].name, name) &&
            (e == KE_INVALID_TOPIC_EXCEPTION || e == KE_INVALID_REPLICATION_FACTOR))
            return e;
    }
    return KE_UNKNOWN_TOPIC_OR_PARTITION;
}

static void fill_one(struct metadata *m, const struct kp_metadata_request_topics *in,
                     struct kp_metadata_response_topics *out)
{
    bool by_id = slice_is_null(in->name);
    int16_t error;
    const struct image_topic *t = lookup_topic(m->req, by_id, in->name, &in->topic_id, &error);
    if (t) {
        fill_topic(m->req, t, out);
        return;
    }
    if (!by_id && !name_ok(in->name))
        error = KE_INVALID_TOPIC_EXCEPTION;
    else if (!by_id)
        error = creation_error(m, in->name);
    *out = (struct kp_metadata_response_topics){
        .error_code = error, .name = in->name, .topic_authorized_operations = INT32_MIN};
    if (by_id)
        out->topic_id = in->topic_id;
    if (by_id && m->req->version < 12)
        out->name = SLICE_LIT("");
}

/* ---- brokers ---- */

static void add_broker(struct api_request *req, struct kp_metadata_response *out,
                       const struct image_broker *b)
{
    struct kp_metadata_response_brokers *to = &out->brokers[out->brokers_n];
    const struct broker *self = req->shard->broker;
    const struct image_endpoint *at = image_endpoint(b, slice_str(req->listener->name));
    if (b->id == self->node_id || b->fenced || !at)
        return;
    *to = (struct kp_metadata_response_brokers){
        .node_id = b->id, .host = at->host, .port = at->port, .rack = b->rack};
    out->brokers_n++;
}

/* This node first, by the address of the listener that was asked; then the others that are alive. */
static void fill_brokers(struct api_request *req, struct kp_metadata_response *out)
{
    const struct image *image = req->shard->image;
    const struct broker *self = req->shard->broker;
    out->brokers =
        API_NEWS(req, struct kp_metadata_response_brokers, 1 + (image ? image_brokers_n(image) : 0));
    if (!out->brokers)
        return;
    out->brokers[out->brokers_n++] =
        (struct kp_metadata_response_brokers){.node_id = self->node_id,
                                              .host = slice_str(req->listener->advertised_host),
                                              .port = req->listener->advertised_port,
                                              .rack = slice_str(self->options->broker_rack)};
    for (const struct image_broker *b = NULL; image && (b = image_broker_next(image, b));)
        add_broker(req, out, b);
}

/* ---- creation ---- */

static bool may_create(const struct api_request *req)
{
    const struct kp_metadata_request *in = req->body;
    return req->shard->broker->options->auto_create_topics_enable &&
           (req->version < 4 || in->allow_auto_topic_creation);
}

/* The names that do not exist and could; false when there are none. */
static bool missing(struct metadata *m, const struct slice **names, int32_t *n)
{
    const struct kp_metadata_request *in = m->req->body;
    struct slice *v = API_NEWS(m->req, struct slice, CREATE_MAX);
    *n = 0;
    for (int32_t i = 0; i < in->topics_n && v && *n < CREATE_MAX; i++) {
        struct slice name = in->topics[i].name;
        int16_t error;
        if (!slice_is_null(name) && !lookup_topic(m->req, false, name, NULL, &error) && name_ok(name))
            v[(*n)++] = name;
    }
    assert(*n <= CREATE_MAX);
    *names = v;
    return *n > 0;
}

static void on_created(struct control_call *call)
{
    struct metadata *m = call->arg;
    assert(!m->created);
    if (call->error)
        log_warn("broker.api", "topics not made on first use error=%s", kafka_error_name(call->error));
    m->created = true;
    answer(m);
}

static bool create_missing(struct metadata *m)
{
    const struct slice *names;
    int32_t n;
    struct api_request *req = m->req;
    if (!may_create(req) || !missing(m, &names, &n) || !api_may_create(req->shard, n))
        return false;
    m->call =
        (struct control_call){.arena = &req->arena, .home = req->shard->loop, .done = on_created, .arg = m};
    control_create_on_use(req->shard->broker->control, &m->call, names, n);
    return true;
}

/* ---- */

static void answer(struct metadata *m)
{
    struct api_request *req = m->req;
    const struct kp_metadata_request *in = req->body;
    struct kp_metadata_response *out = m->out;
    bool all = in->topics_n < 0 || (req->version == 0 && in->topics_n == 0);
    fill_brokers(req, out);
    out->cluster_id = req->shard->image ? image_cluster_id(req->shard->image) : SLICE_NULL;
    out->controller_id = req->shard->broker->node_id;
    if (in->include_cluster_authorized_operations)
        out->cluster_authorized_operations = CLUSTER_OPERATIONS;
    if (all) {
        fill_all(m);
    } else {
        out->topics = API_NEWS(req, struct kp_metadata_response_topics, in->topics_n);
        for (int32_t i = 0; i < in->topics_n && out->topics; i++)
            fill_one(m, &in->topics[i], &out->topics[out->topics_n++]);
    }
    api_respond(req, out);
}

void handle_metadata(struct api_request *req)
{
    struct metadata *m = API_NEW(req, struct metadata);
    if (m)
        m->out = API_NEW(req, struct kp_metadata_response);
    if (!m || !m->out) {
        api_close(req, "out of memory");
        return;
    }
    m->req = req;
    kp_init(&kp_metadata_response_message, m->out);
    if (!create_missing(m))
        answer(m);
}
