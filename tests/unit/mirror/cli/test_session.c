/* mirror/cli: what a command does when nobody is there. Real sockets of the loopback address. */
#include "mirror/cli/session.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* A bound socket: nobody else gets its port, and until it listens the port refuses. */
struct place {
    int fd;
    unsigned port;
};

static struct place place(bool listens)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&at, &n), 0);
    cr_assert(!listens || listen(fd, 8) == 0);
    return (struct place){fd, ntohs(at.sin_port)};
}

/* What a session gets that asks for the topics, and how long it took. */
static int ask(const char *bootstrap, int64_t timeout_ms, int64_t *took_ms, struct err *err)
{
    struct session *s;
    struct session_topic *topics;
    int32_t n;
    cr_assert_eq(session_open(&(struct session_address){bootstrap, NULL}, timeout_ms, &s, err), 0, "%s", err->text);
    int64_t before_us = loop_now_us(session_loop(s));
    int rc = session_topics(s, &topics, &n, err);
    *took_ms = (loop_now_us(session_loop(s)) - before_us) / 1000;
    session_close(s);
    return rc;
}

Test(session, a_refused_connection_ends_the_wait)
{
    struct place p = place(false);
    struct err err = {0};
    char at[32];
    int64_t took_ms;
    snprintf(at, sizeof at, "127.0.0.1:%u", p.port);
    cr_assert_eq(ask(at, 60000, &took_ms, &err), -E_REFUSED);
    cr_assert_lt(took_ms, 30000);
    cr_assert(strstr(err.text, at), "%s", err.text);
    close(p.fd);
}

Test(session, every_address_must_refuse)
{
    struct place a = place(false), b = place(false), silent = place(true);
    struct err err = {0};
    char at[64];
    int64_t took_ms;
    snprintf(at, sizeof at, "127.0.0.1:%u, 127.0.0.1:%u,", a.port, b.port);
    cr_assert_eq(ask(at, 60000, &took_ms, &err), -E_REFUSED);
    cr_assert_lt(took_ms, 30000);
    snprintf(at, sizeof at, "127.0.0.1:%u,127.0.0.1:%u", a.port, silent.port);
    cr_assert_eq(ask(at, 1500, &took_ms, &err), -E_TIMEOUT);
    cr_assert_geq(took_ms, 1400);
    close(a.fd);
    close(b.fd);
    close(silent.fd);
}
