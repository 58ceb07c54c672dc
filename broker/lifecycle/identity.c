#include "broker/lifecycle/identity.h"

#include "base/runtime/props.h"
#include "broker/metadata/image_edit.h"
#include "broker/metadata/snapshot.h"
#include "broker/quorum/store.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define META_BYTES_MAX 65536
#define PATH_SIZE      (LOG_PATH_MAX + 64)

struct uuid identity_uuid(uint64_t (*draw)(void *arg), void *arg)
{
    struct uuid u;
    char text[UUID_TEXT_SIZE];
    do {
        uint64_t v[2] = {draw(arg), draw(arg)};
        memcpy(&u, v, sizeof u);
        u.b[6] = (uint8_t)((u.b[6] & 0x0f) | 0x40);
        u.b[8] = (uint8_t)((u.b[8] & 0x3f) | 0x80);
    } while (uuid_text(&u, text)[0] == '-');
    assert(!uuid_is_zero(&u));
    return u;
}

/* ---- meta.properties ---- */

static const char *need(struct props *p, const char *key, const char *origin, struct err *err)
{
    const char *v = props_get(p, key);
    if (!v || !*v)
        err_set(err, -E_CONFIG, "%s: %s is missing: restore the file, or remove the directory to start anew",
                origin, key);
    return v && *v ? v : NULL;
}

static int get_node_id(struct props *p, const char *origin, int32_t *out, struct err *err)
{
    const char *text = need(p, "node.id", origin, err);
    if (!text)
        return -E_CONFIG;
    char *end;
    errno = 0;
    long long n = strtoll(text, &end, 10);
    if (errno || *end || n < 0 || n > INT32_MAX)
        return err_set(err, -E_CONFIG, "%s: node.id=%s is not a node's number", origin, text);
    *out = (int32_t)n;
    return 0;
}

static int from_props(struct props *p, const char *origin, struct meta_properties *out, struct err *err)
{
    const char *version = need(p, "version", origin, err);
    if (!version)
        return -E_CONFIG;
    if (strcmp(version, "1") != 0)
        return err_set(err, -E_CONFIG,
                       "%s: version=%s, only 1 (KRaft) is known: name another directory in log.dirs", origin,
                       version);
    const char *cluster = need(p, "cluster.id", origin, err);
    if (!cluster)
        return -E_CONFIG;
    if (strlen(cluster) > CLUSTER_ID_MAX)
        return err_set(err, -E_CONFIG, "%s: cluster.id is longer than %d bytes", origin, CLUSTER_ID_MAX);
    snprintf(out->cluster_id, sizeof out->cluster_id, "%s", cluster);
    const char *directory = props_get(p, "directory.id");
    if (directory && uuid_parse(slice_str(directory), &out->directory_id) < 0)
        return err_set(err, -E_CONFIG, "%s: directory.id=%s is not a UUID", origin, directory);
    return get_node_id(p, origin, &out->node_id, err);
}

int meta_properties_parse(struct slice text, const char *origin, struct meta_properties *out, struct err *err)
{
    struct props p;
    *out = (struct meta_properties){.node_id = -1};
    props_init(&p);
    int rc = props_parse(&p, text, origin, err);
    if (rc == 0)
        rc = from_props(&p, origin, out, err);
    props_fini(&p);
    return rc;
}

int meta_properties_read(struct disk *disk, const char *dir, struct meta_properties *out, struct err *err)
{
    char path[PATH_SIZE];
    struct slice text;
    snprintf(path, sizeof path, "%s/" META_PROPERTIES_NAME, dir);
    if (disk_kind(disk, path) == DISK_NONE)
        return -E_NOTFOUND;
    int rc = disk_read_all(disk, path, META_BYTES_MAX, &text, err);
    if (rc < 0)
        return rc;
    rc = meta_properties_parse(text, path, out, err);
    free((void *)(uintptr_t)text.p);
    return rc;
}

int meta_properties_write(struct disk *disk, const char *dir, const struct meta_properties *m,
                          int64_t wall_ms, struct err *err)
{
    char path[PATH_SIZE], directory[UUID_TEXT_SIZE];
    struct buf text;
    assert(m->node_id >= 0);
    assert(m->cluster_id[0]);
    assert(!uuid_is_zero(&m->directory_id));
    snprintf(path, sizeof path, "%s/" META_PROPERTIES_NAME, dir);
    buf_init(&text, META_BYTES_MAX);
    buf_printf(&text,
               "#\n#%" PRId64 " ms since 1970\nversion=1\ncluster.id=%s\nnode.id=%" PRId32
               "\ndirectory.id=%s\n",
               wall_ms, m->cluster_id, m->node_id, uuid_text(&m->directory_id, directory));
    int rc = text.failed ? -E_NOMEM : disk_replace(disk, path, buf_slice(&text), err);
    buf_fini(&text);
    return rc;
}

/* ---- what the directories say ---- */

struct survey {
    struct meta_properties meta[LOG_DIRS_MAX];
    bool found[LOG_DIRS_MAX];
    int first; /* the first with a file; -1: none */
};

struct looking {
    struct disk *disk;
    const char *dir;
    bool logs;
};

static void is_segment(void *arg, const char *name)
{
    size_t n = strlen(name);
    ((struct looking *)arg)->logs |= n > 4 && strcmp(name + n - 4, ".log") == 0;
}

/* A metadata folder without a segment is what a crash leaves that fell into the formatting. */
static void has_logs(void *arg, const char *name)
{
    struct looking *l = arg;
    char topic[LOG_TOPIC_MAX + 1], path[PATH_SIZE];
    int32_t partition;
    if (log_folder_parse(name, topic, &partition) < 0)
        return;
    snprintf(path, sizeof path, "%s/%s", l->dir, name);
    if (strcmp(name, QUORUM_FOLDER) != 0 || disk_list(l->disk, path, is_segment, l) < 0)
        l->logs = true;
}

static int survey_one(const struct identity_options *o, unsigned i, struct survey *s, struct err *err)
{
    assert(i < o->dirs_n);
    assert(!s->found[i]);
    const char *dir = o->dirs[i];
    struct meta_properties *m = &s->meta[i];
    int rc = meta_properties_read(o->disk, dir, m, err);
    if (rc == -E_NOTFOUND) {
        struct looking l = {o->disk, dir, false};
        rc = disk_list(o->disk, dir, has_logs, &l);
        if (rc == 0 && l.logs)
            return err_set(err, -E_CONFIG,
                           "%s holds logs but no " META_PROPERTIES_NAME
                           ": restore that file, or name an empty directory in log.dirs",
                           dir);
        return rc < 0 ? err_set(err, rc, "%s: %s", dir, err_str(rc)) : 0;
    }
    if (rc < 0)
        return rc;
    if (m->node_id != o->node_id)
        return err_set(err, -E_CONFIG,
                       "%s belongs to node %" PRId32 ", but node.id=%" PRId32
                       ": set node.id, or name this node's directory in log.dirs",
                       dir, m->node_id, o->node_id);
    if (o->cluster_id && strcmp(m->cluster_id, o->cluster_id) != 0)
        return err_set(
            err, -E_CONFIG,
            "%s belongs to cluster %s, but sundog.cluster.id=%s: remove the key, or name this cluster's "
            "directory in log.dirs",
            dir, m->cluster_id, o->cluster_id);
    if (s->first >= 0 && strcmp(m->cluster_id, s->meta[s->first].cluster_id) != 0)
        return err_set(err, -E_CONFIG,
                       "%s belongs to cluster %s, but %s to cluster %s: log.dirs must be of one cluster", dir,
                       m->cluster_id, o->dirs[s->first], s->meta[s->first].cluster_id);
    s->found[i] = true;
    if (s->first < 0)
        s->first = (int)i;
    return 0;
}

static int check_directories(const struct identity_options *o, const struct survey *s, struct err *err)
{
    assert(s->first < (int)o->dirs_n);
    if (s->first >= 0 && !s->found[o->metadata_dir])
        return err_set(err, -E_CONFIG,
                       "%s, where the metadata log belongs, has no " META_PROPERTIES_NAME
                       " while %s has: restore it, or set metadata.log.dir",
                       o->dirs[o->metadata_dir], o->dirs[s->first]);
    for (unsigned i = 0; i < o->dirs_n; i++) {
        for (unsigned j = 0; s->found[i] && j < i; j++) {
            if (s->found[j] && !uuid_is_zero(&s->meta[i].directory_id) &&
                uuid_eq(&s->meta[i].directory_id, &s->meta[j].directory_id))
                return err_set(err, -E_CONFIG, "%s and %s have one directory.id: one is a copy of the other",
                               o->dirs[j], o->dirs[i]);
        }
    }
    return 0;
}

/* ---- formatting ---- */

static int write_bootstrap(const struct identity_options *o, struct err *err)
{
    struct snapshot_writer *w;
    struct kp_feature_level_record level = {SLICE_LIT(METADATA_VERSION_FEATURE), METADATA_VERSION_MIN};
    struct metadata_record r = {kp_type_feature_level_record, 0, &level};
    int rc =
        snapshot_writer_open(o->disk, o->dirs[o->metadata_dir], BOOTSTRAP_NAME, 0, o->wall_ms, NULL, &w, err);
    if (rc == 0) {
        rc = snapshot_writer_add(w, &r, err);
        if (rc == 0)
            return snapshot_writer_close(w, err);
        snapshot_writer_abandon(w);
    }
    return rc;
}

/* The checkpoint at 0-0 says who the first voter is (kraft.version 1). */
static int write_voters(const struct identity_options *o, const struct uuid *directory, struct err *err)
{
    assert(!uuid_is_zero(directory));
    struct kp_voters_record_endpoints endpoints[IDENTITY_ENDPOINTS_MAX];
    struct kp_voters_record_voters self = {.voter_id = o->node_id,
                                           .voter_directory_id = *directory,
                                           .endpoints = endpoints,
                                           .kraft_version_feature = {0, 1}};
    struct kp_voters_record voters = {.voters = &self, .voters_n = 1};
    struct snapshot_quorum quorum = {1, &voters};
    struct snapshot_writer *w;
    char folder[PATH_SIZE], name[SNAPSHOT_NAME_MAX];
    for (unsigned i = 0; i < o->endpoints_n && i < IDENTITY_ENDPOINTS_MAX; i++)
        endpoints[self.endpoints_n++] = (struct kp_voters_record_endpoints){
            slice_str(o->endpoints[i].listener), slice_str(o->endpoints[i].host), o->endpoints[i].port};
    snprintf(folder, sizeof folder, "%s/" QUORUM_FOLDER, o->dirs[o->metadata_dir]);
    snapshot_name(&(struct snapshot_id){0, 0}, name);
    int rc = disk_make_dirs(o->disk, folder, err);
    if (rc == 0)
        rc = snapshot_writer_open(o->disk, folder, name, 0, o->wall_ms, &quorum, &w, err);
    return rc < 0 ? rc : snapshot_writer_close(w, err);
}

static int format_one(const struct identity_options *o, unsigned i, struct survey *s, const char *cluster_id,
                      bool first_start, struct err *err)
{
    assert(i < o->dirs_n);
    assert(!first_start || !s->found[i]);
    struct meta_properties *m = &s->meta[i];
    int rc = 0;
    snprintf(m->cluster_id, sizeof m->cluster_id, "%s", cluster_id);
    m->node_id = o->node_id;
    m->directory_id = identity_uuid(o->random, o->random_arg);
    if (first_start && i == o->metadata_dir) {
        rc = write_bootstrap(o, err);
        if (rc == 0 && o->endpoints_n > 0)
            rc = write_voters(o, &m->directory_id, err);
    }
    return rc < 0 ? rc : meta_properties_write(o->disk, o->dirs[i], m, o->wall_ms, err);
}

int identity_prepare(const struct identity_options *o, struct identity *out, struct err *err)
{
    static const size_t survey_bytes = sizeof(struct survey);
    struct survey *s = calloc(1, survey_bytes);
    char fresh[UUID_TEXT_SIZE];
    int rc = 0;
    assert(o->dirs_n >= 1);
    assert(o->dirs_n <= LOG_DIRS_MAX);
    assert(o->metadata_dir < o->dirs_n);
    assert(o->node_id >= 0);
    if (!s)
        return err_set(err, -E_NOMEM, "no memory to read " META_PROPERTIES_NAME);
    s->first = -1;
    *out = (struct identity){.formatted = false};
    for (unsigned i = 0; i < o->dirs_n && rc == 0; i++)
        rc = survey_one(o, i, s, err);
    if (rc == 0)
        rc = check_directories(o, s, err);
    if (rc < 0)
        goto free_survey;
    struct uuid id = identity_uuid(o->random, o->random_arg);
    const char *cluster = s->first >= 0   ? s->meta[s->first].cluster_id
                          : o->cluster_id ? o->cluster_id
                                          : uuid_text(&id, fresh);
    out->formatted = s->first < 0;
    snprintf(out->cluster_id, sizeof out->cluster_id, "%s", cluster);
    for (unsigned n = 0; n < o->dirs_n && rc == 0; n++) {
        unsigned i = (o->metadata_dir + n) % o->dirs_n; /* the metadata directory first: see the header */
        if (!s->found[i] || uuid_is_zero(&s->meta[i].directory_id))
            rc = format_one(o, i, s, out->cluster_id, out->formatted, err);
        out->directory_ids[i] = s->meta[i].directory_id;
    }
free_survey:
    free(s);
    return rc;
}
