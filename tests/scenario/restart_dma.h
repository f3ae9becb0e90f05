/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_SCENARIO_RESTART_DMA_H
#define IB_SCENARIO_RESTART_DMA_H

/*
 * The devices of restart_vmm: functions of the emulated backend (restart_emulated.c), or real ones
 * that VFIO hands out (tests/vm/guest/restart_engine.c).
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iommubroker.h"

/* Pages of the device's window that its driver has to itself, from the window's first on. */
#define RESTART_WORKSPACE_PAGES 8u

struct restart_dma;

struct restart_workspace {
	uint64_t iova;
	uint8_t *host; /* the pages that are mapped there */
};

extern const struct restart_kind {
	/* To look at what is not mapped is a fault of the device, which somebody logs. */
	bool faults;
	/* It has nothing of what was mapped before it was attached (QEMU's zPCI functions). */
	bool forgets;
} restart_kind;

/* name: an argument of restart_vmm. As iommubroker_device_open_...(). */
int restart_device_open(struct iommubroker_guest *guest, const char *name,
			struct iommubroker_device **ret, int *ret_fd,
			struct iommubroker_error **ret_error);

/* Of a device that is attached, with its workspace mapped. One thread at a time uses it, but for
 * what says otherwise. NULL, or what went wrong. */
const char *restart_dma_open(struct restart_dma **ret, int borrow_device_fd, int borrow_memory_fd,
			     const struct restart_workspace *workspace);
struct restart_dma *restart_dma_close(struct restart_dma *dma); /* returns NULL */
/* n bytes, a multiple of 8, are written to iova and read back from there. Any thread. NULL, or what
 * went wrong. */
const char *restart_dma_transfer(struct restart_dma *dma, uint64_t iova, const void *bytes,
				 void *ret_back, size_t n);

/* Whether one more look is in time: those of a real device take long. Any thread. */
bool restart_dma_wants_look(struct restart_dma *dma);
/* Whether what the device has at iova is the page that host shows us, of memory that was opened
 * with. NULL: it is; or what it has in its place. In a real device the page is written to. Any
 * thread. */
const char *restart_dma_look(struct restart_dma *dma, uint64_t iova, uint8_t *host,
			     uint64_t offset);
/* Whether the device reaches anything at iova. Only where looking is no fault. */
bool restart_dma_reaches(struct restart_dma *dma, uint64_t iova);

#endif
