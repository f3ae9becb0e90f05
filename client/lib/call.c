/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A blocking call from request to answer: pack, take a slot, send, wait (through progress, if it
 * reports any), unpack. The mailbox is where whoever reads the socket leaves the answer; it belongs
 * to this call and is touched under the connection's lock until call_wait() has returned, and again
 * once it is waited for.
 */

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "iommubroker/v1/devices.pb-c.h"
#include "iommubroker/v1/host.pb-c.h"
#include "iommubroker/v1/memory.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "lib/clock.h"
#include "lib/session.h"

struct mailbox {
	struct answer answer; /* points into bytes */
	struct descriptors fds;
	uint8_t bytes[PACKET_BYTES_MAX];
};

/* Progress that nobody has looked at yet gives way to what is newer. */
static int mailbox_take(void *sink, const struct answer *answer, struct packet *packet)
{
	struct mailbox *box = sink;

	descriptors_close(&box->fds);
	memcpy(box->bytes, packet->bytes, packet->n_bytes);
	box->answer = *answer;
	if (answer->n_message > 0)
		box->answer.message = box->bytes + (answer->message - packet->bytes);
	if (answer->status != NULL)
		box->answer.status = box->bytes + (answer->status - packet->bytes);
	for (size_t i = 0; i < packet->n_fds; i++) {
		box->fds.fds[box->fds.n++] = packet->fds[i];
		packet->fds[i] = -1;
	}
	return 0;
}

static const struct call_ops mailbox_ops = {.take = mailbox_take};

void descriptors_close(struct descriptors *descriptors)
{
	for (size_t i = 0; i < descriptors->n; i++)
		if (descriptors->fds[i] >= 0)
			close(descriptors->fds[i]);
	descriptors->n = 0;
}

int descriptors_take(struct descriptors *descriptors, uint32_t index)
{
	int fd;

	if (index >= descriptors->n)
		return -1;
	fd = descriptors->fds[index];
	descriptors->fds[index] = -1;
	return fd;
}

int exchange_pack(const ProtobufCMessage *request, uint8_t **ret_packet, size_t *ret_bytes)
{
	size_t n_bytes = protobuf_c_message_get_packed_size(request);
	uint8_t *packet;

	if (n_bytes > PACKET_BYTES_MAX - PACKET_HEADER_BYTES)
		return -EMSGSIZE;
	packet = malloc(PACKET_HEADER_BYTES + n_bytes);
	if (packet == NULL)
		return -ENOMEM;
	protobuf_c_message_pack(request, packet + PACKET_HEADER_BYTES);
	*ret_packet = packet;
	*ret_bytes = PACKET_HEADER_BYTES + n_bytes;
	return 0;
}

bool exchange_progress(const ProtobufCMessage *message, uint64_t *ret_done, uint64_t *ret_total)
{
	const Iommubroker__V1__Progress *progress = NULL;

	if (message->descriptor == &iommubroker__v1__update_memory_response__descriptor) {
		const Iommubroker__V1__UpdateMemoryResponse *response = (const void *)message;

		if (response->update_case ==
		    IOMMUBROKER__V1__UPDATE_MEMORY_RESPONSE__UPDATE_PROGRESS)
			progress = response->progress;
	} else if (message->descriptor == &iommubroker__v1__bind_device_response__descriptor) {
		const Iommubroker__V1__BindDeviceResponse *response = (const void *)message;

		if (response->update_case == IOMMUBROKER__V1__BIND_DEVICE_RESPONSE__UPDATE_PROGRESS)
			progress = response->progress;
	}
	if (progress == NULL)
		return false;
	*ret_done = progress->done_bytes;
	*ret_total = progress->total_bytes;
	return true;
}

static void report_progress(struct iommubroker_session *session, const struct exchange *exchange,
			    uint64_t number, const ProtobufCMessage *message, bool *cancelled)
{
	uint64_t done, total;

	if (exchange->progress == NULL || *cancelled || !exchange_progress(message, &done, &total))
		return;
	if (exchange->progress(exchange->user_data, done, total) != 0)
		*cancelled = call_cancel(&session->connection, number, exchange->request_id) == 0;
}

/* The packet is the caller's until the call has ended: it may have to be sent again. */
static int send_request(struct iommubroker_session *session, const struct exchange *exchange,
			struct mailbox *box, uint8_t **ret_packet, struct call **ret_call)
{
	struct call_request request = {
		.method = exchange->method,
		.borrow_fd = exchange->has_fd ? exchange->fd : -1,
		.repeats = true,
	};
	int r;

	r = exchange_pack(exchange->request, &request.packet, &request.n_bytes);
	if (r < 0)
		return r;
	*ret_packet = request.packet;
	return call_start(&session->connection, &request, &mailbox_ops, box,
			  clock_deadline(session->timeout_ns), ret_call);
}

/* What the mailbox holds, unpacked. While more can come, whoever reads the socket may replace it,
 * so only the last one (they are larger) is unpacked without the lock. */
static ProtobufCMessage *open_mailbox(struct iommubroker_session *session,
				      const struct exchange *exchange, const struct call *call,
				      const struct mailbox *box, bool *ret_final)
{
	ProtobufCMessage *message = NULL;
	bool final;

	pthread_mutex_lock(&session->connection.lock);
	final = call->final && call->result == 0;
	if (!final && box->answer.code == 0)
		message = protobuf_c_message_unpack(exchange->response, NULL, box->answer.n_message,
						    box->answer.message);
	pthread_mutex_unlock(&session->connection.lock);
	if (final && box->answer.code == 0)
		message = protobuf_c_message_unpack(exchange->response, NULL, box->answer.n_message,
						    box->answer.message);
	*ret_final = final;
	return message;
}

/* Through progress to the last answer. */
static int wait_final(struct iommubroker_session *session, const struct exchange *exchange,
		      struct call *call, const struct mailbox *box, ProtobufCMessage **ret_message)
{
	ProtobufCMessage *message;
	bool cancelled = false;
	bool final;
	int r;

	for (;;) {
		r = call_wait(&session->connection, call, clock_deadline(session->timeout_ns));
		if (r < 0)
			return r;
		message = open_mailbox(session, exchange, call, box, &final);
		if (final)
			break;
		if (message != NULL)
			report_progress(session, exchange, call->number, message, &cancelled);
		protobuf_c_message_free_unpacked(message, NULL);
	}
	*ret_message = message;
	return 0;
}

/* An OK answer without a readable message is a broken daemon, and so is one that is only progress.
 */
static int judge(const struct mailbox *box, const ProtobufCMessage *message,
		 struct iommubroker_error **ret_error)
{
	uint64_t done, total;

	if (box->answer.code != 0)
		return error_from_answer(&box->answer, ret_error);
	if (message == NULL || exchange_progress(message, &done, &total))
		return error_transport(-EBADMSG, ret_error);
	return 0;
}

/* A daemon that died while it took something away has its successor finish that; so it is gone when
 * the request comes again. */
static bool was_taken_away(const struct exchange *exchange, const struct call *call,
			   const struct mailbox *box)
{
	return exchange->takes_away && call->times > 1 && call->final && call->result == 0 &&
	       error_is_not_found(&box->answer);
}

int exchange_run(struct iommubroker_session *session, const struct exchange *exchange,
		 ProtobufCMessage **ret_response, struct iommubroker_error **ret_error)
{
	struct mailbox *box = malloc(sizeof(*box));
	ProtobufCMessage *message = NULL;
	struct call *call = NULL;
	uint8_t *packet = NULL;
	int r;

	if (box == NULL)
		return error_transport(-ENOMEM, ret_error);
	box->fds.n = 0;
	r = send_request(session, exchange, box, &packet, &call);
	if (r == 0) {
		r = wait_final(session, exchange, call, box, &message);
		if (r == 0 && was_taken_away(exchange, call, box)) {
			box->answer.code = 0;
			message = protobuf_c_message_unpack(exchange->response, NULL, 0, NULL);
		}
		call_end(&session->connection, call);
	}
	free(packet);
	r = r < 0 ? error_transport(r, ret_error) : judge(box, message, ret_error);
	if (r == 0) {
		*ret_response = message;
		if (exchange->ret_fds != NULL) {
			*exchange->ret_fds = box->fds;
			box->fds.n = 0;
		}
	} else {
		protobuf_c_message_free_unpacked(message, NULL);
	}
	descriptors_close(&box->fds);
	free(box);
	return r;
}

int exchange_run_only(struct iommubroker_session *session, const struct exchange *exchange,
		      struct iommubroker_error **ret_error)
{
	ProtobufCMessage *response = NULL;
	int r;

	r = exchange_run(session, exchange, &response, ret_error);
	if (r == 0)
		protobuf_c_message_free_unpacked(response, NULL);
	return r;
}

struct holder {
	ProtobufCMessage *message;
	uint64_t align;
	uint8_t public[];
};

void *holder_new(size_t n_bytes, ProtobufCMessage *consume_message)
{
	struct holder *holder = calloc(1, sizeof(*holder) + n_bytes);

	if (holder == NULL) {
		protobuf_c_message_free_unpacked(consume_message, NULL);
		return NULL;
	}
	holder->message = consume_message;
	return holder->public;
}

void *holder_free(void *public)
{
	struct holder *holder;

	if (public == NULL)
		return NULL;
	holder = (struct holder *)((uint8_t *)public - offsetof(struct holder, public));
	protobuf_c_message_free_unpacked(holder->message, NULL);
	free(holder);
	return NULL;
}
