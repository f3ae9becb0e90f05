/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The shadow as an object: limits, source of translations, what is installed, statistics.
 */

#include <errno.h>
#include <stdlib.h>

#include "s390/shadow_internal.h"

uint64_t shadow_storage_bytes(const struct shadow_limits *limits)
{
	uint64_t bytes =
		SHADOW_HEADER_BYTES + (uint64_t)limits->tables_max * sizeof(struct kept_table);

	return (bytes + S390_PAGE_BYTES - 1) & S390_PAGE_FRAME;
}

int shadow_new(struct shadow **ret, const struct shadow_ops *ops, void *context,
	       const struct shadow_limits *limits, void *storage)
{
	struct shadow *shadow = calloc(1, sizeof(*shadow));

	if (!shadow)
		return -ENOMEM;
	shadow->ops = ops;
	shadow->context = context;
	shadow->limits = *limits;
	if (store_init(&shadow->store, storage, limits->tables_max) < 0) {
		free(shadow);
		return -ENOMEM;
	}
	*shadow->store.header = (struct shadow_header){
		.magic = SHADOW_MAGIC,
		.version = SHADOW_VERSION,
		.tables_max = limits->tables_max,
		.leaves_max = limits->leaves_max,
	};
	*ret = shadow;
	return 0;
}

struct shadow *shadow_free(struct shadow *shadow, const struct memory_view *view)
{
	if (!shadow)
		return NULL;
	shadow_forget(shadow, view);
	store_deinit(&shadow->store);
	free(shadow);
	return NULL;
}

static void window_set(struct shadow *shadow, enum shadow_source source, bool has_window,
		       uint64_t first, uint64_t last)
{
	/* Words of a guest's tables mean nothing as wishes of a VMM, nor the other way round. */
	if (shadow->store.kept && source != shadow->kept_source && source != SHADOW_SOURCE_NONE)
		shadow->foreign = true;
	if (source != SHADOW_SOURCE_NONE)
		shadow->kept_source = source;
	shadow->source = source;
	shadow->has_window = has_window;
	shadow->window_first = first;
	shadow->window_last = last;
	shadow->window_generation++;
}

void shadow_set_anchor(struct shadow *shadow, const struct s390_anchor *anchor)
{
	if (!anchor) {
		window_set(shadow, SHADOW_SOURCE_NONE, false, 0, 0);
		return;
	}
	window_set(shadow, SHADOW_SOURCE_ANCHOR, !s390_anchor_is_relaxed(anchor), anchor->pba,
		   anchor->pal);
	shadow->anchor = *anchor;
}

void shadow_set_managed(struct shadow *shadow, uint64_t first, uint64_t last)
{
	window_set(shadow, SHADOW_SOURCE_MANAGED, true, first, last);
}

const struct s390_anchor *shadow_anchor(const struct shadow *shadow)
{
	return shadow->source == SHADOW_SOURCE_ANCHOR ? &shadow->anchor : NULL;
}

static void table_forget(struct shadow *shadow, const struct memory_view *view,
			 struct kept_table *table)
{
	size_t hint = 0;

	for (unsigned int i = 0; i < S390_PT_ENTRIES; i++) {
		if (!bit_get(&table->installed, i))
			continue;
		leaf_refund(shadow, view, &hint, table, i);
		leaf_unsettle(table, i);
	}
	if (table_is_empty(table))
		store_remove(&shadow->store, table);
}

void shadow_forget(struct shadow *shadow, const struct memory_view *view)
{
	struct kept_table *table = store_at_or_after(&shadow->store, 0);

	shadow->cut_owed = false;
	intent_clear(&shadow->store.header->owed);
	while (table) {
		struct kept_table *next = store_next(&shadow->store, table);

		table_forget(shadow, view, table);
		table = next;
	}
}

bool shadow_sweep_due(const struct shadow *shadow)
{
	return shadow->leaves_new >= SWEEP_LEAVES;
}

void shadow_stats(const struct shadow *shadow, struct shadow_stats *ret)
{
	*ret = shadow->stats;
	ret->leaves_installed = shadow->leaves_installed;
	ret->tables_kept = shadow->store.kept;
	/* Slots that were used once stay in memory. */
	ret->bytes_kept =
		sizeof(*shadow) + (uint64_t)shadow->store.touched *
					  (sizeof(struct kept_table) + sizeof(struct kept_node));
}

bool shadow_lookup(const struct shadow *shadow, uint64_t iova, uint64_t *ret_gpa,
		   bool *ret_writable)
{
	const struct kept_table *table = store_find(&shadow->store, segment_of(iova));
	unsigned int i = iova >> 12 & (S390_PT_ENTRIES - 1);

	if (!table || !bit_get(&table->installed, i))
		return false;
	*ret_gpa = s390_word_frame(table->raw[i]) + (iova & ~S390_PAGE_FRAME);
	*ret_writable = bit_get(&table->writable, i);
	return true;
}

/* Add a leaf to the runs, joined to the last one if it follows. */
static size_t runs_add(struct shadow_run *runs, size_t n, const struct kept_table *table,
		       unsigned int i)
{
	struct shadow_run leaf = {
		.iova = (table->segment << S390_SEGMENT_SHIFT) + i * S390_PAGE_BYTES,
		.gpa = s390_word_frame(table->raw[i]),
		.length = S390_PAGE_BYTES,
		.writable = bit_get(&table->writable, i),
	};
	struct shadow_run *last = n ? &runs[n - 1] : NULL;

	if (last && last->iova + last->length == leaf.iova &&
	    last->gpa + last->length == leaf.gpa && last->writable == leaf.writable) {
		last->length += S390_PAGE_BYTES;
		return n;
	}
	runs[n] = leaf;
	return n + 1;
}

size_t shadow_runs(const struct shadow *shadow, uint64_t iova, struct shadow_run *ret, size_t n)
{
	const struct kept_table *table = store_at_or_after(&shadow->store, segment_of(iova));
	size_t found = 0;

	for (; table && n; table = store_next(&shadow->store, table)) {
		unsigned int i =
			table->segment == segment_of(iova) ? iova >> 12 & (S390_PT_ENTRIES - 1) : 0;

		for (; i < S390_PT_ENTRIES; i++) {
			struct shadow_run spare[2];

			if (!bit_get(&table->installed, i))
				continue;
			if (found < n) {
				found = runs_add(ret, found, table, i);
				continue;
			}
			/* Full: the leaf must still join the last run, or nothing more can. */
			spare[0] = ret[n - 1];
			if (runs_add(spare, 1, table, i) == 2)
				return found;
			ret[n - 1] = spare[0];
		}
	}
	return found;
}
