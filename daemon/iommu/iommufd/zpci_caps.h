/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_IOMMUFD_ZPCI_CAPS_H
#define IB_IOMMU_IOMMUFD_ZPCI_CAPS_H

/*
 * The zPCI capabilities of a VFIO device's info (Linux include/uapi/linux/vfio_zdev.h): what the
 * hardware says of an s390 function.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct zpci_caps {
	bool has_base;
	uint64_t dma_first, dma_last; /* inclusive */
	uint16_t pchid;               /* physical channel */
	uint8_t pft;                  /* function type */
	uint8_t gid;                  /* function group */
	bool has_group;
	bool refresh; /* the guest must refresh, also after making an entry valid */
};

/* info: a struct uapi_vfio_device_info and what follows it, `bytes` in all. A chain that leads out
 * of it or in a circle ends there; what was not found keeps its has_ flag false. */
void zpci_caps_parse(struct zpci_caps *ret, const void *info, size_t bytes);

#endif
