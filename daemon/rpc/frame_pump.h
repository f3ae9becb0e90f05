/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_FRAME_PUMP_H
#define IB_RPC_FRAME_PUMP_H

/*
 * Carries bytes between a client's socket and gRPC core's end of a socket pair, past the frame
 * guard.
 *
 * gRPC never holds the client's descriptor: it cannot be made to receive descriptors from it
 * (on EPOLLERR it calls recvmsg(MSG_ERRQUEUE) with room for them and forgets what comes), it sees
 * no frame that the guard refuses, and we see the end of the connection, of which gRPC tells
 * nobody.
 *
 * From the client only the loop's thread reads. To the client any thread may carry: a thread that
 * has just given gRPC an answer calls frame_pump_flush() and so spares the way over the loop.
 *
 * Nothing is kept for an idle connection. What the other side does not take is kept, at most one
 * chunk in each direction, and until it is taken nothing more is read.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "rpc/frame_guard.h"
#include "rpc/loop.h"

struct frame_pump;

/* Once, on the loop's thread: the connection is over. why: a fault of the client for the log, or
 * NULL when one of the two sides closed. The pump is still to be closed by frame_pump_close(); it
 * is not touched any more when this returns. */
typedef void (*frame_pump_ended_fn)(struct frame_pump *pump, const char *why);

/* Bytes that one side did not take yet. */
struct frame_rest {
	uint8_t *bytes;
	size_t first, n_bytes;
};

struct frame_pump {
	struct loop *loop;
	frame_pump_ended_fn ended;
	struct loop_post attend; /* a flush of another thread wants the loop's attention */

	/* the loop's thread only */
	struct event *client_read, *client_write, *grpc_read, *grpc_write;
	struct event *hold, *linger;
	struct frame_rest in;
	bool held, in_over, lingering;
	bool over; /* to be told by ended(), with: */
	const char *why;

	_Atomic bool attending; /* attend is queued */

	pthread_mutex_t lock; /* of the descriptors' lifetime, the guard, the way to the client */
	int client_fd, grpc_fd;
	struct frame_guard guard;
	uint32_t *streams; /* the guard's */
	struct frame_cursor out_cursor;
	struct frame_rest out;
	bool out_over;   /* gRPC closed its end */
	bool out_broken; /* the client takes nothing any more */
	bool closed;
};

/* Start carrying. consume_client_fd and consume_grpc_fd (our end of the pair) are non-blocking and
 * consumed in any case. streams_max: open at one time, over it the connection ends. The loop's
 * thread. 0 or a negative errno; then the pump needs no close. */
int frame_pump_open(struct frame_pump *pump, struct loop *loop, int consume_client_fd,
		    int consume_grpc_fd, uint32_t data_bytes_max, uint32_t streams_max,
		    frame_pump_ended_fn ended);
/* Carry what gRPC has written to the client, now. Any thread between open and deinit. */
void frame_pump_flush(struct frame_pump *pump);
/* Close both descriptors; ended is not called any more. The loop's thread. May be repeated. */
void frame_pump_close(struct frame_pump *pump);
/* After frame_pump_close(), when no thread can flush any more. */
void frame_pump_deinit(struct frame_pump *pump);

#endif
