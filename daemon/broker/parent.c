/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/parent.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>

#include "broker/backend_call.h"
#include "broker/device.h"
#include "broker/guest.h"
#include "broker/memory_file.h"
#include "broker/root.h"
#include "util/crash_point.h"

int parent_new(struct guest *guest, struct refusal *refusal)
{
	int error = broker_ops(guest->broker)->ioas_new(guest->context, false, &guest->parent.ioas);

	if (error)
		return refuse_errno(refusal, error, "address space of the parent domain");
	guest->parent.made = true;
	save_note_id(guest, guest->parent.ioas);
	return 0;
}

static void parent_drop_page_tables(struct guest *guest)
{
	while (guest->parent.n_page_tables)
		backend_destroy(guest, guest->parent.page_tables[--guest->parent.n_page_tables]);
}

void parent_destroy(struct guest *guest)
{
	if (!guest->parent.made)
		return;
	parent_drop_page_tables(guest);
	backend_destroy(guest, guest->parent.ioas);
	guest->parent.made = false;
}

/* The kernel answers ENOMEM both for the locked-memory limit, which all guests share, and for want
 * of memory. Which one it was can only be told by comparing. */
static bool memlock_is_short(struct guest *guest)
{
	struct usage host[LEDGER_RESOURCES];
	struct rlimit limit;

	if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur == RLIM_INFINITY)
		return false;
	ledger_usage(&guest->broker->ledger, &guest->broker->host, host);
	return host[LEDGER_PINNED_BYTES].current > limit.rlim_cur;
}

int parent_refuse_errno(struct guest *guest, int error, const char *doing, struct refusal *refusal)
{
	if (error != ENOMEM || !memlock_is_short(guest))
		return refuse_errno(refusal, error, doing);
	refuse(refusal, REFUSAL_HOST_MEMLOCK, "HOST_MEMLOCK",
	       "%s: the daemon's locked-memory limit (RLIMIT_MEMLOCK) is below what its guests may "
	       "pin",
	       doing);
	refusal->host_errno = error;
	return REFUSED;
}

static int parent_map_area(struct guest *guest, const struct region *region, uint64_t at,
			   uint64_t length)
{
	const struct iommu_file file = {
		.fd = region->file->fd,
		.host = region->file->host,
		.bytes = region->file->length_bytes,
	};
	unsigned int prot = IOMMU_PROT_READ | (region->writable ? IOMMU_PROT_WRITE : 0);

	return broker_ops(guest->broker)
		->map_file(guest->context, guest->parent.ioas, &file, region->offset + at, length,
			   region->gpa + at, prot);
}

/* Told once a slice, however small the areas are. */
static void pin_progress_add(struct guest *guest, struct pin_progress *progress, uint64_t bytes)
{
	struct operation *operation = progress->operation;

	progress->done_bytes += bytes;
	if (progress->done_bytes - progress->told_bytes < guest->broker->slice_bytes &&
	    progress->done_bytes != progress->total_bytes)
		return;
	progress->told_bytes = progress->done_bytes;
	if (operation && operation->progress)
		operation->progress(operation, progress->done_bytes, progress->total_bytes);
}

/* The first bytes of a region, a multiple of its areas. */
static void parent_unmap_first(struct guest *guest, const struct region *region, uint64_t length)
{
	struct region part = *region;

	part.length = length;
	parent_unmap(guest, &part);
}

static int parent_map_step(struct guest *guest, const struct region *region, uint64_t at,
			   uint64_t length, struct pin_progress *progress, struct refusal *refusal)
{
	int error;

	if (guest_cancelled(guest, progress->operation))
		return guest_refuse_cancelled(guest, refusal);
	error = parent_map_area(guest, region, at, length);
	if (error)
		return parent_refuse_errno(guest, error, "pinning guest memory", refusal);
	CRASH_POINT(PIN_AREA);
	pin_progress_add(guest, progress, length);
	return 0;
}

int parent_map(struct guest *guest, const struct region *region, struct pin_progress *progress,
	       struct refusal *refusal)
{
	uint64_t at = 0, length;

	while ((length = region_slice(region, at, region->area_bytes))) {
		if (parent_map_step(guest, region, at, length, progress, refusal)) {
			parent_unmap_first(guest, region, at);
			return REFUSED;
		}
		at += length;
	}
	return 0;
}

/* A call takes a slice, which ends where an area does: areas are powers of two, slices too, and no
 * area is larger than a slice. */
void parent_unmap(struct guest *guest, const struct region *region)
{
	uint64_t at = 0, length;

	assert(region->area_bytes <= guest->broker->slice_bytes);
	while ((length = region_slice(region, at, guest->broker->slice_bytes))) {
		backend_unmap(guest, guest->parent.ioas, region->gpa + at, length);
		at += length;
	}
}

static const char *region_field(char field[64], const struct region *region)
{
	snprintf(field, 64, "region at %#llx", (unsigned long long)region->gpa);
	return field;
}

int parent_check_populated(struct guest *guest, const struct region *region, struct file_look *look,
			   struct refusal *refusal)
{
	char field[64];

	return file_check_populated(region->file, region->offset, region->length,
				    region_field(field, region), look, refusal);
}

int parent_populate(struct guest *guest, const struct region *region, const char *field,
		    struct operation *operation, struct file_look *look, struct refusal *refusal)
{
	struct policy *policy = policy_get(guest->broker);
	enum broker_unpopulated how = policy->settings.unpopulated_memory;
	uint64_t at = 0, length;

	policy_unref(policy);
	while ((length = region_slice(region, at, guest->broker->slice_bytes))) {
		if (guest_cancelled(guest, operation))
			return guest_refuse_cancelled(guest, refusal);
		if (file_populate(region->file, region->offset + at, length, how, field, look,
				  refusal))
			return REFUSED;
		at += length;
	}
	return 0;
}

static int parent_pin_region(struct guest *guest, const struct region *region,
			     struct pin_progress *progress, struct file_look *look,
			     struct refusal *refusal)
{
	char field[64];

	if (parent_populate(guest, region, region_field(field, region), progress->operation, look,
			    refusal))
		return REFUSED;
	return parent_map(guest, region, progress, refusal);
}

static void parent_unmap_list(struct guest *guest, const struct region_list *regions, size_t n)
{
	while (n--)
		parent_unmap(guest, &regions->items[n]);
}

static int parent_pin_list(struct guest *guest, const struct region_list *regions,
			   struct operation *operation, struct refusal *refusal)
{
	struct file_look before = {0}, after = {0};
	struct pin_progress progress = {
		.operation = operation,
		.total_bytes = region_list_bytes(regions),
	};

	for (size_t i = 0; i < regions->n; i++) {
		if (parent_pin_region(guest, &regions->items[i], &progress, &before, refusal)) {
			parent_unmap_list(guest, regions, i);
			return REFUSED;
		}
	}
	for (size_t i = 0; i < regions->n; i++) {
		if (parent_check_populated(guest, &regions->items[i], &after, refusal)) {
			parent_unmap_list(guest, regions, regions->n);
			return REFUSED;
		}
	}
	return 0;
}

static int parent_pin_regions(struct guest *guest, struct operation *operation,
			      struct refusal *refusal)
{
	struct region_list sorted = {0};
	int status = 0;

	for (size_t i = 0; !status && i < guest->regions.n; i++)
		if (region_list_push(&sorted, &guest->regions.items[i]))
			status = refuse_errno(refusal, ENOMEM, "memory map");
	region_list_sort_by_file(&sorted);
	if (!status)
		status = parent_pin_list(guest, &sorted, operation, refusal);
	region_list_clear(&sorted);
	return status;
}

static int parent_add_page_table(struct guest *guest, struct device *device, uint32_t *ret,
				 struct refusal *refusal)
{
	struct parent *parent = &guest->parent;
	int error;

	if (parent->n_page_tables == PARENT_PAGE_TABLES_MAX)
		return refuse(refusal, REFUSAL_PRECONDITION, "PARENT_PAGE_TABLES",
			      "the guest's devices need more than %d kinds of page table",
			      PARENT_PAGE_TABLES_MAX);
	error = broker_ops(guest->broker)
			->page_table_new(guest->context, device->backend, parent->ioas, ret);
	if (error)
		return parent_refuse_errno(guest, error, "page table of the parent domain",
					   refusal);
	parent->page_tables[parent->n_page_tables++] = *ret;
	save_note_id(guest, *ret);
	return 0;
}

int parent_pin(struct guest *guest, struct device *device, struct operation *operation,
	       struct refusal *refusal)
{
	uint32_t page_table;

	if (parent_add_page_table(guest, device, &page_table, refusal))
		return REFUSED;
	CRASH_POINT(BIND_PAGE_TABLE);
	if (parent_pin_regions(guest, operation, refusal)) {
		parent_drop_page_tables(guest);
		return REFUSED;
	}
	CRASH_POINT(BIND_PINNED);
	pthread_mutex_lock(&guest->lock);
	guest->pinned = true;
	pthread_mutex_unlock(&guest->lock);
	return 0;
}

/* EINVAL: this page table does not suit the device's IOMMU. EADDRINUSE: guest memory lies where the
 * device cannot have it; on s390 that is always so, below its start of DMA. */
static int parent_refuse_attach(int error, struct refusal *refusal)
{
	if (error == EADDRINUSE || error == EINVAL)
		return refuse(refusal, REFUSAL_PRECONDITION, "RESERVED_ADDRESSES",
			      "guest memory lies at addresses that this device cannot use: it can "
			      "not be attached to the parent domain");
	return device_refuse_attach(error, refusal);
}

int parent_attach(struct guest *guest, struct device *device, struct refusal *refusal)
{
	struct parent *parent = &guest->parent;
	uint32_t page_table;
	int error = EINVAL;

	for (size_t i = 0; error == EINVAL && i < parent->n_page_tables; i++)
		error = device_backend_attach(device, parent->page_tables[i]);
	if (!error)
		return 0;
	if (error != EINVAL)
		return parent_refuse_attach(error, refusal);
	if (parent_add_page_table(guest, device, &page_table, refusal))
		return REFUSED;
	error = device_backend_attach(device, page_table);
	if (!error)
		return 0;
	/* It suits nobody. */
	parent->n_page_tables--;
	backend_destroy(guest, page_table);
	return parent_refuse_attach(error, refusal);
}
