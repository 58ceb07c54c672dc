/* The mirror's metric numbers: M_… of metrics.def. */
#ifndef SUNDOG_MIRROR_METRICS_H
#define SUNDOG_MIRROR_METRICS_H

#include "base/runtime/metrics.h"

enum mirror_metric {
#define METRIC METRIC_ENUM
#include "mirror/metrics.def"
#undef METRIC
    MIRROR_METRICS
};

extern const struct metric_row mirror_metric_rows[MIRROR_METRICS];

#endif
