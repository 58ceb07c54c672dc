/* Bytes → struct. One pass; nothing is allocated before its bytes are known to be there. */
#include "proto/kafka/wire_internal.h"

#include "base/core/bytes.h"
#include "base/core/mutant.h"
#include "base/core/varint.h"

/* More unknown tags than this in one section is abuse; Kafka has at most ten known ones. */
#define KP_UNKNOWN_TAGS_MAX 256
/* Arrays up to this many elements are allocated after the coarse check of one byte an element. */
#define KP_COUNT_SMALL 8

struct reader {
    const uint8_t *p, *end;
    struct arena *arena;
    struct err *err; /* NULL once the error's place has been told */
    int16_t version;
    bool flexible;
};

static inline size_t left(const struct reader *r)
{
    assert(r->p <= r->end);
    return (size_t)(r->end - r->p);
}

static inline int read_uvarint(struct reader *r, uint32_t *out)
{
    if (r->p < r->end && *r->p < 0x80) {
        *out = *r->p++;
        return 0;
    }
    size_t n = uvarint32_get(r->p, r->end, out);
    r->p += n;
    if (n)
        return 0;
    return left(r) < UVARINT32_MAX_BYTES ? -E_TRUNCATED : -E_INVALID;
}

/* A length or count; -1 for null. `wide`: four bytes in the plain form, else two. */
static inline int read_length(struct reader *r, bool wide, int64_t *out)
{
    if (r->flexible) {
        uint32_t v;
        int rc = read_uvarint(r, &v);
        *out = rc ? 0 : (int64_t)v - 1;
        return rc;
    }
    size_t n = wide ? 4 : 2;
    if (left(r) < n)
        return -E_TRUNCATED;
    *out = wide ? (int32_t)be32_get(r->p) : (int16_t)be16_get(r->p);
    r->p += n;
    return *out < -1 ? -E_INVALID : 0;
}

static inline int read_slice(struct reader *r, bool wide, bool nullable, struct slice *out)
{
    int64_t n;
    int rc = read_length(r, wide, &n);
    if (rc)
        return rc;
    if (n < 0) {
        *out = SLICE_NULL;
        return nullable ? 0 : -E_INVALID;
    }
    if (!wide && n > KP_STR_MAX)
        return -E_INVALID;
    if ((uint64_t)n > left(r))
        return -E_TRUNCATED;
    *out = slice_of(r->p, (size_t)n);
    r->p += n;
    return 0;
}

/* Numbers and UUIDs. */
static inline int read_fixed(struct reader *r, enum kp_kind kind, void *to)
{
    size_t n = kp_wire_sizes[kind];
    const uint8_t *p = r->p;
    assert(n > 0);
    if (left(r) < n)
        return -E_TRUNCATED;
    r->p += n;
    switch (n) {
    case 1: *(uint8_t *)to = kind == KP_BOOL ? *p != 0 : *p; break;
    case 2: *(uint16_t *)to = be16_get(p); break;
    case 4: *(uint32_t *)to = be32_get(p); break;
    case 8: {
        uint64_t v = be64_get(p);
        memcpy(to, &v, sizeof v);
        break;
    }
    default: memcpy(to, p, sizeof(struct uuid));
    }
    return 0;
}

static inline int read_value(struct reader *r, enum kp_kind kind, bool nullable, void *to)
{
    switch (kind) {
    case KP_STR: return read_slice(r, false, nullable, to);
    case KP_BYTES: return read_slice(r, true, nullable, to);
    case KP_RECORDS: return read_slice(r, true, nullable, &((struct kp_records *)to)->bytes);
    default: return read_fixed(r, kind, to);
    }
}

static int read_struct(struct reader *r, const struct kp_struct *s, void *body);

/* The elements' memory once their count is credible: every element takes at least its smallest size. */
static int read_count(struct reader *r, const struct kp_field *f, void *body, uint8_t **elements,
                      int32_t *count)
{
    int64_t n;
    int rc = read_length(r, true, &n);
    if (rc)
        return rc;
    *count = 0;
    if (n < 0) {
        *kp_count(body, f) = -1;
        return kp_nullable(f, r->version) ? 0 : -E_INVALID;
    }
    size_t each = 1;
    if (f->kind == KP_LIST)
        each = kp_kind_size_min(f->element, r->flexible);
    else if (n > KP_COUNT_SMALL)
        each = kp_struct_size_min(f->child, r->version, r->flexible);
    if (each == 0) /* elements without members would cost nothing on the wire */
        each = 1;
    if ((uint64_t)n > left(r) / each && !MUTANT("array_count_unchecked"))
        return -E_TRUNCATED;
    size_t size = f->kind == KP_LIST ? kp_memory_sizes[f->element] : f->child->size_bytes;
    *elements = n ? arena_array(r->arena, (size_t)n, size) : NULL;
    if (n && !*elements)
        return -E_LIMIT;
    assert(n <= INT32_MAX);
    kp_pointer_set(body, f, *elements);
    *kp_count(body, f) = *count = (int32_t)n;
    return 0;
}

static int read_list(struct reader *r, const struct kp_field *f, void *body)
{
    uint8_t *to = NULL;
    int32_t count;
    assert(f->element < KP_LIST);
    int rc = read_count(r, f, body, &to, &count);
    size_t size = kp_memory_sizes[f->element];
    for (int32_t i = 0; i < count && !rc; i++, to += size)
        rc = read_value(r, f->element, false, to);
    return rc;
}

static int read_array(struct reader *r, const struct kp_field *f, void *body)
{
    uint8_t *to = NULL;
    int32_t count;
    assert(f->child && f->child->size_bytes > 0);
    int rc = read_count(r, f, body, &to, &count);
    for (int32_t i = 0; i < count && !rc; i++, to += f->child->size_bytes)
        rc = read_struct(r, f->child, to);
    return rc;
}

static int read_nest_nullable(struct reader *r, const struct kp_field *f, void *body)
{
    if (left(r) < 1)
        return -E_TRUNCATED;
    assert(f->child);
    int8_t mark = (int8_t)*r->p++;
    kp_pointer_set(body, f, NULL);
    if (mark == -1)
        return kp_nullable(f, r->version) ? 0 : -E_INVALID;
    if (mark != 1)
        return -E_INVALID;
    void *child = arena_alloc(r->arena, f->child->size_bytes);
    if (!child)
        return -E_LIMIT;
    kp_pointer_set(body, f, child);
    return read_struct(r, f->child, child);
}

static inline int read_field(struct reader *r, const struct kp_field *f, void *body)
{
    switch (f->kind) {
    case KP_LIST: return read_list(r, f, body);
    case KP_ARRAY: return read_array(r, f, body);
    case KP_NEST: return read_struct(r, f->child, kp_member(body, f));
    case KP_NEST_NULLABLE: return read_nest_nullable(r, f, body);
    default: return read_value(r, f->kind, kp_nullable(f, r->version), kp_member(body, f));
    }
}

/* The deepest place is told, once. */
static int failed(struct reader *r, const struct kp_struct *s, const char *member, int code)
{
    assert(code < 0);
    err_set(r->err, code, "%s.%s: %s", s->name, member, code == -E_LIMIT ? "too much memory" : err_str(code));
    r->err = NULL;
    return code;
}

static const struct kp_field *tagged_field(const struct reader *r, const struct kp_struct *s, uint32_t tag)
{
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++)
        if (f->tag != KP_NO_TAG && (uint32_t)f->tag == tag && kp_on_wire(f, r->version))
            return f;
    return NULL;
}

/* One tagged member, which must fill its `size` bytes. */
static int read_tagged(struct reader *r, const struct kp_struct *s, const struct kp_field *f, uint32_t size,
                       void *body)
{
    const uint8_t *end = r->end;
    assert(size <= left(r) && f->tag != KP_NO_TAG);
    r->end = r->p + size;
    int rc = read_field(r, f, body);
    if (!rc && r->p != r->end)
        rc = -E_INVALID;
    if (rc)
        return failed(r, s, f->name, rc);
    r->end = end;
    return 0;
}

static int read_tags(struct reader *r, const struct kp_struct *s, void *body)
{
    uint32_t count, unknown = 0;
    assert(r->flexible);
    int64_t before = -1;
    int rc = read_uvarint(r, &count);
    if (!rc && count > left(r) / 2)
        rc = -E_TRUNCATED;
    for (uint32_t i = 0; i < count && !rc; i++) {
        uint32_t tag, size;
        if ((rc = read_uvarint(r, &tag)) != 0 || (rc = read_uvarint(r, &size)) != 0)
            break;
        if ((int64_t)tag <= before)
            rc = -E_INVALID;
        else if (size > left(r))
            rc = -E_TRUNCATED;
        if (rc)
            break;
        before = tag;
        const struct kp_field *f = tagged_field(r, s, tag);
        if (f) {
            rc = read_tagged(r, s, f, size, body);
            continue;
        }
        r->p += size;
        if (++unknown > KP_UNKNOWN_TAGS_MAX)
            rc = -E_INVALID;
    }
    return rc ? failed(r, s, "tagged fields", rc) : 0;
}

static int read_struct(struct reader *r, const struct kp_struct *s, void *body)
{
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++) {
        if (f->tag != KP_NO_TAG || !kp_on_wire(f, r->version)) {
            kp_field_default(f, body);
            continue;
        }
        int rc = read_field(r, f, body);
        if (rc)
            return failed(r, s, f->name, rc);
    }
    return r->flexible ? read_tags(r, s, body) : 0;
}

int kp_decode(const struct kp_message *m, int16_t version, struct slice in, struct arena *arena, void *body,
              size_t *used, struct err *err)
{
    assert(m && arena && body);
    if (!kp_has_version(m, version))
        return err_set(err, -E_VERSION, "%s has no version %d", m->body->name, version);
    if (slice_is_null(in))
        in = SLICE_LIT("");
    struct reader r = {.p = in.p,
                       .end = in.p + in.n,
                       .arena = arena,
                       .err = err,
                       .version = version,
                       .flexible = kp_is_flexible(m, version)};
    memset(body, 0, m->body->size_bytes);
    int rc = read_struct(&r, m->body, body);
    if (rc)
        return rc;
    if (used)
        *used = in.n - left(&r);
    else if (left(&r))
        return err_set(err, -E_INVALID, "%s: %zu bytes too many", m->body->name, left(&r));
    return 0;
}
