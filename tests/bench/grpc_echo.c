/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A bare gRPC-core echo, and the client that measures both it and the daemon.
 *
 *   grpc_echo --server SOCKET
 *   grpc_echo --client SOCKET [--path /x/y] [--request-hex 0a00] [--metadata-bin key=hex]…
 *             [--calls N] [--json]
 *
 * The server is what gRPC core costs at its least: one thread on a completion queue, nothing in
 * front of it, the request's bytes as the answer. It runs until its standard input ends or a
 * signal kills it. The client makes one unary call after the other over one connection and prints
 * the median and the 99th percentile of their durations; every call must succeed.
 */

#include <getopt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include "grpc_client.h"

#define CALLS_DEFAULT 20000
#define METADATA_MAX  8

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "grpc_echo: %s\n", what);
	exit(1);
}

/* ── server ───────────────────────────────────────────────────────────────────────────────── */

struct echo_call;

struct echo_tag {
	void (*done)(struct echo_call *call, bool ok);
	struct echo_call *call;
};

struct echo_server {
	grpc_server *server;
	grpc_completion_queue *queue;
};

struct echo_call {
	struct echo_server *server;
	grpc_call *call;
	grpc_call_details details;
	grpc_metadata_array metadata;
	grpc_byte_buffer *message;
	int cancelled;
	struct echo_tag requested, received, closed, answered;
	int outstanding;
};

static void echo_post(struct echo_server *server);

static void echo_put(struct echo_call *call)
{
	if (--call->outstanding)
		return;
	if (call->call)
		grpc_call_unref(call->call);
	if (call->message)
		grpc_byte_buffer_destroy(call->message);
	grpc_call_details_destroy(&call->details);
	grpc_metadata_array_destroy(&call->metadata);
	free(call);
}

static void echo_start(struct echo_call *call, const grpc_op *ops, size_t n, struct echo_tag *tag)
{
	call->outstanding++;
	must(grpc_call_start_batch(call->call, ops, n, tag, NULL) == GRPC_CALL_OK, "batch refused");
}

static void echo_done(struct echo_call *call, bool ok)
{
	(void)ok;
	echo_put(call);
}

static void echo_received(struct echo_call *call, bool ok)
{
	grpc_op ops[3] = {0};
	size_t n = 0;

	(void)ok;
	ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
	if (call->message) {
		ops[n].op = GRPC_OP_SEND_MESSAGE;
		ops[n++].data.send_message.send_message = call->message;
	}
	ops[n++].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
	echo_start(call, ops, n, &call->answered);
	echo_put(call);
}

static void echo_requested(struct echo_call *call, bool ok)
{
	grpc_op op = {0};

	if (!ok) {
		echo_put(call);
		return;
	}
	echo_post(call->server);
	op.op = GRPC_OP_RECV_CLOSE_ON_SERVER;
	op.data.recv_close_on_server.cancelled = &call->cancelled;
	echo_start(call, &op, 1, &call->closed);
	op = (grpc_op){.op = GRPC_OP_RECV_MESSAGE};
	op.data.recv_message.recv_message = &call->message;
	echo_start(call, &op, 1, &call->received);
	echo_put(call);
}

static void echo_post(struct echo_server *server)
{
	struct echo_call *call = calloc(1, sizeof(*call));

	must(call, "no memory");
	call->server = server;
	call->outstanding = 1;
	call->requested = (struct echo_tag){echo_requested, call};
	call->received = (struct echo_tag){echo_received, call};
	call->closed = (struct echo_tag){echo_done, call};
	call->answered = (struct echo_tag){echo_done, call};
	grpc_call_details_init(&call->details);
	grpc_metadata_array_init(&call->metadata);
	must(grpc_server_request_call(server->server, &call->call, &call->details, &call->metadata,
				      server->queue, server->queue,
				      &call->requested) == GRPC_CALL_OK,
	     "request refused");
}

static void *echo_main(void *context)
{
	struct echo_server *server = context;

	for (;;) {
		grpc_event event = grpc_completion_queue_next(
			server->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
		struct echo_tag *tag = event.tag;

		if (event.type == GRPC_QUEUE_SHUTDOWN)
			return NULL;
		if (event.type == GRPC_OP_COMPLETE)
			tag->done(tag->call, event.success);
	}
}

static void serve(const char *socket_path)
{
	grpc_server_credentials *insecure;
	struct echo_server server;
	char address[256], byte;
	pthread_t thread;

	grpc_init();
	server.server = grpc_server_create(NULL, NULL);
	server.queue = grpc_completion_queue_create_for_next(NULL);
	grpc_server_register_completion_queue(server.server, server.queue, NULL);
	insecure = grpc_insecure_server_credentials_create();
	snprintf(address, sizeof(address), "unix:%s", socket_path);
	must(grpc_server_add_http2_port(server.server, address, insecure), "cannot listen");
	grpc_server_start(server.server);
	echo_post(&server);
	must(!pthread_create(&thread, NULL, echo_main, &server), "no thread");
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	unlink(socket_path);
	_exit(0);
}

/* ── client ───────────────────────────────────────────────────────────────────────────────── */

struct options {
	const char *server, *client, *path;
	uint8_t request[65536];
	size_t request_bytes;
	struct client_metadata metadata[METADATA_MAX];
	size_t n_metadata;
	unsigned long calls;
	bool json;
};

static size_t hex_bytes(const char *hex, uint8_t *ret, size_t room)
{
	size_t n = strlen(hex) / 2;
	unsigned int byte;

	must(strlen(hex) % 2 == 0 && n <= room, "hex: an even number of digits, within the limit");
	for (size_t i = 0; i < n; i++) {
		must(sscanf(hex + 2 * i, "%2x", &byte) == 1, "hex: not a digit");
		ret[i] = (uint8_t)byte;
	}
	return n;
}

static void metadata_add(struct options *options, char *argument)
{
	char *value = strchr(argument, '=');
	uint8_t *bytes = malloc(4096);

	must(value && bytes && options->n_metadata < METADATA_MAX, "--metadata-bin key=hex");
	*value++ = 0;
	options->metadata[options->n_metadata++] = (struct client_metadata){
		.key = argument,
		.value = bytes,
		.value_bytes = hex_bytes(value, bytes, 4096),
	};
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t call_once(struct grpc_client *client, const struct client_request *request)
{
	struct client_answer answer;
	uint64_t start = now_ns(), duration;

	grpc_client_unary(client, request, &answer);
	duration = now_ns() - start;
	if (answer.code) {
		fprintf(stderr, "grpc_echo: status %d: %s\n", answer.code, answer.message);
		exit(1);
	}
	client_answer_clear(&answer);
	return duration;
}

static int measure(const struct options *options)
{
	struct client_request request = {
		.path = options->path,
		.bytes = options->request,
		.n_bytes = options->request_bytes,
		.metadata = options->metadata,
		.n_metadata = options->n_metadata,
	};
	struct grpc_client *client = grpc_client_new(options->client);
	uint64_t *durations = calloc(options->calls, sizeof(*durations));
	uint64_t median, p99;

	must(durations, "no memory");
	for (unsigned long i = 0; i < options->calls / 10 + 1; i++)
		call_once(client, &request); /* caches, CPU clock, HPACK tables */
	for (unsigned long i = 0; i < options->calls; i++)
		durations[i] = call_once(client, &request);
	qsort(durations, options->calls, sizeof(*durations), compare);
	median = durations[options->calls / 2];
	p99 = durations[options->calls - 1 - options->calls / 100];
	printf(options->json ? "{\"calls\": %lu, \"median_ns\": %llu, \"p99_ns\": %llu}\n"
			     : "%lu calls, median %llu ns, 99%% %llu ns\n",
	       options->calls, (unsigned long long)median, (unsigned long long)p99);
	free(durations);
	grpc_client_free(client);
	return 0;
}

static void options_parse(int argc, char **argv, struct options *options)
{
	static const struct option names[] = {
		{"server", required_argument, NULL, 's'},
		{"client", required_argument, NULL, 'c'},
		{"path", required_argument, NULL, 'p'},
		{"request-hex", required_argument, NULL, 'r'},
		{"metadata-bin", required_argument, NULL, 'm'},
		{"calls", required_argument, NULL, 'n'},
		{"json", no_argument, NULL, 'j'},
		{0},
	};
	int letter;

	while ((letter = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (letter) {
		case 's':
			options->server = optarg;
			break;
		case 'c':
			options->client = optarg;
			break;
		case 'p':
			options->path = optarg;
			break;
		case 'r':
			options->request_bytes =
				hex_bytes(optarg, options->request, sizeof(options->request));
			break;
		case 'm':
			metadata_add(options, optarg);
			break;
		case 'n':
			options->calls = strtoul(optarg, NULL, 10);
			break;
		case 'j':
			options->json = true;
			break;
		default:
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	static struct options options = {.path = "/test.Echo/Unary", .calls = CALLS_DEFAULT};

	options_parse(argc, argv, &options);
	must(!options.server != !options.client && options.calls,
	     "one of --server and --client, and at least one call");
	if (options.server)
		serve(options.server);
	return measure(&options);
}
