#include "mirror/port/rdkafka_parts.h"

#include <assert.h>
#include <stdio.h>

#include "base/world/clock.h"
#include "mirror/port/port_ask.h"

/* Whether what the library has fetched is of the topic that was meant. It fetches by name (librdkafka before topic
 * ids) and does not say when it was told that a topic is not there: one that is deleted, made again and filled past
 * our position is read on in the middle. So doubt is raised whenever the library may have lost sight of its topics:
 * it asked for metadata (as after each error of a fetch), connected anew, or heard nothing from a broker for
 * GAP_US; and when an assignment begins. Nothing is handed out from then on until the ids in an answer that was
 * asked for afterwards are those of the assignments.
 *
 * The interceptor runs on the library's threads, before the response is looked at: what it carries comes later. */

/* Longer than a fetch waits. What this port cannot see is a topic that is deleted, made again and filled past our
 * position while no fetch waits at the broker, in less than this. */
#define GAP_US INT64_C(750000)
/* A broker that takes questions and does not answer (one that is just starting, say) must not hold everything up: another
 * one is asked soon, with more patience each time, up to PORT_ASK_US. */
#define PATIENCE_US INT64_C(1000000)

void rdk_doubt(struct port_rdk *p)
{
    atomic_fetch_add(&p->doubts, 1);
}

static rd_kafka_resp_err_t on_received(rd_kafka_t *rk, int fd, const char *broker, int32_t id, int16_t api,
                                       int16_t version, int32_t correlation, size_t size, int64_t rtt,
                                       rd_kafka_resp_err_t err, void *arg)
{
    (void)rk, (void)fd, (void)broker, (void)version, (void)correlation, (void)size, (void)rtt, (void)err;
    struct port_rdk *p = arg;
    if (api == kp_key_metadata || api == kp_key_api_versions) {
        rdk_doubt(p);
    } else if (api == kp_key_fetch) {
        int64_t now = clock_now_us();
        if (now - atomic_exchange(&p->fetched_us[(uint32_t)id % RDK_BROKERS], now) > GAP_US)
            rdk_doubt(p);
    }
    return RD_KAFKA_RESP_ERR_NO_ERROR;
}

static rd_kafka_resp_err_t on_new(rd_kafka_t *rk, const rd_kafka_conf_t *conf, void *arg, char *text,
                                  size_t n)
{
    (void)conf, (void)text, (void)n;
    return rd_kafka_interceptor_add_on_response_received(rk, "sundog", on_received, arg);
}

int rdk_doubt_conf(struct port_rdk *p, rd_kafka_conf_t *conf)
{
    return rd_kafka_conf_interceptor_add_on_new(conf, "sundog", on_new, p) ? -E_CONFIG : 0;
}

/* ---- asking, on the loop ---- */

/* What was to be said of the partition (it is out of range, it was cut) was about another topic. */
static void recreated(struct part *part, const struct uuid *id)
{
    struct waiting_event *e = NULL;
    list_each_safe(at, &part->port->events)
    {
        struct waiting_event *other = LIST_ENTRY(at, struct waiting_event, link);
        if (other->part != part)
            continue;
        list_remove(at);
        part->port->events_n--;
        free(other);
    }
    e = rdk_event(part, PORT_RECREATED, "the topic was deleted and created again");
    if (e)
        e->d.topic_id = *id;
    if (part->h.state != PART_STOPPED)
        part_stop(part);
}

static void compare(struct port_rdk *p, const struct kp_metadata_response_topics *t)
{
    const struct client_topic now = {.id = t->topic_id};
    if (t->error_code)
        return;
    list_each_safe(at, &p->parts)
    {
        struct part *part = LIST_ENTRY(at, struct part, link);
        if (!part->dropped && slice_eq_str(t->name, part->topic) && port_recreated(&part->a, &now))
            recreated(part, &t->topic_id);
    }
}

/* The library may have gone over to another leader: what it has of such a partition by now is not handed out. */
static void compare_epochs(struct port_rdk *p, const struct kp_metadata_response_topics *t)
{
    char name[512];
    slice_cstr(t->name, name, sizeof name);
    for (int32_t i = 0; !t->error_code && i < t->partitions_n; i++) {
        struct part *part = part_of(p, name, t->partitions[i].partition_index);
        if (part)
            rdk_epoch_seen(part, t->partitions[i].leader_epoch);
    }
}

/* Why nothing is handed out, once; NULL: that it is again, which nobody would hear of a partition at its end. */
static void tell(struct port_rdk *p, const char *why)
{
    char text[200];
    p->unsure_told = why != NULL;
    snprintf(text, sizeof text, "whether the topics are the same is not known: %.120s", why ? why : "");
    list_each (at, &p->parts) {
        struct part *part = LIST_ENTRY(at, struct part, link);
        if (!part->dropped && part->h.state == PART_READING && part->h.next >= 0)
            rdk_event(part, why ? PORT_TROUBLE : PORT_POSITION, why ? text : NULL);
    }
}

static void answered(void *arg, const struct client_response *r)
{
    struct port_rdk *p = arg;
    const struct kp_metadata_response *m = r->status ? NULL : r->body;
    p->doubt_call = NULL;
    for (int32_t i = 0; m && i < m->topics_n; i++) {
        compare(p, &m->topics[i]);
        compare_epochs(p, &m->topics[i]);
    }
    if (m)
        p->cleared = p->asked;
    p->patience_us = m ? PATIENCE_US : p->patience_us * 2 < PORT_ASK_US ? p->patience_us * 2 : PORT_ASK_US;
    if (p->unsure_told == (m != NULL))
        tell(p, m ? NULL : r->err ? r->err->text : "no answer");
    p->hungry = true;
    rdk_wake(p); /* what was held back; or asks again */
}

static void ask(struct port_rdk *p)
{
    size_t n = 0;
    list_each (at, &p->parts)
        n++;
    if (!p->patience_us)
        p->patience_us = PATIENCE_US;
    p->asked = atomic_load(&p->doubts);
    p->doubt_call = client_ask(p->client, &(struct client_ask){.api = kp_key_metadata,
                                                               .version_min = 4,
                                                               .version_max = 12,
                                                               .retry = CLIENT_RETRY_SAFE,
                                                               .target = {.kind = CLIENT_ANY},
                                                               .timeout_us = p->patience_us,
                                                               .on_response = answered,
                                                               .arg = p});
    if (!p->doubt_call)
        return; /* with the next tick */
    struct kp_metadata_request *q = p->doubt_call->body;
    q->topics = ARENA_NEWS(p->doubt_call->arena, struct kp_metadata_request_topics, n ? n : 1);
    q->allow_auto_topic_creation = false;
    const char *last = "";
    list_each (at, &p->parts) {
        struct part *part = LIST_ENTRY(at, struct part, link);
        if (!q->topics || part->dropped || strcmp(part->topic, last) == 0)
            continue;
        last = part->topic;
        q->topics[q->topics_n++].name = arena_dup(p->doubt_call->arena, slice_str(part->topic));
    }
    client_send(p->client, p->doubt_call);
}

bool rdk_sure(struct port_rdk *p)
{
    if (atomic_load(&p->doubts) == p->cleared)
        return true;
    if (!p->doubt_call)
        ask(p);
    return false;
}

void rdk_doubt_stop(struct port_rdk *p)
{
    if (p->doubt_call)
        client_cancel(p->client, p->doubt_call);
    p->doubt_call = NULL;
}
