/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/account.h"

#include <pthread.h>
#include <stdlib.h>

#include "rpc/dispatcher.h"
#include "rpc/peer_identity.h"
#include "util/clock.h"

struct rpc_account {
	_Atomic uint32_t refs; /* of the connection, and of its calls */
	struct dispatcher *dispatcher;
	struct tenant *tenant; /* reference; NULL: no rule is for it */
	uid_t uid;
	_Atomic bool charged;      /* for its connection; else it is one of the refused */
	_Atomic uint64_t ready_ns; /* its calls wait until then, monotonic; 0: it was no rate's */
	pthread_mutex_t lock;      /* of what follows, and of becoming charged */
	bool ended;                /* the connection has */
	struct refusal why;        /* tenant NULL */
};

struct rpc_account *rpc_account_ref(struct rpc_account *account)
{
	if (account)
		atomic_fetch_add_explicit(&account->refs, 1, memory_order_relaxed);
	return account;
}

struct rpc_account *rpc_account_unref(struct rpc_account *account)
{
	if (!account || atomic_fetch_sub(&account->refs, 1) != 1)
		return NULL;
	broker_tenant_unref(account->dispatcher->broker, account->tenant);
	pthread_mutex_destroy(&account->lock);
	free(account);
	return NULL;
}

/* ── connections ──────────────────────────────────────────────────────────────────────────── */

static bool refused_charge(struct dispatcher *dispatcher, uid_t uid)
{
	bool charged;

	pthread_mutex_lock(&dispatcher->lock);
	charged = dispatcher->n_refused < ACCOUNT_REFUSED_MAX &&
		  user_count_charge(&dispatcher->refused, uid, 1, ACCOUNT_REFUSED_PER_USER_MAX);
	if (charged)
		dispatcher->n_refused++;
	pthread_mutex_unlock(&dispatcher->lock);
	return charged;
}

static void refused_refund(struct dispatcher *dispatcher, uid_t uid)
{
	pthread_mutex_lock(&dispatcher->lock);
	dispatcher->n_refused--;
	user_count_refund(&dispatcher->refused, uid, 1);
	pthread_mutex_unlock(&dispatcher->lock);
}

static void connections_count(struct dispatcher *dispatcher, int by)
{
	pthread_mutex_lock(&dispatcher->lock);
	dispatcher->connections += (uint32_t)by;
	pthread_mutex_unlock(&dispatcher->lock);
}

static int account_find_tenant(struct rpc_account *account, const struct peer *peer)
{
	struct tenant_identity identity;
	struct peer known = *peer;

	if (peer_identity_read(peer, &identity))
		known.identity = &identity;
	return broker_tenant_find(&account->tenant, account->dispatcher->broker, &known,
				  &account->why);
}

/* 0: *ret_due_ns is when it is its turn, 0 at once. */
static int account_take(struct rpc_account *account, const struct rate_request *asked,
			uint64_t *ret_due_ns, struct refusal *refusal)
{
	struct dispatcher *dispatcher = account->dispatcher;
	struct rate_request request = *asked;
	uint64_t wait_ns = 0;

	if (broker_rate_limited(dispatcher->broker, account->tenant, asked)) {
		request.now_ns = clock_monotonic_ns();
		request.delay_max_ns =
			dispatcher_settings(dispatcher).rate_delay_ms * UINT64_C(1000000);
		if (broker_rate_take(dispatcher->broker, account->tenant, &request, &wait_ns,
				     refusal))
			return REFUSED;
	}
	*ret_due_ns = wait_ns ? request.now_ns + wait_ns : 0;
	return 0;
}

static int account_charge_connection(struct rpc_account *account, struct refusal *refusal)
{
	static const struct rate_request one = {.kind = RATE_CONNECTIONS, .n = 1};
	struct broker *broker = account->dispatcher->broker;
	uint64_t ready_ns;

	if (broker_charge(broker, account->tenant, LEDGER_CONNECTIONS, 1, refusal))
		return REFUSED;
	if (account_take(account, &one, &ready_ns, refusal)) {
		broker_refund(broker, account->tenant, LEDGER_CONNECTIONS, 1);
		return REFUSED;
	}
	account->ready_ns = ready_ns;
	return 0;
}

static struct rpc_account *account_new(struct dispatcher *dispatcher, uid_t uid)
{
	struct rpc_account *account = calloc(1, sizeof(*account));

	if (!account)
		return NULL;
	account->refs = 1;
	account->dispatcher = dispatcher;
	account->uid = uid;
	pthread_mutex_init(&account->lock, NULL);
	return account;
}

struct rpc_account *connection_charge(struct dispatcher *dispatcher, const struct peer *peer)
{
	struct rpc_account *account = account_new(dispatcher, peer->uid);
	struct refusal refusal;

	if (!account)
		return NULL;
	account->charged = !account_find_tenant(account, peer) &&
			   !account_charge_connection(account, &refusal);
	if (!account->charged && !refused_charge(dispatcher, peer->uid))
		return rpc_account_unref(account);
	connections_count(dispatcher, 1);
	return account;
}

struct rpc_account *connection_charge_tenant(struct dispatcher *dispatcher, struct tenant *tenant,
					     uid_t uid)
{
	struct rpc_account *account = account_new(dispatcher, uid);
	struct refusal refusal;

	if (!account)
		return NULL;
	account->tenant = broker_tenant_ref(dispatcher->broker, tenant);
	account->charged = !account_charge_connection(account, &refusal);
	if (!account->charged)
		return rpc_account_unref(account);
	connections_count(dispatcher, 1);
	return account;
}

void connection_refund(struct rpc_account *consume_account)
{
	struct rpc_account *account = consume_account;
	struct dispatcher *dispatcher = account->dispatcher;

	pthread_mutex_lock(&account->lock);
	account->ended = true;
	if (account->charged)
		broker_refund(dispatcher->broker, account->tenant, LEDGER_CONNECTIONS, 1);
	else
		refused_refund(dispatcher, account->uid);
	pthread_mutex_unlock(&account->lock);
	connections_count(dispatcher, -1);
	rpc_account_unref(account);
}

bool connection_hold(struct rpc_account *account, uint64_t n_bytes)
{
	struct refusal refusal;

	return !account || !broker_charge(account->dispatcher->broker, account->tenant,
					  LEDGER_QUEUED_BYTES, n_bytes, &refusal);
}

void connection_release(struct rpc_account *account, uint64_t n_bytes)
{
	if (account && n_bytes)
		broker_refund(account->dispatcher->broker, account->tenant, LEDGER_QUEUED_BYTES,
			      n_bytes);
}

/* One that had no room when it was accepted: is there some now? */
static int account_admit(struct rpc_account *account, struct refusal *refusal)
{
	int status = 0;

	if (!account->tenant) {
		*refusal = account->why;
		return REFUSED;
	}
	pthread_mutex_lock(&account->lock);
	if (!account->charged && !account->ended) {
		status = account_charge_connection(account, refusal);
		if (!status) {
			refused_refund(account->dispatcher, account->uid);
			account->charged = true;
		}
	}
	pthread_mutex_unlock(&account->lock);
	return status;
}

/* ── calls ────────────────────────────────────────────────────────────────────────────────── */

int rpc_account_charge_call(struct rpc_account *account, struct refusal *refusal)
{
	int status;

	if (!account)
		return 0;
	status = account->charged ? 0 : account_admit(account, refusal);
	if (status)
		return status;
	return broker_charge(account->dispatcher->broker, account->tenant, LEDGER_CALLS, 1,
			     refusal);
}

int rpc_account_pay(struct rpc_account *account, const struct rate_request *request,
		    uint64_t *ret_due_ns, struct refusal *refusal)
{
	uint64_t ready_ns, due_ns;

	if (!account) {
		*ret_due_ns = 0;
		return 0;
	}
	if (account_take(account, request, &due_ns, refusal))
		return REFUSED;
	ready_ns = atomic_load_explicit(&account->ready_ns, memory_order_relaxed);
	if (ready_ns > due_ns && ready_ns > clock_monotonic_ns())
		due_ns = ready_ns;
	*ret_due_ns = due_ns;
	return 0;
}

void rpc_account_refund_call(struct rpc_account *account)
{
	if (account)
		broker_refund(account->dispatcher->broker, account->tenant, LEDGER_CALLS, 1);
}

int rpc_account_charge(struct broker *broker, struct rpc_account *account,
		       enum ledger_resource resource, uint64_t amount, struct refusal *refusal)
{
	return broker_charge(broker, account ? account->tenant : NULL, resource, amount, refusal);
}

void rpc_account_refund(struct broker *broker, struct rpc_account *account,
			enum ledger_resource resource, uint64_t amount)
{
	broker_refund(broker, account ? account->tenant : NULL, resource, amount);
}
