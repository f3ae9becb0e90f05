/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_GRPC_CLIENT_H
#define IB_TESTS_GRPC_CLIENT_H

/* A blocking gRPC client on gRPC core, for tests and benchmarks: one call at a time. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct grpc_client;

struct client_metadata {
	const char *key; /* "…-bin" for bytes */
	const uint8_t *value;
	size_t value_bytes;
};

struct client_request {
	const char *path;
	const uint8_t *bytes; /* NULL: no message at all */
	size_t n_bytes;
	const struct client_metadata *metadata;
	size_t n_metadata;
	unsigned int deadline_ms; /* 0: 60 s */
	bool gzip;
};

struct client_answer {
	int code; /* grpc_status_code */
	char message[256];
	uint8_t *bytes; /* the message, or NULL; by client_answer_clear() */
	size_t n_bytes;
	uint8_t details[4096]; /* grpc-status-details-bin */
	size_t details_bytes;
};

struct grpc_client *grpc_client_new(const char *socket_path);
struct grpc_client *grpc_client_free(struct grpc_client *client);
void grpc_client_unary(struct grpc_client *client, const struct client_request *request,
		       struct client_answer *ret);
void client_answer_clear(struct client_answer *answer);

/* A call whose answer is a stream: the request is sent, then messages are read one by one. */
struct client_stream;
struct client_stream *grpc_client_open_stream(struct grpc_client *client,
					      const struct client_request *request);
/* For bidirectional streams. false: the call is over. */
bool client_stream_write(struct client_stream *stream, const uint8_t *bytes, size_t n_bytes);
void client_stream_half_close(struct client_stream *stream);
/* true: *ret_bytes is malloc()ed. false: no more messages; ask for the status. */
bool client_stream_read(struct client_stream *stream, uint8_t **ret_bytes, size_t *ret_n_bytes);
void client_stream_cancel(struct client_stream *stream);
/* Waits for the end; frees the stream. */
int client_stream_close(struct client_stream *stream);

#endif
