/* The admin port: /healthz, /metrics, /status. */
#include "base/core/jsonw.h"
#include "broker/metrics.h"
#include "broker/parts.h"

static void health(void *arg, struct admin_reply *r)
{
    struct broker_parts *p = arg;
    const char *why = broker_unready(&p->broker);
    r->status = why ? 503 : 200;
    buf_printf(&r->body, "%s\n", why ? why : "ok");
}

static void metrics(void *arg, struct admin_reply *r)
{
    struct broker_parts *p = arg;
    metrics_page(p->broker.metrics, &r->body);
}

static int64_t value(const struct broker_parts *p, unsigned id)
{
    return metrics_value(p->broker.metrics, id);
}

static void put_listeners(struct jsonw *j, const struct broker_parts *p)
{
    jsonw_key(j, "listeners");
    jsonw_array(j);
    for (size_t i = 0; i < p->listeners.n; i++) {
        const struct net_listen_at *at = &p->listeners.at[i];
        jsonw_object(j);
        jsonw_put_str(j, "name", at->api.name);
        jsonw_put_str(j, "protocol", at->api.protocol);
        jsonw_put_str(j, "host", at->host);
        jsonw_put_int(j, "port", at->port);
        jsonw_put_str(j, "advertised_host", at->api.advertised_host);
        jsonw_put_int(j, "advertised_port", at->api.advertised_port);
        jsonw_put_bool(j, "controller", at->api.controller);
        jsonw_end(j);
    }
    jsonw_end(j);
}

static void put_dirs(struct jsonw *j, const struct broker_parts *p)
{
    jsonw_key(j, "log_dirs");
    jsonw_array(j);
    for (unsigned i = 0; i < p->dirs_n; i++) {
        jsonw_object(j);
        jsonw_put_str(j, "path", p->dirs[i]);
        jsonw_put_bool(j, "online", log_dir_online(p->log_dirs, i));
        jsonw_put_str(j, "error", log_dir_online(p->log_dirs, i) ? NULL : log_dir_error(p->log_dirs, i));
        jsonw_put_int(j, "free_bytes", disk_free_bytes(p->disk, p->dirs[i]));
        jsonw_end(j);
    }
    jsonw_end(j);
}

static void put_counts(struct jsonw *j, const struct broker_parts *p)
{
    const struct image *image = p->shards[0].shard.image;
    jsonw_put_int(j, "topics", image ? (int64_t)image_topics_n(image) : 0);
    jsonw_put_int(j, "partitions", image ? image_partitions_n(image) : 0);
    jsonw_put_int(j, "partitions_online", value(p, M_sundog_broker_partitions_online));
    jsonw_put_int(j, "partitions_failed", value(p, M_sundog_broker_partitions_failed));
    jsonw_put_int(j, "connections", value(p, M_sundog_broker_connections));
    jsonw_put_int(j, "metadata_offset", image ? image_offset(image) : -1);
    jsonw_put_int(j, "metadata_epoch", image ? image_epoch(image) : -1);
}

static void status(void *arg, struct admin_reply *r)
{
    struct broker_parts *p = arg;
    const char *why = broker_unready(&p->broker);
    struct jsonw j;
    jsonw_init(&j, &r->body);
    jsonw_object(&j);
    jsonw_put_int(&j, "node_id", p->broker.node_id);
    jsonw_put_str(&j, "cluster_id", p->identity.cluster_id);
    jsonw_put_bool(&j, "serving", !why);
    jsonw_put_str(&j, "why", why);
    jsonw_put_int(&j, "broker_epoch", lifecycle_epoch(p->lifecycle));
    jsonw_put_int(&j, "uptime_ms", (loop_now_us(p->shards[0].shard.loop) - p->started_us) / 1000);
    jsonw_put_int(&j, "shards", p->broker.shards_n);
    put_counts(&j, p);
    put_listeners(&j, p);
    put_dirs(&j, p);
    jsonw_end(&j);
    buf_printf(&r->body, "\n");
}

static const struct admin_route routes[] = {
    {"/healthz", "text/plain; charset=utf-8", health},
    {"/metrics", "text/plain; version=0.0.4; charset=utf-8", metrics},
    {"/status", "application/json", status},
};

int broker_admin_open(struct broker_parts *p, struct err *err)
{
    const char *at = p->options->admin_listener;
    char host[ADMIN_HOST_MAX];
    uint16_t port;
    if (!at || !*at)
        return 0;
    int rc = admin_listener_parse(at, host, &port, err);
    if (rc)
        return rc;
    rc = admin_http_create(&(struct admin_options){.net = p->shards[0].shard.net,
                                                   .host = host,
                                                   .port = port,
                                                   .anywhere = p->options->insecure,
                                                   .routes = routes,
                                                   .routes_n = sizeof routes / sizeof *routes,
                                                   .arg = p},
                           &p->admin, err);
    return rc;
}
