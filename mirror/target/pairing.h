/* Pairs what a target log holds of ours, but our progress does not know, with the records of the source (APPENDER.md
 * rules 18 and 19). Pure; one lane's pairing at a time.
 *
 * The target's records are, in order, the first so many that we once read of the source from `source_start` on: t1 …
 * tm. Since then the source may have lost some of them (compaction, retention), and it has more behind them: s1, s2, ….
 * So a beginning s1 … sj of the source is a subsequence of t1 … tm, and the answer is j: what comes behind sj has to be
 * written. Contents (timestamp, CRC-32C) say which may be the same; the number of missing source offsets between two
 * records says how many target records may lie between their mates. Every j that agrees with all of it is kept in
 * sight; when more than one remains at the end, or none, the position is uncertain and nobody guesses.
 *
 * For each source record the set of target records that can be its mate is kept: one in all but odd cases. Memory: a
 * window of PAIRING_WINDOW target records, from the earliest possible mate on. */
#ifndef SUNDOG_MIRROR_TARGET_PAIRING_H
#define SUNDOG_MIRROR_TARGET_PAIRING_H

#include "base/core/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAIRING_WINDOW    131072
#define PAIRING_MATES_MAX 1024 /* possible mates of one source record */
#define PAIRING_RUNS_MAX  65536
#define PAIRING_ENDS_MAX  8

/* What two records must have in common. */
struct pairing_content {
    int64_t timestamp_ms;
    uint32_t print; /* record_print */
};

/* CRC-32C over key, value and headers with their lengths, the headers re-encoded in the one way. -E_CORRUPT is not
 * told: malformed headers are taken as bytes. */
uint32_t pairing_print(struct slice key, struct slice value, struct slice headers, int32_t headers_n);

struct pairing_run {
    int64_t src_start, dst_start, count;
};

enum pairing_state {
    PAIRING_WANTS_TARGET, /* pairing_target, pairing_target_end */
    PAIRING_WANTS_SOURCE, /* pairing_source, pairing_source_end */
    PAIRING_DONE,
    PAIRING_UNCERTAIN, /* `why` says it */
};

struct pairing {
    /* Result, when done. */
    int64_t position; /* source records from here on are not at the target */
    struct pairing_run *runs;
    size_t runs_n, runs_cap;
    int64_t orphans; /* target records without a mate for certain */
    char why[256];

    enum pairing_state state;
    bool ignore_time;     /* the target stamps records itself */
    int64_t number_start; /* of t1 */
    struct pairing_mate {
        int64_t offset; /* at the target; -1: not known */
        struct pairing_content content;
        bool present; /* false: compacted away at the target, could have been anything */
    } * window;       /* of t[first], t[first + 1], …; indices count from 1 */
    size_t window_n, window_at, window_cap;
    int64_t first;     /* index of window[window_at] */
    int64_t total;     /* target records seen so far */
    bool target_ended; /* total is m */
    int64_t *mates, *next_mates;
    size_t mates_n;
    int64_t source_last, missing_last; /* the last source record that has mates */
    int64_t paired;                    /* source records with one mate */
    int64_t ends[PAIRING_ENDS_MAX];    /* positions that agree with everything */
    size_t ends_n;
    struct {
        int64_t offset, missing;
        struct pairing_content content;
        bool there, end;
    } waiting; /* a source record for which more of the target is wanted */
};

/* -E_NOMEM. */
int pairing_init(struct pairing *p, int64_t number_start, int64_t source_start, bool ignore_time);
void pairing_fini(struct pairing *p);

/* The next record of ours at the target: in order of numbers, none left out (give those that the target has compacted
 * away with `present` false). False: the window is full, give it again after the next source record. */
bool pairing_target(struct pairing *p, int64_t number, int64_t offset, bool present,
                    struct pairing_content c);
void pairing_target_end(struct pairing *p);
/* The next source record for this target partition. `missing`: how many source offsets from source_start up to here
 * were no records at all (cumulative: control records, compacted, trimmed). */
void pairing_source(struct pairing *p, int64_t offset, int64_t missing, struct pairing_content c);
/* The source has no more; `missing` up to its end. */
void pairing_source_end(struct pairing *p, int64_t missing);

static inline enum pairing_state pairing_state(const struct pairing *p)
{
    return p->state;
}

#endif
