#include "broker/options.h"

#include "base/runtime/log.h"

#include <string.h>

static const struct option_row rows[] = {
#define OPTION(...) OPTION_ROW(struct broker_options, __VA_ARGS__)
#include "broker/options.def"
#undef OPTION
};
const struct option_table broker_option_table = OPTION_TABLE("broker", rows, struct broker_options);

const char *const broker_unserved_keys[] = {
#define UNSERVED(key) key,
#include "broker/unserved.def"
#undef UNSERVED
    NULL};

static int load(struct props *p, struct disk *disk, const char *path, const char *const *arguments, int n,
                struct broker_options *out, struct err *err)
{
    const struct option_table *tables[] = {&broker_option_table};
    int rc = props_load(p, disk, path, err);
    for (int i = 0; !rc && i < n; i++)
        rc = props_argument(p, arguments[i], err);
    if (!rc)
        rc = options_apply(&broker_option_table, p, out, err);
    if (rc)
        return rc;
    rc = options_finish(tables, 1, broker_unserved_keys, p, err);
    if (rc)
        options_fini(&broker_option_table, out);
    else if (strcmp(out->compression_type, "producer") != 0)
        log_warn("options", "batches are stored as their producer compressed them compression.type=%s",
                 out->compression_type);
    return rc;
}

int broker_options_load(struct disk *disk, const char *path, const char *const *arguments, int n,
                        struct broker_options *out, struct err *err)
{
    struct props p;
    props_init(&p);
    int rc = load(&p, disk, path, arguments, n, out, err);
    props_fini(&p);
    return rc;
}

void broker_options_fini(struct broker_options *o)
{
    options_fini(&broker_option_table, o);
}
