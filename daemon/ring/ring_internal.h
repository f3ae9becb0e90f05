/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RING_RING_INTERNAL_H
#define IB_RING_RING_INTERNAL_H

/*
 * What the files of ring/ share: ring.c makes rings, lane.c works on their entries, server.c has
 * the threads.
 *
 * All of a ring is its thread's, but for what is marked. The broker finishes work on other threads:
 * they set lane->finished, and wake the thread.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "ring/ring.h"
#include "util/turns.h"

#define LANE_BATCH  16 /* entries that are one refresh */
#define RING_BUDGET 64 /* entries of a ring in a turn */

struct ring_thread {
	pthread_t id;
	struct ring_server *server;
	int epoll_fd, event_fd;
	_Atomic bool stop;
	atomic_uint n_rings;
	struct ring *active; /* utlist: those that may have work */
	struct ring *rings;  /* utlist */

	struct turns turns;
	struct refresh_counts counts; /* this thread adds, with relaxed order, any reads */

	pthread_mutex_t lock;
	struct ring *incoming; /* utlist */
};

struct ring_server {
	struct broker *broker;
	atomic_uint n_waking; /* those that are just about to wake a thread */
	unsigned int n_threads;
	struct ring_thread threads[RING_THREADS_MAX];
};

struct ring_lane_work {
	struct ring *ring;
	uint32_t index;
	bool running;          /* until it was seen that it is finished */
	_Atomic bool finished; /* any thread */
	int status;            /* of what is finished */
	size_t n;              /* entries that it is of */
	struct ring_submission batch[LANE_BATCH];
	/* The nested domain that was looked up last. */
	uint32_t nested_index;
	uint64_t nested;
	bool looked_up;      /* for what is under way, not before */
	struct pool_job job; /* of a managed domain's entry */
	size_t n_results;
	struct refresh refresh;
};

struct ring {
	struct ring_server *server;
	struct ring_thread *thread;
	struct session *session; /* a reference */
	struct tenant *tenant;   /* who pays rates: a reference, or NULL */
	uint64_t guest;
	atomic_uint refs;    /* of the broker's claim, and of who makes or serves it */
	_Atomic bool ending; /* any thread */
	bool entered;        /* its thread has it in its list */
	bool is_active;
	bool hung_up; /* nobody has the submissions' doorbell any more */
	unsigned int n_running;
	uint32_t next_lane; /* of the next turn */
	int memory_fd, state_fd, submit_fd;
	int complete_fds[RING_LANES_MAX];
	void *memory;
	uint64_t memory_bytes;
	struct ring_state *state; /* a mapping, of its own file */
	struct ring_queue queue;
	struct ring_lane_work *lanes;
	struct ring *prev, *next, *active_prev, *active_next;
};

/* ── ring.c ───────────────────────────────────────────────────────────────────────────────── */

void ring_unref(struct ring *ring);

/* ── lane.c ───────────────────────────────────────────────────────────────────────────────── */

/* A turn of one lane, paid from its ring's budget. true: something was done. */
bool lane_turn(struct ring_lane_work *lane, size_t *budget);
/* Ring its client, whether it sleeps or not. */
void lane_ring(struct ring_lane_work *lane);

/* ── server.c ─────────────────────────────────────────────────────────────────────────────── */

/* Hand a ring that is complete to a thread, with the maker's reference. 0, or an errno: it is the
 * maker's still. */
int server_serve(struct ring_server *server, struct ring *ring);
/* Any thread: it looks at its rings. */
void thread_wake(struct ring_thread *thread);

#endif
