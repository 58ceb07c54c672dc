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
    char *token_url; /* OAUTHBEARER: file:///PATH, read anew for each connection, or an endpoint */
    char *client_id, *client_secret, *scope; /* for the endpoint */
};

/* A deep copy; -E_NOMEM leaves nothing. */
int client_security_copy(const struct client_security *from, struct client_security *to);
void client_security_fini(struct client_security *s);

#endif
