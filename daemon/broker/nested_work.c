/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Operations on the shadow of a nested domain.
 *
 * They run in steps; between two steps the lane is given up, so that a refresh never waits for the
 * whole of a reconciliation. Each step takes the view that is published when it begins.
 */
#include <errno.h>
#include <utlist.h>

#include "broker/device.h"
#include "broker/guest.h"
#include "broker/nested.h"
#include "broker/root.h"

void nested_publish_stats(struct nested *nested)
{
	struct shadow_stats stats = {0}; /* of a relaxed mapping, which has none */

	if (nested->backing.shadow)
		shadow_stats(nested->backing.shadow, &stats);
	nested->stats.leaves = stats.leaves_installed;
	nested->stats.tables = stats.tables_kept;
	nested->stats.bytes = stats.bytes_kept;
	nested->stats.refreshes = stats.refreshes;
	nested->stats.maps = stats.maps;
	nested->stats.cuts = stats.cuts;
}

/* Nothing to walk: a relaxed anchor has no tables, and an s390 domain is empty until its device is
 * attached to it. */
static bool nested_is_idle(const struct nested *nested)
{
	if (nested->backing.format == NESTED_MANAGED)
		return false;
	return nested->backing.format == NESTED_RELAXED || !nested->attached;
}

/* Nothing can be brought in line any more; of a guest that is being taken down nothing need be. */
static bool nested_is_lost(const struct nested *nested)
{
	return nested->gone || nested->broken || nested->object.guest->dying;
}

bool nested_step(struct nested *nested, struct shadow_op *op, unsigned int budget)
{
	bool more;

	if (nested_is_lost(nested) || nested_is_idle(nested))
		return false;
	more = shadow_step(nested->backing.shadow, guest_view(nested->object.guest), op, budget);
	nested_publish_stats(nested);
	return more;
}

/* The device first, then what it could still have seen. */
static void nested_break(struct nested *nested, const struct memory_view *view)
{
	if (nested->attached)
		device_block_broken(nested->device, nested->object.handle);
	nested->broken = true;
	nested_backing_empty(nested, &nested->backing, view);
	nested_publish_stats(nested);
}

static enum verdict verdict_of(enum shadow_verdict verdict)
{
	switch (verdict) {
	case SHADOW_DONE:
		return VERDICT_DONE;
	case SHADOW_RESOURCES:
		return VERDICT_RESOURCES;
	case SHADOW_ERROR:
		return VERDICT_ERROR;
	case SHADOW_BROKEN:
		break;
	}
	return VERDICT_GONE;
}

void nested_result(struct nested *nested, const struct shadow_op *op, struct range_result *ret)
{
	*ret = (struct range_result){.verdict = VERDICT_DONE};
	if (nested_is_lost(nested)) {
		ret->verdict = VERDICT_GONE;
		return;
	}
	if (nested_is_idle(nested))
		return;
	ret->verdict = verdict_of(op->result.verdict);
	ret->fault = op->result.fault;
	ret->mapped = op->result.mapped;
	ret->unmapped = op->result.unmapped;
	if (op->result.verdict == SHADOW_BROKEN)
		nested_break(nested, guest_view(nested->object.guest));
}

/* A table that lies in guest memory and could not be read: its file was shrunk. */
static bool fault_is_lost_memory(struct nested *nested, const struct s390_fault *fault)
{
	size_t hint = 0;

	return fault->outside_memory &&
	       memory_view_find(guest_view(nested->object.guest), fault->entry, &hint);
}

static void nested_report(struct nested *nested, const struct range_result *result)
{
	struct guest *guest = nested->object.guest;
	struct event event = {
		.kind = EVENT_TRANSLATION_ERROR,
		.guest = guest->object.handle,
		.device = nested->device->object.handle,
		.nested = nested->object.handle,
		.fault = result->fault,
		.iova = result->fault.iova,
	};

	if (result->verdict != VERDICT_ERROR || result->fault.code == S390_PEC_NONE)
		return;
	event_post(guest->events, &event);
	if (!fault_is_lost_memory(nested, &result->fault))
		return;
	event.kind = EVENT_MEMORY_LOST;
	event.gpa = result->fault.entry;
	event_post(guest->events, &event);
}

static void nested_run(struct nested *nested, struct shadow_op *op, struct range_result *ret)
{
	bool more;

	do {
		nested_lane_enter(nested);
		more = nested_step(nested, op, NESTED_STEP_UNITS);
		if (!more)
			nested_result(nested, op, ret);
		nested_lane_leave(nested);
	} while (more);
}

/* EIO: the host's function is in error, which is not the guest's fault. */
static enum verdict fill_verdict(int error)
{
	if (!error)
		return VERDICT_DONE;
	return error == EIO ? VERDICT_ERROR : VERDICT_RESOURCES;
}

/* A relaxed mapping is filled while its device is attached to it, as a shadow is. */
static void nested_fill_relaxed(struct nested *nested, struct range_result *ret)
{
	*ret = (struct range_result){.verdict = VERDICT_DONE};
	nested_lane_enter(nested);
	if (nested_is_lost(nested))
		ret->verdict = VERDICT_GONE;
	else if (nested->attached)
		ret->verdict =
			fill_verdict(relaxed_fill(nested->object.guest, &nested->backing.relaxed));
	nested_lane_leave(nested);
}

void nested_reconcile(struct nested *nested, struct range_result *ret)
{
	struct shadow_op op;

	if (nested->backing.format == NESTED_RELAXED) {
		nested_fill_relaxed(nested, ret);
		return;
	}
	shadow_op_range(&op, SHADOW_OP_RECONCILE, nested->backing.anchor.pba,
			nested->backing.anchor.pal);
	nested_run(nested, &op, ret);
	nested_report(nested, ret);
}

void nested_drop_memory(struct nested *nested, const struct memory_view *view,
			const struct memory_view *kept)
{
	if (!nested->backing.shadow || nested->gone || nested->broken)
		return;
	if (shadow_drop_outside(nested->backing.shadow, view, kept))
		nested_break(nested, view);
}

void nested_leave(struct nested *nested)
{
	struct shadow_op op;

	nested_lane_enter(nested);
	if (nested->backing.format == NESTED_RELAXED)
		relaxed_empty(nested->object.guest, &nested->backing.relaxed);
	if (nested->backing.format == NESTED_S390 && !nested->gone && !nested->broken) {
		const struct memory_view *view = guest_view(nested->object.guest);

		shadow_op_range(&op, SHADOW_OP_DROP, nested->backing.anchor.pba,
				nested->backing.anchor.pal);
		while (shadow_step(nested->backing.shadow, view, &op, 0))
			;
		if (op.result.verdict == SHADOW_BROKEN)
			nested_break(nested, view);
		nested_publish_stats(nested);
	}
	nested_lane_leave(nested);
}

bool nested_sweep_begin(const struct nested *nested, struct shadow_op *op)
{
	if (nested->gone || nested->broken || nested_is_idle(nested) ||
	    nested->backing.format == NESTED_MANAGED || !shadow_sweep_due(nested->backing.shadow))
		return false;
	shadow_op_range(op, SHADOW_OP_SWEEP, nested->backing.anchor.pba,
			nested->backing.anchor.pal);
	return true;
}
