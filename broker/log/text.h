/* Numbers and words of the checkpoint files, taken off the front of a text. Pure. */
#ifndef SUNDOG_BROKER_LOG_TEXT_H
#define SUNDOG_BROKER_LOG_TEXT_H

#include "base/core/slice.h"

/* Everything up to `end`, which is dropped too; false when `end` does not come. */
static inline bool text_word(struct slice *text, char end, struct slice *out)
{
    const uint8_t *at = text->n ? memchr(text->p, end, text->n) : NULL;
    if (!at)
        return false;
    *out = slice_of(text->p, (size_t)(at - text->p));
    *text = slice_of(at + 1, text->n - out->n - 1);
    return true;
}

/* A whole decimal number, up to `end`. */
static inline bool text_number(struct slice *text, char end, int64_t *out)
{
    struct slice word;
    if (!text_word(text, end, &word) || word.n == 0 || word.n > 20)
        return false;
    bool negative = word.p[0] == '-';
    int64_t v = 0;
    if (word.n == (size_t)negative)
        return false;
    for (size_t i = negative; i < word.n; i++) {
        if (word.p[i] < '0' || word.p[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_sub_overflow(v, word.p[i] - '0', &v))
            return false;
    }
    if (!negative && v == INT64_MIN)
        return false;
    *out = negative ? v : -v;
    return true;
}

#endif
