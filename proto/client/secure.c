/* The SASL exchange of a new connection, before anything else is asked of the broker:
 *
 *   securing: SaslHandshake ─► SaslAuthenticate ─► … ─► versions
 *
 * SaslHandshake and SaslAuthenticate go in version 1, which every broker from 2.2 on takes (KIP-368 added the session's
 * lifetime there). A session that ends is left in time: the connection takes no more calls, answers what it has, and is
 * opened anew. */
#include "proto/client/client_internal.h"

#include "proto/client/security.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>

#define SASL_VERSION     1
#define NONCE_BYTES      24
#define SASL_ROUNDS_MAX  8
#define LIFETIME_PERCENT 85 /* as Kafka's clients: re-authenticated at 85 to 95 % of it */

#define TEXTS            16
static void texts_of(struct client_security *s, char **all[TEXTS])
{
    struct tls_options *t = &s->tls_options;
    char **list[TEXTS] = {&t->trust_file, &t->trust_password, &t->trust_pem,     &t->key_file,
                          &t->key_pem,    &t->chain_pem,      &t->versions,      &t->key_file_password,
                          &t->ciphers,    &t->key_password,   &s->user,          &s->password,
                          &s->token_url,  &s->client_id,      &s->client_secret, &s->scope};
    memcpy(all, list, sizeof list);
}

void client_security_fini(struct client_security *s)
{
    char **all[TEXTS];
    texts_of(s, all);
    for (size_t i = 0; i < TEXTS; i++)
        tls_wipe(all[i]);
}

int client_security_copy(const struct client_security *from, struct client_security *to)
{
    char **all[TEXTS];
    bool good = true;
    *to = *from;
    texts_of(to, all);
    for (size_t i = 0; i < TEXTS; i++) {
        char *text = *all[i];
        *all[i] = text ? strdup(text) : NULL;
        good = good && (!text || *all[i]);
    }
    if (!good)
        client_security_fini(to);
    return good ? 0 : -E_NOMEM;
}

/* ---- the exchange ---- */

static void fail(struct client_conn *conn, const struct err *err)
{
    client_conn_close(conn, err->code, err->text);
}

static void authenticate(struct client_conn *conn, struct buf *words)
{
    struct err err = {0};
    struct call *call = client_core_call(conn->core, kp_api_find(kp_key_sasl_authenticate), true);
    struct slice bytes = call ? arena_dup(&call->arena, slice_of(words->p, words->n)) : SLICE_NULL;
    if (slice_is_null(bytes)) {
        if (call)
            client_call_free(conn->core, call);
        err_set(&err, -E_NOMEM, "no memory for a request");
        fail(conn, &err);
        return;
    }
    struct kp_sasl_authenticate_request *q = call->pub.body;
    q->auth_bytes = bytes;
    client_conn_handshake(conn, call, SASL_VERSION);
}

static void take_handshake(struct client_conn *conn, const struct kp_sasl_handshake_response *m)
{
    struct err err = {0};
    struct buf words;
    const char *name = sasl_mechanism_name(conn->core->o.security->mechanism);
    assert(conn->sasl);
    buf_init(&words, SASL_TEXT_MAX);
    if (m->error_code == KE_UNSUPPORTED_SASL_MECHANISM) {
        for (int32_t i = 0; i < m->mechanisms_n && i < 16; i++)
            buf_printf(&words, "%s%.*s", i ? ", " : "", SLICE_FMT(m->mechanisms[i]));
        err_set(&err, -E_ACCESS, "SASL: the broker does not take %s but %.*s (sasl.mechanism)", name,
                (int)words.n, words.p ? (const char *)words.p : "");
    } else if (m->error_code != KE_NONE) {
        err_set(&err, -E_ACCESS, "SASL %s: %s", name, kafka_error_name(m->error_code));
    } else {
        sasl_first(conn->sasl, &words, &err);
    }
    if (err.code)
        fail(conn, &err);
    else
        authenticate(conn, &words);
    if (words.p)
        OPENSSL_cleanse(words.p, words.n);
    buf_fini(&words);
}

static void take_authenticate(struct client_conn *conn, const struct kp_sasl_authenticate_response *m)
{
    struct err err = {0};
    struct buf words;
    bool done = false;
    const char *name = sasl_mechanism_name(conn->core->o.security->mechanism);
    assert(conn->sasl);
    buf_init(&words, SASL_TEXT_MAX);
    if (m->error_code != KE_NONE)
        err_set(&err, -E_ACCESS, "SASL %s: %s%s%.*s", name, kafka_error_name(m->error_code),
                m->error_message.n ? ": " : "", (int)(m->error_message.n < 200 ? m->error_message.n : 200),
                m->error_message.p ? (const char *)m->error_message.p : "");
    else if (++conn->sasl_rounds > SASL_ROUNDS_MAX)
        err_set(&err, -E_ACCESS, "SASL %s: no end after %d rounds", name, SASL_ROUNDS_MAX);
    else
        sasl_next(conn->sasl, m->auth_bytes, &words, &done, &err);
    if (err.code) {
        fail(conn, &err);
    } else if (!done) {
        authenticate(conn, &words);
    } else {
        int64_t life_ms = m->session_lifetime_ms;
        if (life_ms > 0 && life_ms < INT64_MAX / 1000 / LIFETIME_PERCENT)
            conn->retire_us = conn->core->now_us + life_ms * 1000 * LIFETIME_PERCENT / 100;
        sasl_destroy(conn->sasl);
        conn->sasl = NULL;
        client_conn_ask_versions(conn, INT16_MAX);
    }
    buf_fini(&words);
}

bool client_secure_answer(struct client_conn *conn, const struct call *call)
{
    if (call->api->key == kp_key_sasl_handshake)
        take_handshake(conn, call->response.body);
    else
        take_authenticate(conn, call->response.body);
    return true;
}

/* ---- its beginning ---- */

static int make_sasl(struct client_conn *conn, const char *token, struct err *err)
{
    const struct client_security *s = conn->core->o.security;
    uint8_t random[NONCE_BYTES], nonce[SASL_NONCE_MAX];
    if (RAND_bytes(random, sizeof random) != 1) /* no other source: the jitter's generator can be guessed */
        return err_set(err, -E_IO, "SASL: no randomness");
    assert(!conn->sasl);
    EVP_EncodeBlock(nonce, random, sizeof random);
    conn->sasl = sasl_create(s->mechanism, s->user, token ? token : s->password, (const char *)nonce);
    return conn->sasl ? 0 : err_set(err, -E_NOMEM, "no memory for a connection");
}

static void begin(struct client_conn *conn, const char *token)
{
    struct err err = {0};
    if (make_sasl(conn, token, &err)) {
        fail(conn, &err);
        return;
    }
    struct call *call = client_core_call(conn->core, kp_api_find(kp_key_sasl_handshake), true);
    if (!call) {
        err_set(&err, -E_NOMEM, "no memory for a request");
        fail(conn, &err);
        return;
    }
    struct kp_sasl_handshake_request *q = call->pub.body;
    q->mechanism = slice_str(sasl_mechanism_name(conn->core->o.security->mechanism));
    client_conn_handshake(conn, call, SASL_VERSION);
}

void client_core_token(struct client_core *core, const char *token, const struct err *err, int64_t now_us)
{
    core->now_us = now_us;
    list_each_safe(at, &core->brokers)
    {
        struct client_broker *b = LIST_ENTRY(at, struct client_broker, link);
        for (int lane = 0; lane < CLIENT_LANES; lane++) {
            struct client_conn *conn = &b->conns[lane];
            if (!conn->wants_token)
                continue;
            conn->wants_token = false;
            assert(client_conn_state(conn) == CONN_SECURING);
            if (token)
                begin(conn, token);
            else
                fail(conn, err);
        }
    }
}

void client_secure(struct client_conn *conn)
{
    const struct client_security *s = conn->core->o.security;
    assert(client_conn_state(conn) == CONN_SECURING);
    assert(!conn->sasl);
    assert(!conn->wants_token);
    conn->retire_us = 0;
    conn->sasl_rounds = 0;
    if (!s || s->mechanism == SASL_NONE)
        client_conn_ask_versions(conn, INT16_MAX);
    else if (s->mechanism == SASL_OAUTHBEARER)
        conn->wants_token = conn->core->token_wanted = true;
    else
        begin(conn, NULL);
}
