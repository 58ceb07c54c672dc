#include "base/runtime/admin_request.h"

#include <assert.h>
#include <strings.h>

struct lines {
    const char *p, *end;
};

static int bad(struct admin_request *out, int status, const char *why)
{
    out->why = why;
    return status;
}

/* The next line without its CRLF; a null slice when a bare LF, CR or NUL stands in it. */
static struct slice next_line(struct lines *l)
{
    const char *from = l->p;
    for (const char *c = from; c + 1 < l->end; c++) {
        if (c[0] == '\r' && c[1] == '\n') {
            l->p = c + 2;
            return slice_of(from, (size_t)(c - from));
        }
        if (*c == '\n' || *c == '\r' || *c == 0)
            break;
    }
    return SLICE_NULL;
}

/* A token of RFC 9110: what names and methods are made of. */
static bool is_token(struct slice s)
{
    assert(s.p || s.n == 0);
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] >= 0x7F || strchr("\"(),/:;<=>?@[\\]{}", s.p[i]))
            return false;
    return s.n > 0;
}

static bool same_word(struct slice s, const char *word)
{
    return s.n == strlen(word) && strncasecmp((const char *)s.p, word, s.n) == 0;
}

/* "GET /path?query HTTP/1.1" */
static int parse_request_line(struct slice line, struct admin_request *out, bool *http11)
{
    const uint8_t *end = line.p + line.n;
    const uint8_t *first = memchr(line.p, ' ', line.n);
    const uint8_t *second = first ? memchr(first + 1, ' ', (size_t)(end - first - 1)) : NULL;
    if (!second)
        return bad(out, 400, "the request line is not METHOD PATH VERSION");
    struct slice method = slice_of(line.p, (size_t)(first - line.p));
    struct slice target = slice_of(first + 1, (size_t)(second - first - 1));
    struct slice version = slice_of(second + 1, (size_t)(end - second - 1));
    *http11 = slice_eq_str(version, "HTTP/1.1");
    if (!*http11 && !slice_eq_str(version, "HTTP/1.0"))
        return bad(out, 400, "the version is not HTTP/1.0 or HTTP/1.1");
    if (!is_token(method))
        return bad(out, 400, "the method is not a word");
    out->head_only = slice_eq_str(method, "HEAD");
    if (!out->head_only && !slice_eq_str(method, "GET"))
        return bad(out, 405, "only GET and HEAD are served here");
    if (target.n == 0 || target.p[0] != '/')
        return bad(out, 400, "the path does not start with /");
    for (size_t i = 0; i < target.n; i++)
        if (target.p[i] <= ' ' || target.p[i] >= 0x7F || target.p[i] == '#')
            return bad(out, 400, "the path has bytes that a path may not have");
    const uint8_t *query = memchr(target.p, '?', target.n);
    out->path = slice_of(target.p, query ? (size_t)(query - target.p) : target.n);
    return 200;
}

static struct slice trim(struct slice s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s = slice_of(s.p + 1, s.n - 1);
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* Name or address of a Host value, its port dropped. */
static bool host_is_loopback(struct slice host)
{
    const uint8_t *colon = NULL;
    for (size_t i = host.n; i > 0 && !colon; i--)
        if (host.p[i - 1] == ':')
            colon = host.p + i - 1;
        else if (host.p[i - 1] < '0' || host.p[i - 1] > '9')
            break;
    struct slice name = slice_of(host.p, colon ? (size_t)(colon - host.p) : host.n);
    if (same_word(name, "localhost") || slice_eq_str(name, "[::1]"))
        return true;
    if (name.n < 5 || memcmp(name.p, "127.", 4) != 0)
        return false;
    for (size_t i = 0; i < name.n; i++) /* an address: 127.evil.example is a name */
        if ((name.p[i] < '0' || name.p[i] > '9') && name.p[i] != '.')
            return false;
    return true;
}

struct headers {
    unsigned hosts;
    struct slice host;
};

static int parse_header(struct slice line, struct headers *h, struct admin_request *out)
{
    const uint8_t *colon = memchr(line.p, ':', line.n);
    struct slice name = slice_of(line.p, colon ? (size_t)(colon - line.p) : 0);
    if (!colon || !is_token(name)) /* folded lines too */
        return bad(out, 400, "a header line is not NAME: VALUE");
    struct slice value = trim(slice_of(colon + 1, line.n - name.n - 1));
    for (size_t i = 0; i < value.n; i++)
        if ((value.p[i] < ' ' && value.p[i] != '\t') || value.p[i] == 0x7F)
            return bad(out, 400, "a header has control bytes");
    if (same_word(name, "Host")) {
        h->hosts++;
        h->host = value;
    } else if (same_word(name, "Connection")) {
        if (same_word(value, "close"))
            out->close = true;
    } else if (same_word(name, "Transfer-Encoding") ||
               (same_word(name, "Content-Length") && !slice_eq_str(value, "0"))) {
        return bad(out, 400, "a request with a body is not served here");
    }
    return 200;
}

int admin_request_parse(struct slice in, bool loopback, struct admin_request *out)
{
    assert(out);
    assert(in.p);
    *out = (struct admin_request){0};
    struct lines l = {(const char *)in.p, (const char *)in.p + in.n};
    const void *blank = memmem(in.p, in.n, "\r\n\r\n", 4);
    if (!blank) { /* a client that sends bare line ends would never get an answer */
        if (memmem(in.p, in.n, "\n\n", 2) || memchr(in.p, 0, in.n))
            return bad(out, 400, "lines must end in CR LF");
        return ADMIN_REQUEST_PARTIAL;
    }
    out->bytes = (size_t)((const uint8_t *)blank + 4 - in.p);
    l.end = (const char *)in.p + out->bytes;

    bool http11 = false;
    struct headers h = {0};
    struct slice line = next_line(&l);
    int status = slice_is_null(line) ? bad(out, 400, "lines must end in CR LF")
                                     : parse_request_line(line, out, &http11);
    for (unsigned n = 0; status == 200; n++) {
        line = next_line(&l);
        if (slice_is_null(line))
            return bad(out, 400, "lines must end in CR LF");
        if (line.n == 0)
            break;
        status = n < ADMIN_LINES_MAX ? parse_header(line, &h, out) : bad(out, 431, "too many header lines");
    }
    if (status != 200)
        return status;
    if (h.hosts > 1 || (http11 && h.hosts == 0))
        return bad(out, 400, "exactly one Host header is needed");
    if (loopback && h.hosts && !host_is_loopback(h.host))
        return bad(out, 403, "this port answers to loopback names only");
    out->close = out->close || !http11;
    assert(l.p == l.end);
    return 200;
}
