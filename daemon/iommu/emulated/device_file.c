/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Making an emulated function's device file, see device_file.h and layout.h. */

#include "iommu/emulated/device_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "iommu/emulated/layout.h"

int emulated_file_new(const char *name, int *ret_fd)
{
	int fd, error;

	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return errno;
	if (ftruncate(fd, (off_t)EMULATED_FILE_BYTES) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		error = errno;
		close(fd);
		return error;
	}
	*ret_fd = fd;
	return 0;
}

int emulated_file_reopen(int borrow_fd, int flags, int *ret_fd)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", borrow_fd);
	fd = open(path, flags | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno;
	*ret_fd = fd;
	return 0;
}

int emulated_device_create(const struct emulated_device_parameters *parameters, int *ret_fd)
{
	struct emulated_device_header header = {
		.magic = EMULATED_DEVICE_MAGIC,
		.version = EMULATED_VERSION,
		.fid = parameters->fid,
		.dma_first = parameters->dma_first,
		.dma_last = parameters->dma_last,
	};
	int fd, error;

	if (parameters->dma_first > parameters->dma_last ||
	    parameters->dma_first % EMULATED_PAGE_BYTES ||
	    (parameters->dma_last + 1) % EMULATED_PAGE_BYTES ||
	    !memchr(parameters->pci_address, 0, sizeof(parameters->pci_address)))
		return EINVAL;
	memcpy(header.pci_address, parameters->pci_address, sizeof(header.pci_address));
	error = emulated_file_new("iommubroker-function", &fd);
	if (error)
		return error;
	if (pwrite(fd, &header, sizeof(header), 0) != (ssize_t)sizeof(header)) {
		close(fd);
		return EIO;
	}
	*ret_fd = fd;
	return 0;
}
