/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CLIENT_CONNECTION_H
#define IB_CLIENT_CONNECTION_H

/*
 * One native connection, and the calls in flight on it.
 *
 * Leader and followers. Any number of threads wait for answers at once. The first of them becomes
 * the reader: it alone polls and reads the socket, and puts every answer where it belongs, until
 * its own has come. The others sleep, each on its own condition variable. A reader that leaves
 * wakes one sleeper, which reads on. iommubroker_process() is a reader that does not wait. So an
 * answer needs no thread but those that wait for one.
 *
 * Slots. A call takes one of 64 slots, as many as the daemon serves at once; its number on the wire
 * is the slot plus 64 times a generation, so that an answer finds its slot at once and a late one
 * finds nobody. A caller that gives up leaves the slot abandoned until the answer comes. The last
 * free slot is kept for cancelling.
 *
 * Lock. One mutex guards everything but rx, which belongs to who set `reading`. It is never held
 * over a system call that can block. Sinks are called under it and must not call back.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/packet.h"

#define CALLS_MAX 64

struct call_ops {
	/* The sink has a slot, and this number; NULL: who cares. */
	void (*begun)(void *sink, uint64_t number);
	/* An answer came; take what is wanted out of it, and descriptors by setting them to -1. 0,
	 * or -EBADMSG: it makes no sense, drop the connection. */
	int (*take)(void *sink, const struct answer *answer, struct packet *packet);
	/* Asynchronous calls: no answer will come any more. */
	void (*lost)(void *sink, int result);
};

enum call_state {
	CALL_FREE,
	CALL_WAITED,    /* a thread waits, or is going to */
	CALL_ASYNC,     /* its sink outlives the slot */
	CALL_ABANDONED, /* nobody wants the answer */
};

struct call {
	uint64_t number;
	enum call_state state;
	uint32_t method;
	const struct call_ops *ops;
	void *sink;
	pthread_cond_t changed;
	bool sleeping;
	bool news;  /* something came that call_wait() has not reported */
	bool final; /* nothing more comes */
	int result; /* with final: 0, or why no answer came */
};

struct connection {
	int fd;
	pthread_mutex_t lock;
	pthread_cond_t slot_free;
	struct call calls[CALLS_MAX];
	uint8_t free_slots[CALLS_MAX]; /* a stack */
	size_t n_free;
	size_t n_sleeping; /* calls asleep */
	size_t n_starved;  /* threads that wait for a slot */
	size_t n_async;
	bool reading;
	int lost; /* 0, or why the connection is gone: final */
	uint8_t *rx;
	/* What an event loop polls: the socket, while asynchronous calls are out and nobody reads,
	 * and event_fd, while callbacks wait. A blocking call does not wake the event loop. */
	int epoll_fd, event_fd;
	bool armed;
};

/* The descriptor is consumed, also on failure. 0 or a negative errno. */
int connection_init(struct connection *connection, int consume_fd);
/* No call may be in progress. */
void connection_deinit(struct connection *connection);

/* Take a slot; state CALL_WAITED or CALL_ASYNC. 0, -ETIMEDOUT at the deadline, or the loss. */
int call_begin(struct connection *connection, enum call_state state, uint32_t method,
	       const struct call_ops *ops, void *sink, uint64_t deadline, struct call **ret);
/* Send the request; its header's room at the start of packet is filled in here. On failure the call
 * is ended. 0, -ETIMEDOUT, or a negative errno. Requests of asynchronous calls must not be touched
 * after it. */
int call_send(struct connection *connection, struct call *call, uint8_t *packet, size_t n_bytes,
	      int borrow_fd, uint64_t deadline);
/* 0: the sink took something; call->final says if it was the last. -ETIMEDOUT or the loss. */
int call_wait(struct connection *connection, struct call *call, uint64_t deadline);
/* Give the slot back; an answer that still comes is dropped. */
void call_end(struct connection *connection, struct call *call);
/* The sink of an asynchronous call wants nothing more. false: it had its last already. */
bool call_abandon(struct connection *connection, uint64_t number);
/* A request whose answer nobody wants; with a call number of its own, or that of another call.
 * Never waits. 0 or a negative errno. */
int call_send_only(struct connection *connection, uint32_t method, uint8_t *packet, size_t n_bytes);
int connection_send_raw(struct connection *connection, uint32_t method, uint64_t number);

/* Read what is there without waiting, at most max packets. 0, also if somebody else reads. */
void connection_drain(struct connection *connection, unsigned int max);

#endif
