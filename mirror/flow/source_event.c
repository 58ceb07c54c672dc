#include "mirror/flow/internal.h"

#include <assert.h>

#include "base/runtime/log.h"

/* What the source says besides records: nothing here is passed over in silence (DESIGN.md D12). */

static bool reconciling(const struct part *p)
{
    struct appender_status s;
    appender_status(p->appender, &s);
    return s.pairing;
}

/* The source has deleted what was not mirrored yet: policy. While a restart is being reconciled the appender alone can
 * tell whether it had arrived. */
static void log_start_passed(struct part *p, int64_t log_start)
{
    const char *policy = p->flow->o.flow->o.on_log_start;
    int64_t lost = log_start - p->taken_next;
    assert(lost > 0);
    if (!reconciling(p)) {
        flow_ledger(p->flow, LEDGER_GAP, p->topic->source, p->p, p->taken_next, lost,
                    "deleted at the source before they were mirrored");
        if (strcmp(policy, "halt") == 0) {
            part_halt(p,
                      "source offsets %lld to %lld were deleted before they were mirrored: set "
                      "sundog.on.log.start = "
                      "record-and-continue and restart to go on behind them",
                      (long long)p->taken_next, (long long)log_start - 1);
            return;
        }
    }
    part_read_from(p, log_start, -1);
    appender_covered(p->appender, log_start, -1);
    part_mark(p);
}

static void truncated(struct part *p, int64_t end)
{
    flow_ledger(p->flow, LEDGER_TRUNCATED, p->topic->source, p->p, end, p->taken_next - end,
                "the source's log was cut below what has been mirrored (an unclean election)");
    part_halt(p,
              "the source's log ends at %lld, below what has been mirrored (%lld): records at %s-%d behind "
              "it are orphans",
              (long long)end, (long long)p->taken_next, p->topic->target, p->p);
}

static void out_of_range(struct part *p, const struct port_delivery *d)
{
    if (d->log_start > p->taken_next)
        log_start_passed(p, d->log_start);
    else if (d->end >= 0 && d->end < p->taken_next)
        truncated(p, d->end);
    else {
        /* It was out of range and no longer is: an answer of a deposed leader. Again. */
        part_park(p);
        loop_timer_in(&p->retry, FLOW_RETRY_US / 5);
    }
}

static void covered(struct part *p, const struct port_delivery *d)
{
    if (d->next_offset < p->taken_next)
        return;
    assert(list_empty(&p->held) || p->assigned);
    p->taken_next = d->next_offset;
    p->resume_epoch = d->leader_epoch;
    appender_covered(p->appender, d->next_offset, d->leader_epoch);
    part_mark(p); /* control, aborted and compacted offsets count as mirrored (rule 17) */
    if (d->event == PORT_END) {
        p->at_end = true;
        p->source_end = d->next_offset;
        if (reconciling(p))
            appender_source_end(p->appender, d->next_offset);
    }
    part_refresh(p);
}

void part_damaged(struct part *p, int16_t error, const char *text)
{
    if (error != KE_CORRUPT_MESSAGE || p->damaged_at == p->taken_next)
        return;
    p->damaged_at = p->taken_next;
    flow_ledger(p->flow, LEDGER_DAMAGED, p->topic->source, p->p, p->taken_next, 0, "%s",
                text ? text : kafka_error_name(error));
}

void part_source_event(struct part *p, const struct port_delivery *d)
{
    assert(d->what == PORT_EVENT);
    assert(p->appender);
    switch (d->event) {
    case PORT_POSITION:
    case PORT_END: covered(p, d); return;
    case PORT_OUT_OF_RANGE: out_of_range(p, d); return;
    case PORT_TRUNCATED: truncated(p, d->end); return;
    case PORT_RECREATED:
    case PORT_GONE:
        part_park(p);
        part_pause(p, d->event == PORT_GONE ? "the topic is gone at the source"
                                            : "the topic was created again at the source");
        sync_wake(p->flow->sync);
        loop_timer_in(&p->retry, FLOW_RETRY_US); /* should it have been a broker that does not know yet */
        return;
    case PORT_FAILED:
        if (part_change_engine(p, d))
            return;
        part_damaged(p, d->kafka_error, d->text);
        part_park(p);
        part_pause(p, "the source cannot be read: %s", d->text ? d->text : kafka_error_name(d->kafka_error));
        loop_timer_in(&p->retry, FLOW_RETRY_US);
        return;
    case PORT_TROUBLE: part_trouble(p, d->text ? d->text : kafka_error_name(d->kafka_error)); return;
    }
}
