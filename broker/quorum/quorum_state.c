#include "broker/quorum/quorum_state.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#define PATH_SIZE 1280

static int get_int(json_t *o, const char *key, int32_t min, int32_t *out, struct err *err)
{
    json_t *v = json_object_get(o, key);
    if (!json_is_integer(v))
        return err_set(err, -E_CORRUPT, "\"%s\" is not an integer", key);
    json_int_t n = json_integer_value(v);
    if (n < min || n > INT32_MAX)
        return err_set(err, -E_CORRUPT, "\"%s\" is %" JSON_INTEGER_FORMAT, key, n);
    *out = (int32_t)n;
    return 0;
}

static int get_directory(json_t *o, struct uuid *out, struct err *err)
{
    const char *text = json_string_value(json_object_get(o, "votedDirectoryId"));
    if (!text || uuid_parse(slice_str(text), out) < 0)
        return err_set(err, -E_CORRUPT, "\"votedDirectoryId\" is not a UUID");
    return 0;
}

static int from_json(json_t *o, struct quorum_state *s, struct err *err)
{
    int32_t version = -1;
    int rc = get_int(o, "data_version", 0, &version, err);
    if (rc == 0 && version > 1)
        rc = err_set(err, -E_CORRUPT, "\"data_version\" is %d, 0 and 1 are known", version);
    if (rc == 0)
        rc = get_int(o, "leaderId", QUORUM_NOBODY, &s->leader_id, err);
    if (rc == 0)
        rc = get_int(o, "leaderEpoch", 0, &s->epoch, err);
    if (rc == 0)
        rc = get_int(o, "votedId", QUORUM_NOBODY, &s->voted_id, err);
    if (rc == 0 && version == 1)
        rc = get_directory(o, &s->voted_directory_id, err);
    return rc;
}

int quorum_state_parse(struct slice text, struct quorum_state *out, struct err *err)
{
    json_error_t where;
    json_t *root = json_loadb((const char *)text.p, text.n, JSON_REJECT_DUPLICATES, &where);
    if (!root)
        return err_set(err, -E_CORRUPT, "no JSON: %s", where.text);
    *out = QUORUM_STATE_NEW;
    int rc = json_is_object(root) ? from_json(root, out, err) : err_set(err, -E_CORRUPT, "no JSON object");
    json_decref(root);
    return rc;
}

void quorum_state_print(const struct quorum_state *s, int16_t kraft_version, const int32_t *voters,
                        int32_t voters_n, struct buf *to)
{
    char directory[UUID_TEXT_SIZE];
    assert(s->epoch >= 0);
    assert(s->leader_id >= QUORUM_NOBODY);
    assert(s->voted_id >= QUORUM_NOBODY);
    if (kraft_version > 0) {
        buf_printf(to,
                   "{\"leaderId\":%d,\"leaderEpoch\":%d,\"votedId\":%d,\"votedDirectoryId\":\"%s\",\"data_"
                   "version\":1}",
                   s->leader_id, s->epoch, s->voted_id, uuid_text(&s->voted_directory_id, directory));
        return;
    }
    buf_printf(to,
               "{\"clusterId\":\"\",\"leaderId\":%d,\"leaderEpoch\":%d,\"votedId\":%d,\"appliedOffset\":0,"
               "\"currentVoters\":[",
               s->leader_id, s->epoch, s->voted_id);
    for (int32_t i = 0; i < voters_n; i++)
        buf_printf(to, "%s{\"voterId\":%d}", i ? "," : "", voters[i]);
    buf_printf(to, "],\"data_version\":0}");
}

int quorum_state_read(struct disk *disk, const char *dir, struct quorum_state *out, struct err *err)
{
    char path[PATH_SIZE];
    struct slice text;
    snprintf(path, sizeof path, "%s/" QUORUM_STATE_NAME, dir);
    if (disk_kind(disk, path) == DISK_NONE)
        return -E_NOTFOUND;
    int rc = disk_read_all(disk, path, QUORUM_STATE_BYTES_MAX, &text, err);
    if (rc < 0)
        return rc;
    rc = quorum_state_parse(text, out, err);
    free((void *)(uintptr_t)text.p);
    if (rc < 0)
        err_wrap(err, "%s", path);
    return rc;
}

int quorum_state_write(struct disk *disk, const char *dir, const struct quorum_state *s,
                       int16_t kraft_version, const int32_t *voters, int32_t voters_n, struct err *err)
{
    char path[PATH_SIZE];
    struct buf text;
    buf_init(&text, QUORUM_STATE_BYTES_MAX);
    quorum_state_print(s, kraft_version, voters, voters_n, &text);
    snprintf(path, sizeof path, "%s/" QUORUM_STATE_NAME, dir);
    int rc = text.failed ? err_set(err, -E_NOMEM, "%s: no memory", path)
                         : disk_replace(disk, path, buf_slice(&text), err);
    buf_fini(&text);
    return rc;
}
