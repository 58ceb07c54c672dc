/* Response memory: counted while anybody holds it, recycled where it is large (fresh megabytes cost a page fault every
 * four kilobytes). What is held and what is kept come to no more than the limit together, a single larger one and small
 * ones excepted. */
#include "proto/client/client_internal.h"

#include <stdlib.h>
#include <string.h>

/* Large frames are made a little larger, so that the next one fits. */
#define FRAME_ROUND ((size_t)256 * 1024)

struct client_frames *client_frames_create(size_t limit_bytes, void (*freed)(void *arg), void *arg)
{
    struct client_frames *f = calloc(1, sizeof *f);
    if (f)
        *f = (struct client_frames){.limit_bytes = limit_bytes, .freed = freed, .arg = arg};
    return f;
}

static size_t capacity_for(size_t size)
{
    return size > CLIENT_FRAME_SMALL ? (size + FRAME_ROUND - 1) / FRAME_ROUND * FRAME_ROUND : size;
}

static struct client_frame *pop_kept(struct client_frames *f, unsigned i)
{
    assert(i < f->kept_n);
    struct client_frame *frame = f->kept[i];
    f->kept_n--;
    memmove(&f->kept[i], &f->kept[i + 1], (f->kept_n - i) * sizeof f->kept[0]);
    assert(f->kept_bytes >= frame->capacity);
    f->kept_bytes -= frame->capacity;
    return frame;
}

/* Until `size` more would fit beside what is used, or nothing is kept. */
static void drop_kept(struct client_frames *f, size_t size)
{
    while (f->kept_n && f->used_bytes + f->kept_bytes + size > f->limit_bytes)
        free(pop_kept(f, 0));
}

void client_frames_destroy(struct client_frames *f)
{
    if (!f)
        return;
    drop_kept(f, SIZE_MAX / 2);
    assert(f->kept_n == 0 && f->kept_bytes == 0);
    f->orphaned = true;
    f->freed = NULL;
    if (f->live == 0)
        free(f);
}

bool client_frames_room(const struct client_frames *f, size_t size)
{
    return size <= CLIENT_FRAME_SMALL || f->used_bytes == 0 ||
           f->used_bytes + capacity_for(size) <= f->limit_bytes;
}

/* A kept frame that fits without wasting most of itself: the one put back last, whose lines may still be cached. */
static struct client_frame *take_kept(struct client_frames *f, size_t size)
{
    for (unsigned i = f->kept_n; i-- > 0;) {
        struct client_frame *frame = f->kept[i];
        if (frame->capacity >= size && frame->capacity / 4 <= size)
            return pop_kept(f, i);
    }
    return NULL;
}

struct client_frame *client_frame_new(struct client_frames *f, size_t size)
{
    assert(!f->orphaned);
    assert(size > 0);
    struct client_frame *frame = size > CLIENT_FRAME_SMALL ? take_kept(f, size) : NULL;
    if (!frame) {
        size_t capacity = capacity_for(size);
        drop_kept(f, capacity);
        frame = malloc(sizeof *frame + capacity);
        if (!frame)
            return NULL;
        frame->capacity = capacity;
    }
    assert(frame->capacity >= size);
    frame->frames = f;
    frame->refs = 1;
    frame->stays = false;
    frame->size = size;
    f->used_bytes += frame->capacity;
    f->live++;
    return frame;
}

struct client_frame *client_frame_ref(struct client_frame *f)
{
    assert(f->refs > 0);
    f->refs++;
    return f;
}

size_t client_frame_bytes(const struct client_frame *f)
{
    return f->size;
}

bool client_frame_stay(struct client_frame *frame)
{
    struct client_frames *f = frame->frames;
    if (!frame->stays && f->staying_bytes + frame->capacity > f->limit_bytes / 4 * 3)
        return false;
    f->staying_bytes += frame->stays ? 0 : frame->capacity;
    frame->stays = true;
    client_frame_ref(frame);
    assert(f->staying_bytes <= f->used_bytes);
    assert(frame->refs > 1);
    return true;
}

void client_frame_unref(struct client_frame *frame)
{
    if (!frame)
        return;
    assert(frame->refs > 0);
    if (--frame->refs)
        return;
    struct client_frames *f = frame->frames;
    assert(f->live > 0);
    assert(f->used_bytes >= frame->capacity);
    assert(!frame->stays || f->staying_bytes >= frame->capacity);
    f->used_bytes -= frame->capacity;
    f->staying_bytes -= frame->stays ? frame->capacity : 0;
    f->live--;
    bool large = frame->capacity > CLIENT_FRAME_SMALL && frame->capacity <= CLIENT_FRAME_KEPT_MAX;
    bool fits = f->used_bytes + f->kept_bytes + frame->capacity <= f->limit_bytes;
    if (!f->orphaned && large && fits && f->kept_n < CLIENT_FRAMES_KEPT) {
        f->kept[f->kept_n++] = frame;
        f->kept_bytes += frame->capacity;
    } else {
        free(frame);
    }
    if (f->orphaned && f->live == 0)
        free(f);
    else if (f->freed)
        f->freed(f->arg);
}
