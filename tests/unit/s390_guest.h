/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_S390_GUEST_H
#define IB_TESTS_S390_GUEST_H

/*
 * A little guest for tests: memory with a few regions, tables written as a guest writes them
 * (big-endian, one atomic store an entry), and a recorder in place of the kernel, which keeps its
 * rules (nothing is overwritten, what is shown must be memory) and fails on demand.
 */

#include "s390/entry.h"
#include "s390/shadow.h"

#define GUEST_REGIONS_MAX 4
#define RECORD_SEGMENTS   2048

struct guest_region {
	uint64_t gpa, bytes;
	bool writable, present;
	uint8_t *host;
	_Atomic uint16_t *aliases;
};

struct guest {
	struct guest_region regions[GUEST_REGIONS_MAX];
	size_t n_regions;
	struct memory_view *view; /* as published last */
	uint64_t generation;
	uint64_t table_next; /* next free table address */
};

void guest_init(struct guest *guest);
void guest_deinit(struct guest *guest);
/* Regions in order of address. table_next begins in the first one. */
void guest_add_region(struct guest *guest, uint64_t gpa, uint64_t bytes, bool writable);
/* A new view of the regions that are present, with the next generation. */
void guest_publish(struct guest *guest);
uint64_t *guest_word(struct guest *guest, uint64_t gpa);
uint64_t guest_get(struct guest *guest, uint64_t table, unsigned int index);
void guest_put(struct guest *guest, uint64_t table, unsigned int index, uint64_t entry);
/* A table with every entry invalid. */
uint64_t guest_upper_table(struct guest *guest);
uint64_t guest_page_table(struct guest *guest);
/* Entries as Linux writes them. level: of the table that the entry stands in. */
uint64_t region_entry(enum s390_level level, uint64_t table);

struct record_leaf {
	uint64_t gpa;
	bool installed, writable;
};

struct record_segment {
	uint64_t segment;
	struct record_leaf leaves[S390_PT_ENTRIES];
};

struct record {
	struct guest *guest;
	struct record_segment *segments[RECORD_SEGMENTS];
	size_t n_segments;
	uint64_t installed;
	unsigned int maps, cuts, refusals;
	uint64_t refused_iova, refused_gpa;
	enum shadow_leaf_refusal refusal;
	/* Fail calls first .. first + n - 1, counted from 1. */
	unsigned int fail_map_first, fail_map_n, fail_cut_first, fail_cut_n;
	int map_errno;
	bool allow_overlap;                    /* an EEXIST of its own is no failure of the test */
	bool trust_gpa;                        /* do not look whether what is mapped is memory */
	void (*on_map)(struct record *record); /* before each map, as a guest that is quick */
	unsigned int violations;
	char violation[160]; /* the first */
};

extern const struct shadow_ops record_ops;
void record_init(struct record *record, struct guest *guest);
void record_deinit(struct record *record);
struct record_leaf *record_leaf(struct record *record, uint64_t iova, bool create);
bool record_shows(struct record *record, uint64_t iova, uint64_t gpa, bool writable);
/* Whether the regions' counters say what is installed (this record being the only one). */
bool record_aliases_match(struct record *record);

struct shadow_result shadow_run(struct shadow *shadow, const struct memory_view *view,
				struct shadow_op op, unsigned int budget);

#endif
