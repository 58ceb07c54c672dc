/* How a cluster is reached safely: TLS, SASL, or both, by the keys of Kafka's Java clients (mirror/route/security.c
 * reads them). Plain values; whoever filled them frees them with client_security_fini, which wipes the secrets. */
#ifndef SUNDOG_PROTO_CLIENT_SECURITY_H
#define SUNDOG_PROTO_CLIENT_SECURITY_H

#include "base/world/tls.h"
#include "proto/client/sasl.h"

struct client_security {
    bool tls;
    struct tls_options tls_options;
    enum sasl_mechanism mechanism; /* SASL_NONE: no SASL */
    char *user, *password;         /* PLAIN, SCRAM */
    char *token_file;              /* OAUTHBEARER: read anew for each connection */
};

/* The token of OAUTHBEARER: one line of text; wipe and free it. -E_CONFIG says what is wrong with the file. */
int client_token_read(const struct client_security *s, char **out, struct err *err);
void client_security_fini(struct client_security *s);

#endif
