/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/metrics_lag.h"

#include <errno.h>

#include "rpc/dispatcher.h"
#include "util/clock.h"

#define INTERVAL_NS UINT64_C(1000000000)

/* Not EV_PERSIST: what was missed while the loop stood still is one lag, not many. */
static int lag_arm(struct metrics_lag *lag)
{
	struct timeval interval = {.tv_sec = 1};

	lag->due_ns = clock_monotonic_ns() + INTERVAL_NS;
	return event_add(lag->timer, &interval);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
	struct metrics_lag *lag = context;
	uint64_t now_ns = clock_monotonic_ns();

	(void)fd;
	(void)what;
	metrics_observe(&lag->dispatcher->metrics->loop_lag,
			now_ns > lag->due_ns ? now_ns - lag->due_ns : 0);
	lag_arm(lag);
}

int metrics_lag_start(struct metrics_lag *lag, struct dispatcher *dispatcher, struct loop *loop)
{
	lag->dispatcher = dispatcher;
	lag->timer = evtimer_new(loop_base(loop), on_timer, lag);
	return lag->timer && !lag_arm(lag) ? 0 : -ENOMEM;
}

void metrics_lag_stop(struct metrics_lag *lag)
{
	if (lag->timer)
		event_free(lag->timer);
}
