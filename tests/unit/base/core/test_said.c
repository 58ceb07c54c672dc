/* base/core: what is told once. */
#include "base/core/said.h"

#include <criterion/criterion.h>
#include <string.h>

static bool say(struct said *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    bool news = said_new(s, fmt, args);
    va_end(args);
    return news;
}

Test(said, the_same_text_is_news_once_until_it_is_over)
{
    struct said s = {0};
    cr_assert(!said_over(&s));
    cr_assert(say(&s, "topic %s is away", "a"));
    cr_assert(!say(&s, "topic %s is away", "a"));
    cr_assert(say(&s, "topic %s is away", "b"));
    cr_assert_str_eq(s.text, "topic b is away");
    cr_assert(say(&s, "topic %s is away", "a"), "only the last is remembered");
    cr_assert(said_over(&s));
    cr_assert(say(&s, "topic %s is away", "a"));
}

Test(said, texts_that_differ_behind_their_limit_are_one)
{
    struct said s = {0};
    char x[2 * ERR_TEXT_MAX];
    memset(x, 'x', sizeof x);
    x[sizeof x - 1] = '\0';
    cr_assert(say(&s, "%s1", x));
    cr_assert(!say(&s, "%s2", x));
    cr_assert_eq(strlen(s.text), ERR_TEXT_MAX - 1);
}
