/* Struct → bytes, in two passes over the rows: measure, then write into room of that very size. */
#include "proto/kafka/wire_internal.h"

#include "base/core/bytes.h"
#include "base/core/varint.h"

/* What a message takes: all of it, and of that what the pieces refer to instead of copying it. */
struct measure {
    int64_t bytes, referred;
    size_t pieces; /* that the references add */
    int16_t version;
    bool flexible;
    int failed; /* the first -E_… */
};

static void measure_struct(struct measure *m, const struct kp_struct *s, const void *body);

static void refuse(struct measure *m)
{
    if (!m->failed)
        m->failed = -E_INVALID;
}

static void measure_length(struct measure *m, bool wide, int64_t n)
{
    m->bytes += m->flexible ? (int64_t)uvarint_size((uint64_t)(n + 1)) : wide ? 4 : 2;
}

static void measure_slice(struct measure *m, struct slice s, bool wide)
{
    if (s.n > (wide ? (size_t)INT32_MAX : (size_t)KP_STR_MAX))
        refuse(m);
    measure_length(m, wide, (int64_t)s.n);
    m->bytes += (int64_t)s.n;
}

static int64_t records_size(const struct kp_records *r)
{
    int64_t n = (int64_t)r->bytes.n;
    for (int32_t i = 0; i < r->segments_n; i++)
        n += (int64_t)r->segments[i].size_bytes;
    return n;
}

static void measure_records(struct measure *m, const struct kp_records *r)
{
    assert(r->segments_n == 0 || slice_is_null(r->bytes));
    int64_t n = records_size(r);
    if (n > INT32_MAX)
        refuse(m);
    measure_length(m, true, n);
    m->bytes += n;
    m->referred += n;
    if (n)
        m->pieces += (r->segments_n ? (size_t)r->segments_n : 1) + 1; /* and what follows */
}

static void measure_value(struct measure *m, enum kp_kind kind, bool nullable, const void *at)
{
    switch (kind) {
    case KP_STR:
    case KP_BYTES: {
        struct slice s = *(const struct slice *)at;
        if (slice_is_null(s) && nullable)
            measure_length(m, kind == KP_BYTES, -1);
        else
            measure_slice(m, s, kind == KP_BYTES);
        break;
    }
    case KP_RECORDS: measure_records(m, at); break;
    default: m->bytes += (int64_t)kp_kind_size_min(kind, true);
    }
}

/* Records are null when they have neither bytes nor segments; a null length takes as much room as an empty
 * one. */
static bool records_null(const struct kp_records *r)
{
    return slice_is_null(r->bytes) && r->segments_n == 0;
}

static void measure_many(struct measure *m, const struct kp_field *f, const void *body)
{
    int32_t n = kp_count_const(body, f);
    if (n < -1 || (n == -1 && !kp_nullable(f, m->version))) {
        refuse(m);
        return;
    }
    measure_length(m, true, n);
    const uint8_t *at = kp_pointer(body, f);
    assert(at || n <= 0);
    if (f->kind == KP_ARRAY) {
        for (int32_t i = 0; i < n; i++, at += f->child->size_bytes)
            measure_struct(m, f->child, at);
    } else if (f->element == KP_STR || f->element == KP_BYTES) {
        for (int32_t i = 0; i < n; i++, at += sizeof(struct slice))
            measure_value(m, f->element, false, at);
    } else if (n > 0) {
        m->bytes += (int64_t)n * (int64_t)kp_kind_size_min(f->element, true);
    }
}

static void measure_field(struct measure *m, const struct kp_field *f, const void *body)
{
    switch (f->kind) {
    case KP_LIST:
    case KP_ARRAY: measure_many(m, f, body); break;
    case KP_NEST: measure_struct(m, f->child, kp_member_const(body, f)); break;
    case KP_NEST_NULLABLE: {
        const void *child = kp_pointer(body, f);
        m->bytes += 1;
        if (child)
            measure_struct(m, f->child, child);
        else if (!kp_nullable(f, m->version))
            refuse(m);
        break;
    }
    default: measure_value(m, f->kind, kp_nullable(f, m->version), kp_member_const(body, f));
    }
}

static bool is_tagged(const struct kp_field *f, const void *body, int16_t version)
{
    return f->tag != KP_NO_TAG && kp_on_wire(f, version) && !kp_field_is_default(f, body);
}

static void measure_tags(struct measure *m, const struct kp_struct *s, const void *body)
{
    uint32_t count = 0;
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++) {
        if (!is_tagged(f, body, m->version))
            continue;
        int64_t before = m->bytes;
        measure_field(m, f, body);
        m->bytes += (int64_t)(uvarint_size((uint64_t)f->tag) + uvarint_size((uint64_t)(m->bytes - before)));
        count++;
    }
    m->bytes += (int64_t)uvarint_size(count);
}

static void measure_struct(struct measure *m, const struct kp_struct *s, const void *body)
{
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++)
        if (f->tag == KP_NO_TAG && kp_on_wire(f, m->version))
            measure_field(m, f, body);
    if (m->flexible)
        measure_tags(m, s, body);
}

static struct measure measure(const struct kp_message *message, int16_t version, const void *body)
{
    struct measure m = {.version = version, .flexible = kp_is_flexible(message, version)};
    if (!kp_has_version(message, version))
        m.failed = -E_VERSION;
    else
        measure_struct(&m, message->body, body);
    return m;
}

/* Where the second pass writes. With `pieces`, records are referred to: the open piece begins at `open`. */
struct writer {
    uint8_t *p, *end, *open;
    struct kp_pieces *pieces;
    size_t pieces_max;
    int16_t version;
    bool flexible;
};

static void write_struct(struct writer *w, const struct kp_struct *s, const void *body);

static void write_bytes(struct writer *w, const void *p, size_t n)
{
    assert((size_t)(w->end - w->p) >= n);
    if (n)
        memcpy(w->p, p, n);
    w->p += n;
}

static void write_length(struct writer *w, bool wide, int64_t n)
{
    assert(w->end - w->p >= (w->flexible ? 1 : wide ? 4 : 2));
    if (w->flexible) {
        w->p += uvarint_put(w->p, (uint64_t)(n + 1));
    } else if (wide) {
        be32_put(w->p, (uint32_t)n);
        w->p += 4;
    } else {
        be16_put(w->p, (uint16_t)n);
        w->p += 2;
    }
}

static void add_piece(struct writer *w, struct kp_piece piece)
{
    assert(w->pieces->n < w->pieces_max);
    w->pieces->v[w->pieces->n++] = piece;
}

/* What has been written since the last reference becomes a piece. */
static void close_piece(struct writer *w)
{
    if (w->p > w->open)
        add_piece(w, (struct kp_piece){.bytes = slice_of(w->open, (size_t)(w->p - w->open))});
    w->open = w->p;
}

static void write_records(struct writer *w, const struct kp_records *r, bool nullable)
{
    write_length(w, true, records_null(r) && nullable ? -1 : records_size(r));
    if (!w->pieces) {
        assert(r->segments_n == 0);
        write_bytes(w, r->bytes.p, r->bytes.n);
        return;
    }
    if (records_size(r) == 0)
        return;
    close_piece(w);
    if (r->bytes.n)
        add_piece(w, (struct kp_piece){.bytes = r->bytes});
    for (int32_t i = 0; i < r->segments_n; i++)
        if (r->segments[i].size_bytes)
            add_piece(w, (struct kp_piece){.segment = r->segments[i]});
}

static void write_fixed(struct writer *w, enum kp_kind kind, const void *at)
{
    size_t n = kp_kind_size_min(kind, true);
    assert((size_t)(w->end - w->p) >= n);
    switch (kind) {
    case KP_I8: *w->p = (uint8_t) * (const int8_t *)at; break;
    case KP_BOOL: *w->p = *(const bool *)at; break;
    case KP_I16:
    case KP_U16: be16_put(w->p, *(const uint16_t *)at); break;
    case KP_I32:
    case KP_U32: be32_put(w->p, *(const uint32_t *)at); break;
    case KP_I64:
    case KP_F64: {
        uint64_t v;
        memcpy(&v, at, sizeof v);
        be64_put(w->p, v);
        break;
    }
    case KP_UUID: memcpy(w->p, at, n); break;
    default: assert(false && "a value of fixed size");
    }
    w->p += n;
}

static void write_value(struct writer *w, enum kp_kind kind, bool nullable, const void *at)
{
    switch (kind) {
    case KP_STR:
    case KP_BYTES: {
        const struct slice *s = at;
        write_length(w, kind == KP_BYTES, slice_is_null(*s) && nullable ? -1 : (int64_t)s->n);
        write_bytes(w, s->p, s->n);
        break;
    }
    case KP_RECORDS: write_records(w, at, nullable); break;
    default: write_fixed(w, kind, at);
    }
}

static void write_many(struct writer *w, const struct kp_field *f, const void *body)
{
    int32_t n = kp_count_const(body, f);
    const uint8_t *at = kp_pointer(body, f);
    write_length(w, true, n);
    if (f->kind == KP_ARRAY) {
        for (int32_t i = 0; i < n; i++, at += f->child->size_bytes)
            write_struct(w, f->child, at);
        return;
    }
    size_t size = kp_kind_size(f->element);
    for (int32_t i = 0; i < n; i++, at += size)
        write_value(w, f->element, false, at);
}

static void write_field(struct writer *w, const struct kp_field *f, const void *body)
{
    switch (f->kind) {
    case KP_LIST:
    case KP_ARRAY: write_many(w, f, body); break;
    case KP_NEST: write_struct(w, f->child, kp_member_const(body, f)); break;
    case KP_NEST_NULLABLE: {
        const void *child = kp_pointer(body, f);
        write_bytes(w, child ? "\x01" : "\xff", 1);
        if (child)
            write_struct(w, f->child, child);
        break;
    }
    default: write_value(w, f->kind, kp_nullable(f, w->version), kp_member_const(body, f));
    }
}

/* The tagged members that differ from their default, by rising tag. Rows of one structure have their tags in
 * rising order (a unit test holds them to it), so one walk does. */
static void write_tags(struct writer *w, const struct kp_struct *s, const void *body)
{
    uint32_t count = 0;
    const struct kp_field *end = s->fields + s->fields_n;
    for (const struct kp_field *f = s->fields; f < end; f++)
        count += is_tagged(f, body, w->version);
    w->p += uvarint_put(w->p, count);
    for (const struct kp_field *f = s->fields; f < end && count; f++) {
        if (!is_tagged(f, body, w->version))
            continue;
        struct measure m = {.version = w->version, .flexible = true};
        measure_field(&m, f, body);
        w->p += uvarint_put(w->p, (uint64_t)f->tag);
        w->p += uvarint_put(w->p, (uint64_t)m.bytes);
        write_field(w, f, body);
        count--;
    }
    assert(w->p <= w->end);
}

static void write_struct(struct writer *w, const struct kp_struct *s, const void *body)
{
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++)
        if (f->tag == KP_NO_TAG && kp_on_wire(f, w->version))
            write_field(w, f, body);
    if (w->flexible)
        write_tags(w, s, body);
}

int64_t kp_size(const struct kp_message *m, int16_t version, const void *body)
{
    struct measure size = measure(m, version, body);
    return size.failed ? size.failed : size.bytes;
}

/* Are there file segments anywhere? Pieces only are written for them; the copying encoder refuses. */
static bool has_segments(const struct kp_struct *s, const void *body)
{
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++) {
        if (f->kind == KP_RECORDS && ((const struct kp_records *)kp_member_const(body, f))->segments_n)
            return true;
        const uint8_t *at = f->kind == KP_NEST ? kp_member_const(body, f) : NULL;
        int32_t n = f->kind == KP_NEST;
        if (f->kind == KP_ARRAY) {
            at = kp_pointer(body, f);
            n = kp_count_const(body, f);
        }
        for (int32_t i = 0; i < n; i++, at += f->child->size_bytes)
            if (has_segments(f->child, at))
                return true;
    }
    return false;
}

int kp_encode(const struct kp_message *m, int16_t version, const void *body, struct buf *out)
{
    struct measure size = measure(m, version, body);
    if (size.failed)
        return size.failed;
    if (size.pieces && has_segments(m->body, body))
        return -E_INVALID;
    if (size.bytes > INT32_MAX)
        return -E_LIMIT;
    uint8_t *room = buf_room(out, (size_t)size.bytes);
    if (!room)
        return -E_LIMIT;
    struct writer w = {.p = room, .end = room + size.bytes, .version = version, .flexible = size.flexible};
    write_struct(&w, m->body, body);
    assert(w.p == w.end);
    buf_added(out, (size_t)size.bytes);
    return 0;
}

int kp_encode_pieces(const struct kp_message *m, int16_t version, const void *body, size_t reserve,
                     struct arena *arena, struct kp_pieces *out)
{
    struct measure size = measure(m, version, body);
    *out = (struct kp_pieces){0};
    if (size.failed)
        return size.failed;
    if (size.bytes > INT32_MAX - (int64_t)reserve)
        return -E_LIMIT;
    size_t copied = reserve + (size_t)(size.bytes - size.referred), most = size.pieces + 1;
    uint8_t *room = arena_alloc(arena, copied);
    out->v = ARENA_NEWS(arena, struct kp_piece, most);
    if (!room || !out->v)
        return -E_LIMIT;
    struct writer w = {.p = room + reserve,
                       .end = room + copied,
                       .open = room,
                       .pieces = out,
                       .pieces_max = most,
                       .version = version,
                       .flexible = size.flexible};
    write_struct(&w, m->body, body);
    assert(w.p == w.end);
    close_piece(&w);
    out->size_bytes = reserve + (size_t)size.bytes;
    return 0;
}
