/* The machine's clocks, for what runs outside a loop (a start, a worker thread, a log line). Code on a loop
 * asks the loop: loop_now_us, loop_wall_ms. */
#ifndef SUNDOG_BASE_WORLD_CLOCK_H
#define SUNDOG_BASE_WORLD_CLOCK_H

#include <stdint.h>

int64_t clock_now_us(void);  /* monotonic */
int64_t clock_wall_ms(void); /* since 1970 */

#endif
