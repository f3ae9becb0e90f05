/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake_dispatcher.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "grpc_fixture.h"

struct method {
	const char *path;
	bool streams;
	void (*run)(struct dispatcher *dispatcher, struct rpc_call *call);
};

/* What the dispatcher keeps for a call that does not end at once. */
struct held {
	struct dispatcher *dispatcher;
	struct rpc_call *call;
	struct held *next;
	bool stream;
	uint32_t next_message, n_messages, n_bytes; /* Stream */
};

struct dispatcher {
	const struct rpc_settings *settings;
	pthread_mutex_t lock;
	struct held *held;
	size_t bytes, bytes_max;
	_Atomic size_t calls, n_held, cancelled, refused_sends, connections;
	_Atomic bool door_closed;
};

static const struct rpc_status success;

static void finish_with(struct rpc_call *call, int code, const char *message)
{
	struct rpc_status status = {.code = code};

	strncpy(status.message, message, sizeof(status.message) - 1);
	call->ops->finish(call, &status, NULL, 0, NULL, 0);
}

/* ── what is held ─────────────────────────────────────────────────────────────────────────── */

static struct held *held_new(struct dispatcher *dispatcher, struct rpc_call *call)
{
	struct held *held = calloc(1, sizeof(*held));

	if (!held)
		abort();
	held->dispatcher = dispatcher;
	held->call = call;
	call->state = held;
	pthread_mutex_lock(&dispatcher->lock);
	held->next = dispatcher->held;
	dispatcher->held = held;
	dispatcher->n_held++;
	pthread_mutex_unlock(&dispatcher->lock);
	return held;
}

/* Whoever takes it off the list ends the call. */
static bool held_take(struct dispatcher *dispatcher, struct held *held)
{
	struct held **link;
	bool found = false;

	pthread_mutex_lock(&dispatcher->lock);
	for (link = &dispatcher->held; *link && !found; link = &(*link)->next)
		if (*link == held) {
			*link = held->next;
			dispatcher->n_held--;
			found = true;
			break;
		}
	pthread_mutex_unlock(&dispatcher->lock);
	return found;
}

/* held was taken off the list: it is ours. */
static void held_end(struct held *held, int code)
{
	struct rpc_call *call = held->call;

	if (code)
		finish_with(call, code, "cancelled");
	else
		call->ops->finish(call, &success, (const uint8_t *)"held", 4, NULL, 0);
	free(held);
}

static struct held *held_pop(struct dispatcher *dispatcher)
{
	struct held *held;

	pthread_mutex_lock(&dispatcher->lock);
	held = dispatcher->held;
	if (held) {
		dispatcher->held = held->next;
		dispatcher->n_held--;
	}
	pthread_mutex_unlock(&dispatcher->lock);
	return held;
}

void fake_release(struct dispatcher *dispatcher)
{
	struct held *held;

	while ((held = held_pop(dispatcher)))
		held_end(held, 0);
}

/* ── methods ──────────────────────────────────────────────────────────────────────────────── */

static void run_unary(struct dispatcher *dispatcher, struct rpc_call *call)
{
	(void)dispatcher;
	call->ops->finish(call, &success, call->request, call->request_bytes, NULL, 0);
}

struct later {
	struct rpc_call *call;
	size_t n_bytes;
	uint8_t bytes[];
};

static void *later_main(void *context)
{
	struct later *later = context;

	later->call->ops->finish(later->call, &success, later->bytes, later->n_bytes, NULL, 0);
	free(later);
	return NULL;
}

static void run_later(struct dispatcher *dispatcher, struct rpc_call *call)
{
	struct later *later = malloc(sizeof(*later) + call->request_bytes);
	pthread_t thread;

	(void)dispatcher;
	if (!later)
		abort();
	later->call = call;
	later->n_bytes = call->request_bytes;
	memcpy(later->bytes, call->request, call->request_bytes);
	if (pthread_create(&thread, NULL, later_main, later))
		abort();
	pthread_detach(thread);
}

static void run_who(struct dispatcher *dispatcher, struct rpc_call *call)
{
	uint32_t who[2] = {(uint32_t)call->peer->pid, call->peer->uid};
	uint8_t bytes[256];
	size_t n = call->secret_bytes < 128 ? call->secret_bytes : 128;

	(void)dispatcher;
	memcpy(bytes, who, sizeof(who));
	if (n)
		memcpy(bytes + sizeof(who), call->secret, n);
	call->ops->finish(call, &success, bytes, sizeof(who) + n, NULL, 0);
}

static void run_refuse(struct dispatcher *dispatcher, struct rpc_call *call)
{
	struct rpc_status status = {.code = call->request_bytes ? call->request[0] : 3};

	(void)dispatcher;
	strcpy(status.message, "refused as asked");
	status.details_bytes = call->request_bytes ? call->request_bytes - 1 : 0;
	memcpy(status.details, call->request + 1, status.details_bytes);
	call->ops->finish(call, &status, NULL, 0, NULL, 0);
}

static void run_hold(struct dispatcher *dispatcher, struct rpc_call *call)
{
	held_new(dispatcher, call);
}

static void run_watch(struct dispatcher *dispatcher, struct rpc_call *call)
{
	held_new(dispatcher, call)->stream = true;
}

static void stream_go_on(struct held *held)
{
	struct rpc_call *call = held->call;
	uint8_t *bytes = calloc(1, held->n_bytes);

	if (!bytes)
		abort();
	while (held->next_message < held->n_messages) {
		memcpy(bytes, &held->next_message, sizeof(held->next_message));
		if (!call->ops->send(call, bytes, held->n_bytes)) {
			held->dispatcher->refused_sends++;
			free(bytes);
			return;
		}
		held->next_message++;
	}
	free(bytes);
	if (held_take(held->dispatcher, held)) {
		call->ops->finish(call, &success, NULL, 0, NULL, 0);
		free(held);
	}
}

static void run_stream(struct dispatcher *dispatcher, struct rpc_call *call)
{
	uint32_t numbers[2] = {0, 4};
	struct held *held;

	if (call->request_bytes == sizeof(numbers))
		memcpy(numbers, call->request, sizeof(numbers));
	held = held_new(dispatcher, call);
	held->n_messages = numbers[0];
	held->n_bytes = numbers[1] < 4 ? 4 : numbers[1];
	held->stream = true;
	stream_go_on(held);
}

static const struct method methods[] = {
	{"/test.Echo/Unary", false, run_unary},
	{"/test.Echo/Later", false, run_later},
	{"/test.Echo/Who", false, run_who},
	{"/test.Echo/Refuse", false, run_refuse},
	{"/test.Echo/Hold", false, run_hold},
	{"/test.Echo/Stream", true, run_stream},
	{"/test.Echo/Watch", true, run_watch},
	{"/iommubroker.v1.Host/GetInfo", false, run_unary},
	{"/iommubroker.v1.Admin/GetStatus", false, run_unary},
};

/* ── rpc/dispatch.h ───────────────────────────────────────────────────────────────────────── */

const struct method *method_by_path(const char *path, size_t path_bytes, enum rpc_door door)
{
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		bool admin = strstr(methods[i].path, ".Admin/");

		if (admin && door != RPC_DOOR_ADMIN)
			continue;
		if (strlen(methods[i].path) == path_bytes &&
		    !memcmp(methods[i].path, path, path_bytes))
			return &methods[i];
	}
	return NULL;
}

bool method_streams(const struct method *method)
{
	return method->streams;
}

void dispatch_call(struct dispatcher *dispatcher, const struct method *method,
		   struct rpc_call *call)
{
	dispatcher->calls++;
	method->run(dispatcher, call);
}

void dispatch_cancelled(struct rpc_call *call)
{
	struct held *held = call->state;

	if (!held)
		return;
	held->dispatcher->cancelled++;
	if (held_take(held->dispatcher, held))
		held_end(held, 1);
}

void dispatch_writable(struct rpc_call *call)
{
	stream_go_on(call->state);
}

struct rpc_settings dispatcher_settings(struct dispatcher *dispatcher)
{
	return *dispatcher->settings;
}

bool peer_allowed(struct dispatcher *dispatcher, const struct peer *peer, enum rpc_door door)
{
	(void)peer;
	(void)door;
	return !dispatcher->door_closed;
}

/* An account is nothing but the dispatcher here. */
struct rpc_account *connection_charge(struct dispatcher *dispatcher, const struct peer *peer)
{
	(void)peer;
	if (dispatcher->connections >= FIXTURE_CONNECTIONS_MAX)
		return NULL;
	dispatcher->connections++;
	return (struct rpc_account *)dispatcher;
}

void connection_dropped(struct dispatcher *dispatcher, const struct peer *peer, const char *why)
{
	(void)dispatcher;
	(void)peer;
	(void)why;
}

bool connection_hold(struct rpc_account *account, uint64_t n_bytes)
{
	struct dispatcher *dispatcher = (struct dispatcher *)account;
	bool room;

	if (!dispatcher) /* an operator's */
		return true;
	pthread_mutex_lock(&dispatcher->lock);
	room = !dispatcher->bytes_max || dispatcher->bytes + n_bytes <= dispatcher->bytes_max;
	if (room)
		dispatcher->bytes += n_bytes;
	pthread_mutex_unlock(&dispatcher->lock);
	return room;
}

void connection_release(struct rpc_account *account, uint64_t n_bytes)
{
	struct dispatcher *dispatcher = (struct dispatcher *)account;

	if (!dispatcher)
		return;
	pthread_mutex_lock(&dispatcher->lock);
	if (dispatcher->bytes < n_bytes)
		abort();
	dispatcher->bytes -= n_bytes;
	pthread_mutex_unlock(&dispatcher->lock);
}

size_t fake_bytes(struct dispatcher *dispatcher)
{
	size_t n;

	pthread_mutex_lock(&dispatcher->lock);
	n = dispatcher->bytes;
	pthread_mutex_unlock(&dispatcher->lock);
	return n;
}

void fake_bytes_max(struct dispatcher *dispatcher, size_t max)
{
	pthread_mutex_lock(&dispatcher->lock);
	dispatcher->bytes_max = max;
	pthread_mutex_unlock(&dispatcher->lock);
}

void connection_refund(struct rpc_account *consume_account)
{
	((struct dispatcher *)consume_account)->connections--;
}

/* ── the test's side ──────────────────────────────────────────────────────────────────────── */

struct dispatcher *fake_dispatcher_new(const struct rpc_settings *settings)
{
	struct dispatcher *dispatcher = calloc(1, sizeof(*dispatcher));

	if (!dispatcher)
		abort();
	dispatcher->settings = settings;
	pthread_mutex_init(&dispatcher->lock, NULL);
	return dispatcher;
}

struct dispatcher *fake_dispatcher_free(struct dispatcher *dispatcher)
{
	pthread_mutex_destroy(&dispatcher->lock);
	free(dispatcher);
	return NULL;
}

size_t fake_calls(struct dispatcher *dispatcher)
{
	return dispatcher->calls;
}

size_t fake_held(struct dispatcher *dispatcher)
{
	return dispatcher->n_held;
}

size_t fake_cancelled(struct dispatcher *dispatcher)
{
	return dispatcher->cancelled;
}

size_t fake_refused_sends(struct dispatcher *dispatcher)
{
	return dispatcher->refused_sends;
}

size_t fake_connections(struct dispatcher *dispatcher)
{
	return dispatcher->connections;
}

void fake_close_door(struct dispatcher *dispatcher)
{
	dispatcher->door_closed = true;
}
