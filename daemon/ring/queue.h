/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RING_QUEUE_H
#define IB_RING_QUEUE_H

/*
 * The daemon's side of a ring's memory, without who does the work.
 *
 * The memory is the client's as much as ours: every word of it is loaded once, and nothing that
 * was stored there is believed. Where we are is a word for each lane in struct ring_state, which
 * lies elsewhere and can outlive the process: it moves on after completions were written and before
 * they are published. So a successor of a process that died anywhere in between publishes what was
 * complete, and does again what was not: refreshes, which may be done twice.
 *
 * A lane is one thread's at a time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iommubroker/ring_layout.h"

#define RING_STATE_VERSION 1

/* What survives: plain words of fixed width. */
struct ring_state {
	uint32_t version, lanes, entries;
	uint32_t owner; /* of the secret of its session; 0: not told */
	/* Low half: submissions that were completed, modulo 2^32. High half: enum ring_fault. */
	uint64_t words[RING_LANES_MAX];
};

struct ring_queue {
	void *memory;
	uint32_t lanes, entries;
	struct ring_state *state; /* borrowed */
};

/* A new ring's: memory is zeroed and has ring_memory_bytes(); state is overwritten. */
void queue_init(struct ring_queue *queue, void *memory, uint32_t lanes, uint32_t entries,
		struct ring_state *state);
/* One that another process served: what it had completed is published. false: the state is damaged
 * or of another version. memory_bytes: of the whole mapping. */
bool queue_adopt(struct ring_queue *queue, void *memory, uint64_t memory_bytes,
		 struct ring_state *state);

/* Copies of submissions that wait, from the first that is not completed on, at most n_max. How
 * many; 0 for a lane with a fault, also one that it has from now on. */
size_t queue_load(struct ring_queue *queue, uint32_t lane, struct ring_submission *ret,
		  size_t n_max);
/* Those loaded last, or the first n of them, are done: write, then commit, then publish; in three
 * so that a test can stop in between. */
void queue_write(struct ring_queue *queue, uint32_t lane, const struct ring_completion *completions,
		 size_t n);
void queue_commit(struct ring_queue *queue, uint32_t lane, size_t n);
void queue_publish(struct ring_queue *queue, uint32_t lane);
/* Nobody serves it any more; what was taken last was completed. */
void queue_end(struct ring_queue *queue);
/* After the last: whether the lane's client sleeps. */
bool queue_client_sleeps(struct ring_queue *queue, uint32_t lane);
/* Tell the clients whether we sleep; every lane is to be looked at again before one does. */
void queue_set_sleeping(struct ring_queue *queue, bool sleeping);
enum ring_fault queue_fault(const struct ring_queue *queue, uint32_t lane);

#endif
