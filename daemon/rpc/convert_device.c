/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rpc/convert.h"

static bool convert_ranges(struct call *call, const struct device_description *device,
			   Iommubroker__V1__DeviceInfo *ret)
{
	ret->n_iova_ranges = device->n_iova_ranges < IOMMU_IOVA_RANGES_MAX ? device->n_iova_ranges
									   : IOMMU_IOVA_RANGES_MAX;
	ret->iova_ranges = CONVERT_ARRAY(call, ret->n_iova_ranges, Iommubroker__V1__AddressRange,
					 iommubroker__v1__address_range__init);
	for (size_t i = 0; ret->iova_ranges && i < ret->n_iova_ranges; i++) {
		ret->iova_ranges[i]->first = device->iova_ranges[i].first;
		ret->iova_ranges[i]->last = device->iova_ranges[i].last;
	}
	return ret->iova_ranges;
}

int convert_device(struct call *call, const struct device_description *device,
		   Iommubroker__V1__DeviceInfo *ret)
{
	const struct iommu_device_info *info = &device->info;

	iommubroker__v1__device_info__init(ret);
	ret->kernel_device_id = info->kernel_device_id;
	ret->has_function_id = info->has_fid;
	ret->function_id = info->fid;
	ret->pci_address = (char *)info->pci_address;
	ret->vendor = info->vendor;
	ret->device = info->device;
	ret->page_sizes = info->page_sizes;
	ret->dma_first = info->dma_first;
	ret->dma_last = info->dma_last;
	ret->designations = info->designations;
	ret->relaxed_granted = device->relaxed_granted;
	ret->refresh_required = info->refresh_required;
	ret->mappings_budget = device->mappings_budget;
	ret->hw_info_type = info->hw_info_type;
	ret->hw_info.len =
		info->hw_info_bytes < IOMMU_HW_INFO_MAX ? info->hw_info_bytes : IOMMU_HW_INFO_MAX;
	ret->hw_info.data = (uint8_t *)info->hw_info;
	return convert_ranges(call, device, ret) ? 0 : call_refuse_memory(call);
}
