#include "base/core/said.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

bool said_new(struct said *s, const char *fmt, va_list args)
{
    char text[ERR_TEXT_MAX];
    vsnprintf(text, sizeof text, fmt, args);
    assert(memchr(s->text, 0, sizeof s->text));
    if (strcmp(text, s->text) == 0)
        return false;
    memcpy(s->text, text, sizeof text);
    return true;
}

bool said_over(struct said *s)
{
    bool any = s->text[0] != '\0';
    s->text[0] = '\0';
    return any;
}
