#include "base/core/buf.h"

#include "base/core/bytes.h"
#include "base/core/varint.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void buf_init(struct buf *b, size_t limit_bytes)
{
    *b = (struct buf){.limit = limit_bytes};
}

void buf_fini(struct buf *b)
{
    free(b->p);
    *b = (struct buf){0};
}

void buf_clear(struct buf *b)
{
    b->n = 0;
    b->failed = false;
}

uint8_t *buf_room(struct buf *b, size_t n)
{
    if (b->failed || n > b->limit || b->n > b->limit - n) {
        b->failed = true;
        return NULL;
    }
    if (!b->p || b->cap - b->n < n) { /* room for nothing is room too: NULL means failure only */
        size_t cap = b->cap ? b->cap : 64;
        while (cap - b->n < n)
            cap *= 2;
        uint8_t *p = realloc(b->p, cap);
        if (!p) {
            b->failed = true;
            return NULL;
        }
        b->p = p;
        b->cap = cap;
    }
    assert(b->n <= b->cap);
    assert(n <= b->cap - b->n);
    return b->p + b->n;
}

void buf_added(struct buf *b, size_t n)
{
    assert(b->n <= b->cap);
    assert(n <= b->cap - b->n);
    assert(n == 0 || b->p);
    b->n += n;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    uint8_t *to = buf_room(b, n);
    if (to && n) {
        memcpy(to, p, n);
        b->n += n;
    }
}

void buf_put_u8(struct buf *b, uint8_t v)
{
    buf_put(b, &v, 1);
}

void buf_put_be16(struct buf *b, uint16_t v)
{
    uint8_t t[2];
    be16_put(t, v);
    buf_put(b, t, sizeof t);
}

void buf_put_be32(struct buf *b, uint32_t v)
{
    uint8_t t[4];
    be32_put(t, v);
    buf_put(b, t, sizeof t);
}

void buf_put_be64(struct buf *b, uint64_t v)
{
    uint8_t t[8];
    be64_put(t, v);
    buf_put(b, t, sizeof t);
}

void buf_put_uvarint(struct buf *b, uint64_t v)
{
    uint8_t t[UVARINT64_MAX_BYTES];
    buf_put(b, t, uvarint_put(t, v));
}

void buf_put_varint(struct buf *b, int64_t v)
{
    uint8_t t[UVARINT64_MAX_BYTES];
    buf_put(b, t, varint_put(t, v));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    uint8_t *to = n < 0 ? NULL : buf_room(b, (size_t)n + 1);
    if (to) {
        vsnprintf((char *)to, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
}

void buf_drop(struct buf *b, size_t n)
{
    assert(n <= b->n);
    b->n -= n;
    if (b->n && n)
        memmove(b->p, b->p + n, b->n);
}
