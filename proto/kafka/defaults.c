#include "proto/kafka/wire_internal.h"

static const uint8_t empty[1];

size_t kp_kind_size_min(enum kp_kind kind, bool flexible)
{
    assert(kind != KP_NEST);
    if (kp_wire_sizes[kind])
        return kp_wire_sizes[kind];
    if (flexible || kind == KP_NEST_NULLABLE)
        return 1;
    return kind == KP_STR ? 2 : 4;
}

size_t kp_struct_size_min(const struct kp_struct *s, int16_t version, bool flexible)
{
    size_t n = flexible; /* the tagged section's count */
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++) {
        if (f->tag != KP_NO_TAG || !kp_on_wire(f, version))
            continue;
        n += f->kind == KP_NEST ? kp_struct_size_min(f->child, version, flexible)
                                : kp_kind_size_min(f->kind, flexible);
    }
    return n;
}

static void number_put(enum kp_kind kind, void *to, int64_t v)
{
    switch (kind) {
    case KP_I8: *(int8_t *)to = (int8_t)v; break;
    case KP_BOOL: *(bool *)to = v != 0; break;
    case KP_I16: *(int16_t *)to = (int16_t)v; break;
    case KP_U16: *(uint16_t *)to = (uint16_t)v; break;
    case KP_I32: *(int32_t *)to = (int32_t)v; break;
    case KP_U32: *(uint32_t *)to = (uint32_t)v; break;
    case KP_I64: *(int64_t *)to = v; break;
    case KP_F64: *(double *)to = (double)v; break;
    default: assert(false && "a number");
    }
}

static bool null_by_default(const struct kp_field *f)
{
    return f->dflt == KP_NIL;
}

void kp_field_default(const struct kp_field *f, void *body)
{
    void *to = kp_member(body, f);
    switch (f->kind) {
    case KP_UUID: *(struct uuid *)to = (struct uuid){0}; break;
    case KP_STR:
    case KP_BYTES: *(struct slice *)to = null_by_default(f) ? SLICE_NULL : slice_of(empty, 0); break;
    case KP_RECORDS: *(struct kp_records *)to = (struct kp_records){0}; break;
    case KP_LIST:
    case KP_ARRAY:
        kp_pointer_set(body, f, NULL);
        *kp_count(body, f) = null_by_default(f) ? -1 : 0;
        break;
    case KP_NEST: kp_struct_default(f->child, to); break;
    case KP_NEST_NULLABLE: kp_pointer_set(body, f, NULL); break;
    default: number_put(f->kind, to, f->dflt);
    }
}

void kp_struct_default(const struct kp_struct *s, void *body)
{
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++)
        kp_field_default(f, body);
}

void kp_init(const struct kp_message *m, void *body)
{
    memset(body, 0, m->body->size_bytes);
    kp_struct_default(m->body, body);
}
