/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_EMULATED_DMA_H
#define IB_IOMMU_EMULATED_DMA_H

/*
 * The DMA engine of an emulated function: moves bytes through the translations that the daemon
 * installed, in whichever process holds the device's descriptor. Depends on libc only.
 *
 * It reads the translations without locks and never waits for the daemon, dead or alive. A page
 * goes through either the old or the new translation. As with real hardware before the IOTLB is
 * invalidated, an access that began before a translation went may still land just after; unlike
 * there nobody waits for it, so whoever needs that certainty stops its own accesses first.
 *
 * One engine may be used by several threads at once. The memory's mappings raise SIGBUS if its
 * owner truncates the file: use sealed files.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EMULATED_DMA_MEMORIES_MAX 256

struct emulated_dma;

enum emulated_dma_reason {
	EMULATED_DMA_OK,
	EMULATED_DMA_DISABLED,       /* bus master is off: not bound, or stopped */
	EMULATED_DMA_OUTSIDE_WINDOW, /* below start or above end of DMA */
	EMULATED_DMA_BLOCKED,        /* attached to nothing */
	EMULATED_DMA_NOT_MAPPED,
	EMULATED_DMA_READ_ONLY,      /* a write */
	EMULATED_DMA_WRITE_ONLY,     /* a read */
	EMULATED_DMA_UNKNOWN_MEMORY, /* a file that was not added, or beyond its end */
	EMULATED_DMA_BAD_TABLE,      /* the tables are damaged */
};

struct emulated_dma_fault {
	uint64_t iova; /* first byte that could not be moved; those before it were */
	enum emulated_dma_reason reason;
};

/* What the device file says of the function. */
struct emulated_dma_state {
	uint32_t fid;
	char pci_address[16];
	uint64_t dma_first, dma_last;
	bool enabled, attached;
	uint64_t resets;
};

/* Where a page is. */
struct emulated_dma_target {
	uint64_t dev, ino; /* of the file */
	uint64_t offset;   /* of the byte in it */
	bool readable, writable;
};

/* 0, or a negative errno; -EINVAL: not a device file. */
int emulated_dma_open(struct emulated_dma **ret, int borrow_device_fd);
/* NULL is fine. Returns NULL. */
struct emulated_dma *emulated_dma_close(struct emulated_dma *dma);

/* Make a guest memory file reachable: all of it, for writing if the descriptor allows. 0, or a
 * negative errno: -EEXIST, -ENOSPC (EMULATED_DMA_MEMORIES_MAX). */
int emulated_dma_add_memory(struct emulated_dma *dma, int borrow_fd);

/* EMULATED_DMA_OK, or the reason, also in *ret_fault, which may be NULL. */
enum emulated_dma_reason emulated_dma_read(struct emulated_dma *dma, uint64_t iova, void *buffer,
					   size_t length, struct emulated_dma_fault *ret_fault);
enum emulated_dma_reason emulated_dma_write(struct emulated_dma *dma, uint64_t iova,
					    const void *buffer, size_t length,
					    struct emulated_dma_fault *ret_fault);

/* Where an access to iova would go, whether or not that memory was added. Does not look at
 * permissions. */
enum emulated_dma_reason emulated_dma_translate(const struct emulated_dma *dma, uint64_t iova,
						struct emulated_dma_target *ret);
void emulated_dma_state(const struct emulated_dma *dma, struct emulated_dma_state *ret);
/* Static text. */
const char *emulated_dma_reason_name(enum emulated_dma_reason reason);

#endif
