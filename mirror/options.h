/* The daemon's own options. */
#ifndef SUNDOG_MIRROR_OPTIONS_H
#define SUNDOG_MIRROR_OPTIONS_H

#include "base/runtime/options.h"

struct mirror_options {
#define OPTION OPTION_FIELD
#include "mirror/options.def"
#undef OPTION
};
extern const struct option_table mirror_option_table;

#endif
