/* Whether bytes are text. */
#ifndef SUNDOG_BASE_CORE_UTF8_H
#define SUNDOG_BASE_CORE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the UTF-8 character at `p` (`left` > 0 bytes may be looked at); 0 when there is none: broken, overlong, a
 * surrogate, or past U+10FFFF. */
static inline size_t utf8_length(const uint8_t *p, size_t left)
{
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] >= 0xF0 && p[0] < 0xF5   ? 4
               : p[0] >= 0xE0 && p[0] < 0xF0 ? 3
               : p[0] >= 0xC2 && p[0] < 0xE0 ? 2
                                             : 0;
    if (n == 0 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F) || (p[0] == 0xF0 && p[1] < 0x90) ||
        (p[0] == 0xF4 && p[1] > 0x8F))
        return 0;
    return n;
}

#endif
