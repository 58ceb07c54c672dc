/* security.protocol, sasl.*, ssl.*: whose identity is whose, and what is said of a bad one. */
#include "mirror/route/security.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define BASE                                                                                                 \
    "clusters = east, west\n"                                                                                \
    "east.bootstrap.servers = e:9092\n"                                                                      \
    "west.bootstrap.servers = w:9092\n"
#define PLAIN_LINE                                                                                           \
    "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"ann\" password=\"p "        \
    "w;\\\"d\";"

static struct props props;
static struct mirror_config config;
static struct err err;
static char warnings[2048];

static void warned(void *arg, const char *text)
{
    (void)arg;
    strncat(warnings, text, sizeof warnings - strlen(warnings) - 1);
}

static int read_text(const char *text)
{
    struct config_warnings w = {warned, NULL};
    warnings[0] = 0;
    err = (struct err){0};
    props_init(&props);
    cr_assert_eq(props_parse(&props, slice_str(text), "mm2.properties", &err), 0, "%s", err.text);
    return mirror_config_read(&props, NULL, 0, NULL, &w, &config, &err);
}

static void end(void)
{
    mirror_config_fini(&config);
    props_fini(&props);
}

static const struct client_security *of(int cluster)
{
    return &config.clusters[cluster].security;
}

static void good(const char *text)
{
    cr_assert_eq(read_text(text), 0, "%s", err.text);
    cr_assert_str_eq(warnings, "");
}

static void refused(const char *text, const char *says)
{
    cr_assert_eq(read_text(text), -E_CONFIG, "%s", text);
    cr_assert_not_null(strstr(err.text, says), "%s", err.text);
    props_fini(&props);
}

Test(security, nothing_said_is_plaintext)
{
    good(BASE);
    cr_assert(!of(0)->tls && of(0)->mechanism == SASL_NONE);
    end();
    good(BASE "security.protocol = PLAINTEXT\nsasl.mechanism = PLAIN\nssl.truststore.location = /x\n");
    cr_assert(!of(0)->tls && !of(0)->tls_options.trust_file);
    end();
}

Test(security, an_alias_speaks_for_its_cluster_over_the_top)
{
    good(BASE
         "security.protocol = SSL\nssl.truststore.location = /all.pem\nssl.truststore.password = one\n"
         "west.security.protocol = SASL_SSL\nwest.sasl.mechanism = PLAIN\nwest.sasl.jaas.config = " PLAIN_LINE
         "\n"
         "west.ssl.truststore.location = /west.jks\nwest.ssl.endpoint.identification.algorithm =\n");
    cr_assert(of(0)->tls && of(0)->mechanism == SASL_NONE);
    cr_assert_str_eq(of(0)->tls_options.trust_file, "/all.pem");
    cr_assert_not(of(0)->tls_options.any_host);
    cr_assert(of(1)->tls && of(1)->mechanism == SASL_PLAIN);
    cr_assert_str_eq(of(1)->user, "ann");
    cr_assert_str_eq(of(1)->tls_options.trust_file, "/west.jks");
    cr_assert_str_eq(of(1)->tls_options.trust_password, "one");
    cr_assert(of(1)->tls_options.any_host);
    end();
}

Test(security, clients_of_a_cluster_share_one_identity)
{
    good(BASE "west.producer.security.protocol = SSL\nwest.admin.security.protocol = SSL\n"
              "east->west.consumer.security.protocol = SASL_PLAINTEXT\neast.sasl.mechanism = SCRAM-SHA-512\n"
              "east.sasl.jaas.config = x.ScramLoginModule required username=bob password='it is' ;\n");
    cr_assert(of(1)->tls);
    cr_assert_eq(of(0)->mechanism, SASL_SCRAM_SHA_512);
    cr_assert_str_eq(of(0)->user, "bob");
    cr_assert_str_eq(of(0)->password, "it is");
    cr_assert_eq(config.flows[0].consumer_n, 0, "not the consumer's own");
    end();
    refused(BASE "west.producer.security.protocol = SSL\nwest.consumer.security.protocol = PLAINTEXT\n",
            "one identity by all clients");
}

Test(security, a_token_is_a_file)
{
    good(BASE "east.security.protocol = SASL_SSL\neast.sasl.mechanism = OAUTHBEARER\n"
              "east.sasl.oauthbearer.token.endpoint.url = file:///run/token\n");
    cr_assert_str_eq(of(0)->token_url, "file:///run/token");
    end();
}

Test(security, or_comes_from_an_endpoint_that_knows_us)
{
    static const char *const ways[] = {
        "east.sasl.oauthbearer.client.credentials.client.id = ann\n"
        "east.sasl.oauthbearer.client.credentials.client.secret = pst\neast.sasl.oauthbearer.scope = logs\n",
        "east.sasl.jaas.config = x.OAuthBearerLoginModule required clientId=\"ann\" clientSecret=\"pst\" "
        "scope=\"logs\";\n"};
    for (int i = 0; i < 2; i++) {
        char text[1024];
        snprintf(text, sizeof text,
                 BASE "east.security.protocol = SASL_SSL\neast.sasl.mechanism = OAUTHBEARER\n"
                      "east.sasl.oauthbearer.token.endpoint.url = https://id.example/token\n%s",
                 ways[i]);
        good(text);
        cr_assert_str_eq(of(0)->client_id, "ann");
        cr_assert_str_eq(of(0)->client_secret, "pst");
        cr_assert_str_eq(of(0)->scope, "logs");
        end();
    }
}

Test(security, what_cannot_be_is_one_clear_line)
{
#define SASL BASE "east.security.protocol = SASL_SSL\n"
    refused(BASE "east.security.protocol = TLS\n",
            "east.security.protocol = TLS (mm2.properties:4): served are");
    refused(SASL, "east.sasl.mechanism is missing");
    refused(SASL "east.sasl.mechanism = GSSAPI\n", "served are PLAIN");
    refused(SASL "east.sasl.mechanism = PLAIN\n", "east.sasl.jaas.config is missing");
    refused(SASL "east.sasl.mechanism = PLAIN\neast.sasl.jaas.config = x.Y required username=\"a\";\n",
            "it has no password");
    refused(SASL "east.sasl.mechanism = PLAIN\neast.sasl.jaas.config = x.Y required username=\"a;\n",
            "cannot be read as far as");
    refused(SASL "east.sasl.mechanism = OAUTHBEARER\n", "token.endpoint.url is missing");
    refused(SASL "east.sasl.mechanism = OAUTHBEARER\neast.sasl.oauthbearer.token.endpoint.url = https://x/\n",
            "client.id is missing, or clientId in east.sasl.jaas.config");
    refused(SASL "east.sasl.mechanism = OAUTHBEARER\neast.sasl.oauthbearer.token.endpoint.url = http://x/\n",
            "on this machine only");
    refused(SASL "east.sasl.mechanism = OAUTHBEARER\n"
                 "east.sasl.oauthbearer.token.endpoint.url = http://localhost:1@elsewhere/\n",
            "on this machine only");
    refused(SASL "east.sasl.jaas.config = ${file:/x:y}\n", "config providers");
    refused(BASE "east.security.protocol = SSL\neast.ssl.truststore.type = BCFKS\n", "BCFKS");
    refused(BASE "east.security.protocol = SSL\neast.ssl.endpoint.identification.algorithm = none\n",
            "https, or nothing");
}

Test(security, secrets_are_not_shown)
{
    cr_assert_eq(read_text(SASL "east.sasl.mechanism = PLAIN\neast.sasl.jaas.config = x.Y required "
                                "username=\"a\" password=\"s3cret\n"),
                 -E_CONFIG);
    cr_assert_null(strstr(err.text, "s3cret"), "%s", err.text);
    props_fini(&props);
}

Test(security, jaas_lines)
{
    static const struct {
        const char *line, *name, *value;
        int rc;
    } lines[] = {
        {PLAIN_LINE, "username", "ann", 0},
        {PLAIN_LINE, "password", "p w;\"d", 0},
        {PLAIN_LINE, "user", NULL, -E_NOTFOUND},
        {"a.B required username = 'x' ;", "username", "x", 0},
        {"a.B required", "username", NULL, -E_NOTFOUND},
        {"a.B required password=\"username=evil\" username=good;", "username", "good", 0},
        {"a.B required strange words", "username", NULL, -E_CONFIG},
        {"", "username", NULL, -E_NOTFOUND},
        {"a.B required username=\"open", "username", NULL, -E_CONFIG},
        {"a.B required username=;", "username", "", 0},
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char *out;
        cr_assert_eq(security_jaas_option(lines[i].line, lines[i].name, &out), lines[i].rc, "%s",
                     lines[i].line);
        if (lines[i].value)
            cr_assert_str_eq(out, lines[i].value);
        else
            cr_assert_null(out);
        free(out);
    }
}
