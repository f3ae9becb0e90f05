/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See async.h. The lists are guarded by the connection's lock; sinks are called under it. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "iommubroker/v1/native.pb-c.h"
#include "lib/async.h"

/* One iommubroker_process() reads no more than this before it calls back. */
#define PROCESS_PACKETS_MAX 128

struct async_packet {
	struct async_packet *next;
	size_t n_bytes;
	uint8_t bytes[];
};

static void queue_ready(struct async *async)
{
	struct iommubroker_session *session = async->session;

	if (async->queued)
		return;
	if (session->ready == NULL)
		eventfd_write(session->connection.event_fd, 1);
	async->queued = true;
	async->next_ready = NULL;
	*session->ready_end = async;
	session->ready_end = &async->next_ready;
}

static void end(struct async *async, int result)
{
	if (async->ended)
		return;
	async->ended = true;
	async->result = result;
	queue_ready(async);
}

/* Memory and room may be short here: then the call ends, and says so. */
static int async_take(void *sink, const struct answer *answer, struct packet *packet)
{
	struct async *async = sink;
	struct async_packet *copy;

	if (async->ended)
		return 0;
	if (answer->more && async->n_packets >= ASYNC_PACKETS_MAX) {
		async->overflowed = true;
		end(async, -EOVERFLOW);
		return 0;
	}
	copy = malloc(sizeof(*copy) + packet->n_bytes);
	if (copy == NULL) {
		end(async, -ENOMEM);
		return 0;
	}
	copy->next = NULL;
	copy->n_bytes = packet->n_bytes;
	memcpy(copy->bytes, packet->bytes, packet->n_bytes);
	*async->packets_end = copy;
	async->packets_end = &copy->next;
	async->n_packets++;
	if (!answer->more)
		end(async, 0);
	queue_ready(async);
	return 0;
}

static void async_lost(void *sink, int result)
{
	end(sink, result);
}

/* From here on it may be lost, delivered and freed by other threads at any time. */
static void async_begun(void *sink, uint64_t number)
{
	struct async *async = sink;

	async->call = number;
	async->next = async->session->calls;
	async->session->calls = async;
}

static const struct call_ops async_ops = {
	.begun = async_begun,
	.take = async_take,
	.lost = async_lost,
};

struct async *async_new(struct iommubroker_session *session,
			bool (*deliver)(struct async *async, const struct answer *answer,
					int result),
			void *user_data)
{
	struct async *async = calloc(1, sizeof(*async));

	if (async == NULL)
		return NULL;
	async->session = session;
	async->packets_end = &async->packets;
	async->deliver = deliver;
	async->user_data = user_data;
	return async;
}

static struct async *async_free(struct async *async)
{
	struct async_packet *packet;

	if (async == NULL)
		return NULL;
	while ((packet = async->packets) != NULL) {
		async->packets = packet->next;
		free(packet);
	}
	free(async);
	return NULL;
}

/* Under the lock. */
static struct async **find_async(struct iommubroker_session *session, uint64_t number)
{
	struct async **at = &session->calls;

	while (*at != NULL && (*at)->call != number)
		at = &(*at)->next;
	return at;
}

/* The request could not be sent. If the connection was lost the callback says so, or has said so
 * already; otherwise it is as if it had never been. */
static int take_back(struct iommubroker_session *session, uint64_t number, int result)
{
	struct async *async = NULL;
	struct async **at;

	pthread_mutex_lock(&session->connection.lock);
	at = find_async(session, number);
	if (*at == NULL || (*at)->ended) {
		result = 0;
	} else {
		async = *at;
		*at = async->next;
	}
	pthread_mutex_unlock(&session->connection.lock);
	async_free(async);
	return result;
}

int async_submit(struct async *async, uint32_t method, uint8_t *packet, size_t n_bytes,
		 uint64_t *ret_call)
{
	struct iommubroker_session *session = async->session;
	struct call *call = NULL;
	uint64_t number;
	int r;

	r = call_begin(&session->connection, CALL_ASYNC, method, &async_ops, async, 0, &call);
	if (r < 0) {
		async_free(async);
		free(packet);
		return r == -ETIMEDOUT ? -EAGAIN : r;
	}
	number = call->number;
	r = call_send(&session->connection, call, packet, n_bytes, -1, 0);
	free(packet);
	if (r < 0)
		r = take_back(session, number, r);
	if (r == 0 && ret_call != NULL)
		*ret_call = number;
	return r;
}

void async_drop_all(struct iommubroker_session *session)
{
	struct async *async;

	while ((async = session->calls) != NULL) {
		session->calls = async->next;
		async_free(async);
	}
}

void async_report_progress(struct async *async, const ProtobufCMessage *message)
{
	uint64_t done, total;

	if (async->progress == NULL || async->cancelled ||
	    !exchange_progress(message, &done, &total))
		return;
	if (async->progress(async->user_data, done, total) != 0)
		async->cancelled = session_cancel(async->session, async->request_id) == 0;
}

/* Under the lock: the next call with something to deliver, out of the list; its packet if it has
 * one. */
static struct async *pop_ready(struct iommubroker_session *session,
			       struct async_packet **ret_packet)
{
	struct async *async = session->ready;

	if (async == NULL)
		return NULL;
	session->ready = async->next_ready;
	if (session->ready == NULL)
		session->ready_end = &session->ready;
	async->queued = false;
	*ret_packet = async->packets;
	if (async->packets != NULL) {
		async->packets = async->packets->next;
		if (async->packets == NULL)
			async->packets_end = &async->packets;
		async->n_packets--;
	}
	return async;
}

static bool deliver_packet(struct async *async, const struct async_packet *copy)
{
	struct packet packet = {.bytes = (uint8_t *)copy->bytes, .n_bytes = copy->n_bytes};
	struct answer answer;

	/* It was parsed when it came. */
	if (packet_parse(&packet, &answer) < 0)
		return async->deliver(async, NULL, -EBADMSG);
	return async->deliver(async, &answer, 0) || !answer.more;
}

static void forget(struct async *async)
{
	struct connection *c = &async->session->connection;

	/* An answer that still comes has to find nobody. */
	if (call_abandon(c, async->call) && async->overflowed)
		connection_send_raw(c, IOMMUBROKER__V1__METHOD__METHOD_CANCEL_CALL, async->call);
	pthread_mutex_lock(&c->lock);
	*find_async(async->session, async->call) = async->next;
	pthread_mutex_unlock(&c->lock);
	async_free(async);
}

/* Under the lock: a call that is over leaves the list, though a cancel came in between. */
static void unqueue(struct async *async)
{
	struct async **at = &async->session->ready;

	while (*at != async)
		at = &(*at)->next_ready;
	*at = async->next_ready;
	if (*at == NULL)
		async->session->ready_end = at;
	async->queued = false;
}

/* One callback. Only process() runs it, so the call lives until it forgets it. */
static void deliver_one(struct async *async, struct async_packet *packet)
{
	struct connection *c = &async->session->connection;
	bool last;

	last = packet != NULL ? deliver_packet(async, packet)
			      : async->deliver(async, NULL, async->result);
	free(packet);
	pthread_mutex_lock(&c->lock);
	if (!last && (async->packets != NULL || (async->ended && async->result < 0)))
		queue_ready(async);
	if (last && async->queued)
		unqueue(async);
	pthread_mutex_unlock(&c->lock);
	if (last)
		forget(async);
}

int iommubroker_process(struct iommubroker_session *session)
{
	struct connection *c = &session->connection;
	struct async_packet *packet = NULL;
	struct async *async;
	eventfd_t count;
	int n = 0;
	int lost = 0;

	pthread_mutex_lock(&c->lock);
	if (session->processing) {
		pthread_mutex_unlock(&c->lock);
		return -EBUSY;
	}
	session->processing = true;
	pthread_mutex_unlock(&c->lock);
	connection_drain(c, PROCESS_PACKETS_MAX);
	pthread_mutex_lock(&c->lock);
	while (n < PROCESS_PACKETS_MAX && (async = pop_ready(session, &packet)) != NULL) {
		pthread_mutex_unlock(&c->lock);
		deliver_one(async, packet);
		n++;
		pthread_mutex_lock(&c->lock);
	}
	if (session->ready == NULL) {
		lost = c->lost;
		eventfd_read(c->event_fd, &count);
	}
	session->processing = false;
	pthread_mutex_unlock(&c->lock);
	return n > 0 ? n : lost;
}

/* A mutation answers for itself once it is undone; all else ends here and now. */
int iommubroker_cancel(struct iommubroker_session *session, uint64_t number)
{
	struct connection *c = &session->connection;
	uint64_t request_id = 0;
	struct async *async;

	pthread_mutex_lock(&c->lock);
	async = *find_async(session, number);
	if (async != NULL && async->ended)
		async = NULL;
	if (async != NULL) {
		request_id = async->request_id;
		if (request_id == 0)
			end(async, -ECANCELED);
	}
	pthread_mutex_unlock(&c->lock);
	if (async == NULL)
		return -ENOENT;
	if (request_id != 0)
		return session_cancel(session, request_id);
	call_abandon(c, number);
	return connection_send_raw(c, IOMMUBROKER__V1__METHOD__METHOD_CANCEL_CALL, number);
}
