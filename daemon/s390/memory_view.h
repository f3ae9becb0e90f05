/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_S390_MEMORY_VIEW_H
#define IB_S390_MEMORY_VIEW_H

/*
 * What a walk may read and what a leaf may show: the guest's memory as it was published.
 *
 * A view is immutable. Whoever changes the guest's memory publishes a new view with a higher
 * generation and keeps the old one's host mappings until every walk that may use them has ended.
 * Regions are sorted by address, do not overlap, and begin and end on 4 KiB boundaries.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Places at which a guest frame may be installed at one time, over all nested domains of a guest.
 * The kernel's cost of a copy or unmap grows with that number (drivers/iommu/iommufd/pages.c,
 * domains_itree). */
#define FRAME_ALIASES_MAX 4096

struct memory_view_region {
	uint64_t gpa_first, gpa_last; /* inclusive */
	const uint8_t *host;          /* our mapping of gpa_first; reading it can raise SIGBUS */
	bool writable;
	/* One counter for each 4 KiB frame of the region: installed places. Outlives the view. */
	_Atomic uint16_t *aliases;
};

struct memory_view {
	uint64_t generation; /* > 0, rises with every change of the guest's memory */
	size_t n_regions;
	struct memory_view_region regions[];
};

/* The region that holds gpa, or NULL. hint: index found last time, updated; may not be NULL. */
const struct memory_view_region *memory_view_find(const struct memory_view *view, uint64_t gpa,
						  size_t *hint);

/* Whether [gpa, gpa + length) lies wholly in regions of the view, and in writable ones if asked. */
bool memory_view_covers(const struct memory_view *view, uint64_t gpa, uint64_t length,
			bool writable);

#endif
