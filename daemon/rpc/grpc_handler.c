/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What is behind a path: a method of the dispatch table, or server reflection, which only gRPC has.
 */

#include "rpc/grpc_call.h"

#include <stdlib.h>
#include <string.h>

#include <grpc/slice.h>

#include "rpc/reflection.h"
#include "util/fd.h"

/* ── methods of the dispatch table ────────────────────────────────────────────────────────── */

static bool rpc_send(struct rpc_call *rpc, const uint8_t *bytes, size_t n_bytes)
{
	return grpc_call_send((struct grpc_call_slot *)rpc, bytes, n_bytes);
}

static void rpc_finish(struct rpc_call *rpc, const struct rpc_status *status, const uint8_t *bytes,
		       size_t n_bytes, const int *consume_fds, size_t n_fds)
{
	struct grpc_call_slot *slot = (struct grpc_call_slot *)rpc;

	for (size_t i = 0; i < n_fds; i++)
		fd_close(consume_fds[i]); /* gRPC carries none */
	if (rpc->secret_good)
		atomic_store(&slot->connection->session_seen, true);
	grpc_call_finish(slot, status, bytes, n_bytes);
}

const struct rpc_call_ops grpc_call_rpc_ops = {.send = rpc_send, .finish = rpc_finish};

static void method_message(struct grpc_call_slot *slot, const uint8_t *bytes, size_t n_bytes)
{
	slot->rpc.request = bytes;
	slot->rpc.request_bytes = n_bytes;
	dispatch_call(slot->connection->host->dispatcher, slot->method, &slot->rpc);
}

static void method_half_closed(struct grpc_call_slot *slot)
{
	grpc_call_refuse(slot, GRPC_STATUS_INVALID_ARGUMENT, "the call carries no request message");
}

static void method_cancelled(struct grpc_call_slot *slot)
{
	dispatch_cancelled(&slot->rpc);
}

static void method_writable(struct grpc_call_slot *slot)
{
	dispatch_writable(&slot->rpc);
}

static const struct grpc_handler unary_handler = {
	.message = method_message,
	.half_closed = method_half_closed,
	.cancelled = method_cancelled,
	.writable = method_writable,
};

static const struct grpc_handler stream_handler = {
	.message = method_message,
	.half_closed = method_half_closed,
	.cancelled = method_cancelled,
	.writable = method_writable,
	.streams = true,
};

/* ── reflection: one answer for each message, read only when the answer before is away ───────────
 */

static void reflection_message(struct grpc_call_slot *slot, const uint8_t *bytes, size_t n_bytes)
{
	uint8_t *answer;
	size_t answer_bytes;

	if (n_bytes > REFLECTION_REQUEST_BYTES_MAX ||
	    !reflection_answer(slot->connection->host->door, bytes, n_bytes, &answer,
			       &answer_bytes)) {
		grpc_call_refuse(slot, GRPC_STATUS_INVALID_ARGUMENT,
				 "not a ServerReflectionRequest within 1024 bytes");
		return;
	}
	pthread_mutex_lock(&slot->lock);
	slot->room_wanted = true; /* writable() when it is away */
	pthread_mutex_unlock(&slot->lock);
	grpc_call_send(slot, answer, answer_bytes);
	free(answer);
}

static void reflection_half_closed(struct grpc_call_slot *slot)
{
	static const struct rpc_status success;

	grpc_call_finish(slot, &success, NULL, 0);
}

/* Nothing to do: the read or the send that is under way fails, and that ends it. */
static void reflection_cancelled(struct grpc_call_slot *slot)
{
	(void)slot;
}

static void reflection_writable(struct grpc_call_slot *slot)
{
	grpc_call_read(slot);
}

static const struct grpc_handler reflection_handler = {
	.message = reflection_message,
	.half_closed = reflection_half_closed,
	.cancelled = reflection_cancelled,
	.writable = reflection_writable,
	.streams = true,
};

/* ── which of them ──────────────────────────────────────────────────────────────────────────── */

const struct grpc_handler *grpc_handler_find(struct grpc_call_slot *slot)
{
	const char *path = (const char *)GRPC_SLICE_START_PTR(slot->details.method);
	size_t path_bytes = GRPC_SLICE_LENGTH(slot->details.method);

	slot->method = method_by_path(path, path_bytes, slot->rpc.door);
	if (slot->method)
		return method_streams(slot->method) ? &stream_handler : &unary_handler;
	if (path_bytes == strlen(REFLECTION_PATH) && !memcmp(path, REFLECTION_PATH, path_bytes))
		return &reflection_handler;
	return NULL;
}
