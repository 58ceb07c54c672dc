/* `quorum-state`: what a voter must remember to vote once per epoch, one JSON object on disk.
 *
 *   v0 (kraft.version 0)  {"clusterId":"","leaderId":1,"leaderEpoch":2,"votedId":1,"appliedOffset":0,
 *                          "currentVoters":[{"voterId":1}],"data_version":0}
 *   v1 (kraft.version 1)  {"leaderId":1,"leaderEpoch":2,"votedId":1,
 *                          "votedDirectoryId":"<uuid>","data_version":1}
 *
 * −1 and the zero UUID stand for none; leader and vote may both be set: a vote is kept when its candidate wins. Written
 * to a temporary file, synced, renamed, the folder synced (disk_replace). Blocks; plain values. */
#ifndef SUNDOG_BROKER_QUORUM_QUORUM_STATE_H
#define SUNDOG_BROKER_QUORUM_QUORUM_STATE_H

#include "base/core/buf.h"
#include "base/core/err.h"
#include "base/core/uuid.h"
#include "base/world/disk.h"

#define QUORUM_STATE_NAME      "quorum-state"
#define QUORUM_STATE_BYTES_MAX 65536
#define QUORUM_VOTERS_MAX      64
#define QUORUM_NOBODY          (-1)

struct quorum_state {
    int32_t epoch;                  /* 0: of a node that has seen none */
    int32_t leader_id;              /* QUORUM_NOBODY */
    int32_t voted_id;               /* QUORUM_NOBODY */
    struct uuid voted_directory_id; /* zero: none, or not known (v0) */
};

#define QUORUM_STATE_NEW ((struct quorum_state){0, QUORUM_NOBODY, QUORUM_NOBODY, {{0}}})

/* -E_CORRUPT for anything that is not such an object, v0 or v1. */
int quorum_state_parse(struct slice text, struct quorum_state *out, struct err *err);
/* `kraft_version` chooses the form; v0 lists the voters. */
void quorum_state_print(const struct quorum_state *s, int16_t kraft_version, const int32_t *voters,
                        int32_t voters_n, struct buf *to);

/* -E_NOTFOUND: no such file. */
int quorum_state_read(struct disk *disk, const char *dir, struct quorum_state *out, struct err *err);
/* Durable on return. */
int quorum_state_write(struct disk *disk, const char *dir, const struct quorum_state *s,
                       int16_t kraft_version, const int32_t *voters, int32_t voters_n, struct err *err);

#endif
