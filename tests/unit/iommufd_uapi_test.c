/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Our own declarations of the kernel's iommufd and VFIO interfaces against the system's headers,
 * one test for each header. A header that is not there, or that is older than one of our
 * declarations, makes its test skip (and says which), since there is nothing to compare with.
 *
 * A member is compared by name, offset and size; a structure by its size too, unless the header is
 * of a kernel that did not have all of its members yet.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "iommu/iommufd/uapi.h"

#if __has_include(<linux/iommufd.h>)
#include <linux/iommufd.h>
#define HAVE_IOMMUFD 1
#endif
#if __has_include(<linux/vfio.h>)
#include <linux/vfio.h>
#define HAVE_VFIO 1
#endif
#if __has_include(<linux/vfio_zdev.h>)
#include <linux/vfio_zdev.h>
#define HAVE_ZDEV 1
#endif

#define SAME_VALUE(ours, theirs) assert_int_equal((uint64_t)(ours), (uint64_t)(theirs))
#define SAME_SIZE(ours, theirs)  assert_int_equal(sizeof(struct ours), sizeof(struct theirs))
#define SAME_MEMBER(ours, our_member, theirs, their_member)                   \
	do {                                                                  \
		assert_int_equal(offsetof(struct ours, our_member),           \
				 offsetof(struct theirs, their_member));      \
		assert_int_equal(sizeof(((struct ours *)0)->our_member),      \
				 sizeof(((struct theirs *)0)->their_member)); \
	} while (0)
#define SAME(ours, theirs, member) SAME_MEMBER(ours, member, theirs, member)

#ifndef HAVE_IOMMUFD
static void skip_missing(const char *header)
{
	print_message("skipped: this system has no <linux/%s>\n", header);
	skip();
}
#endif

#ifdef HAVE_IOMMUFD
static void compare_address_spaces(void)
{
	SAME_SIZE(uapi_iommu_destroy, iommu_destroy);
	SAME(uapi_iommu_destroy, iommu_destroy, id);
	SAME_SIZE(uapi_ioas_alloc, iommu_ioas_alloc);
	SAME(uapi_ioas_alloc, iommu_ioas_alloc, flags);
	SAME(uapi_ioas_alloc, iommu_ioas_alloc, out_ioas_id);
	SAME_SIZE(uapi_iova_range, iommu_iova_range);
	SAME(uapi_iova_range, iommu_iova_range, last);
	SAME_SIZE(uapi_ioas_iova_ranges, iommu_ioas_iova_ranges);
	SAME(uapi_ioas_iova_ranges, iommu_ioas_iova_ranges, ioas_id);
	SAME(uapi_ioas_iova_ranges, iommu_ioas_iova_ranges, num_iovas);
	SAME(uapi_ioas_iova_ranges, iommu_ioas_iova_ranges, allowed_iovas);
	SAME(uapi_ioas_iova_ranges, iommu_ioas_iova_ranges, out_iova_alignment);
	SAME_SIZE(uapi_iommu_option, iommu_option);
	SAME(uapi_iommu_option, iommu_option, option_id);
	SAME(uapi_iommu_option, iommu_option, op);
	SAME(uapi_iommu_option, iommu_option, object_id);
	SAME(uapi_iommu_option, iommu_option, val64);
	SAME_SIZE(uapi_vfio_ioas, iommu_vfio_ioas);
	SAME(uapi_vfio_ioas, iommu_vfio_ioas, ioas_id);
	SAME(uapi_vfio_ioas, iommu_vfio_ioas, op);
	SAME_VALUE(UAPI_IOMMU_DESTROY, IOMMU_DESTROY);
	SAME_VALUE(UAPI_IOMMU_IOAS_ALLOC, IOMMU_IOAS_ALLOC);
	SAME_VALUE(UAPI_IOMMU_IOAS_IOVA_RANGES, IOMMU_IOAS_IOVA_RANGES);
	SAME_VALUE(UAPI_IOMMU_OPTION, IOMMU_OPTION);
	SAME_VALUE(UAPI_IOMMU_OPTION_HUGE_PAGES, IOMMU_OPTION_HUGE_PAGES);
	SAME_VALUE(UAPI_IOMMU_OPTION_SET, IOMMU_OPTION_OP_SET);
	SAME_VALUE(UAPI_IOMMU_VFIO_IOAS, IOMMU_VFIO_IOAS);
	SAME_VALUE(UAPI_IOMMU_VFIO_IOAS_SET, IOMMU_VFIO_IOAS_SET);
}

static void compare_maps(void)
{
	SAME_SIZE(uapi_ioas_map, iommu_ioas_map);
	SAME(uapi_ioas_map, iommu_ioas_map, flags);
	SAME(uapi_ioas_map, iommu_ioas_map, ioas_id);
	SAME(uapi_ioas_map, iommu_ioas_map, user_va);
	SAME(uapi_ioas_map, iommu_ioas_map, length);
	SAME(uapi_ioas_map, iommu_ioas_map, iova);
	SAME_SIZE(uapi_ioas_copy, iommu_ioas_copy);
	SAME(uapi_ioas_copy, iommu_ioas_copy, flags);
	SAME(uapi_ioas_copy, iommu_ioas_copy, dst_ioas_id);
	SAME(uapi_ioas_copy, iommu_ioas_copy, src_ioas_id);
	SAME(uapi_ioas_copy, iommu_ioas_copy, length);
	SAME(uapi_ioas_copy, iommu_ioas_copy, dst_iova);
	SAME(uapi_ioas_copy, iommu_ioas_copy, src_iova);
	SAME_SIZE(uapi_ioas_unmap, iommu_ioas_unmap);
	SAME(uapi_ioas_unmap, iommu_ioas_unmap, ioas_id);
	SAME(uapi_ioas_unmap, iommu_ioas_unmap, iova);
	SAME(uapi_ioas_unmap, iommu_ioas_unmap, length);
	SAME_VALUE(UAPI_IOMMU_IOAS_MAP, IOMMU_IOAS_MAP);
	SAME_VALUE(UAPI_IOMMU_IOAS_COPY, IOMMU_IOAS_COPY);
	SAME_VALUE(UAPI_IOMMU_IOAS_UNMAP, IOMMU_IOAS_UNMAP);
	SAME_VALUE(UAPI_IOMMU_MAP_FIXED_IOVA, IOMMU_IOAS_MAP_FIXED_IOVA);
	SAME_VALUE(UAPI_IOMMU_MAP_READABLE, IOMMU_IOAS_MAP_READABLE);
	SAME_VALUE(UAPI_IOMMU_MAP_WRITABLE, IOMMU_IOAS_MAP_WRITEABLE);
}

#ifdef IOMMU_IOAS_CHANGE_PROCESS
static void compare_later_maps(void)
{
	SAME_SIZE(uapi_ioas_map_file, iommu_ioas_map_file);
	SAME(uapi_ioas_map_file, iommu_ioas_map_file, flags);
	SAME(uapi_ioas_map_file, iommu_ioas_map_file, ioas_id);
	SAME(uapi_ioas_map_file, iommu_ioas_map_file, fd);
	SAME(uapi_ioas_map_file, iommu_ioas_map_file, start);
	SAME(uapi_ioas_map_file, iommu_ioas_map_file, length);
	SAME(uapi_ioas_map_file, iommu_ioas_map_file, iova);
	SAME_SIZE(uapi_change_process, iommu_ioas_change_process);
	SAME_VALUE(UAPI_IOMMU_IOAS_MAP_FILE, IOMMU_IOAS_MAP_FILE);
	SAME_VALUE(UAPI_IOMMU_IOAS_CHANGE_PROCESS, IOMMU_IOAS_CHANGE_PROCESS);
}

static void compare_page_tables(void)
{
	SAME_SIZE(uapi_hwpt_alloc, iommu_hwpt_alloc);
	SAME(uapi_hwpt_alloc, iommu_hwpt_alloc, flags);
	SAME(uapi_hwpt_alloc, iommu_hwpt_alloc, dev_id);
	SAME(uapi_hwpt_alloc, iommu_hwpt_alloc, pt_id);
	SAME(uapi_hwpt_alloc, iommu_hwpt_alloc, out_hwpt_id);
	SAME(uapi_hwpt_alloc, iommu_hwpt_alloc, data_type);
	SAME(uapi_hwpt_alloc, iommu_hwpt_alloc, data_len);
	SAME(uapi_hwpt_alloc, iommu_hwpt_alloc, data_uptr);
	SAME_SIZE(uapi_hw_info, iommu_hw_info);
	SAME(uapi_hw_info, iommu_hw_info, dev_id);
	SAME(uapi_hw_info, iommu_hw_info, data_len);
	SAME(uapi_hw_info, iommu_hw_info, data_uptr);
	SAME(uapi_hw_info, iommu_hw_info, out_data_type);
	SAME(uapi_hw_info, iommu_hw_info, out_max_pasid_log2);
	SAME(uapi_hw_info, iommu_hw_info, out_capabilities);
	SAME_VALUE(UAPI_IOMMU_HWPT_ALLOC, IOMMU_HWPT_ALLOC);
	SAME_VALUE(UAPI_IOMMU_HWPT_NEST_PARENT, IOMMU_HWPT_ALLOC_NEST_PARENT);
	SAME_VALUE(UAPI_IOMMU_HWPT_DIRTY_TRACKING, IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	SAME_VALUE(UAPI_IOMMU_GET_HW_INFO, IOMMU_GET_HW_INFO);
	SAME_VALUE(UAPI_IOMMU_CAP_DIRTY_TRACKING, IOMMU_HW_CAP_DIRTY_TRACKING);
}

static void compare_page_table_calls(void)
{
	SAME_SIZE(uapi_set_dirty_tracking, iommu_hwpt_set_dirty_tracking);
	SAME(uapi_set_dirty_tracking, iommu_hwpt_set_dirty_tracking, flags);
	SAME(uapi_set_dirty_tracking, iommu_hwpt_set_dirty_tracking, hwpt_id);
	SAME_SIZE(uapi_get_dirty_bitmap, iommu_hwpt_get_dirty_bitmap);
	SAME(uapi_get_dirty_bitmap, iommu_hwpt_get_dirty_bitmap, hwpt_id);
	SAME(uapi_get_dirty_bitmap, iommu_hwpt_get_dirty_bitmap, flags);
	SAME(uapi_get_dirty_bitmap, iommu_hwpt_get_dirty_bitmap, iova);
	SAME(uapi_get_dirty_bitmap, iommu_hwpt_get_dirty_bitmap, length);
	SAME(uapi_get_dirty_bitmap, iommu_hwpt_get_dirty_bitmap, page_size);
	SAME(uapi_get_dirty_bitmap, iommu_hwpt_get_dirty_bitmap, data);
	SAME_SIZE(uapi_hwpt_invalidate, iommu_hwpt_invalidate);
	SAME(uapi_hwpt_invalidate, iommu_hwpt_invalidate, hwpt_id);
	SAME(uapi_hwpt_invalidate, iommu_hwpt_invalidate, data_uptr);
	SAME(uapi_hwpt_invalidate, iommu_hwpt_invalidate, data_type);
	SAME(uapi_hwpt_invalidate, iommu_hwpt_invalidate, entry_len);
	SAME(uapi_hwpt_invalidate, iommu_hwpt_invalidate, entry_num);
	SAME_VALUE(UAPI_IOMMU_SET_DIRTY_TRACKING, IOMMU_HWPT_SET_DIRTY_TRACKING);
	SAME_VALUE(UAPI_IOMMU_DIRTY_TRACKING_ON, IOMMU_HWPT_DIRTY_TRACKING_ENABLE);
	SAME_VALUE(UAPI_IOMMU_GET_DIRTY_BITMAP, IOMMU_HWPT_GET_DIRTY_BITMAP);
	SAME_VALUE(UAPI_IOMMU_HWPT_INVALIDATE, IOMMU_HWPT_INVALIDATE);
}
#endif
#endif

static void iommufd_is_as_the_header_says(void **state)
{
#ifdef HAVE_IOMMUFD
	compare_address_spaces();
	compare_maps();
#ifdef IOMMU_IOAS_CHANGE_PROCESS
	compare_later_maps();
	compare_page_tables();
	compare_page_table_calls();
#else
	print_message("skipped in part: <linux/iommufd.h> is older than 6.13\n");
#endif
#else
	skip_missing("iommufd.h");
#endif
}

#ifdef HAVE_VFIO
static void compare_vfio(void)
{
	SAME_SIZE(uapi_vfio_unmap, vfio_iommu_type1_dma_unmap);
	SAME(uapi_vfio_unmap, vfio_iommu_type1_dma_unmap, flags);
	SAME(uapi_vfio_unmap, vfio_iommu_type1_dma_unmap, iova);
	SAME(uapi_vfio_unmap, vfio_iommu_type1_dma_unmap, size);
	SAME(uapi_vfio_iommu_info, vfio_iommu_type1_info, flags);
	SAME(uapi_vfio_iommu_info, vfio_iommu_type1_info, iova_pgsizes);
	SAME(uapi_vfio_iommu_info, vfio_iommu_type1_info, cap_offset);
	SAME_VALUE(UAPI_VFIO_IOMMU_UNMAP_DMA, VFIO_IOMMU_UNMAP_DMA);
	SAME_VALUE(UAPI_VFIO_IOMMU_GET_INFO, VFIO_IOMMU_GET_INFO);
	SAME_VALUE(UAPI_VFIO_IOMMU_INFO_PGSIZES, VFIO_IOMMU_INFO_PGSIZES);
	SAME(uapi_vfio_device_info, vfio_device_info, flags);
	SAME(uapi_vfio_device_info, vfio_device_info, num_regions);
	SAME(uapi_vfio_device_info, vfio_device_info, num_irqs);
	SAME(uapi_vfio_device_info, vfio_device_info, cap_offset);
	SAME_SIZE(uapi_vfio_cap, vfio_info_cap_header);
	SAME(uapi_vfio_cap, vfio_info_cap_header, version);
	SAME(uapi_vfio_cap, vfio_info_cap_header, next);
	SAME_SIZE(uapi_vfio_region_info, vfio_region_info);
	SAME(uapi_vfio_region_info, vfio_region_info, index);
	SAME(uapi_vfio_region_info, vfio_region_info, size);
	SAME(uapi_vfio_region_info, vfio_region_info, offset);
	SAME_VALUE(UAPI_VFIO_DEVICE_GET_INFO, VFIO_DEVICE_GET_INFO);
	SAME_VALUE(UAPI_VFIO_DEVICE_GET_REGION_INFO, VFIO_DEVICE_GET_REGION_INFO);
	SAME_VALUE(UAPI_VFIO_DEVICE_RESET, VFIO_DEVICE_RESET);
	SAME_VALUE(UAPI_VFIO_DEVICE_FLAG_RESET, VFIO_DEVICE_FLAGS_RESET);
	SAME_VALUE(UAPI_VFIO_DEVICE_FLAG_CAPS, VFIO_DEVICE_FLAGS_CAPS);
	SAME_VALUE(UAPI_VFIO_PCI_CONFIG_REGION, VFIO_PCI_CONFIG_REGION_INDEX);
}
#endif

static void vfio_is_as_the_header_says(void **state)
{
#ifdef HAVE_VFIO
	compare_vfio();
#else
	print_message("skipped: this system has no <linux/vfio.h>\n");
	skip();
#endif
}

static void device_nodes_are_as_the_header_says(void **state)
{
#ifdef VFIO_DEVICE_BIND_IOMMUFD
	SAME(uapi_vfio_bind, vfio_device_bind_iommufd, flags);
	SAME(uapi_vfio_bind, vfio_device_bind_iommufd, iommufd);
	SAME(uapi_vfio_bind, vfio_device_bind_iommufd, out_devid);
	SAME_VALUE(UAPI_VFIO_DEVICE_BIND, VFIO_DEVICE_BIND_IOMMUFD);
#ifdef VFIO_DEVICE_BIND_FLAG_TOKEN
	SAME_SIZE(uapi_vfio_bind, vfio_device_bind_iommufd);
	SAME(uapi_vfio_bind, vfio_device_bind_iommufd, token_uuid_ptr);
	SAME_VALUE(UAPI_VFIO_BIND_TOKEN, VFIO_DEVICE_BIND_FLAG_TOKEN);
#else
	SAME_VALUE(UAPI_VFIO_BIND_V1_BYTES, sizeof(struct vfio_device_bind_iommufd));
#endif
	SAME(uapi_vfio_attach, vfio_device_attach_iommufd_pt, flags);
	SAME(uapi_vfio_attach, vfio_device_attach_iommufd_pt, pt_id);
	SAME(uapi_vfio_detach, vfio_device_detach_iommufd_pt, flags);
	SAME_VALUE(UAPI_VFIO_DEVICE_ATTACH, VFIO_DEVICE_ATTACH_IOMMUFD_PT);
	SAME_VALUE(UAPI_VFIO_DEVICE_DETACH, VFIO_DEVICE_DETACH_IOMMUFD_PT);
#else
	print_message("skipped: <linux/vfio.h> is older than 6.6\n");
	skip();
#endif
}

#ifdef HAVE_ZDEV
static void compare_zpci(void)
{
	SAME_VALUE(UAPI_VFIO_CAP_ZPCI_BASE, VFIO_DEVICE_INFO_CAP_ZPCI_BASE);
	SAME_VALUE(UAPI_VFIO_CAP_ZPCI_GROUP, VFIO_DEVICE_INFO_CAP_ZPCI_GROUP);
	SAME_VALUE(UAPI_VFIO_CAP_ZPCI_UTIL, VFIO_DEVICE_INFO_CAP_ZPCI_UTIL);
	SAME_VALUE(UAPI_VFIO_CAP_ZPCI_PFIP, VFIO_DEVICE_INFO_CAP_ZPCI_PFIP);
	SAME_VALUE(UAPI_ZPCI_GROUP_REFRESH, VFIO_DEVICE_INFO_ZPCI_FLAG_REFRESH);
	SAME_SIZE(uapi_zpci_base, vfio_device_info_cap_zpci_base);
	SAME(uapi_zpci_base, vfio_device_info_cap_zpci_base, start_dma);
	SAME(uapi_zpci_base, vfio_device_info_cap_zpci_base, end_dma);
	SAME(uapi_zpci_base, vfio_device_info_cap_zpci_base, pchid);
	SAME(uapi_zpci_base, vfio_device_info_cap_zpci_base, vfn);
	SAME(uapi_zpci_base, vfio_device_info_cap_zpci_base, fmb_length);
	SAME(uapi_zpci_base, vfio_device_info_cap_zpci_base, pft);
	SAME(uapi_zpci_base, vfio_device_info_cap_zpci_base, gid);
	SAME(uapi_zpci_base, vfio_device_info_cap_zpci_base, fh);
	SAME_SIZE(uapi_zpci_group, vfio_device_info_cap_zpci_group);
	SAME(uapi_zpci_group, vfio_device_info_cap_zpci_group, dasm);
	SAME(uapi_zpci_group, vfio_device_info_cap_zpci_group, msi_addr);
	SAME(uapi_zpci_group, vfio_device_info_cap_zpci_group, flags);
	SAME(uapi_zpci_group, vfio_device_info_cap_zpci_group, mui);
	SAME(uapi_zpci_group, vfio_device_info_cap_zpci_group, noi);
	SAME(uapi_zpci_group, vfio_device_info_cap_zpci_group, maxstbl);
	SAME(uapi_zpci_group, vfio_device_info_cap_zpci_group, version);
	SAME(uapi_zpci_group, vfio_device_info_cap_zpci_group, imaxstbl);
	SAME_MEMBER(uapi_zpci_text, size, vfio_device_info_cap_zpci_util, size);
	assert_int_equal(offsetof(struct uapi_zpci_text, bytes),
			 offsetof(struct vfio_device_info_cap_zpci_util, util_str));
	assert_int_equal(offsetof(struct uapi_zpci_text, bytes),
			 offsetof(struct vfio_device_info_cap_zpci_pfip, pfip));
}
#endif

static void zpci_is_as_the_header_says(void **state)
{
#ifdef HAVE_ZDEV
	compare_zpci();
#else
	print_message("skipped: this system has no <linux/vfio_zdev.h>\n");
	skip();
#endif
}

/* What holds on every machine, with or without headers to compare with. */
static void sizes_are_those_of_the_kernel(void **state)
{
	assert_int_equal(sizeof(struct uapi_ioas_map), 40);
	assert_int_equal(sizeof(struct uapi_ioas_map_file), 40);
	assert_int_equal(sizeof(struct uapi_ioas_copy), 40);
	assert_int_equal(sizeof(struct uapi_ioas_unmap), 24);
	assert_int_equal(sizeof(struct uapi_iommu_option), 24);
	assert_int_equal(sizeof(struct uapi_vfio_ioas), 12);
	assert_int_equal(sizeof(struct uapi_hwpt_alloc), 48);
	assert_int_equal(sizeof(struct uapi_hw_info), 40);
	assert_int_equal(sizeof(struct uapi_get_dirty_bitmap), 48);
	assert_int_equal(sizeof(struct uapi_hwpt_invalidate), 32);
	assert_int_equal(sizeof(struct uapi_vfio_bind), 24);
	assert_int_equal(UAPI_VFIO_BIND_V1_BYTES, 16);
	assert_int_equal(sizeof(struct uapi_vfio_attach), 12);
	assert_int_equal(sizeof(struct uapi_vfio_detach), 8);
	assert_int_equal(sizeof(struct uapi_zpci_base), 40);
	assert_int_equal(UAPI_ZPCI_BASE_V1_BYTES, 32);
	assert_int_equal(UAPI_ZPCI_GROUP_V1_BYTES, 39);
	assert_int_equal(UAPI_IOMMU_DESTROY, 0x3b80);
	assert_int_equal(UAPI_IOMMU_IOAS_MAP_FILE, 0x3b8f);
	assert_int_equal(UAPI_VFIO_IOMMU_UNMAP_DMA, 0x3b72);
	assert_int_equal(UAPI_VFIO_DEVICE_BIND, 0x3b76);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_those_of_the_kernel),
		cmocka_unit_test(iommufd_is_as_the_header_says),
		cmocka_unit_test(vfio_is_as_the_header_says),
		cmocka_unit_test(device_nodes_are_as_the_header_says),
		cmocka_unit_test(zpci_is_as_the_header_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
