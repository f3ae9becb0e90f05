/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "iommu/call_count.h"

#include <stdatomic.h>

#include "util/trace.h"

/* A cache line each, so that threads that map do not slow those that unmap. */
static struct {
	_Alignas(64) _Atomic uint64_t calls;
	_Atomic uint64_t errors;
} counts[IOMMU_CALLS];

const char *iommu_call_name(enum iommu_call call)
{
	static const char *const names[IOMMU_CALLS] = {
		[IOMMU_CALL_MAP] = "map",           [IOMMU_CALL_COPY] = "copy",
		[IOMMU_CALL_UNMAP] = "unmap",       [IOMMU_CALL_CUT] = "cut",
		[IOMMU_CALL_IOAS_NEW] = "ioas_new", [IOMMU_CALL_PAGE_TABLE_NEW] = "page_table_new",
		[IOMMU_CALL_DESTROY] = "destroy",   [IOMMU_CALL_BIND] = "bind",
		[IOMMU_CALL_ATTACH] = "attach",     [IOMMU_CALL_DETACH] = "detach",
		[IOMMU_CALL_STOP] = "stop",         [IOMMU_CALL_OTHER] = "other",
	};

	return names[call];
}

void iommu_call_enter(enum iommu_call call, unsigned long number)
{
	TRACE(ioctl__enter, iommu_call_name(call), number);
}

int iommu_call_exit(enum iommu_call call, unsigned long number, int error)
{
	TRACE(ioctl__exit, iommu_call_name(call), number, error);
	atomic_fetch_add_explicit(&counts[call].calls, 1, memory_order_relaxed);
	if (error)
		atomic_fetch_add_explicit(&counts[call].errors, 1, memory_order_relaxed);
	return error;
}

void iommu_call_counts(struct iommu_call_count ret[IOMMU_CALLS])
{
	for (int i = 0; i < IOMMU_CALLS; i++) {
		ret[i].errors = atomic_load_explicit(&counts[i].errors, memory_order_relaxed);
		ret[i].calls = atomic_load_explicit(&counts[i].calls, memory_order_relaxed);
	}
}
