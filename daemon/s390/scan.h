/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_S390_SCAN_H
#define IB_S390_SCAN_H

/*
 * A scan over the segment entries of a range of IOVAs: answers the present ones, in order, and
 * what stops the walk below an entry. Absent entries are skipped a whole level at a time.
 *
 * Every entry is loaded once, atomically, in blocks; a decision is taken on what was loaded. Loops
 * go over the four levels that an anchor can name, never deeper: a table that points to itself is
 * read as the table of the next level and costs what any table costs. Whoever scans bounds the
 * cost.
 */

#include "s390/entry.h"

enum s390_found_kind {
	S390_FOUND_END,     /* nothing more in the range */
	S390_FOUND_PT,      /* a page table */
	S390_FOUND_FRAME,   /* a 1 MiB frame */
	S390_FOUND_FAULT,   /* no translation in [first, last] */
	S390_FOUND_PAUSE,   /* cost_max reached: nothing between the last answer and first */
	S390_FOUND_MANAGED, /* never of a scan: what a VMM asked for */
};

struct s390_found {
	enum s390_found_kind kind;
	uint64_t first, last; /* IOVAs that the entry translates, whole segments */
	bool protect;         /* writes forbidden by the anchor or an entry down to the segment's */
	uint64_t entry;       /* PT, FRAME: the segment entry */
	uint64_t gpa;         /* PT, FRAME: of the page table or frame */
	const uint8_t *host;  /* PT: all of it is mapped */
	struct s390_fault fault; /* FAULT; fault.iova is first */
};

#define S390_SCAN_BLOCK 64u /* entries loaded at once */

/* What reading one segment or region table costs, in page tables. */
#define S390_SCAN_TABLE_COST (S390_UPPER_BYTES / S390_PT_BYTES)

struct s390_scan {
	const struct memory_view *view;
	uint64_t next, last;
	bool end;
	enum s390_level top, level; /* of the designated table, and where the scan stands */
	uint64_t cost, cost_max;    /* in page tables; of the tables entered so far */
	size_t hint_upper, hint_pt;
	struct s390_scan_table {
		uint64_t gpa, first, last; /* address, IOVAs that it covers */
		uint64_t entry;            /* address of it as the entry above says: for faults */
		enum s390_level above;     /* level of that entry; NONE: the anchor */
		bool protect;
		unsigned int block_first, block_n; /* indices loaded */
		uint64_t words[S390_SCAN_BLOCK];
	} tables[4];
};

/* Begin at first. anchor may not be a relaxed one. cost_max: see S390_FOUND_PAUSE; a scan always
 * finishes at least one table between two answers, so that repeated scans come to an end. */
void s390_scan_begin(struct s390_scan *scan, const struct s390_anchor *anchor,
		     const struct memory_view *view, uint64_t first, uint64_t last,
		     uint64_t cost_max);
void s390_scan_next(struct s390_scan *scan, struct s390_found *ret);

#endif
