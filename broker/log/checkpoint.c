/* The checkpoint files of a log dir, Kafka's text form: "0\n", the number of rows, then a row a line:
 *
 *   <topic> <partition> <offset>
 */
#include "broker/log/manager.h"

#include "broker/log/text.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECKPOINT_LIMIT ((size_t)256 * 1024 * 1024)

static const char *const NAMES[LOG_CHECKPOINTS] = {
    [LOG_CHECKPOINT_RECOVERY] = "recovery-point-offset-checkpoint",
    [LOG_CHECKPOINT_START] = "log-start-offset-checkpoint",
    [LOG_CHECKPOINT_REPLICATION] = "replication-offset-checkpoint",
    [LOG_CHECKPOINT_CLEANER] = "cleaner-offset-checkpoint",
};

static int path_of(const char *dir_path, enum log_checkpoint which, char out[LOG_PATH_MAX], struct err *err)
{
    assert(which < LOG_CHECKPOINTS);
    int n = snprintf(out, LOG_PATH_MAX, "%s/%s", dir_path, NAMES[which]);
    return n > 0 && n < LOG_PATH_MAX ? 0 : err_set(err, -E_LIMIT, "the path %s is too long", dir_path);
}

int log_checkpoint_write(struct disk *disk, const char *dir_path, enum log_checkpoint which,
                         const struct log_checkpoint_row *rows, size_t n, struct err *err)
{
    assert(rows || n == 0);
    char path[LOG_PATH_MAX];
    struct buf text;
    int rc = path_of(dir_path, which, path, err);
    if (rc)
        return rc;
    buf_init(&text, CHECKPOINT_LIMIT);
    buf_printf(&text, "0\n%zu\n", n);
    for (size_t i = 0; i < n; i++)
        buf_printf(&text, "%s %d %lld\n", rows[i].topic, rows[i].partition, (long long)rows[i].offset);
    rc = text.failed ? err_set(err, -E_NOMEM, "no memory to write %s", path)
                     : disk_replace(disk, path, buf_slice(&text), err);
    buf_fini(&text);
    return rc;
}

static int parse(struct slice text, void (*each)(void *arg, const struct log_checkpoint_row *row), void *arg)
{
    assert(each);
    int64_t version, count;
    if (!text_number(&text, '\n', &version) || version != 0 || !text_number(&text, '\n', &count) || count < 0)
        return -E_CORRUPT;
    for (; count > 0; count--) {
        struct slice topic;
        int64_t partition, offset;
        char name[LOG_TOPIC_MAX + 1];
        if (!text_word(&text, ' ', &topic) || topic.n == 0 || topic.n > LOG_TOPIC_MAX ||
            !text_number(&text, ' ', &partition) || partition < 0 || partition > INT32_MAX ||
            !text_number(&text, '\n', &offset))
            return -E_CORRUPT;
        slice_cstr(topic, name, sizeof name);
        each(arg, &(struct log_checkpoint_row){name, (int32_t)partition, offset});
    }
    return text.n == 0 ? 0 : -E_CORRUPT;
}

int log_checkpoint_read(struct disk *disk, const char *dir_path, enum log_checkpoint which,
                        void (*each)(void *arg, const struct log_checkpoint_row *row), void *arg,
                        struct err *err)
{
    assert(each);
    char path[LOG_PATH_MAX];
    struct slice text;
    int rc = path_of(dir_path, which, path, err);
    if (!rc)
        rc = disk_read_all(disk, path, CHECKPOINT_LIMIT, &text, err);
    if (rc)
        return rc == -E_NOTFOUND ? 0 : rc;
    rc = parse(text, each, arg);
    free((void *)(uintptr_t)text.p);
    return rc ? err_set(err, rc, "%s is damaged: remove it, the logs are then checked from their beginning",
                        path)
              : 0;
}
