#include "proto/kafka/wire_internal.h"

static const uint8_t empty[1];

size_t kp_kind_size(enum kp_kind kind)
{
    switch (kind) {
    case KP_I8: return sizeof(int8_t);
    case KP_I16: return sizeof(int16_t);
    case KP_U16: return sizeof(uint16_t);
    case KP_I32: return sizeof(int32_t);
    case KP_U32: return sizeof(uint32_t);
    case KP_I64: return sizeof(int64_t);
    case KP_F64: return sizeof(double);
    case KP_BOOL: return sizeof(bool);
    case KP_UUID: return sizeof(struct uuid);
    case KP_STR:
    case KP_BYTES: return sizeof(struct slice);
    case KP_RECORDS: return sizeof(struct kp_records);
    case KP_LIST:
    case KP_ARRAY:
    case KP_NEST:
    case KP_NEST_NULLABLE: break;
    }
    assert(false && "a value");
    return 0;
}

size_t kp_kind_size_min(enum kp_kind kind, bool flexible)
{
    switch (kind) {
    case KP_I8:
    case KP_BOOL:
    case KP_NEST_NULLABLE: return 1;
    case KP_I16:
    case KP_U16: return 2;
    case KP_I32:
    case KP_U32: return 4;
    case KP_I64:
    case KP_F64: return 8;
    case KP_UUID: return 16;
    case KP_STR: return flexible ? 1 : 2;
    case KP_BYTES:
    case KP_RECORDS:
    case KP_LIST:
    case KP_ARRAY: return flexible ? 1 : 4;
    case KP_NEST: break;
    }
    assert(false && "a kind of its own");
    return 0;
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

static int64_t number_get(enum kp_kind kind, const void *from)
{
    switch (kind) {
    case KP_I8: return *(const int8_t *)from;
    case KP_BOOL: return *(const bool *)from;
    case KP_I16: return *(const int16_t *)from;
    case KP_U16: return *(const uint16_t *)from;
    case KP_I32: return *(const int32_t *)from;
    case KP_U32: return *(const uint32_t *)from;
    case KP_I64: return *(const int64_t *)from;
    default: assert(false && "an integer"); return 0;
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

static bool struct_is_default(const struct kp_struct *s, const void *body)
{
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++)
        if (!kp_field_is_default(f, body))
            return false;
    return true;
}

bool kp_field_is_default(const struct kp_field *f, const void *body)
{
    const void *at = kp_member_const(body, f);
    switch (f->kind) {
    case KP_UUID: return uuid_is_zero(at);
    case KP_STR:
    case KP_BYTES: {
        const struct slice *s = at;
        /* A null where none may be goes out as empty. */
        return null_by_default(f) ? slice_is_null(*s)
                                  : s->n == 0 && (s->p || f->nullable_since == KP_NON_NULL);
    }
    case KP_RECORDS: {
        const struct kp_records *r = at;
        return slice_is_null(r->bytes) && r->segments_n == 0;
    }
    case KP_LIST:
    case KP_ARRAY: return kp_count_const(body, f) == (null_by_default(f) ? -1 : 0);
    case KP_NEST: return struct_is_default(f->child, at);
    case KP_NEST_NULLABLE: return kp_pointer(body, f) == NULL;
    case KP_F64: {
        double v = *(const double *)at, d = (double)f->dflt;
        return memcmp(&v, &d, sizeof v) == 0;
    }
    default: return number_get(f->kind, at) == f->dflt;
    }
}

void kp_init(const struct kp_message *m, void *body)
{
    memset(body, 0, m->body->size_bytes);
    kp_struct_default(m->body, body);
}
