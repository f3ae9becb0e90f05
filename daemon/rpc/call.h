/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_CALL_H
#define IB_RPC_CALL_H

/*
 * One call, from dispatch_call() to finish().
 *
 * It has one owner at a time and is handed on: the thread that decoded it, then the worker that
 * runs it, or whatever keeps it waiting (the throttle, a stream, the end of a session, a running
 * call with the same request id). Whoever has it ends it with call_finish(), which answers and
 * frees.
 */

#include "rpc/message_arena.h"
#include "rpc/dispatch.h"
#include "rpc/method_table.h"
#include "rpc/throttle.h"

#define CALL_ARENA_BYTES_MAX (1024 * 1024)

/* A handler's answer beside 0, REFUSED and negative: somebody else ends the call. */
#define CALL_PENDING 2

struct request_entry;
struct rpc_session;

struct call {
	struct dispatcher *dispatcher;
	const struct method *method;
	struct rpc_call *rpc;        /* the transport's; gone after its finish() */
	struct rpc_session *session; /* reference, or NULL */
	uid_t uid;                   /* the peer's */
	uint64_t started_ns;         /* monotonic */
	struct rpc_account *account; /* reference, or NULL */
	bool charged;                /* to it, as one in flight */
	uint64_t queued_bytes;     /* charged to it while the pool, or the throttle, has the call */
	uint64_t due_ns;           /* not to go on before, for a rate; 0: at once */
	struct held held;          /* until then */
	ProtobufCMessage *request; /* in the arena */
	void *plain;               /* what prepare() made of it, in the arena */
	int fds[RPC_DESCRIPTORS_MAX]; /* came with the request; -1: taken */
	size_t n_fds;
	struct request_entry *entry; /* of a mutation, while it runs */
	struct call *next_joiner;
	struct pool_job job;
	struct pool_lane *lane; /* reference, or NULL */
	/* Of a mutation: the guest that it changes, written down before it is answered; a
	 * reference, or NULL. */
	struct guest *settles;
	/* The answer: set by call_answer(). */
	const uint8_t *answer;
	size_t answer_bytes;
	size_t repeat_bytes; /* of it, what a repeated request is answered with */
	int answer_fd;       /* or -1 */
	struct refusal refusal;
	struct message_arena arena;
};

/* Pack the response, within what the transport carries. 0 or REFUSED (too large, no memory). */
int call_answer(struct call *call, const ProtobufCMessage *response);

/* End it. status: 0, REFUSED (call->refusal) or negative (the daemon is broken). */
void call_finish(struct call *call, int status);

/* A call that was held goes on. For the dispatcher's throttle. */
void call_let_go(struct held *held);

/* The peer, the session's broker and so on, for handlers. */
struct broker *call_broker(const struct call *call);
struct session *call_session(const struct call *call);
/* The operation of a mutation. */
struct operation *call_operation(const struct call *call);

/* For handlers of mutations that do not run on the lane of the guest that they change: it is that
 * of this handle. */
void call_settles(struct call *call, uint64_t handle);

/* An array in the call's arena, zeroed. NULL: then call_refuse_memory() says why. */
void *call_array(struct call *call, size_t n, size_t bytes);
int call_refuse_memory(struct call *call);

#endif
