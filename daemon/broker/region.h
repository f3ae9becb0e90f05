/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_REGION_H
#define IB_BROKER_REGION_H

/*
 * Regions of guest memory and lists of them, as pure data: what an update of the memory map takes
 * away, keeps and adds is computed here before anything is done.
 *
 * Lists are sorted by guest address and do not overlap. A region's exclusive end, gpa + length,
 * never wraps: the highest page of the address space is not mappable.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iommu/backend.h"
#include "s390/memory_view.h"

struct memory_file;

/* Counters of installed places, one for each 4 KiB frame of the piece that was mapped at one time.
 * Pieces that were cut out of it share them. References are counted on the guest's lane only. */
struct frame_counters {
	unsigned int refs;
	size_t bytes;
	_Atomic uint16_t *counts;
};

struct region {
	struct memory_file *file; /* the file counts its regions */
	uint64_t offset, gpa, length;
	uint64_t granule; /* where it may be cut; 0: nowhere */
	uint64_t
		area_bytes; /* power of two: it is mapped in areas of this size from its start on */
	bool writable;
	struct frame_counters *counters; /* NULL until it is in place */
	size_t first_counter;            /* of its first frame */
	size_t request_index;            /* map[] entry it comes from, while it is being added */
};

struct region_list {
	size_t n, capacity;
	struct region *items;
};

/* 0 or -ENOMEM, and then nothing changed. */
int region_list_push(struct region_list *list, const struct region *region);
void region_list_clear(struct region_list *list); /* frees; borrowed pointers are left alone */
void region_list_sort(struct region_list *list);
/* By file and offset, for what looks at files: no list that is searched by guest address. */
void region_list_sort_by_file(struct region_list *list);
/* The first two neighbours of a sorted list that overlap: their later one's place, or n. */
size_t region_list_overlap(const struct region_list *list);
/* An overlap between two sorted lists: place in b of the region that overlaps, or b->n. */
size_t region_lists_overlap(const struct region_list *a, const struct region_list *b);
/* The region that has gpa in it, or NULL. */
const struct region *region_list_find(const struct region_list *list, uint64_t gpa);
uint64_t region_list_bytes(const struct region_list *list);
/* What the regions count for in the ledger: one each, with a granule one for each granule. */
uint64_t region_list_cost(const struct region_list *list);

/* Whether a cut right before gpa is legal: at no region's inside, or on its granule. */
bool region_list_may_cut(const struct region_list *list, uint64_t gpa);
/* Split a list by ranges that may overlap each other: what lies inside one goes to removed, the
 * rest to kept. Cuts have been checked. 0 or -ENOMEM. */
int region_list_split(const struct region_list *list, const struct iommu_range *ranges, size_t n,
		      struct region_list *kept, struct region_list *removed);
/* What is removed and added again alike goes to kept in place of both; removed and added are
 * rewritten. 0 or -ENOMEM: then the lists are to be thrown away. */
int region_list_keep_alike(struct region_list *removed, struct region_list *added,
			   struct region_list *kept);

/* Bytes of the next piece of a region from done bytes on, at most slice bytes and ending where an
 * area ends; 0 at the end. slice: a power of two, not less than area_bytes. */
uint64_t region_slice(const struct region *region, uint64_t done, uint64_t slice);

#endif
