#include "mirror/offsets/codec.h"

#include <assert.h>

#include "base/core/err.h"
#include "base/core/mutant.h"
#include "mirror/route/partitioner.h"
#include "mirror/route/policy.h"
#include "proto/sundog/progress.pb-c.h"
#include "proto/sundog/store.pb-c.h"

#define LANES_MAX 100000 /* target partitions of one topic */

static void *from_arena(void *arena, size_t size)
{
    return arena_alloc(arena, size ? size : 1);
}

static void never(void *arena, void *p)
{
    (void)arena;
    (void)p;
}

static ProtobufCAllocator allocator(struct arena *a)
{
    return (ProtobufCAllocator){from_arena, never, a};
}

static int pack(const ProtobufCMessage *m, struct buf *out)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *p = buf_room(out, n ? n : 1);
    if (!p)
        return -E_LIMIT;
    size_t written = protobuf_c_message_pack(m, p);
    assert(written == n);
    buf_added(out, written);
    return 0;
}

static void *unpack(const ProtobufCMessageDescriptor *d, struct slice in, struct arena *a)
{
    ProtobufCAllocator from = allocator(a);
    return protobuf_c_message_unpack(d, &from, in.n, in.p);
}

static ProtobufCBinaryData id_bytes(const struct uuid *id)
{
    return uuid_is_zero(id) ? (ProtobufCBinaryData){0, NULL}
                            : (ProtobufCBinaryData){sizeof id->b, (uint8_t *)(uintptr_t)id->b};
}

static int id_of(ProtobufCBinaryData b, struct uuid *out)
{
    *out = (struct uuid){{0}};
    if (b.len == 0)
        return 0;
    if (b.len != sizeof out->b)
        return -E_CORRUPT;
    memcpy(out->b, b.data, sizeof out->b);
    return 0;
}

static ProtobufCBinaryData bytes(struct slice s)
{
    return (ProtobufCBinaryData){s.n, (uint8_t *)(uintptr_t)s.p};
}

static struct slice bytes_slice(ProtobufCBinaryData b)
{
    return slice_of(b.data ? (const void *)b.data : "", b.len);
}

/* protobuf-c wants NUL-terminated strings; names of topics are short. */
#define NAME_MAX_BYTES 512
struct name {
    char text[NAME_MAX_BYTES];
};

static char *named(struct slice s, struct name *n)
{
    return slice_cstr(s, n->text, sizeof n->text);
}

#define PARTITIONS_MAX ROUTE_PARTITIONS_MAX /* of a topic: what reads a map counts up to it */

static bool partition_sane(int32_t p)
{
    return p >= 0 && p < PARTITIONS_MAX;
}

/* Whoever may write to the progress topic at the target writes what we decode: a source topic is known by its id or by
 * a name that Kafka would take. */
static bool name_sane(const char *name)
{
    return *name && strlen(name) <= POLICY_TOPIC_MAX;
}

static bool topic_sane(const struct topic_key *key)
{
    return key->name.n <= POLICY_TOPIC_MAX && (key->name.n > 0 || !uuid_is_zero(&key->id));
}

/* [start, start + count) is not empty and ends before the last offset there is. */
static bool range_sane(int64_t start, int64_t count)
{
    return start >= 0 && count > 0 && count <= INT64_MAX - start;
}

int progress_key_encode(const struct progress_key *k, struct buf *out)
{
    struct name name;
    Sundog__ProgressKey m = SUNDOG__PROGRESS_KEY__INIT;
    m.kind = (Sundog__ProgressKey__Kind)k->kind;
    m.partition = k->p;
    if (k->kind == PROGRESS_PRODUCER_ID) {
        m.nonce = (ProtobufCBinaryData){sizeof k->nonce, (uint8_t *)(uintptr_t)k->nonce};
    } else {
        m.topic_id = id_bytes(&k->topic.id);
        if (uuid_is_zero(&k->topic.id))
            m.topic = named(k->topic.name, &name);
    }
    if (k->kind == PROGRESS_RUN)
        m.src_start = MUTANT("runs_under_one_key") ? 0 : k->src_start;
    return pack(&m.base, out);
}

int progress_key_decode(struct slice in, struct arena *a, struct progress_key *out)
{
    const Sundog__ProgressKey *m = unpack(&sundog__progress_key__descriptor, in, a);
    if (!m || !partition_sane(m->partition) || m->src_start < 0)
        return -E_CORRUPT;
    *out = (struct progress_key){
        .kind = (enum progress_kind)m->kind, .p = m->partition, .src_start = m->src_start};
    out->topic.name = slice_str(m->topic);
    if (m->nonce.len == sizeof out->nonce)
        memcpy(out->nonce, m->nonce.data, sizeof out->nonce);
    int rc = id_of(m->topic_id, &out->topic.id);
    switch (out->kind) {
    case PROGRESS_POSITION:
    case PROGRESS_RUN: return rc ? rc : topic_sane(&out->topic) ? 0 : -E_CORRUPT;
    case PROGRESS_PRODUCER_ID: return m->nonce.len == sizeof out->nonce ? 0 : -E_CORRUPT;
    default: return -E_CORRUPT;
    }
}

static void lane_message(Sundog__Lane *m, const struct map_lane *l)
{
    sundog__lane__init(m);
    m->partition = l->q;
    m->number_next = l->number_next;
    m->end_offset = l->end_offset;
    m->end_epoch = l->end_epoch;
    m->source_next = l->source_next;
    m->timestamp_max = l->timestamp_max;
    m->source_idle = l->source_idle;
}

int position_encode(const struct map_position *p, struct buf *out)
{
    assert(p->next_offset >= 0 && p->lanes_n <= LANES_MAX);
    struct arena a;
    arena_init(&a, p->lanes_n * (sizeof(Sundog__Lane) + sizeof(Sundog__Lane *) + 64) + 4096);
    struct name topic, target;
    Sundog__Position m = SUNDOG__POSITION__INIT;
    m.topic = named(p->topic.name, &topic);
    m.topic_id = id_bytes(&p->topic.id);
    m.partition = p->p;
    m.next_offset = p->next_offset;
    m.leader_epoch = p->leader_epoch;
    m.producer_id = p->producer_id;
    m.generation = p->generation;
    m.fingerprint = p->fingerprint;
    m.target_topic = named(p->target_topic, &target);
    m.target_topic_id = id_bytes(&p->target_topic_id);
    m.written_ms = p->written_ms;
    m.n_lanes = p->lanes_n;
    m.lanes = ARENA_NEWS(&a, Sundog__Lane *, p->lanes_n);
    Sundog__Lane *lanes = ARENA_NEWS(&a, Sundog__Lane, p->lanes_n);
    int rc = arena_failed(&a) ? -E_NOMEM : 0;
    for (size_t i = 0; i < p->lanes_n && !rc; i++) {
        lane_message(&lanes[i], &p->lanes[i]);
        m.lanes[i] = &lanes[i];
    }
    if (!rc)
        rc = pack(&m.base, out);
    arena_fini(&a);
    return rc;
}

static bool lane_sane(const Sundog__Lane *l)
{
    return partition_sane(l->partition) && l->number_next >= 0 && l->end_offset >= 0 && l->source_next >= 0 &&
           l->source_idle >= 0 && l->source_idle <= l->source_next;
}

int position_decode(struct slice in, struct arena *a, struct map_position *out)
{
    const Sundog__Position *m = unpack(&sundog__position__descriptor, in, a);
    if (!m || !partition_sane(m->partition) || m->next_offset < 0 || m->n_lanes > LANES_MAX ||
        !name_sane(m->topic) || !name_sane(m->target_topic))
        return -E_CORRUPT;
    *out = (struct map_position){.topic.name = slice_str(m->topic),
                                 .p = m->partition,
                                 .next_offset = m->next_offset,
                                 .leader_epoch = m->leader_epoch,
                                 .producer_id = m->producer_id,
                                 .generation = m->generation,
                                 .fingerprint = m->fingerprint,
                                 .target_topic = slice_str(m->target_topic),
                                 .written_ms = m->written_ms,
                                 .lanes_n = m->n_lanes};
    struct map_lane *lanes = ARENA_NEWS(a, struct map_lane, m->n_lanes);
    if (!lanes)
        return -E_NOMEM;
    for (size_t i = 0; i < m->n_lanes; i++) {
        const Sundog__Lane *l = m->lanes[i];
        if (!lane_sane(l))
            return -E_CORRUPT;
        lanes[i] = (struct map_lane){.q = l->partition,
                                     .number_next = l->number_next,
                                     .end_offset = l->end_offset,
                                     .end_epoch = l->end_epoch,
                                     .source_next = l->source_next,
                                     .timestamp_max = l->timestamp_max,
                                     .source_idle = l->source_idle};
    }
    out->lanes = lanes;
    int rc = id_of(m->topic_id, &out->topic.id);
    return rc ? rc : id_of(m->target_topic_id, &out->target_topic_id);
}

int run_encode(const struct map_run *r, struct buf *out)
{
    assert(r->count > 0);
    Sundog__Run m = SUNDOG__RUN__INIT;
    m.dst_partition = r->q;
    m.dst_start = r->dst_start;
    m.count = r->count;
    return pack(&m.base, out);
}

int run_decode(struct slice in, struct arena *a, int64_t src_start, struct map_run *out)
{
    const Sundog__Run *m = unpack(&sundog__run__descriptor, in, a);
    if (!m || !partition_sane(m->dst_partition) || !range_sane(m->dst_start, m->count) ||
        !range_sane(src_start, m->count))
        return -E_CORRUPT;
    *out = (struct map_run){m->dst_partition, src_start, m->dst_start, m->count};
    return 0;
}

int producer_id_encode(const struct map_producer_id *id, struct buf *out)
{
    Sundog__ProducerId m = SUNDOG__PRODUCER_ID__INIT;
    m.producer_id = id->producer_id;
    m.epoch = id->epoch;
    return pack(&m.base, out);
}

int producer_id_decode(struct slice in, struct arena *a, struct map_producer_id *out)
{
    const Sundog__ProducerId *m = unpack(&sundog__producer_id__descriptor, in, a);
    if (!m || m->producer_id < 0 || m->epoch < 0 || m->epoch > INT16_MAX)
        return -E_CORRUPT;
    *out = (struct map_producer_id){m->producer_id, (int16_t)m->epoch, -1};
    return 0;
}

int stored_flow_encode(const struct stored_flow *f, struct buf *out)
{
    struct name name;
    Sundog__StoreFlow m = SUNDOG__STORE_FLOW__INIT;
    m.name = named(f->name, &name);
    m.progress_topic_id = id_bytes(&f->progress_topic_id);
    m.progress_next = f->progress_next;
    return pack(&m.base, out);
}

int stored_flow_decode(struct slice in, struct arena *a, struct stored_flow *out)
{
    const Sundog__StoreFlow *m = unpack(&sundog__store_flow__descriptor, in, a);
    if (!m || m->progress_next < 0 || !*m->name)
        return -E_CORRUPT;
    out->name = slice_str(m->name);
    out->progress_next = m->progress_next;
    return id_of(m->progress_topic_id, &out->progress_topic_id);
}

int stored_topic_encode(const struct stored_topic *t, struct buf *out)
{
    struct name topic, target;
    Sundog__StoreTopic m = SUNDOG__STORE_TOPIC__INIT;
    m.flow = t->flow;
    m.topic = named(t->topic.name, &topic);
    m.topic_id = id_bytes(&t->topic.id);
    m.target_topic = named(t->target_topic, &target);
    m.target_topic_id = id_bytes(&t->target_topic_id);
    return pack(&m.base, out);
}

int stored_topic_decode(struct slice in, struct arena *a, struct stored_topic *out)
{
    const Sundog__StoreTopic *m = unpack(&sundog__store_topic__descriptor, in, a);
    if (!m)
        return -E_CORRUPT;
    out->flow = m->flow;
    out->topic.name = slice_str(m->topic);
    out->target_topic = slice_str(m->target_topic);
    int rc = id_of(m->topic_id, &out->topic.id);
    if (!rc && !topic_sane(&out->topic)) /* named by its first position: until then it has its id alone */
        rc = -E_CORRUPT;
    return rc ? rc : id_of(m->target_topic_id, &out->target_topic_id);
}

int stored_alias_encode(struct slice cluster_id, struct buf *out)
{
    struct name name;
    Sundog__StoreAlias m = SUNDOG__STORE_ALIAS__INIT;
    m.cluster_id = named(cluster_id, &name);
    return pack(&m.base, out);
}

int stored_alias_decode(struct slice in, struct arena *a, struct slice *cluster_id)
{
    const Sundog__StoreAlias *m = unpack(&sundog__store_alias__descriptor, in, a);
    if (!m || !*m->cluster_id)
        return -E_CORRUPT;
    *cluster_id = slice_str(m->cluster_id);
    return 0;
}

int stored_run_encode(int64_t other_start, int64_t count, struct buf *out)
{
    Sundog__StoreRun m = SUNDOG__STORE_RUN__INIT;
    m.other_start = other_start;
    m.count = count;
    return pack(&m.base, out);
}

int stored_run_decode(struct slice in, struct arena *a, int64_t *other_start, int64_t *count)
{
    const Sundog__StoreRun *m = unpack(&sundog__store_run__descriptor, in, a);
    if (!m || !range_sane(m->other_start, m->count))
        return -E_CORRUPT;
    *other_start = m->other_start;
    *count = m->count;
    return 0;
}

int stored_producer_id_encode(const struct map_producer_id *id, struct buf *out)
{
    Sundog__StoreProducerId m = SUNDOG__STORE_PRODUCER_ID__INIT;
    m.producer_id = id->producer_id;
    m.epoch = id->epoch;
    m.offered_at = id->offered_at;
    return pack(&m.base, out);
}

int stored_producer_id_decode(struct slice in, struct arena *a, struct map_producer_id *out)
{
    const Sundog__StoreProducerId *m = unpack(&sundog__store_producer_id__descriptor, in, a);
    if (!m || m->producer_id < 0 || m->epoch < 0 || m->epoch > INT16_MAX)
        return -E_CORRUPT;
    *out = (struct map_producer_id){m->producer_id, (int16_t)m->epoch, m->offered_at};
    return 0;
}

int stored_group_encode(const struct group_entry *g, struct buf *out)
{
    assert(g->commits_n <= GROUP_COMMITS_MAX);
    struct arena a;
    arena_init(&a, g->commits_n * (sizeof(Sundog__StoreCommit) + sizeof(void *) + 64) + 4096);
    Sundog__StoreGroup m = SUNDOG__STORE_GROUP__INIT;
    m.group = bytes(g->group);
    m.offset = g->offset;
    m.reread = g->reread;
    m.state = (int32_t)g->state;
    m.reason = bytes(g->reason);
    m.applied = g->applied;
    m.applied_offset = g->applied_offset;
    m.applied_ms = g->applied_ms;
    m.updated_ms = g->updated_ms;
    m.metadata = bytes(g->metadata);
    m.intends = g->intends;
    m.intended_offset = g->intended_offset;
    m.n_commits = g->commits_n;
    m.commits = ARENA_NEWS(&a, Sundog__StoreCommit *, g->commits_n);
    Sundog__StoreCommit *commits = ARENA_NEWS(&a, Sundog__StoreCommit, g->commits_n);
    int rc = arena_failed(&a) ? -E_NOMEM : 0;
    for (size_t i = 0; i < g->commits_n && !rc; i++) {
        sundog__store_commit__init(&commits[i]);
        commits[i].partition = g->commits[i].p;
        commits[i].offset = g->commits[i].offset;
        m.commits[i] = &commits[i];
    }
    if (!rc)
        rc = pack(&m.base, out);
    arena_fini(&a);
    return rc;
}

int stored_group_decode(struct slice in, struct arena *a, struct group_entry *out)
{
    const Sundog__StoreGroup *m = unpack(&sundog__store_group__descriptor, in, a);
    if (!m || m->state < 0 || m->state >= GROUP_STATES_N || m->n_commits > GROUP_COMMITS_MAX)
        return -E_CORRUPT;
    *out = (struct group_entry){.group = bytes_slice(m->group),
                                .q = out->q,
                                .offset = m->offset,
                                .reread = m->reread,
                                .state = (enum group_state)m->state,
                                .reason = bytes_slice(m->reason),
                                .metadata = bytes_slice(m->metadata),
                                .commits_n = m->n_commits,
                                .applied = m->applied,
                                .applied_offset = m->applied_offset,
                                .applied_ms = m->applied_ms,
                                .updated_ms = m->updated_ms,
                                .intends = m->intends,
                                .intended_offset = m->intended_offset};
    struct group_commit *commits = ARENA_NEWS(a, struct group_commit, m->n_commits);
    if (!commits)
        return -E_NOMEM;
    for (size_t i = 0; i < m->n_commits; i++)
        commits[i] = (struct group_commit){m->commits[i]->partition, m->commits[i]->offset};
    out->commits = commits;
    return 0;
}

int stored_event_encode(const struct ledger_event *e, struct buf *out)
{
    struct name flow, kind, topic;
    char text[ERR_TEXT_MAX];
    Sundog__StoreEvent m = SUNDOG__STORE_EVENT__INIT;
    m.wall_ms = e->wall_ms;
    m.flow = named(e->flow, &flow);
    m.kind = named(e->kind, &kind);
    m.topic = named(e->topic, &topic);
    m.partition = e->partition;
    m.from = e->from;
    m.count = e->count;
    m.text = slice_cstr(e->text, text, sizeof text);
    return pack(&m.base, out);
}

int stored_event_decode(struct slice in, struct arena *a, struct ledger_event *out)
{
    const Sundog__StoreEvent *m = unpack(&sundog__store_event__descriptor, in, a);
    if (!m)
        return -E_CORRUPT;
    *out = (struct ledger_event){.wall_ms = m->wall_ms,
                                 .flow = slice_str(m->flow),
                                 .kind = slice_str(m->kind),
                                 .topic = slice_str(m->topic),
                                 .text = slice_str(m->text),
                                 .partition = m->partition,
                                 .from = m->from,
                                 .count = m->count};
    return 0;
}
