#include "broker/net/listeners.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct option_list list(char *text, char **items)
{
    struct option_list l = {.item = items};
    for (char *p = strtok(text, ","); p; p = strtok(NULL, ","))
        items[l.n++] = p;
    return l;
}

struct given {
    const char *listeners, *advertised, *controllers, *map;
    bool insecure;
};

static int parse(struct given g, struct net_listeners *out, struct err *err)
{
    char a[500], b[500], c[500], *ia[20], *ib[20], *ic[20];
    snprintf(a, sizeof a, "%s", g.listeners);
    snprintf(b, sizeof b, "%s", g.advertised ? g.advertised : "");
    snprintf(c, sizeof c, "%s", g.controllers ? g.controllers : "");
    struct option_list la = list(a, ia), lb = list(b, ib), lc = list(c, ic);
    *err = (struct err){0};
    return net_listeners_parse(
        &(struct net_listeners_options){.listeners = &la,
                                        .advertised = &lb,
                                        .controller_names = &lc,
                                        .protocol_map = g.map ? g.map : "PLAINTEXT:PLAINTEXT,SSL:SSL",
                                        .insecure = g.insecure},
        out, err);
}

static void refused(struct given g, const char *word)
{
    struct net_listeners l;
    struct err err;
    cr_expect_eq(parse(g, &l, &err), -E_CONFIG, "%s", g.listeners);
    cr_expect(strstr(err.text, word), "\"%s\" is not in: %s", word, err.text);
}

Test(listeners, are_taken_apart)
{
    struct net_listeners l;
    struct err err;
    cr_assert_eq(parse((struct given){.listeners = "plaintext://127.0.0.1:9092,INNER://[::1]:0",
                                      .advertised = "INNER://example.org:1234",
                                      .map = "PLAINTEXT:PLAINTEXT, inner:plaintext"},
                       &l, &err),
                 0, "%s", err.text);
    cr_assert_eq(l.n, 2);
    cr_expect_str_eq(l.at[0].api.name, "PLAINTEXT");
    cr_expect_str_eq(l.at[0].host, "127.0.0.1");
    cr_expect_str_eq(l.at[0].api.advertised_host, "127.0.0.1");
    cr_expect_eq(l.at[0].api.advertised_port, 9092);
    cr_expect_str_eq(l.at[1].host, "::1");
    cr_expect_str_eq(l.at[1].api.advertised_host, "example.org");
    cr_expect_eq(l.at[1].api.advertised_port, 1234);
    net_listeners_fini(&l);
}

Test(listeners, what_is_wrong_is_said_with_its_key)
{
    refused((struct given){.listeners = "nonsense"}, "listeners");
    refused((struct given){.listeners = "PLAINTEXT://127.0.0.1"}, "NAME://HOST:PORT");
    refused((struct given){.listeners = "PLAINTEXT://127.0.0.1:x"}, "NAME://HOST:PORT");
    refused((struct given){.listeners = "PLAINTEXT://127.0.0.1:65536"}, "NAME://HOST:PORT");
    refused((struct given){.listeners = "PL AIN://127.0.0.1:1"}, "NAME://HOST:PORT");
    refused((struct given){.listeners = "://127.0.0.1:1"}, "NAME://HOST:PORT");
    refused((struct given){.listeners = "PLAINTEXT://[::1:1"}, "NAME://HOST:PORT");
    refused((struct given){.listeners = "PLAINTEXT://127.0.0.1:1,PLAINTEXT://127.0.0.1:2"}, "twice");
    refused((struct given){.listeners = "PLAINTEXT://127.0.0.1:1,SSL://127.0.0.1:1"}, "twice");
    refused((struct given){.listeners = "SSL://127.0.0.1:1"}, "PLAINTEXT");
    refused((struct given){.listeners = "X://127.0.0.1:1"}, "listener.security.protocol.map");
    refused((struct given){.listeners = "PLAINTEXT://127.0.0.1:1", .advertised = "PLAINTEXT://0.0.0.0:1"},
            "advertised.listeners");
    refused((struct given){.listeners = "PLAINTEXT://127.0.0.1:1", .advertised = "Y://a:1"},
            "advertised.listeners");
}

Test(listeners, off_loopback_needs_to_be_allowed)
{
    struct net_listeners l;
    struct err err;
    const char *far[] = {"PLAINTEXT://:9092",         "PLAINTEXT://0.0.0.0:9092",
                         "PLAINTEXT://[::]:9092",     "PLAINTEXT://10.0.0.1:1",
                         "PLAINTEXT://example.org:1", "PLAINTEXT://127.example.org:1"};
    for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
        refused((struct given){.listeners = far[i]}, "sundog.insecure");
        cr_assert_eq(parse((struct given){.listeners = far[i], .insecure = true}, &l, &err), 0, "%s",
                     err.text);
        cr_expect_gt(strlen(l.at[0].api.advertised_host), 0);
        cr_expect_str_neq(l.at[0].api.advertised_host, "0.0.0.0");
        net_listeners_fini(&l);
    }
}

Test(listeners, a_controllers_listener_is_known_and_needs_no_map)
{
    struct net_listeners l;
    struct err err;
    cr_assert_eq(parse((struct given){.listeners = "PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2",
                                      .controllers = "CONTROLLER"},
                       &l, &err),
                 0, "%s", err.text);
    cr_expect(!l.at[0].api.controller && l.at[1].api.controller);
    net_listeners_fini(&l);
}
