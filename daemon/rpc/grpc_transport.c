/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * gRPC connections of one door, and the two threads that serve them.
 *
 * One thread runs the guards' loop: the clients' sockets, their frame guards and timers. It is not
 * the daemon's main loop, so a client that floods its gRPC connection does not delay the native
 * transport or the watchdog, and stopping needs nobody else's loop. The other thread takes gRPC's
 * completions and calls the dispatcher; an answer given there goes to the client's socket from
 * there, without another wake-up.
 *
 * Accounting (charge, refund, the count of living connections) is done on the main loop's thread.
 */

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include <grpc/grpc.h>

#include "rpc/dispatch.h"
#include "rpc/grpc_connection.h"
#include "rpc/grpc_log.h"
#include "util/fd.h"

struct grpc_transport {
	struct grpc_host host;
	struct loop *loop; /* the main one */
	pthread_t guard_thread, queue_thread;
	bool guard_runs, queue_runs;
	struct loop_post stop;
	size_t connections; /* main thread */

	pthread_mutex_t lock; /* of the dead */
	struct grpc_connection *dead;
	struct loop_post reap;
	bool reap_posted;
};

#define TRANSPORT_OF(pointer, member) \
	((struct grpc_transport *)((char *)(pointer)-offsetof(struct grpc_transport, member)))

/* ── threads ──────────────────────────────────────────────────────────────────────────────── */

static void *queue_main(void *context)
{
	struct grpc_transport *transport = context;

	for (;;) {
		grpc_event event = grpc_completion_queue_next(
			transport->host.queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
		struct grpc_tag *tag = event.tag;

		if (event.type == GRPC_QUEUE_SHUTDOWN)
			return NULL;
		if (event.type != GRPC_OP_COMPLETE)
			continue;
		grpc_tag_taken(tag);
		tag->done(tag, event.success);
	}
}

static void *guard_main(void *context)
{
	struct grpc_transport *transport = context;

	loop_run(transport->host.loop);
	return NULL;
}

/* Signals are main's, but for those that a thread causes itself: reads of guest memory answer
 * SIGBUS. */
static void signals_block(sigset_t *ret_before)
{
	sigset_t blocked;

	sigfillset(&blocked);
	sigdelset(&blocked, SIGBUS);
	sigdelset(&blocked, SIGSEGV);
	sigdelset(&blocked, SIGILL);
	sigdelset(&blocked, SIGFPE);
	sigdelset(&blocked, SIGABRT);
	sigdelset(&blocked, SIGTRAP);
	sigdelset(&blocked, SIGSYS);
	pthread_sigmask(SIG_SETMASK, &blocked, ret_before);
}

static int threads_start(struct grpc_transport *transport)
{
	int error = pthread_create(&transport->guard_thread, NULL, guard_main, transport);

	if (error)
		return -error;
	transport->guard_runs = true;
	pthread_setname_np(transport->guard_thread, "grpc-guard");
	error = pthread_create(&transport->queue_thread, NULL, queue_main, transport);
	if (error)
		return -error;
	transport->queue_runs = true;
	pthread_setname_np(transport->queue_thread, "grpc-queue");
	return 0;
}

/* ── the dead ─────────────────────────────────────────────────────────────────────────────── */

static void transport_bury(struct grpc_transport *transport)
{
	struct grpc_connection *dead, *next;

	pthread_mutex_lock(&transport->lock);
	dead = transport->dead;
	transport->dead = NULL;
	transport->reap_posted = false;
	pthread_mutex_unlock(&transport->lock);
	for (; dead; dead = next) {
		next = dead->next;
		connection_refund(transport->host.dispatcher, &dead->peer);
		grpc_connection_free(dead);
		transport->connections--;
	}
}

static void on_reap(struct loop_post *post)
{
	transport_bury(TRANSPORT_OF(post, reap));
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

/* ── the transport ────────────────────────────────────────────────────────────────────────── */

int grpc_transport_new(struct grpc_transport **ret, struct dispatcher *dispatcher,
		       struct loop *loop, enum rpc_door door)
{
	const struct rpc_settings *settings = dispatcher_settings(dispatcher);
	struct grpc_transport *transport = calloc(1, sizeof(*transport));
	sigset_t before;
	int status;

	if (!transport)
		return -ENOMEM;
	pthread_mutex_init(&transport->lock, NULL);
	transport->loop = loop;
	transport->reap.function = on_reap;
	transport->host = (struct grpc_host){
		.dispatcher = dispatcher,
		.door = door,
		.calls_max = settings->calls_per_connection_max,
		.first_request_ms = settings->first_request_ms,
		.gone = on_gone,
	};
	grpc_log_filter();
	signals_block(&before);
	grpc_init(); /* starts threads of its own */
	transport->host.queue = grpc_completion_queue_create_for_next(NULL);
	status = loop_new(&transport->host.loop);
	if (!status)
		status = threads_start(transport);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (status)
		grpc_transport_free(transport);
	else
		*ret = transport;
	return status;
}

void grpc_transport_accept(void *context, int consume_fd, const struct peer *peer)
{
	struct grpc_transport *transport = context;
	struct dispatcher *dispatcher = transport->host.dispatcher;
	struct grpc_connection *connection;

	if (!peer_allowed(dispatcher, peer, transport->host.door) ||
	    !connection_charge(dispatcher, peer)) {
		fd_close(consume_fd);
		return;
	}
	connection = grpc_connection_new(&transport->host, consume_fd, peer);
	if (!connection) {
		connection_refund(dispatcher, peer);
		return;
	}
	transport->connections++;
	grpc_connection_start(connection);
}

static void on_stop(struct loop_post *post)
{
	struct grpc_transport *transport = TRANSPORT_OF(post, stop);
	struct grpc_connection *connection;

	transport->host.stopping = true;
	for (connection = transport->host.connections; connection; connection = connection->next)
		grpc_connection_stop(connection);
}

/* Turns the main loop meanwhile: calls in flight may need it to come to their end. */
static void transport_drain(struct grpc_transport *transport)
{
	transport->stop.function = on_stop;
	loop_post(transport->host.loop, &transport->stop);
	while (transport->connections)
		event_base_loop(loop_base(transport->loop), EVLOOP_ONCE);
}

struct grpc_transport *grpc_transport_free(struct grpc_transport *transport)
{
	if (!transport)
		return NULL;
	if (transport->guard_runs) {
		transport_drain(transport);
		loop_exit(transport->host.loop, 0);
		pthread_join(transport->guard_thread, NULL);
	}
	grpc_completion_queue_shutdown(transport->host.queue);
	if (transport->queue_runs)
		pthread_join(transport->queue_thread, NULL);
	else
		queue_main(transport);
	grpc_completion_queue_destroy(transport->host.queue);
	grpc_shutdown_blocking();
	loop_unpost(transport->loop, &transport->reap);
	loop_free(transport->host.loop);
	pthread_mutex_destroy(&transport->lock);
	free(transport);
	return NULL;
}
