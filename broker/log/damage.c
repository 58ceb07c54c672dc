#include "broker/log/damage.h"

#include "base/core/bytes.h"
#include "base/core/crc32c.h"
#include "base/core/mutant.h"
#include "broker/log/walk.h"

#include <assert.h>
#include <stdlib.h>

/* CRCs over this many times the bytes searched, at most: hostile bytes could look like a batch everywhere. */
#define CRC_BUDGET_FACTOR 16

static bool plausible(const struct damage_site *site, int64_t at, const struct batch_header *h)
{
    assert(at > site->at);
    if (at + (int64_t)batch_size(h) > site->size || h->base_offset < site->expected_offset)
        return false;
    /* A batch of some bytes may hold many offsets, compressed; but not any number. */
    int64_t most = site->gaps ? INT32_MAX : (at - site->at) * 1024;
    return h->base_offset - site->expected_offset <= most && h->producer_id >= -1 &&
           (h->attributes & ~BATCH_ATTRIBUTES) == 0;
}

/* The header at `at` is possible, and the CRC of its batch right: 1, 0 or an error. */
static int valid_at(const struct damage_site *site, struct walk *w, int64_t at, int64_t *budget)
{
    assert(at + BATCH_HEADER_BYTES <= site->size);
    const uint8_t *p;
    int rc = walk_bytes(w, at, BATCH_HEADER_BYTES, &p);
    if (rc)
        return rc;
    if (walk_header(slice_of(p, BATCH_HEADER_BYTES), &w->h) || !plausible(site, at, &w->h))
        return 0;
    *budget -= (int64_t)batch_size(&w->h);
    w->position = at;
    return walk_crc_ok(w);
}

/* What the window holds from `at` on, read anew only when that is less than a header. */
static int window_from(struct walk *w, int64_t at, const uint8_t **p, int64_t *n)
{
    assert(at >= 0 && at < w->end);
    int64_t held = w->window_at + (int64_t)w->have - at;
    if (w->have > 0 && at >= w->window_at && held >= BATCH_HEADER_BYTES) {
        *p = w->window + (at - w->window_at);
        *n = held;
        return 0;
    }
    *n = w->end - at < (int64_t)WALK_WINDOW_SCAN ? w->end - at : (int64_t)WALK_WINDOW_SCAN;
    return walk_bytes(w, at, (size_t)*n, p);
}

/* The first valid batch behind site->at: 1 and *found; 0; or an error. */
static int search(const struct damage_site *site, struct walk *w, int64_t *budget, int64_t *found)
{
    assert(*budget >= 0);
    for (int64_t at = site->at + 1; at + BATCH_HEADER_BYTES <= site->size && *budget > 0;) {
        const uint8_t *p;
        int64_t n;
        int rc = window_from(w, at, &p, &n);
        if (rc)
            return rc;
        const uint8_t *magic = memchr(p + BATCH_MAGIC_AT, 2, (size_t)n - BATCH_MAGIC_AT);
        if (!magic) {
            at += n - BATCH_MAGIC_AT;
            continue;
        }
        at += magic - p - BATCH_MAGIC_AT;
        if (at + BATCH_HEADER_BYTES > site->size)
            break;
        if ((rc = valid_at(site, w, at, budget))) {
            *found = at;
            return rc;
        }
        at++;
    }
    return 0;
}

static int64_t count_valid(struct walk *w, int64_t at)
{
    assert(at >= 0 && at <= w->end);
    int64_t n = 0;
    w->at = at;
    while (walk_next(w) == 1 && walk_crc_ok(w) == 1)
        n++;
    return n;
}

static bool zeroes(const uint8_t *p, int64_t n)
{
    assert(n >= 0);
    for (int64_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

int damage_sector_lost(const struct damage_site *site, int64_t end)
{
    assert(site->at <= end && end <= site->size);
    uint8_t sector[DAMAGE_SECTOR], offset[8];
    be64_put(offset, (uint64_t)site->expected_offset);
    for (int64_t at = site->at; at < end;) {
        int64_t edge = at - at % DAMAGE_SECTOR + DAMAGE_SECTOR, stop = edge < site->size ? edge : site->size;
        ssize_t n = disk_pread(site->file, sector, (size_t)(stop - at), at);
        if (n < 0)
            return (int)n;
        /* Up to the sector's edge, also where the next batch begins in it: its offset may begin with zeroes. */
        if (n == stop - at && zeroes(sector, n)) {
            /* Few zeroes may be what the missing batch begins with: the high bytes of its offset. */
            bool first = at == site->at;
            if (!first || n >= BATCH_PREFIX_BYTES || memcmp(offset, sector, n < 8 ? (size_t)n : 8) != 0)
                return 1;
        }
        at = stop;
    }
    return 0;
}

/* The batch at site->at says that it ends beyond the file, but its CRC is right when it ends at `end`: not torn, its
 * length was changed. */
static int length_changed(const struct damage_site *site, struct walk *w, int64_t end)
{
    assert(end > site->at && end <= site->size);
    const uint8_t *p;
    if (end - site->at < BATCH_HEADER_BYTES)
        return 0;
    int rc = walk_bytes(w, site->at, BATCH_HEADER_BYTES, &p);
    if (rc)
        return rc;
    w->h.crc = be32_get(p + BATCH_CRC_AT);
    w->h.length = (int32_t)(end - site->at - BATCH_PREFIX_BYTES);
    w->position = site->at;
    return walk_crc_ok(w);
}

/* The claimed end of the batch at site->at; 0 when it has no possible header. */
static int64_t claimed_end(const struct damage_site *site, struct walk *w)
{
    assert(site->at <= site->size);
    const uint8_t *p;
    struct batch_header h;
    if (site->size - site->at < BATCH_HEADER_BYTES || walk_bytes(w, site->at, BATCH_HEADER_BYTES, &p) ||
        walk_header(slice_of(p, BATCH_HEADER_BYTES), &h) || h.base_offset != site->expected_offset)
        return 0;
    return site->at + (int64_t)batch_size(&h);
}

int damage_judge(const struct damage_site *site, struct damage_found *out)
{
    assert(site->at >= 0 && site->at <= site->size);
    *out = (struct damage_found){.next_valid = -1};
    if (MUTANT("corrupt_middle_as_tail"))
        return DAMAGE_TORN;
    struct walk w;
    walk_init(&w, site->file, site->at, site->size, WALK_WINDOW_SCAN);
    int64_t budget = (site->size - site->at) * CRC_BUDGET_FACTOR;
    int64_t next = -1;
    int rc = search(site, &w, &budget, &next);
    if (rc == 0) {
        rc = budget > 0 ? DAMAGE_TORN : DAMAGE_CORRUPT; /* not looked at to the end: nothing is cut */
    } else if (rc > 0) {
        out->next_valid = next;
        out->batches = count_valid(&w, next);
        if (claimed_end(site, &w) > site->size) {
            /* What follows may be the payload of a torn batch (a topic of log files), not our batches. */
            rc = length_changed(site, &w, next);
            rc = rc < 0 ? rc : rc ? DAMAGE_CORRUPT : DAMAGE_TORN;
        } else {
            rc = damage_sector_lost(site, next);
            rc = rc < 0 ? rc : rc ? DAMAGE_LOST : DAMAGE_CORRUPT;
        }
    }
    walk_fini(&w);
    return rc;
}
