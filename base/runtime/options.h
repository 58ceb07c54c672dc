/* Options as rows: one row gives name, type, default, bounds, unit, reloadability and a sentence. The parser,
 * --help, the documentation and the check of conf/ all walk the same table.
 *
 *     broker/options.def:
 *     OPTION("log.segment.bytes", INT, log_segment_bytes, "1073741824", 14, INT32_MAX, "bytes", FIXED,
 *            "The size at which a segment is closed.")
 *
 *     struct broker_options {
 *     #define OPTION OPTION_FIELD
 *     #include "broker/options.def"
 *     #undef OPTION
 *     };
 *     static const struct option_row rows[] = {
 *     #define OPTION(...) OPTION_ROW(struct broker_options, __VA_ARGS__)
 *     #include "broker/options.def"
 *     #undef OPTION
 *     };
 *     const struct option_table broker_option_table = OPTION_TABLE("broker", rows, struct broker_options);
 *
 * Columns: key; TYPE; field; default as text (NULL: none, OPTION_REQUIRED: must be given); min, max; unit;
 * FIXED or RELOADABLE; help. min and max bound numbers, and the length of a STRING or LIST (in entries); for
 * both 0 the value is not bounded. For STRING and LIST `unit` may name the values allowed: "text|json".
 *
 * TYPE     field               text
 * BOOL     bool                true, false
 * INT      int32_t             decimal
 * LONG     int64_t             decimal
 * DOUBLE   double              decimal
 * STRING   char *              NULL when not set and without a default
 * LIST     struct option_list  comma separated, white space dropped
 * PASSWORD char *              as STRING, never printed */
#ifndef SUNDOG_BASE_RUNTIME_OPTIONS_H
#define SUNDOG_BASE_RUNTIME_OPTIONS_H

#include "base/core/buf.h"
#include "base/runtime/props.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct option_list {
    char **item;
    size_t n;
};

enum option_type {
    OPTION_BOOL,
    OPTION_INT,
    OPTION_LONG,
    OPTION_DOUBLE,
    OPTION_STRING,
    OPTION_LIST,
    OPTION_PASSWORD
};
enum option_reload { OPTION_FIXED, OPTION_RELOADABLE };

struct option_row {
    const char *key;
    enum option_type type;
    size_t at;         /* offset of the field */
    const char *value; /* the default */
    int64_t min, max;
    const char *unit;
    enum option_reload reload;
    const char *help;
};

struct option_table {
    const char *name;
    const struct option_row *rows;
    size_t n;
    size_t struct_bytes;
};

extern const char option_required[];
#define OPTION_REQUIRED                                                     option_required

#define OPTION_CTYPE_BOOL                                                   bool
#define OPTION_CTYPE_INT                                                    int32_t
#define OPTION_CTYPE_LONG                                                   int64_t
#define OPTION_CTYPE_DOUBLE                                                 double
#define OPTION_CTYPE_STRING                                                 char *
#define OPTION_CTYPE_LIST                                                   struct option_list
#define OPTION_CTYPE_PASSWORD                                               char *

#define OPTION_FIELD(key, type, field, value, min, max, unit, reload, help) OPTION_CTYPE_##type field;
#define OPTION_ROW(owner, key, type, field, value, min, max, unit, reload, help)                             \
    {key, OPTION_##type, offsetof(owner, field), value, min, max, unit, OPTION_##reload, help},
#define OPTION_TABLE(name, rows, owner)                                                                      \
    {                                                                                                        \
        name, rows, sizeof(rows) / sizeof *(rows), sizeof(owner)                                             \
    }

/* Fills `out` (struct_bytes, any content) from the defaults and `p`, and marks the keys it took as used. On
 * error `out` holds nothing and `err` names key, value, origin and what is allowed. options_fini frees what
 * it holds. */
int options_apply(const struct option_table *t, struct props *p, void *out, struct err *err);
void options_fini(const struct option_table *t, void *out);

/* After every table and every caller of props_get has taken its keys: a key that is left and stands in
 * `unserved` (Kafka's, but not served by us; NULL-terminated) is warned of once each; any other is refused by
 * its name, with the nearest key of the tables. */
int options_finish(const struct option_table *const *tables, size_t n, const char *const *unserved,
                   struct props *p, struct err *err);

/* One value. options_set replaces what `out` holds; options_check only looks. `err` says what is allowed. */
const struct option_row *options_find(const struct option_table *t, const char *key);
int options_set(const struct option_row *row, void *out, const char *text, struct err *err);
int options_check(const struct option_row *row, const char *text, struct err *err);
/* The field's value as text; "[hidden]" for a password that is set. */
void options_print(const struct option_row *row, const void *in, struct buf *to);
bool options_same(const struct option_row *row, const void *a, const void *b);
/* Moves the RELOADABLE fields that differ from `fresh` to `now` and returns how many; the first FIXED key that
 * differs is named in *fixed_changed, else NULL. `fresh` still needs its options_fini. */
int options_reload(const struct option_table *t, void *now, void *fresh, const char **fixed_changed);

/* "an integer from 1 to 10 (ms)": what a row allows, for errors, help and documentation. */
void options_allowed(const struct option_row *row, struct buf *to);
/* --help: key, type, default, allowed and the sentence of each row. */
void options_help(const struct option_table *t, struct buf *to);
/* Walks a table and finds what no table may have: double keys, a default that its own row refuses, an empty
 * sentence. */
int options_lint(const struct option_table *t, struct err *err);

#endif
