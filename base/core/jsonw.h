/* Writes JSON into a buf, without a tree: commas and escapes are its business, nesting is asserted.
 *
 *     struct jsonw j;
 *     jsonw_init(&j, &buf);
 *     jsonw_object(&j);
 *     jsonw_key(&j, "topic"), jsonw_str(&j, name);
 *     jsonw_key(&j, "lag"), jsonw_int(&j, lag);
 *     jsonw_end(&j);
 *
 * Bytes that are not UTF-8 become U+FFFD. Overflow is the buf's (buf.failed). To read JSON: jansson. */
#ifndef SUNDOG_BASE_CORE_JSONW_H
#define SUNDOG_BASE_CORE_JSONW_H

#include "base/core/buf.h"

#include <stdbool.h>
#include <stdint.h>

#define JSONW_DEPTH_MAX 32

struct jsonw {
    struct buf *to;
    unsigned depth;
    bool after_key;
    char open[JSONW_DEPTH_MAX]; /* '{' or '[' */
    bool some[JSONW_DEPTH_MAX]; /* a comma is needed */
};

void jsonw_init(struct jsonw *j, struct buf *to);
void jsonw_object(struct jsonw *j);
void jsonw_array(struct jsonw *j);
void jsonw_end(struct jsonw *j); /* the innermost object or array */
void jsonw_key(struct jsonw *j, const char *key);
void jsonw_str(struct jsonw *j, const char *text); /* NULL: null */
void jsonw_slice(struct jsonw *j, struct slice text);
void jsonw_int(struct jsonw *j, int64_t v);
void jsonw_double(struct jsonw *j, double v); /* not finite: null */
void jsonw_bool(struct jsonw *j, bool v);
void jsonw_null(struct jsonw *j);

/* Key and value in one. */
void jsonw_put_str(struct jsonw *j, const char *key, const char *text);
void jsonw_put_slice(struct jsonw *j, const char *key, struct slice text);
void jsonw_put_int(struct jsonw *j, const char *key, int64_t v);
void jsonw_put_bool(struct jsonw *j, const char *key, bool v);

#endif
