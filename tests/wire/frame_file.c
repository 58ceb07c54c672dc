#include "tests/wire/frame_file.h"

#include "base/core/bytes.h"
#include "tests/support/kp_random.h"

#include <stdio.h>
#include <stdlib.h>

#define FIXED_BYTES 6 /* what, key, version, length of the name */
#define ROOM        ((size_t)64 << 20)

struct slice file_read(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return SLICE_NULL;
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    rewind(f);
    uint8_t *p = malloc(n + 1);
    if (p && fread(p, 1, n, f) != n) {
        free(p);
        p = NULL;
    }
    if (p)
        p[n] = 0;
    fclose(f);
    return slice_of(p, n);
}

static const struct kp_message *message_of(const struct frame_entry *e)
{
    const struct kp_api *api = kp_api_find(e->key);
    if (e->what != FRAME_RECORD)
        return !api ? NULL : e->what == FRAME_REQUEST ? &api->request : &api->response;
    const struct kp_named *all;
    size_t n = kp_every_message(&all);
    for (size_t i = 0; i < n; i++)
        if (strcmp(all[i].name, e->name) == 0)
            return all[i].message;
    return NULL;
}

int frame_entry_next(struct slice *rest, struct frame_entry *out)
{
    if (rest->n == 0)
        return 0;
    const uint8_t *p = rest->p + 4;
    size_t n = rest->n < 4 ? 0 : be32_get(rest->p);
    if (n < FIXED_BYTES || n > rest->n - 4 || p[5] + (size_t)FIXED_BYTES > n || p[5] >= sizeof out->name)
        return -1;
    *out = (struct frame_entry){
        .what = (enum frame_what)p[0], .key = (int16_t)be16_get(p + 1), .version = (int16_t)be16_get(p + 3)};
    memcpy(out->name, p + FIXED_BYTES, p[5]);
    out->bytes = slice_of(p + FIXED_BYTES + p[5], n - FIXED_BYTES - p[5]);
    out->message = message_of(out);
    *rest = slice_of(p + n, rest->n - 4 - n);
    return 1;
}

void frame_entry_put(struct buf *out, const struct frame_entry *e)
{
    size_t name = strlen(e->name);
    buf_put_be32(out, (uint32_t)(FIXED_BYTES + name + e->bytes.n));
    buf_put_u8(out, (uint8_t)e->what);
    buf_put_be16(out, (uint16_t)e->key);
    buf_put_be16(out, (uint16_t)e->version);
    buf_put_u8(out, (uint8_t)name);
    buf_put(out, e->name, name);
    buf_put(out, e->bytes.p, e->bytes.n);
}

int frame_entry_check(const struct frame_entry *e, char *why, size_t why_size)
{
    struct arena arena;
    struct buf again;
    struct err err = {0};
    arena_init(&arena, ROOM);
    buf_init(&again, ROOM);
    void *body = arena_alloc(&arena, e->message->body->size_bytes);
    int rc = kp_decode(e->message, e->version, e->bytes, &arena, body, NULL, &err);
    snprintf(why, why_size, "%s v%d: %s", e->name, e->version, err.text);
    if (!rc) {
        rc = kp_encode(e->message, e->version, body, &again);
        snprintf(why, why_size, "%s v%d: encode gives %d", e->name, e->version, rc);
    }
    if (!rc && !slice_eq(buf_slice(&again), e->bytes)) {
        size_t at = 0;
        while (at < again.n && at < e->bytes.n && again.p[at] == e->bytes.p[at])
            at++;
        snprintf(why, why_size, "%s v%d: differs at byte %zu of %zu (we: %zu)", e->name, e->version, at,
                 e->bytes.n, again.n);
        rc = -1;
    }
    arena_fini(&arena);
    buf_fini(&again);
    return rc ? -1 : 0;
}
