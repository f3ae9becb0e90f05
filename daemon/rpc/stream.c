/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/stream.h"

#include <errno.h>
#include <stdlib.h>

#include "rpc/dispatcher.h"

#define MESSAGES_AT_ONCE 64 /* then others have their turn */

struct stream {
	_Atomic uint32_t refs; /* of the running stream, of a queued task, of who kicks */
	struct dispatcher *dispatcher;
	struct call *call; /* the pump's; NULL: over */
	struct stream_source *source;
	struct task task;
	bool pooled; /* pumped by a worker only */
	struct pool_job job;
	_Atomic uint32_t kicks; /* not answered yet; whoever raises it from 0 pumps */
	_Atomic bool cancelled;
	bool unsent; /* call->answer was made and not sent */
};

/* Guards rpc->state and rpc->cancelled of all calls, for a pointer's time: a transport may tell of
 * a cancelled call while another thread finishes it. */
static pthread_mutex_t place_lock = PTHREAD_MUTEX_INITIALIZER;

static void stream_unref(struct stream *stream)
{
	if (atomic_fetch_sub(&stream->refs, 1) == 1)
		free(stream);
}

/* In the order in which it is seen: out of the transport's reach, the source silent, answered. */
static void stream_over(struct stream *stream, int status)
{
	struct call *call = stream->call;

	pthread_mutex_lock(&place_lock);
	call->rpc->state = NULL;
	pthread_mutex_unlock(&place_lock);
	stream->source->end(stream->source);
	stream->source = NULL;
	stream->call = NULL;
	call->answer = NULL;
	call->answer_bytes = 0;
	call_finish(call, status);
	stream_unref(stream);
}

static void stream_cancel(struct stream *stream)
{
	refuse(&stream->call->refusal, REFUSAL_CANCELLED, "CANCELLED", "the call was cancelled");
	stream_over(stream, REFUSED);
}

/* false: it is over, nothing is there, or the client does not read. */
static bool stream_send_one(struct stream *stream)
{
	struct call *call = stream->call;

	if (!stream->unsent) {
		int next = stream->source->next(stream->source, call);

		if (next == STREAM_MESSAGE)
			stream->unsent = true;
		else if (next == STREAM_END)
			stream_over(stream, 0);
		else if (next == STREAM_REFUSED || next < 0)
			stream_over(stream, next < 0 ? next : REFUSED);
		if (next != STREAM_MESSAGE)
			return false;
	}
	if (!call->rpc->ops->send(call->rpc, call->answer, call->answer_bytes))
		return false;
	metrics_add(&call->dispatcher->metrics->answer_bytes[call->rpc->native],
		    call->answer_bytes);
	stream->unsent = false;
	message_arena_reset(&call->arena);
	return true;
}

static void stream_pump(struct stream *stream)
{
	if (!stream->call)
		return;
	for (unsigned int i = 0; i < MESSAGES_AT_ONCE; i++) {
		if (atomic_load(&stream->cancelled)) {
			stream_cancel(stream);
			return;
		}
		if (!stream_send_one(stream))
			return;
	}
	stream_wake(stream);
}

/* The caller has raised kicks from 0. */
static void stream_pump_kicked(struct stream *stream)
{
	uint32_t seen;

	do {
		seen = atomic_load(&stream->kicks);
		stream_pump(stream);
	} while (atomic_fetch_sub(&stream->kicks, seen) != seen);
}

/* Queued once for each time that kicks rises from 0, and so never twice. */
static bool stream_run_job(struct pool_job *job)
{
	struct stream *stream = (struct stream *)((char *)job - offsetof(struct stream, job));

	stream_pump_kicked(stream);
	stream_unref(stream);
	return false;
}

/* The caller has raised kicks from 0, and holds a reference. */
static void stream_go(struct stream *stream)
{
	if (!stream->pooled) {
		stream_pump_kicked(stream);
		return;
	}
	atomic_fetch_add(&stream->refs, 1);
	pool_submit(broker_pool(stream->dispatcher->broker), &stream->job);
}

/* The caller holds a reference. */
static void stream_kick(struct stream *stream)
{
	if (!atomic_fetch_add(&stream->kicks, 1))
		stream_go(stream);
}

static void stream_run(struct task *task)
{
	struct stream *stream = (struct stream *)((char *)task - offsetof(struct stream, task));

	stream_kick(stream);
	stream_unref(stream);
}

void stream_wake(struct stream *stream)
{
	atomic_fetch_add(&stream->refs, 1);
	if (!dispatcher_defer(stream->dispatcher, &stream->task))
		stream_unref(stream);
}

struct stream *stream_new(struct call *call)
{
	struct stream *stream = calloc(1, sizeof(*stream));

	if (!stream) {
		refuse_errno(&call->refusal, ENOMEM, "starting a stream");
		return NULL;
	}
	stream->refs = 1;
	stream->kicks = 1; /* held until stream_begin(): who kicks only leaves word */
	stream->dispatcher = call->dispatcher;
	stream->call = call;
	stream->task.run = stream_run;
	return stream;
}

struct stream *stream_new_pooled(struct call *call)
{
	struct stream *stream = stream_new(call);

	if (!stream)
		return NULL;
	stream->pooled = true;
	stream->job.run = stream_run_job;
	stream->job.share = call->session ? session_share(call_session(call)) : NULL;
	return stream;
}

void stream_discard(struct stream *stream)
{
	stream_unref(stream);
}

void stream_begin(struct stream *stream, struct stream_source *consume_source)
{
	struct rpc_call *rpc = stream->call->rpc;

	stream->source = consume_source;
	atomic_fetch_add(&stream->refs, 1);
	pthread_mutex_lock(&place_lock);
	rpc->state = stream;
	atomic_store(&stream->cancelled, rpc->cancelled);
	pthread_mutex_unlock(&place_lock);
	stream_go(stream);
	stream_unref(stream);
}

static struct stream *stream_of(struct rpc_call *rpc, bool cancel)
{
	struct stream *stream;

	pthread_mutex_lock(&place_lock);
	if (cancel)
		rpc->cancelled = true;
	stream = rpc->state;
	if (stream)
		atomic_fetch_add(&stream->refs, 1);
	pthread_mutex_unlock(&place_lock);
	return stream;
}

void dispatch_cancelled(struct rpc_call *rpc)
{
	struct stream *stream = stream_of(rpc, true);

	if (!stream)
		return;
	atomic_store(&stream->cancelled, true);
	stream_kick(stream);
	stream_unref(stream);
}

void dispatch_writable(struct rpc_call *rpc)
{
	struct stream *stream = stream_of(rpc, false);

	if (!stream)
		return;
	stream_kick(stream);
	stream_unref(stream);
}
