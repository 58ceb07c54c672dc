/* The `sundog` command line: global options, then the command whose words match longest. */
#include "base/world/disk_posix.h"
#include "mirror/cli/commands.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

struct command {
    const char *words;
    cli_command *run;
    const char *usage, *sentence;
};

static const struct command commands[] = {
#define COMMAND(words, function, usage, sentence) {words, function, usage, sentence},
#include "mirror/cli/commands.def"
#undef COMMAND
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void help(FILE *to)
{
    fputs("usage: sundog [-c FILE] [--cluster ALIAS | --bootstrap HOST:PORT] [--timeout SECONDS] [--json] "
          "COMMAND\n\n",
          to);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(to, "  %s%s%s\n      %s\n", commands[i].words, commands[i].usage[0] ? " " : "",
                commands[i].usage, commands[i].sentence);
    fputs(
        "\nA cluster is named by --bootstrap, or by --cluster and the mirror's file. --timeout is how long "
        "an "
        "answer may take\n"
        "(30). --json prints JSON (mirror/cli/README.md has its schema); --version the version. Exit codes: "
        "0 done, 1 failed,\n"
        "2 usage, 3 refused by a safety check, 4 timed out.\n",
        to);
}

/* What is wrong with a line whose words begin no command. */
static int no_command(const struct args *a)
{
    if (a->n == 0)
        return cli_fail(CLI_USAGE, "a command is missing; sundog --help lists them");
    if (a->words[0][0] == '-')
        return cli_fail(CLI_USAGE, "unknown option %s; sundog --help lists what there is", a->words[0]);
    size_t n = strlen(a->words[0]);
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strncmp(commands[i].words, a->words[0], n) == 0 && commands[i].words[n] == ' ')
            return a->n > 1
                       ? cli_fail(CLI_USAGE, "no command '%s %s'; sundog --help lists them", a->words[0],
                                  a->words[1])
                       : cli_fail(CLI_USAGE, "'%s' is half a command, as in %s; sundog --help lists them",
                                  a->words[0], commands[i].words);
    }
    return cli_fail(CLI_USAGE, "no command '%s'; sundog --help lists them", a->words[0]);
}

/* Takes the command's words off the front of `a`; NULL when none matches. */
static const struct command *command_of(struct args *a)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        const char *space = strchr(commands[i].words, ' ');
        size_t n = space ? (size_t)(space - commands[i].words) : strlen(commands[i].words);
        if (a->n < 1 || strlen(a->words[0]) != n || strncmp(a->words[0], commands[i].words, n) != 0)
            continue;
        if (space && (a->n < 2 || strcmp(a->words[1], space + 1) != 0))
            continue;
        args_word(a, "command");
        if (space)
            args_word(a, "command");
        return &commands[i];
    }
    return NULL;
}

static void globals(struct cli *cli, struct args *a)
{
    cli->json = args_flag(a, "--json");
    cli->file = args_option(a, "-c");
    cli->cluster = args_option(a, "--cluster");
    cli->bootstrap = args_option(a, "--bootstrap");
    cli->timeout_ms = args_number(a, "--timeout", 1, 86400, CLI_TIMEOUT_DEFAULT_MS / 1000) * 1000;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    struct args a;
    if (args_init(&a, argc - 1, argv + 1))
        return cli_fail(CLI_USAGE, "too many words");
    if (args_flag(&a, "--help") || args_flag(&a, "-h")) {
        help(stdout);
        return CLI_DONE;
    }
    if (a.n == 1 && strcmp(a.words[0], "--version") == 0) {
        puts("sundog " SUNDOG_VERSION);
        return CLI_DONE;
    }
    struct cli cli = {.disk = disk_posix_create()};
    props_init(&cli.props);
    globals(&cli, &a);
    const struct command *c = a.error[0] ? NULL : command_of(&a);
    int code;
    if (a.error[0])
        code = cli_fail(CLI_USAGE, "%s", a.error);
    else if (!c)
        code = no_command(&a);
    else
        code = c->run(&cli, &a);
    if (code == CLI_USAGE && c)
        fprintf(stderr, "usage: sundog %s%s%s\n", c->words, c->usage[0] ? " " : "", c->usage);
    mirror_config_fini(&cli.clusters);
    props_fini(&cli.props);
    disk_posix_destroy(cli.disk);
    return code;
}
