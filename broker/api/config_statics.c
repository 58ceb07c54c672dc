#include "broker/api/config_statics.h"

#define VALUE_MAX 65536

struct slice config_static_value(const struct broker_options *o, const struct option_row *row,
                                 struct arena *arena, bool *is_default)
{
    struct buf text;
    struct slice value = SLICE_NULL;
    buf_init(&text, VALUE_MAX);
    options_print(row, o, &text);
    struct slice printed = buf_slice(&text);
    const char *dflt = row->value && row->value != option_required ? row->value : NULL;
    /* a number that is not set and has no default is 0 */
    bool unset = !row->value && (printed.n == 0 || slice_eq_str(printed, "0"));
    *is_default = unset || (dflt && slice_eq_str(printed, dflt));
    if (!unset && row->type != OPTION_PASSWORD)
        value = arena_dup(arena, printed);
    buf_fini(&text);
    return value;
}

bool config_static_get(void *options, struct slice key, struct arena *arena, struct slice *value,
                       bool *is_default)
{
    char name[128];
    if (key.n >= sizeof name)
        return false;
    const struct option_row *row = options_find(&broker_option_table, slice_cstr(key, name, sizeof name));
    if (!row)
        return false;
    *value = config_static_value(options, row, arena, is_default);
    return true;
}
