/* Errors with context: filled once at the bottom, prefixed on the way up, logged once where they are handled. */
#ifndef SUNDOG_BASE_CORE_ERR_H
#define SUNDOG_BASE_CORE_ERR_H

enum {
#define ERROR(name, kafka, text) E_##name##_ORDINAL,
#include "base/core/errors.def"
#undef ERROR
    E_COUNT
};
enum {
    E_OK = 0,
#define ERROR(name, kafka, text) E_##name = E_##name##_ORDINAL + 1,
#include "base/core/errors.def"
#undef ERROR
};

#define ERR_TEXT_MAX 512

struct err {
    int code; /* 0 or -E_… */
    char text[ERR_TEXT_MAX];
};

/* Sets code and text, returns `code` (so: `return err_set(err, -E_IO, …)`). `e` may be NULL. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Puts "what: " in front of the text; returns the code. */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The plain text of a code, 0 included. */
const char *err_str(int code);
/* The negative code for an errno value of a system call. */
int err_from_errno(int errnum);

#endif
