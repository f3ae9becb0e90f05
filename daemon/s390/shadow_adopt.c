/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Taking over a shadow that another process kept until it died.
 *
 * Leaves are booked before the call that installs or takes them away, so in the range of a call
 * that was not through, and of a cut that was owed, nobody knows what is installed: it is cut, and
 * nothing is kept of it. No other leaf is there, for a run never reaches over one that stays. All
 * else is installed as it is kept; whether it is right still the next walk decides, which looks at
 * every leaf again.
 */

#include <errno.h>
#include <stdlib.h>

#include "s390/shadow_internal.h"

struct adoption {
	struct shadow *shadow;
	const struct memory_view *view;
	size_t hint;
	uint32_t damaged;
	size_t n_ranges;
	struct {
		uint64_t first, last;
	} ranges[3];
};

static bool header_is_ours(const struct shadow_header *header, const struct shadow_limits *limits)
{
	return header->magic == SHADOW_MAGIC && header->version == SHADOW_VERSION &&
	       header->tables_max == limits->tables_max &&
	       header->leaves_max == limits->leaves_max && header->touched <= limits->tables_max;
}

static int cut(struct adoption *adoption, uint64_t first, uint64_t last)
{
	const struct shadow *shadow = adoption->shadow;

	/* 2^64 bytes from 0 cannot be said in one call, and are no page less. */
	if (!first && last == UINT64_MAX)
		last -= S390_PAGE_BYTES;
	return -shadow->ops->cut(shadow->context, first, last - first + 1);
}

static int intent_adopt(struct adoption *adoption, struct shadow_intent *intent)
{
	uint64_t first = intent->first, last = intent->last;
	int status;

	if (!intent->set)
		return 0;
	if (first > last || first & ~S390_PAGE_FRAME || ~last & ~S390_PAGE_FRAME)
		return -EBADMSG;
	status = cut(adoption, first, last);
	if (status)
		return status;
	adoption->ranges[adoption->n_ranges].first = first;
	adoption->ranges[adoption->n_ranges++].last = last;
	return 0;
}

static int intents_adopt(struct adoption *adoption, struct shadow_header *header)
{
	int status = intent_adopt(adoption, &header->owed);

	if (!status)
		status = intent_adopt(adoption, &header->cut);
	if (!status)
		status = intent_adopt(adoption, &header->map);
	return status;
}

/* All that can be installed under a table that makes no sense. */
static int table_lost(void *context, const struct kept_table *table)
{
	struct adoption *adoption = context;
	uint64_t first = table->segment << S390_SEGMENT_SHIFT;

	adoption->damaged++;
	if (table->segment > SEGMENT_LAST)
		return -EBADMSG; /* nobody knows where it belongs */
	return cut(adoption, first, first + S390_SEGMENT_BYTES - 1);
}

static void leaf_drop(struct kept_table *table, unsigned int i)
{
	bit_put(&table->installed, i, false);
	bit_put(&table->writable, i, false);
	leaf_unsettle(table, i);
}

/* Before the tables are looked at, in the storage itself: words of leaves that are in a range were
 * perhaps never written. */
static void ranges_drop(struct adoption *adoption, struct kept_table *table)
{
	uint64_t base = table->segment << S390_SEGMENT_SHIFT;

	for (size_t r = 0; r < adoption->n_ranges; r++) {
		if (segment_of(adoption->ranges[r].first) > table->segment ||
		    segment_of(adoption->ranges[r].last) < table->segment)
			continue;
		for (unsigned int i = 0; i < S390_PT_ENTRIES; i++) {
			uint64_t iova = base + i * S390_PAGE_BYTES;

			if (iova >= adoption->ranges[r].first && iova <= adoption->ranges[r].last)
				leaf_drop(table, i);
		}
	}
}

static void tables_drop(struct adoption *adoption, void *storage)
{
	struct shadow_header *header = storage;
	struct kept_table *tables = (struct kept_table *)((char *)storage + SHADOW_HEADER_BYTES);

	for (uint32_t slot = 0; adoption->n_ranges && slot < header->touched; slot++)
		if (tables[slot].used && tables[slot].segment <= SEGMENT_LAST)
			ranges_drop(adoption, &tables[slot]);
}

/* A frame that has as many places as may be gets one fewer: the leaf is cut. */
static int leaf_adopt(struct adoption *adoption, struct kept_table *table, unsigned int i)
{
	uint64_t iova = (table->segment << S390_SEGMENT_SHIFT) + i * S390_PAGE_BYTES;

	if (adoption->shadow->leaves_installed < adoption->shadow->limits.leaves_max &&
	    leaf_count(adoption->view, &adoption->hint, s390_word_frame(table->raw[i]))) {
		adoption->shadow->leaves_installed++;
		return 0;
	}
	leaf_drop(table, i);
	return cut(adoption, iova, iova + S390_PAGE_BYTES - 1);
}

/* What it was held for is so still: nobody is told again. */
static bool leaf_stays_held(const struct adoption *adoption, const struct kept_table *table,
			    unsigned int i)
{
	uint64_t word = table->raw[i], gpa = s390_word_frame(word);
	bool writable = !table->protect && !s390_word_protected(word);

	if (!bit_get(&table->held, i) || !s390_word_valid(word))
		return false;
	if (table->from_frame)
		return !memory_view_covers(adoption->view, gpa - i * S390_PAGE_BYTES,
					   S390_SEGMENT_BYTES, writable);
	return !memory_view_covers(adoption->view, gpa, S390_PAGE_BYTES, writable);
}

/* What is installed is decided again by the next walk; what is held was decided just now, for the
 * window that is set next. */
static int table_adopt(struct adoption *adoption, struct kept_table *table)
{
	int status = 0;

	table->view_generation = adoption->view->generation;
	table->window_generation = adoption->shadow->window_generation + 1;
	table->incomplete = true;
	for (unsigned int i = 0; !status && i < S390_PT_ENTRIES; i++) {
		if (bit_get(&table->installed, i)) {
			bit_put(&table->held, i, false);
			status = leaf_adopt(adoption, table, i);
		} else if (!leaf_stays_held(adoption, table, i)) {
			leaf_unsettle(table, i);
		}
	}
	return status;
}

/* Of a table that keeps something: one that was only just taken says nothing yet. */
static void source_adopt(struct shadow *shadow, const struct kept_table *table)
{
	enum shadow_source source = table->managed ? SHADOW_SOURCE_MANAGED : SHADOW_SOURCE_ANCHOR;

	if (shadow->kept_source && shadow->kept_source != source)
		shadow->foreign = true; /* it died while they changed */
	shadow->kept_source = source;
}

static int tables_adopt(struct adoption *adoption)
{
	struct kept_store *store = &adoption->shadow->store;
	struct kept_table *table = store_at_or_after(store, 0), *next;
	int status = 0;

	for (; !status && table; table = next) {
		next = store_next(store, table);
		status = table_adopt(adoption, table);
		if (table_is_empty(table))
			store_remove(store, table);
		else
			source_adopt(adoption->shadow, table);
	}
	return status;
}

static int adopt_storage(struct adoption *adoption, void *storage)
{
	struct shadow *shadow = adoption->shadow;
	struct shadow_header *header = storage;
	int status;

	if (!header_is_ours(header, &shadow->limits))
		return -EBADMSG;
	status = intents_adopt(adoption, header);
	if (status)
		return status;
	tables_drop(adoption, storage);
	intent_clear(&header->owed);
	intent_clear(&header->cut);
	intent_clear(&header->map);
	status = store_adopt(&shadow->store, storage, shadow->limits.tables_max, table_lost,
			     adoption);
	if (status)
		return status;
	status = tables_adopt(adoption);
	if (status)
		store_deinit(&shadow->store);
	return status;
}

int shadow_adopt(struct shadow **ret, const struct shadow_ops *ops, void *context,
		 const struct shadow_limits *limits, void *storage, const struct memory_view *view,
		 uint32_t *ret_damaged)
{
	struct shadow *shadow = calloc(1, sizeof(*shadow));
	struct adoption adoption = {.shadow = shadow, .view = view};
	int status;

	if (!shadow)
		return -ENOMEM;
	shadow->ops = ops;
	shadow->context = context;
	shadow->limits = *limits;
	status = adopt_storage(&adoption, storage);
	if (status) {
		free(shadow);
		return status;
	}
	if (ret_damaged)
		*ret_damaged = adoption.damaged;
	*ret = shadow;
	return 0;
}
