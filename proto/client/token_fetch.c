/* The token endpoint, asked with libcurl. The library is opened at run time (it would bring some thirty others into
 * programs that never use it); its headers give the types. */
#include "base/core/buf.h"
#include "proto/client/token.h"

#include <assert.h>
#include <curl/curl.h>
#include <dlfcn.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdlib.h>

#define LIBRARY "libcurl.so.4"

static struct {
    CURLcode (*global_init)(long flags);
    CURL *(*easy_init)(void);
    CURLcode (*easy_setopt)(CURL *c, CURLoption option, ...);
    CURLcode (*easy_perform)(CURL *c);
    CURLcode (*easy_getinfo)(CURL *c, CURLINFO info, ...);
    void (*easy_cleanup)(CURL *c);
    char *(*easy_escape)(CURL *c, const char *text, int n);
    void (*free)(void *p);
    bool ready;
} curl;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void open_library(void)
{
    static const char *const names[] = {"curl_global_init",  "curl_easy_init",    "curl_easy_setopt",
                                        "curl_easy_perform", "curl_easy_getinfo", "curl_easy_cleanup",
                                        "curl_easy_escape",  "curl_free"};
    void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL), *found[8];
    for (size_t i = 0; i < 8; i++)
        if (!handle || !(found[i] = dlsym(handle, names[i])))
            return;
    static_assert(offsetof(__typeof__(curl), ready) == sizeof found,
                  "a pointer for each name, in their order");
    memcpy(&curl, found, sizeof found);
    curl.ready = curl.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

static size_t collect(char *p, size_t size, size_t n, void *arg)
{
    struct buf *b = arg;
    buf_put(b, p, size * n);
    return b->failed ? 0 : size * n;
}

/* Both lines of a POST: who we are goes into the header, what we want into the body. */
static int set_request(CURL *c, const struct client_security *s, struct buf *who, struct buf *what)
{
    buf_printf(who, "%s:%s", s->client_id, s->client_secret);
    buf_put_u8(who, 0);
    buf_printf(what, "grant_type=client_credentials");
    if (s->scope) {
        char *scope = curl.easy_escape(c, s->scope, 0);
        buf_printf(what, "&scope=%s", scope ? scope : "");
        curl.free(scope);
    }
    buf_put_u8(what, 0);
    return who->failed || what->failed || curl.easy_setopt(c, CURLOPT_URL, s->token_url) != CURLE_OK ||
                   curl.easy_setopt(c, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC) != CURLE_OK ||
                   curl.easy_setopt(c, CURLOPT_USERPWD, (const char *)who->p) != CURLE_OK ||
                   curl.easy_setopt(c, CURLOPT_POSTFIELDS, (const char *)what->p) != CURLE_OK
               ? -E_NOMEM
               : 0;
}

/* The cluster's own authorities where it names some, else the system's. */
static int set_trust(CURL *c, const struct tls_material *m)
{
    if (!m->trust)
        return 0;
    struct curl_blob blob = {m->trust, strlen(m->trust), CURL_BLOB_COPY};
    return curl.easy_setopt(c, CURLOPT_CAINFO_BLOB, &blob) == CURLE_OK ? 0 : -E_NOMEM;
}

static int perform(CURL *c, const struct client_security *s, struct buf *body, struct err *err)
{
    char text[CURL_ERROR_SIZE] = "";
    long status = 0;
    curl.easy_setopt(c, CURLOPT_ERRORBUFFER, text);
    curl.easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl.easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)TOKEN_TIMEOUT_MS);
    curl.easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl.easy_setopt(c, CURLOPT_WRITEFUNCTION, collect);
    curl.easy_setopt(c, CURLOPT_WRITEDATA, body);
    CURLcode rc = curl.easy_perform(c);
    curl.easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    if (rc != CURLE_OK)
        return err_set(err, -E_IO, "OAUTHBEARER token: %s: %s", s->token_url,
                       text[0] ? text : "cannot be asked");
    if (status != 200)
        return err_set(err, -E_ACCESS, "OAUTHBEARER token: %s answers %ld: %.*s", s->token_url, status,
                       (int)(body->n < 200 ? body->n : 200), body->n ? (const char *)body->p : "");
    return 0;
}

static int ask(const struct client_security *s, struct buf *body, struct err *err)
{
    struct tls_material m;
    struct buf who, what;
    int rc = tls_material_load(&s->tls_options, &m, err);
    if (rc)
        return rc;
    buf_init(&who, SASL_TEXT_MAX);
    buf_init(&what, SASL_TEXT_MAX);
    CURL *c = curl.easy_init();
    rc = !c || set_request(c, s, &who, &what) || set_trust(c, &m)
             ? err_set(err, -E_NOMEM, "OAUTHBEARER token: %s", err_str(-E_NOMEM))
             : perform(c, s, body, err);
    if (c)
        curl.easy_cleanup(c);
    if (who.p)
        OPENSSL_cleanse(who.p, who.n);
    buf_fini(&who);
    buf_fini(&what);
    tls_material_fini(&m);
    return rc;
}

int client_token_fetch(const struct client_security *s, char **out, struct err *err)
{
    struct buf body;
    *out = NULL;
    pthread_once(&once, open_library);
    if (!curl.ready)
        return err_set(err, -E_CONFIG,
                       "OAUTHBEARER token: %s needs %s: install libcurl4, or use a token file", s->token_url,
                       LIBRARY);
    buf_init(&body, SASL_TEXT_MAX);
    int rc = ask(s, &body, err);
    if (!rc && !(*out = strndup((const char *)body.p, body.n)))
        rc = err_set(err, -E_NOMEM, "OAUTHBEARER token: %s", err_str(-E_NOMEM));
    if (body.p)
        OPENSSL_cleanse(body.p, body.n);
    buf_fini(&body);
    return rc;
}
