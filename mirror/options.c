#include "mirror/options.h"

static const struct option_row rows[] = {
#define OPTION(...) OPTION_ROW(struct mirror_options, __VA_ARGS__)
#include "mirror/options.def"
#undef OPTION
};

const struct option_table mirror_option_table = OPTION_TABLE("mirror", rows, struct mirror_options);
