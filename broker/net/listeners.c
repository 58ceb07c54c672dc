#include "broker/net/listeners.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NAME_MAX_BYTES 63
#define HOST_MAX_BYTES 255

/* "NAME://host:port" taken apart. */
struct parsed {
    char name[NAME_MAX_BYTES + 1], host[HOST_MAX_BYTES + 1];
    uint16_t port;
};

/* Kafka takes names in any case and shows them in capitals. */
static int parse_name(const char *p, size_t n, char out[NAME_MAX_BYTES + 1])
{
    if (n == 0 || n > NAME_MAX_BYTES)
        return -E_CONFIG;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        bool lower = c >= 'a' && c <= 'z';
        if (!lower && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '_' && c != '-')
            return -E_CONFIG;
        out[i] = (char)(lower ? c - 'a' + 'A' : c);
    }
    out[n] = '\0';
    return 0;
}

static int parse_port(const char *p, uint16_t *out)
{
    char *end;
    if (*p < '0' || *p > '9')
        return -E_CONFIG;
    unsigned long v = strtoul(p, &end, 10);
    if (*end || v > UINT16_MAX)
        return -E_CONFIG;
    *out = (uint16_t)v;
    return 0;
}

static int parse(const char *key, const char *text, struct parsed *out, struct err *err)
{
    const char *sep = strstr(text, "://"), *host = sep ? sep + 3 : NULL, *end = NULL;
    if (!sep || parse_name(text, (size_t)(sep - text), out->name))
        return err_set(err, -E_CONFIG, "%s: \"%s\" is not NAME://HOST:PORT, as in PLAINTEXT://127.0.0.1:9092",
                       key, text);
    const char *colon = strrchr(host, ':');
    if (*host == '[') { /* IPv6 */
        end = strchr(host, ']');
        host++;
        colon = end && end[1] == ':' ? end + 1 : NULL;
    } else {
        end = colon;
    }
    if (!colon || (size_t)(end - host) > HOST_MAX_BYTES || parse_port(colon + 1, &out->port))
        return err_set(err, -E_CONFIG, "%s: \"%s\" is not NAME://HOST:PORT, as in PLAINTEXT://127.0.0.1:9092",
                       key, text);
    memcpy(out->host, host, (size_t)(end - host));
    out->host[end - host] = '\0';
    return 0;
}

/* The protocol of a listener: from the map, "NAME:PROTOCOL,…". */
static bool mapped(const char *map, const char *name, char out[NAME_MAX_BYTES + 1])
{
    for (const char *p = map; p && *p;) {
        const char *comma = strchr(p, ','), *stop = comma ? comma : p + strlen(p),
                   *colon = memchr(p, ':', (size_t)(stop - p));
        char key[NAME_MAX_BYTES + 1];
        while (p < stop && *p == ' ')
            p++;
        while (stop > p && stop[-1] == ' ')
            stop--;
        if (colon && colon >= p && !parse_name(p, (size_t)(colon - p), key) && strcmp(key, name) == 0)
            return !parse_name(colon + 1, (size_t)(stop - colon - 1), out);
        p = comma ? comma + 1 : NULL;
    }
    return false;
}

static bool listed(const struct option_list *list, const char *name)
{
    for (size_t i = 0; list && i < list->n; i++) {
        char key[NAME_MAX_BYTES + 1];
        if (!parse_name(list->item[i], strlen(list->item[i]), key) && strcmp(key, name) == 0)
            return true;
    }
    return false;
}

static bool anywhere(const char *host)
{
    return !*host || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

static bool loopback(const char *host)
{
    /* 127.example.org is a name like any other. */
    bool number = strspn(host, "0123456789.") == strlen(host);
    return (number && strncmp(host, "127.", 4) == 0) || strcmp(host, "::1") == 0 ||
           strcmp(host, "localhost") == 0;
}

static const char *keep(struct net_listeners *l, const char *text)
{
    char *copy = strdup(text);
    assert(l->strings_n < sizeof l->strings / sizeof *l->strings);
    if (copy)
        l->strings[l->strings_n++] = copy;
    return copy;
}

void net_listeners_fini(struct net_listeners *l)
{
    while (l->strings_n > 0)
        free(l->strings[--l->strings_n]);
    l->n = 0;
}

static int add(const struct net_listeners_options *o, struct net_listeners *l, const char *text,
               struct err *err)
{
    struct parsed p;
    char protocol[NAME_MAX_BYTES + 1] = "PLAINTEXT"; /* a controller's listener need not be in the map */
    int rc = parse("listeners", text, &p, err);
    if (rc)
        return rc;
    bool controller = listed(o->controller_names, p.name);
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->at[i].api.name, p.name) == 0)
            return err_set(err, -E_CONFIG,
                           "listeners: %s is there twice; give each listener a name of its own", p.name);
        if (p.port && l->at[i].port == p.port && strcmp(l->at[i].host, p.host) == 0)
            return err_set(err, -E_CONFIG, "listeners: port %u is there twice; give each listener its own",
                           p.port);
    }
    if (!mapped(o->protocol_map, p.name, protocol) && !controller)
        return err_set(err, -E_CONFIG,
                       "listener.security.protocol.map: no protocol for listener %s; add %s:PLAINTEXT",
                       p.name, p.name);
    if (strcmp(protocol, "PLAINTEXT") != 0)
        return err_set(err, -E_CONFIG, "listeners: %s asks for %s, which is not served; use PLAINTEXT", text,
                       protocol);
    if (!o->insecure && !loopback(p.host))
        return err_set(
            err, -E_CONFIG,
            "listeners: %s is off loopback without TLS; listen on 127.0.0.1, or set sundog.insecure=true",
            text);
    struct net_listen_at *at = &l->at[l->n];
    *at = (struct net_listen_at){.port = p.port, .api.controller = controller};
    at->host = keep(l, p.host);
    at->api.name = keep(l, p.name);
    at->api.protocol = keep(l, protocol);
    if (!at->host || !at->api.name || !at->api.protocol)
        return err_set(err, -E_NOMEM, "no memory for the listeners");
    l->n++;
    return 0;
}

/* What clients are told: as advertised, or where we listen; a wildcard becomes this machine's name. */
static int advertise(const struct net_listeners_options *o, struct net_listeners *l, struct net_listen_at *at,
                     struct err *err)
{
    struct parsed p = {.port = at->port};
    char machine[HOST_MAX_BYTES + 1] = "localhost";
    snprintf(p.host, sizeof p.host, "%s", at->host);
    for (size_t i = 0; o->advertised && i < o->advertised->n; i++) {
        struct parsed a;
        int rc = parse("advertised.listeners", o->advertised->item[i], &a, err);
        if (rc)
            return rc;
        if (strcmp(a.name, at->api.name) != 0)
            continue;
        if (anywhere(a.host))
            return err_set(err, -E_CONFIG,
                           "advertised.listeners: %s names no address; give one that clients can reach",
                           o->advertised->item[i]);
        p = a;
    }
    if (anywhere(p.host)) {
        if (gethostname(machine, sizeof machine))
            snprintf(machine, sizeof machine, "localhost");
        snprintf(p.host, sizeof p.host, "%s", machine);
    }
    at->api.advertised_port = p.port;
    at->api.advertised_host = keep(l, p.host);
    return at->api.advertised_host ? 0 : err_set(err, -E_NOMEM, "no memory for the listeners");
}

/* Every advertised name must be a listener. */
static int check_advertised(const struct net_listeners_options *o, const struct net_listeners *l,
                            struct err *err)
{
    for (size_t i = 0; o->advertised && i < o->advertised->n; i++) {
        struct parsed a;
        bool found = false;
        int rc = parse("advertised.listeners", o->advertised->item[i], &a, err);
        if (rc)
            return rc;
        for (size_t k = 0; k < l->n; k++)
            found |= strcmp(l->at[k].api.name, a.name) == 0;
        if (!found)
            return err_set(err, -E_CONFIG, "advertised.listeners: %s is none of listeners; add it there",
                           a.name);
    }
    return 0;
}

int net_listeners_parse(const struct net_listeners_options *o, struct net_listeners *out, struct err *err)
{
    int rc = 0;
    *out = (struct net_listeners){0};
    if (o->listeners->n > NET_LISTENERS_MAX)
        return err_set(err, -E_CONFIG, "listeners: more than %d", NET_LISTENERS_MAX);
    for (size_t i = 0; !rc && i < o->listeners->n; i++)
        rc = add(o, out, o->listeners->item[i], err);
    for (size_t i = 0; !rc && i < out->n; i++)
        rc = advertise(o, out, &out->at[i], err);
    if (!rc)
        rc = check_advertised(o, out, err);
    if (rc)
        net_listeners_fini(out);
    return rc;
}
