#include "broker/metrics.h"

const struct metric_row broker_metric_rows[] = {
#define METRIC METRIC_ROW
#include "broker/metrics.def"
#undef METRIC
};
