/* Sending and what comes of it: the window, acknowledgements in order, and what to do when the first of them is not
 * one. Nothing is decided before every request in flight has been answered: only then is it clear which errors merely
 * follow from the first. */
#include "mirror/target/lane.h"

#include "base/core/mutant.h"

#include <stdio.h>

/* So many batches that go well make up for one that met somebody else's. */
#define CONTENDED_BATCHES 64

enum verdict {
    GOOD,
    REFUSED_FOR_NOW, /* certainly not appended; again */
    PERHAPS,         /* may have been appended; again */
    SEQUENCE,        /* the target knows another sequence */
    TOO_LARGE,
    TIMESTAMP,
    DENIED,
    NEWER,
    REFUSED, /* for good */
    BROKEN,  /* nothing we can mend */
};

static enum verdict judge(const struct lane_answer *a)
{
    if (a->status == -E_VERSION || a->status == -E_INVALID)
        return BROKEN;
    if (a->status)
        return a->sent ? PERHAPS : REFUSED_FOR_NOW;
    switch (a->error) {
    case KE_NONE: return GOOD;
    case KE_OUT_OF_ORDER_SEQUENCE_NUMBER:
    case KE_DUPLICATE_SEQUENCE_NUMBER:
    case KE_UNKNOWN_PRODUCER_ID: return SEQUENCE;
    case KE_MESSAGE_TOO_LARGE:
    case KE_RECORD_LIST_TOO_LARGE: return TOO_LARGE;
    case KE_INVALID_TIMESTAMP: return TIMESTAMP;
    case KE_TOPIC_AUTHORIZATION_FAILED:
    case KE_CLUSTER_AUTHORIZATION_FAILED:
    case KE_TRANSACTIONAL_ID_AUTHORIZATION_FAILED: return DENIED;
    case KE_INVALID_PRODUCER_EPOCH: return NEWER;
    case KE_INVALID_RECORD:
    case KE_POLICY_VIOLATION:
    case KE_INVALID_TOPIC_EXCEPTION: return REFUSED;
    case KE_UNKNOWN_TOPIC_OR_PARTITION:
    case KE_UNKNOWN_TOPIC_ID:
    case KE_INCONSISTENT_TOPIC_ID:
    case KE_LEADER_NOT_AVAILABLE:
    case KE_NOT_ENOUGH_REPLICAS:
    case KE_FENCED_LEADER_EPOCH:
    case KE_UNKNOWN_LEADER_EPOCH:
    case KE_CORRUPT_MESSAGE:
    case KE_THROTTLING_QUOTA_EXCEEDED: return REFUSED_FOR_NOW;
    default: return kafka_error_retriable(a->error) ? PERHAPS : BROKEN;
    }
}

static enum appender_reason reason_of(const struct lane_answer *a)
{
    if (a->status)
        return APPENDER_REASON_TARGET_AWAY;
    switch (a->error) {
    case KE_LEADER_NOT_AVAILABLE:
    case KE_NOT_LEADER_OR_FOLLOWER:
    case KE_FENCED_LEADER_EPOCH:
    case KE_UNKNOWN_LEADER_EPOCH: return APPENDER_REASON_NO_LEADER;
    case KE_NOT_ENOUGH_REPLICAS:
    case KE_NOT_ENOUGH_REPLICAS_AFTER_APPEND: return APPENDER_REASON_NOT_ENOUGH_REPLICAS;
    default: return APPENDER_REASON_TARGET_ERROR;
    }
}

static const char *words(const struct lane_answer *a)
{
    if (a->text && a->text[0])
        return a->text;
    return a->status ? err_str(a->status) : kafka_error_name(a->error);
}

struct lane_batch *lane_head(const struct lane *l)
{
    return list_empty(&l->batches) ? NULL : LIST_ENTRY(l->batches.next, struct lane_batch, link);
}

/* ---- how much may be in flight ---- */

/* Does the target's check hold for all that is or may be there, and for this one? Else nothing must be sent twice
 * without looking, and nothing may be overtaken (rules 2 and 3). */
static bool guarded(const struct lane *l, const struct lane_batch *next)
{
    if (!l->fresh && !lane_fresh_enough(l, l->last_timestamp))
        return false;
    list_each (at, &l->batches) {
        const struct lane_batch *b = LIST_ENTRY(at, struct lane_batch, link);
        bool counts = b == next || b->state == LANE_BATCH_SENT || b->may_be_there;
        if (counts && !lane_fresh_enough(l, b->timestamp_max))
            return false;
    }
    return true;
}

static unsigned window_for(const struct lane *l, const struct lane_batch *next)
{
    if (l->single)
        return 1;
    if (!l->first_acked && !MUTANT("pipeline_before_first_ack"))
        return 1;
    return guarded(l, next) ? APPENDER_INFLIGHT_MAX : 1;
}

unsigned lane_window(const struct lane *l)
{
    return window_for(l, NULL);
}

/* ---- sending ---- */

static struct lane_batch *next_sealed(const struct lane *l)
{
    list_each (at, &l->batches) {
        struct lane_batch *b = LIST_ENTRY(at, struct lane_batch, link);
        if (b->state == LANE_BATCH_SEALED)
            return b;
    }
    return NULL;
}

/* A small batch waits while others are under way: what comes meanwhile goes with it. */
static bool worth_sending(const struct lane *l, const struct lane_batch *open)
{
    return open && open->count > 0 && (l->inflight == 0 || batch_bytes(&open->builder) >= LANE_EAGER_BYTES);
}

struct lane_effect lane_window_effect(struct lane *l)
{
    struct lane_effect nothing = {.kind = LANE_NOTHING};
    if (lane_state(l) != LANE_APPENDING || l->failing || l->verifying || l->retry_at_us > l->now_us)
        return nothing;
    if (l->must_resolve) {
        if (l->inflight == 0)
            lane_survey_begin(l, LANE_SURVEY_RESOLVE);
        return nothing;
    }
    struct lane_batch *b = l->sealed ? next_sealed(l) : NULL, *candidate = b ? b : l->open;
    if (!candidate || l->inflight >= window_for(l, candidate))
        return nothing;
    if (!b) {
        if (!worth_sending(l, l->open))
            return nothing;
        b = l->open;
        if (lane_batch_seal(l, b)) {
            lane_restart(l, "out of memory");
            return nothing;
        }
        l->open = NULL;
        l->sealed++;
    }
    assert(l->sealed > 0);
    assert(b->state == LANE_BATCH_SEALED);
    assert(!b->acked);
    l->sealed--;
    l->inflight++;
    assert(l->inflight <= APPENDER_INFLIGHT_MAX);
    l->counts.resends += b->may_be_there;
    b->state = LANE_BATCH_SENT;
    b->may_be_there = true;
    return (struct lane_effect){.kind = LANE_PRODUCE, .batch = b};
}

void lane_unsend(struct lane *l)
{
    assert(l->inflight == 0);
    list_each (at, &l->batches) {
        struct lane_batch *b = LIST_ENTRY(at, struct lane_batch, link);
        if (b->state != LANE_BATCH_ANSWERED || b->acked)
            continue;
        b->state = LANE_BATCH_SEALED;
        l->sealed++;
    }
    l->failing = false;
}

/* ---- acknowledgements ---- */

static bool add_runs(struct lane *l, const struct lane_batch *b, int64_t base)
{
    for (size_t i = 0; i < b->segments_n; i++) {
        int32_t at = b->segments[i].at, end = i + 1 < b->segments_n ? b->segments[i + 1].at : b->count;
        if (!lane_add_run(l, b->segments[i].src, base + at, end - at))
            return false;
    }
    return true;
}

void lane_ack(struct lane *l, struct lane_batch *b, int64_t base)
{
    assert(b == lane_head(l));
    assert(b->state == LANE_BATCH_ANSWERED);
    assert(b->acked);
    assert(b->number == l->at.number_next);
    assert(b->src_first >= l->at.source_next); /* positions only grow */
    if (base < l->at.end_offset && !MUTANT("base_going_back_ignored")) {
        lane_halt(l, APPENDER_REASON_TARGET_TRUNCATED,
                  "partition %d acknowledged offset %lld, below the end %lld known before: truncated or "
                  "created again",
                  l->c.partition, (long long)base, (long long)l->at.end_offset);
        return;
    }
    if (base > l->at.end_offset)
        lane_side_between(l, l->at.end_offset, base);
    if (!add_runs(l, b, base)) {
        lane_restart(l, "out of memory");
        return;
    }
    l->at.number_next = b->number + b->count;
    l->at.end_offset = base + b->count;
    l->at.end_epoch = l->leader_epoch;
    l->at.source_next = l->acked_next = b->src_last + 1;
    l->at.timestamp_max = l->last_timestamp = l->append_time ? l->now_ms : b->timestamp_max;
    l->first_acked = true;
    l->fresh = false;
    l->strikes = 0;
    l->contended -= l->contended > 0 && l->counts.batches % CONTENDED_BATCHES == 0;
    l->counts.records += (uint64_t)b->count;
    l->counts.batches++;
    l->c.budget->acked_bytes += lane_batch_bytes(b).n;
    l->counts.bytes += lane_batch_bytes(b).n;
    if (b == l->match)
        l->match = NULL;
    lane_batch_give(l->c.budget, b);
}

/* ---- failures ---- */

static bool later_acked(const struct lane *l)
{
    list_each (at, &l->batches) {
        if (LIST_ENTRY(at, struct lane_batch, link)->acked)
            return true;
    }
    return false;
}

static void again(struct lane *l, struct lane_batch *b, enum verdict v)
{
    const struct lane_answer *a = &b->answer;
    if (!b->in_doubt && later_acked(l)) {
        lane_halt(l, APPENDER_REASON_HOLE,
                  "partition %d refused number %lld (%s) and took later ones: hole %lld..%lld",
                  l->c.partition, (long long)b->number, words(a), (long long)b->number,
                  (long long)(b->number + b->count - 1));
        return;
    }
    if (b->in_doubt && !guarded(l, b) && !MUTANT("resend_unguarded_without_headers"))
        l->must_resolve = true; /* rule 3 */
    l->refresh = true;
    lane_wait(l, v == DENIED ? APPENDER_REASON_NOT_AUTHORIZED : reason_of(a),
              v == DENIED ? LANE_BACKOFF_SLOW_US : LANE_BACKOFF_MAX_US, "partition %d: %s", l->c.partition,
              words(a));
    lane_unsend(l);
}

static void sequence_refused(struct lane *l, struct lane_batch *b)
{
    if (++l->strikes > LANE_STRIKES_MAX) {
        lane_halt(l, APPENDER_REASON_HOLE,
                  "partition %d refuses number %lld as out of order, and nothing read there explains it",
                  l->c.partition, (long long)b->number);
        return;
    }
    if (l->strikes > 1)
        lane_wait(l, APPENDER_REASON_CONTENDED, LANE_BACKOFF_MAX_US,
                  "partition %d refuses number %lld as out of order", l->c.partition, (long long)b->number);
    l->must_resolve = true;
    lane_unsend(l);
}

/* The target does not say which of its two limits it was, nor what its clock says: ours may be ahead of it. What is not
 * certainly an old one waits. */
static void timestamp_refused(struct lane *l, struct lane_batch *b)
{
    if (b->count > 1) {
        lane_split(l, b);
    } else if (b->timestamp_max <= l->now_ms && b->timestamp_max > l->now_ms - LANE_CLOCKS_DIFFER_MS) {
        lane_wait(l, APPENDER_REASON_TIMESTAMP_AHEAD, LANE_BACKOFF_SLOW_US,
                  "partition %d refuses the timestamp %lld of source offset %lld, %lld ms old by this "
                  "machine's clock: "
                  "the clocks differ, or message.timestamp.before.max.ms is low",
                  l->c.partition, (long long)b->timestamp_max, (long long)b->src_first,
                  (long long)(l->now_ms - b->timestamp_max));
        lane_unsend(l);
    } else if (b->timestamp_max > l->now_ms) {
        lane_wait(l, APPENDER_REASON_TIMESTAMP_AHEAD, LANE_BACKOFF_SLOW_US,
                  "partition %d refuses the timestamp %lld of source offset %lld, which is %lld ms ahead",
                  l->c.partition, (long long)b->timestamp_max, (long long)b->src_first,
                  (long long)(b->timestamp_max - l->now_ms));
        lane_unsend(l);
    } else {
        lane_halt(
            l, APPENDER_REASON_TIMESTAMP_REFUSED,
            "partition %d refuses the timestamp %lld of source offset %lld (message.timestamp.before.max.ms)",
            l->c.partition, (long long)b->timestamp_max, (long long)b->src_first);
    }
}

static void too_large(struct lane *l, struct lane_batch *b)
{
    l->single = true;
    if (b->count == 1) {
        lane_halt(
            l, APPENDER_REASON_RECORD_TOO_LARGE,
            "source offset %lld makes a batch of %zu bytes, more than partition %d takes (max.message.bytes)",
            (long long)b->src_first, lane_batch_bytes(b).n, l->c.partition);
        return;
    }
    size_t half = lane_batch_bytes(b).n / 2;
    if (half < l->c.batch_max_bytes)
        l->c.batch_max_bytes = half > 1024 ? half : 1024;
    if (l->limit_bytes == 0 || lane_batch_bytes(b).n - 1 < l->limit_bytes)
        l->limit_bytes = lane_batch_bytes(b).n - 1;
    lane_note(l, &(struct appender_note){.kind = APPENDER_SPLIT, .count = (int64_t)l->c.batch_max_bytes});
    lane_split(l, b);
}

/* All answers are in and the first batch was not acknowledged. */
static void decide(struct lane *l)
{
    struct lane_batch *b = lane_head(l);
    assert(b && b->state == LANE_BATCH_ANSWERED);
    assert(!b->acked);
    assert(l->inflight == 0);
    enum verdict v = judge(&b->answer);
    switch (v) {
    case REFUSED_FOR_NOW:
    case PERHAPS:
    case DENIED: again(l, b, v); break;
    case SEQUENCE: sequence_refused(l, b); break;
    case TOO_LARGE: too_large(l, b); break;
    case TIMESTAMP: timestamp_refused(l, b); break;
    case NEWER:
        lane_halt(l, APPENDER_REASON_NEWER_GENERATION,
                  "partition %d has seen a higher epoch of producer id %lld than ours, %d", l->c.partition,
                  (long long)l->c.producer_id, l->c.producer_epoch);
        break;
    case REFUSED:
        lane_halt(l, APPENDER_REASON_RECORD_REFUSED, "partition %d refuses source offsets %lld to %lld: %s",
                  l->c.partition, (long long)b->src_first, (long long)b->src_last, words(&b->answer));
        break;
    case GOOD:
    case BROKEN:
        lane_halt(l, APPENDER_REASON_TARGET_ERROR, "partition %d: %s", l->c.partition, words(&b->answer));
        break;
    }
}

static void ack_in_order(struct lane *l)
{
    struct lane_batch *b;
    while (lane_state(l) == LANE_APPENDING && !l->verifying && (b = lane_head(l)) && b->acked) {
        if (l->verify_left && !b->verified) {
            lane_side_verify(l, b);
            return;
        }
        lane_healed(l);
        lane_ack(l, b, b->answer.base_offset);
    }
}

void lane_acks(struct lane *l)
{
    ack_in_order(l);
    if (lane_state(l) != LANE_APPENDING || !l->failing || l->inflight || l->verifying)
        return;
    if (lane_head(l) && lane_head(l)->state == LANE_BATCH_ANSWERED)
        decide(l);
    else
        l->failing = false; /* what failed has been found after all */
}

void lane_produced(struct lane *l, struct lane_batch *b, const struct lane_answer *a)
{
    if (b->state == LANE_BATCH_CANCELLED)
        return; /* it stays on its list until the driver has heard of it */
    assert(b->state == LANE_BATCH_SENT);
    assert(l->inflight > 0);
    b->state = LANE_BATCH_ANSWERED;
    b->answer = *a;
    snprintf(b->words, sizeof b->words, "%s", words(a));
    b->answer.text = b->words;
    b->acked = judge(a) == GOOD;
    b->in_doubt = b->in_doubt || judge(a) == PERHAPS;
    b->may_be_there = b->acked || b->in_doubt;
    l->inflight--;
    l->failing = l->failing || !b->acked;
    /* The answer to a duplicate brings the batch's own time, whatever the topic's type (Kafka's UnifiedLog). */
    if (b->acked && a->append_time_ms >= 0 && a->append_time_ms != b->timestamp_max && !l->append_time) {
        l->append_time = true;
        lane_note(l, &(struct appender_note){.kind = APPENDER_APPEND_TIME});
    }
    lane_acks(l);
}
