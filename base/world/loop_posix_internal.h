/* What net_posix.c needs of the loop: its event base and its turn. */
#ifndef SUNDOG_BASE_WORLD_LOOP_POSIX_INTERNAL_H
#define SUNDOG_BASE_WORLD_LOOP_POSIX_INTERNAL_H

#include "base/world/loop_posix.h"
#include "base/world/turn.h"

struct event_base *loop_posix_base(struct loop_posix *l);
struct turn *loop_posix_turn_of(struct loop_posix *l);
bool loop_posix_has_jobs(const struct loop_posix *l);

#endif
