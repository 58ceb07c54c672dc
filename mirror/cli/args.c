#include "mirror/cli/args.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int args_init(struct args *a, int argc, char **argv)
{
    *a = (struct args){.n = 0};
    if (argc > ARGS_MAX)
        return -1;
    for (int i = 0; i < argc; i++)
        a->words[a->n++] = argv[i];
    return 0;
}

static void take(struct args *a, int at, int n)
{
    assert(at >= 0 && at + n <= a->n);
    memmove(&a->words[at], &a->words[at + n], (size_t)(a->n - at - n) * sizeof a->words[0]);
    a->n -= n;
}

/* "before word after", unless something was wrong already. */
static void wrong(struct args *a, const char *before, const char *word, const char *after)
{
    if (!a->error[0])
        snprintf(a->error, sizeof a->error, "%s%.100s%s", before, word, after);
}

bool args_flag(struct args *a, const char *name)
{
    bool found = false;
    for (int i = 0; i < a->n;) {
        if (strcmp(a->words[i], name) == 0) {
            take(a, i, 1);
            found = true;
        } else {
            i++;
        }
    }
    return found;
}

const char *args_option_next(struct args *a, const char *name)
{
    size_t n = strlen(name);
    for (int i = 0; i < a->n; i++) {
        const char *word = a->words[i];
        if (strncmp(word, name, n) != 0 || (word[n] != '\0' && word[n] != '='))
            continue;
        if (word[n] == '=') {
            take(a, i, 1);
            return word + n + 1;
        }
        if (i + 1 == a->n) {
            take(a, i, 1);
            wrong(a, "", name, " needs a value");
            return NULL;
        }
        const char *value = a->words[i + 1];
        take(a, i, 2);
        return value;
    }
    return NULL;
}

const char *args_option(struct args *a, const char *name)
{
    const char *value = NULL, *next;
    while ((next = args_option_next(a, name)))
        value = next;
    return value;
}

int64_t args_number(struct args *a, const char *name, int64_t min, int64_t max, int64_t fallback)
{
    const char *text = args_option(a, name);
    if (!text)
        return fallback;
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || v < min || v > max) {
        if (!a->error[0])
            snprintf(a->error, sizeof a->error,
                     "%s %.60s: a whole number from %" PRId64 " to %" PRId64 " is allowed", name, text, min,
                     max);
        return fallback;
    }
    return v;
}

const char *args_word(struct args *a, const char *what)
{
    if (a->n == 0) {
        wrong(a, "", what, " is missing");
        return NULL;
    }
    const char *word = a->words[0];
    if (strncmp(word, "--", 2) == 0) {
        wrong(a, "unknown option ", word, "");
        return NULL;
    }
    take(a, 0, 1);
    return word;
}

bool args_done(struct args *a)
{
    if (a->n > 0)
        wrong(a, a->words[0][0] == '-' ? "unknown option " : "unexpected word ", a->words[0], "");
    return !a->error[0];
}
