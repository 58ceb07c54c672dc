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

/* The size of a value of this kind in memory; not for lists and structures. */
size_t kp_kind_size(enum kp_kind kind);
/* The fewest bytes a value, a structure can take on the wire. */
size_t kp_kind_size_min(enum kp_kind kind, bool flexible);
size_t kp_struct_size_min(const struct kp_struct *s, int16_t version, bool flexible);
/* Gives a zeroed structure, or one member, its default values. */
void kp_struct_default(const struct kp_struct *s, void *body);
void kp_field_default(const struct kp_field *f, void *body);
/* Has this member its default value? Tagged members that have are not sent. */
bool kp_field_is_default(const struct kp_field *f, const void *body);

/* Quoted and escaped, or null; long ones are cut. */
void kp_print_bytes(struct slice s, struct buf *out);

#endif
