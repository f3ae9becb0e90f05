/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_GUEST_H
#define IB_BROKER_GUEST_H

/*
 * A guest: one context of the backend, and everything in it.
 *
 * Its lists change on its lane only. Whoever holds the lane may read them as they are; everybody
 * else, and every change, needs guest->lock, which is held for a few instructions and never across
 * a call of the backend.
 */

#include "broker/event.h"
#include "broker/handle.h"
#include "broker/handover.h"
#include "broker/parent.h"
#include "broker/rates.h"
#include "broker/region.h"
#include "broker/save.h"
#include "broker/session.h"

struct device;
struct leftover;
struct nested;

struct guest {
	struct object object;
	struct broker *broker;
	struct session *session; /* who created it: a reference; its objects are found for it */
	/* Which session's list and users it is among, the first that holds it: who created it, or
	 * after that has ended, whom it was given to (delegation.h). A reference, broker's lock;
	 * NULL once it is down. */
	struct session *home;
	/* Who is charged; a reference, given back when it was taken down. */
	struct tenant *tenant;
	char tenant_name[BROKER_NAME_MAX];
	bool on_behalf;                 /* made by a manager, of another process' tenant */
	struct delegation *delegations; /* utlist; broker's lock */
	struct pool_lane *lane;
	struct guest_kept kept; /* lane */
	struct event_ring *events;
	uint32_t event_slots; /* charged */
	struct ledger_account account;
	struct rate_account rates;
	struct {
		uint64_t pinned_bytes_max, mappings_max; /* at CreateGuest; 0: no limit */
	} asked;

	/* fixed once it is made */
	bool has_uuid;
	uint8_t uuid[16];
	uint8_t secret[BROKER_SECRET_BYTES];
	char name[BROKER_NAME_MAX];
	size_t n_labels;
	struct broker_label labels[BROKER_LABELS_MAX];

	struct iommu_context *context; /* NULL once it was taken down */
	struct parent parent;          /* lane */

	/* What walks may read and show. Changed on the lane; read while a nested domain's lane is
	 * held, and freed after each of those lanes was passed: see memory.c. */
	_Atomic(struct memory_view *) view;
	uint64_t generation; /* of the view; lane */

	_Atomic bool dying; /* it is being taken down: what runs stops at its next slice */
	bool down;          /* it was taken down; lane */
	struct pool_job take_down;

	pthread_mutex_t lock; /* all below */
	struct memory_file *files;
	size_t n_files;
	struct region_list regions;
	struct device *devices;
	size_t n_devices;
	struct nested *nested;
	size_t n_nested;
	struct leftover *leftovers; /* see domain.h */
	bool pinned;                /* the parent has a page table and holds all regions */
	pid_t pid; /* who holds it, as operators are told: nobody is judged by it */
	uid_t uid;
	/* Whose it is, for the rules; only who resumes it changes that. */
	pid_t owner_pid;
	uid_t owner_uid;

	struct handover handover;                  /* broker's lock */
	struct guest *session_prev, *session_next; /* likewise */
};

/* A reference, or NULL and REFUSED. session NULL: anyone's. */
struct guest *guest_find(struct broker *broker, struct session *session, uint64_t handle,
			 struct refusal *refusal);
struct guest *guest_ref(struct guest *guest);
struct guest *guest_unref(struct guest *guest);

/* The session that holds it, its home, is over: to the next that holds it, or taken down. With the
 * broker's lock held, and one more user of that session counted than its guests. */
void guest_lose_home(struct guest *guest);
/* It is counted at its creator and its tenant no more, and its tenant is given up. Last of all that
 * it charged. */
void guest_uncount(struct guest *guest);

/* By the policy that holds. With the broker's lock held, while its session lives. */
void guest_set_limits(struct guest *guest);

/* One of a process before this one, without anything in it: charged, in its home's list, without a
 * handle. References of the sessions are its own; tenant's is taken over, also on failure. With the
 * broker's lock not held. NULL: no memory. */
struct record_guest;
struct guest *guest_restore(struct broker *broker, const struct record_guest *record,
			    struct session *creator, struct session *home,
			    struct tenant *consume_tenant);

/* What a charge to its account raised above high; the guest's handle. */
uint64_t guest_tell_high(struct ledger_account *account, const struct quota_high *high);
/* Its event queue is gone for the ledger; its memory stays while it is watched. Once, while its
 * session lives. */
void guest_refund_events(struct guest *guest);

/* Stop what runs, and queue its end on its lane. Once; does not block, may be called with the
 * broker's lock held. */
void guest_begin_take_down(struct guest *guest);
/* Take everything down now, on its lane, and give up the caller's reference: teardown.c. Bounded,
 * never fails, harmless to repeat. */
void guest_take_down(struct guest *consume_guest);

/* Whether a running operation has to stop; operation may be NULL. */
bool guest_cancelled(const struct guest *guest, const struct operation *operation);
/* REFUSED, CANCELLED. */
int guest_refuse_cancelled(const struct guest *guest, struct refusal *refusal);

/* The view as it is now: only with a nested domain's lane or the guest's held. */
static inline const struct memory_view *guest_view(const struct guest *guest)
{
	return atomic_load_explicit(&guest->view, memory_order_acquire);
}

#endif
