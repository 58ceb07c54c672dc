/* AssignReplicasToDirs (KIP-858): a broker says in which of its log dirs its replicas lie, so that a dir that fails,
 * or is gone at the next start, takes exactly its own replicas out of election. */
#include "broker/controller/decide.h"

#include <assert.h>

struct assigning {
    const struct decide *d;
    int32_t broker_id;
    const struct uuid *topic_id, *directory;
    bool online; /* the broker is registered with it */
};

static bool same_directory(const struct image_partition *p, int32_t at, const struct uuid *directory)
{
    return at < p->directories_n && uuid_eq(&p->directories[at], directory);
}

/* Old records name no directories: zero, "not known". */
static bool write_change(const struct assigning *a, int32_t index, const struct image_partition *p,
                         int32_t at)
{
    struct kp_partition_change_record *c = decide_record(a->d, kp_type_partition_change_record);
    struct uuid *directories = ARENA_NEWS(a->d->out->arena, struct uuid, p->replicas_n);
    if (!c || !directories)
        return false;
    for (int32_t i = 0; i < p->replicas_n && i < p->directories_n; i++)
        directories[i] = p->directories[i];
    assert(a->online);
    assert(at >= 0);
    assert(at < p->replicas_n);
    assert(p->replicas[at] == a->broker_id);
    directories[at] = *a->directory;
    c->partition_id = index;
    c->topic_id = *a->topic_id;
    c->directories = directories;
    c->directories_n = p->replicas_n;
    return true;
}

static bool assign_one(const struct assigning *a, int32_t index, int16_t *error)
{
    const struct image_topic *t = image_topic_by_id(a->d->img, a->topic_id);
    const struct image_partition *p = t ? image_partition(t, index) : NULL;
    int32_t at = 0;
    *error = !t ? KE_UNKNOWN_TOPIC_ID : !p ? KE_UNKNOWN_TOPIC_OR_PARTITION : KE_NONE;
    while (p && at < p->replicas_n && p->replicas[at] != a->broker_id)
        at++;
    if (p && at == p->replicas_n)
        *error = KE_NOT_LEADER_OR_FOLLOWER;
    else if (p && !a->online)
        *error = KE_LOG_DIR_NOT_FOUND;
    if (*error || same_directory(p, at, a->directory))
        return true;
    if (a->d->out->n >= DECIDE_RECORDS_MAX) {
        *error = KE_POLICY_VIOLATION; /* in another request */
        return true;
    }
    assert(p);
    return write_change(a, index, p, at);
}

static bool assign_topic(struct assigning *a, const struct kp_assign_replicas_to_dirs_request_topics *from,
                         struct kp_assign_replicas_to_dirs_response_topics *to)
{
    a->topic_id = &from->topic_id;
    to->topic_id = from->topic_id;
    to->partitions =
        ARENA_NEWS(a->d->arena, struct kp_assign_replicas_to_dirs_response_partitions, from->partitions_n);
    for (; to->partitions && to->partitions_n < from->partitions_n; to->partitions_n++) {
        struct kp_assign_replicas_to_dirs_response_partitions *p = &to->partitions[to->partitions_n];
        p->partition_index = from->partitions[to->partitions_n].partition_index;
        if (!assign_one(a, p->partition_index, &p->error_code))
            return false;
    }
    return to->partitions != NULL;
}

static bool is_online(const struct image_broker *b, const struct uuid *directory)
{
    for (int32_t i = 0; i < b->log_dirs_n; i++) {
        if (uuid_eq(&b->log_dirs[i], directory))
            return true;
    }
    return false;
}

static bool assign_directory(const struct decide *d, const struct image_broker *b,
                             const struct kp_assign_replicas_to_dirs_request_directories *from,
                             struct kp_assign_replicas_to_dirs_response_directories *to)
{
    struct assigning a = {
        .d = d, .broker_id = b->id, .directory = &from->id, .online = is_online(b, &from->id)};
    to->id = from->id;
    to->topics = ARENA_NEWS(d->arena, struct kp_assign_replicas_to_dirs_response_topics, from->topics_n);
    for (; to->topics && to->topics_n < from->topics_n; to->topics_n++) {
        if (!assign_topic(&a, &from->topics[to->topics_n], &to->topics[to->topics_n]))
            return false;
    }
    return to->topics != NULL;
}

int16_t decide_assign_replicas_to_dirs(const struct decide *d,
                                       const struct kp_assign_replicas_to_dirs_request *q,
                                       struct kp_assign_replicas_to_dirs_response *r)
{
    const struct image_broker *b = image_broker(d->img, q->broker_id);
    if (decide_metadata_version(d->img) < DIRECTORIES_LEVEL)
        return r->error_code = KE_UNSUPPORTED_VERSION;
    if (!b || b->epoch != q->broker_epoch)
        return r->error_code = KE_STALE_BROKER_EPOCH;
    r->directories =
        ARENA_NEWS(d->arena, struct kp_assign_replicas_to_dirs_response_directories, q->directories_n);
    bool fine = r->directories != NULL;
    for (; fine && r->directories_n < q->directories_n; r->directories_n++)
        fine = assign_directory(d, b, &q->directories[r->directories_n], &r->directories[r->directories_n]);
    if (!fine || arena_failed(d->arena) || arena_failed(d->out->arena))
        return r->error_code = KE_UNKNOWN_SERVER_ERROR;
    return KE_NONE;
}
