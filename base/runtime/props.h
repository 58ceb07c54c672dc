/* Java's .properties format and `key=value` arguments as an ordered list of keys; the last setting of a key
 * wins.
 *
 * Comments (# and !), `=`, `:` or white space after the key, continuation by a final backslash, and escapes:
 * \t \n \r \f \uXXXX and \ before any other character. Values lose the white space in front (Java) and at their end
 * (every Kafka tool). A file that cannot be read as such is an error with its line. Owned by one thread; bounded by
 * PROPS_FILE_MAX and PROPS_KEYS_MAX. */
#ifndef SUNDOG_BASE_RUNTIME_PROPS_H
#define SUNDOG_BASE_RUNTIME_PROPS_H

#include "base/core/err.h"
#include "base/core/slice.h"
#include "base/world/disk.h"

#define PROPS_FILE_MAX (4u << 20)
#define PROPS_KEYS_MAX 65536

struct prop {
    char *key, *value;
    char *origin; /* "broker.properties:12" or "command line" */
    bool used;    /* some table or caller knows the key; see options_finish */
};

struct props {
    struct prop *list; /* in order of first appearance */
    size_t n, cap;
};

void props_init(struct props *p);
void props_fini(struct props *p);

int props_load(struct props *p, struct disk *d, const char *path, struct err *err);
int props_parse(struct props *p, struct slice text, const char *origin, struct err *err);
/* "key=value" from the command line. */
int props_argument(struct props *p, const char *argument, struct err *err);
int props_set(struct props *p, const char *key, const char *value, const char *origin);

/* NULL when not set. props_get marks the key as used, props_find does not. */
const char *props_get(struct props *p, const char *key);
struct prop *props_find(const struct props *p, const char *key);
/* In order; `fn` may set prop->used. */
void props_each(struct props *p, void (*fn)(void *arg, struct prop *prop), void *arg);
/* The part of `key` behind `prefix`, or NULL: for `listener.name.x.` and `A->B.`. */
const char *props_suffix(const char *key, const char *prefix);

#endif
