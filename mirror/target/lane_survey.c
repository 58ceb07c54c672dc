/* What the target has: asked at the start, after an answer that leaves something in doubt, and at a new leader. */
#include "mirror/target/lane.h"

#include "base/core/mutant.h"

void lane_survey_begin(struct lane *l, enum lane_survey why)
{
    assert(l->inflight == 0);
    l->survey = why;
    l->step = STEP_OFFSETS;
    l->asked = l->reading = false;
    l->producers_known = false;
    l->producers_next = -1;
    l->must_resolve = false;
    l->match = NULL;
    if (why != LANE_SURVEY_SETTLE)
        l->counts.reconciles++;
    lane_pair_reset(l);
    lane_move(l, LANE_SURVEYING);
}

void lane_restart(struct lane *l, const char *why)
{
    if (lane_state(l) == LANE_HALTED)
        return;
    lane_side_reset(l);
    lane_drop_batches(l);
    lane_pair_reset(l);
    assert(l->inflight == 0 && l->sealed == 0 && !l->open);
    l->pair_from = lane_pair_from(l);
    l->taken_next = l->at.source_next;
    l->first_acked = false;
    l->verify_left = LANE_VERIFIED;
    lane_survey_begin(l, LANE_SURVEY_START);
    l->attempts = l->contended;
    l->contended += l->contended < 20;
    lane_wait(l, APPENDER_REASON_CONTENDED, LANE_BACKOFF_MAX_US, "partition %d: %s", l->c.partition, why);
}

/* From the beginning of this survey, a little later: what was seen does not fit together yet. */
static void survey_again(struct lane *l, enum appender_reason why, const char *text)
{
    enum lane_survey survey = l->survey;
    lane_wait(l, why, LANE_BACKOFF_MAX_US, "partition %d: %s", l->c.partition, text);
    lane_survey_begin(l, survey);
}

static struct lane_effect ask(struct lane *l, enum lane_effect_kind kind)
{
    assert(!l->asked); /* one question at a time */
    l->asked = true;
    l->ticket = ++l->tickets;
    return (struct lane_effect){.kind = kind, .ticket = l->ticket};
}

struct lane_effect lane_survey_effect(struct lane *l)
{
    struct lane_effect e = {.kind = LANE_NOTHING};
    bool reading = l->reading && (lane_state(l) == LANE_SURVEYING || lane_state(l) == LANE_PAIRING);
    if (l->asked || l->retry_at_us > l->now_us || (lane_state(l) != LANE_SURVEYING && !reading))
        return e;
    switch (l->step) {
    case STEP_OFFSETS: return ask(l, LANE_OFFSETS);
    case STEP_EPOCH:
        e = ask(l, LANE_EPOCH_END);
        e.epoch = l->at.end_epoch;
        return e;
    case STEP_PROBE:
        e = ask(l, LANE_READ);
        e.from = l->at.end_offset - 1;
        e.to = l->at.end_offset;
        return e;
    case STEP_PRODUCERS: return ask(l, LANE_PRODUCERS);
    case STEP_READ:
        if (l->pairing && l->pairing->window_n >= PAIRING_WINDOW)
            return e; /* full: the source has to come first */
        e = ask(l, LANE_READ);
        e.from = l->read_at;
        e.to = l->end;
        return e;
    }
    return e;
}

/* ---- troubles ---- */

void lane_trouble(struct lane *l, const char *what, const struct lane_trouble *t)
{
    const char *words = t->text && t->text[0] ? t->text
                        : t->status           ? err_str(t->status)
                                              : kafka_error_name(t->error);
    bool denied = !t->status &&
                  (t->error == KE_TOPIC_AUTHORIZATION_FAILED || t->error == KE_CLUSTER_AUTHORIZATION_FAILED);
    if (t->status == -E_VERSION) {
        lane_halt(l, APPENDER_REASON_TARGET_ERROR, "partition %d: %s: %s", l->c.partition, what, words);
        return;
    }
    l->refresh = true;
    lane_wait(l,
              t->status ? APPENDER_REASON_TARGET_AWAY
              : denied  ? APPENDER_REASON_NOT_AUTHORIZED
                        : APPENDER_REASON_TARGET_ERROR,
              denied ? LANE_BACKOFF_SLOW_US : LANE_BACKOFF_MAX_US, "partition %d: %s: %s", l->c.partition,
              what, words);
}

static bool failed(const struct lane_trouble *t)
{
    return t->status || t->error != KE_NONE;
}

static bool expects(struct lane *l, uint32_t ticket, enum lane_step step)
{
    if (!l->asked || ticket != l->ticket || l->step != step || lane_state(l) != LANE_SURVEYING)
        return false;
    l->asked = false;
    return true;
}

/* ---- the end of the survey ---- */

/* Nothing of ours is there that we do not know. */
static void nothing_in_doubt(struct lane *l)
{
    assert(lane_state(l) == LANE_SURVEYING);
    assert(!l->pairing && !l->reading);
    assert(l->inflight == 0);
    /* Others' then, and told of: our next acknowledgement will not lie behind a gap. Where several partitions of the
     * source write this one, a start does not read all that they wrote since. */
    if (!l->c.kin || l->survey != LANE_SURVEY_START) {
        int64_t from = l->at.end_offset > l->log_start ? l->at.end_offset : l->log_start;
        lane_side_between(l, from, l->end);
    }
    l->at.end_offset = l->end;
    l->at.end_epoch = l->end_epoch;
    lane_healed(l);
    if (l->survey == LANE_SURVEY_START) {
        lane_move(l, LANE_READY);
        return;
    }
    l->settled = l->settled || l->survey == LANE_SURVEY_SETTLE;
    lane_move(l, LANE_APPENDING);
    lane_unsend(l);
}

static void compare(struct lane *l)
{
    int64_t next = l->at.number_next, known = l->at.end_offset;
    assert(l->at.known);
    bool told = l->producers_known && l->producers_next >= 0;
    if (MUTANT("next_from_headers_only"))
        told = false;
    if (told && l->producers_next < next) {
        /* Rule 21: its end is where we know it to be, but it remembers less of us. */
        lane_halt(l, APPENDER_REASON_HOLE,
                  "partition %d remembers our numbers up to %lld only, %lld are acknowledged", l->c.partition,
                  (long long)l->producers_next, (long long)next);
        return;
    }
    if (told && l->producers_next == next) {
        nothing_in_doubt(l);
        return;
    }
    if (l->end == known && told) {
        survey_again(l, APPENDER_REASON_NOT_ENOUGH_REPLICAS,
                     "holds records of ours that are not replicated yet");
        return;
    }
    if (l->end == known) {
        nothing_in_doubt(l);
        return;
    }
    l->step = STEP_READ;
    lane_read_begin(l);
}

/* Without progress there must be nothing of ours (rule 14). */
static void begin_fresh(struct lane *l)
{
    bool ours = l->producers_known && l->producers_next != -1;
    assert(!l->at.known);
    assert(list_empty(&l->batches));
    if ((ours || (l->c.fresh_needs_empty && l->end > 0)) && !MUTANT("empty_progress_starts_at_zero")) {
        lane_halt(
            l, APPENDER_REASON_PROGRESS_LOST,
            ours
                ? "partition %d knows our producer id, but no progress of ours is known (its end is %lld)"
                : "partition %d is not empty (its end is %lld), but no progress of ours is known; delete the "
                  "topic at the target to mirror it anew",
            l->c.partition, (long long)l->end);
        return;
    }
    l->at.known = l->fresh = true;
    l->at.number_next = l->number_built = 0;
    l->at.end_offset = l->end;
    l->at.end_epoch = l->end_epoch;
    l->last_timestamp = -1;
    lane_healed(l);
    lane_move(l, LANE_ANCHORING);
}

/* ---- answers ---- */

void lane_offsets(struct lane *l, uint32_t ticket, const struct lane_trouble *t, int64_t log_start,
                  int64_t end, int32_t end_epoch)
{
    if (!expects(l, ticket, STEP_OFFSETS))
        return;
    if (failed(t)) {
        lane_trouble(l, "ListOffsets", t);
        return;
    }
    l->log_start = log_start;
    l->end = end;
    l->end_epoch = end_epoch;
    if (l->at.known && end < l->at.end_offset) {
        lane_halt(l, APPENDER_REASON_TARGET_TRUNCATED,
                  "partition %d ends at %lld, below the end %lld known before", l->c.partition,
                  (long long)end, (long long)l->at.end_offset);
        return;
    }
    bool same = end_epoch >= 0 && end_epoch == l->at.end_epoch;
    bool ask = l->at.known && l->at.end_epoch >= 0 && !same && l->at.end_offset > log_start;
    l->step = ask ? STEP_EPOCH : STEP_PRODUCERS;
}

void lane_epoch_end(struct lane *l, uint32_t ticket, const struct lane_trouble *t, int64_t end)
{
    if (!expects(l, ticket, STEP_EPOCH))
        return;
    if (t->status == -E_VERSION)
        end = -1; /* the batch there will have to tell */
    else if (failed(t)) {
        lane_trouble(l, "OffsetForLeaderEpoch", t);
        return;
    }
    bool judged = end >= l->at.end_offset || l->at.number_next == 0;
    l->step = judged ? STEP_PRODUCERS : STEP_PROBE;
}

/* The batch that ends where we know our end to be: is it ours? A hole is compaction's work, not truncation's. */
static void probe(struct lane *l, struct slice batches)
{
    struct batch_header h;
    int64_t last = l->at.end_offset - 1;
    while (batch_header_read(batches, &h, NULL) == 0 && batch_last_offset(&h) < last &&
           batch_size(&h) <= batches.n)
        batches = slice_of(batches.p + batch_size(&h), batches.n - batch_size(&h));
    bool there =
        batch_header_read(batches, &h, NULL) == 0 && h.base_offset <= last && batch_last_offset(&h) >= last;
    bool intact =
        !there || (lane_whose(l, &h) == LANE_OURS &&
                   lane_unwrap(l, h.base_sequence) + (last - h.base_offset) == l->at.number_next - 1);
    if (!intact) {
        lane_halt(l, APPENDER_REASON_TARGET_TRUNCATED,
                  "partition %d was truncated below offset %lld, and others have written there since",
                  l->c.partition, (long long)l->at.end_offset);
        return;
    }
    l->step = STEP_PRODUCERS;
}

void lane_producers(struct lane *l, uint32_t ticket, const struct lane_trouble *t, bool known, int32_t epoch,
                    int32_t last_sequence, int64_t last_timestamp)
{
    if (!expects(l, ticket, STEP_PRODUCERS))
        return;
    bool cannot = t->status == -E_VERSION || t->error == KE_TOPIC_AUTHORIZATION_FAILED ||
                  t->error == KE_CLUSTER_AUTHORIZATION_FAILED || t->error == KE_UNSUPPORTED_VERSION;
    if (failed(t) && !cannot) {
        lane_trouble(l, "DescribeProducers", t);
        return;
    }
    l->producers_known = !cannot;
    l->producers_next = -1;
    if (!cannot && known && epoch > l->c.producer_epoch) {
        lane_halt(l, APPENDER_REASON_NEWER_GENERATION,
                  "partition %d has seen epoch %d of producer id %lld, ours is %d", l->c.partition, epoch,
                  (long long)l->c.producer_id, l->c.producer_epoch);
        return;
    }
    if (!cannot && known && last_sequence >= 0 && (epoch == l->c.producer_epoch || !l->at.known)) {
        l->producers_next = lane_unwrap(l, last_sequence) + 1;
        l->last_timestamp = last_timestamp;
    }
    if (!l->at.known)
        begin_fresh(l);
    else
        compare(l);
}

void lane_read_end(struct lane *l)
{
    int64_t lost_below = l->log_start;
    assert(l->step == STEP_READ);
    assert(l->read_number >= l->at.number_next);
    bool told = l->producers_known && l->producers_next >= 0 && !MUTANT("next_from_headers_only");
    lane_stranger_end(l, &l->stranger);
    l->told_to = l->end;
    l->reading = false;
    if (told && l->producers_next > l->read_number) {
        if (lost_below <= l->at.end_offset) {
            survey_again(l, APPENDER_REASON_NOT_ENOUGH_REPLICAS,
                         "holds records of ours that are not replicated yet");
            return;
        }
        /* Their batches are below the log start: there, but not to be seen. */
        if (l->survey != LANE_SURVEY_START) {
            lane_restart(l, "the log start has passed records that are in doubt");
            return;
        }
        if (!lane_pair_absent(l, l->producers_next - l->read_number)) {
            lane_halt(l, APPENDER_REASON_POSITION_UNCERTAIN,
                      "partition %d has lost too many of our records in doubt (numbers %lld..%lld)",
                      l->c.partition, (long long)l->read_number, (long long)l->producers_next - 1);
            return;
        }
    }
    if (!told && lost_below > l->at.end_offset && l->read_number == l->at.number_next && !l->fresh) {
        lane_halt(l, APPENDER_REASON_POSITION_UNCERTAIN,
                  "partition %d has lost its records up to %lld, ours from %lld on are in doubt, and it does "
                  "not know "
                  "our producer id",
                  l->c.partition, (long long)lost_below, (long long)l->at.end_offset);
        return;
    }
    if (l->pairing) {
        pairing_target_end(l->pairing);
        lane_pair_feed(l);
        return;
    }
    if (l->survey == LANE_SURVEY_RESOLVE) {
        lane_move(l, LANE_APPENDING);
        lane_acks(l);
        if (lane_state(l) != LANE_APPENDING)
            return;
        l->at.end_offset = l->end;
        l->at.end_epoch = l->end_epoch;
        lane_unsend(l);
        lane_healed(l);
        return;
    }
    nothing_in_doubt(l);
}

void lane_probe(struct lane *l, const struct lane_trouble *t, struct slice batches)
{
    if (failed(t))
        lane_trouble(l, "Fetch", t);
    else
        probe(l, batches);
}
