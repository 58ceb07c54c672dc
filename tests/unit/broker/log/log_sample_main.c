/* log_sample DIR: writes two logs as a broker leaves them (DIR/plain-0: codecs, producers, epochs, several segments;
 * DIR/compacted-0: after a compaction with tombstones), so that Apache Kafka's own kafka-dump-log can read every file.
 * The bytes are the same each time. */
#include "base/world/disk_posix.h"
#include "broker/log/compact.h"
#include "broker/log/manager.h"
#include "tests/support/log/log_rig.h"

#include <stdio.h>
#include <stdlib.h>

static int die(const char *what, const struct err *err)
{
    fprintf(stderr, "log_sample: %s: %s\n", what, err->text);
    return 1;
}

static void fill_plain(struct log_rig *r)
{
    int32_t sequence = 0;
    for (int i = 0; i < 200; i++) {
        struct rig_batch b = {.records = 1 + i % 5,
                              .value_bytes = 40 + i % 100,
                              .timestamp = INT64_C(1700000000000) + 100 * i - (i % 7 == 0 ? 5000 : 0),
                              .codec = (enum codec)(i % CODEC_COUNT),
                              .epoch = i / 50,
                              .key = i % 3 ? "key-%d" : NULL,
                              .tag = i};
        if (i % 4 == 0) {
            b.producer_id = 1000 + i % 8;
            b.producer_epoch = 2;
            b.sequence = i % 8 ? sequence : sequence / 2 * 2;
        }
        if (b.producer_id) { /* each id its own numbers */
            static int32_t next[2];
            b.sequence = next[b.producer_id == 1004];
            next[b.producer_id == 1004] += b.records;
        }
        rig_append(r, &b);
    }
}

static int compact(struct log_rig *r, int64_t wall_ms, int64_t *clean)
{
    struct log_compact_options o = {.wall_ms = wall_ms,
                                    .limit_offset = INT64_MAX,
                                    .clean_offset = *clean,
                                    .map_bytes = 1 << 20,
                                    .seed = 1};
    struct log_compaction *c;
    struct log_compacted out;
    rig_flush(r, LOG_FLUSH_CHECKPOINT);
    int rc = log_compact_begin(r->l, &o, &c, &r->err);
    if (rc <= 0)
        return rc;
    log_compact_run(c);
    rc = log_compact_done(r->l, c, &out, &r->err);
    *clean = out.clean_offset;
    return rc;
}

static int fill_compacted(struct log_rig *r)
{
    int64_t clean = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 150; i++) {
            char key[16];
            snprintf(key, sizeof key, "k%d", i % 20);
            struct rig_batch b = {.records = 1,
                                  .value_bytes = 60,
                                  .timestamp = INT64_C(1700000000000) + 1000 * (round * 150 + i),
                                  .codec = (enum codec)(i % CODEC_COUNT),
                                  .key = key,
                                  .tag = i,
                                  .tombstone = i % 20 == 3};
            if (round == 0 && i < 30) {
                b.producer_id = 77;
                b.sequence = i;
            }
            rig_append(r, &b);
        }
        int rc = compact(r, r->wall_ms + round * INT64_C(90000000), &clean);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int write_log(struct disk *disk, const char *root, const char *name, bool compacted)
{
    struct log_rig r;
    rig_init(&r, disk, root);
    snprintf(r.dir, sizeof r.dir, "%s/%s", root, name);
    r.config.segment_bytes = 8000;
    r.config.index_interval_bytes = 500;
    r.config.cleanup_compact = compacted;
    int rc = rig_open(&r, false, 0);
    if (rc)
        return die(name, &r.err);
    if (!compacted)
        fill_plain(&r);
    else if ((rc = fill_compacted(&r)))
        return die("compaction", &r.err);
    rc = log_close(r.l, &r.err);
    r.l = NULL;
    if (rc)
        return die("close", &r.err);
    rig_fini(&r);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: log_sample DIR\n");
        return 2;
    }
    struct disk *disk = disk_posix_create();
    int rc = write_log(disk, argv[1], "plain-0", false);
    if (!rc)
        rc = write_log(disk, argv[1], "compacted-0", true);
    disk_posix_destroy(disk);
    return rc;
}
