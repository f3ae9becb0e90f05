/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/nested.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "broker/attach.h"
#include "broker/device.h"
#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/root.h"
#include "util/crash_point.h"

#define ZPCI_FUNCTION_ISM 5
#define PAGE_BYTES        4096ull

static void nested_object_free(struct object *object)
{
	struct nested *nested = (struct nested *)object;

	pool_lane_unref(nested->lane);
	device_unref(nested->device);
	guest_unref(nested->object.guest);
	free(nested);
}

struct nested *nested_find(struct broker *broker, struct session *session, uint64_t handle,
			   struct refusal *refusal)
{
	return (struct nested *)handle_find(broker, session, handle, OBJECT_NESTED, refusal);
}

void nested_unref(struct nested *nested)
{
	if (nested)
		object_unref(&nested->object);
}

void nested_lane_enter(struct nested *nested)
{
	pool_lane_enter(nested->lane);
}

void nested_lane_leave(struct nested *nested)
{
	pool_lane_leave(nested->object.guest->broker->pool, nested->lane);
}

/* ── made and dropped ──────────────────────────────────────────────────────────────────────── */

static bool index_is_used(const struct guest *guest, uint32_t index)
{
	const struct nested *nested;

	DL_FOREACH (guest->nested, nested)
		if (nested->index == index)
			return true;
	return false;
}

/* The lowest that is free: what names it in a ring is a small table's index. */
static uint32_t index_next(const struct guest *guest)
{
	uint32_t index = 0;

	while (index_is_used(guest, index))
		index++;
	return index;
}

static struct nested *nested_alloc(struct device *device)
{
	struct guest *guest = device->object.guest;
	struct nested *nested = calloc(1, sizeof(*nested));

	if (!nested)
		return NULL;
	object_init(&nested->object, OBJECT_NESTED, guest->session, guest_ref(guest),
		    nested_object_free);
	object_ref(&device->object);
	nested->device = device;
	nested->device_handle = device->object.handle;
	nested->index = index_next(guest);
	nested->lane = pool_lane_new();
	if (nested->lane)
		return nested;
	nested_unref(nested);
	return NULL;
}

static int nested_make_charged(struct device *device, const struct nested_plan *plan,
			       struct nested **ret, struct refusal *refusal)
{
	struct guest *guest = device->object.guest;
	struct nested *nested = nested_alloc(device);

	if (!nested)
		return refuse_errno(refusal, ENOMEM, "nested domain");
	if (nested_backing_new(nested, plan, &nested->backing, refusal)) {
		nested_unref(nested);
		return REFUSED;
	}
	nested_publish_stats(nested);
	pthread_mutex_lock(&guest->lock);
	DL_APPEND(guest->nested, nested);
	guest->n_nested++;
	pthread_mutex_unlock(&guest->lock);
	*ret = nested;
	return 0;
}

/* In its guest's list, but without a handle. */
static int nested_make(struct device *device, const struct nested_plan *plan, struct nested **ret,
		       struct refusal *refusal)
{
	struct guest *guest = device->object.guest;
	struct ledger *ledger = &guest->broker->ledger;

	if (ledger_charge_one(ledger, &guest->account, LEDGER_NESTED, 1, refusal))
		return REFUSED;
	if (!nested_make_charged(device, plan, ret, refusal))
		return 0;
	ledger_refund_one(ledger, &guest->account, LEDGER_NESTED, 1);
	return REFUSED;
}

int nested_restore(struct device *device, const struct record_nested *record,
		   const struct memory_view *view, struct refusal *refusal)
{
	struct guest *guest = device->object.guest;
	struct ledger_amounts one = {.amount[LEDGER_NESTED] = 1};
	struct nested *nested = nested_alloc(device);
	bool broken = record->broken;
	int status;

	if (!nested)
		return refuse_errno(refusal, ENOMEM, "nested domain");
	nested->index = record->index;
	status = nested_backing_restore(nested, record, view, &nested->backing, &broken, refusal);
	if (!status)
		status = handle_publish_as(guest->broker, &nested->object, record->handle, refusal);
	if (status) {
		nested_backing_free(nested, &nested->backing);
		nested_unref(nested);
		return status;
	}
	nested->broken = broken;
	nested->object.stage = record->stage;
	nested_publish_stats(nested);
	ledger_take_over(&guest->broker->ledger, &guest->account, &one);
	pthread_mutex_lock(&guest->lock);
	DL_APPEND(guest->nested, nested);
	guest->n_nested++;
	pthread_mutex_unlock(&guest->lock);
	return 0;
}

void nested_drop(struct nested *nested)
{
	struct guest *guest = nested->object.guest;

	handle_withdraw(guest->broker, &nested->object);
	if (nested->object.stage != RECORD_GOING && guest->object.stage != RECORD_GOING) {
		nested->object.stage = RECORD_GOING;
		save_now(guest);
	}
	CRASH_POINT(NESTED_GOES);
	nested_lane_enter(nested);
	if (nested->attached)
		device_block(nested->device, false);
	CRASH_POINT(NESTED_BLOCKED);
	nested->gone = true;
	nested_backing_free(nested, &nested->backing);
	nested_lane_leave(nested);
	CRASH_POINT(NESTED_GONE);
	pthread_mutex_lock(&guest->lock);
	DL_DELETE(guest->nested, nested);
	guest->n_nested--;
	pthread_mutex_unlock(&guest->lock);
	ledger_refund_one(&guest->broker->ledger, &guest->account, LEDGER_NESTED, 1);
	nested_unref(nested);
}

/* ── what is asked for ─────────────────────────────────────────────────────────────────────── */

/* Linux registers ISM functions with a last address one page above the end of DMA. */
static uint64_t clamp_pal(const struct device *device, uint64_t pal)
{
	const struct iommu_device_info *info = &device->info;

	if (info->has_fid && info->pft == ZPCI_FUNCTION_ISM && pal > info->dma_last &&
	    pal - info->dma_last <= PAGE_BYTES)
		return info->dma_last;
	return pal;
}

static enum s390_anchor_fault plan_anchor(const struct device *device, uint64_t iota, uint64_t pba,
					  uint64_t pal, struct nested_plan *plan)
{
	enum s390_anchor_fault fault = s390_anchor_check(
		&plan->anchor, iota, pba, clamp_pal(device, pal), device->info.dma_first,
		device->info.dma_last, device_designations(device), device->relaxed_granted);

	if (fault == S390_ANCHOR_OK)
		plan->format = s390_anchor_is_relaxed(&plan->anchor) ? NESTED_RELAXED : NESTED_S390;
	return fault;
}

static int plan_managed(const struct device *device, const struct nested_create_request *request,
			struct nested_plan *plan, struct refusal *refusal)
{
	uint64_t first = request->first, last = request->last;

	if (first > last || first % PAGE_BYTES || (last + 1) % PAGE_BYTES)
		return refuse_field(refusal, "managed",
				    "%#llx to %#llx are not whole pages of 4096 bytes",
				    (unsigned long long)first, (unsigned long long)last);
	if (first < device->info.dma_first || last > device->info.dma_last)
		return refuse_field(
			refusal, "managed",
			"%#llx to %#llx lie outside the device's window, %#llx to %#llx",
			(unsigned long long)first, (unsigned long long)last,
			(unsigned long long)device->info.dma_first,
			(unsigned long long)device->info.dma_last);
	plan->format = NESTED_MANAGED;
	plan->anchor = (struct s390_anchor){.pba = first, .pal = last};
	return 0;
}

/* Want of quota or of the kernel's memory is a verdict that the guest is told, not an error. */
static bool refusal_is_resources(const struct refusal *refusal)
{
	return refusal->kind == REFUSAL_QUOTA || refusal->kind == REFUSAL_HOST_MEMLOCK ||
	       refusal->kind == REFUSAL_HOST_RESOURCES;
}

/* Making a page table can lower a zPCI device's end of DMA. */
static bool window_still_fits(struct nested *nested)
{
	struct device *device = nested->device;
	struct guest *guest = nested->object.guest;
	struct iommu_device_info info;

	if (broker_ops(guest->broker)->device_info(device->backend, &info))
		return true;
	pthread_mutex_lock(&guest->lock);
	device->info.dma_first = info.dma_first;
	device->info.dma_last = info.dma_last;
	pthread_mutex_unlock(&guest->lock);
	return nested->backing.anchor.pba >= info.dma_first &&
	       nested->backing.anchor.pal <= info.dma_last;
}

/* ── create ────────────────────────────────────────────────────────────────────────────────── */

static int created_drop(struct nested *nested, enum verdict verdict, struct nested_created *ret)
{
	nested_drop(nested);
	*ret = (struct nested_created){.verdict = verdict};
	return 0;
}

/* Attached empty, then filled. A registration whose tables do not fit its reservation fails as a
 * whole: the guest would never learn which of its mappings are not there. */
static int nested_first_walk(struct nested *nested, bool attach, struct nested_created *ret,
			     struct refusal *refusal)
{
	struct range_result walk = {.verdict = VERDICT_DONE};

	if (attach) {
		if (device_switch(nested->device, ATTACHMENT_NESTED, nested, refusal)) {
			if (refusal_is_resources(refusal))
				return created_drop(nested, VERDICT_RESOURCES, ret);
			nested_drop(nested);
			return REFUSED;
		}
		CRASH_POINT(NESTED_ATTACHED);
		nested_reconcile(nested, &walk);
		CRASH_POINT(NESTED_FILLED);
		if (walk.verdict == VERDICT_RESOURCES || walk.verdict == VERDICT_GONE)
			return created_drop(nested, walk.verdict, ret);
	}
	*ret = (struct nested_created){
		.nested = nested->object.handle,
		.index = nested->index,
		.verdict = VERDICT_DONE,
		.walk = walk,
	};
	return 0;
}

static int nested_create_planned(struct device *device, const struct nested_plan *plan, bool attach,
				 struct nested_created *ret, struct refusal *refusal)
{
	struct nested *nested = NULL;
	int status;

	if (nested_make(device, plan, &nested, refusal)) {
		if (!refusal_is_resources(refusal))
			return REFUSED;
		*ret = (struct nested_created){.verdict = VERDICT_RESOURCES};
		return 0;
	}
	if (!window_still_fits(nested)) {
		created_drop(nested, VERDICT_OPERAND, ret);
		ret->anchor_fault = S390_ANCHOR_PAL_ABOVE_END;
		return 0;
	}
	status = handle_publish(device->object.guest->broker, &nested->object, refusal);
	if (status) {
		nested_drop(nested);
		return status;
	}
	CRASH_POINT(NESTED_LISTED);
	return nested_first_walk(nested, attach, ret, refusal);
}

static int nested_create_on(struct device *device, const struct nested_create_request *request,
			    struct nested_created *ret, struct refusal *refusal)
{
	struct nested_plan plan = {.mappings = request->mappings_max};
	enum s390_anchor_fault fault;

	if (!device->bound)
		return device_refuse_unbound(refusal);
	if (request->attach && device_attachment(device, NULL) == ATTACHMENT_NESTED) {
		*ret = (struct nested_created){.verdict = VERDICT_SEQUENCE};
		return 0;
	}
	if (request->format == NESTED_MANAGED) {
		if (plan_managed(device, request, &plan, refusal))
			return REFUSED;
	} else {
		fault = plan_anchor(device, request->iota, request->first, request->last, &plan);
		if (fault != S390_ANCHOR_OK) {
			*ret = (struct nested_created){.verdict = VERDICT_OPERAND,
						       .anchor_fault = fault};
			return 0;
		}
	}
	if (plan.format != NESTED_RELAXED && !device->object.guest->broker->features.cut)
		return refuse_unimplemented(refusal, "IOMMU_CUT",
					    "this kernel cannot cut mappings (CONFIG_IOMMUFD_VFIO_"
					    "CONTAINER or the VFIO-compatible interface is "
					    "missing)");
	return nested_create_planned(device, &plan, request->attach, ret, refusal);
}

int nested_create(struct broker *broker, struct session *session,
		  const struct nested_create_request *request, struct nested_created *ret,
		  struct refusal *refusal)
{
	struct device *device = device_find(broker, session, request->device, refusal);
	int status;

	if (!device)
		return REFUSED;
	status = nested_create_on(device, request, ret, refusal);
	device_unref(device);
	return status;
}

/* ── replace ───────────────────────────────────────────────────────────────────────────────── */

static void nested_set_anchor(struct nested *nested, const struct s390_anchor *anchor)
{
	struct guest *guest = nested->object.guest;

	nested_lane_enter(nested);
	pthread_mutex_lock(&guest->lock);
	nested->backing.anchor = *anchor;
	pthread_mutex_unlock(&guest->lock);
	if (!nested->broken)
		shadow_set_anchor(nested->backing.shadow, &nested->backing.anchor);
	nested_lane_leave(nested);
}

/* A walk error found at registration is an event, and no failure of the registration. */
static enum verdict registration_verdict(const struct range_result *walk)
{
	return walk->verdict == VERDICT_ERROR ? VERDICT_DONE : walk->verdict;
}

/* In place: what both anchors' tables hold stays installed all the while. */
static int nested_replace_anchor(struct nested *nested, const struct nested_plan *plan,
				 struct nested_created *ret)
{
	const struct s390_anchor old = nested->backing.anchor;
	struct range_result walk, back;

	nested_set_anchor(nested, &plan->anchor);
	CRASH_POINT(REPLACE_ANCHOR);
	nested_reconcile(nested, &walk);
	CRASH_POINT(REPLACE_FILLED);
	if (walk.verdict == VERDICT_RESOURCES) {
		nested_set_anchor(nested, &old);
		nested_reconcile(nested, &back);
	}
	ret->walk = walk;
	ret->verdict = registration_verdict(&walk);
	return 0;
}

static void nested_swap_backing(struct nested *nested, struct nested_backing *other)
{
	struct guest *guest = nested->object.guest;
	struct nested_backing mine = nested->backing;

	pthread_mutex_lock(&guest->lock);
	nested->backing = *other;
	pthread_mutex_unlock(&guest->lock);
	*other = mine;
}

/* Attach to the other backing and make it the domain's; the former one is in *other then. The
 * kernel's errno. */
static int nested_exchange(struct nested *nested, struct nested_backing *other)
{
	int error = 0;

	nested_lane_enter(nested);
	if (nested->attached)
		error = device_backend_attach(nested->device, nested_backing_page_table(other));
	if (!error)
		nested_swap_backing(nested, other);
	else
		device_attach_back(nested->device);
	nested_publish_stats(nested);
	nested_lane_leave(nested);
	return error;
}

static int refused_or_verdict(const struct refusal *refusal, struct nested_created *ret)
{
	if (!refusal_is_resources(refusal))
		return REFUSED;
	ret->verdict = VERDICT_RESOURCES;
	return 0;
}

/* T changes, or the window of a relaxed anchor: another page table. The former one is kept until
 * the new one is filled, and comes back if it cannot be. */
static int nested_replace_backing(struct nested *nested, const struct nested_plan *plan,
				  struct nested_created *ret, struct refusal *refusal)
{
	struct nested_backing other;
	int error;

	if (nested_backing_new(nested, plan, &other, refusal))
		return refused_or_verdict(refusal, ret);
	CRASH_POINT(REPLACE_MADE);
	error = nested_exchange(nested, &other);
	CRASH_POINT(REPLACE_EXCHANGED);
	if (!error) {
		nested_reconcile(nested, &ret->walk);
		ret->verdict = registration_verdict(&ret->walk);
		if (ret->verdict == VERDICT_RESOURCES)
			nested_exchange(nested, &other);
	}
	/* From here on no record may name what goes. */
	save_now(nested->object.guest);
	CRASH_POINT(REPLACE_WRITTEN);
	nested_lane_enter(nested);
	nested_backing_free(nested, &other);
	nested_lane_leave(nested);
	if (!error)
		return 0;
	device_refuse_attach(error, refusal);
	return refused_or_verdict(refusal, ret);
}

static int nested_replace_in(struct nested *nested, uint64_t iota, uint64_t pba, uint64_t pal,
			     struct nested_created *ret, struct refusal *refusal)
{
	struct nested_plan plan = {.mappings = nested->backing.mappings_reserved};
	struct nested_created created = {
		.nested = nested->object.handle,
		.index = nested->index,
		.verdict = VERDICT_OPERAND,
	};
	int status = 0;

	if (nested->backing.format == NESTED_MANAGED)
		return refuse(refusal, REFUSAL_PRECONDITION, "NESTED_MANAGED",
			      "a managed nested domain has no anchor to replace");
	if (nested->broken)
		return nested_refuse_broken(refusal);
	created.anchor_fault = plan_anchor(nested->device, iota, pba, pal, &plan);
	if (created.anchor_fault == S390_ANCHOR_OK) {
		if (plan.format == NESTED_S390 && nested->backing.format == NESTED_S390)
			status = nested_replace_anchor(nested, &plan, &created);
		else
			status = nested_replace_backing(nested, &plan, &created, refusal);
	}
	if (!status)
		*ret = created;
	return status;
}

int nested_replace(struct broker *broker, struct session *session, uint64_t handle, uint64_t iota,
		   uint64_t pba, uint64_t pal, struct nested_created *ret, struct refusal *refusal)
{
	struct nested *nested = nested_find(broker, session, handle, refusal);
	int status;

	if (!nested)
		return REFUSED;
	status = nested_replace_in(nested, iota, pba, pal, ret, refusal);
	nested_unref(nested);
	return status;
}

int nested_refuse_broken(struct refusal *refusal)
{
	return refuse(refusal, REFUSAL_PRECONDITION, "NESTED_BROKEN",
		      "the nested domain could not be brought in line with its tables and its "
		      "device was blocked: destroy it");
}

/* ── destroy ───────────────────────────────────────────────────────────────────────────────── */

int nested_destroy(struct broker *broker, struct session *session, uint64_t handle,
		   uint64_t *ret_leaves_dropped, struct refusal *refusal)
{
	struct nested *nested = nested_find(broker, session, handle, refusal);

	if (!nested)
		return REFUSED;
	*ret_leaves_dropped = nested->stats.leaves;
	nested_drop(nested);
	nested_unref(nested);
	return 0;
}
