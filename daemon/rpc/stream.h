/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_STREAM_H
#define IB_RPC_STREAM_H

/*
 * A call that answers with messages as they come, as fast as its client reads.
 *
 * A source makes messages, one at a time. The stream sends them until there is none, the client
 * does not read, or the source or the call ends; it goes on when the source wakes it or the
 * transport has room. One thread at a time pumps, whichever came first; the others only leave word.
 */

#include <stdbool.h>

#include "rpc/call.h"

struct stream;

/* Answers of next(). */
#define STREAM_MESSAGE 1 /* call_answer() was called */
#define STREAM_EMPTY   0 /* nothing now: stream_wake() tells when */
#define STREAM_END     2
#define STREAM_REFUSED 3 /* call->refusal */

struct stream_source {
	/* Make the next message with call_answer(). One thread at a time. One of the above, or
	 * negative: the daemon is broken. */
	int (*next)(struct stream_source *source, struct call *call);
	/* The stream is over; free it. */
	void (*end)(struct stream_source *source);
};

/* Three steps, so that a source can be told where to wake before it is complete: new(); then
 * begin(), after which the call is the stream's (answer CALL_PENDING), or discard(). NULL: no
 * memory, call->refusal is set. */
struct stream *stream_new(struct call *call);
/* One whose source takes its time for a message: it is asked by workers only. */
struct stream *stream_new_pooled(struct call *call);
void stream_discard(struct stream *stream);
void stream_begin(struct stream *stream, struct stream_source *consume_source);
/* There may be something new. Any thread, any lock: it only queues the stream for the loop. */
void stream_wake(struct stream *stream);

#endif
