/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Opening devices: by address or zPCI function id through sysfs, or from a client's descriptor.
 *
 * An opened device gives no access before it is bound, and can be opened any number of times; only
 * one of these can be bound. So opening never tells that a device is in use elsewhere: bind does.
 *
 * Whichever way a device comes in, the descriptor is one of the character device that sysfs names
 * for a PCI function, so that what is said of the function (address, id, device rules) is said of
 * what was opened.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "iommu/iommufd/call.h"
#include "iommu/iommufd/iommufd.h"

/* ENOENT too for a node that is not, or not yet, the one that sysfs names. */
static int open_once(const char *path, dev_t node, int *ret_fd)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat status;

	if (fd < 0)
		return errno == ELOOP || errno == ENXIO ? ENOENT : errno;
	if (fstat(fd, &status) < 0 || !S_ISCHR(status.st_mode) || status.st_rdev != node) {
		close(fd);
		return ENOENT;
	}
	*ret_fd = fd;
	return 0;
}

int iommufd_open_node(const struct iommufd_backend *backend, const struct sysfs_vfio *vfio,
		      uint64_t wait_ns, int *ret_fd)
{
	struct iommufd_retry retry = iommufd_retry_for(wait_ns);
	char path[PATH_MAX];
	int n, error;

	n = snprintf(path, sizeof(path), "%s/devices/%s", backend->vfio_dir, vfio->name);
	if (n < 0 || (size_t)n >= sizeof(path))
		return ENAMETOOLONG;
	do
		error = open_once(path, vfio->node, ret_fd);
	while ((error == ENOENT || error == EACCES) && iommufd_retry_again(&retry));
	return error;
}

/* fd is consumed, also on failure. */
static int device_new(struct iommufd_backend *backend, const struct sysfs_vfio *vfio,
		      int consume_fd, struct iommu_device **ret)
{
	struct iommu_device *device = calloc(1, sizeof(*device));

	if (!device) {
		close(consume_fd);
		return ENOMEM;
	}
	device->backend = backend;
	device->fd = consume_fd;
	device->vfio = *vfio;
	*ret = device;
	return 0;
}

int iommufd_device_address(const struct iommufd_backend *backend,
			   const struct iommu_device_address *address,
			   char ret[SYSFS_PCI_ADDRESS_BYTES])
{
	return address->by_fid ? sysfs_pci_by_fid(ret, backend->sysfs, address->fid)
			       : sysfs_pci_address(ret, address->pci_address);
}

int iommufd_device_open(struct iommu_backend *base, const struct iommu_device_address *address,
			struct iommu_device **ret)
{
	struct iommufd_backend *backend = iommufd_backend_of(base);
	char pci_address[SYSFS_PCI_ADDRESS_BYTES];
	struct sysfs_vfio vfio;
	int error, fd;

	error = iommufd_device_address(backend, address, pci_address);
	if (!error)
		error = sysfs_vfio_of_pci(&vfio, backend->sysfs, pci_address);
	if (!error)
		error = iommufd_open_node(backend, &vfio, backend->open_wait_ns, &fd);
	if (error)
		return error;
	return device_new(backend, &vfio, fd, ret);
}

/* fstat alone would accept what was opened with O_PATH, for which nobody asks for permission; such
 * a descriptor says that it is O_RDONLY. */
static int check_descriptor(const struct iommufd_backend *backend, int fd, struct sysfs_vfio *ret)
{
	struct stat status;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || (flags & O_ACCMODE) != O_RDWR)
		return EINVAL;
	if (fstat(fd, &status) < 0 || !S_ISCHR(status.st_mode))
		return EINVAL;
	return sysfs_vfio_of_node(ret, backend->sysfs, status.st_rdev);
}

int iommufd_device_open_fd(struct iommu_backend *base, int consume_fd, struct iommu_device **ret)
{
	struct iommufd_backend *backend = iommufd_backend_of(base);
	struct sysfs_vfio vfio;
	int error = check_descriptor(backend, consume_fd, &vfio);

	if (error) {
		if (consume_fd >= 0)
			close(consume_fd);
		return error;
	}
	return device_new(backend, &vfio, consume_fd, ret);
}

/* What sysfs says of the descriptor's node now is what it is; the function cannot have moved while
 * somebody held it. */
int iommufd_device_adopt(struct iommu_backend *base, int consume_fd,
			 const struct iommu_device_address *address, struct iommu_context *context,
			 uint32_t kernel_id, struct iommu_device **ret)
{
	struct iommu_device *device;
	int error = iommufd_device_open_fd(base, consume_fd, &device);

	(void)address;
	if (error)
		return error;
	if (context)
		iommufd_device_bound(device, context, kernel_id);
	*ret = device;
	return 0;
}

struct iommu_device *iommufd_device_close(struct iommu_device *device)
{
	if (!device)
		return NULL;
	if (device->fd >= 0)
		close(device->fd);
	free(device);
	return NULL;
}

int iommufd_device_descriptor(struct iommu_device *device, int *ret_fd)
{
	int fd = fcntl(device->fd, F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return errno;
	*ret_fd = fd;
	return 0;
}

int iommufd_device_fd(struct iommu_device *device)
{
	return device->fd;
}
