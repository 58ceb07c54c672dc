/* The commands, and what they share with each other beyond cli.h. */
#ifndef SUNDOG_MIRROR_CLI_COMMANDS_H
#define SUNDOG_MIRROR_CLI_COMMANDS_H

#include "mirror/cli/cli.h"

struct session;

#define COMMAND(words, function, usage, sentence) cli_command function;
#include "mirror/cli/commands.def"
#undef COMMAND

/* A session with the cluster that the global options name. 0 or an exit code (already told). */
int cli_open(struct cli *cli, struct session **out);
/* A command whose words are all read: `run` with such a session. An exit code. */
int cli_on_cluster(struct cli *cli, struct args *args,
                   int (*run)(struct cli *cli, struct session *s, const void *arg), const void *arg);

#endif
