/* clock.h - the only place that reads clocks. The core takes time as a value. */
#ifndef MUSTER_BASE_CLOCK_H
#define MUSTER_BASE_CLOCK_H

#include <stdint.h>

int64_t clock_boot_ms(void); /* CLOCK_BOOTTIME, milliseconds: never goes back, counts suspend */
int64_t clock_boot_us(void); /* the same in microseconds */
int64_t clock_wall_ms(void); /* milliseconds since 1970, for display only */

#endif
