/* Keys and certificates of a TLS client: read from the files that Java's clients use, kept fresh.
 *
 * A store is told by its bytes, not by its name: PEM, PKCS#12, or (trust only) JKS, whose entries are not encrypted.
 * Everything becomes PEM text first (tls_material), which is what librdkafka is given, too; a context is made of it.
 * On one thread each. Limits: a store of 4 MiB, 1,024 certificates. */
#ifndef SUNDOG_BASE_WORLD_TLS_H
#define SUNDOG_BASE_WORLD_TLS_H

#include "base/core/err.h"

#include <openssl/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_STORE_BYTES_MAX  ((size_t)4 << 20)
#define TLS_CERTIFICATES_MAX 1024

/* Plain values, all may be NULL. The owner keeps them. */
struct tls_options {
    char *trust_file, *trust_password,
        *trust_pem;                     /* who is believed; none of them: the system's authorities */
    char *key_file, *key_file_password; /* our certificate and key in one store */
    char *key_pem, *chain_pem;          /* or as text */
    char *key_password;                 /* of an encrypted private key */
    char *versions, *ciphers;           /* "TLSv1.2,TLSv1.3"; OpenSSL's or IANA's names */
    bool any_host;                      /* the certificate's names are not compared with the address */
};

/* Overwrites and frees a text, and forgets it; NULL is fine. */
void tls_wipe(char **text);
/* A whole small file of secrets, TLS_STORE_BYTES_MAX at most; wipe and free() it. `*n` does not count the NUL behind. */
int tls_file_read(const char *path, char **out, size_t *n, struct err *err);

/* PEM texts, NULL where there is none; tls_material_fini wipes and frees them. */
struct tls_material {
    char *trust, *chain, *key;
};
int tls_material_load(const struct tls_options *o, struct tls_material *out, struct err *err);
void tls_material_fini(struct tls_material *m);

struct tls_context;
/* `o` must outlive it. -E_CONFIG names the file and what is wrong with it. */
int tls_context_create(const struct tls_options *o, struct tls_context **out, struct err *err);
void tls_context_destroy(struct tls_context *c);
/* A session for one connection; SSL_free ends it. Files that have changed since are read again first: a good pair
 * replaces the old one, a bad one is left alone and told by `err`, while the old one goes on serving. */
SSL *tls_context_session(struct tls_context *c, struct err *err);
/* How often changed files have been taken over. */
unsigned tls_context_reloads(const struct tls_context *c);

#endif
