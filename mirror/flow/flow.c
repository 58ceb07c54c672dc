#include "mirror/flow/internal.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/runtime/log.h"

static const struct sm_state flow_states[] = {
    [FLOW_WAITING] = {"waiting", SM_TO(FLOW_READING) | SM_TO(FLOW_HALTED) | SM_TO(FLOW_STOPPING)},
    [FLOW_READING] = {"reading progress", SM_TO(FLOW_RUNNING) | SM_TO(FLOW_HALTED) | SM_TO(FLOW_STOPPING)},
    [FLOW_RUNNING] = {"running", SM_TO(FLOW_HALTED) | SM_TO(FLOW_STOPPING)},
    [FLOW_HALTED] = {"halted", SM_TO(FLOW_STOPPING)},
    [FLOW_STOPPING] = {"stopping", SM_END},
};

static bool flow_invariant(const void *owner, unsigned state)
{
    const struct flow *f = owner;
    return state != FLOW_RUNNING || (f->progress && f->target_contact.known);
}

_Static_assert(sizeof flow_states / sizeof *flow_states == FLOW_STOPPING + 1, "a row for every state");
const struct sm_table flow_sm = SM_TABLE("flow", flow_states, flow_invariant);

void flow_set_reason(char reason[ERR_TEXT_MAX], const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(reason, ERR_TEXT_MAX, fmt, args);
    va_end(args);
}

void flow_halt(struct flow *f, const char *line)
{
    if (f->sm.state == FLOW_HALTED || f->sm.state == FLOW_STOPPING)
        return;
    log_error(FLOW_AREA, "flow halted flow=%s: %s", f->name, line);
    flow_set_reason(f->reason, "%s", line);
    sm_move(&f->sm, FLOW_HALTED);
    flow_status_refresh(f);
}

void flow_ledger(struct flow *f, enum ledger_kind kind, const char *topic, int32_t partition, int64_t from,
                 int64_t count, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct ledger_event e = {.wall_ms = loop_wall_ms(f->loop),
                             .flow = slice_str(f->name),
                             .kind = slice_str(ledger_kind_name(kind)),
                             .topic = slice_str(topic ? topic : ""),
                             .partition = partition,
                             .from = from,
                             .count = count,
                             .text = slice_str(text)};
    assert(f->writer); /* the flow has not closed it */
    store_put_event(store_writer_batch(f->writer), &e);
    log_warn(FLOW_AREA, "ledger flow=%s kind=\"%s\" topic=%s partition=%d from=%lld count=%lld: %s", f->name,
             ledger_kind_name(kind), topic ? topic : "", partition, (long long)from, (long long)count, text);
    if (f->o.metrics) {
        struct metric_cell *c =
            metrics_cell(f->o.metrics, 0, M_sundog_mirror_ledger_total, f->name, ledger_kind_name(kind));
        metric_add(c, 1); /* kept for the life of the process */
    }
}

/* ---- what belongs to the flow as a whole ---- */

static void store_trouble(void *arg, const char *text)
{
    struct flow *f = arg;
    flow_set_reason(f->store_trouble, "%s", text ? text : "");
    if (text)
        log_error(FLOW_AREA, "store flow=%s: %s", f->name, text);
}

static void progress_trouble(void *arg, const char *text)
{
    struct flow *f = arg;
    flow_set_reason(f->progress_trouble, "%s", text ? text : "");
    if (text)
        log_warn(FLOW_AREA, "progress flow=%s: %s", f->name, text);
}

static void any_trouble(void *arg, const char *text)
{
    struct flow *f = arg;
    if (text)
        log_warn(FLOW_AREA, "flow=%s: %s", f->name, text);
}

/* A stale daemon has put an older position over ours: ours is written again. */
static void progress_stale(void *arg, uint32_t topic, int32_t partition)
{
    struct flow *f = arg;
    struct flow_topic *t, *next;
    HASH_ITER (hh, f->topics, t, next) {
        if (t->number != topic || partition >= t->parts_n || !t->parts[partition])
            continue;
        flow_ledger(f, LEDGER_PROGRESS_OVERWRITTEN, t->source, partition, t->parts[partition]->position, 0,
                    "another daemon of this flow wrote an older position");
        part_mark(t->parts[partition]);
    }
}

static void guard_refresh(void *arg)
{
    struct flow *f = arg;
    appender_guard_refresh(f->target, &f->guard, NULL, NULL);
    loop_timer_in(&f->guard_timer, INT64_C(600) * 1000000);
}

static void checkpoint_save(void *arg, uint32_t topic, const struct group_entry *entry)
{
    store_put_group(store_writer_batch(((struct flow *)arg)->writer), topic, entry);
}

static void checkpoint_forget(void *arg, uint32_t topic, struct slice group, int32_t q)
{
    store_delete_group(store_writer_batch(((struct flow *)arg)->writer), topic, group, q);
}

static void checkpoint_keep(void *arg, struct store_wait *wait)
{
    store_writer_sync(((struct flow *)arg)->writer, wait);
}

static void checkpoint_ledger(void *arg, enum ledger_kind kind, struct slice topic, int32_t q,
                              const char *text)
{
    char name[512];
    flow_ledger(arg, kind, slice_cstr(topic, name, sizeof name), q, -1, 0, "%s", text);
}

static const struct checkpoint_events checkpoint_events = {checkpoint_save, checkpoint_forget,
                                                           checkpoint_keep, checkpoint_ledger, any_trouble};

static int start_heartbeats(struct flow *f, struct err *err)
{
    const struct flow_options *o = &f->o.flow->o;
    if (!o->emit_heartbeats)
        return 0;
    struct heartbeat_options h = {.loop = f->loop,
                                  .client = f->target,
                                  .policy = f->policy,
                                  .replication_factor = (int16_t)o->heartbeats_factor,
                                  .interval_ms = (int64_t)o->emit_heartbeats_s * 1000,
                                  .trouble = any_trouble,
                                  .arg = f};
    int rc = heartbeat_create(&h, &f->beat, err);
    if (rc || !f->o.heartbeats_back)
        return rc;
    /* MM2 has one worker for every ordered pair: the reverse pair's heartbeats stand at our source, from where they
     * are mirrored like any topic. */
    h.client = f->source;
    h.policy.source = f->policy.target;
    h.policy.target = f->policy.source;
    return heartbeat_create(&h, &f->beat_back, err);
}

static int start_offset_syncs(struct flow *f, struct err *err)
{
    const struct flow_options *o = &f->o.flow->o;
    if (!o->emit_offset_syncs)
        return 0;
    bool at_source = strcmp(o->offset_syncs_location, "source") == 0;
    struct buf name;
    buf_init(&name, 1024);
    policy_offset_syncs_topic(&f->policy, at_source ? f->policy.target : f->policy.source, &name);
    buf_put_u8(&name, 0);
    struct offset_syncs_options s = {.loop = f->loop,
                                     .client = at_source ? f->source : f->target,
                                     .store = f->o.store,
                                     .flow = progress_flow_number(f->progress),
                                     .topic = (const char *)name.p,
                                     .replication_factor = (int16_t)o->offset_syncs_factor,
                                     .lag_max = o->offset_lag_max,
                                     .trouble = any_trouble,
                                     .arg = f};
    int rc = name.failed ? -E_NOMEM : offset_syncs_create(&s, &f->syncs, err);
    buf_fini(&name);
    return rc;
}

static int start_source(struct flow *f, struct err *err)
{
    assert(f->progress); /* which numbers the flow */
    assert(!f->sync);
    assert(!f->checkpoint);
    assert(!f->syncs);
    struct sync_options sync = {.loop = f->loop,
                                .source = f->source,
                                .target = f->target,
                                .flow = &f->o.flow->o,
                                .policy = f->policy,
                                .events = &flow_sync_events,
                                .arg = f};
    int rc = sync_create(&sync, &f->sync, err);
    if (rc)
        return rc;
    struct checkpoint_options check = {.loop = f->loop,
                                       .source = f->source,
                                       .target = f->target,
                                       .store = f->o.store,
                                       .flow = progress_flow_number(f->progress),
                                       .options = &f->o.flow->o,
                                       .policy = f->policy,
                                       .events = &checkpoint_events,
                                       .arg = f};
    if ((rc = checkpoint_create(&check, &f->checkpoint, err)))
        return rc;
    return start_offset_syncs(f, err);
}

/* Both clusters are known and progress is read: records may flow. */
static void start_when_possible(struct flow *f)
{
    struct err err = {0};
    if (f->sm.state != FLOW_RUNNING || !f->source_contact.known || f->sync)
        return;
    int rc = start_heartbeats(f, &err);
    if (!rc)
        rc = start_source(f, &err);
    if (rc)
        flow_halt(f, err.text);
}

static void progress_ready(void *arg)
{
    struct flow *f = arg;
    if (f->sm.state != FLOW_READING)
        return;
    sm_move(&f->sm, FLOW_RUNNING);
    f->reason[0] = 0;
    log_info(FLOW_AREA, "flow runs flow=%s", f->name);
    save_start(f);
    flow_prune_start(f);
    flow_retire_start(f);
    start_when_possible(f);
    flow_status_refresh(f);
}

static void start_progress(struct flow *f)
{
    struct buf topic;
    struct err err = {0};
    assert(!f->progress);
    assert(f->target_contact.known);
    buf_init(&topic, 1024);
    policy_progress_topic(f->policy.source, &topic);
    struct progress_options o = {.loop = f->loop,
                                 .target = f->target,
                                 .store = f->o.store,
                                 .lane = f->o.lane,
                                 .flow = slice_str(f->name),
                                 .topic = buf_slice(&topic),
                                 .ready = progress_ready,
                                 .trouble = progress_trouble,
                                 .stale = progress_stale,
                                 .arg = f};
    sm_move(&f->sm, FLOW_READING);
    flow_set_reason(f->reason, "reading the progress topic %.*s", SLICE_FMT(o.topic));
    int rc = progress_open(&o, &f->progress, &err);
    buf_fini(&topic);
    if (rc)
        flow_halt(f, err.text);
    else
        guard_refresh(f);
}

void flow_contact_known(struct flow *f)
{
    if (f->sm.state == FLOW_WAITING && f->target_contact.known)
        start_progress(f);
    start_when_possible(f);
}

/* ---- memory ---- */

size_t flow_data_bytes(const struct flow *f)
{
    size_t all = f->o.memory_bytes, parts = f->parts_n * FLOW_PART_BYTES, least = all * FLOW_DATA_LEAST;
    return parts < all && all - parts > least ? all - parts : least;
}

void flow_share_memory(struct flow *f)
{
    size_t data = flow_data_bytes(f);
    f->held_max = data * FLOW_PORT_SHARE / 2;
    if (f->budget)
        appender_budget_limit(f->budget, data * FLOW_APPEND_SHARE);
    if (f->source)
        client_memory_limit(f->source, data * FLOW_CLIENT_SHARE);
    if (f->target)
        client_memory_limit(f->target, data * FLOW_CLIENT_SHARE);
    if (f->ports[ENGINE_BATCH])
        port_memory_limit(f->ports[ENGINE_BATCH], data * FLOW_CLIENT_SHARE);
}

/* ---- life ---- */

/* Leaders' epochs are confirmed to what has been read with each answer. */
#define METADATA_AGE_US INT64_C(10000000)

static int make_client(struct flow *f, int cluster, struct client **out, struct err *err)
{
    struct client_options o = {.bootstrap = f->o.config->clusters[cluster].bootstrap,
                               .security = &f->o.config->clusters[cluster].security,
                               .client_id = f->name,
                               .request_timeout_us = (int64_t)f->o.flow->o.admin_timeout_ms * 1000,
                               .backoff_max_us = 1000000,
                               .metadata_max_age_us = METADATA_AGE_US,
                               .memory_max_bytes = flow_data_bytes(f) * FLOW_CLIENT_SHARE};
    int rc = client_create(f->loop, f->o.net, &o, out, err);
    return rc ? err_wrap(err, "%s.bootstrap.servers", f->o.config->clusters[cluster].alias) : 0;
}

int flow_create(const struct flow_setup *o, struct flow **out, struct err *err)
{
    struct flow *f = calloc(1, sizeof *f);
    if (!f)
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    f->o = *o;
    f->name = o->flow->name;
    f->loop = o->loop;
    f->policy = mirror_flow_policy(o->config, o->flow);
    f->guard = (struct appender_guard){.expiration_ms = INT64_C(86400000)};
    flow_share_memory(f);
    sm_init(&f->sm, &flow_sm, f, FLOW_WAITING);
    list_init(&f->parts);
    list_init(&f->dirty);
    list_init(&f->saving);
    pthread_mutex_init(&f->public.lock, NULL);
    buf_init(&f->public.json, (size_t)64 << 20);
    loop_timer_init(&f->guard_timer, f->loop, guard_refresh, f);
    flow_status_start(f);
    flow_set_reason(f->reason, "target %s has not answered yet", o->config->clusters[o->flow->target].alias);
    flow_set_reason(f->source_trouble, "source %s has not answered yet",
                    o->config->clusters[o->flow->source].alias);
    f->budget = appender_budget_create(flow_data_bytes(f) * FLOW_APPEND_SHARE);
    int rc = f->budget ? 0 : err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    if (!rc)
        rc = flow_engines_init(f, err);
    if (!rc)
        rc = make_client(f, o->flow->source, &f->source, err);
    if (!rc)
        rc = make_client(f, o->flow->target, &f->target, err);
    if (!rc)
        rc = store_writer_create(f->loop, o->store, o->lane, store_trouble, f, &f->writer, err);
    if (rc) {
        flow_free(f);
        return rc;
    }
    contact_init(&f->source_contact, f, f->source, o->flow->source);
    contact_init(&f->target_contact, f, f->target, o->flow->target);
    flow_status_refresh(f);
    *out = f;
    return 0;
}

const char *flow_name(const struct flow *f)
{
    return f->name;
}

/* What is left when progress, writer and port have been closed. */
void flow_free(struct flow *f)
{
    flow_status_fini(f);
    loop_timer_stop(&f->guard_timer);
    loop_timer_stop(&f->feed_timer);
    loop_timer_stop(&f->progress_timer);
    loop_timer_stop(&f->deadline);
    loop_timer_stop(&f->step);
    ends_stop(f);
    contact_stop(&f->source_contact);
    contact_stop(&f->target_contact);
    offset_syncs_destroy(f->syncs);
    heartbeat_destroy(f->beat);
    heartbeat_destroy(f->beat_back);
    checkpoint_destroy(f->checkpoint);
    sync_destroy(f->sync);
    flow_topics_destroy(f);
    flow_pids_destroy(f);
    assert(list_empty(&f->parts));
    assert(f->parts_n == 0);
    assert(f->held_bytes == 0);
    if (f->budget)
        appender_budget_destroy(f->budget);
    flow_engines_fini(f);
    client_destroy(f->source);
    client_destroy(f->target);
    pthread_mutex_destroy(&f->public.lock);
    buf_fini(&f->public.json);
    free(f);
}
