/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * See rpc.h. A call is three kinds of batches on one completion queue: the request and the initial
 * metadata (always asked for, or gRPC never ends the call), the status, and one per message.
 */

#include "ctl/rpc.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/log.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVICE           "/iommubroker.v1.Admin/"
#define CALL_SECONDS      30
#define MESSAGE_BYTES_MAX (64 << 20)

#define TAG_REQUEST ((void *)1)
#define TAG_STATUS  ((void *)2)
#define TAG_MESSAGE ((void *)3)

struct rpc {
	char target[4200];
	grpc_channel *channel; /* NULL before the first call */
	grpc_completion_queue *queue;
	uint32_t patience_seconds;
};

/* The state of one call. */
struct exchange {
	struct rpc *rpc;
	grpc_call *call;
	grpc_byte_buffer *request, *message;
	grpc_metadata_array initial, trailing;
	grpc_status_code code;
	grpc_slice details;
	unsigned int n_pending;
};

/* Its log would mix into what we print. */
static void drop_log(gpr_log_func_args *args)
{
}

struct rpc *rpc_new(const char *socket_path)
{
	struct rpc *rpc = calloc(1, sizeof(*rpc));

	if (rpc == NULL)
		return NULL;
	snprintf(rpc->target, sizeof(rpc->target), "unix:%s", socket_path);
	rpc->patience_seconds = CALL_SECONDS;
	return rpc;
}

/* At the first call only: gRPC has threads, and some commands prepare their process before. */
static void open_channel(struct rpc *rpc)
{
	grpc_arg arg = {.type = GRPC_ARG_INTEGER,
			.key = (char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH};
	grpc_channel_args args = {.num_args = 1, .args = &arg};
	grpc_channel_credentials *credentials;

	arg.value.integer = MESSAGE_BYTES_MAX;
	gpr_set_log_function(drop_log);
	grpc_init();
	credentials = grpc_insecure_credentials_create();
	rpc->channel = grpc_channel_create(rpc->target, credentials, &args);
	grpc_channel_credentials_release(credentials);
	rpc->queue = grpc_completion_queue_create_for_next(NULL);
}

void rpc_set_patience(struct rpc *rpc, uint32_t seconds)
{
	rpc->patience_seconds = seconds;
}

static gpr_timespec deadline_of(const struct rpc *rpc)
{
	if (rpc->patience_seconds == RPC_FOREVER)
		return gpr_inf_future(GPR_CLOCK_REALTIME);
	return gpr_time_add(gpr_now(GPR_CLOCK_REALTIME),
			    gpr_time_from_seconds(rpc->patience_seconds, GPR_TIMESPAN));
}

struct rpc *rpc_free(struct rpc *rpc)
{
	if (rpc == NULL)
		return NULL;
	if (rpc->channel == NULL) {
		free(rpc);
		return NULL;
	}
	grpc_channel_destroy(rpc->channel);
	grpc_completion_queue_shutdown(rpc->queue);
	while (grpc_completion_queue_next(rpc->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL)
		       .type != GRPC_QUEUE_SHUTDOWN)
		;
	grpc_completion_queue_destroy(rpc->queue);
	grpc_shutdown();
	free(rpc);
	return NULL;
}

static grpc_byte_buffer *pack(const ProtobufCMessage *message)
{
	grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
	grpc_byte_buffer *buffer;

	protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
	buffer = grpc_raw_byte_buffer_create(&slice, 1);
	grpc_slice_unref(slice);
	return buffer;
}

static ProtobufCMessage *unpack(grpc_byte_buffer *buffer, const ProtobufCMessageDescriptor *type)
{
	grpc_byte_buffer_reader reader;
	ProtobufCMessage *message;
	grpc_slice slice;

	if (!grpc_byte_buffer_reader_init(&reader, buffer))
		return NULL;
	slice = grpc_byte_buffer_reader_readall(&reader);
	grpc_byte_buffer_reader_destroy(&reader);
	message = protobuf_c_message_unpack(type, NULL, GRPC_SLICE_LENGTH(slice),
					    GRPC_SLICE_START_PTR(slice));
	grpc_slice_unref(slice);
	return message;
}

static void start(struct exchange *exchange, const grpc_op *ops, size_t n, void *tag)
{
	if (grpc_call_start_batch(exchange->call, ops, n, tag, NULL) == GRPC_CALL_OK)
		exchange->n_pending++;
}

static void start_request(struct exchange *exchange)
{
	grpc_op ops[4] = {0};

	ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
	ops[1].op = GRPC_OP_SEND_MESSAGE;
	ops[1].data.send_message.send_message = exchange->request;
	ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
	ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
	ops[3].data.recv_initial_metadata.recv_initial_metadata = &exchange->initial;
	start(exchange, ops, 4, TAG_REQUEST);
}

static void start_status(struct exchange *exchange)
{
	grpc_op op = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};

	op.data.recv_status_on_client.trailing_metadata = &exchange->trailing;
	op.data.recv_status_on_client.status = &exchange->code;
	op.data.recv_status_on_client.status_details = &exchange->details;
	start(exchange, &op, 1, TAG_STATUS);
}

static void start_message(struct exchange *exchange)
{
	grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

	op.data.recv_message.recv_message = &exchange->message;
	start(exchange, &op, 1, TAG_MESSAGE);
}

/* false: the caller wants no more, or the message cannot be read. */
static bool hand_out(struct exchange *exchange, const ProtobufCMessageDescriptor *type,
		     rpc_message_fn function, void *user_data)
{
	ProtobufCMessage *message = unpack(exchange->message, type);
	bool wanted = false;

	grpc_byte_buffer_destroy(exchange->message);
	exchange->message = NULL;
	if (message != NULL)
		wanted = function(user_data, message);
	protobuf_c_message_free_unpacked(message, NULL);
	return wanted;
}

/* Until every batch has ended. */
static void run(struct exchange *exchange, const ProtobufCMessageDescriptor *type,
		rpc_message_fn function, void *user_data)
{
	while (exchange->n_pending > 0) {
		grpc_event event = grpc_completion_queue_next(
			exchange->rpc->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);

		exchange->n_pending--;
		if (event.tag != TAG_MESSAGE || exchange->message == NULL)
			continue;
		if (hand_out(exchange, type, function, user_data))
			start_message(exchange);
		else
			grpc_call_cancel(exchange->call, NULL);
	}
}

/* Too long for us: left out, as only programs read them. */
static void take_details(const struct exchange *exchange, struct rpc_status *ret)
{
	for (size_t i = 0; i < exchange->trailing.count; i++) {
		const grpc_metadata *one = &exchange->trailing.metadata[i];
		size_t n = GRPC_SLICE_LENGTH(one->value);

		if (grpc_slice_str_cmp(one->key, "grpc-status-details-bin") != 0 ||
		    n > sizeof(ret->details))
			continue;
		memcpy(ret->details, GRPC_SLICE_START_PTR(one->value), n);
		ret->details_bytes = n;
	}
}

static void take_status(const struct exchange *exchange, struct rpc_status *ret)
{
	ret->details_bytes = 0;
	take_details(exchange, ret);
	ret->code = exchange->code;
	snprintf(ret->message, sizeof(ret->message), "%.*s",
		 (int)GRPC_SLICE_LENGTH(exchange->details),
		 (const char *)GRPC_SLICE_START_PTR(exchange->details));
}

void rpc_call(struct rpc *rpc, const char *method, const ProtobufCMessage *request,
	      const ProtobufCMessageDescriptor *response, rpc_message_fn function, void *user_data,
	      struct rpc_status *ret_status)
{
	struct exchange exchange = {.rpc = rpc};
	grpc_slice method_slice;
	char path[128];

	if (rpc->channel == NULL)
		open_channel(rpc);
	exchange.request = pack(request);
	snprintf(path, sizeof(path), SERVICE "%s", method);
	exchange.code = GRPC_STATUS_INTERNAL;
	exchange.details = grpc_empty_slice();
	grpc_metadata_array_init(&exchange.initial);
	grpc_metadata_array_init(&exchange.trailing);
	method_slice = grpc_slice_from_copied_string(path);
	exchange.call =
		grpc_channel_create_call(rpc->channel, NULL, GRPC_PROPAGATE_DEFAULTS, rpc->queue,
					 method_slice, NULL, deadline_of(rpc), NULL);
	grpc_slice_unref(method_slice);
	start_request(&exchange);
	start_status(&exchange);
	start_message(&exchange);
	run(&exchange, response, function, user_data);
	take_status(&exchange, ret_status);
	grpc_call_unref(exchange.call);
	grpc_metadata_array_destroy(&exchange.initial);
	grpc_metadata_array_destroy(&exchange.trailing);
	grpc_slice_unref(exchange.details);
	grpc_byte_buffer_destroy(exchange.request);
}
