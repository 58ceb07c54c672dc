/* The lanes against a modelled target: each rule of APPENDER.md that concerns appending and reconciling after a
 * restart, with the mutants that must be noticed. */
#include "tests/unit/mirror/target/lane_case.h"

TestSuite(lane, .init = lane_up, .fini = lane_down);

BOTH(lane, appends_everything_once_and_in_order)
{
    source_grow(&r, 2000);
    rig_start(&r, 0);
    FINISHES();
    cr_assert_eq(r.m[0].anchors, 1);
    cr_assert_eq(r.t[0].end, 2000);
    cr_assert_eq(r.max_inflight_seen, APPENDER_INFLIGHT_MAX);
    cr_assert_eq(rig_status(&r, 0)->state, APPENDER_APPENDING);
    cr_assert(rig_status(&r, 0)->guarded);
}

/* Rule 11: who has no position yet saves where it begins before it appends. */
BOTH(lane, nothing_is_appended_before_the_anchor_is_saved)
{
    source_grow(&r, 200);
    r.hold_anchor = true;
    rig_start(&r, 0);
    for (int i = 0; i < 1000; i++)
        rig_step(&r, r.now + SEC);
    cr_assert_eq(r.m[0].anchors, 1);
    cr_assert_eq(r.t[0].end, 0);
    group_anchored(&r.m[0].g);
    FINISHES();
    cr_assert_eq(r.t[0].end, 200);
}

BOTH(lane, every_codec)
{
    for (r.codec = CODEC_NONE; r.codec < CODEC_COUNT; r.codec++) {
        source_grow(&r, 300);
        if (r.m[0].up) {
            rig_save(&r, 0);
            rig_kill(&r, 0);
        }
        rig_start(&r, 0);
        FINISHES();
    }
}

/* Rule 2 */
static void first_request_is_refused(void)
{
    r.t[0].refuse = KE_NOT_ENOUGH_REPLICAS;
    r.t[0].refuse_n = 1;
    source_grow(&r, 2000);
    rig_start(&r, 0);
}

BOTH(lane, one_in_flight_until_the_first_acknowledgement)
{
    first_request_is_refused();
    FINISHES();
    cr_assert_leq(r.sends_before_ack, 1);
}

BOTH(lane, mutant_pipeline_before_first_ack)
{
    mutant("pipeline_before_first_ack");
    first_request_is_refused();
    cr_assert_not(ends_well());
}

BOTH(lane, each_retriable_refusal_is_lived_with)
{
    static const int16_t before[] = {KE_NOT_LEADER_OR_FOLLOWER, KE_NOT_ENOUGH_REPLICAS,
                                     KE_LEADER_NOT_AVAILABLE,   KE_UNKNOWN_TOPIC_OR_PARTITION,
                                     KE_KAFKA_STORAGE_ERROR,    KE_UNKNOWN_TOPIC_ID,
                                     KE_CORRUPT_MESSAGE,        KE_TOPIC_AUTHORIZATION_FAILED};
    static const int16_t after[] = {KE_REQUEST_TIMED_OUT, KE_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
                                    KE_NOT_LEADER_OR_FOLLOWER, KE_KAFKA_STORAGE_ERROR};
    rig_start(&r, 0);
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        r.t[0].refuse = before[i];
        r.t[0].refuse_n = 3;
        source_grow(&r, 1000);
        FINISHES();
    }
    for (size_t i = 0; i < sizeof after / sizeof *after; i++) {
        r.t[0].after = after[i];
        r.t[0].after_n = 3;
        source_grow(&r, 1000);
        FINISHES();
    }
    cr_assert_gt(r.t[0].doubled, 0, "something was sent twice, and not appended twice");
}

/* Rules 17 to 19 */
BOTH(lane, what_was_not_saved_is_paired)
{
    appended_but_not_saved(1000);
    source_grow(&r, 100);
    r.runs_n = 0;
    rig_start(&r, 0);
    FINISHES();
    cr_assert_eq(r.t[0].end, 1100);
    cr_assert_eq(r.runs_n + 0 > 0 ? r.runs[0].src_start : -1, 100, "the map begins where the source does");
}

BOTH(lane, what_was_not_saved_is_paired_when_records_look_alike)
{
    for (int i = 0; i < 300; i++) {
        source_add(&r, "k", wall(&r));
        snprintf(r.s.v[i].value, sizeof r.s.v[i].value, "v%d", 7);
    }
    rig_start(&r, 0);
    cr_assert(rig_finish(&r, 60 * SEC));
    rig_kill(&r, 0);
    rig_start(&r, 0);
    cr_assert(rig_finish(&r, 60 * SEC), "%s", rig_status(&r, 0)->text);
    cr_assert_eq(r.t[0].end, 300);
}

BOTH(lane, source_compacted_while_down)
{
    appended_but_not_saved(500);
    for (int i = 100; i < 300; i++)
        r.s.v[i].gone = i % 3 != 0;
    source_grow(&r, 50);
    rig_start(&r, 0);
    FINISHES();
    cr_assert_eq(r.t[0].end, 550);
    cr_assert_gt(r.m[0].notes[APPENDER_ORPHANS], 0);
}

BOTH(lane, source_prefix_deleted_while_down_below_and_above_what_is_there)
{
    appended_but_not_saved(500);
    r.s.start = r.s.v[200].offset;
    source_grow(&r, 50);
    rig_start(&r, 0);
    FINISHES();
    cr_assert_eq(r.t[0].end, 550);
    rig_kill(&r, 0);
    source_grow(&r, 100);
    r.s.start = r.s.v[600].offset; /* past all that the target has: 50 records are lost at the source */
    rig_start(&r, 0);
    FINISHES();
    cr_assert_eq(r.t[0].end, 600);
}

BOTH(lane, target_compacted_while_down)
{
    appended_but_not_saved(500);
    target_compact(&r.t[0], 300000);
    source_grow(&r, 50);
    rig_start(&r, 0);
    rig_finish(&r, 60 * SEC);
    cr_assert_eq(rig_status(&r, 0)->state, APPENDER_APPENDING, "%s", rig_status(&r, 0)->text);
    cr_assert_eq(r.t[0].end, 550);
    struct verdict v = rig_check(&r);
    cr_assert_eq(v.doubled + v.disordered + v.wrong_runs, 0);
}

BOTH(lane, mutant_count_records_not_delta)
{
    mutant("count_records_not_delta");
    appended_but_not_saved(500);
    target_compact(&r.t[0], 300000);
    source_grow(&r, 50);
    rig_start(&r, 0);
    rig_finish(&r, 60 * SEC);
    struct verdict v = rig_check(&r);
    bool good =
        rig_status(&r, 0)->state == APPENDER_APPENDING && r.t[0].end == 550 && !v.doubled && !v.disordered;
    cr_assert_not(good);
}

/* Alike records in a compacted source: nobody guesses. */
static void alike_and_compacted(void)
{
    for (int i = 0; i < 10; i++) {
        source_add(&r, "k", wall(&r));
        snprintf(r.s.v[i].value, sizeof r.s.v[i].value, "v%d", 7);
    }
    rig_start(&r, 0);
    cr_assert(rig_finish(&r, 60 * SEC));
    rig_kill(&r, 0);
    for (int i = 0; i < 5; i++)
        r.s.v[i].gone = true;
    for (int i = 10; i < 20; i++) {
        source_add(&r, "k", r.s.v[0].timestamp);
        snprintf(r.s.v[i].value, sizeof r.s.v[i].value, "v%d", 7);
    }
    rig_start(&r, 0);
}

BOTH(lane, alike_records_of_a_compacted_source_halt)
{
    alike_and_compacted();
    HALTS(POSITION_UNCERTAIN, "look alike");
}

BOTH(lane, mutant_pass_over_by_count)
{
    mutant("pass_over_by_count");
    alike_and_compacted();
    rig_finish(&r, 60 * SEC);
    cr_assert_neq(rig_status(&r, 0)->state, APPENDER_HALTED, "it guesses, which the test above refuses");
}

/* Rule 18: the headers are gone, the target's memory tells the number. */
static void headers_below_log_start(void)
{
    appended_but_not_saved(500);
    target_delete_prefix(&r.t[0], r.t[0].end);
    source_grow(&r, 50);
    rig_start(&r, 0);
}

BOTH(lane, headers_below_the_log_start)
{
    headers_below_log_start();
    cr_assert(rig_finish(&r, 60 * SEC), "%s", rig_status(&r, 0)->text);
    cr_assert_eq(r.t[0].end, 550);
}

BOTH(lane, mutant_next_from_headers_only)
{
    mutant("next_from_headers_only");
    headers_below_log_start();
    rig_finish(&r, 60 * SEC);
    cr_assert_not(rig_status(&r, 0)->state == APPENDER_APPENDING && r.t[0].end == 550);
}

/* Rule 20 */
BOTH(lane, neither_headers_nor_memory)
{
    appended_but_not_saved(500);
    target_delete_prefix(&r.t[0], r.t[0].end);
    target_forget(&r.t[0], RIG_PID);
    rig_start(&r, 0);
    HALTS(POSITION_UNCERTAIN, "does not know our producer id");
}

/* Rule 7 */
BOTH(lane, five_in_flight_across_restarts_of_the_target)
{
    rig_start(&r, 0);
    for (int i = 0; i < 20; i++) {
        source_grow(&r, 1500);
        run_until_appended(r.t[0].end + 300);
        rig_break(&r, 0, true);
        target_restart(&r.t[0]);
        target_new_epoch(&r.t[0]);
        FINISHES();
    }
}

BOTH(lane, five_in_flight_across_restarts_of_a_target_that_cannot_describe)
{
    r.t[0].no_describe = true;
    rig_start(&r, 0);
    for (int i = 0; i < 20; i++) {
        source_grow(&r, 1500);
        run_until_appended(r.t[0].end + 300);
        rig_break(&r, 0, true);
        target_restart(&r.t[0]);
        FINISHES();
    }
}

/* Rule 3: records older than the target's memory. */
static void unguarded_with_a_lost_answer(void)
{
    r.no_late = true;
    rig_start(&r, 0);
    for (int i = 0; i < 2000; i++)
        source_add(&r, "k", wall(&r) - 30 * DAY_MS);
    for (int i = 0; i < 10; i++) {
        int64_t before = r.t[0].end;
        run_until_appended(before + 1);
        rig_break(&r, 0, true); /* appended, the answer is lost */
        target_expire(&r.t[0]);
    }
}

BOTH(lane, nothing_is_sent_twice_unguarded_without_looking)
{
    unguarded_with_a_lost_answer();
    FINISHES();
    cr_assert_not(rig_status(&r, 0)->guarded);
    cr_assert_leq(r.max_inflight_seen, 1);
}

BOTH(lane, mutant_resend_unguarded_without_headers)
{
    mutant("resend_unguarded_without_headers");
    unguarded_with_a_lost_answer();
    cr_assert_not(ends_well());
}

BOTH(lane, timestamps_minus_one_are_unguarded)
{
    r.no_late = true;
    rig_start(&r, 0);
    for (int i = 0; i < 500; i++)
        source_add(&r, "k", -1);
    FINISHES();
    cr_assert_leq(r.max_inflight_seen, 1);
}

BOTH(lane, a_target_that_keeps_the_wall_clock_guards_always)
{
    r.guard.wall_clock = true;
    r.t[0].wall_clock = true;
    rig_start(&r, 0);
    for (int i = 0; i < 2000; i++)
        source_add(&r, "k", wall(&r) - 30 * DAY_MS);
    FINISHES();
    cr_assert_eq(r.max_inflight_seen, APPENDER_INFLIGHT_MAX);
    cr_assert(rig_status(&r, 0)->guarded);
}

/* Rule 4 */
BOTH(lane, others_between_ours_are_noted_and_the_map_stays_right)
{
    rig_start(&r, 0);
    for (int i = 0; i < 10; i++) {
        source_grow(&r, 100);
        target_foreign(&r.t[0], 3);
        FINISHES();
    }
    cr_assert_eq(r.m[0].noted[APPENDER_STRANGER], 27, "three stand before our first");
    cr_assert_eq(rig_status(&r, 0)->state, APPENDER_APPENDING);
}

/* Nothing of ours is in doubt, so nothing is read for our own sake: what has come is told of all the same. */
BOTH(lane, others_before_a_look_at_the_end_are_noted)
{
    source_grow(&r, 100);
    rig_start(&r, 0);
    FINISHES();
    target_foreign(&r.t[0], 5);
    group_settle(&r.m[0].g);
    FINISHES();
    rig_settle_now(&r); /* what was noted last is told */
    cr_assert_eq(r.m[0].noted[APPENDER_STRANGER], 5);
    source_grow(&r, 100);
    FINISHES();
    rig_settle_now(&r); /* what was noted last is told */
    cr_assert_eq(r.m[0].noted[APPENDER_STRANGER], 5, "once");
    rig_save(&r, 0);
    rig_kill(&r, 0);
    target_foreign(&r.t[0], 7);
    int64_t before = r.m[0].noted[APPENDER_STRANGER];
    rig_start(&r, 0);
    FINISHES();
    rig_settle_now(&r); /* what was noted last is told */
    cr_assert_eq(r.m[0].noted[APPENDER_STRANGER] - before, 7, "while nobody was there");
}

static void until_a_gap_is_unread(int n)
{
    source_grow(&r, 100);
    rig_start(&r, 0);
    FINISHES();
    target_foreign(&r.t[0], n);
    source_grow(&r, 100);
    for (int i = 0; i < 100000 && lane0()->gaps_n == 0; i++)
        rig_step(&r, r.now + SEC);
    cr_assert_eq(lane0()->gaps_n, 1);
}

BOTH(lane, others_not_read_yet_are_noted_after_a_new_beginning)
{
    until_a_gap_is_unread(5);
    rig_break(&r, 0, true);
    lane_restart(lane0(), "test");
    FINISHES();
    rig_settle_now(&r); /* what was noted last is told */
    cr_assert_eq(r.m[0].noted[APPENDER_STRANGER], 5);
}

BOTH(lane, others_not_read_yet_are_noted_when_answers_get_lost)
{
    until_a_gap_is_unread(5);
    for (int i = 0; i < 20; i++) {
        source_grow(&r, 1500);
        run_until_appended(r.t[0].end + 300);
        rig_break(&r, 0, true);
    }
    FINISHES();
    rig_settle_now(&r); /* what was noted last is told */
    cr_assert_eq(r.m[0].noted[APPENDER_STRANGER], 5);
}

BOTH(lane, others_not_read_yet_are_noted_at_a_halt)
{
    until_a_gap_is_unread(5);
    lane_halt(lane0(), APPENDER_REASON_TARGET_ERROR, "test");
    rig_effects(&r, 0);
    cr_assert_eq(r.m[0].noted[APPENDER_STRANGER], 5);
}

BOTH(lane, others_fill_more_than_one_answer)
{
    source_grow(&r, 100);
    rig_start(&r, 0);
    FINISHES();
    for (int i = 0; i < 60; i++)
        target_foreign(&r.t[0], 10);
    source_grow(&r, 100);
    FINISHES();
    rig_settle_now(&r);
    cr_assert_eq(r.m[0].noted[APPENDER_STRANGER], 600);
}

static void base_goes_back(void)
{
    source_grow(&r, 500);
    rig_start(&r, 0);
    cr_assert(rig_finish(&r, 60 * SEC));
    /* created again under the same name, by somebody who tells nobody */
    target_fini(&r.t[0]);
    target_init(&r.t[0], 99);
    source_grow(&r, 100);
}

BOTH(lane, a_base_offset_going_back_halts)
{
    base_goes_back();
    HALTS(TARGET_TRUNCATED, "below the end");
}

BOTH(lane, mutant_base_going_back_ignored)
{
    mutant("base_going_back_ignored");
    base_goes_back();
    rig_finish(&r, 60 * SEC);
    cr_assert_neq(rig_status(&r, 0)->state, APPENDER_HALTED, "which the test above refuses");
}
