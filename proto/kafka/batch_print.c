#include "proto/kafka/batch_print.h"

#include "base/core/bytes.h"
#include "proto/kafka/batch.h"
#include "proto/kafka/wire_internal.h"

#include <inttypes.h>

#define PRINT_INDENT      2
#define PAYLOAD_BYTES_MAX ((size_t)100 << 20)

static void print_attributes(const struct batch_header *h, struct buf *out)
{
    static const struct {
        enum batch_attribute bit;
        const char *name;
    } names[] = {
        {BATCH_LOG_APPEND_TIME, "LogAppendTime"},
        {BATCH_TRANSACTIONAL, "transactional"},
        {BATCH_CONTROL, "control"},
        {BATCH_DELETE_HORIZON, "delete horizon"},
    };
    buf_printf(out, "%s", codec_name(batch_codec(h)));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (batch_is(h, names[i].bit))
            buf_printf(out, ", %s", names[i].name);
}

static void print_header(const struct batch_header *h, int indent, struct buf *out)
{
    buf_printf(out, "%*sbatch of %zu bytes: offsets %" PRId64 " to %" PRId64 ", %" PRId32 " records, ",
               indent, "", batch_size(h), h->base_offset, batch_last_offset(h), h->records_n);
    print_attributes(h, out);
    buf_printf(out, ", leader epoch %" PRId32 ", timestamps %" PRId64 " to %" PRId64, h->leader_epoch,
               h->base_timestamp, h->max_timestamp);
    if (batch_has_producer(h))
        buf_printf(out, ", producer %" PRId64 " epoch %d sequence %" PRId32, h->producer_id,
                   h->producer_epoch, h->base_sequence);
    buf_printf(out, "\n");
}

static const char *control_name(enum control_type type)
{
    switch (type) {
    case CONTROL_ABORT: return "abort";
    case CONTROL_COMMIT: return "commit";
    case CONTROL_LEADER_CHANGE: return "leader change";
    case CONTROL_SNAPSHOT_HEADER: return "snapshot header";
    case CONTROL_SNAPSHOT_FOOTER: return "snapshot footer";
    case CONTROL_KRAFT_VERSION: return "kraft version";
    case CONTROL_KRAFT_VOTERS: return "kraft voters";
    case CONTROL_UNKNOWN: break;
    }
    return "of unknown type";
}

static void print_record(const struct batch_header *h, const struct record *r, int indent, struct buf *out)
{
    struct slice rest = r->headers;
    struct record_header header;
    enum control_type type;
    buf_printf(out, "%*s%" PRId64 " at %" PRId64, indent, "", r->offset, r->timestamp);
    if (batch_is(h, BATCH_CONTROL) && control_type_read(r, &type) == 0)
        buf_printf(out, " %s", control_name(type));
    buf_printf(out, " key ");
    kp_print_bytes(r->key, out);
    buf_printf(out, " value ");
    kp_print_bytes(r->value, out);
    while (record_header_next(&rest, &header) == 1) {
        buf_printf(out, " header ");
        kp_print_bytes(header.key, out);
        buf_put_u8(out, '=');
        kp_print_bytes(header.value, out);
    }
    buf_put_u8(out, '\n');
}

static void print_records(const struct batch_header *h, struct slice batch, int indent, struct buf *out)
{
    struct codec_limits limits = codec_limits_for(PAYLOAD_BYTES_MAX);
    struct buf scratch;
    struct slice payload;
    struct err err = {0};
    struct record_walk w;
    struct record r;
    int rc, n = 0;
    buf_init(&scratch, limits.bytes_max + 1);
    if (batch_payload(h, batch, &limits, &scratch, &payload, &err)) {
        buf_printf(out, "%*s%s\n", indent, "", err.text);
        buf_fini(&scratch);
        return;
    }
    record_walk_init(&w, h, payload);
    while ((rc = record_next(&w, &r)) == 1 && n++ < BATCH_PRINT_RECORDS_MAX && !out->failed)
        print_record(h, &r, indent, out);
    if (rc < 0)
        buf_printf(out, "%*smalformed record\n", indent, "");
    else if (rc == 1)
        buf_printf(out, "%*sand %" PRId32 " more\n", indent, "", w.left + 1);
    buf_fini(&scratch);
}

void batch_print(struct slice bytes, int indent, struct buf *out)
{
    assert(indent >= 0);
    while (bytes.n > 0 && !out->failed) {
        struct batch_header h;
        struct err err = {0};
        int rc = batch_read(bytes, &h, &err);
        if (rc) {
            buf_printf(out, "%*s%s (%zu bytes)\n", indent, "", err.text, bytes.n);
            if (rc != -E_CORRUPT || h.length == 0 || batch_size(&h) > bytes.n ||
                batch_size(&h) < BATCH_HEADER_BYTES)
                return;
        }
        print_header(&h, indent, out);
        if (rc)
            return;
        size_t n = batch_size(&h);
        assert(n >= BATCH_HEADER_BYTES && n <= bytes.n);
        print_records(&h, slice_of(bytes.p, n), indent + PRINT_INDENT, out);
        bytes = slice_of(bytes.p + n, bytes.n - n);
    }
}
