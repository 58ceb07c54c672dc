/* A bounded bump allocator for one request, one frame, one step: everything dies together at reset or fini.
 *
 * Overflow is sticky: after the limit is passed every allocation gives NULL and `arena_failed` says so, so a decoder
 * may check once at its end. Memory is zeroed. One thread at a time. Under AddressSanitizer every allocation is a
 * malloc of its own, so that overruns are seen. */
#ifndef SUNDOG_BASE_CORE_ARENA_H
#define SUNDOG_BASE_CORE_ARENA_H

#include "base/core/slice.h"

#include <stdarg.h>

/* What it takes at a time; who charges an arena's memory to a budget counts in this. */
#define ARENA_GRAIN ((size_t)4096)

struct arena_chunk;

struct arena {
    struct arena_chunk *chunks; /* newest first */
    size_t used_bytes;          /* handed out since init or reset */
    size_t limit_bytes;
    bool failed;
    bool small;
};

/* Takes no memory before the first allocation; then ARENA_GRAIN at a time, or what is asked for if that is more. */
void arena_init(struct arena *a, size_t limit_bytes);
/* The first time 512 bytes: where there are thousands that hold a few hundred. */
void arena_init_small(struct arena *a, size_t limit_bytes);
/* Frees everything but one chunk, which is kept for the next round. */
void arena_reset(struct arena *a);
void arena_fini(struct arena *a);

/* `size` zeroed bytes aligned for any type, or NULL past the limit or out of memory. */
void *arena_alloc(struct arena *a, size_t size);
/* count × size, checked for overflow. count 0 gives a non-NULL pointer. */
void *arena_array(struct arena *a, size_t count, size_t size);
/* Copies; the copy has a NUL behind it. A null slice stays null. */
struct slice arena_dup(struct arena *a, struct slice s);
char *arena_cstr(struct arena *a, struct slice s);
/* A formatted string; a null slice on overflow. */
struct slice arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline bool arena_failed(const struct arena *a)
{
    return a->failed;
}

#define ARENA_NEW(a, type)         ((type *)arena_alloc((a), sizeof(type)))
#define ARENA_NEWS(a, type, count) ((type *)arena_array((a), (size_t)(count), sizeof(type)))

#endif
