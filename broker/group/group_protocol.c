/* Which protocol (partition assignor) a generation uses, and what consumers subscribe to.
 *
 * Subscriptions are the consumers' own data: only the topics of version 0, which begins every later one, are read. */
#include "broker/group/group_internal.h"
#include "base/core/bytes.h"
#include "proto/kafka/wire.h"

#define SUBSCRIPTION_ARENA_MAX (4 * GROUP_REQUEST_BYTES_MAX)

bool group_protocols_same(const struct group_member *m, const struct group_event *join)
{
    assert(!m->pending);
    if (m->protocols_n != join->join.protocols_n)
        return false;
    for (int32_t i = 0; i < m->protocols_n; i++)
        if (!slice_eq(m->protocols[i].name, join->join.protocols[i].name) ||
            !slice_eq(m->protocols[i].metadata, join->join.protocols[i].metadata))
            return false;
    return true;
}

static bool member_supports(const struct group_member *m, struct slice protocol)
{
    for (int32_t i = 0; i < m->protocols_n; i++)
        if (slice_eq(m->protocols[i].name, protocol))
            return true;
    return false;
}

static bool all_support(const struct group *g, struct slice protocol, const struct group_member *except)
{
    list_each (at, &g->members) {
        const struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        if (m != except && !member_supports(m, protocol))
            return false;
    }
    return true;
}

bool group_protocols_fit(const struct group *g, const struct group_event *join,
                         const struct group_member *except)
{
    if (join->join.protocol_type.n == 0 || join->join.protocols_n <= 0)
        return false;
    if (g->members_n > 0 && !slice_eq(g->protocol_type, join->join.protocol_type))
        return false;
    for (int32_t i = 0; i < join->join.protocols_n; i++)
        if (all_support(g, join->join.protocols[i].name, except))
            return true;
    return false;
}

/* A vote goes to the first protocol of a member's list that all support; of equals the one voted for first wins. */
struct slice group_protocol_elect(const struct group *g)
{
    struct slice candidates[GROUP_PROTOCOLS_MAX];
    size_t votes[GROUP_PROTOCOLS_MAX] = {0}, n = 0;
    assert(g->members_n > 0);
    list_each (at, &g->members) {
        const struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        for (int32_t i = 0; i < m->protocols_n; i++) {
            size_t c = 0;
            while (c < n && !slice_eq(candidates[c], m->protocols[i].name))
                c++;
            if (c == n && !all_support(g, m->protocols[i].name, NULL))
                continue;
            if (c == n) {
                assert(n < GROUP_PROTOCOLS_MAX); /* common to all, and nobody has more */
                candidates[n++] = m->protocols[i].name;
            }
            votes[c]++;
            break;
        }
    }
    assert(n <= (size_t)LIST_ENTRY(g->members.next, const struct group_member, link)->protocols_n);
    size_t best = 0;
    for (size_t c = 1; c < n; c++)
        if (votes[c] > votes[best])
            best = c;
    assert(n > 0); /* each join was checked against all others */
    return candidates[best];
}

struct slice group_protocol_metadata(const struct group_member *m, struct slice protocol)
{
    for (int32_t i = 0; i < m->protocols_n; i++)
        if (slice_eq(m->protocols[i].name, protocol))
            return m->protocols[i].metadata;
    return slice_of("", 0);
}

/* Topics of a subscription: version (int16), then version 0's fields, then what later versions add. */
static bool read_topics(struct slice subscription, struct arena *arena,
                        struct kp_consumer_protocol_subscription *out)
{
    if (subscription.n < 2 || (int16_t)be16_get(subscription.p) < 0)
        return false;
    size_t used;
    struct slice body = slice_of(subscription.p + 2, subscription.n - 2);
    return kp_decode(&kp_consumer_protocol_subscription_message, 0, body, arena, out, &used, NULL) == 0;
}

static bool names_topic(const struct kp_consumer_protocol_subscription *s, struct slice topic)
{
    for (int32_t i = 0; i < s->topics_n; i++)
        if (slice_eq(s->topics[i], topic))
            return true;
    return false;
}

static bool all_in(const struct kp_consumer_protocol_subscription *a,
                   const struct kp_consumer_protocol_subscription *b)
{
    for (int32_t i = 0; i < a->topics_n; i++)
        if (!names_topic(b, a->topics[i]))
            return false;
    return true;
}

bool group_same_topics(struct slice type, struct slice subscription_a, struct slice subscription_b)
{
    if (!slice_eq_str(type, "consumer") || slice_eq(subscription_a, subscription_b))
        return true;
    struct arena arena;
    arena_init(&arena, SUBSCRIPTION_ARENA_MAX);
    struct kp_consumer_protocol_subscription a, b;
    bool same = true;
    if (read_topics(subscription_a, &arena, &a) && read_topics(subscription_b, &arena, &b))
        same = all_in(&a, &b) && all_in(&b, &a);
    arena_fini(&arena);
    return same;
}

enum subscribed { SUBSCRIBED_NO, SUBSCRIBED_YES, SUBSCRIBED_UNKNOWN };

/* `topic` null: asks only whether the subscriptions can be read. */
static enum subscribed subscribed(const struct group *g, struct slice topic)
{
    if (!slice_eq_str(g->protocol_type, "consumer"))
        return SUBSCRIBED_NO;
    if (g->members_n == 0)
        return SUBSCRIBED_NO;
    if (slice_is_null(g->protocol_name))
        return SUBSCRIBED_UNKNOWN;
    enum subscribed answer = SUBSCRIBED_NO;
    struct arena arena;
    arena_init(&arena, SUBSCRIPTION_ARENA_MAX);
    list_each (at, &g->members) {
        const struct group_member *m = LIST_ENTRY(at, struct group_member, link);
        struct kp_consumer_protocol_subscription s;
        arena_reset(&arena);
        if (!read_topics(group_protocol_metadata(m, g->protocol_name), &arena, &s)) {
            answer = SUBSCRIBED_UNKNOWN;
            break;
        }
        if (!slice_is_null(topic) && names_topic(&s, topic))
            answer = SUBSCRIBED_YES;
    }
    arena_fini(&arena);
    return answer;
}

bool group_subscribed(const struct group *g, struct slice topic)
{
    return subscribed(g, topic) != SUBSCRIBED_NO;
}

bool group_subscriptions_known(const struct group *g)
{
    return group_in(g, GROUP_STABLE) && slice_eq_str(g->protocol_type, "consumer") &&
           subscribed(g, SLICE_NULL) != SUBSCRIBED_UNKNOWN;
}
