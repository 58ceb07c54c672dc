/* CRC-32C (Castagnoli), as Kafka's record batches carry it, in hardware where there is any (ISA-L). */
#ifndef SUNDOG_BASE_CORE_CRC32C_H
#define SUNDOG_BASE_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of `p[0..n)`. */
uint32_t crc32c(const void *p, size_t n);
/* Goes on from `crc`, an earlier result, over more bytes: crc32c(ab) == crc32c_more(crc32c(a), b). */
uint32_t crc32c_more(uint32_t crc, const void *p, size_t n);

#endif
