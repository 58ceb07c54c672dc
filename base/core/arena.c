#include "base/core/arena.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_CHUNK_BYTES 0 /* one malloc each */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_CHUNK_BYTES 0
#endif
#endif
#ifndef ARENA_CHUNK_BYTES
#define ARENA_CHUNK_BYTES ARENA_GRAIN
#endif
/* The first one of a small arena, which keeps a larger one over its resets. */
#define ARENA_FIRST_BYTES (ARENA_CHUNK_BYTES / 8)
#define ARENA_ALIGN       16

struct arena_chunk {
    struct arena_chunk *next;
    size_t size, used;
    _Alignas(ARENA_ALIGN) uint8_t bytes[];
};

_Static_assert(ARENA_CHUNK_BYTES % ARENA_ALIGN == 0, "what is rounded up fits");
_Static_assert(ARENA_FIRST_BYTES % ARENA_ALIGN == 0, "in the small one, too");
_Static_assert(sizeof(struct arena_chunk) % ARENA_ALIGN == 0, "the first object is aligned");

void arena_init(struct arena *a, size_t limit_bytes)
{
    *a = (struct arena){.limit_bytes = limit_bytes};
}

void arena_init_small(struct arena *a, size_t limit_bytes)
{
    *a = (struct arena){.limit_bytes = limit_bytes, .small = true};
}

static void free_chunks(struct arena_chunk *c)
{
    while (c) {
        struct arena_chunk *next = c->next;
        free(c);
        c = next;
    }
}

void arena_reset(struct arena *a)
{
    struct arena_chunk *keep = a->chunks;
    if (keep && (keep->size == ARENA_CHUNK_BYTES || keep->size == ARENA_FIRST_BYTES)) {
        free_chunks(keep->next);
        keep->next = NULL;
        memset(keep->bytes, 0, keep->used);
        keep->used = 0;
    } else {
        free_chunks(keep);
        a->chunks = NULL;
    }
    a->used_bytes = 0;
    a->failed = false;
}

void arena_fini(struct arena *a)
{
    free_chunks(a->chunks);
    *a = (struct arena){0};
}

static struct arena_chunk *chunk_for(struct arena *a, size_t size)
{
    assert(size > 0);
    struct arena_chunk *c = a->chunks;
    if (c && c->size - c->used >= size)
        return c;
    bool first = a->small && !a->chunks && size <= ARENA_FIRST_BYTES;
    size_t usual = first ? ARENA_FIRST_BYTES : ARENA_CHUNK_BYTES;
    size_t want = size > usual ? size : usual;
    c = calloc(1, sizeof *c + want);
    if (!c)
        return NULL;
    c->size = want;
    /* A large object goes behind the open chunk, whose rest stays usable. */
    if (a->chunks && size > ARENA_CHUNK_BYTES / 2 && a->chunks->used < a->chunks->size) {
        c->next = a->chunks->next;
        a->chunks->next = c;
    } else {
        c->next = a->chunks;
        a->chunks = c;
    }
    return c;
}

void *arena_alloc(struct arena *a, size_t size)
{
    static const size_t most = SIZE_MAX / 2;
    size_t need = size == 0 ? ARENA_ALIGN : size;
    if (a->failed || need > most || a->used_bytes + need > a->limit_bytes) {
        a->failed = true;
        return NULL;
    }
    if (ARENA_CHUNK_BYTES)
        need = (need + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    struct arena_chunk *c = chunk_for(a, need);
    if (!c) {
        a->failed = true;
        return NULL;
    }
    assert(c->size - c->used >= need);
    void *p = c->bytes + c->used;
    c->used += need;
    assert((uintptr_t)p % ARENA_ALIGN == 0);
    a->used_bytes += need;
    return p;
}

void *arena_array(struct arena *a, size_t count, size_t size)
{
    assert(size > 0);
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        a->failed = true;
        return NULL;
    }
    return arena_alloc(a, bytes);
}

struct slice arena_dup(struct arena *a, struct slice s)
{
    if (slice_is_null(s))
        return s;
    uint8_t *p = arena_alloc(a, s.n + 1);
    if (!p)
        return SLICE_NULL;
    if (s.n)
        memcpy(p, s.p, s.n);
    return slice_of(p, s.n);
}

char *arena_cstr(struct arena *a, struct slice s)
{
    char *p = arena_alloc(a, s.n + 1);
    if (p && s.n)
        memcpy(p, s.p, s.n);
    return p;
}

struct slice arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    char *p = n < 0 ? NULL : arena_alloc(a, (size_t)n + 1);
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p ? slice_of(p, (size_t)n) : SLICE_NULL;
}
