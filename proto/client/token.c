#include "proto/client/token.h"

#include "base/world/clock.h"

#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#define CLAIMS_MAX 32768

void client_token_fini(struct client_token *t)
{
    tls_wipe(&t->text);
    tls_wipe(&t->subject);
    t->until_ms = 0;
}

/* The claims of a JWT, unverified: the broker verifies. NULL when it is none. */
static json_t *claims_of(const char *token)
{
    const char *begin = strchr(token, '.'), *end = begin ? strchr(begin + 1, '.') : NULL;
    char text[CLAIMS_MAX];
    uint8_t body[CLAIMS_MAX];
    size_t n = end ? (size_t)(end - begin - 1) : 0;
    if (n == 0 || n + 4 > sizeof text)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        char x = begin[1 + i];
        text[i] = x == '-' ? '+' : x == '_' ? '/' : x;
    }
    while (n % 4)
        text[n++] = '=';
    int size = EVP_DecodeBlock(body, (const uint8_t *)text, (int)n);
    while (size > 0 && body[size - 1] == 0)
        size--; /* what the padding decodes to */
    return size > 0 ? json_loadb((const char *)body, (size_t)size, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

static int one_line(char *text)
{
    size_t n = strlen(text);
    while (n && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' '))
        text[--n] = 0;
    return n > 0 && n <= SASL_TEXT_MAX / 2 && strcspn(text, "\r\n\x01 ") == n ? 0 : -E_CONFIG;
}

static int from_file(const char *path, char **out, struct err *err)
{
    size_t n;
    int rc = tls_file_read(path, out, &n, err);
    if (rc)
        return err_wrap(err, "OAUTHBEARER token");
    if (one_line(*out)) {
        tls_wipe(out);
        return err_set(err, -E_CONFIG, "OAUTHBEARER token: %s holds no token in one line", path);
    }
    return 0;
}

static int from_endpoint(const struct client_security *s, char **out, int64_t *life_ms, struct err *err)
{
    char *body;
    int rc = client_token_fetch(s, &body, err);
    if (rc)
        return rc;
    json_t *answer = json_loads(body, JSON_REJECT_DUPLICATES, NULL);
    const char *token = json_string_value(json_object_get(answer, "access_token"));
    *life_ms = json_integer_value(json_object_get(answer, "expires_in"));
    *life_ms = *life_ms > 0 && *life_ms < INT32_MAX ? *life_ms * 1000 : 0;
    *out = token ? strdup(token) : NULL;
    json_decref(answer);
    tls_wipe(&body);
    if (*out && one_line(*out) == 0)
        return 0;
    tls_wipe(out);
    return err_set(err, -E_CONFIG, "OAUTHBEARER token: %s answers without an access_token", s->token_url);
}

int client_token_get(const struct client_security *s, struct client_token *out, struct err *err)
{
    static const char scheme[] = "file://";
    int64_t life_ms = 0;
    *out = (struct client_token){0};
    int rc = strncmp(s->token_url, scheme, sizeof scheme - 1) == 0
                 ? from_file(s->token_url + sizeof scheme - 1, &out->text, err)
                 : from_endpoint(s, &out->text, &life_ms, err);
    if (rc)
        return rc;
    json_t *claims = claims_of(out->text);
    int64_t exp_s = json_integer_value(json_object_get(claims, "exp")), now_ms = clock_wall_ms();
    const char *subject = json_string_value(json_object_get(claims, "sub"));
    bool says = exp_s > 0 && exp_s < INT64_MAX / 1000;
    out->until_ms = says ? exp_s * 1000 : now_ms + (life_ms ? life_ms : TOKEN_LIFE_MS);
    out->subject = subject ? strdup(subject) : NULL;
    json_decref(claims);
    return 0;
}
