#include "broker/quorum/quorum_internal.h"

#include "broker/metadata/batches.h"
#include "broker/metadata/image_edit.h"
#include "proto/kafka/batch.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static void run_effects(struct quorum *q);

/* The image that all others lead to: told, or waiting as the newest. */
static const struct image *newest_image(const struct quorum *q)
{
    return list_empty(&q->waiting) ? q->committed
                                   : LIST_ENTRY(q->waiting.prev, struct waiting_image, link)->img;
}

/* What holds between turns. */
static void check(const struct quorum *q)
{
    const struct raft *r = &q->raft;
    assert(q->effects_n <= EFFECTS_MAX);
    assert((!q->stopped || q->stopping));
    assert(log_durable_offset(q->store.log) <= log_end_offset(q->store.log));
    assert(!q->snapshot_busy || q->snapshot.img);
    if (q->failed)
        return; /* log and image may have parted */
    assert(!q->leading || raft_role(r) == RAFT_LEADER || q->running);
    assert(r->log.end_offset == quorum_store_end(&q->store));
    assert(r->high_watermark <= log_durable_offset(q->store.log)); /* D6: only what is on disk is committed */
    assert(newest_image(q) == q->store.replay.img);
    assert(!q->committed || image_offset(q->committed) < r->log.end_offset);
}

static void fail(struct quorum *q, const char *doing, const struct err *err)
{
    char why[ERR_TEXT_MAX + 64];
    if (q->failed)
        return;
    q->failed = true;
    snprintf(why, sizeof why, "%s: %s", doing, err->text[0] ? err->text : err_str(err->code));
    q->o.listener->failed(q->o.arg, why);
}

/* ---- raft in, effects out ---- */

static void arm(struct quorum *q)
{
    if (q->raft.due_us == INT64_MAX || q->stopping)
        loop_timer_stop(&q->timer);
    else
        loop_timer_at(&q->timer, q->raft.due_us);
}

static void step(struct quorum *q, struct raft_event e)
{
    struct raft_effects out;
    e.now_us = loop_now_us(q->o.loop);
    raft_step(&q->raft, &e, &out);
    assert(q->effects_n + out.n <= EFFECTS_MAX);
    for (unsigned i = 0; i < out.n; i++)
        q->effects[q->effects_n++] = out.v[i];
    arm(q);
    if (q->leading && raft_role(&q->raft) != RAFT_LEADER) {
        q->leading = false;
        q->o.listener->resigned(q->o.arg);
    }
    run_effects(q);
}

void quorum_on_timer(void *arg)
{
    struct quorum *q = arg;
    if (!q->failed)
        step(q, (struct raft_event){.kind = RAFT_TIME});
}

/* ---- quorum-state ---- */

static void state_run(struct loop_job *job)
{
    struct quorum *q = LIST_ENTRY(job, struct quorum, state_job);
    int32_t voters[QUORUM_VOTERS_MAX];
    for (int32_t i = 0; i < q->raft.voters_n; i++)
        voters[i] = q->raft.voters[i].who.id; /* does not change while the quorum runs */
    q->state_rc = quorum_state_write(q->o.disk, q->store.dir, &q->state_writing, q->store.kraft_version,
                                     voters, q->raft.voters_n, &q->state_err);
}

static void check_stopped(struct quorum *q);

static void state_done(struct loop_job *job)
{
    struct quorum *q = LIST_ENTRY(job, struct quorum, state_job);
    assert(q->state_busy);
    q->state_busy = false;
    if (q->state_rc < 0)
        fail(q, "cannot write quorum-state", &q->state_err);
    run_effects(q);
    check_stopped(q);
}

static void write_state(struct quorum *q, const struct quorum_state *s)
{
    assert(!q->state_busy);
    assert(s->epoch >= q->state_writing.epoch); /* S26: epochs on disk never fall */
    q->state_busy = true;
    q->state_writing = *s;
    q->state_job = (struct loop_job){.lane = q->o.lane, .run = state_run, .done = state_done};
    loop_job(q->o.loop, &q->state_job);
}

/* ---- flushing ---- */

static void flush_run(struct loop_job *job)
{
    log_flush_run(LIST_ENTRY(job, struct quorum, flush_job)->flush);
}

static void flush_done(struct loop_job *job)
{
    struct quorum *q = LIST_ENTRY(job, struct quorum, flush_job);
    struct err err = {0};
    assert(q->flush);
    int64_t offset = log_flush_offset(q->flush);
    assert(offset <= log_end_offset(q->store.log));
    int rc = log_flush_done(q->store.log, q->flush, &err);
    q->flush = NULL;
    if (rc < 0)
        fail(q, "cannot sync the metadata log", &err); /* never tried again: pages may be gone (D6) */
    else
        step(q, (struct raft_event){.kind = RAFT_LOG_SYNCED, .offset = offset});
    check_stopped(q);
}

/* At the end of each turn: what was appended in it, or while the last flush ran. */
static void flush(void *arg)
{
    struct quorum *q = arg;
    image_reaper_drain(&q->reaper);
    if (q->flush || q->failed || q->stopped ||
        log_durable_offset(q->store.log) == log_end_offset(q->store.log))
        return;
    int rc = log_flush_begin(q->store.log, LOG_FLUSH_DATA, &q->flush);
    if (rc == 0)
        return;
    if (rc < 0) {
        fail(q, "cannot sync the metadata log", &(struct err){.code = rc});
        return;
    }
    q->flush_job = (struct loop_job){.lane = q->o.lane, .run = flush_run, .done = flush_done};
    loop_job(q->o.loop, &q->flush_job);
}

/* ---- appending ---- */

static int append_bytes(struct quorum *q, struct slice bytes, struct err *err)
{
    struct image *was = q->store.replay.img;
    assert(bytes.n > 0);
    assert(raft_role(&q->raft) == RAFT_LEADER);
    int rc = quorum_store_append(&q->store, bytes, loop_wall_ms(q->o.loop), err);
    if (rc < 0) {
        if (rc != -E_NOSPACE)
            fail(q, "cannot append to the metadata log", err);
        return rc;
    }
    if (q->store.replay.img != was) {
        struct waiting_image *w = malloc(sizeof *w);
        if (!w) {
            fail(q, "cannot follow the metadata log", &(struct err){.code = -E_NOMEM});
            return -E_NOMEM;
        }
        w->img = image_ref(q->store.replay.img);
        list_push(&q->waiting, &w->link);
    }
    struct raft_log_end end = {quorum_store_end(&q->store), quorum_store_last_epoch(&q->store)};
    step(q, (struct raft_event){.kind = RAFT_LOG_APPENDED, .log = end});
    return 0;
}

static int add_voters(struct quorum *q, struct batch_builder *b, int64_t now_ms)
{
    struct kp_kraft_version_record version = {.kraft_version = q->store.kraft_version};
    int rc =
        batch_add_control(b, now_ms, CONTROL_KRAFT_VERSION, &kp_kraft_version_record_message, 0, &version);
    return rc < 0 ? rc
                  : batch_add_control(b, now_ms, CONTROL_KRAFT_VOTERS, &kp_voters_record_message, 0,
                                      &q->store.voters);
}

/* The first batch of an epoch. LeaderChange is version 0 whatever the kraft.version: readers decode it as that. */
static int leader_change(struct quorum *q, int32_t epoch, struct buf *out)
{
    struct kp_leader_change_message_voters voters[QUORUM_VOTERS_MAX];
    struct kp_leader_change_message_granting_voters granting[QUORUM_VOTERS_MAX];
    struct kp_leader_change_message m = {.leader_id = q->o.node_id,
                                         .voters = voters,
                                         .granting_voters = granting,
                                         .voters_n = q->raft.voters_n};
    for (int32_t i = 0; i < q->raft.voters_n; i++) {
        const struct raft_voter *v = &q->raft.voters[i];
        voters[i] = (struct kp_leader_change_message_voters){v->who.id, v->who.directory_id};
        if (v->granted)
            granting[m.granting_voters_n++] =
                (struct kp_leader_change_message_granting_voters){v->who.id, v->who.directory_id};
    }
    struct batch_options o = BATCH_OPTIONS;
    o.base_offset = quorum_store_end(&q->store);
    o.leader_epoch = epoch;
    o.attributes = BATCH_CONTROL;
    struct batch_builder b;
    int64_t now_ms = loop_wall_ms(q->o.loop);
    assert(epoch == q->raft.state.epoch);
    assert(m.granting_voters_n * 2 > m.voters_n);
    batch_begin(&b, out, &o);
    int rc = batch_add_control(&b, now_ms, CONTROL_LEADER_CHANGE, &kp_leader_change_message_message, 0, &m);
    if (rc == 0 && q->store.kraft_version > 0 && !q->store.voters_in_log)
        rc = add_voters(q, &b, now_ms);
    if (rc == 0)
        return batch_close(&b, NULL);
    batch_drop(&b);
    return rc;
}

static void append_leader_change(struct quorum *q, int32_t epoch)
{
    struct buf bytes;
    struct err err = {0};
    buf_init(&bytes, METADATA_BATCH_BYTES_MAX);
    int rc = leader_change(q, epoch, &bytes);
    if (rc < 0)
        fail(q, "cannot begin the epoch", &(struct err){.code = rc});
    else if (append_bytes(q, buf_slice(&bytes), &err) == -E_NOSPACE)
        fail(q, "cannot append to the metadata log", &err); /* nothing can be served without it */
    buf_fini(&bytes);
}

int64_t quorum_append(struct quorum *q, const struct metadata_record *v, size_t n, struct err *err)
{
    if (!q->leading || q->stopping || q->failed)
        return err_set(err, -E_AGAIN, "this node does not lead the metadata quorum");
    struct buf bytes;
    struct metadata_batch b = {quorum_store_end(&q->store), q->raft.state.epoch, loop_wall_ms(q->o.loop)};
    assert(n > 0);
    assert(raft_role(&q->raft) == RAFT_LEADER);
    assert(q->raft.high_watermark > q->raft.epoch_start_offset); /* or it would not have been told to lead */
    buf_init(&bytes, METADATA_BATCH_BYTES_MAX * 2);
    int rc = metadata_batch_put(&b, v, n, &bytes, err);
    if (rc == 0)
        rc = append_bytes(q, buf_slice(&bytes), err);
    buf_fini(&bytes);
    return rc < 0 ? rc : quorum_store_end(&q->store) - 1;
}

/* ---- committing ---- */

static void start_snapshot(struct quorum *q);

static bool snapshot_due(const struct quorum *q)
{
    const struct quorum_store *s = &q->store;
    int64_t end = image_offset(q->committed) + 1;
    int64_t last = s->snapshots_n ? s->snapshots[s->snapshots_n - 1].id.end_offset : 0;
    if (q->snapshot_busy || q->stopping || end <= last)
        return false;
    int64_t age_us = loop_now_us(q->o.loop) - q->snapshot_us;
    return s->snapshot_appended_bytes >= q->o.snapshot_bytes ||
           (q->o.snapshot_ms > 0 && age_us / 1000 >= q->o.snapshot_ms);
}

static void commit(struct quorum *q, int64_t high_watermark)
{
    struct image *newest = NULL;
    assert(high_watermark > 0);
    assert(high_watermark <= quorum_store_end(&q->store));
    while (!list_empty(&q->waiting)) {
        struct waiting_image *w = LIST_ENTRY(q->waiting.next, struct waiting_image, link);
        if (image_offset(w->img) >= high_watermark)
            break;
        assert(!newest || image_offset(newest) < image_offset(w->img));
        image_unref(newest);
        newest = w->img;
        list_remove(&w->link);
        free(w);
    }
    if (newest) {
        assert(!q->committed || image_offset(newest) > image_offset(q->committed));
        image_unref(q->committed);
        q->committed = newest;
        q->o.listener->committed(q->o.arg, newest);
        if (snapshot_due(q))
            start_snapshot(q);
    }
    if (!q->leading && raft_role(&q->raft) == RAFT_LEADER && !q->stopping) {
        /* an entry of this epoch is committed: all before it is, and has been applied (KAFKA-17333) */
        q->leading = true;
        q->o.listener->leading(q->o.arg, q->raft.state.epoch);
    }
}

/* ---- snapshots ---- */

static void snapshot_run(struct loop_job *job)
{
    quorum_snapshot_run(&LIST_ENTRY(job, struct quorum, snapshot_job)->snapshot);
}

static void snapshot_done(struct loop_job *job)
{
    struct quorum *q = LIST_ENTRY(job, struct quorum, snapshot_job);
    assert(q->snapshot_busy);
    assert(q->snapshot.img);
    struct snapshot_id id = {image_offset(q->snapshot.img) + 1, image_epoch(q->snapshot.img)};
    assert(id.end_offset <= q->raft.high_watermark); /* S28 */
    int64_t wall_ms = loop_wall_ms(q->o.loop);
    struct err err = {0};
    q->snapshot_busy = false;
    image_unref(q->snapshot.img);
    if (q->snapshot.rc < 0) {
        if (q->snapshot.rc != -E_NOSPACE)
            fail(q, "cannot write a snapshot of the metadata", &q->snapshot.err);
    } else {
        quorum_store_snapshot_made(&q->store, &id, q->snapshot.size_bytes, wall_ms);
        if (!q->failed && quorum_store_retain(&q->store, q->o.retention_bytes, q->o.retention_ms, wall_ms,
                                              q->raft.high_watermark, &err) < 0)
            fail(q, "cannot remove old metadata", &err);
    }
    check_stopped(q);
}

static void start_snapshot(struct quorum *q)
{
    assert(!q->snapshot_busy);
    assert(q->committed);
    q->snapshot = (struct quorum_snapshot_job){.disk = q->o.disk,
                                               .dir = q->store.dir,
                                               .img = image_ref(q->committed),
                                               .quorum = {q->store.kraft_version, &q->store.voters}};
    q->snapshot_busy = true;
    q->snapshot_us = loop_now_us(q->o.loop);
    q->store.snapshot_appended_bytes = 0;
    q->snapshot_job = (struct loop_job){.lane = q->o.lane + 1, .run = snapshot_run, .done = snapshot_done};
    loop_job(q->o.loop, &q->snapshot_job);
}

/* ---- effects ---- */

static void carry_out(struct quorum *q, const struct raft_effect *e)
{
    switch (e->kind) {
    case RAFT_PERSIST: write_state(q, &e->state); break;
    case RAFT_APPEND_LEADER_CHANGE: append_leader_change(q, e->epoch); break;
    case RAFT_COMMIT: commit(q, e->offset); break;
    case RAFT_ASK_VOTES:
    case RAFT_ANSWER_VOTE: assert(false && "quorum_open takes one voter, who asks nobody"); break;
    }
}

static void run_effects(struct quorum *q)
{
    if (q->running)
        return; /* the loop below goes on with what was added */
    q->running = true;
    while (q->effects_n > 0 && !q->state_busy && !q->failed) {
        struct raft_effect e = q->effects[0];
        q->effects_n--;
        memmove(q->effects, q->effects + 1, q->effects_n * sizeof *q->effects);
        carry_out(q, &e);
    }
    q->running = false;
    check(q);
}

/* ---- life ---- */

void quorum_start(struct quorum *q)
{
    assert(!q->hooked);
    assert(!q->stopping);
    assert(list_empty(&q->waiting));
    assert(!q->committed);
    q->turn_end = (struct loop_hook){.fn = flush, .arg = q};
    loop_hook_add(q->o.loop, &q->turn_end);
    q->hooked = true;
    q->snapshot_us = loop_now_us(q->o.loop);
    struct waiting_image *w = malloc(sizeof *w);
    if (!w) {
        fail(q, "cannot start the metadata quorum", &(struct err){.code = -E_NOMEM});
        return;
    }
    w->img = image_ref(
        q->store.replay.img); /* what was in the log before: committed with the epoch's first batch */
    list_push(&q->waiting, &w->link);
    struct raft_log_end end = {quorum_store_end(&q->store), quorum_store_last_epoch(&q->store)};
    step(q, (struct raft_event){.kind = RAFT_START, .state = q->store.state, .log = end});
}

static void check_stopped(struct quorum *q)
{
    if (!q->stopping || q->stopped || q->flush || q->snapshot_busy || q->state_busy)
        return;
    if (!q->failed && log_durable_offset(q->store.log) < log_end_offset(q->store.log))
        return; /* the flush at the end of this turn comes by here again */
    step(q, (struct raft_event){.kind = RAFT_RESIGN});
    assert(!q->leading);
    q->stopped = true;
    q->o.listener->stopped(q->o.arg);
}

static void stop_later(void *arg)
{
    check_stopped(arg);
}

void quorum_stop(struct quorum *q)
{
    if (q->stopping)
        return;
    q->stopping = true; /* no more appends; what was appended is still synced and committed */
    loop_timer_init(&q->timer, q->o.loop, stop_later, q); /* `stopped` never comes from inside this call */
    loop_timer_in(&q->timer, 0);
}

static void release(struct quorum *q)
{
    while (!list_empty(&q->waiting)) {
        struct waiting_image *w = LIST_ENTRY(list_pop(&q->waiting), struct waiting_image, link);
        image_unref(w->img);
        free(w);
    }
    image_unref(q->committed);
    q->committed = NULL;
}

int quorum_close(struct quorum *q, bool clean, struct err *err)
{
    assert(!q->flush);
    assert(!q->snapshot_busy);
    assert(!q->state_busy);
    assert(!q->hooked || q->stopped || q->failed);
    loop_timer_stop(&q->timer);
    if (q->hooked)
        loop_hook_remove(&q->turn_end);
    release(q);
    int rc = quorum_store_close(&q->store, clean && !q->failed, err);
    image_reaper_drain(&q->reaper);
    free(q);
    return rc;
}

void quorum_abandon(struct quorum *q)
{
    if (!q)
        return;
    if (q->snapshot_busy)
        image_unref(q->snapshot.img);
    if (q->flush)
        (void)log_flush_done(q->store.log, q->flush, NULL); /* its memory; the log is given up with it */
    release(q);
    quorum_store_close(&q->store, false, NULL);
    image_reaper_drain(&q->reaper);
    free(q);
}

/* ---- looking ---- */

const struct image *quorum_image(const struct quorum *q)
{
    return q->store.replay.img;
}

bool quorum_in_transaction(const struct quorum *q)
{
    return q->store.replay.open;
}

int64_t quorum_offset_next(const struct quorum *q)
{
    return quorum_store_end(&q->store);
}

void quorum_status(const struct quorum *q, struct quorum_status *out)
{
    const struct quorum_store *s = &q->store;
    *out = (struct quorum_status){
        .leader_id = q->raft.state.leader_id,
        .epoch = q->raft.state.epoch,
        .leading = raft_role(&q->raft) == RAFT_LEADER,
        .high_watermark = q->raft.high_watermark,
        .log_start = log_start_offset(s->log),
        .log_end = log_end_offset(s->log),
        .kraft_version = s->kraft_version,
        .voters = s->kraft_version > 0 ? &s->voters : NULL,
        .node_id = q->o.node_id,
        .directory_id = q->o.directory_id,
        .snapshots = s->snapshots_n,
        .snapshot_end_offset = s->snapshots_n ? s->snapshots[s->snapshots_n - 1].id.end_offset : 0,
    };
}
