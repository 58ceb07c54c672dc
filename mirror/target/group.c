/* See group.h. */
#include "mirror/target/group.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/core/mutant.h"

#define WAITS_SHOWN 3 /* attempts, some 350 ms */

static int compare_points(const void *a, const void *b)
{
    int32_t x = ((const struct appender_point *)a)->partition,
            y = ((const struct appender_point *)b)->partition;
    return (x > y) - (x < y);
}

static struct lane_config config_of(const struct appender_options *o, int32_t partition, uint64_t seed)
{
    return (struct lane_config){.producer_id = o->producer_id,
                                .producer_epoch = o->producer_epoch,
                                .codec = o->codec,
                                .codec_level = o->codec_level,
                                .batch_max_bytes =
                                    o->batch_max_bytes ? o->batch_max_bytes : (size_t)512 * 1024,
                                .whole_min_bytes = o->whole_min_bytes,
                                .partition = partition,
                                .fresh_needs_empty = o->fresh_needs_empty,
                                .kin = o->kin,
                                .kin_arg = o->arg,
                                .guard = o->guard,
                                .budget = o->budget,
                                .seed = seed + (uint64_t)partition};
}

int group_init(struct lane_group *g, const struct appender_options *o, uint64_t seed, int64_t now_us,
               int64_t now_ms)
{
    *g = (struct lane_group){
        .fed = o->source_next, .expected = o->source_next, .changed = true, .dirty = true, .refused = true};
    buf_init(&g->scratch, GROUP_SCRATCH_MAX);
    if (o->points_n == 0 || o->points_n > GROUP_LANES_MAX)
        return -E_LIMIT;
    g->unsaved_max = o->unsaved_max ? o->unsaved_max : GROUP_UNSAVED;
    g->points = calloc(o->points_n, sizeof *g->points);
    g->lanes = calloc(o->points_n, sizeof *g->lanes);
    if (!g->points || !g->lanes) {
        free(g->points);
        free(g->lanes);
        return -E_NOMEM;
    }
    memcpy(g->points, o->points, o->points_n * sizeof *g->points);
    qsort(g->points, o->points_n, sizeof *g->points, compare_points);
    g->epochs[0].from = o->source_next;
    g->epochs[g->epochs_n++].epoch = o->source_epoch;
    for (; g->n < o->points_n; g->n++) {
        struct appender_point *p = &g->points[g->n];
        assert(g->n == 0 || p[-1].partition < p->partition); /* each once */
        struct lane_config c = config_of(o, p->partition, seed);
        if (!p->known) {
            p->source_next = o->source_next;
            p->source_idle = 0;
        }
        lane_init(&g->lanes[g->n], &c, p, now_us, now_ms);
        g->saved += p->known ? p->number_next : 0;
    }
    g->saving = g->saved;
    return 0;
}

void group_fini(struct lane_group *g)
{
    for (size_t i = 0; i < g->n; i++)
        lane_fini(&g->lanes[i]);
    free(g->lanes);
    free(g->points);
    buf_fini(&g->scratch);
    g->lanes = NULL;
    g->n = 0;
}

struct lane *group_lane(const struct lane_group *g, int32_t partition)
{
    if (g->n == 1)
        return g->lanes[0].c.partition == partition ? &g->lanes[0] : NULL;
    size_t low = 0, high = g->n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int32_t at = g->lanes[mid].c.partition;
        if (at == partition)
            return &g->lanes[mid];
        if (at < partition)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

void group_touched(struct lane_group *g)
{
    g->dirty = true;
}

void group_time(struct lane_group *g, int64_t now_us, int64_t now_ms)
{
    for (size_t i = 0; i < g->n; i++) {
        int64_t due = lane_due(&g->lanes[i]);
        lane_time(&g->lanes[i], now_us, now_ms);
        g->dirty = g->dirty || due <= now_us;
    }
}

int64_t group_due(const struct lane_group *g)
{
    int64_t due = INT64_MAX;
    for (size_t i = 0; i < g->n; i++) {
        int64_t d = lane_due(&g->lanes[i]);
        due = d < due ? d : due;
    }
    return due;
}

/* ---- the source ---- */

static int64_t unsaved(const struct lane_group *g)
{
    int64_t built = 0;
    for (size_t i = 0; i < g->n; i++)
        built += g->lanes[i].number_built;
    return built - g->saved;
}

static bool can_take(const struct lane_group *g)
{
    bool any = false;
    if (g->awaiting || g->draining)
        return false;
    for (size_t i = 0; i < g->n; i++) {
        const struct lane *l = &g->lanes[i];
        switch (lane_state(l)) {
        case LANE_APPENDING:
        case LANE_PAIRING:
            any = true;
            if (!lane_wants(l))
                return false;
            break;
        case LANE_SURVEYING:
            if (l->survey != LANE_SURVEY_START)
                return false;
            break;
        case LANE_READY: break;
        default: return false;
        }
    }
    return any && unsaved(g) < g->unsaved_max;
}

bool group_can_take(struct lane_group *g)
{
    bool can = can_take(g);
    g->refused = g->refused || !can;
    return can;
}

void group_advance(struct lane_group *g, int64_t to)
{
    if (to <= g->expected)
        return;
    for (size_t i = 0; i < g->n; i++)
        lane_passes(&g->lanes[i], g->expected, to, g->missing);
    g->missing += to - g->expected;
    g->expected = to;
    assert(g->missing >= 0);
}

int group_take(struct lane_group *g, int32_t q, const struct port_record *r)
{
    struct lane *l = group_lane(g, q);
    if (!l)
        return -E_NOTFOUND;
    if (!g->awaiting)
        group_take_as(g, l, r, l->c.codec);
    return 0;
}

void group_take_as(struct lane_group *g, struct lane *l, const struct port_record *r, int codec)
{
    assert(!g->awaiting);
    group_advance(g, r->offset);
    if (r->offset == g->expected)
        g->expected = r->offset + 1;
    if (l->source_missing < 0)
        lane_passes(l, r->offset, r->offset, g->missing);
    lane_take(l, r, g->missing, codec);
    if (lane_state(l) != LANE_APPENDING)
        g->dirty = true;
}

/* -1, not known, is remembered like any other: what went before says nothing of what follows. */
static void remember_epoch(struct lane_group *g, int64_t from, int32_t epoch)
{
    if (g->epochs_n && g->epochs[g->epochs_n - 1].epoch == epoch)
        return;
    while (g->epochs_n && g->epochs[g->epochs_n - 1].from >= from)
        g->epochs_n--;
    if (g->epochs_n == GROUP_EPOCHS)
        memmove(&g->epochs[0], &g->epochs[1], --g->epochs_n * sizeof g->epochs[0]);
    assert(g->epochs_n < GROUP_EPOCHS);
    g->epochs[g->epochs_n].from = from;
    g->epochs[g->epochs_n++].epoch = epoch;
}

/* What was given before is of no newer epoch than this. */
static void confirm_epoch(struct lane_group *g, int32_t epoch)
{
    int32_t *last = g->epochs_n ? &g->epochs[g->epochs_n - 1].epoch : NULL;
    if (last && *last < epoch)
        *last = epoch;
}

/* The leader epoch of the record before `offset`, or a newer one, as far as we know; -1: not known. An older one would
 * make a truncation of what a newer leader wrote. */
static int32_t epoch_before(const struct lane_group *g, int64_t offset)
{
    int32_t epoch = g->epochs_n ? g->epochs[0].epoch : -1;
    for (size_t i = 0; i < g->epochs_n; i++)
        if (g->epochs[i].from < offset || i == 0)
            epoch = g->epochs[i].epoch;
    return epoch;
}

void group_covered(struct lane_group *g, int64_t source_next, int32_t source_epoch)
{
    if (g->awaiting)
        return;
    if (source_next > g->fed)
        remember_epoch(g, g->fed, source_epoch);
    else if (source_epoch >= 0)
        confirm_epoch(g, source_epoch);
    group_advance(g, source_next);
    g->fed = source_next > g->fed ? source_next : g->fed;
    for (size_t i = 0; i < g->n; i++)
        lane_covered(&g->lanes[i], g->fed);
    g->dirty = true;
}

void group_reading(struct lane_group *g)
{
    if (!g->awaiting)
        return;
    g->awaiting = false;
    g->missing = 0;
    for (size_t i = 0; i < g->n; i++)
        lane_reading(&g->lanes[i]);
    g->dirty = true;
}

void group_source_end(struct lane_group *g, int64_t source_end)
{
    if (g->awaiting)
        return;
    group_covered(g, source_end, -1);
    for (size_t i = 0; i < g->n; i++) {
        lane_passes(&g->lanes[i], source_end, source_end, g->missing);
        lane_source_end(&g->lanes[i], g->missing);
    }
}

/* ---- anchors, positions ---- */

void group_anchored(struct lane_group *g)
{
    for (size_t i = 0; i < g->n; i++)
        lane_anchored(&g->lanes[i]);
    g->dirty = true;
}

static int64_t source_next(const struct lane_group *g)
{
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < g->n; i++) {
        int64_t s = lane_source_next(&g->lanes[i], g->fed);
        least = s < least ? s : least;
    }
    return least;
}

bool group_take_runs(struct lane_group *g, struct lane_effect *e)
{
    for (size_t i = 0; i < g->n; i++)
        if (lane_take_runs(&g->lanes[i], e))
            return true;
    return false;
}

void group_progress(struct lane_group *g, struct appender_progress *out)
{
    g->saving = 0;
    for (size_t i = 0; i < g->n; i++) {
        assert(g->lanes[i].runs_n == 0); /* a position is never ahead of its runs */
        g->points[i] = g->lanes[i].at;
        g->points[i].source_next = lane_source_next(&g->lanes[i], g->fed);
        g->points[i].source_idle = g->points[i].source_next - g->lanes[i].acked_next;
        assert(g->points[i].source_idle >= 0);
        g->saving += g->lanes[i].at.number_next;
    }
    *out = (struct appender_progress){.source_next = source_next(g), .points = g->points, .points_n = g->n};
    out->source_epoch = epoch_before(g, out->source_next);
}

void group_saved(struct lane_group *g)
{
    assert(g->saving >= g->saved);
    g->saved = g->saving;
    g->dirty = true;
}

void group_drain(struct lane_group *g)
{
    g->draining = g->dirty = true;
}

void group_settle(struct lane_group *g)
{
    g->settling = g->dirty = true;
    for (size_t i = 0; i < g->n; i++)
        lane_settle(&g->lanes[i]);
}

/* ---- what the lanes need together ---- */

struct census {
    size_t halted, surveying, anchoring, pairing, unserved, ready, working;
};

static struct census count(const struct lane_group *g)
{
    struct census c = {0};
    for (size_t i = 0; i < g->n; i++) {
        const struct lane *l = &g->lanes[i];
        switch (lane_state(l)) {
        case LANE_SURVEYING: l->survey == LANE_SURVEY_START ? c.surveying++ : c.working++; break;
        case LANE_ANCHORING: c.anchoring++; break;
        case LANE_PAIRING:
            c.pairing++;
            c.unserved += !l->served;
            break;
        case LANE_READY: c.ready++; break;
        case LANE_APPENDING: c.working++; break;
        case LANE_HALTED: c.halted++; break;
        }
    }
    assert(c.halted + c.surveying + c.anchoring + c.pairing + c.ready + c.working == g->n);
    assert(c.unserved <= c.pairing);
    return c;
}

/* Where a reading must begin that serves every lane that is to take from it. */
static int64_t reading_start(const struct lane_group *g, bool ready_too)
{
    int64_t least = INT64_MAX;
    for (size_t i = 0; i < g->n; i++) {
        const struct lane *l = &g->lanes[i];
        enum lane_state s = lane_state(l);
        bool counts = s == LANE_PAIRING || s == LANE_APPENDING || (s == LANE_READY && ready_too) ||
                      (s == LANE_SURVEYING && l->survey != LANE_SURVEY_START);
        if (counts && l->taken_next < least)
            least = l->taken_next;
    }
    return least;
}

static struct group_effect read_from(struct lane_group *g, int64_t from)
{
    assert(!g->awaiting);
    assert(from < INT64_MAX); /* some lane wants it */
    g->awaiting = true;
    g->expected = g->fed = from;
    return (struct group_effect){.kind = GROUP_READ_FROM, .from = from, .epoch = epoch_before(g, from)};
}

static bool drained(const struct lane_group *g)
{
    for (size_t i = 0; i < g->n; i++) {
        const struct lane *l = &g->lanes[i];
        bool stuck = lane_state(l) != LANE_APPENDING || l->reason != APPENDER_REASON_NONE;
        if (!lane_idle(l) && !stuck)
            return false;
    }
    return true;
}

static bool settled(const struct lane_group *g)
{
    for (size_t i = 0; i < g->n; i++)
        if (lane_state(&g->lanes[i]) == LANE_SURVEYING && g->lanes[i].survey == LANE_SURVEY_SETTLE)
            return false;
    return true;
}

static struct group_effect decide(struct lane_group *g)
{
    struct group_effect nothing = {.kind = GROUP_NOTHING};
    struct census c = count(g);

    if (c.halted == 0 && c.surveying == 0 && c.anchoring > 0 && !g->anchor_told) {
        g->anchor_told = true;
        if (MUTANT("anchor_after_append"))
            group_anchored(g);
        return (struct group_effect){.kind = GROUP_ANCHOR};
    }
    if (c.halted == 0 && c.surveying == 0 && c.anchoring == 0 && !g->awaiting) {
        if (c.unserved > 0)
            return read_from(g, reading_start(g, false));
        if (c.pairing == 0 && c.ready > 0) {
            int64_t from = reading_start(g, true);
            for (size_t i = 0; i < g->n; i++)
                if (lane_state(&g->lanes[i]) == LANE_READY)
                    lane_start(&g->lanes[i]);
            return read_from(g, from);
        }
    }
    if (g->draining && drained(g)) {
        g->draining = false;
        return (struct group_effect){.kind = GROUP_DRAINED};
    }
    if (g->settling && settled(g)) {
        g->settling = false;
        return (struct group_effect){.kind = GROUP_SETTLED};
    }
    return nothing;
}

/* ---- status ---- */

/* What heals at the second attempt is not worth a word. */
static bool waits(const struct lane *l)
{
    return l->reason != APPENDER_REASON_NONE && l->attempts >= WAITS_SHOWN;
}

static enum appender_state shown_state(const struct lane *l)
{
    if (lane_state(l) == LANE_HALTED)
        return APPENDER_HALTED;
    if (waits(l))
        return APPENDER_WAITING;
    switch (lane_state(l)) {
    case LANE_SURVEYING: return l->survey == LANE_SURVEY_START ? APPENDER_STARTING : APPENDER_APPENDING;
    case LANE_ANCHORING: return APPENDER_ANCHORING;
    case LANE_PAIRING: return APPENDER_RECONCILING;
    case LANE_READY: return APPENDER_STARTING;
    default: return APPENDER_APPENDING;
    }
}

static int weight(enum appender_state s)
{
    static const int weights[APPENDER_STATES] = {
        [APPENDER_APPENDING] = 0, [APPENDER_ANCHORING] = 1, [APPENDER_RECONCILING] = 2,
        [APPENDER_STARTING] = 3,  [APPENDER_WAITING] = 4,   [APPENDER_HALTED] = 5};
    assert((unsigned)s < APPENDER_STATES);
    return weights[s];
}

static bool look_at_status(struct lane_group *g)
{
    const struct lane *worst = &g->lanes[0];
    bool guarded = true, pairing = false;
    for (size_t i = 0; i < g->n; i++) {
        const struct lane *l = &g->lanes[i];
        if (weight(shown_state(l)) > weight(shown_state(worst)))
            worst = l;
        pairing = pairing || lane_state(l) == LANE_PAIRING;
        guarded = guarded && (l->fresh || lane_fresh_enough(l, l->last_timestamp));
    }
    enum appender_state state = shown_state(worst);
    bool told = state == APPENDER_WAITING || state == APPENDER_HALTED;
    const char *text = told ? worst->text : "";
    struct appender_status now = {.state = state,
                                  .reason = told ? worst->reason : APPENDER_REASON_NONE,
                                  .partition = told ? worst->c.partition : -1,
                                  .guarded = guarded,
                                  .pairing = pairing,
                                  .text = g->text};
    bool news = g->changed || now.state != g->status.state || now.reason != g->status.reason ||
                now.partition != g->status.partition || strcmp(g->text, text) != 0;
    snprintf(g->text, sizeof g->text, "%s", text);
    g->status = now;
    g->changed = false;
    return news;
}

/* ---- effects ---- */

static struct group_effect lanes_effect(struct lane_group *g)
{
    assert(g->next < g->n);
    for (size_t tried = 0; tried < g->n; tried++) {
        struct lane *l = &g->lanes[g->next];
        struct lane_effect e = lane_effect(l);
        if (e.kind != LANE_NOTHING)
            return (struct group_effect){.kind = GROUP_LANE, .lane = l, .effect = e};
        g->next = (g->next + 1) % g->n;
    }
    return (struct group_effect){.kind = GROUP_NOTHING};
}

struct group_effect group_effect(struct lane_group *g)
{
    struct group_effect e = lanes_effect(g);
    if (e.kind != GROUP_NOTHING) {
        g->dirty = true;
        return e;
    }
    if (!g->dirty)
        return e;
    if ((e = decide(g)).kind != GROUP_NOTHING)
        return e;
    g->dirty = false;
    if (look_at_status(g)) {
        g->dirty = true;
        return (struct group_effect){.kind = GROUP_STATE};
    }
    if (!g->refused || !can_take(g))
        return e;
    g->refused = false;
    return (struct group_effect){.kind = GROUP_ROOM};
}
