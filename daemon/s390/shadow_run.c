/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Leaves joined into runs. A run to map is contiguous in IOVA, guest address and permission; a run
 * to cut reaches from one leaf that goes to another with no installed leaf between them, since
 * cutting where nothing lies is success.
 *
 * A leaf is booked (bits, counts, aliases) when it joins a run, before the call; a map that fails
 * takes its own leaves back. A cut that fails cannot be taken back: it is owed, the device must be
 * blocked, and nothing else happens before it is paid.
 */

#include <errno.h>

#include "s390/shadow_internal.h"

void work_verdict(struct shadow_work *work, enum shadow_verdict verdict, int host_errno)
{
	struct shadow_result *result = &work->op->result;

	if (verdict > result->verdict)
		result->verdict = verdict;
	if (host_errno && (!result->host_errno || verdict == SHADOW_BROKEN))
		result->host_errno = host_errno;
}

/* The first fault is the one that the guest hears of. */
void work_fault(struct shadow_work *work, const struct s390_fault *fault)
{
	struct shadow_op *op = work->op;

	if (op->result.fault.code != S390_PEC_NONE)
		return;
	op->result.fault = *fault;
	if (op->result.fault.iova < op->first)
		op->result.fault.iova = op->first;
	if (op->kind != SHADOW_OP_SWEEP)
		work_verdict(work, SHADOW_ERROR, 0);
}

static _Atomic uint16_t *frame_aliases(const struct memory_view *view, size_t *hint, uint64_t gpa)
{
	const struct memory_view_region *region = memory_view_find(view, gpa, hint);

	return region ? &region->aliases[(gpa - region->gpa_first) / S390_PAGE_BYTES] : NULL;
}

static bool alias_charge(_Atomic uint16_t *aliases)
{
	uint16_t now = atomic_load_explicit(aliases, memory_order_relaxed);

	do {
		if (now >= FRAME_ALIASES_MAX)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(
		aliases, &now, now + 1, memory_order_relaxed, memory_order_relaxed));
	return true;
}

bool leaf_count(const struct memory_view *view, size_t *hint, uint64_t gpa)
{
	_Atomic uint16_t *aliases = frame_aliases(view, hint, gpa);

	return !aliases || alias_charge(aliases);
}

/* A frame whose region went before its leaves were dropped has no counter any more, and nothing to
 * give back. */
void leaf_refund(struct shadow *shadow, const struct memory_view *view, size_t *hint,
		 struct kept_table *table, unsigned int i)
{
	_Atomic uint16_t *aliases = frame_aliases(view, hint, s390_word_frame(table->raw[i]));

	bit_put(&table->installed, i, false);
	bit_put(&table->writable, i, false);
	shadow->leaves_installed--;
	if (aliases)
		atomic_fetch_sub_explicit(aliases, 1, memory_order_relaxed);
}

void leaf_unsettle(struct kept_table *table, unsigned int i)
{
	bit_put(&table->held, i, false);
	if (!table->managed)
		table->raw[i] = htobe64(S390_PAGE_INVALID);
	if (table->from_frame)
		table->incomplete = true;
}

/* How many places show the frame. */
static uint64_t frame_weight(struct shadow_work *work, uint64_t gpa)
{
	_Atomic uint16_t *aliases = frame_aliases(work->view, &work->hint, gpa);

	return aliases ? atomic_load_explicit(aliases, memory_order_relaxed) : 1;
}

static void charge_call(struct shadow_work *work, uint64_t weight)
{
	work->budget -= IOCTL_COST + (int64_t)(weight / WEIGHT_PER_UNIT);
}

static int call_cut(struct shadow_work *work, uint64_t first, uint64_t last)
{
	struct shadow *shadow = work->shadow;

	shadow->stats.cuts++;
	charge_call(work, work->cut.weight);
	return shadow->ops->cut(shadow->context, first, last - first + 1);
}

/* Splits allocate: where the whole did not go, halves may. */
static int cut_again(struct shadow_work *work, uint64_t first, uint64_t last)
{
	uint64_t pages = (last - first + 1) / S390_PAGE_BYTES;
	uint64_t middle = first + pages / 2 * S390_PAGE_BYTES;
	int error;

	if (pages < 2)
		return call_cut(work, first, last);
	error = call_cut(work, first, middle - 1);
	return error ? error : call_cut(work, middle, last);
}

static bool cut_range(struct shadow_work *work, uint64_t first, uint64_t last)
{
	struct shadow *shadow = work->shadow;
	int error = call_cut(work, first, last);

	if (error)
		error = cut_again(work, first, last);
	if (!error)
		return true;
	intent_set(&shadow->store.header->owed, first, last);
	shadow->cut_owed = true;
	shadow->owed_first = first;
	shadow->owed_last = last;
	work->broken = true;
	work_verdict(work, SHADOW_BROKEN, error);
	return false;
}

bool run_pay_owed_cut(struct shadow_work *work)
{
	struct shadow *shadow = work->shadow;

	if (!shadow->cut_owed)
		return true;
	shadow->cut_owed = false;
	if (!cut_range(work, shadow->owed_first, shadow->owed_last))
		return false;
	intent_clear(&shadow->store.header->owed);
	return true;
}

void run_cut_barrier(struct shadow_work *work)
{
	if (!work->cut.pending)
		return;
	work->cut.pending = false;
	cut_range(work, work->cut.first, work->cut.last);
	/* What did not go is owed, which is written down as well. */
	intent_clear(&work->shadow->store.header->cut);
}

/* 2^64 bytes from 0 cannot be said in one call. */
static bool cut_joins(const struct shadow_work *work, uint64_t iova, uint64_t weight)
{
	return work->cut.weight + weight <= CALL_WEIGHT_MAX &&
	       (work->cut.first || iova <= UINT64_MAX - S390_PAGE_BYTES);
}

bool run_cut_leaf(struct shadow_work *work, struct kept_table *table, unsigned int i)
{
	uint64_t iova = (table->segment << S390_SEGMENT_SHIFT) + i * S390_PAGE_BYTES;
	uint64_t weight = frame_weight(work, s390_word_frame(table->raw[i]));

	if (work->cut.pending && !cut_joins(work, iova, weight))
		run_cut_barrier(work);
	/* One cut may be owed, not two: after a failure nothing more is given up. */
	if (work->broken)
		return false;
	work->cut.last = iova + S390_PAGE_BYTES - 1;
	if (!work->cut.pending) {
		work->cut.pending = true;
		work->cut.first = iova;
		work->cut.weight = 0;
		intent_set(&work->shadow->store.header->cut, iova, work->cut.last);
	} else {
		intent_extend(&work->shadow->store.header->cut, work->cut.last);
	}
	work->cut.weight += weight;
	leaf_refund(work->shadow, work->view, &work->hint, table, i);
	work->op->result.unmapped++;
	return true;
}

/* The run was not installed: its leaves are as if nobody had tried. */
static void map_take_back(struct shadow_work *work)
{
	struct shadow *shadow = work->shadow;
	uint64_t pages = work->map.length / S390_PAGE_BYTES;
	struct kept_table *table = NULL;

	work->op->cursor.untidy = true;
	for (uint64_t n = 0; n < pages; n++) {
		uint64_t iova = work->map.iova + n * S390_PAGE_BYTES;
		unsigned int i = iova >> 12 & (S390_PT_ENTRIES - 1);

		if (!table || table->segment != segment_of(iova))
			table = store_find(&shadow->store, segment_of(iova));
		leaf_refund(shadow, work->view, &work->hint, table, i);
		leaf_unsettle(table, i);
	}
}

static void map_refused(struct shadow_work *work, enum shadow_leaf_refusal refusal)
{
	const struct shadow *shadow = work->shadow;

	if (!shadow->ops->leaf_refused)
		return;
	work->budget -= REFUSAL_COST * (int64_t)(work->map.length / S390_PAGE_BYTES);
	for (uint64_t at = 0; at < work->map.length; at += S390_PAGE_BYTES)
		shadow->ops->leaf_refused(shadow->context, work->map.iova + at, work->map.gpa + at,
					  refusal);
}

static int call_map(struct shadow_work *work)
{
	struct shadow *shadow = work->shadow;

	shadow->stats.maps++;
	charge_call(work, work->map.weight);
	return shadow->ops->map(shadow->context, work->map.iova, work->map.gpa, work->map.length,
				work->map.writable);
}

static int map_with_retry(struct shadow_work *work)
{
	int error = call_map(work);

	switch (error) {
	case ENOSPC:
	case ENOMEM:
		return call_map(work);
	case EEXIST:
		/* Something lies there that we know nothing of; none of ours does. */
		if (!cut_range(work, work->map.iova, work->map.iova + work->map.length - 1))
			return error;
		return call_map(work);
	default:
		return error;
	}
}

static void map_failed(struct shadow_work *work, int error)
{
	map_take_back(work);
	switch (error) {
	case ENOSPC:
	case ENOMEM:
		/* The retry failed too: the rest would fail one by one. */
		work->op->cursor.stop = true;
		work_verdict(work, SHADOW_RESOURCES, error);
		break;
	case EEXIST:
		work_verdict(work, SHADOW_RESOURCES, error);
		break;
	case ENOENT:
		map_refused(work, SHADOW_LEAF_OUTSIDE_MEMORY);
		break;
	case EPERM:
		map_refused(work, SHADOW_LEAF_READ_ONLY_MEMORY);
		break;
	default: /* EIO: the host function is in error; nothing that the guest did */
		work_verdict(work, SHADOW_ERROR, error);
		break;
	}
}

static void map_flush(struct shadow_work *work)
{
	uint64_t leaves = work->map.length / S390_PAGE_BYTES;
	int error;

	if (!work->map.pending)
		return;
	work->map.pending = false;
	if (work->broken) {
		map_take_back(work);
		intent_clear(&work->shadow->store.header->map);
		return;
	}
	error = map_with_retry(work);
	if (error)
		map_failed(work, error);
	intent_clear(&work->shadow->store.header->map);
	if (error)
		return;
	/* A leaf that was cut and is back has changed, it did not become unmapped. */
	work->op->result.unmapped -= work->map.changed;
	work->op->cursor.changed += work->map.changed;
	work->op->result.mapped += leaves;
	if (!work->whole)
		work->shadow->leaves_new += leaves;
}

void run_flush(struct shadow_work *work)
{
	run_cut_barrier(work);
	map_flush(work);
}

/* Whether this operation cut the leaf before; asked once. */
static bool leaf_take_changed(struct shadow_work *work, struct kept_table *table, unsigned int i)
{
	const struct kept_node *node = store_node(&work->shadow->store, table);

	if (node->changed_epoch != work->op->cursor.epoch || !bit_get(&table->changed, i))
		return false;
	bit_put(&table->changed, i, false);
	return true;
}

static bool map_joins(const struct shadow_work *work, uint64_t iova, uint64_t gpa, uint64_t weight,
		      bool writable)
{
	return work->map.pending && work->map.iova + work->map.length == iova &&
	       work->map.gpa + work->map.length == gpa && work->map.writable == writable &&
	       work->map.weight + weight <= CALL_WEIGHT_MAX;
}

static bool leaf_charge(struct shadow_work *work, uint64_t gpa)
{
	struct shadow *shadow = work->shadow;

	if (shadow->leaves_installed >= shadow->limits.leaves_max) {
		work->op->cursor.stop = true;
		return false;
	}
	if (!alias_charge(frame_aliases(work->view, &work->hint, gpa)))
		return false;
	shadow->leaves_installed++;
	return true;
}

void run_map_end(struct shadow_work *work, uint64_t iova, uint64_t word, bool writable)
{
	int64_t cost = IOCTL_COST + (int64_t)(work->map.weight / WEIGHT_PER_UNIT);
	uint64_t gpa = s390_word_frame(word);

	if (work->map.pending && work->budget <= cost &&
	    !map_joins(work, iova, gpa, frame_weight(work, gpa) + 1, writable))
		map_flush(work);
}

bool run_map_leaf(struct shadow_work *work, struct kept_table *table, unsigned int i, uint64_t word,
		  bool writable)
{
	uint64_t iova = (table->segment << S390_SEGMENT_SHIFT) + i * S390_PAGE_BYTES;
	uint64_t gpa = s390_word_frame(word), weight = frame_weight(work, gpa) + 1;

	if (!map_joins(work, iova, gpa, weight, writable))
		map_flush(work);
	if (work->op->cursor.stop || work->broken)
		return false;
	if (!leaf_charge(work, gpa)) {
		work_verdict(work, SHADOW_RESOURCES, 0);
		return false;
	}
	if (!work->map.pending) {
		work->map.pending = true;
		work->map.iova = iova;
		work->map.gpa = gpa;
		work->map.length = work->map.weight = 0;
		work->map.writable = writable;
		work->map.changed = 0;
		intent_set(&work->shadow->store.header->map, iova, iova + S390_PAGE_BYTES - 1);
	} else {
		intent_extend(&work->shadow->store.header->map, iova + S390_PAGE_BYTES - 1);
	}
	work->map.length += S390_PAGE_BYTES;
	work->map.weight += weight;
	work->map.changed += leaf_take_changed(work, table, i);
	bit_put(&table->installed, i, true);
	bit_put(&table->writable, i, writable);
	bit_put(&table->held, i, false);
	table->raw[i] = word;
	return true;
}
