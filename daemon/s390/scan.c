/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The scan, see scan.h. It stands in one table at a time: next is the IOVA to decide, level names
 * the table; it climbs when next leaves the table, and descends at a valid region entry.
 */

#include "s390/scan.h"
#include "util/guest_read.h"

#define PAGE_ENTRIES (S390_PAGE_BYTES / sizeof(uint64_t))

static void scan_pass(struct s390_scan *scan, uint64_t last)
{
	if (last >= scan->last)
		scan->end = true;
	else
		scan->next = last + 1;
}

static void found_fault(struct s390_scan *scan, struct s390_found *ret, uint64_t first,
			uint64_t last, struct s390_fault fault)
{
	*ret = (struct s390_found){
		.kind = S390_FOUND_FAULT, .first = first, .last = last, .fault = fault};
	ret->fault.iova = first;
	scan_pass(scan, last);
}

/* The rest of the table, from next on, cannot be read. */
static void found_unreadable(struct s390_scan *scan, struct s390_found *ret,
			     const struct s390_scan_table *table)
{
	uint64_t first = scan->next & ~(S390_SEGMENT_BYTES - 1);

	found_fault(scan, ret, first, table->last,
		    (struct s390_fault){.code = S390_PEC_INVALTE,
					.level = table->above,
					.entry = table->entry,
					.outside_memory = true});
}

static void table_enter(struct s390_scan *scan, enum s390_level level, uint64_t gpa,
			enum s390_level above, uint64_t first, bool protect)
{
	struct s390_scan_table *table = &scan->tables[level];

	table->gpa = gpa;
	table->entry = gpa;
	table->above = above;
	table->first = first;
	table->last = first + s390_level_last(level);
	table->protect = protect;
	table->block_n = 0;
	scan->level = level;
	scan->cost += S390_SCAN_TABLE_COST;
}

void s390_scan_begin(struct s390_scan *scan, const struct s390_anchor *anchor,
		     const struct memory_view *view, uint64_t first, uint64_t last,
		     uint64_t cost_max)
{
	scan->view = view;
	scan->next = first;
	scan->last = last;
	scan->end = first > last;
	scan->top = s390_anchor_level(anchor);
	scan->cost = 0;
	scan->cost_max = cost_max;
	scan->hint_upper = scan->hint_pt = 0;
	table_enter(scan, scan->top, s390_anchor_origin(anchor), S390_LEVEL_NONE, 0,
		    anchor->iota & S390_IOTA_PROTECT);
}

/* Where the page of a table that holds entry index lies, or NULL. Tables of 16 KiB may lie across
 * regions, pages may not; the whole table must be guest memory. */
static const uint8_t *table_host(struct s390_scan *scan, const struct s390_scan_table *table,
				 unsigned int index)
{
	uint64_t gpa = table->gpa + index * sizeof(uint64_t);
	const struct memory_view_region *region =
		memory_view_find(scan->view, gpa, &scan->hint_upper);

	if (!region)
		return NULL;
	if ((region->gpa_first > table->gpa ||
	     region->gpa_last - table->gpa < S390_UPPER_BYTES - 1) &&
	    !memory_view_covers(scan->view, table->gpa, S390_UPPER_BYTES, false))
		return NULL;
	return region->host + (gpa - region->gpa_first);
}

enum block_result {
	BLOCK_LOADED,
	BLOCK_ABSENT, /* the page of the table holds no valid entry: next moved behind it */
	BLOCK_UNREADABLE,
};

/* Load the block that holds index, as far as the range reaches. */
static enum block_result block_load(struct s390_scan *scan, struct s390_scan_table *table,
				    unsigned int index)
{
	enum s390_level level = scan->level;
	unsigned int shift = s390_level_shift(level);
	uint64_t stop = scan->last < table->last ? scan->last : table->last;
	unsigned int last = s390_level_index(level, stop);
	const uint8_t *host = table_host(scan, table, index);
	unsigned int n = S390_SCAN_BLOCK - index % S390_SCAN_BLOCK;

	if (!host)
		return BLOCK_UNREADABLE;
	if (index % PAGE_ENTRIES == 0 && last - index >= PAGE_ENTRIES - 1) {
		switch (guest_read_any_clear(host, PAGE_ENTRIES, htobe64(S390_UPPER_INVALID))) {
		case GUEST_FAULT:
			return BLOCK_UNREADABLE;
		case GUEST_SAME:
			scan_pass(scan,
				  table->first + ((uint64_t)(index + PAGE_ENTRIES) << shift) - 1);
			return BLOCK_ABSENT;
		case GUEST_DIFFERENT:
			break;
		}
	}
	if (n > last - index + 1)
		n = last - index + 1;
	if (!guest_read_words(host, table->words, n))
		return BLOCK_UNREADABLE;
	table->block_first = index;
	table->block_n = n;
	return BLOCK_LOADED;
}

/* A segment entry that names a page table or a frame. */
static void found_segment(struct s390_scan *scan, struct s390_found *ret,
			  const struct s390_scan_table *table, uint64_t entry, uint64_t first)
{
	uint64_t last = first + S390_SEGMENT_BYTES - 1;
	const struct memory_view_region *region;

	*ret = (struct s390_found){
		.first = first,
		.last = last,
		.protect = table->protect || (entry & S390_PROTECT),
		.entry = entry,
	};
	if (entry & S390_SEGMENT_LARGE) {
		ret->kind = S390_FOUND_FRAME;
		ret->gpa = entry & S390_SEGMENT_FRAME;
		scan_pass(scan, last);
		return;
	}
	ret->kind = S390_FOUND_PT;
	ret->gpa = entry & S390_PT_ORIGIN;
	region = memory_view_find(scan->view, ret->gpa, &scan->hint_pt);
	if (!region) {
		found_fault(scan, ret, first, last,
			    (struct s390_fault){.code = S390_PEC_INVALTE,
						.level = S390_LEVEL_SEGMENT,
						.entry = ret->gpa,
						.outside_memory = true});
		return;
	}
	/* 2 KiB at a 2 KiB boundary lie in one page, and so in one region. */
	ret->host = region->host + (ret->gpa - region->gpa_first);
	scan_pass(scan, last);
}

/* Decide the entry for next. true: there is an answer. */
static bool scan_entry(struct s390_scan *scan, struct s390_found *ret,
		       struct s390_scan_table *table, unsigned int index)
{
	enum s390_level level = scan->level;
	unsigned int shift = s390_level_shift(level);
	uint64_t first = table->first + ((uint64_t)index << shift);
	uint64_t last = first + (UINT64_C(1) << shift) - 1;
	uint64_t entry = be64toh(table->words[index - table->block_first]);
	struct s390_fault fault = {.level = level, .entry = entry};

	switch (s390_upper_decode(level, entry, &fault.code)) {
	case S390_ENTRY_ABSENT:
		scan_pass(scan, last);
		return false;
	case S390_ENTRY_BAD:
		found_fault(scan, ret, first, last, fault);
		return true;
	case S390_ENTRY_FRAME:
		found_segment(scan, ret, table, entry, first);
		return true;
	case S390_ENTRY_TABLE:
		if (level == S390_LEVEL_SEGMENT) {
			found_segment(scan, ret, table, entry, first);
			return true;
		}
		table_enter(scan, (enum s390_level)(level - 1), entry & S390_TABLE_ORIGIN, level,
			    first, table->protect || (entry & S390_PROTECT));
		return false;
	}
	return false;
}

/* Leave tables that next lies behind. true: there is an answer. */
static bool scan_climb(struct s390_scan *scan, struct s390_found *ret)
{
	if (scan->next <= scan->tables[scan->level].last)
		return false;
	while (scan->next > scan->tables[scan->level].last) {
		if (scan->level == scan->top) {
			found_fault(scan, ret, scan->next & ~(S390_SEGMENT_BYTES - 1), scan->last,
				    (struct s390_fault){.code = S390_PEC_OORANGE,
							.level = S390_LEVEL_NONE});
			return true;
		}
		scan->level++;
	}
	if (scan->cost < scan->cost_max)
		return false;
	*ret = (struct s390_found){
		.kind = S390_FOUND_PAUSE, .first = scan->next, .last = scan->last};
	return true;
}

void s390_scan_next(struct s390_scan *scan, struct s390_found *ret)
{
	while (!scan->end) {
		struct s390_scan_table *table;
		unsigned int index;

		if (scan_climb(scan, ret))
			return;
		table = &scan->tables[scan->level];
		index = s390_level_index(scan->level, scan->next);
		if (index - table->block_first >= table->block_n) {
			switch (block_load(scan, table, index)) {
			case BLOCK_LOADED:
				break;
			case BLOCK_ABSENT:
				continue;
			case BLOCK_UNREADABLE:
				found_unreadable(scan, ret, table);
				return;
			}
		}
		if (scan_entry(scan, ret, table, index))
			return;
	}
	ret->kind = S390_FOUND_END;
}
