/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_THROTTLE_H
#define IB_RPC_THROTTLE_H

/*
 * Holds what must not begin before its time, and lets it go on the loop's thread when that comes.
 *
 * When that is was decided before (broker_rate_take()), so nothing here waits for anything else
 * that waits: one tenant's calls never stand in the way of another's. What is due at the same
 * moment goes in the order in which it came. Nothing is allocated: what is held brings its place
 * along. One timer for all of them, set to the first.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bsd/sys/tree.h>

#include "rpc/loop.h"

/* Something that is held. The throttle's until it is let go. */
struct held {
	RB_ENTRY(held) entry;
	uint64_t due_ns; /* monotonic */
	uint64_t serial;
};
RB_HEAD(held_tree, held);

struct throttle {
	struct loop *loop;
	void (*let_go)(struct held *held);
	struct event *timer;   /* the loop's */
	struct loop_post post; /* sets the timer */

	pthread_mutex_t lock; /* guards what follows */
	struct held_tree tree;
	size_t n, n_max;
	uint64_t serial;
	bool posted, stopped;
};

/* On the loop's thread. 0 or -ENOMEM. let_go is called without a lock, on the loop's thread or in
 * throttle_stop(). */
int throttle_init(struct throttle *throttle, struct loop *loop, size_t n_max,
		  void (*let_go)(struct held *held));
/* Any thread. false: too many are held, or it was stopped; held is still the caller's. */
bool throttle_hold(struct throttle *throttle, struct held *held, uint64_t due_ns);
/* Let all of them go now, and hold nothing any more. The loop's thread. May be called again. */
void throttle_stop(struct throttle *throttle);
/* After throttle_stop(), on the loop's thread. */
void throttle_deinit(struct throttle *throttle);

#endif
