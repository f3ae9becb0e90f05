/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_EMULATED_DEVICE_FILE_H
#define IB_IOMMU_EMULATED_DEVICE_FILE_H

/*
 * Making an emulated function's device file, in the daemon or in a client that passes its
 * descriptor in. Depends on libc only.
 */

#include <stdint.h>

struct emulated_device_parameters {
	uint32_t fid;
	char pci_address[16];         /* "dddd:bb:ss.f", or "" */
	uint64_t dma_first, dma_last; /* inclusive; whole pages */
};

/* A blocked, disabled function. 0, EINVAL or an errno; the caller owns the descriptor, which is
 * open for reading and writing. */
int emulated_device_create(const struct emulated_device_parameters *parameters, int *ret_fd);

/* A sparse memfd of the size in layout.h, sealed against shrinking and growing. 0 or an errno. */
int emulated_file_new(const char *name, int *ret_fd);
/* The same file, opened once more: another open file description. 0 or an errno. */
int emulated_file_reopen(int borrow_fd, int flags, int *ret_fd);

#endif
