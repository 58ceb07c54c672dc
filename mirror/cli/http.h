/* One GET of a daemon's admin port: small answers of our own daemons, nothing more. */
#ifndef SUNDOG_MIRROR_CLI_HTTP_H
#define SUNDOG_MIRROR_CLI_HTTP_H

#include "base/core/buf.h"
#include "base/core/err.h"

#define HTTP_ANSWER_MAX (64u << 20)

/* `address` is HOST:PORT. `out` gets the body, *status the code. */
int http_get(const char *address, const char *path, int64_t timeout_ms, int *status, struct buf *out,
             struct err *err);

#endif
