/* DescribeConfigs: the options of topics and of this broker, with where each value comes from. Answered from the
 * shard's image and the broker's properties. */
#include "broker/api/api.h"
#include "broker/api/config_statics.h"
#include "broker/broker.h"
#include "broker/metadata/image.h"
#include "broker/metadata/topic_config.h"

#include <stdio.h>

struct describing {
    struct api_request *req;
    const struct kp_describe_configs_request *q;
    const struct kp_describe_configs_request_resources *from;
    struct kp_describe_configs_response_results *to;
    const struct image *image;
    struct static_configs statics;
};

static void refuse(struct describing *d, int16_t error, struct slice text)
{
    assert(error != KE_NONE);
    d->to->error_code = error;
    d->to->error_message = text;
}

static bool wanted(const struct describing *d, struct slice key)
{
    if (d->from->configuration_keys_n < 0)
        return true;
    for (int32_t i = 0; i < d->from->configuration_keys_n; i++) {
        if (slice_eq(d->from->configuration_keys[i], key))
            return true;
    }
    return false;
}

static struct kp_describe_configs_response_configs *add(struct describing *d, const char *key,
                                                        const char *help)
{
    struct kp_describe_configs_response_configs *c = &d->to->configs[d->to->configs_n++];
    *c = (struct kp_describe_configs_response_configs){.name = slice_str(key), .documentation = SLICE_NULL};
    if (d->q->include_documentation)
        c->documentation = slice_str(help);
    return c;
}

static void add_synonyms(struct describing *d, struct kp_describe_configs_response_configs *c,
                         const struct config_value *v, int32_t n)
{
    c->value = n > 0 ? v[0].value : SLICE_NULL;
    c->config_source = n > 0 ? (int8_t)v[0].source : (int8_t)CONFIG_SOURCE_DEFAULT;
    if (!d->q->include_synonyms)
        return;
    c->synonyms = API_NEWS(d->req, struct kp_describe_configs_response_synonyms, n);
    for (; c->synonyms && c->synonyms_n < n; c->synonyms_n++) {
        const struct config_value *s = &v[c->synonyms_n];
        c->synonyms[c->synonyms_n] =
            (struct kp_describe_configs_response_synonyms){s->key, s->value, (int8_t)s->source};
    }
}

/* ---- topics ---- */

static void describe_topic(struct describing *d)
{
    struct err err = {0};
    size_t n;
    const struct topic_config_row *rows = topic_config_rows(&n);
    if (topic_name_check(d->from->resource_name, &err) < 0) {
        refuse(d, KE_INVALID_TOPIC_EXCEPTION, arena_dup(&d->req->arena, slice_str(err.text)));
        return;
    }
    if (!d->image || !image_topic(d->image, d->from->resource_name)) {
        refuse(d, KE_UNKNOWN_TOPIC_OR_PARTITION, SLICE_NULL);
        return;
    }
    struct config_view view = {d->image, d->req->shard->broker->node_id, &d->statics};
    const struct image_config *own = image_config(d->image, IMAGE_CONFIG_TOPIC, d->from->resource_name);
    d->to->configs = API_NEWS(d->req, struct kp_describe_configs_response_configs, n);
    for (size_t i = 0; d->to->configs && i < n; i++) {
        struct config_value v[CONFIG_SYNONYMS_MAX];
        if (!wanted(d, slice_str(rows[i].key)))
            continue;
        struct kp_describe_configs_response_configs *c = add(d, rows[i].key, rows[i].help);
        int32_t synonyms = effective_topic_config(&view, own, &rows[i], &d->req->arena, v);
        c->config_type = (int8_t)rows[i].type;
        add_synonyms(d, c, v, synonyms);
    }
}

/* ---- this broker ---- */

static int8_t type_of(enum option_type type)
{
    static const int8_t types[] = {
        [OPTION_BOOL] = 1,   [OPTION_INT] = 3,  [OPTION_LONG] = 5,    [OPTION_DOUBLE] = 6,
        [OPTION_STRING] = 2, [OPTION_LIST] = 7, [OPTION_PASSWORD] = 9};
    return types[type];
}

static void describe_option(struct describing *d, const struct option_row *row)
{
    struct config_value v[3];
    struct slice key = slice_str(row->key);
    bool is_default;
    struct config_view view = {d->image, d->req->shard->broker->node_id, &d->statics};
    struct kp_describe_configs_response_configs *c = add(d, row->key, row->help);
    int32_t n = d->image ? effective_broker_dynamic(&view, key, v) : 0;
    struct slice value =
        config_static_value(d->req->shard->broker->options, row, &d->req->arena, &is_default);
    assert(n <= 2); /* room for one more in `v` */
    if (!slice_is_null(value))
        v[n++] = (struct config_value){key, value, is_default ? CONFIG_SOURCE_DEFAULT : CONFIG_SOURCE_STATIC};
    c->config_type = type_of(row->type);
    c->read_only = topic_config_of_broker_key(key) == NULL; /* what else there is is read at the start */
    c->is_sensitive = row->type == OPTION_PASSWORD;
    add_synonyms(d, c, v, n);
}

static void describe_broker(struct describing *d)
{
    const struct option_table *t = &broker_option_table;
    d->to->configs = API_NEWS(d->req, struct kp_describe_configs_response_configs, t->n);
    for (size_t i = 0; d->to->configs && i < t->n; i++) {
        if (wanted(d, slice_str(t->rows[i].key)))
            describe_option(d, &t->rows[i]);
    }
}

/* What is set for all brokers together, and nothing else. */
static void describe_cluster_default(struct describing *d)
{
    const struct image_config *c =
        d->image ? image_config(d->image, IMAGE_CONFIG_BROKER, SLICE_LIT("")) : NULL;
    int32_t n = c ? c->entries_n : 0;
    d->to->configs = API_NEWS(d->req, struct kp_describe_configs_response_configs, n);
    for (int32_t i = 0; d->to->configs && i < n; i++) {
        if (!wanted(d, c->entries[i].key))
            continue;
        const struct topic_config_row *row = topic_config_of_broker_key(c->entries[i].key);
        struct config_value v = {c->entries[i].key, c->entries[i].value, CONFIG_SOURCE_DYNAMIC_CLUSTER};
        struct kp_describe_configs_response_configs *to = add(d, (const char *)v.key.p, row ? row->help : "");
        to->config_type = row ? (int8_t)row->type : 0;
        add_synonyms(d, to, &v, 1);
    }
}

static void describe_broker_resource(struct describing *d)
{
    char id[16];
    snprintf(id, sizeof id, "%d", d->req->shard->broker->node_id);
    if (d->from->resource_name.n == 0)
        describe_cluster_default(d);
    else if (slice_eq_str(d->from->resource_name, id))
        describe_broker(d);
    else
        refuse(d, KE_INVALID_REQUEST,
               arena_printf(&d->req->arena,
                            "Unexpected broker id, expected %s or empty string, but received %.*s", id,
                            SLICE_FMT(d->from->resource_name)));
}

static void describe(struct describing *d)
{
    *d->to = (struct kp_describe_configs_response_results){.error_message = SLICE_NULL,
                                                           .resource_type = d->from->resource_type,
                                                           .resource_name = d->from->resource_name};
    if (d->from->resource_type == IMAGE_CONFIG_TOPIC)
        describe_topic(d);
    else if (d->from->resource_type == IMAGE_CONFIG_BROKER)
        describe_broker_resource(d);
    else
        refuse(d, KE_INVALID_REQUEST,
               arena_printf(&d->req->arena, "Unsupported resource type: %d", d->from->resource_type));
}

void handle_describe_configs(struct api_request *req)
{
    const struct kp_describe_configs_request *q = req->body;
    struct kp_describe_configs_response *r = API_NEW(req, struct kp_describe_configs_response);
    if (!r) {
        api_close(req, "out of memory");
        return;
    }
    kp_init(&kp_describe_configs_response_message, r);
    r->results = API_NEWS(req, struct kp_describe_configs_response_results, q->resources_n);
    for (; r->results && r->results_n < q->resources_n; r->results_n++) {
        struct describing d = {
            .req = req,
            .q = q,
            .from = &q->resources[r->results_n],
            .to = &r->results[r->results_n],
            .image = req->shard->image,
            .statics = {config_static_get, (void *)(uintptr_t)req->shard->broker->options}};
        describe(&d);
    }
    api_respond(req, r);
}
