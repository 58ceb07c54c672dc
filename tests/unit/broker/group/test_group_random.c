/* Random clients of one group: nothing they do, and no time at which they do it, breaks what must hold. The script
 * asserts after each step that the group is consistent and that each request is answered once; here it is checked that
 *   - one generation's assignment covers: who is assigned in a generation holds disjoint parts, all of them together
 *     everything (G2, S31);
 *   - a client of an older generation may never commit (S32);
 *   - there are no ghosts: when all clients fall silent, the group empties; when they behave, it becomes Stable. */
#include "base/core/rng.h"
#include "tests/support/group_script.h"

#include <criterion/criterion.h>
#include <stdio.h>

enum { CLIENTS = 8, PARTS = 12, STEPS = 1500 };

struct world {
    struct group_script *s;
    struct rng rng;
    struct script_join how[CLIENTS];
    char instances[CLIENTS][8], names[CLIENTS][4];
    bool synced[CLIENTS]; /* holds the assignment of its generation */
};

static const char *const protocols[] = {"range:a", "range:b", "range:a sticky:a", "sticky:c range:c"};

static void world_begin(struct world *w, uint64_t seed)
{
    static const struct group_config configs[] = {
        {1, 1000000, 0, 30000, 6}, {1, 1000000, 3000, 30000, 1000}, {1, 1000000, 500, 30000, 3}};
    *w = (struct world){0};
    rng_init(&w->rng, seed);
    w->s = group_script_create(&configs[rng_below(&w->rng, 3)]);
    for (int i = 0; i < CLIENTS; i++) {
        snprintf(w->names[i], sizeof w->names[i], "%c", 'A' + i);
        w->how[i] = (struct script_join){.protocols = protocols[rng_below(&w->rng, 4)],
                                         .session_ms = (int32_t)rng_range(&w->rng, 500, 5000),
                                         .rebalance_ms = (int32_t)rng_range(&w->rng, 500, 8000),
                                         .version = (int)rng_range(&w->rng, 3, 9)};
        if (rng_chance(&w->rng, 300000)) {
            snprintf(w->instances[i], sizeof w->instances[i], "s%d", (int)rng_below(&w->rng, 3));
            w->how[i].instance = w->instances[i];
        }
    }
}

/* The parts dealt out to the members the leader was told: "A1=0,2 B2=1". Some leaders forget a member. */
static void lead(struct world *w, int i)
{
    char text[4096] = "", members[4096];
    snprintf(members, sizeof members, "%s", script_told_members(w->s, w->names[i]));
    unsigned n = 0, who = 0;
    for (char *m = members; *m; m++)
        n += *m == ' ';
    for (char *m = strtok(members, " "); m; m = strtok(NULL, " "), who++) {
        size_t at = strlen(text);
        at += (size_t)snprintf(text + at, sizeof text - at, "%s=", m);
        for (unsigned p = who; p < PARTS; p += n)
            at += (size_t)snprintf(text + at, sizeof text - at, "%u,", p);
        snprintf(text + at, sizeof text - at, " ");
    }
    script_sync(w->s, w->names[i], text);
}

static void client_acts(struct world *w, int i)
{
    const char *who = w->names[i];
    switch (rng_below(&w->rng, 12)) {
    case 0:
    case 1:
    case 2: script_join(w->s, who, &w->how[i]); break;
    case 3:
    case 4:
    case 5:
        if (script_is_leader(w->s, who) && script_told_members(w->s, who)[0])
            lead(w, i);
        else
            script_sync(w->s, who, NULL);
        break;
    case 6:
    case 7: script_heartbeat(w->s, who); break;
    case 8: script_leave(w->s, who); break;
    case 9: script_member_id_set(w->s, who, ""); break; /* the process starts anew */
    case 10: w->how[i].protocols = protocols[rng_below(&w->rng, 4)]; break;
    case 11:
        if (script_generation(w->s, who) > 1)
            cr_assert_neq(script_commit(w->s, who, -1 - (int32_t)rng_below(&w->rng, 2)), KE_NONE);
        break;
    }
}

/* What the members of a Stable group hold, by their own group's book. */
static void check_coverage(struct world *w)
{
    const struct group *g = script_group(w->s);
    if (group_state(g) != GROUP_STABLE)
        return;
    unsigned owners[PARTS] = {0};
    for (const struct group_member *m = group_member_next(g, NULL); m; m = group_member_next(g, m)) {
        struct group_member_view v = group_member_view(g, m);
        char text[256];
        slice_cstr(v.assignment, text, sizeof text);
        for (char *p = strtok(text, ","); p; p = strtok(NULL, ","))
            owners[strtoul(p, NULL, 10)]++;
    }
    for (int p = 0; p < PARTS; p++)
        cr_assert_eq(owners[p], 1, "part %d has %u owners in generation %d", p, owners[p],
                     group_generation(g));
}

/* Two who believe in the present generation never hold the same part: an answer once given is not given differently. */
static void check_owners(struct world *w)
{
    const struct group *g = script_group(w->s);
    const char *owner[PARTS] = {0};
    for (int i = 0; i < CLIENTS; i++) {
        if (script_generation(w->s, w->names[i]) != group_generation(g))
            continue;
        char text[256];
        snprintf(text, sizeof text, "%s", script_assignment(w->s, w->names[i]));
        bool static_member = w->how[i].instance != NULL; /* its successor holds the same, and fences it */
        for (char *p = strtok(text, ","); p && !static_member; p = strtok(NULL, ",")) {
            unsigned n = (unsigned)strtoul(p, NULL, 10);
            cr_assert_null(owner[n], "part %u: %s and %s", n, owner[n], w->names[i]);
            owner[n] = w->names[i];
        }
    }
}

static void write_records(struct world *w, bool *slow)
{
    if (rng_chance(&w->rng, 30000)) {
        *slow = !*slow;
        script_auto_persist(w->s, !*slow);
    }
}

static void settle(struct world *w)
{
    int64_t until = script_now_ms(w->s) + 60000;
    while (script_now_ms(w->s) < until) {
        script_run(w->s, script_now_ms(w->s) + 100);
        for (int i = 0; i < CLIENTS; i++) {
            const char *who = w->names[i];
            w->how[i] = (struct script_join){
                .instance = NULL, .protocols = "range:a", .session_ms = 3000, .rebalance_ms = 3000};
            if (script_waiting(w->s, who) || w->instances[i][0])
                continue;
            script_heartbeat(w->s, who);
            if (script_error(w->s, who) == KE_UNKNOWN_MEMBER_ID)
                script_member_id_set(w->s, who, "");
            if (script_error(w->s, who) != KE_NONE)
                script_join(w->s, who, &w->how[i]);
            if (script_error(w->s, who) == KE_MEMBER_ID_REQUIRED)
                script_join(w->s, who, &w->how[i]);
            if (!script_waiting(w->s, who) && script_error(w->s, who) == KE_NONE) {
                if (script_is_leader(w->s, who) && script_told_members(w->s, who)[0])
                    lead(w, i);
                else
                    script_sync(w->s, who, NULL);
            }
        }
        script_trace(w->s);
    }
}

static void run(uint64_t seed)
{
    struct world w;
    bool slow = false;
    world_begin(&w, seed);
    for (int step = 0; step < STEPS; step++) {
        if (rng_chance(&w.rng, 300000))
            script_run(w.s, script_now_ms(w.s) + rng_exponential(&w.rng, 400));
        else
            client_acts(&w, (int)rng_below(&w.rng, CLIENTS));
        write_records(&w, &slow);
        check_coverage(&w);
        check_owners(&w);
        script_trace(w.s);
    }
    script_auto_persist(w.s, true);
    if (seed % 2) {
        settle(&w);
        cr_assert(group_state(script_group(w.s)) == GROUP_STABLE, "seed %llu: %s", (unsigned long long)seed,
                  group_state_name(script_group(w.s)));
        check_coverage(&w);
    } else {
        script_run(w.s, script_now_ms(w.s) + 400000);
        cr_assert(group_idle(script_group(w.s)), "seed %llu: ghosts in %s", (unsigned long long)seed,
                  group_state_name(script_group(w.s)));
    }
    group_script_destroy(w.s);
}

Test(group_random, clients_of_every_kind_leave_the_group_consistent)
{
    const char *one = getenv("SUNDOG_SEED");
    if (one) {
        run(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= 60; seed++)
        run(seed);
}
