#include "mirror/metrics.h"

const struct metric_row mirror_metric_rows[MIRROR_METRICS] = {
#define METRIC METRIC_ROW
#include "mirror/metrics.def"
#undef METRIC
};
