/* First starts, later starts, and directories that belong to somebody else. */
#include "broker/lifecycle/identity.h"

#include "base/core/rng.h"
#include "base/world/disk_posix.h"
#include "broker/metadata/snapshot.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static struct disk *disk;
static char top[64];
static char paths[3][80];
static const char *dirs[3] = {paths[0], paths[1], paths[2]};
static struct rng rng;

static uint64_t next_random(void *arg)
{
    return rng_next(arg);
}

static void setup(void)
{
    snprintf(top, sizeof top, "/tmp/sundog-identity-XXXXXX");
    cr_assert_not_null(mkdtemp(top));
    disk = disk_posix_create();
    rng_init(&rng, 1);
    for (int i = 0; i < 3; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/d%d", top, i);
        disk_mkdir(disk, paths[i]);
    }
}

static void teardown(void)
{
    disk_remove_tree(disk, top);
    disk_posix_destroy(disk);
}

TestSuite(identity, .init = setup, .fini = teardown);

static struct identity_options options(unsigned n)
{
    return (struct identity_options){.disk = disk,
                                     .dirs = dirs,
                                     .dirs_n = n,
                                     .node_id = 7,
                                     .wall_ms = 1000,
                                     .random = next_random,
                                     .random_arg = &rng};
}

static void remove_file(unsigned dir, const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", paths[dir], name);
    cr_assert_eq(disk_unlink(disk, path), 0);
}

static void write_file(unsigned dir, const char *name, const char *text)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", paths[dir], name);
    cr_assert_eq(disk_replace(disk, path, slice_str(text), NULL), 0);
}

static void refused(const struct identity_options *o, const char *part)
{
    struct identity id;
    struct err err = {0};
    cr_assert_lt(identity_prepare(o, &id, &err), 0);
    cr_assert(strstr(err.text, part), "%s", err.text);
    cr_assert_null(strchr(err.text, '\n'), "one line");
}

Test(identity, a_first_start_formats_and_later_ones_find_the_same)
{
    struct identity_options o = options(2);
    struct identity a, b;
    struct err err = {0};
    cr_assert_eq(identity_prepare(&o, &a, &err), 0, "%s", err.text);
    cr_assert(a.formatted && strlen(a.cluster_id) == 22);
    cr_assert_not(uuid_eq(&a.directory_ids[0], &a.directory_ids[1]));
    cr_assert_eq(identity_prepare(&o, &b, &err), 0, "%s", err.text);
    cr_assert_not(b.formatted);
    cr_assert_str_eq(a.cluster_id, b.cluster_id);
    cr_assert_eq(memcmp(a.directory_ids, b.directory_ids, sizeof a.directory_ids), 0);
}

Test(identity, a_new_directory_joins_under_an_id_of_its_own)
{
    struct identity_options o = options(1);
    struct identity a, b;
    struct err err = {0};
    cr_assert_eq(identity_prepare(&o, &a, &err), 0);
    o.dirs_n = 3;
    cr_assert_eq(identity_prepare(&o, &b, &err), 0, "%s", err.text);
    cr_assert_not(b.formatted);
    cr_assert_str_eq(a.cluster_id, b.cluster_id);
    cr_assert(uuid_eq(&a.directory_ids[0], &b.directory_ids[0]));
    cr_assert_not(uuid_is_zero(&b.directory_ids[2]));
}

Test(identity, the_wish_for_a_cluster_id_counts_once)
{
    struct identity_options o = options(1);
    struct identity a;
    struct err err = {0};
    o.cluster_id = "my-cluster";
    cr_assert_eq(identity_prepare(&o, &a, &err), 0);
    cr_assert_str_eq(a.cluster_id, "my-cluster");
    o.cluster_id = NULL;
    cr_assert_eq(identity_prepare(&o, &a, &err), 0);
    cr_assert_str_eq(a.cluster_id, "my-cluster");
    o.cluster_id = "another";
    refused(&o, "sundog.cluster.id");
}

Test(identity, what_belongs_to_another_is_refused_by_name)
{
    struct identity_options o = options(2);
    struct identity a;
    cr_assert_eq(identity_prepare(&o, &a, NULL), 0);
    o.node_id = 8;
    refused(&o, "node.id=8");
    o.node_id = 7;
    write_file(1, META_PROPERTIES_NAME,
               "version=1\nnode.id=7\ncluster.id=zzz\ndirectory.id=0cRCiTpqSBCeIiYBX7Wh2g\n");
    refused(&o, "zzz");
    write_file(1, META_PROPERTIES_NAME, "version=0\nbroker.id=7\ncluster.id=zzz\n");
    refused(&o, "version=0");
    write_file(1, META_PROPERTIES_NAME, "version=1\nnode.id=7\n");
    refused(&o, "cluster.id is missing");
    write_file(1, META_PROPERTIES_NAME, "version=1\nnode.id=x\ncluster.id=zzz\n");
    refused(&o, "node.id=x");
}

Test(identity, lost_identities_are_not_made_up)
{
    struct identity_options o = options(2);
    struct identity a;
    char path[200];
    cr_assert_eq(identity_prepare(&o, &a, NULL), 0);
    remove_file(0, META_PROPERTIES_NAME);
    refused(&o, "metadata");
    o.metadata_dir = 1;
    snprintf(path, sizeof path, "%s/orders-0", paths[0]);
    cr_assert_eq(disk_mkdir(disk, path), 0);
    refused(&o, "holds logs");
}

Test(identity, two_copies_of_one_directory_are_refused)
{
    struct identity_options o = options(2);
    struct identity a;
    struct meta_properties m;
    cr_assert_eq(identity_prepare(&o, &a, NULL), 0);
    cr_assert_eq(meta_properties_read(disk, paths[0], &m, NULL), 0);
    cr_assert_eq(meta_properties_write(disk, paths[1], &m, 1, NULL), 0);
    refused(&o, "copy");
}

Test(identity, what_kafka_writes_is_read)
{
    struct meta_properties m;
    struct err err = {0};
    cr_assert_eq(meta_properties_parse(SLICE_LIT("#\n#Sat Nov 21 04:43:07 UTC 2026\nnode.id=1\n"
                                                 "directory.id=Zz8gYNeeI1IbrWuPXeiDqQ\nversion=1\n"
                                                 "cluster.id=k4qDkyA7aHsnjGlObnxhDw\n"),
                                       "x", &m, &err),
                 0, "%s", err.text);
    cr_assert_str_eq(m.cluster_id, "k4qDkyA7aHsnjGlObnxhDw");
    cr_assert_eq(m.node_id, 1);
    cr_assert_eq(m.directory_id.b[0], 0x67);
}

static int level(void *arg, const struct metadata_record *r)
{
    const struct kp_feature_level_record *f = r->body;
    cr_assert_eq(r->type, kp_type_feature_level_record);
    *(int *)arg = f->feature_level;
    return 0;
}

static int count_control(void *arg, int type, struct slice value)
{
    (void)type, (void)value;
    ++*(int *)arg;
    return 0;
}

Test(identity, formatting_leaves_levels_and_with_a_controller_listener_the_first_voter)
{
    struct identity_options o = options(1);
    struct identity_endpoint e = {"CONTROLLER", "h", 9093};
    struct identity a;
    struct err err = {0};
    char path[256];
    int n = 0;
    o.endpoints = &e;
    o.endpoints_n = 1;
    cr_assert_eq(identity_prepare(&o, &a, &err), 0, "%s", err.text);
    snprintf(path, sizeof path, "%s/" BOOTSTRAP_NAME, paths[0]);
    cr_assert_eq(snapshot_read(disk, path, &(struct snapshot_reader){level, NULL, &n}, &err), 0, "%s",
                 err.text);
    cr_assert_eq(n, 25);
    snprintf(path, sizeof path, "%s/__cluster_metadata-0/00000000000000000000-0000000000.checkpoint",
             paths[0]);
    n = 0;
    cr_assert_eq(snapshot_read(disk, path, &(struct snapshot_reader){level, count_control, &n}, &err), 0,
                 "%s", err.text);
    cr_assert_eq(n, 3, "header, kraft version, voters");
    remove_file(0, META_PROPERTIES_NAME); /* a crash before the last step of the formatting */
    cr_assert_eq(identity_prepare(&o, &a, &err), 0, "%s", err.text);
    cr_assert(a.formatted);
}
