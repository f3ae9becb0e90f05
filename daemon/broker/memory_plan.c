/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "broker/memory_file.h"
#include "broker/root.h"

#define PAGE_BYTES 4096ull

#define FIELD_BYTES 64

static const char *field_name(char buffer[FIELD_BYTES], const char *list, size_t i,
			      const char *name)
{
	snprintf(buffer, FIELD_BYTES, "%s[%zu]%s%s", list, i, name[0] ? "." : "", name);
	return buffer;
}

/* ── what goes ─────────────────────────────────────────────────────────────────────────────── */

static int check_unmap(struct guest *guest, const struct iommu_range *range, size_t i,
		       struct refusal *refusal)
{
	char field[FIELD_BYTES];

	if (range->first > range->last)
		return refuse_field(refusal, field_name(field, "unmap", i, "last"),
				    "%#llx is below first, %#llx", (unsigned long long)range->last,
				    (unsigned long long)range->first);
	if (range->first % PAGE_BYTES)
		return refuse_field(refusal, field_name(field, "unmap", i, "first"),
				    "%#llx is no multiple of 4096",
				    (unsigned long long)range->first);
	if ((range->last + 1) % PAGE_BYTES) /* the top of the address space wraps to 0, rightly */
		return refuse_field(refusal, field_name(field, "unmap", i, "last"),
				    "%#llx does not end a page of 4096 bytes",
				    (unsigned long long)range->last);
	if (!region_list_may_cut(&guest->regions, range->first))
		return refuse_field(refusal, field_name(field, "unmap", i, "first"),
				    "%#llx cuts a region away from its granule",
				    (unsigned long long)range->first);
	if (range->last != UINT64_MAX && !region_list_may_cut(&guest->regions, range->last + 1))
		return refuse_field(refusal, field_name(field, "unmap", i, "last"),
				    "%#llx cuts a region away from its granule",
				    (unsigned long long)range->last);
	return 0;
}

/* ── what comes ────────────────────────────────────────────────────────────────────────────── */

static int check_map_granule(const struct memory_map_entry *map, size_t i, struct refusal *refusal)
{
	char field[FIELD_BYTES];
	uint64_t granule = map->granule;

	if (!granule)
		return 0;
	if (granule < PAGE_BYTES || (granule & (granule - 1)))
		return refuse_field(refusal, field_name(field, "map", i, "granule"),
				    "%#llx is no power of two of at least 4096",
				    (unsigned long long)granule);
	if ((map->gpa | map->offset | map->length) & (granule - 1))
		return refuse_field(refusal, field_name(field, "map", i, "granule"),
				    "%#llx does not divide gpa, offset and length",
				    (unsigned long long)granule);
	return 0;
}

static int check_map_file(const struct memory_file *file, const struct memory_map_entry *map,
			  size_t i, struct refusal *refusal)
{
	char field[FIELD_BYTES];

	if (map->offset % file->page_bytes)
		return refuse_field(refusal, field_name(field, "map", i, "offset"),
				    "%#llx is no multiple of the file's pages of %llu bytes",
				    (unsigned long long)map->offset,
				    (unsigned long long)file->page_bytes);
	if (map->offset > file->length_bytes)
		return refuse_field(refusal, field_name(field, "map", i, "offset"),
				    "%#llx is past the end of the file, %#llx",
				    (unsigned long long)map->offset,
				    (unsigned long long)file->length_bytes);
	if (map->length > file->length_bytes - map->offset)
		return refuse_field(refusal, field_name(field, "map", i, "length"),
				    "%#llx from offset %#llx is past the end of the file, %#llx",
				    (unsigned long long)map->length,
				    (unsigned long long)map->offset,
				    (unsigned long long)file->length_bytes);
	if (map->writable && !file->writable)
		return refuse_field(refusal, field_name(field, "map", i, "access"),
				    "the file was added for reading only");
	return 0;
}

static int check_map_address(const struct memory_map_entry *map, size_t i, struct refusal *refusal)
{
	char field[FIELD_BYTES];

	if (!map->length || map->length % PAGE_BYTES)
		return refuse_field(refusal, field_name(field, "map", i, "length"),
				    "%#llx is no multiple, above 0, of 4096",
				    (unsigned long long)map->length);
	if (map->gpa % PAGE_BYTES)
		return refuse_field(refusal, field_name(field, "map", i, "gpa"),
				    "%#llx is no multiple of 4096", (unsigned long long)map->gpa);
	/* The exclusive end is a number too. */
	if (map->gpa > UINT64_MAX - map->length)
		return refuse_field(refusal, field_name(field, "map", i, "length"),
				    "%#llx from %#llx passes the end of the address space",
				    (unsigned long long)map->length, (unsigned long long)map->gpa);
	return 0;
}

/* Never larger than a slice, so that every slice ends where an area does. */
static uint64_t area_bytes(const struct guest *guest, uint64_t granule)
{
	uint64_t slice = guest->broker->slice_bytes;

	return granule && granule < slice ? granule : slice;
}

static int plan_add_map(struct guest *guest, const struct memory_map_entry *map, size_t i,
			struct memory_plan *plan, struct refusal *refusal)
{
	struct memory_file *file = memory_file_find(guest, map->memory_file, refusal);
	struct region region;

	if (!file) {
		field_name(refusal->field, "map", i, "memory_file");
		return REFUSED;
	}
	if (check_map_address(map, i, refusal) || check_map_file(file, map, i, refusal) ||
	    check_map_granule(map, i, refusal))
		return REFUSED;
	region = (struct region){
		.file = file,
		.offset = map->offset,
		.gpa = map->gpa,
		.length = map->length,
		.granule = map->granule,
		.area_bytes = area_bytes(guest, map->granule),
		.writable = map->writable,
		.request_index = i,
	};
	if (region_list_push(&plan->added, &region))
		return refuse_errno(refusal, ENOMEM, "memory map");
	return 0;
}

static int refuse_overlap(const struct region *region, const char *what, struct refusal *refusal)
{
	refuse(refusal, REFUSAL_EXISTS, "OVERLAP", "map[%zu]: %#llx to %#llx overlaps %s",
	       region->request_index, (unsigned long long)region->gpa,
	       (unsigned long long)(region->gpa + region->length - 1), what);
	field_name(refusal->field, "map", region->request_index, "gpa");
	return REFUSED;
}

static int plan_check_overlap(struct memory_plan *plan, struct refusal *refusal)
{
	size_t i;

	region_list_sort(&plan->added);
	i = region_list_overlap(&plan->added);
	if (i < plan->added.n)
		return refuse_overlap(&plan->added.items[i], "another one of this call", refusal);
	i = region_lists_overlap(&plan->kept, &plan->added);
	if (i < plan->added.n)
		return refuse_overlap(&plan->added.items[i], "memory that is mapped", refusal);
	return 0;
}

/* ── together ──────────────────────────────────────────────────────────────────────────────── */

static int plan_check_request(struct guest *guest, const struct memory_update_request *request,
			      struct refusal *refusal)
{
	if (request->n_unmap > BROKER_MAP_RANGES_MAX)
		return refuse_field(refusal, "unmap", "has %zu entries, at most %d are allowed",
				    request->n_unmap, BROKER_MAP_RANGES_MAX);
	if (request->n_map > BROKER_MAP_RANGES_MAX)
		return refuse_field(refusal, "map", "has %zu entries, at most %d are allowed",
				    request->n_map, BROKER_MAP_RANGES_MAX);
	for (size_t i = 0; i < request->n_unmap; i++)
		if (check_unmap(guest, &request->unmap[i], i, refusal))
			return REFUSED;
	return 0;
}

static int plan_fill(struct guest *guest, const struct memory_update_request *request,
		     struct memory_plan *plan, struct refusal *refusal)
{
	int error = region_list_split(&guest->regions, request->unmap, request->n_unmap,
				      &plan->kept, &plan->removed);

	if (error)
		return refuse_errno(refusal, -error, "memory map");
	for (size_t i = 0; i < request->n_map; i++)
		if (plan_add_map(guest, &request->map[i], i, plan, refusal))
			return REFUSED;
	if (plan_check_overlap(plan, refusal))
		return REFUSED;
	error = region_list_keep_alike(&plan->removed, &plan->added, &plan->kept);
	for (size_t i = 0; !error && i < plan->kept.n; i++)
		error = region_list_push(&plan->final, &plan->kept.items[i]);
	for (size_t i = 0; !error && i < plan->added.n; i++)
		error = region_list_push(&plan->final, &plan->added.items[i]);
	region_list_sort(&plan->final);
	return error ? refuse_errno(refusal, -error, "memory map") : 0;
}

int memory_plan_make(struct guest *guest, const struct memory_update_request *request,
		     struct memory_plan *ret, struct refusal *refusal)
{
	struct memory_plan plan = {0};

	if (plan_check_request(guest, request, refusal))
		return REFUSED;
	if (plan_fill(guest, request, &plan, refusal)) {
		memory_plan_clear(&plan);
		return REFUSED;
	}
	*ret = plan;
	return 0;
}

void memory_plan_clear(struct memory_plan *plan)
{
	region_list_clear(&plan->kept);
	region_list_clear(&plan->removed);
	region_list_clear(&plan->added);
	region_list_clear(&plan->final);
}
