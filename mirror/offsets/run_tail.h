/* The growing end of one source partition's map: acknowledged appends extend the last run of their lane or open a new
 * one; what has changed since the last progress record is handed out as whole runs, each under its own key. Pure; owned
 * by the partition. Bound: RUN_TAIL_MAX changed runs wait at most; above it run_tail_full, and progress must be written
 * before more is taken. */
#ifndef SUNDOG_MIRROR_OFFSETS_RUN_TAIL_H
#define SUNDOG_MIRROR_OFFSETS_RUN_TAIL_H

#include "mirror/offsets/types.h"

#define RUN_TAIL_MAX 131072

struct run_lane;

struct run_tail {
    struct run_lane *lanes; /* by q, sorted */
    size_t lanes_n;
    struct map_run *closed; /* changed, and no longer the last of their lane */
    size_t closed_n, closed_cap;
};

void run_tail_init(struct run_tail *t);
void run_tail_fini(struct run_tail *t);
/* A lane and its last run as the store has it (NULL: none yet). -E_NOMEM. */
int run_tail_lane(struct run_tail *t, int32_t q, const struct map_run *last);
/* Only what the target has acknowledged. Runs of a lane come in order; what is known already (a repeated
 * acknowledgement, a reconciliation) changes nothing. -E_NOMEM; -E_INVALID: contradicts the last run. */
int run_tail_add(struct run_tail *t, const struct map_run *r);
bool run_tail_full(const struct run_tail *t);
bool run_tail_changed(const struct run_tail *t);
/* Calls `each` for every changed run; after it nothing counts as changed. */
void run_tail_take(struct run_tail *t, void (*each)(void *arg, const struct map_run *r), void *arg);

#endif
