/* sundog status: what the running mirrors of the file say of themselves. */
#include "mirror/cli/commands.h"
#include "mirror/cli/http.h"
#include "mirror/cli/stores.h"

#include <stdio.h>
#include <string.h>

#define STATUS_TIMEOUT_MS 5000

/* The daemon's /status document, or NULL and why. */
static json_t *ask(const char *address, int64_t timeout_ms, struct err *err)
{
    struct buf body;
    int status;
    buf_init(&body, HTTP_ANSWER_MAX);
    json_t *document = NULL;
    json_error_t where;
    if (http_get(address, "/status", timeout_ms < STATUS_TIMEOUT_MS ? timeout_ms : STATUS_TIMEOUT_MS, &status,
                 &body, err) == 0) {
        document = json_loadb((const char *)buf_slice(&body).p, body.n, 0, &where);
        if (!document)
            err_set(err, -E_CORRUPT, "/status is not JSON: %s", where.text);
    }
    buf_fini(&body);
    return document;
}

static const char *text(json_t *row, const char *key)
{
    const char *s = json_string_value(json_object_get(row, key));
    return s ? s : "";
}

static void print_number(json_t *row, const char *key, const char *unit)
{
    json_t *v = json_object_get(row, key);
    if (json_is_integer(v))
        printf("  %s %" JSON_INTEGER_FORMAT "%s", key, json_integer_value(v), unit);
    else if (json_is_real(v))
        printf("  %s %.1f%s", key, json_real_value(v), unit);
}

/* A topic that has no partition to speak for it has the number -1. */
static void print_partition(json_t *row)
{
    json_int_t partition = json_integer_value(json_object_get(row, "partition"));
    printf("  %s", text(row, "topic"));
    if (partition >= 0)
        printf("-%" JSON_INTEGER_FORMAT, partition);
    printf("  %s", text(row, "state"));
}

static void print_flow(json_t *flow)
{
    printf("flow %s  %s%s%s\n", text(flow, "flow"), text(flow, "state"), text(flow, "reason")[0] ? ": " : "",
           text(flow, "reason"));
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(flow, "partitions"), i, row)
    {
        print_partition(row);
        print_number(row, "position", "");
        print_number(row, "lag_records", "");
        print_number(row, "lag_seconds", " s");
        if (text(row, "engine")[0])
            printf("  engine %s (%s)", text(row, "engine"), text(row, "engine_reason"));
        printf("%s%s\n", text(row, "reason")[0] ? "  " : "", text(row, "reason"));
    }
    json_array_foreach(json_object_get(flow, "groups"), i, row)
    {
        printf("  group %s  %s-%" JSON_INTEGER_FORMAT "  %s", text(row, "group"), text(row, "topic"),
               json_integer_value(json_object_get(row, "partition")), text(row, "state"));
        print_number(row, "offset", "");
        print_number(row, "reread", "");
        printf("%s%s\n", text(row, "reason")[0] ? "  " : "", text(row, "reason"));
    }
}

int cli_status(struct cli *cli, struct args *args)
{
    if (!args_done(args))
        return cli_fail(CLI_USAGE, "%s", args->error);
    struct cli_aliases aliases;
    int code = cli_aliases(cli, &aliases), answered = 0, asked = 0;
    if (code)
        return code;
    json_t *mirrors = json_array();
    struct err last = {0};
    const char *seen[CLI_ALIASES_MAX];
    for (int i = 0; i < aliases.n; i++) {
        const char *address = cli_own_key(cli, aliases.alias[i], "sundog.admin.listener");
        bool again = !address || !address[0] || (cli->cluster && strcmp(cli->cluster, aliases.alias[i]) != 0);
        for (int k = 0; k < asked; k++)
            again |= address && strcmp(seen[k], address) == 0;
        if (again)
            continue;
        seen[asked++] = address;
        struct err err = {0};
        json_t *document = ask(address, cli->timeout_ms, &err);
        answered += document != NULL;
        if (!document)
            last = err;
        json_array_append_new(mirrors, document
                                           ? json_pack("{s:s, s:o}", "address", address, "status", document)
                                           : json_pack("{s:s, s:s}", "address", address, "error", err.text));
    }
    if (asked == 0 || answered == 0) {
        json_decref(mirrors);
        return asked == 0
                   ? cli_fail(CLI_FAILED,
                              "%s has no sundog.admin.listener: set it, so that the mirror can be asked",
                              cli->file)
                   : cli_fail_err(&last, "no mirror of %s answers at %s; is it running?", cli->file,
                                  seen[asked - 1]);
    }
    if (cli->json)
        return cli_print_json(json_pack("{s:o}", "mirrors", mirrors));
    size_t i, k;
    json_t *mirror, *flow;
    json_array_foreach(mirrors, i, mirror)
    {
        json_t *status = json_object_get(mirror, "status");
        if (!status)
            printf("mirror at %s: %s\n", text(mirror, "address"), text(mirror, "error"));
        json_array_foreach(json_object_get(status, "flows"), k, flow) print_flow(flow);
    }
    json_decref(mirrors);
    return CLI_DONE;
}
