/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_METRICS_LAG_H
#define IB_RPC_METRICS_LAG_H

/* How late the event loop comes: a timer of one second, and how long after it was due it ran. */

#include <stdint.h>

struct dispatcher;
struct event;
struct loop;

struct metrics_lag {
	struct dispatcher *dispatcher;
	struct event *timer;
	uint64_t due_ns; /* monotonic */
};

/* 0 or a negative errno. The dispatcher outlives it. */
int metrics_lag_start(struct metrics_lag *lag, struct dispatcher *dispatcher, struct loop *loop);
/* Also if it was never started. */
void metrics_lag_stop(struct metrics_lag *lag);

#endif
