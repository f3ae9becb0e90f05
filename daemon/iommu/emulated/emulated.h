/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_EMULATED_EMULATED_H
#define IB_IOMMU_EMULATED_EMULATED_H

/*
 * What tests may ask of the emulated backend beyond the seam: make calls fail, limit what may be
 * pinned, count.
 */

#include "iommu/backend.h"

enum iommu_emulated_operation {
	IOMMU_EMULATED_CONTEXT_NEW = 1 << 0,
	IOMMU_EMULATED_IOAS_NEW = 1 << 1,
	IOMMU_EMULATED_MAP = 1 << 2,
	IOMMU_EMULATED_COPY = 1 << 3,
	IOMMU_EMULATED_UNMAP = 1 << 4,
	IOMMU_EMULATED_CUT = 1 << 5,
	IOMMU_EMULATED_PAGE_TABLE_NEW = 1 << 6,
	IOMMU_EMULATED_DESTROY = 1 << 7,
	IOMMU_EMULATED_OPEN = 1 << 8, /* also from a descriptor */
	IOMMU_EMULATED_DESCRIPTOR = 1 << 9,
	IOMMU_EMULATED_BIND = 1 << 10,
	IOMMU_EMULATED_ATTACH = 1 << 11,
	IOMMU_EMULATED_DETACH = 1 << 12,
	IOMMU_EMULATED_STOP = 1 << 13,
	IOMMU_EMULATED_ALL = (1 << 14) - 1,
};

/* The n-th call from now on (1: the next) of any of the operations answers error and does nothing;
 * once. n 0: none does. */
void iommu_emulated_fail_nth(struct iommu_backend *backend, unsigned int operations, unsigned int n,
			     int error);
/* Every call of these operations does, until it is called again with operations 0. */
void iommu_emulated_fail_every(struct iommu_backend *backend, unsigned int operations, int error);

/* Like RLIMIT_MEMLOCK, for one context: pinning beyond it is ENOMEM. */
void iommu_emulated_limit_pins(struct iommu_context *context, uint64_t pages);

struct iommu_emulated_counters {
	uint64_t maps, copies, unmaps, cuts; /* calls that succeeded */
	uint64_t pinned_pages;
	uint64_t table_pages; /* of the state file, in use */
};
void iommu_emulated_counters(struct iommu_context *context, struct iommu_emulated_counters *ret);

#endif
