/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_IOMMUFD_DEVICE_QUERY_H
#define IB_IOMMU_IOMMUFD_DEVICE_QUERY_H

/* What the kernel tells about an open device. All answer 0 or a positive errno. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iommu/iommufd/iommufd.h"
#include "iommu/iommufd/uapi.h"

/* Whether this open of a device was bound, by whomever. */
bool device_is_bound(int fd);

/* The device's info with its capabilities, at most 64 KiB; *ret is for free(). EINVAL: not bound.
 * *ret_bytes are at least those of struct uapi_vfio_device_info. */
int device_query_info(int fd, void **ret, size_t *ret_bytes);

/* Where a region of the device begins in its descriptor. */
int device_query_region(int fd, uint32_t index, uint64_t *ret_offset);

/* The IOMMU behind a bound device: fills the hw_info fields of *ret and its capabilities. A kernel
 * that cannot tell (before 6.3) has none. */
int device_query_hw_info(struct iommu_context *context, uint32_t kernel_id,
			 struct iommufd_facts *ret, uint64_t *ret_capabilities);

#endif
