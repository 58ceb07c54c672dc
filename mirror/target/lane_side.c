/* Reading on the side, while appending goes on: what stands between two of our batches that others' offsets separate
 * (rule 4), and our own first batches of a run, to be sure that what was acknowledged under their numbers is what we
 * sent: a request of an earlier process that arrived late has the same numbers, and the target compares only those. */
#include "mirror/target/lane.h"

#include "base/core/mutant.h"

/* What is under way. Gaps stay: nobody else will tell of them. */
void lane_side_reset(struct lane *l)
{
    l->side_asked = l->verifying = false;
    l->stranger = (struct appender_note){0};
}

/* ---- others ---- */

void lane_stranger(struct lane *l, const struct batch_header *h, struct appender_note *seen)
{
    if (batch_is(h, BATCH_CONTROL) || (l->c.kin && l->c.kin(l->c.kin_arg, h->producer_id)))
        return;
    if (seen->count == 0) {
        seen->kind = APPENDER_STRANGER;
        seen->offset = h->base_offset;
        seen->producer_id = h->producer_id;
    }
    seen->count += h->records_n;
    l->counts.strangers += (uint64_t)h->records_n;
}

void lane_stranger_end(struct lane *l, struct appender_note *seen)
{
    assert(seen->count >= 0);
    if (seen->count > 0)
        lane_note(l, seen);
    *seen = (struct appender_note){0};
}

/* Told without a look, where it can be nobody's of ours. */
static void tell_unread(struct lane *l, int64_t from, int64_t to)
{
    assert(from < to);
    if (l->c.kin)
        return;
    lane_note(l, &(struct appender_note){
                     .kind = APPENDER_STRANGER, .offset = from, .count = to - from, .producer_id = -1});
    l->counts.strangers += (uint64_t)(to - from);
}

void lane_side_between(struct lane *l, int64_t from, int64_t to)
{
    if (from < l->told_to)
        from = l->told_to;
    if (from >= to)
        return;
    if (l->gaps_n == LANE_GAPS_MAX) { /* more come than can be read */
        tell_unread(l, from, to);
        return;
    }
    assert(l->gaps_n == 0 || from >= l->gaps[l->gaps_n - 1].to);
    l->gaps[l->gaps_n++] = (struct lane_gap){.from = from, .to = to};
}

void lane_side_give_up(struct lane *l)
{
    lane_side_reset(l);
    for (size_t i = 0; i < l->gaps_n; i++) {
        lane_stranger_end(l, &l->gaps[i].seen);
        tell_unread(l, l->gaps[i].from, l->gaps[i].to);
    }
    l->gaps_n = 0;
}

static void gap_done(struct lane *l)
{
    assert(l->gaps_n > 0);
    lane_stranger_end(l, &l->gaps[0].seen);
    l->gaps_n--;
    memmove(l->gaps, l->gaps + 1, l->gaps_n * sizeof l->gaps[0]);
}

static void read_gap(struct lane *l, struct slice batches, int64_t next)
{
    struct lane_gap *g = &l->gaps[0];
    struct batch_header h;
    bool any = false;
    while (batch_header_read(batches, &h, NULL) == 0 && batch_size(&h) <= batches.n &&
           h.base_offset < g->to) {
        any = true;
        if (batch_last_offset(&h) >= g->from) {
            if (lane_whose(l, &h) == LANE_OTHERS)
                lane_stranger(l, &h, &g->seen);
            else
                lane_note(l, &(struct appender_note){.kind = APPENDER_DOUBLE,
                                                     .number = lane_unwrap(l, h.base_sequence),
                                                     .offset = h.base_offset,
                                                     .count = lane_covers(&h),
                                                     .producer_id = h.producer_id});
            g->from = batch_last_offset(&h) + 1;
        }
        batches = slice_of(batches.p + batch_size(&h), batches.n - batch_size(&h));
    }
    if (!any)
        g->from = next > g->from ? next : g->to;
    /* An answer may end in the middle of a batch, which is then asked for again. */
    bool beyond = batch_header_read(batches, &h, NULL) == 0 && h.base_offset >= g->to;
    if (g->from >= g->to || beyond)
        gap_done(l);
}

/* ---- our own ---- */

static bool open_walk(struct lane *l, struct lane_batch *b)
{
    struct codec_limits limits = codec_limits_for(CODEC_BYTES_MAX_DEFAULT);
    struct slice bytes = lane_batch_bytes(b), payload;
    struct batch_header h;
    buf_clear(&l->verify_payload);
    if (batch_header_read(bytes, &h, NULL) ||
        batch_payload(&h, bytes, &limits, &l->verify_payload, &payload, NULL))
        return false;
    record_walk_init(&l->verify_walk, &h, payload);
    return true;
}

static void verified(struct lane *l, struct lane_batch *b)
{
    assert(l->verifying);
    assert(l->verify_left > 0);
    l->verifying = false;
    l->verify_left--;
    b->verified = true;
    lane_acks(l);
}

void lane_side_verify(struct lane *l, struct lane_batch *b)
{
    assert(b == lane_head(l));
    assert(b->acked);
    assert(!l->verifying);
    if (b->answer.base_offset < l->at.end_offset || MUTANT("late_request_not_noticed")) {
        b->verified = true; /* the acknowledgement itself will be refused */
        lane_acks(l);
        return;
    }
    l->verifying = true;
    l->verify_next = b->answer.base_offset;
    if (!open_walk(l, b))
        lane_restart(l, "out of memory");
}

static bool same_record(const struct lane *l, const struct record *a, const struct record *b)
{
    return slice_eq(a->key, b->key) && slice_eq(a->value, b->value) && a->headers_n == b->headers_n &&
           slice_eq(slice_of(a->headers.p ? (const void *)a->headers.p : "", a->headers.n),
                    slice_of(b->headers.p ? (const void *)b->headers.p : "", b->headers.n)) &&
           (l->append_time || a->timestamp == b->timestamp);
}

/* The records of one stored batch from verify_next on against those in memory. */
static bool compare_batch(struct lane *l, const struct batch_header *h, struct slice batch)
{
    struct codec_limits limits = codec_limits_for(CODEC_BYTES_MAX_DEFAULT);
    struct buf scratch;
    struct slice payload;
    struct record stored, own;
    struct record_walk w;
    buf_init(&scratch, (size_t)INT32_MAX);
    bool good =
        lane_whose(l, h) == LANE_OURS && batch_payload(h, batch, &limits, &scratch, &payload, NULL) == 0;
    if (good)
        record_walk_init(&w, h, payload);
    l->append_time = l->append_time || batch_is(h, BATCH_LOG_APPEND_TIME);
    while (good && record_next(&w, &stored) == 1) {
        if (stored.offset < l->verify_next)
            continue;
        if (record_next(&l->verify_walk, &own) != 1)
            break;
        good = same_record(l, &stored, &own);
        l->verify_next = stored.offset + 1;
    }
    buf_fini(&scratch);
    return good;
}

static void read_own(struct lane *l, struct slice batches, int64_t next)
{
    struct lane_batch *b = lane_head(l);
    assert(b && b->acked); /* it stays until it has been compared */
    int64_t end = b->answer.base_offset + b->count;
    struct batch_header h;
    bool any = false;
    while (l->verify_next < end && batch_header_read(batches, &h, NULL) == 0 && batch_size(&h) <= batches.n) {
        struct slice batch = slice_of(batches.p, batch_size(&h));
        batches = slice_of(batches.p + batch.n, batches.n - batch.n);
        if (batch_last_offset(&h) < l->verify_next)
            continue;
        any = true;
        if (h.base_offset > l->verify_next || !compare_batch(l, &h, batch)) {
            lane_restart(l, "a late request with the same numbers has taken their place");
            return;
        }
    }
    if (l->verify_next >= end) {
        verified(l, b);
    } else if (!any && next > l->verify_next) {
        /* Compacted or deleted already: nothing to compare with. */
        verified(l, b);
    }
}

struct lane_effect lane_side_effect(struct lane *l)
{
    struct lane_effect e = {.kind = LANE_NOTHING};
    bool may = lane_state(l) == LANE_APPENDING && !l->side_asked && l->retry_at_us <= l->now_us;
    if (!may || (!l->verifying && l->gaps_n == 0))
        return e;
    assert(!l->verifying || lane_head(l));
    l->side_asked = true;
    l->side_ticket = ++l->tickets;
    e.kind = LANE_READ;
    e.ticket = l->side_ticket;
    e.from = l->verifying ? l->verify_next : l->gaps[0].from;
    e.to = l->verifying ? lane_head(l)->answer.base_offset + lane_head(l)->count : l->gaps[0].to;
    return e;
}

void lane_side_read(struct lane *l, const struct lane_trouble *t, struct slice batches, int64_t next)
{
    if (lane_state(l) != LANE_APPENDING)
        return; /* a survey has begun meanwhile: asked again after it */
    if (t->status || t->error != KE_NONE) {
        lane_trouble(l, "Fetch", t);
        return;
    }
    if (l->verifying)
        read_own(l, batches, next);
    else if (l->gaps_n)
        read_gap(l, batches, next);
}
