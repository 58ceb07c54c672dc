/* What becomes of one group's offset in one target partition: its state, its reason, and whether it is committed there.
 * Pure (DESIGN.md §4 "Consumer groups"; MIRRORING.md weaknesses 3, 4). */
#ifndef SUNDOG_MIRROR_CHECKPOINT_DECIDE_H
#define SUNDOG_MIRROR_CHECKPOINT_DECIDE_H

#include "mirror/offsets/translate.h"

/* The group at the target. */
struct decide_target {
    bool known;     /* it has been asked; else nothing is committed now */
    bool active;    /* it has members: its own commits count */
    int64_t offset; /* its committed offset, -1: none */
};

struct decide_in {
    struct translation now;
    bool apply; /* sync.group.offsets.enabled */
    /* What we wrote last, -1 for nothing; and the translation it was made of. */
    bool applied;
    int64_t applied_offset;
    /* What we were about to write when we last knew. */
    bool intends;
    int64_t intended_offset;
    struct decide_target target;
};

struct decide_out {
    enum group_state state;
    const char *reason; /* a literal, "" when all is well */
    bool commit;        /* now.offset is to be committed at the target */
    bool ours;          /* what stands at the target is our own, or equal to what we would write */
    bool foreign;       /* somebody else's commit stands there and differs */
};

void decide(const struct decide_in *in, struct decide_out *out);
/* Whether the target must be asked before `decide` can say more. */
bool decide_needs_target(const struct decide_in *in);

#endif
