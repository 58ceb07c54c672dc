#include "mirror/cli/cli.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int cli_fail(int code, const char *fmt, ...)
{
    assert(code > CLI_DONE && code <= CLI_TIMEOUT);
    va_list args;
    va_start(args, fmt);
    fputs("sundog: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return code;
}

int cli_fail_err(const struct err *err, const char *fmt, ...)
{
    char what[ERR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    const char *why = err->text[0] ? err->text : err_str(err->code);
    if (err->code == -E_TIMEOUT)
        return cli_fail(
            CLI_TIMEOUT,
            "%s: %s\n  is the address right, and does it run there? --timeout SECONDS waits longer", what,
            why);
    if (err->code == -E_REFUSED)
        return cli_fail(CLI_FAILED, "%s: %s\n  is the address right, and does it run there?", what, why);
    return cli_fail(CLI_FAILED, "%s: %s", what, why);
}

int cli_load(struct cli *cli)
{
    if (cli->loaded)
        return 0;
    if (!cli->file)
        return cli_fail(CLI_USAGE, "this needs the mirror's file: add -c FILE");
    struct err err = {0};
    if (props_load(&cli->props, cli->disk, cli->file, &err))
        return cli_fail(CLI_USAGE, "%s", err.text);
    cli->loaded = true;
    return 0;
}

const char *cli_own_key(struct cli *cli, const char *alias, const char *key)
{
    char name[512];
    assert(cli->loaded);
    if (alias) {
        snprintf(name, sizeof name, "%s.%s", alias, key);
        const char *value = props_get(&cli->props, name);
        if (value)
            return value;
    }
    return props_get(&cli->props, key);
}

int cli_cluster_address(struct cli *cli, const char *alias, struct session_address *out)
{
    struct err err = {0};
    int code = cli_load(cli);
    if (code)
        return code;
    if (cli->clusters.clusters_n == 0 && mirror_config_addresses(&cli->props, &cli->clusters, &err))
        return cli_fail(CLI_USAGE, "%s: %s", cli->file, err.text);
    int at = mirror_config_cluster(&cli->clusters, alias);
    if (at < 0)
        return cli_fail(CLI_USAGE, "%s has no cluster '%s' (key clusters)", cli->file, alias);
    const struct mirror_cluster *c = &cli->clusters.clusters[at];
    *out = (struct session_address){c->bootstrap, &c->security};
    return 0;
}

int cli_address(struct cli *cli, struct session_address *out)
{
    if (cli->bootstrap) {
        *out = (struct session_address){cli->bootstrap, NULL};
        return 0;
    }
    if (cli->cluster)
        return cli_cluster_address(cli, cli->cluster, out);
    return cli_fail(CLI_USAGE, "which cluster? Add --bootstrap HOST:PORT, or -c FILE --cluster ALIAS");
}

int cli_print_json(json_t *document)
{
    assert(document);
    int bad = json_dumpf(document, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(15)) ||
              putchar('\n') == EOF || fflush(stdout);
    json_decref(document);
    return bad ? cli_fail(CLI_FAILED, "cannot write to standard output") : CLI_DONE;
}

json_t *cli_json_slice(struct slice s)
{
    if (slice_is_null(s))
        return json_null();
    json_t *text = json_stringn((const char *)s.p, s.n);
    if (text)
        return text;
    /* Not UTF-8: each byte as the code point of its number, so that nothing is lost. */
    struct buf b;
    buf_init(&b, s.n * 2 + 1);
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < 0x80) {
            buf_put_u8(&b, s.p[i]);
        } else {
            buf_put_u8(&b, (uint8_t)(0xc0 | s.p[i] >> 6));
            buf_put_u8(&b, (uint8_t)(0x80 | (s.p[i] & 0x3f)));
        }
    }
    text = json_stringn((const char *)b.p, b.n);
    buf_fini(&b);
    return text ? text : json_null();
}
