/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_CALL_COUNT_H
#define IB_IOMMU_CALL_COUNT_H

/*
 * Calls of the kernel, or of the emulated backend in its place, by kind: counted for operators and
 * shown to tracers. One set of counters for the process, as there is one backend in a daemon.
 */

#include <stdint.h>

enum iommu_call {
	IOMMU_CALL_MAP,
	IOMMU_CALL_COPY,
	IOMMU_CALL_UNMAP,
	IOMMU_CALL_CUT,
	IOMMU_CALL_IOAS_NEW,
	IOMMU_CALL_PAGE_TABLE_NEW,
	IOMMU_CALL_DESTROY,
	IOMMU_CALL_BIND,
	IOMMU_CALL_ATTACH,
	IOMMU_CALL_DETACH,
	IOMMU_CALL_STOP,  /* of a device: reset */
	IOMMU_CALL_OTHER, /* questions, options, what is opened */
	IOMMU_CALLS
};

struct iommu_call_count {
	uint64_t calls, errors; /* errors: of the calls, those that failed */
};

const char *iommu_call_name(enum iommu_call call); /* "page_table_new" */
/* Around each. number: of the ioctl, or 0. Any thread. */
void iommu_call_enter(enum iommu_call call, unsigned long number);
/* Returns error, a positive errno or 0. */
int iommu_call_exit(enum iommu_call call, unsigned long number, int error);
/* Since the process began. Any thread. */
void iommu_call_counts(struct iommu_call_count ret[IOMMU_CALLS]);

#endif
