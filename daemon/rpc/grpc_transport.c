/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The gRPC connections of one door: admission, accounting, and their end.
 *
 * Operators have connections of their own, not out of those that clients can use up: the admin
 * socket answers when it is needed most. For the same reason a place is found for whoever comes to
 * it: whoever has the most of them, and does nothing with one, loses it.
 *
 * Accounting (charge, refund, the count of living connections) is done on the main loop's thread.
 */

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include <event2/event.h>
#include <grpc/grpc.h>
#include <utlist.h>

#include "rpc/dispatch.h"
#include "rpc/grpc_connection.h"
#include "rpc/grpc_engine.h"
#include "util/fd.h"
#include "util/log.h"

#define ADMIN_CONNECTIONS_MAX 32
/* With those that end, or cannot be ended yet: of one process, and of all. */
#define ADMIN_OF_PROCESS_MAX 64
#define ADMIN_ALL_MAX        128
#define DRAIN_SECONDS        15 /* for connections to end, when the daemon stops */

struct grpc_transport {
	struct grpc_host host;
	struct grpc_engine *engine;
	struct loop *loop; /* the main one */
	struct loop_post stop, stopped;
	bool is_stopped; /* main thread, all of these */
	size_t connections;
	struct grpc_connection *all; /* utlist */
	bool drained_late;

	pthread_mutex_t lock; /* of the dead */
	struct grpc_connection *dead;
	struct loop_post reap;
	bool reap_posted;
};

#define TRANSPORT_OF(pointer, member) \
	((struct grpc_transport *)((char *)(pointer)-offsetof(struct grpc_transport, member)))

static void transport_refund(struct rpc_account *consume_account)
{
	if (consume_account)
		connection_refund(consume_account);
}

/* ── the dead ─────────────────────────────────────────────────────────────────────────────── */

static void transport_bury(struct grpc_transport *transport)
{
	struct grpc_connection *dead, *next;

	pthread_mutex_lock(&transport->lock);
	dead = transport->dead;
	transport->dead = NULL;
	pthread_mutex_unlock(&transport->lock);
	for (; dead; dead = next) {
		next = dead->next;
		transport_refund(dead->account);
		DL_DELETE2(transport->all, dead, all_previous, all_next);
		grpc_connection_free(dead);
		transport->connections--;
	}
}

static void on_reap(struct loop_post *post)
{
	struct grpc_transport *transport = TRANSPORT_OF(post, reap);

	pthread_mutex_lock(&transport->lock);
	transport->reap_posted = false;
	pthread_mutex_unlock(&transport->lock);
	transport_bury(transport);
}

/* The post is queued under the lock, so that transport_bury() on the main thread cannot find the
 * connection and let the transport go before the post is complete. */
static void on_gone(struct grpc_host *host, struct grpc_connection *connection)
{
	struct grpc_transport *transport = TRANSPORT_OF(host, host);

	pthread_mutex_lock(&transport->lock);
	connection->next = transport->dead;
	transport->dead = connection;
	if (!transport->reap_posted) {
		transport->reap_posted = true;
		loop_post(transport->loop, &transport->reap);
	}
	pthread_mutex_unlock(&transport->lock);
}

/* ── admission ────────────────────────────────────────────────────────────────────────────── */

static bool connection_lives(const struct grpc_connection *connection)
{
	return !atomic_load(&connection->dropping);
}

/* One that is open, or it could not be ended yet. */
static bool may_be_ended(const struct grpc_connection *connection)
{
	return connection_lives(connection) &&
	       (atomic_load(&connection->request_out) || atomic_load(&connection->requests));
}

static size_t connections_living(const struct grpc_transport *transport)
{
	const struct grpc_connection *connection;
	size_t n = 0;

	DL_FOREACH2(transport->all, connection, all_next)
	n += connection_lives(connection);
	return n;
}

static size_t connections_of(const struct grpc_transport *transport, pid_t pid)
{
	const struct grpc_connection *connection;
	size_t n = 0;

	DL_FOREACH2(transport->all, connection, all_next)
	n += connection->peer.pid == pid;
	return n;
}

static size_t most_of_a_process(const struct grpc_transport *transport)
{
	const struct grpc_connection *connection;
	size_t most = 0;

	DL_FOREACH2(transport->all, connection, all_next)
	{
		size_t n = connections_of(transport, connection->peer.pid);

		most = n > most ? n : most;
	}
	return most;
}

/* Of a process that has the most; of them one that is idle, and of those the oldest. NULL: all of
 * them are about to be opened, or end already. */
static struct grpc_connection *connection_to_end(const struct grpc_transport *transport)
{
	struct grpc_connection *connection, *oldest = NULL;
	size_t most = most_of_a_process(transport);

	DL_FOREACH2(transport->all, connection, all_next)
	{
		if (!may_be_ended(connection) ||
		    connections_of(transport, connection->peer.pid) < most)
			continue;
		if (!atomic_load(&connection->calls))
			return connection;
		if (!oldest)
			oldest = connection;
	}
	return oldest;
}

/* Those that are dead may not have been buried yet, where there is a storm of other things. */
static bool operator_admit(struct grpc_transport *transport, pid_t pid)
{
	struct grpc_connection *connection;

	if (transport->connections < ADMIN_CONNECTIONS_MAX)
		return true;
	transport_bury(transport);
	if (transport->connections >= ADMIN_ALL_MAX ||
	    connections_of(transport, pid) >= ADMIN_OF_PROCESS_MAX)
		return false;
	if (connections_living(transport) < ADMIN_CONNECTIONS_MAX)
		return true;
	connection = connection_to_end(transport);
	if (connection)
		grpc_connection_drop(connection, "its place is needed for another operator");
	return true;
}

/* *ret_account: NULL for an operator. */
static bool transport_charge(struct grpc_transport *transport, const struct peer *peer,
			     struct rpc_account **ret_account)
{
	*ret_account = NULL;
	if (transport->host.door == RPC_DOOR_ADMIN)
		return operator_admit(transport, peer->pid);
	*ret_account = connection_charge(transport->host.dispatcher, peer);
	return *ret_account;
}

/* ── the transport ────────────────────────────────────────────────────────────────────────── */

int grpc_transport_new(struct grpc_transport **ret, struct dispatcher *dispatcher,
		       struct loop *loop, enum rpc_door door)
{
	struct rpc_settings settings = dispatcher_settings(dispatcher);
	struct grpc_transport *transport = calloc(1, sizeof(*transport));
	int status;

	if (!transport)
		return -ENOMEM;
	status = grpc_engine_ref(&transport->engine);
	if (status) {
		free(transport);
		return status;
	}
	pthread_mutex_init(&transport->lock, NULL);
	transport->loop = loop;
	transport->reap.function = on_reap;
	transport->host = (struct grpc_host){
		.dispatcher = dispatcher,
		.door = door,
		.loop = grpc_engine_loop(transport->engine),
		.queue = grpc_engine_queue(transport->engine),
		.calls_max = settings.calls_per_connection_max,
		.first_request_ms = settings.first_request_ms,
		.gone = on_gone,
	};
	*ret = transport;
	return 0;
}

void grpc_transport_accept(void *context, int consume_fd, const struct peer *peer)
{
	struct grpc_transport *transport = context;
	struct dispatcher *dispatcher = transport->host.dispatcher;
	struct grpc_connection *connection;
	struct rpc_account *account;

	if (!peer_allowed(dispatcher, peer, transport->host.door)) {
		connection_dropped(dispatcher, peer, "it may not connect");
		fd_close(consume_fd);
		return;
	}
	if (!transport_charge(transport, peer, &account)) {
		connection_dropped(dispatcher, peer, "too many connections");
		fd_close(consume_fd);
		return;
	}
	connection = grpc_connection_new(&transport->host, consume_fd, peer);
	if (!connection) {
		connection_dropped(dispatcher, peer, "no memory or descriptor for it");
		transport_refund(account);
		return;
	}
	connection->account = account;
	transport->connections++;
	DL_APPEND2(transport->all, connection, all_previous, all_next);
	grpc_connection_start(connection);
}

static void on_stopped(struct loop_post *post)
{
	TRANSPORT_OF(post, stopped)->is_stopped = true;
}

/* On the guards' loop; the transport may go as soon as the main loop knows of it. */
static void on_stop(struct loop_post *post)
{
	struct grpc_transport *transport = TRANSPORT_OF(post, stop);
	struct grpc_connection *connection;

	transport->host.stopping = true;
	for (connection = transport->host.connections; connection; connection = connection->next)
		grpc_connection_stop(connection);
	loop_post(transport->loop, &transport->stopped);
}

static void on_drain_late(evutil_socket_t fd, short what, void *context)
{
	struct grpc_transport *transport = context;

	(void)fd;
	(void)what;
	transport->drained_late = true;
}

/* What each waits for, so that it can be found out why. */
static void log_stuck(struct grpc_transport *transport)
{
	struct grpc_connection *connection;

	DL_FOREACH2(transport->all, connection, all_next)
	log_error("the connection of pid %d does not end: %u references, %u calls%s%s",
		  (int)connection->peer.pid, atomic_load(&connection->refs),
		  atomic_load(&connection->calls),
		  atomic_load(&connection->request_out) ? ", gRPC has a request" : "",
		  atomic_load(&connection->shut_down_out) ? ", gRPC does not shut down" : "");
}

/* Turns the main loop meanwhile: calls in flight may need it to come to their end. Without the
 * timer there is no bound, which does no harm by itself. */
static bool transport_drain(struct grpc_transport *transport)
{
	struct event_base *base = loop_base(transport->loop);
	struct event *timer = event_new(base, -1, 0, on_drain_late, transport);
	struct timeval limit = {.tv_sec = DRAIN_SECONDS};

	if (timer)
		event_add(timer, &limit);
	transport->stop.function = on_stop;
	transport->stopped.function = on_stopped;
	loop_post(transport->host.loop, &transport->stop);
	while ((transport->connections || !transport->is_stopped) && !transport->drained_late)
		event_base_loop(base, EVLOOP_ONCE);
	if (timer)
		event_free(timer);
	if (!transport->connections && transport->is_stopped)
		return true;
	log_stuck(transport);
	return false;
}

const char *grpc_transport_hangs(struct grpc_transport *transport)
{
	return grpc_engine_hangs(transport->engine);
}

int grpc_transport_free(struct grpc_transport *transport)
{
	if (!transport)
		return 0;
	if (!transport_drain(transport))
		return -ETIMEDOUT;
	loop_unpost(transport->loop, &transport->reap);
	grpc_engine_unref(transport->engine);
	pthread_mutex_destroy(&transport->lock);
	free(transport);
	return 0;
}
