#include "broker/group/group_record.h"

#include <assert.h>

#include "base/core/bytes.h"

enum { KEY_OFFSET_OLD = 0, KEY_OFFSET = 1, KEY_GROUP = 2 };
enum { VALUE_OFFSET = 3, VALUE_OFFSET_EXPIRING = 1, VALUE_GROUP = 3 };

#define RECORD_BYTES_MAX ((size_t)64 << 20)

/* ---- writing ---- */

static void put(struct buf *b, int16_t version, const struct kp_message *m, int16_t schema, const void *body)
{
    buf_put_be16(b, (uint16_t)version);
    if (kp_encode(m, schema, body, b))
        b->failed = true;
}

static int add(struct batch_builder *b, int64_t wall_ms, const struct buf *key, const struct buf *value)
{
    if (key->failed || (value && value->failed))
        return -E_LIMIT;
    struct record_new r = {
        .timestamp = wall_ms, .key = buf_slice(key), .value = value ? buf_slice(value) : SLICE_NULL};
    return batch_add(b, &r);
}

int group_record_put_offset(struct batch_builder *b, int64_t wall_ms, struct slice group, struct slice topic,
                            int32_t partition, const struct offset *at)
{
    struct buf key, value;
    assert(topic.n > 0);
    assert((!at || at->expires_ms >= OFFSET_NO_EXPIRY));
    buf_init(&key, RECORD_BYTES_MAX);
    buf_init(&value, RECORD_BYTES_MAX);
    struct kp_offset_commit_key k = {.group = group, .topic = topic, .partition = partition};
    put(&key, KEY_OFFSET, &kp_offset_commit_key_message, 0, &k);
    if (at) {
        int16_t version = at->expires_ms >= 0 ? VALUE_OFFSET_EXPIRING : VALUE_OFFSET;
        struct kp_offset_commit_value v = {.offset = at->offset,
                                           .leader_epoch = at->leader_epoch,
                                           .metadata = at->metadata,
                                           .commit_timestamp = at->committed_ms,
                                           .expire_timestamp = at->expires_ms};
        put(&value, version, &kp_offset_commit_value_message, version, &v);
    }
    int rc = add(b, wall_ms, &key, at ? &value : NULL);
    buf_fini(&key);
    buf_fini(&value);
    return rc;
}

static void put_group_key(struct buf *key, struct slice group)
{
    buf_init(key, RECORD_BYTES_MAX);
    struct kp_group_metadata_key k = {.group = group};
    put(key, KEY_GROUP, &kp_group_metadata_key_message, 0, &k);
}

static void fill_members(const struct group *g, struct kp_group_metadata_value *v)
{
    for (const struct group_member *m = group_member_next(g, NULL); m; m = group_member_next(g, m)) {
        struct group_member_view s = group_member_view(g, m);
        v->members[v->members_n++] = (struct kp_group_metadata_value_members){
            .member_id = s.id,
            .group_instance_id = s.instance_id,
            .client_id = s.client_id,
            .client_host = s.client_host,
            .rebalance_timeout = s.rebalance_timeout_ms,
            .session_timeout = s.session_timeout_ms,
            .subscription = s.subscription,
            .assignment = s.assignment,
        };
    }
}

int group_record_put_group(struct batch_builder *b, int64_t wall_ms, const struct group *g)
{
    struct arena arena;
    arena_init(&arena, RECORD_BYTES_MAX);
    struct slice type = group_protocol_type(g), leader = group_leader(g);
    struct kp_group_metadata_value v = {
        .protocol_type = slice_is_null(type) ? slice_of("", 0) : type,
        .generation = group_generation(g),
        .protocol = group_protocol_name(g),
        .leader = leader,
        .current_state_timestamp = group_state_since_ms(g),
        .members = ARENA_NEWS(&arena, struct kp_group_metadata_value_members, group_members_n(g)),
    };
    struct buf key, value;
    put_group_key(&key, group_id(g));
    buf_init(&value, RECORD_BYTES_MAX);
    if (v.members) {
        fill_members(g, &v);
        assert((size_t)v.members_n == group_members_n(g));
        assert((v.members_n == 0 || leader.n > 0));
        put(&value, VALUE_GROUP, &kp_group_metadata_value_message, VALUE_GROUP, &v);
    }
    int rc = v.members ? add(b, wall_ms, &key, &value) : -E_NOMEM;
    buf_fini(&key);
    buf_fini(&value);
    arena_fini(&arena);
    return rc;
}

int group_record_put_group_tombstone(struct batch_builder *b, int64_t wall_ms, struct slice group)
{
    struct buf key;
    put_group_key(&key, group);
    int rc = add(b, wall_ms, &key, NULL);
    buf_fini(&key);
    return rc;
}

/* ---- reading ---- */

static int corrupt(struct err *err, const char *what)
{
    return err_set(err, -E_CORRUPT, "%s of a record of __consumer_offsets", what);
}

/* A message behind its version; `schema` -1: the version says. */
static int get(struct slice in, int schema, const struct kp_message *m, struct arena *arena, void *body,
               struct err *err)
{
    if (in.n < 2)
        return corrupt(err, "missing version");
    int16_t version = schema < 0 ? (int16_t)be16_get(in.p) : (int16_t)schema;
    if (version < 0 || version > m->version_max || version < m->version_min)
        return err_set(err, -E_VERSION, "value version %d of a record of __consumer_offsets is not known",
                       version);
    int rc = kp_decode(m, version, slice_of(in.p + 2, in.n - 2), arena, body, NULL, err);
    if (rc && rc != -E_LIMIT)
        return corrupt(err, "malformed content");
    return rc;
}

static int read_offset(const struct record *r, struct arena *arena, struct group_record *out, struct err *err)
{
    struct kp_offset_commit_key k;
    int rc = get(r->key, 0, &kp_offset_commit_key_message, arena, &k, err);
    if (rc)
        return rc;
    *out = (struct group_record){.kind = GROUP_RECORD_OFFSET,
                                 .group = k.group,
                                 .topic = k.topic,
                                 .partition = k.partition,
                                 .tombstone = slice_is_null(r->value)};
    if (k.topic.n == 0)
        return corrupt(err, "empty topic");
    if (out->tombstone)
        return 0;
    struct kp_offset_commit_value v;
    rc = get(r->value, -1, &kp_offset_commit_value_message, arena, &v, err);
    if (rc == 0)
        out->at =
            (struct offset){.offset = v.offset,
                            .leader_epoch = v.leader_epoch,
                            .metadata = v.metadata,
                            .committed_ms = v.commit_timestamp,
                            .expires_ms = v.expire_timestamp >= 0 ? v.expire_timestamp : OFFSET_NO_EXPIRY};
    return rc;
}

static int read_group_key(const struct record *r, struct arena *arena, struct group_record *out,
                          struct err *err)
{
    struct kp_group_metadata_key k;
    int rc = get(r->key, 0, &kp_group_metadata_key_message, arena, &k, err);
    if (rc)
        return rc;
    *out = (struct group_record){.kind = GROUP_RECORD_GROUP,
                                 .group = k.group,
                                 .value = r->value,
                                 .tombstone = slice_is_null(r->value)};
    return 0;
}

int group_record_read(const struct record *r, struct arena *arena, struct group_record *out, struct err *err)
{
    if (slice_is_null(r->key) || r->key.n < 2)
        return corrupt(err, "missing key");
    switch ((int16_t)be16_get(r->key.p)) {
    case KEY_OFFSET_OLD:
    case KEY_OFFSET: return read_offset(r, arena, out, err);
    case KEY_GROUP: return read_group_key(r, arena, out, err);
    default: *out = (struct group_record){.kind = GROUP_RECORD_OTHER}; return 0;
    }
}

int group_record_read_group(struct slice value, struct arena *arena, struct group_restored *out,
                            struct err *err)
{
    struct kp_group_metadata_value v;
    int rc = get(value, -1, &kp_group_metadata_value_message, arena, &v, err);
    if (rc)
        return rc;
    struct group_restored_member *members = ARENA_NEWS(arena, struct group_restored_member, v.members_n);
    if (!members)
        return err_set(err, -E_LIMIT, "a group record of %d members", v.members_n);
    for (int32_t i = 0; i < v.members_n; i++) {
        const struct kp_group_metadata_value_members *m = &v.members[i];
        members[i] = (struct group_restored_member){
            .id = m->member_id,
            .instance_id = m->group_instance_id.n ? m->group_instance_id : SLICE_NULL, /* as in requests */
            .client_id = m->client_id,
            .client_host = m->client_host,
            .subscription = m->subscription,
            .assignment = m->assignment,
            .session_timeout_ms = m->session_timeout,
            .rebalance_timeout_ms = m->rebalance_timeout < 0 ? m->session_timeout : m->rebalance_timeout,
        };
    }
    *out = (struct group_restored){.protocol_type = v.protocol_type,
                                   .protocol_name = v.protocol,
                                   .leader = v.leader,
                                   .generation = v.generation,
                                   .state_since_ms = v.current_state_timestamp,
                                   .members = members,
                                   .members_n = v.members_n};
    return 0;
}
