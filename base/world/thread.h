/* A named thread with all signals blocked: signals are the main loop's business (base/runtime/signals.h). */
#ifndef SUNDOG_BASE_WORLD_THREAD_H
#define SUNDOG_BASE_WORLD_THREAD_H

#include "base/core/err.h"

#include <pthread.h>

/* `name` is cut at 15 bytes, as the kernel does. */
int thread_start(pthread_t *out, const char *name, void (*fn)(void *arg), void *arg, struct err *err);
void thread_join(pthread_t thread);

#endif
