#include "proto/kafka/codec_internal.h"

#define RATIO_FROM_BYTES ((size_t)16 << 20)
#define RATIO_MAX        400

static const char *const names[CODEC_COUNT] = {"none", "gzip", "snappy", "lz4", "zstd"};

struct codec_limits codec_limits_for(size_t message_bytes_max)
{
    size_t most = message_bytes_max > CODEC_BYTES_MAX_DEFAULT ? message_bytes_max : CODEC_BYTES_MAX_DEFAULT;
    return (struct codec_limits){
        .bytes_max = most, .ratio_from_bytes = RATIO_FROM_BYTES, .ratio_max = RATIO_MAX};
}

const char *codec_name(int codec)
{
    return codec >= 0 && codec < CODEC_COUNT ? names[codec] : "unknown";
}

int codec_parse(struct slice name, enum codec *out)
{
    for (int i = 0; i < CODEC_COUNT; i++) {
        if (slice_eq_str(name, names[i])) {
            *out = (enum codec)i;
            return 0;
        }
    }
    return -E_INVALID;
}

int codec_compress(enum codec codec, int level, struct slice in, struct buf *out)
{
    assert(in.p || in.n == 0);
    size_t before = out->n;
    int rc = -E_INVALID;
    switch (codec) {
    case CODEC_NONE:
        buf_put(out, in.p, in.n);
        rc = out->failed ? -E_LIMIT : 0;
        break;
    case CODEC_GZIP: rc = codec_gzip_pack(level, in, out); break;
    case CODEC_SNAPPY: rc = codec_snappy_pack(in, out); break;
    case CODEC_LZ4: rc = codec_lz4_pack(level, in, out); break;
    case CODEC_ZSTD: rc = codec_zstd_pack(level, in, out); break;
    case CODEC_COUNT: break;
    }
    if (rc)
        out->n = before;
    return rc;
}

uint8_t *outlet_room(struct outlet *o, size_t want, size_t *got)
{
    assert(o->made <= o->allowed);
    /* One byte more than may come shows that more would. */
    size_t left = o->allowed - o->made + 1;
    if (want > left)
        return NULL;
    size_t n = want > CODEC_PIECE_BYTES ? want : CODEC_PIECE_BYTES;
    if (n > left)
        n = left;
    if (n > o->to->limit - o->to->n && want <= o->to->limit - o->to->n)
        n = o->to->limit - o->to->n;
    *got = n;
    return n ? buf_room(o->to, n) : NULL;
}

int outlet_refused(struct outlet *o, size_t want)
{
    size_t left = o->allowed - o->made + 1;
    if (want > left || o->to->limit - o->to->n < (want ? want : 1))
        return err_set(o->err, -E_LIMIT, "decompressed data exceed %zu bytes", o->allowed);
    return err_set(o->err, -E_NOMEM, "no memory to decompress");
}

int outlet_made(struct outlet *o, size_t n)
{
    if (n > o->allowed - o->made)
        return outlet_refused(o, SIZE_MAX);
    o->made += n;
    buf_added(o->to, n);
    if (!o->sink || n == 0)
        return 0;
    int rc = o->sink(o->ctx, buf_slice(o->to));
    buf_clear(o->to);
    return rc;
}

/* As it is: still in pieces for a sink, so that its memory stays small. */
static int none_unpack(struct slice in, struct outlet *o)
{
    for (size_t at = 0, got; at < in.n; at += got) {
        uint8_t *room = outlet_room(o, 0, &got);
        if (!room)
            return outlet_refused(o, 0);
        if (got > in.n - at)
            got = in.n - at;
        memcpy(room, in.p + at, got);
        int rc = outlet_made(o, got);
        if (rc)
            return rc;
    }
    return 0;
}

static size_t allowed_for(size_t in_bytes, const struct codec_limits *l)
{
    size_t by_ratio;
    if (__builtin_mul_overflow(in_bytes, (size_t)l->ratio_max, &by_ratio) || by_ratio < l->ratio_from_bytes)
        by_ratio = by_ratio < l->ratio_from_bytes ? l->ratio_from_bytes : SIZE_MAX;
    return by_ratio < l->bytes_max ? by_ratio : l->bytes_max;
}

static int unpack(enum codec codec, struct slice in, struct outlet *o)
{
    int rc = -E_INVALID;
    switch (codec) {
    case CODEC_NONE: rc = none_unpack(in, o); break;
    case CODEC_GZIP: rc = codec_gzip_unpack(in, o); break;
    case CODEC_SNAPPY: rc = codec_snappy_unpack(in, o); break;
    case CODEC_LZ4: rc = codec_lz4_unpack(in, o); break;
    case CODEC_ZSTD: rc = codec_zstd_unpack(in, o); break;
    case CODEC_COUNT: break;
    }
    if (rc == -E_CORRUPT)
        err_set(o->err, rc, "malformed %s data", codec_name((int)codec));
    return rc;
}

int codec_decompress(enum codec codec, struct slice in, const struct codec_limits *limits, struct buf *out,
                     struct err *err)
{
    assert(in.p || in.n == 0);
    struct outlet o = {.to = out, .allowed = allowed_for(in.n, limits), .err = err};
    size_t before = out->n;
    int rc = unpack(codec, in, &o);
    if (rc)
        out->n = before;
    return rc;
}

int codec_stream(enum codec codec, struct slice in, const struct codec_limits *limits, codec_sink *sink,
                 void *ctx, struct err *err)
{
    assert(in.p || in.n == 0);
    struct outlet o = {.sink = sink, .ctx = ctx, .allowed = allowed_for(in.n, limits), .err = err};
    buf_init(&o.piece, o.allowed + 1);
    o.to = &o.piece;
    int rc = unpack(codec, in, &o);
    buf_fini(&o.piece);
    return rc;
}
