/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a nested domain is made of: an address space that can be cut, a page table over it, and the
 * shadow that knows what is installed; or, for an anchor with T = 0, a relaxed mapping.
 *
 * Everything that it may grow to is charged and set aside here, so that a refresh can fail neither
 * for want of quota nor for what others use.
 */
#include <errno.h>

#include "broker/backend_call.h"
#include "broker/device.h"
#include "broker/guest.h"
#include "broker/guest_record.h"
#include "broker/nested.h"
#include "broker/root.h"
#include "util/crash_point.h"

#define SEGMENT_SHIFT  20
#define TABLES_MIN     1024
#define LEAVES_A_TABLE 16 /* on average, of 256: below it a guest runs out of kept tables first */
#define SHADOW_LEAVES  (1ull << 40)
#define SHADOW_TABLES  (1ull << 24)

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* A window of all 2^64 bytes has 2^52 pages: no overflow. */
static uint64_t window_pages(uint64_t first, uint64_t last)
{
	return last / 4096 - first / 4096 + 1;
}

/* Tables that keep at least one leaf: no more than the window has segments, or leaves are allowed;
 * and no more than a guest needs that uses its IOVAs densely, for a kept table costs us 2 KiB. */
struct shadow_limits nested_shadow_limits(uint64_t asked, uint64_t first, uint64_t last)
{
	uint64_t leaves =
		min_u64(min_u64(max_u64(asked, 1), window_pages(first, last)), SHADOW_LEAVES);
	uint64_t segments = (last >> SEGMENT_SHIFT) - (first >> SEGMENT_SHIFT) + 1;
	uint64_t dense = max_u64(TABLES_MIN, leaves / LEAVES_A_TABLE);
	uint64_t tables = min_u64(min_u64(segments + 2, leaves), min_u64(dense, SHADOW_TABLES));

	return (struct shadow_limits){.leaves_max = leaves, .tables_max = (uint32_t)tables};
}

static struct shadow_limits backing_limits(const struct guest *guest,
					   const struct nested_plan *plan)
{
	struct policy *policy = policy_get(guest->broker);
	uint64_t asked = plan->mappings ? plan->mappings : policy->settings.nested_mappings_default;

	policy_unref(policy);
	return nested_shadow_limits(asked, plan->anchor.pba, plan->anchor.pal);
}

/* ── what the shadow calls ─────────────────────────────────────────────────────────────────── */

static int shadow_map(void *context, uint64_t iova, uint64_t gpa, uint64_t length, bool writable)
{
	struct nested *nested = context;
	struct guest *guest = nested->object.guest;
	unsigned int prot = IOMMU_PROT_READ | (writable ? IOMMU_PROT_WRITE : 0);
	int error;

	CRASH_POINT(SHADOW_MAP);
	error = broker_ops(guest->broker)
			->copy(guest->context, nested->backing.domain.ioas, iova,
			       guest->parent.ioas, gpa, length, prot);
	CRASH_POINT(SHADOW_MAPPED);
	return error;
}

static int shadow_cut(void *context, uint64_t iova, uint64_t length)
{
	struct nested *nested = context;
	struct guest *guest = nested->object.guest;
	uint64_t unmapped;
	int error;

	CRASH_POINT(SHADOW_CUT);
	error = broker_ops(guest->broker)
			->cut(guest->context, nested->backing.domain.ioas, iova, length, &unmapped);
	CRASH_POINT(SHADOW_WAS_CUT);
	return error;
}

static void shadow_leaf_refused(void *context, uint64_t iova, uint64_t gpa,
				enum shadow_leaf_refusal reason)
{
	struct nested *nested = context;
	const struct event event = {
		.kind = EVENT_LEAF_REFUSED,
		.guest = nested->object.guest->object.handle,
		.device = nested->device->object.handle,
		.nested = nested->object.handle,
		.iova = iova,
		.gpa = gpa,
	};

	event_post(nested->object.guest->events, &event);
}

static const struct shadow_ops shadow_operations = {
	.map = shadow_map,
	.cut = shadow_cut,
	.leaf_refused = shadow_leaf_refused,
};

/* ── making ────────────────────────────────────────────────────────────────────────────────── */

static void backing_set_source(struct nested_backing *backing)
{
	if (backing->format == NESTED_MANAGED)
		shadow_set_managed(backing->shadow, backing->anchor.pba, backing->anchor.pal);
	else
		shadow_set_anchor(backing->shadow, &backing->anchor);
}

static int backing_make_shadow(struct nested *owner, struct nested_backing *backing,
			       const struct shadow_limits *limits, struct refusal *refusal)
{
	struct guest *guest = owner->object.guest;

	/* Kept tables live here and in no other place. What is not used costs address space only.
	 */
	backing->limits = *limits;
	if (state_extent_new(guest->kept.state, shadow_storage_bytes(limits), &backing->storage) ||
	    shadow_new(&backing->shadow, &shadow_operations, owner, limits,
		       backing->storage.memory))
		return refuse_errno(refusal, ENOMEM, "shadow of the nested domain");
	CRASH_POINT(NESTED_STORAGE);
	backing_set_source(backing);
	return 0;
}

static int backing_make(struct nested *owner, struct nested_backing *backing,
			const struct shadow_limits *limits, struct refusal *refusal)
{
	if (backing->format == NESTED_RELAXED)
		return relaxed_new(owner->object.guest, owner->device, backing->anchor.pba,
				   backing->anchor.pal, &backing->relaxed, refusal);
	if (backing_make_shadow(owner, backing, limits, refusal))
		return REFUSED;
	return domain_new(owner->object.guest, owner->device, true,
			  "address space of the nested domain", &backing->domain, refusal);
}

static struct ledger_amounts backing_amounts(const struct nested_backing *backing)
{
	struct ledger_amounts amounts = {0};

	amounts.amount[LEDGER_MAPPINGS] = backing->mappings_reserved;
	amounts.amount[LEDGER_TABLE_BYTES] = backing->table_bytes_reserved;
	return amounts;
}

int nested_backing_new(struct nested *owner, const struct nested_plan *plan,
		       struct nested_backing *ret, struct refusal *refusal)
{
	struct guest *guest = owner->object.guest;
	struct shadow_limits limits = backing_limits(guest, plan);
	struct nested_backing backing = {.format = plan->format, .anchor = plan->anchor};
	struct ledger_amounts amounts;

	/* A relaxed mapping has as many areas as the guest's memory, which is charged. */
	if (plan->format != NESTED_RELAXED) {
		backing.mappings_reserved = limits.leaves_max;
		backing.table_bytes_reserved = shadow_storage_bytes(&limits);
	}
	amounts = backing_amounts(&backing);
	if (ledger_charge(&guest->broker->ledger, &guest->account, &amounts, refusal))
		return REFUSED;
	if (backing_make(owner, &backing, &limits, refusal)) {
		nested_backing_free(owner, &backing);
		return REFUSED;
	}
	*ret = backing;
	return 0;
}

/* ── of a process before this one ──────────────────────────────────────────────────────────── */

/* Without its storage nobody knows what is installed. */
static bool backing_adopt_shadow(struct nested *owner, struct nested_backing *backing,
				 const struct record_nested *record, const struct memory_view *view)
{
	struct guest *guest = owner->object.guest;
	uint32_t damaged = 0;

	if (record->extent_bytes < shadow_storage_bytes(&backing->limits) ||
	    state_extent_adopt(guest->kept.state, record->extent_offset, record->extent_bytes,
			       &backing->storage))
		return false;
	if (shadow_adopt(&backing->shadow, &shadow_operations, owner, &backing->limits,
			 backing->storage.memory, view, &damaged))
		return false;
	backing_set_source(backing);
	return true;
}

int nested_backing_restore(struct nested *owner, const struct record_nested *record,
			   const struct memory_view *view, struct nested_backing *ret,
			   bool *ret_broken, struct refusal *refusal)
{
	struct guest *guest = owner->object.guest;
	struct ledger_amounts amounts;
	struct nested_backing *backing = ret; /* the shadow's calls find it at its owner */
	int status;

	*backing = (struct nested_backing){
		.format = record->format,
		.anchor = {record->iota, record->first, record->last},
		.mappings_reserved = record->mappings_reserved,
		.table_bytes_reserved = record->table_bytes_reserved,
		.limits = {record->leaves_max, record->tables_max},
	};
	amounts = backing_amounts(backing);
	ledger_take_over(&guest->broker->ledger, &guest->account, &amounts);
	if (backing->format == NESTED_RELAXED)
		return relaxed_take_over(&backing->relaxed, &record->relaxed, refusal);
	status = record->ioas ? domain_restore(&backing->domain, record->ioas, record->page_table,
					       refusal)
			      : 0;
	if (!status && !*ret_broken)
		*ret_broken = !backing->domain.made ||
			      !backing_adopt_shadow(owner, backing, record, view);
	return status;
}

/* ── end ───────────────────────────────────────────────────────────────────────────────────── */

uint32_t nested_backing_page_table(const struct nested_backing *backing)
{
	return backing->format == NESTED_RELAXED ? backing->relaxed.domain.page_table
						 : backing->domain.page_table;
}

/* The kernel takes a place away in a time that grows with the number of places that show the same
 * page, and an address space in one call that cannot be killed. So everything is cut before, in
 * calls of bounded weight. What could not be cut goes with the address space. */
static void shadow_cut_all(struct shadow *shadow, const struct memory_view *view)
{
	struct shadow_op op;

	shadow_op_range(&op, SHADOW_OP_DROP, 0, UINT64_MAX);
	while (shadow_step(shadow, view, &op, 0))
		;
}

void nested_backing_empty(struct nested *owner, struct nested_backing *backing,
			  const struct memory_view *view)
{
	struct guest *guest = owner->object.guest;

	relaxed_free(guest, &backing->relaxed);
	if (backing->shadow)
		shadow_cut_all(backing->shadow, view);
	CRASH_POINT(NESTED_EMPTIED);
	domain_end(guest, &backing->domain);
	if (backing->shadow)
		shadow_forget(backing->shadow, view);
}

void nested_backing_free(struct nested *owner, struct nested_backing *backing)
{
	struct guest *guest = owner->object.guest;
	struct ledger_amounts amounts = backing_amounts(backing);

	nested_backing_empty(owner, backing, guest_view(guest));
	backing->shadow = shadow_free(backing->shadow, guest_view(guest));
	state_extent_free(guest->kept.state, &backing->storage);
	ledger_refund(&guest->broker->ledger, &guest->account, &amounts);
}
