/* Our rows against what Kafka's own libraries say of every message (tests/data/kafka). */
#include "proto/kafka/errors.h"
#include "proto/kafka/wire.h"

#include "tests/support/kp_random.h"
#include "tests/wire/frame_file.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define DATA      "tests/data/kafka/"
#define PATH_MAX_ 256
#define ROOM      ((size_t)4 << 20)

static const char *kind_name(enum kp_kind k)
{
    switch (k) {
    case KP_I8: return "int8";
    case KP_I16: return "int16";
    case KP_U16: return "uint16";
    case KP_I32: return "int32";
    case KP_U32: return "uint32";
    case KP_I64: return "int64";
    case KP_F64: return "float64";
    case KP_BOOL: return "boolean";
    case KP_UUID: return "uuid";
    case KP_STR: return "string";
    case KP_BYTES: return "bytes";
    case KP_RECORDS: return "records";
    case KP_ARRAY:
    case KP_NEST:
    case KP_NEST_NULLABLE: return "struct";
    case KP_LIST: break;
    }
    return "?";
}

static bool is_many(const struct kp_field *f)
{
    return f->kind == KP_LIST || f->kind == KP_ARRAY;
}

static void put_range(struct buf *out, int first, int last)
{
    if (first > last)
        return;
    buf_printf(out, first == last ? "%d" : "%d-%d", first, last);
}

static int min(int a, int b)
{
    return a < b ? a : b;
}

static int max(int a, int b)
{
    return a > b ? a : b;
}

/* ---- apis.tsv: one line a member, its versions in a column ---- */

static void api_lines(struct buf *out, const char *head, const char *prefix, const struct kp_struct *s,
                      int first, int last)
{
    for (const struct kp_field *f = s->fields; f < s->fields + s->fields_n; f++) {
        int since = max(f->since, first), until = min(f->until, last);
        char path[PATH_MAX_];
        snprintf(path, sizeof path, "%s%s", prefix, f->name);
        buf_printf(out, "%s\t%s\t%s%s\t", head, path, is_many(f) ? "[]" : "",
                   kind_name(f->kind == KP_LIST ? f->element : f->kind));
        put_range(out, since, until);
        buf_put_u8(out, '\t');
        put_range(out, max(f->nullable_since, since), until);
        buf_put_u8(out, '\t');
        if (f->tag != KP_NO_TAG)
            buf_printf(out, "%d", f->tag);
        buf_put_u8(out, '\n');
        if (f->child) {
            size_t n = strlen(path);
            snprintf(path + n, sizeof path - n, "%s", is_many(f) ? "[]." : ".");
            api_lines(out, head, path, f->child, since, until);
        }
    }
}

static void api_message(struct buf *out, const struct kp_api *api, const char *what,
                        const struct kp_message *m)
{
    char head[PATH_MAX_];
    snprintf(head, sizeof head, "%d\t%s\t%s", api->key, api->name, what);
    buf_printf(out, "%s\t.\tmessage\t", head);
    put_range(out, m->version_min, m->version_max);
    buf_put_u8(out, '\t');
    put_range(out, max(m->flexible_since, m->version_min), m->version_max);
    buf_put(out, "\t\n", 2);
    api_lines(out, head, "", m->body, m->version_min, m->version_max);
}

/* The lines of `text` that begin with `head`, cut behind column `columns`. */
static void lines_of(struct buf *out, struct slice text, const char *head, int columns)
{
    const char *p = (const char *)text.p, *end = p + text.n;
    size_t n = strlen(head);
    while (p < end) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        stop = stop ? stop : end;
        if ((size_t)(stop - p) >= n && memcmp(p, head, n) == 0) {
            int column = 0;
            const char *to = p;
            for (; to < stop; to++)
                if (*to == '\t' && ++column == columns)
                    break;
            buf_put(out, p, (size_t)(to - p));
            buf_put_u8(out, '\n');
        }
        p = stop + 1;
    }
}

/* Fails at the first line that differs. */
static void same_lines(struct buf *ours, struct buf *theirs, const char *what)
{
    buf_put_u8(ours, 0);
    buf_put_u8(theirs, 0);
    char *a = (char *)ours->p, *b = (char *)theirs->p;
    cr_assert_neq(*b, 0, "%s: Kafka's tables have no such message", what);
    while (*a || *b) {
        size_t n = strcspn(a, "\n"), m = strcspn(b, "\n");
        cr_assert(n == m && memcmp(a, b, n) == 0, "%s differs\n  ours:  %.*s\n  Kafka: %.*s", what, (int)n, a,
                  (int)m, b);
        a += n + (a[n] != 0);
        b += m + (b[m] != 0);
    }
}

/* Is `v` in a line's sixth column, "3-13" or "13"? */
static bool line_has_version(const char *line, size_t n, int v)
{
    const char *p = line;
    int first, last;
    for (int column = 1; column < 6; column++)
        p = (const char *)memchr(p, '\t', n - (size_t)(p - line)) + 1;
    int got = sscanf(p, "%d-%d", &first, &last);
    return got > 0 && v >= first && v <= (got == 2 ? last : first);
}

/* Lines of one version only: members of different versions have no order among themselves. */
static void lines_with_version(struct buf *out, const struct buf *in, int v)
{
    const char *p = (const char *)in->p, *end = p + in->n;
    buf_clear(out);
    while (p < end) {
        size_t n = (size_t)((const char *)memchr(p, '\n', (size_t)(end - p)) - p) + 1;
        if (line_has_version(p, n, v))
            buf_put(out, p, n);
        p += n;
    }
}

Test(rows, apis_are_kafkas)
{
    struct slice text = file_read(DATA "apis.tsv");
    cr_assert(!slice_is_null(text));
    size_t n;
    const struct kp_api *apis = kp_api_table(&n);
    struct buf our_version, their_version;
    buf_init(&our_version, ROOM);
    buf_init(&their_version, ROOM);
    for (size_t i = 0; i < n; i++)
        for (int response = 0; response < 2; response++) {
            struct buf ours, theirs;
            char head[100];
            buf_init(&ours, ROOM);
            buf_init(&theirs, ROOM);
            snprintf(head, sizeof head, "%d\t%s\t%s\t", apis[i].key, apis[i].name,
                     response ? "response" : "request");
            lines_of(&theirs, text, head, 8);
            api_message(&ours, &apis[i], response ? "response" : "request",
                        response ? &apis[i].response : &apis[i].request);
            for (int16_t v = apis[i].request.version_min; v <= apis[i].request.version_max; v++) {
                lines_with_version(&our_version, &ours, v);
                lines_with_version(&their_version, &theirs, v);
                same_lines(&our_version, &their_version, head);
            }
            buf_fini(&ours);
            buf_fini(&theirs);
        }
    buf_fini(&our_version);
    buf_fini(&their_version);
    free((void *)(uintptr_t)text.p);
}

/* ---- records.tsv: every version by itself, types as serialised ---- */

struct at {
    const char *name;
    int16_t version;
    bool flexible;
};

static void record_struct(struct buf *out, const struct at *a, const char *prefix, const struct kp_struct *s);

static void record_type(struct buf *out, const struct at *a, const struct kp_field *f)
{
    enum kp_kind k = f->kind == KP_LIST ? f->element : f->kind;
    bool bytes = k == KP_STR || k == KP_BYTES;
    if (is_many(f))
        buf_printf(out, "%s[]", a->flexible ? "compact_" : "");
    if (bytes && a->flexible)
        buf_printf(out, "compact_");
    if (bytes && !is_many(f) && a->version >= f->nullable_since)
        buf_printf(out, "nullable_");
    buf_printf(out, "%s", kind_name(k));
}

static void record_field(struct buf *out, const struct at *a, const char *prefix, const struct kp_field *f)
{
    char path[PATH_MAX_];
    snprintf(path, sizeof path, "%s%s", prefix, f->name);
    buf_printf(out, "%s\t%d\t%s\t", a->name, a->version, path);
    if (f->tag != KP_NO_TAG)
        buf_printf(out, "tag %d ", f->tag);
    record_type(out, a, f);
    buf_put_u8(out, '\n');
    if (f->child) {
        size_t n = strlen(path);
        snprintf(path + n, sizeof path - n, "%s", is_many(f) ? "[]." : ".");
        record_struct(out, a, path, f->child);
    }
}

static void record_struct(struct buf *out, const struct at *a, const char *prefix, const struct kp_struct *s)
{
    for (int tagged = 0; tagged < 1 + (int)a->flexible; tagged++) {
        if (tagged)
            buf_printf(out, "%s\t%d\t%s_tagged\ttagged_fields\n", a->name, a->version, prefix);
        for (const struct kp_field *f = s->fields; f < s->fields + s->fields_n; f++)
            if ((f->tag != KP_NO_TAG) == (tagged == 1) && a->version >= f->since && a->version <= f->until)
                record_field(out, a, prefix, f);
    }
}

Test(rows, persisted_records_are_kafkas)
{
    struct slice text = file_read(DATA "records.tsv");
    cr_assert(!slice_is_null(text));
    const struct kp_named *all;
    size_t n = kp_every_message(&all), apis_n;
    kp_api_table(&apis_n);
    for (size_t i = 2 * apis_n; i < n; i++) {
        const struct kp_message *m = all[i].message;
        struct buf ours, theirs;
        char head[100];
        buf_init(&ours, ROOM);
        buf_init(&theirs, ROOM);
        snprintf(head, sizeof head, "%s\t", all[i].name);
        lines_of(&theirs, text, head, 4);
        for (int16_t v = m->version_min; v <= m->version_max; v++) {
            struct at a = {all[i].name, v, v >= m->flexible_since};
            record_struct(&ours, &a, "", m->body);
        }
        if (m->body->fields_n > 0)
            same_lines(&ours, &theirs, all[i].name);
        buf_fini(&ours);
        buf_fini(&theirs);
    }
    free((void *)(uintptr_t)text.p);
}

/* ---- defaults.tsv ---- */

static void put_default(struct buf *out, const struct kp_field *f)
{
    switch (f->kind) {
    case KP_STR:
    case KP_BYTES:
    case KP_LIST:
    case KP_ARRAY: buf_printf(out, f->dflt == KP_NIL ? "null" : "empty"); break;
    case KP_RECORDS:
    case KP_NEST_NULLABLE: buf_printf(out, "null"); break;
    case KP_NEST: buf_printf(out, "struct"); break;
    case KP_BOOL: buf_printf(out, f->dflt ? "true" : "false"); break;
    default: buf_printf(out, "%" PRId64, f->dflt);
    }
}

static void default_lines(struct buf *out, const char *name, const char *prefix, const struct kp_struct *s,
                          const struct kp_message *m)
{
    for (const struct kp_field *f = s->fields; f < s->fields + s->fields_n; f++) {
        char path[PATH_MAX_];
        snprintf(path, sizeof path, "%s%s", prefix, f->name);
        buf_printf(out, "%s\t%s\t", name, path);
        if (f->nullable_since != KP_NON_NULL)
            buf_printf(out, "%d", max(max(f->nullable_since, f->since), m->version_min));
        buf_put_u8(out, '\t');
        put_default(out, f);
        buf_put_u8(out, '\n');
        if (f->child) {
            size_t n = strlen(path);
            snprintf(path + n, sizeof path - n, "%s", is_many(f) ? "[]." : ".");
            default_lines(out, name, path, f->child, m);
        }
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Kafka's file lists members as versions bring them up: order does not count here. */
static void sort_lines(struct buf *b)
{
    char *lines[2000], *copy = malloc(b->n + 1);
    size_t n = 0, at = 0;
    memcpy(copy, b->p, b->n);
    copy[b->n] = 0;
    for (char *p = copy; *p; p += strlen(p) + 1) {
        lines[n++] = p;
        p[strcspn(p, "\n")] = 0;
    }
    qsort(lines, n, sizeof lines[0], by_text);
    for (size_t i = 0; i < n; i++)
        for (const char *c = lines[i];; c++) {
            b->p[at++] = (uint8_t)(*c ? *c : '\n');
            if (!*c)
                break;
        }
    cr_assert_eq(at, b->n);
    free(copy);
}

Test(rows, defaults_and_nullability_are_kafkas)
{
    struct slice text = file_read(DATA "defaults.tsv");
    cr_assert(!slice_is_null(text));
    const struct kp_named *all;
    size_t n = kp_every_message(&all);
    for (size_t i = 0; i < n; i++) {
        struct buf ours, theirs;
        char head[100];
        buf_init(&ours, ROOM);
        buf_init(&theirs, ROOM);
        snprintf(head, sizeof head, "%s\t", all[i].name);
        lines_of(&theirs, text, head, 4);
        default_lines(&ours, all[i].name, "", all[i].message->body, all[i].message);
        if (all[i].message->body->fields_n > 0) {
            sort_lines(&ours);
            sort_lines(&theirs);
            same_lines(&ours, &theirs, all[i].name);
        }
        buf_fini(&ours);
        buf_fini(&theirs);
    }
    free((void *)(uintptr_t)text.p);
}

/* ---- errors.tsv ---- */

Test(rows, errors_are_kafkas)
{
    struct slice text = file_read(DATA "errors.tsv");
    struct buf ours;
    cr_assert(!slice_is_null(text));
    buf_init(&ours, ROOM);
    for (int16_t code = -1; code < 1000; code++)
        if (strcmp(kafka_error_name(code), "UNKNOWN") != 0)
            buf_printf(&ours, "%d\t%s\t%s\n", code, kafka_error_name(code),
                       kafka_error_retriable(code) ? "retriable" : "");
    struct buf theirs;
    buf_init(&theirs, ROOM);
    buf_put(&theirs, text.p, text.n);
    same_lines(&ours, &theirs, "errors");
    cr_assert_eq(kafka_error_of(0), KE_NONE);
    cr_assert_eq(kafka_error_of(-E_VERSION), KE_UNSUPPORTED_VERSION);
    cr_assert_eq(kafka_error_of(-9999), KE_UNKNOWN_SERVER_ERROR);
    buf_fini(&ours);
    buf_fini(&theirs);
    free((void *)(uintptr_t)text.p);
}

/* ---- the rows among themselves ---- */

static void sound(const struct kp_struct *s, const struct kp_message *m, const char *name, int depth)
{
    int16_t tag = -1;
    cr_assert(depth < 8, "%s nests too deep", name);
    for (const struct kp_field *f = s->fields; f < s->fields + s->fields_n; f++) {
        cr_assert(f->since <= f->until && f->since <= m->version_max && f->until >= m->version_min, "%s.%s",
                  s->name, f->name);
        if (f->tag != KP_NO_TAG) {
            cr_assert(f->tag > tag, "%s.%s: tags must rise", s->name, f->name);
            cr_assert(f->since >= m->flexible_since, "%s.%s: a tag in a version without tags", s->name,
                      f->name);
            tag = f->tag;
        }
        cr_assert((f->child != NULL) == (f->kind >= KP_ARRAY), "%s.%s", s->name, f->name);
        cr_assert(f->dflt != KP_NIL || f->nullable_since != KP_NON_NULL,
                  "%s.%s: null by default, but never null", s->name, f->name);
        cr_assert(f->at < s->size_bytes && f->count_at < s->size_bytes);
        if (f->child)
            sound(f->child, m, name, depth + 1);
    }
}

Test(rows, are_sound_among_themselves)
{
    const struct kp_named *all;
    size_t n = kp_every_message(&all);
    for (size_t i = 0; i < n; i++) {
        const struct kp_message *m = all[i].message;
        cr_assert(m->version_min >= 0 && m->version_min <= m->version_max, "%s", all[i].name);
        sound(m->body, m, all[i].name, 0);
    }
    const char *name;
    cr_assert_eq(kp_metadata_record_find(kp_type_topic_record, &name), &kp_topic_record_message);
    cr_assert_str_eq(name, "TopicRecord");
    cr_assert_null(kp_metadata_record_find(6, &name));
    cr_assert_null(name);
    cr_assert_null(kp_metadata_record_find(1000, NULL));
}
