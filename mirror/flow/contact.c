#include "mirror/flow/internal.h"

#include <assert.h>

#include "base/runtime/log.h"

/* First contact with a cluster: its id is asked before anything is read or written there. An alias stands for one
 * cluster for ever (DESIGN.md D15): the first id it answered with is kept in the store. */

#define AGAIN_US   INT64_C(1000000)
#define PULSE_US   INT64_C(2000000) /* without any answer: then one is asked for */
#define REQUEST_US INT64_C(5000000)

static void ask(void *arg);
static bool ask_with(struct contact *c, void (*on_response)(void *arg, const struct client_response *r));

static void misconfigured(struct flow *f, const char *line)
{
    flow_halt(f, line);
    if (f->o.misconfigured)
        f->o.misconfigured(f->o.arg, line);
}

/* 0: as pinned, or pinned now. */
static int check_pin(struct contact *c, struct slice id)
{
    struct flow *f = c->flow;
    struct store_view *v;
    struct slice pinned;
    struct err err;
    char line[ERR_TEXT_MAX];
    int rc = store_view_open(f->o.store, &v, &err);
    if (rc) {
        flow_set_reason(f->store_trouble, "%s", err.text);
        return rc;
    }
    rc = store_alias(v, slice_str(c->alias), &pinned);
    if (rc == 1 && !slice_eq(pinned, id)) {
        flow_set_reason(line,
                        "%s.bootstrap.servers = %s: this is cluster %.*s, but alias %s is pinned to cluster "
                        "%.*s: correct "
                        "the address, or choose another alias or a new sundog.store.dir",
                        c->alias, c->bootstrap, SLICE_FMT(id), c->alias, SLICE_FMT(pinned));
        store_view_close(v);
        misconfigured(f, line);
        return -E_CONFIG;
    }
    store_view_close(v);
    if (rc == 0)
        store_put_alias(store_writer_batch(f->writer), slice_str(c->alias), id);
    return rc < 0 ? rc : 0;
}

static bool same_cluster(struct flow *f)
{
    struct slice a = client_cluster_id(f->source), b = client_cluster_id(f->target);
    char line[ERR_TEXT_MAX];
    if (!f->source_contact.known || !f->target_contact.known || slice_is_null(a) || !slice_eq(a, b))
        return false;
    flow_set_reason(
        line, "%s.bootstrap.servers and %s.bootstrap.servers are the same cluster (%.*s): a flow needs two",
        f->source_contact.alias, f->target_contact.alias, SLICE_FMT(a));
    misconfigured(f, line);
    return true;
}

static void on_metadata(void *arg, const struct client_response *r)
{
    struct contact *c = arg;
    struct flow *f = c->flow;
    assert(!c->known);
    c->call = NULL;
    if (r->status) {
        if (c == &f->target_contact)
            flow_set_reason(f->reason, "target %s cannot be reached at %s: %s", c->alias, c->bootstrap,
                            r->err->text);
        else
            flow_set_reason(f->source_trouble, "source %s cannot be reached at %s: %s", c->alias,
                            c->bootstrap, r->err->text);
        log_warn(FLOW_AREA, "cluster unreachable flow=%s alias=%s at=%s: %s", f->name, c->alias, c->bootstrap,
                 r->err->text);
        loop_timer_in(&c->again, AGAIN_US);
        return;
    }
    const struct kp_metadata_response *a = r->body;
    struct slice id = a->cluster_id;
    if (slice_is_null(id) || id.n == 0) {
        loop_timer_in(&c->again, AGAIN_US);
        return;
    }
    if (check_pin(c, id)) {
        if (f->sm.state != FLOW_HALTED)
            loop_timer_in(&c->again, AGAIN_US);
        return;
    }
    client_cluster_pin(c->client, id);
    c->known = true;
    c->heard_us = loop_now_us(f->loop);
    if (c == &f->source_contact)
        f->source_trouble[0] = 0;
    log_info(FLOW_AREA, "cluster reached flow=%s alias=%s cluster_id=%.*s", f->name, c->alias, SLICE_FMT(id));
    if (!same_cluster(f))
        flow_contact_known(f);
}

static void ask(void *arg)
{
    struct contact *c = arg;
    assert(!c->call);
    assert(!c->known);
    if (!ask_with(c, on_metadata))
        loop_timer_in(&c->again, AGAIN_US);
}

static bool ask_with(struct contact *c, void (*on_response)(void *arg, const struct client_response *r))
{
    assert(!c->call);
    c->call = client_ask(c->client, &(struct client_ask){.api = kp_key_metadata,
                                                         .version_min = 2,
                                                         .retry = CLIENT_RETRY_SAFE,
                                                         .target = {.kind = CLIENT_ANY},
                                                         .timeout_us = REQUEST_US,
                                                         .on_response = on_response,
                                                         .arg = c});
    if (!c->call)
        return false;
    struct kp_metadata_request *q = c->call->body;
    q->topics_n = 0; /* none: only brokers and the id (v1 and up) */
    q->allow_auto_topic_creation = false;
    client_send(c->client, c->call);
    return true;
}

/* ---- whether it still answers ---- */

static void on_pulse(void *arg, const struct client_response *r)
{
    (void)r; /* that there was one has been counted */
    ((struct contact *)arg)->call = NULL;
}

void contact_heard(struct contact *c)
{
    c->heard_us = loop_now_us(c->flow->loop);
    if (c->silent)
        log_info(FLOW_AREA, "cluster answers again flow=%s alias=%s", c->flow->name, c->alias);
    c->silent = false;
}

void contact_watch(struct contact *c)
{
    struct client_counts now;
    char text[ERR_TEXT_MAX];
    if (!c->known)
        return;
    client_counts(c->client, &now);
    if (now.responses != c->responses) {
        c->responses = now.responses;
        contact_heard(c);
        return;
    }
    int64_t quiet_us = loop_now_us(c->flow->loop) - c->heard_us;
    if (quiet_us >= PULSE_US && !c->call)
        ask_with(c, on_pulse);
    if (quiet_us >= FLOW_SILENT_US && !c->silent) {
        c->silent = true;
        log_warn(FLOW_AREA, "cluster silent flow=%s alias=%s: %s", c->flow->name, c->alias,
                 contact_silence(c, text));
    }
}

const char *contact_silence(const struct contact *c, char text[ERR_TEXT_MAX])
{
    text[0] = 0;
    if (!c->silent)
        return text;
    int64_t s = (loop_now_us(c->flow->loop) - c->heard_us) / 1000000;
    const char *last = client_state(c->client) == CLIENT_CONNECTING ? client_last_error(c->client)->text : "";
    flow_set_reason(text, "%s %s has not answered at %s for %lld s%s%s",
                    c == &c->flow->source_contact ? "source" : "target", c->alias, c->bootstrap, (long long)s,
                    last[0] ? ": " : "", last);
    return text;
}

void contact_init(struct contact *c, struct flow *f, struct client *client, int cluster)
{
    *c = (struct contact){.flow = f,
                          .client = client,
                          .alias = f->o.config->clusters[cluster].alias,
                          .bootstrap = f->o.config->clusters[cluster].bootstrap};
    loop_timer_init(&c->again, f->loop, ask, c);
    loop_timer_in(&c->again, 0);
}

void contact_stop(struct contact *c)
{
    if (c->call)
        client_cancel(c->client, c->call);
    c->call = NULL;
    if (c->flow)
        loop_timer_stop(&c->again);
}
