/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/native_connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "iommubroker/v1/native.pb-c.h"
#include "rpc/descriptor_drop.h"
#include "rpc/native_outbox.h"
#include "rpc/native_packet.h"
#include "rpc/peer_pidfd.h"
#include "rpc/rpc_session.h"
#include "util/clock.h"
#include "util/crash_point.h"
#include "util/fd.h"

/* Then other connections have their turn: who has expensive calls, after fewer of them. */
#define PACKETS_AT_ONCE 16
#define TURN_NS         500000ull

/* A place for a call, used again by the connection's later calls and freed with it: so that its
 * memory is there for as long as the loop's thread may name it. */
struct native_call {
	struct rpc_call rpc;
	struct native_connection *connection;
	uint32_t method;
	uint64_t number;
	bool in_flight, blocked; /* the connection's lock */
};

struct native_connection {
	_Atomic uint32_t refs; /* of the transport's list, of calls in flight, of a queued task */
	struct dispatcher *dispatcher;
	struct peer peer;            /* with a pidfd of its own */
	struct rpc_account *account; /* until it is closed */

	/* the loop's */
	TAILQ_ENTRY(native_connection) place;
	struct native_transport *transport;
	struct event *readable, *writable, *silence; /* NULL: could not be made */
	struct rpc_session *session;                 /* reference, or NULL */
	struct delegate *delegate; /* what it came through: a reference, or NULL */
	bool asks_sender;          /* who is at the other end is told by each packet */
	bool stopped;              /* nothing is read until the outbox is empty */
	struct native_call *calls[NATIVE_CALLS_MAX];
	size_t n_calls; /* places made so far */
	struct task task;

	pthread_mutex_t lock; /* guards what follows, and sending */
	int fd;               /* -1: closed */
	const char *broken;   /* why the loop is to close it */
	size_t n_in_flight;
	struct native_outbox outbox;
	bool room_wanted; /* some call is blocked */
};

static void connection_ref(struct native_connection *connection)
{
	atomic_fetch_add(&connection->refs, 1);
}

static void connection_unref(struct native_connection *connection)
{
	if (atomic_fetch_sub(&connection->refs, 1) != 1)
		return;
	for (size_t i = 0; i < connection->n_calls; i++)
		free(connection->calls[i]);
	fd_close(connection->peer.pidfd);
	delegate_unref(connection->delegate);
	pthread_mutex_destroy(&connection->lock);
	free(connection);
}

/* ── sending, from any thread, under the connection's lock ────────────────────────────────── */

/* The loop's thread must do something for it: wait for room. */
static void connection_defer(struct native_connection *connection)
{
	connection_ref(connection);
	if (!dispatcher_defer(connection->dispatcher, &connection->task))
		connection_unref(connection);
}

/* Only the loop closes it: what it reads next is the end. */
static void connection_break(struct native_connection *connection, const char *why)
{
	if (connection->fd < 0 || connection->broken)
		return;
	connection->broken = why;
	shutdown(connection->fd, SHUT_RDWR);
}

/* What the kernel does not take now. true: the outbox has it, with its descriptors. */
static bool connection_queue(struct native_connection *connection,
			     const struct native_answer *answer)
{
	const char *why = native_outbox_put(&connection->outbox, answer);

	if (why) {
		connection_break(connection, why);
		return false;
	}
	connection_defer(connection);
	return true;
}

/* It closed its end while a call was running: nothing is wrong, and the loop sees the end. */
static bool client_left(int error)
{
	return error == EPIPE || error == ECONNRESET;
}

/* true: the outbox has the descriptors now. */
static bool connection_send(struct native_connection *connection,
			    const struct native_answer *answer)
{
	int error = EAGAIN;

	if (connection->fd < 0 || connection->broken)
		return false;
	if (native_outbox_empty(&connection->outbox))
		error = native_send(connection->fd, answer);
	if (error == EAGAIN)
		return connection_queue(connection, answer);
	if (error && !client_left(error))
		connection_break(connection, "an answer could not be sent");
	return false;
}

/* ── a call's ops ─────────────────────────────────────────────────────────────────────────── */

static struct native_call *native_call_of(struct rpc_call *rpc)
{
	return (struct native_call *)((char *)rpc - offsetof(struct native_call, rpc));
}

static const struct rpc_status status_ok = {.code = 0};

/* A stream's message is not queued: the stream keeps it until there is room. */
static bool call_send(struct rpc_call *rpc, const uint8_t *bytes, size_t n_bytes)
{
	struct native_call *call = native_call_of(rpc);
	struct native_connection *connection = call->connection;
	struct native_answer answer = {
		.method = call->method,
		.call = call->number,
		.more = true,
		.status = &status_ok,
		.message = bytes,
		.message_bytes = n_bytes,
	};
	int error = EAGAIN;

	pthread_mutex_lock(&connection->lock);
	if (connection->fd < 0 || connection->broken)
		error = 0; /* nobody reads; the stream will be told that it is over */
	else if (native_outbox_empty(&connection->outbox))
		error = native_send(connection->fd, &answer);
	call->blocked = error == EAGAIN;
	if (call->blocked) {
		connection->room_wanted = true;
		connection_defer(connection);
	} else if (error && !client_left(error)) {
		connection_break(connection, "a message could not be sent");
	}
	pthread_mutex_unlock(&connection->lock);
	return error == 0;
}

/* OpenSession or JoinSession made it; both run on the loop's thread. */
static void connection_adopt(struct native_connection *connection,
			     struct rpc_session *consume_session)
{
	connection->session = consume_session;
	event_del(connection->silence);
}

static void call_done(struct rpc_call *rpc, const struct rpc_status *status, const uint8_t *bytes,
		      size_t n_bytes, const int *consume_fds, size_t n_fds)
{
	struct native_call *call = native_call_of(rpc);
	struct native_connection *connection = call->connection;
	struct native_answer answer = {
		.method = call->method,
		.call = call->number,
		.status = status,
		.message = bytes,
		.message_bytes = n_bytes,
		.fds = consume_fds,
		.n_fds = n_fds,
	};
	struct rpc_session *session = rpc->session;
	bool adopts = (call->method == IOMMUBROKER__V1__METHOD__METHOD_OPEN_SESSION ||
		       call->method == IOMMUBROKER__V1__METHOD__METHOD_JOIN_SESSION) &&
		      session && !connection->session;
	bool queued;

	if (adopts)
		connection_adopt(connection, session);
	pthread_mutex_lock(&connection->lock);
	/* Before the client can know, or it could use the number again too early. */
	call->in_flight = false;
	connection->n_in_flight--;
	queued = connection_send(connection, &answer);
	pthread_mutex_unlock(&connection->lock);
	for (size_t i = 0; !queued && i < n_fds; i++)
		fd_close(consume_fds[i]);
	connection_unref(connection);
}

static const struct rpc_call_ops native_ops = {.send = call_send, .finish = call_done};

/* ── reading, on the loop's thread ────────────────────────────────────────────────────────── */

static struct native_call *call_by_number(struct native_connection *connection, uint64_t number)
{
	for (size_t i = 0; i < connection->n_calls; i++)
		if (connection->calls[i]->in_flight && connection->calls[i]->number == number)
			return connection->calls[i];
	return NULL;
}

static struct native_call *call_place(struct native_connection *connection)
{
	struct native_call *call;

	for (size_t i = 0; i < connection->n_calls; i++)
		if (!connection->calls[i]->in_flight)
			return connection->calls[i];
	call = connection->n_calls < NATIVE_CALLS_MAX ? calloc(1, sizeof(*call)) : NULL;
	if (!call)
		return NULL;
	call->connection = connection;
	connection->calls[connection->n_calls++] = call;
	return call;
}

static void refuse_packet(struct native_connection *connection, const struct native_packet *packet,
			  const struct refusal *refusal)
{
	struct rpc_status status;
	struct native_answer answer = {
		.method = packet->method, .call = packet->call, .status = &status};

	rpc_status_from_refusal(&status, refusal);
	descriptors_drop(connection->dispatcher, connection->session, connection->peer.uid,
			 packet->fds, packet->n_fds);
	pthread_mutex_lock(&connection->lock);
	connection_send(connection, &answer);
	pthread_mutex_unlock(&connection->lock);
}

static void call_start(struct native_connection *connection, struct native_call *call,
		       const struct method *method, const struct native_packet *packet)
{
	struct rpc_call *rpc = &call->rpc;

	memset(rpc, 0, sizeof(*rpc));
	rpc->ops = &native_ops;
	rpc->door = RPC_DOOR_CLIENT;
	rpc->native = true;
	rpc->peer = &connection->peer;
	rpc->account = connection->account;
	rpc->session = connection->session;
	rpc->delegate = connection->delegate;
	rpc->request = packet->message;
	rpc->request_bytes = packet->message_bytes;
	rpc->n_fds = packet->n_fds;
	memcpy(rpc->fds, packet->fds, packet->n_fds * sizeof(packet->fds[0]));
	dispatch_call(connection->dispatcher, method, rpc);
}

/* A place for the packet's call, in flight from now on. NULL: *ret_refusal, or *ret_why if the
 * connection must end. */
static struct native_call *call_reserve(struct native_connection *connection,
					const struct native_packet *packet,
					struct refusal *ret_refusal, const char **ret_why)
{
	size_t max = connection->transport->calls_max;
	struct native_call *call = NULL;

	*ret_why = NULL;
	if (max > NATIVE_CALLS_MAX)
		max = NATIVE_CALLS_MAX;
	pthread_mutex_lock(&connection->lock);
	if (call_by_number(connection, packet->call))
		*ret_why = "a call number that is in use";
	else if (connection->n_in_flight >= max)
		refuse_quota(ret_refusal, "calls_in_flight", max, connection->n_in_flight, 1, "",
			     "native transport");
	else if (!(call = call_place(connection)))
		refuse_errno(ret_refusal, ENOMEM, "serving the call");
	if (call) {
		call->method = packet->method;
		call->number = packet->call;
		call->blocked = false;
		call->in_flight = true;
		connection->n_in_flight++;
		connection_ref(connection);
	}
	pthread_mutex_unlock(&connection->lock);
	return call;
}

/* NULL, or why the connection must end: then the packet's descriptors are the caller's. */
static const char *packet_cancel(struct native_connection *connection,
				 const struct native_packet *packet)
{
	struct native_call *call;

	if (packet->n_fds)
		return "descriptors where none are expected";
	pthread_mutex_lock(&connection->lock);
	call = call_by_number(connection, packet->call);
	pthread_mutex_unlock(&connection->lock);
	if (call)
		dispatch_cancelled(&call->rpc);
	return NULL;
}

static const char *packet_serve(struct native_connection *connection,
				const struct native_packet *packet)
{
	const struct method *method = method_by_number(packet->method);
	struct native_call *call;
	struct refusal refusal;
	const char *why;

	if (packet->method == IOMMUBROKER__V1__METHOD__METHOD_CANCEL_CALL)
		return packet_cancel(connection, packet);
	if (packet->n_fds > (method ? method->descriptors_max : 0))
		return "descriptors where none are expected";
	if (!method) {
		refuse_unimplemented(&refusal, "UNKNOWN_METHOD", "there is no method %u",
				     packet->method);
		refuse_packet(connection, packet, &refusal);
		return NULL;
	}
	call = call_reserve(connection, packet, &refusal, &why);
	if (call)
		call_start(connection, call, method, packet);
	else if (!why)
		refuse_packet(connection, packet, &refusal);
	return why;
}

/* A connected socket goes from hand to hand before it is used: who uses it first has it. */
static bool sender_is_peer(struct native_connection *connection, const struct native_packet *packet)
{
	struct peer sender;

	if (!connection->asks_sender || connection->peer.pid == packet->sender.pid)
		return true;
	if (connection->peer.pid || !peer_of_credentials(&packet->sender, &sender))
		return false;
	connection->peer = sender;
	return true;
}

static void refuse_sender(struct native_connection *connection, const struct native_packet *packet)
{
	struct refusal refusal;

	refuse(&refusal, REFUSAL_UNAUTHENTICATED, "NOT_THE_PEER",
	       "this connection is process %d's, not process %d's", (int)connection->peer.pid,
	       (int)packet->sender.pid);
	refuse_packet(connection, packet, &refusal);
}

/* NULL, or why the connection must end. */
static const char *packet_take(struct native_connection *connection,
			       const struct native_packet *packet)
{
	if (sender_is_peer(connection, packet))
		return packet_serve(connection, packet);
	refuse_sender(connection, packet);
	return NULL;
}

/* false: nothing more now, or it is closed. */
static bool connection_read_one(struct native_connection *connection)
{
	bool takes_fds = !descriptors_pile_up(connection->dispatcher, connection->peer.uid);
	struct native_packet packet;
	const char *why = NULL;

	switch ((connection->asks_sender ? native_receive_from : native_receive)(
		connection->fd, connection->transport->buffer, takes_fds, &packet, &why)) {
	case NATIVE_NOTHING:
		return false;
	case NATIVE_PACKET:
		CRASH_POINT(PACKET_READ);
		why = packet_take(connection, &packet);
		if (!why)
			return true;
		break;
	case NATIVE_MALFORMED:
		break;
	case NATIVE_END:
		packet.n_fds = 0;
	}
	descriptors_drop(connection->dispatcher, connection->session, connection->peer.uid,
			 packet.fds, packet.n_fds);
	native_connection_close(connection, why);
	return false;
}

/* Its answers are more than its tenant has room for: see native_outbox.h. */
static bool connection_is_over(struct native_connection *connection)
{
	bool over;

	pthread_mutex_lock(&connection->lock);
	over = connection->outbox.over;
	pthread_mutex_unlock(&connection->lock);
	return over;
}

static void on_readable(evutil_socket_t fd, short what, void *context)
{
	struct native_connection *connection = context;
	uint64_t begun_ns = clock_monotonic_ns();

	(void)fd;
	(void)what;
	connection_ref(connection);
	for (unsigned int i = 0; i < PACKETS_AT_ONCE && !connection_is_over(connection); i++)
		if (!connection_read_one(connection) || clock_monotonic_ns() - begun_ns > TURN_NS)
			break;
	connection_unref(connection);
}

static void connection_stop_reading(struct native_connection *connection)
{
	if (connection->stopped)
		return;
	connection->stopped = true;
	event_del(connection->readable);
}

static void connection_resume_reading(struct native_connection *connection)
{
	if (!connection->stopped)
		return;
	connection->stopped = false;
	event_add(connection->readable, NULL);
}

/* Tell the streams that wait for room. Places are only ever filled on this thread, so that what is
 * told of here can at worst have finished meanwhile. */
static void connection_tell_writable(struct native_connection *connection)
{
	for (size_t i = 0; i < connection->n_calls; i++) {
		struct native_call *call = connection->calls[i];
		bool tell;

		pthread_mutex_lock(&connection->lock);
		tell = call->in_flight && call->blocked;
		call->blocked = false;
		pthread_mutex_unlock(&connection->lock);
		if (tell)
			dispatch_writable(&call->rpc);
	}
}

static void on_writable(evutil_socket_t fd, short what, void *context)
{
	struct native_connection *connection = context;
	bool tell = false;
	int error;

	(void)fd;
	(void)what;
	pthread_mutex_lock(&connection->lock);
	error = native_outbox_flush(&connection->outbox, connection->fd);
	if (error == EAGAIN) {
		event_add(connection->writable, NULL);
	} else if (error) {
		if (!client_left(error))
			connection_break(connection, "an answer could not be sent");
		/* Nobody will have them; and the end is to be read. */
		native_outbox_clear(&connection->outbox);
	} else {
		tell = connection->room_wanted;
		connection->room_wanted = false;
	}
	pthread_mutex_unlock(&connection->lock);
	if (error != EAGAIN)
		connection_resume_reading(connection);
	if (tell)
		connection_tell_writable(connection);
}

static void connection_wait_for_room(struct task *task)
{
	struct native_connection *connection =
		(struct native_connection *)((char *)task -
					     offsetof(struct native_connection, task));
	bool closed, over;

	pthread_mutex_lock(&connection->lock);
	closed = connection->fd < 0;
	over = connection->outbox.over;
	pthread_mutex_unlock(&connection->lock);
	if (!closed)
		event_add(connection->writable, NULL);
	if (!closed && over)
		connection_stop_reading(connection);
	connection_unref(connection);
}

static void on_silence(evutil_socket_t timer, short what, void *context)
{
	(void)timer;
	(void)what;
	native_connection_close(context, "it opened no session in time");
}

/* ── life ─────────────────────────────────────────────────────────────────────────────────── */

static bool connection_watch(struct native_connection *connection)
{
	struct event_base *base = loop_base(connection->transport->loop);
	uint32_t ms = connection->transport->first_request_ms;
	struct timeval wait = {ms / 1000, (suseconds_t)(ms % 1000) * 1000};

	connection->readable =
		event_new(base, connection->fd, EV_READ | EV_PERSIST, on_readable, connection);
	connection->writable = event_new(base, connection->fd, EV_WRITE, on_writable, connection);
	connection->silence = evtimer_new(base, on_silence, connection);
	return connection->readable && connection->writable && connection->silence &&
	       !event_add(connection->silence, &wait) && !event_add(connection->readable, NULL);
}

static struct event *event_drop(struct event *event)
{
	if (event)
		event_free(event);
	return NULL;
}

static void connection_unwatch(struct native_connection *connection)
{
	connection->readable = event_drop(connection->readable);
	connection->writable = event_drop(connection->writable);
	connection->silence = event_drop(connection->silence);
}

/* peer NULL: not known yet. */
static struct native_connection *connection_alloc(struct native_transport *transport,
						  int consume_fd, const struct peer *peer,
						  struct rpc_account *account)
{
	struct native_connection *connection = calloc(1, sizeof(*connection));

	if (!connection) {
		fd_close(consume_fd);
		return NULL;
	}
	connection->refs = 1;
	connection->transport = transport;
	connection->dispatcher = transport->dispatcher;
	connection->task.run = connection_wait_for_room;
	connection->fd = consume_fd;
	connection->account = account;
	connection->peer.pidfd = -1;
	if (peer) {
		connection->peer = *peer;
		connection->peer.pidfd = fd_duplicate(peer->pidfd);
	}
	pthread_mutex_init(&connection->lock, NULL);
	native_outbox_init(&connection->outbox, account);
	if ((peer && connection->peer.pidfd < 0) || !connection_watch(connection)) {
		connection_unwatch(connection);
		fd_close(connection->fd);
		connection_unref(connection);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&transport->connections, connection, place);
	return connection;
}

struct native_connection *native_connection_new(struct native_transport *transport, int consume_fd,
						const struct peer *peer,
						struct rpc_account *account)
{
	return connection_alloc(transport, consume_fd, peer, account);
}

struct native_connection *native_connection_new_delegated(struct native_transport *transport,
							  int consume_fd, const struct peer *peer,
							  struct rpc_account *account,
							  struct delegate *delegate)
{
	struct native_connection *connection =
		connection_alloc(transport, consume_fd, peer, account);

	if (!connection)
		return NULL;
	connection->delegate = delegate_ref(delegate);
	connection->asks_sender = !peer;
	if (!peer)
		event_del(connection->silence);
	return connection;
}

static void connection_cancel_calls(struct native_connection *connection)
{
	for (size_t i = 0; i < connection->n_calls; i++) {
		bool in_flight;

		pthread_mutex_lock(&connection->lock);
		in_flight = connection->calls[i]->in_flight;
		pthread_mutex_unlock(&connection->lock);
		if (in_flight)
			dispatch_cancelled(&connection->calls[i]->rpc);
	}
}

void native_connection_close(struct native_connection *connection, const char *why)
{
	int fd;

	connection_unwatch(connection);
	pthread_mutex_lock(&connection->lock);
	fd = connection->fd;
	connection->fd = -1;
	if (!why)
		why = connection->broken;
	native_outbox_clear(&connection->outbox);
	pthread_mutex_unlock(&connection->lock);
	fd_close(fd);
	if (why)
		connection_dropped(connection->dispatcher, &connection->peer, why);
	if (connection->session)
		rpc_session_end(connection->session, "its native connection ended", NULL, NULL);
	else if (connection->delegate)
		delegate_left(connection->delegate);
	connection_cancel_calls(connection);
	connection->session = rpc_session_unref(connection->session);
	TAILQ_REMOVE(&connection->transport->connections, connection, place);
	connection_refund(connection->account);
	connection_unref(connection);
}
