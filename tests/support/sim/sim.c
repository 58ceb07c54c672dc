#include "tests/support/sim/sim_internal.h"

#include "base/runtime/log.h"

#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EVENTS_MAX_DEFAULT UINT64_C(50000000)
#define START_US           SIM_SECOND

static struct sim *living; /* for the handler of SIGABRT and the log's sink */

/* ---- the queue ---- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void put_at(struct sim *s, size_t i, struct sim_event *e)
{
    s->heap[i] = e;
    e->place = i + 1;
}

static void settle(struct sim *s, size_t i, struct sim_event *e)
{
    while (i > 0 && before(e, s->heap[(i - 1) / 2])) {
        put_at(s, i, s->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    for (size_t child; (child = 2 * i + 1) < s->heap_n;) {
        if (child + 1 < s->heap_n && before(s->heap[child + 1], s->heap[child]))
            child++;
        if (!before(s->heap[child], e))
            break;
        put_at(s, i, s->heap[child]);
        i = child;
    }
    put_at(s, i, e);
}

void sim_unschedule(struct sim *s, struct sim_event *e)
{
    if (!e->place)
        return;
    size_t i = e->place - 1;
    assert(s->heap[i] == e);
    e->place = 0;
    struct sim_event *last = s->heap[--s->heap_n];
    if (last != e)
        settle(s, i, last);
}

void sim_schedule(struct sim *s, struct sim_event *e, int64_t at_us)
{
    assert(e->fn);
    sim_unschedule(s, e);
    if (s->heap_n == s->heap_cap) {
        s->heap_cap = s->heap_cap ? 2 * s->heap_cap : 256;
        s->heap = realloc(s->heap, s->heap_cap * sizeof(struct sim_event *));
        assert(s->heap);
    }
    e->at_us = at_us > s->now_us ? at_us : s->now_us;
    e->order = s->orders++;
    s->heap_n++;
    settle(s, s->heap_n - 1, e);
}

/* ---- the trace ---- */

static void mix(struct sim *s, uint64_t v)
{
    s->hash = (s->hash ^ v) * UINT64_C(0xFF51AFD7ED558CCD);
    s->hash ^= s->hash >> 32;
}

static void mix_text(struct sim *s, const char *text)
{
    for (; *text; text++)
        mix(s, (uint8_t)*text);
}

void sim_note(struct sim *s, const char *what, uint64_t a, uint64_t b)
{
    mix(s, (uint64_t)s->now_us);
    mix_text(s, what);
    mix(s, a);
    mix(s, b);
}

static void print_line(struct sim *s, const char *who, const char *text)
{
    mix(s, (uint64_t)s->now_us);
    mix_text(s, text);
    if (s->log)
        fprintf(stderr, "%10.6f %-8s %s\n", (double)s->now_us / 1e6, who, text);
}

void sim_trace(struct sim *s, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    print_line(s, "test", text);
}

static void on_log(void *arg, enum log_level level, const char *area, const char *line)
{
    static const char *const names[] = {"DEBUG", "INFO", "WARN", "ERROR", "OFF"};
    struct sim *s = arg;
    char text[LOG_LINE_MAX + 64];
    snprintf(text, sizeof text, "%s %s: %s", names[level], area, line);
    print_line(s, s->current ? s->current->name : "world", text);
}

uint64_t sim_trace_hash(const struct sim *s)
{
    return s->hash;
}

uint64_t sim_events(const struct sim *s)
{
    return s->events;
}

/* ---- from start to end ---- */

static void on_abort(int signo)
{
    (void)signo;
    char text[160];
    if (!living)
        return;
    int n = snprintf(
        text, sizeof text, "sim: seed %llu failed at %lld us, event %llu; SUNDOG_SIM_LOG=1 shows its log\n",
        (unsigned long long)living->seed, (long long)living->now_us, (unsigned long long)living->events);
    ssize_t w = write(STDERR_FILENO, text, (size_t)n);
    (void)w;
}

struct sim *sim_create(const struct sim_options *o)
{
    assert(!living); /* one at a time: the log has one sink */
    struct sim *s = calloc(1, sizeof *s);
    assert(s);
    s->seed = o->seed;
    rng_init(&s->rng, o->seed);
    rng_init(&s->test_rng, ~o->seed);
    s->now_us = START_US;
    s->events_max = o->events_max ? o->events_max : EVENTS_MAX_DEFAULT;
    s->log = o->log || getenv("SUNDOG_SIM_LOG");
    s->partial_io = 300000;
    s->link_default = (struct sim_link){.latency_us = 100, .jitter_us = 50, .buffer_bytes = 262144};
    list_init(&s->scripts);
    list_init(&s->connections);
    living = s;
    signal(SIGABRT, on_abort);
    log_sink_set(&(struct log_sink){on_log, s});
    return s;
}

void sim_destroy(struct sim *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < s->nodes_n; i++)
        sim_kill(s->nodes[i]);
    sim_tcp_free_all(s);
    for (unsigned i = 0; i < s->nodes_n; i++) {
        sim_disk_free(s->nodes[i]->disk);
        free(s->nodes[i]);
    }
    while (!list_empty(&s->scripts))
        free(list_pop(&s->scripts)); /* `link` is its first member */
    free(s->heap);
    log_sink_set(NULL);
    living = NULL;
    signal(SIGABRT, SIG_DFL);
    free(s);
}

int64_t sim_now_us(const struct sim *s)
{
    return s->now_us;
}

struct rng *sim_rng(struct sim *s)
{
    return &s->test_rng;
}

void sim_partial_io(struct sim *s, uint32_t per_million)
{
    s->partial_io = per_million;
}

void sim_checker(struct sim *s, void (*fn)(void *arg), void *arg)
{
    assert(s->checkers_n < SIM_CHECKERS_MAX);
    s->checkers[s->checkers_n].fn = fn;
    s->checkers[s->checkers_n++].arg = arg;
}

/* ---- the test's script ---- */

struct script {
    struct list link; /* first */
    struct sim_event event;
    void (*fn)(void *arg);
    void *arg;
};

static void run_script(struct sim_event *e)
{
    struct script *step = SIM_OWNER(e, struct script, event);
    list_remove(&step->link);
    step->fn(step->arg);
    free(step);
}

void sim_at(struct sim *s, int64_t at_us, void (*fn)(void *arg), void *arg)
{
    struct script *step = calloc(1, sizeof *step);
    assert(step);
    *step = (struct script){.event = {.fn = run_script}, .fn = fn, .arg = arg};
    list_push(&s->scripts, &step->link);
    sim_schedule(s, &step->event, at_us);
}

/* ---- running ---- */

static void run_one(struct sim *s)
{
    struct sim_event *e = s->heap[0];
    assert(e->at_us >= s->now_us);
    sim_unschedule(s, e);
    s->now_us = e->at_us;
    s->events++;
    assert(s->events <= s->events_max); /* a simulation that does not end */
    e->fn(e);
    for (unsigned i = 0; i < s->checkers_n; i++)
        s->checkers[i].fn(s->checkers[i].arg);
}

enum sim_end sim_run_until(struct sim *s, int64_t until_us, bool (*pred)(void *arg), void *arg)
{
    assert(!s->current); /* not from inside a node's program */
    if (pred && pred(arg))
        return SIM_TRUE;
    while (s->heap_n && s->heap[0]->at_us <= until_us) {
        run_one(s);
        if (pred && pred(arg))
            return SIM_TRUE;
    }
    bool idle = s->heap_n == 0;
    if (s->now_us < until_us)
        s->now_us = until_us;
    return idle ? SIM_IDLE : SIM_TIME;
}

void sim_run_for(struct sim *s, int64_t us)
{
    sim_run_until(s, s->now_us + us, NULL, NULL);
}
