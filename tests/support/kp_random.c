#include "tests/support/kp_random.h"

#include <assert.h>
#include <string.h>

uint64_t kp_random_next(struct kp_random *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t kp_random_below(struct kp_random *r, uint64_t n)
{
    assert(n > 0);
    return kp_random_next(r) % n;
}

struct slice kp_random_bytes(struct kp_random *r, size_t most)
{
    size_t n = (size_t)kp_random_below(r, most + 1);
    uint8_t *p = arena_alloc(r->arena, n + 1);
    assert(p);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)kp_random_next(r);
    return slice_of(p, n);
}

/* Numbers near the edges as often as anywhere. */
static uint64_t number(struct kp_random *r)
{
    switch (kp_random_below(r, 4)) {
    case 0: return 0;
    case 1: return UINT64_MAX;
    case 2: return UINT64_C(1) << kp_random_below(r, 64);
    default: return kp_random_next(r);
    }
}

static struct slice string(struct kp_random *r)
{
    struct slice s = kp_random_bytes(r, r->string_max);
    for (size_t i = 0; r->text && i < s.n; i++)
        ((uint8_t *)(uintptr_t)s.p)[i] = (uint8_t)(' ' + s.p[i] % 95);
    return s;
}

static void fill_value(struct kp_random *r, enum kp_kind kind, bool nullable, void *to)
{
    uint64_t v = number(r);
    bool null = nullable && kp_random_below(r, 4) == 0;
    switch (kind) {
    case KP_I8: *(int8_t *)to = (int8_t)v; break;
    case KP_BOOL: *(bool *)to = v & 1; break;
    case KP_I16:
    case KP_U16: *(uint16_t *)to = (uint16_t)v; break;
    case KP_I32:
    case KP_U32: *(uint32_t *)to = (uint32_t)v; break;
    case KP_I64: *(uint64_t *)to = v; break;
    case KP_F64: *(double *)to = (double)(int64_t)v; break;
    case KP_UUID:
        if (kp_random_below(r, 4))
            memcpy(to, &(uint64_t[2]){kp_random_next(r), kp_random_next(r)}, sizeof(struct uuid));
        break;
    case KP_STR: *(struct slice *)to = null ? SLICE_NULL : string(r); break;
    case KP_BYTES: *(struct slice *)to = null ? SLICE_NULL : kp_random_bytes(r, r->string_max); break;
    case KP_RECORDS:
        ((struct kp_records *)to)->bytes = null ? SLICE_NULL : kp_random_bytes(r, 3 * r->string_max);
        break;
    default: assert(0);
    }
}

static void fill_struct(struct kp_random *r, const struct kp_struct *s, int16_t version, void *body);

static size_t element_size(const struct kp_field *f)
{
    switch (f->element) {
    case KP_I8:
    case KP_BOOL: return 1;
    case KP_I16:
    case KP_U16: return 2;
    case KP_I32:
    case KP_U32: return 4;
    case KP_I64:
    case KP_F64: return 8;
    case KP_UUID: return sizeof(struct uuid);
    case KP_STR:
    case KP_BYTES: return sizeof(struct slice);
    default: return f->child->size_bytes;
    }
}

static void fill_many(struct kp_random *r, const struct kp_field *f, int16_t version, bool nullable,
                      uint8_t *body)
{
    int32_t n =
        nullable && kp_random_below(r, 4) == 0 ? -1 : (int32_t)kp_random_below(r, (uint64_t)r->list_max + 1);
    size_t size = element_size(f);
    uint8_t *v = n > 0 ? arena_array(r->arena, (size_t)n, size) : NULL;
    assert(n <= 0 || v);
    memcpy(body + f->at, &v, sizeof v);
    memcpy(body + f->count_at, &n, sizeof n);
    for (int32_t i = 0; i < n; i++) {
        if (f->kind == KP_ARRAY)
            fill_struct(r, f->child, version, v + (size_t)i * size);
        else
            fill_value(r, f->element, false, v + (size_t)i * size);
    }
}

static void fill_field(struct kp_random *r, const struct kp_field *f, int16_t version, uint8_t *body)
{
    bool nullable = version >= f->nullable_since && f->nullable_since != KP_NON_NULL;
    switch (f->kind) {
    case KP_LIST:
    case KP_ARRAY: fill_many(r, f, version, nullable, body); break;
    case KP_NEST: fill_struct(r, f->child, version, body + f->at); break;
    case KP_NEST_NULLABLE: {
        void *child =
            nullable && kp_random_below(r, 3) == 0 ? NULL : arena_alloc(r->arena, f->child->size_bytes);
        memcpy(body + f->at, &child, sizeof child);
        if (child)
            fill_struct(r, f->child, version, child);
        break;
    }
    default: fill_value(r, f->kind, nullable, body + f->at);
    }
}

/* Gives the members their defaults: kp_init of a message made of this structure. */
static void init_struct(const struct kp_struct *s, void *body)
{
    struct kp_message m = {.body = s};
    kp_init(&m, body);
}

static void fill_struct(struct kp_random *r, const struct kp_struct *s, int16_t version, void *body)
{
    init_struct(s, body);
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++) {
        bool leave = f->tag != KP_NO_TAG && kp_random_below(r, 3) == 0;
        if (version >= f->since && version <= f->until && !leave)
            fill_field(r, f, version, body);
    }
}

void kp_random_fill(struct kp_random *r, const struct kp_message *m, int16_t version, void *body)
{
    fill_struct(r, m->body, version, body);
}

size_t kp_every_message(const struct kp_named **out)
{
    static const struct kp_named all[] = {
#define API(key, name, text, first, last, flexible)                                                          \
    {text "Request", &kp_##name##_request_message}, {text "Response", &kp_##name##_response_message},
#include "proto/kafka/apis.def"
#undef API
#define METADATA_RECORD(type, name, text, first, last, flexible) {text, &kp_##name##_message},
#define RECORD(name, text, first, last, flexible)                {text, &kp_##name##_message},
#include "proto/kafka/records.def"
#undef METADATA_RECORD
#undef RECORD
    };
    *out = all;
    return sizeof all / sizeof all[0];
}
