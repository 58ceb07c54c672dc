#include "mirror/cli/progress.h"

#include "base/core/grow.h"
#include "mirror/offsets/codec.h"
#include "mirror/offsets/map_memory.h"
#include "mirror/route/policy.h"
#include "proto/kafka/batch.h"

#include <stdlib.h>
#include <string.h>

#define PROGRESS_TOPICS_MAX 100000
#define PROGRESS_ARENA_MAX  (512u << 20)

struct mapped {
    struct topic_key key;
    struct map_memory *map;
    struct route_rule rule;
    int32_t partitions;
    struct slice target_topic;
};

struct progress {
    struct arena arena;
    struct mapped *topics;
    size_t n, cap;
};

void cli_progress_free(struct progress *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n; i++)
        map_memory_destroy(p->topics[i].map);
    free(p->topics);
    arena_fini(&p->arena);
    free(p);
}

static bool same_topic(const struct topic_key *a, const struct topic_key *b)
{
    if (!uuid_is_zero(&a->id) || !uuid_is_zero(&b->id))
        return uuid_eq(&a->id, &b->id);
    return slice_eq(a->name, b->name);
}

static struct mapped *mapped_of(struct progress *p, const struct topic_key *key)
{
    for (size_t i = p->n; i-- > 0;)
        if (same_topic(&p->topics[i].key, key))
            return &p->topics[i];
    if (p->n >= PROGRESS_TOPICS_MAX || !GROW(p->topics, p->n, p->cap, 64))
        return NULL;
    struct mapped m = {.key = {arena_dup(&p->arena, key->name), key->id},
                       .map = map_memory_create(),
                       .rule = {ROUTE_KEEP, 0}};
    if (!m.map)
        return NULL;
    p->topics[p->n] = m;
    return &p->topics[p->n++];
}

static int take_position(struct progress *p, const struct record *r)
{
    struct map_position pos;
    int rc = position_decode(r->value, &p->arena, &pos);
    if (rc)
        return rc;
    struct mapped *m = mapped_of(p, &pos.topic);
    if (!m)
        return -E_NOMEM;
    if (pos.p >= m->partitions)
        m->partitions = pos.p + 1;
    m->key.name = pos.topic.name;
    m->target_topic = pos.target_topic;
    rc = route_rule_of_fingerprint(pos.fingerprint, &m->rule);
    return rc ? rc : map_memory_position(m->map, &pos);
}

static int take_record(struct progress *p, const struct record *r)
{
    struct progress_key key;
    int rc = progress_key_decode(r->key, &p->arena, &key);
    if (rc || key.kind == PROGRESS_PRODUCER_ID)
        return rc;
    if (key.kind == PROGRESS_POSITION)
        return slice_is_null(r->value) ? 0 : take_position(p, r);
    struct mapped *m = mapped_of(p, &key.topic);
    if (!m)
        return -E_NOMEM;
    if (slice_is_null(r->value)) {
        map_memory_forget(m->map, key.p, key.src_start);
        return 0;
    }
    struct map_run run;
    rc = run_decode(r->value, &p->arena, key.src_start, &run);
    return rc ? rc : map_memory_run(m->map, key.p, &run);
}

static int take_batch(void *arg, const struct batch_header *h, struct slice payload, struct err *err)
{
    struct progress *p = arg;
    struct record_walk walk;
    struct record r;
    int more, rc = 0;
    record_walk_init(&walk, h, payload);
    while (!rc && (more = record_next(&walk, &r)) != 0)
        rc = more < 0 ? more : take_record(p, &r);
    return rc ? err_set(err, rc, "the progress topic, near offset %lld: %s", (long long)h->base_offset,
                        err_str(rc))
              : 0;
}

int cli_progress_read(struct session *s, struct slice source_alias, struct progress **out, struct err *err)
{
    char name[512];
    struct buf b;
    buf_init(&b, sizeof name - 1);
    policy_progress_topic(source_alias, &b);
    slice_cstr(buf_slice(&b), name, sizeof name);
    buf_fini(&b);
    *out = NULL;
    struct session_topic topic;
    int rc = session_topic(s, name, &topic, err);
    if (rc == -E_NOTFOUND)
        return 0;
    if (rc)
        return rc;
    struct progress *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(err, -E_NOMEM, "out of memory");
    arena_init(&p->arena, PROGRESS_ARENA_MAX);
    rc = session_read(s, topic.name, 0, take_batch, p, err);
    if (rc) {
        cli_progress_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

bool cli_progress_topic(struct progress *p, struct slice source_topic, struct progress_topic *out)
{
    for (size_t i = p->n; i-- > 0;) {
        struct mapped *m = &p->topics[i];
        if (m->partitions > 0 && slice_eq(m->key.name, source_topic)) {
            *out = (struct progress_topic){map_memory_map(m->map), m->rule, m->partitions, m->target_topic};
            return true;
        }
    }
    return false;
}
