/* What the cluster says of itself: brokers, controller, the topics that are followed. */
#include "proto/client/client_internal.h"

#include <stdlib.h>

/* Of the first question after an answer; each further one waits twice as long, up to the other. A node that is about to
 * serve, or about to die, takes connections and says nothing, while others know who leads now. */
#define METADATA_TIMEOUT_FIRST_US (2 * INT64_C(1000000))
#define METADATA_TIMEOUT_US       (10 * INT64_C(1000000))
/* Wishes for metadata are spaced: by a fraction of backoff_min_us after a quiet time, each further one twice as far
 * apart, up to all of it. So who has just made a topic sees it at once, and who has trouble asks no more often than
 * before. */
#define SPACE_FIRST 16 /* backoff_min_us / */
#define SPACE_QUIET 10 /* backoff_min_us * */

/* ---- brokers ---- */

static bool same_address(const struct client_broker *b, struct slice host, int port)
{
    return slice_eq(slice_str(b->host), host) && b->port == port;
}

struct client_broker *client_broker_find(const struct client_core *core, int32_t node_id)
{
    if (node_id < 0)
        return NULL;
    list_each (at, &core->brokers) {
        struct client_broker *b = LIST_ENTRY(at, struct client_broker, link);
        if (b->node_id == node_id && !b->gone)
            return b;
    }
    return NULL;
}

struct client_broker *client_broker_add(struct client_core *core, int32_t node_id, struct slice host,
                                        int port)
{
    if (host.n == 0 || host.n >= CLIENT_HOST_MAX || port < 1 || port > 65535)
        return NULL;
    struct client_broker *b = client_broker_find(core, node_id);
    if (b && same_address(b, host, port))
        return b;
    if (b)
        b->gone = true; /* it has moved: a new entry, so that calls on the old one end by themselves */
    b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->node_id = node_id;
    b->port = (uint16_t)port;
    slice_cstr(host, b->host, sizeof b->host);
    for (int lane = 0; lane < CLIENT_LANES; lane++)
        client_conn_init(&b->conns[lane], core, b, (enum client_lane)lane);
    list_push(&core->brokers, &b->link);
    return b;
}

void client_broker_failed(struct client_broker *b, struct client_core *core)
{
    b->retry_at_us = core->now_us + client_core_backoff(core, b->failures);
    b->failures += b->failures < 30;
}

static bool broker_free(const struct client_broker *b)
{
    for (int lane = 0; lane < CLIENT_LANES; lane++) {
        const struct client_conn *conn = &b->conns[lane];
        if (client_conn_state(conn) != CONN_CLOSED || conn->closing || conn->io)
            return false;
    }
    return true;
}

void client_brokers_sweep(struct client_core *core)
{
    list_each_safe(at, &core->brokers)
    {
        struct client_broker *b = LIST_ENTRY(at, struct client_broker, link);
        if (!b->gone)
            continue;
        for (int lane = 0; lane < CLIENT_LANES; lane++)
            if (client_conn_state(&b->conns[lane]) != CONN_CLOSED && client_conn_idle(&b->conns[lane]))
                client_conn_close(&b->conns[lane], -E_CLOSED, "no longer in the cluster");
        if (!broker_free(b))
            continue;
        if (core->last_any == b)
            core->last_any = NULL;
        list_remove(&b->link);
        free(b);
    }
}

/* ---- topics ---- */

struct topic_entry *client_topic_entry(const struct client_core *core, struct slice name)
{
    struct topic_entry *t = NULL;
    HASH_FIND(hh, core->topics, name.p, name.n, t);
    return t;
}

int client_topic_add(struct client_core *core, struct slice name, struct topic_entry **out)
{
    struct topic_entry *t = client_topic_entry(core, name);
    if (!t) {
        if (HASH_COUNT(core->topics) >= CLIENT_TOPICS_MAX)
            return -E_LIMIT;
        t = calloc(1, sizeof *t);
        char *copy = t ? malloc(name.n + 1) : NULL;
        if (!copy) {
            free(t);
            return -E_NOMEM;
        }
        slice_cstr(name, copy, name.n + 1);
        t->name = copy;
        t->pub = (struct client_topic){.name = slice_of(copy, name.n), .error = KE_LEADER_NOT_AVAILABLE};
        HASH_ADD_KEYPTR(hh, core->topics, copy, name.n, t);
        if (!HASH_ADDED(t)) {
            free(copy);
            free(t);
            return -E_NOMEM;
        }
        client_metadata_want(core);
    }
    *out = t;
    return 0;
}

static void free_topic(struct topic_entry *t)
{
    free((void *)(uintptr_t)t->pub.partitions);
    free(t->name);
    free(t);
}

void client_topic_remove(struct client_core *core, struct slice name)
{
    struct topic_entry *t = client_topic_entry(core, name);
    if (!t)
        return;
    HASH_DEL(core->topics, t);
    free_topic(t);
}

void client_metadata_free(struct client_core *core)
{
    struct topic_entry *t, *next;
    HASH_ITER (hh, core->topics, t, next) {
        HASH_DEL(core->topics, t);
        free_topic(t);
    }
}

/* An answer of a broker that lags behind must not bring back an older leader (KIP-320). */
static struct client_partition newer(struct client_partition known,
                                     const struct kp_metadata_response_partitions *p, bool same_topic)
{
    if (same_topic && p->leader_epoch >= 0 && p->leader_epoch < known.leader_epoch)
        return known;
    return (struct client_partition){.leader = p->leader_id, .leader_epoch = p->leader_epoch};
}

static void take_topic(struct client_core *core, const struct kp_metadata_response_topics *m)
{
    struct topic_entry *t = slice_is_null(m->name) ? NULL : client_topic_entry(core, m->name);
    if (!t)
        return;
    t->asked = true;
    t->pub.error = m->error_code;
    int32_t n = m->error_code == KE_NONE ? m->partitions_n : 0;
    if (n <= 0)
        return; /* what was known stays to be looked at; the error says that it is not to be relied on */
    struct client_partition *now = malloc((size_t)n * sizeof *now);
    if (!now) {
        t->pub.error = KE_LEADER_NOT_AVAILABLE;
        return;
    }
    bool same = uuid_eq(&t->pub.id, &m->topic_id);
    for (int32_t i = 0; i < n; i++)
        now[i] = (struct client_partition){.leader = -1, .leader_epoch = -1};
    for (int32_t i = 0; i < n; i++) {
        const struct kp_metadata_response_partitions *p = &m->partitions[i];
        int32_t at = p->partition_index;
        if (at < 0 || at >= n)
            continue; /* a hole in the numbering: the others keep their places */
        struct client_partition known = {.leader = -1, .leader_epoch = -1};
        if (at < t->pub.partitions_n)
            known = t->pub.partitions[at];
        now[at] = newer(known, p, same);
    }
    free((void *)(uintptr_t)t->pub.partitions);
    t->pub.partitions = now;
    t->pub.partitions_n = n;
    t->pub.id = m->topic_id;
}

static void take_brokers(struct client_core *core, const struct kp_metadata_response *m)
{
    list_each (at, &core->brokers) {
        struct client_broker *b = LIST_ENTRY(at, struct client_broker, link);
        bool there = b->node_id < 0;
        for (int32_t i = 0; i < m->brokers_n && !there; i++)
            there = m->brokers[i].node_id == b->node_id;
        b->gone = b->gone || !there;
    }
    for (int32_t i = 0; i < m->brokers_n; i++)
        if (m->brokers[i].node_id >= 0) /* else it would be one more bootstrap address with each answer */
            client_broker_add(core, m->brokers[i].node_id, m->brokers[i].host, m->brokers[i].port);
}

bool client_metadata_take(struct client_core *core, const struct kp_metadata_response *m, int16_t version)
{
    bool told = version >= 2 && !slice_is_null(m->cluster_id);
    if (told && core->cluster_id && !slice_eq(m->cluster_id, slice_str(core->cluster_id)))
        return false;
    if (told && !core->cluster_id) {
        core->cluster_id = malloc(m->cluster_id.n + 1);
        if (core->cluster_id)
            slice_cstr(m->cluster_id, core->cluster_id, m->cluster_id.n + 1);
    }
    core->cluster_seen = core->cluster_seen || told;
    if (m->brokers_n > 0)
        take_brokers(core, m);
    core->controller = version >= 1 ? m->controller_id : -1;
    for (int32_t i = 0; i < m->topics_n; i++)
        take_topic(core, &m->topics[i]);
    return true;
}

/* ---- asking ---- */

void client_metadata_want(struct client_core *core)
{
    core->metadata_wanted = true;
    if (core->wake)
        core->wake(core->wake_arg);
}

static void answered(void *arg, const struct client_response *r)
{
    struct client_core *core = arg;
    assert(core->metadata_asking);
    core->metadata_asking = false;
    bool good = r->status == 0;
    if (good && !client_metadata_take(core, r->body, r->version)) {
        const struct kp_metadata_response *m = r->body;
        good = false;
        client_core_failed(core, "the address belongs to cluster %.*s, expected is %s",
                           SLICE_FMT(m->cluster_id), core->cluster_id);
    }
    if (!good) {
        core->metadata_wanted = true;
        core->metadata_next_us = core->now_us + client_core_backoff(core, core->metadata_failures);
        core->metadata_failures += core->metadata_failures < 30;
        return;
    }
    core->metadata_failures = 0;
    bool quiet = core->now_us - core->metadata_last_us > SPACE_QUIET * core->o.backoff_min_us;
    int64_t space = quiet ? core->o.backoff_min_us / SPACE_FIRST : 2 * core->metadata_space_us;
    core->metadata_space_us = space < core->o.backoff_min_us ? space : core->o.backoff_min_us;
    core->metadata_last_us = core->now_us;
    core->metadata_next_us = core->now_us + core->metadata_space_us;
    core->metadata_age_us = core->now_us + core->o.metadata_max_age_us;
    core->metadata_news = true;
}

static int64_t patience_us(const struct client_core *core)
{
    int64_t us = METADATA_TIMEOUT_FIRST_US;
    for (unsigned i = 0; i < core->metadata_failures && us < METADATA_TIMEOUT_US; i++)
        us *= 2;
    return us < METADATA_TIMEOUT_US ? us : METADATA_TIMEOUT_US;
}

static bool ask(struct client_core *core)
{
    assert(!core->metadata_asking); /* one question at a time */
    struct call *call = client_core_call(core, kp_api_find(kp_key_metadata), true);
    if (!call)
        return false;
    struct kp_metadata_request *q = call->pub.body;
    int32_t n = (int32_t)HASH_COUNT(core->topics);
    q->topics = ARENA_NEWS(&call->arena, struct kp_metadata_request_topics, n);
    q->allow_auto_topic_creation = false;
    if (!q->topics) {
        client_call_free(core, call);
        return false;
    }
    struct topic_entry *t, *next;
    int32_t i = 0;
    HASH_ITER (hh, core->topics, t, next) {
        struct slice name = arena_dup(&call->arena, t->pub.name);
        q->topics[i++].name = name;
    }
    assert(i == n);
    q->topics_n = n;
    call->pub.version_min = 4; /* before, asking created topics */
    call->pub.timeout_us = patience_us(core);
    call->pub.on_response = answered;
    call->pub.arg = core;
    core->metadata_asking = true;
    core->metadata_wanted = false;
    client_core_submit(core, call, core->now_us);
    return true;
}

void client_metadata_step(struct client_core *core)
{
    if (core->now_us >= core->metadata_age_us) {
        core->metadata_age_us = INT64_MAX;
        core->metadata_wanted = true;
    }
    client_core_due_by(core, core->metadata_age_us);
    if (!core->metadata_wanted || core->metadata_asking)
        return;
    if (core->now_us < core->metadata_next_us || !ask(core))
        client_core_due_by(core, core->metadata_next_us > core->now_us
                                     ? core->metadata_next_us
                                     : core->now_us + core->o.backoff_min_us);
}
