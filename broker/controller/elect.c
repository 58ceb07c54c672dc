#include "broker/controller/elect.h"

#include <assert.h>

/* One partition on its way to its next state; lists are copies in the records' arena. */
struct electing {
    const struct decide *d;
    const struct image_topic *topic;
    const struct image_partition *was;
    int32_t broker_id;
    enum broker_move move;
    const struct uuid *directory; /* only replicas that lie there; NULL: all of the broker's */
    int32_t *isr, *elr, *last_known;
    int32_t isr_n, elr_n, last_known_n;
    int32_t leader;
    bool recovering; /* the election was unclean */
};

static bool has(const int32_t *v, int32_t n, int32_t id)
{
    for (int32_t i = 0; i < n; i++) {
        if (v[i] == id)
            return true;
    }
    return false;
}

static void drop(int32_t *v, int32_t *n, int32_t id)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < *n; i++) {
        if (v[i] != id)
            v[kept++] = v[i];
    }
    assert(kept <= *n);
    *n = kept;
}

static int32_t *copy(const struct electing *e, const int32_t *v, int32_t n)
{
    assert(n >= 0);
    int32_t *to = ARENA_NEWS(e->d->out->arena, int32_t, n + 1); /* room for one more */
    if (to && n)
        memcpy(to, v, (size_t)n * sizeof *v);
    return to;
}

/* The directory that is on record for this replica is one of its broker's, or not known yet. */
static bool directory_is_online(const struct electing *e, const struct image_broker *b)
{
    int32_t at = 0;
    while (at < e->was->replicas_n && e->was->replicas[at] != b->id)
        at++;
    if (at >= e->was->directories_n)
        return true;
    const struct uuid *recorded = &e->was->directories[at];
    struct uuid unassigned = uuid_small(UNASSIGNED_DIRECTORY);
    if (uuid_is_zero(recorded) || uuid_eq(recorded, &unassigned))
        return true;
    for (int32_t i = 0; i < b->log_dirs_n; i++) {
        if (uuid_eq(&b->log_dirs[i], recorded))
            return true;
    }
    return b->log_dirs_n == 0;
}

/* May lead, once the move is done. */
static bool acceptable(const struct electing *e, int32_t id)
{
    const struct image_broker *b = image_broker(e->d->img, id);
    bool joins = e->move == BROKER_JOINS && b && !b->in_controlled_shutdown; /* fenced still, in this image */
    bool active = id == e->broker_id ? joins : broker_is_active(b);
    return b && active && directory_is_online(e, b);
}

static int32_t first_acceptable(const struct electing *e, const int32_t *among, int32_t n)
{
    for (int32_t i = 0; i < e->was->replicas_n; i++) {
        int32_t id = e->was->replicas[i];
        if (has(among, n, id) && acceptable(e, id))
            return id;
    }
    return IMAGE_NO_LEADER;
}

static bool unclean_allowed(const struct electing *e)
{
    struct config_view view = {e->d->img, e->d->node_id, &e->d->rules->statics};
    struct config_value v[CONFIG_SYNONYMS_MAX];
    struct arena scratch;
    arena_init(&scratch, 4096);
    effective_topic_config(&view, image_config(e->d->img, IMAGE_CONFIG_TOPIC, e->topic->name),
                           topic_config_find(SLICE_LIT("unclean.leader.election.enable")), &scratch, v);
    bool yes = slice_eq_str(v[0].value, "true");
    arena_fini(&scratch);
    return yes;
}

/* S14 and S17, of what comes next. */
static void check(const struct electing *e)
{
    assert(e->leader >= 0 || e->leader == IMAGE_NO_LEADER);
    assert(e->leader < 0 || has(e->isr, e->isr_n, e->leader));
    assert(e->isr_n >= 0);
    assert(e->isr_n <= e->was->isr_n + 1); /* the room of `isr`, too */
    assert(e->elr_n >= 0);
    assert(e->last_known_n <= e->was->last_known_elr_n + 1);
    for (int32_t i = 0; i < e->elr_n; i++)
        assert(!has(e->isr, e->isr_n, e->elr[i]));
    assert(!e->recovering || e->isr_n == 1);
    assert(!e->recovering || e->isr[0] == e->leader);
    assert(!e->recovering || e->elr_n == 0);
}

static void elect_uncleanly(struct electing *e, int32_t id)
{
    assert(e->leader == IMAGE_NO_LEADER);
    assert(acceptable(e, id));
    e->leader = id;
    e->isr[0] = id;
    e->isr_n = 1;
    e->elr_n = 0;
    e->recovering = true;
}

static void elect(struct electing *e)
{
    int32_t id = e->was->leader;
    assert(e->leader == IMAGE_NO_LEADER);
    assert(!e->recovering);
    if (id >= 0 && has(e->isr, e->isr_n, id) && acceptable(e, id)) {
        e->leader = id;
        return;
    }
    e->leader = first_acceptable(e, e->isr, e->isr_n);
    if (e->leader >= 0)
        return;
    if (e->isr_n == 0 && e->elr_n > 0) {
        id = first_acceptable(e, e->elr, e->elr_n);
        if (id >= 0) { /* one of those that had everything (KIP-966) */
            e->leader = id;
            e->isr[e->isr_n++] = id;
            drop(e->elr, &e->elr_n, id);
            return;
        }
    }
    bool nobody = e->isr_n == 0 && e->elr_n == 0;
    if (nobody && e->last_known_n == 1 && acceptable(e, e->last_known[0]))
        elect_uncleanly(e, e->last_known[0]);
    else if (unclean_allowed(e) && (id = first_acceptable(e, e->was->replicas, e->was->replicas_n)) >= 0)
        elect_uncleanly(e, id);
}

static int32_t min_insync(const struct electing *e)
{
    struct config_view view = {e->d->img, e->d->node_id, &e->d->rules->statics};
    struct config_value v[CONFIG_SYNONYMS_MAX];
    struct arena scratch;
    int32_t n = 0;
    arena_init(&scratch, 4096);
    effective_topic_config(&view, image_config(e->d->img, IMAGE_CONFIG_TOPIC, e->topic->name),
                           topic_config_find(SLICE_LIT("min.insync.replicas")), &scratch, v);
    for (size_t i = 0; i < v[0].value.n; i++)
        n = n < 100000 ? n * 10 + (v[0].value.p[i] - '0') : n;
    arena_fini(&scratch);
    return n > e->was->replicas_n ? e->was->replicas_n : n;
}

/* (old ELR ∪ old ISR) − ISR, while the ISR is below the minimum (KIP-966). */
static void keep_elr(struct electing *e)
{
    /* Whoever had everything before an unclean election does not have what comes after it (S17). */
    if (!decide_elr(e->d->img) || e->recovering) {
        e->elr_n = 0;
        e->last_known_n = 0;
        return;
    }
    if (e->isr_n >= min_insync(e)) {
        e->elr_n = 0;
    } else {
        int32_t n = 0;
        int32_t *elr = ARENA_NEWS(e->d->out->arena, int32_t, e->was->elr_n + e->was->isr_n);
        for (int32_t i = 0; elr && i < e->was->elr_n + e->was->isr_n; i++) {
            int32_t id = i < e->was->elr_n ? e->was->elr[i] : e->was->isr[i - e->was->elr_n];
            bool stopped = id == e->broker_id && e->move == BROKER_LEAVES_UNCLEAN;
            if (!stopped && !has(e->isr, e->isr_n, id) && !has(elr, n, id))
                elr[n++] = id;
        }
        assert(n <= e->was->elr_n + e->was->isr_n);
        e->elr = elr;
        e->elr_n = n;
    }
    if (e->leader >= 0) {
        e->last_known_n = 0;
    } else if (e->was->leader >= 0 && e->isr_n == 0 && e->was->isr_n > 0) {
        e->last_known[0] = e->was->leader;
        e->last_known_n = 1;
    }
}

static bool same(const int32_t *a, int32_t an, const int32_t *b, int32_t bn)
{
    return an == bn && (an == 0 || memcmp(a, b, (size_t)an * sizeof *a) == 0);
}

static bool write_change(const struct electing *e, int32_t index)
{
    const struct image_partition *p = e->was;
    assert(index >= 0);
    assert(index < e->topic->partitions_n);
    bool isr = !same(e->isr, e->isr_n, p->isr, p->isr_n), elr = !same(e->elr, e->elr_n, p->elr, p->elr_n);
    bool last = !same(e->last_known, e->last_known_n, p->last_known_elr, p->last_known_elr_n);
    bool recovery = e->recovering != p->recovering && e->recovering;
    if (e->leader == p->leader && !isr && !elr && !last && !recovery)
        return true;
    struct kp_partition_change_record *r = decide_record(e->d, kp_type_partition_change_record);
    if (!r)
        return false;
    r->partition_id = index;
    r->topic_id = e->topic->id;
    if (e->leader != p->leader)
        r->leader = e->leader;
    if (isr) {
        r->isr = e->isr;
        r->isr_n = e->isr_n;
    }
    if (elr) {
        r->eligible_leader_replicas = e->elr;
        r->eligible_leader_replicas_n = e->elr_n;
    }
    if (last) {
        r->last_known_elr = e->last_known;
        r->last_known_elr_n = e->last_known_n;
    }
    if (recovery)
        r->leader_recovery_state = 1;
    return true;
}

static bool change(struct electing *e, int32_t index)
{
    const struct image_partition *p = e->was;
    e->isr = copy(e, p->isr, p->isr_n);
    e->elr = copy(e, p->elr, p->elr_n);
    e->last_known = copy(e, p->last_known_elr, p->last_known_elr_n);
    e->isr_n = p->isr_n;
    e->elr_n = p->elr_n;
    e->last_known_n = p->last_known_elr_n;
    e->leader = IMAGE_NO_LEADER;
    e->recovering = false;
    if (!e->isr || !e->elr || !e->last_known)
        return false;
    if (e->move == BROKER_LEAVES_UNCLEAN ||
        (e->move == BROKER_LEAVES && (p->isr_n > 1 || decide_elr(e->d->img))))
        drop(e->isr, &e->isr_n, e->broker_id);
    if (e->move == BROKER_LEAVES_UNCLEAN)
        drop(e->elr, &e->elr_n, e->broker_id);
    elect(e);
    keep_elr(e);
    check(e);
    return write_change(e, index);
}

/* Where the record says that this broker's replica lies; NULL: it says nothing. */
static const struct uuid *directory_of(const struct image_partition *p, int32_t broker_id)
{
    for (int32_t i = 0; i < p->replicas_n && i < p->directories_n; i++) {
        if (p->replicas[i] == broker_id)
            return &p->directories[i];
    }
    return NULL;
}

static bool concerns(const struct electing *e, const struct image_partition *p)
{
    if (e->directory) {
        const struct uuid *at = directory_of(p, e->broker_id);
        if (!at || !uuid_eq(at, e->directory))
            return false;
    }
    if (e->move == BROKER_JOINS)
        return p->leader < 0 && has(p->replicas, p->replicas_n, e->broker_id);
    return has(p->isr, p->isr_n, e->broker_id) || p->leader == e->broker_id ||
           (e->move == BROKER_LEAVES_UNCLEAN && has(p->elr, p->elr_n, e->broker_id));
}

static bool elect_all(const struct decide *d, int32_t broker_id, enum broker_move move,
                      const struct uuid *directory)
{
    for (const struct image_topic *t = image_topic_next(d->img, NULL); t; t = image_topic_next(d->img, t)) {
        for (int32_t i = 0; i < t->partitions_n; i++) {
            struct electing e = {.d = d,
                                 .topic = t,
                                 .was = image_partition(t, i),
                                 .broker_id = broker_id,
                                 .move = move,
                                 .directory = directory};
            if (e.was && concerns(&e, e.was) && !change(&e, i))
                return false;
        }
    }
    return true;
}

bool elect_after(const struct decide *d, int32_t broker_id, enum broker_move move)
{
    assert(d->out);
    assert(broker_id >= 0);
    return elect_all(d, broker_id, move, NULL);
}

bool elect_after_dir(const struct decide *d, int32_t broker_id, const struct uuid *directory)
{
    assert(broker_id >= 0);
    assert(!uuid_is_zero(directory));
    return elect_all(d, broker_id, BROKER_LEAVES, directory);
}

bool elect_leads(const struct image *img, int32_t broker_id)
{
    for (const struct image_topic *t = image_topic_next(img, NULL); t; t = image_topic_next(img, t)) {
        for (int32_t i = 0; i < t->partitions_n; i++) {
            const struct image_partition *p = image_partition(t, i);
            if (p && p->leader == broker_id)
                return true;
        }
    }
    return false;
}
