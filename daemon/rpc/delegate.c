/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/delegate.h"

#include <errno.h>
#include <stdlib.h>

#include "rpc/account.h"
#include "rpc/dispatcher.h"
#include "rpc/listener.h"
#include "rpc/native_connection.h"
#include "rpc/rpc_session.h"
#include "util/fd.h"
#include "util/log.h"

struct delegate {
	_Atomic uint32_t refs; /* of the transport's list, its session, its connections, its task */
	struct dispatcher *dispatcher;
	struct rpc_session *session; /* a reference until it is closed */
	struct tenant *tenant;       /* a reference */
	bool listens;
	struct task task;

	/* the loop's, once the task was queued */
	int fd; /* to be served; then -1 */
	struct listener *listener;
	bool listed, claimed;
	TAILQ_ENTRY(delegate) place;
};

struct delegate *delegate_ref(struct delegate *delegate)
{
	atomic_fetch_add(&delegate->refs, 1);
	return delegate;
}

struct delegate *delegate_unref(struct delegate *delegate)
{
	if (!delegate || atomic_fetch_sub(&delegate->refs, 1) != 1)
		return NULL;
	rpc_session_unref(delegate->session);
	broker_tenant_unref(dispatcher_broker(delegate->dispatcher), delegate->tenant);
	fd_close(delegate->fd);
	free(delegate);
	return NULL;
}

/* ── its end ───────────────────────────────────────────────────────────────────────────────── */

static void delegate_close(struct delegate *delegate)
{
	struct native_transport *transport = delegate->dispatcher->native;

	delegate->listener = listener_free(delegate->listener);
	if (!delegate->listed)
		return;
	delegate->listed = false;
	TAILQ_REMOVE(&transport->delegates, delegate, place);
	delegate_unref(delegate);
}

void delegates_close(struct delegates *delegates)
{
	while (!TAILQ_EMPTY(delegates))
		delegate_close(TAILQ_FIRST(delegates));
}

/* The session has ended: revoked, closed, its process dead. */
static void on_session_ended(void *context)
{
	struct delegate *delegate = context;

	if (delegate->dispatcher->native)
		delegate_close(delegate);
	delegate_unref(delegate);
}

void delegate_left(struct delegate *delegate)
{
	if (!delegate->listens && !delegate->claimed)
		rpc_session_end(delegate->session, "nobody has its socket", NULL, NULL);
}

/* ── its beginning ─────────────────────────────────────────────────────────────────────────── */

static bool delegate_connect(struct delegate *delegate, int consume_fd, const struct peer *peer)
{
	struct native_transport *transport = delegate->dispatcher->native;
	struct rpc_account *account = connection_charge_tenant(
		delegate->dispatcher, delegate->tenant, peer ? peer->uid : 0);

	if (!account) {
		fd_close(consume_fd);
		return false;
	}
	if (native_connection_new_delegated(transport, consume_fd, peer, account, delegate))
		return true;
	connection_refund(account);
	return false;
}

static void on_accept(void *context, int consume_fd, const struct peer *peer)
{
	struct delegate *delegate = context;

	if (!delegate_connect(delegate, consume_fd, peer))
		connection_dropped(delegate->dispatcher, peer,
				   "no room for it at a delegated socket");
}

static bool delegate_serve(struct delegate *delegate)
{
	int fd = delegate->fd;

	delegate->fd = -1;
	if (!delegate->listens)
		return delegate_connect(delegate, fd, NULL);
	return !listener_adopt(&delegate->listener, delegate->dispatcher->loop, fd, SOCK_SEQPACKET,
			       on_accept, delegate);
}

static void delegate_start(struct task *task)
{
	struct delegate *delegate =
		(struct delegate *)((char *)task - offsetof(struct delegate, task));
	struct native_transport *transport = delegate->dispatcher->native;

	/* Without it, or with its session ended meanwhile, there is nothing to serve. */
	if (transport && !rpc_session_ended(delegate->session)) {
		delegate_ref(delegate);
		TAILQ_INSERT_TAIL(&transport->delegates, delegate, place);
		delegate->listed = true;
		if (!delegate_serve(delegate))
			rpc_session_end(delegate->session, "its socket cannot be served", NULL,
					NULL);
	}
	delegate_unref(delegate);
}

int delegate_new(struct dispatcher *dispatcher, struct rpc_session *session,
		 struct tenant *consume_tenant, int consume_fd, bool listens,
		 struct refusal *refusal)
{
	struct delegate *delegate = calloc(1, sizeof(*delegate));

	if (!delegate) {
		fd_close(consume_fd);
		broker_tenant_unref(dispatcher_broker(dispatcher), consume_tenant);
		return refuse_errno(refusal, ENOMEM, "delegation");
	}
	delegate->refs = 1; /* the task's */
	delegate->dispatcher = dispatcher;
	delegate->session = rpc_session_ref(session);
	delegate->tenant = consume_tenant;
	delegate->listens = listens;
	delegate->fd = consume_fd;
	delegate->task.run = delegate_start;
	/* Before the session's end can be told, the task has run: both are the loop's, in order. */
	dispatcher_defer(dispatcher, &delegate->task);
	rpc_session_on_end(session, on_session_ended, delegate_ref(delegate));
	return 0;
}

void delegate_restore(struct dispatcher *dispatcher, struct rpc_session *session)
{
	int fd = delegation_listener(rpc_session_broker(session)), listens = 0;
	socklen_t length = sizeof(listens);
	struct tenant *tenant;
	struct refusal refusal;

	if (fd < 0)
		return;
	tenant = broker_tenant_of(dispatcher_broker(dispatcher), rpc_session_broker(session));
	if (!tenant || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) || !listens) {
		fd_close(fd);
		broker_tenant_unref(dispatcher_broker(dispatcher), tenant);
		return;
	}
	if (delegate_new(dispatcher, session, tenant, fd, true, &refusal))
		log_error("a delegation listens no more: %s", refusal.message);
}

/* ── whose it is ───────────────────────────────────────────────────────────────────────────── */

struct rpc_session *delegate_claim(struct delegate *delegate, const struct peer *peer,
				   struct refusal *refusal)
{
	if (rpc_session_ended(delegate->session) ||
	    delegation_is_claimed(rpc_session_broker(delegate->session))) {
		refuse_unauthenticated(refusal);
		return NULL;
	}
	if (rpc_session_claim(delegate->session, refusal))
		return NULL;
	if (rpc_session_bind(delegate->session, peer, refusal)) {
		rpc_session_unclaim(delegate->session);
		return NULL;
	}
	delegate->claimed = true;
	return delegate->session;
}

bool delegate_leads_to(const struct delegate *delegate, const struct rpc_session *session)
{
	return delegate->session == session;
}
