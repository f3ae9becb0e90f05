/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See async.h. The lists are guarded by the connection's lock; sinks are called under it. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "iommubroker/v1/native.pb-c.h"
#include "lib/async.h"
#include "lib/reader.h"

/* One iommubroker_process() reads no more than this before it calls back. */
#define PROCESS_PACKETS_MAX 128

/* Fields of WatchEventsRequest and of Event. */
#define WATCH_GUEST    1
#define WATCH_SINCE    2
#define EVENT_SEQUENCE 1

struct async_packet {
	struct async_packet *next;
	uint32_t local; /* enum iommubroker_event_kind: no packet, but what the library tells */
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
static struct async_packet *add_packet(struct async *async, size_t n_bytes)
{
	struct async_packet *packet = malloc(sizeof(*packet) + n_bytes);

	if (packet == NULL) {
		end(async, -ENOMEM);
		return NULL;
	}
	packet->next = NULL;
	packet->local = 0;
	packet->n_bytes = n_bytes;
	*async->packets_end = packet;
	async->packets_end = &packet->next;
	async->n_packets++;
	queue_ready(async);
	return packet;
}

/* Where a watch goes on after a restart. */
static void note_sequence(struct async *async, const struct answer *answer)
{
	struct wire_reader reader = {answer->message, answer->n_message};
	struct wire_field field;

	while (wire_next(&reader, &field) > 0)
		if (field.number == EVENT_SEQUENCE && field.type == WIRE_VARINT)
			async->since = field.value;
}

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
	copy = add_packet(async, packet->n_bytes);
	if (copy == NULL)
		return 0;
	memcpy(copy->bytes, packet->bytes, packet->n_bytes);
	if (async->tell != NULL)
		note_sequence(async, answer);
	if (!answer->more)
		end(async, 0);
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

size_t async_put_watch(const struct async *async, uint8_t *packet)
{
	uint8_t *end = packet + PACKET_HEADER_BYTES;

	end = wire_put_tag(end, WATCH_GUEST, WIRE_FIXED64);
	end = wire_put_fixed64(end, async->guest);
	end = wire_put_tag(end, WATCH_SINCE, WIRE_VARINT);
	end = wire_put_varint(end, async->since);
	return end - packet;
}

static size_t watch_renew(void *sink, uint8_t *packet)
{
	return async_put_watch(sink, packet);
}

static const struct call_ops async_ops = {
	.begun = async_begun,
	.take = async_take,
	.lost = async_lost,
};

static const struct call_ops watch_ops = {
	.begun = async_begun,
	.take = async_take,
	.lost = async_lost,
	.renew = watch_renew,
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
	free(async->packet);
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
		 bool repeats, uint64_t *ret_call)
{
	struct iommubroker_session *session = async->session;
	const struct call_request request = {
		.method = method,
		.packet = packet,
		.n_bytes = n_bytes,
		.borrow_fd = -1,
		.repeats = repeats,
	};
	uint64_t number = 0;
	int r;

	async->packet = packet;
	r = call_submit(&session->connection, &request,
			async->tell != NULL ? &watch_ops : &async_ops, async, &number);
	if (r < 0 && number == 0)
		async_free(async);
	else if (r < 0)
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
		async->cancelled = call_cancel(&async->session->connection, async->call,
					       async->request_id) == 0;
}

/* ── what the library tells by itself ─────────────────────────────────────────────────────── */

static void add_local(struct async *async, uint32_t kind)
{
	struct async_packet *packet;

	if (async->ended || async->tell == NULL || async->n_packets >= ASYNC_PACKETS_MAX)
		return;
	packet = add_packet(async, 0);
	if (packet != NULL)
		packet->local = kind;
}

void async_link_changed(void *user_data)
{
	struct iommubroker_session *session = user_data;
	struct connection *c = &session->connection;
	uint32_t kind = c->down ? IOMMUBROKER_EVENT_RESTARTING : IOMMUBROKER_EVENT_RESUMED;

	for (struct async *async = session->calls; !c->lost && async != NULL; async = async->next)
		add_local(async, kind);
	session->state_changed = true;
	if (session->on_state != NULL)
		eventfd_write(c->event_fd, 1);
}

/* The one that process() tells of the state. True: it was told. */
static bool tell_state(struct iommubroker_session *session)
{
	struct connection *c = &session->connection;
	iommubroker_state_fn on_state;
	void *user_data;
	int state;

	pthread_mutex_lock(&c->lock);
	on_state = session->state_changed ? session->on_state : NULL;
	user_data = session->on_state_data;
	session->state_changed = false;
	state = c->lost ? c->lost : c->down ? -EAGAIN : 0;
	pthread_mutex_unlock(&c->lock);
	if (on_state == NULL)
		return false;
	on_state(user_data, state);
	return true;
}

/* ── delivering ───────────────────────────────────────────────────────────────────────────── */

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

	if (copy->local != 0) {
		async->tell(async, copy->local);
		return false;
	}
	/* It was parsed when it came. */
	if (packet_parse(&packet, &answer) < 0)
		return async->deliver(async, NULL, -EBADMSG);
	return async->deliver(async, &answer, 0) || !answer.more;
}

static void forget(struct async *async)
{
	struct connection *c = &async->session->connection;

	/* An answer that still comes has to find nobody. */
	call_abandon(c, async->call, async->overflowed);
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
	reader_drain(c, PROCESS_PACKETS_MAX);
	n += tell_state(session);
	pthread_mutex_lock(&c->lock);
	while (n < PROCESS_PACKETS_MAX && (async = pop_ready(session, &packet)) != NULL) {
		pthread_mutex_unlock(&c->lock);
		deliver_one(async, packet);
		n++;
		pthread_mutex_lock(&c->lock);
	}
	if (session->ready == NULL && !(session->state_changed && session->on_state != NULL)) {
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
		return call_cancel(c, number, request_id);
	call_abandon(c, number, true);
	return 0;
}
