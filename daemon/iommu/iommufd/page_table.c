/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Page tables (HWPT): plain ones over an address space, and what can be asked of them.
 *
 * No format that the kernel nests itself has data defined in iommu/backend.h, so no nested page
 * table is made and plain ones are not made as nest parents: on VT-d that would cost a device its
 * first-stage format for nothing.
 */

#include <errno.h>

#include "iommu/iommufd/call.h"
#include "iommu/iommufd/iommufd.h"
#include "iommu/iommufd/uapi.h"

int iommufd_page_table_with(struct iommu_context *context, uint32_t kernel_device_id, uint32_t ioas,
			    uint32_t flags, uint32_t *ret_page_table)
{
	struct uapi_hwpt_alloc alloc = {
		.size = sizeof(alloc),
		.flags = flags,
		.dev_id = kernel_device_id,
		.pt_id = ioas,
	};
	int error = iommufd_call(context->fd, UAPI_IOMMU_HWPT_ALLOC, &alloc);

	if (!error)
		*ret_page_table = alloc.out_hwpt_id;
	/* A page that a memory file does not have, found through our mapping of it. */
	return error == EFAULT ? EINVAL : error;
}

/* Whether a page table can track is fixed when it is made, so it can wherever the device's IOMMU
 * does; tracking costs only while it is on. */
int iommufd_page_table_new(struct iommu_context *context, struct iommu_device *device,
			   uint32_t ioas, uint32_t *ret_page_table)
{
	uint32_t flags = device->dirty_tracking ? UAPI_IOMMU_HWPT_DIRTY_TRACKING : 0;
	int error;

	if (device->context != context)
		return EINVAL;
	error = iommufd_page_table_with(context, device->kernel_id, ioas, flags, ret_page_table);
	if (error == EOPNOTSUPP && flags)
		error = iommufd_page_table_with(context, device->kernel_id, ioas, 0,
						ret_page_table);
	return error;
}

int iommufd_page_table_new_nested(struct iommu_context *context, struct iommu_device *device,
				  uint32_t parent, const struct iommu_nested_data *data,
				  uint32_t *ret_page_table)
{
	return EOPNOTSUPP;
}

int iommufd_invalidate(struct iommu_context *context, uint32_t page_table, uint32_t type,
		       const void *entries, uint32_t entry_bytes, uint32_t n,
		       uint32_t *ret_consumed)
{
	struct uapi_hwpt_invalidate invalidate = {
		.size = sizeof(invalidate),
		.hwpt_id = page_table,
		.data_uptr = (uintptr_t)entries,
		.data_type = type,
		.entry_len = entry_bytes,
		.entry_num = n,
	};
	int error = iommufd_call(context->fd, UAPI_IOMMU_HWPT_INVALIDATE, &invalidate);

	/* A failure that comes with all entries done is a call that the kernel did not look at. */
	*ret_consumed = error && invalidate.entry_num >= n ? 0 : invalidate.entry_num;
	return error;
}

int iommufd_dirty_tracking(struct iommu_context *context, uint32_t page_table, bool on)
{
	struct uapi_set_dirty_tracking set = {
		.size = sizeof(set),
		.flags = on ? UAPI_IOMMU_DIRTY_TRACKING_ON : 0,
		.hwpt_id = page_table,
	};

	return iommufd_call(context->fd, UAPI_IOMMU_SET_DIRTY_TRACKING, &set);
}

int iommufd_dirty_read(struct iommu_context *context, uint32_t page_table, uint64_t iova,
		       uint64_t length, uint64_t page_bytes, void *bitmap)
{
	struct uapi_get_dirty_bitmap get = {
		.size = sizeof(get),
		.hwpt_id = page_table,
		.iova = iova,
		.length = length,
		.page_size = page_bytes,
		.data = (uintptr_t)bitmap,
	};

	return iommufd_call(context->fd, UAPI_IOMMU_GET_DIRTY_BITMAP, &get);
}
