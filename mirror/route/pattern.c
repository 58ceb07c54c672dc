#include "mirror/route/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <assert.h>
#include <pcre2.h>
#include <stdlib.h>

#include "base/core/buf.h"

struct pattern {
    pcre2_code *code; /* NULL: matches nothing */
    pcre2_match_data *match;
    pcre2_match_context *context;
};

/* Whole-name matching comes from the anchors; MM2 joins its list with `|` and calls Matcher.matches(). */
#define PATTERN_COMPILE                                                                                      \
    (PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_UTF | PCRE2_NO_UTF_CHECK | PCRE2_NEVER_BACKSLASH_C)

/* Each expression is compiled alone first, so that an error names the one that is wrong and `a(` never pairs with a
 * later `)`. */
static int pattern_check(const char *item, struct err *err)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *c = pcre2_compile((PCRE2_SPTR)item, PCRE2_ZERO_TERMINATED,
                                  PATTERN_COMPILE & ~(uint32_t)PCRE2_NO_UTF_CHECK, &code, &at, NULL);
    if (c) {
        pcre2_code_free(c);
        return 0;
    }
    PCRE2_UCHAR text[128];
    if (pcre2_get_error_message(code, text, sizeof text) < 0)
        text[0] = 0;
    return err_set(err, -E_CONFIG, "\"%s\" is not a regular expression: %s at position %zu", item,
                   (char *)text, (size_t)at);
}

static int pattern_join(const char *const *items, size_t n, struct buf *joined, struct err *err)
{
    if (n > PATTERN_LIST_MAX)
        return err_set(err, -E_LIMIT, "more than %d expressions", PATTERN_LIST_MAX);
    for (size_t i = 0; i < n; i++) {
        int rc = pattern_check(items[i], err);
        if (rc)
            return rc;
        buf_printf(joined, "%s(?:%s)", i ? "|" : "", items[i]);
    }
    if (joined->failed)
        return err_set(err, -E_LIMIT, "the expressions take more than %d bytes", PATTERN_TEXT_MAX);
    return 0;
}

static int pattern_prepare(struct pattern *p, struct slice joined, struct err *err)
{
    int code;
    PCRE2_SIZE at;
    p->code = pcre2_compile(joined.p, joined.n, PATTERN_COMPILE, &code, &at, NULL);
    if (!p->code)
        return err_set(err, -E_CONFIG, "the list cannot be joined into one expression (position %zu)",
                       (size_t)at);
    p->match = pcre2_match_data_create_from_pattern(p->code, NULL);
    p->context = pcre2_match_context_create(NULL);
    if (!p->match || !p->context)
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    pcre2_set_match_limit(p->context, PATTERN_MATCH_LIMIT);
    return 0;
}

int pattern_compile(const char *const *items, size_t n, struct pattern **out, struct err *err)
{
    assert(out && (items || n == 0));
    struct pattern *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(err, -E_NOMEM, "%s", err_str(-E_NOMEM));
    struct buf joined;
    buf_init(&joined, PATTERN_TEXT_MAX);
    int rc = pattern_join(items, n, &joined, err);
    if (!rc && n)
        rc = pattern_prepare(p, buf_slice(&joined), err);
    buf_fini(&joined);
    if (rc) {
        pattern_destroy(p);
        return rc;
    }
    *out = p;
    return 0;
}

void pattern_destroy(struct pattern *p)
{
    if (!p)
        return;
    pcre2_match_context_free(p->context);
    pcre2_match_data_free(p->match);
    pcre2_code_free(p->code);
    free(p);
}

bool pattern_matches(struct pattern *p, struct slice name)
{
    assert(p && name.p);
    if (!p->code)
        return false;
    int rc = pcre2_match(p->code, name.p, name.n, 0, 0, p->match, p->context);
    assert(rc != 0); /* 0: match data too small, which was made from the pattern */
    return rc > 0;
}
