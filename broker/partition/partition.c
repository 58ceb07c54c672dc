/* What a partition is at this moment: found, asked, changed by an image. */
#include "broker/partition/internal.h"

#include "base/runtime/log.h"

#include <stdio.h>
#include <stdlib.h>

static bool partition_invariant(const void *owner, unsigned state)
{
    const struct partition *p = owner;
    return p->magic == PARTITION_MAGIC && (state != PARTITION_ONLINE || p->log);
}

/*   OPENING ──log open and flushed──▶ ONLINE ──disk error──▶ FAILED
 *      │  └───────disk error, corruption, no room─────────────▲ │     (no room: OPENING again when there is some)
 *      └──▶ CLOSING ◀──────── deleted, moved away, shutdown ─────┘   (then freed)               */
static const struct sm_state states[] = {
    [PARTITION_OPENING] = {"opening",
                           SM_TO(PARTITION_ONLINE) | SM_TO(PARTITION_FAILED) | SM_TO(PARTITION_CLOSING)},
    [PARTITION_ONLINE] = {"online", SM_TO(PARTITION_FAILED) | SM_TO(PARTITION_CLOSING)},
    [PARTITION_FAILED] = {"failed", SM_TO(PARTITION_OPENING) | SM_TO(PARTITION_CLOSING)},
    [PARTITION_CLOSING] = {"closing", SM_END},
};
static const struct sm_table partition_sm = SM_TABLE("partition", states, partition_invariant);

static void check_online(const struct partition *p)
{
    assert(p->log);
    assert(!p->host_job);
    assert(!p->first_flush);
    int64_t start = log_start_offset(p->log), end = log_end_offset(p->log);
    assert(start <= p->high_watermark); /* S6: a reader sees what is in the log */
    assert(p->high_watermark <= end);
    assert(p->start_on_way <= p->high_watermark);
    /* D6: what is seen, or acknowledged to acks=all, is on disk. */
    assert(!p->set->host->flush_before_ack || p->high_watermark <= log_durable_offset(p->log));
}

void partition_check(const struct partition *p)
{
    unsigned state = sm_state(&p->state);
    assert(p->magic == PARTITION_MAGIC);
    assert(p->key.index >= 0);
    assert(p->key.zero == 0);
    assert(p->dir < LOG_DIRS_MAX);
    assert(p->lane < LANE_FLUSH + FLUSH_LANES);
    assert((p->role == PARTITION_LEADER) == (p->leader == p->set->host->node_id));
    assert(!p->flush || p->log);
    assert(!p->flush || !p->host_job); /* one at a time has the log */
    assert(!p->flush || p->set->flushing_n > 0);
    assert(!p->compaction || p->log);
    assert(p->committed_bytes <= p->appended_bytes);
    assert(p->flush_bytes <= p->appended_bytes);
    assert(p->checkpoint_bytes <= p->appended_bytes);
    assert(state == PARTITION_ONLINE || list_empty(&p->parked));
    assert(state == PARTITION_ONLINE || list_empty(&p->deletions));
    assert(state == PARTITION_ONLINE || p->start_on_way == 0);
    assert(state == PARTITION_ONLINE || !list_linked(&p->to_flush));
    assert(state == PARTITION_ONLINE || state == PARTITION_OPENING || list_empty(&p->pending));
    assert(list_empty(&p->parked) == !list_linked(&p->waiting));
    if (state == PARTITION_ONLINE)
        check_online(p);
}

void partitions_check(const struct partitions *ps)
{
    size_t all = HASH_COUNT(ps->all);
    assert(ps->opening_n <= all);
    assert(ps->flushing_n <= all);
    assert(ps->opening_n + ps->closing_n <= all + ps->closing);
    assert(!ps->closed || ps->closing);
    assert(ps->deletions_n > 0 || list_empty(&ps->deletions));
    assert(list_empty(&ps->deleting) || ps->start_write);
}

struct partition *partition_find(struct shard *shard, const struct uuid *topic_id, int32_t index)
{
    struct partition_key key = {.topic_id = *topic_id, .index = index};
    struct partition *p = NULL;
    HASH_FIND(hh, shard->partitions->all, &key, sizeof key, p);
    return p && sm_state(&p->state) != PARTITION_CLOSING ? p : NULL;
}

const char *partition_topic(const struct partition *p)
{
    return p->topic;
}

const struct uuid *partition_topic_id(const struct partition *p)
{
    return &p->key.topic_id;
}

int32_t partition_index(const struct partition *p)
{
    return p->key.index;
}

enum partition_role partition_role(const struct partition *p)
{
    return sm_state(&p->state) == PARTITION_ONLINE ? p->role : PARTITION_OFFLINE;
}

bool partition_is_opening(const struct partition *p)
{
    return sm_state(&p->state) == PARTITION_OPENING;
}

bool partition_is_failed(const struct partition *p)
{
    return sm_state(&p->state) == PARTITION_FAILED;
}

int32_t partition_leader_epoch(const struct partition *p)
{
    return p->leader_epoch;
}

int64_t partition_log_start(const struct partition *p)
{
    return p->log ? log_start_offset(p->log) : 0;
}

int64_t partition_high_watermark(const struct partition *p)
{
    return p->high_watermark;
}

int64_t partition_log_end(const struct partition *p)
{
    return p->log ? log_end_offset(p->log) : 0;
}

struct log *partition_log(struct partition *p)
{
    return p->log;
}

int64_t partition_limit(const struct partition *p, enum partition_isolation isolation)
{
    if (isolation == PARTITION_LOG_END)
        return partition_log_end(p);
    assert(p->high_watermark >= 0);
    int64_t unstable = isolation == PARTITION_COMMITTED && p->log ? log_first_unstable_offset(p->log) : -1;
    return unstable >= 0 && unstable < p->high_watermark ? unstable : p->high_watermark;
}

int partition_read(struct partition *p, int64_t offset, int64_t end, size_t max_bytes, struct buf *out,
                   int64_t *next)
{
    assert(p->magic == PARTITION_MAGIC);
    struct log_slice s = {0};
    *next = offset;
    if (!partition_online(p))
        return -E_FENCED;
    int rc = log_read(p->log, offset, end, max_bytes, LOG_READ_AT_LEAST_ONE, &s, NULL);
    if (!rc && s.size_bytes > 0)
        rc = log_slice_load(&s, out);
    assert(rc <= 0);
    if (!rc)
        *next = s.next_offset;
    log_slice_drop(&s);
    return rc;
}

void partition_changed(struct partition *p)
{
    p->changed = true;
    wait_mark(p);
}

void partition_fail(struct partition *p, const char *why)
{
    if (sm_state(&p->state) != PARTITION_OPENING && sm_state(&p->state) != PARTITION_ONLINE)
        return;
    log_error("broker.partition", "partition is offline partition=%s-%d error=%s", p->topic, p->key.index,
              why);
    partition_fail_unsaid(p, why);
}

void partition_fail_unsaid(struct partition *p, const char *why)
{
    struct partitions *ps = p->set;
    if (sm_state(&p->state) != PARTITION_OPENING && sm_state(&p->state) != PARTITION_ONLINE)
        return;
    if (sm_state(&p->state) == PARTITION_OPENING)
        ps->opening_n--;
    else
        metric_add(ps->online_n, -1);
    snprintf(p->why, sizeof p->why, "%s", why);
    sm_move(&p->state, PARTITION_FAILED);
    metric_add(ps->failed_n, 1);
    host_doubt(ps, p->dir);
    append_fail_all(p, KE_KAFKA_STORAGE_ERROR);
    deletion_fail_all(p, KE_KAFKA_STORAGE_ERROR);
    if (list_linked(&p->to_flush))
        list_remove(&p->to_flush);
    partition_changed(p);
    partition_tell_watches(p, false);
    INVARIANT(p);
}

static enum partition_role role_of(const struct partition *p)
{
    if (p->leader == p->set->host->node_id)
        return PARTITION_LEADER;
    return p->leader < 0 ? PARTITION_OFFLINE : PARTITION_FOLLOWER;
}

bool partition_misplaced(const struct partition *p, struct uuid *dir)
{
    *dir = p->set->host->dir_ids[p->dir];
    return partition_online(p) && !uuid_is_zero(dir) && !uuid_eq(dir, &p->directory);
}

void partition_placed(struct partition *p)
{
    struct uuid dir;
    p->set->misplaced |= partition_misplaced(p, &dir);
}

/* Smaller epochs are news of the past. */
void partition_become(struct partition *p, const struct partition_spec *spec)
{
    assert(p->magic == PARTITION_MAGIC);
    assert(spec->leader_epoch >= p->leader_epoch);
    assert(spec->index == p->key.index);
    bool other = spec->leader != p->leader || spec->leader_epoch != p->leader_epoch;
    p->leader = spec->leader;
    p->leader_epoch = spec->leader_epoch;
    p->partition_epoch = spec->partition_epoch;
    p->replicas_n = spec->replicas_n;
    p->isr_n = spec->isr_n;
    p->role = role_of(p);
    p->directory = spec->directory;
    partition_placed(p);
    INVARIANT(p);
    if (!other)
        return;
    if (p->role != PARTITION_LEADER) {
        append_fail_all(p, KE_NOT_LEADER_OR_FOLLOWER);
        deletion_fail_all(p, KE_NOT_LEADER_OR_FOLLOWER);
    } else if (partition_online(p))
        log_epoch_assign(p->log, p->leader_epoch, log_end_offset(p->log));
    if (partition_online(p)) {
        partition_changed(p);
        partition_tell_watches(p, false);
    }
}

void partition_tell_watches(struct partition *p, bool gone)
{
    list_each_safe(at, &p->set->watches)
    {
        struct partition_watch *w = LIST_ENTRY(at, struct partition_watch, link);
        if (strcmp(w->topic, p->topic) != 0)
            continue;
        if (gone)
            w->gone(w, p);
        else
            w->changed(w, p);
    }
}

void partition_watch(struct shard *shard, struct partition_watch *w)
{
    struct partitions *ps = shard->partitions;
    list_push(&ps->watches, &w->link);
    struct partition *p, *next;
    HASH_ITER (hh, ps->all, p, next)
        if (partition_online(p) && strcmp(p->topic, w->topic) == 0)
            w->changed(w, p);
}

void partitions_host(struct partitions *ps, const struct partition_spec *spec)
{
    struct partition *p = partition_find(ps->shard, &spec->topic_id, spec->index);
    if (p) {
        partition_become(p, spec);
        return;
    }
    p = calloc(1, sizeof *p);
    if (!p) {
        log_error("broker.partition", "no memory for a partition topic=%.*s", SLICE_FMT(spec->topic));
        return;
    }
    assert(spec->topic.n > 0);
    assert(spec->topic.n <= LOG_TOPIC_MAX);
    assert(!ps->closing);
    p->magic = PARTITION_MAGIC;
    p->set = ps;
    p->key = (struct partition_key){.topic_id = spec->topic_id, .index = spec->index};
    slice_cstr(spec->topic, p->topic, sizeof p->topic);
    sm_init(&p->state, &partition_sm, p, PARTITION_OPENING);
    p->leader_epoch = -1;
    p->lane = LANE_FLUSH + shard_index_of(&p->key.topic_id, p->key.index + 1, FLUSH_LANES);
    struct list *lists[] = {&p->pending,  &p->parked, &p->dirty,    &p->waiting,
                            &p->to_flush, &p->waits,  &p->advanced, &p->deletions};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_init(lists[i]);
    host_init_retry(p);
    HASH_ADD(hh, ps->all, key, sizeof p->key, p);
    if (!HASH_ADDED(p)) {
        log_error("broker.partition", "no memory for a partition topic=%.*s", SLICE_FMT(spec->topic));
        free(p);
        return;
    }
    ps->opening_n++;
    partition_configure(p, ps->shard->image);
    partition_become(p, spec);
    host_open(p);
}

void partitions_drop(struct partitions *ps, const struct uuid *topic_id, int32_t index)
{
    struct partition *p = partition_find(ps->shard, topic_id, index);
    if (p)
        host_close(p, true);
}
