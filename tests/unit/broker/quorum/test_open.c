/* What is found in a metadata log dir and refused. */
#include "broker/quorum/quorum.h"

#include "base/world/disk_posix.h"
#include "base/world/loop_posix.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void nothing_failed(void *arg, const char *why)
{
    (void)arg;
    cr_assert_fail("%s", why);
}

static int open_with(const char *state, struct err *err)
{
    char dir[] = "/tmp/sundog-quorum-XXXXXX", folder[64], file[96];
    struct loop_posix *loop;
    struct disk *disk = disk_posix_create();
    cr_assert(mkdtemp(dir));
    snprintf(folder, sizeof folder, "%s/" QUORUM_TOPIC "-0", dir);
    snprintf(file, sizeof file, "%s/" QUORUM_STATE_NAME, folder);
    cr_assert_eq(disk_make_dirs(disk, folder, NULL), 0);
    cr_assert_eq(disk_replace(disk, file, slice_str(state), NULL), 0);
    cr_assert_eq(loop_posix_create(&(struct loop_posix_options){0}, &loop, NULL), 0);
    static const struct quorum_listener listener = {.failed = nothing_failed};
    struct quorum_options o = quorum_options_default();
    struct quorum *q = NULL;
    o.loop = loop_posix_loop(loop);
    o.disk = disk;
    o.files = log_files_create(disk, 8);
    o.metadata_dir = dir;
    o.cluster_id = SLICE_LIT("aaaaaaaaaaaaaaaaaaaaaa");
    o.node_id = 1;
    o.listener = &listener;
    int rc = quorum_open(&o, &q, err);
    if (rc == 0)
        quorum_abandon(q);
    log_files_destroy(o.files);
    loop_posix_destroy(loop);
    cr_assert_eq(disk_remove_tree(disk, dir), 0);
    disk_posix_destroy(disk);
    return rc;
}

static const char *state_of(int32_t epoch)
{
    static char text[128];
    snprintf(text, sizeof text,
             "{\"leaderId\":1,\"leaderEpoch\":%d,\"votedId\":1,\"currentVoters\":[],\"data_version\":0}",
             epoch);
    return text;
}

Test(quorum_open, an_epoch_that_none_can_follow_is_refused)
{
    struct err err = {0};
    cr_assert_eq(open_with(state_of(7), &err), 0, "%s", err.text);
    cr_assert_eq(open_with(state_of(INT32_MAX), &err), -E_CORRUPT);
    cr_assert(strstr(err.text, "no epoch can follow"), "%s", err.text);
}
