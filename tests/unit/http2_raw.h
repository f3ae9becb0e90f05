/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_HTTP2_RAW_H
#define IB_TESTS_HTTP2_RAW_H

/* HTTP/2 by hand on a unix socket: what no gRPC library would send. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum http2_type {
	HTTP2_DATA,
	HTTP2_HEADERS,
	HTTP2_PRIORITY,
	HTTP2_RST_STREAM,
	HTTP2_SETTINGS,
	HTTP2_PUSH_PROMISE,
	HTTP2_PING,
	HTTP2_GOAWAY,
	HTTP2_WINDOW_UPDATE,
	HTTP2_CONTINUATION,
};

#define HTTP2_END_STREAM  1
#define HTTP2_END_HEADERS 4

/* Bytes to be sent. */
struct http2_out {
	uint8_t *bytes;
	size_t n_bytes, room;
};

void http2_put(struct http2_out *out, const void *bytes, size_t n_bytes);
/* payload NULL: zeros. */
void http2_frame(struct http2_out *out, uint8_t type, uint8_t flags, uint32_t stream,
		 const void *payload, uint32_t payload_bytes);
/* The preface and empty SETTINGS. */
void http2_begin(struct http2_out *out);
/* HEADERS of a gRPC request, without END_STREAM. */
void http2_request(struct http2_out *out, uint32_t stream, const char *path);
/* DATA with one gRPC message, END_STREAM. */
void http2_message(struct http2_out *out, uint32_t stream, const void *bytes, uint32_t n_bytes);
void http2_clear(struct http2_out *out);

/* A connected blocking socket with a timeout of a minute on both directions. */
int http2_dial(const char *path);
/* Send all; false: the other side is gone. */
bool http2_send(int fd, const struct http2_out *out);
/* Read frames until one of that type for that stream came (its payload's length is answered), or
 * the connection ended: -1. */
int http2_await(int fd, uint8_t type, uint8_t flags, uint32_t stream);
/* Read until the end of the connection. */
void http2_await_end(int fd);

#endif
