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

#endif
