/* What the commands of `sundog` share: the global options, output as text or JSON, errors of at most three lines, and
 * the exit codes that scripts rely on. One thread, one command per process. */
#ifndef SUNDOG_MIRROR_CLI_CLI_H
#define SUNDOG_MIRROR_CLI_CLI_H

#include "base/core/buf.h"
#include "base/core/err.h"
#include "base/runtime/props.h"
#include "mirror/cli/args.h"
#include "mirror/cli/session.h"
#include "mirror/route/config.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum cli_exit {
    CLI_DONE = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_REFUSED = 3, /* by a safety check */
    CLI_TIMEOUT = 4,
};

#define CLI_TIMEOUT_DEFAULT_MS 30000

struct cli {
    bool json;
    const char *file;      /* -c: the mirror's properties, or NULL */
    const char *cluster;   /* --cluster ALIAS */
    const char *bootstrap; /* --bootstrap HOST:PORT,… */
    int64_t timeout_ms;    /* --timeout SECONDS: of the whole command */
    struct disk *disk;
    struct props props; /* of `file` once cli_load has read it */
    bool loaded;
    struct mirror_config clusters; /* how they are reached, once somebody asked */
};

/* One command: `args` begins behind its name. Returns an enum cli_exit. */
typedef int cli_command(struct cli *cli, struct args *args);

/* Prints "sundog: …" (one to three lines: what, where, what to do) to stderr and returns `code`. */
int cli_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same for an error of the layers below: its code decides between 1 and 4. */
int cli_fail_err(const struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Reads `file` if it has not been read; a usage error where there is no -c. 0 or an exit code (already told). */
int cli_load(struct cli *cli);
/* The addresses of the cluster a command works on: --bootstrap, or --cluster with -c. 0 or an exit code. */
int cli_address(struct cli *cli, struct session_address *out);
/* Those of one of the file's clusters. 0 or an exit code. */
int cli_cluster_address(struct cli *cli, const char *alias, struct session_address *out);
/* A key of our own for the mirror at `alias`: <alias>.KEY, else KEY; NULL when neither is set. */
const char *cli_own_key(struct cli *cli, const char *alias, const char *key);

/* Prints one JSON document and frees it. CLI_DONE, or CLI_FAILED when stdout cannot be written. */
int cli_print_json(json_t *document);
/* A slice as a JSON string; bytes that are not UTF-8 are escaped. null for a null slice. */
json_t *cli_json_slice(struct slice s);

#endif
