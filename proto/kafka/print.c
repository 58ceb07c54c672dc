/* Struct → text for people: one member a line, two columns of indent a level. */
#include "proto/kafka/batch_print.h"
#include "proto/kafka/wire_internal.h"

#include <inttypes.h>

#define PRINT_BYTES_MAX 4096 /* of one string; what is longer is cut and says so */
#define PRINT_INDENT    2

static void print_struct(const struct kp_struct *s, int16_t version, const void *body, int indent,
                         struct buf *out);

void kp_print_bytes(struct slice s, struct buf *out)
{
    if (slice_is_null(s)) {
        buf_printf(out, "null");
        return;
    }
    buf_put_u8(out, '"');
    for (size_t i = 0; i < s.n && i < PRINT_BYTES_MAX; i++) {
        uint8_t c = s.p[i];
        if (c == '"' || c == '\\')
            buf_printf(out, "\\%c", c);
        else if (c >= 0x20 && c < 0x7f)
            buf_put_u8(out, c);
        else
            buf_printf(out, "\\x%02x", c);
    }
    buf_put_u8(out, '"');
    if (s.n > PRINT_BYTES_MAX)
        buf_printf(out, " (%zu bytes)", s.n);
}

/* Bytes of ours as batches; file segments are not here to be read. */
static void print_records(const struct kp_records *r, int indent, struct buf *out)
{
    if (slice_is_null(r->bytes) && r->segments_n == 0) {
        buf_printf(out, "null\n");
        return;
    }
    size_t n = r->bytes.n;
    for (int32_t i = 0; i < r->segments_n; i++)
        n += r->segments[i].size_bytes;
    buf_printf(out, "(%zu bytes)\n", n);
    batch_print(r->bytes, indent + PRINT_INDENT, out);
}

static void print_value(enum kp_kind kind, const void *at, struct buf *out)
{
    char text[UUID_TEXT_SIZE];
    switch (kind) {
    case KP_I8: buf_printf(out, "%d", *(const int8_t *)at); break;
    case KP_I16: buf_printf(out, "%d", *(const int16_t *)at); break;
    case KP_U16: buf_printf(out, "%u", *(const uint16_t *)at); break;
    case KP_I32: buf_printf(out, "%" PRId32, *(const int32_t *)at); break;
    case KP_U32: buf_printf(out, "%" PRIu32, *(const uint32_t *)at); break;
    case KP_I64: buf_printf(out, "%" PRId64, *(const int64_t *)at); break;
    case KP_F64: buf_printf(out, "%.17g", *(const double *)at); break;
    case KP_BOOL: buf_printf(out, *(const bool *)at ? "true" : "false"); break;
    case KP_UUID: buf_printf(out, "%s", uuid_text(at, text)); break;
    case KP_STR:
    case KP_BYTES: kp_print_bytes(*(const struct slice *)at, out); break;
    case KP_RECORDS:
    case KP_LIST:
    case KP_ARRAY:
    case KP_NEST:
    case KP_NEST_NULLABLE: assert(false && "a value");
    }
}

static void print_list(const struct kp_field *f, const void *body, struct buf *out)
{
    int32_t n = kp_count_const(body, f);
    const uint8_t *at = kp_pointer(body, f);
    assert(at || n <= 0);
    size_t size = kp_memory_sizes[f->element];
    if (n < 0) {
        buf_printf(out, " null\n");
        return;
    }
    buf_printf(out, " [");
    for (int32_t i = 0; i < n; i++, at += size) {
        if (i)
            buf_printf(out, ", ");
        print_value(f->element, at, out);
    }
    buf_printf(out, "]\n");
}

static void print_array(const struct kp_field *f, int16_t version, const void *body, int indent,
                        struct buf *out)
{
    int32_t n = kp_count_const(body, f);
    const uint8_t *at = kp_pointer(body, f);
    if (n <= 0) {
        buf_printf(out, n < 0 ? " null\n" : " []\n");
        return;
    }
    buf_printf(out, "\n");
    for (int32_t i = 0; i < n; i++, at += f->child->size_bytes) {
        buf_printf(out, "%*s[%" PRId32 "]\n", indent + PRINT_INDENT, "", i);
        print_struct(f->child, version, at, indent + 2 * PRINT_INDENT, out);
    }
}

static void print_field(const struct kp_field *f, int16_t version, const void *body, int indent,
                        struct buf *out)
{
    buf_printf(out, "%*s%s:", indent, "", f->name);
    switch (f->kind) {
    case KP_LIST: print_list(f, body, out); break;
    case KP_ARRAY: print_array(f, version, body, indent, out); break;
    case KP_NEST:
        buf_printf(out, "\n");
        print_struct(f->child, version, kp_member_const(body, f), indent + PRINT_INDENT, out);
        break;
    case KP_NEST_NULLABLE:
        buf_printf(out, kp_pointer(body, f) ? "\n" : " null\n");
        if (kp_pointer(body, f))
            print_struct(f->child, version, kp_pointer(body, f), indent + PRINT_INDENT, out);
        break;
    case KP_RECORDS:
        buf_put_u8(out, ' ');
        print_records(kp_member_const(body, f), indent, out);
        break;
    default:
        buf_put_u8(out, ' ');
        print_value(f->kind, kp_member_const(body, f), out);
        buf_put_u8(out, '\n');
    }
}

static void print_struct(const struct kp_struct *s, int16_t version, const void *body, int indent,
                         struct buf *out)
{
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end && !out->failed; f++)
        if (kp_on_wire(f, version))
            print_field(f, version, body, indent, out);
}

void kp_print(const struct kp_message *m, int16_t version, const void *body, struct buf *out)
{
    print_struct(m->body, version, body, 0, out);
}
