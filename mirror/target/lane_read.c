/* The survey's reading of the target, from the end we know to the end it had: headers for what is in memory, contents
 * for what is not. Numbers must follow each other; what compaction or the log start explains may be missing. */
#include "mirror/target/lane.h"

#include "base/core/mutant.h"

enum lane_whose lane_whose(const struct lane *l, const struct batch_header *h)
{
    if (h->producer_id != l->c.producer_id || batch_is(h, BATCH_CONTROL) || h->base_sequence < 0)
        return LANE_OTHERS;
    if (h->producer_epoch > l->c.producer_epoch)
        return LANE_OURS_NEWER;
    return h->producer_epoch == l->c.producer_epoch ? LANE_OURS : LANE_OTHERS;
}

/* Rule 18: compaction takes records out of a batch, not numbers. */
int64_t lane_covers(const struct batch_header *h)
{
    return MUTANT("count_records_not_delta") ? h->records_n : (int64_t)h->last_offset_delta + 1;
}

void lane_read_begin(struct lane *l)
{
    assert(lane_state(l) == LANE_SURVEYING);
    assert(l->step == STEP_READ);
    assert(!l->pairing);
    bool cut = l->log_start > l->at.end_offset;
    l->read_at = cut ? l->log_start : l->at.end_offset;
    l->read_number = l->at.number_next;
    l->read_missing = cut ? INT64_MAX / 4 : 0;
    l->match = l->survey == LANE_SURVEY_RESOLVE ? lane_head(l) : NULL;
    l->reading = true;
    l->stranger = (struct appender_note){0};
    if (l->read_at >= l->end)
        lane_read_end(l);
}

static void doubled(struct lane *l, const struct batch_header *h, int64_t number, int64_t count)
{
    lane_note(l, &(struct appender_note){.kind = APPENDER_DOUBLE,
                                         .number = number,
                                         .offset = h->base_offset,
                                         .count = count,
                                         .producer_id = h->producer_id});
    l->counts.duplicates += (uint64_t)count;
}

/* Is this stored batch the one in memory? Bytes decide where the target keeps them as they were sent. */
static bool same_batch(const struct lane_batch *b, const struct batch_header *h, int64_t number,
                       struct slice stored)
{
    if (number != b->number || lane_covers(h) != b->count)
        return false;
    struct batch_header own;
    if (batch_header_read(lane_batch_bytes(b), &own, NULL))
        return false;
    bool kept =
        h->attributes == own.attributes && h->length == own.length && h->max_timestamp == own.max_timestamp;
    return !kept || (h->crc == own.crc && stored.n >= batch_size(h));
}

/* A batch of ours while what we sent is in memory. */
static void resolve(struct lane *l, const struct batch_header *h, struct slice batch, int64_t number)
{
    struct lane_batch *b = l->match;
    if (number + lane_covers(h) <= l->read_number) {
        doubled(l, h, number, lane_covers(h));
        return;
    }
    if (!b || b->state == LANE_BATCH_OPEN || !same_batch(b, h, number, batch)) {
        lane_restart(l, "the target holds records of ours in other batches than those sent");
        return;
    }
    assert(l->inflight == 0); /* else it could be under way again */
    assert(b->state == LANE_BATCH_SEALED || b->state == LANE_BATCH_ANSWERED);
    if (b->state == LANE_BATCH_SEALED) {
        assert(l->sealed > 0);
        l->sealed--;
        b->state = LANE_BATCH_ANSWERED;
    }
    b->acked = true;
    b->verified = true;
    b->answer.base_offset = h->base_offset;
    l->read_number = number + lane_covers(h);
    l->match = b->link.next == &l->batches ? NULL : LIST_ENTRY(b->link.next, struct lane_batch, link);
}

/* A batch of ours that is not in memory: to be paired with the source. False: not now, the window is full. */
static bool collect(struct lane *l, const struct batch_header *h, struct slice batch, int64_t number)
{
    int64_t end = number + lane_covers(h), hole = number - l->read_number;
    if (end <= l->read_number) {
        doubled(l, h, number, lane_covers(h));
        return true;
    }
    if (hole > l->read_missing || hole > PAIRING_WINDOW) {
        lane_halt(l, APPENDER_REASON_HOLE,
                  "partition %d lacks our numbers: hole %lld..%lld before offset %lld", l->c.partition,
                  (long long)l->read_number, (long long)number - 1, (long long)h->base_offset);
        return true;
    }
    if (!lane_pair_begin(l))
        return true;
    if (hole > 0 && !lane_pair_absent(l, hole))
        return false;
    if (lane_state(l) == LANE_HALTED)
        return true;
    return lane_pair_batch(l, h, batch);
}

/* One batch of the target's; false: it is to be read again later. */
static bool look_at(struct lane *l, const struct batch_header *h, struct slice batch)
{
    if (h->base_offset > l->read_at)
        l->read_missing += h->base_offset - l->read_at;
    switch (lane_whose(l, h)) {
    case LANE_OTHERS:
        if (h->base_offset >= l->told_to) /* a survey that begins anew reads once more */
            lane_stranger(l, h, &l->stranger);
        break;
    case LANE_OURS_NEWER:
        lane_halt(l, APPENDER_REASON_NEWER_GENERATION,
                  "partition %d holds batches of epoch %d of producer id %lld, ours is %d", l->c.partition,
                  h->producer_epoch, (long long)h->producer_id, l->c.producer_epoch);
        break;
    case LANE_OURS: {
        int64_t number = lane_unwrap(l, h->base_sequence);
        if (l->survey != LANE_SURVEY_START) {
            resolve(l, h, batch, number);
        } else if (!collect(l, h, batch, number)) {
            l->read_at = h->base_offset;
            return false;
        }
        l->read_missing = 0;
        break;
    }
    }
    return true;
}

void lane_read_chunk(struct lane *l, const struct lane_trouble *t, struct slice batches, int64_t next)
{
    if (l->step == STEP_PROBE) {
        lane_probe(l, t, batches);
        return;
    }
    if (t->status || t->error != KE_NONE) {
        lane_trouble(l, "Fetch", t);
        return;
    }

    struct batch_header h;
    bool any = false;
    while (batch_header_read(batches, &h, NULL) == 0 && batch_size(&h) <= batches.n && l->read_at < l->end) {
        struct slice batch = slice_of(batches.p, batch_size(&h));
        batches = slice_of(batches.p + batch.n, batches.n - batch.n);
        any = true;
        if (batch_last_offset(&h) < l->read_at)
            continue;
        if (h.base_offset >= l->end)
            break;
        if (!look_at(l, &h, batch)) {
            lane_pair_feed(l);
            return;
        }
        if (!l->reading)
            return; /* begun anew, or halted */
        l->read_at = batch_last_offset(&h) + 1;
    }
    if (!any && next > l->read_at) {
        l->read_missing += next - l->read_at;
        l->read_at = next;
    }
    if (l->read_at >= l->end || (any && h.base_offset >= l->end))
        lane_read_end(l);
    else if (!any)
        lane_wait(l, APPENDER_REASON_NONE, LANE_BACKOFF_MAX_US, "%s", "");
    else
        lane_pair_feed(
            l); /* what waits of the source goes on with what has come, or shows that nothing fits */
}
