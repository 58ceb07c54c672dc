/* Kafka's UUIDs: 16 bytes, printed as 22 characters of unpadded base64url. All zero means "none". */
#ifndef SUNDOG_BASE_CORE_UUID_H
#define SUNDOG_BASE_CORE_UUID_H

#include "base/core/slice.h"

struct uuid {
    uint8_t b[16];
};

#define UUID_TEXT_SIZE 23

/* Writes 22 characters and a NUL; returns `out`. */
char *uuid_text(const struct uuid *u, char out[UUID_TEXT_SIZE]);
/* 0, or -E_INVALID for anything but 22 base64url characters (padding "==" is accepted). */
int uuid_parse(struct slice text, struct uuid *out);
/* UUID with the number in its last eight bytes: reserved values, __cluster_metadata's id 1. */
struct uuid uuid_small(uint64_t n);

static inline bool uuid_is_zero(const struct uuid *u)
{
    static const struct uuid zero;
    return memcmp(u, &zero, sizeof zero) == 0;
}

static inline bool uuid_eq(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

#endif
