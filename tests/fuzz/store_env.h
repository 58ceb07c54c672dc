/* The mirror's store under a fuzz target: one environment for all inputs, on memory where there is such a file
 * system (opening it costs more than an input), emptied before each. One thread. */
#ifndef SUNDOG_TESTS_FUZZ_STORE_ENV_H
#define SUNDOG_TESTS_FUZZ_STORE_ENV_H

#include <stdio.h>
#include <unistd.h>

#include "mirror/offsets/store_internal.h"
#include "tests/fuzz/fuzz.h"

static inline struct store *store_env_open(void)
{
    struct store *store;
    char dir[256];
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/sundog-fuzz-XXXXXX",
             access("/dev/shm", W_OK) ? tmp ? tmp : "/tmp" : "/dev/shm");
    if (!mkdtemp(dir) ||
        store_open(&(struct store_options){.path = dir, .map_bytes = 16 << 20}, &store, NULL))
        abort();
    for (int i = 0; i < 2; i++) { /* open: nobody needs the names any more */
        char path[300];
        snprintf(path, sizeof path, "%s/%s", dir, i ? "lock.mdb" : "data.mdb");
        unlink(path);
    }
    rmdir(dir);
    return store;
}

/* A transaction in which all tables are empty. */
static inline MDB_txn *store_env_empty(struct store *store)
{
    MDB_txn *txn;
    if (mdb_txn_begin(store->env, NULL, 0, &txn))
        abort();
    for (int t = 0; t < TABLES_N; t++)
        if (mdb_drop(txn, store->dbi[t], 0))
            abort();
    return txn;
}

#endif
