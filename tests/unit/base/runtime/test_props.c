#include "base/runtime/props.h"

#include "base/core/rng.h"

#include <criterion/criterion.h>

static void expect_value(const char *text, const char *key, const char *value)
{
    struct props p;
    struct err err = {0};
    props_init(&p);
    cr_assert_eq(props_parse(&p, slice_str(text), "f", &err), 0, "%s", err.text);
    const char *got = props_get(&p, key);
    cr_expect(got && strcmp(got, value) == 0, "%s: %s is %s, not %s", text, key, got ? got : "(null)", value);
    props_fini(&p);
}

Test(props, java_syntax)
{
    expect_value("a=b", "a", "b");
    expect_value("  a  =  b c  \n", "a", "b c");
    expect_value("a:b", "a", "b");
    expect_value("a b", "a", "b");
    expect_value("a\tb", "a", "b");
    expect_value("a==b", "a", "=b");
    expect_value("a", "a", "");
    expect_value("a=", "a", "");
    expect_value("#x=1\n ! y\na=b", "a", "b");
    expect_value("a=b#c", "a", "b#c");
    expect_value("a = b \\\n    c", "a", "b c");
    expect_value("a = b\\\r\n    c\r\nd=e\r\n", "d", "e");
    expect_value("a = b\\", "a", "b");
    expect_value("a\\=b\\:c\\ d = e", "a=b:c d", "e");
    expect_value("a=\\ttab\\\\ \\n", "a", "\ttab\\ \n");
    expect_value("a=\\u00e4\\u20AC\\uD83D\\uDE00", "a", "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80");
    expect_value("a=1\na=2", "a", "2");
    expect_value("east->west.enabled = true", "east->west.enabled", "true");
    expect_value("\xEF\xBB\xBF"
                 "a=1",
                 "a", "1");
    expect_value("a=1\\\n# not a comment\nb=2", "a", "1# not a comment");
}

static void expect_wrong(struct slice text, const char *expected)
{
    struct props p;
    struct err err = {0};
    props_init(&p);
    cr_expect_eq(props_parse(&p, text, "f", &err), -E_CONFIG);
    cr_expect_str_eq(err.text, expected);
    props_fini(&p);
}

Test(props, errors_name_the_line)
{
    expect_wrong(SLICE_LIT("a=1\nb=\\u12g4"), "f:2: \\u needs four hexadecimal digits of a character");
    expect_wrong(SLICE_LIT("a=\\u0000"), "f:1: \\u needs four hexadecimal digits of a character");
    expect_wrong(SLICE_LIT("a=\\uD800x"), "f:1: \\u needs four hexadecimal digits of a character");
    expect_wrong(SLICE_LIT("a=\\u12"), "f:1: \\u needs four hexadecimal digits of a character");
    expect_wrong(SLICE_LIT("x=1\n\n = 5"), "f:3: a line without a key");
    expect_wrong(SLICE_LIT("a\0b"), "f: not a text file (it has a NUL byte)");
}

static void note(void *arg, struct prop *prop)
{
    const char *rest = props_suffix(prop->key, "east->west.");
    if (rest)
        strncat(arg, rest, 20);
}

Test(props, order_origin_and_prefixes)
{
    struct props p;
    struct err err = {0};
    props_init(&p);
    cr_assert_eq(props_parse(&p, SLICE_LIT("z=1\neast->west.a=2\neast->west.b=3\nz=4"), "f", &err), 0);
    cr_expect_eq(props_argument(&p, "east->west.a=5", &err), 0);
    cr_expect_eq(props_argument(&p, "=5", &err), -E_CONFIG);
    cr_expect_eq(props_argument(&p, "five", &err), -E_CONFIG);
    cr_expect_str_eq(err.text, "argument \"five\" is not of the form key=value");
    char seen[64] = "";
    props_each(&p, note, seen);
    cr_expect_str_eq(seen, "ab");
    cr_expect_eq(p.n, 3);
    cr_expect_str_eq(props_find(&p, "z")->origin, "f:4");
    cr_expect_str_eq(props_find(&p, "east->west.a")->origin, "command line");
    cr_expect_not(props_find(&p, "z")->used);
    cr_expect_str_eq(props_get(&p, "z"), "4");
    cr_expect(props_find(&p, "z")->used);
    cr_expect_null(props_get(&p, "none"));
    props_fini(&p);
}

Test(props, any_bytes_parse_or_are_refused)
{
    static const char alphabet[] = "ab=: \t\\u0d#!\n\r\f\xC3";
    struct rng r;
    rng_init(&r, 7);
    for (int i = 0; i < 20000; i++) {
        uint8_t text[40];
        size_t n = rng_below(&r, sizeof text);
        for (size_t k = 0; k < n; k++)
            text[k] = (uint8_t)alphabet[rng_below(&r, sizeof alphabet - 1)];
        struct props p;
        props_init(&p);
        props_parse(&p, slice_of(text, n), "f", NULL);
        props_fini(&p);
    }
}
