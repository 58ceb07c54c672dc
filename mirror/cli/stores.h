/* The checkpoint stores that the mirror's file names, read while the daemon runs or is down. */
#ifndef SUNDOG_MIRROR_CLI_STORES_H
#define SUNDOG_MIRROR_CLI_STORES_H

#include "mirror/cli/cli.h"
#include "mirror/offsets/store.h"
#include "mirror/offsets/topic_map.h"
#include "mirror/offsets/translate.h"

#define CLI_ALIASES_MAX 64

/* The aliases of `clusters`; borrowed from `text`, which is cut up. */
struct cli_aliases {
    char text[8192];
    const char *alias[CLI_ALIASES_MAX];
    int n;
};
int cli_aliases(struct cli *cli, struct cli_aliases *out);

/* The view of one store; close with cli_store_close. */
struct cli_store {
    struct store *store;
    struct store_view *view;
};
int cli_store_open_path(struct cli *cli, const char *path, struct cli_store *out);
/* The store of the mirror at `alias` by the file: <alias>.sundog.store.dir, sundog.store.dir, or sundog-mirror's
 * default, which lies in the folder it was started in. */
#define STORE_DIR_DEFAULT "sundog-mirror.store"
const char *cli_store_dir(struct cli *cli, const char *alias);
int cli_store_open(struct cli *cli, const char *alias, struct cli_store *out);
void cli_store_close(struct cli_store *s);

/* The aliases of a flow's name "east->west"; false when it is none. */
bool cli_flow_aliases(struct slice name, struct slice *source, struct slice *target);

/* A group's commits at the source for one topic, as the mirror has followed them. */
#define CLI_COMMITS_MAX 100000
struct cli_followed {
    struct group_commit *list; /* free() */
    size_t n;
    struct group_entry *entries; /* one a target partition; free(); its slices live as long as the view */
    size_t entries_n;
};
int cli_followed(struct store_view *v, uint32_t topic, const char *group, struct cli_followed *out);
void cli_followed_fini(struct cli_followed *f);

#endif
