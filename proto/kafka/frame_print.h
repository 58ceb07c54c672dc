/* Any frame as text for people: header, body, record batches (`sundog dump frame`). Any thread. */
#ifndef SUNDOG_PROTO_KAFKA_FRAME_PRINT_H
#define SUNDOG_PROTO_KAFKA_FRAME_PRINT_H

#include "base/core/buf.h"
#include "base/core/err.h"
#include "base/core/slice.h"

/* A response does not say what it answers. */
struct frame_answers {
    int16_t api_key, api_version;
};

#define FRAME_PRINT_ARENA_MAX ((size_t)256 << 20) /* what a decoded frame may take */

/* Prints `frame`, with or without its size in front (it is recognised when it is exactly right): a request, or with
 * `answers` the response to one. 0, or what kp_decode returns: then `out` has what could be read. */
int frame_print(struct slice frame, const struct frame_answers *answers, struct buf *out, struct err *err);

#endif
