/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_NESTED_H
#define IB_BROKER_NESTED_H

/*
 * A nested domain: a user page table at one anchor, shadowed into an address space of its own.
 *
 * Whoever touches the shadow, or changes what is marked below, holds nested->lane. Refreshes hold
 * only that lane; what runs on the guest's lane enters it in addition.
 *
 * An s390 domain whose device is not attached to it is kept empty: the walk is deferred to the
 * attachment, so a refresh of it is done at once. A managed domain keeps its entries: nothing but
 * its VMM's calls can change them.
 */

#include "broker/handle.h"
#include "broker/relaxed.h"
#include "s390/shadow.h"
#include "state/state_file.h"

/* Work between two looks at who else wants the nested domain, in shadow_step()'s units. */
#define NESTED_STEP_UNITS 4096

struct device;

/* What it is made of, and what that was charged: nested_backing.c. */
struct nested_backing {
	enum nested_format format;
	struct s390_anchor anchor; /* iota 0 if managed; window */
	uint64_t mappings_reserved, table_bytes_reserved;
	struct shadow *shadow; /* NULL with NESTED_RELAXED */
	struct shadow_limits limits;
	struct state_extent storage; /* of the guest's state file */
	struct domain domain;        /* with NESTED_S390 and _MANAGED */
	struct relaxed relaxed;      /* with NESTED_RELAXED */
};

struct nested {
	struct object object;
	struct device *device; /* as long as it is not gone */
	uint64_t device_handle;
	struct pool_lane *lane;
	uint32_t index;

	/* lane */
	struct nested_backing backing; /* format and anchor: guest->lock to change them too */
	bool gone;                     /* it was destroyed */
	uint64_t overspent;            /* by refreshes on their callers' threads, see refresh.c */
	_Atomic bool broken; /* it could not be brought in line: only good to be destroyed */
	_Atomic bool
		attached; /* guest->lock to set; a refresh in flight sees it at its next step */

	/* Of the shadow, for those who are not on the lane. */
	struct {
		_Atomic uint64_t leaves, tables, bytes, refreshes, maps, cuts;
	} stats;

	struct nested *prev, *next; /* guest->lock */
};

struct nested *nested_find(struct broker *broker, struct session *session, uint64_t handle,
			   struct refusal *refusal);
void nested_unref(struct nested *nested);
int nested_refuse_broken(struct refusal *refusal);
void nested_lane_enter(struct nested *nested);
void nested_lane_leave(struct nested *nested);

/* One of a process before this one, in its guest's list. view: has the counters of all that may be
 * installed. 0, REFUSED or a negative errno. */
struct record_nested;
int nested_restore(struct device *device, const struct record_nested *record,
		   const struct memory_view *view, struct refusal *refusal);

/* ── nested_backing.c: on the guest's lane ─────────────────────────────────────────────────── */

struct nested_plan {
	enum nested_format format;
	struct s390_anchor anchor;
	uint64_t mappings; /* leaves to reserve; 0: the default */
};

/* What a nested domain over that window reserves if it asked for so many mappings; pure. */
struct shadow_limits nested_shadow_limits(uint64_t asked, uint64_t first, uint64_t last);
/* Charge and make it, empty. On failure nothing is left. owner: what its shadow belongs to. */
int nested_backing_new(struct nested *owner, const struct nested_plan *plan,
		       struct nested_backing *ret, struct refusal *refusal);
/* What a record says, over what the kernel still has. *ret_broken: nobody knows what is installed,
 * or nothing of it is there: only good to be destroyed. 0 or REFUSED. */
int nested_backing_restore(struct nested *owner, const struct record_nested *record,
			   const struct memory_view *view, struct nested_backing *ret,
			   bool *ret_broken, struct refusal *refusal);
/* Destroy and refund. No device is attached to it; with the owner's lane held. */
void nested_backing_free(struct nested *owner, struct nested_backing *backing);
/* Destroy page table and address space, so that nothing of it shows guest memory. view: one that
 * has the counters of all that is installed. */
void nested_backing_empty(struct nested *owner, struct nested_backing *backing,
			  const struct memory_view *view);
uint32_t nested_backing_page_table(const struct nested_backing *backing);

/* ── nested.c ──────────────────────────────────────────────────────────────────────────────── */

/* Destroy everything, refund, take it from its guest. On the guest's lane, enters its own. A device
 * that is attached to it is blocked. */
void nested_drop(struct nested *nested);

/* ── nested_work.c: operations on the shadow ───────────────────────────────────────────────── */

/* Bring the whole window in line: after a new anchor, new memory, an attachment. The lane is not
 * held by the caller, and is left between steps. Answers DONE for a domain that has nothing to
 * walk, GONE for one that is gone or broken; a walk error becomes an event as well. */
void nested_reconcile(struct nested *nested, struct range_result *ret);
/* One step with the lane held; true: there is more. */
bool nested_step(struct nested *nested, struct shadow_op *op, unsigned int budget);
/* What an operation that is complete came to; blocks the device if it must. With the lane held, on
 * a thread that may wait. */
void nested_result(struct nested *nested, const struct shadow_op *op, struct range_result *ret);
/* Cut what shows memory that goes: of view, what is not in kept. If it could not be cut, the domain
 * is broken and empty. */
void nested_drop_memory(struct nested *nested, const struct memory_view *view,
			const struct memory_view *kept);
/* Its device has left it: an s390 domain is emptied. */
void nested_leave(struct nested *nested);
/* Make op a sweep, if one is due. With the lane held. */
bool nested_sweep_begin(const struct nested *nested, struct shadow_op *op);
void nested_publish_stats(struct nested *nested);

#endif
