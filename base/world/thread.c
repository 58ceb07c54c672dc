#include "base/world/thread.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct start {
    void (*fn)(void *arg);
    void *arg;
    char name[16];
};

static void *run(void *p)
{
    struct start s = *(struct start *)p;
    free(p);
    pthread_setname_np(pthread_self(), s.name);
    s.fn(s.arg);
    return NULL;
}

int thread_start(pthread_t *out, const char *name, void (*fn)(void *arg), void *arg, struct err *err)
{
    assert(out);
    assert(name);
    assert(fn);
    struct start *s = malloc(sizeof *s);
    if (!s)
        return err_set(err, -E_NOMEM, "thread %s: %s", name, err_str(-E_NOMEM));
    *s = (struct start){.fn = fn, .arg = arg};
    snprintf(s->name, sizeof s->name, "%.15s", name);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(out, NULL, run, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        return 0;
    free(s);
    return err_set(err, err_from_errno(rc), "thread %s: cannot start: %s", name, strerror(rc));
}

void thread_join(pthread_t thread)
{
    int rc = pthread_join(thread, NULL);
    assert(rc == 0);
    (void)rc;
}
