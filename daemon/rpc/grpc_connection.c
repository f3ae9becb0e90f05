/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A connection's life:
 *
 *   new ── start ── [open] ── serving ──┬── the client or gRPC closes ──┬── [end] ── last call
 * gone, ├── a fault, a cap, a timer ────┤    shutdown tag come └── stop: bounded grace ────────┘
 * └── gone()
 *
 * [ ] on the guards' loop. Limits on time: the first complete request must come within
 * first_request_ms. After it a connection that never presented a session's secret is dropped when
 * it was idle for IDLE_MS; one that did may be silent for as long as it likes.
 */

#include "rpc/grpc_connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>

#include "rpc/grpc_call.h"
#include "util/fd.h"

#define IDLE_MS              300000
#define GRACE_MS             500 /* for calls in flight when the daemon stops */
#define QUOTA_BYTES          (6 * 1024 * 1024)
#define METADATA_BYTES_MAX   8192
#define PAIR_BUFFER_BYTES    65536
#define DATA_FRAME_BYTES_MAX (RPC_MESSAGE_BYTES_MAX + 5) /* with gRPC's own message prefix */

#define CONNECTION_OF(pointer, member) \
	((struct grpc_connection *)((char *)(pointer)-offsetof(struct grpc_connection, member)))

static void on_requested(struct grpc_tag *tag, bool ok);
static void on_shut_down(struct grpc_tag *tag, bool ok);
static void connection_end(struct grpc_connection *connection);

/* ── lifetime ─────────────────────────────────────────────────────────────────────────────── */

struct grpc_connection *grpc_connection_new(struct grpc_host *host, int consume_fd,
					    const struct peer *peer)
{
	struct grpc_connection *connection = calloc(1, sizeof(*connection));
	int pidfd = fd_duplicate(peer->pidfd);

	if (!connection || pidfd < 0) {
		free(connection);
		fd_close(pidfd);
		fd_close(consume_fd);
		return NULL;
	}
	connection->host = host;
	connection->peer = *peer;
	connection->peer.pidfd = pidfd;
	connection->client_fd = consume_fd;
	connection->requested.done = on_requested;
	connection->shut_down.done = on_shut_down;
	pthread_mutex_init(&connection->request_lock, NULL);
	atomic_init(&connection->refs, 1); /* its place on the guards' loop */
	return connection;
}

struct grpc_connection *grpc_connection_ref(struct grpc_connection *connection)
{
	atomic_fetch_add(&connection->refs, 1);
	return connection;
}

void grpc_connection_unref(struct grpc_connection *connection)
{
	if (atomic_fetch_sub(&connection->refs, 1) == 1)
		connection->host->gone(connection->host, connection);
}

struct grpc_connection *grpc_connection_free(struct grpc_connection *connection)
{
	if (!connection)
		return NULL;
	if (connection->server)
		grpc_server_destroy(connection->server);
	if (connection->open)
		frame_pump_deinit(&connection->pump);
	fd_close(connection->client_fd);
	fd_close(connection->peer.pidfd);
	pthread_mutex_destroy(&connection->request_lock);
	free(connection);
	return NULL;
}

/* ── requests ─────────────────────────────────────────────────────────────────────────────── */

/* Under the lock. 0; -ESHUTDOWN: no more is taken; -ENOMEM. */
static int connection_request(struct grpc_connection *connection)
{
	grpc_completion_queue *queue = connection->host->queue;
	struct grpc_call_slot *slot;

	if (connection->is_shut)
		return -ESHUTDOWN;
	slot = grpc_call_slot_new(connection);
	if (!slot)
		return -ENOMEM;
	connection->posted = slot;
	atomic_store(&connection->request_out, true);
	grpc_tag_given(&connection->requested);
	if (grpc_server_request_call(connection->server, &slot->call, &slot->details,
				     &slot->metadata, queue, queue,
				     &connection->requested) == GRPC_CALL_OK)
		return 0;
	atomic_store(&connection->request_out, false);
	connection->posted = grpc_call_slot_free(slot);
	return -ENOMEM;
}

/* Keep one request posted, always: else a dead client's descriptor stays. Consumes a reference. */
static void connection_post_request(struct grpc_connection *connection)
{
	int status;

	pthread_mutex_lock(&connection->request_lock);
	status = connection_request(connection);
	pthread_mutex_unlock(&connection->request_lock);
	if (!status)
		return;
	if (status == -ENOMEM)
		grpc_connection_drop(connection, "no memory for one more call");
	grpc_connection_unref(connection);
}

/* MAX_CONCURRENT_STREAMS binds only clients that acknowledge it: what really arrives is counted. */
static void on_requested(struct grpc_tag *tag, bool ok)
{
	struct grpc_connection *connection = CONNECTION_OF(tag, requested);
	struct grpc_call_slot *slot = connection->posted;

	atomic_store(&connection->request_out, false);
	if (!ok || atomic_load(&connection->dropping)) {
		grpc_call_slot_free(slot);
		grpc_connection_unref(connection);
		return;
	}
	if (atomic_load(&connection->calls) >= connection->host->calls_max) {
		grpc_call_slot_free(slot);
		grpc_connection_drop(connection, "too many calls in flight");
		grpc_connection_unref(connection);
		return;
	}
	atomic_fetch_add(&connection->calls, 1);
	grpc_connection_ref(connection); /* the call's */
	connection_post_request(connection);
	grpc_call_begin(slot);
}

static void on_shut_down(struct grpc_tag *tag, bool ok)
{
	struct grpc_connection *connection = CONNECTION_OF(tag, shut_down);

	(void)ok;
	atomic_store(&connection->shut_down_out, false);
	grpc_connection_unref(connection);
}

void grpc_connection_flush(struct grpc_connection *connection)
{
	frame_pump_flush(&connection->pump);
}

/* ── the end ──────────────────────────────────────────────────────────────────────────────── */

static void connection_unlink(struct grpc_connection *connection)
{
	if (connection->previous)
		connection->previous->next = connection->next;
	else
		connection->host->connections = connection->next;
	if (connection->next)
		connection->next->previous = connection->previous;
}

static void connection_shut_down(struct grpc_connection *connection)
{
	grpc_connection_ref(connection); /* the tag's */
	atomic_store(&connection->shut_down_out, true);
	grpc_tag_given(&connection->shut_down);
	pthread_mutex_lock(&connection->request_lock);
	connection->is_shut = true;
	grpc_server_shutdown_and_notify(connection->server, connection->host->queue,
					&connection->shut_down);
	pthread_mutex_unlock(&connection->request_lock);
}

/* Guard. Both descriptors go, so gRPC sees the end of its side; every call is cancelled. */
static void connection_end(struct grpc_connection *connection)
{
	frame_pump_close(&connection->pump);
	event_free(connection->timer);
	connection_unlink(connection);
	if (!connection->ending)
		connection_shut_down(connection);
	grpc_server_cancel_all_calls(connection->server);
	if (loop_unpost(connection->host->loop, &connection->post))
		grpc_connection_unref(connection); /* the post's */
	grpc_connection_unref(connection);
}

static void on_pump_ended(struct frame_pump *pump, const char *why)
{
	struct grpc_connection *connection = CONNECTION_OF(pump, pump);

	if (why)
		connection_dropped(connection->host->dispatcher, &connection->peer, why);
	connection_end(connection);
}

static void on_drop(struct loop_post *post)
{
	struct grpc_connection *connection = CONNECTION_OF(post, post);

	if (!connection->pump.closed)
		connection_end(connection);
	grpc_connection_unref(connection); /* the post's */
}

void grpc_connection_drop(struct grpc_connection *connection, const char *why)
{
	if (atomic_exchange(&connection->dropping, true))
		return;
	connection_dropped(connection->host->dispatcher, &connection->peer, why);
	grpc_connection_ref(connection);
	connection->post.function = on_drop;
	loop_post(connection->host->loop, &connection->post);
}

/* ── time ─────────────────────────────────────────────────────────────────────────────────── */

static void timer_set(struct grpc_connection *connection, uint32_t ms)
{
	struct timeval interval = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

	event_add(connection->timer, &interval);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
	struct grpc_connection *connection = context;
	uint64_t requests = atomic_load(&connection->requests);
	bool silent = requests == connection->requests_at_tick &&
		      (!requests || !atomic_load(&connection->calls));

	(void)fd;
	(void)what;
	if (connection->ending || (silent && !atomic_load(&connection->session_seen))) {
		if (!requests)
			connection_dropped(connection->host->dispatcher, &connection->peer,
					   "no request in time");
		connection_end(connection);
		return;
	}
	connection->requests_at_tick = requests;
	if (!atomic_load(&connection->session_seen))
		timer_set(connection, IDLE_MS);
}

void grpc_connection_stop(struct grpc_connection *connection)
{
	if (connection->ending)
		return;
	connection->ending = true;
	connection_shut_down(connection);
	timer_set(connection, GRACE_MS);
}

/* ── the beginning ────────────────────────────────────────────────────────────────────────── */

static grpc_arg integer_arg(const char *key, int value)
{
	return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

static grpc_arg quota_arg(grpc_resource_quota *quota)
{
	return (grpc_arg){
		.type = GRPC_ARG_POINTER,
		.key = (char *)GRPC_ARG_RESOURCE_QUOTA,
		.value.pointer = {.p = quota, .vtable = grpc_resource_quota_arg_vtable()}};
}

/* Fewer than are borne: a client that keeps to it is never dropped, although calls that it has
 * given up still run. */
static int streams_announced(const struct grpc_host *host)
{
	uint32_t streams = host->calls_max - host->calls_max / 4;

	return streams > INT32_MAX ? INT32_MAX : (int)streams;
}

/* A stream that a client gave up may live a little longer than its call. */
static uint32_t streams_borne(const struct grpc_host *host)
{
	return 2 * host->calls_max;
}

static grpc_server *server_new(const struct grpc_host *host)
{
	grpc_resource_quota *quota = grpc_resource_quota_create(NULL);
	int accept_identity_only = 1 << GRPC_COMPRESS_NONE;
	grpc_server *server;

	grpc_resource_quota_resize(quota, QUOTA_BYTES);
	grpc_arg list[] = {
		quota_arg(quota),
		integer_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, streams_announced(host)),
		integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, RPC_MESSAGE_BYTES_MAX),
		integer_arg(GRPC_ARG_MAX_METADATA_SIZE, METADATA_BYTES_MAX),
		integer_arg(GRPC_ARG_HTTP2_BDP_PROBE, 0),
		integer_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
		integer_arg(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0),
		integer_arg(GRPC_ARG_KEEPALIVE_TIME_MS, INT32_MAX),
		integer_arg(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0), /* the guard counts */
		integer_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
		integer_arg(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET,
			    accept_identity_only),
	};
	grpc_channel_args args = {.num_args = sizeof(list) / sizeof(list[0]), .args = list};

	server = grpc_server_create(&args, NULL);
	grpc_resource_quota_unref(quota);
	grpc_server_register_completion_queue(server, host->queue, NULL);
	grpc_server_start(server);
	return server;
}

/* ret[0] is ours, ret[1] gRPC's. */
static int pair_new(int ret[2])
{
	int size = PAIR_BUFFER_BYTES;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret))
		return -errno;
	/* Only bounds what waits in the kernel: no harm if it fails. */
	setsockopt(ret[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(ret[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	return 0;
}

static int connection_open_pump(struct grpc_connection *connection, int *ret_grpc_end)
{
	int pair[2], status = pair_new(pair), client_fd = connection->client_fd;

	if (status)
		return status;
	connection->client_fd = -1;
	status = frame_pump_open(&connection->pump, connection->host->loop, client_fd, pair[0],
				 DATA_FRAME_BYTES_MAX, streams_borne(connection->host),
				 on_pump_ended);
	if (status) {
		close(pair[1]);
		return status;
	}
	connection->open = true;
	*ret_grpc_end = pair[1];
	return 0;
}

static void connection_link(struct grpc_connection *connection)
{
	struct grpc_host *host = connection->host;

	connection->next = host->connections;
	if (connection->next)
		connection->next->previous = connection;
	host->connections = connection;
}

static void connection_serve(struct grpc_connection *connection, int consume_grpc_end)
{
	struct grpc_host *host = connection->host;
	grpc_server_credentials *insecure = grpc_insecure_server_credentials_create();

	connection_link(connection);
	timer_set(connection, host->first_request_ms);
	connection->server = server_new(host);
	grpc_connection_ref(connection); /* the posted request's */
	connection_post_request(connection);
	grpc_server_add_channel_from_fd(connection->server, consume_grpc_end, insecure);
	grpc_server_credentials_release(insecure);
}

static void on_open(struct loop_post *post)
{
	struct grpc_connection *connection = CONNECTION_OF(post, post);
	struct event_base *base = loop_base(connection->host->loop);
	int grpc_end;

	connection->timer = event_new(base, -1, 0, on_timer, connection);
	if (!connection->timer || connection->host->stopping ||
	    connection_open_pump(connection, &grpc_end)) {
		if (connection->timer)
			event_free(connection->timer);
		grpc_connection_unref(connection);
		return;
	}
	connection_serve(connection, grpc_end);
}

void grpc_connection_start(struct grpc_connection *connection)
{
	connection->post.function = on_open;
	loop_post(connection->host->loop, &connection->post);
}
