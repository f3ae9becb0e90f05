/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Passes over a range: what the source has, merged in IOVA order with what is kept, so that each
 * segment is visited once whichever of the two knows it.
 *
 * A pass reads a bounded number of the guest's tables, whatever they point at. Behind the bound it
 * scans no more and looks only at the paths to what is kept: unmaps stay exact, and nothing is
 * mapped there.
 */

#include "s390/shadow_internal.h"

struct merge {
	struct shadow_work *work;
	bool mapping; /* second pass */
	uint64_t segment_last;
	struct kept_table *kept; /* next one not visited */
	struct s390_found found; /* next of the source, if have */
	bool have, scanning;
	bool resumed;     /* the first segment was visited in part: it was counted then */
	uint64_t charged; /* of scan.cost */
	struct s390_scan scan;
};

static uint64_t visited_max(const struct shadow *shadow)
{
	uint64_t tables = 4 * (uint64_t)shadow->limits.tables_max;

	return tables > VISITED_MIN ? tables : VISITED_MIN;
}

static bool over_bound(const struct shadow_work *work)
{
	return work->op->cursor.visited >= visited_max(work->shadow);
}

static void merge_charge(struct merge *merge, uint64_t tables)
{
	if (!merge->resumed)
		merge->work->op->cursor.visited += tables;
	merge->work->budget -= (int64_t)tables;
}

static void merge_begin(struct merge *merge, struct shadow_work *work, bool mapping,
			uint64_t segment_last)
{
	merge->work = work;
	merge->mapping = mapping;
	merge->segment_last = segment_last;
	merge->kept = store_at_or_after(&work->shadow->store, work->op->cursor.next);
	merge->have = merge->scanning = false;
	merge->resumed = work->op->cursor.resumed;
	work->op->cursor.resumed = false;
}

static void merge_next_kept(struct merge *merge)
{
	merge->kept = store_next(&merge->work->shadow->store, merge->kept);
}

static bool merge_has_kept(const struct merge *merge)
{
	return merge->kept && merge->kept->segment <= merge->segment_last;
}

static uint64_t clip_first(const struct shadow_work *work, uint64_t segment)
{
	uint64_t first = segment << S390_SEGMENT_SHIFT;

	return first < work->first ? work->first : first;
}

static uint64_t clip_last(const struct shadow_work *work, uint64_t segment)
{
	uint64_t last = (segment << S390_SEGMENT_SHIFT) + S390_SEGMENT_BYTES - 1;

	return last > work->last ? work->last : last;
}

static void scan_range(struct merge *merge, uint64_t segment_first, uint64_t segment_last)
{
	struct shadow_work *work = merge->work;
	uint64_t left = visited_max(work->shadow) - work->op->cursor.visited;

	if (over_bound(work))
		left = 0;
	if (work->budget < (int64_t)left && work->budget >= 0)
		left = (uint64_t)work->budget;
	s390_scan_begin(&merge->scan, &work->shadow->anchor, work->view,
			clip_first(work, segment_first), clip_last(work, segment_last), left);
	merge->charged = 0;
}

static void scan_next(struct merge *merge)
{
	s390_scan_next(&merge->scan, &merge->found);
	merge_charge(merge, merge->scan.cost - merge->charged);
	merge->charged = merge->scan.cost;
}

/* Behind the bound: the one segment of the next kept table, or nothing. */
static void source_path(struct merge *merge)
{
	uint64_t segment = merge->kept ? merge->kept->segment : SEGMENT_LAST;

	merge->found.kind = S390_FOUND_END;
	merge->scanning = false;
	work_verdict(merge->work, SHADOW_RESOURCES, 0);
	if (!merge_has_kept(merge))
		return;
	scan_range(merge, segment, segment);
	s390_scan_next(&merge->scan, &merge->found);
	if (merge->found.kind != S390_FOUND_END)
		return;
	merge->found = (struct s390_found){
		.kind = S390_FOUND_PAUSE,
		.first = (segment << S390_SEGMENT_SHIFT) + S390_SEGMENT_BYTES,
	};
	if (segment == SEGMENT_LAST)
		merge->found.kind = S390_FOUND_END;
}

/* Most refreshes are about one segment. The path to it was walked once, by this very step, which is
 * as good as twice; its leaves are loaded again. */
static bool source_seen(struct merge *merge)
{
	if (!merge->mapping || !merge->work->has_seen)
		return false;
	merge->found = merge->work->seen;
	return true;
}

static void source_keep(struct merge *merge)
{
	struct shadow_work *work = merge->work;

	if (segment_of(work->op->first) != segment_of(work->op->last))
		return;
	work->has_seen = true;
	work->seen = merge->found;
}

static void source_tables(struct merge *merge)
{
	struct shadow_work *work = merge->work;

	if (source_seen(merge))
		return;
	if (over_bound(work) && merge->mapping) {
		work->op->cursor.stop = true;
		merge->found.kind = S390_FOUND_END;
		work_verdict(work, SHADOW_RESOURCES, 0);
		return;
	}
	if (over_bound(work)) {
		source_path(merge);
		return;
	}
	if (!merge->scanning)
		scan_range(merge, work->op->cursor.next, merge->segment_last);
	merge->scanning = true;
	scan_next(merge);
}

static void source_managed(struct merge *merge)
{
	const struct shadow_op *op = merge->work->op;
	uint64_t segment = op->cursor.next;

	merge->found = (struct s390_found){.kind = S390_FOUND_END};
	if (op->kind == SHADOW_OP_MANAGED_UNMAP)
		return;
	if (!merge->mapping || op->kind != SHADOW_OP_MANAGED_MAP) {
		if (!merge_has_kept(merge))
			return;
		segment = merge->kept->segment;
	}
	if (segment > merge->segment_last)
		return;
	merge->found.kind = S390_FOUND_MANAGED;
	merge->found.first = segment << S390_SEGMENT_SHIFT;
	merge->found.last = merge->found.first + S390_SEGMENT_BYTES - 1;
}

static void merge_fill(struct merge *merge)
{
	switch (merge->work->shadow->source) {
	case SHADOW_SOURCE_ANCHOR:
		source_tables(merge);
		break;
	case SHADOW_SOURCE_MANAGED:
		source_managed(merge);
		break;
	case SHADOW_SOURCE_NONE:
		merge->found.kind = S390_FOUND_END;
		break;
	}
	merge->have = true;
}

static void merge_absent(struct merge *merge)
{
	struct kept_table *table = merge->kept;

	merge_next_kept(merge);
	merge->work->budget--;
	merge->resumed = false;
	merge->work->op->cursor.next = table->segment + 1;
	visit_absent(merge->work, merge->mapping ? ABSENT_TIDY : ABSENT_FORGET, table);
}

static void merge_present(struct merge *merge)
{
	uint64_t segment = segment_of(merge->found.first);
	struct kept_table *table = NULL;

	if (merge->kept && merge->kept->segment == segment) {
		table = merge->kept;
		merge_next_kept(merge);
	}
	merge_charge(merge, 1);
	merge->resumed = false;
	merge->work->op->cursor.next = segment + 1;
	merge->have = false;
	if (merge->mapping) {
		visit_map(merge->work, &merge->found, table);
		return;
	}
	visit_unmap(merge->work, &merge->found, table);
	source_keep(merge);
}

/* One kept table under the bad entry, or the end of it. */
static void merge_fault(struct merge *merge)
{
	uint64_t last = segment_of(merge->found.last);
	struct kept_table *table = NULL;

	if (last > merge->segment_last)
		last = merge->segment_last;
	if (merge->kept && merge->kept->segment <= last) {
		table = merge->kept;
		merge_next_kept(merge);
		merge->work->op->cursor.next = table->segment + 1;
	} else {
		merge->work->op->cursor.next = last + 1;
		merge->have = false;
	}
	merge->work->budget--;
	merge->resumed = false;
	visit_fault(merge->work, &merge->found.fault, table);
}

/* A bad entry that the first pass did not see: all that is installed under it in the operation's
 * range goes, also what was mapped just now or lies outside the dirty interval. */
static void merge_fault_mapping(struct merge *merge)
{
	struct shadow_work *work = merge->work;
	struct shadow_op *op = work->op;
	const struct s390_found *found = &merge->found;
	uint64_t last = segment_of(found->last);

	work_fault(work, &found->fault);
	op->cursor.resume = (last < merge->segment_last ? last : merge->segment_last) + 1;
	op->cursor.next = segment_of(found->first > work->first ? found->first : work->first);
	op->cursor.fault_last = segment_of(found->last < work->last ? found->last : work->last);
	op->cursor.pass = PASS_FAULT;
}

static uint64_t found_segment_first(const struct merge *merge)
{
	return merge->found.kind == S390_FOUND_END ? UINT64_MAX : segment_of(merge->found.first);
}

/* One visit. true: the range is done. */
static bool merge_one(struct merge *merge)
{
	if (merge->work->op->cursor.next > merge->segment_last)
		return true;
	if (!merge->have)
		merge_fill(merge);
	if (merge_has_kept(merge) && merge->kept->segment < found_segment_first(merge)) {
		merge_absent(merge);
		return false;
	}
	switch (merge->found.kind) {
	case S390_FOUND_END:
		return true;
	case S390_FOUND_PAUSE:
		merge->work->op->cursor.next = segment_of(merge->found.first);
		merge->have = merge->scanning = false;
		break;
	case S390_FOUND_FAULT:
		if (merge->mapping)
			merge_fault_mapping(merge);
		else
			merge_fault(merge);
		break;
	case S390_FOUND_PT:
	case S390_FOUND_FRAME:
	case S390_FOUND_MANAGED:
		merge_present(merge);
		break;
	}
	return false;
}

bool pass_unmap(struct shadow_work *work)
{
	struct merge merge;

	merge_begin(&merge, work, false, segment_of(work->last));
	do {
		if (merge_one(&merge))
			return true;
	} while (work->budget > 0 && !work->broken);
	return false;
}

/* A refresh that met a fault maps no more, registrations map what can be mapped; a managed map
 * succeeds as a whole or not at all. */
bool mapping_ends(const struct shadow_work *work)
{
	const struct shadow_op *op = work->op;

	return op->cursor.stop || work->broken ||
	       (op->kind == SHADOW_OP_REFRESH && op->result.fault.code != S390_PEC_NONE) ||
	       (op->kind == SHADOW_OP_MANAGED_MAP && op->result.verdict != SHADOW_DONE);
}

bool pass_map(struct shadow_work *work)
{
	struct shadow_op *op = work->op;
	uint64_t last = op->cursor.dirty[op->cursor.at_dirty].last;
	struct merge merge;

	merge_begin(&merge, work, true, last);
	while (!mapping_ends(work)) {
		if (merge_one(&merge))
			return true;
		/* A cut may not grow over what is mapped behind it. */
		run_cut_barrier(work);
		if (work->budget <= 0 || op->cursor.pass != PASS_MAP)
			return false;
	}
	return true;
}

bool pass_absent(struct shadow_work *work, enum visit_absent how, uint64_t segment_last)
{
	struct kept_store *store = &work->shadow->store;
	struct kept_table *table = store_at_or_after(store, work->op->cursor.next);

	work->op->cursor.resumed = false;
	while (table && table->segment <= segment_last && !work->broken) {
		struct kept_table *next = store_next(store, table);

		if (work->budget <= 0)
			return false;
		work->op->cursor.next = table->segment + 1;
		work->budget--;
		visit_absent(work, how, table);
		if (work->op->cursor.resumed) /* also of the last one */
			return false;
		table = next;
	}
	return true;
}
