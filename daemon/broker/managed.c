/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Entries of a managed nested domain: its VMM gives them itself. */
#include <stdio.h>

#include "broker/guest.h"
#include "broker/nested.h"

#define PAGE_MASK 4095ull

static int entry_check(const struct nested *nested, const struct nested_entry *entry, size_t i,
		       struct refusal *refusal)
{
	const struct s390_anchor *window = &nested->backing.anchor;
	char field[64];

	snprintf(field, sizeof(field), "entries[%zu]", i);
	if ((entry->iova | entry->length) & PAGE_MASK || !entry->length)
		return refuse_field(refusal, field,
				    "iova %#llx and length %#llx are not whole pages of 4096 bytes",
				    (unsigned long long)entry->iova,
				    (unsigned long long)entry->length);
	if (entry->iova < window->pba || entry->iova > window->pal ||
	    entry->length - 1 > window->pal - entry->iova)
		return refuse_field(refusal, field, "%#llx bytes from %#llx lie outside the window",
				    (unsigned long long)entry->length,
				    (unsigned long long)entry->iova);
	if (entry->map && entry->gpa & PAGE_MASK)
		return refuse_field(refusal, field, "gpa %#llx is no multiple of 4096",
				    (unsigned long long)entry->gpa);
	if (entry->map && entry->gpa > UINT64_MAX - entry->length)
		return refuse_field(refusal, field, "gpa %#llx passes the end of the address space",
				    (unsigned long long)entry->gpa);
	return 0;
}

static int entries_check(const struct nested *nested, const struct nested_entry *entries, size_t n,
			 struct refusal *refusal)
{
	if (!n || n > BROKER_MANAGED_ENTRIES_MAX)
		return refuse_field(refusal, "entries", "has %zu entries, not 1 to %d", n,
				    BROKER_MANAGED_ENTRIES_MAX);
	for (size_t i = 0; i < n; i++)
		if (entry_check(nested, &entries[i], i, refusal))
			return REFUSED;
	return 0;
}

/* OPERAND: not guest memory, or not writable; nothing changed. */
static void entry_run(struct nested *nested, const struct nested_entry *entry,
		      struct range_result *ret)
{
	uint64_t last = entry->iova + (entry->length - 1);
	struct shadow_op op;
	bool more;

	if (entry->map && !memory_view_covers(guest_view(nested->object.guest), entry->gpa,
					      entry->length, entry->writable)) {
		*ret = (struct range_result){.verdict = VERDICT_OPERAND};
		return;
	}
	if (entry->map)
		shadow_op_managed_map(&op, entry->iova, last, entry->gpa, entry->writable);
	else
		shadow_op_range(&op, SHADOW_OP_MANAGED_UNMAP, entry->iova, last);
	do {
		nested_lane_enter(nested);
		more = nested_step(nested, &op, NESTED_STEP_UNITS);
		if (!more)
			nested_result(nested, &op, ret);
		nested_lane_leave(nested);
	} while (more);
}

static int nested_update_in(struct nested *nested, const struct nested_entry *entries, size_t n,
			    struct range_result *ret, size_t *ret_n, struct refusal *refusal)
{
	size_t i = 0;

	if (nested->backing.format != NESTED_MANAGED)
		return refuse(refusal, REFUSAL_PRECONDITION, "NESTED_NOT_MANAGED",
			      "the entries of this nested domain are the guest's");
	if (entries_check(nested, entries, n, refusal))
		return REFUSED;
	do {
		entry_run(nested, &entries[i], &ret[i]);
	} while (ret[i++].verdict == VERDICT_DONE && i < n);
	*ret_n = i;
	return 0;
}

int nested_update(struct broker *broker, struct session *session, uint64_t handle,
		  const struct nested_entry *entries, size_t n, struct range_result *ret,
		  size_t *ret_n, struct refusal *refusal)
{
	struct nested *nested = nested_find(broker, session, handle, refusal);
	int status;

	if (!nested)
		return REFUSED;
	status = nested_update_in(nested, entries, n, ret, ret_n, refusal);
	nested_unref(nested);
	return status;
}
