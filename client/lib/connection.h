/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CLIENT_CONNECTION_H
#define IB_CLIENT_CONNECTION_H

/*
 * A session's connection to the daemon, and the calls in flight on it.
 *
 * Leader and followers. Any number of threads wait for answers at once. The first of them becomes
 * the reader: it alone polls and reads the socket, and puts every answer where it belongs, until
 * its own has come. The others sleep, each on its own condition variable. A reader that leaves
 * wakes one sleeper, which reads on. iommubroker_process() is a reader that does not wait. So an
 * answer needs no thread but those that wait for one. (reader.c)
 *
 * Slots. A call takes one of 64 slots, as many as the daemon serves at once; its number on the wire
 * is the slot plus 64 times a generation, so that an answer finds its slot at once and a late one
 * finds nobody. A caller that gives up leaves the slot abandoned until the answer comes. The last
 * free slot is kept for cancelling.
 *
 * The daemon's restart. A socket that is gone takes the link down, not the connection: calls keep
 * their slots and their packets, whoever is the reader gets a socket again (resume.h), and then
 * every call is sent again, in the order in which they were begun, under the request id that it
 * has. Those that are not to be repeated (refreshes) end at once. (link.c)
 *
 * Lock. One mutex guards everything but rx, which belongs to who set `reading`. It is never held
 * over a system call that can block. Sinks are called under it and must not call back.
 *
 * The socket's number stays the same for the life of the connection: a new socket is put in its
 * place. Whoever sends without the lock is counted in n_sending meanwhile, and no socket is put in
 * place before that is 0.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/packet.h"
#include "lib/resume.h"

#define CALLS_MAX 64

struct call_ops {
	/* The sink has a slot, and this number; NULL: who cares. */
	void (*begun)(void *sink, uint64_t number);
	/* An answer came; take what is wanted out of it, and descriptors by setting them to -1. 0,
	 * or -EBADMSG: it makes no sense, drop the connection. */
	int (*take)(void *sink, const struct answer *answer, struct packet *packet);
	/* Asynchronous calls: no answer will come any more. */
	void (*lost)(void *sink, int result);
	/* The request is about to be sent again: bring its packet up to date. Its length, header
	 * included. NULL: it is as it was. */
	size_t (*renew)(void *sink, uint8_t *packet);
};

enum call_state {
	CALL_FREE,
	CALL_WAITED,    /* a thread waits, or is going to */
	CALL_ASYNC,     /* its sink outlives the slot */
	CALL_ABANDONED, /* nobody wants the answer */
};

/* What is sent. The packet has room for its header in front, which is filled in by who sends; with
 * `repeats` it has to stay, like the descriptor, until the call has ended. */
struct call_request {
	uint32_t method;
	uint8_t *packet;
	size_t n_bytes;
	int borrow_fd; /* -1: none */
	bool repeats;  /* by a daemon that was restarted */
};

struct call {
	uint64_t number;
	uint64_t order; /* of all calls of the connection */
	enum call_state state;
	struct call_request request;
	uint64_t cancels; /* request id of a mutation that somebody wanted to stop, or 0 */
	const struct call_ops *ops;
	void *sink;
	pthread_cond_t changed;
	bool sleeping;
	bool unsent;        /* waits for the link, or for room behind others that do */
	unsigned int times; /* that it was sent, or tried to be */
	bool news;          /* something came that call_wait() has not reported */
	bool final;         /* nothing more comes */
	int result;         /* with final: 0, or why no answer came */
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
	size_t n_async, n_unsent;
	uint64_t order;
	bool reading;
	int lost;       /* 0, or why the connection is gone: final */
	bool down;      /* the link is, and not lost */
	uint64_t falls; /* how often it went down */
	_Atomic unsigned int n_sending;
	struct resume resume;
	uint8_t *rx;
	/* The link went down, came up again, or was lost. Under the lock; NULL: who cares. */
	void (*changed)(void *context);
	void *changed_context;
	/* What an event loop polls: the socket, while asynchronous calls are out and nobody reads;
	 * event_fd, while callbacks wait; timer_fd, when the link is down and something is to be
	 * done for it. A blocking call does not wake the event loop. */
	int epoll_fd, event_fd, timer_fd;
	uint32_t armed; /* events of the socket */
};

/* The descriptor is consumed, also on failure. 0 or a negative errno. */
int connection_init(struct connection *connection, int consume_fd);
/* No call may be in progress. */
void connection_deinit(struct connection *connection);

/* Take a slot and send a request that this thread waits for. On failure there is no call. 0, also
 * if the link is down and it will be sent later; -ETIMEDOUT at the deadline, -ECONNRESET if the
 * link is down and it does not repeat, the loss, or the errno of sending. */
int call_start(struct connection *connection, const struct call_request *request,
	       const struct call_ops *ops, void *sink, uint64_t deadline, struct call **ret);
/* The same for a call that nobody waits for: never waits, and with the link down one that does not
 * repeat is lost at once. -EAGAIN: no slot, or no room. */
int call_submit(struct connection *connection, const struct call_request *request,
		const struct call_ops *ops, void *sink, uint64_t *ret_number);
/* 0: the sink took something; call->final says if it was the last. -ETIMEDOUT, -ECONNRESET or the
 * loss. */
int call_wait(struct connection *connection, struct call *call, uint64_t deadline);
/* Give the slot back; an answer that still comes is dropped. */
void call_end(struct connection *connection, struct call *call);
/* The sink of an asynchronous call wants nothing more; tell: neither is the daemon to go on with
 * it. false: it had its last already. */
bool call_abandon(struct connection *connection, uint64_t number, bool tell);
/* Have the daemon stop the mutation with that request id, which call `number` asked for, and asks
 * for again after a restart. Never waits. 0 or a negative errno. */
int call_cancel(struct connection *connection, uint64_t number, uint64_t request_id);

/* How the link is: 0, -EAGAIN while it is down, or the loss. Notices that the daemon is gone, and
 * does what is due; never waits. */
int connection_state(struct connection *connection);

#endif
