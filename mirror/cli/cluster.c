/* The session of a command with the cluster that the global options name. */
#include "mirror/cli/commands.h"
#include "mirror/cli/session.h"

int cli_open(struct cli *cli, struct session **out)
{
    struct session_address address;
    int code = cli_address(cli, &address);
    if (code)
        return code;
    struct err err = {0};
    return session_open(&address, cli->timeout_ms, out, &err) ? cli_fail_err(&err, "%s", address.bootstrap)
                                                              : 0;
}

int cli_on_cluster(struct cli *cli, struct args *args,
                   int (*run)(struct cli *cli, struct session *s, const void *arg), const void *arg)
{
    if (!args_done(args))
        return cli_fail(CLI_USAGE, "%s", args->error);
    struct session *s;
    int code = cli_open(cli, &s);
    if (code)
        return code;
    code = run(cli, s, arg);
    session_close(s);
    return code;
}
