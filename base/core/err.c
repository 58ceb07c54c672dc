#include "base/core/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
    if (!e)
        return code;
    e->code = code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, args);
    va_end(args);
    return code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    if (!e)
        return 0;
    char prefix[ERR_TEXT_MAX], rest[ERR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, args);
    va_end(args);
    memcpy(rest, e->text, sizeof rest);
    size_t at = strlen(prefix), room = sizeof e->text;
    memcpy(e->text, prefix, at + 1);
    if (at + 2 < room) {
        snprintf(e->text + at, room - at, ": %.*s", (int)(room - at - 3), rest);
    }
    return e->code;
}

const char *err_str(int code)
{
    switch (-code) {
    case 0: return "no error";
#define ERROR(name, kafka, text) \
    case E_##name: return text;
#include "base/core/errors.def"
#undef ERROR
    default: return "unknown error";
    }
}

int err_from_errno(int errnum)
{
    switch (errnum) {
    case 0: return 0;
    case ENOMEM: return -E_NOMEM;
    case ENOSPC: case EDQUOT: return -E_NOSPACE;
    case ENOENT: case ENOTDIR: return -E_NOTFOUND;
    case EEXIST: return -E_EXISTS;
    case EACCES: case EPERM: case EROFS: return -E_ACCESS;
    case ECONNREFUSED: return -E_REFUSED;
    case ETIMEDOUT: return -E_TIMEOUT;
    case EPIPE: case ECONNRESET: case ECONNABORTED: return -E_CLOSED;
    case EAGAIN: return -E_AGAIN;
    case EBUSY: case EADDRINUSE: return -E_BUSY;
    case EINVAL: case ENAMETOOLONG: return -E_INVALID;
    default: return -E_IO;
    }
}
