/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_GRPC_FIXTURE_H
#define IB_TESTS_GRPC_FIXTURE_H

/* The gRPC transport listening on a socket in a folder of its own, on the fake dispatcher. */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_dispatcher.h"
#include "grpc_client.h"
#include "rpc/listener.h"
#include "rpc/loop.h"

#define FIXTURE_CALLS_MAX       8
#define FIXTURE_CONNECTIONS_MAX 8

struct grpc_fixture {
	char folder[64], path[96];
	struct rpc_settings settings;
	struct loop *loop;
	struct dispatcher *dispatcher;
	struct grpc_transport *transport;
	struct listener *listener;
	pthread_t thread;
	bool running;
};

/* first_request_ms: of the settings. */
void grpc_fixture_open(struct grpc_fixture *f, unsigned int first_request_ms, enum rpc_door door);
/* Stop serving; connections end. May be called before grpc_fixture_close(). */
void grpc_fixture_stop(struct grpc_fixture *f);
/* Also checks that no connection is still charged for. */
void grpc_fixture_close(struct grpc_fixture *f);
struct grpc_client *grpc_fixture_client(struct grpc_fixture *f);
/* Wait until get(dispatcher) is at least (or: exactly) that; fails the test after a minute. */
void grpc_fixture_await(struct grpc_fixture *f, size_t (*get)(struct dispatcher *), size_t value);
void grpc_fixture_await_exactly(struct grpc_fixture *f, size_t (*get)(struct dispatcher *),
				size_t value);
/* Descriptors of this process. */
size_t open_fds(void);
/* Until no more are open than that: gRPC closes its end of a pair some time after it has said that
 * the server is gone. */
void await_open_fds(size_t at_most);

#endif
