/* TLS against a real server of OpenSSL's, over real sockets, with certificates made on the spot. */
#include "base/core/bytes.h"
#include "base/world/net_posix.h"
#include "base/world/net_tls.h"

#include <criterion/criterion.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- certificates ---- */

struct identity {
    EVP_PKEY *key;
    X509 *cert;
};

static char dir[] = "/tmp/sundog-tls-XXXXXX";
static struct identity authority, other_authority, server_id, late_id, client_id;

static void add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    cr_assert_not_null(e);
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
}

/* Signed by `by`, or by itself; `names` is a subjectAltName, NULL makes an authority. */
static struct identity issue(const char *name, const struct identity *by, const char *names, long valid_s)
{
    static long serial = 1;
    struct identity id = {EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256"), X509_new()};
    const struct identity *signer = by ? by : &id;
    X509_set_version(id.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(id.cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(id.cert), valid_s);
    X509_set_pubkey(id.cert, id.key);
    X509_NAME *subject = X509_get_subject_name(id.cert);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(id.cert, X509_get_subject_name(signer->cert));
    add_extension(id.cert, signer->cert, NID_basic_constraints, names ? "CA:FALSE" : "critical,CA:TRUE");
    if (names)
        add_extension(id.cert, signer->cert, NID_subject_alt_name, names);
    cr_assert_neq(X509_sign(id.cert, signer->key, EVP_sha256()), 0);
    return id;
}

static char *path_of(const char *name)
{
    char *path;
    cr_assert_gt(asprintf(&path, "%s/%s", dir, name), 0);
    return path;
}

static void write_pem(const char *name, X509 *cert, EVP_PKEY *key, const char *password)
{
    char *path = path_of(name);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    if (cert)
        PEM_write_X509(f, cert);
    if (key)
        PEM_write_PKCS8PrivateKey(f, key, password ? EVP_aes_256_cbc() : NULL, NULL, 0, NULL,
                                  (void *)(uintptr_t)password);
    fclose(f);
    free(path);
}

static void write_pkcs12(const char *name, const char *password, X509 *own, EVP_PKEY *key, X509 *trusted)
{
    STACK_OF(X509) *others = sk_X509_new_null();
    sk_X509_push(others, trusted);
    PKCS12 *store = PKCS12_create(password, "it", key, own, others, 0, 0, 0, 0, 0);
    char *path = path_of(name);
    FILE *f = fopen(path, "w");
    cr_assert(f && store && i2d_PKCS12_fp(f, store));
    fclose(f);
    free(path);
    PKCS12_free(store);
    sk_X509_free(others);
}

/* As keytool writes it: one trusted certificate, and a digest that nobody looks at. */
static void write_jks(const char *name, X509 *trusted, size_t cut)
{
    uint8_t bytes[4096], *p = bytes;
    uint8_t *der = NULL;
    int n = i2d_X509(trusted, &der);
    const uint32_t head[] = {0xfeedfeed, 2, 1, 2};
    for (size_t i = 0; i < 4; i++, p += 4)
        be32_put(p, head[i]);
    be16_put(p, 2);
    memcpy(p + 2, "ca", 2);
    memset(p + 4, 0, 8);
    be16_put(p + 12, 5);
    memcpy(p + 14, "X.509", 5);
    be32_put(p + 19, (uint32_t)n);
    memcpy(p + 23, der, (size_t)n);
    p += 23 + n;
    memset(p, 7, 20);
    p += 20;
    OPENSSL_free(der);
    char *path = path_of(name);
    FILE *f = fopen(path, "w");
    cr_assert_eq(fwrite(bytes, 1, (size_t)(p - bytes) - cut, f), (size_t)(p - bytes) - cut);
    fclose(f);
    free(path);
}

static void end_identity(struct identity *id)
{
    EVP_PKEY_free(id->key);
    X509_free(id->cert);
}

/* ---- a server: one connection, what comes is sent back ---- */

struct server {
    pthread_t thread;
    SSL_CTX *ssl;
    int listener;
    uint16_t port;
    bool plain, abrupt;
    const char *answer; /* of a plain one */
};

static void echo(struct server *s, SSL *ssl)
{
    char bytes[5000];
    int n;
    while ((n = SSL_read(ssl, bytes, sizeof bytes)) > 0)
        if (SSL_write(ssl, bytes, n) != n)
            break;
    if (!s->abrupt)
        SSL_shutdown(ssl);
}

/* Closed with something unread, the connection is reset, and the client may not see the alert that says why. */
static void hear_out(int fd)
{
    char bytes[4096];
    shutdown(fd, SHUT_WR);
    while (read(fd, bytes, sizeof bytes) > 0)
        ;
}

static void *serve(void *arg)
{
    struct server *s = arg;
    int fd = accept(s->listener, NULL, NULL);
    if (s->plain) {
        char bytes[100];
        if (read(fd, bytes, sizeof bytes) > 0)
            (void)!write(fd, s->answer, strlen(s->answer));
    } else {
        SSL *ssl = SSL_new(s->ssl);
        SSL_set_fd(ssl, fd);
        if (SSL_accept(ssl) == 1)
            echo(s, ssl);
        else
            hear_out(fd);
        SSL_free(ssl);
    }
    close(fd);
    return NULL;
}

static void server_start(struct server *s, const struct identity *id, bool asks_client)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(s->listener, (struct sockaddr *)&a, n) | listen(s->listener, 1), 0);
    getsockname(s->listener, (struct sockaddr *)&a, &n);
    s->port = ntohs(a.sin_port);
    s->ssl = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(s->ssl, id->cert);
    SSL_CTX_use_PrivateKey(s->ssl, id->key);
    if (asks_client) {
        X509_STORE_add_cert(SSL_CTX_get_cert_store(s->ssl), authority.cert);
        SSL_CTX_set_verify(s->ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    }
    pthread_create(&s->thread, NULL, serve, s);
}

static void server_end(struct server *s)
{
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    SSL_CTX_free(s->ssl);
}

/* ---- a client ---- */

struct end {
    struct net_conn *c;
    bool connected, failed, eof;
    int code, error;
    char why[300];
    size_t to_send, sent, got, piece;
    bool wrong;
};

static struct job_pool *pool;
static struct loop_posix *lp;
static struct net *net;

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 2654435761u >> 13);
}

static void on_connected(void *arg)
{
    struct end *e = arg;
    e->connected = true;
    net_want(e->c, NET_WANT_READ | (e->to_send ? NET_WANT_WRITE : 0u));
}

static void on_failed(void *arg, int code)
{
    struct end *e = arg;
    const char *why = net_why(e->c);
    e->failed = true;
    e->code = code;
    snprintf(e->why, sizeof e->why, "%s", why ? why : "");
}

static void on_readable(void *arg)
{
    struct end *e = arg;
    uint8_t bytes[70000];
    ssize_t n = net_read(e->c, bytes, e->piece);
    for (ssize_t i = 0; i < n; i++)
        e->wrong = e->wrong || bytes[i] != byte_at(e->got + (size_t)i);
    if (n > 0) {
        e->got += (size_t)n;
    } else if (n == 0) {
        e->eof = true;
    } else if (n != -E_AGAIN) {
        const char *why = net_why(e->c);
        e->error = (int)n;
        snprintf(e->why, sizeof e->why, "%s", why ? why : "");
    }
    if (e->eof || e->error)
        net_want(e->c, NET_WANT_NONE);
}

static void on_writable(void *arg)
{
    struct end *e = arg;
    uint8_t bytes[200000];
    size_t n = e->to_send - e->sent < sizeof bytes ? e->to_send - e->sent : sizeof bytes;
    for (size_t i = 0; i < n; i++)
        bytes[i] = byte_at(e->sent + i);
    struct iovec v[2] = {{bytes, n / 3}, {bytes + n / 3, n - n / 3}};
    ssize_t done = net_writev(e->c, v, 2);
    if (done > 0)
        e->sent += (size_t)done;
    else if (done != -E_AGAIN)
        e->error = (int)done;
    net_want(e->c, NET_WANT_READ | (e->sent < e->to_send && !e->error ? NET_WANT_WRITE : 0u));
}

static const struct net_conn_events events = {on_connected, on_readable, on_writable, on_failed};

static struct end talk_on(struct net *tls, const char *host, uint16_t port, size_t bytes, size_t piece)
{
    struct end e = {.to_send = bytes, .piece = piece};
    struct err err = {0};
    cr_assert_eq(net_connect(tls, host, port, &events, &e, &e.c, &err), 0, "%s", err.text);
    int64_t until = loop_now_us(loop_posix_loop(lp)) + 30 * INT64_C(1000000);
    while (!e.failed && !e.eof && !e.error && !(e.connected && bytes && e.got == bytes) &&
           loop_now_us(loop_posix_loop(lp)) < until)
        loop_posix_turn(lp, 10000);
    net_close(e.c);
    return e;
}

static struct end talk(const struct tls_options *o, const char *host, uint16_t port, size_t bytes)
{
    struct net *tls;
    struct err err = {0};
    cr_assert_eq(net_tls_create(net, o, &tls, &err), 0, "%s", err.text);
    struct end e = talk_on(tls, host, port, bytes, 70000);
    net_tls_destroy(tls);
    return e;
}

static void setup(void)
{
    struct err err = {0};
    cr_assert_not_null(mkdtemp(dir));
    authority = issue("authority", NULL, NULL, 3600);
    other_authority = issue("another", NULL, NULL, 3600);
    server_id = issue("broker", &authority, "DNS:localhost,IP:127.0.0.1", 3600);
    late_id = issue("late", &authority, "DNS:localhost", -60);
    client_id = issue("client", &authority, "DNS:client", 3600);
    write_pem("ca.pem", authority.cert, NULL, NULL);
    write_pem("other.pem", other_authority.cert, NULL, NULL);
    write_pem("client.pem", client_id.cert, client_id.key, NULL);
    write_pem("locked.pem", client_id.cert, client_id.key, "opensesame");
    write_pkcs12("client.p12", "changeit", client_id.cert, client_id.key, authority.cert);
    write_jks("ca.jks", authority.cert, 0);
    cr_assert_eq(job_pool_create(4, &pool, &err), 0);
    cr_assert_eq(loop_posix_create(&(struct loop_posix_options){.jobs = pool}, &lp, &err), 0);
    cr_assert_eq(net_posix_create(lp, &(struct net_posix_options){0}, &net, &err), 0);
}

static void teardown(void)
{
    static const char *const files[] = {"ca.pem",     "other.pem", "client.pem", "locked.pem",
                                        "client.p12", "ca.jks",    "x"};
    struct identity *all[] = {&authority, &other_authority, &server_id, &late_id, &client_id};
    net_posix_destroy(net);
    loop_posix_destroy(lp);
    job_pool_destroy(pool);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        end_identity(all[i]);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = path_of(files[i]);
        unlink(path);
        free(path);
    }
    rmdir(dir);
}

TestSuite(tls, .init = setup, .fini = teardown, .timeout = 280);

static struct tls_options trusting(const char *file)
{
    return (struct tls_options){.trust_file = path_of(file)};
}

static struct end talk_to(const struct identity *id, bool asks_client, struct tls_options o, const char *host,
                          size_t bytes)
{
    struct server s = {0};
    server_start(&s, id, asks_client);
    struct end e = talk(&o, host, s.port, bytes);
    server_end(&s);
    free(o.trust_file);
    free(o.key_file);
    return e;
}

Test(tls, bytes_go_both_ways_by_name_and_by_address)
{
    static const char *const hosts[] = {"localhost", "127.0.0.1"};
    for (int i = 0; i < 2; i++) {
        struct end e = talk_to(&server_id, false, trusting("ca.pem"), hosts[i], 3u << 20);
        cr_assert(e.connected, "%s", e.why);
        cr_assert_eq(e.got, 3u << 20);
        cr_assert_not(e.wrong);
    }
}

Test(tls, small_reads_see_everything)
{
    struct server s = {0};
    struct tls_options o = trusting("ca.pem");
    struct net *tls;
    server_start(&s, &server_id, false);
    cr_assert_eq(net_tls_create(net, &o, &tls, NULL), 0);
    struct end e = talk_on(tls, "localhost", s.port, 100000, 7);
    cr_assert_eq(e.got, 100000);
    cr_assert_not(e.wrong);
    net_tls_destroy(tls);
    server_end(&s);
    free(o.trust_file);
}

Test(tls, an_unknown_authority_is_not_believed)
{
    struct end e = talk_to(&server_id, false, trusting("other.pem"), "localhost", 1);
    cr_assert(e.failed && !e.connected);
    cr_assert_eq(e.code, -E_ACCESS);
    cr_assert_not_null(strstr(e.why, "not trusted"), "%s", e.why);
}

Test(tls, a_certificate_for_another_host_is_not_believed)
{
    struct identity stray = issue("stray", &authority, "DNS:elsewhere", 3600);
    struct end e = talk_to(&stray, false, trusting("ca.pem"), "localhost", 1);
    cr_assert(e.failed && !e.connected);
    cr_assert_not_null(strstr(e.why, "is not for localhost"), "%s", e.why);
    struct tls_options any = trusting("ca.pem");
    any.any_host = true;
    e = talk_to(&stray, false, any, "localhost", 1);
    cr_assert(e.connected, "%s", e.why);
    end_identity(&stray);
}

Test(tls, an_expired_certificate_is_not_believed)
{
    struct end e = talk_to(&late_id, false, trusting("ca.pem"), "localhost", 1);
    cr_assert_not_null(strstr(e.why, "expired"), "%s", e.why);
}

Test(tls, a_port_without_tls_is_named)
{
    struct server s = {.plain = true, .answer = "HTTP/1.1 400 Bad Request\r\n\r\n"};
    struct tls_options o = trusting("ca.pem");
    server_start(&s, &server_id, false);
    struct end e = talk(&o, "localhost", s.port, 1);
    cr_assert(e.failed);
    cr_assert_not_null(strstr(e.why, "does not speak it on this port"), "%s", e.why);
    server_end(&s);
    s = (struct server){.plain = true, .answer = ""};
    server_start(&s, &server_id, false);
    e = talk(&o, "localhost", s.port, 1);
    cr_assert_not_null(strstr(e.why, "closed during the handshake"), "%s", e.why);
    server_end(&s);
    free(o.trust_file);
}

Test(tls, a_client_shows_its_certificate_from_each_kind_of_store)
{
    static const struct {
        const char *file, *password, *key_password;
    } stores[] = {
        {"client.pem", NULL, NULL}, {"locked.pem", NULL, "opensesame"}, {"client.p12", "changeit", NULL}};
    for (size_t i = 0; i < sizeof stores / sizeof *stores; i++) {
        struct tls_options o = trusting(i == 1 ? "ca.jks" : "ca.pem");
        o.key_file = path_of(stores[i].file);
        o.key_file_password = (char *)(uintptr_t)stores[i].password;
        o.key_password = (char *)(uintptr_t)stores[i].key_password;
        struct end e = talk_to(&server_id, true, o, "localhost", 1000);
        cr_assert_eq(e.got, 1000, "%s: %s", stores[i].file, e.why);
    }
    struct end e = talk_to(&server_id, true, trusting("ca.pem"), "localhost", 1000);
    cr_assert(e.error || e.failed);
    cr_assert_not_null(strstr(e.why, "certificate required"), "%s", e.why);
}

Test(tls, an_end_without_goodbye_is_an_end)
{
    struct server s = {.abrupt = true};
    struct tls_options o = trusting("ca.pem");
    server_start(&s, &server_id, false);
    struct end e = talk(&o, "localhost", s.port, 100000);
    cr_assert_eq(e.got, 100000);
    server_end(&s);
    free(o.trust_file);
}

Test(tls, stores_that_do_not_open_say_why)
{
    struct err err;
    struct tls_material m;
    char *jks = path_of("ca.jks"), *p12 = path_of("client.p12"), *pem = path_of("ca.pem"),
         *locked = path_of("locked.pem"), *missing = path_of("missing"), *x = path_of("x");
    write_jks("x", authority.cert, 40);
    const struct {
        struct tls_options o;
        const char *says;
    } bad[] = {
        {{.trust_file = missing}, "No such file"},
        {{.trust_file = dir}, "regular file"},
        {{.trust_file = x}, "JKS store cannot be read"},
        {{.trust_pem = (char *)(uintptr_t) "nonsense"}, "neither PEM, PKCS#12 nor JKS"},
        {{.trust_pem = (char *)(uintptr_t) "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
         "certificate"},
        {{.key_file = jks}, "keytool -importkeystore"},
        {{.key_file = p12, .key_file_password = (char *)(uintptr_t) "wrong"}, "is its password right"},
        {{.key_file = pem}, "no private key"},
        {{.key_file = locked}, "ssl.key.password"},
        {{.key_pem = (char *)(uintptr_t) "k"}, "the chain is missing"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err = (struct err){0};
        cr_assert_eq(tls_material_load(&bad[i].o, &m, &err), -E_CONFIG, "%zu", i);
        cr_assert_not_null(strstr(err.text, bad[i].says), "%zu: %s", i, err.text);
    }
    struct tls_context *c;
    struct tls_options o = {.trust_file = pem, .versions = (char *)(uintptr_t) "TLSv1.1"};
    cr_assert_eq(tls_context_create(&o, &c, &err), -E_CONFIG);
    o = (struct tls_options){.trust_file = pem, .ciphers = (char *)(uintptr_t) "TLS_NO_SUCH"};
    cr_assert_eq(tls_context_create(&o, &c, &err), -E_CONFIG);
    o.ciphers = (char *)(uintptr_t) "TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384";
    cr_assert_eq(tls_context_create(&o, &c, &err), 0, "%s", err.text);
    tls_context_destroy(c);
    char *all[] = {jks, p12, pem, locked, missing, x};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

Test(tls, changed_files_are_taken_over_and_broken_ones_are_not)
{
    struct server s = {0};
    struct net *tls;
    write_pem("x", other_authority.cert, NULL, NULL);
    struct tls_options o = trusting("x");
    cr_assert_eq(net_tls_create(net, &o, &tls, NULL), 0);
    server_start(&s, &server_id, false);
    cr_assert_not(talk_on(tls, "localhost", s.port, 10, 100).connected);
    server_end(&s);
    write_pem("x", authority.cert, NULL, NULL);
    server_start(&s, &server_id, false);
    struct end e = talk_on(tls, "localhost", s.port, 10, 100);
    cr_assert(e.connected, "the new authority: %s", e.why);
    server_end(&s);
    FILE *f = fopen(o.trust_file, "w");
    fputs("half a fi", f);
    fclose(f);
    server_start(&s, &server_id, false);
    cr_assert(talk_on(tls, "localhost", s.port, 10, 100).connected, "a broken file changes nothing");
    server_end(&s);
    net_tls_destroy(tls);
    free(o.trust_file);
}
