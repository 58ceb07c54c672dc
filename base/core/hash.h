/* uthash behind one file: an allocation failure drops the add instead of ending the process. Check the element's
 * `hh.tbl` (or HASH_ADDED) after an add where memory may run out. */
#ifndef SUNDOG_BASE_CORE_HASH_H
#define SUNDOG_BASE_CORE_HASH_H

#define HASH_NONFATAL_OOM 1
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#include <uthash.h>
#pragma GCC diagnostic pop

#define HASH_ADDED(element) ((element)->hh.tbl != NULL)

#endif
