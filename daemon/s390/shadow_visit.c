/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One segment: what the guest's tables want there against what is kept of them.
 *
 * The comparison of a whole table is a filter. What differs is loaded again, each word once, and
 * decided on; the loaded value is what is kept. Leaves are compared by what they do (frame,
 * writable), not by their bits.
 */

#include "s390/shadow_internal.h"
#include "util/guest_read.h"

struct visit {
	struct shadow_work *work;
	const struct s390_found *found;
	struct kept_table *table;
	unsigned int low, high; /* leaves that this visit may act on */
	bool whole;             /* they are all that the window has of the segment */
	bool resumed, stopped;  /* the step before, or this one, ended within them */
	bool recheck;           /* decided under another view, window or protection */
	bool admissible;        /* a 1 MiB frame: lies in memory as a whole */
	uint64_t words[S390_PT_ENTRIES];
};

static bool visit_is_whole(const struct shadow *shadow, uint64_t segment, unsigned int low,
			   unsigned int high)
{
	uint64_t base = segment << S390_SEGMENT_SHIFT;
	uint64_t first = base + low * S390_PAGE_BYTES;
	uint64_t last = base + high * S390_PAGE_BYTES + S390_PAGE_BYTES - 1;

	return (low == 0 || first <= shadow->window_first) &&
	       (high == S390_PT_ENTRIES - 1 || last >= shadow->window_last);
}

static void visit_init(struct visit *visit, struct shadow_work *work,
		       const struct s390_found *found, struct kept_table *table)
{
	uint64_t segment = segment_of(found->first);

	visit->work = work;
	visit->found = found;
	visit->table = table;
	visit->low = leaf_low(work, segment);
	visit->high = leaf_high(work, segment);
	visit->resumed = visit->stopped = false;
	if (segment == work->op->cursor.at_segment && work->op->cursor.at_leaf > visit->low &&
	    work->op->cursor.at_leaf <= visit->high) {
		visit->low = work->op->cursor.at_leaf;
		visit->resumed = true;
	}
	visit->whole = visit_is_whole(work->shadow, segment, visit->low, visit->high);
	visit->recheck = false;
	visit->admissible = true;
}

/* The segment is gone on with in the next step: the same pass comes to it again. */
static void segment_leave(struct shadow_work *work, uint64_t segment)
{
	work->op->cursor.next = segment;
	work->op->cursor.resumed = true;
}

/* true: the budget is spent, and leaf i was the last of this step. What is left is as a range of
 * its own: so nothing says that the segment was looked at as a whole. */
static bool visit_stops(struct visit *visit, unsigned int i)
{
	struct shadow_op *op = visit->work->op;

	if (visit->work->budget > 0 || i == visit->high)
		return false;
	op->cursor.at_segment = segment_of(visit->found->first);
	op->cursor.at_leaf = i + 1;
	segment_leave(visit->work, op->cursor.at_segment);
	visit->stopped = true;
	visit->whole = false;
	return true;
}

static bool visit_is_full(const struct visit *visit)
{
	return visit->low == 0 && visit->high == S390_PT_ENTRIES - 1;
}

static bool table_is_current(const struct visit *visit)
{
	const struct kept_table *table = visit->table;

	return table->view_generation == visit->work->view->generation &&
	       table->window_generation == visit->work->shadow->window_generation &&
	       table->protect == visit->found->protect &&
	       table->from_frame == (visit->found->kind == S390_FOUND_FRAME) &&
	       table->managed == (visit->found->kind == S390_FOUND_MANAGED);
}

static void table_stamp(const struct visit *visit)
{
	struct kept_table *table = visit->table;

	table->view_generation = visit->work->view->generation;
	table->window_generation = visit->work->shadow->window_generation;
	table->protect = visit->found->protect;
	table->from_frame = visit->found->kind == S390_FOUND_FRAME;
	table->managed = visit->found->kind == S390_FOUND_MANAGED;
}

/* Leaves that were held for reasons that are void are as if nobody had looked at them. */
static void table_release_held(struct kept_table *table)
{
	for (unsigned int i = 0; i < S390_PT_ENTRIES; i++) {
		if (bit_get(&table->held, i) && !table->managed)
			table->raw[i] = htobe64(S390_PAGE_INVALID);
	}
	table->held = (struct leaf_bits){0};
}

/* Put the table under the present view, window and protection. What this visit does not act on
 * stays to be checked. */
static void visit_restamp(struct visit *visit)
{
	if (!table_is_current(visit)) {
		table_release_held(visit->table);
		table_stamp(visit);
		visit->table->incomplete = true;
	}
	visit->recheck = visit->table->incomplete;
}

static void visit_unreadable(struct visit *visit)
{
	struct s390_fault fault = {
		.code = S390_PEC_INVALTE,
		.level = S390_LEVEL_SEGMENT,
		.iova = visit->found->first,
		.entry = visit->found->gpa,
		.outside_memory = true,
	};

	visit_fault(visit->work, &fault, visit->table);
}

static void frame_words(struct visit *visit)
{
	uint64_t gpa = visit->found->gpa;

	for (unsigned int i = visit->low; i <= visit->high; i++)
		visit->words[i] = htobe64(gpa + i * S390_PAGE_BYTES);
	visit->admissible = memory_view_covers(visit->work->view, gpa, S390_SEGMENT_BYTES,
					       !visit->found->protect);
}

/* What an operation on a managed shadow wants: the range that it gives, or what was wanted. */
static void managed_words(struct visit *visit)
{
	const struct shadow_op *op = visit->work->op;
	uint64_t protect = op->writable ? 0 : S390_PROTECT;

	for (unsigned int i = visit->low; i <= visit->high; i++) {
		uint64_t offset = visit->found->first + i * S390_PAGE_BYTES - op->first;

		if (op->kind == SHADOW_OP_MANAGED_MAP)
			visit->words[i] = htobe64((op->gpa + offset) | protect);
		else
			visit->words[i] = visit->table->raw[i];
	}
}

/* The words of the leaves that the visit acts on, each loaded once. */
static bool visit_load(struct visit *visit)
{
	switch (visit->found->kind) {
	case S390_FOUND_FRAME:
		frame_words(visit);
		return true;
	case S390_FOUND_MANAGED:
		managed_words(visit);
		return true;
	default:
		return guest_read_words(visit->found->host + visit->low * sizeof(uint64_t),
					visit->words + visit->low, visit->high - visit->low + 1);
	}
}

static bool word_writable(const struct visit *visit, uint64_t word)
{
	return !visit->found->protect && !s390_word_protected(word);
}

/* Rule 8: the frame lies in memory, and in writable memory if the leaf is writable. */
static bool word_admissible(const struct visit *visit, uint64_t word,
			    enum shadow_leaf_refusal *ret_refusal)
{
	struct shadow_work *work = visit->work;
	const struct memory_view_region *region;
	bool writable = word_writable(visit, word);

	*ret_refusal = SHADOW_LEAF_OUTSIDE_MEMORY;
	if (visit->found->kind == S390_FOUND_FRAME) {
		if (visit->admissible)
			return true;
		if (writable &&
		    memory_view_covers(work->view, visit->found->gpa, S390_SEGMENT_BYTES, false))
			*ret_refusal = SHADOW_LEAF_READ_ONLY_MEMORY;
		return false;
	}
	region = memory_view_find(work->view, s390_word_frame(word), &work->hint);
	if (!region)
		return false;
	*ret_refusal = SHADOW_LEAF_READ_ONLY_MEMORY;
	return region->writable || !writable;
}

/* Whether the installed leaf i does what word asks for. */
static bool leaf_does(const struct visit *visit, unsigned int i, uint64_t word)
{
	const struct kept_table *table = visit->table;

	return s390_word_valid(word) && s390_word_frame(word) == s390_word_frame(table->raw[i]) &&
	       word_writable(visit, word) == bit_get(&table->writable, i);
}

static void leaf_mark_changed(const struct visit *visit, unsigned int i)
{
	struct kept_node *node = store_node(&visit->work->shadow->store, visit->table);

	if (node->changed_epoch != visit->work->op->cursor.epoch) {
		node->changed_epoch = visit->work->op->cursor.epoch;
		visit->table->changed = (struct leaf_bits){0};
	}
	bit_put(&visit->table->changed, i, true);
}

/* Leaf i is not, or no more, installed: keep what was seen. true: the second pass has to map it. */
static bool leaf_keep(struct visit *visit, unsigned int i, uint64_t word)
{
	struct kept_table *table = visit->table;

	if (s390_word_valid(word) && bit_get(&table->held, i) && table->raw[i] == word)
		return false;
	table->raw[i] = word;
	bit_put(&table->held, i, false);
	if (!s390_word_valid(word))
		return false;
	leaf_unsettle(table, i);
	return true;
}

/* First pass, one leaf. true: the second pass has to map it. */
static bool leaf_unmap(struct visit *visit, unsigned int i)
{
	struct kept_table *table = visit->table;
	uint64_t word = visit->words[i];
	enum shadow_leaf_refusal refusal;

	if (!bit_get(&table->installed, i))
		return leaf_keep(visit, i, word);
	if (leaf_does(visit, i, word) &&
	    (!visit->recheck || word_admissible(visit, word, &refusal))) {
		run_cut_barrier(visit->work);
		table->raw[i] = word;
		return false;
	}
	if (!run_cut_leaf(visit->work, table, i))
		return false;
	if (s390_word_valid(word))
		leaf_mark_changed(visit, i);
	return leaf_keep(visit, i, word);
}

static void dirty_merge_closest(struct shadow_op *op)
{
	uint32_t best = 1;

	for (uint32_t i = 2; i < op->cursor.n_dirty; i++) {
		if (op->cursor.dirty[i].first - op->cursor.dirty[i - 1].last <
		    op->cursor.dirty[best].first - op->cursor.dirty[best - 1].last)
			best = i;
	}
	op->cursor.dirty[best - 1].last = op->cursor.dirty[best].last;
	op->cursor.n_dirty--;
	for (uint32_t i = best; i < op->cursor.n_dirty; i++)
		op->cursor.dirty[i] = op->cursor.dirty[i + 1];
}

/* Segments come in order: the new one extends the last interval or opens one. */
static void dirty_add(struct shadow_op *op, uint64_t segment)
{
	uint32_t n = op->cursor.n_dirty;

	if (n && segment <= op->cursor.dirty[n - 1].last + 1) {
		if (segment > op->cursor.dirty[n - 1].last)
			op->cursor.dirty[n - 1].last = segment;
		return;
	}
	if (n == SHADOW_DIRTY_MAX)
		dirty_merge_closest(op);
	n = op->cursor.n_dirty++;
	op->cursor.dirty[n].first = op->cursor.dirty[n].last = segment;
}

static void table_release_if_empty(struct shadow_work *work, struct kept_table *table)
{
	if (table_is_empty(table))
		store_remove(&work->shadow->store, table);
}

/* First pass over a segment of which nothing is kept. */
static void visit_unmap_new(struct visit *visit)
{
	const struct s390_found *found = visit->found;

	if (found->kind == S390_FOUND_PT && visit_is_full(visit)) {
		switch (guest_read_any_clear(found->host, S390_PT_ENTRIES,
					     htobe64(S390_PAGE_INVALID))) {
		case GUEST_FAULT:
			visit_unreadable(visit);
			return;
		case GUEST_SAME:
			return;
		case GUEST_DIFFERENT:
			dirty_add(visit->work->op, segment_of(found->first));
			return;
		}
	}
	if (!visit_load(visit)) {
		visit_unreadable(visit);
		return;
	}
	for (unsigned int i = visit->low; i <= visit->high; i++) {
		if (s390_word_valid(visit->words[i])) {
			dirty_add(visit->work->op, segment_of(found->first));
			return;
		}
	}
}

/* The filter. GUEST_SAME: the whole segment is as it was, and so is the right answer. */
static enum guest_compare visit_compare(const struct visit *visit)
{
	const struct kept_table *table = visit->table;
	const struct s390_found *found = visit->found;

	if (!visit_is_full(visit) || table->incomplete || !table_is_current(visit))
		return GUEST_DIFFERENT;
	if (found->kind == S390_FOUND_FRAME)
		return table->segment_entry == found->entry ? GUEST_SAME : GUEST_DIFFERENT;
	if (found->kind == S390_FOUND_PT)
		return guest_read_compare(table->raw, found->host, S390_PT_BYTES);
	return GUEST_DIFFERENT;
}

/* First pass over a segment of which something is kept, and which is not the same. */
static void visit_unmap_changed(struct visit *visit)
{
	struct kept_table *table = visit->table;
	bool dirty = false;

	visit_restamp(visit);
	for (unsigned int i = visit->low; i <= visit->high; i++) {
		dirty |= leaf_unmap(visit, i);
		if (visit_stops(visit, i))
			break;
	}
	if (visit->work->broken) {
		table->incomplete = true;
		return;
	}
	if (visit->whole)
		table->incomplete = false;
	if (dirty) {
		table->incomplete |= table->from_frame;
		dirty_add(visit->work->op, table->segment);
		return;
	}
	if (table->from_frame && visit->whole)
		table->segment_entry = visit->found->entry;
	table_release_if_empty(visit->work, table);
}

void visit_unmap(struct shadow_work *work, const struct s390_found *found, struct kept_table *table)
{
	struct visit visit;

	visit_init(&visit, work, found, table);
	if (!table) {
		visit_unmap_new(&visit);
		return;
	}
	switch (visit_compare(&visit)) {
	case GUEST_SAME:
		store_node(&work->shadow->store, table)->checked_epoch = work->op->cursor.epoch;
		if (work->cut.pending && bits_any(&table->installed))
			run_cut_barrier(work);
		return;
	case GUEST_FAULT:
		visit_unreadable(&visit);
		return;
	case GUEST_DIFFERENT:
		break;
	}
	if (visit_load(&visit))
		visit_unmap_changed(&visit);
	else
		visit_unreadable(&visit);
}

/* The table to keep a leaf in, made when there is the first. */
static bool visit_table(struct visit *visit)
{
	struct shadow_work *work = visit->work;

	if (visit->table)
		return true;
	visit->table = store_add(&work->shadow->store, segment_of(visit->found->first));
	if (!visit->table) {
		work_verdict(work, SHADOW_RESOURCES, 0);
		return false;
	}
	table_stamp(visit);
	/* The rest of a frame is not looked at. */
	visit->table->incomplete = visit->table->from_frame && !visit->whole;
	return true;
}

/* Rule 8: keep the leaf as not installed, and say so once. *told: of a frame as a whole. */
static bool leaf_hold(struct visit *visit, unsigned int i, uint64_t word,
		      enum shadow_leaf_refusal refusal, bool *told)
{
	const struct shadow *shadow = visit->work->shadow;
	uint64_t iova = visit->found->first + i * S390_PAGE_BYTES;

	if (!visit_table(visit))
		return false;
	visit->table->raw[i] = word;
	bit_put(&visit->table->held, i, true);
	if (shadow->ops->leaf_refused && !*told) {
		visit->work->budget -= REFUSAL_COST;
		shadow->ops->leaf_refused(shadow->context, iova, s390_word_frame(word), refusal);
	}
	*told = visit->found->kind == S390_FOUND_FRAME;
	return true;
}

/* Second pass, one valid word. true: the leaf is settled, installed or held. */
static bool leaf_map(struct visit *visit, unsigned int i, uint64_t word, bool *told)
{
	enum shadow_leaf_refusal refusal;
	struct kept_table *table = visit->table;

	if (table && bit_get(&table->installed, i)) {
		if (!leaf_does(visit, i, word) ||
		    (visit->recheck && !word_admissible(visit, word, &refusal)))
			return false; /* changed since the first pass: the guest will say so */
		table->raw[i] = word;
		return true;
	}
	if (table && bit_get(&table->held, i) && table->raw[i] == word)
		return true;
	if (!word_admissible(visit, word, &refusal))
		return leaf_hold(visit, i, word, refusal, told);
	if (visit_table(visit) &&
	    run_map_leaf(visit->work, visit->table, i, word, word_writable(visit, word)))
		return true;
	if (visit->table) {
		visit->table->raw[i] = word;
		leaf_unsettle(visit->table, i);
	}
	return false;
}

/* true: what came before leaf i spent the budget. */
static bool visit_stops_before(struct visit *visit, unsigned int i)
{
	uint64_t word = visit->words[i];

	if (i == visit->low)
		return false;
	if (s390_word_valid(word))
		run_map_end(visit->work, visit->found->first + i * S390_PAGE_BYTES, word,
			    word_writable(visit, word));
	return visit_stops(visit, i - 1);
}

static bool visit_map_leaves(struct visit *visit)
{
	/* Of a frame its first leaf told it. */
	bool settled = true, told = visit->resumed && visit->found->kind == S390_FOUND_FRAME;

	for (unsigned int i = visit->low; i <= visit->high; i++) {
		uint64_t word = visit->words[i];

		if (visit_stops_before(visit, i))
			break;
		if (s390_word_valid(word)) {
			settled &= leaf_map(visit, i, word, &told);
		} else if (visit->table && !bit_get(&visit->table->installed, i)) {
			visit->table->raw[i] = word;
			bit_put(&visit->table->held, i, false);
		}
	}
	return settled;
}

void visit_map(struct shadow_work *work, const struct s390_found *found, struct kept_table *table)
{
	struct visit visit;
	bool settled;

	if (table &&
	    store_node(&work->shadow->store, table)->checked_epoch == work->op->cursor.epoch)
		return;
	visit_init(&visit, work, found, table);
	if (!visit_load(&visit)) {
		visit_unreadable(&visit);
		return;
	}
	if (table) {
		visit_restamp(&visit);
		/* Every leaf of it is checked here; a run that fails meanwhile says so again. */
		if (found->kind == S390_FOUND_FRAME && visit.whole)
			table->incomplete = false;
	}
	settled = visit_map_leaves(&visit);
	table = visit.table;
	if (!table)
		return;
	if (found->kind == S390_FOUND_FRAME && visit.whole) {
		table->segment_entry = found->entry;
		table->incomplete |= !settled;
	}
	if (visit.stopped)
		table->incomplete |= table->from_frame;
	table_release_if_empty(work, table);
}

/* Cut what this pass's range has of the table, as far as the budget goes: what was cut needs no
 * cursor, it is not installed any more. */
static void table_cut(struct shadow_work *work, struct kept_table *table, bool forget)
{
	unsigned int high = leaf_high(work, table->segment);
	bool spent = false;

	/* The filter of a frame does not look at its words. */
	table->incomplete |= table->from_frame;
	for (unsigned int i = leaf_low(work, table->segment); i <= high; i++) {
		if (bit_get(&table->installed, i)) {
			if (spent) {
				segment_leave(work, table->segment);
				return;
			}
			if (!run_cut_leaf(work, table, i))
				return;
			spent = work->budget <= 0;
		}
		if (!forget && s390_word_valid(table->raw[i])) {
			leaf_unsettle(table, i);
		} else {
			table->raw[i] = htobe64(S390_PAGE_INVALID);
			bit_put(&table->held, i, false);
		}
	}
}

void visit_absent(struct shadow_work *work, enum visit_absent how, struct kept_table *table)
{
	if (how != ABSENT_TIDY)
		table_cut(work, table, how == ABSENT_FORGET);
	if (!work->broken)
		table_release_if_empty(work, table);
}

void visit_fault(struct shadow_work *work, const struct s390_fault *fault, struct kept_table *table)
{
	work_fault(work, fault);
	if (table)
		visit_absent(work, ABSENT_FORGET, table);
}

static bool frame_goes(struct frame_filter *filter, uint64_t gpa)
{
	if (filter->kept)
		return !memory_view_find(filter->kept, gpa, &filter->hint);
	return gpa >= filter->gpa_first && gpa <= filter->gpa_last;
}

void visit_drop_frames(struct shadow_work *work, struct kept_table *table,
		       struct frame_filter *filter)
{
	for (unsigned int i = 0; i < S390_PT_ENTRIES; i++) {
		uint64_t gpa = s390_word_frame(table->raw[i]);

		if (!bit_get(&table->installed, i))
			continue;
		if (!frame_goes(filter, gpa)) {
			run_cut_barrier(work);
			continue;
		}
		if (!run_cut_leaf(work, table, i))
			return;
		leaf_unsettle(table, i);
	}
	table_release_if_empty(work, table);
}
