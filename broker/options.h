/* The broker's options as a struct, from the rows of options.def; plain values, constant after the start. */
#ifndef SUNDOG_BROKER_OPTIONS_H
#define SUNDOG_BROKER_OPTIONS_H

#include "base/runtime/options.h"

struct broker_options {
#define OPTION OPTION_FIELD
#include "broker/options.def"
#undef OPTION
};

extern const struct option_table broker_option_table;
/* Kafka's keys that we do not serve; NULL at the end. */
extern const char *const broker_unserved_keys[];

/* Reads a file and `key=value` arguments over it. On error nothing is held. */
int broker_options_load(struct disk *disk, const char *path, const char *const *arguments, int n,
                        struct broker_options *out, struct err *err);
void broker_options_fini(struct broker_options *o);

#endif
