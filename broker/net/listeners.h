/* `listeners`, `advertised.listeners` and `listener.security.protocol.map`, checked and put together. Plain values
 * made at the start; strings are the list's own. */
#ifndef SUNDOG_BROKER_NET_LISTENERS_H
#define SUNDOG_BROKER_NET_LISTENERS_H

#include "base/runtime/options.h"
#include "broker/net/server.h"

#define NET_LISTENERS_MAX 16

struct net_listeners {
    struct net_listen_at at[NET_LISTENERS_MAX];
    size_t n;
    void *strings[NET_LISTENERS_MAX * 4];
    size_t strings_n;
};

struct net_listeners_options {
    const struct option_list *listeners, *advertised, *controller_names;
    const char *protocol_map;
    bool insecure;
};

/* -E_CONFIG with the key and the remedy: bad syntax, doubles, a protocol that is not served, an address off loopback
 * without TLS (D15). On error nothing is held. */
int net_listeners_parse(const struct net_listeners_options *o, struct net_listeners *out, struct err *err);
void net_listeners_fini(struct net_listeners *l);

#endif
