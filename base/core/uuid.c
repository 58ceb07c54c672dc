#include "base/core/uuid.h"

#include "base/core/bytes.h"
#include "base/core/err.h"

#include <assert.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

char *uuid_text(const struct uuid *u, char out[UUID_TEXT_SIZE])
{
    uint32_t bits = 0;
    int have = 0, n = 0;
    for (size_t i = 0; i < sizeof u->b; i++) {
        bits = bits << 8 | u->b[i];
        for (have += 8; have >= 6; have -= 6)
            out[n++] = alphabet[bits >> (have - 6) & 63];
    }
    out[n++] = alphabet[bits << (6 - have) & 63];
    assert(n == UUID_TEXT_SIZE - 1);
    out[n] = '\0';
    return out;
}

_Static_assert(sizeof alphabet == 64 + 1, "six bits a character");

int uuid_parse(struct slice text, struct uuid *out)
{
    if (text.n == 24 && text.p[22] == '=' && text.p[23] == '=')
        text.n = 22;
    if (text.n != 22)
        return -E_INVALID;
    uint32_t bits = 0;
    int have = 0;
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        const char *at = text.p[i] ? strchr(alphabet, text.p[i]) : NULL;
        if (!at)
            return -E_INVALID;
        bits = bits << 6 | (uint32_t)(at - alphabet);
        have += 6;
        if (have >= 8 && n < sizeof out->b) {
            have -= 8;
            out->b[n++] = (uint8_t)(bits >> have);
        }
    }
    return n == sizeof out->b ? 0 : -E_INVALID;
}

struct uuid uuid_small(uint64_t n)
{
    struct uuid u = {{0}};
    be64_put(u.b + 8, n);
    return u;
}
