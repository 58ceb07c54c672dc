/* SIGTERM and SIGINT as an event of the main loop, SIGHUP (reload) too; SIGPIPE ignored.
 * signals_setup before any thread starts; the watch lives as long as its loop and is its thread's. */
#ifndef SUNDOG_BASE_RUNTIME_SIGNALS_H
#define SUNDOG_BASE_RUNTIME_SIGNALS_H

#include "base/core/err.h"

struct loop_posix;
struct signals;

/* SIGPIPE is ignored, the watched ones are blocked for this thread and all it starts from now on. */
void signals_setup(void);
/* `fn(arg, signo)` runs on the loop's thread for SIGTERM, SIGINT and SIGHUP. */
int signals_watch(struct loop_posix *loop, void (*fn)(void *arg, int signo), void *arg, struct signals **out,
                  struct err *err);
void signals_close(struct signals *s);

#endif
