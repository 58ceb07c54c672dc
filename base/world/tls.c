#include "base/world/tls.h"

#include "base/world/tls_store.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* What tells a file from its successor. */
struct mark {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct tls_context {
    const struct tls_options *o;
    SSL_CTX *ssl;
    struct mark trust, key;
    unsigned reloads;
};

/* ---- material ---- */

void tls_wipe(char **text)
{
    if (*text)
        OPENSSL_cleanse(*text, strlen(*text));
    free(*text);
    *text = NULL;
}

void tls_material_fini(struct tls_material *m)
{
    tls_wipe(&m->trust);
    tls_wipe(&m->chain);
    tls_wipe(&m->key);
}

/* What a BIO has collected, as text of our own; NULL out of memory. */
static char *text_of(BIO *b)
{
    char *p = NULL;
    long n = BIO_get_mem_data(b, &p);
    return n >= 0 ? strndup(p ? p : "", (size_t)n) : NULL;
}

static int load_trust(const struct tls_options *o, struct tls_material *out, struct err *err)
{
    char *bytes = o->trust_pem;
    size_t n = bytes ? strlen(bytes) : 0;
    if (!o->trust_pem && !o->trust_file)
        return 0;
    if (!bytes) {
        int rc = tls_file_read(o->trust_file, &bytes, &n, err);
        if (rc)
            return err_wrap(err, "ssl.truststore.location");
    }
    BIO *to = BIO_new(BIO_s_mem());
    int rc = !to ? err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM))
                 : tls_store_trust(o->trust_pem ? "ssl.truststore.certificates" : o->trust_file, bytes, n,
                                   o->trust_password, to, err);
    if (!rc && BIO_pending(to) == 0)
        rc = err_set(err, -E_CONFIG, "%s: no certificate in it",
                     o->trust_pem ? "ssl.truststore.certificates" : o->trust_file);
    if (!rc && !(out->trust = text_of(to)))
        rc = err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    BIO_free(to);
    if (bytes != o->trust_pem)
        free(bytes);
    return rc;
}

static int load_key_pair(const struct tls_options *o, BIO *chain, BIO *key, struct err *err)
{
    if (o->key_pem && o->chain_pem) {
        char *both = NULL;
        int n = asprintf(&both, "%s\n%s\n", o->chain_pem, o->key_pem);
        if (n < 0)
            return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
        int rc = tls_store_key("ssl.keystore.key", both, (size_t)n, NULL, o->key_password, chain, key, err);
        tls_wipe(&both);
        return rc;
    }
    char *bytes;
    size_t n;
    int rc = tls_file_read(o->key_file, &bytes, &n, err);
    if (rc)
        return err_wrap(err, "ssl.keystore.location");
    rc = tls_store_key(o->key_file, bytes, n, o->key_file_password, o->key_password, chain, key, err);
    OPENSSL_cleanse(bytes, n);
    free(bytes);
    return rc;
}

static int load_key(const struct tls_options *o, struct tls_material *out, struct err *err)
{
    if (!o->key_file && !o->key_pem && !o->chain_pem)
        return 0;
    if (!o->key_file && (!o->key_pem || !o->chain_pem))
        return err_set(err, -E_CONFIG,
                       "ssl.keystore.key and ssl.keystore.certificate.chain belong together: %s is missing",
                       o->key_pem ? "the chain" : "the key");
    BIO *chain = BIO_new(BIO_s_mem()), *key = BIO_new(BIO_s_secmem());
    int rc =
        chain && key ? load_key_pair(o, chain, key, err) : err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    if (!rc && (!(out->chain = text_of(chain)) || !(out->key = text_of(key))))
        rc = err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    BIO_free(chain);
    BIO_free(key);
    return rc;
}

int tls_material_load(const struct tls_options *o, struct tls_material *out, struct err *err)
{
    *out = (struct tls_material){0};
    int rc = load_trust(o, out, err);
    if (!rc)
        rc = load_key(o, out, err);
    if (rc)
        tls_material_fini(out);
    return rc;
}

/* ---- contexts ---- */

static int add_trust(SSL_CTX *ssl, const char *pem, struct err *err)
{
    if (!pem)
        return SSL_CTX_set_default_verify_paths(ssl) ? 0
                                                     : tls_error(err, -E_CONFIG, "the system's authorities");
    BIO *from = BIO_new_mem_buf(pem, -1);
    X509_STORE *store = SSL_CTX_get_cert_store(ssl);
    X509 *x;
    int good = from != NULL;
    while (good && (x = PEM_read_bio_X509(from, NULL, NULL, NULL))) {
        good = X509_STORE_add_cert(store, x);
        X509_free(x);
    }
    BIO_free(from);
    ERR_clear_error(); /* the end of the text is an error to it */
    return good ? 0 : err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
}

static int add_key(SSL_CTX *ssl, const struct tls_material *m, struct err *err)
{
    if (!m->key)
        return 0;
    BIO *chain = BIO_new_mem_buf(m->chain, -1), *key = BIO_new_mem_buf(m->key, -1);
    X509 *own = chain ? PEM_read_bio_X509(chain, NULL, NULL, NULL) : NULL, *next;
    EVP_PKEY *private = key ? PEM_read_bio_PrivateKey(key, NULL, NULL, NULL) : NULL;
    int good = own && private && SSL_CTX_use_certificate(ssl, own);
    while (good && (next = PEM_read_bio_X509(chain, NULL, NULL, NULL)))
        good = SSL_CTX_add0_chain_cert(ssl, next) == 1;
    if (good)
        ERR_clear_error();
    good = good && SSL_CTX_use_PrivateKey(ssl, private) && SSL_CTX_check_private_key(ssl);
    X509_free(own);
    EVP_PKEY_free(private);
    BIO_free(chain);
    BIO_free(key);
    return good ? 0 : tls_error(err, -E_CONFIG, "ssl.keystore: certificate and key do not go together");
}

/* "TLSv1.2,TLSv1.3" as a range; what is older is never spoken. */
static int set_versions(SSL_CTX *ssl, const char *list, struct err *err)
{
    bool two = !list || !*list || strstr(list, "TLSv1.2"), three = !list || !*list || strstr(list, "TLSv1.3");
    if (list && strcmp(list, "TLS") == 0)
        two = three = true;
    if (!two && !three)
        return err_set(err, -E_CONFIG, "ssl.enabled.protocols = %s: served are TLSv1.2 and TLSv1.3", list);
    return SSL_CTX_set_min_proto_version(ssl, two ? TLS1_2_VERSION : TLS1_3_VERSION) &&
                   SSL_CTX_set_max_proto_version(ssl, three ? TLS1_3_VERSION : TLS1_2_VERSION)
               ? 0
               : tls_error(err, -E_CONFIG, "ssl.enabled.protocols");
}

/* Java lists all suites in one key; OpenSSL keeps those of TLS 1.3 apart, and knows the others by IANA's names only
 * one by one. */
static int set_ciphers(SSL_CTX *ssl, const char *list, struct err *err)
{
    char old[2048] = "", new[1024] = "";
    for (const char *at = list ? list : ""; *at;) {
        size_t n = strcspn(at, ", :"), used = 0;
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)n, at);
        bool tls13 = strncmp(name, "TLS_AES", 7) == 0 || strncmp(name, "TLS_CHACHA", 10) == 0;
        const char *its = !tls13 && strncmp(name, "TLS_", 4) == 0 ? OPENSSL_cipher_name(name) : name;
        char *to = tls13 ? new : old;
        used = strlen(to);
        if (n)
            snprintf(to + used, (tls13 ? sizeof new : sizeof old) - used, "%s%s", used ? ":" : "", its);
        at += n + strspn(at + n, ", :");
    }
    bool good = (!*old || SSL_CTX_set_cipher_list(ssl, old)) && (!*new || SSL_CTX_set_ciphersuites(ssl, new));
    return good ? 0 : tls_error(err, -E_CONFIG, "ssl.cipher.suites");
}

static int make(const struct tls_options *o, SSL_CTX **out, struct err *err)
{
    struct tls_material m;
    int rc = tls_material_load(o, &m, err);
    if (rc)
        return rc;
    SSL_CTX *ssl = SSL_CTX_new(TLS_client_method());
    rc = ssl ? set_versions(ssl, o->versions, err) : tls_error(err, -E_NOMEM, "TLS");
    if (!rc)
        rc = set_ciphers(ssl, o->ciphers, err);
    if (!rc)
        rc = add_trust(ssl, m.trust, err);
    if (!rc)
        rc = add_key(ssl, &m, err);
    tls_material_fini(&m);
    if (rc) {
        SSL_CTX_free(ssl);
        return rc;
    }
    SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_read_ahead(ssl, 1);
    *out = ssl;
    return 0;
}

static struct mark mark_of(const char *path)
{
    struct stat st;
    if (!path || stat(path, &st))
        return (struct mark){0};
    return (struct mark){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
}

static bool same(const struct mark *a, const struct mark *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

int tls_context_create(const struct tls_options *o, struct tls_context **out, struct err *err)
{
    *out = NULL;
    struct tls_context *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    *c = (struct tls_context){.o = o, .trust = mark_of(o->trust_file), .key = mark_of(o->key_file)};
    int rc = make(o, &c->ssl, err);
    if (rc) {
        free(c);
        return rc;
    }
    *out = c;
    return 0;
}

void tls_context_destroy(struct tls_context *c)
{
    if (!c)
        return;
    SSL_CTX_free(c->ssl);
    free(c);
}

unsigned tls_context_reloads(const struct tls_context *c)
{
    return c->reloads;
}

/* A pair that does not fit yet (the second file is being written) is tried again at the next connection. */
static void refresh(struct tls_context *c, struct err *err)
{
    struct mark trust = mark_of(c->o->trust_file), key = mark_of(c->o->key_file);
    SSL_CTX *fresh;
    if ((same(&trust, &c->trust) && same(&key, &c->key)) || make(c->o, &fresh, err))
        return;
    SSL_CTX_free(c->ssl);
    c->ssl = fresh;
    c->trust = trust;
    c->key = key;
    c->reloads++;
}

SSL *tls_context_session(struct tls_context *c, struct err *err)
{
    assert(c->ssl);
    refresh(c, err);
    return SSL_new(c->ssl);
}
