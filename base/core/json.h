/* Writes JSON into a buf, without a tree: commas and escapes are its business, nesting is asserted.
 *
 *     struct json j;
 *     json_init(&j, &buf);
 *     json_object(&j);
 *     json_key(&j, "topic"), json_str(&j, name);
 *     json_key(&j, "lag"), json_int(&j, lag);
 *     json_end(&j);
 *
 * Bytes that are not UTF-8 become U+FFFD. Overflow is the buf's (buf.failed). To read JSON: jansson. */
#ifndef SUNDOG_BASE_CORE_JSON_H
#define SUNDOG_BASE_CORE_JSON_H

#include "base/core/buf.h"

#include <stdbool.h>
#include <stdint.h>

#define JSON_DEPTH_MAX 32

struct json {
    struct buf *to;
    unsigned depth;
    bool after_key;
    char open[JSON_DEPTH_MAX]; /* '{' or '[' */
    bool some[JSON_DEPTH_MAX]; /* a comma is needed */
};

void json_init(struct json *j, struct buf *to);
void json_object(struct json *j);
void json_array(struct json *j);
void json_end(struct json *j); /* the innermost object or array */
void json_key(struct json *j, const char *key);
void json_str(struct json *j, const char *text); /* NULL: null */
void json_slice(struct json *j, struct slice text);
void json_int(struct json *j, int64_t v);
void json_double(struct json *j, double v); /* not finite: null */
void json_bool(struct json *j, bool v);
void json_null(struct json *j);

/* Key and value in one. */
void json_put_str(struct json *j, const char *key, const char *text);
void json_put_slice(struct json *j, const char *key, struct slice text);
void json_put_int(struct json *j, const char *key, int64_t v);
void json_put_bool(struct json *j, const char *key, bool v);

#endif
