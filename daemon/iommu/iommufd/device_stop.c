/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Stopping a device's DMA.
 *
 * A reset is the only thing that also stops a device which does not obey its registers, so it comes
 * first where the kernel has one for the function. The kernel restores the configuration space
 * after it, bus mastering with it; a device that resets badly could go on. So bus mastering is
 * taken away in any case, in the command register, through the descriptor's configuration space:
 * the function can then start no more memory transactions. Whoever else holds the descriptor can
 * give it back, so this is a stop before taking translations away, not instead of it.
 *
 * On s390 an access that was blocked puts the function into error state, from which the kernel
 * recovers it within milliseconds. A reset that comes between would keep the recovery out, wait
 * more than a minute for a function that answers nothing, and fail.
 */

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "iommu/iommufd/call.h"
#include "iommu/iommufd/device_query.h"
#include "iommu/iommufd/iommufd.h"

#define PCI_COMMAND            4
#define PCI_COMMAND_BUS_MASTER 0x4u
#define PCI_STATUS             6

/* For the kernel to recover a function; without it (as for a function that KVM interprets) a reset
 * is the only hope. */
#define RECOVERY_WAIT_NS UINT64_C(2000000000)

/* The kernel refuses a reset with EAGAIN while somebody else has the function locked (a reset by
 * the device's VMM, a configuration change). */
#define RESET_WAIT_NS UINT64_C(5000000000)

static int config_read(int fd, off_t at, uint16_t *ret)
{
	uint16_t raw;
	ssize_t n;

	do
		n = pread(fd, &raw, sizeof(raw), at);
	while (n < 0 && errno == EINTR);
	if (n != sizeof(raw))
		return n < 0 ? errno : EIO;
	*ret = le16toh(raw);
	return 0;
}

static int command_write(int fd, off_t at, uint16_t command)
{
	uint16_t raw = htole16(command);
	ssize_t n;

	do
		n = pwrite(fd, &raw, sizeof(raw), at);
	while (n < 0 && errno == EINTR);
	if (n != sizeof(raw))
		return n < 0 ? errno : EIO;
	return 0;
}

static int reset(int fd)
{
	struct iommufd_retry retry = iommufd_retry_for(RESET_WAIT_NS);
	int error;

	do
		error = iommufd_call(fd, UAPI_VFIO_DEVICE_RESET, NULL);
	while ((error == EAGAIN || error == EBUSY) && iommufd_retry_again(&retry));
	return error;
}

/* Until the function answers. The status is a register that VFIO does not answer for it. */
static void wait_for_recovery(int fd)
{
	struct iommufd_retry retry = iommufd_retry_for(RECOVERY_WAIT_NS);
	uint64_t region;
	uint16_t status;

	if (device_query_region(fd, UAPI_VFIO_PCI_CONFIG_REGION, &region))
		return;
	do
		if (!config_read(fd, (off_t)(region + PCI_STATUS), &status) && status != UINT16_MAX)
			return;
	while (iommufd_retry_again(&retry));
}

/* The read back also waits for what the device sent before the write. */
static int clear_bus_master(int fd)
{
	uint64_t region;
	uint16_t command;
	off_t at;
	int error = device_query_region(fd, UAPI_VFIO_PCI_CONFIG_REGION, &region);

	if (error)
		return error;
	at = (off_t)(region + PCI_COMMAND);
	error = config_read(fd, at, &command);
	if (!error)
		error = command_write(fd, at, command & (uint16_t)~PCI_COMMAND_BUS_MASTER);
	if (!error)
		error = config_read(fd, at, &command);
	if (!error && (command & PCI_COMMAND_BUS_MASTER))
		error = EIO;
	return error;
}

int iommufd_device_stop(struct iommu_device *device)
{
	struct uapi_vfio_device_info info = {.argsz = sizeof(info)};
	int error = iommufd_call(device->fd, UAPI_VFIO_DEVICE_GET_INFO, &info);
	bool was_reset = false;

	/* Before it is bound a device belongs to nobody and is not a bus master. */
	if (error)
		return error == EINVAL ? 0 : error;
	wait_for_recovery(device->fd);
	if (info.flags & UAPI_VFIO_DEVICE_FLAG_RESET)
		was_reset = !reset(device->fd);
	error = clear_bus_master(device->fd);
	return was_reset ? 0 : error;
}
