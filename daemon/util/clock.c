/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/clock.h"

#include <errno.h>
#include <time.h>

#define NS_PER_S 1000000000ull

static uint64_t clock_read_ns(clockid_t id)
{
	struct timespec now;

	clock_gettime(id, &now); /* fails only for a clock that does not exist */
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t clock_realtime_ns(void)
{
	return clock_read_ns(CLOCK_REALTIME);
}

uint64_t clock_monotonic_ns(void)
{
	return clock_read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_boottime_ns(void)
{
	return clock_read_ns(CLOCK_BOOTTIME);
}

void clock_sleep_ns(uint64_t interval_ns)
{
	struct timespec left = {
		.tv_sec = (time_t)(interval_ns / NS_PER_S),
		.tv_nsec = (long)(interval_ns % NS_PER_S),
	};

	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
		;
}
