/* See pairing.h. Indices: k counts target records from 1; a set of mates {0} before the first source record means that
 * nothing has been consumed. */
#include "mirror/target/pairing.h"

#include "base/core/grow.h"

#include "base/core/bytes.h"
#include "base/core/crc32c.h"
#include "base/core/err.h"
#include "base/core/mutant.h"
#include "proto/kafka/batch.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t print_bytes(uint32_t crc, struct slice s)
{
    uint8_t n[4];
    be32_put(n, slice_is_null(s) ? UINT32_MAX : (uint32_t)s.n);
    return crc32c_more(crc32c_more(crc, n, sizeof n), s.p, s.n);
}

uint32_t pairing_print(struct slice key, struct slice value, struct slice headers, int32_t headers_n)
{
    uint32_t crc = print_bytes(print_bytes(0, key), value);
    struct record_header h;
    struct slice rest = headers;
    int rc = 0;
    for (int32_t i = 0; i < headers_n && (rc = record_header_next(&rest, &h)) == 1; i++)
        crc = print_bytes(print_bytes(crc, h.key), h.value);
    return rc < 0 ? print_bytes(crc, headers) : crc;
}

_Static_assert(PAIRING_ENDS_MAX >= 2, "two different ends are told apart");
_Static_assert(PAIRING_MATES_MAX < PAIRING_WINDOW, "what one record may be stays in sight");

int pairing_init(struct pairing *p, int64_t number_start, int64_t source_start, bool ignore_time)
{
    *p = (struct pairing){.number_start = number_start,
                          .source_last = source_start - 1,
                          .ignore_time = ignore_time,
                          .position = -1,
                          .first = 1,
                          .mates_n = 1};
    p->mates = calloc(PAIRING_MATES_MAX, sizeof *p->mates); /* {0} */
    p->next_mates = calloc(PAIRING_MATES_MAX, sizeof *p->next_mates);
    return p->mates && p->next_mates ? 0 : -E_NOMEM;
}

void pairing_fini(struct pairing *p)
{
    free(p->mates);
    free(p->next_mates);
    free(p->window);
    free(p->runs);
    p->mates = p->next_mates = NULL;
    p->window = NULL;
    p->runs = NULL;
}

__attribute__((format(printf, 2, 3))) static void uncertain(struct pairing *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->why, sizeof p->why, fmt, ap);
    va_end(ap);
    p->state = PAIRING_UNCERTAIN;
}

/* ---- the window ---- */

static const struct pairing_mate *mate_at(const struct pairing *p, int64_t k)
{
    assert(k >= p->first && k < p->first + (int64_t)p->window_n);
    return &p->window[p->window_at + (size_t)(k - p->first)];
}

static int64_t window_last(const struct pairing *p)
{
    return p->first + (int64_t)p->window_n - 1;
}

/* Mates before the earliest one possible are done with. */
static void window_drop(struct pairing *p)
{
    assert(p->mates_n > 0);
    while (p->window_n && p->first <= p->mates[0]) {
        p->window_at++;
        p->window_n--;
        p->first++;
    }
    if (p->window_at > p->window_n && p->window_at) {
        memmove(p->window, p->window + p->window_at, p->window_n * sizeof *p->window);
        p->window_at = 0;
    }
}

static bool window_grow(struct pairing *p)
{
    if (p->window_at + p->window_n < p->window_cap)
        return true;
    size_t cap = p->window_cap ? p->window_cap * 2 : 1024;
    struct pairing_mate *now = realloc(p->window, cap * sizeof *now);
    if (!now)
        return false;
    p->window = now;
    p->window_cap = cap;
    return true;
}

static bool same(const struct pairing *p, const struct pairing_mate *t, struct pairing_content c)
{
    return t->content.print == c.print && (p->ignore_time || t->content.timestamp_ms == c.timestamp_ms);
}

/* ---- ends ---- */

static void add_end(struct pairing *p, int64_t position)
{
    for (size_t i = 0; i < p->ends_n; i++)
        if (p->ends[i] == position)
            return;
    if (p->ends_n < PAIRING_ENDS_MAX)
        p->ends[p->ends_n++] = position;
}

/* Could the target's last records, behind a mate k of the last source record, all be gone from the source, `gap`
 * offsets being missing there, so that the next source record is new? Not when it looks like one of them. */
static bool could_end(const struct pairing *p, int64_t k, int64_t gap, const struct pairing_content *next)
{
    if (p->total - k > gap)
        return false;
    for (int64_t i = k + 1; next && i <= p->total; i++) {
        if (i < p->first || i > window_last(p))
            return false;
        const struct pairing_mate *t = mate_at(p, i);
        if (t->present && same(p, t, *next))
            return false;
    }
    return true;
}

/* The ends that lie behind the last source record, `gap` offsets before `next` (NULL: nothing comes). */
static void find_ends(struct pairing *p, int64_t gap, const struct pairing_content *next)
{
    assert(p->target_ended);
    for (size_t i = 0; i < p->mates_n; i++)
        if (p->mates[i] == p->total || could_end(p, p->mates[i], gap, next))
            add_end(p, p->source_last + 1);
}

static void cut_runs(struct pairing *p, int64_t position)
{
    int64_t paired = 0;
    size_t kept = 0;
    for (size_t i = 0; i < p->runs_n; i++) {
        struct pairing_run *r = &p->runs[i];
        if (r->src_start >= position)
            break;
        if (r->src_start + r->count > position)
            r->count = position - r->src_start;
        paired += r->count;
        kept++;
    }
    p->runs_n = kept;
    p->orphans = p->total - paired;
    assert(p->orphans >= 0);
}

static void conclude(struct pairing *p)
{
    assert(p->target_ended);
    assert(p->ends_n <= PAIRING_ENDS_MAX);
    if (p->ends_n == 1 || (p->ends_n > 1 && MUTANT("pass_over_by_count"))) {
        p->position = p->ends[0];
        cut_runs(p, p->position);
        p->state = PAIRING_DONE;
    } else if (p->ends_n == 0) {
        uncertain(p,
                  "the target holds %lld records from number %lld on that the progress does not know, and "
                  "the source no "
                  "longer has what would show where they end (last match at source offset %lld)",
                  (long long)p->total, (long long)p->number_start, (long long)p->source_last);
    } else {
        uncertain(p, "the target's last records could end at source offset %lld or %lld: records look alike",
                  (long long)p->ends[0], (long long)p->ends[1]);
    }
}

/* ---- runs ---- */

static bool add_pair(struct pairing *p, int64_t src, int64_t dst)
{
    struct pairing_run *last = p->runs_n ? &p->runs[p->runs_n - 1] : NULL;
    assert(!last || src >= last->src_start + last->count);
    if (last && last->src_start + last->count == src && last->dst_start + last->count == dst) {
        last->count++;
        return true;
    }
    if (p->runs_n == PAIRING_RUNS_MAX)
        return false;
    if (!GROW(p->runs, p->runs_n, p->runs_cap, 64))
        return false;
    p->runs[p->runs_n++] = (struct pairing_run){src, dst, 1};
    return true;
}

/* ---- steps ---- */

/* How far into the target the next source record's mate may lie. */
static int64_t reach(const struct pairing *p, int64_t missing)
{
    int64_t gap = missing - p->missing_last, furthest = p->mates[p->mates_n - 1];
    assert(gap >= 0);
    return gap > INT64_MAX / 2 - furthest - 1 ? INT64_MAX / 2 : furthest + gap + 1;
}

/* Enough of the target is in sight: all that can be reached and one more, or all there is. */
static bool in_sight(const struct pairing *p, int64_t to)
{
    return p->target_ended || window_last(p) > to || p->window_n >= PAIRING_WINDOW;
}

/* The possible mates of a source record, from those of the one before. False: too many. */
static bool find_mates(struct pairing *p, int64_t distance, struct pairing_content c, size_t *found)
{
    size_t n = 0;
    int64_t done = 0, last = window_last(p);
    assert(distance > 0);
    assert(p->mates_n > 0 && p->mates_n <= PAIRING_MATES_MAX);
    for (size_t i = 0; i < p->mates_n; i++) {
        int64_t from = p->mates[i] + 1, to = p->mates[i] + distance;
        from = from > done ? from : done + 1;
        to = to < last ? to : last;
        for (int64_t k = from; k <= to; k++) {
            const struct pairing_mate *t = mate_at(p, k);
            if (t->present && !same(p, t, c))
                continue;
            if (n == PAIRING_MATES_MAX)
                return false;
            p->next_mates[n++] = k;
        }
        done = to > done ? to : done;
    }
    *found = n;
    return true;
}

static void step(struct pairing *p)
{
    int64_t gap = p->waiting.missing - p->missing_last;
    struct pairing_content c = p->waiting.content;
    size_t n;
    assert(p->waiting.there);
    if (p->target_ended)
        find_ends(p, gap, &c);
    if (!find_mates(p, gap + 1, c, &n)) {
        uncertain(p, "too many records look alike near source offset %lld", (long long)p->waiting.offset);
        return;
    }
    p->waiting.there = false;
    if (n == 0) {
        if (p->target_ended)
            conclude(p);
        else
            uncertain(p, "source offset %lld is not among the next %zu target records",
                      (long long)p->waiting.offset, p->window_n);
        return;
    }
    int64_t *old = p->mates;
    p->mates = p->next_mates;
    p->next_mates = old;
    p->mates_n = n;
    p->source_last = p->waiting.offset;
    p->missing_last = p->waiting.missing;
    const struct pairing_mate *only = n == 1 ? mate_at(p, p->mates[0]) : NULL;
    if (only && only->offset >= 0 && !add_pair(p, p->waiting.offset, only->offset))
        uncertain(p, "too many gaps between the paired records");
    else if (n == 1 && p->target_ended && p->mates[0] == p->total) {
        add_end(p, p->source_last + 1);
        conclude(p);
    }
    window_drop(p);
}

static void proceed(struct pairing *p)
{
    if (p->state == PAIRING_DONE || p->state == PAIRING_UNCERTAIN)
        return;
    if (p->waiting.there && in_sight(p, reach(p, p->waiting.missing)))
        step(p);
    if (p->waiting.end && p->target_ended && p->state != PAIRING_DONE && p->state != PAIRING_UNCERTAIN) {
        find_ends(p, p->waiting.missing - p->missing_last, NULL);
        conclude(p);
    }
    if (p->state == PAIRING_DONE || p->state == PAIRING_UNCERTAIN)
        return;
    bool full = p->window_n >= PAIRING_WINDOW || p->target_ended;
    bool wants_target =
        p->waiting.there || p->waiting.end || (!full && window_last(p) <= p->mates[p->mates_n - 1] + 1);
    p->state = wants_target && !p->target_ended ? PAIRING_WANTS_TARGET : PAIRING_WANTS_SOURCE;
}

bool pairing_target(struct pairing *p, int64_t number, int64_t offset, bool present, struct pairing_content c)
{
    assert(!p->target_ended);
    if (p->state == PAIRING_DONE || p->state == PAIRING_UNCERTAIN)
        return true; /* they are not counted any more */
    assert(number == p->number_start + p->total);
    if (p->window_n >= PAIRING_WINDOW)
        return false;
    if (!window_grow(p)) {
        uncertain(p, "out of memory for target records");
        return true;
    }
    p->total++;
    assert(p->window_at + p->window_n < p->window_cap);
    p->window[p->window_at + p->window_n++] = (struct pairing_mate){offset, c, present};
    proceed(p);
    return true;
}

void pairing_target_end(struct pairing *p)
{
    assert(!p->target_ended);
    p->target_ended = true;
    proceed(p);
}

void pairing_source(struct pairing *p, int64_t offset, int64_t missing, struct pairing_content c)
{
    assert(!p->waiting.there);
    assert(offset > p->source_last);
    assert(missing >= p->missing_last);
    if (p->state == PAIRING_DONE || p->state == PAIRING_UNCERTAIN)
        return;
    p->waiting.there = true;
    p->waiting.end = false;
    p->waiting.offset = offset;
    p->waiting.missing = missing;
    p->waiting.content = c;
    proceed(p);
}

void pairing_source_end(struct pairing *p, int64_t missing)
{
    if (p->waiting.there || missing < p->missing_last)
        return;
    p->waiting.end = true;
    p->waiting.missing = missing;
    proceed(p);
}
