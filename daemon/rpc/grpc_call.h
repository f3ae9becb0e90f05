/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_RPC_GRPC_CALL_H
#define IB_RPC_GRPC_CALL_H

/*
 * One call on a gRPC connection, from the posted request until its last completion.
 *
 * A slot is allocated before its request comes: gRPC fills in what arrived. Every operation that is
 * outstanding has a tag and a reference of its own; the slot goes when all have come back and the
 * call was finished.
 *
 * Sending: one message is under way at a time, what comes meanwhile waits in a bounded outbox.
 */

#include <pthread.h>

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>

#include "rpc/grpc_connection.h"

#define GRPC_OUTBOX_MESSAGES 16
#define GRPC_OUTBOX_BYTES    (4 * RPC_MESSAGE_BYTES_MAX)
/* Of a whole connection that are not sent yet: a call more that would answer with a message is
 * refused. Flow control is the client's, so what it does not read would otherwise pile up, an
 * answer for each call in flight. They are charged to whoever pays for the connection, and where
 * that has no room a stream waits and a call is refused likewise; but a message that is the only
 * one goes uncharged, since it may be about to be read. What gRPC and the kernel hold of messages
 * that gRPC says are sent is not known: the connection's resource quota and its socket bound it. */
#define GRPC_HELD_BYTES_MAX (4 * 1024 * 1024)

struct grpc_call_slot;

/* What is done with a call. All on the completion-queue thread. */
struct grpc_handler {
	/* A message; bytes are borrowed. */
	void (*message)(struct grpc_call_slot *slot, const uint8_t *bytes, size_t n_bytes);
	/* The client sends no (more) messages. */
	void (*half_closed)(struct grpc_call_slot *slot);
	/* Cancelled, past its deadline, or the connection ended. */
	void (*cancelled)(struct grpc_call_slot *slot);
	/* The outbox ran empty after grpc_call_send() had answered false. */
	void (*writable)(struct grpc_call_slot *slot);
	bool streams; /* the server may send several messages */
};

struct grpc_call_slot {
	struct rpc_call rpc;                /* what the dispatcher sees; first */
	struct grpc_connection *connection; /* a reference once it has begun */
	const struct grpc_handler *handler;
	const struct method *method;

	/* gRPC's */
	grpc_call *call;
	grpc_call_details details;
	grpc_metadata_array metadata;
	grpc_byte_buffer *received_message;
	int cancelled_flag;
	struct grpc_tag received, closed, sent, ended;
	_Atomic unsigned int refs;

	pthread_mutex_t lock; /* of what follows; no handler is called under it */
	pthread_cond_t told;
	bool telling; /* a handler's cancelled() or writable() runs, on: */
	pthread_t teller;
	bool handling; /* the handler has the message at this moment */
	bool handled;  /* ... or had it */
	bool gone;     /* the client does not wait any more */
	bool gone_told;
	bool initial_sent, sending, room_wanted, finished, ending;
	grpc_byte_buffer *outbox[GRPC_OUTBOX_MESSAGES];
	size_t outbox_first, outbox_messages, outbox_bytes;
	size_t held_bytes;    /* of messages that gRPC has not sent yet; part of the connection's */
	size_t charged_bytes; /* of them, to the connection's account */
	size_t sending_bytes; /* of them, the message under way */
	/* the end */
	int code;
	grpc_slice status_message;
	grpc_slice details_value;
	grpc_metadata trailer;
	size_t n_trailers;
	grpc_byte_buffer *last_message;
};

/* NULL: no memory. */
struct grpc_call_slot *grpc_call_slot_new(struct grpc_connection *connection);
/* A slot that never began. */
struct grpc_call_slot *grpc_call_slot_free(struct grpc_call_slot *slot);
/* A request arrived in it: read, handle, answer. */
void grpc_call_begin(struct grpc_call_slot *slot);
/* Ask for one more message: handler->message or ->half_closed will be called. */
void grpc_call_read(struct grpc_call_slot *slot);
/* As rpc_call_ops say. */
bool grpc_call_send(struct grpc_call_slot *slot, const uint8_t *bytes, size_t n_bytes);
void grpc_call_finish(struct grpc_call_slot *slot, const struct rpc_status *status,
		      const uint8_t *bytes, size_t n_bytes);
/* End with a status that has no details. */
void grpc_call_refuse(struct grpc_call_slot *slot, int code, const char *message);

/* grpc_handler.c: what is behind the call's path; slot->method is set if that is one of the
 * dispatch table. NULL: nothing. */
const struct grpc_handler *grpc_handler_find(struct grpc_call_slot *slot);
/* How the dispatcher answers a call of gRPC. */
extern const struct rpc_call_ops grpc_call_rpc_ops;

#endif
