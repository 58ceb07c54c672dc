/* What options.c and options_value.c share: one value, parsed and not yet in its struct. */
#ifndef SUNDOG_BASE_RUNTIME_OPTIONS_INTERNAL_H
#define SUNDOG_BASE_RUNTIME_OPTIONS_INTERNAL_H

#include "base/runtime/options.h"

struct option_value {
    int64_t integer; /* BOOL, INT, LONG */
    double real;
    char *text; /* STRING, PASSWORD */
    struct option_list list;
};

/* On error `v` holds nothing and `err` names key, value (not a password's) and what is allowed. */
int option_value_parse(const struct option_row *row, const char *text, struct option_value *v,
                       struct err *err);
void option_value_fini(struct option_value *v);

#endif
