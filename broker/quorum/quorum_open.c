/* How a quorum begins: its options, its store, who votes. */
#include "broker/quorum/quorum_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct quorum_options quorum_options_default(void)
{
    return (struct quorum_options){.segment_bytes = 1073741824,
                                   .segment_ms = INT64_C(604800000),
                                   .snapshot_bytes = 20971520,
                                   .snapshot_ms = 3600000,
                                   .retention_bytes = 104857600,
                                   .retention_ms = 604800000,
                                   .election_timeout_ms = 1000,
                                   .fetch_timeout_ms = 2000};
}

static int find_voters(struct quorum *q, struct raft_replica *voters, int32_t *n, struct err *err)
{
    const struct kp_voters_record *v = &q->store.voters;
    bool dynamic = q->store.kraft_version > 0;
    int32_t count = dynamic ? v->voters_n : q->o.voters ? q->o.voters_n : 1;
    bool self = false;
    if (count < 1 || count > QUORUM_VOTERS_MAX)
        return err_set(err, -E_CONFIG, "%s names %d quorum voters", q->store.dir, count);
    for (int32_t i = 0; i < count; i++) {
        voters[i] = (struct raft_replica){.id = dynamic       ? v->voters[i].voter_id
                                                : q->o.voters ? q->o.voters[i]
                                                              : q->o.node_id,
                                          .directory_id =
                                              dynamic ? v->voters[i].voter_directory_id : (struct uuid){{0}}};
        self |= voters[i].id == q->o.node_id &&
                (!dynamic || uuid_eq(&voters[i].directory_id, &q->o.directory_id));
    }
    *n = count;
    if (!self)
        return err_set(err, -E_CONFIG,
                       "node %d with the directory of %s is not among the %d voters of its quorum",
                       q->o.node_id, q->o.metadata_dir, count);
    if (count > 1)
        return err_set(
            err, -E_CONFIG,
            "the quorum has %d voters: this version serves a quorum of one, name only this node in "
            "controller.quorum.voters",
            count);
    return 0;
}

/* Votes and epochs go up from what was found; a file that says otherwise is not one of a quorum that lives. */
static int check_epochs(const struct quorum *q, struct err *err)
{
    int32_t log = quorum_store_last_epoch(&q->store), state = q->store.state.epoch;
    int32_t epoch = log > state ? log : state;
    return epoch <= RAFT_EPOCH_MAX
               ? 0
               : err_set(err, -E_CORRUPT, "%s: no epoch can follow %" PRId32, q->store.dir, epoch);
}

static void raft_setup(struct quorum *q, const struct raft_replica *voters, int32_t n)
{
    raft_init(&q->raft, &(struct raft_options){.self = {q->o.node_id, q->o.directory_id},
                                               .voters = voters,
                                               .voters_n = n,
                                               .election_timeout_us = q->o.election_timeout_ms * 1000,
                                               .fetch_timeout_us = q->o.fetch_timeout_ms * 1000,
                                               .seed = loop_random(q->o.loop)});
}

static struct log_config metadata_config(const struct quorum_options *o)
{
    struct log_config c = log_config_default();
    c.segment_bytes = o->segment_bytes;
    c.segment_ms = o->segment_ms;
    c.retention_ms = c.retention_bytes = -1; /* by snapshots only: quorum_store_retain */
    c.max_message_bytes = INT32_MAX;
    return c;
}

int quorum_open(const struct quorum_options *o, struct quorum **out, struct err *err)
{
    struct quorum *q = calloc(1, sizeof *q);
    if (!q)
        return err_set(err, -E_NOMEM, "no memory for the metadata quorum");
    *q = (struct quorum){.o = *o};
    list_init(&q->waiting);
    snprintf(q->metadata_dir, sizeof q->metadata_dir, "%s", o->metadata_dir);
    q->o.metadata_dir = q->metadata_dir;
    struct log_config config = metadata_config(o);
    struct raft_replica voters[QUORUM_VOTERS_MAX];
    int32_t voters_n = 0;
    int rc = quorum_store_open(&q->store,
                               &(struct quorum_store_options){.disk = o->disk,
                                                              .metadata_dir = q->metadata_dir,
                                                              .cluster_id = o->cluster_id,
                                                              .files = o->files,
                                                              .config = &config,
                                                              .reaper = &q->reaper,
                                                              .wall_ms = loop_wall_ms(o->loop),
                                                              .clean = o->clean},
                               err);
    if (rc < 0) {
        image_reaper_drain(&q->reaper);
        free(q);
        return rc;
    }
    rc = check_epochs(q, err);
    if (rc == 0)
        rc = find_voters(q, voters, &voters_n, err);
    if (rc < 0) {
        quorum_abandon(q);
        return rc;
    }
    q->o.voters = NULL; /* borrowed for this call */
    raft_setup(q, voters, voters_n);
    loop_timer_init(&q->timer, o->loop, quorum_on_timer, q);
    *out = q;
    return 0;
}
