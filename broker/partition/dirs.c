/* A log dir that fails while the broker runs: one I/O error, above all a failed fdatasync, and nothing that lies there is
 * trusted any more (Kafka's log dir failure). Whoever meets the error takes the dir offline at once; each shard fails its
 * partitions of it in its next turn, before it writes or flushes anything. Nobody tries again before a restart, which
 * reads the disk anew. */
#include "broker/partition/internal.h"

#include "base/runtime/log.h"

#include <stdatomic.h>
#include <stdio.h>

void partition_dir_failed(struct partition_host *h, unsigned dir, const char *why)
{
    assert(dir < log_dirs_count(h->dirs));
    assert(why);
    if (!log_dir_fail(h->dirs, dir, why))
        return;
    log_error("broker.partition",
              "log dir is offline path=%s error=%s remedy=\"mend the disk, then restart\"",
              log_dir_of(h->dirs, dir), why);
    atomic_fetch_add(&h->dirs_failed, 1);
    if (h->dir_failed &&
        !atomic_load(&h->ending)) /* at the end every log is closed anyway, and the loops may have stopped */
        h->dir_failed(h->dir_failed_arg, dir, why);
}

void partition_fenced(struct partition *p)
{
    assert(p->log);
    assert(log_fenced(p->log));
    partition_fail(p, log_fence_text(p->log));
    if (log_disk_failed(p->log))
        partition_dir_failed(p->set->host, p->dir, log_fence_text(p->log));
}

bool partition_dir_online(struct partition *p)
{
    const struct log_dirs *dirs = p->set->host->dirs;
    char why[sizeof p->why];
    if (!p->log || log_dir_online(dirs, p->dir))
        return true;
    assert(p->dir < log_dirs_count(dirs));
    snprintf(why, sizeof why, "its log dir is offline: %s", log_dir_error(dirs, p->dir));
    log_fence(p->log, -E_IO, why); /* it is not flushed at its end either */
    partition_fail_unsaid(p, why);
    return false;
}

static void look(void *arg, struct partition *p)
{
    (void)arg;
    (void)partition_dir_online(p);
}

void partitions_look_at_dirs(struct partitions *ps)
{
    unsigned now = atomic_load(&ps->host->dirs_failed);
    assert(ps->dirs_failed <= now);
    if (ps->dirs_failed == now)
        return;
    ps->dirs_failed = now;
    partitions_each(ps, look, NULL);
}
