/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_DMA_H
#define IB_VM_DMA_H

/*
 * The device as the judge: does what it writes at an IOVA arrive at a guest address, and only if it
 * may? Every write carries a stamp that was never used before.
 *
 * A blocked access puts a zPCI function into error state; the functions that expect one recover it.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmm.h"

/* A write at iova arrives at gpa. False also if the device reports an error: errno says which. */
bool dma_lands(struct vmm *vmm, uint64_t iova, uint64_t gpa);
/* A read at iova brings what stands at gpa. */
bool dma_reads(struct vmm *vmm, uint64_t iova, uint64_t gpa);
/* A write at iova changes nothing in the page at gpa. On s390x it is an error of the function,
 * which proves that it was tried. */
bool dma_is_kept_out(struct vmm *vmm, uint64_t iova, uint64_t gpa);
/* dma_lands() for n_pages at consecutive addresses, but for those in [hole, hole + n_hole). */
bool dma_lands_around(struct vmm *vmm, uint64_t iova, uint64_t gpa, uint64_t n_pages, uint64_t hole,
		      uint64_t n_hole);

#endif
