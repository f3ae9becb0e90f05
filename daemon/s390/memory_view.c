/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Finding a guest address among the regions of a view. Walks ask for neighbours most of the time,
 * hence the hint.
 */

#include "s390/memory_view.h"

static bool region_holds(const struct memory_view *view, size_t i, uint64_t gpa)
{
	return i < view->n_regions && view->regions[i].gpa_first <= gpa &&
	       gpa <= view->regions[i].gpa_last;
}

/* Index of the first region that ends at gpa or above; n_regions if none does. */
static size_t region_search(const struct memory_view *view, uint64_t gpa)
{
	size_t low = 0, high = view->n_regions;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (view->regions[middle].gpa_last < gpa)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct memory_view_region *memory_view_find(const struct memory_view *view, uint64_t gpa,
						  size_t *hint)
{
	size_t i = *hint;

	if (region_holds(view, i, gpa))
		return &view->regions[i];
	i = region_search(view, gpa);
	if (!region_holds(view, i, gpa))
		return NULL;
	*hint = i;
	return &view->regions[i];
}

bool memory_view_covers(const struct memory_view *view, uint64_t gpa, uint64_t length,
			bool writable)
{
	uint64_t last = gpa + length - 1;
	size_t i;

	if (!length)
		return true;
	if (last < gpa)
		return false;
	for (i = region_search(view, gpa); region_holds(view, i, gpa); i++) {
		if (writable && !view->regions[i].writable)
			return false;
		if (view->regions[i].gpa_last >= last)
			return true;
		gpa = view->regions[i].gpa_last + 1;
	}
	return false;
}
