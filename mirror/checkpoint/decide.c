#include "mirror/checkpoint/decide.h"

#include "base/core/mutant.h"

#include <assert.h>

bool decide_needs_target(const struct decide_in *in)
{
    return in->apply && in->now.state != TRANSLATE_NO_MAP &&
           !(in->applied && in->applied_offset == in->now.offset);
}

/* What we have written, or were about to write when we died. */
static bool is_own(const struct decide_in *in, int64_t offset)
{
    return (in->applied && offset == in->applied_offset) ||
           (in->intends && offset == in->intended_offset && !MUTANT("intention_forgotten"));
}

static void at_target(const struct decide_in *in, struct decide_out *out)
{
    const struct decide_target *t = &in->target;
    if (t->offset == in->now.offset) {
        out->ours = true; /* whoever wrote it, it is what we would write */
        return;
    }
    if (t->active) {
        out->state = GROUP_BLOCKED;
        out->reason = "active at the target";
        return;
    }
    bool own = is_own(in, t->offset);
    if (t->offset >= 0 && !own) {
        out->state = GROUP_BLOCKED;
        out->reason = "its offset at the target was written by somebody else";
        out->foreign = true;
        return;
    }
    out->commit = true;
    if (own && in->now.offset < t->offset) {
        out->state = GROUP_REWOUND;
        out->reason = "the group went back at the source";
    }
}

void decide(const struct decide_in *in, struct decide_out *out)
{
    *out = (struct decide_out){.state = GROUP_SYNCED, .reason = ""};
    if (in->now.state == TRANSLATE_NO_MAP) {
        out->state = GROUP_NO_MAP;
        out->reason = "nothing of the partition has been mirrored";
        out->commit = MUTANT("checkpoint_no_map_zero");
        return;
    }
    assert(in->now.offset >= 0);
    if (in->now.state == TRANSLATE_AHEAD) {
        out->state = GROUP_AHEAD;
        out->reason = "the group is past what has been mirrored";
    }
    if (!in->apply || !in->target.known)
        return;
    at_target(in, out);
    /* What is not ours is not overwritten, and nobody who reads there is moved. */
    assert(!out->commit || (!out->foreign && !out->ours && !in->target.active));
    assert(!out->commit || in->target.offset < 0 || is_own(in, in->target.offset));
}
