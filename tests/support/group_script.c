#include "tests/support/group_script.h"

#include "base/core/arena.h"
#include "base/core/buf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT_MAX    256
#define RECORDS_MAX 64

struct client {
    char name[8];
    char id[64], instance[32], assignment[TEXT_MAX], members[4096];
    int32_t generation;
    int16_t error;
    bool leader;
    unsigned waiting; /* requests not yet answered */
};

struct token {
    struct client *client;
    const char *what;
    bool answered;
};

struct group_script {
    struct group *g;
    struct group_config config;
    struct group_effects fx;
    struct client clients[SCRIPT_CLIENTS_MAX];
    unsigned ids, open;
    int64_t now_ms;
    uint64_t records[RECORDS_MAX];
    size_t records_n;
    bool auto_persist;
    int16_t last_error;
    struct buf trace;
    struct buf shown;
};

static struct group_now now(const struct group_script *s)
{
    return (struct group_now){.us = s->now_ms * 1000, .wall_ms = 1700000000000 + s->now_ms};
}

struct group_script *group_script_create(const struct group_config *config)
{
    static const struct group_config usual = {.session_min_ms = 6000,
                                              .session_max_ms = 1800000,
                                              .initial_rebalance_delay_ms = 3000,
                                              .new_member_join_timeout_ms = 300000,
                                              .members_max = 1000};
    struct group_script *s = calloc(1, sizeof *s);
    assert(s);
    s->config = config ? *config : usual;
    s->auto_persist = true;
    group_effects_init(&s->fx);
    buf_init(&s->trace, 16 << 20);
    buf_init(&s->shown, 16 << 20);
    s->g = group_create(slice_str("g"), &s->config, now(s));
    assert(s->g);
    return s;
}

static struct client *client(struct group_script *s, const char *who)
{
    for (size_t i = 0; i < SCRIPT_CLIENTS_MAX; i++) {
        struct client *c = &s->clients[i];
        if (!c->name[0])
            snprintf(c->name, sizeof c->name, "%s", who);
        if (strcmp(c->name, who) == 0)
            return c;
    }
    abort();
}

static struct token *token(struct group_script *s, struct client *c, const char *what)
{
    struct token *t = calloc(1, sizeof *t);
    assert(t);
    *t = (struct token){c, what, false};
    c->waiting++;
    s->open++;
    return t;
}

static void answered(struct group_script *s, struct token *t)
{
    assert(!t->answered);
    t->answered = true;
    assert(s->open > 0 && t->client->waiting > 0);
    s->open--;
    t->client->waiting--;
}

static void keep(char *to, size_t cap, struct slice from)
{
    slice_cstr(from, to, cap);
}

static void trace_error(struct group_script *s, const struct group_effect *e, const struct token *t)
{
    buf_printf(&s->trace, "%lld %s %s %s", (long long)s->now_ms, t->client->name, t->what,
               kafka_error_name(e->error));
    if (e->kind == GROUP_ANSWER_JOIN && e->error == KE_MEMBER_ID_REQUIRED)
        buf_printf(&s->trace, " id=%.*s", SLICE_FMT(e->join.member_id));
    buf_printf(&s->trace, "\n");
}

static void on_join(struct group_script *s, const struct group_effect *e, struct token *t)
{
    struct client *c = t->client;
    c->error = e->error;
    if (e->error == KE_MEMBER_ID_REQUIRED)
        keep(c->id, sizeof c->id, e->join.member_id);
    if (e->error) {
        trace_error(s, e, t);
        return;
    }
    keep(c->id, sizeof c->id, e->join.member_id);
    c->generation = e->join.generation;
    c->leader = slice_eq(e->join.leader, e->join.member_id);
    c->assignment[0] = c->members[0] = 0;
    buf_printf(&s->trace, "%lld %s join gen=%d %.*s leader=%.*s", (long long)s->now_ms, c->name,
               e->join.generation, SLICE_FMT(e->join.protocol_name), SLICE_FMT(e->join.leader));
    if (e->join.skip_assignment)
        buf_printf(&s->trace, " skip");
    if (e->join.with_members) {
        buf_printf(&s->trace, " members=");
        for (const struct group_member *m = group_member_next(s->g, NULL); m;
             m = group_member_next(s->g, m)) {
            struct group_member_view v = group_member_view(s->g, m);
            size_t n = strlen(c->members);
            snprintf(c->members + n, sizeof c->members - n, "%.*s ", SLICE_FMT(v.id));
        }
        buf_printf(&s->trace, "%.*s", (int)(strlen(c->members) - 1), c->members);
    }
    buf_printf(&s->trace, "\n");
}

static void on_sync(struct group_script *s, const struct group_effect *e, struct token *t)
{
    t->client->error = e->error;
    if (e->error) {
        trace_error(s, e, t);
        return;
    }
    keep(t->client->assignment, sizeof t->client->assignment, e->sync.assignment);
    buf_printf(&s->trace, "%lld %s sync %.*s\n", (long long)s->now_ms, t->client->name,
               SLICE_FMT(e->sync.assignment));
}

static void step(struct group_script *s, const struct group_event *event)
{
    group_step(s->g, event, now(s), &s->fx);
    for (size_t i = 0; i < s->fx.n; i++) {
        const struct group_effect *e = &s->fx.v[i];
        struct token *t = e->token;
        if (e->kind == GROUP_PERSIST) {
            buf_printf(&s->trace, "%lld record %s gen=%d\n", (long long)s->now_ms, group_state_name(s->g),
                       group_generation(s->g));
            if (e->persist.wanted) {
                assert(s->records_n < RECORDS_MAX);
                s->records[s->records_n++] = e->persist.ticket;
            }
            continue;
        }
        answered(s, t);
        if (e->kind == GROUP_ANSWER_JOIN) {
            on_join(s, e, t);
        } else if (e->kind == GROUP_ANSWER_SYNC) {
            on_sync(s, e, t);
        } else {
            t->client->error = s->last_error = e->error;
            if (strcmp(t->what, "commit") != 0)
                trace_error(s, e, t);
        }
        free(t);
    }
    group_effects_clear(&s->fx);
    group_check(s->g);
    if (s->auto_persist && s->records_n)
        script_persisted(s, KE_NONE);
}

struct group *script_group(struct group_script *s)
{
    return s->g;
}

int64_t script_now_ms(const struct group_script *s)
{
    return s->now_ms;
}

void group_script_destroy(struct group_script *s)
{
    step(s, &(struct group_event){.kind = GROUP_UNLOAD, .unload_error = KE_NOT_COORDINATOR});
    assert(s->open == 0 && group_state(s->g) == GROUP_DEAD);
    group_destroy(s->g);
    group_effects_fini(&s->fx);
    buf_fini(&s->trace);
    buf_fini(&s->shown);
    free(s);
}

static int32_t read_protocols(const char *text, struct group_protocol *to)
{
    int32_t n = 0;
    while (*text) {
        size_t whole = strcspn(text, " "), name = strcspn(text, ":");
        assert(name < whole && n < GROUP_PROTOCOLS_MAX);
        to[n].name = slice_of(text, name);
        to[n++].metadata = slice_of(text + name + 1, whole - name - 1);
        text += whole + (text[whole] == ' ');
    }
    return n;
}

void script_join(struct group_script *s, const char *who, const struct script_join *how)
{
    static const struct script_join usual;
    struct client *c = client(s, who);
    struct group_protocol protocols[GROUP_PROTOCOLS_MAX];
    how = how ? how : &usual;
    int version = how->version ? how->version : 9;
    if (how->instance)
        snprintf(c->instance, sizeof c->instance, "%s", how->instance);
    char fresh[64];
    snprintf(fresh, sizeof fresh, "%s%u", who, ++s->ids);
    struct slice instance = c->instance[0] ? slice_str(c->instance) : SLICE_NULL;
    struct group_event e = {
        .kind = GROUP_JOIN,
        .token = token(s, c, "join"),
        .caller = {slice_str(how->member_id ? how->member_id : c->id), instance, 0},
        .join = {.fresh_member_id = slice_str(fresh),
                 .client_id = slice_str(who),
                 .client_host = slice_str("127.0.0.1"),
                 .protocol_type = slice_str(how->type ? how->type : "test"),
                 .protocols = protocols,
                 .protocols_n = read_protocols(how->protocols ? how->protocols : "range:t", protocols),
                 .session_timeout_ms = how->session_ms ? how->session_ms : 10000,
                 .rebalance_timeout_ms = how->rebalance_ms ? how->rebalance_ms : 60000,
                 .member_id_required = version >= 4,
                 .may_skip_assignment = version >= 9},
    };
    step(s, &e);
}

void script_sync(struct group_script *s, const char *who, const char *assignments)
{
    struct client *c = client(s, who);
    struct group_assignment v[SCRIPT_CLIENTS_MAX];
    int32_t n = 0;
    for (const char *text = assignments ? assignments : ""; *text;) {
        size_t whole = strcspn(text, " "), name = strcspn(text, "=");
        assert(name < whole && n < SCRIPT_CLIENTS_MAX);
        v[n].member_id = slice_of(text, name);
        v[n++].assignment = slice_of(text + name + 1, whole - name - 1);
        text += whole + (text[whole] == ' ');
    }
    struct group_event e = {
        .kind = GROUP_SYNC,
        .token = token(s, c, "sync"),
        .caller = {slice_str(c->id), c->instance[0] ? slice_str(c->instance) : SLICE_NULL, c->generation},
        .sync = {.assignments = v, .assignments_n = n},
    };
    step(s, &e);
}

void script_heartbeat(struct group_script *s, const char *who)
{
    struct client *c = client(s, who);
    struct group_event e = {
        .kind = GROUP_HEARTBEAT,
        .token = token(s, c, "heartbeat"),
        .caller = {slice_str(c->id), c->instance[0] ? slice_str(c->instance) : SLICE_NULL, c->generation},
    };
    step(s, &e);
}

void script_leave(struct group_script *s, const char *who)
{
    struct client *c = client(s, who);
    struct group_leaving l = {slice_str(c->id), c->instance[0] ? slice_str(c->instance) : SLICE_NULL, 0};
    struct group_event e = {.kind = GROUP_LEAVE, .token = token(s, c, "leave"), .leave = {&l, 1}};
    step(s, &e);
    if (l.error)
        buf_printf(&s->trace, "%lld %s left %s\n", (long long)s->now_ms, who, kafka_error_name(l.error));
    c->error = l.error;
}

int16_t script_commit(struct group_script *s, const char *who, int32_t off)
{
    struct client *c = client(s, who);
    struct group_event e = {
        .kind = GROUP_COMMIT,
        .token = token(s, c, "commit"),
        .caller = {slice_str(c->id), c->instance[0] ? slice_str(c->instance) : SLICE_NULL,
                   c->generation + off},
    };
    step(s, &e);
    return s->last_error;
}

int16_t script_simple_commit(struct group_script *s)
{
    struct group_event e = {.kind = GROUP_COMMIT,
                            .token = token(s, client(s, "?"), "commit"),
                            .caller = {slice_str(""), SLICE_NULL, -1}};
    step(s, &e);
    return s->last_error;
}

void script_persisted(struct group_script *s, int16_t error)
{
    assert(s->records_n > 0);
    struct group_event e = {.kind = GROUP_PERSISTED, .persisted = {s->records[0], error}};
    s->records_n--;
    memmove(s->records, s->records + 1, s->records_n * sizeof *s->records);
    step(s, &e);
}

void script_auto_persist(struct group_script *s, bool on)
{
    s->auto_persist = on;
}

void script_run(struct group_script *s, int64_t until_ms)
{
    for (unsigned turns = 0; group_due_us(s->g) <= until_ms * 1000; turns++) {
        assert(turns < 100000); /* each tick moves its deadlines on */
        int64_t due = (group_due_us(s->g) + 999) / 1000;
        if (due > s->now_ms)
            s->now_ms = due;
        step(s, &(struct group_event){.kind = GROUP_TICK});
    }
    assert(until_ms >= s->now_ms);
    s->now_ms = until_ms;
}

const char *script_trace(struct group_script *s)
{
    buf_clear(&s->shown);
    buf_put(&s->shown, s->trace.p, s->trace.n);
    buf_put_u8(&s->shown, 0);
    buf_clear(&s->trace);
    return (const char *)s->shown.p;
}

void script_expect(struct group_script *s, const char *trace)
{
    const char *is = script_trace(s);
    if (strcmp(is, trace) != 0) {
        fprintf(stderr, "expected:\n%s\nis:\n%s\n", trace, is);
        abort();
    }
}

const char *script_member_id(struct group_script *s, const char *who)
{
    return client(s, who)->id;
}

void script_member_id_set(struct group_script *s, const char *who, const char *id)
{
    keep(client(s, who)->id, sizeof client(s, who)->id, slice_str(id));
}

int32_t script_generation(struct group_script *s, const char *who)
{
    return client(s, who)->generation;
}

const char *script_assignment(struct group_script *s, const char *who)
{
    return client(s, who)->assignment;
}

bool script_waiting(struct group_script *s, const char *who)
{
    return client(s, who)->waiting > 0;
}

bool script_is_leader(struct group_script *s, const char *who)
{
    return client(s, who)->leader;
}

int16_t script_error(struct group_script *s, const char *who)
{
    return client(s, who)->error;
}

const char *script_told_members(struct group_script *s, const char *who)
{
    return client(s, who)->members;
}
