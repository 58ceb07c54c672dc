/* Where new replicas go: racks in turn, brokers of a rack in turn, each from a random start (Kafka's striped
 * placer). */
#include "broker/controller/decide.h"

#include <assert.h>

struct place_broker {
    int32_t id;
    int32_t rack; /* its index */
    bool active;
    uint64_t order; /* within its rack: as it is rotated */
};

struct racks {
    struct slice *name;
    int32_t *next, *lead; /* whose turn it is in the rack: to follow, to lead */
    int32_t n;
    struct place_broker *brokers;
    int32_t brokers_n;
    int32_t turn; /* the rack that begins */
};

static int32_t rack_of(struct racks *k, struct slice name)
{
    for (int32_t i = 0; i < k->n; i++) {
        if (slice_eq(k->name[i], name))
            return i;
    }
    assert(k->n < k->brokers_n + 1); /* no more racks than brokers */
    k->name[k->n] = name;
    return k->n++;
}

static bool survey(const struct decide *d, struct racks *k)
{
    size_t n = image_brokers_n(d->img);
    *k = (struct racks){.name = ARENA_NEWS(d->arena, struct slice, n),
                        .next = ARENA_NEWS(d->arena, int32_t, n),
                        .lead = ARENA_NEWS(d->arena, int32_t, n),
                        .brokers = ARENA_NEWS(d->arena, struct place_broker, n)};
    if (!k->name || !k->next || !k->lead || !k->brokers)
        return false;
    for (const struct image_broker *b = image_broker_next(d->img, NULL); b; b = image_broker_next(d->img, b))
        k->brokers[k->brokers_n++] =
            (struct place_broker){b->id, rack_of(k, b->rack), broker_is_active(b), 0};
    return true;
}

/* The next broker of a rack that is (in)active and not among the chosen; −1: none is left. Starts where the rack's turn
 * is, so that successive partitions go round. */
static int32_t take(struct racks *k, int32_t rack, bool active, const int32_t *chosen, int32_t chosen_n)
{
    assert(rack >= 0);
    assert(rack < k->n);
    assert(chosen_n < k->brokers_n);
    int32_t *turn = chosen_n == 0 ? &k->lead[rack] : &k->next[rack];
    for (int32_t step = 0; step < k->brokers_n; step++) {
        int32_t i = (*turn + step) % k->brokers_n;
        const struct place_broker *b = &k->brokers[i];
        bool used = b->rack != rack || b->active != active;
        for (int32_t c = 0; c < chosen_n && !used; c++)
            used = chosen[c] == b->id;
        if (used)
            continue;
        *turn = (i + 1) % k->brokers_n;
        return b->id;
    }
    return -1;
}

static void place_one(struct racks *k, int32_t *chosen, int32_t replication_factor)
{
    int32_t n = 0;
    assert(replication_factor <= k->brokers_n);
    for (int fenced = 0; fenced < 2; fenced++) {
        bool found = true;
        while (found && n < replication_factor) {
            found = false;
            for (int32_t r = 0; r < k->n && n < replication_factor; r++) {
                int32_t id = take(k, (k->turn + r) % k->n, !fenced, chosen, n);
                if (id < 0)
                    continue;
                chosen[n++] = id;
                found = true;
            }
        }
    }
    assert(n == replication_factor); /* S22: so many different brokers, the first of them active */
    k->turn = (k->turn + 1) % k->n;
}

int16_t decide_place(const struct decide *d, int32_t partitions, int32_t replication_factor, int32_t **out,
                     struct slice *error_text)
{
    struct racks k;
    size_t brokers = image_brokers_n(d->img);
    bool active = false;
    for (const struct image_broker *b = image_broker_next(d->img, NULL); b; b = image_broker_next(d->img, b))
        active |= broker_is_active(b);
    if ((size_t)replication_factor > brokers || !active) {
        *error_text =
            decide_text(d,
                        "Unable to replicate the partition %d time(s): The target replication factor of %d "
                        "cannot be reached because %s%zu broker(s) are registered.",
                        replication_factor, replication_factor,
                        active || brokers == 0 ? "only " : "none is alive of the ", brokers);
        return KE_INVALID_REPLICATION_FACTOR;
    }
    assert(partitions >= 0);
    assert(replication_factor >= 0);
    *out = ARENA_NEWS(d->arena, int32_t, (size_t)partitions * (size_t)replication_factor);
    if (!*out || !survey(d, &k))
        return KE_UNKNOWN_SERVER_ERROR;
    assert((size_t)k.brokers_n == brokers);
    assert(k.n > 0); /* one is active */
    assert(k.n <= k.brokers_n);
    k.turn = (int32_t)rng_below(d->rng, (uint64_t)k.n);
    for (int32_t r = 0; r < k.n; r++)
        k.next[r] = k.lead[r] = (int32_t)rng_below(d->rng, (uint64_t)k.brokers_n);
    for (int32_t p = 0; p < partitions; p++)
        place_one(&k, *out + (int64_t)p * replication_factor, replication_factor);
    return KE_NONE;
}

/* ---- a new partition ---- */

static struct uuid directory_of(const struct image_broker *b)
{
    return b && b->log_dirs_n == 1 ? b->log_dirs[0] : uuid_small(UNASSIGNED_DIRECTORY);
}

struct slice decide_assignment_fault(const struct decide *d, int32_t index, const int32_t *replicas,
                                     int32_t replicas_n, int32_t replication_factor)
{
    bool active = false;
    assert(index >= 0);
    if (replicas_n != replication_factor)
        return decide_text(
            d,
            "The manual partition assignment includes a partition with %d replica(s), but this is not "
            "consistent with previous partitions, which have %d replica(s).",
            replicas_n, replication_factor);
    for (int32_t i = 0; i < replicas_n; i++) {
        const struct image_broker *b = image_broker(d->img, replicas[i]);
        if (!b)
            return decide_text(
                d, "The manual partition assignment includes broker %d, but no such broker is registered.",
                replicas[i]);
        for (int32_t j = 0; j < i; j++) {
            if (replicas[i] == replicas[j])
                return decide_text(
                    d, "The manual partition assignment includes the broker %d more than once.", replicas[i]);
        }
        active |= broker_is_active(b);
    }
    return active
               ? SLICE_NULL
               : decide_text(d,
                             "All brokers specified in the manual partition assignment for partition %d are "
                             "fenced or in controlled shutdown.",
                             index);
}

struct kp_partition_record *decide_partition(const struct decide *d, const struct uuid *topic_id,
                                             int32_t index, const int32_t *replicas, int32_t replicas_n)
{
    assert(index >= 0);
    struct kp_partition_record *p = decide_record(d, kp_type_partition_record);
    struct arena *a = d->out->arena;
    int32_t *all = ARENA_NEWS(a, int32_t, replicas_n), *isr = ARENA_NEWS(a, int32_t, replicas_n);
    struct uuid *directories = ARENA_NEWS(a, struct uuid, replicas_n);
    if (!p || !all || !isr || !directories)
        return NULL;
    p->partition_id = index;
    p->topic_id = *topic_id;
    p->replicas = all;
    p->isr = isr;
    p->directories = directories;
    p->directories_n = p->replicas_n = replicas_n;
    for (int32_t i = 0; i < replicas_n; i++) {
        const struct image_broker *b = image_broker(d->img, replicas[i]);
        all[i] = replicas[i];
        directories[i] = directory_of(b);
        if (broker_is_active(b))
            isr[p->isr_n++] = replicas[i];
    }
    assert(p->isr_n <= replicas_n);
    p->leader = p->isr_n > 0 ? isr[0] : -1; /* S14 */
    p->leader_epoch = p->partition_epoch = 0;
    return p;
}
