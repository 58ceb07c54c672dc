#include "mirror/route/security.h"

#include "mirror/route/place.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum security_row {
    PROTOCOL,
    MECHANISM,
    JAAS,
    TOKEN_URL,
    CLIENT_ID,
    CLIENT_SECRET,
    SCOPE,
    TRUST_FILE,
    TRUST_PASSWORD,
    TRUST_PEM,
    TRUST_TYPE,
    KEY_FILE,
    KEY_FILE_PASSWORD,
    KEY_PEM,
    CHAIN_PEM,
    KEY_TYPE,
    KEY_PASSWORD,
    HOST_CHECK,
    VERSIONS,
    CIPHERS,
    ROWS
};

static const char *const keys[ROWS] = {
    [PROTOCOL] = "security.protocol",
    [MECHANISM] = "sasl.mechanism",
    [JAAS] = "sasl.jaas.config",
    [TOKEN_URL] = "sasl.oauthbearer.token.endpoint.url",
    [CLIENT_ID] = "sasl.oauthbearer.client.credentials.client.id",
    [CLIENT_SECRET] = "sasl.oauthbearer.client.credentials.client.secret",
    [SCOPE] = "sasl.oauthbearer.scope",
    [TRUST_FILE] = "ssl.truststore.location",
    [TRUST_PASSWORD] = "ssl.truststore.password",
    [TRUST_PEM] = "ssl.truststore.certificates",
    [TRUST_TYPE] = "ssl.truststore.type",
    [KEY_FILE] = "ssl.keystore.location",
    [KEY_FILE_PASSWORD] = "ssl.keystore.password",
    [KEY_PEM] = "ssl.keystore.key",
    [CHAIN_PEM] = "ssl.keystore.certificate.chain",
    [KEY_TYPE] = "ssl.keystore.type",
    [KEY_PASSWORD] = "ssl.key.password",
    [HOST_CHECK] = "ssl.endpoint.identification.algorithm",
    [VERSIONS] = "ssl.enabled.protocols",
    [CIPHERS] = "ssl.cipher.suites",
};

/* The strongest setting of each key for one cluster. */
struct found {
    const struct prop *prop[ROWS];
    int rank[ROWS];
};

static int row_of(const char *key)
{
    for (int i = 0; i < ROWS; i++)
        if (strcmp(keys[i], key) == 0)
            return i;
    return -1;
}

bool security_key(const char *key)
{
    return row_of(key) >= 0;
}

static const char *value(const struct found *f, enum security_row row)
{
    return f->prop[row] && f->prop[row]->value[0] ? f->prop[row]->value : NULL;
}

static int consider(struct found *f, int row, const struct prop *prop, int rank, const char *alias,
                    struct err *err)
{
    const struct prop *had = f->prop[row];
    if (rank < f->rank[row])
        return 0;
    if (rank == f->rank[row] && had && strcmp(had->value, prop->value) != 0)
        return err_set(
            err, -E_CONFIG,
            "%s (%s) and %s (%s) differ: cluster %s is reached under one identity by all clients of the "
            "mirror; write %s.%s",
            had->key, had->origin, prop->key, prop->origin, alias, alias, keys[row]);
    f->prop[row] = prop;
    f->rank[row] = rank;
    return 0;
}

static int find_all(struct props *p, const struct mirror_config *c, int cluster, struct found *f,
                    struct err *err)
{
    for (size_t i = 0; i < p->n; i++) {
        struct place at;
        int rc = place_key(c, p->list[i].key, &at, err);
        int row = rc ? -1 : row_of(at.parts.key);
        int rank = row < 0 ? 0 : place_cluster_rank(&at, cluster);
        if (rank == 0)
            continue; /* a key that cannot be placed is told by whoever reads the rest */
        if (strstr(p->list[i].value, "${"))
            return err_set(err, -E_CONFIG, "%s (%s): config providers are not served; write the value itself",
                           p->list[i].key, p->list[i].origin);
        if ((rc = consider(f, row, &p->list[i], rank, c->clusters[cluster].alias, err)))
            return rc;
        p->list[i].used = true;
    }
    if (err)
        *err = (struct err){0};
    return 0;
}

/* ---- sasl.jaas.config ---- */

static const char *skip_blank(const char *p)
{
    while (isspace((unsigned char)*p))
        p++;
    return p;
}

/* A word, or a text in quotes with \" and \\ in it; moves *at behind it. NULL: it does not end. */
static char *take_value(const char **at)
{
    const char *p = *at;
    char quote = *p == '"' || *p == '\'' ? *p++ : 0;
    char *out = malloc(strlen(p) + 1), *to = out;
    if (!out)
        return NULL;
    while (*p && (quote ? *p != quote : !isspace((unsigned char)*p) && *p != ';')) {
        if (quote && *p == '\\' && p[1])
            p++;
        *to++ = *p++;
    }
    *to = 0;
    if (quote && *p != quote) {
        free(out);
        return NULL;
    }
    *at = p + (quote != 0);
    return out;
}

/* "Module required name=value name="value" …;" */
int security_jaas_option(const char *line, const char *name, char **out)
{
    const char *p = skip_blank(line);
    size_t n = strlen(name);
    *out = NULL;
    for (int word = 0; *p && *p != ';'; word++) {
        const char *begin = p;
        while (*p && !isspace((unsigned char)*p) && *p != '=' && *p != ';')
            p++;
        bool its = (size_t)(p - begin) == n && strncmp(begin, name, n) == 0;
        const char *behind = skip_blank(p);
        if (*behind == '=') {
            p = skip_blank(behind + 1);
            char *text = take_value(&p);
            if (!text)
                return -E_CONFIG;
            if (its) {
                *out = text;
                return 0;
            }
            free(text);
        } else if (word >= 2) {
            return -E_CONFIG; /* behind module and flag only options stand */
        }
        p = skip_blank(p);
    }
    return -E_NOTFOUND;
}

/* ---- from texts to values ---- */

static int copy(char **to, const char *from)
{
    if (from && !(*to = strdup(from)))
        return -E_NOMEM;
    return 0;
}

static int read_protocol(const struct found *f, bool *tls, bool *sasl, struct err *err)
{
    const char *p = value(f, PROTOCOL);
    *tls = p && (strcmp(p, "SSL") == 0 || strcmp(p, "SASL_SSL") == 0);
    *sasl = p && (strcmp(p, "SASL_PLAINTEXT") == 0 || strcmp(p, "SASL_SSL") == 0);
    if (p && !*tls && !*sasl && strcmp(p, "PLAINTEXT") != 0)
        return err_set(err, -E_CONFIG, "%s = %s (%s): served are PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL",
                       f->prop[PROTOCOL]->key, p, f->prop[PROTOCOL]->origin);
    return 0;
}

static int read_tls(const struct found *f, struct client_security *s)
{
    struct tls_options *t = &s->tls_options;
    char **to[ROWS] = {[TRUST_FILE] = &t->trust_file,
                       [TRUST_PASSWORD] = &t->trust_password,
                       [TRUST_PEM] = &t->trust_pem,
                       [KEY_FILE] = &t->key_file,
                       [KEY_FILE_PASSWORD] = &t->key_file_password,
                       [KEY_PEM] = &t->key_pem,
                       [CHAIN_PEM] = &t->chain_pem,
                       [KEY_PASSWORD] = &t->key_password,
                       [VERSIONS] = &t->versions,
                       [CIPHERS] = &t->ciphers};
    int rc = 0;
    for (int i = 0; i < ROWS && !rc; i++)
        rc = to[i] ? copy(to[i], value(f, (enum security_row)i)) : 0;
    /* Java: "https" unless set; set to nothing, names are not compared. */
    t->any_host = f->prop[HOST_CHECK] && !value(f, HOST_CHECK);
    return rc;
}

static int check_types(const struct found *f, struct err *err)
{
    static const enum security_row rows[] = {TRUST_TYPE, KEY_TYPE};
    for (size_t i = 0; i < 2; i++) {
        const char *v = value(f, rows[i]);
        if (v && strcmp(v, "JKS") != 0 && strcmp(v, "PKCS12") != 0 && strcmp(v, "PEM") != 0)
            return err_set(err, -E_CONFIG, "%s = %s (%s): read are PEM, PKCS12 and (trust only) JKS",
                           f->prop[rows[i]]->key, v, f->prop[rows[i]]->origin);
    }
    const char *host = value(f, HOST_CHECK);
    if (host && strcasecmp(host, "https") != 0)
        return err_set(err, -E_CONFIG, "%s = %s (%s): https, or nothing", f->prop[HOST_CHECK]->key, host,
                       f->prop[HOST_CHECK]->origin);
    return 0;
}

static int read_credentials(const struct found *f, const char *alias, struct client_security *s,
                            struct err *err)
{
    static const struct {
        const char *option;
        size_t at;
    } options[] = {{"username", offsetof(struct client_security, user)},
                   {"password", offsetof(struct client_security, password)}};
    const char *line = value(f, JAAS);
    if (!line)
        return err_set(err, -E_CONFIG,
                       "%s.sasl.jaas.config is missing: as in org.apache.kafka.common.security.%s required "
                       "username=\"NAME\" password=\"PASSWORD\";",
                       alias,
                       s->mechanism == SASL_PLAIN ? "plain.PlainLoginModule" : "scram.ScramLoginModule");
    for (size_t i = 0; i < 2; i++) {
        char **to = (char **)(void *)((char *)s + options[i].at);
        int rc = security_jaas_option(line, options[i].option, to);
        if (rc)
            return err_set(err, -E_CONFIG, "%s (%s): %s %s", f->prop[JAAS]->key, f->prop[JAAS]->origin,
                           rc == -E_NOTFOUND ? "it has no" : "it cannot be read as far as",
                           options[i].option);
    }
    return 0;
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* A secret goes to no other machine in the clear. */
static bool loopback(const char *url)
{
    const char *host = url + strlen("http://");
    size_t n = strcspn(host, "/");
    return !memchr(host, '@', n) &&
           (begins(host, "127.0.0.1:") || begins(host, "localhost:") || begins(host, "[::1]:"));
}

/* Since Kafka 4.1 by keys of their own, before in the JAAS line. */
static int read_client(const struct found *f, const char *alias, struct client_security *s, struct err *err)
{
    const struct {
        enum security_row row;
        const char *option;
        char **to;
    } list[] = {{CLIENT_ID, "clientId", &s->client_id},
                {CLIENT_SECRET, "clientSecret", &s->client_secret},
                {SCOPE, "scope", &s->scope}};
    for (size_t i = 0; i < 3; i++) {
        int rc = copy(list[i].to, value(f, list[i].row));
        if (!rc && !*list[i].to && value(f, JAAS))
            rc = security_jaas_option(value(f, JAAS), list[i].option, list[i].to);
        if (rc && rc != -E_NOTFOUND)
            return err_set(err, rc, "%s (%s): it cannot be read as far as %s",
                           f->prop[JAAS] ? f->prop[JAAS]->key : alias,
                           f->prop[JAAS] ? f->prop[JAAS]->origin : "", list[i].option);
        if (!*list[i].to && list[i].row != SCOPE)
            return err_set(err, -E_CONFIG,
                           "%s.%s is missing, or %s in %s.sasl.jaas.config: the endpoint must know who asks",
                           alias, keys[list[i].row], list[i].option, alias);
    }
    return 0;
}

static int read_token(const struct found *f, const char *alias, struct client_security *s, struct err *err)
{
    const char *url = value(f, TOKEN_URL);
    if (!url)
        return err_set(err, -E_CONFIG,
                       "%s.sasl.oauthbearer.token.endpoint.url is missing: file:///PATH of a file with the "
                       "token, or the "
                       "https:// address of an endpoint",
                       alias);
    bool file = begins(url, "file:///"),
         endpoint = begins(url, "https://") || (begins(url, "http://") && loopback(url));
    if (!file && !endpoint)
        return err_set(err, -E_CONFIG,
                       "%s = %s (%s): file:///PATH or https://... (http:// on this machine only)",
                       f->prop[TOKEN_URL]->key, url, f->prop[TOKEN_URL]->origin);
    if (copy(&s->token_url, url))
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    return file ? 0 : read_client(f, alias, s, err);
}

static int read_sasl(const struct found *f, const char *alias, struct client_security *s, struct err *err)
{
    const char *m = value(f, MECHANISM);
    if (!m)
        return err_set(err, -E_CONFIG,
                       "%s.sasl.mechanism is missing: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER",
                       alias);
    if (sasl_mechanism_parse(m, &s->mechanism))
        return err_set(err, -E_CONFIG,
                       "%s = %s (%s): served are PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER",
                       f->prop[MECHANISM]->key, m, f->prop[MECHANISM]->origin);
    if (s->mechanism == SASL_OAUTHBEARER)
        return read_token(f, alias, s, err);
    return read_credentials(f, alias, s, err);
}

static int read_cluster(const struct found *f, const char *alias, struct client_security *s, struct err *err)
{
    bool sasl;
    int rc = read_protocol(f, &s->tls, &sasl, err);
    if (!rc && s->tls)
        rc = check_types(f, err);
    if (!rc && s->tls && read_tls(f, s))
        rc = err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    if (!rc && sasl)
        rc = read_sasl(f, alias, s, err);
    return rc;
}

int security_read(struct props *p, struct mirror_config *c, struct err *err)
{
    for (int i = 0; i < c->clusters_n; i++) {
        struct found f = {0};
        int rc = find_all(p, c, i, &f, err);
        if (!rc)
            rc = read_cluster(&f, c->clusters[i].alias, &c->clusters[i].security, err);
        if (rc)
            return rc;
    }
    return 0;
}
