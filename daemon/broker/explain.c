/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the guest's tables say about one IOVA, and what the device sees there. */
#include "broker/device.h"
#include "broker/guest.h"
#include "broker/nested.h"

static void explain_relaxed(struct nested *nested, struct explanation *ret)
{
	const struct memory_view *view = guest_view(nested->object.guest);
	const struct memory_view_region *region = NULL;
	uint64_t gpa;
	size_t hint = 0;

	if (relaxed_lookup(&nested->backing.relaxed, ret->iova, &gpa))
		region = memory_view_find(view, gpa, &hint);
	ret->installed = region != NULL;
	if (region) {
		ret->installed_gpa = gpa;
		ret->installed_writable = region->writable;
	}
	ret->consistent = true;
}

static bool explanation_agrees(const struct explanation *e)
{
	const struct s390_explanation *tables = &e->tables;
	bool wanted = tables->present && tables->in_memory;

	if (wanted != e->installed)
		return false;
	return !wanted ||
	       (tables->gpa == e->installed_gpa && tables->writable == e->installed_writable);
}

static void explain_locked(struct nested *nested, struct explanation *ret)
{
	struct shadow *shadow = nested->backing.shadow;
	const struct memory_view *view = guest_view(nested->object.guest);

	ret->installed =
		shadow_lookup(shadow, ret->iova, &ret->installed_gpa, &ret->installed_writable);
	if (nested->backing.format == NESTED_MANAGED) {
		ret->consistent = true;
		return;
	}
	s390_explain(&ret->tables, shadow_anchor(shadow), view, ret->iova);
	ret->consistent = explanation_agrees(ret);
}

int nested_explain(struct broker *broker, struct session *session, uint64_t handle, uint64_t iova,
		   struct explanation *ret, struct refusal *refusal)
{
	struct nested *nested = nested_find(broker, session, handle, refusal);
	struct explanation explanation = {.iova = iova & ~4095ull};
	bool gone;

	if (!nested)
		return REFUSED;
	nested_lane_enter(nested);
	gone = nested->gone;
	if (!gone && nested->backing.format == NESTED_RELAXED)
		explain_relaxed(nested, &explanation);
	else if (!gone)
		explain_locked(nested, &explanation);
	nested_lane_leave(nested);
	nested_unref(nested);
	if (gone)
		return refuse_not_found(refusal, "nested domain");
	explanation.iova = iova;
	*ret = explanation;
	return 0;
}
