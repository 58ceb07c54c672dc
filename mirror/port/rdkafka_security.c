/* How the record engine's library reaches the source: the same identity as our own client's, in its words. Keys and
 * certificates go in as PEM text, whatever store they came from. It reads them once: changed files are taken over by
 * our own connections at once, by the library when the flow starts anew. */
#include "mirror/port/rdkafka_parts.h"
#include "proto/client/token.h"

static void refresh(rd_kafka_t *rk, const char *config, void *opaque)
{
    const struct client_security *s = opaque;
    struct client_token token;
    struct err err = {0};
    char text[256] = "";
    (void)config;
    int rc = client_token_get(s, &token, &err);
    if (!rc &&
        rd_kafka_oauthbearer_set_token(rk, token.text, token.until_ms,
                                       token.subject ? token.subject : "sundog", NULL, 0, text, sizeof text))
        rc = -E_CONFIG;
    if (rc)
        rd_kafka_oauthbearer_set_token_failure(rk, err.text[0] ? err.text : text);
    client_token_fini(&token);
}

/* ---- configuration ---- */

static int conf_tls(rd_kafka_conf_t *c, const struct tls_options *o, struct err *err)
{
    struct tls_material m;
    int rc = tls_material_load(o, &m, err);
    if (rc)
        return rc;
    rc = rdk_set(c, "ssl.ca.pem", m.trust, err);
    rc = rc ? rc : rdk_set(c, "ssl.certificate.pem", m.chain, err);
    rc = rc ? rc : rdk_set(c, "ssl.key.pem", m.key, err);
    rc = rc ? rc : rdk_set(c, "ssl.endpoint.identification.algorithm", o->any_host ? "none" : "https", err);
    tls_material_fini(&m);
    return rc;
}

int rdk_conf_security(rd_kafka_conf_t *c, const struct client_security *s, struct err *err)
{
    static const char *const protocols[2][2] = {{"plaintext", "ssl"}, {"sasl_plaintext", "sasl_ssl"}};
    if (!s)
        return 0;
    bool sasl = s->mechanism != SASL_NONE;
    int rc = rdk_set(c, "security.protocol", protocols[sasl][s->tls], err);
    if (!rc && s->tls)
        rc = conf_tls(c, &s->tls_options, err);
    if (rc || !sasl)
        return rc;
    rc = rdk_set(c, "sasl.mechanisms", sasl_mechanism_name(s->mechanism), err);
    if (s->mechanism == SASL_OAUTHBEARER) {
        rd_kafka_conf_enable_sasl_queue(c, 1); /* its own thread serves `refresh` */
        rd_kafka_conf_set_oauthbearer_token_refresh_cb(c, refresh);
        rd_kafka_conf_set_opaque(c, (void *)(uintptr_t)s);
        return rc;
    }
    rc = rc ? rc : rdk_set(c, "sasl.username", s->user, err);
    return rc ? rc : rdk_set(c, "sasl.password", s->password, err);
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
