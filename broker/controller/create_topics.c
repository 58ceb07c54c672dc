/* CreateTopics, by requests of clients and on first use. */
#include "broker/controller/decide.h"

#include "broker/metadata/image_edit.h"

#include <assert.h>
#include <inttypes.h>

#define OFFSETS_TOPIC     "__consumer_offsets"
#define SEGMENT_BYTES_MIN 1048576 /* of a topic's segment.bytes */

struct creating {
    const struct decide *d;
    const struct kp_create_topics_request *q;
    const struct kp_create_topics_request_topics *t;
    struct kp_create_topics_response_topics *r;
    int32_t partitions, replication_factor;
    int32_t *placed;      /* partitions × replication_factor, unless the request says where */
    struct slice *values; /* of t->configs, as they are stored */
    bool twice;           /* the request names it again */
};

static int16_t refuse(struct creating *c, int16_t error, struct slice text)
{
    assert(error != KE_NONE);
    c->r->error_code = error;
    c->r->error_message = text;
    c->r->num_partitions = -1;
    c->r->replication_factor = -1;
    c->r->configs_n = 0;
    c->r->topic_id = (struct uuid){{0}};
    return error;
}

/* ---- name ---- */

/* By place in the request. NULL: no memory. */
static const bool *named_twice(const struct decide *d, const struct kp_create_topics_request *q)
{
    size_t n = q->topics_n > 0 ? (size_t)q->topics_n : 0;
    struct slice *names = ARENA_NEWS(d->arena, struct slice, n + 1);
    for (size_t i = 0; names && i < n; i++)
        names[i] = q->topics[i].name;
    return names ? decide_repeated(d, names, n) : NULL;
}

static const struct image_topic *collision(const struct creating *c)
{
    if (!memchr(c->t->name.p, '.', c->t->name.n) && !memchr(c->t->name.p, '_', c->t->name.n))
        return NULL;
    const struct image *img = c->d->img;
    for (const struct image_topic *t = image_topic_next(img, NULL); t; t = image_topic_next(img, t)) {
        if (topic_names_collide(t->name, c->t->name))
            return t;
    }
    return NULL;
}

static bool collides_within(const struct creating *c)
{
    for (const struct kp_create_topics_request_topics *t = c->q->topics; t < c->t; t++) {
        if (topic_names_collide(t->name, c->t->name))
            return true;
    }
    return false;
}

static int16_t check_name(struct creating *c)
{
    struct err err = {0};
    struct slice name = c->t->name;
    if (c->twice)
        return refuse(c, KE_INVALID_REQUEST, SLICE_LIT("Duplicate topic name."));
    if (slice_eq_str(name, "__cluster_metadata"))
        return refuse(c, KE_INVALID_REQUEST,
                      SLICE_LIT("Creation of internal topic __cluster_metadata is prohibited."));
    if (topic_name_check(name, &err) < 0)
        return refuse(c, KE_INVALID_TOPIC_EXCEPTION, decide_text(c->d, "%s", err.text));
    if (image_topic(c->d->img, name))
        return refuse(c, KE_TOPIC_ALREADY_EXISTS,
                      decide_text(c->d, "Topic '%.*s' already exists.", SLICE_FMT(name)));
    const struct image_topic *other = collision(c);
    if (other)
        return refuse(c, KE_INVALID_TOPIC_EXCEPTION,
                      decide_text(c->d, "Topic '%.*s' collides with existing topic: %.*s", SLICE_FMT(name),
                                  SLICE_FMT(other->name)));
    if (collides_within(c))
        return refuse(
            c, KE_INVALID_TOPIC_EXCEPTION,
            decide_text(c->d, "Topic '%.*s' collides with another one of the request", SLICE_FMT(name)));
    return KE_NONE;
}

/* ---- configs ---- */

static struct slice own_value(const void *arg, struct slice key)
{
    const struct creating *c = arg;
    for (int32_t i = 0; i < c->t->configs_n; i++) {
        if (slice_eq(c->t->configs[i].name, key))
            return c->values[i];
    }
    return SLICE_NULL;
}

static int16_t check_configs(struct creating *c)
{
    c->values = ARENA_NEWS(c->d->out->arena, struct slice, c->t->configs_n);
    for (int32_t i = 0; c->values && i < c->t->configs_n; i++) {
        const struct kp_create_topics_request_configs *k = &c->t->configs[i];
        const struct topic_config_row *row = topic_config_find(k->name);
        struct err err = {0};
        struct buf value;
        if (!row)
            return refuse(c, KE_INVALID_CONFIG,
                          decide_text(c->d, "Unknown topic config name: %.*s", SLICE_FMT(k->name)));
        if (slice_is_null(k->value))
            return refuse(
                c, KE_INVALID_CONFIG,
                decide_text(c->d, "Null value not supported for topic configs: %.*s", SLICE_FMT(k->name)));
        for (int32_t j = 0; j < i; j++) {
            if (slice_eq(c->t->configs[j].name, k->name))
                return refuse(c, KE_INVALID_CONFIG,
                              decide_text(c->d, "Topic config %.*s is given twice", SLICE_FMT(k->name)));
        }
        buf_init(&value, INT16_MAX);
        if (topic_config_normalize(row, k->value, &value, &err) == 0)
            c->values[i] = arena_dup(c->d->out->arena, buf_slice(&value));
        buf_fini(&value);
        if (err.text[0])
            return refuse(c, KE_INVALID_CONFIG, decide_text(c->d, "%s", err.text));
    }
    if (!c->values)
        return KE_NONE;
    struct config_view view = {c->d->img, c->d->node_id, &c->d->rules->statics};
    struct slice conflict = effective_lag_conflict(&view, own_value, c, c->d->arena);
    return slice_is_null(conflict) ? KE_NONE : refuse(c, KE_INVALID_CONFIG, conflict);
}

/* ---- where ---- */

static const struct kp_create_topics_request_assignments *assignment_of(const struct creating *c,
                                                                        int32_t index)
{
    for (int32_t i = 0; i < c->t->assignments_n; i++) {
        if (c->t->assignments[i].partition_index == index)
            return &c->t->assignments[i];
    }
    return NULL;
}

static int16_t check_assignments(struct creating *c)
{
    assert(c->t->assignments_n > 0);
    if (c->t->num_partitions != -1)
        return refuse(
            c, KE_INVALID_REQUEST,
            SLICE_LIT("A manual partition assignment was specified, but numPartitions was not set to -1."));
    if (c->t->replication_factor != -1)
        return refuse(
            c, KE_INVALID_REQUEST,
            SLICE_LIT(
                "A manual partition assignment was specified, but replication factor was not set to -1."));
    if (c->t->assignments_n > DECIDE_RECORDS_MAX) /* before each is looked for among all */
        return refuse(c, KE_POLICY_VIOLATION,
                      SLICE_LIT("Unable to perform excessively large batch operation."));
    c->partitions = c->t->assignments_n;
    c->replication_factor = c->t->assignments[0].broker_ids_n;
    for (int32_t p = 0; p < c->partitions; p++) {
        const struct kp_create_topics_request_assignments *a = assignment_of(c, p);
        if (!a)
            return refuse(c, KE_INVALID_REPLICA_ASSIGNMENT,
                          SLICE_LIT("partitions should be a consecutive 0-based integer sequence"));
        struct slice fault =
            a->broker_ids_n > 0
                ? decide_assignment_fault(c->d, p, a->broker_ids, a->broker_ids_n, c->replication_factor)
                : SLICE_LIT("The manual partition assignment includes an empty replica list.");
        if (!slice_is_null(fault))
            return refuse(c, KE_INVALID_REPLICA_ASSIGNMENT, fault);
    }
    return KE_NONE;
}

static int16_t check_counts(struct creating *c)
{
    if (c->t->replication_factor < -1 || c->t->replication_factor == 0)
        return refuse(c, KE_INVALID_REPLICATION_FACTOR,
                      SLICE_LIT("Replication factor must be larger than 0, or -1 to use the default value."));
    if (c->t->num_partitions < -1 || c->t->num_partitions == 0)
        return refuse(c, KE_INVALID_PARTITIONS,
                      SLICE_LIT("Number of partitions was set to an invalid non-positive value."));
    const struct decide_rules *rules = c->d->rules;
    bool offsets = slice_eq_str(c->t->name, OFFSETS_TOPIC);
    /* on a quorum of one, internal topics get one replica whatever the default says (DESIGN §8) */
    int16_t offsets_factor = image_brokers_n(c->d->img) > 1 ? rules->offsets_replication_factor : 1;
    c->partitions = c->t->num_partitions != -1 ? c->t->num_partitions
                    : offsets                  ? rules->offsets_partitions
                                               : rules->num_partitions;
    c->replication_factor = c->t->replication_factor != -1 ? c->t->replication_factor
                            : offsets                      ? offsets_factor
                                                           : rules->default_replication_factor;
    return KE_NONE;
}

static int16_t check_room(struct creating *c, int64_t new_partitions)
{
    assert(c->partitions > 0);
    assert(new_partitions >= 0);
    size_t records = c->d->out->n + 1 + (size_t)c->t->configs_n + (size_t)c->partitions;
    if (records > DECIDE_RECORDS_MAX)
        return refuse(c, KE_POLICY_VIOLATION,
                      decide_text(c->d,
                                  "Unable to perform excessively large batch operation: %d "
                                  "partitions, with what stands before them in the request",
                                  c->partitions));
    struct slice why = SLICE_NULL;
    if (!decide_room(c->d, new_partitions + c->partitions, &why))
        return refuse(c, KE_POLICY_VIOLATION, why);
    return KE_NONE;
}

static int16_t place(struct creating *c)
{
    assert(!c->placed);
    struct slice text = SLICE_NULL;
    if (c->t->assignments_n > 0)
        return KE_NONE;
    int16_t error = decide_place(c->d, c->partitions, c->replication_factor, &c->placed, &text);
    return error ? refuse(c, error, text) : KE_NONE;
}

/* ---- records and answer ---- */

static bool write_records(struct creating *c)
{
    assert(c->partitions > 0);
    assert(c->replication_factor > 0);
    assert(!uuid_is_zero(&c->r->topic_id));
    assert(!image_topic(c->d->img, c->t->name));
    struct kp_topic_record *t = decide_record(c->d, kp_type_topic_record);
    if (!t)
        return false;
    assert(c->values); /* memory that has run out stays so */
    t->name = c->t->name;
    t->topic_id = c->r->topic_id;
    for (int32_t i = 0; i < c->t->configs_n; i++) {
        struct kp_config_record *k = decide_record(c->d, kp_type_config_record);
        if (!k)
            return false;
        *k = (struct kp_config_record){IMAGE_CONFIG_TOPIC, c->t->name, c->t->configs[i].name, c->values[i]};
    }
    for (int32_t p = 0; p < c->partitions; p++) {
        const int32_t *replicas =
            c->placed ? c->placed + (int64_t)p * c->replication_factor : assignment_of(c, p)->broker_ids;
        if (!decide_partition(c->d, &c->r->topic_id, p, replicas, c->replication_factor))
            return false;
    }
    return true;
}

/* The topic's options as they will be, for the answer. */
static bool answer_configs(struct creating *c)
{
    size_t n;
    const struct topic_config_row *rows = topic_config_rows(&n);
    struct config_view view = {c->d->img, c->d->node_id, &c->d->rules->statics};
    c->r->configs = ARENA_NEWS(c->d->arena, struct kp_create_topics_response_configs, n);
    if (!c->r->configs)
        return false;
    assert(n > 0);
    c->r->configs_n = (int32_t)n;
    for (size_t i = 0; i < n; i++) {
        struct config_value v[CONFIG_SYNONYMS_MAX];
        effective_topic_config(&view, NULL, &rows[i], c->d->arena, v);
        for (int32_t j = 0; j < c->t->configs_n; j++) {
            if (slice_eq_str(c->t->configs[j].name, rows[i].key))
                v[0] = (struct config_value){SLICE_NULL, arena_dup(c->d->arena, c->values[j]),
                                             CONFIG_SOURCE_TOPIC};
        }
        c->r->configs[i] = (struct kp_create_topics_response_configs){
            .name = slice_str(rows[i].key), .value = v[0].value, .config_source = (int8_t)v[0].source};
    }
    return true;
}

static int16_t create_one(struct creating *c, int64_t *new_partitions)
{
    int16_t error = KE_NONE;
    if (c->q->topics_n > DECIDE_RECORDS_MAX)
        error =
            refuse(c, KE_POLICY_VIOLATION, SLICE_LIT("Unable to perform excessively large batch operation."));
    if (!error)
        error = check_name(c);
    if (!error)
        error = check_configs(c);
    if (!error)
        error = c->t->assignments_n > 0 ? check_assignments(c) : check_counts(c);
    if (!error)
        error = check_room(c, *new_partitions);
    if (!error)
        error = place(c);
    if (error)
        return KE_NONE; /* of this topic alone */
    c->r->topic_id = decide_uuid(c->d);
    c->r->num_partitions = c->partitions;
    c->r->replication_factor = (int16_t)c->replication_factor;
    if (!write_records(c) || !answer_configs(c))
        return KE_UNKNOWN_SERVER_ERROR;
    *new_partitions += c->partitions;
    return KE_NONE;
}

int16_t decide_create_topics(const struct decide *d, const struct kp_create_topics_request *q,
                             struct kp_create_topics_response *r)
{
    assert(d->out->n == 0); /* what is only looked at takes all of them back */
    int64_t new_partitions = 0;
    r->topics = ARENA_NEWS(d->arena, struct kp_create_topics_response_topics, q->topics_n);
    const bool *twice = named_twice(d, q);
    if (!r->topics || !twice)
        return KE_UNKNOWN_SERVER_ERROR;
    for (r->topics_n = 0; r->topics_n < q->topics_n; r->topics_n++) {
        struct creating c = {.d = d,
                             .q = q,
                             .t = &q->topics[r->topics_n],
                             .r = &r->topics[r->topics_n],
                             .twice = twice[r->topics_n]};
        *c.r = (struct kp_create_topics_response_topics){.name = c.t->name};
        int16_t error = create_one(&c, &new_partitions);
        if (error)
            return error;
    }
    if (q->validate_only)
        d->out->n = 0;
    return arena_failed(d->arena) || arena_failed(d->out->arena) ? KE_UNKNOWN_SERVER_ERROR : KE_NONE;
}

/* ---- on first use ---- */

struct kp_create_topics_request *decide_create_on_use(const struct decide_rules *rules,
                                                      const struct slice *names, int32_t names_n,
                                                      struct arena *arena)
{
    assert(names_n > 0);
    struct kp_create_topics_request *q = ARENA_NEW(arena, struct kp_create_topics_request);
    if (!q)
        return NULL;
    kp_init(&kp_create_topics_request_message, q);
    q->topics = ARENA_NEWS(arena, struct kp_create_topics_request_topics, names_n);
    if (!q->topics)
        return NULL;
    for (; q->topics_n < names_n; q->topics_n++) {
        struct kp_create_topics_request_topics *t = &q->topics[q->topics_n];
        t->name = arena_dup(arena, names[q->topics_n]);
        t->num_partitions = -1;
        t->replication_factor = -1;
        if (!slice_eq_str(t->name, OFFSETS_TOPIC))
            continue;
        t->configs = ARENA_NEWS(arena, struct kp_create_topics_request_configs, 3);
        if (!t->configs)
            return NULL;
        t->configs_n = 3;
        t->configs[0] =
            (struct kp_create_topics_request_configs){SLICE_LIT("cleanup.policy"), SLICE_LIT("compact")};
        t->configs[1] =
            (struct kp_create_topics_request_configs){SLICE_LIT("compression.type"), SLICE_LIT("producer")};
        t->configs[2] = (struct kp_create_topics_request_configs){
            SLICE_LIT("segment.bytes"),
            arena_printf(arena, "%" PRId32,
                         rules->offsets_segment_bytes < SEGMENT_BYTES_MIN ? SEGMENT_BYTES_MIN
                                                                          : rules->offsets_segment_bytes)};
    }
    return arena_failed(arena) ? NULL : q;
}
