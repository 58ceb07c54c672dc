#include "proto/client/sasl.h"

#include <assert.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>

enum sasl_step { SASL_START, SASL_SENT_FIRST, SASL_SENT_PROOF, SASL_ENDED };

#define HASH_MAX 64
#define SALT_MAX 1024

struct sasl {
    enum sasl_mechanism mechanism;
    enum sasl_step step;
    char *user, *secret;
    char nonce[SASL_NONCE_MAX];
    struct buf first_bare; /* SCRAM's client-first-message-bare */
    uint8_t server_signature[HASH_MAX];
};

static const char *const names[] = {[SASL_PLAIN] = "PLAIN",
                                    [SASL_SCRAM_SHA_256] = "SCRAM-SHA-256",
                                    [SASL_SCRAM_SHA_512] = "SCRAM-SHA-512",
                                    [SASL_OAUTHBEARER] = "OAUTHBEARER"};

const char *sasl_mechanism_name(enum sasl_mechanism m)
{
    return names[m];
}

int sasl_mechanism_parse(const char *name, enum sasl_mechanism *out)
{
    for (size_t i = SASL_PLAIN; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (enum sasl_mechanism)i;
            return 0;
        }
    return -E_NOTFOUND;
}

struct sasl *sasl_create(enum sasl_mechanism m, const char *user, const char *secret, const char *nonce)
{
    assert(m != SASL_NONE && secret && (user || m == SASL_OAUTHBEARER) && strlen(nonce) < SASL_NONCE_MAX);
    struct sasl *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->mechanism = m;
    s->user = strdup(user ? user : "");
    s->secret = strdup(secret);
    snprintf(s->nonce, sizeof s->nonce, "%s", nonce);
    buf_init(&s->first_bare, SASL_TEXT_MAX);
    if (s->user && s->secret)
        return s;
    sasl_destroy(s);
    return NULL;
}

void sasl_destroy(struct sasl *s)
{
    if (!s)
        return;
    if (s->secret)
        OPENSSL_cleanse(s->secret, strlen(s->secret));
    OPENSSL_cleanse(s->server_signature, sizeof s->server_signature);
    buf_fini(&s->first_bare);
    free(s->user);
    free(s->secret);
    free(s);
}

/* ---- SCRAM ---- */

static const EVP_MD *hash_of(const struct sasl *s)
{
    return s->mechanism == SASL_SCRAM_SHA_512 ? EVP_sha512() : EVP_sha256();
}

/* "=" and "," are told apart from the syntax by =3D and =2C (RFC 5802 §5.1). */
static void put_name(struct buf *out, const char *name)
{
    for (const char *p = name; *p; p++)
        buf_printf(out, *p == '=' ? "=3D" : *p == ',' ? "=2C" : "%c", *p);
}

static void scram_first(struct sasl *s, struct buf *out)
{
    buf_printf(&s->first_bare, "n=");
    put_name(&s->first_bare, s->user);
    buf_printf(&s->first_bare, ",r=%s", s->nonce);
    buf_printf(out, "n,,");
    buf_put(out, s->first_bare.p, s->first_bare.n);
}

/* The value of the attribute that stands first in `*rest`, which moves behind it; null when it is another one. */
static struct slice attribute(struct slice *rest, char name)
{
    if (rest->n < 2 || rest->p[0] != (uint8_t)name || rest->p[1] != '=')
        return SLICE_NULL;
    const uint8_t *comma = memchr(rest->p, ',', rest->n);
    size_t n = comma ? (size_t)(comma - rest->p) : rest->n;
    struct slice value = slice_of(rest->p + 2, n - 2);
    size_t used = comma ? n + 1 : n;
    *rest = slice_of(rest->p + used, rest->n - used);
    return value;
}

/* Base64 with its padding; the number of bytes, or -1. */
static int decode64(struct slice text, uint8_t *to, size_t cap)
{
    size_t padding = 0;
    if (text.n == 0 || text.n % 4 || text.n / 4 * 3 > cap)
        return -1;
    while (padding < 2 && text.p[text.n - 1 - padding] == '=')
        padding++;
    int n = EVP_DecodeBlock(to, text.p, (int)text.n);
    return n < 0 ? -1 : n - (int)padding;
}

static bool hmac(const EVP_MD *md, const uint8_t *key, size_t key_n, struct slice data, uint8_t *out)
{
    unsigned n = 0;
    return HMAC(md, key, (int)key_n, data.p, data.n, out, &n) && n == (unsigned)EVP_MD_get_size(md);
}

/* What the server must have said first: r=<our nonce and more>,s=<salt>,i=<iterations>. librdkafka's history shows
 * servers and clients that repeat a nonce; it must begin with ours and be longer. */
struct challenge {
    struct slice nonce;
    uint8_t salt[SALT_MAX];
    int salt_n, iterations;
};

static int parse_challenge(const struct sasl *s, struct slice in, struct challenge *out, struct err *err)
{
    struct slice rest = in;
    char number[16];
    out->nonce = attribute(&rest, 'r');
    struct slice salt = attribute(&rest, 's'), iterations = attribute(&rest, 'i');
    size_t ours = strlen(s->nonce);
    if (out->nonce.n <= ours || memcmp(out->nonce.p, s->nonce, ours) != 0)
        return err_set(err, -E_ACCESS, "SCRAM: the broker's nonce does not continue ours");
    out->salt_n = slice_is_null(salt) ? -1 : decode64(salt, out->salt, sizeof out->salt);
    if (out->salt_n < 1 || slice_is_null(iterations) || iterations.n >= sizeof number || rest.n)
        return err_set(err, -E_CORRUPT, "SCRAM: the broker's first message is malformed");
    out->iterations = (int)strtol(slice_cstr(iterations, number, sizeof number), NULL, 10);
    if (out->iterations < SASL_ITERATIONS_MIN || out->iterations > SASL_ITERATIONS_MAX)
        return err_set(err, -E_ACCESS, "SCRAM: the broker asks for %.15s iterations; %d to %d are done",
                       number, SASL_ITERATIONS_MIN, SASL_ITERATIONS_MAX);
    return 0;
}

static bool prove(struct sasl *s, const struct challenge *ch, struct slice auth_message,
                  uint8_t proof[HASH_MAX])
{
    const EVP_MD *md = hash_of(s);
    size_t n = (size_t)EVP_MD_get_size(md);
    uint8_t salted[HASH_MAX], client_key[HASH_MAX], stored[HASH_MAX], server_key[HASH_MAX],
        signature[HASH_MAX];
    assert(n <= HASH_MAX);
    bool good = PKCS5_PBKDF2_HMAC(s->secret, (int)strlen(s->secret), ch->salt, ch->salt_n, ch->iterations, md,
                                  (int)n, salted) &&
                hmac(md, salted, n, SLICE_LIT("Client Key"), client_key) &&
                EVP_Digest(client_key, n, stored, NULL, md, NULL) &&
                hmac(md, stored, n, auth_message, signature) &&
                hmac(md, salted, n, SLICE_LIT("Server Key"), server_key) &&
                hmac(md, server_key, n, auth_message, s->server_signature);
    for (size_t i = 0; good && i < n; i++)
        proof[i] = client_key[i] ^ signature[i];
    OPENSSL_cleanse(salted, sizeof salted);
    OPENSSL_cleanse(client_key, sizeof client_key);
    OPENSSL_cleanse(server_key, sizeof server_key);
    return good;
}

static int scram_proof(struct sasl *s, struct slice in, struct buf *out, struct err *err)
{
    struct challenge ch;
    int rc = parse_challenge(s, in, &ch, err);
    if (rc)
        return rc;
    struct buf auth;
    uint8_t proof[HASH_MAX], text[HASH_MAX * 2];
    size_t begin = out->n;
    buf_init(&auth, SASL_TEXT_MAX * 4);
    buf_printf(out, "c=biws,r=%.*s", SLICE_FMT(ch.nonce)); /* biws: "n,,", no channel binding */
    buf_put(&auth, s->first_bare.p, s->first_bare.n);
    buf_printf(&auth, ",");
    buf_put(&auth, in.p, in.n);
    buf_printf(&auth, ",");
    buf_put(&auth, out->p + begin, out->n - begin);
    if (auth.failed || out->failed || !prove(s, &ch, buf_slice(&auth), proof))
        rc = err_set(err, -E_NOMEM, "SCRAM: %s", err_str(-E_NOMEM));
    buf_fini(&auth);
    if (rc)
        return rc;
    EVP_EncodeBlock(text, proof, EVP_MD_get_size(hash_of(s)));
    buf_printf(out, ",p=%s", (const char *)text);
    return out->failed ? err_set(err, -E_NOMEM, "SCRAM: %s", err_str(-E_NOMEM)) : 0;
}

static int scram_verdict(struct sasl *s, struct slice in, struct err *err)
{
    struct slice rest = in, refusal = attribute(&rest, 'e');
    if (!slice_is_null(refusal))
        return err_set(err, -E_ACCESS, "SCRAM: %.*s", (int)(refusal.n < 200 ? refusal.n : 200),
                       (const char *)refusal.p);
    uint8_t theirs[HASH_MAX * 2];
    struct slice v = attribute(&rest, 'v');
    int n = slice_is_null(v) ? -1 : decode64(v, theirs, sizeof theirs);
    if (n != EVP_MD_get_size(hash_of(s)) || CRYPTO_memcmp(theirs, s->server_signature, (size_t)n) != 0)
        return err_set(err, -E_ACCESS, "SCRAM: the broker does not prove that it knows the password");
    return 0;
}

/* ---- all of them ---- */

static bool is_scram(const struct sasl *s)
{
    return s->mechanism == SASL_SCRAM_SHA_256 || s->mechanism == SASL_SCRAM_SHA_512;
}

int sasl_first(struct sasl *s, struct buf *out, struct err *err)
{
    assert(s->step == SASL_START);
    s->step = SASL_SENT_FIRST;
    if (is_scram(s)) {
        scram_first(s, out);
    } else if (s->mechanism == SASL_PLAIN) {
        buf_put_u8(out, 0); /* authorised as whom he authenticates */
        buf_put(out, s->user, strlen(s->user) + 1);
        buf_put(out, s->secret, strlen(s->secret));
    } else {
        buf_printf(out, "n,,\x01");
        buf_printf(out, "auth=Bearer %s\x01\x01", s->secret);
    }
    return out->failed || s->first_bare.failed
               ? err_set(err, -E_LIMIT, "%s: name or password too long", names[s->mechanism])
               : 0;
}

int sasl_next(struct sasl *s, struct slice in, struct buf *out, bool *done, struct err *err)
{
    int rc = 0;
    assert(s->step == SASL_SENT_FIRST || s->step == SASL_SENT_PROOF);
    *done = true;
    if (in.n > SASL_TEXT_MAX)
        return err_set(err, -E_LIMIT, "%s: the broker sends %zu bytes", names[s->mechanism], in.n);
    if (is_scram(s) && s->step == SASL_SENT_FIRST) {
        *done = false;
        s->step = SASL_SENT_PROOF;
        return scram_proof(s, in, out, err);
    }
    if (is_scram(s))
        rc = scram_verdict(s, in, err);
    else if (s->mechanism == SASL_OAUTHBEARER && in.n > 0) /* RFC 7628 §3.2.2: a refusal as JSON */
        rc = err_set(err, -E_ACCESS, "OAUTHBEARER: %.*s", (int)(in.n < 200 ? in.n : 200), (const char *)in.p);
    s->step = SASL_ENDED;
    return rc;
}
