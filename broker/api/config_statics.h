/* The broker's properties as the control plane and DescribeConfigs see them: options.def by key, as text. */
#ifndef SUNDOG_BROKER_API_CONFIG_STATICS_H
#define SUNDOG_BROKER_API_CONFIG_STATICS_H

#include "broker/controller/effective.h"
#include "broker/options.h"

/* For struct static_configs; `options` is a const struct broker_options. */
bool config_static_get(void *options, struct slice key, struct arena *arena, struct slice *value,
                       bool *is_default);
/* The value of a row as text (null: not set, or a secret), and whether it is the default. */
struct slice config_static_value(const struct broker_options *o, const struct option_row *row,
                                 struct arena *arena, bool *is_default);

#endif
