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

static inline void measure_length(struct measure *m, bool wide, int64_t n)
{
    m->bytes += m->flexible ? (int64_t)uvarint_size((uint64_t)(n + 1)) : wide ? 4 : 2;
}

static inline void measure_slice(struct measure *m, struct slice s, bool wide)
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

static inline void measure_value(struct measure *m, enum kp_kind kind, bool nullable, const void *at)
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
    default: m->bytes += kp_wire_sizes[kind];
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
        m->bytes += (int64_t)n * kp_wire_sizes[f->element];
    }
}

static inline void measure_field(struct measure *m, const struct kp_field *f, const void *body)
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

static bool field_is_default(const struct kp_field *f, const void *body);

static bool struct_is_default(const struct kp_struct *s, const void *body)
{
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++)
        if (!field_is_default(f, body))
            return false;
    return true;
}

static inline bool number_is_default(const struct kp_field *f, const void *at)
{
    switch (kp_wire_sizes[f->kind]) {
    case 1: return *(const uint8_t *)at == (uint8_t)f->dflt;
    case 2: return *(const uint16_t *)at == (uint16_t)f->dflt;
    case 4: return *(const uint32_t *)at == (uint32_t)f->dflt;
    default: return *(const uint64_t *)at == (uint64_t)f->dflt;
    }
}

static bool field_is_default(const struct kp_field *f, const void *body)
{
    const void *at = kp_member_const(body, f);
    switch (f->kind) {
    case KP_UUID: return uuid_is_zero(at);
    case KP_STR:
    case KP_BYTES: {
        const struct slice *s = at;
        if (f->dflt == KP_NIL)
            return slice_is_null(*s);
        /* A null where none may be goes out as empty. */
        return s->n == 0 && (s->p || f->nullable_since == KP_NON_NULL);
    }
    case KP_RECORDS: return records_null(at);
    case KP_LIST:
    case KP_ARRAY: return kp_count_const(body, f) == (f->dflt == KP_NIL ? -1 : 0);
    case KP_NEST: return struct_is_default(f->child, at);
    case KP_NEST_NULLABLE: return kp_pointer(body, f) == NULL;
    case KP_F64: {
        double v = *(const double *)at, d = (double)f->dflt;
        return memcmp(&v, &d, sizeof v) == 0;
    }
    default: return number_is_default(f, at);
    }
}

/* Tagged members that have their default value are not sent. */
static inline bool is_tagged(const struct kp_field *f, const void *body, int16_t version)
{
    return f->tag != KP_NO_TAG && kp_on_wire(f, version) && !field_is_default(f, body);
}

static void measure_struct(struct measure *m, const struct kp_struct *s, const void *body)
{
    uint32_t tagged = 0;
    for (const struct kp_field *f = s->fields, *end = f + s->fields_n; f < end; f++) {
        if (f->tag == KP_NO_TAG) {
            if (kp_on_wire(f, m->version))
                measure_field(m, f, body);
        } else if (is_tagged(f, body, m->version)) {
            int64_t before = m->bytes;
            measure_field(m, f, body);
            m->bytes +=
                (int64_t)(uvarint_size((uint64_t)f->tag) + uvarint_size((uint64_t)(m->bytes - before)));
            tagged++;
        }
    }
    assert(m->flexible || tagged == 0);
    if (m->flexible)
        m->bytes += (int64_t)uvarint_size(tagged);
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

static inline void write_bytes(struct writer *w, const void *p, size_t n)
{
    assert((size_t)(w->end - w->p) >= n);
    if (n)
        memcpy(w->p, p, n);
    w->p += n;
}

static inline void write_length(struct writer *w, bool wide, int64_t n)
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

static inline void write_fixed(struct writer *w, enum kp_kind kind, const void *at)
{
    size_t n = kp_wire_sizes[kind];
    assert(n > 0 && (size_t)(w->end - w->p) >= n);
    switch (n) {
    case 1: *w->p = *(const uint8_t *)at; break;
    case 2: be16_put(w->p, *(const uint16_t *)at); break;
    case 4: be32_put(w->p, *(const uint32_t *)at); break;
    case 8: {
        uint64_t v;
        memcpy(&v, at, sizeof v);
        be64_put(w->p, v);
        break;
    }
    default: memcpy(w->p, at, sizeof(struct uuid));
    }
    w->p += n;
}

static inline void write_value(struct writer *w, enum kp_kind kind, bool nullable, const void *at)
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
    size_t size = kp_memory_sizes[f->element];
    for (int32_t i = 0; i < n; i++, at += size)
        write_value(w, f->element, false, at);
}

static inline void write_field(struct writer *w, const struct kp_field *f, const void *body)
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

/* The tagged members that differ from their default, by rising tag: the rows of one structure have their tags in
 * rising order (a test holds them to it), so their order in `present`, a bit for each row, does. */
static void write_tags(struct writer *w, const struct kp_struct *s, const void *body, uint64_t present)
{
    w->p += uvarint_put(w->p, (uint64_t)__builtin_popcountll(present));
    for (; present; present &= present - 1) {
        const struct kp_field *f = &s->fields[__builtin_ctzll(present)];
        struct measure m = {.version = w->version, .flexible = true};
        measure_field(&m, f, body);
        w->p += uvarint_put(w->p, (uint64_t)f->tag);
        w->p += uvarint_put(w->p, (uint64_t)m.bytes);
        write_field(w, f, body);
    }
    assert(w->p <= w->end);
}

static void write_struct(struct writer *w, const struct kp_struct *s, const void *body)
{
    uint64_t present = 0;
    assert(s->fields_n <= 64);
    for (size_t i = 0; i < s->fields_n; i++) {
        const struct kp_field *f = &s->fields[i];
        if (f->tag != KP_NO_TAG)
            present |= (uint64_t)is_tagged(f, body, w->version) << i;
        else if (kp_on_wire(f, w->version))
            write_field(w, f, body);
    }
    if (w->flexible)
        write_tags(w, s, body, present);
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
