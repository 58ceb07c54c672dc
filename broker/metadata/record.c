#include "broker/metadata/record.h"

#include "base/core/varint.h"

#include <assert.h>

int metadata_record_decode(struct slice value, struct arena *arena, struct metadata_record *out,
                           struct err *err)
{
    if (slice_is_null(value))
        return err_set(err, -E_CORRUPT, "a metadata record has no value");
    const uint8_t *p = value.p, *end = value.p + value.n;
    uint32_t head[3]; /* frame version, type, version */
    for (int i = 0; i < 3; i++) {
        size_t n = uvarint32_get(p, end, &head[i]);
        if (!n)
            return err_set(err, -E_CORRUPT, "a metadata record ends in its frame (%zu bytes)", value.n);
        p += n;
    }
    if (head[0] != RECORD_FRAME_VERSION)
        return err_set(err, -E_VERSION, "a metadata record has frame version %u", head[0]);
    const char *name = NULL;
    const struct kp_message *m = kp_metadata_record_find(head[1], &name);
    if (!m)
        return err_set(err, -E_VERSION, "metadata record type %u is not known", head[1]);
    if (head[2] > (uint32_t)m->version_max)
        return err_set(err, -E_VERSION, "%s version %u is not known", name, head[2]);
    void *body = arena_alloc(arena, m->body->size_bytes);
    if (!body)
        return err_set(err, -E_NOMEM, "%s: no memory", name);
    int rc = kp_decode(m, (int16_t)head[2], slice_of(p, (size_t)(end - p)), arena, body, NULL, err);
    if (rc < 0) {
        err_wrap(err, "%s", name);
        return rc == -E_LIMIT ? -E_NOMEM : -E_CORRUPT;
    }
    *out = (struct metadata_record){(int16_t)head[1], (int16_t)head[2], body};
    return 0;
}

int metadata_record_encode(const struct metadata_record *r, struct buf *out)
{
    const struct kp_message *m = kp_metadata_record_find((uint32_t)r->type, NULL);
    if (!m || r->version < m->version_min || r->version > m->version_max)
        return -E_INVALID;
    buf_put_uvarint(out, RECORD_FRAME_VERSION);
    buf_put_uvarint(out, (uint64_t)r->type);
    buf_put_uvarint(out, (uint64_t)r->version);
    int rc = kp_encode(m, r->version, r->body, out);
    return rc < 0 ? rc : out->failed ? -E_LIMIT : 0;
}

void metadata_records_init(struct metadata_records *list, struct arena *arena)
{
    *list = (struct metadata_records){.arena = arena};
}

void *metadata_records_add(struct metadata_records *list, int16_t type, int16_t version)
{
    const struct kp_message *m = kp_metadata_record_find((uint32_t)type, NULL);
    assert(m);
    assert(version >= m->version_min);
    assert(version <= m->version_max);
    assert(list->arena);
    assert(list->n <= list->capacity);
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 16;
        struct metadata_record *v = ARENA_NEWS(list->arena, struct metadata_record, capacity);
        if (!v)
            return NULL;
        if (list->n)
            memcpy(v, list->v, list->n * sizeof *v);
        list->v = v;
        list->capacity = capacity;
    }
    void *body = arena_alloc(list->arena, m->body->size_bytes);
    if (!body)
        return NULL;
    kp_init(m, body);
    list->v[list->n++] = (struct metadata_record){type, version, body};
    return body;
}
