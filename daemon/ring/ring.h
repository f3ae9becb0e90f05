/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RING_RING_H
#define IB_RING_RING_H

/*
 * Update rings: a guest's refreshes out of shared memory, without a socket's round trip.
 *
 * Each ring is served by one of a few threads, which sleep until somebody rings and go round the
 * rings that have work, a bounded number of entries of each lane a turn. What an entry asks for is
 * done as the call would be, for the session that made the ring: what it may not do, or names
 * wrongly, is a verdict. What is above a rate is BUSY at once and not delayed: the lane's order
 * would hold up all behind it.
 */

#include "broker/broker.h"
#include "ring/queue.h"

#define RING_THREADS_MAX 8

struct ring_server;
struct ring;

/* n_threads: 1 .. RING_THREADS_MAX. The broker is borrowed until ring_server_free(). 0 or a
 * negative errno. */
int ring_server_new(struct ring_server **ret, struct broker *broker, unsigned int n_threads);
/* Ends every ring and waits for what they have under way; the broker must still be there, and no
 * ring be made any more. NULL is fine; returns NULL. */
struct ring_server *ring_server_free(struct ring_server *server);

/* Whether a thread is in the same turn as when this was asked the last time. One thread. */
bool ring_server_hangs(struct ring_server *server);

/* What was refreshed through all of its rings. Any thread. */
void ring_server_count(struct ring_server *server, struct refresh_counts *ret);

struct ring_request {
	uint64_t guest;
	uint32_t lanes;   /* 1 .. RING_LANES_MAX */
	uint32_t entries; /* of each queue: a power of two, at most RING_ENTRIES_MAX */
};

/* The client's ends: the caller owns them. */
struct ring_ends {
	uint32_t lanes;
	int memory, submit;
	int complete[RING_LANES_MAX];
};

/* What one of that shape is charged. */
uint64_t ring_bytes(uint32_t lanes, uint32_t entries);
/* On the guest's lane. 0, REFUSED or a negative errno. */
int ring_create(struct ring_server *server, struct session *session,
		const struct ring_request *request, uint64_t *ret_ring, struct ring_ends *ret_ends,
		struct refusal *refusal);
/* Any thread. */
int ring_destroy(struct ring_server *server, struct session *session, uint64_t ring,
		 struct refusal *refusal);

/* At the start, before anybody calls: the rings of a process before this one go on where they were;
 * one that cannot is ended, and said so. How many go on. */
size_t ring_server_adopt(struct ring_server *server);

#endif
