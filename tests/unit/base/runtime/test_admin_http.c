#include "base/runtime/admin_http.h"

#include "base/core/rng.h"
#include "base/runtime/admin_request.h"
#include "base/runtime/signals.h"
#include "base/world/clock.h"
#include "base/world/net_posix.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct loop_posix *lp;
static struct net *net;
static struct admin_http *admin;
static size_t big_bytes = 3000000;

static void fill_ok(void *arg, struct admin_reply *r)
{
    (void)arg;
    buf_printf(&r->body, "fine\n");
}

static void fill_not(void *arg, struct admin_reply *r)
{
    (void)arg;
    r->status = 503;
    buf_printf(&r->body, "no: starting\n");
}

static void fill_big(void *arg, struct admin_reply *r)
{
    (void)arg;
    uint8_t *p = buf_room(&r->body, big_bytes);
    if (p) {
        memset(p, 'b', big_bytes);
        buf_added(&r->body, big_bytes);
    }
}

static void fill_nothing(void *arg, struct admin_reply *r)
{
    (void)arg;
    (void)r;
}

static const struct admin_route routes[] = {{"/healthz", "text/plain", fill_ok},
                                            {"/status", "application/json", fill_not},
                                            {"/big", "text/plain", fill_big},
                                            {"/nothing", "text/plain", fill_nothing}};

static void setup(void)
{
    struct err err = {0};
    cr_assert_eq(loop_posix_create(&(struct loop_posix_options){0}, &lp, &err), 0);
    cr_assert_eq(net_posix_create(lp, NULL, &net, &err), 0);
    struct admin_options o = {.net = net, .host = "127.0.0.1", .routes = routes, .routes_n = 4};
    cr_assert_eq(admin_http_create(&o, &admin, &err), 0, "%s", err.text);
}

static void teardown(void)
{
    admin_http_destroy(admin);
    net_posix_destroy(net);
    loop_posix_destroy(lp);
}

TestSuite(admin_http, .init = setup, .fini = teardown);

static int dial(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(admin_http_port(admin))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* What comes back until the server closes, or, where it should not, says nothing more for 50 ms. What must come is
 * awaited for longer. Returns its bytes; *closed tells. */
static char answer[4000000];
static size_t hear(int fd, bool should_answer, bool should_close, bool *closed)
{
    size_t n = 0;
    *closed = false;
    for (int quiet = 0; quiet < (should_close || (should_answer && n == 0) ? 2000 : 10);) {
        loop_posix_turn(lp, 5000);
        ssize_t got = recv(fd, answer + n, sizeof answer - 1 - n, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno == ECONNRESET)) {
            *closed = true;
            break;
        }
        quiet = got > 0 ? 0 : quiet + 1;
        n += got > 0 ? (size_t)got : 0;
    }
    answer[n] = 0;
    return n;
}

static void expect(const char *request, const char *first_line, bool should_close)
{
    bool closed;
    int fd = dial();
    cr_assert_eq(send(fd, request, strlen(request), 0), (ssize_t)strlen(request));
    hear(fd, true, should_close, &closed);
    size_t n = strlen(first_line);
    cr_expect(strncmp(answer, first_line, n) == 0 && answer[n] == '\r', "%s gives %.60s", request, answer);
    cr_expect_eq(closed, should_close, "%s", request);
    close(fd);
}

#define HOST "Host: localhost:8080\r\n"

Test(admin_http, serves_its_routes)
{
    expect("GET /healthz HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 OK", false);
    cr_expect(strstr(answer, "Content-Type: text/plain\r\nContent-Length: 5\r\n"));
    cr_expect(strstr(answer, "\r\n\r\nfine\n"));
    expect("GET /healthz?x=%20 HTTP/1.1\r\nhOsT: 127.0.0.1\r\n\r\n", "HTTP/1.1 200 OK", false);
    expect("GET /status HTTP/1.1\r\nHost: [::1]:99\r\n\r\n", "HTTP/1.1 503 Service Unavailable", false);
    expect("HEAD /healthz HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 OK", false);
    cr_expect(strstr(answer, "Content-Length: 5\r\n") && strcmp(strstr(answer, "\r\n\r\n"), "\r\n\r\n") == 0);
    expect("GET /nothing HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 OK", false);
    expect("GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK", true);
    expect("GET /healthz HTTP/1.1\r\n" HOST "Connection: Close\r\n\r\n", "HTTP/1.1 200 OK", true);
    expect("GET /none HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 404 Not Found", true);
}

Test(admin_http, keeps_a_connection_and_takes_requests_in_pieces)
{
    bool closed;
    int fd = dial();
    const char *request = "GET /healthz HTTP/1.1\r\n" HOST "\r\n";
    for (int round = 0; round < 3; round++) {
        for (const char *c = request; *c; c++) {
            cr_assert_eq(send(fd, c, 1, 0), 1);
            loop_posix_turn(lp, 1000);
        }
        hear(fd, true, false, &closed);
        cr_expect_not(closed);
        cr_expect(strstr(answer, "fine\n"));
    }
    close(fd);
}

Test(admin_http, large_pages_leave_as_the_socket_takes_them)
{
    bool closed;
    int fd = dial();
    cr_assert(send(fd, "GET /big HTTP/1.0\r\n\r\n", 21, 0) == 21);
    usleep(1000);
    for (int i = 0; i < 5; i++)
        loop_posix_turn(lp, 1000);
    size_t n = hear(fd, true, true, &closed);
    cr_expect(closed);
    cr_expect_gt(n, big_bytes);
    cr_expect_eq(n, big_bytes + (size_t)(strstr(answer, "\r\n\r\n") + 4 - answer));
    close(fd);
    big_bytes = (size_t)ADMIN_BODY_MAX + 1;
    expect("GET /big HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 500 Internal Server Error", false);
}

Test(admin_http, odd_requests_are_refused)
{
    static const struct {
        const char *request;
        int status;
    } odd[] = {
        {"POST /healthz HTTP/1.1\r\n" HOST "\r\n", 405},
        {"get /healthz HTTP/1.1\r\n" HOST "\r\n", 405},
        {"G(T /healthz HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /healthz HTTP/2.0\r\n" HOST "\r\n", 400},
        {"GET /healthz\r\n" HOST "\r\n", 400},
        {"GET  /healthz HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET healthz HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET http://x/healthz HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /a\x01 HTTP/1.1\r\n" HOST "\r\n", 400},
        {"GET /..%2fetc%2fpasswd HTTP/1.1\r\n" HOST "\r\n", 404},
        {"GET /healthz HTTP/1.1\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\n" HOST HOST "\r\n", 400},
        {"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403},
        {"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", 403},
        {"GET /healthz HTTP/1.1\r\nHost: localhost.evil.example:80\r\n\r\n", 403},
        {"GET /healthz HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello", 400},
        {"GET /healthz HTTP/1.1\r\n" HOST "Content-Length: 0\r\nContent-Length: 5\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\n" HOST "Content-Length: +0\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n0x5\r\n", 400},
        {"GET /healthz HTTP/1.1\r\n" HOST "Bad Name: x\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\n" HOST " folded\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\n" HOST "No colon\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\n" HOST "A: b\x7f\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\n" HOST "\n\n", 400},
        {"GET /healthz HTTP/1.1\r\n" HOST "A: b\nC: d\r\n\r\n", 400},
        {"GET /healthz HTTP/1.1\r\n" HOST "\r\nGET /healthz HTTP/1.1\r\n" HOST "\r\n", 400},
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        struct admin_request q;
        struct slice in = slice_str(odd[i].request);
        int status = admin_request_parse(in, true, &q);
        if (status == 200) /* only what comes behind, or the path, is wrong */
            status = q.bytes != in.n ? 400 : 404;
        cr_expect_eq(status, odd[i].status, "%s: %d", odd[i].request, status);
    }
    expect(odd[0].request, "HTTP/1.1 405 Method Not Allowed", true);
    expect(odd[25].request, "HTTP/1.1 400 Bad Request", true);
    char big[ADMIN_HEADER_MAX + 1];
    memset(big, 'h', sizeof big - 1);
    memcpy(big, "GET / HTTP/1.1\r\nA: ", 19);
    big[sizeof big - 1] = 0;
    expect(big, "HTTP/1.1 431 Request Header Fields Too Large", true);
}

Test(admin_http, any_bytes_are_parsed_or_refused)
{
    static const char *const words[] = {
        "GET ",  "/healthz",       " HTTP/1.1", "\r\n", "Host", ": ",    "localhost", "\n", "\r",
        "HEAD ", "Content-Length", "0",         ":",    " ",    "[::1]", "127.",      "\t"};
    struct rng r;
    rng_init(&r, 5);
    for (int i = 0; i < 50000; i++) {
        char text[400] = "";
        for (uint64_t k = rng_below(&r, 20); k > 0; k--)
            strcat(text, words[rng_below(&r, sizeof words / sizeof *words)]);
        size_t n = strlen(text);
        uint8_t *exact = malloc(n); /* so that the sanitizer sees a read past the end */
        memcpy(exact, text, n);
        struct admin_request q;
        int status = admin_request_parse(slice_of(exact, n), i % 2, &q);
        cr_assert(status == 200 || status == ADMIN_REQUEST_PARTIAL || (status >= 400 && q.why));
        free(exact);
    }
}

Test(admin_http, connections_are_bounded)
{
    int fds[ADMIN_CONNECTIONS_MAX + 1];
    for (int i = 0; i <= ADMIN_CONNECTIONS_MAX; i++) {
        fds[i] = dial();
        loop_posix_turn(lp, 5000);
    }
    bool closed;
    hear(fds[ADMIN_CONNECTIONS_MAX], false, true, &closed);
    cr_expect(closed);
    hear(fds[0], false, false, &closed);
    cr_expect_not(closed);
    close(fds[0]);
    for (int i = 0; i < 20; i++) /* until the server has heard of that */
        loop_posix_turn(lp, 5000);
    expect("GET /healthz HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 OK", false);
    for (int i = 1; i <= ADMIN_CONNECTIONS_MAX; i++)
        close(fds[i]);
}

Test(admin_http, only_loopback_unless_told)
{
    struct admin_http *a = NULL;
    struct err err = {0};
    struct admin_options o = {.net = net, .host = "0.0.0.0"};
    cr_expect_eq(admin_http_create(&o, &a, &err), -E_CONFIG);
    cr_expect(strstr(err.text, "sundog.insecure=true"));
    o.anywhere = true;
    cr_expect_eq(admin_http_create(&o, &a, &err), 0, "%s", err.text);
    admin_http_destroy(a);
    o = (struct admin_options){.net = net, .host = "127.0.0.1", .port = admin_http_port(admin)};
    cr_expect_eq(admin_http_create(&o, &a, &err), -E_BUSY);

    char host[ADMIN_HOST_MAX];
    uint16_t port;
    cr_expect_eq(admin_listener_parse("127.0.0.1:8080", host, &port, &err), 0);
    cr_expect(strcmp(host, "127.0.0.1") == 0 && port == 8080);
    cr_expect_eq(admin_listener_parse("[::1]:0", host, &port, &err), 0);
    cr_expect_str_eq(host, "::1");
    cr_expect_eq(admin_listener_parse(":80", host, &port, &err), 0);
    cr_expect_str_eq(host, "");
    cr_expect_eq(admin_listener_parse("::1:80", host, &port, &err), -E_CONFIG);
    cr_expect_eq(admin_listener_parse("localhost", host, &port, &err), -E_CONFIG);
    cr_expect_eq(admin_listener_parse("localhost:65536", host, &port, &err), -E_CONFIG);
    cr_expect_eq(admin_listener_parse("localhost:8x", host, &port, &err), -E_CONFIG);
    cr_expect_eq(admin_listener_parse("localhost:", host, &port, &err), -E_CONFIG);
}

static int caught[3], caught_n;
static void on_signal(void *arg, int signo)
{
    (void)arg;
    caught[caught_n++] = signo;
}

Test(admin_http, signals_come_as_events_of_the_loop)
{
    struct signals *s;
    struct err err = {0};
    signals_setup();
    cr_assert_eq(signals_watch(lp, on_signal, NULL, &s, &err), 0, "%s", err.text);
    kill(getpid(), SIGTERM);
    kill(getpid(), SIGHUP);
    kill(getpid(), SIGPIPE);
    for (int i = 0; i < 500 && caught_n < 2; i++)
        loop_posix_turn(lp, 10000);
    for (int i = 0; i < 2; i++)
        loop_posix_turn(lp, 10000); /* for one too many */
    cr_expect_eq(caught_n, 2);
    cr_expect_eq(caught[0] + caught[1], SIGTERM + SIGHUP);
    signals_close(s);
}
