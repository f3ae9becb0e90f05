/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_CLOCK_H
#define IB_UTIL_CLOCK_H

#include <stdint.h>

/* Time of day, for people and events. */
uint64_t clock_realtime_ns(void);
/* For intervals: never goes back. */
uint64_t clock_monotonic_ns(void);
/* The same, and it goes on while the machine is suspended; other processes see the same. */
uint64_t clock_boottime_ns(void);
void clock_sleep_ns(uint64_t interval_ns);

#endif
