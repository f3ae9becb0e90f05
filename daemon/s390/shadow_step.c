/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Operations as sequences of passes:
 *
 *   refresh	  unmap, map the dirty intervals, tidy
 *   reconcile	  forget below and above the window, then as a refresh
 *   sweep	  unmap, tidy
 *   drop	  one pass over what is kept
 *   managed	  as a refresh; a map that did not succeed as a whole is undone
 *
 * A step ends with nothing pending, so that other operations, and another view, may come between.
 */

#include "s390/shadow_internal.h"

void shadow_op_range(struct shadow_op *op, enum shadow_op_kind kind, uint64_t first, uint64_t last)
{
	*op = (struct shadow_op){.kind = kind, .first = first, .last = last};
}

void shadow_op_refresh(struct shadow_op *op, uint64_t start, uint64_t length)
{
	uint64_t last = start + length - 1;

	shadow_op_range(op, SHADOW_OP_REFRESH, start & S390_PAGE_FRAME, last | ~S390_PAGE_FRAME);
	if (!length)
		op->cursor.pass = PASS_DONE;
	else if (last < start)
		op->cursor.overflow = true;
}

void shadow_op_managed_map(struct shadow_op *op, uint64_t first, uint64_t last, uint64_t gpa,
			   bool writable)
{
	shadow_op_range(op, SHADOW_OP_MANAGED_MAP, first, last);
	op->gpa = gpa;
	op->writable = writable;
}

static void op_fail(struct shadow_op *op, enum s390_event_code code, uint64_t iova)
{
	op->result.verdict = SHADOW_ERROR;
	op->result.fault =
		(struct s390_fault){.code = code, .level = S390_LEVEL_NONE, .iova = iova};
	op->cursor.pass = PASS_DONE;
}

/* true: the operation's range lies in the window in full. Otherwise it is answered. */
static bool range_check(const struct shadow *shadow, struct shadow_op *op)
{
	uint64_t iova = op->first;

	if (!shadow->has_window) {
		op_fail(op, S390_PEC_INVALAS, op->first);
		return false;
	}
	if (!op->cursor.overflow && op->first <= op->last && op->first >= shadow->window_first &&
	    op->last <= shadow->window_last)
		return true;
	if (op->first >= shadow->window_first && op->first <= shadow->window_last)
		iova = shadow->window_last + 1;
	op_fail(op, S390_PEC_OORANGE, iova);
	return false;
}

static bool anchor_is_relaxed(const struct shadow *shadow)
{
	return shadow->source == SHADOW_SOURCE_ANCHOR && s390_anchor_is_relaxed(&shadow->anchor);
}

static void pass_set(struct shadow_op *op, enum pass pass, uint64_t iova)
{
	op->cursor.pass = pass;
	op->cursor.next = segment_of(iova);
	op->cursor.visited = 0;
	op->cursor.at_leaf = 0;
	op->cursor.resumed = false;
}

static bool managed_check(const struct shadow *shadow, struct shadow_op *op)
{
	if (shadow->source != SHADOW_SOURCE_MANAGED) {
		op_fail(op, S390_PEC_INVALAS, op->first);
		return false;
	}
	if (!range_check(shadow, op))
		return false;
	if (op->kind == SHADOW_OP_MANAGED_MAP &&
	    (op->gpa & ~S390_PAGE_FRAME || op->gpa + (op->last - op->first) < op->gpa)) {
		op_fail(op, S390_PEC_INVALTE, op->first);
		op->result.fault.entry = op->gpa;
		op->result.fault.outside_memory = true;
		return false;
	}
	return true;
}

/* What comes after the foreign tables went. */
static void begin_kind(const struct shadow *shadow, struct shadow_op *op)
{
	switch (op->kind) {
	case SHADOW_OP_RECONCILE:
		pass_set(op, PASS_BELOW, 0);
		break;
	case SHADOW_OP_DROP:
		pass_set(op, PASS_DROP, op->first);
		break;
	case SHADOW_OP_SWEEP:
		if (!shadow->has_window) {
			op->cursor.pass = PASS_DONE;
			break;
		}
		pass_set(op, PASS_UNMAP, op->first);
		break;
	default:
		pass_set(op, PASS_UNMAP, op->first);
		break;
	}
}

static bool begin_check(const struct shadow *shadow, struct shadow_op *op)
{
	switch (op->kind) {
	case SHADOW_OP_REFRESH:
		if (anchor_is_relaxed(shadow)) {
			op->cursor.pass = PASS_DONE;
			return false;
		}
		return range_check(shadow, op);
	case SHADOW_OP_MANAGED_MAP:
	case SHADOW_OP_MANAGED_UNMAP:
		return managed_check(shadow, op);
	case SHADOW_OP_RECONCILE:
	case SHADOW_OP_SWEEP:
		op->first = shadow->window_first;
		op->last = shadow->window_last;
		return true;
	case SHADOW_OP_DROP:
		return true;
	}
	return true;
}

static void op_begin(struct shadow *shadow, struct shadow_op *op)
{
	shadow->stats.refreshes += op->kind == SHADOW_OP_REFRESH;
	shadow->stats.sweeps += op->kind == SHADOW_OP_SWEEP;
	if (!++shadow->epoch)
		shadow->epoch = 1;
	op->cursor.epoch = shadow->epoch;
	op->cursor.swept = shadow->leaves_new;
	if (!begin_check(shadow, op))
		return;
	begin_kind(shadow, op);
	if (shadow->foreign)
		pass_set(op, PASS_FOREIGN, 0);
}

static bool op_is_whole(const struct shadow *shadow, const struct shadow_op *op)
{
	if (op->kind == SHADOW_OP_RECONCILE || op->kind == SHADOW_OP_SWEEP)
		return true;
	return op->kind == SHADOW_OP_REFRESH && op->first <= shadow->window_first &&
	       op->last >= shadow->window_last;
}

/* The unmaps are through: who maps, who does not. */
static void after_unmap(struct shadow_work *work)
{
	struct shadow_op *op = work->op;
	bool faulted = op->result.fault.code != S390_PEC_NONE;

	if (work->whole)
		work->shadow->leaves_new -= op->cursor.swept < work->shadow->leaves_new
						    ? op->cursor.swept
						    : work->shadow->leaves_new;
	if (op->kind == SHADOW_OP_MANAGED_MAP) {
		op->cursor.n_dirty = 1;
		op->cursor.dirty[0].first = segment_of(op->first);
		op->cursor.dirty[0].last = segment_of(op->last);
	}
	op->cursor.at_dirty = 0;
	if (!op->cursor.n_dirty) {
		op->cursor.pass = PASS_DONE;
		return;
	}
	pass_set(op,
		 op->kind == SHADOW_OP_SWEEP || (op->kind == SHADOW_OP_REFRESH && faulted)
			 ? PASS_TIDY
			 : PASS_MAP,
		 0);
	op->cursor.next = op->cursor.dirty[0].first;
}

static bool managed_failed(const struct shadow_op *op)
{
	return op->kind == SHADOW_OP_MANAGED_MAP && op->result.verdict != SHADOW_DONE;
}

/* One dirty interval is through; what comes next. */
static void next_dirty(struct shadow_op *op)
{
	if (++op->cursor.at_dirty < op->cursor.n_dirty) {
		op->cursor.next = op->cursor.dirty[op->cursor.at_dirty].first;
		return;
	}
	op->cursor.pass = PASS_DONE;
}

static void after_map(struct shadow_work *work)
{
	struct shadow_op *op = work->op;

	if (!mapping_ends(work)) {
		next_dirty(op);
		if (op->cursor.pass != PASS_DONE)
			return;
	}
	/* The last run decides whether there is something left to do. */
	run_flush(work);
	op->cursor.pass = PASS_DONE;
	if (managed_failed(op)) {
		pass_set(op, PASS_UNDO, op->first);
	} else if (op->cursor.untidy || mapping_ends(work)) {
		op->cursor.at_dirty = 0;
		pass_set(op, PASS_TIDY, 0);
		op->cursor.next = op->cursor.dirty[0].first;
	}
}

static void work_range(struct shadow_work *work, uint64_t first, uint64_t last)
{
	work->first = first;
	work->last = last;
}

/* Below and above the window; all of it if there is none. true: through. */
static bool outside_run(struct shadow_work *work)
{
	struct shadow *shadow = work->shadow;
	struct shadow_op *op = work->op;

	if (op->cursor.pass == PASS_BELOW) {
		bool all = !shadow->has_window;

		work_range(work, 0, all ? UINT64_MAX : shadow->window_first - 1);
		if ((all || shadow->window_first > 0) &&
		    !pass_absent(work, ABSENT_FORGET, segment_of(work->last)))
			return false;
		if (all)
			op->cursor.pass = PASS_DONE;
		else
			pass_set(op, PASS_ABOVE, shadow->window_last);
		return true;
	}
	work_range(work, shadow->window_last + 1, UINT64_MAX);
	if (work->first && op->cursor.next < segment_of(work->first))
		op->cursor.next = segment_of(work->first);
	if (work->first && !pass_absent(work, ABSENT_FORGET, SEGMENT_LAST))
		return false;
	pass_set(op, PASS_UNMAP, op->first);
	return true;
}

/* Nothing became mapped in the end; unmapped is what was installed when the operation began. */
static void undo_done(struct shadow_op *op)
{
	op->result.unmapped += op->cursor.changed;
	op->result.unmapped -= op->result.mapped;
	op->result.mapped = 0;
	op->cursor.pass = PASS_DONE;
}

/* One pass, as far as the budget goes. */
static void pass_run(struct shadow_work *work)
{
	struct shadow *shadow = work->shadow;
	struct shadow_op *op = work->op;

	work_range(work, op->first, op->last);
	switch ((enum pass)op->cursor.pass) {
	case PASS_FOREIGN:
		work_range(work, 0, UINT64_MAX);
		if (pass_absent(work, ABSENT_FORGET, SEGMENT_LAST) && !work->broken) {
			shadow->foreign = false;
			begin_kind(shadow, op);
		}
		break;
	case PASS_BELOW:
	case PASS_ABOVE:
		outside_run(work);
		break;
	case PASS_UNMAP:
		if (pass_unmap(work))
			after_unmap(work);
		break;
	case PASS_MAP:
		if (pass_map(work))
			after_map(work);
		break;
	case PASS_FAULT:
		if (pass_absent(work, ABSENT_FORGET, op->cursor.fault_last)) {
			op->cursor.pass = PASS_MAP;
			op->cursor.next = op->cursor.resume;
		}
		break;
	case PASS_TIDY:
		if (pass_absent(work, ABSENT_TIDY, op->cursor.dirty[op->cursor.at_dirty].last))
			next_dirty(op);
		break;
	case PASS_DROP:
		if (pass_absent(work,
				shadow->source == SHADOW_SOURCE_MANAGED ? ABSENT_HOLD
									: ABSENT_FORGET,
				segment_of(op->last)))
			op->cursor.pass = PASS_DONE;
		break;
	case PASS_UNDO:
		if (pass_absent(work, ABSENT_FORGET, segment_of(op->last)))
			undo_done(op);
		break;
	case PASS_BEGIN:
	case PASS_DONE:
		break;
	}
}

/* The window may have changed between steps. What is asked for the whole window begins anew; what
 * is left of a range must lie in the new one. */
static void step_check(struct shadow *shadow, struct shadow_op *op)
{
	bool moved = op->first != shadow->window_first || op->last != shadow->window_last;

	switch (op->kind) {
	case SHADOW_OP_RECONCILE:
	case SHADOW_OP_SWEEP:
		if (moved || shadow->foreign) {
			op->cursor.n_dirty = 0;
			op_begin(shadow, op);
		}
		break;
	case SHADOW_OP_DROP:
		break;
	case SHADOW_OP_REFRESH:
	case SHADOW_OP_MANAGED_MAP:
	case SHADOW_OP_MANAGED_UNMAP:
		if (shadow->foreign && op->cursor.pass != PASS_FOREIGN)
			op_fail(op, S390_PEC_INVALAS, op->first);
		else
			begin_check(shadow, op);
		break;
	}
}

static void step_run(struct shadow_work *work)
{
	struct shadow_op *op = work->op;

	if (op->cursor.pass == PASS_BEGIN)
		op_begin(work->shadow, op);
	else
		step_check(work->shadow, op);
	work->whole = op_is_whole(work->shadow, op);
	while (op->cursor.pass != PASS_DONE && work->budget > 0 && !work->broken) {
		uint32_t pass = op->cursor.pass;

		pass_run(work);
		/* The next pass works elsewhere: what lies between is not of this cut. */
		if (op->cursor.pass != pass)
			run_flush(work);
	}
	run_flush(work);
}

bool shadow_step(struct shadow *shadow, const struct memory_view *view, struct shadow_op *op,
		 unsigned int budget)
{
	const int64_t all = budget ? (int64_t)budget : INT64_MAX;
	struct shadow_work work = {.shadow = shadow, .view = view, .op = op, .budget = all};

	if (op->cursor.pass == PASS_DONE)
		return false;
	if (run_pay_owed_cut(&work))
		step_run(&work);
	if (work.broken)
		op->cursor.pass = PASS_DONE;
	op->cost += (uint64_t)(all - work.budget);
	return op->cursor.pass != PASS_DONE;
}

static int drop_filtered(struct shadow *shadow, const struct memory_view *view,
			 struct frame_filter *filter)
{
	struct shadow_op op = {.kind = SHADOW_OP_DROP};
	struct shadow_work work = {.shadow = shadow, .view = view, .op = &op, .budget = INT64_MAX};
	struct kept_table *table = store_at_or_after(&shadow->store, 0);

	if (!run_pay_owed_cut(&work))
		return op.result.host_errno;
	while (table && !work.broken) {
		struct kept_table *next = store_next(&shadow->store, table);

		visit_drop_frames(&work, table, filter);
		table = next;
	}
	run_cut_barrier(&work);
	return op.result.host_errno;
}

int shadow_drop_frames(struct shadow *shadow, const struct memory_view *view, uint64_t gpa_first,
		       uint64_t gpa_last)
{
	struct frame_filter filter = {.gpa_first = gpa_first, .gpa_last = gpa_last};

	return drop_filtered(shadow, view, &filter);
}

int shadow_drop_outside(struct shadow *shadow, const struct memory_view *view,
			const struct memory_view *kept)
{
	struct frame_filter filter = {.kept = kept};

	return drop_filtered(shadow, view, &filter);
}
