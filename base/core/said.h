/* What was said last, so that a trouble which is tried again for ever is told once per cause. A plain value: zeroed is
 * ready. The owner's thread. */
#ifndef SUNDOG_BASE_CORE_SAID_H
#define SUNDOG_BASE_CORE_SAID_H

#include "base/core/err.h"

#include <stdarg.h>
#include <stdbool.h>

struct said {
    char text[ERR_TEXT_MAX];
};

/* Whether this is not what was said last; then `text` is it. */
bool said_new(struct said *s, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));
/* It is over: the same text is news again. Whether anything had been said. */
bool said_over(struct said *s);

#endif
