/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a device is and which addresses it can use.
 *
 * Before bind only sysfs tells: address, identity, zPCI function id; the window and page sizes are
 * 0 then. Afterwards the window is what a page table for the device can hold. On s390 it is that of
 * the zPCI capability, which the kernel lowers to what its own tables reach when it makes the first
 * page table of a function: so one is made, and dropped, before looking. The address space's own
 * ranges are still to be respected: they tell reserved ranges in the middle, once attached.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "iommu/iommufd/call.h"
#include "iommu/iommufd/device_query.h"
#include "iommu/iommufd/iommufd.h"
#include "iommu/iommufd/zpci_caps.h"

/* The tables that a guest's anchor can designate: bits 0 to 3. VFIO does not tell which ones the
 * host's hardware walks, and need not: the guest's tables are never put in front of it. */
#define DESIGNATIONS_ALL 0xfu

static int query_window(struct iommu_context *context, uint32_t ioas, struct iommufd_facts *facts)
{
	struct iommu_range ranges[IOMMU_IOVA_RANGES_MAX];
	size_t n;
	int error = iommufd_iova_ranges(context, ioas, ranges, IOMMU_IOVA_RANGES_MAX, &n);

	if (error)
		return error;
	if (!n)
		return ERANGE;
	if (n > IOMMU_IOVA_RANGES_MAX)
		n = IOMMU_IOVA_RANGES_MAX;
	facts->window.first = ranges[0].first;
	facts->window.last = ranges[n - 1].last;
	return 0;
}

static int query_page_table(struct iommu_device *device, uint32_t ioas, struct iommufd_facts *facts)
{
	struct iommu_context *context = device->context;
	uint32_t page_table;
	int error = iommufd_page_table_new(context, device, ioas, &page_table);

	if (error)
		return error;
	error = query_window(context, ioas, facts);
	if (!error)
		error = iommufd_page_sizes(context, ioas, &facts->page_sizes);
	iommufd_destroy(context, page_table);
	return error;
}

static int query_facts(struct iommu_device *device)
{
	struct iommufd_facts facts = {0};
	uint64_t capabilities;
	uint32_t ioas;
	int error;

	if (device->has_facts)
		return 0;
	error = device_query_hw_info(device->context, device->kernel_id, &facts, &capabilities);
	if (!error)
		error = iommufd_ioas_new(device->context, false, &ioas);
	if (error)
		return error;
	error = query_page_table(device, ioas, &facts);
	iommufd_destroy(device->context, ioas);
	if (error)
		return error;
	device->facts = facts;
	device->has_facts = true;
	return 0;
}

/* address: in sysfs's own writing. */
static int fill_identity(const char *sysfs, const char address[SYSFS_PCI_ADDRESS_BYTES],
			 struct iommu_device_info *info)
{
	uint32_t vendor, id;
	int error = sysfs_pci_number(&vendor, sysfs, address, "vendor");

	if (!error)
		error = sysfs_pci_number(&id, sysfs, address, "device");
	if (error)
		return error;
	memcpy(info->pci_address, address, sizeof(info->pci_address));
	info->vendor = (uint16_t)vendor;
	info->device = (uint16_t)id;
	error = sysfs_pci_number(&info->fid, sysfs, address, "function_id");
	info->has_fid = !error;
	return error == ENOENT ? 0 : error;
}

int iommufd_device_identify(struct iommu_backend *base, const struct iommu_device_address *address,
			    struct iommu_device_info *ret)
{
	struct iommufd_backend *backend = iommufd_backend_of(base);
	char pci_address[SYSFS_PCI_ADDRESS_BYTES];
	struct iommu_device_info info = {0};
	int error = iommufd_device_address(backend, address, pci_address);

	if (!error)
		error = fill_identity(backend->sysfs, pci_address, &info);
	if (!error)
		*ret = info;
	return error;
}

static void fill_facts(const struct iommu_device *device, struct iommu_device_info *info)
{
	info->dma_first = device->facts.window.first;
	info->dma_last = device->facts.window.last;
	info->page_sizes = device->facts.page_sizes;
	info->hw_info_type = device->facts.hw_info_type;
	info->hw_info_bytes = device->facts.hw_info_bytes;
	memcpy(info->hw_info, device->facts.hw_info, sizeof(info->hw_info));
	info->kernel_device_id = device->kernel_id;
}

static void narrow(struct iommu_device_info *info, uint64_t first, uint64_t last)
{
	if (info->dma_first < first)
		info->dma_first = first;
	if (info->dma_last > last)
		info->dma_last = last;
}

/* ERANGE: no address is left that the device could use. */
static int fill_zpci(const struct iommu_device *device, struct iommu_device_info *info)
{
	struct zpci_caps caps;
	size_t bytes;
	void *raw;
	int error = device_query_info(device->fd, &raw, &bytes);

	if (error)
		return error;
	zpci_caps_parse(&caps, raw, bytes);
	free(raw);
	if (caps.has_base) {
		narrow(info, caps.dma_first, caps.dma_last);
		info->pft = caps.pft;
		info->designations = DESIGNATIONS_ALL;
	}
	info->refresh_required = caps.has_group && caps.refresh;
	return info->dma_first > info->dma_last ? ERANGE : 0;
}

int iommufd_device_info(struct iommu_device *device, struct iommu_device_info *ret)
{
	struct iommu_device_info info = {0};
	int error = fill_identity(device->backend->sysfs, device->vfio.pci_address, &info);

	if (info.has_fid)
		info.designations = DESIGNATIONS_ALL;
	if (!error && device->context) {
		error = query_facts(device);
		if (!error) {
			fill_facts(device, &info);
			error = fill_zpci(device, &info);
		}
	}
	if (!error)
		*ret = info;
	return error;
}
