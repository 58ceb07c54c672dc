/* The mirror daemon: configuration, store, a thread and a loop for each flow, the admin port. The one composition root.
 *
 * mirror_open does everything that may fail for the operator to mend, and says it in one line; mirror_run serves
 * until a signal, drains and returns. */
#ifndef SUNDOG_MIRROR_MIRROR_H
#define SUNDOG_MIRROR_MIRROR_H

#include "base/core/err.h"

#include <stddef.h>

struct mirror;

struct mirror_arguments {
    const char *file;
    const char *const *targets; /* --clusters */
    size_t targets_n;
    const char *const *settings; /* key=value */
    size_t settings_n;
};

#define MIRROR_DRAIN_MS 8000 /* for flows to finish what is in flight */
#define MIRROR_END_MS   9500 /* from the signal to the end of the process, whatever hangs */
#define MIRROR_FIRST_MS                                                                                      \
    2000 /* a start may still fail for so long: an alias that answers with another cluster */

int mirror_open(const struct mirror_arguments *a, struct mirror **out, struct err *err);
/* Until SIGTERM or SIGINT: 0; or -E_CONFIG when a start turns out to be wrong, with its line in `err`. */
int mirror_run(struct mirror *m, struct err *err);
void mirror_close(struct mirror *m);

/* mirror/page.c: one HTML page from the status document; nothing but itself is needed to show it. */
struct buf;
void mirror_page(const char *status_json, size_t n, struct buf *to);

#endif
