/* SASL on the wire: the exchange before anything else, what refusals say, and sessions that end. */
#include "proto/client/security.h"
#include "rig.h"

#include <unistd.h>

static struct rig r;
static struct got g, h;
static struct client_security security;

static void begin(enum sasl_mechanism m)
{
    struct client_options o = {.security = &security};
    security = (struct client_security){.mechanism = m, .user = strdup("ann"), .password = strdup("secret")};
    g = h = (struct got){0};
    rig_init(&r, &o);
}

static void teardown(void)
{
    rig_fini(&r);
    client_security_fini(&security);
}

TestSuite(secure, .fini = teardown);

static void ask(struct got *got)
{
    struct client_call *c = rig_call(&r, kp_key_describe_cluster, got);
    rig_send(&r, c);
    rig_run(&r);
}

static struct request expect(int16_t key)
{
    struct request q = rig_take(&r);
    cr_assert_eq(q.h.api_key, key, "%s", q.api->name);
    cr_assert_eq(q.h.api_version, 1);
    return q;
}

static struct request after_handshake(void)
{
    struct request q = expect(kp_key_sasl_handshake);
    struct kp_sasl_handshake_response a = {0};
    rig_answer(&r, &q, &a);
    rig_run(&r);
    return expect(kp_key_sasl_authenticate);
}

static void authenticate(const struct request *q, int64_t lifetime_ms)
{
    struct kp_sasl_authenticate_response a = {.auth_bytes = SLICE_LIT(""),
                                              .session_lifetime_ms = lifetime_ms};
    rig_answer(&r, q, &a);
    rig_run(&r);
}

Test(secure, nothing_is_asked_before_the_exchange)
{
    begin(SASL_PLAIN);
    ask(&g);
    cr_assert_eq(r.requests_n, 1);
    struct request q = after_handshake();
    const struct kp_sasl_authenticate_request *words = q.body;
    cr_assert(slice_eq(words->auth_bytes, SLICE_LIT("\0ann\0secret")));
    cr_assert_eq(r.metadata_asked, 0);
    authenticate(&q, 0);
    cr_assert_eq(rig_take(&r).h.api_key, kp_key_describe_cluster);
}

Test(secure, a_refusal_says_why)
{
    begin(SASL_PLAIN);
    ask(&g);
    struct request q = after_handshake();
    struct kp_sasl_authenticate_response a = {.error_code = KE_SASL_AUTHENTICATION_FAILED,
                                              .error_message = SLICE_LIT("Invalid username or password"),
                                              .auth_bytes = SLICE_LIT("")};
    rig_answer(&r, &q, &a);
    rig_run(&r);
    cr_assert_str_eq(r.core->last_error.text,
                     "boot:9000: SASL PLAIN: SASL_AUTHENTICATION_FAILED: Invalid username or password");
    cr_assert_eq(r.closes, 1);
    cr_assert_eq(g.n, 0, "it may be mended before the deadline");
    rig_pass(&r, 2 * SEC);
    q = after_handshake();
    authenticate(&q, 0);
    cr_assert_eq(rig_take(&r).h.api_key, kp_key_describe_cluster);
}

Test(secure, a_mechanism_that_is_not_taken_names_those_that_are)
{
    begin(SASL_SCRAM_SHA_256);
    ask(&g);
    struct request q = expect(kp_key_sasl_handshake);
    struct slice taken[] = {SLICE_LIT("PLAIN"), SLICE_LIT("GSSAPI")};
    struct kp_sasl_handshake_response a = {
        .error_code = KE_UNSUPPORTED_SASL_MECHANISM, .mechanisms = taken, .mechanisms_n = 2};
    rig_answer(&r, &q, &a);
    rig_run(&r);
    cr_assert_str_eq(
        r.core->last_error.text,
        "boot:9000: SASL: the broker does not take SCRAM-SHA-256 but PLAIN, GSSAPI (sasl.mechanism)");
}

Test(secure, a_broker_that_knows_no_password_is_not_believed)
{
    begin(SASL_SCRAM_SHA_512);
    ask(&g);
    struct request q = after_handshake();
    authenticate(&q, 0); /* no challenge at all */
    cr_assert_not_null(strstr(r.core->last_error.text, "SCRAM"), "%s", r.core->last_error.text);
    cr_assert_eq(r.requests_n, 0);
}

Test(secure, a_broker_that_hangs_is_left)
{
    begin(SASL_PLAIN);
    ask(&g);
    cr_assert_eq(r.requests_n, 1);
    rig_pass(&r, 11 * SEC);
    cr_assert_eq(r.closes, 1);
    cr_assert_not_null(strstr(r.core->last_error.text, "in time"), "%s", r.core->last_error.text);
}

Test(secure, a_session_is_renewed_before_it_ends_and_loses_nothing)
{
    begin(SASL_PLAIN);
    ask(&g);
    struct request q = after_handshake();
    authenticate(&q, 10000);
    struct request first = rig_take(&r);
    rig_pass(&r, 9 * SEC);
    ask(&h);
    cr_assert_eq(r.requests_n, 0, "no new call on a session that ends");
    cr_assert_eq(r.closes, 0, "an answer is still to come");
    struct kp_describe_cluster_response a = {.cluster_id = SLICE_LIT("c"), .endpoint_type = 1};
    rig_answer(&r, &first, &a);
    rig_pass(&r, SEC);
    cr_assert_eq(g.status, 0);
    cr_assert_eq(r.closes, 1);
    q = after_handshake();
    authenticate(&q, 10000);
    cr_assert_eq(rig_take(&r).h.api_key, kp_key_describe_cluster);
    cr_assert_eq(h.n, 0);
}

Test(secure, a_token_is_read_anew_for_each_connection)
{
    char path[] = "/tmp/sundog-token-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    begin(SASL_OAUTHBEARER);
    cr_assert_gt(asprintf(&security.token_url, "file://%s", path), 0);
    ask(&g);
    cr_assert_not_null(strstr(r.core->last_error.text, "holds no token"), "%s", r.core->last_error.text);
    cr_assert_eq(write(fd, "abc.def.ghi\n", 12), 12);
    rig_pass(&r, SEC);
    struct request q = after_handshake();
    const struct kp_sasl_authenticate_request *words = q.body;
    cr_assert(slice_eq(words->auth_bytes, SLICE_LIT("n,,\x01"
                                                    "auth=Bearer abc.def.ghi\x01\x01")));
    authenticate(&q, 0);
    cr_assert_eq(rig_take(&r).h.api_key, kp_key_describe_cluster);
    close(fd);
    unlink(path);
}
