#include "base/core/varint.h"

#include <assert.h>

size_t uvarint64_get(const uint8_t *p, const uint8_t *end, uint64_t *out)
{
    uint64_t v = 0;
    for (size_t i = 0; i < UVARINT64_MAX_BYTES; i++) {
        if (p + i >= end)
            return 0;
        uint8_t b = p[i];
        if (i == UVARINT64_MAX_BYTES - 1 && b > 0x01)
            return 0;
        v |= (uint64_t)(b & 0x7f) << (7 * i);
        if (!(b & 0x80)) {
            *out = v;
            return i + 1;
        }
    }
    return 0;
}

size_t uvarint32_get(const uint8_t *p, const uint8_t *end, uint32_t *out)
{
    uint32_t v = 0;
    for (size_t i = 0; i < UVARINT32_MAX_BYTES; i++) {
        if (p + i >= end)
            return 0;
        uint8_t b = p[i];
        /* Kafka's reader lets the high bits of the fifth byte fall off; we refuse them. */
        if (i == UVARINT32_MAX_BYTES - 1 && b > 0x0f)
            return 0;
        v |= (uint32_t)(b & 0x7f) << (7 * i);
        if (!(b & 0x80)) {
            *out = v;
            return i + 1;
        }
    }
    return 0;
}

size_t varint32_get(const uint8_t *p, const uint8_t *end, int32_t *out)
{
    uint32_t u;
    size_t n = uvarint32_get(p, end, &u);
    if (n)
        *out = (int32_t)((u >> 1) ^ (0u - (u & 1)));
    return n;
}

size_t varint64_get(const uint8_t *p, const uint8_t *end, int64_t *out)
{
    uint64_t u;
    size_t n = uvarint64_get(p, end, &u);
    if (n)
        *out = (int64_t)((u >> 1) ^ (0ull - (u & 1)));
    return n;
}

size_t uvarint_put(uint8_t *p, uint64_t v)
{
    size_t n = 0;
    while (v >= 0x80) {
        p[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    p[n++] = (uint8_t)v;
    assert(n <= UVARINT64_MAX_BYTES);
    return n;
}

size_t varint_put(uint8_t *p, int64_t v)
{
    return uvarint_put(p, zigzag(v));
}
