/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The broker: sessions, tenants and handles, and who else there is.
 *
 * Locks, outermost first; a thread takes them in this order only:
 *
 *   guest's lane            what changes a guest's memory, devices and domains, one at a time;
 *                           held across calls of the backend
 *   nested domain's lane    its shadow; held across calls of the backend. Who holds a guest's lane
 *                           may enter one, one at a time; refreshes hold nothing else
 *   device->call_lock       calls of the backend on one device
 *   broker->lock            sessions, tenants, handle table
 *   guest->lock             the guest's lists and what is told about them
 *   ledger, event ring, pool, lane internals   leaves
 *
 * The locks below device->call_lock are held for a few instructions and never across a call of the
 * backend, nor while a watcher, a progress or a done function of the caller runs.
 *
 * What a walk reads, the guest's memory_view, is not locked: it is replaced as a whole on the
 * guest's lane and freed once every nested domain's lane was passed, see memory.c.
 */
#include "broker/broker.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "broker/guest.h"
#include "broker/root.h"
#include "broker/session.h"
#include "util/clock.h"

#define SLICE_BYTES_MIN 4096ull
#define SLICE_BYTES_MAX (256ull << 20)

/* A power of two, so that every slice ends where an area does. */
static uint64_t slice_bytes(uint64_t asked)
{
	uint64_t slice = SLICE_BYTES_MAX;

	while (slice > asked && slice > SLICE_BYTES_MIN)
		slice /= 2;
	return slice;
}

static void host_set_limits(struct broker *broker)
{
	struct ledger_limits limits;

	policy_limits(broker->policy, NULL, LIMIT_HOST, &limits);
	ledger_account_set_limits(&broker->ledger, &broker->host, &limits);
	rates_set_limits(&broker->rates, &broker->rates.host,
			 &broker->policy->settings.limits[LIMIT_HOST], NULL, clock_monotonic_ns());
	rates_note_guests(&broker->rates, &broker->policy->settings);
}

/* A charge of a guest's is told to whoever watches the guest, whichever level it raised. */
static void on_high(void *context, struct ledger_account *account, const struct quota_high *high)
{
	struct broker *broker = context;
	struct quota_high told = *high;

	if (account->level == LIMIT_GUEST)
		told.guest = guest_tell_high(account, high);
	if (broker->tell_high)
		broker->tell_high(broker->high_context, &told);
}

void broker_on_quota_high(struct broker *broker,
			  void (*tell)(void *context, const struct quota_high *high), void *context)
{
	broker->tell_high = tell;
	broker->high_context = context;
}

static void broker_init(struct broker *broker)
{
	pthread_mutex_init(&broker->policy_lock, NULL);
	pthread_mutex_init(&broker->lock, NULL);
	pthread_cond_init(&broker->session_gone, NULL);
	event_observer_init(&broker->observer);
	ledger_init(&broker->ledger);
	broker->ledger.tell_high = on_high;
	broker->ledger.context = broker;
	ledger_account_init(&broker->host, NULL, LIMIT_HOST, "host");
	rates_init(&broker->rates);
	host_set_limits(broker);
}

static struct broker *broker_alloc(const struct broker_settings *settings)
{
	struct broker *broker = calloc(1, sizeof(*broker));

	if (broker)
		broker->policy = policy_new(settings, NULL, NULL);
	if (broker && broker->policy)
		return broker;
	free(broker);
	return NULL;
}

int broker_new(struct broker **ret, struct iommu_backend *consume_backend,
	       const struct broker_settings *settings)
{
	struct broker *broker = broker_alloc(settings);
	int error;

	if (!broker) {
		consume_backend->ops->free(consume_backend);
		return -ENOMEM;
	}
	broker->backend = consume_backend;
	broker->slice_bytes = slice_bytes(settings->pin_slice_bytes);
	broker_init(broker);
	error = -broker_ops(broker)->probe(broker->backend, &broker->features);
	if (!error)
		error = pool_new(&broker->pool, settings->threads_max);
	if (error) {
		broker_free(broker);
		return error;
	}
	*ret = broker;
	return 0;
}

/* ── another policy ────────────────────────────────────────────────────────────────────────── */

static void session_reload(struct session *session)
{
	struct guest *guest;

	if (!session->tenant)
		return;
	session_set_limits(session);
	DL_FOREACH2(session->guests, guest, session_next)
	guest_set_limits(guest);
}

int broker_set_settings(struct broker *broker, const struct broker_settings *settings,
			void (*release)(void *context), void *context)
{
	struct policy *policy = policy_new(settings, release, context), *old;
	struct session *session;
	struct tenant *tenant;

	if (!policy)
		return -ENOMEM;
	pthread_mutex_lock(&broker->lock);
	pthread_mutex_lock(&broker->policy_lock);
	old = broker->policy;
	broker->policy = policy;
	pthread_mutex_unlock(&broker->policy_lock);
	host_set_limits(broker);
	DL_FOREACH (broker->tenants, tenant)
		tenant_reload(broker, tenant);
	DL_FOREACH (broker->sessions, session)
		session_reload(session);
	pthread_mutex_unlock(&broker->lock);
	policy_unref(old);
	return 0;
}

/* Close the first that is not closed yet. */
static bool close_one(struct broker *broker)
{
	struct session *session;

	pthread_mutex_lock(&broker->lock);
	broker->ending = true;
	DL_FOREACH (broker->sessions, session)
		if (!session->closed)
			break;
	if (session)
		session_ref(session);
	pthread_mutex_unlock(&broker->lock);
	if (!session)
		return false;
	session_close(session, NULL, NULL);
	session_unref(session);
	return true;
}

static void end_sessions(struct broker *broker)
{
	while (close_one(broker))
		;
	pthread_mutex_lock(&broker->lock);
	handover_give_up(broker);
	while (broker->sessions || broker->n_ending)
		pthread_cond_wait(&broker->session_gone, &broker->lock);
	pthread_mutex_unlock(&broker->lock);
}

struct broker *broker_free(struct broker *broker)
{
	if (!broker)
		return NULL;
	end_sessions(broker);
	pool_free(broker->pool);
	tenants_forget_idle(broker);
	broker_ops(broker)->free(broker->backend);
	ledger_deinit(&broker->ledger);
	rates_deinit(&broker->rates);
	event_observer_deinit(&broker->observer);
	pthread_cond_destroy(&broker->session_gone);
	pthread_mutex_destroy(&broker->lock);
	pthread_mutex_destroy(&broker->policy_lock);
	policy_unref(broker->policy);
	free(broker);
	return NULL;
}

void broker_set_store(struct broker *broker, struct fd_store *store)
{
	broker->store = store;
}

void broker_store_report(struct broker *broker, struct store_report *ret)
{
	*ret = (struct store_report){.restored = broker->restored};
	if (!broker->store)
		return;
	ret->descriptors = fd_store_count(broker->store);
	ret->descriptors_max = fd_store_max(broker->store);
}

uint32_t broker_state_version(const struct broker *broker)
{
	return fd_store_keeps(broker->store) ? STATE_FILE_VERSION : 0;
}

void broker_leave(struct broker *broker)
{
	atomic_store(&broker->leaving, true);
}

struct pool *broker_pool(struct broker *broker)
{
	return broker->pool;
}

const char *broker_backend_name(struct broker *broker)
{
	return broker_ops(broker)->name;
}

void broker_features(struct broker *broker, struct iommu_features *ret)
{
	*ret = broker->features;
}
