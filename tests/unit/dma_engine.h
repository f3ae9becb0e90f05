/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_DMA_ENGINE_H
#define IB_TESTS_DMA_ENGINE_H

/*
 * A real device (tests/vm/guest/engine.h) as the judge of what a real kernel maps, for the
 * conformance suite. One device at a time.
 *
 * The device needs a workspace in whatever the suite has attached. It is put there when DMA is
 * wanted, at an IOVA below those of the suite, and taken away again before the suite could see it:
 * before an unmap or a cut that reaches it, and before pages are counted. So that this can be done,
 * the operations of the backend are looked on at.
 *
 * A function that QEMU emulates on s390x learns of a mapping only when it is made while the
 * function is attached to it; the hardware would read the tables. Of older mappings the judge does
 * not say that they are missing.
 */

#include "conformance.h"

extern const struct conformance_dma_ops dma_engine_ops;

/* Puts itself before the backend's operations, until the process ends. */
void dma_engine_watch(struct iommu_backend *backend);

/* Takes the workspace out of what is attached, until the next DMA. */
void dma_engine_hide(void);

#endif
