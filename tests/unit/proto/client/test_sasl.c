#include "proto/client/sasl.h"

#include <criterion/criterion.h>

static struct buf words;
static struct err why;

static void setup(void)
{
    buf_init(&words, 1 << 20);
    why = (struct err){0};
}

static void teardown(void)
{
    buf_fini(&words);
}

TestSuite(sasl, .init = setup, .fini = teardown);

static void expect_words(const char *text)
{
    cr_assert(slice_eq_str(buf_slice(&words), text), "%.*s", SLICE_FMT(buf_slice(&words)));
    buf_clear(&words);
}

static int answer(struct sasl *s, const char *text, bool *done)
{
    why = (struct err){0};
    return sasl_next(s, slice_str(text), &words, done, &why);
}

Test(sasl, names_are_kafkas)
{
    enum sasl_mechanism m = SASL_NONE;
    cr_assert_eq(sasl_mechanism_parse("SCRAM-SHA-512", &m), 0);
    cr_assert_eq(m, SASL_SCRAM_SHA_512);
    cr_assert_str_eq(sasl_mechanism_name(m), "SCRAM-SHA-512");
    cr_assert_eq(sasl_mechanism_parse("GSSAPI", &m), -E_NOTFOUND);
    cr_assert_eq(sasl_mechanism_parse("plain", &m), -E_NOTFOUND);
}

Test(sasl, plain_is_rfc_4616)
{
    bool done;
    struct sasl *s = sasl_create(SASL_PLAIN, "tim", "tanstaaftanstaaf", "");
    cr_assert_eq(sasl_first(s, &words, &why), 0);
    cr_assert(slice_eq(buf_slice(&words), SLICE_LIT("\0tim\0tanstaaftanstaaf")));
    cr_assert_eq(answer(s, "", &done), 0);
    cr_assert(done);
    sasl_destroy(s);
}

/* The exchange printed in RFC 7677 §3. */
#define NONCE     "rOprNGfwEbeRWgbNEkqO"
#define CHALLENGE "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
#define VERDICT   "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

static struct sasl *scram(void)
{
    struct sasl *s = sasl_create(SASL_SCRAM_SHA_256, "user", "pencil", NONCE);
    cr_assert_eq(sasl_first(s, &words, &why), 0);
    expect_words("n,,n=user,r=" NONCE);
    return s;
}

Test(sasl, scram_is_rfc_7677)
{
    bool done;
    struct sasl *s = scram();
    cr_assert_eq(answer(s, CHALLENGE, &done), 0, "%s", why.text);
    cr_assert_not(done);
    expect_words("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                 "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    cr_assert_eq(answer(s, VERDICT, &done), 0, "%s", why.text);
    cr_assert(done);
    sasl_destroy(s);
}

Test(sasl, scram_believes_nobody_who_cannot_prove_it)
{
    static const char *const verdicts[] = {
        "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "v=", "", "v=AAAA", "x=1", "e=invalid-proof"};
    for (size_t i = 0; i < sizeof verdicts / sizeof *verdicts; i++) {
        bool done;
        struct sasl *s = scram();
        cr_assert_eq(answer(s, CHALLENGE, &done), 0);
        buf_clear(&words);
        cr_assert_eq(answer(s, verdicts[i], &done), -E_ACCESS, "%s", verdicts[i]);
        sasl_destroy(s);
    }
    cr_assert_not_null(strstr(why.text, "invalid-proof"), "%s", why.text);
}

Test(sasl, scram_refuses_bad_challenges)
{
    static const struct {
        const char *text;
        int rc;
    } bad[] = {
        {"", -E_ACCESS},
        {"r=" NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", -E_ACCESS}, /* adds nothing to ours */
        {"r=another" NONCE ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", -E_ACCESS},
        {"r=" NONCE "x,s=,i=4096", -E_CORRUPT},
        {"r=" NONCE "x,s=W22,i=4096", -E_CORRUPT},
        {"r=" NONCE "x,s=W2!ZaJ0SNY7soEsUEjb6gQ==,i=4096", -E_CORRUPT},
        {"r=" NONCE "x,s=W22ZaJ0SNY7soEsUEjb6gQ==", -E_CORRUPT},
        {"r=" NONCE "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,m=more", -E_CORRUPT},
        {"m=ext,r=" NONCE "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", -E_ACCESS},
        {"r=" NONCE "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1", -E_ACCESS},
        {"r=" NONCE "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=2147483648", -E_ACCESS},
        {"r=" NONCE "x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999999999999999", -E_CORRUPT},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bool done;
        struct sasl *s = scram();
        cr_assert_eq(answer(s, bad[i].text, &done), bad[i].rc, "%s: %s", bad[i].text, why.text);
        cr_assert(why.text[0]);
        buf_clear(&words);
        sasl_destroy(s);
    }
}

Test(sasl, names_with_syntax_in_them_are_written_apart)
{
    struct sasl *s = sasl_create(SASL_SCRAM_SHA_512, "a=b,c", "x", "N");
    cr_assert_eq(sasl_first(s, &words, &why), 0);
    expect_words("n,,n=a=3Db=2Cc,r=N");
    sasl_destroy(s);
}

Test(sasl, a_bearer_token_is_rfc_7628)
{
    bool done;
    struct sasl *s = sasl_create(SASL_OAUTHBEARER, NULL, "t0ken", "");
    cr_assert_eq(sasl_first(s, &words, &why), 0);
    expect_words("n,,\x01"
                 "auth=Bearer t0ken\x01\x01");
    cr_assert_eq(answer(s, "{\"status\":\"invalid_token\"}", &done), -E_ACCESS);
    cr_assert_not_null(strstr(why.text, "invalid_token"));
    sasl_destroy(s);
}

Test(sasl, endless_words_are_refused)
{
    static uint8_t bytes[SASL_TEXT_MAX + 1];
    bool done;
    struct sasl *s = scram();
    cr_assert_eq(sasl_next(s, slice_of(bytes, sizeof bytes), &words, &done, &why), -E_LIMIT);
    sasl_destroy(s);
}
