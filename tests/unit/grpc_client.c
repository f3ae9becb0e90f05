/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "grpc_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/compression.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>

#define DEADLINE_MS  60000
#define METADATA_MAX 8

struct grpc_client {
	grpc_channel *channel;
	grpc_completion_queue *queue;
};

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "grpc client: %s\n", what);
	abort();
}

struct grpc_client *grpc_client_new(const char *socket_path)
{
	struct grpc_client *client = calloc(1, sizeof(*client));
	grpc_channel_credentials *insecure;
	char target[256];
	/* No channel shared with another client of this process, no second try. */
	grpc_arg list[] = {
		{.type = GRPC_ARG_INTEGER,
		 .key = (char *)GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL,
		 .value.integer = 1},
		{.type = GRPC_ARG_INTEGER,
		 .key = (char *)GRPC_ARG_ENABLE_RETRIES,
		 .value.integer = 0},
	};
	grpc_channel_args args = {.num_args = 2, .args = list};

	must(client, "no memory");
	grpc_init();
	snprintf(target, sizeof(target), "unix:%s", socket_path);
	insecure = grpc_insecure_credentials_create();
	client->channel = grpc_channel_create(target, insecure, &args);
	grpc_channel_credentials_release(insecure);
	client->queue = grpc_completion_queue_create_for_pluck(NULL);
	return client;
}

struct grpc_client *grpc_client_free(struct grpc_client *client)
{
	if (!client)
		return NULL;
	grpc_channel_destroy(client->channel);
	grpc_completion_queue_shutdown(client->queue);
	grpc_completion_queue_destroy(client->queue);
	free(client);
	grpc_shutdown_blocking();
	return NULL;
}

static bool wait_for(struct grpc_client *client, void *tag)
{
	grpc_event event = grpc_completion_queue_pluck(client->queue, tag,
						       gpr_inf_future(GPR_CLOCK_REALTIME), NULL);

	return event.success;
}

static void start(grpc_call *call, const grpc_op *ops, size_t n_ops, void *tag)
{
	must(grpc_call_start_batch(call, ops, n_ops, tag, NULL) == GRPC_CALL_OK, "batch refused");
}

static grpc_call *call_new(struct grpc_client *client, const struct client_request *request)
{
	unsigned int ms = request->deadline_ms ? request->deadline_ms : DEADLINE_MS;
	gpr_timespec deadline =
		gpr_time_add(gpr_now(GPR_CLOCK_REALTIME), gpr_time_from_millis(ms, GPR_TIMESPAN));
	grpc_slice path = grpc_slice_from_copied_string(request->path);
	grpc_call *call = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS,
						   client->queue, path, NULL, deadline, NULL);

	grpc_slice_unref(path);
	return call;
}

static size_t metadata_fill(const struct client_request *request, grpc_metadata *list)
{
	size_t n = 0;

	for (; n < request->n_metadata && n < METADATA_MAX; n++) {
		const struct client_metadata *entry = &request->metadata[n];

		list[n].key = grpc_slice_from_copied_string(entry->key);
		list[n].value = grpc_slice_from_copied_buffer((const char *)entry->value,
							      entry->value_bytes);
	}
	if (request->gzip) {
		list[n].key =
			grpc_slice_from_static_string(GRPC_COMPRESSION_REQUEST_ALGORITHM_MD_KEY);
		list[n++].value = grpc_slice_from_static_string("gzip");
	}
	return n;
}

static void metadata_drop(grpc_metadata *list, size_t n)
{
	while (n--) {
		grpc_slice_unref(list[n].key);
		grpc_slice_unref(list[n].value);
	}
}

static grpc_byte_buffer *buffer_of(const uint8_t *bytes, size_t n_bytes)
{
	grpc_slice slice = grpc_slice_from_copied_buffer((const char *)bytes, n_bytes);
	grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);

	grpc_slice_unref(slice);
	return buffer;
}

/* Consumes buffer. */
static uint8_t *buffer_bytes(grpc_byte_buffer *buffer, size_t *ret_n_bytes)
{
	grpc_byte_buffer_reader reader;
	grpc_slice all;
	uint8_t *bytes;

	must(grpc_byte_buffer_reader_init(&reader, buffer), "message cannot be read");
	all = grpc_byte_buffer_reader_readall(&reader);
	*ret_n_bytes = GRPC_SLICE_LENGTH(all);
	bytes = malloc(*ret_n_bytes + 1);
	must(bytes, "no memory");
	memcpy(bytes, GRPC_SLICE_START_PTR(all), *ret_n_bytes);
	grpc_slice_unref(all);
	grpc_byte_buffer_reader_destroy(&reader);
	grpc_byte_buffer_destroy(buffer);
	return bytes;
}

static void answer_take_status(struct client_answer *ret, grpc_status_code code, grpc_slice message,
			       const grpc_metadata_array *trailers)
{
	ret->code = (int)code;
	snprintf(ret->message, sizeof(ret->message), "%.*s", (int)GRPC_SLICE_LENGTH(message),
		 (const char *)GRPC_SLICE_START_PTR(message));
	for (size_t i = 0; i < trailers->count; i++) {
		grpc_slice value = trailers->metadata[i].value;

		if (grpc_slice_str_cmp(trailers->metadata[i].key, "grpc-status-details-bin"))
			continue;
		must(GRPC_SLICE_LENGTH(value) <= sizeof(ret->details), "details too long");
		ret->details_bytes = GRPC_SLICE_LENGTH(value);
		memcpy(ret->details, GRPC_SLICE_START_PTR(value), ret->details_bytes);
	}
}

void grpc_client_unary(struct grpc_client *client, const struct client_request *request,
		       struct client_answer *ret)
{
	grpc_call *call = call_new(client, request);
	grpc_byte_buffer *sent = NULL, *received = NULL;
	grpc_metadata_array headers, trailers;
	grpc_metadata list[METADATA_MAX + 1];
	grpc_slice message = grpc_empty_slice();
	grpc_status_code code = GRPC_STATUS_UNKNOWN;
	size_t n = 0, n_metadata = metadata_fill(request, list);
	grpc_op ops[6] = {0};

	memset(ret, 0, sizeof(*ret));
	grpc_metadata_array_init(&headers);
	grpc_metadata_array_init(&trailers);
	ops[n].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[n].data.send_initial_metadata.count = n_metadata;
	ops[n].data.send_initial_metadata.metadata = list;
	n++;
	if (request->bytes) {
		sent = buffer_of(request->bytes, request->n_bytes);
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = sent;
	}
	ops[n++].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	ops[n].op = GRPC_OP_RECV_INITIAL_METADATA;
	ops[n++].data.recv_initial_metadata.recv_initial_metadata = &headers;
	ops[n].op = GRPC_OP_RECV_MESSAGE;
	ops[n++].data.recv_message.recv_message = &received;
	ops[n].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
	ops[n].data.recv_status_on_client.trailing_metadata = &trailers;
	ops[n].data.recv_status_on_client.status = &code;
	ops[n++].data.recv_status_on_client.status_details = &message;
	start(call, ops, n, call);
	wait_for(client, call);
	answer_take_status(ret, code, message, &trailers);
	if (received)
		ret->bytes = buffer_bytes(received, &ret->n_bytes);
	if (sent)
		grpc_byte_buffer_destroy(sent);
	metadata_drop(list, n_metadata);
	grpc_slice_unref(message);
	grpc_metadata_array_destroy(&headers);
	grpc_metadata_array_destroy(&trailers);
	grpc_call_unref(call);
}

void client_answer_clear(struct client_answer *answer)
{
	free(answer->bytes);
	memset(answer, 0, sizeof(*answer));
}

/* ── streams ──────────────────────────────────────────────────────────────────────────────── */

struct client_stream {
	struct grpc_client *client;
	grpc_call *call;
	grpc_metadata_array headers, trailers;
	grpc_slice message;
	grpc_status_code code;
	char status_tag, read_tag, write_tag;
};

static void stream_watch_status(struct client_stream *stream)
{
	grpc_op op = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};

	op.data.recv_status_on_client.trailing_metadata = &stream->trailers;
	op.data.recv_status_on_client.status = &stream->code;
	op.data.recv_status_on_client.status_details = &stream->message;
	start(stream->call, &op, 1, &stream->status_tag);
}

struct client_stream *grpc_client_open_stream(struct grpc_client *client,
					      const struct client_request *request)
{
	struct client_stream *stream = calloc(1, sizeof(*stream));
	grpc_metadata list[METADATA_MAX + 1];
	size_t n = 1, n_metadata = metadata_fill(request, list);
	grpc_byte_buffer *sent = NULL;
	grpc_op ops[3] = {0};

	must(stream, "no memory");
	stream->client = client;
	stream->call = call_new(client, request);
	grpc_metadata_array_init(&stream->headers);
	grpc_metadata_array_init(&stream->trailers);
	stream->message = grpc_empty_slice();
	stream_watch_status(stream);
	ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[0].data.send_initial_metadata.count = n_metadata;
	ops[0].data.send_initial_metadata.metadata = list;
	if (request->bytes) {
		sent = buffer_of(request->bytes, request->n_bytes);
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = sent;
		ops[n++].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	}
	start(stream->call, ops, n, &stream->write_tag);
	wait_for(client, &stream->write_tag);
	ops[0] = (grpc_op){.op = GRPC_OP_RECV_INITIAL_METADATA};
	ops[0].data.recv_initial_metadata.recv_initial_metadata = &stream->headers;
	start(stream->call, ops, 1, &stream->read_tag);
	wait_for(client, &stream->read_tag);
	if (sent)
		grpc_byte_buffer_destroy(sent);
	metadata_drop(list, n_metadata);
	return stream;
}

bool client_stream_write(struct client_stream *stream, const uint8_t *bytes, size_t n_bytes)
{
	grpc_byte_buffer *buffer = buffer_of(bytes, n_bytes);
	grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
	bool sent;

	op.data.send_message.send_message = buffer;
	start(stream->call, &op, 1, &stream->write_tag);
	sent = wait_for(stream->client, &stream->write_tag);
	grpc_byte_buffer_destroy(buffer);
	return sent;
}

void client_stream_half_close(struct client_stream *stream)
{
	grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};

	start(stream->call, &op, 1, &stream->write_tag);
	wait_for(stream->client, &stream->write_tag);
}

bool client_stream_read(struct client_stream *stream, uint8_t **ret_bytes, size_t *ret_n_bytes)
{
	grpc_byte_buffer *buffer = NULL;
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

	op.data.recv_message.recv_message = &buffer;
	start(stream->call, &op, 1, &stream->read_tag);
	wait_for(stream->client, &stream->read_tag);
	if (!buffer)
		return false;
	*ret_bytes = buffer_bytes(buffer, ret_n_bytes);
	return true;
}

void client_stream_cancel(struct client_stream *stream)
{
	grpc_call_cancel(stream->call, NULL);
}

int client_stream_close(struct client_stream *stream)
{
	int code;

	wait_for(stream->client, &stream->status_tag);
	code = (int)stream->code;
	grpc_slice_unref(stream->message);
	grpc_metadata_array_destroy(&stream->headers);
	grpc_metadata_array_destroy(&stream->trailers);
	grpc_call_unref(stream->call);
	free(stream);
	return code;
}
