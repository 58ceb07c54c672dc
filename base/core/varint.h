/* Protobuf-style varints as Kafka uses them: unsigned (lengths, tags) and zigzag (record fields).
 * Getters return the bytes used, or 0 when the input ends early, is longer than the type allows or overflows it. */
#ifndef SUNDOG_BASE_CORE_VARINT_H
#define SUNDOG_BASE_CORE_VARINT_H

#include <stddef.h>
#include <stdint.h>

#define UVARINT32_MAX_BYTES 5
#define UVARINT64_MAX_BYTES 10

size_t uvarint32_get(const uint8_t *p, const uint8_t *end, uint32_t *out);
size_t uvarint64_get(const uint8_t *p, const uint8_t *end, uint64_t *out);
size_t varint32_get(const uint8_t *p, const uint8_t *end, int32_t *out);
size_t varint64_get(const uint8_t *p, const uint8_t *end, int64_t *out);

/* Puts return the bytes written; the room is the caller's (see the maxima). */
size_t uvarint_put(uint8_t *p, uint64_t v);
size_t varint_put(uint8_t *p, int64_t v);

static inline uint64_t zigzag(int64_t v)
{
    return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
}

static inline size_t uvarint_size(uint64_t v)
{
    return v ? (size_t)(70 - __builtin_clzll(v)) / 7 : 1;
}

static inline size_t varint_size(int64_t v)
{
    return uvarint_size(zigzag(v));
}

#endif
