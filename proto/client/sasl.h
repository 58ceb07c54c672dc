/* The client's half of a SASL exchange: what to say, what to make of the answer. Pure: no socket, no clock.
 *
 * PLAIN (RFC 4616), SCRAM-SHA-256 and -512 (RFC 5802, 7677), OAUTHBEARER (RFC 7628). The server's proof of SCRAM is
 * checked: a broker that does not know the password is not believed. Texts that the peer sends are bounded
 * (SASL_TEXT_MAX) and so is the work it can ask for (SASL_ITERATIONS_MAX). One exchange, one thread. */
#ifndef SUNDOG_PROTO_CLIENT_SASL_H
#define SUNDOG_PROTO_CLIENT_SASL_H

#include "base/core/buf.h"
#include "base/core/err.h"

#define SASL_TEXT_MAX       ((size_t)64 * 1024)
#define SASL_ITERATIONS_MIN 4096 /* Kafka's own minimum */
#define SASL_ITERATIONS_MAX 1000000
#define SASL_NONCE_MAX      64

enum sasl_mechanism { SASL_NONE, SASL_PLAIN, SASL_SCRAM_SHA_256, SASL_SCRAM_SHA_512, SASL_OAUTHBEARER };

/* Kafka's name for it; NULL for SASL_NONE. */
const char *sasl_mechanism_name(enum sasl_mechanism m);
/* By name; -E_NOTFOUND. */
int sasl_mechanism_parse(const char *name, enum sasl_mechanism *out);

struct sasl;
/* Copies what it needs. `user` and `secret`: name and password, or (OAUTHBEARER) NULL and the token. `nonce` is
 * a random text without commas, shorter than SASL_NONCE_MAX; SCRAM alone uses it. NULL out of memory. */
struct sasl *sasl_create(enum sasl_mechanism m, const char *user, const char *secret, const char *nonce);
void sasl_destroy(struct sasl *s);
/* The first words into `out`. */
int sasl_first(struct sasl *s, struct buf *out, struct err *err);
/* The server's words `in`; the next ones into `out`, or `*done`. -E_ACCESS: the server is not who it says, or refuses. */
int sasl_next(struct sasl *s, struct slice in, struct buf *out, bool *done, struct err *err);

#endif
