/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Asking the kernel about a device; see device_query.h. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "iommu/iommufd/call.h"
#include "iommu/iommufd/device_query.h"

#define INFO_MAX_BYTES (64u << 10)

bool device_is_bound(int fd)
{
	struct uapi_vfio_device_info info = {.argsz = sizeof(info)};

	return !iommufd_call(fd, UAPI_VFIO_DEVICE_GET_INFO, &info);
}

static int query_info_sized(int fd, size_t bytes, void **ret)
{
	struct uapi_vfio_device_info *info = calloc(1, bytes);
	int error;

	if (!info)
		return ENOMEM;
	info->argsz = (uint32_t)bytes;
	error = iommufd_call(fd, UAPI_VFIO_DEVICE_GET_INFO, info);
	if (error) {
		free(info);
		return error;
	}
	*ret = info;
	return 0;
}

int device_query_info(int fd, void **ret, size_t *ret_bytes)
{
	struct uapi_vfio_device_info info = {.argsz = sizeof(info)};
	int error = iommufd_call(fd, UAPI_VFIO_DEVICE_GET_INFO, &info);
	size_t bytes = sizeof(info);

	if (error)
		return error;
	if (info.argsz > bytes)
		bytes = info.argsz < INFO_MAX_BYTES ? info.argsz : INFO_MAX_BYTES;
	error = query_info_sized(fd, bytes, ret);
	if (!error)
		*ret_bytes = bytes;
	return error;
}

int device_query_region(int fd, uint32_t index, uint64_t *ret_offset)
{
	struct uapi_vfio_region_info region = {.argsz = sizeof(region), .index = index};
	int error = iommufd_call(fd, UAPI_VFIO_DEVICE_GET_REGION_INFO, &region);

	if (!error)
		*ret_offset = region.offset;
	return error;
}

int device_query_hw_info(struct iommu_context *context, uint32_t kernel_id,
			 struct iommufd_facts *ret, uint64_t *ret_capabilities)
{
	struct uapi_hw_info info = {
		.size = sizeof(info),
		.dev_id = kernel_id,
		.data_len = sizeof(ret->hw_info),
		.data_uptr = (uintptr_t)ret->hw_info,
	};
	int error = iommufd_call(context->fd, UAPI_IOMMU_GET_HW_INFO, &info);

	if (error == ENOTTY || error == EOPNOTSUPP) {
		info = (struct uapi_hw_info){0};
		error = 0;
	}
	if (error)
		return error;
	if (info.data_len > sizeof(ret->hw_info))
		info.data_len = sizeof(ret->hw_info);
	memset(ret->hw_info + info.data_len, 0, sizeof(ret->hw_info) - info.data_len);
	ret->hw_info_bytes = info.data_len;
	ret->hw_info_type = info.out_data_type;
	*ret_capabilities = info.out_capabilities;
	return 0;
}
