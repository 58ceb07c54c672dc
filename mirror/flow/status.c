#include "mirror/flow/internal.h"

#include <assert.h>
#include <stdio.h>

#include "base/core/jsonw.h"
#include "base/runtime/log.h"

/* What is seen from outside: a snapshot that any thread may read, and the gauges. Made every half second. */

#define TICK_US BUDGET_PACE_US
/* The document is made anew with each tick for so many partitions, then with each second one, …; but not later than: */
#define TICK_PARTS ((size_t)1000)
#define TICKS_MAX  8

/* ---- numbers ---- */

/* Source records that have not arrived; -1 when the source has not said where it ends. */
static int64_t lag_of(struct part *p)
{
    struct port_marks m;
    int64_t end = p->source_end;
    if (p->assigned && port_marks(p->flow->ports[p->engine], p, &m)) {
        int64_t now = m.last_stable >= 0 ? m.last_stable : m.high_watermark;
        end = now > end ? now : end;
    }
    p->source_end = end;
    if (end < 0)
        return -1;
    return end > p->position ? end - p->position : 0;
}

/* What was complete when the source's end was known is that old at most. */
static int64_t lag_ms(const struct part *p, int64_t lag)
{
    if (lag == 0)
        return ends_known(p) ? 0 : (loop_now_us(p->flow->loop) - p->end_known_us) / 1000;
    if (lag < 0 || p->timestamp_ms < 0)
        return -1;
    int64_t ms = loop_wall_ms(p->flow->loop) - p->timestamp_ms;
    return ms > 0 ? ms : 0;
}

static void count_up(struct metric_cell *c, uint64_t now, uint64_t *had)
{
    assert(now >= *had);
    metric_add(c, (int64_t)(now - *had));
    *had = now;
}

static void part_metrics(struct part *p, int64_t lag, int64_t ms)
{
    struct flow *f = p->flow;
    metric_set(p->lag_records, lag > 0 ? lag : 0);
    metric_set(p->lag_seconds, ms > 0 ? ms * 1000 : 0);
    if (!p->appender)
        return;
    struct appender_counts c;
    appender_counts(p->appender, &c);
    count_up(f->m_bytes, c.bytes, &p->counted.bytes);
    count_up(f->m_duplicates, c.duplicates, &p->counted.duplicates);
    count_up(f->m_resends, c.resends, &p->counted.resends);
    count_up(f->m_reconciles, c.reconciles, &p->counted.reconciles);
}

/* ---- the status document ---- */

static void put_or_null(struct jsonw *j, const char *key, int64_t v)
{
    jsonw_key(j, key);
    if (v < 0)
        jsonw_null(j);
    else
        jsonw_int(j, v);
}

/* A partition whose clusters do not answer does what it can: nothing. */
static unsigned shown_state(const struct part *p)
{
    bool waits = p->flow->source_contact.silent || p->flow->target_contact.silent;
    bool runs = p->sm.state == PART_MIRRORING || p->sm.state == PART_CAUGHT_UP;
    return waits && runs ? PART_PAUSED : p->sm.state;
}

static const char *silence(const struct flow *f, char text[ERR_TEXT_MAX])
{
    return contact_silence(f->target_contact.silent ? &f->target_contact : &f->source_contact, text);
}

static void put_part(struct jsonw *j, struct part *p, int64_t lag, int64_t ms)
{
    char text[ERR_TEXT_MAX];
    jsonw_object(j);
    jsonw_put_str(j, "topic", p->topic->source);
    jsonw_put_str(j, "target_topic", p->topic->target);
    jsonw_put_int(j, "partition", p->p);
    jsonw_put_str(j, "state", sm_state_name(&part_sm, shown_state(p)));
    jsonw_put_str(j, "reason", part_reason(p)[0] ? part_reason(p) : silence(p->flow, text));
    put_or_null(j, "position", p->position);
    put_or_null(j, "source_end", p->source_end);
    put_or_null(j, "lag_records", ends_known(p) ? lag : -1);
    jsonw_key(j, "lag_seconds");
    if (ms < 0)
        jsonw_null(j);
    else
        jsonw_double(j, (double)ms / 1000);
    jsonw_put_str(j, "engine", flow_engine_names[p->engine]);
    jsonw_put_str(j, "engine_reason", p->engine_reason);
    jsonw_end(j);
}

static void put_group(void *arg, const struct checkpoint_row *row)
{
    struct jsonw *j = arg;
    const struct group_entry *g = row->entry;
    jsonw_object(j);
    jsonw_put_slice(j, "group", row->group);
    jsonw_put_slice(j, "topic", row->topic);
    jsonw_put_int(j, "partition", row->partition);
    jsonw_put_str(j, "state", mirror_group_state_name(g->state));
    jsonw_put_slice(j, "reason", g->reason.p ? g->reason : SLICE_LIT(""));
    put_or_null(j, "source_offset", row->source_offset);
    put_or_null(j, "offset", g->state == GROUP_NO_MAP ? -1 : g->offset);
    put_or_null(j, "reread", g->state == GROUP_NO_MAP ? -1 : g->reread);
    jsonw_put_bool(j, "applied", g->applied);
    jsonw_end(j);
}

static void put_topic(struct jsonw *j, const char *source, const char *target, unsigned state,
                      const char *reason)
{
    jsonw_object(j);
    jsonw_put_str(j, "topic", source);
    jsonw_put_str(j, "target_topic", target);
    jsonw_put_int(j, "partition", -1);
    jsonw_put_str(j, "state", sm_state_name(&part_sm, state));
    jsonw_put_str(j, "reason", reason);
    jsonw_end(j);
}

static void put_waiting(void *arg, const char *source, const char *target, const char *reason)
{
    put_topic(arg, source, target, PART_STARTING, reason);
}

/* Topics that have no partitions to show their reason: halted as a whole, or not at the target yet. */
static void put_topics(struct jsonw *j, struct flow *f)
{
    struct flow_topic *t, *next;
    HASH_ITER (hh, f->topics, t, next)
        if (t->halted[0] && !t->parts_n)
            put_topic(j, t->source, t->target, PART_HALTED, t->halted);
    if (f->sync)
        sync_each_waiting(f->sync, put_waiting, j);
}

static const char *flow_reason(const struct flow *f, char text[ERR_TEXT_MAX])
{
    bool halted = f->sm.state == FLOW_HALTED, root = !f->store_trouble[0] && f->target_contact.silent;
    if (!halted && !root && f->progress_trouble[0]) /* why it still does what `reason` says */
        return f->progress_trouble;
    return f->reason[0]               ? f->reason
           : f->store_trouble[0]      ? f->store_trouble
           : f->target_contact.silent ? silence(f, text)
           : f->progress_trouble[0]   ? f->progress_trouble
           : f->source_trouble[0]     ? f->source_trouble
                                      : silence(f, text);
}

static void put_flow(struct flow *f, struct buf *to, unsigned states[PART_STATES])
{
    struct jsonw j;
    char text[ERR_TEXT_MAX];
    jsonw_init(&j, to);
    jsonw_object(&j);
    jsonw_put_str(&j, "flow", f->name);
    jsonw_put_slice(&j, "source", f->policy.source);
    jsonw_put_slice(&j, "target", f->policy.target);
    jsonw_put_slice(&j, "source_cluster_id", client_cluster_id(f->source));
    jsonw_put_slice(&j, "target_cluster_id", client_cluster_id(f->target));
    jsonw_put_str(&j, "state", sm_name(&f->sm));
    jsonw_put_str(&j, "reason", flow_reason(f, text));
    jsonw_key(&j, "partitions");
    jsonw_array(&j);
    list_each (at, &f->parts) {
        struct part *p = LIST_ENTRY(at, struct part, link);
        int64_t lag = lag_of(p), ms = lag_ms(p, lag);
        states[shown_state(p)]++;
        put_part(&j, p, lag, ms);
        if (f->o.metrics)
            part_metrics(p, lag, ms);
    }
    put_topics(&j, f);
    jsonw_end(&j);
    jsonw_key(&j, "groups");
    jsonw_array(&j);
    if (f->checkpoint)
        checkpoint_each(f->checkpoint, put_group, &j);
    jsonw_end(&j);
    jsonw_end(&j);
}

/* ---- the tick ---- */

static void count_group(void *arg, const struct checkpoint_row *row)
{
    ((int64_t *)arg)[row->entry->state]++;
}

static void flow_metrics(struct flow *f, const unsigned states[PART_STATES])
{
    int64_t groups[GROUP_STATES_N] = {0};
    metric_set(f->m_up, f->sm.state == FLOW_RUNNING);
    metric_set(f->m_memory, (int64_t)(f->held_bytes + appender_budget_used(f->budget)));
    metric_set(f->m_progress_age, f->saved_us ? loop_now_us(f->loop) - f->saved_us : 0);
    for (int i = 0; i < PART_STATES; i++)
        metric_set(f->m_states[i], (int64_t)states[i]);
    if (!f->checkpoint)
        return;
    checkpoint_each(f->checkpoint, count_group, groups);
    for (int i = 0; i < GROUP_STATES_N; i++)
        metric_set(f->m_groups[i], groups[i]);
    int64_t age_ms = checkpoint_age_ms(f->checkpoint);
    metric_set(f->m_groups_age, age_ms > 0 ? age_ms * 1000 : 0);
}

/* The target answers, and progress has been read. Away again later: 503 and why, until it is back. */
static bool serving(struct flow *f, char reason[ERR_TEXT_MAX])
{
    char text[ERR_TEXT_MAX];
    bool target_up = client_state(f->target) != CLIENT_CONNECTING && !f->target_contact.silent;
    bool yes = f->sm.state == FLOW_RUNNING && target_up && !f->store_trouble[0] && !f->progress_trouble[0];
    if (f->sm.state == FLOW_RUNNING && !target_up && !f->target_contact.silent)
        flow_set_reason(reason, "target %.*s cannot be reached: %s", SLICE_FMT(f->policy.target),
                        client_last_error(f->target)->text);
    else
        flow_set_reason(reason, "%s", flow_reason(f, text));
    return yes;
}

void flow_status_refresh(struct flow *f)
{
    unsigned states[PART_STATES] = {0};
    struct buf fresh;
    struct flow_snapshot s;
    buf_init(&fresh, f->public.json.limit);
    put_flow(f, &fresh, states);
    s.serving = serving(f, s.reason);
    pthread_mutex_lock(&f->public.lock);
    struct buf old = f->public.json;
    f->public.json = fresh;
    f->public.snapshot = s;
    pthread_mutex_unlock(&f->public.lock);
    buf_fini(&old);
    if (f->o.metrics)
        flow_metrics(f, states);
}

static void tick(void *arg)
{
    struct flow *f = arg;
    contact_watch(&f->source_contact);
    contact_watch(&f->target_contact);
    if (f->sm.state == FLOW_RUNNING) {
        flow_settle(f);
        flow_topics_tick(f);
        flow_retire_tick(f);
        ends_tick(f);
    }
    appender_budget_pace(f->budget);
    if (loop_now_us(f->loop) - f->rest_us >= FLOW_REST_US) {
        f->rest_us = loop_now_us(f->loop);
        appender_budget_rest(f->budget);
    }
    /* Of so many partitions the document costs more than all their batches: not with every tick. */
    f->ticks = f->ticks * TICK_PARTS >= f->parts_n || f->ticks >= TICKS_MAX ? 1 : f->ticks + 1;
    if (f->ticks == 1)
        flow_status_refresh(f);
    loop_timer_in(&f->tick, TICK_US);
}

static struct metric_cell *cell(struct flow *f, enum mirror_metric id)
{
    return metrics_cell(f->o.metrics, 0, id, f->name);
}

void flow_status_start(struct flow *f)
{
    loop_timer_init(&f->tick, f->loop, tick, f);
    loop_timer_in(&f->tick, TICK_US);
    if (!f->o.metrics)
        return;
    f->m_up = cell(f, M_sundog_mirror_flow_up);
    f->m_bytes = cell(f, M_sundog_mirror_bytes_total);
    f->m_duplicates = cell(f, M_sundog_mirror_duplicates_total);
    f->m_resends = cell(f, M_sundog_mirror_resends_total);
    f->m_reconciles = cell(f, M_sundog_mirror_reconciles_total);
    f->m_strangers = cell(f, M_sundog_mirror_strangers_total);
    f->m_commits = cell(f, M_sundog_mirror_progress_commits_total);
    f->m_progress_age = cell(f, M_sundog_mirror_progress_age_seconds);
    f->m_memory = cell(f, M_sundog_mirror_memory_bytes);
    f->m_groups_age = cell(f, M_sundog_mirror_groups_age_seconds);
    for (unsigned i = 0; i < PART_STATES; i++)
        f->m_states[i] =
            metrics_cell(f->o.metrics, 0, M_sundog_mirror_partitions, f->name, sm_state_name(&part_sm, i));
    for (unsigned i = 0; i < GROUP_STATES_N; i++)
        f->m_groups[i] = metrics_cell(f->o.metrics, 0, M_sundog_mirror_group_offsets, f->name,
                                      mirror_group_state_name((enum group_state)i));
}

void flow_status_fini(struct flow *f)
{
    loop_timer_stop(&f->tick);
    if (!f->o.metrics || !f->m_up)
        return;
    struct metric_cell *all[] = {f->m_up,         f->m_bytes,     f->m_duplicates, f->m_resends,
                                 f->m_reconciles, f->m_strangers, f->m_commits,    f->m_progress_age,
                                 f->m_memory,     f->m_groups_age};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        metrics_release(f->o.metrics, all[i]);
    for (int i = 0; i < PART_STATES; i++)
        metrics_release(f->o.metrics, f->m_states[i]);
    for (int i = 0; i < GROUP_STATES_N; i++)
        metrics_release(f->o.metrics, f->m_groups[i]);
}

void flow_snapshot(struct flow *f, struct flow_snapshot *out, struct buf *json)
{
    pthread_mutex_lock(&f->public.lock);
    *out = f->public.snapshot;
    if (json)
        buf_put(json, f->public.json.p ? (const void *)f->public.json.p : "{}",
                f->public.json.p ? f->public.json.n : 2);
    pthread_mutex_unlock(&f->public.lock);
}
