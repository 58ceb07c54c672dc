#include "broker/log/epochs.h"

#include "base/core/grow.h"
#include "broker/log/text.h"

#include <assert.h>
#include <stdlib.h>

void epochs_init(struct epochs *e)
{
    *e = (struct epochs){.unsaved = INT64_MAX};
}

void epochs_fini(struct epochs *e)
{
    free(e->v);
    epochs_init(e);
}

bool epochs_unsaved(const struct epochs *e, int64_t log_end)
{
    assert(e->unsaved >= -1 && log_end >= 0);
    return e->unsaved < log_end;
}

void epochs_clear(struct epochs *e)
{
    if (e->n > 0)
        e->unsaved = -1;
    e->n = 0;
}

int32_t epochs_latest(const struct epochs *e)
{
    return e->n ? e->v[e->n - 1].epoch : -1;
}

/* How many entries begin at or before `offset`. */
static unsigned begun(const struct epochs *e, int64_t offset)
{
    assert(e->n <= e->room);
    unsigned low = 0, high = e->n;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (e->v[middle].start_offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t epochs_at(const struct epochs *e, int64_t offset)
{
    assert(e->n <= e->room);
    unsigned n = begun(e, offset);
    return n ? e->v[n - 1].epoch : -1;
}

int epochs_assign(struct epochs *e, int32_t epoch, int64_t start_offset)
{
    assert(start_offset >= 0);
    if (epoch < 0 || epoch <= epochs_latest(e))
        return 0;
    if (!GROW(e->v, e->n, e->room, 4))
        return -E_NOMEM;
    /* An epoch without records leaves no trace once the next one begins at the same offset. */
    while (e->n && e->v[e->n - 1].start_offset >= start_offset)
        e->n--;
    e->v[e->n++] = (struct epoch_entry){epoch, start_offset};
    e->unsaved = start_offset < e->unsaved ? start_offset : e->unsaved;
    assert(e->n < 2 || (e->v[e->n - 2].epoch < epoch && e->v[e->n - 2].start_offset < start_offset));
    return 0;
}

struct log_epoch_end epochs_end(const struct epochs *e, int32_t epoch, int64_t log_end)
{
    assert(log_end >= 0);
    const struct log_epoch_end undefined = {-1, -1};
    if (epoch < 0 || e->n == 0 || epoch > epochs_latest(e))
        return undefined;
    if (epoch == epochs_latest(e))
        return (struct log_epoch_end){epoch, log_end};
    unsigned next = 0;
    while (next < e->n && e->v[next].epoch <= epoch)
        next++;
    assert(next < e->n);
    if (next == 0) /* older than what we have: the divergence, if any, is before our first epoch */
        return (struct log_epoch_end){epoch, e->v[0].start_offset};
    return (struct log_epoch_end){e->v[next - 1].epoch, e->v[next].start_offset};
}

void epochs_cut_end(struct epochs *e, int64_t offset)
{
    assert(e->n <= e->room);
    while (e->n && e->v[e->n - 1].start_offset >= offset) {
        e->n--;
        e->unsaved = -1;
    }
}

void epochs_cut_start(struct epochs *e, int64_t offset)
{
    assert(offset >= 0);
    unsigned n = begun(e, offset);
    if (n == 0)
        return;
    unsigned gone = n - 1;
    if (gone == 0 && e->v[0].start_offset == offset)
        return;
    memmove(e->v, e->v + gone, (e->n - gone) * sizeof *e->v);
    e->n -= gone;
    assert(e->n > 0 && e->v[0].start_offset <= offset);
    e->v[0].start_offset = offset;
    e->unsaved = -1;
}

void epochs_write(const struct epochs *e, struct buf *out)
{
    assert(e->n <= EPOCHS_MAX);
    buf_printf(out, "0\n%u\n", e->n);
    for (unsigned i = 0; i < e->n; i++)
        buf_printf(out, "%d %lld\n", e->v[i].epoch, (long long)e->v[i].start_offset);
}

int epochs_read(struct epochs *e, struct slice text, struct err *err)
{
    epochs_clear(e);
    int64_t version, count;
    if (!text_number(&text, '\n', &version) || version != 0)
        return err_set(err, -E_VERSION, "not an epoch checkpoint of version 0");
    if (!text_number(&text, '\n', &count) || count < 0 || count > EPOCHS_MAX)
        return err_set(err, -E_CORRUPT, "no number of entries");
    for (int64_t i = 0; i < count; i++) {
        int64_t epoch, start;
        bool fine = text_number(&text, ' ', &epoch) && text_number(&text, '\n', &start) && epoch >= 0 &&
                    epoch <= INT32_MAX && start >= 0;
        if (fine && e->n)
            fine = epoch > epochs_latest(e) && start > e->v[e->n - 1].start_offset;
        int rc = fine ? epochs_assign(e, (int32_t)epoch, start) : -E_CORRUPT;
        if (rc) {
            epochs_clear(e);
            return err_set(err, rc, "entry %lld is impossible", (long long)i);
        }
    }
    if (text.n > 0) {
        epochs_clear(e);
        return err_set(err, -E_CORRUPT, "more entries than it says");
    }
    e->unsaved = INT64_MAX;
    return 0;
}
