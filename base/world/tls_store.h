/* Stores of certificates and keys as PEM text. See tls.h. */
#ifndef SUNDOG_BASE_WORLD_TLS_STORE_H
#define SUNDOG_BASE_WORLD_TLS_STORE_H

#include "base/world/tls.h"

#include <openssl/bio.h>

/* The certificates of a store of any kind, appended to `to` as PEM. */
int tls_store_trust(const char *name, const char *bytes, size_t n, const char *password, BIO *to,
                    struct err *err);
/* The key (decrypted with `password`, or `key_password` where that is given) and its chain. */
int tls_store_key(const char *name, const char *bytes, size_t n, const char *password,
                  const char *key_password, BIO *chain, BIO *key, struct err *err);
/* err_set with OpenSSL's newest reason behind the text; clears its queue. */
int tls_error(struct err *err, int code, const char *what);

#endif
