/* A comma-separated list of Java-style regular expressions, as MM2's topics, topics.exclude, groups and groups.exclude
 * hold them: a name matches when the whole of it matches any one of the list. An empty list matches nothing.
 *
 * PCRE2 stands in for java.util.regex: the syntax that people write in these keys (classes, escapes, groups,
 * quantifiers, look-around) is the same. Matching is bounded (PATTERN_MATCH_LIMIT): an expression that backtracks
 * without end counts as "no match" and is reported by pattern_error. A pattern is read-only after compiling, but has
 * one scratch area: one thread at a time. */
#ifndef SUNDOG_MIRROR_ROUTE_PATTERN_H
#define SUNDOG_MIRROR_ROUTE_PATTERN_H

#include "base/core/err.h"
#include "base/core/slice.h"

#define PATTERN_LIST_MAX    10000  /* expressions in one list */
#define PATTERN_TEXT_MAX    262144 /* bytes of a joined list */
#define PATTERN_MATCH_LIMIT 1000000

struct pattern;

/* `err` names the expression that cannot be read and where. */
int pattern_compile(const char *const *items, size_t n, struct pattern **out, struct err *err);
void pattern_destroy(struct pattern *p);
bool pattern_matches(struct pattern *p, struct slice name);

#endif
