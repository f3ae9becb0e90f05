/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_UTIL_POOL_H
#define IB_UTIL_POOL_H

/*
 * Worker threads, and lanes that keep order.
 *
 * A lane is held by one thread at a time and hands itself on in the order of arrival. A guest has a
 * lane for what changes its memory, devices and domains; a nested domain has one for its refreshes.
 * Jobs of a lane run one after another on the pool's threads; a thread that finds a lane free can
 * also enter it and work inline.
 *
 * A lane is held only while a thread really runs in it: a job that yields gives it up. Threads that
 * wait in pool_lane_enter() go before queued jobs, so that a worker that waits for a lane never
 * needs another worker to get it: the pool cannot lock up on its own lanes. Lock order: a thread
 * that holds a guest's lane may enter a nested domain's; never the other way round.
 *
 * A share bounds how many threads the jobs of one tenant occupy. Shares are served by turns, one
 * job each, and so are the lanes of a share: however many jobs somebody has queued, a job of
 * another share waits for one slice of each other share at most, and one of another lane for one of
 * each.
 */

#include <stdbool.h>

struct pool;
struct pool_lane;
struct pool_share;

struct pool_job {
	/* Runs on a worker, holding the lane. true: queue me again at the end (a slice is done).
	 * After false the job's memory is not touched any more. */
	bool (*run)(struct pool_job *job);
	struct pool_lane *lane;   /* NULL: no order */
	struct pool_share *share; /* NULL: no bound but the pool's */
	struct pool_job *next;    /* the pool's */
};

/* threads_max: 1 .. 256; threads are made when work comes and stay. 0 or a negative errno. */
int pool_new(struct pool **ret, unsigned int threads_max);
/* Waits until every job that was submitted has ended. NULL is fine; returns NULL. */
struct pool *pool_free(struct pool *pool);
/* Never fails: if no thread can be made the job waits for one that lives; there is always one. */
void pool_submit(struct pool *pool, struct pool_job *job);

/* How busy it is, at a moment. Any thread. */
struct pool_load {
	unsigned int threads, busy; /* busy: of the threads, those that run a job */
	unsigned int threads_max;
	unsigned int queued;      /* jobs that wait for a thread */
	unsigned int outstanding; /* submitted and not ended; some of them wait for their lane */
};
void pool_load(struct pool *pool, struct pool_load *ret);

struct pool_lane *pool_lane_new(void); /* NULL: no memory */
struct pool_lane *pool_lane_ref(struct pool_lane *lane);
struct pool_lane *pool_lane_unref(struct pool_lane *lane); /* returns NULL */
/* Take it if nobody holds it and nobody waits. */
bool pool_lane_try_enter(struct pool_lane *lane);
/* Wait for it. Not on the event loop. */
void pool_lane_enter(struct pool_lane *lane);
void pool_lane_leave(struct pool *pool, struct pool_lane *lane);

/* running_max: 1 .. 256 threads at a time. */
struct pool_share *pool_share_new(unsigned int running_max);
struct pool_share *pool_share_ref(struct pool_share *share);
struct pool_share *pool_share_unref(struct pool_share *share);

#endif
