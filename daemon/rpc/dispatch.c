/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A call's way: counted, its session found, unpacked, checked, its request id looked up, run where
 * its method belongs, answered. See call.h for who owns it meanwhile.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/account.h"
#include "rpc/descriptor_drop.h"
#include "rpc/dispatcher.h"
#include "rpc/log_refusal.h"
#include "rpc/refresh.h"
#include "rpc/request_table.h"
#include "rpc/rpc_session.h"
#include "rpc/status.h"
#include "rpc/wire_check.h"
#include "util/clock.h"
#include "util/fd.h"
#include "util/trace.h"

#define SPARE_CALLS_MAX 32
/* What the answer's envelope takes of a native packet: header, tags, lengths, flag. */
#define NATIVE_ENVELOPE_BYTES 64
#define GRPC_ANSWER_BYTES_MAX (1024 * 1024)

/* ── a call's memory ──────────────────────────────────────────────────────────────────────── */

static bool is_refresh(const struct method *method)
{
	return method->place == PLACE_REFRESH;
}

/* Counts the call as in flight, also if there is no memory for it. */
static struct call *call_memory(struct dispatcher *dispatcher, const struct method *method)
{
	struct call *call = NULL;

	pthread_mutex_lock(&dispatcher->lock);
	dispatcher->in_flight++;
	if (is_refresh(method) && dispatcher->spare) {
		call = dispatcher->spare;
		dispatcher->spare = call->next_joiner;
		dispatcher->n_spare--;
	}
	pthread_mutex_unlock(&dispatcher->lock);
	if (call)
		return call;
	return is_refresh(method) ? refresh_call_new() : malloc(sizeof(*call));
}

/* The last thing a call does with the dispatcher: after this it may be gone. call may be NULL. */
static void call_memory_free(struct dispatcher *dispatcher, struct call *call, bool may_spare)
{
	struct call *unwanted = call;

	pthread_mutex_lock(&dispatcher->lock);
	if (may_spare && dispatcher->n_spare < SPARE_CALLS_MAX) {
		call->next_joiner = dispatcher->spare;
		dispatcher->spare = call;
		dispatcher->n_spare++;
		unwanted = NULL;
	}
	if (!--dispatcher->in_flight)
		pthread_cond_broadcast(&dispatcher->idle);
	pthread_mutex_unlock(&dispatcher->lock);
	free(unwanted);
}

static void call_init(struct call *call, struct dispatcher *dispatcher, const struct method *method,
		      struct rpc_call *rpc)
{
	memset(call, 0, offsetof(struct call, refusal));
	call->dispatcher = dispatcher;
	call->method = method;
	call->rpc = rpc;
	call->account = rpc_account_ref(rpc->account);
	call->uid = rpc->peer->uid;
	call->started_ns = clock_monotonic_ns();
	call->answer_fd = -1;
	call->refusal.kind = REFUSAL_NONE;
	call->n_fds = rpc->n_fds;
	memcpy(call->fds, rpc->fds, rpc->n_fds * sizeof(call->fds[0]));
	message_arena_init(&call->arena, CALL_ARENA_BYTES_MAX);
}

/* What waits, for the pool or for its time: a tenant's share of the pool may be busy for long, and
 * a small message can take its whole arena. */
static int call_charge_bytes(struct call *call)
{
	uint64_t n_bytes = sizeof(*call) + call->arena.used_bytes;
	int status = rpc_account_charge(call_broker(call), call->account, LEDGER_QUEUED_BYTES,
					n_bytes, &call->refusal);

	if (!status)
		call->queued_bytes = n_bytes;
	return status;
}

static void call_refund(struct call *call)
{
	if (call->queued_bytes)
		rpc_account_refund(call_broker(call), call->account, LEDGER_QUEUED_BYTES,
				   call->queued_bytes);
	if (call->charged)
		rpc_account_refund_call(call->account);
	call->queued_bytes = 0;
	call->charged = false;
}

static void call_free(struct call *call)
{
	descriptors_drop(call->dispatcher, call->session, call->uid, call->fds, call->n_fds);
	pool_lane_unref(call->lane);
	rpc_session_unref(call->session);
	message_arena_deinit(&call->arena);
	rpc_account_unref(call->account);
	call_memory_free(call->dispatcher, call, is_refresh(call->method));
}

struct broker *call_broker(const struct call *call)
{
	return call->dispatcher->broker;
}

struct session *call_session(const struct call *call)
{
	return call->session ? rpc_session_broker(call->session) : NULL;
}

struct operation *call_operation(const struct call *call)
{
	return &call->entry->operation;
}

void *call_array(struct call *call, size_t n, size_t bytes)
{
	return message_arena_array(&call->arena, n, bytes);
}

int call_refuse_memory(struct call *call)
{
	if (call->arena.out_of_memory)
		return refuse_errno(&call->refusal, ENOMEM, "serving the call");
	return refuse(&call->refusal, REFUSAL_HOST_RESOURCES, "MESSAGE_TOO_COMPLEX",
		      "message too complex: more than %u bytes when unpacked",
		      CALL_ARENA_BYTES_MAX);
}

int call_answer(struct call *call, const ProtobufCMessage *response)
{
	size_t n = protobuf_c_message_get_packed_size(response);
	size_t max = call->rpc->native ? RPC_MESSAGE_BYTES_MAX - NATIVE_ENVELOPE_BYTES
				       : GRPC_ANSWER_BYTES_MAX;
	uint8_t *bytes;

	if (n > max)
		return refuse(&call->refusal, REFUSAL_HOST_RESOURCES, "ANSWER_TOO_LARGE",
			      "the answer has %zu bytes, a message of this transport at most %zu",
			      n, max);
	bytes = message_arena_alloc(&call->arena, n);
	if (!bytes)
		return call_refuse_memory(call);
	call->answer_bytes = call->repeat_bytes = protobuf_c_message_pack(response, bytes);
	call->answer = bytes;
	return 0;
}

/* ── answering ────────────────────────────────────────────────────────────────────────────── */

static uint64_t session_number(const struct call *call)
{
	struct session *session = call_session(call);

	return session ? session_id(session) : 0;
}

/* Before it is answered, so that whoever has the answer finds it counted. */
static void call_count(const struct call *call, int code, size_t answer_bytes)
{
	struct metrics *metrics = call->dispatcher->metrics;
	uint64_t duration_ns = clock_monotonic_ns() - call->started_ns;

	TRACE(request__done, call->method->number, method_path(call->method), session_number(call),
	      call, code, duration_ns);
	metrics_call(metrics, call->method, code, duration_ns);
	metrics_add(&metrics->answer_bytes[call->rpc->native], answer_bytes);
}

/* The transport may free call->rpc as soon as it is told. What is charged is given back before:
 * whoever has the answer may make the next call at once. */
static void call_reply(struct call *call, const struct rpc_status *status, const uint8_t *bytes,
		       size_t n_bytes, int consume_fd)
{
	call_refund(call);
	call->rpc->ops->finish(call->rpc, status, bytes, n_bytes, &consume_fd, consume_fd >= 0);
}

static void call_refused(struct call *call, int status, struct rpc_status *ret)
{
	if (status < 0) {
		refuse(&call->refusal, REFUSAL_HOST, "DAEMON_BROKEN",
		       "the daemon met an error of its own and restarts");
		dispatcher_fail(call->dispatcher, status);
	}
	atomic_fetch_add_explicit(&call->dispatcher->refusals, 1, memory_order_relaxed);
	metrics_refusal(call->dispatcher->metrics, &call->refusal);
	log_refusal(call);
	rpc_status_from_refusal(ret, &call->refusal);
	call->answer = NULL;
	call->answer_bytes = call->repeat_bytes = 0;
	call->answer_fd = fd_close(call->answer_fd);
}

void call_finish(struct call *call, int status)
{
	struct call *joiner = NULL, *next;
	struct rpc_status rpc_status;

	rpc_status.code = RPC_OK;
	if (status)
		call_refused(call, status, &rpc_status);
	if (call->entry)
		joiner = request_table_finish(call->entry, &rpc_status, call->answer,
					      call->repeat_bytes);
	call_count(call, rpc_status.code, call->answer_bytes);
	call_reply(call, &rpc_status, call->answer, call->answer_bytes, call->answer_fd);
	for (; joiner; joiner = next) {
		next = joiner->next_joiner;
		call_count(joiner, rpc_status.code, call->repeat_bytes);
		call_reply(joiner, &rpc_status, call->answer, call->repeat_bytes, -1);
		call_free(joiner);
	}
	call_free(call);
}

/* ── before the handler ───────────────────────────────────────────────────────────────────── */

static int call_find_session(struct call *call)
{
	struct rpc_call *rpc = call->rpc;
	int status;

	if (rpc->session)
		call->session = rpc_session_ref(rpc->session);
	if (call->method->flags & METHOD_NO_SESSION)
		return 0;
	if (!rpc->native && rpc->secret) {
		status = rpc_session_find(&call->session, call->dispatcher, rpc->peer, rpc->secret,
					  rpc->secret_bytes, &call->refusal);
		rpc->secret_good = !status;
		return status;
	}
	if (!call->session || rpc_session_ended(call->session))
		return refuse_unauthenticated(&call->refusal);
	return 0;
}

/* Before the request is looked at: who may not ask learns nothing of what there is. */
static int call_check_right(struct call *call)
{
	static const char *const names[] = {
		[GUEST_RIGHT_MAP] = "MAP",       [GUEST_RIGHT_DEVICE] = "DEVICE",
		[GUEST_RIGHT_DOMAIN] = "DOMAIN", [GUEST_RIGHT_REFRESH] = "REFRESH",
		[GUEST_RIGHT_EVENTS] = "EVENTS", [GUEST_RIGHT_HOLD] = "HOLD",
	};
	enum guest_right right = call->method->right;

	if (call->method->flags & METHOD_NO_SESSION ||
	    session_rights(call_session(call)) & 1u << right)
		return 0;
	if (right < GUEST_RIGHT_MAP || right >= GUEST_RIGHTS_END)
		return refuse(&call->refusal, REFUSAL_DENIED, "NO_RIGHT",
			      "no delegation gives the right to call this method");
	return refuse(&call->refusal, REFUSAL_DENIED, "NO_RIGHT",
		      "this session was delegated a guest without the right %s", names[right]);
}

static int call_unpack(struct call *call)
{
	struct rpc_call *rpc = call->rpc;
	int status;

	if (rpc->request_bytes > RPC_MESSAGE_BYTES_MAX)
		return refuse_field(&call->refusal, "", "the message has %zu bytes, at most %u",
				    rpc->request_bytes, RPC_MESSAGE_BYTES_MAX);
	status =
		wire_check(call->method->request, rpc->request, rpc->request_bytes, &call->refusal);
	if (status)
		return status;
	call->request = protobuf_c_message_unpack(call->method->request, &call->arena.allocator,
						  rpc->request_bytes, rpc->request);
	if (call->request)
		return 0;
	if (call->arena.over_bound || call->arena.out_of_memory)
		return call_refuse_memory(call);
	return refuse_field(&call->refusal, "", "the message cannot be decoded");
}

static uint64_t field_at(const struct call *call, size_t offset)
{
	uint64_t value;

	memcpy(&value, (const uint8_t *)call->request + offset, sizeof(value));
	return value;
}

/* A call that is above a rate is to wait for its turn: for the last that it was given. */
static int call_pay(struct call *call, struct rate_request request)
{
	uint64_t due_ns;
	int status;

	request.gives_back = call->method->flags & METHOD_GIVES_BACK;
	status = rpc_account_pay(call->account, &request, &due_ns, &call->refusal);
	if (!status && due_ns > call->due_ns)
		call->due_ns = due_ns;
	return status;
}

static int call_pay_request(struct call *call)
{
	if (is_refresh(call->method))
		return 0;
	return call_pay(call, (struct rate_request){.kind = RATE_REQUESTS, .n = 1});
}

/* What is known once it was decoded: its guest, and how much of it there is. */
static int call_pay_content(struct call *call)
{
	const struct method *method = call->method;
	struct rate_request request = {.n = 1, .session = call_session(call)};
	int status = 0;

	if (method->handle_offset)
		request.handle = field_at(call, method->handle_offset);
	if (request.handle && !is_refresh(method)) {
		request.kind = RATE_REQUESTS;
		request.guest_only = true;
		status = call_pay(call, request);
	}
	if (status || !method->refreshes)
		return status;
	request.kind = RATE_REFRESHES;
	request.n = method->refreshes(call);
	request.guest_only = false;
	return call_pay(call, request);
}

static int call_begin(struct call *call)
{
	int status = rpc_account_charge_call(call->account, &call->refusal);

	if (status)
		return status;
	call->charged = true;
	if (!method_behind(call->method, call->rpc->door))
		return refuse_unimplemented(&call->refusal, "UNKNOWN_METHOD",
					    "this socket does not offer that method");
	status = call_pay_request(call);
	if (!status)
		status = call_find_session(call);
	if (!status)
		status = call_check_right(call);
	if (!status)
		status = call_unpack(call);
	if (!status && call->method->prepare)
		status = call->method->prepare(call);
	if (!status)
		status = call_pay_content(call);
	return status;
}

/* ── running ──────────────────────────────────────────────────────────────────────────────── */

void call_settles(struct call *call, uint64_t handle)
{
	call->settles = broker_guest_of(call_broker(call), call_session(call), handle);
}

/* What is promised outlives this process before it is promised. An answer that is repeated comes
 * from here, too, when the process is another one then; a refused request is simply done again. */
static void call_settle(struct call *call, int status)
{
	const struct request_entry *entry = call->entry;
	struct broker_answer answer = {
		.method = call->method->number,
		.bytes = call->answer,
		.n_bytes = call->repeat_bytes,
	};
	bool keep = !status && entry && entry->id && call->answer;

	if (!call->settles)
		return;
	if (keep) {
		answer.request_id = entry->id;
		memcpy(answer.digest, entry->digest, sizeof(answer.digest));
	}
	broker_settle(call->settles, call_session(call), keep ? &answer : NULL, call->lane != NULL);
	call->settles = NULL;
}

static void call_run(struct call *call)
{
	int status = call->method->handle(call);

	if (status == CALL_PENDING)
		return;
	call_settle(call, status);
	call_finish(call, status);
}

static bool call_run_job(struct pool_job *job)
{
	call_run((struct call *)((char *)job - offsetof(struct call, job)));
	return false;
}

/* A handle that nobody has gets no lane; the broker refuses it then. */
static void call_submit(struct call *call)
{
	struct session *session = call_session(call);

	if (call->method->lane) {
		call->lane = call->method->lane(call);
	} else if (call->method->place == PLACE_LANE && session) {
		uint64_t handle = field_at(call, call->method->handle_offset);

		call->lane = broker_lane(call_broker(call), session, handle);
		if (call->lane && call->method->flags & METHOD_MUTATION &&
		    !(call->method->flags & METHOD_REPEATABLE))
			call_settles(call, handle);
	}
	call->job.run = call_run_job;
	call->job.lane = call->lane;
	call->job.share = session ? session_share(session) : NULL;
	pool_submit(broker_pool(call_broker(call)), &call->job);
}

static bool call_wants_pool(const struct call *call)
{
	return call->method->place == PLACE_POOL || call->method->place == PLACE_LANE;
}

static void call_place(struct call *call)
{
	if (call_wants_pool(call))
		call_submit(call);
	else
		call_run(call);
}

static void call_repeat(struct call *call, struct request_answer *consume_answer)
{
	struct rpc_status status;
	const uint8_t *bytes;
	size_t n_bytes;

	request_answer_get(consume_answer, &status, &bytes, &n_bytes);
	call_count(call, status.code, n_bytes);
	call_reply(call, &status, bytes, n_bytes, -1);
	request_answer_unref(consume_answer);
	call_free(call);
}

static void call_mutate(struct call *call)
{
	uint64_t id = field_at(call, call->method->request_id_offset);
	uint8_t digest[REQUEST_DIGEST_BYTES];
	struct request_answer *answer;

	if (id)
		request_digest(call->request, digest);
	switch (request_table_begin(rpc_session_requests(call->session), call, id, digest,
				    &answer)) {
	case REQUEST_NEW:
		call_place(call);
		break;
	case REQUEST_JOINED:
		break; /* whoever runs it answers this call too, perhaps already */
	case REQUEST_ANSWERED:
		call_repeat(call, answer);
		break;
	case REQUEST_REFUSED:
		call_finish(call, REFUSED);
	}
}

static void call_go(struct call *call)
{
	if (call->method->flags & METHOD_MUTATION)
		call_mutate(call);
	else
		call_place(call);
}

void call_let_go(struct held *held)
{
	call_go((struct call *)((char *)held - offsetof(struct call, held)));
}

/* Where too many wait, those that only give back go on. */
static void call_hold(struct call *call)
{
	if (throttle_hold(&call->dispatcher->throttle, &call->held, call->due_ns))
		return;
	if (call->method->flags & METHOD_GIVES_BACK) {
		call_go(call);
		return;
	}
	refuse(&call->refusal, REFUSAL_BUSY, "TOO_MANY_DELAYED",
	       "too many calls wait because their tenants are above their rates");
	call->refusal.retry_after_ms = dispatcher_settings(call->dispatcher).rate_delay_ms;
	call_finish(call, REFUSED);
}

/* No memory even for the call itself. */
static void refuse_call(struct dispatcher *dispatcher, const struct method *method,
			struct rpc_call *rpc)
{
	struct rpc_status status;
	struct refusal refusal;

	descriptors_drop(dispatcher, rpc->session, rpc->peer->uid, rpc->fds, rpc->n_fds);
	refuse_errno(&refusal, ENOMEM, "serving the call");
	rpc_status_from_refusal(&status, &refusal);
	atomic_fetch_add_explicit(&dispatcher->refusals, 1, memory_order_relaxed);
	metrics_refusal(dispatcher->metrics, &refusal);
	metrics_call(dispatcher->metrics, method, status.code, 0);
	rpc->ops->finish(rpc, &status, NULL, 0, NULL, 0);
	call_memory_free(dispatcher, NULL, false);
}

void dispatch_call(struct dispatcher *dispatcher, const struct method *method, struct rpc_call *rpc)
{
	struct call *call = call_memory(dispatcher, method);
	int status;

	atomic_fetch_add_explicit(&dispatcher->calls, 1, memory_order_relaxed);
	metrics_add(&dispatcher->metrics->request_bytes[rpc->native], rpc->request_bytes);
	if (!call) {
		refuse_call(dispatcher, method, rpc);
		return;
	}
	call_init(call, dispatcher, method, rpc);
	status = call_begin(call);
	TRACE(request__start, method->number, method_path(method), session_number(call), call);
	if (!status && (call->due_ns || call_wants_pool(call)))
		status = call_charge_bytes(call);
	if (status)
		call_finish(call, status);
	else if (call->due_ns)
		call_hold(call);
	else
		call_go(call);
}
