#include "mirror/flow/internal.h"

#include <assert.h>
#include <stdlib.h>

#include "base/core/mutant.h"
#include "base/runtime/log.h"

/* Topics as sync tells them: which incarnation, which routing rule, which partitions. */

struct flow_topic *flow_topic_find(struct flow *f, const char *source)
{
    struct flow_topic *t;
    HASH_FIND_STR(f->topics, source, t);
    return t;
}

static void topic_halt(struct flow_topic *t, enum ledger_kind kind, const char *line)
{
    if (strcmp(t->halted, line) == 0)
        return;
    flow_set_reason(t->halted, "%s", line);
    flow_ledger(t->flow, kind, t->source, -1, 0, 0, "%s", line);
    for (int32_t p = 0; p < t->parts_n; p++)
        if (t->parts[p])
            part_halt(t->parts[p], "%s", line);
}

struct rule_found {
    bool some, differs;
    uint32_t fingerprint;
};

static int each_position(void *arg, const struct map_position *p)
{
    struct rule_found *r = arg;
    r->differs |= r->some && r->fingerprint != p->fingerprint;
    r->fingerprint = p->fingerprint;
    r->some = true;
    return 0;
}

/* The rule that the topic's positions stand on holds for good; a topic without any gets the one of its counts now. */
static void choose_rule(struct flow_topic *t)
{
    struct rule_found r = {0};
    struct store_view *v;
    struct err err;
    char line[ERR_TEXT_MAX];
    if (store_view_open(t->flow->o.store, &v, &err)) {
        topic_halt(t, LEDGER_HALTED, err.text);
        return;
    }
    int rc = store_positions_each(v, t->number, each_position, &r);
    store_view_close(v);
    if (rc || r.differs || (r.some && route_rule_of_fingerprint(r.fingerprint, &t->rule))) {
        flow_set_reason(
            line,
            "the positions of %s in the store do not agree (%s): delete the store, it is built again from %s",
            t->source, rc ? err_str(rc) : "routing rules", "the progress topic");
        topic_halt(t, LEDGER_HALTED, line);
        return;
    }
    if (!r.some)
        t->rule = route_rule_for(t->source_partitions, t->target_partitions);
    t->has_rule = true;
}

/* A rule is part of the numbering (APPENDER.md rule 11): it is never changed under a running one. */
static bool rule_fits(struct flow_topic *t)
{
    char line[ERR_TEXT_MAX];
    if (t->rule.mode == ROUTE_HASH && t->rule.target_partitions != t->target_partitions) {
        flow_set_reason(
            line,
            "%s has %d partitions now, but keys are spread over %d: mirror to a new topic, or delete %s and "
            "restart",
            t->target, t->target_partitions, t->rule.target_partitions, t->target);
        topic_halt(t, LEDGER_HALTED, line);
        return false;
    }
    return true;
}

/* Partitions that the rule can serve now: with kept numbers, those the target has already. */
static int32_t parts_possible(const struct flow_topic *t)
{
    if (t->rule.mode == ROUTE_KEEP && t->target_partitions < t->source_partitions)
        return t->target_partitions;
    return t->source_partitions;
}

static void grow_parts(struct flow_topic *t)
{
    int32_t n = parts_possible(t);
    assert(t->has_rule);
    assert(!t->halted[0]);
    assert(!t->gone);
    assert(!t->reborn);
    if (n <= t->parts_n)
        return;
    struct part **grown = realloc(t->parts, (size_t)n * sizeof(struct part *));
    if (!grown) {
        log_error(FLOW_AREA, "out of memory flow=%s topic=%s", t->flow->name, t->source);
        return;
    }
    t->parts = grown;
    while (t->parts_n < n) {
        struct part *p;
        if (part_create(t, t->parts_n, &p)) {
            log_error(FLOW_AREA, "out of memory flow=%s topic=%s", t->flow->name, t->source);
            return;
        }
        t->parts[t->parts_n++] = p;
        part_start(p);
    }
    assert(t->parts_n == n);
}

static void serve(struct flow_topic *t)
{
    if (t->has_rule && !t->halted[0] && !t->gone && !t->reborn && rule_fits(t))
        grow_parts(t);
}

/* ---- incarnations ---- */

static void id_line(char line[ERR_TEXT_MAX], const struct flow_topic *t, const struct uuid *was,
                    const struct uuid *is)
{
    char a[UUID_TEXT_SIZE], b[UUID_TEXT_SIZE];
    flow_set_reason(line,
                    "%s was deleted and created again at the source (topic id %s, was %s): set "
                    "sundog.on.new.incarnation = "
                    "record-and-continue to mirror the new one behind the old",
                    t->source, uuid_text(is, b), uuid_text(was, a));
}

/* What an older incarnation left at the target: the new one begins behind it, as a new generation of the numbering. */
struct inherit {
    struct flow_topic *t;
};

static int inherit_position(void *arg, const struct map_position *old)
{
    struct inherit *i = arg;
    struct flow *f = i->t->flow;
    struct arena a;
    arena_init(&a, (size_t)16 << 20);
    struct map_lane *lanes = ARENA_NEWS(&a, struct map_lane, old->lanes_n ? old->lanes_n : 1);
    for (size_t k = 0; lanes && k < old->lanes_n; k++)
        lanes[k] = (struct map_lane){.q = old->lanes[k].q,
                                     .end_offset = old->lanes[k].end_offset,
                                     .end_epoch = old->lanes[k].end_epoch,
                                     .timestamp_max = -1};
    struct map_position fresh = *old;
    fresh.topic = (struct topic_key){slice_str(i->t->source), i->t->source_id};
    fresh.next_offset = 0;
    fresh.leader_epoch = -1;
    fresh.generation = old->generation + (MUTANT("generation_not_raised") ? 0 : 1);
    fresh.lanes = lanes;
    if (lanes)
        progress_put_position(f->progress, i->t->number, &fresh);
    arena_fini(&a);
    return lanes ? 0 : -E_NOMEM;
}

static void inherited(void *arg)
{
    struct flow *f = arg;
    struct flow_topic *t, *next;
    HASH_ITER (hh, f->topics, t, next) {
        if (t->has_rule || t->halted[0] || t->gone)
            continue;
        choose_rule(t);
        serve(t);
        if (parts_possible(t) < t->source_partitions)
            sync_wake(f->sync); /* the rule is known now by which the target's may grow */
    }
}

static void continue_behind(struct flow_topic *t, uint32_t old)
{
    struct flow *f = t->flow;
    assert(!t->has_rule);
    assert(t->parts_n == 0);
    assert(!progress_busy(f->progress));
    struct inherit i = {t};
    struct store_view *v;
    struct topic_key key = {slice_str(t->source), t->source_id};
    t->number = progress_topic(f->progress, &key, slice_str(t->target), &t->target_id);
    if (store_view_open(f->o.store, &v, NULL))
        return;
    int rc = store_positions_each(v, old, inherit_position, &i);
    store_view_close(v);
    if (rc)
        topic_halt(t, LEDGER_HALTED, "the positions of the topic's former incarnation cannot be read");
    progress_commit(f->progress, inherited, f);
}

/* ---- sync's events ---- */

static struct flow_topic *topic_make(struct flow *f, const struct sync_topic *s)
{
    struct flow_topic *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->flow = f;
    t->source = strndup((const char *)s->source.p, s->source.n);
    t->target = strndup((const char *)s->target.p, s->target.n);
    if (!t->source || !t->target) {
        free(t->source);
        free(t->target);
        free(t);
        return NULL;
    }
    t->source_id = s->source_id;
    t->target_id = s->target_id;
    if (f->o.metrics)
        t->records = metrics_cell(f->o.metrics, 0, M_sundog_mirror_records_total, f->name, t->source);
    HASH_ADD_KEYPTR(hh, f->topics, t->source, strlen(t->source), t);
    return t;
}

/* The number of the newest incarnation that the store knows under this name, if it is not this one. */
static bool older_incarnation(struct flow *f, const struct flow_topic *t, struct stored_topic *out,
                              struct uuid *id)
{
    struct store_view *v;
    if (store_view_open(f->o.store, &v, NULL))
        return false;
    bool found =
        store_topic_named(v, progress_flow_number(f->progress), slice_str(t->source), false, out) == 1 &&
        !uuid_eq(&out->topic.id, &t->source_id);
    *id = found ? out->topic.id : (struct uuid){{0}};
    store_view_close(v);
    return found;
}

static void topic_begin(struct flow *f, struct flow_topic *t)
{
    struct topic_key key = {slice_str(t->source), t->source_id};
    struct stored_topic old;
    struct uuid was;
    char line[ERR_TEXT_MAX];
    assert(!t->has_rule);
    assert(t->parts_n == 0);
    bool known = progress_topic_find(f->progress, &key, &t->number);
    if (!known && older_incarnation(f, t, &old, &was)) {
        id_line(line, t, &was, &t->source_id);
        if (strcmp(f->o.flow->o.on_incarnation, "halt") == 0) {
            topic_halt(t, LEDGER_NEW_INCARNATION, line);
        } else if (progress_busy(f->progress)) {
            t->again = true;
        } else {
            flow_ledger(f, LEDGER_NEW_INCARNATION, t->source, -1, 0, 0, "%s", line);
            continue_behind(t, old.number);
        }
        return;
    }
    t->number = progress_topic(f->progress, &key, slice_str(t->target), &t->target_id);
    choose_rule(t);
}

/* The source has another topic under the name now. What was read of the old one is finished first. */
static void reborn(struct flow_topic *t, const struct uuid *id)
{
    char line[ERR_TEXT_MAX];
    assert(!uuid_eq(&t->source_id, id));
    t->next_id = *id;
    if (strcmp(t->flow->o.flow->o.on_incarnation, "halt") == 0) {
        id_line(line, t, &t->source_id, id);
        topic_halt(t, LEDGER_NEW_INCARNATION, line);
        return;
    }
    t->reborn = true;
    for (int32_t p = 0; p < t->parts_n; p++) {
        part_stop_reading(t->parts[p]);
        part_pause(t->parts[p], "another incarnation of the topic follows");
    }
}

bool part_finished(const struct part *p)
{
    struct appender_counts c = {0};
    if (p->appender)
        appender_counts(p->appender, &c);
    return !list_linked(&p->saving) && !list_linked(&p->dirty) && c.inflight == 0 && c.buffered_bytes == 0;
}

static void reborn_tick(struct flow_topic *t)
{
    for (int32_t p = 0; p < t->parts_n; p++)
        if (!part_finished(t->parts[p]))
            return;
    if (progress_busy(t->flow->progress))
        return;
    assert(t->reborn);
    assert(!t->halted[0]);
    for (int32_t p = 0; p < t->parts_n; p++)
        part_destroy(t->parts[p]);
    t->parts_n = 0;
    t->reborn = t->has_rule = false;
    t->source_id = t->next_id;
    topic_begin(t->flow, t);
    serve(t);
}

void flow_topics_tick(struct flow *f)
{
    struct flow_topic *t, *next;
    if (f->sm.state != FLOW_RUNNING)
        return;
    HASH_ITER (hh, f->topics, t, next) {
        if (t->halted[0])
            continue;
        if (t->reborn)
            reborn_tick(t);
        else if (t->again && !progress_busy(f->progress)) {
            t->again = false;
            topic_begin(f, t);
            serve(t);
        }
    }
}

/* It is back after having been gone, and the same. */
static void resume(struct flow_topic *t)
{
    for (int32_t p = 0; p < t->parts_n; p++) {
        struct part *part = t->parts[p];
        if (part->appender && !part->assigned && part->sm.state != PART_HALTED)
            part_read_from(part, part->taken_next, -1);
        else
            part_start(part);
    }
}

static void on_topic(void *arg, const struct sync_topic *s)
{
    struct flow *f = arg;
    char name[512];
    assert(s->source_partitions > 0);
    assert(s->target_partitions > 0);
    struct flow_topic *t = flow_topic_find(f, slice_cstr(s->source, name, sizeof name));
    bool fresh = !t;
    if (!t && !(t = topic_make(f, s))) {
        log_error(FLOW_AREA, "out of memory flow=%s topic=%s", f->name, name);
        return;
    }
    bool was_gone = t->gone;
    t->gone = false;
    t->source_partitions = s->source_partitions;
    t->target_partitions = s->target_partitions;
    if (!fresh && !uuid_eq(&t->source_id, &s->source_id)) {
        if (!t->halted[0])
            reborn(t, &s->source_id);
        return;
    }
    if (t->halted[0])
        return;
    if (fresh)
        topic_begin(f, t);
    else if (was_gone)
        resume(t);
    serve(t);
    if (f->checkpoint)
        checkpoint_wake(f->checkpoint);
}

static void on_gone(void *arg, struct slice source)
{
    char name[512];
    struct flow_topic *t = flow_topic_find(arg, slice_cstr(source, name, sizeof name));
    if (!t || t->gone)
        return;
    t->gone = true;
    t->gone_us = loop_now_us(t->flow->loop);
    log_warn(FLOW_AREA, "topic gone at the source flow=%s topic=%s", t->flow->name, t->source);
    for (int32_t p = 0; p < t->parts_n; p++)
        if (t->parts[p] && t->parts[p]->sm.state != PART_HALTED) {
            part_stop_reading(t->parts[p]);
            part_pause(t->parts[p], "the topic is gone at the source");
        }
}

static void on_trouble(void *arg, struct slice topic, const char *text)
{
    struct flow *f = arg;
    if (slice_is_null(topic))
        log_warn(FLOW_AREA, "topics flow=%s: %s", f->name, text);
    else
        log_warn(FLOW_AREA, "topic flow=%s topic=%.*s: %s", f->name, SLICE_FMT(topic), text);
}

static bool on_keeps_partitions(void *arg, struct slice source)
{
    char name[512];
    struct flow_topic *t = flow_topic_find(arg, slice_cstr(source, name, sizeof name));
    return t && t->has_rule && t->rule.mode == ROUTE_KEEP;
}

static void on_settled(void *arg)
{
    struct flow *f = arg;
    log_info(FLOW_AREA, "topics found flow=%s topics=%zu", f->name, sync_topics(f->sync));
}

const struct sync_events flow_sync_events = {.topic = on_topic,
                                             .gone = on_gone,
                                             .trouble = on_trouble,
                                             .keeps_partitions = on_keeps_partitions,
                                             .settled = on_settled};

void flow_topic_destroy(struct flow_topic *t)
{
    struct flow *f = t->flow;
    HASH_DEL(f->topics, t);
    for (int32_t p = 0; p < t->parts_n; p++) {
        if (f->syncs)
            offset_syncs_forget(f->syncs, slice_str(t->source), p);
        part_destroy(t->parts[p]);
    }
    client_topic_forget(f->source, slice_str(t->source));
    client_topic_forget(f->target, slice_str(t->target));
    if (t->records)
        metrics_release(f->o.metrics, t->records);
    free(t->parts);
    free(t->source);
    free(t->target);
    free(t);
}

void flow_topics_destroy(struct flow *f)
{
    struct flow_topic *t, *next;
    HASH_ITER (hh, f->topics, t, next)
        flow_topic_destroy(t);
}
