/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_ROOT_H
#define IB_BROKER_ROOT_H

/* The broker itself: what its parts share. Locks and their order: see broker.c. */

#include <pthread.h>

#include "broker/event.h"
#include "broker/handle.h"
#include "broker/ledger.h"
#include "broker/policy.h"
#include "broker/rates.h"
#include "state/fd_store.h"

/* A call that takes something away and must not fail is tried this often before the next, harder
 * way is taken. */
#define BROKER_TRIES 4

#define RULE_GUEST_ASKED "limit given at CreateGuest"

struct broker {
	struct iommu_backend *backend;
	struct iommu_features features;
	pthread_mutex_t
		policy_lock;   /* the innermost: of the next, for those without the next lock */
	struct policy *policy; /* lock to change it too */
	_Atomic bool draining; /* see drain.c */
	_Atomic bool leaving;  /* guests are left to a successor */
	uint64_t slice_bytes;  /* pin_slice_bytes at the start, rounded down to a power of two */
	struct pool *pool;
	struct event_observer observer;
	struct ledger ledger;
	struct ledger_account host;
	struct rates rates;
	void (*tell_high)(void *context, const struct quota_high *high); /* or NULL */
	void *high_context;

	struct fd_store *store;               /* borrowed; NULL: nothing is stored */
	struct restore_report restored;       /* before anything is served */
	void (*tell_handover)(void *context); /* or NULL; lock */
	void *handover_context;

	pthread_mutex_t lock;                    /* all below */
	uint8_t numbers[FD_NAME_GUESTS_MAX / 8]; /* a bit for each guest number that is used */
	pthread_cond_t session_gone;
	struct object *handles;     /* uthash */
	struct claimed_ring *rings; /* utlist: see ring.c */
	struct session *sessions;   /* utlist, every one that has not ended */
	struct tenant *tenants;     /* utlist: those that are idle last, see tenant_idle.c */
	struct usage_past past;
	uint32_t n_idle_tenants;
	uint32_t n_sessions, n_tenants;
	uint32_t n_ending; /* sessions that have ended and still tell it */
	uint64_t next_session_id;
	bool ending; /* no session is made any more */
};

/* REFUSED if it is. */
int broker_refuse_draining(struct broker *broker, struct refusal *refusal);

static inline const struct iommu_backend_ops *broker_ops(const struct broker *broker)
{
	return broker->backend->ops;
}

#endif
