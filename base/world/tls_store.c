/* Stores of certificates and keys: PEM, PKCS#12, JKS.
 *
 * JKS (java.security.KeyStore "jks"): big-endian; magic, version 1 or 2, number of entries; an entry is a tag, an alias,
 * a date and, for a trusted certificate, its type (version 2) and DER bytes. Private keys in it are encrypted in a way
 * of Sun's own: who has one converts the store. */
#include "base/world/tls_store.h"

#include "base/core/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define JKS_MAGIC 0xfeedfeedu

int tls_error(struct err *err, int code, const char *what)
{
    unsigned long e = ERR_peek_last_error();
    const char *reason = e ? ERR_reason_error_string(e) : NULL;
    ERR_clear_error();
    return err_set(err, code, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
}

static int read_all(int fd, char *to, size_t n)
{
    size_t have = 0;
    while (have < n) {
        ssize_t got = read(fd, to + have, n - have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? err_from_errno(errno) : -E_TRUNCATED;
        have += (size_t)got;
    }
    return 0;
}

int tls_file_read(const char *path, char **out, size_t *n, struct err *err)
{
    struct stat st;
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, -E_CONFIG, "%s: %s", path, strerror(errno));
    int rc = fstat(fd, &st) ? err_from_errno(errno) : 0;
    if (!rc && (!S_ISREG(st.st_mode) || st.st_size > (off_t)TLS_STORE_BYTES_MAX))
        rc = -E_LIMIT;
    char *bytes = rc ? NULL : malloc((size_t)st.st_size + 1);
    if (!rc)
        rc = bytes ? read_all(fd, bytes, (size_t)st.st_size) : -E_NOMEM;
    close(fd);
    if (rc) {
        free(bytes);
        return err_set(err, -E_CONFIG, "%s: %s (a regular file of at most %zu bytes is taken)", path,
                       err_str(rc), TLS_STORE_BYTES_MAX);
    }
    bytes[st.st_size] = 0;
    *out = bytes;
    *n = (size_t)st.st_size;
    return 0;
}

static bool is_pem(const char *bytes, size_t n)
{
    return memmem(bytes, n, "-----BEGIN ", 11) != NULL;
}

static bool is_jks(const char *bytes, size_t n)
{
    return n >= 12 && be32_get((const uint8_t *)bytes) == JKS_MAGIC;
}

static int put_der(const uint8_t *der, size_t n, BIO *to)
{
    X509 *x = d2i_X509(NULL, &der, (long)n);
    int good = x && PEM_write_bio_X509(to, x);
    X509_free(x);
    return good ? 0 : -E_CORRUPT;
}

/* ---- JKS ---- */

struct jks {
    const uint8_t *p, *end;
    bool bad;
};

static const uint8_t *jks_take(struct jks *j, size_t n)
{
    const uint8_t *at = j->p;
    j->bad = j->bad || (size_t)(j->end - j->p) < n;
    if (j->bad)
        return NULL;
    j->p += n;
    return at;
}

static uint32_t jks_u32(struct jks *j)
{
    const uint8_t *at = jks_take(j, 4);
    return at ? be32_get(at) : 0;
}

static void jks_skip_text(struct jks *j)
{
    const uint8_t *at = jks_take(j, 2);
    jks_take(j, at ? be16_get(at) : 0);
}

static int jks_certificate(struct jks *j, uint32_t version, BIO *to)
{
    if (version == 2)
        jks_skip_text(j);
    size_t n = jks_u32(j);
    const uint8_t *der = jks_take(j, n);
    return der ? put_der(der, n, to) : -E_CORRUPT;
}

static int jks_trust(const char *name, const char *bytes, size_t n, BIO *to, struct err *err)
{
    enum { KEY = 1, TRUSTED = 2 };
    struct jks j = {(const uint8_t *)bytes + 4, (const uint8_t *)bytes + n, false};
    uint32_t version = jks_u32(&j), entries = jks_u32(&j);
    int rc = version == 1 || version == 2 ? 0 : -E_VERSION;
    if (entries > TLS_CERTIFICATES_MAX)
        rc = -E_LIMIT;
    for (uint32_t i = 0; i < entries && !rc && !j.bad; i++) {
        uint32_t tag = jks_u32(&j), chain = 0;
        jks_skip_text(&j);
        jks_take(&j, 8);
        if (tag == KEY) { /* its certificates are no anchors of trust: passed over, as Java does */
            jks_take(&j, jks_u32(&j));
            chain = jks_u32(&j);
            for (uint32_t k = 0; k < chain && !j.bad; k++) {
                if (version == 2)
                    jks_skip_text(&j);
                jks_take(&j, jks_u32(&j));
            }
        } else {
            rc = tag == TRUSTED ? jks_certificate(&j, version, to) : -E_CORRUPT;
        }
    }
    if (rc || j.bad)
        return err_set(err, -E_CONFIG, "%s: the JKS store cannot be read: %s", name,
                       err_str(rc ? rc : -E_TRUNCATED));
    return 0;
}

/* ---- PKCS#12 ---- */

static PKCS12 *pkcs12_of(const char *bytes, size_t n)
{
    const uint8_t *p = (const uint8_t *)bytes;
    return d2i_PKCS12(NULL, &p, (long)n);
}

static int pkcs12_open(const char *name, const char *bytes, size_t n, const char *password, EVP_PKEY **key,
                       X509 **own, STACK_OF(X509) * *others, struct err *err)
{
    PKCS12 *store = pkcs12_of(bytes, n);
    char what[ERR_TEXT_MAX];
    snprintf(what, sizeof what, "%.200s: neither PEM, PKCS#12 nor JKS", name);
    if (!store)
        return tls_error(err, -E_CONFIG, what);
    int good = PKCS12_parse(store, password ? password : "", key, own, others);
    PKCS12_free(store);
    snprintf(what, sizeof what, "%.200s: the PKCS#12 store does not open (is its password right?)", name);
    return good ? 0 : tls_error(err, -E_CONFIG, what);
}

static int put_all(STACK_OF(X509) * list, BIO *to)
{
    int n = list ? sk_X509_num(list) : 0;
    if (n > TLS_CERTIFICATES_MAX)
        return -E_LIMIT;
    for (int i = 0; i < n; i++)
        if (!PEM_write_bio_X509(to, sk_X509_value(list, i)))
            return -E_NOMEM;
    return 0;
}

static int pkcs12_trust(const char *name, const char *bytes, size_t n, const char *password, BIO *to,
                        struct err *err)
{
    EVP_PKEY *key = NULL;
    X509 *own = NULL;
    STACK_OF(X509) *others = NULL;
    int rc = pkcs12_open(name, bytes, n, password, &key, &own, &others, err);
    if (!rc && put_all(others, to))
        rc = err_set(err, -E_CONFIG, "%s: more certificates than %d", name, TLS_CERTIFICATES_MAX);
    EVP_PKEY_free(key);
    X509_free(own);
    sk_X509_pop_free(others, X509_free);
    return rc;
}

static int pkcs12_key(const char *name, const char *bytes, size_t n, const char *password, BIO *chain,
                      BIO *key_out, struct err *err)
{
    EVP_PKEY *key = NULL;
    X509 *own = NULL;
    STACK_OF(X509) *others = NULL;
    int rc = pkcs12_open(name, bytes, n, password, &key, &own, &others, err);
    if (!rc && (!key || !own))
        rc = err_set(err, -E_CONFIG, "%s: the store has no private key with its certificate", name);
    if (!rc && (!PEM_write_bio_X509(chain, own) || put_all(others, chain) ||
                !PEM_write_bio_PrivateKey(key_out, key, NULL, NULL, 0, NULL, NULL)))
        rc = tls_error(err, -E_CONFIG, name);
    EVP_PKEY_free(key);
    X509_free(own);
    sk_X509_pop_free(others, X509_free);
    return rc;
}

/* ---- PEM ---- */

static int pem_certificates(const char *name, const char *bytes, size_t n, BIO *to, struct err *err)
{
    BIO *from = BIO_new_mem_buf(bytes, (int)n);
    X509 *x;
    int found = 0, rc = from ? 0 : -E_NOMEM;
    while (!rc && (x = PEM_read_bio_X509(from, NULL, NULL, NULL))) {
        rc = ++found > TLS_CERTIFICATES_MAX ? -E_LIMIT : PEM_write_bio_X509(to, x) ? 0 : -E_NOMEM;
        X509_free(x);
    }
    BIO_free(from);
    bool ended = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
    if (!rc && found > 0 && ended) {
        ERR_clear_error();
        return 0;
    }
    char what[ERR_TEXT_MAX];
    snprintf(what, sizeof what, "%.200s: %s", name,
             rc          ? err_str(rc)
             : found > 0 ? "a certificate in it cannot be read"
                         : "no certificate in it");
    if (ended)
        ERR_clear_error();
    return tls_error(err, -E_CONFIG, what);
}

/* Without a password OpenSSL would ask the terminal. */
static int give_password(char *to, int size, int writing, void *arg)
{
    const char *password = arg;
    size_t n = password ? strlen(password) : 0;
    (void)writing;
    if (n == 0 || n > (size_t)size)
        return -1;
    memcpy(to, password, n);
    return (int)n;
}

static int pem_key(const char *name, const char *bytes, size_t n, const char *password, BIO *to,
                   struct err *err)
{
    BIO *from = BIO_new_mem_buf(bytes, (int)n);
    EVP_PKEY *key =
        from ? PEM_read_bio_PrivateKey(from, NULL, give_password, (void *)(uintptr_t)password) : NULL;
    int good = key && PEM_write_bio_PrivateKey(to, key, NULL, NULL, 0, NULL, NULL);
    EVP_PKEY_free(key);
    BIO_free(from);
    if (good)
        return 0;
    char what[ERR_TEXT_MAX];
    snprintf(what, sizeof what, "%.200s: no private key that opens (an encrypted one needs ssl.key.password)",
             name);
    return tls_error(err, -E_CONFIG, what);
}

/* ---- whichever it is ---- */

int tls_store_trust(const char *name, const char *bytes, size_t n, const char *password, BIO *to,
                    struct err *err)
{
    if (is_jks(bytes, n))
        return jks_trust(name, bytes, n, to, err);
    if (is_pem(bytes, n))
        return pem_certificates(name, bytes, n, to, err);
    return pkcs12_trust(name, bytes, n, password, to, err);
}

int tls_store_key(const char *name, const char *bytes, size_t n, const char *password,
                  const char *key_password, BIO *chain, BIO *key, struct err *err)
{
    if (is_jks(bytes, n))
        return err_set(err, -E_CONFIG,
                       "%s: private keys in JKS stores are not read; convert it: keytool -importkeystore "
                       "-srckeystore OLD -destkeystore NEW -deststoretype PKCS12",
                       name);
    if (!is_pem(bytes, n))
        return pkcs12_key(name, bytes, n, password, chain, key, err);
    int rc = pem_certificates(name, bytes, n, chain, err);
    return rc ? rc : pem_key(name, bytes, n, key_password ? key_password : password, key, err);
}
