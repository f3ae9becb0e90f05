/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether the parent maps what the records say, and nothing else: memory of which no record tells
 * is pinned and charged to nobody, and devices reach it.
 *
 * The kernel cannot be asked what is mapped. But a copy tells of each of its pages whether it is
 * there and may be written, and an unmap whether there was anything in a range. So of each region
 * the first and the last page are copied to an address space that goes again; and of each gap
 * between them, too, where an area of a region could stick out, before all that lies in it is
 * unmapped. Where that finds something the guest is released: what it was for nobody knows.
 */
#include "broker/restore.h"

#include <errno.h>
#include <unistd.h>

#include "broker/root.h"

struct audit {
	struct restoring *r;
	uint32_t parent, scratch; /* address spaces */
	uint64_t page_bytes;
};

/* 0; ENOENT: the page is not mapped; EPERM: it is, and not like that. */
static int page_look(const struct audit *audit, uint64_t at, unsigned int prot)
{
	const struct iommu_backend_ops *ops = broker_ops(audit->r->broker);
	struct iommu_context *context = audit->r->guest->context;
	uint64_t unmapped;
	int error =
		ops->copy(context, audit->scratch, at, audit->parent, at, audit->page_bytes, prot);

	if (!error)
		ops->unmap(context, audit->scratch, at, audit->page_bytes, &unmapped);
	return error;
}

/* What cannot be told, for want of memory, is no reason to lose a guest. */
static int page_check(const struct audit *audit, const struct region *region, uint64_t at)
{
	int error = page_look(audit, at, IOMMU_PROT_READ | IOMMU_PROT_WRITE);

	if (error == ENOENT)
		return restore_fail(audit->r, "memory that a record names is not mapped");
	if (error == (region->writable ? EPERM : 0))
		return restore_fail(audit->r, "memory is not mapped as its record says");
	return 0;
}

static int region_check(const struct audit *audit, const struct region *region)
{
	int status = page_check(audit, region, region->gpa);

	return status ? status
		      : page_check(audit, region, region->gpa + region->length - audit->page_bytes);
}

static bool gap_is_empty(const struct audit *audit, uint64_t first, uint64_t last)
{
	uint64_t length = last - first + 1, unmapped = 0;
	int error;

	if (!page_look(audit, first, IOMMU_PROT_READ))
		return false;
	if (last != UINT64_MAX && !page_look(audit, last + 1 - audit->page_bytes, IOMMU_PROT_READ))
		return false;
	error = broker_ops(audit->r->broker)
			->unmap(audit->r->guest->context, audit->parent, first,
				length ? length : UINT64_MAX, &unmapped);
	return error ? error == ENOENT : !unmapped;
}

static int gap_check(const struct audit *audit, uint64_t first, uint64_t last)
{
	if (gap_is_empty(audit, first, last))
		return 0;
	return restore_fail(audit->r, "memory is mapped that no record names");
}

static int memory_check(const struct audit *audit)
{
	const struct guest *guest = audit->r->guest;
	size_t n = guest->pinned ? guest->regions.n : 0;
	uint64_t at = 0;
	int status = 0;

	for (size_t i = 0; !status && i < n; i++) {
		const struct region *region = &guest->regions.items[i];

		status = region_check(audit, region);
		if (!status && region->gpa > at)
			status = gap_check(audit, at, region->gpa - 1);
		at = region->gpa + region->length;
	}
	return status ? status : gap_check(audit, at, UINT64_MAX);
}

int restore_audit(struct restoring *r)
{
	const struct iommu_backend_ops *ops = broker_ops(r->broker);
	struct audit audit = {
		.r = r,
		.parent = r->guest->parent.ioas,
		.page_bytes = (uint64_t)sysconf(_SC_PAGESIZE),
	};
	int status;

	if (ops->ioas_new(r->guest->context, false, &audit.scratch))
		return 0;
	status = memory_check(&audit);
	ops->destroy(r->guest->context, audit.scratch);
	return status;
}
