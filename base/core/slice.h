/* A borrowed run of bytes. Whoever holds the bytes owns them; a slice is a plain value, copied freely.
 * `p == NULL` is Kafka's null (a null string, null bytes, null key); an empty one has a non-NULL `p` and `n == 0`. */
#ifndef SUNDOG_BASE_CORE_SLICE_H
#define SUNDOG_BASE_CORE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *p;
    size_t n;
};

#define SLICE_NULL ((struct slice){NULL, 0})
/* A literal as a slice, without its final NUL. */
#define SLICE_LIT(text) ((struct slice){(const uint8_t *)(text), sizeof(text) - 1})
/* For printf's "%.*s". */
#define SLICE_FMT(s) (int)(s).n, (s).p ? (const char *)(s).p : ""

static inline struct slice slice_of(const void *p, size_t n)
{
    return (struct slice){(const uint8_t *)p, n};
}

static inline struct slice slice_str(const char *text)
{
    return text ? slice_of(text, strlen(text)) : SLICE_NULL;
}

static inline bool slice_is_null(struct slice s)
{
    return s.p == NULL;
}

/* Same bytes, and both null or neither. */
static inline bool slice_eq(struct slice a, struct slice b)
{
    return (a.p == NULL) == (b.p == NULL) && a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool slice_eq_str(struct slice a, const char *text)
{
    return slice_eq(a, slice_str(text));
}

static inline int slice_cmp(struct slice a, struct slice b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

/* Copies to `out` (size `cap` with the NUL), cut when longer. Returns `out`. */
char *slice_cstr(struct slice s, char *out, size_t cap);

#endif
