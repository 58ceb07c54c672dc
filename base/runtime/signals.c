#include "base/runtime/signals.h"

#include "base/world/loop_posix.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct signals {
    int fd;
    struct loop_watch *watch;
    void (*fn)(void *arg, int signo);
    void *arg;
};

static sigset_t watched(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    return set;
}

void signals_setup(void)
{
    sigset_t set = watched();
    int rc = pthread_sigmask(SIG_BLOCK, &set, NULL);
    assert(rc == 0);
    (void)rc;
    signal(SIGPIPE, SIG_IGN);
}

static void on_signal(void *arg)
{
    struct signals *s = arg;
    struct signalfd_siginfo info;
    ssize_t n = read(s->fd, &info, sizeof info);
    if (n == (ssize_t)sizeof info)
        s->fn(s->arg, (int)info.ssi_signo); /* may close `s` */
}

int signals_watch(struct loop_posix *loop, void (*fn)(void *arg, int signo), void *arg, struct signals **out,
                  struct err *err)
{
    assert(fn);
    assert(out);
    struct signals *s = malloc(sizeof *s);
    if (!s)
        return err_set(err, -E_NOMEM, "signals: %s", err_str(-E_NOMEM));
    sigset_t set = watched();
    *s = (struct signals){.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .fn = fn, .arg = arg};
    int rc = s->fd >= 0 ? loop_posix_watch(loop, s->fd, on_signal, s, &s->watch, err)
                        : err_set(err, err_from_errno(errno), "signals: no descriptor: %s", strerror(errno));
    if (rc) {
        if (s->fd >= 0)
            close(s->fd);
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void signals_close(struct signals *s)
{
    if (!s)
        return;
    loop_posix_unwatch(s->watch);
    close(s->fd);
    free(s);
}
