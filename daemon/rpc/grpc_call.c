/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The operations of one call and their order.
 *
 *   begin ── RECV_CLOSE_ON_SERVER ─────────────────────────────────────────────── closed
 *       └─ RECV_MESSAGE ── received ── handler ── [SEND_MESSAGE ── sent]… ── SEND_STATUS ── ended
 *
 * gRPC allows one SEND_MESSAGE at a time and keeps no order between it and a status that is given
 * meanwhile: so messages wait in the outbox, and the status waits for the outbox to be empty.
 *
 * Batches are started under the slot's lock: that keeps their order, and gRPC calls nothing of
 * ours from within, completions come by the queue.
 */

#include "rpc/grpc_call.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>

#define SESSION_KEY "iommubroker-session-bin"
#define DETAILS_KEY "grpc-status-details-bin"

#define SLOT_OF(tag_pointer, member) \
	((struct grpc_call_slot *)((char *)(tag_pointer)-offsetof(struct grpc_call_slot, member)))

static void on_received(struct grpc_tag *tag, bool ok);
static void on_closed(struct grpc_tag *tag, bool ok);
static void on_sent(struct grpc_tag *tag, bool ok);
static void on_ended(struct grpc_tag *tag, bool ok);

/* ── lifetime ─────────────────────────────────────────────────────────────────────────────── */

struct grpc_call_slot *grpc_call_slot_new(struct grpc_connection *connection)
{
	struct grpc_call_slot *slot = calloc(1, sizeof(*slot));

	if (!slot)
		return NULL;
	slot->connection = connection;
	slot->received.done = on_received;
	slot->closed.done = on_closed;
	slot->sent.done = on_sent;
	slot->ended.done = on_ended;
	atomic_init(&slot->refs, 1); /* until it is finished */
	pthread_mutex_init(&slot->lock, NULL);
	pthread_cond_init(&slot->told, NULL);
	grpc_call_details_init(&slot->details);
	grpc_metadata_array_init(&slot->metadata);
	slot->status_message = grpc_empty_slice();
	slot->details_value = grpc_empty_slice();
	return slot;
}

struct grpc_call_slot *grpc_call_slot_free(struct grpc_call_slot *slot)
{
	if (!slot)
		return NULL;
	if (slot->call)
		grpc_call_unref(slot->call);
	grpc_call_details_destroy(&slot->details);
	grpc_metadata_array_destroy(&slot->metadata);
	if (slot->received_message)
		grpc_byte_buffer_destroy(slot->received_message);
	if (slot->last_message)
		grpc_byte_buffer_destroy(slot->last_message);
	for (size_t i = 0; i < slot->outbox_messages; i++)
		grpc_byte_buffer_destroy(
			slot->outbox[(slot->outbox_first + i) % GRPC_OUTBOX_MESSAGES]);
	grpc_slice_unref(slot->status_message);
	grpc_slice_unref(slot->details_value);
	pthread_cond_destroy(&slot->told);
	pthread_mutex_destroy(&slot->lock);
	free(slot);
	return NULL;
}

static void slot_ref(struct grpc_call_slot *slot)
{
	atomic_fetch_add(&slot->refs, 1);
}

/* Which of several messages was charged does not matter: those that were not are fewer. */
static void slot_release(struct grpc_call_slot *slot, size_t n_bytes)
{
	size_t n_charged = n_bytes < slot->charged_bytes ? n_bytes : slot->charged_bytes;

	slot->held_bytes -= n_bytes;
	slot->charged_bytes -= n_charged;
	atomic_fetch_sub(&slot->connection->held_bytes, n_bytes);
	connection_release(slot->connection->account, n_charged);
}

static void slot_unref(struct grpc_call_slot *slot)
{
	struct grpc_connection *connection = slot->connection;

	if (atomic_fetch_sub(&slot->refs, 1) != 1)
		return;
	slot_release(slot, slot->held_bytes);
	grpc_call_slot_free(slot);
	atomic_fetch_sub(&connection->calls, 1);
	grpc_connection_unref(connection);
}

/* Each batch is one outstanding operation, with its tag and its reference. */
static void slot_start(struct grpc_call_slot *slot, const grpc_op *ops, size_t n_ops,
		       struct grpc_tag *tag)
{
	grpc_call_error error;

	slot_ref(slot);
	grpc_tag_given(tag);
	error = grpc_call_start_batch(slot->call, ops, n_ops, tag, NULL);
	assert(error == GRPC_CALL_OK); /* anything else is our own mistake */
	(void)error;
}

/* ── telling the handler ──────────────────────────────────────────────────────────────────── */

/* A call-out begins: finish() on another thread waits until it has returned, so that what the
 * handler keeps for the call cannot go away under it. Under the lock. */
static void slot_tell_begin(struct grpc_call_slot *slot)
{
	slot->telling = true;
	slot->teller = pthread_self();
	pthread_mutex_unlock(&slot->lock);
}

static void slot_tell_end(struct grpc_call_slot *slot)
{
	pthread_mutex_lock(&slot->lock);
	slot->telling = false;
	pthread_cond_broadcast(&slot->told);
}

/* While the handler has the message it is not ready for this yet; it is told afterwards. */
static bool slot_may_tell(const struct grpc_call_slot *slot)
{
	return slot->handled && !slot->handling && !slot->telling && !slot->finished;
}

/* Tell the handler what it does not know yet, one thing after the other. */
static void slot_tell(struct grpc_call_slot *slot)
{
	pthread_mutex_lock(&slot->lock);
	if (slot_may_tell(slot) && slot->gone && !slot->gone_told) {
		slot->gone_told = true;
		slot_tell_begin(slot);
		slot->handler->cancelled(slot);
		slot_tell_end(slot);
	}
	if (slot_may_tell(slot) && slot->room_wanted && !slot->sending) {
		slot->room_wanted = false;
		slot_tell_begin(slot);
		slot->handler->writable(slot);
		slot_tell_end(slot);
	}
	pthread_mutex_unlock(&slot->lock);
}

/* ── sending ──────────────────────────────────────────────────────────────────────────────── */

static grpc_byte_buffer *buffer_copy(const uint8_t *bytes, size_t n_bytes)
{
	grpc_slice slice = grpc_slice_from_copied_buffer((const char *)bytes, n_bytes);
	grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);

	grpc_slice_unref(slice);
	return buffer;
}

/* Under the lock. false: whoever pays has no room for it, which is waived for the only one. */
static bool slot_hold(struct grpc_call_slot *slot, size_t n_bytes, bool only)
{
	bool charged = connection_hold(slot->connection->account, n_bytes);

	if (!charged && !only)
		return false;
	if (charged)
		slot->charged_bytes += n_bytes;
	slot->held_bytes += n_bytes;
	atomic_fetch_add(&slot->connection->held_bytes, n_bytes);
	return true;
}

static bool connection_has_room(struct grpc_connection *connection, size_t n_bytes)
{
	size_t held = atomic_load(&connection->held_bytes);

	return held <= GRPC_HELD_BYTES_MAX && n_bytes <= GRPC_HELD_BYTES_MAX - held;
}

static size_t op_initial(struct grpc_call_slot *slot, grpc_op *op)
{
	if (slot->initial_sent)
		return 0;
	slot->initial_sent = true;
	op->op = GRPC_OP_SEND_INITIAL_METADATA;
	return 1;
}

static size_t op_message(grpc_byte_buffer *message, grpc_op *op)
{
	if (!message)
		return 0;
	op->op = GRPC_OP_SEND_MESSAGE;
	op->data.send_message.send_message = message;
	return 1;
}

/* Under the lock, when nothing is under way and the outbox is not empty. */
static void slot_send_next(struct grpc_call_slot *slot)
{
	grpc_byte_buffer *message = slot->outbox[slot->outbox_first];
	grpc_op ops[2] = {0};
	size_t n = op_initial(slot, ops);

	n += op_message(message, ops + n);
	slot->outbox_first = (slot->outbox_first + 1) % GRPC_OUTBOX_MESSAGES;
	slot->outbox_messages--;
	/* Before it is started: gRPC takes the bytes out of the buffer. */
	slot->sending_bytes = grpc_byte_buffer_length(message);
	slot->outbox_bytes -= slot->sending_bytes;
	slot->sending = true;
	slot_start(slot, ops, n, &slot->sent);
	grpc_byte_buffer_destroy(message);
}

/* Under the lock, when nothing is under way and the outbox is empty. */
static void slot_send_status(struct grpc_call_slot *slot)
{
	grpc_op ops[3] = {0};
	size_t n = op_initial(slot, ops);

	n += op_message(slot->last_message, ops + n);
	ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	ops[n].data.send_status_from_server.status = (grpc_status_code)slot->code;
	ops[n].data.send_status_from_server.status_details = &slot->status_message;
	ops[n].data.send_status_from_server.trailing_metadata_count = slot->n_trailers;
	ops[n].data.send_status_from_server.trailing_metadata = &slot->trailer;
	slot->ending = true;
	slot_start(slot, ops, n + 1, &slot->ended);
}

/* Under the lock: whatever can be sent now. */
static void slot_advance(struct grpc_call_slot *slot)
{
	if (slot->sending || slot->ending)
		return;
	if (slot->outbox_messages)
		slot_send_next(slot);
	else if (slot->finished)
		slot_send_status(slot);
}

static bool outbox_is_idle(const struct grpc_call_slot *slot)
{
	return !slot->sending && !slot->outbox_messages;
}

static bool outbox_has_room(const struct grpc_call_slot *slot, size_t n_bytes)
{
	if (outbox_is_idle(slot))
		return true;
	return slot->outbox_messages < GRPC_OUTBOX_MESSAGES && n_bytes <= GRPC_OUTBOX_BYTES &&
	       slot->outbox_bytes <= GRPC_OUTBOX_BYTES - n_bytes &&
	       connection_has_room(slot->connection, n_bytes);
}

/* false: nobody pays for it. */
static bool outbox_put(struct grpc_call_slot *slot, const uint8_t *bytes, size_t n_bytes)
{
	size_t last = (slot->outbox_first + slot->outbox_messages) % GRPC_OUTBOX_MESSAGES;

	if (!slot_hold(slot, n_bytes, outbox_is_idle(slot)))
		return false;
	slot->outbox[last] = buffer_copy(bytes, n_bytes);
	slot->outbox_messages++;
	slot->outbox_bytes += n_bytes;
	return true;
}

bool grpc_call_send(struct grpc_call_slot *slot, const uint8_t *bytes, size_t n_bytes)
{
	bool accepted = true;

	pthread_mutex_lock(&slot->lock);
	if (slot->gone) {
		/* Nobody reads it; the handler is or will be told. */
	} else if (outbox_has_room(slot, n_bytes) && outbox_put(slot, bytes, n_bytes)) {
		slot_advance(slot);
	} else {
		slot->room_wanted = true;
		accepted = false;
	}
	pthread_mutex_unlock(&slot->lock);
	grpc_connection_flush(slot->connection);
	return accepted;
}

static void slot_set_status(struct grpc_call_slot *slot, const struct rpc_status *status)
{
	slot->code = status->code;
	if (!status->code)
		return;
	slot->status_message = grpc_slice_from_copied_string(status->message);
	if (!status->details_bytes)
		return;
	slot->details_value =
		grpc_slice_from_copied_buffer((const char *)status->details, status->details_bytes);
	slot->trailer.key = grpc_slice_from_static_string(DETAILS_KEY);
	slot->trailer.value = slot->details_value;
	slot->n_trailers = 1;
}

/* Under the lock. What was done stays done: a repeated request is answered again. */
static void slot_set_end(struct grpc_call_slot *slot, const struct rpc_status *status,
			 const uint8_t *bytes, size_t n_bytes)
{
	bool only = !atomic_load(&slot->connection->held_bytes);

	if (status->code || !bytes) {
		slot_set_status(slot, status);
	} else if (connection_has_room(slot->connection, n_bytes) &&
		   slot_hold(slot, n_bytes, only)) {
		slot_set_status(slot, status);
		slot->last_message = buffer_copy(bytes, n_bytes);
	} else {
		slot->code = GRPC_STATUS_RESOURCE_EXHAUSTED;
		slot->status_message =
			grpc_slice_from_static_string("the answers before this one are not read");
	}
}

void grpc_call_finish(struct grpc_call_slot *slot, const struct rpc_status *status,
		      const uint8_t *bytes, size_t n_bytes)
{
	struct grpc_connection *connection = slot->connection;

	pthread_mutex_lock(&slot->lock);
	assert(!slot->finished);
	slot->finished = true;
	while (slot->telling && !pthread_equal(slot->teller, pthread_self()))
		pthread_cond_wait(&slot->told, &slot->lock);
	slot_set_end(slot, status, bytes, n_bytes);
	slot_advance(slot);
	pthread_mutex_unlock(&slot->lock);
	grpc_connection_flush(connection);
	slot_unref(slot);
}

void grpc_call_refuse(struct grpc_call_slot *slot, int code, const char *message)
{
	struct rpc_status status;

	status.code = code;
	status.details_bytes = 0;
	strncpy(status.message, message, sizeof(status.message) - 1);
	status.message[sizeof(status.message) - 1] = 0;
	grpc_call_finish(slot, &status, NULL, 0);
}

static void on_sent(struct grpc_tag *tag, bool ok)
{
	struct grpc_call_slot *slot = SLOT_OF(tag, sent);

	(void)ok; /* if it failed the call is closed as cancelled */
	pthread_mutex_lock(&slot->lock);
	slot->sending = false;
	slot_release(slot, slot->sending_bytes);
	slot_advance(slot);
	pthread_mutex_unlock(&slot->lock);
	grpc_connection_flush(slot->connection);
	slot_tell(slot);
	slot_unref(slot);
}

static void on_ended(struct grpc_tag *tag, bool ok)
{
	struct grpc_call_slot *slot = SLOT_OF(tag, ended);

	(void)ok;
	/* If another thread held gRPC's transport when we answered, it is written only now. */
	grpc_connection_flush(slot->connection);
	slot_unref(slot);
}

/* ── receiving ────────────────────────────────────────────────────────────────────────────── */

static void on_closed(struct grpc_tag *tag, bool ok)
{
	struct grpc_call_slot *slot = SLOT_OF(tag, closed);

	(void)ok;
	pthread_mutex_lock(&slot->lock);
	slot->gone = slot->cancelled_flag;
	pthread_mutex_unlock(&slot->lock);
	slot_tell(slot);
	slot_unref(slot);
}

void grpc_call_read(struct grpc_call_slot *slot)
{
	grpc_op ops[2] = {0};
	size_t n = 0;

	pthread_mutex_lock(&slot->lock);
	/* Clients of a stream may wait for the headers before they wait for messages. */
	if (slot->handler->streams)
		n = op_initial(slot, ops);
	ops[n].op = GRPC_OP_RECV_MESSAGE;
	ops[n].data.recv_message.recv_message = &slot->received_message;
	slot_start(slot, ops, n + 1, &slot->received);
	pthread_mutex_unlock(&slot->lock);
}

static void slot_handle(struct grpc_call_slot *slot, const uint8_t *bytes, size_t n_bytes)
{
	pthread_mutex_lock(&slot->lock);
	slot->handling = true;
	slot->handled = true;
	pthread_mutex_unlock(&slot->lock);
	slot->handler->message(slot, bytes, n_bytes);
	pthread_mutex_lock(&slot->lock);
	slot->handling = false;
	pthread_mutex_unlock(&slot->lock);
	slot_tell(slot);
}

/* The bytes in one piece: most messages are one slice already, the others are joined. */
static void slot_handle_buffer(struct grpc_call_slot *slot, grpc_byte_buffer *buffer)
{
	grpc_byte_buffer_reader reader;
	size_t n_bytes = grpc_byte_buffer_length(buffer);
	grpc_slice *first, joined;

	if (!grpc_byte_buffer_reader_init(&reader, buffer)) {
		grpc_call_refuse(slot, GRPC_STATUS_INTERNAL, "the message cannot be read");
		return;
	}
	if (!n_bytes) {
		slot_handle(slot, (const uint8_t *)"", 0);
	} else if (grpc_byte_buffer_reader_peek(&reader, &first) &&
		   GRPC_SLICE_LENGTH(*first) == n_bytes) {
		slot_handle(slot, GRPC_SLICE_START_PTR(*first), n_bytes);
	} else {
		grpc_byte_buffer_reader_destroy(&reader);
		grpc_byte_buffer_reader_init(&reader, buffer);
		joined = grpc_byte_buffer_reader_readall(&reader);
		slot_handle(slot, GRPC_SLICE_START_PTR(joined), GRPC_SLICE_LENGTH(joined));
		grpc_slice_unref(joined);
	}
	grpc_byte_buffer_reader_destroy(&reader);
}

static void on_received(struct grpc_tag *tag, bool ok)
{
	struct grpc_call_slot *slot = SLOT_OF(tag, received);
	grpc_byte_buffer *buffer = slot->received_message;

	(void)ok;
	slot->received_message = NULL;
	if (!buffer) {
		slot->handler->half_closed(slot);
	} else if (buffer->data.raw.compression != GRPC_COMPRESS_NONE) {
		grpc_call_refuse(slot, GRPC_STATUS_UNIMPLEMENTED,
				 "compressed messages are not accepted");
	} else if (grpc_byte_buffer_length(buffer) > RPC_MESSAGE_BYTES_MAX) {
		grpc_call_refuse(slot, GRPC_STATUS_RESOURCE_EXHAUSTED,
				 "the message is over the limit");
	} else {
		atomic_fetch_add(&slot->connection->requests, 1);
		slot_handle_buffer(slot, buffer);
	}
	if (buffer)
		grpc_byte_buffer_destroy(buffer);
	slot_unref(slot);
}

/* ── the beginning ────────────────────────────────────────────────────────────────────────── */

static void slot_find_secret(struct grpc_call_slot *slot)
{
	for (size_t i = 0; i < slot->metadata.count; i++) {
		const grpc_metadata *entry = &slot->metadata.metadata[i];

		if (grpc_slice_str_cmp(entry->key, SESSION_KEY))
			continue;
		slot->rpc.secret = GRPC_SLICE_START_PTR(entry->value);
		slot->rpc.secret_bytes = GRPC_SLICE_LENGTH(entry->value);
		return;
	}
}

static void slot_watch_close(struct grpc_call_slot *slot)
{
	grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};

	op.data.recv_close_on_server.cancelled = &slot->cancelled_flag;
	slot_start(slot, &op, 1, &slot->closed);
}

void grpc_call_begin(struct grpc_call_slot *slot)
{
	slot->rpc.ops = &grpc_call_rpc_ops;
	slot->rpc.door = slot->connection->host->door;
	slot->rpc.peer = &slot->connection->peer;
	slot->rpc.account = slot->connection->account;
	slot_find_secret(slot);
	slot_watch_close(slot);
	slot->handler = grpc_handler_find(slot);
	if (slot->handler) {
		grpc_call_read(slot);
		return;
	}
	atomic_fetch_add(&slot->connection->requests, 1);
	grpc_call_refuse(slot, GRPC_STATUS_UNIMPLEMENTED, "no such method");
}
