/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A session's life. The index holds one reference while the session has not ended; every call,
 * native connection and queued task holds another.
 *
 * What belongs to the loop (the watch on the process, the timer of waiting descriptors) is touched
 * on the loop's thread only: rpc_session_sync() brings it in line with what was decided elsewhere.
 */

#include "rpc/rpc_session.h"

#include <stdlib.h>
#include <string.h>

#include "rpc/descriptor.h"
#include "rpc/descriptor_drop.h"
#include "rpc/dispatcher.h"
#include "rpc/peer_identity.h"
#include "util/clock.h"
#include "util/random.h"

/* About as long as a restart takes. */
#define STOPPING_RETRY_MS 1000

struct rpc_session {
	_Atomic uint32_t refs;
	struct dispatcher *dispatcher;
	struct session *session;
	struct tenant *tenant; /* reference: who is charged for descriptors that wait */
	uint64_t id;
	RB_ENTRY(rpc_session) node; /* guarded by the dispatcher's lock, like indexed */
	bool indexed;
	struct peer peer; /* for logs; its pidfd is the broker session's */
	struct request_table requests;

	pthread_mutex_t lock; /* guards what follows */
	bool ended, has_connection;
	struct descriptor_set descriptors;
	void (*on_end)(void *context); /* once */
	void *on_end_context;

	struct task sync;             /* the loop's, like what follows */
	struct event *death, *expiry; /* NULL: not watched */
};

static int session_compare(const struct rpc_session *a, const struct rpc_session *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}

RB_GENERATE_INTERNAL(session_index, rpc_session, node, session_compare,
		     __attribute__((unused)) static)

int refuse_unauthenticated(struct refusal *refusal)
{
	return refuse(refusal, REFUSAL_UNAUTHENTICATED, "NO_SESSION",
		      "no session, or not a session of this process: call OpenSession first");
}

struct rpc_session *rpc_session_ref(struct rpc_session *session)
{
	atomic_fetch_add(&session->refs, 1);
	return session;
}

struct rpc_session *rpc_session_unref(struct rpc_session *session)
{
	if (!session || atomic_fetch_sub(&session->refs, 1) != 1)
		return NULL;
	request_table_deinit(&session->requests);
	session_unref(session->session);
	broker_tenant_unref(session->dispatcher->broker, session->tenant);
	pthread_mutex_destroy(&session->lock);
	free(session);
	return NULL;
}

struct session *rpc_session_broker(struct rpc_session *session)
{
	return session->session;
}

struct request_table *rpc_session_requests(struct rpc_session *session)
{
	return &session->requests;
}

bool rpc_session_ended(struct rpc_session *session)
{
	bool ended;

	pthread_mutex_lock(&session->lock);
	ended = session->ended;
	pthread_mutex_unlock(&session->lock);
	return ended;
}

/* ── on the loop ──────────────────────────────────────────────────────────────────────────── */

static void session_sync_later(struct rpc_session *session)
{
	/* The reference is dropped when the task has run, or here if it was queued already. */
	rpc_session_ref(session);
	if (!dispatcher_defer(session->dispatcher, &session->sync))
		rpc_session_unref(session);
}

static void on_death(evutil_socket_t fd, short what, void *context)
{
	(void)fd;
	(void)what;
	rpc_session_end(context, "its process ended", NULL, NULL);
}

static void expiry_arm(struct rpc_session *session, uint64_t deadline_ns)
{
	uint64_t now_ns = clock_monotonic_ns();
	uint64_t wait_us = deadline_ns > now_ns ? (deadline_ns - now_ns) / 1000 + 1000 : 1000;
	struct timeval wait = {(time_t)(wait_us / 1000000), (suseconds_t)(wait_us % 1000000)};

	if (deadline_ns != UINT64_MAX)
		event_add(session->expiry, &wait);
}

static void descriptor_refund(struct rpc_session *session)
{
	broker_refund(session->dispatcher->broker, session->tenant, LEDGER_DESCRIPTORS, 1);
}

/* One whose time is over, or -1. */
static int descriptor_expire(struct rpc_session *session, uint64_t now_ns)
{
	int fd;

	pthread_mutex_lock(&session->lock);
	fd = descriptor_set_expire(&session->descriptors, now_ns);
	pthread_mutex_unlock(&session->lock);
	if (fd >= 0)
		descriptor_refund(session);
	return fd;
}

/* Whose it is: a delegate's becomes somebody's when it is claimed. */
static struct peer peer_of(struct rpc_session *session)
{
	struct peer peer;

	pthread_mutex_lock(&session->lock);
	peer = session->peer;
	pthread_mutex_unlock(&session->lock);
	return peer;
}

static void on_expiry(evutil_socket_t timer, short what, void *context)
{
	struct rpc_session *session = context;
	uint64_t deadline_ns;
	int fd;

	(void)timer;
	(void)what;
	do {
		fd = descriptor_expire(session, clock_monotonic_ns());
		descriptors_drop(session->dispatcher, session, peer_of(session).uid, &fd, 1);
	} while (fd >= 0);
	pthread_mutex_lock(&session->lock);
	deadline_ns = descriptor_set_deadline(&session->descriptors);
	pthread_mutex_unlock(&session->lock);
	expiry_arm(session, deadline_ns);
}

/* The watch holds a reference. */
static void watch_stop(struct rpc_session *session)
{
	if (session->death)
		event_free(session->death);
	if (session->expiry)
		event_free(session->expiry);
	session->death = session->expiry = NULL;
	rpc_session_unref(session);
}

/* false: the loop cannot watch it; a session whose end nobody would see must not be. */
static bool watch_start(struct rpc_session *session)
{
	struct event_base *base = loop_base(session->dispatcher->loop);

	rpc_session_ref(session);
	session->expiry = evtimer_new(base, on_expiry, session);
	if (session->expiry)
		return true;
	watch_stop(session);
	return false;
}

/* Nobody's process yet: what ends a delegation that is not used is its socket. */
static bool watch_death(struct rpc_session *session)
{
	int pidfd = session_pidfd(session->session);

	if (session->death || pidfd < 0)
		return true;
	session->death =
		event_new(loop_base(session->dispatcher->loop), pidfd, EV_READ, on_death, session);
	return session->death && !event_add(session->death, NULL);
}

static void tell_end(struct rpc_session *session)
{
	void (*on_end)(void *context);

	pthread_mutex_lock(&session->lock);
	on_end = session->on_end;
	session->on_end = NULL;
	pthread_mutex_unlock(&session->lock);
	if (on_end)
		on_end(session->on_end_context);
}

static void rpc_session_sync(struct task *task)
{
	struct rpc_session *session =
		(struct rpc_session *)((char *)task - offsetof(struct rpc_session, sync));
	uint64_t deadline_ns;
	bool ended;

	pthread_mutex_lock(&session->lock);
	ended = session->ended;
	deadline_ns = descriptor_set_deadline(&session->descriptors);
	pthread_mutex_unlock(&session->lock);
	if (ended && session->expiry)
		watch_stop(session);
	else if (!ended && ((!session->expiry && !watch_start(session)) || !watch_death(session)))
		rpc_session_end(session, "its process cannot be watched", NULL, NULL);
	if (ended)
		tell_end(session);
	if (session->expiry && !evtimer_pending(session->expiry, NULL))
		expiry_arm(session, deadline_ns);
	rpc_session_unref(session);
}

/* ── opening, finding, ending ─────────────────────────────────────────────────────────────── */

static void log_session(struct rpc_session *session, enum log_message message, const char *name,
			const char *what)
{
	const struct peer peer = peer_of(session);
	struct log_entry entry;
	uint32_t suppressed;

	if (!rpc_session_may_log(session, &suppressed))
		return;
	log_begin(&entry, LOG_LEVEL_INFO);
	entry.message = message;
	entry.suppressed = suppressed;
	log_field(&entry, "IOMMUBROKER_SESSION", "%llu", (unsigned long long)session->id);
	log_field(&entry, "IOMMUBROKER_TENANT", "%s", session_tenant(session->session));
	log_field(&entry, "IOMMUBROKER_PEER_PID", "%d", (int)peer.pid);
	log_field(&entry, "IOMMUBROKER_PEER_UID", "%u", (unsigned int)peer.uid);
	log_end(&entry, "session %llu %s: pid %d, uid %u, tenant %s%s%s",
		(unsigned long long)session->id, what, (int)peer.pid, (unsigned int)peer.uid,
		session_tenant(session->session), name && name[0] ? ", name " : "",
		name ? name : "");
}

static struct rpc_session *session_alloc(struct dispatcher *dispatcher, const struct peer *peer)
{
	struct rpc_session *session = calloc(1, sizeof(*session));

	if (!session)
		return NULL;
	session->refs = 1;
	session->dispatcher = dispatcher;
	session->peer = *peer;
	session->peer.pidfd = -1;
	session->sync.run = rpc_session_sync;
	request_table_init(&session->requests);
	pthread_mutex_init(&session->lock, NULL);
	return session;
}

/* false: too late. */
static bool session_index_add(struct rpc_session *session)
{
	struct dispatcher *dispatcher = session->dispatcher;

	pthread_mutex_lock(&dispatcher->lock);
	session->indexed = !dispatcher->stopping;
	if (session->indexed)
		RB_INSERT(session_index, &dispatcher->sessions, rpc_session_ref(session));
	pthread_mutex_unlock(&dispatcher->lock);
	return session->indexed;
}

/* Into the index, and watched. */
static int session_begin(struct rpc_session *session, const char *name, const char *what,
			 struct refusal *refusal)
{
	session->id = session_id(session->session);
	if (!session_index_add(session)) {
		rpc_session_end(session, "the daemon stops", NULL, NULL);
		refuse(refusal, REFUSAL_BUSY, "STOPPING", "the daemon stops");
		refusal->retry_after_ms = STOPPING_RETRY_MS;
		return REFUSED;
	}
	session_sync_later(session);
	log_session(session, LOG_MESSAGE_SESSION_OPENED, name, what);
	return 0;
}

int rpc_session_open(struct rpc_session **ret, struct dispatcher *dispatcher,
		     const struct peer *peer, const char *name,
		     uint8_t ret_secret[BROKER_SECRET_BYTES], struct refusal *refusal)
{
	struct rpc_session *session = session_alloc(dispatcher, peer);
	struct tenant_identity identity;
	struct peer known = *peer;
	int status;

	if (!session)
		return refuse_errno(refusal, ENOMEM, "opening a session");
	if (peer_identity_read(peer, &identity))
		known.identity = &identity;
	status = broker_tenant_find(&session->tenant, dispatcher->broker, &known, refusal);
	if (!status)
		status = session_new(&session->session, dispatcher->broker, &known, name,
				     ret_secret, refusal);
	if (status) {
		rpc_session_unref(session);
		return status;
	}
	status = session_begin(session, name, "opened", refusal);
	if (status) {
		rpc_session_unref(session);
		return status;
	}
	*ret = session;
	return 0;
}

int rpc_session_adopt(struct rpc_session **ret, struct dispatcher *dispatcher,
		      struct session *consume_session, const struct peer *peer, const char *what,
		      struct refusal *refusal)
{
	struct rpc_session *session = session_alloc(dispatcher, peer);
	int status;

	if (!session) {
		session_close(consume_session, NULL, NULL);
		session_unref(consume_session);
		return refuse_errno(refusal, ENOMEM, "delegation");
	}
	session->session = consume_session;
	session->tenant = broker_tenant_of(dispatcher->broker, consume_session);
	status = session_begin(session, "", what, refusal);
	if (status)
		rpc_session_unref(session);
	else
		*ret = session;
	return status;
}

void rpc_session_on_end(struct rpc_session *session, void (*ended)(void *context), void *context)
{
	pthread_mutex_lock(&session->lock);
	session->on_end_context = context;
	session->on_end = ended;
	pthread_mutex_unlock(&session->lock);
	session_sync_later(session); /* it can have ended before */
}

int rpc_session_bind(struct rpc_session *session, const struct peer *peer, struct refusal *refusal)
{
	int status = delegation_bind(session->session, peer, refusal);

	if (status)
		return status;
	pthread_mutex_lock(&session->lock);
	session->peer.pid = peer->pid;
	session->peer.uid = peer->uid;
	session->peer.gid = peer->gid;
	pthread_mutex_unlock(&session->lock);
	session_sync_later(session);
	log_session(session, LOG_MESSAGE_SESSION_OPENED, NULL, "claimed");
	return 0;
}

struct rpc_session *rpc_session_of(struct dispatcher *dispatcher, struct session *session)
{
	struct rpc_session key, *found;

	key.id = session_id(session);
	pthread_mutex_lock(&dispatcher->lock);
	found = RB_FIND(session_index, &dispatcher->sessions, &key);
	if (found)
		rpc_session_ref(found);
	pthread_mutex_unlock(&dispatcher->lock);
	return found;
}

int rpc_session_find(struct rpc_session **ret, struct dispatcher *dispatcher,
		     const struct peer *peer, const uint8_t *secret, size_t secret_bytes,
		     struct refusal *refusal)
{
	struct rpc_session *found;
	struct session *session;
	int status;

	status = session_find(&session, dispatcher->broker, peer, secret, secret_bytes, refusal);
	if (status)
		return status;
	found = rpc_session_of(dispatcher, session);
	session_unref(session);
	if (!found)
		return refuse_unauthenticated(refusal);
	if (peer_of(found).pid != peer->pid && rpc_session_bind(found, peer, refusal)) {
		rpc_session_unref(found);
		return REFUSED;
	}
	*ret = found;
	return 0;
}

int rpc_session_claim(struct rpc_session *session, struct refusal *refusal)
{
	int status = 0;

	pthread_mutex_lock(&session->lock);
	if (session->ended)
		status = refuse_unauthenticated(refusal);
	else if (session->has_connection)
		status = refuse(refusal, REFUSAL_PRECONDITION, "SESSION_HAS_CONNECTION",
				"this session has a native connection already");
	else
		session->has_connection = true;
	pthread_mutex_unlock(&session->lock);
	return status;
}

void rpc_session_unclaim(struct rpc_session *session)
{
	pthread_mutex_lock(&session->lock);
	session->has_connection = false;
	pthread_mutex_unlock(&session->lock);
}

/* Out of the index, so that no gRPC call finds it any more. */
static void session_unindex(struct rpc_session *session)
{
	struct dispatcher *dispatcher = session->dispatcher;
	bool indexed;

	pthread_mutex_lock(&dispatcher->lock);
	indexed = session->indexed;
	if (indexed)
		RB_REMOVE(session_index, &dispatcher->sessions, session);
	session->indexed = false;
	pthread_mutex_unlock(&dispatcher->lock);
	if (indexed)
		rpc_session_unref(session);
}

static void descriptors_close(struct rpc_session *session)
{
	int fd;

	do {
		fd = descriptor_expire(session, UINT64_MAX);
		descriptors_drop(session->dispatcher, session, peer_of(session).uid, &fd, 1);
	} while (fd >= 0);
}

void rpc_session_end(struct rpc_session *session, const char *why, void (*done)(void *context),
		     void *context)
{
	bool first;

	rpc_session_ref(session);
	pthread_mutex_lock(&session->lock);
	first = !session->ended;
	session->ended = true;
	pthread_mutex_unlock(&session->lock);
	if (first) {
		char what[96];

		snprintf(what, sizeof(what), "closed because %s", why);
		log_session(session, LOG_MESSAGE_SESSION_CLOSED, NULL, what);
		session_unindex(session);
		request_table_cancel_all(&session->requests);
		descriptors_close(session);
		session_sync_later(session);
	}
	session_close(session->session, done, context);
	rpc_session_unref(session);
}

void rpc_session_end_all(struct dispatcher *dispatcher)
{
	for (;;) {
		struct rpc_session *session;

		pthread_mutex_lock(&dispatcher->lock);
		dispatcher->stopping = true;
		session = RB_MIN(session_index, &dispatcher->sessions);
		if (session)
			rpc_session_ref(session);
		pthread_mutex_unlock(&dispatcher->lock);
		if (!session)
			return;
		rpc_session_end(session, "the daemon stops", NULL, NULL);
		rpc_session_unref(session);
	}
}

/* ── descriptors that wait ────────────────────────────────────────────────────────────────── */

static int reserve_up_to(struct rpc_session *session, size_t max, struct refusal *refusal)
{
	int status = broker_charge(session->dispatcher->broker, session->tenant, LEDGER_DESCRIPTORS,
				   1, refusal);

	if (status)
		return status;
	pthread_mutex_lock(&session->lock);
	status = descriptor_set_reserve(&session->descriptors, max, refusal);
	pthread_mutex_unlock(&session->lock);
	if (status)
		descriptor_refund(session);
	return status;
}

int rpc_session_reserve_descriptor(struct rpc_session *session, struct refusal *refusal)
{
	return reserve_up_to(
		session, dispatcher_settings(session->dispatcher).descriptors_waiting_max, refusal);
}

int rpc_session_reserve_place(struct rpc_session *session, struct refusal *refusal)
{
	return reserve_up_to(session, DESCRIPTORS_WAITING_CAP, refusal);
}

void rpc_session_unreserve_descriptor(struct rpc_session *session)
{
	pthread_mutex_lock(&session->lock);
	descriptor_set_unreserve(&session->descriptors);
	pthread_mutex_unlock(&session->lock);
	descriptor_refund(session);
}

int rpc_session_put_descriptor(struct rpc_session *session, int consume_fd, bool ours,
			       uint64_t *ret_token)
{
	uint64_t wait_ns =
		(uint64_t)dispatcher_settings(session->dispatcher).descriptor_wait_ms * 1000000;
	uint64_t token;
	int status = random_handle(&token);
	bool ended;

	pthread_mutex_lock(&session->lock);
	ended = session->ended || status;
	if (ended)
		descriptor_set_unreserve(&session->descriptors);
	else
		descriptor_set_put(&session->descriptors, token, consume_fd, ours,
				   clock_monotonic_ns() + wait_ns);
	pthread_mutex_unlock(&session->lock);
	if (ended) {
		descriptor_refund(session);
		descriptors_drop(session->dispatcher, session, peer_of(session).uid, &consume_fd,
				 1);
	} else {
		session_sync_later(session);
	}
	if (!status)
		*ret_token = token;
	return status;
}

int rpc_session_take_descriptor(struct rpc_session *session, uint64_t token, bool ours)
{
	int fd;

	pthread_mutex_lock(&session->lock);
	fd = descriptor_set_take(&session->descriptors, token, ours);
	pthread_mutex_unlock(&session->lock);
	if (fd >= 0)
		descriptor_refund(session);
	return fd;
}

bool rpc_session_may_log(struct rpc_session *session, uint32_t *ret_suppressed)
{
	return dispatcher_may_log(session->dispatcher, session_tenant(session->session),
				  peer_of(session).uid, LOG_KIND_LIFE, ret_suppressed);
}
