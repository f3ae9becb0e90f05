/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_DMA_EDU_H
#define IB_TESTS_DMA_EDU_H

/*
 * QEMU's "edu" device (docs/specs/edu.rst) as the judge of what a real kernel maps, for the
 * conformance suite. One device at a time.
 *
 * edu copies between memory and a buffer of its own, and only by DMA: what is to be written must
 * first be read from somewhere. So a page of ours is mapped in an address space of its own, to
 * which the device is attached for that first half of a write and the second half of a read, and
 * then put back to what the suite attached. To know that, and the context, a few operations of the
 * backend are looked on at.
 */

#include "conformance.h"

extern const struct conformance_dma_ops dma_edu_ops;

/* Puts itself before the backend's operations, until the process ends. */
void dma_edu_watch(struct iommu_backend *backend);

#endif
