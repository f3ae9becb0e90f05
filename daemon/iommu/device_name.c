/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>

#include "iommu/backend.h"

void iommu_device_name(const struct iommu_device_info *info, char ret[IOMMU_DEVICE_NAME_BYTES])
{
	if (info->has_fid && info->pci_address[0])
		snprintf(ret, IOMMU_DEVICE_NAME_BYTES, "%s (function %#x)", info->pci_address,
			 info->fid);
	else if (info->has_fid)
		snprintf(ret, IOMMU_DEVICE_NAME_BYTES, "function %#x", info->fid);
	else
		snprintf(ret, IOMMU_DEVICE_NAME_BYTES, "%s",
			 info->pci_address[0] ? info->pci_address : "a function");
}
