/* How the record engine's library reaches the source: the same identity as our own client's, in its words. Keys and
 * certificates go in as PEM text, whatever store they came from. It reads them once: changed files are taken over by
 * our own connections at once, by the library when the flow starts anew. */
#include "mirror/port/rdkafka_parts.h"
#include "base/world/clock.h"
#include "proto/client/security.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* Of a token that does not say how long it lives. */
#define TOKEN_LIFE_MS  (INT64_C(5) * 60 * 1000)
#define TOKEN_BODY_MAX 32768

static int set(rd_kafka_conf_t *c, const char *key, const char *value, struct err *err)
{
    char text[256];
    if (!value || rd_kafka_conf_set(c, key, value, text, sizeof text) == RD_KAFKA_CONF_OK)
        return 0;
    return err_set(err, -E_CONFIG, "librdkafka's %s: %s", key, text);
}

/* ---- tokens ---- */

/* The claims of a JWT, unverified: the broker verifies. NULL when it is none. */
static json_t *claims_of(const char *token)
{
    const char *begin = strchr(token, '.'), *end = begin ? strchr(begin + 1, '.') : NULL;
    char text[TOKEN_BODY_MAX];
    uint8_t body[TOKEN_BODY_MAX];
    size_t n = end ? (size_t)(end - begin - 1) : 0;
    if (n == 0 || n + 4 > sizeof text)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        char x = begin[1 + i];
        text[i] = x == '-' ? '+' : x == '_' ? '/' : x;
    }
    while (n % 4)
        text[n++] = '=';
    int size = EVP_DecodeBlock(body, (const uint8_t *)text, (int)n);
    while (size > 0 && body[size - 1] == 0)
        size--; /* what the padding decodes to */
    return size > 0 ? json_loadb((const char *)body, (size_t)size, 0, NULL) : NULL;
}

static void refresh(rd_kafka_t *rk, const char *config, void *opaque)
{
    const struct client_security *s = opaque;
    struct err err = {0};
    char *token = NULL, text[256] = "";
    (void)config;
    int rc = client_token_read(s, &token, &err);
    json_t *claims = rc ? NULL : claims_of(token);
    int64_t exp_s = json_integer_value(json_object_get(claims, "exp"));
    const char *subject = json_string_value(json_object_get(claims, "sub"));
    int64_t until_ms = exp_s > 0 ? exp_s * 1000 : clock_wall_ms() + TOKEN_LIFE_MS;
    if (!rc && rd_kafka_oauthbearer_set_token(rk, token, until_ms, subject ? subject : "sundog", NULL, 0,
                                              text, sizeof text))
        rc = -E_CONFIG;
    if (rc)
        rd_kafka_oauthbearer_set_token_failure(rk, err.text[0] ? err.text : text);
    json_decref(claims);
    if (token)
        OPENSSL_cleanse(token, strlen(token));
    free(token);
}

/* ---- configuration ---- */

static int conf_tls(rd_kafka_conf_t *c, const struct tls_options *o, struct err *err)
{
    struct tls_material m;
    int rc = tls_material_load(o, &m, err);
    if (rc)
        return rc;
    rc = set(c, "ssl.ca.pem", m.trust, err);
    rc = rc ? rc : set(c, "ssl.certificate.pem", m.chain, err);
    rc = rc ? rc : set(c, "ssl.key.pem", m.key, err);
    rc = rc ? rc : set(c, "ssl.endpoint.identification.algorithm", o->any_host ? "none" : "https", err);
    tls_material_fini(&m);
    return rc;
}

int rdk_conf_security(rd_kafka_conf_t *c, const struct client_security *s, struct err *err)
{
    static const char *const protocols[2][2] = {{"plaintext", "ssl"}, {"sasl_plaintext", "sasl_ssl"}};
    if (!s)
        return 0;
    bool sasl = s->mechanism != SASL_NONE;
    int rc = set(c, "security.protocol", protocols[sasl][s->tls], err);
    if (!rc && s->tls)
        rc = conf_tls(c, &s->tls_options, err);
    if (rc || !sasl)
        return rc;
    rc = set(c, "sasl.mechanisms", sasl_mechanism_name(s->mechanism), err);
    if (s->mechanism == SASL_OAUTHBEARER) {
        rd_kafka_conf_enable_sasl_queue(c, 1); /* its own thread serves `refresh` */
        rd_kafka_conf_set_oauthbearer_token_refresh_cb(c, refresh);
        rd_kafka_conf_set_opaque(c, (void *)(uintptr_t)s);
        return rc;
    }
    rc = rc ? rc : set(c, "sasl.username", s->user, err);
    return rc ? rc : set(c, "sasl.password", s->password, err);
}

int rdk_start_security(rd_kafka_t *rk, const struct client_security *s, struct err *err)
{
    if (!s || s->mechanism != SASL_OAUTHBEARER)
        return 0;
    rd_kafka_error_t *e = rd_kafka_sasl_background_callbacks_enable(rk);
    if (!e)
        return 0;
    err_set(err, -E_CONFIG, "librdkafka: %s", rd_kafka_error_string(e));
    rd_kafka_error_destroy(e);
    return -E_CONFIG;
}
