/* One TLS connection over one of the inner net:
 *
 *   connecting ─► handshake ─► open ─► broken
 *
 * Reading goes straight to the inner connection (a BIO of our own). Writing encrypts into `out` first and sends from
 * there: so a write that was taken is never asked for again with other bytes, which OpenSSL would not forgive when a
 * caller has changed its mind meanwhile. */
#include "base/world/net_tls.h"

#include "base/core/buf.h"

#include <arpa/inet.h>
#include <assert.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>

enum tls_state { TLS_CONNECTING, TLS_HANDSHAKE, TLS_OPEN, TLS_BROKEN };

#define TLS_MAGIC     0x746c7363u
#define TLS_CHUNK_MAX ((size_t)64 * 1024) /* encrypted of one call, before it is sent */

struct net_tls {
    struct net base; /* first */
    struct net *inner;
    const struct tls_options *options;
    struct tls_context *context;
    BIO_METHOD *method;
    unsigned open;
};

struct tls_conn {
    struct net_conn base; /* first */
    unsigned magic;
    enum tls_state state;
    struct net_tls *net;
    struct net_conn *inner;
    SSL *ssl;
    const struct net_conn_events *events;
    void *arg;
    unsigned want;
    struct loop_timer again; /* decrypted bytes are waiting */
    struct buf out;          /* encrypted, from out_at on not yet sent */
    size_t out_at;
    int failure; /* -E_…, once broken */
    char why[ERR_TEXT_MAX / 2];
};

static struct net_tls *net_of(struct net *n)
{
    return (struct net_tls *)n;
}

static struct tls_conn *of(struct net_conn *base)
{
    struct tls_conn *c = (struct tls_conn *)base;
    assert(c->magic == TLS_MAGIC);
    return c;
}

/* ---- bytes between OpenSSL and the inner connection ---- */

static int bio_read(BIO *b, char *to, size_t n, size_t *got)
{
    struct tls_conn *c = BIO_get_data(b);
    ssize_t rc = net_read(c->inner, to, n);
    BIO_clear_retry_flags(b);
    *got = rc > 0 ? (size_t)rc : 0;
    if (rc == -E_AGAIN)
        BIO_set_retry_read(b);
    else if (rc < 0)
        c->failure = (int)rc;
    return rc > 0;
}

static int bio_write(BIO *b, const char *p, size_t n, size_t *put)
{
    struct tls_conn *c = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    *put = 0;
    buf_put(&c->out, p, n);
    if (c->out.failed) {
        c->failure = -E_NOMEM;
        return 0;
    }
    *put = n;
    return 1;
}

static long bio_ctrl(BIO *b, int what, long number, void *p)
{
    (void)b;
    (void)number;
    (void)p;
    return what == BIO_CTRL_FLUSH ? 1 : 0;
}

static int bio_create(BIO *b)
{
    BIO_set_init(b, 1);
    return 1;
}

/* What of `out` the socket takes. 0, -E_AGAIN, or the error that ends the connection. */
static int send_out(struct tls_conn *c)
{
    struct slice all = buf_slice(&c->out);
    assert(c->out_at <= all.n);
    while (c->out_at < all.n) {
        struct iovec v = {(void *)(uintptr_t)(all.p + c->out_at), all.n - c->out_at};
        ssize_t n = net_writev(c->inner, &v, 1);
        if (n < 0)
            return (int)n;
        c->out_at += (size_t)n;
    }
    buf_clear(&c->out);
    c->out_at = 0;
    return 0;
}

static size_t unsent(const struct tls_conn *c)
{
    return buf_slice(&c->out).n - c->out_at;
}

static void set_wants(struct tls_conn *c)
{
    unsigned want = NET_WANT_NONE;
    if (c->state == TLS_CONNECTING || c->state == TLS_BROKEN)
        return;
    if (c->state == TLS_HANDSHAKE || (c->want & NET_WANT_READ))
        want |= NET_WANT_READ;
    if (unsent(c) || (c->state == TLS_OPEN && (c->want & NET_WANT_WRITE)))
        want |= NET_WANT_WRITE;
    net_want(c->inner, want);
}

/* ---- what went wrong ---- */

static void say_why(struct tls_conn *c)
{
    bool refused =
        c->state == TLS_HANDSHAKE || ERR_peek_last_error(); /* an alert may come after the handshake */
    long verify = SSL_get_verify_result(c->ssl);
    unsigned long e = ERR_peek_last_error();
    const char *reason = e ? ERR_reason_error_string(e) : NULL;
    const char *host = SSL_get_servername(c->ssl, TLSEXT_NAMETYPE_host_name);
    if (verify == X509_V_ERR_HOSTNAME_MISMATCH || verify == X509_V_ERR_IP_ADDRESS_MISMATCH)
        snprintf(c->why, sizeof c->why,
                 "TLS: the broker's certificate is not for %.100s (ssl.endpoint.identification.algorithm)",
                 host ? host : "this address");
    else if (verify != X509_V_OK)
        snprintf(c->why, sizeof c->why,
                 "TLS: the broker's certificate is not trusted: %.100s (ssl.truststore)",
                 X509_verify_cert_error_string(verify));
    else if (c->state == TLS_HANDSHAKE && ERR_GET_REASON(e) == SSL_R_WRONG_VERSION_NUMBER)
        snprintf(c->why, sizeof c->why, "TLS: the broker does not speak it on this port (security.protocol)");
    else if (reason)
        snprintf(c->why, sizeof c->why, "TLS: %.150s", reason);
    else
        snprintf(c->why, sizeof c->why, "TLS: %s%s", c->failure ? err_str(c->failure) : "the broker closed",
                 c->state == TLS_HANDSHAKE ? " during the handshake" : "");
    c->failure = c->failure ? c->failure : refused ? -E_ACCESS : -E_CLOSED;
    ERR_clear_error();
}

/* From here on every call answers with the failure; a reader is woken to learn it. */
static void broken(struct tls_conn *c)
{
    say_why(c);
    c->state = TLS_BROKEN;
    if (!c->again.armed)
        loop_timer_in(&c->again, 0);
}

/* ---- handshake ---- */

static void shake(struct tls_conn *c)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(c->ssl);
    int error = SSL_get_error(c->ssl, rc);
    int sent = send_out(c);
    if (rc == 1) {
        c->state = TLS_OPEN;
        set_wants(c);
        c->events->connected(c->arg);
        return;
    }
    bool waits =
        (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) && (!sent || sent == -E_AGAIN);
    if (waits) {
        set_wants(c);
        return;
    }
    if (sent && sent != -E_AGAIN)
        c->failure = sent;
    broken(c);
    loop_timer_stop(&c->again);
    net_want(c->inner, NET_WANT_NONE);
    c->events->failed(c->arg, c->failure);
}

/* ---- the inner connection's events ---- */

static void inner_connected(void *arg)
{
    struct tls_conn *c = arg;
    assert(c->state == TLS_CONNECTING);
    c->state = TLS_HANDSHAKE;
    shake(c);
}

static void inner_readable(void *arg)
{
    struct tls_conn *c = arg;
    if (c->state == TLS_HANDSHAKE)
        shake(c);
    else if (c->want & NET_WANT_READ)
        c->events->readable(c->arg);
    else
        set_wants(c);
}

static void inner_writable(void *arg)
{
    struct tls_conn *c = arg;
    if (c->state == TLS_HANDSHAKE) {
        shake(c);
        return;
    }
    int rc = send_out(c);
    if (rc && rc != -E_AGAIN) {
        c->failure = rc;
        broken(c);
    }
    if (!rc && (c->want & NET_WANT_WRITE))
        c->events->writable(c->arg);
    else
        set_wants(c);
}

static void inner_failed(void *arg, int code)
{
    struct tls_conn *c = arg;
    c->failure = code;
    c->state = TLS_BROKEN;
    snprintf(c->why, sizeof c->why, "%s", err_str(code));
    c->events->failed(c->arg, code);
}

static const struct net_conn_events inner_events = {inner_connected, inner_readable, inner_writable,
                                                    inner_failed};

static void on_again(void *arg)
{
    struct tls_conn *c = arg;
    if (c->state >= TLS_OPEN && (c->want & NET_WANT_READ))
        c->events->readable(c->arg);
    else if (c->state == TLS_BROKEN && (c->want & NET_WANT_WRITE))
        c->events->writable(c->arg);
}

/* ---- the net's calls ---- */

static int expect_host(SSL *ssl, const struct tls_options *o, const char *host)
{
    struct in6_addr address;
    bool numeric = inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
    if (!numeric && !SSL_set_tlsext_host_name(ssl, host))
        return 0;
    if (o->any_host)
        return 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return numeric ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) : SSL_set1_host(ssl, host);
}

static void free_conn(struct tls_conn *c)
{
    SSL_free(c->ssl); /* the BIO with it */
    buf_fini(&c->out);
    c->magic = 0;
    free(c);
}

static int prepare(struct tls_conn *c, const struct tls_options *o, const char *host, struct err *err)
{
    struct err stale = {0}; /* files that have become unreadable: the old ones go on */
    c->ssl = tls_context_session(c->net->context, &stale);
    BIO *bio = c->ssl ? BIO_new(c->net->method) : NULL;
    if (!bio)
        return err_set(err, -E_NOMEM, "TLS to %s: %s", host, err_str(-E_NOMEM));
    BIO_set_data(bio, c);
    SSL_set_bio(c->ssl, bio, bio);
    SSL_set_connect_state(c->ssl);
    return expect_host(c->ssl, o, host) ? 0 : err_set(err, -E_INVALID, "TLS to %s: not a host's name", host);
}

static int connect_(struct net *net, const char *host, uint16_t port, const struct net_conn_events *events,
                    void *arg, struct net_conn **out, struct err *err)
{
    struct net_tls *n = net_of(net);
    struct tls_conn *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(err, -E_NOMEM, "connect to %s:%u: %s", host, (unsigned)port, err_str(-E_NOMEM));
    *c = (struct tls_conn){.base = {net}, .magic = TLS_MAGIC, .net = n, .events = events, .arg = arg};
    buf_init(&c->out, NET_TLS_OUT_BYTES);
    loop_timer_init(&c->again, net->loop, on_again, c);
    int rc = prepare(c, n->options, host, err);
    if (!rc)
        rc = net_connect(n->inner, host, port, &inner_events, c, &c->inner, err);
    if (rc) {
        free_conn(c);
        return rc;
    }
    n->open++;
    *out = &c->base;
    return 0;
}

static void set_events(struct net_conn *base, const struct net_conn_events *events, void *arg)
{
    struct tls_conn *c = of(base);
    c->events = events;
    c->arg = arg;
}

static void want(struct net_conn *base, unsigned what)
{
    struct tls_conn *c = of(base);
    bool more = what & ~c->want;
    c->want = what;
    set_wants(c);
    if (more && (c->state == TLS_BROKEN || (c->state == TLS_OPEN && SSL_has_pending(c->ssl))) &&
        !c->again.armed)
        loop_timer_in(&c->again, 0);
}

/* Until the room is full or the socket is empty: a record holds 16 KiB at most, and OpenSSL reads ahead. */
static ssize_t read_(struct net_conn *base, void *p, size_t n)
{
    struct tls_conn *c = of(base);
    size_t have = 0;
    if (c->state != TLS_OPEN)
        return c->failure ? c->failure : -E_AGAIN;
    while (have < n) {
        size_t got = 0;
        ERR_clear_error();
        int rc = SSL_read_ex(c->ssl, (char *)p + have, n - have, &got);
        have += got;
        if (rc == 1)
            continue;
        int error = SSL_get_error(c->ssl, rc);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
            break;
        if (error == SSL_ERROR_ZERO_RETURN)
            return (ssize_t)have;
        broken(c);
        return have ? (ssize_t)have : c->failure;
    }
    (void)send_out(c); /* answers to key updates; what fails shows in the next write */
    if (have == n && (c->want & NET_WANT_READ) && !c->again.armed)
        loop_timer_in(&c->again, 0);
    set_wants(c);
    return have ? (ssize_t)have : -E_AGAIN;
}

static int encrypt(struct tls_conn *c, const struct iovec *v, int n, size_t *taken)
{
    for (int i = 0; i < n && *taken < TLS_CHUNK_MAX; i++)
        for (size_t at = 0; at < v[i].iov_len && *taken < TLS_CHUNK_MAX;) {
            size_t put = 0, left = v[i].iov_len - at;
            size_t room = TLS_CHUNK_MAX - *taken;
            ERR_clear_error();
            int rc = SSL_write_ex(c->ssl, (const char *)v[i].iov_base + at, left < room ? left : room, &put);
            if (rc != 1) {
                broken(c);
                return c->failure;
            }
            at += put;
            *taken += put;
        }
    return 0;
}

static ssize_t writev_(struct net_conn *base, const struct iovec *v, int n)
{
    struct tls_conn *c = of(base);
    size_t taken = 0;
    if (c->state != TLS_OPEN)
        return c->failure ? c->failure : -E_AGAIN;
    int rc = send_out(c);
    if (rc)
        return rc;
    rc = encrypt(c, v, n, &taken);
    if (rc)
        return rc;
    rc = send_out(c);
    if (rc && rc != -E_AGAIN)
        return rc;
    set_wants(c);
    return (ssize_t)taken;
}

static void peer(struct net_conn *base, char out[NET_ADDRESS_MAX])
{
    net_peer(of(base)->inner, out);
}

static const char *why(struct net_conn *base)
{
    const struct tls_conn *c = of(base);
    return c->why[0] ? c->why : NULL;
}

static void close_(struct net_conn *base)
{
    struct tls_conn *c = of(base);
    assert(c->net->open > 0);
    if (c->state == TLS_OPEN) { /* close_notify, as far as the socket takes it */
        ERR_clear_error();
        (void)SSL_shutdown(c->ssl);
        (void)send_out(c);
        ERR_clear_error();
    }
    loop_timer_stop(&c->again);
    net_close(c->inner);
    c->net->open--;
    free_conn(c);
}

static const struct net_ops ops = {.connect = connect_,
                                   .set_events = set_events,
                                   .want = want,
                                   .read = read_,
                                   .writev = writev_,
                                   .peer = peer,
                                   .why = why,
                                   .close = close_};

int net_tls_create(struct net *inner, const struct tls_options *o, struct net **out, struct err *err)
{
    *out = NULL;
    struct net_tls *n = calloc(1, sizeof *n);
    if (!n)
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    *n = (struct net_tls){.base = {&ops, inner->loop}, .inner = inner, .options = o};
    int rc = tls_context_create(o, &n->context, err);
    n->method = rc ? NULL : BIO_meth_new(BIO_TYPE_SOURCE_SINK, "net");
    if (!rc && (!n->method || !BIO_meth_set_read_ex(n->method, bio_read) ||
                !BIO_meth_set_write_ex(n->method, bio_write) || !BIO_meth_set_ctrl(n->method, bio_ctrl) ||
                !BIO_meth_set_create(n->method, bio_create)))
        rc = err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    if (rc) {
        net_tls_destroy(&n->base);
        return rc;
    }
    *out = &n->base;
    return 0;
}

void net_tls_destroy(struct net *net)
{
    if (!net)
        return;
    struct net_tls *n = net_of(net);
    assert(n->open == 0);
    BIO_meth_free(n->method);
    tls_context_destroy(n->context);
    free(n);
}
