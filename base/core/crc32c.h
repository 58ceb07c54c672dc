/* CRC-32C (Castagnoli), as Kafka's record batches carry it, in hardware where there is any (ISA-L). */
#ifndef SUNDOG_BASE_CORE_CRC32C_H
#define SUNDOG_BASE_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of `p[0..n)`. */
uint32_t crc32c(const void *p, size_t n);
/* Goes on from `crc`, an earlier result, over more bytes: crc32c(ab) == crc32c_more(crc32c(a), b). */
uint32_t crc32c_more(uint32_t crc, const void *p, size_t n);

/* The CRC of two messages in a row from those of each: crc32c(ab) == crc32c_concat(crc32c(a), crc32c(b), length of
 * b). */
uint32_t crc32c_concat(uint32_t crc_a, uint32_t crc_b, size_t b_bytes);
/* The CRC of a message in which `n` bytes have been replaced, without reading the `behind` bytes that follow them. The
 * CRC is linear: what changes depends on the difference of the bytes and their distance from the end only. */
uint32_t crc32c_replace(uint32_t crc, const void *before, const void *after, size_t n, size_t behind);

#endif
