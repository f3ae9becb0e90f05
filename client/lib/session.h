/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_CLIENT_SESSION_H
#define IB_CLIENT_SESSION_H

/* What the library's files know of each other's objects. */

#include <protobuf-c/protobuf-c.h>
#include <stdatomic.h>

#include "iommubroker.h"
#include "lib/connection.h"
#include "lib/error.h"

struct async;

struct iommubroker_session {
	struct connection connection;
	_Atomic uint64_t timeout_ns;
	_Atomic uint64_t next_request_id;
	char tenant[128];
	uint8_t secret[IOMMUBROKER_SECRET_BYTES];
	/* Asynchronous calls, under the connection's lock. */
	struct async *calls;              /* all of them */
	struct async *ready, **ready_end; /* those with something for process() */
	bool processing;
	bool state_changed; /* since on_state was told */
	iommubroker_state_fn on_state;
	void *on_state_data;
};

struct iommubroker_guest {
	struct iommubroker_session *session;
	uint64_t handle;
	bool has_secret; /* of one that was created or resumed here */
	uint8_t secret[IOMMUBROKER_SECRET_BYTES];
};

struct iommubroker_memory_file {
	struct iommubroker_session *session;
	uint64_t guest, handle;
	uint64_t length, page_bytes;
};

struct iommubroker_device {
	struct iommubroker_session *session;
	uint64_t handle;
};

struct iommubroker_nested {
	struct iommubroker_session *session;
	uint64_t handle;
};

/* How often the daemon was lost so far. */
uint64_t session_losses(struct iommubroker_session *session);
/* A number for the next mutation: never 0, never the same again in the life of the session. */
uint64_t session_request_id(struct iommubroker_session *session);

/* Descriptors that came with an answer. */
struct descriptors {
	int fds[PACKET_FDS_MAX];
	size_t n;
};
void descriptors_close(struct descriptors *descriptors);
/* The attached one that an answer names, now the caller's; -1: there is none. */
int descriptors_take(struct descriptors *descriptors, uint32_t index);

/* A blocking call. */
struct exchange {
	uint32_t method;
	const ProtobufCMessage *request;
	const ProtobufCMessageDescriptor *response;
	bool has_fd; /* fd is borrowed and goes with the request */
	int fd;
	struct descriptors *ret_fds; /* NULL: none are expected, and closed */
	/* It takes something away: asked again after a restart, that it is not there is success.
	 * The message is an empty one then. */
	bool takes_away;
	uint64_t request_id; /* what progress can cancel */
	iommubroker_progress_fn progress;
	void *user_data;
};
/* The final answer's message, for protobuf_c_message_free_unpacked(). */
int exchange_run(struct iommubroker_session *session, const struct exchange *exchange,
		 ProtobufCMessage **ret_response, struct iommubroker_error **ret_error);
/* The same for who wants no message. */
int exchange_run_only(struct iommubroker_session *session, const struct exchange *exchange,
		      struct iommubroker_error **ret_error);
/* A packet of a message, header left free. The caller frees it. -ENOMEM or -EMSGSIZE. */
int exchange_pack(const ProtobufCMessage *request, uint8_t **ret_packet, size_t *ret_bytes);
/* If message is progress: true. */
bool exchange_progress(const ProtobufCMessage *message, uint64_t *ret_done, uint64_t *ret_total);

/* Structs for callers whose strings and arrays live in a message that is kept with them. Arrays
 * follow the struct: holder_new(bytes of all, message) consumes the message, also on failure. */
void *holder_new(size_t n_bytes, ProtobufCMessage *consume_message);
void *holder_free(void *public);

#endif
