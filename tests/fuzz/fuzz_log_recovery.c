/* Opening a log whose files are anything: the first byte says which file the rest is, and how it is opened. Whatever is
 * found, opening ends with a log or a refusal that names something; a log can be read, appended to and opened again. */
#include "tests/fuzz/fuzz.h"
#include "tests/support/log/crash_disk.h"
#include "tests/support/log/log_rig.h"

#include <stdio.h>

static int count(void *arg, struct slice batch)
{
    *(size_t *)arg += batch.n;
    return 0;
}

static void put_file(struct log_rig *r, struct crash_disk *d, const char *name, const uint8_t *p, size_t n)
{
    char path[300];
    struct disk_file *f;
    snprintf(path, sizeof path, "%s/%s", r->dir, name);
    if (disk_open(r->disk, path, DISK_WRITE | DISK_CREATE | DISK_TRUNCATE, &f, NULL))
        abort();
    disk_close(f);
    crash_disk_set(d, path, 0, p, n);
}

static void use(struct log_rig *r)
{
    size_t bytes = 0;
    struct log_time_offset t;
    struct log_batch b;
    (void)log_each(r->l, log_start_offset(r->l), log_end_offset(r->l), count, &bytes, NULL);
    (void)log_find_time(r->l, 5, INT64_MAX, &t, NULL);
    (void)log_find_max_time(r->l, INT64_MAX, &t, NULL);
    if (log_end_offset(r->l) < INT64_MAX / 2)
        (void)rig_try_append(r, &(struct rig_batch){.producer_id = 1, .epoch = INT32_MAX}, &b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const names[] = {"00000000000000000000.log",       "00000000000000000000.index",
                                        "00000000000000000000.timeindex", "00000000000000000006.snapshot",
                                        "leader-epoch-checkpoint",        "00000000000000000000.log.swap",
                                        "00000000000000000003.log",       "00000000000000000000.log"};
    if (n == 0)
        return 0;
    struct crash_disk *d = crash_disk_create();
    struct log_rig r;
    rig_init(&r, crash_disk_disk(d), "/logs");
    r.config.index_interval_bytes = 100;
    r.config.cleanup_compact = data[0] & 16;
    if (rig_open(&r, false, 0))
        abort();
    for (int i = 0; i < 3; i++)
        rig_append(&r, &(struct rig_batch){
                           .records = 2, .value_bytes = 80, .tag = i, .producer_id = 1, .sequence = 2 * i});
    if (log_close(r.l, &r.err))
        abort();
    r.l = NULL;
    put_file(&r, d, names[data[0] & 7], data + 1, n - 1);
    bool clean = data[0] & 32;
    int rc = rig_open(&r, clean, data[0] & 64 ? 4 : 0);
    if (rc && !r.err.text[0])
        abort();
    if (rc == 0) {
        use(&r);
        int64_t end = log_end_offset(r.l);
        log_abandon(r.l);
        r.l = NULL;
        if (rig_open(&r, false, 0) == 0) {
            if (!clean && log_end_offset(r.l) > end)
                abort();
            use(&r);
        }
    }
    rig_fini(&r);
    crash_disk_destroy(d);
    return 0;
}
