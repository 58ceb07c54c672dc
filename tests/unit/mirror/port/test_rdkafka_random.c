/* The record engine's decisions against a source in all its moods: leaders that go, with and without records, retention,
 * answers that are lost, refused or late, restarts. No cut of the source is passed over, and none made up; in the end
 * everything is read, or it was said why not. SUNDOG_SEEDS=from-to: a longer search. */
#include "mirror/port/rdkafka_history.h"

#include "base/core/rng.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS         INT64_C(1000)

#define LOG_MAX    4096
#define EPOCHS_MAX 512

struct model {
    int seed;
    struct rng rng;
    struct history h;
    /* The source's log, also what retention has taken; and where each leader epoch begins in it. */
    uint32_t content[LOG_MAX];
    int32_t record_epoch[LOG_MAX];
    int64_t start, n;
    int32_t epochs[EPOCHS_MAX];
    int64_t begins[EPOCHS_MAX];
    size_t epochs_n;
    int32_t epoch;
    bool
        moved; /* the leader is another broker, of which the library does not know: doubt comes before records */
    struct history_leader known;
    /* The reader. */
    uint32_t read[LOG_MAX];
    bool tells, trouble, blind, cut; /* cut: while it was blind */
    int64_t library_next, now;
    enum history_question question;
    int64_t asked_at; /* the answer as it was when it was asked; -1: as it is when it comes */
    int32_t question_epoch;
    int64_t asked_differs; /* at the time */
    int asks, ends[8];
};

static int64_t pick(struct model *m, int64_t n)
{
    return (int64_t)rng_below(&m->rng, (uint64_t)n);
}

static void grow(struct model *m, int64_t n)
{
    for (; n > 0 && m->n < LOG_MAX; n--, m->n++) {
        m->content[m->n] = (uint32_t)rng_next(&m->rng);
        m->record_epoch[m->n] = m->epoch;
    }
}

/* A new leader epoch, of a leader whose log ends at `cut`. */
static void elect(struct model *m, int64_t cut)
{
    while (m->epochs_n && m->begins[m->epochs_n - 1] >= cut)
        m->epochs_n--;
    cr_assert_lt(m->epochs_n, EPOCHS_MAX);
    m->cut = m->cut || (m->blind && cut < m->h.next);
    m->n = cut;
    m->epochs[m->epochs_n] = ++m->epoch;
    m->begins[m->epochs_n++] = cut;
}

static int64_t end_of_epoch(const struct model *m, int32_t epoch)
{
    for (size_t i = 0; i < m->epochs_n; i++)
        if (m->epochs[i] > epoch)
            return m->begins[i];
    return m->n;
}

/* The first offset from `from` on and below `next` at which the source has another record than was read; `next`: none. */
static int64_t differs_from(const struct model *m, int64_t from)
{
    int64_t i = from, next = m->h.next;
    while (i < next && i < m->n && m->read[i] == m->content[i])
        i++;
    return i;
}

static struct history_record record_of(const struct model *m, int64_t offset)
{
    return (struct history_record){offset, 7, m->content[offset], 1};
}

static int64_t true_answer(const struct model *m)
{
    return m->question == HISTORY_EPOCH_END   ? end_of_epoch(m, m->h.epoch)
           : m->question == HISTORY_LOG_START ? m->start
                                              : m->n;
}

static void act(struct model *m, struct history_effect e, int64_t last)
{
    int64_t differs = differs_from(m, m->start); /* what retention has taken nobody can compare */
    cr_assert(!e.stops || (e.tells && !e.ask && m->h.asking == HISTORY_NOTHING));
    if (e.tells && e.event == PORT_TRUNCATED) {
        /* What retention has taken, or another leader has cut since it was asked, is not told of. */
        cr_assert(e.end <= differs || e.end <= m->asked_differs || e.end <= m->start || m->blind,
                  "seed %d: more was cut than it says", m->seed);
        cr_assert(m->cut || differs_from(m, 0) < m->h.next || (last >= 0 && last < m->start),
                  "seed %d: a cut where none was", m->seed);
    } else if (e.tells && e.event == PORT_TROUBLE) {
        cr_assert(!m->trouble, "seed %d: told twice", m->seed);
        m->trouble = true;
    } else if (e.tells && e.event == PORT_POSITION && !m->h.troubled) {
        m->trouble = false;
    }
    if (e.tells)
        m->ends[e.event]++;
    if (!e.ask)
        return;
    m->asks++;
    m->question = e.ask;
    m->question_epoch = m->known.epoch;
    m->asked_differs = differs;
    cr_assert(e.ask != HISTORY_EPOCH_END || m->question_epoch == m->h.asked_epoch);
    m->asked_at = m->question_epoch == m->epoch && pick(m, 2) ? true_answer(m) : -1;
}

/* The question's answer, or that it was lost. */
static void answer(struct model *m, bool lost)
{
    struct history *h = &m->h;
    int64_t last = h->last.offset;
    bool refused = m->asked_at < 0 && m->question_epoch != m->epoch; /* FENCED_, UNKNOWN_LEADER_EPOCH */
    enum port_answer a = lost || refused ? PORT_ANSWER_AGAIN : PORT_ANSWER_KNOWN;
    int64_t value = m->asked_at >= 0 ? m->asked_at : true_answer(m);
    act(m,
        m->question == HISTORY_EPOCH_END ? history_epoch_end(h, a, value, "lost", m->now)
                                         : history_offset(h, a, value, "lost", m->now),
        last);
}

static void hand_out(struct model *m)
{
    struct history *h = &m->h;
    int64_t at = m->library_next++;
    struct history_record r = record_of(m, at);
    if (at < h->next)
        return;
    m->read[at] = m->content[at];
    m->blind = m->cut = false;
    h->next = at + 1;
    h->record_epoch = m->tells ? m->record_epoch[at] : -1;
    history_handed_out(h, &r);
}

/* One turn of the library, and of the doubt that goes before what it brings. */
static void library(struct model *m)
{
    struct history *h = &m->h;
    int64_t last = h->last.offset;
    if (h->state == PART_ADDING) {
        m->library_next = h->proof ? h->last.offset : h->next;
        h->state = PART_READING;
        return;
    }
    if (h->state != PART_READING || h->out_of_range)
        return;
    if (m->moved) {
        m->moved = false;
        act(m, history_seen(h, m->epoch, m->now), last);
        return;
    }
    bool end = m->library_next == m->n;
    if (m->library_next < m->start || m->library_next > m->n) {
        act(m, history_out_of_range(h), last);
    } else if (h->proof) {
        struct history_record r = {.offset = m->library_next};
        if (!end)
            r = record_of(m, m->library_next++);
        act(m, history_prove(h, &r, end, m->now), last);
    } else if (!end) {
        hand_out(m);
    }
}

/* Of a position that came without an epoch, as long as nothing has been read behind it, nobody can tell. */
static void forgive(struct model *m)
{
    if (m->blind)
        memcpy(m->read, m->content, sizeof m->read);
}

static void source(struct model *m)
{
    switch (pick(m, 12)) {
    case 0: elect(m, m->n); break; /* the same leader */
    case 1:
        elect(m, m->n);
        m->moved = true;
        break;
    case 2:
        elect(m, m->start + pick(m, m->n - m->start + 1));
        m->moved = true;
        grow(m, pick(m, 30));
        break;
    case 3:
        if (pick(m, 4) == 0)
            m->start += pick(m, m->n - m->start + 1);
        break;
    default: grow(m, pick(m, 6));
    }
    for (size_t i = 0; i < m->epochs_n; i++) /* as the epochs' own cut at the log's start */
        if (m->begins[i] < m->start)
            m->begins[i] = m->start;
    forgive(m);
}

/* The daemon begins again from what it has stored. */
static void restart(struct model *m)
{
    m->trouble = false;
    m->blind = m->blind || history_epoch(&m->h) < 0;
    history_begin(&m->h, m->h.next, history_epoch(&m->h), m->now);
    forgive(m);
}

static void look(struct model *m)
{
    act(m, history_look(&m->h, &m->known, m->now), m->h.last.offset);
}

static void step(struct model *m)
{
    m->now += pick(m, 100) * MS;
    switch (pick(m, 10)) {
    case 0: source(m); break;
    case 1:
        m->known = (struct history_leader){pick(m, 10) ? 1 : -1, m->epoch};
        act(m, history_confirm(&m->h, &m->known), m->h.last.offset);
        look(m);
        break;
    case 2:
    case 3: look(m); break;
    case 4:
    case 5:
        if (m->h.asking)
            answer(m, pick(m, 5) == 0);
        break;
    case 6:
        if (pick(m, 40) == 0)
            restart(m);
        break;
    default: library(m);
    }
}

/* Nothing changes any more: it reads to the end what it has the beginning of, or has said why not. */
static void settle(struct model *m)
{
    int asks = m->asks;
    m->known = (struct history_leader){1, m->epoch};
    for (int i = 0; i < LOG_MAX + 200 && m->h.state != PART_STOPPED; i++) {
        m->now += 20 * MS;
        act(m, history_confirm(&m->h, &m->known), m->h.last.offset);
        look(m);
        if (m->h.asking)
            answer(m, false);
        library(m);
    }
    if (m->h.state == PART_STOPPED)
        return;
    cr_assert_leq(m->asks - asks, 8, "seed %d: it asks for ever", m->seed);
    cr_assert(m->h.state == PART_READING && !m->h.proof && !m->h.asking && m->h.next == m->n,
              "seed %d: it stands still", m->seed);
    cr_assert_geq(differs_from(m, m->start), m->h.next, "seed %d: a cut was passed over", m->seed);
}

Test(history, no_cut_is_passed_over_and_none_made_up, .timeout = 120)
{
    const char *range = getenv("SUNDOG_SEEDS");
    int from = 1, to = 3000, ends[8] = {0};
    cr_assert(!range || sscanf(range, "%d-%d", &from, &to) == 2);
    int seeds = to - from + 1;
    struct model *m = malloc(sizeof *m);
    for (int seed = from; seed <= to; seed++) {
        *m = (struct model){
            .seed = seed, .tells = seed % 2, .epoch = 1, .epochs = {1}, .epochs_n = 1, .known = {1, 1}};
        rng_init(&m->rng, (uint64_t)seed);
        history_begin(&m->h, 0, -1, 0);
        for (int i = 0; i < 600 && m->h.state != PART_STOPPED && m->n < LOG_MAX - 40; i++)
            step(m);
        if (m->h.state != PART_STOPPED)
            settle(m);
        for (int i = 0; i < 8; i++)
            ends[i] += m->ends[i];
    }
    free(m);
    cr_assert(ends[PORT_TRUNCATED] > seeds / 10 && ends[PORT_OUT_OF_RANGE] > seeds / 100 &&
                  ends[PORT_TROUBLE] > 0 && ends[PORT_POSITION] > 0,
              "%d, %d, %d, %d", ends[PORT_TRUNCATED], ends[PORT_OUT_OF_RANGE], ends[PORT_TROUBLE],
              ends[PORT_POSITION]);
}
