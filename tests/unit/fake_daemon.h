/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TEST_FAKE_DAEMON_H
#define IB_TEST_FAKE_DAEMON_H

/*
 * The other end of a native connection, as a thread that answers what a test tells it to: right,
 * wrong, late or never.
 */

#include <protobuf-c/protobuf-c.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fake_request {
	uint32_t method;
	uint64_t call;
	const uint8_t *message;
	size_t n_message;
	const int *fds; /* closed after the handler */
	size_t n_fds;
};

struct fake_daemon;
typedef void (*fake_serve_fn)(struct fake_daemon *daemon, const struct fake_request *request,
			      void *user_data);

struct fake_daemon {
	int fd;
	int client_fd;     /* for the session, which consumes it */
	_Atomic bool dead; /* reads no more */
	pthread_t thread;
	fake_serve_fn serve;
	void *user_data;
};

/* OpenSession is answered by itself; all else goes to serve, on the daemon's thread. */
void fake_start(struct fake_daemon *daemon, fake_serve_fn serve, void *user_data);
/* Without even that. */
void fake_start_raw(struct fake_daemon *daemon, fake_serve_fn serve, void *user_data);
/* The thread itself, for who has made the daemon's fd: until the other end hangs up, or fake_die().
 * raw: OpenSession goes to serve, too. */
void fake_run(struct fake_daemon *daemon, bool raw);
/* Hang up, from any thread. */
void fake_die(struct fake_daemon *daemon);
/* Hang up, and wait for the thread. */
void fake_stop(struct fake_daemon *daemon);

/* Each waits for room, and does not mind if nobody listens. message may be NULL: empty. */
void fake_answer(struct fake_daemon *daemon, const struct fake_request *request,
		 const ProtobufCMessage *message);
void fake_answer_more(struct fake_daemon *daemon, const struct fake_request *request,
		      const ProtobufCMessage *message);
void fake_answer_fd(struct fake_daemon *daemon, const struct fake_request *request,
		    const ProtobufCMessage *message, int borrow_fd);
/* details: n packed messages with their short type names, "ErrorInfo". */
struct fake_detail {
	const char *type;
	const ProtobufCMessage *message;
};
void fake_refuse(struct fake_daemon *daemon, const struct fake_request *request, int code,
		 const char *text, const struct fake_detail *details, size_t n_details);
/* Any bytes as a message of an OK answer, and any bytes as a packet. */
void fake_answer_bytes(struct fake_daemon *daemon, const struct fake_request *request,
		       const uint8_t *bytes, size_t n_bytes);
void fake_send(struct fake_daemon *daemon, const uint8_t *bytes, size_t n_bytes, const int *fds,
	       size_t n_fds);
/* A header in front of bytes that the caller made room for. */
void fake_header(uint8_t *to, uint32_t method, uint64_t call);

/* How many descriptors this process has. */
size_t fake_count_fds(void);

#endif
