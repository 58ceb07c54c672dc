/* OAUTHBEARER's token: from a file, or by OAuth 2's client credentials grant (RFC 6749 §4.4) from an endpoint.
 *
 * Blocks, on whatever thread it is called: our own client asks a job thread, librdkafka its background thread. The
 * endpoint is asked with libcurl, which is opened when first needed: its dozens of libraries are nobody's burden who
 * has no endpoint. Bounds: TOKEN_TIMEOUT_MS in all, SASL_TEXT_MAX of answer, no redirects. */
#ifndef SUNDOG_PROTO_CLIENT_TOKEN_H
#define SUNDOG_PROTO_CLIENT_TOKEN_H

#include "proto/client/security.h"

#define TOKEN_TIMEOUT_MS 10000
#define TOKEN_LIFE_MS    (INT64_C(5) * 60 * 1000) /* of one that does not say */

struct client_token {
    char *text;       /* one line */
    char *subject;    /* its claim "sub"; NULL: it has none */
    int64_t until_ms; /* wall clock */
};

/* -E_ACCESS: the endpoint refuses. -E_CONFIG, -E_IO: the text names file or address. */
int client_token_get(const struct client_security *s, struct client_token *out, struct err *err);
/* Wipes. */
void client_token_fini(struct client_token *t);

/* In token_fetch.c: the endpoint's answer, its JSON in `out` (free it after wiping). */
int client_token_fetch(const struct client_security *s, char **out, struct err *err);

#endif
