#include "mirror/flow/internal.h"

#include <assert.h>
#include <stdlib.h>

#include "base/runtime/log.h"

/* The end of a flow: no new records; what is in flight is acknowledged; progress is written; then everything is closed.
 * Each step is left when it is done or when the deadline has passed: what was not saved is found out by the next
 * start. */

static void nothing(void *arg)
{
    (void)arg;
}

static void closed_one(void *arg)
{
    struct flow *f = arg;
    assert(f->closing > 0);
    if (--f->closing)
        return;
    void (*stopped)(void *) = f->stopped;
    void *stopped_arg = f->stopped_arg;
    log_info(FLOW_AREA, "flow stopped flow=%s%s", f->name, f->late ? " before everything was saved" : "");
    flow_free(f);
    stopped(stopped_arg);
}

/* Appenders go before the port, whose deliveries and assignments they no longer have, and before their clients. */
static void close_all(struct flow *f)
{
    struct progress *progress = f->progress;
    struct store_writer *writer = f->writer;
    loop_timer_stop(&f->step);
    loop_timer_stop(&f->deadline);
    loop_timer_stop(&f->progress_timer);
    flow_topics_destroy(f);
    f->progress = NULL;
    f->writer = NULL;
    assert(f->sm.state == FLOW_STOPPING);
    assert(f->closing == 0);
    assert(list_empty(&f->parts));
    f->closing = 2 + FLOW_ENGINES;
    progress_close(progress, closed_one, f);
    store_writer_close(writer, closed_one, f);
    /* The last of them frees the flow. */
    struct port *ports[FLOW_ENGINES];
    memcpy(ports, f->ports, sizeof ports);
    memset(f->ports, 0, sizeof f->ports);
    for (int e = 0; e < FLOW_ENGINES; e++) {
        if (ports[e])
            port_destroy(ports[e], closed_one, f);
        else
            closed_one(f);
    }
}

static void save_all(void *arg)
{
    struct flow *f = arg;
    if (f->late || !f->progress || !progress_is_ready(f->progress) || save_idle(f)) {
        close_all(f);
        return;
    }
    if (!progress_busy(f->progress))
        save_now(f);
    loop_timer_in(&f->step, 20000);
}

static void drained_one(void *arg)
{
    struct part *p = arg;
    struct flow *f = p->flow;
    part_mark(p);
    assert(f->draining > 0);
    f->draining--;
}

static void drain(void *arg)
{
    struct flow *f = arg;
    if (f->draining && !f->late) {
        loop_timer_in(&f->step, 20000);
        return;
    }
    loop_timer_init(&f->step, f->loop, save_all, f);
    save_all(f);
}

static void too_late(void *arg)
{
    struct flow *f = arg;
    f->late = true;
}

static void stop_side(struct flow *f)
{
    sync_destroy(f->sync);
    checkpoint_destroy(f->checkpoint);
    heartbeat_destroy(f->beat);
    heartbeat_destroy(f->beat_back);
    offset_syncs_destroy(f->syncs);
    f->sync = NULL;
    f->checkpoint = NULL;
    f->beat = f->beat_back = NULL;
    f->syncs = NULL;
    ends_stop(f);
    contact_stop(&f->source_contact);
    contact_stop(&f->target_contact);
    flow_prune_stop(f);
    flow_retire_stop(f);
    loop_timer_stop(&f->guard_timer);
}

void flow_stop(struct flow *f, int64_t deadline_ms, void (*stopped)(void *arg), void *arg)
{
    assert(f->sm.state != FLOW_STOPPING);
    bool running = f->sm.state == FLOW_RUNNING;
    sm_move(&f->sm, FLOW_STOPPING);
    flow_set_reason(f->reason, "stopping");
    f->stopped = stopped ? stopped : nothing;
    f->stopped_arg = arg;
    stop_side(f);
    list_each (at, &f->parts) {
        struct part *p = LIST_ENTRY(at, struct part, link);
        part_stop_reading(p);
        loop_timer_stop(&p->retry);
        if (running && p->appender) {
            f->draining++;
            appender_drain(p->appender, drained_one, p);
        }
    }
    loop_timer_init(&f->deadline, f->loop, too_late, f);
    loop_timer_init(&f->step, f->loop, drain, f);
    loop_timer_in(&f->deadline, deadline_ms * 1000);
    loop_timer_in(&f->step, 0);
}

void flow_destroy(struct flow *f)
{
    if (!f)
        return;
    stop_side(f);
    flow_topics_destroy(f);
    for (int e = 0; e < FLOW_ENGINES; e++)
        if (f->ports[e])
            port_destroy(f->ports[e], nothing, NULL);
    progress_abandon(f->progress);
    store_writer_abandon(f->writer);
    flow_free(f);
}
