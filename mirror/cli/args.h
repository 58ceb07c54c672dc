/* The words of a command line: options taken by name wherever they stand, the rest in order. Borrowed from argv. */
#ifndef SUNDOG_MIRROR_CLI_ARGS_H
#define SUNDOG_MIRROR_CLI_ARGS_H

#include <stdbool.h>
#include <stdint.h>

#define ARGS_MAX 256

struct args {
    const char *words[ARGS_MAX];
    int n;
    char error[256]; /* the first thing that was wrong; empty when all is well */
};

/* -1 when there are more than ARGS_MAX. */
int args_init(struct args *a, int argc, char **argv);
/* True when the flag was there; it is taken out. */
bool args_flag(struct args *a, const char *name);
/* The value behind the option (or after '='), taken out with it; NULL when the option is not there. The last one
 * wins. */
const char *args_option(struct args *a, const char *name);
/* The same, once per call, in order, for options that may stand several times. */
const char *args_option_next(struct args *a, const char *name);
/* A whole number within [min, max]; `fallback` when the option is not there. */
int64_t args_number(struct args *a, const char *name, int64_t min, int64_t max, int64_t fallback);
/* The first word that is left, taken out, or NULL; words that begin with "--" are errors. `what` names it. */
const char *args_word(struct args *a, const char *what);
/* Call last: whatever is left is an error. True when the line was right. */
bool args_done(struct args *a);

#endif
