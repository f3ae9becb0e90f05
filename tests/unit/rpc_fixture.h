/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_RPC_FIXTURE_H
#define IB_TESTS_RPC_FIXTURE_H

/*
 * A dispatcher and a native transport over the fake broker, with a loop on a thread of its own, and
 * clients for them: native ones on socket pairs, and calls as a gRPC transport would make them.
 */

#include <pthread.h>

#include "fake_broker.h"
#include "rpc/dispatch.h"
#include "rpc/native_packet.h"

#include "iommubroker/v1/admin.pb-c.h"
#include "iommubroker/v1/devices.pb-c.h"
#include "iommubroker/v1/domains.pb-c.h"
#include "iommubroker/v1/events.pb-c.h"
#include "iommubroker/v1/fastpath.pb-c.h"
#include "iommubroker/v1/guests.pb-c.h"
#include "iommubroker/v1/host.pb-c.h"
#include "iommubroker/v1/memory.pb-c.h"
#include "iommubroker/v1/native.pb-c.h"
#include "grpc/health/v1/health.pb-c.h"
#include "google/rpc/status.pb-c.h"

#define M(name) IOMMUBROKER__V1__METHOD__METHOD_##name

struct rpc_fixture {
	struct rpc_settings settings; /* to be changed before fixture_start() */
	struct broker *broker;
	struct loop *loop;
	struct dispatcher *dispatcher;
	struct native_transport *native;
	pthread_t thread;
	int loop_status;  /* what the loop ended with, after fixture_stop() */
	struct peer peer; /* this process */
	bool joined;      /* the loop ended by itself, and its thread was waited for */
};

void fixture_init(struct rpc_fixture *f);
void fixture_start(struct rpc_fixture *f);
void fixture_stop(struct rpc_fixture *f);

/* The one of most tests, and its start and end for cmocka. */
extern struct rpc_fixture fixture;
int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Run function on the loop's thread and wait for it. */
void fixture_on_loop(struct rpc_fixture *f, void (*function)(void *context), void *context);

/* ── native clients ───────────────────────────────────────────────────────────────────────── */

/* A connection of this process, or of another one's pid and pidfd. The client's end. */
int fixture_connect(struct rpc_fixture *f);
int fixture_connect_as(struct rpc_fixture *f, const struct peer *peer);
/* Connected, with a session open. ret_secret may be NULL. */
int fixture_open_session(struct rpc_fixture *f, uint8_t ret_secret[BROKER_SECRET_BYTES]);

void client_send_bytes(int socket, const void *bytes, size_t n_bytes, const int *fds, size_t n_fds);
void client_send_raw(int socket, uint32_t method, uint64_t call, const void *bytes, size_t n_bytes,
		     const int *fds, size_t n_fds);
void client_send(int socket, uint32_t method, uint64_t call, const void *request);

struct reply {
	bool ended; /* the connection, and nothing else is set */
	uint32_t method;
	uint64_t call;
	bool more;
	int code;
	Google__Rpc__Status *status; /* or NULL */
	void *message;               /* unpacked, or NULL */
	int fds[RPC_DESCRIPTORS_MAX];
	size_t n_fds;
};
/* Wait for the next packet. response: what its message is. */
void client_receive(int socket, struct reply *ret, const ProtobufCMessageDescriptor *response);
/* Free it and close its descriptors. */
void reply_clear(struct reply *reply);
/* Send, receive. The next call number. */
void client_call(int socket, uint32_t method, const void *request, struct reply *ret,
		 const ProtobufCMessageDescriptor *response);
/* The detail of a refusal of that type ("BadRequest"), unpacked; fails the test if there is none.
 * To be freed with protobuf_c_message_free_unpacked(). */
void *status_detail(const Google__Rpc__Status *status, const char *type,
		    const ProtobufCMessageDescriptor *descriptor);

/* ── calls without a transport ────────────────────────────────────────────────────────────── */

struct test_call {
	struct rpc_call rpc;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool finished, no_room; /* no_room: send() answers false */
	size_t sends, refused_sends;
	struct rpc_status status;
	uint8_t message[RPC_MESSAGE_BYTES_MAX]; /* of the last send() or finish() */
	size_t message_bytes;
	bool has_message;
	int fd; /* or -1 */
};
/* As a gRPC call through door, with a session's secret or NULL. */
void test_call_init(struct test_call *call, struct rpc_fixture *f, enum rpc_door door,
		    const uint8_t *secret);
void test_call_deinit(struct test_call *call);
void test_call_start(struct test_call *call, struct rpc_fixture *f, const char *path,
		     const void *request);
void test_call_wait(struct test_call *call);
void test_call_wait_sends(struct test_call *call, size_t sends);
/* start, wait. The code. */
int test_call_run(struct test_call *call, struct rpc_fixture *f, const char *path,
		  const void *request);

/* Wait, without a limit of its own, until *counter is n. */
void wait_for_count(const _Atomic uint32_t *counter, uint32_t n);

#endif
