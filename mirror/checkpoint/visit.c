/* One group of one round: its commits at the source, their translation, and, where that is asked for and something has
 * changed, the group at the target. Here its life and its questions. */
#include "mirror/checkpoint/visit.h"

#include <assert.h>
#include <stdlib.h>

#define VISIT_TIMEOUT_US INT64_C(10000000)
#define VISIT_ARENA_MAX  (16u << 20)

static void visit_free(struct visit *v)
{
    list_remove(&v->link);
    arena_fini(&v->arena);
    free(v->wishes);
    free(v);
}

void visit_end(struct visit *v, bool well)
{
    struct checkpoint *c = v->c;
    assert(!v->call);                    /* nothing is under way */
    assert(list_linked(&v->link));       /* once */
    assert(!list_linked(&v->wait.link)); /* and nobody waits for the store */
    visit_free(v);
    visit_done(c, well);
}

void visit_cancel_all(struct checkpoint *c)
{
    list_each_safe(at, &c->visiting)
    {
        struct visit *v = LIST_ENTRY(at, struct visit, link);
        if (v->call)
            client_cancel(v->asked, v->call);
        list_remove(&v->wait.link);
        visit_free(v);
    }
    assert(list_empty(&c->visiting));
}

void visit_fail(struct visit *v, const char *what, const struct client_response *r, int16_t code)
{
    assert(r->status || code);
    checkpoint_trouble(v->c, "group %s: cannot %s: %s", v->g->name, what,
                       r->status ? r->err->text : kafka_error_name(code));
    visit_end(v, false);
}

void *visit_ask(struct visit *v, struct client *client, int16_t api, int16_t version_min, int16_t version_max,
                void (*on_response)(void *arg, const struct client_response *r))
{
    assert(!v->call); /* one question at a time */
    assert(client == v->c->source || client == v->c->target);
    v->asked = client;
    v->call = client_ask(client,
                         &(struct client_ask){.api = api,
                                              .version_min = version_min,
                                              .version_max = version_max,
                                              .retry = CLIENT_RETRY_SAFE,
                                              .target = {.kind = CLIENT_GROUP, .name = slice_str(v->g->name)},
                                              .timeout_us = VISIT_TIMEOUT_US,
                                              .on_response = on_response,
                                              .arg = v});
    return v->call ? v->call->body : NULL;
}

void *visit_ask_or_end(struct visit *v, struct client *client, int16_t api, int16_t version_min,
                       int16_t version_max, void (*on_response)(void *arg, const struct client_response *r))
{
    void *body = visit_ask(v, client, api, version_min, version_max, on_response);
    if (!body)
        visit_end(v, false);
    return body;
}

void visit_send(struct visit *v)
{
    assert(v->call);
    client_send(v->asked, v->call);
}

void visit_no_room(struct visit *v)
{
    assert(v->call);
    client_cancel(v->asked, v->call);
    v->call = NULL;
    visit_end(v, false);
}

static void forget_unseen(struct visit *v)
{
    struct entry *e, *next;
    HASH_ITER (hh, v->g->entries, e, next) {
        assert(e->round <= v->c->round);
        if (e->round != v->c->round)
            entry_forget(v->c, v->g, e);
    }
}

static void on_source_offsets(void *arg, const struct client_response *r)
{
    struct visit *v = arg;
    v->call = NULL;
    assert(v->asked == v->c->source);
    assert(v->wishes_n == 0);
    int16_t code = r->status ? 0 : visit_offsets_error(r);
    if (r->status || code) {
        visit_fail(v, "read its offsets at the source", r, code);
        return;
    }
    struct err err = {0};
    if (visit_translate(v, r, &err)) {
        checkpoint_trouble(v->c, "group %s: cannot translate: %s", v->g->name, err.text);
        visit_end(v, false);
        return;
    }
    forget_unseen(v);
    if (v->wishes_n > 0)
        visit_target(v);
    else
        visit_end(v, true);
}

int visit_start(struct checkpoint *c, struct group *g)
{
    assert(g->round == c->round); /* the source has it */
    struct visit *v = calloc(1, sizeof *v);
    if (!v)
        return -E_NOMEM;
    v->c = c;
    v->g = g;
    list_init(&v->wait.link);
    arena_init(&v->arena, VISIT_ARENA_MAX);
    if (visit_ask_offsets(v, c->source, on_source_offsets)) {
        free(v);
        return -E_NOMEM;
    }
    assert(v->call);
    list_push(&c->visiting, &v->link);
    return 0;
}
