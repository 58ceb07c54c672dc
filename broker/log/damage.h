/* Bytes that are no batch, behind the recovery point: what are they?
 *
 *   torn     nothing valid follows: an append that never ended, a tail that was never flushed, reserved zeroes. Cut.
 *   lost     valid batches follow, but between lie sectors that read as zeroes where there should be bytes, or the file
 *            is too short: a power cut kept later pages of unflushed appends and lost earlier ones (each sector on its
 *            own: any subset may survive). None of it was acknowledged as flushed. Cut, and said.
 *   corrupt  valid batches follow and no sector is missing: written, and changed since. Never cut.
 *
 * A disk that turns flushed sectors into zeroes within the time since the last recovery point (a checkpoint flush) is
 * taken for "lost"; nothing in Kafka's format could tell. Pure but for reads; any thread. */
#ifndef SUNDOG_BROKER_LOG_DAMAGE_H
#define SUNDOG_BROKER_LOG_DAMAGE_H

#include "base/world/disk.h"

#define DAMAGE_SECTOR 512

enum damage { DAMAGE_TORN, DAMAGE_LOST, DAMAGE_CORRUPT };

struct damage_site {
    struct disk_file *file;
    int64_t at, size;        /* the bad bytes begin there; the file's size */
    int64_t expected_offset; /* of the batch that should be there */
    bool gaps;               /* offsets may be missing between batches (compacted topics) */
};

struct damage_found {
    int64_t next_valid; /* position of the first valid batch behind, -1 */
    int64_t batches;    /* valid batches from there on */
};

/* enum damage, or -E_IO, -E_NOMEM. */
int damage_judge(const struct damage_site *site, struct damage_found *out);
/* Some sector of [at, end) that should hold bytes reads as zeroes, or bytes are missing at the end. */
int damage_sector_lost(const struct damage_site *site, int64_t end);

#endif
