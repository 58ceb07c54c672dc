/* Pairing as a lane does it: target records come from the survey's reading, source records from whoever reads the
 * source; both wait here for each other. */
#include "mirror/target/lane.h"

#include "base/core/mutant.h"

#include <stdlib.h>

/* Source records that wait; more are not wanted, though what has been read already is taken. */
#define ITEMS_WANTED 4096

void lane_pair_reset(struct lane *l)
{
    if (l->pairing)
        pairing_fini(l->pairing);
    free(l->pairing);
    l->pairing = NULL;
    l->reading = false;
    l->items_n = l->items_at = 0;
    l->source_missing = -1;
    l->source_end_us = 0;
}

int64_t lane_pair_from(const struct lane *l)
{
    assert(l->acked_next <= l->at.source_next);
    if (MUTANT("pair_from_covered"))
        return l->at.source_next;
    return l->at.source_next - l->acked_next <= LANE_PAIR_BACK ? l->acked_next : l->at.source_next;
}

bool lane_pair_begin(struct lane *l)
{
    if (l->pairing)
        return true;
    assert(l->survey == LANE_SURVEY_START); /* nothing is in memory that it could be compared with instead */
    assert(l->pair_from <= l->at.source_next);
    l->pairing = calloc(1, sizeof *l->pairing);
    if (l->pairing && pairing_init(l->pairing, l->at.number_next, l->pair_from, l->append_time) == 0)
        return true;
    lane_pair_reset(l);
    lane_restart(l, "out of memory");
    return false;
}

static bool pairing_over(const struct lane *l)
{
    return pairing_state(l->pairing) == PAIRING_DONE || pairing_state(l->pairing) == PAIRING_UNCERTAIN;
}

/* Starts to want the source once there is something to compare it with. */
static void open_pairing(struct lane *l)
{
    if (lane_state(l) != LANE_SURVEYING)
        return;
    l->served = false;
    l->taken_next = l->pair_from;
    lane_move(l, LANE_PAIRING);
}

bool lane_pair_absent(struct lane *l, int64_t n)
{
    if (!lane_pair_begin(l))
        return false;
    for (; n > 0; n--) {
        if (!pairing_target(l->pairing, l->read_number, -1, false, (struct pairing_content){0})) {
            open_pairing(l);
            return false;
        }
        l->read_number++;
    }
    return true;
}

static bool pair_record(struct lane *l, int64_t number, int64_t offset, const struct record *r)
{
    struct pairing_content c = {0};
    if (r)
        c = (struct pairing_content){r->timestamp, pairing_print(r->key, r->value, r->headers, r->headers_n)};
    if (number < l->read_number)
        return true;
    assert(number == l->read_number);
    if (!pairing_target(l->pairing, number, offset, r != NULL, c))
        return false;
    l->read_number++;
    return true;
}

bool lane_pair_batch(struct lane *l, const struct batch_header *h, struct slice batch)
{
    struct codec_limits limits = codec_limits_for(CODEC_BYTES_MAX_DEFAULT);
    struct slice payload;
    struct err err;
    int64_t number = lane_unwrap(l, h->base_sequence), end = number + lane_covers(h);

    buf_clear(&l->verify_payload);
    int rc = batch_payload(h, batch, &limits, &l->verify_payload, &payload, &err);
    struct record_walk w;
    struct record r;
    if (!rc)
        record_walk_init(&w, h, payload);
    while (!rc && (rc = record_next(&w, &r)) == 1) {
        rc = 0;
        /* Numbers without a record in between have been compacted away; their offsets are known all the same. */
        for (; l->read_number < number + r.offset_delta;)
            if (!pair_record(l, l->read_number, h->base_offset + (l->read_number - number), NULL))
                goto full;
        if (!pair_record(l, number + r.offset_delta, r.offset, &r))
            goto full;
    }
    if (rc < 0) {
        lane_halt(l, APPENDER_REASON_TARGET_ERROR,
                  "partition %d: the batch at offset %lld cannot be read: %s", l->c.partition,
                  (long long)h->base_offset, err_str(rc));
        return true;
    }
    while (l->read_number < end)
        if (!pair_record(l, l->read_number, h->base_offset + (l->read_number - number), NULL))
            goto full;
    if (batch_is(h, BATCH_LOG_APPEND_TIME)) {
        l->append_time = true;
        l->pairing->ignore_time = true;
    }
    return true;
full:
    open_pairing(l);
    return false;
}

bool lane_pair_wants(const struct lane *l)
{
    if (!l->pairing || pairing_over(l))
        return false;
    return l->items_n < ITEMS_WANTED;
}

static void give_items(struct lane *l)
{
    while (l->items_n && pairing_state(l->pairing) == PAIRING_WANTS_SOURCE) {
        assert(l->items_at + l->items_n <= l->items_cap);
        struct lane_source_item i = l->items[l->items_at++];
        l->items_n--;
        if (i.missing < l->pairing->missing_last)
            i.missing = l->pairing->missing_last; /* read again, and something has come or gone meanwhile */
        pairing_source(l->pairing, i.offset, i.missing, i.content);
    }
    if (l->items_n == 0)
        l->items_at = 0;
}

static void conclude(struct lane *l)
{
    struct pairing *p = l->pairing;
    assert(p->target_ended);
    assert(!l->reading);
    assert(lane_state(l) == LANE_PAIRING);
    assert(list_empty(&l->batches));
    assert(l->read_number >= l->at.number_next);
    for (size_t i = 0; i < p->runs_n; i++) {
        if (!lane_add_run(l, p->runs[i].src_start, p->runs[i].dst_start, p->runs[i].count)) {
            lane_restart(l, "out of memory");
            return;
        }
    }
    if (p->orphans > 0)
        lane_note(l, &(struct appender_note){.kind = APPENDER_ORPHANS,
                                             .number = l->at.number_next,
                                             .offset = l->at.end_offset,
                                             .count = p->orphans,
                                             .producer_id = l->c.producer_id});
    assert(p->position >= l->acked_next);
    if (p->position > l->at.source_next)
        l->at.source_next = p->position;
    l->acked_next = p->position;
    l->taken_next = l->at.source_next;
    l->at.number_next = l->number_built = l->read_number;
    l->at.end_offset = l->end;
    l->at.end_epoch = l->end_epoch;
    lane_pair_reset(l);
    lane_healed(l);
    lane_move(l, LANE_READY);
}

void lane_pair_feed(struct lane *l)
{
    if (!l->pairing)
        return;
    if (!l->reading)
        open_pairing(l);
    give_items(l);
    if (pairing_state(l->pairing) == PAIRING_DONE)
        conclude(l);
    else if (pairing_state(l->pairing) == PAIRING_UNCERTAIN)
        lane_halt(l, APPENDER_REASON_POSITION_UNCERTAIN, "partition %d: %s", l->c.partition, l->pairing->why);
}
