#include "broker/metadata/replay.h"

#include "broker/metadata/batches.h"
#include "broker/metadata/image_internal.h"
#include "proto/kafka/batch.h"

#include <assert.h>

void replay_init(struct replay *r, struct image *base_take, int64_t offset_next, struct image_reaper *reaper)
{
    assert(base_take);
    assert(offset_next > image_offset(base_take));
    *r = (struct replay){.img = base_take, .offset_next = offset_next, .reaper = reaper};
    image_set_reaper(base_take, reaper);
    arena_init(&r->arena, REPLAY_ARENA_MAX);
}

void replay_fini(struct replay *r)
{
    if (r->open)
        image_edit_drop(&r->edit);
    image_unref(r->img);
    arena_fini(&r->arena);
    *r = (struct replay){0};
}

struct applying {
    struct replay *r;
    struct err *err;
};

static int apply_record(void *arg, int64_t offset, const struct metadata_record *record)
{
    const struct applying *a = arg;
    (void)offset;
    return image_edit_apply(&a->r->edit, record, a->err);
}

void replay_set_kraft_version(struct replay *r, int16_t kraft_version)
{
    assert(!r->open);
    assert(kraft_version >= 0);
    r->img->kraft_version = kraft_version;
}

int replay_batch(struct replay *r, struct slice batch, struct err *err)
{
    struct batch_header h;
    int rc = batch_header_read(batch, &h, err);
    if (rc < 0)
        return rc;
    if (h.base_offset != r->offset_next)
        return err_set(err, -E_CORRUPT, "the metadata log goes on at offset %lld, expected %lld",
                       (long long)h.base_offset, (long long)r->offset_next);
    /* neither offset nor epoch is under the checksum */
    if (h.leader_epoch < image_epoch(r->img))
        return err_set(err, -E_CORRUPT, "the metadata log goes back to epoch %d at offset %lld",
                       (int)h.leader_epoch, (long long)h.base_offset);
    if (batch_last_offset(&h) < h.base_offset)
        return err_set(err, -E_CORRUPT, "the metadata batch at offset %lld ends before it begins",
                       (long long)h.base_offset);
    if (!r->open) {
        rc = image_edit_begin(&r->edit, r->img);
        if (rc < 0)
            return err_set(err, rc, "no memory for the metadata image");
    }
    r->open = true; /* what replay_fini has to release, should this fail */
    if (!batch_is(&h, BATCH_CONTROL)) {
        struct applying a = {r, err};
        rc = metadata_batch_each(batch, &r->arena, apply_record, &a, err);
        arena_reset(&r->arena);
        if (rc < 0)
            return rc;
    }
    r->offset_next = batch_last_offset(&h) + 1;
    if (image_edit_in_transaction(&r->edit))
        return 0;
    struct image *next = image_edit_finish(&r->edit, batch_last_offset(&h), h.leader_epoch, h.max_timestamp);
    r->open = false;
    image_set_reaper(next, r->reaper);
    assert(image_offset(next) > image_offset(r->img));
    assert(image_offset(next) < r->offset_next);
    image_unref(r->img);
    r->img = next;
    return 0;
}
