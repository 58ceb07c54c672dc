/* What the interpreter's parts share: access to a member by its row, and which rows a version has. */
#ifndef SUNDOG_PROTO_KAFKA_WIRE_INTERNAL_H
#define SUNDOG_PROTO_KAFKA_WIRE_INTERNAL_H

#include "proto/kafka/wire.h"

#include <assert.h>

/* Kafka's reader refuses longer strings in either form. */
#define KP_STR_MAX INT16_MAX

static inline bool kp_is_flexible(const struct kp_message *m, int16_t version)
{
    return version >= m->flexible_since && m->flexible_since != KP_NEVER;
}

static inline bool kp_has_version(const struct kp_message *m, int16_t version)
{
    return version >= m->version_min && version <= m->version_max;
}

static inline bool kp_on_wire(const struct kp_field *f, int16_t version)
{
    return version >= f->since && version <= f->until;
}

static inline bool kp_nullable(const struct kp_field *f, int16_t version)
{
    return version >= f->nullable_since && f->nullable_since != KP_NON_NULL;
}

static inline void *kp_member(void *body, const struct kp_field *f)
{
    return (uint8_t *)body + f->at;
}

static inline const void *kp_member_const(const void *body, const struct kp_field *f)
{
    return (const uint8_t *)body + f->at;
}

static inline int32_t *kp_count(void *body, const struct kp_field *f)
{
    assert(f->kind == KP_LIST || f->kind == KP_ARRAY);
    return (int32_t *)(void *)((uint8_t *)body + f->count_at);
}

static inline int32_t kp_count_const(const void *body, const struct kp_field *f)
{
    assert(f->kind == KP_LIST || f->kind == KP_ARRAY);
    return *(const int32_t *)(const void *)((const uint8_t *)body + f->count_at);
}

/* The pointer member of a LIST, an ARRAY or a NEST_NULLABLE, whatever it points to. */
static inline void *kp_pointer(const void *body, const struct kp_field *f)
{
    void *p;
    memcpy(&p, kp_member_const(body, f), sizeof p);
    return p;
}

static inline void kp_pointer_set(void *body, const struct kp_field *f, void *p)
{
    memcpy(kp_member(body, f), &p, sizeof p);
}

#define KP_KINDS (KP_NEST_NULLABLE + 1)

/* What a value of this kind takes in memory; 0 for lists and structures. */
static const uint8_t kp_memory_sizes[KP_KINDS] = {
    [KP_I8] = sizeof(int8_t),          [KP_I16] = sizeof(int16_t),
    [KP_U16] = sizeof(uint16_t),       [KP_I32] = sizeof(int32_t),
    [KP_U32] = sizeof(uint32_t),       [KP_I64] = sizeof(int64_t),
    [KP_F64] = sizeof(double),         [KP_BOOL] = sizeof(bool),
    [KP_UUID] = sizeof(struct uuid),   [KP_STR] = sizeof(struct slice),
    [KP_BYTES] = sizeof(struct slice), [KP_RECORDS] = sizeof(struct kp_records),
};
/* What it takes on the wire; 0 where that is not fixed. */
static const uint8_t kp_wire_sizes[KP_KINDS] = {
    [KP_I8] = 1,  [KP_BOOL] = 1, [KP_I16] = 2, [KP_U16] = 2,   [KP_I32] = 4,
    [KP_U32] = 4, [KP_I64] = 8,  [KP_F64] = 8, [KP_UUID] = 16,
};

/* The fewest bytes a value, a structure can take on the wire. */
size_t kp_kind_size_min(enum kp_kind kind, bool flexible);
size_t kp_struct_size_min(const struct kp_struct *s, int16_t version, bool flexible);
/* Gives a zeroed structure, or one member, its default values. */
void kp_struct_default(const struct kp_struct *s, void *body);
void kp_field_default(const struct kp_field *f, void *body);

/* Quoted and escaped, or null; long ones are cut. */
void kp_print_bytes(struct slice s, struct buf *out);

#endif
