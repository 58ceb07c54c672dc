/* The lanes where the target contradicts what they know: leaders that lack records, refusals for good, targets that
 * are not empty, requests of an earlier life that arrive late; with the mutants that must be noticed. */
#include "tests/unit/mirror/target/lane_case.h"

#include <signal.h>

TestSuite(lane_doubt, .init = lane_up, .fini = lane_down);

/* Rule 6 */
BOTH(lane_doubt, a_new_leader_that_has_everything_is_no_matter)
{
    rig_start(&r, 0);
    for (int i = 0; i < 10; i++) {
        source_grow(&r, 500);
        run_until_appended(r.t[0].end + 100);
        target_new_epoch(&r.t[0]);
        FINISHES();
    }
}

BOTH(lane_doubt, a_new_leader_that_lacks_what_was_acknowledged_halts)
{
    source_grow(&r, 500);
    rig_start(&r, 0);
    FINISHES();
    target_truncate(&r.t[0], 300);
    source_grow(&r, 10);
    HALTS(TARGET_TRUNCATED, "below the end");
}

BOTH(lane_doubt, a_new_leader_that_lacks_what_was_acknowledged_and_has_others_since_halts)
{
    source_grow(&r, 500);
    rig_start(&r, 0);
    FINISHES();
    target_truncate(&r.t[0], 300);
    target_foreign(&r.t[0], 400);
    source_grow(&r, 10);
    HALTS(TARGET_TRUNCATED, "others have written there since");
}

BOTH(lane_doubt, truncated_while_down)
{
    appended_but_not_saved(500);
    rig_start(&r, 0);
    FINISHES();
    rig_save(&r, 0);
    rig_kill(&r, 0);
    target_truncate(&r.t[0], 300);
    target_foreign(&r.t[0], 400);
    rig_start(&r, 0);
    HALTS(TARGET_TRUNCATED, "others have written there since");
}

/* Rule 8 */
BOTH(lane_doubt, batches_that_are_too_large_are_split)
{
    r.t[0].batch_bytes_max = r.whole ? 250 : 700; /* the source's own batches are small */
    source_grow(&r, 500);
    rig_start(&r, 0);
    FINISHES();
    cr_assert_gt(r.m[0].notes[APPENDER_SPLIT], 0);
}

BOTH(lane_doubt, a_record_that_is_too_large_halts)
{
    r.t[0].batch_bytes_max = 70;
    source_grow(&r, 5);
    rig_start(&r, 0);
    HALTS(RECORD_TOO_LARGE, "source offset 100 makes a batch of");
}

/* Rule 9 */
BOTH(lane_doubt, a_timestamp_too_far_ahead_waits)
{
    r.t[0].ahead_ms_max = 3600 * 1000;
    source_grow(&r, 100);
    source_add(&r, "k", wall(&r) + 3700 * 1000);
    source_grow(&r, 100);
    rig_start(&r, 0);
    rig_run(&r, 60 * SEC);
    cr_assert_eq(rig_status(&r, 0)->state, APPENDER_WAITING);
    cr_assert_eq(rig_status(&r, 0)->reason, APPENDER_REASON_TIMESTAMP_AHEAD);
    cr_assert_not_null(strstr(rig_status(&r, 0)->text, "of source offset 200"), "%s",
                       rig_status(&r, 0)->text);
    cr_assert_eq(r.t[0].end, 100, "what stands before it is there");
    FINISHES();
}

/* A target whose clock is behind ours refuses what is not ahead of ours: it is not an old one. */
BOTH(lane_doubt, a_timestamp_refused_by_a_clock_behind_ours_waits)
{
    r.t[0].ahead_ms_max = -1800 * 1000;
    source_grow(&r, 100);
    source_add(&r, "k", wall(&r) - 10 * 1000);
    rig_start(&r, 0);
    rig_run(&r, 60 * SEC);
    cr_assert_eq(rig_status(&r, 0)->state, APPENDER_WAITING);
    cr_assert_eq(rig_status(&r, 0)->reason, APPENDER_REASON_TIMESTAMP_AHEAD);
    rig_run(&r, 1900 * SEC);
    FINISHES();
}

BOTH(lane_doubt, a_timestamp_that_is_too_old_halts)
{
    r.t[0].before_ms_max = 3600 * 1000;
    source_grow(&r, 100);
    source_add(&r, "k", wall(&r) - 25 * 3600 * 1000);
    rig_start(&r, 0);
    HALTS(TIMESTAMP_REFUSED, "of source offset 200");
    cr_assert_eq(r.t[0].end, 100);
}

BOTH(lane_doubt, a_target_that_stamps_records_itself)
{
    r.t[0].append_time = true;
    for (int i = 0; i < 500; i++)
        source_add(&r, "k", wall(&r) - 30 * DAY_MS);
    rig_start(&r, 0);
    FINISHES();
    cr_assert_eq(r.m[0].notes[APPENDER_APPEND_TIME], 1);
    rig_kill(&r, 0);
    source_grow(&r, 50);
    rig_start(&r, 0);
    FINISHES();
    cr_assert_eq(r.t[0].end, 550);
}

/* Rule 14 */
static void target_is_not_empty(void)
{
    r.fresh_needs_empty = true;
    target_foreign(&r.t[0], 5);
    source_grow(&r, 10);
    rig_start(&r, 0);
}

BOTH(lane_doubt, no_progress_and_a_target_that_is_not_empty_halts)
{
    target_is_not_empty();
    HALTS(PROGRESS_LOST, "is not empty (its end is 5)");
}

BOTH(lane_doubt, mutant_empty_progress_starts_at_zero)
{
    mutant("empty_progress_starts_at_zero");
    target_is_not_empty();
    rig_finish(&r, 60 * SEC);
    cr_assert_neq(rig_status(&r, 0)->state, APPENDER_HALTED);
}

BOTH(lane_doubt, no_progress_but_the_target_knows_us_halts)
{
    appended_but_not_saved(100);
    r.m[0].has_saved = false;
    rig_start(&r, 0);
    HALTS(PROGRESS_LOST, "knows our producer id");
}

BOTH(lane_doubt, fresh_beside_others_begins_at_the_end)
{
    target_foreign(&r.t[0], 5);
    source_grow(&r, 100);
    rig_start(&r, 0);
    FINISHES();
    cr_assert_eq(r.m[0].points[0].end_offset, 5, "the anchor");
}

/* Rule 1: 64 bits here, 31 on the wire. */
static void close_to_the_wrap(void)
{
    struct buf out;
    struct batch_builder b;
    struct batch_options o = BATCH_OPTIONS;
    int64_t base, number = INT32_MAX - INT64_C(700);
    o.producer_id = RIG_PID;
    o.producer_epoch = 0;
    o.base_sequence = (int32_t)number - 1;
    buf_init(&out, 1000);
    batch_begin(&b, &out, &o);
    batch_add(&b, &(struct record_new){.timestamp = wall(&r), .value = SLICE_LIT("the one before")});
    batch_close(&b, NULL);
    cr_assert_eq(target_produce(&r.t[0], buf_slice(&out), &base), KE_NONE);
    buf_fini(&out);
    r.m[0].has_saved = true;
    r.m[0].points[0] = (struct appender_point){.known = true,
                                               .number_next = number,
                                               .end_offset = 1,
                                               .end_epoch = 0,
                                               .source_next = r.s.start,
                                               .timestamp_max = wall(&r)};
    r.m[0].saved = (struct appender_progress){.source_next = r.s.start};
    source_grow(&r, 2000);
    rig_start(&r, 0);
}

BOTH(lane_doubt, sequences_wrap_and_numbers_do_not)
{
    close_to_the_wrap();
    FINISHES();
    rig_save(&r, 0);
    cr_assert_eq(r.m[0].points[0].number_next, INT32_MAX - INT64_C(700) + 2000);
    rig_kill(&r, 0);
    source_grow(&r, 100);
    rig_start(&r, 0);
    FINISHES();
}

BOTH(lane_doubt, a_restart_across_the_wrap)
{
    close_to_the_wrap();
    FINISHES();
    rig_kill(&r, 0); /* nothing saved since before the wrap */
    source_grow(&r, 100);
    rig_start(&r, 0);
    FINISHES();
    cr_assert_eq(r.t[0].end, 2101);
}

Test(lane_doubt, mutant_n_q_32_bit, .signal = SIGABRT)
{
    mutant("n_q_32_bit");
    close_to_the_wrap();
    ends_well();
}

/* Forty records are there and saved; the next one, alone in its batch, is on its way when the mirror is killed. */
static struct slice request_held_up(void)
{
    struct slice held = SLICE_NULL;
    r.batch_max = 300;
    r.feed_max = 1;
    source_grow(&r, 40);
    rig_start(&r, 0);
    FINISHES();
    rig_save(&r, 0);
    source_grow(&r, 1); /* 100 + 40 */
    rig_settle_now(&r);
    cr_assert_eq(lane0()->inflight, 1);
    for (int i = 0; i < r.ev_n; i++) {
        if (r.ev[i].kind == EV_APPLY) {
            held = slice_of(r.ev[i].bytes, r.ev[i].size);
            r.ev[i].kind = EV_FREE;
        }
    }
    cr_assert_not(slice_is_null(held));
    rig_kill(&r, 0);
    return held;
}

static void arrives_now(struct slice held)
{
    int64_t base;
    cr_assert_eq(target_produce(&r.t[0], held, &base), KE_NONE);
    free((void *)(uintptr_t)held.p);
}

/* A request of an earlier life that arrives late has our numbers; the source has been compacted since, so that under
 * these numbers stands something else. */
static void late_request_with_other_content(void)
{
    struct slice held = request_held_up();
    r.s.v[40].gone = true;
    source_grow(&r, 1);
    rig_start(&r, 0);
    for (int i = 0; i < 10000 && lane_state(lane0()) != LANE_APPENDING; i++) {
        rig_step(&r, r.now + SEC);
        rig_settle_now(&r);
    }
    cr_assert_eq(lane0()->inflight, 1);
    arrives_now(held);
    source_grow(&r, 100);
}

BOTH(lane_doubt, a_late_request_with_our_numbers_is_noticed)
{
    late_request_with_other_content();
    FINISHES();
}

BOTH(lane_doubt, mutant_late_request_not_noticed)
{
    mutant("late_request_not_noticed");
    late_request_with_other_content();
    cr_assert_not(ends_well());
}

/* The life between finds nothing at the target and nothing at the source, and saves that it has covered those
 * offsets. Then the request arrives: what it holds lies before the position, and no source record can tell of it. */
static void late_request_behind_the_position(bool trimmed)
{
    struct slice held = request_held_up();
    r.s.v[40].gone = true;
    source_gap(&r, 20);
    rig_start(&r, 0);
    FINISHES();
    rig_save(&r, 0);
    cr_assert_eq(r.m[0].saved.source_next, 161);
    cr_assert_eq(r.m[0].points[0].source_idle, 21);
    rig_kill(&r, 0);
    if (trimmed)
        r.s.start = 161;
    arrives_now(held);
    source_grow(&r, 100);
    rig_start(&r, 0);
}

BOTH(lane_doubt, a_late_request_behind_the_position_is_an_orphan)
{
    late_request_behind_the_position(false);
    FINISHES();
    cr_assert_eq(r.m[0].noted[APPENDER_ORPHANS], 1);
    cr_assert_eq(r.t[0].end, 141);
}

BOTH(lane_doubt, a_late_request_behind_the_position_and_the_log_start)
{
    late_request_behind_the_position(true);
    FINISHES();
    cr_assert_eq(r.m[0].noted[APPENDER_ORPHANS], 1);
}

BOTH(lane_doubt, mutant_pair_from_covered)
{
    mutant("pair_from_covered");
    late_request_behind_the_position(false);
    cr_assert_not(ends_well());
}

BOTH(lane_doubt, records_that_are_not_replicated_yet_are_waited_for)
{
    source_grow(&r, 300);
    rig_start(&r, 0);
    FINISHES();
    r.t[0].hold_watermark = true;
    r.t[0].after = KE_REQUEST_TIMED_OUT;
    r.t[0].after_n = 1000000;
    source_grow(&r, 300);
    rig_run(&r, 5 * SEC);
    rig_kill(&r, 0);
    rig_start(&r, 0);
    rig_run(&r, 20 * SEC);
    cr_assert_eq(rig_status(&r, 0)->state, APPENDER_WAITING);
    cr_assert_eq(rig_status(&r, 0)->reason, APPENDER_REASON_NOT_ENOUGH_REPLICAS);
    r.t[0].hold_watermark = false;
    r.t[0].after_n = 0;
    target_replicate(&r.t[0]);
    FINISHES();
}

BOTH(lane_doubt, a_hole_in_our_numbers_halts)
{
    appended_but_not_saved(500);
    struct target_model *t = &r.t[0];
    for (size_t i = 0; i < t->log_n; i++) /* the second batch becomes somebody else's */
        if (i == 1)
            batch_producer_set(
                t->log[i].bytes, t->log[i].size,
                &(struct batch_patch){.producer_id = -1, .producer_epoch = -1, .base_sequence = -1});
    rig_start(&r, 0);
    HALTS(HOLE, "hole");
}

BOTH(lane_doubt, a_newer_generation_halts)
{
    source_grow(&r, 100);
    rig_start(&r, 0);
    FINISHES();
    r.t[0].producers[0].epoch = 1;
    source_grow(&r, 100);
    HALTS(NEWER_GENERATION, "higher epoch");
}

BOTH(lane_doubt, a_lower_memory_halts)
{
    appended_but_not_saved(100);
    rig_start(&r, 0);
    FINISHES();
    rig_save(&r, 0);
    rig_kill(&r, 0);
    r.t[0].producers[0].last_sequence = 50;
    r.t[0].producers[0].n = 0;
    rig_start(&r, 0);
    source_grow(&r, 10);
    HALTS(HOLE, "remembers our numbers up to 51 only");
}

BOTH(lane_doubt, a_refused_record_halts)
{
    r.t[0].refuse = KE_INVALID_RECORD;
    r.t[0].refuse_n = 1;
    source_grow(&r, 10);
    rig_start(&r, 0);
    HALTS(RECORD_REFUSED, "refuses source offsets 100 to ");
}

/* Rule 16 */
/* The metadata and an answer arrive in one turn: the lane has dropped what the answer is to. */
BOTH(lane_doubt, an_answer_to_what_was_dropped_is_nothing)
{
    source_grow(&r, 2000);
    rig_start(&r, 0);
    struct lane *l = lane0();
    for (int i = 0; i < 100000 && l->inflight == 0; i++)
        rig_step(&r, r.now + SEC);
    struct lane_batch *b = LIST_ENTRY(l->batches.next, struct lane_batch, link);
    cr_assert_eq(b->state, LANE_BATCH_SENT);
    lane_gone(l, APPENDER_REASON_TARGET_RECREATED, "the topic is another one");
    lane_produced(l, b, &(struct lane_answer){.sent = true, .base_offset = 0, .append_time_ms = -1});
    group_touched(&r.m[0].g);
    rig_settle_now(&r);
    cr_assert_eq(rig_status(&r, 0)->state, APPENDER_HALTED);
    cr_assert(list_empty(&l->cancelled));
}

/* A survey reads the target; the topic turns out to be another one, then the answer comes. */
static struct lane *halted_while_reading(void)
{
    appended_but_not_saved(500);
    rig_start(&r, 0);
    struct lane *l = lane0();
    for (int i = 0; i < 100000 && !(l->asked && l->step == STEP_READ); i++) {
        rig_step(&r, r.now + SEC);
        rig_settle_now(&r);
    }
    cr_assert(l->asked);
    lane_gone(l, APPENDER_REASON_TARGET_RECREATED, "the topic is another one");
    return l;
}

Test(lane_doubt, an_answer_after_the_halt_does_not_change_its_reason)
{
    struct lane *l = halted_while_reading();
    lane_read(l, l->ticket, &(struct lane_trouble){.error = KE_UNKNOWN_TOPIC_ID}, SLICE_NULL, 0, -1);
    cr_assert_eq(l->reason, APPENDER_REASON_TARGET_RECREATED, "%s", l->text);
    cr_assert_eq(lane_state(l), LANE_HALTED);
}

BOTH(lane_doubt, settling_moves_the_end_past_others)
{
    source_grow(&r, 100);
    rig_start(&r, 0);
    FINISHES();
    target_foreign(&r.t[0], 500);
    group_settle(&r.m[0].g);
    rig_run(&r, SEC);
    cr_assert_eq(r.m[0].settled, 1);
    rig_save(&r, 0);
    cr_assert_eq(r.m[0].points[0].end_offset, 600);
    source_grow(&r, 100);
    FINISHES();
}

BOTH(lane_doubt, draining_takes_nothing_more)
{
    source_grow(&r, 1000);
    rig_start(&r, 0);
    run_until_appended(200);
    group_drain(&r.m[0].g);
    rig_run(&r, 5 * SEC);
    cr_assert_eq(r.m[0].drained, 1);
    struct appender_progress p;
    rig_progress(&r, 0, &p);
    cr_assert_eq(p.source_next, 100 + r.t[0].end);
    FINISHES();
}

/* Rule 17 */
BOTH(lane_doubt, the_position_is_what_was_covered)
{
    source_grow(&r, 10);
    source_gap(&r, 7);
    rig_start(&r, 0);
    FINISHES();
    struct appender_progress p;
    rig_progress(&r, 0, &p);
    cr_assert_eq(p.source_next, 117);
}

BOTH(lane_doubt, what_is_not_saved_is_bounded)
{
    source_grow(&r, 30);
    rig_start(&r, 0);
    r.m[0].g.unsaved_max = 500;
    FINISHES();
    source_grow(&r, 3000);
    rig_run(&r, 10 * SEC);
    cr_assert_leq(r.t[0].end, 500 + r.feed_max);
    while (r.t[0].end < 3030) {
        int64_t before = r.t[0].end;
        rig_save(&r, 0);
        rig_run(&r, SEC);
        cr_assert_gt(r.t[0].end, before);
    }
}

/* Refused and made possible again before anybody has looked: the reader, who waits to be told, must be told. */
BOTH(lane_doubt, a_lane_that_waits_while_it_pairs_still_pairs)
{
    appended_but_not_saved(1000);
    source_grow(&r, 100);
    rig_start(&r, 0);
    for (int i = 0; i < 100000 && lane_state(lane0()) != LANE_PAIRING; i++) /* event by event */
        rig_step(&r, r.now + SEC);
    cr_assert_eq(lane_state(lane0()), LANE_PAIRING);
    lane0()->reason = APPENDER_REASON_NO_LEADER;
    lane0()->attempts = 10;
    group_touched(&r.m[0].g);
    rig_effects(&r, 0);
    cr_assert_eq(rig_status(&r, 0)->state, APPENDER_WAITING);
    cr_assert(rig_status(&r, 0)->pairing, "what the source lost meanwhile is not yet a loss");
    lane0()->reason = APPENDER_REASON_NONE;
    FINISHES();
    cr_assert_not(rig_status(&r, 0)->pairing);
}

/* The record that ends a pairing moves the position at once; its runs are an effect, and a save may come first. */
BOTH(lane_doubt, a_position_is_not_ahead_of_its_runs)
{
    appended_but_not_saved(9000); /* the target's window is full before the source's last comes */
    r.runs_n = 0;
    r.save_when_fed = true;
    rig_start(&r, 0);
    for (int i = 0; i < 100000 && r.m[0].saved.source_next < 9000; i++)
        rig_step(&r, r.now + SEC);
    cr_assert_geq(r.m[0].saved.source_next, 9100);
    cr_assert_eq(r.runs_when_saved, 1);
    FINISHES();
}

BOTH(lane_doubt, room_is_told_however_soon_it_comes)
{
    struct lane_group *g = &r.m[0].g;
    source_grow(&r, 30);
    rig_start(&r, 0);
    FINISHES();
    cr_assert(group_can_take(g));
    g->unsaved_max = 0; /* as if so much had come at once */
    cr_assert_not(group_can_take(g));
    g->unsaved_max = GROUP_UNSAVED;
    group_saved(g);
    r.m[0].room = false;
    rig_run(&r, SEC);
    cr_assert(r.m[0].room);
}

BOTH(lane_doubt, one_source_partition_into_many)
{
    rig_fini(&r);
    rig_init(&r, 5, 3, 1);
    source_grow(&r, 1000);
    rig_start(&r, 0);
    FINISHES();
    rig_save(&r, 0);
    source_grow(&r, 1000);
    FINISHES();
    rig_kill(&r, 0);
    source_grow(&r, 100);
    rig_start(&r, 0);
    FINISHES();
    cr_assert_eq(r.t[0].end + r.t[1].end + r.t[2].end, 2100);
}

BOTH(lane_doubt, two_mirrors_that_know_nothing_of_each_other)
{
    rig_fini(&r);
    rig_init(&r, 6, 1, 2);
    r.shared_progress = true;
    source_grow(&r, 50);
    rig_start(&r, 0);
    rig_run(&r, 10 * SEC);
    rig_save(&r, 0);
    rig_start(&r, 1);
    source_grow(&r, 3000);
    for (int i = 0; i < 2000 && !rig_quiet(&r); i++) {
        rig_run(&r, 100 * MS);
        rig_save(&r, (int)(i % 2));
    }
    cr_assert(rig_quiet(&r), "0: %s 1: %s", rig_status(&r, 0)->text, rig_status(&r, 1)->text);
    rig_assert_good(&r, 6);
}
