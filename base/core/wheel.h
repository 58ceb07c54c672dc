/* A timer wheel: many deadlines (parked requests, sessions, idle connections) behind one timer. Pure; O(1)
 * add and remove; embedded entries, no allocation. An entry is due within one tick (WHEEL_TICK_US) after its
 * deadline, never before it.
 *
 * Use: wheel_add / wheel_remove as work parks and completes; one loop_timer armed at wheel_next; when it
 * fires, `while ((e = wheel_pop(w, now)))` handles what is due. Four levels of 256 slots reach 49 days; a later
 * deadline is looked at again then. */
#ifndef SUNDOG_BASE_CORE_WHEEL_H
#define SUNDOG_BASE_CORE_WHEEL_H

#include "base/core/list.h"

#include <stdbool.h>
#include <stdint.h>

#define WHEEL_TICK_US 1000
#define WHEEL_LEVELS  4
#define WHEEL_SLOTS   256

struct wheel_entry {
    struct list link;
    int64_t due_us;
    uint16_t place; /* the wheel's own */
    bool armed;
};

struct wheel {
    struct list slots[WHEEL_LEVELS][WHEEL_SLOTS];
    uint64_t used[WHEEL_LEVELS][WHEEL_SLOTS / 64]; /* slots with entries */
    struct list due;                               /* expired, in order of their ticks */
    int64_t tick;                                  /* everything before it has expired */
    uint64_t count;                                /* armed entries */
};

void wheel_init(struct wheel *w, int64_t now_us);
void wheel_entry_init(struct wheel_entry *e);
/* Arms or re-arms. */
void wheel_add(struct wheel *w, struct wheel_entry *e, int64_t due_us);
void wheel_remove(struct wheel *w, struct wheel_entry *e);
/* The next entry that is due at `now_us`, disarmed; NULL when there is none. Earlier ticks come first. */
struct wheel_entry *wheel_pop(struct wheel *w, int64_t now_us);
/* When to call wheel_pop next: at or before the time the earliest entry is due (never later), INT64_MAX when
 * empty. */
int64_t wheel_next(const struct wheel *w);

#endif
