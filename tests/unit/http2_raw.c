/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "http2_raw.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static void must(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "raw HTTP/2 client: %s\n", what);
	abort();
}

void http2_put(struct http2_out *out, const void *bytes, size_t n_bytes)
{
	if (out->n_bytes + n_bytes > out->room) {
		out->room = 2 * (out->n_bytes + n_bytes);
		out->bytes = realloc(out->bytes, out->room);
		must(out->bytes, "no memory");
	}
	if (bytes)
		memcpy(out->bytes + out->n_bytes, bytes, n_bytes);
	else
		memset(out->bytes + out->n_bytes, 0, n_bytes);
	out->n_bytes += n_bytes;
}

void http2_frame(struct http2_out *out, uint8_t type, uint8_t flags, uint32_t stream,
		 const void *payload, uint32_t payload_bytes)
{
	uint8_t header[9] = {
		(uint8_t)(payload_bytes >> 16),
		(uint8_t)(payload_bytes >> 8),
		(uint8_t)payload_bytes,
		type,
		flags,
		(uint8_t)(stream >> 24),
		(uint8_t)(stream >> 16),
		(uint8_t)(stream >> 8),
		(uint8_t)stream,
	};

	http2_put(out, header, sizeof(header));
	http2_put(out, payload, payload_bytes);
}

void http2_begin(struct http2_out *out)
{
	http2_put(out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
	http2_frame(out, HTTP2_SETTINGS, 0, 0, NULL, 0);
}

/* RFC 7541, 6.2.2: a literal field that is not indexed, with a name of its own. */
static void hpack_literal(struct http2_out *out, const char *name, const char *value)
{
	uint8_t name_bytes = (uint8_t)strlen(name), value_bytes = (uint8_t)strlen(value);

	http2_put(out, "\0", 1);
	http2_put(out, &name_bytes, 1);
	http2_put(out, name, name_bytes);
	http2_put(out, &value_bytes, 1);
	http2_put(out, value, value_bytes);
}

void http2_request(struct http2_out *out, uint32_t stream, const char *path)
{
	struct http2_out block = {0};

	http2_put(&block, "\x83\x86", 2); /* :method POST, :scheme http */
	hpack_literal(&block, ":path", path);
	hpack_literal(&block, ":authority", "localhost");
	hpack_literal(&block, "te", "trailers");
	hpack_literal(&block, "content-type", "application/grpc");
	http2_frame(out, HTTP2_HEADERS, HTTP2_END_HEADERS, stream, block.bytes,
		    (uint32_t)block.n_bytes);
	http2_clear(&block);
}

void http2_message(struct http2_out *out, uint32_t stream, const void *bytes, uint32_t n_bytes)
{
	struct http2_out data = {0};
	uint8_t prefix[5] = {0, (uint8_t)(n_bytes >> 24), (uint8_t)(n_bytes >> 16),
			     (uint8_t)(n_bytes >> 8), (uint8_t)n_bytes};

	http2_put(&data, prefix, sizeof(prefix));
	http2_put(&data, bytes, n_bytes);
	http2_frame(out, HTTP2_DATA, HTTP2_END_STREAM, stream, data.bytes, (uint32_t)data.n_bytes);
	http2_clear(&data);
}

void http2_clear(struct http2_out *out)
{
	free(out->bytes);
	*out = (struct http2_out){0};
}

int http2_dial(const char *path)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval patience = {.tv_sec = 60};

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	must(fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof(address)),
	     "cannot connect");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	return fd;
}

bool http2_send(int fd, const struct http2_out *out)
{
	size_t sent = 0;

	while (sent < out->n_bytes) {
		ssize_t n = send(fd, out->bytes + sent, out->n_bytes - sent, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		sent += (size_t)n;
	}
	return true;
}

static bool receive(int fd, uint8_t *bytes, size_t n_bytes)
{
	while (n_bytes) {
		ssize_t n = recv(fd, bytes, n_bytes, 0);

		if (n <= 0)
			return false;
		bytes += n;
		n_bytes -= (size_t)n;
	}
	return true;
}

int http2_await(int fd, uint8_t type, uint8_t flags, uint32_t stream)
{
	static uint8_t payload[1 << 20];
	uint8_t header[9];

	for (;;) {
		size_t length;
		uint32_t id;

		if (!receive(fd, header, sizeof(header)))
			return -1;
		length = (size_t)header[0] << 16 | (size_t)header[1] << 8 | header[2];
		id = (uint32_t)header[5] << 24 | (uint32_t)header[6] << 16 |
		     (uint32_t)header[7] << 8 | header[8];
		if (length > sizeof(payload) || !receive(fd, payload, length))
			return -1;
		if (header[3] == type && (header[4] & flags) == flags && id == stream)
			return (int)length;
	}
}

void http2_await_end(int fd)
{
	uint8_t bytes[4096];
	ssize_t n;

	do
		n = recv(fd, bytes, sizeof(bytes), 0);
	while (n > 0);
	must(n == 0 || errno == ECONNRESET, "the connection does not end");
}
