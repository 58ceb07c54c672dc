/* An entry lies in the lowest level whose span still reaches it; when the hand comes to the start of a higher level's
 * slot, its entries are spread over the levels below (cascade). A level's slot 0 turns of the hand away cannot be told
 * from one 256 turns away, but only one of them can exist: see first_turn. */
#include "base/core/wheel.h"

#include <assert.h>
#include <stddef.h>

#define SLOT_BITS    8
#define PLACE_IS_DUE UINT16_MAX
#define SPAN_TICKS   (INT64_C(1) << (SLOT_BITS * WHEEL_LEVELS))

static unsigned shift(unsigned level)
{
    return SLOT_BITS * level;
}

void wheel_init(struct wheel *w, int64_t now_us)
{
    assert(now_us >= 0);
    *w = (struct wheel){.tick = now_us / WHEEL_TICK_US};
    for (unsigned level = 0; level < WHEEL_LEVELS; level++)
        for (unsigned slot = 0; slot < WHEEL_SLOTS; slot++)
            list_init(&w->slots[level][slot]);
    list_init(&w->due);
}

void wheel_entry_init(struct wheel_entry *e)
{
    *e = (struct wheel_entry){0};
    list_init(&e->link);
}

/* The first tick at which the deadline has passed. */
static int64_t tick_of(int64_t due_us)
{
    return due_us / WHEEL_TICK_US + (due_us % WHEEL_TICK_US > 0);
}

static void place(struct wheel *w, struct wheel_entry *e)
{
    assert(e->armed);
    assert(!list_linked(&e->link));
    int64_t tick = tick_of(e->due_us);
    if (tick < w->tick)
        tick = w->tick;
    if (tick - w->tick >= SPAN_TICKS)
        tick = w->tick + SPAN_TICKS - 1;
    assert(tick >= w->tick);
    unsigned level = 0;
    while ((tick - w->tick) >> shift(level + 1) > 0)
        level++;
    unsigned slot = (unsigned)(tick >> shift(level)) % WHEEL_SLOTS;
    assert(level < WHEEL_LEVELS);
    e->place = (uint16_t)(level * WHEEL_SLOTS + slot);
    list_push(&w->slots[level][slot], &e->link);
    w->used[level][slot / 64] |= UINT64_C(1) << slot % 64;
}

static void unplace(struct wheel *w, struct wheel_entry *e)
{
    list_remove(&e->link);
    if (e->place == PLACE_IS_DUE)
        return;
    assert(e->place < WHEEL_LEVELS * WHEEL_SLOTS);
    unsigned level = e->place / WHEEL_SLOTS, slot = e->place % WHEEL_SLOTS;
    if (list_empty(&w->slots[level][slot]))
        w->used[level][slot / 64] &= ~(UINT64_C(1) << slot % 64);
}

void wheel_add(struct wheel *w, struct wheel_entry *e, int64_t due_us)
{
    wheel_remove(w, e);
    e->due_us = due_us > 0 ? due_us : 0;
    e->armed = true;
    w->count++;
    place(w, e);
}

void wheel_remove(struct wheel *w, struct wheel_entry *e)
{
    if (!e->armed)
        return;
    assert(w->count > 0);
    assert(list_linked(&e->link));
    unplace(w, e);
    e->armed = false;
    w->count--;
}

static bool slot_used(const struct wheel *w, unsigned level, unsigned slot)
{
    return w->used[level][slot / 64] >> slot % 64 & 1;
}

/* How many turns of its hand away a level's nearest slot can be: 0 only while the hand stands at the very start of a
 * slot that has not been spread yet; then nothing can lie 256 away. */
static int first_turn(const struct wheel *w, unsigned level)
{
    int64_t mask = (INT64_C(1) << shift(level)) - 1;
    return (w->tick & mask) == 0 ? 0 : 1;
}

/* The tick at which the level's nearest entries expire or are spread; INT64_MAX when it is empty. */
static int64_t next_of_level(const struct wheel *w, unsigned level)
{
    bool any = false;
    for (unsigned i = 0; i < WHEEL_SLOTS / 64; i++)
        any = any || w->used[level][i];
    if (!any)
        return INT64_MAX;
    int64_t hand = w->tick >> shift(level);
    int turn = first_turn(w, level);
    while (!slot_used(w, level, (unsigned)(hand + turn) % WHEEL_SLOTS))
        turn++;
    assert(turn <= WHEEL_SLOTS);
    return (hand + turn) << shift(level);
}

static int64_t next_tick(const struct wheel *w)
{
    int64_t next = INT64_MAX;
    for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
        int64_t tick = next_of_level(w, level);
        next = tick < next ? tick : next;
    }
    return next;
}

int64_t wheel_next(const struct wheel *w)
{
    if (!list_empty(&w->due))
        return 0;
    int64_t tick = next_tick(w);
    return tick == INT64_MAX ? INT64_MAX : tick * WHEEL_TICK_US;
}

/* Takes everything out of the slot and places it anew; what is due at the hand's tick goes to `due`. */
static void spread(struct wheel *w, unsigned level)
{
    assert(level < WHEEL_LEVELS);
    struct list *slot = &w->slots[level][(w->tick >> shift(level)) % WHEEL_SLOTS];
    while (!list_empty(slot)) {
        struct wheel_entry *e = LIST_ENTRY(slot->next, struct wheel_entry, link);
        unplace(w, e);
        if (level > 0 || tick_of(e->due_us) > w->tick) {
            place(w, e); /* never back into this slot: its tick is less than a span away */
        } else {
            e->place = PLACE_IS_DUE;
            list_push(&w->due, &e->link);
        }
    }
}

static void advance(struct wheel *w, int64_t now_tick)
{
    for (int64_t tick; (tick = next_tick(w)) <= now_tick;) {
        assert(tick >= w->tick);
        w->tick = tick;
        for (unsigned level = WHEEL_LEVELS - 1; level > 0; level--)
            if (first_turn(w, level) == 0)
                spread(w, level);
        spread(w, 0);
        w->tick = tick + 1;
    }
    if (w->tick <= now_tick)
        w->tick = now_tick + 1;
}

struct wheel_entry *wheel_pop(struct wheel *w, int64_t now_us)
{
    assert(now_us >= 0);
    if (list_empty(&w->due))
        advance(w, now_us / WHEEL_TICK_US);
    if (list_empty(&w->due))
        return NULL;
    struct wheel_entry *e = LIST_ENTRY(w->due.next, struct wheel_entry, link);
    assert(e->due_us <= now_us);
    assert(e->place == PLACE_IS_DUE);
    wheel_remove(w, e);
    return e;
}
