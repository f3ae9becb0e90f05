/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t region_end(const struct region *region)
{
	return region->gpa + region->length;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

int region_list_push(struct region_list *list, const struct region *region)
{
	if (list->n == list->capacity) {
		size_t capacity = list->capacity ? 2 * list->capacity : 16;
		struct region *items = realloc(list->items, capacity * sizeof(*items));

		if (!items)
			return -ENOMEM;
		list->items = items;
		list->capacity = capacity;
	}
	list->items[list->n++] = *region;
	return 0;
}

void region_list_clear(struct region_list *list)
{
	free(list->items);
	*list = (struct region_list){0};
}

static int region_compare(const void *a, const void *b)
{
	const struct region *x = a, *y = b;

	return (x->gpa > y->gpa) - (x->gpa < y->gpa);
}

void region_list_sort(struct region_list *list)
{
	if (list->n > 1)
		qsort(list->items, list->n, sizeof(*list->items), region_compare);
}

static int region_compare_file(const void *a, const void *b)
{
	const struct region *x = a, *y = b;
	uintptr_t file_x = (uintptr_t)x->file, file_y = (uintptr_t)y->file;

	if (file_x != file_y)
		return (file_x > file_y) - (file_x < file_y);
	return (x->offset > y->offset) - (x->offset < y->offset);
}

void region_list_sort_by_file(struct region_list *list)
{
	if (list->n > 1)
		qsort(list->items, list->n, sizeof(*list->items), region_compare_file);
}

size_t region_list_overlap(const struct region_list *list)
{
	for (size_t i = 1; i < list->n; i++)
		if (list->items[i].gpa < region_end(&list->items[i - 1]))
			return i;
	return list->n;
}

size_t region_lists_overlap(const struct region_list *a, const struct region_list *b)
{
	size_t i = 0;

	for (size_t k = 0; k < b->n; k++) {
		while (i < a->n && region_end(&a->items[i]) <= b->items[k].gpa)
			i++;
		if (i < a->n && a->items[i].gpa < region_end(&b->items[k]))
			return k;
	}
	return b->n;
}

/* The first region that ends above gpa, or n. */
static size_t region_list_seek(const struct region_list *list, uint64_t gpa)
{
	size_t low = 0, high = list->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (region_end(&list->items[middle]) <= gpa)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct region *region_list_find(const struct region_list *list, uint64_t gpa)
{
	size_t i = region_list_seek(list, gpa);

	return i < list->n && list->items[i].gpa <= gpa ? &list->items[i] : NULL;
}

uint64_t region_list_bytes(const struct region_list *list)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < list->n; i++)
		bytes += list->items[i].length; /* no overflow: they do not overlap */
	return bytes;
}

uint64_t region_list_cost(const struct region_list *list)
{
	uint64_t cost = 0;

	for (size_t i = 0; i < list->n; i++) {
		const struct region *region = &list->items[i];

		cost += region->granule ? region->length / region->granule : 1;
	}
	return cost;
}

bool region_list_may_cut(const struct region_list *list, uint64_t gpa)
{
	const struct region *region = region_list_find(list, gpa);

	if (!region || region->gpa == gpa)
		return true;
	return region->granule && !((gpa - region->gpa) % region->granule);
}

/* Part [start, end) of a region, which lies inside it. */
static struct region region_part(const struct region *region, uint64_t start, uint64_t end)
{
	struct region part = *region;
	uint64_t skipped = start - region->gpa;

	part.gpa = start;
	part.offset += skipped;
	part.length = end - start;
	part.first_counter += skipped >> 12;
	return part;
}

static int push_part(struct region_list *list, const struct region *region, uint64_t start,
		     uint64_t end)
{
	struct region part;

	if (start >= end)
		return 0;
	part = region_part(region, start, end);
	return region_list_push(list, &part);
}

static int range_compare(const void *a, const void *b)
{
	const struct iommu_range *x = a, *y = b;

	return (x->first > y->first) - (x->first < y->first);
}

/* A sorted copy without overlaps. NULL: no memory. */
static struct iommu_range *ranges_merge(const struct iommu_range *ranges, size_t *n)
{
	struct iommu_range *merged = malloc((*n ? *n : 1) * sizeof(*merged));
	size_t count = 0;

	if (!merged)
		return NULL;
	if (*n)
		memcpy(merged, ranges, *n * sizeof(*merged));
	qsort(merged, *n, sizeof(*merged), range_compare);
	for (size_t i = 0; i < *n; i++) {
		if (count && merged[i].first <= merged[count - 1].last)
			merged[count - 1].last = max_u64(merged[count - 1].last, merged[i].last);
		else
			merged[count++] = merged[i];
	}
	*n = count;
	return merged;
}

/* One region against the ranges from *at on; *at moves to the first that can touch the next. */
static int region_split(const struct region *region, const struct iommu_range *ranges, size_t n,
			size_t *at, struct region_list *kept, struct region_list *removed)
{
	uint64_t start = region->gpa, end = region_end(region);
	int error = 0;

	while (*at < n && ranges[*at].last < start)
		++*at;
	for (size_t i = *at; !error && i < n && ranges[i].first < end; i++) {
		uint64_t cut_start = max_u64(start, ranges[i].first);
		uint64_t cut_end = ranges[i].last >= end ? end : ranges[i].last + 1;

		error = push_part(kept, region, start, cut_start);
		if (!error)
			error = push_part(removed, region, cut_start, cut_end);
		start = cut_end;
	}
	return error ? error : push_part(kept, region, start, end);
}

int region_list_split(const struct region_list *list, const struct iommu_range *ranges, size_t n,
		      struct region_list *kept, struct region_list *removed)
{
	struct iommu_range *merged = ranges_merge(ranges, &n);
	size_t at = 0;
	int error = 0;

	if (!merged)
		return -ENOMEM;
	for (size_t i = 0; !error && i < list->n; i++)
		error = region_split(&list->items[i], merged, n, &at, kept, removed);
	free(merged);
	return error;
}

static bool on_granule(const struct region *region, uint64_t gpa)
{
	if (gpa == region->gpa || gpa == region_end(region))
		return true;
	return region->granule && !((gpa - region->gpa) % region->granule);
}

/* Whether [start, end) of the old region can be what the new one asks for there: the same bytes and
 * access, and its areas allow at least the cuts that the new one allows. */
static bool region_alike(const struct region *old, const struct region *new, uint64_t start,
			 uint64_t end)
{
	if (start >= end || old->file != new->file || old->writable != new->writable)
		return false;
	if (old->offset - old->gpa != new->offset - new->gpa)
		return false;
	if (new->granule && (!old->granule || old->granule > new->granule))
		return false;
	return on_granule(old, start) && on_granule(old, end) && on_granule(new, start) &&
	       on_granule(new, end);
}

struct alike_pass {
	struct region_list removed, added;
	uint64_t removed_done, added_done; /* exclusive ends of what was dealt with */
};

/* What two regions have in common at the front of both lists. */
static int keep_common(struct alike_pass *pass, const struct region *old, const struct region *new,
		       struct region_list *kept)
{
	uint64_t start = max_u64(old->gpa, new->gpa);
	uint64_t end = min_u64(region_end(old), region_end(new));
	struct region part;
	int error;

	if (!region_alike(old, new, start, end))
		return 0;
	part = region_part(old, start, end);
	part.granule = new->granule;
	error = region_list_push(kept, &part);
	if (!error)
		error = push_part(&pass->removed, old, max_u64(old->gpa, pass->removed_done),
				  start);
	if (!error)
		error = push_part(&pass->added, new, max_u64(new->gpa, pass->added_done), start);
	pass->removed_done = end;
	pass->added_done = end;
	return error;
}

static int keep_rest(struct region_list *list, const struct region *region, uint64_t done)
{
	return push_part(list, region, max_u64(region->gpa, done), region_end(region));
}

static void region_list_replace(struct region_list *list, struct region_list *consume)
{
	region_list_clear(list);
	*list = *consume;
}

int region_list_keep_alike(struct region_list *removed, struct region_list *added,
			   struct region_list *kept)
{
	struct alike_pass pass = {0};
	size_t i = 0, k = 0;
	int error = 0;

	while (!error && i < removed->n && k < added->n) {
		const struct region *old = &removed->items[i], *new = &added->items[k];

		error = keep_common(&pass, old, new, kept);
		if (error)
			break;
		if (region_end(old) <= region_end(new)) {
			error = keep_rest(&pass.removed, old, pass.removed_done);
			i++;
		} else {
			error = keep_rest(&pass.added, new, pass.added_done);
			k++;
		}
	}
	for (; !error && i < removed->n; i++)
		error = keep_rest(&pass.removed, &removed->items[i], pass.removed_done);
	for (; !error && k < added->n; k++)
		error = keep_rest(&pass.added, &added->items[k], pass.added_done);
	region_list_replace(removed, &pass.removed);
	region_list_replace(added, &pass.added);
	region_list_sort(kept);
	return error;
}

uint64_t region_slice(const struct region *region, uint64_t done, uint64_t slice)
{
	return min_u64(slice, region->length - done);
}
