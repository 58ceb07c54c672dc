/* One HTTP request of the admin port, parsed strictly: what RFC 9112 lets a server guess is refused. Pure. */
#ifndef SUNDOG_BASE_RUNTIME_ADMIN_REQUEST_H
#define SUNDOG_BASE_RUNTIME_ADMIN_REQUEST_H

#include "base/core/slice.h"

#define ADMIN_REQUEST_PARTIAL 0
#define ADMIN_LINES_MAX       100

struct admin_request {
    struct slice path; /* without the query */
    bool head_only;    /* HEAD */
    bool close;        /* the client wants no further request, or speaks HTTP/1.0 */
    size_t bytes;      /* of the request, blank line included */
    const char *why;   /* a status of 4xx in words */
};

/* 200, a 4xx to answer with, or ADMIN_REQUEST_PARTIAL: the blank line has not arrived. With `loopback` the Host must be
 * a loopback name, so that a page of elsewhere cannot reach us through a name that it makes resolve to 127.0.0.1. */
int admin_request_parse(struct slice in, bool loopback, struct admin_request *out);

#endif
