/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See clock.h. */

#include <errno.h>
#include <poll.h>
#include <time.h>

#include "lib/clock.h"

#define SECOND_NS 1000000000u

uint64_t clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

uint64_t clock_deadline(uint64_t timeout_ns)
{
	uint64_t now = clock_now_ns();

	return timeout_ns >= NEVER - now ? NEVER : now + timeout_ns;
}

static struct timespec to_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = ns / SECOND_NS, .tv_nsec = ns % SECOND_NS};
}

short clock_poll(int fd, short events, uint64_t deadline)
{
	struct pollfd poll_fd = {.fd = fd, .events = events};
	struct timespec left;
	uint64_t now;

	for (;;) {
		if (deadline != NEVER) {
			now = clock_now_ns();
			left = to_timespec(now < deadline ? deadline - now : 0);
		}
		if (ppoll(&poll_fd, 1, deadline != NEVER ? &left : NULL, NULL) >= 0)
			return poll_fd.revents;
		if (errno != EINTR && errno != EAGAIN)
			return POLLERR;
	}
}

int clock_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline)
{
	struct timespec until = to_timespec(deadline);

	if (deadline == NEVER)
		return pthread_cond_wait(cond, lock);
	return pthread_cond_timedwait(cond, lock, &until);
}

void clock_sleep_until(uint64_t deadline)
{
	struct timespec until = to_timespec(deadline);

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}
