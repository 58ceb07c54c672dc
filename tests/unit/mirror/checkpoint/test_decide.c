/* What becomes of a group's offset: one behaviour a test. */
#include "mirror/checkpoint/decide.h"
#include "mirror/checkpoint/records.h"

#include <criterion/criterion.h>

static struct decide_in at(int64_t offset)
{
    return (struct decide_in){.now = {.state = TRANSLATE_EXACT, .offset = offset}, .apply = true, .applied_offset = -1,
                              .target = {.known = true, .offset = -1}};
}

static struct decide_out of(struct decide_in in)
{
    struct decide_out out;
    decide(&in, &out);
    return out;
}

Test(decide, an_offset_of_zero_is_committed_like_any_other)
{
    struct decide_out out = of(at(0));
    cr_assert(out.commit);
    cr_assert_eq(out.state, GROUP_SYNCED);
}

Test(decide, without_a_map_nothing_is_ever_committed)
{
    struct decide_in in = at(-1);
    in.now.state = TRANSLATE_NO_MAP;
    cr_assert_not(of(in).commit);
    cr_assert_eq(of(in).state, GROUP_NO_MAP);
    cr_assert_not(decide_needs_target(&in));
}

Test(decide, an_active_group_is_left_alone)
{
    struct decide_in in = at(10);
    in.target.active = true;
    in.target.offset = 5;
    cr_assert_not(of(in).commit);
    cr_assert_eq(of(in).state, GROUP_BLOCKED);
}

Test(decide, what_somebody_else_wrote_is_never_overwritten)
{
    struct decide_in in = at(10);
    in.target.offset = 5;
    cr_assert_not(of(in).commit);
    cr_assert(of(in).foreign);
    in.applied = true;
    in.applied_offset = 4; /* ours was 4: 5 is somebody's */
    cr_assert_not(of(in).commit);
    in.applied_offset = 5;
    cr_assert(of(in).commit, "our own may move on");
}

Test(decide, what_we_were_about_to_write_is_ours_after_a_crash)
{
    struct decide_in in = at(10);
    in.applied = in.intends = true;
    in.applied_offset = 3;
    in.intended_offset = in.target.offset = 5;
    cr_assert(of(in).commit);
    cr_assert_not(of(in).foreign);
    in.target.offset = 3; /* it had not come to it */
    cr_assert(of(in).commit);
    in.target.offset = 4;
    cr_assert_not(of(in).commit);
    cr_assert(of(in).foreign);
}

Test(decide, our_own_offset_goes_back_when_the_source_group_does)
{
    struct decide_in in = at(3);
    in.applied = true;
    in.applied_offset = in.target.offset = 9;
    cr_assert(of(in).commit);
    cr_assert_eq(of(in).state, GROUP_REWOUND);
}

Test(decide, the_same_offset_counts_as_ours_whoever_wrote_it)
{
    struct decide_in in = at(7);
    in.target.offset = 7;
    in.target.active = true;
    cr_assert_not(of(in).commit);
    cr_assert(of(in).ours);
    cr_assert_eq(of(in).state, GROUP_SYNCED);
}

Test(decide, the_target_is_asked_only_when_something_moved)
{
    struct decide_in in = at(7);
    cr_assert(decide_needs_target(&in));
    in.applied = true;
    in.applied_offset = 7;
    cr_assert_not(decide_needs_target(&in));
    in.apply = false;
    in.applied_offset = 6;
    cr_assert_not(decide_needs_target(&in));
}

Test(records, are_mm2s_byte_for_byte)
{
    struct buf b;
    buf_init(&b, 256);
    checkpoint_key_put(&b, SLICE_LIT("g"), SLICE_LIT("east.t"), 3);
    cr_assert_arr_eq(b.p, "\0\1g\0\6east.t\0\0\0\3", b.n);
    cr_assert_eq(b.n, 15);
    buf_clear(&b);
    checkpoint_value_put(&b, 5, 258, SLICE_NULL);
    cr_assert_eq(b.n, 20);
    cr_assert_arr_eq(b.p, "\0\0\0\0\0\0\0\0\0\5\0\0\0\0\0\0\1\2\0\0", 20);
    buf_clear(&b);
    heartbeat_key_put(&b, SLICE_LIT("east"), SLICE_LIT("west"));
    cr_assert_eq(b.n, 12);
    buf_clear(&b);
    heartbeat_value_put(&b, 1);
    cr_assert_arr_eq(b.p, "\0\0\0\0\0\0\0\0\0\1", 10);
    buf_clear(&b);
    offset_sync_key_put(&b, SLICE_LIT("t"), 1);
    cr_assert_arr_eq(b.p, "\0\1t\0\0\0\1", 7);
    buf_fini(&b);
}
