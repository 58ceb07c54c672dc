/* Topics and groups come and go: the topics that the mirror writes for MM2's tools keep keys only of what is there,
 * and never a null value, which MM2's Java code cannot read. */
#include "mirror/sync/internal_topic.h"
#include "tests/support/sites.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define CHECKPOINTS "east.checkpoints.internal"
#define SYNCS       "mm2-offset-syncs.west.internal"
#define TOPICS      4
#define PARTITIONS  40
#define KEYS        2000

struct keys {
    char key[KEYS][160];
    size_t bytes[KEYS];
    int n, nulls;
};

static void take_key(void *arg, const struct record *r)
{
    struct keys *k = arg;
    cr_assert(r->key.n > 0 && r->key.n <= sizeof k->key[0]);
    k->nulls += slice_is_null(r->value);
    for (int i = 0; i < k->n; i++)
        if (slice_eq(r->key, slice_of((const uint8_t *)k->key[i], k->bytes[i])))
            return;
    cr_assert_lt(k->n, KEYS);
    memcpy(k->key[k->n], r->key.p, r->key.n);
    k->bytes[k->n++] = r->key.n;
}

static struct keys *keys_of(struct sites *s, int site, const char *topic)
{
    static struct keys k;
    k = (struct keys){0};
    cr_assert(sites_each(s, site, topic, 0, take_key, &k), "%s cannot be read", topic);
    cr_assert_eq(k.nulls, 0, "%d null values in %s", k.nulls, topic);
    return &k;
}

/* How many keys have the text in them. */
static int with(const struct keys *k, const char *text)
{
    int n = 0;
    for (int i = 0; i < k->n; i++)
        for (size_t at = 0; at + strlen(text) <= k->bytes[i]; at++)
            if (memcmp(k->key[i] + at, text, strlen(text)) == 0) {
                n++;
                break;
            }
    return n;
}

static const char *passing(int i)
{
    static char name[32];
    snprintf(name, sizeof name, "passing-%d", i);
    return name;
}

static struct sites *mirrored(uint64_t seed)
{
    static const char *const groups[] = {"stays", "stays too", "goes"};
    struct sites *s = sites_create(seed);
    s->mirror_settings = "topics = kept, later, passing.*\n";
    sites_topic(s, EAST, "kept", 1);
    cr_assert(sites_produce(s, EAST, "kept", 0, 0, 10));
    for (int i = 0; i < 2; i++)
        while (!sites_commit(s, EAST, groups[i], "kept", 0, 5))
            sim_run_for(s->sim, SIM_SECOND / 10); /* a coordinator loads */
    for (int i = 0; i < TOPICS; i++) {
        sites_topic(s, EAST, passing(i), PARTITIONS);
        for (int p = 0; p < PARTITIONS; p++) {
            cr_assert(sites_produce(s, EAST, passing(i), p, 0, 2));
            while (!sites_commit(s, EAST, groups[p % 3], passing(i), p, 1))
                sim_run_for(s->sim, SIM_SECOND / 10); /* a coordinator loads */
        }
    }
    sites_topic(s, EAST, "later", 1); /* the store's newest topic stays in it */
    cr_assert(sites_produce(s, EAST, "later", 0, 0, 10));
    cr_assert(sim_start(s->mirror));
    sim_run_for(s->sim, 60 * SIM_SECOND);
    cr_assert_eq(with(keys_of(s, WEST, CHECKPOINTS), "passing"), TOPICS * PARTITIONS);
    cr_assert_eq(with(keys_of(s, EAST, SYNCS), "passing"), TOPICS * PARTITIONS);
    return s;
}

/* What is there is in the topic at each moment. */
static void must_keep(struct sites *s, int seconds)
{
    for (int i = 0; i < 4 * seconds; i++) {
        sim_run_for(s->sim, SIM_SECOND / 4);
        int n = with(keys_of(s, WEST, CHECKPOINTS), "kept");
        cr_assert_eq(n, 2, "%d of 2 checkpoints of what is there after %d s", n, i / 4);
        cr_assert_geq(with(keys_of(s, EAST, SYNCS), "kept"), 1, "the sync of what is there is gone");
    }
}

Test(mirror_keys, of_topics_that_are_gone_leave)
{
    struct sites *s = mirrored(11);
    for (int i = 0; i < TOPICS; i++)
        sites_topic_delete(s, EAST, passing(i));
    must_keep(s, 60);
    cr_assert_lt(with(keys_of(s, WEST, CHECKPOINTS), "passing"), INTERNAL_TOPIC_CUT_MIN);
    cr_assert_eq(with(keys_of(s, EAST, SYNCS), "passing"), TOPICS * PARTITIONS,
                 "the target has its copies still");
    for (int i = 0; i < TOPICS; i++) {
        char there[64];
        snprintf(there, sizeof there, "east.%s", passing(i));
        sites_topic_delete(s, WEST, there);
    }
    must_keep(s, 180);
    cr_assert_lt(with(keys_of(s, EAST, SYNCS), "passing"), INTERNAL_TOPIC_CUT_MIN);
    cr_assert_eq(with(keys_of(s, EAST, SYNCS), "later"), 1);
    /* And it goes on. */
    cr_assert(sites_commit(s, EAST, "another", "kept", 0, 7));
    sim_run_for(s->sim, 10 * SIM_SECOND);
    cr_assert_eq(with(keys_of(s, WEST, CHECKPOINTS), "kept"), 3);
    sites_destroy(s);
}

/* A record of a MirrorMaker 2, say, whose flow has the same names: nothing is cut off that would take it along. */
Test(mirror_keys, of_somebody_else_stay)
{
    uint64_t number;
    struct sites *s = mirrored(12);
    memcpy(&number, "stranger", sizeof number);
    cr_assert(sites_produce(s, WEST, CHECKPOINTS, 0, number, 1));
    for (int i = 0; i < TOPICS; i++)
        sites_topic_delete(s, EAST, passing(i));
    must_keep(s, 60);
    struct keys *k = keys_of(s, WEST, CHECKPOINTS);
    cr_assert_eq(with(k, "stranger"), 1, "somebody else's checkpoint is gone");
    cr_assert_eq(with(k, "passing"), TOPICS * PARTITIONS, "and of ours some have gone before it");
    cr_assert(sites_commit(s, EAST, "another", "kept", 0, 7));
    sim_run_for(s->sim, 10 * SIM_SECOND);
    cr_assert_eq(with(keys_of(s, WEST, CHECKPOINTS), "kept"), 3, "it is written to all the same");
    sites_destroy(s);
}
