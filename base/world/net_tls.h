/* TLS over any net: a `struct net` whose connections are encrypted. Outgoing ones only; the broker's side is not here.
 *
 * `connected` comes after the handshake, with the server's certificate checked against the trust and, unless `any_host`,
 * against the host that was asked for; `failed` with a reason that net_why tells. What the inner net guarantees holds
 * here: same thread, callbacks from the loop only, none after net_close. Level-triggered as well: bytes that TLS has
 * decrypted already make the connection readable again in the next turn. An end without close_notify is an end (Kafka's
 * frames tell their length). Memory: one record each way, and up to NET_TLS_OUT_BYTES of encrypted bytes. */
#ifndef SUNDOG_BASE_WORLD_NET_TLS_H
#define SUNDOG_BASE_WORLD_NET_TLS_H

#include "base/world/net.h"
#include "base/world/tls.h"

#define NET_TLS_OUT_BYTES ((size_t)128 * 1024)

/* `inner` and `o` must outlive it. */
int net_tls_create(struct net *inner, const struct tls_options *o, struct net **out, struct err *err);
/* Its connections must be closed before. NULL is fine. */
void net_tls_destroy(struct net *n);

#endif
