/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sessions: made, found again by their secret, ended.
 *
 * A session that is closed accepts no call, and ends when the last of its guests is gone; then what
 * it charged is given back and everybody who closed it is told. Its memory stays until the last
 * reference goes, and by then nothing of the broker is touched any more.
 */
#include "broker/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/delegation.h"
#include "broker/handover.h"
#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/ring.h"
#include "broker/root.h"
#include "util/fd.h"
#include "util/process.h"
#include "util/random.h"

struct session *session_alloc(struct broker *broker, const char *name)
{
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		return NULL;
	atomic_init(&session->refs, 1);
	session->broker = broker;
	session->rights = ~0u;
	session->pidfd = -1;
	snprintf(session->name, sizeof(session->name), "%s", name ? name : "");
	return session;
}

void session_set_limits(struct session *session)
{
	struct ledger_limits limits;

	policy_limits(session->broker->policy, session->tenant ? session->tenant->rule : NULL,
		      LIMIT_SESSION, &limits);
	ledger_account_set_limits(&session->broker->ledger, &session->account, &limits);
	ledger_account_set_limits(&session->broker->ledger, &session->managed, &limits);
}

/* Where nothing was configured nobody could be marked: then it is who may do anything anyway. */
bool session_is_manager(const struct session *session)
{
	const struct tenant *tenant = session->tenant;

	if (!tenant || tenant->stranger)
		return false;
	if (tenant->rule)
		return tenant->rule->manager;
	return !session->broker->policy->settings.n_tenant_rules &&
	       (!session->uid || session->uid == geteuid());
}

int session_admit_to(struct session *session, struct tenant *tenant, struct refusal *refusal)
{
	struct broker *broker = session->broker;

	if (ledger_charge_one(&broker->ledger, &tenant->account, LEDGER_SESSIONS, 1, refusal))
		return REFUSED;
	session->tenant = tenant;
	session->share = pool_share_ref(tenant->share);
	memcpy(session->tenant_name, tenant->name, sizeof(session->tenant_name));
	ledger_account_init(&session->account, &tenant->account, LIMIT_SESSION,
			    session->tenant_name);
	ledger_account_init(&session->managed, NULL, LIMIT_SESSION, session->tenant_name);
	session_set_limits(session);
	session->id = ++broker->next_session_id;
	DL_APPEND(broker->sessions, session);
	broker->n_sessions++;
	return 0;
}

static int session_may_begin(struct broker *broker, struct refusal *refusal)
{
	if (broker_refuse_draining(broker, refusal))
		return REFUSED;
	if (broker->ending)
		return refuse(refusal, REFUSAL_PRECONDITION, "ENDING", "the daemon is ending");
	return 0;
}

/* With the broker's lock held; the tenant's reference is the session's, or given back. */
static int session_admit(struct session *session, struct tenant *consume_tenant,
			 struct refusal *refusal)
{
	int status = session_may_begin(session->broker, refusal);

	if (!status)
		status = session_admit_to(session, consume_tenant, refusal);
	if (status)
		tenant_put(session->broker, consume_tenant);
	return status;
}

int session_set_peer(struct session *session, const struct peer *peer, struct refusal *refusal)
{
	int pidfd = fd_duplicate(peer->pidfd);

	if (pidfd < 0)
		return refuse_errno(refusal, -pidfd, "pidfd of the peer");
	session->pid = peer->pid;
	session->uid = peer->uid;
	session->pidfd = pidfd;
	return 0;
}

int session_new(struct session **ret, struct broker *broker, const struct peer *peer,
		const char *name, uint8_t ret_secret[BROKER_SECRET_BYTES], struct refusal *refusal)
{
	struct session *session = session_alloc(broker, name);
	struct tenant *tenant;
	int status;

	if (!session)
		return refuse_errno(refusal, ENOMEM, "session");
	status = random_bytes(session->secret, sizeof(session->secret));
	if (status < 0)
		goto undo;
	status = session_set_peer(session, peer, refusal);
	if (status)
		goto undo;
	status = tenant_get(broker, peer, &tenant, refusal);
	if (status)
		goto undo;
	pthread_mutex_lock(&broker->lock);
	status = session_admit(session, tenant, refusal);
	/* One reference for the broker's list, one for the caller. */
	if (!status)
		session_ref(session);
	pthread_mutex_unlock(&broker->lock);
	if (status)
		goto undo;
	memcpy(ret_secret, session->secret, BROKER_SECRET_BYTES);
	*ret = session;
	return 0;
undo:
	session_unref(session);
	return status;
}

/* ── of a process before this one ──────────────────────────────────────────────────────────── */

/* The number can be another process' by now. */
static bool session_find_process(struct session *session, const struct record_session *record)
{
	uint64_t ticks;

	session->pid = record->pid;
	session->uid = record->uid;
	if (!record->pid)
		return true; /* nobody's yet */
	session->pidfd = (int)syscall(SYS_pidfd_open, record->pid, 0);
	if (session->pidfd < 0 || !process_start_ticks(record->pid, &ticks) ||
	    ticks != record->start_ticks || !process_lives(session->pidfd))
		return false;
	session->start_ticks = ticks;
	return true;
}

/* What ends it is session_close(), as of any other. */
static void session_take_over(struct session *session, struct tenant *consume_tenant)
{
	struct ledger_amounts amounts = {.amount[LEDGER_SESSIONS] = 1};
	struct broker *broker = session->broker;

	session->tenant = consume_tenant;
	session->share = pool_share_ref(consume_tenant->share);
	ledger_take_over(&broker->ledger, &consume_tenant->account, &amounts);
	session_ref(session);
	DL_APPEND(broker->sessions, session);
	broker->n_sessions++;
}

struct session *session_restore(struct broker *broker, const struct record_session *record,
				struct tenant *consume_tenant, bool *ret_lives)
{
	struct session *session = session_alloc(broker, record->name);
	bool lives;

	if (!session)
		return NULL;
	lives = session_find_process(session, record);
	session->id = record->id;
	session->rights = record->rights;
	memcpy(session->secret, record->secret, sizeof(session->secret));
	memcpy(session->tenant_name, record->tenant_name, sizeof(session->tenant_name));
	if (broker->next_session_id < record->id)
		broker->next_session_id = record->id;
	session->ended = session->closed = !consume_tenant;
	ledger_account_init(&session->account, consume_tenant ? &consume_tenant->account : NULL,
			    LIMIT_SESSION, session->tenant_name);
	ledger_account_init(&session->managed, NULL, LIMIT_SESSION, session->tenant_name);
	if (consume_tenant)
		session_take_over(session, consume_tenant);
	session_set_limits(session);
	handover_await_claim(session);
	if (ret_lives)
		*ret_lives = lives;
	return session;
}

bool secret_equal(const uint8_t *a, const uint8_t *b)
{
	unsigned int different = 0;

	for (size_t i = 0; i < BROKER_SECRET_BYTES; i++)
		different |= a[i] ^ b[i];
	return !different;
}

/* Two pidfds of one process: on pidfs (Linux 6.9) they share an inode. Older kernels give every
 * pidfd the same one, and then the pid decides, which cannot have been given to another process
 * while ours is open and shows the process as alive. */
bool session_same_process(const struct session *session, const struct peer *peer)
{
	struct stat ours, theirs;

	if (session->pid != peer->pid)
		return false;
	if (fstat(session->pidfd, &ours) || fstat(peer->pidfd, &theirs))
		return false;
	return ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino &&
	       process_lives(session->pidfd);
}

/* A delegation's that a process before this one had told its secret, and died before it had written
 * down whom: who knows it is who was told. */
static bool session_awaits_peer(const struct session *session)
{
	return session->delegation && session->pidfd < 0 && !session->closed;
}

int session_find(struct session **ret, struct broker *broker, const struct peer *peer,
		 const uint8_t *secret, size_t secret_bytes, struct refusal *refusal)
{
	struct session *session = NULL;

	if (secret_bytes == BROKER_SECRET_BYTES) {
		pthread_mutex_lock(&broker->lock);
		DL_FOREACH (broker->sessions, session)
			if (secret_equal(session->secret, secret))
				break;
		if (session && !session_awaits_peer(session) &&
		    (session->closed || session->uid != peer->uid ||
		     !session_same_process(session, peer)))
			session = NULL;
		if (session)
			session_ref(session);
		pthread_mutex_unlock(&broker->lock);
	}
	if (!session)
		return refuse(refusal, REFUSAL_UNAUTHENTICATED, "NO_SESSION",
			      "no session of this process has that secret");
	*ret = session;
	return 0;
}

struct session *session_ref(struct session *session)
{
	atomic_fetch_add_explicit(&session->refs, 1, memory_order_relaxed);
	return session;
}

struct session *session_unref(struct session *session)
{
	if (!session || atomic_fetch_sub_explicit(&session->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	delegation_free(session->delegation);
	pool_share_unref(session->share);
	fd_close(session->pidfd);
	explicit_bzero(session->secret, sizeof(session->secret));
	free(session);
	return NULL;
}

const char *session_tenant(struct session *session)
{
	return session->tenant_name;
}

struct pool_share *session_share(struct session *session)
{
	return session->share;
}

uint64_t session_id(struct session *session)
{
	return session->id;
}

int session_pidfd(struct session *session)
{
	return session->pidfd;
}

void session_peer(struct session *session, struct peer *ret)
{
	*ret = (struct peer){.pid = session->pid, .uid = session->uid, .pidfd = session->pidfd};
}

struct session *broker_next_session(struct broker *broker, uint64_t after)
{
	struct session *session, *next = NULL;

	pthread_mutex_lock(&broker->lock);
	DL_FOREACH (broker->sessions, session)
		if (!session->closed && session->id > after && (!next || session->id < next->id))
			next = session;
	if (next)
		session_ref(next);
	pthread_mutex_unlock(&broker->lock);
	return next;
}

unsigned int session_rights(struct session *session)
{
	return session->rights;
}

void session_secret(struct session *session, uint8_t ret[BROKER_SECRET_BYTES])
{
	memcpy(ret, session->secret, BROKER_SECRET_BYTES);
}

bool session_closed(struct session *session)
{
	bool closed;

	pthread_mutex_lock(&session->broker->lock);
	closed = session->closed;
	pthread_mutex_unlock(&session->broker->lock);
	return closed;
}

int session_enter(struct session *session, struct refusal *refusal)
{
	bool closed;

	pthread_mutex_lock(&session->broker->lock);
	closed = session->closed;
	if (!closed)
		session->users++;
	pthread_mutex_unlock(&session->broker->lock);
	return closed ? refuse(refusal, REFUSAL_CANCELLED, "SESSION_ENDED", "the session has ended")
		      : 0;
}

/* The end of a closed session without users; with the broker's lock held. */
static void session_end(struct session *session)
{
	struct broker *broker = session->broker;

	ledger_refund_one(&broker->ledger, &session->tenant->account, LEDGER_SESSIONS, 1);
	tenant_put(broker, session->tenant);
	session->tenant = NULL;
	session->ended = true;
	DL_DELETE(broker->sessions, session);
	broker->n_sessions--;
	broker->n_ending++;
}

/* Tell everybody who closed it. The broker may be freed once session_gone was signalled, so that
 * comes last. */
static void session_tell_end(struct broker *broker, const struct session_closer *closers, size_t n)
{
	for (size_t i = 0; i < n; i++)
		closers[i].done(closers[i].context);
	pthread_mutex_lock(&broker->lock);
	broker->n_ending--;
	pthread_cond_broadcast(&broker->session_gone);
	pthread_mutex_unlock(&broker->lock);
}

void session_leave(struct session *consume_session)
{
	struct session *session = consume_session;
	struct broker *broker = session->broker;
	struct session_closer closers[SESSION_CLOSERS];
	size_t n = 0;
	bool last;

	pthread_mutex_lock(&broker->lock);
	last = !--session->users && session->closed && !session->ended;
	if (last) {
		session_end(session);
		n = session->n_closers;
		memcpy(closers, session->closers, n * sizeof(closers[0]));
	}
	pthread_mutex_unlock(&broker->lock);
	/* Before it is told: then nothing of it is left but what its callers still hold. */
	if (last)
		session_unref(session); /* the list's */
	session_unref(session);
	if (last)
		session_tell_end(broker, closers, n);
}

/* Remember whom to tell. A session is closed by its client, by its connection, by the death of its
 * process and by the end of the daemon; should there ever be more callers than places, the last one
 * waits until it has ended. With the broker's lock held; false: it has ended. */
static bool session_add_closer(struct session *session, void (*done)(void *), void *context)
{
	while (!session->ended && session->n_closers == SESSION_CLOSERS)
		pthread_cond_wait(&session->broker->session_gone, &session->broker->lock);
	if (session->ended)
		return false;
	session->closers[session->n_closers++] = (struct session_closer){done, context};
	return true;
}

void session_close(struct session *session, void (*done)(void *context), void *context)
{
	struct broker *broker = session->broker;
	struct guest *guest, *next;
	bool told_later, first;

	session_ref(session);
	pthread_mutex_lock(&broker->lock);
	first = !session->closed;
	told_later = done && session_add_closer(session, done, context);
	if (first) {
		session->closed = true;
		session->users++; /* ours, so that it does not end below */
		delegation_leave(session);
		DL_FOREACH_SAFE2(session->guests, guest, next, session_next)
		guest_lose_home(guest);
	}
	pthread_mutex_unlock(&broker->lock);
	if (first) {
		rings_end(broker, session, NULL);
		delegation_tell_end(session);
	}
	if (!first)
		session_unref(session);
	else if (!delegation_write_end(session))
		session_leave(session);
	if (done && !told_later)
		done(context);
}
