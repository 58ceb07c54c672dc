/* A growing byte buffer with a limit; overflow and lack of memory are sticky, as in arena.h. */
#ifndef SUNDOG_BASE_CORE_BUF_H
#define SUNDOG_BASE_CORE_BUF_H

#include "base/core/slice.h"

struct buf {
    uint8_t *p;
    size_t n, cap, limit;
    bool failed;
};

void buf_init(struct buf *b, size_t limit_bytes);
void buf_fini(struct buf *b);
/* Forgets the content, keeps the memory. */
void buf_clear(struct buf *b);
/* Room for `n` more bytes at the end, not yet counted (see buf_added); NULL when it cannot be had. */
uint8_t *buf_room(struct buf *b, size_t n);
void buf_added(struct buf *b, size_t n);
void buf_put(struct buf *b, const void *p, size_t n);
void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_be16(struct buf *b, uint16_t v);
void buf_put_be32(struct buf *b, uint32_t v);
void buf_put_be64(struct buf *b, uint64_t v);
void buf_put_uvarint(struct buf *b, uint64_t v);
void buf_put_varint(struct buf *b, int64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Drops the first `n` bytes. */
void buf_drop(struct buf *b, size_t n);

static inline struct slice buf_slice(const struct buf *b)
{
    return slice_of(b->p ? (const void *)b->p : "", b->n);
}

#endif
