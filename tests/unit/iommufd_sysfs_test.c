/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the iommufd backend reads of devices: names and numbers out of sysfs, and the zPCI
 * capabilities of a device's info.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <errno.h>
#include <sys/sysmacros.h>

#include <cmocka.h>

#include "iommu/iommufd/sysfs.h"
#include "iommu/iommufd/uapi.h"
#include "iommu/iommufd/zpci_caps.h"
#include "iommufd_tree.h"

static void pci_addresses_are_checked(void **state)
{
	static const char *const good[][2] = {
		{"0000:00:04.0", "0000:00:04.0"},
		{"ABCD:EF:1F.7", "abcd:ef:1f.7"},
		{"10000:e1:00.0", "10000:e1:00.0"},
		{"fffffff:00:00.0", "fffffff:00:00.0"},
	};
	static const char *const bad[] = {
		"",
		"0000:00:04",
		"00:04.0",
		"000:00:04.0",
		"0000:00:20.0",
		"0000:00:04.8",
		"0000:00:04.00",
		"0000:00:04.0 ",
		" 000:00:04.0",
		"0000-00-04.0",
		"0000:0g:04.0",
		"0000:00:04:0",
		"..00:00:04.0",
		"0000:00/04.0",
		"ffffffff:00:00.0",
		"0x00:00:04.0",
		"../../../../x",
		"0000:00:04.0\n",
		"0000:00:0/.0",
		"0000:00:04./",
	};
	char ret[SYSFS_PCI_ADDRESS_BYTES];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(sysfs_pci_address(ret, good[i][0]), 0);
		assert_string_equal(ret, good[i][1]);
	}
	strcpy(ret, "as it was");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(sysfs_pci_address(ret, bad[i]), EINVAL);
		assert_string_equal(ret, "as it was");
	}
}

static void functions_are_found_by_fid(void **state)
{
	struct tree *tree = *state;
	char ret[SYSFS_PCI_ADDRESS_BYTES] = "as it was";

	tree_function(tree, "0000:00:00.0", NULL, NULL);
	tree_function(tree, "0001:00:00.0", NULL, NULL);
	tree_file(tree, "sys/bus/pci/devices/0001:00:00.0/function_id", "0x00000011\n");
	tree_function(tree, "0002:00:00.0", NULL, NULL);
	tree_file(tree, "sys/bus/pci/devices/0002:00:00.0/function_id", "nonsense\n");
	tree_function(tree, "0003:00:00.0", NULL, NULL);
	tree_file(tree, "sys/bus/pci/devices/0003:00:00.0/function_id", "0x100000013\n");
	tree_dir(tree, "sys/bus/pci/devices/stranger");
	tree_file(tree, "sys/bus/pci/devices/stranger/function_id", "0x00000012\n");
	assert_int_equal(sysfs_pci_by_fid(ret, tree->sysfs, 0x12), ENOENT);
	assert_int_equal(sysfs_pci_by_fid(ret, tree->sysfs, 0x13), ENOENT);
	assert_string_equal(ret, "as it was");
	assert_int_equal(sysfs_pci_by_fid(ret, tree->sysfs, 0x11), 0);
	assert_string_equal(ret, "0001:00:00.0");
	assert_int_equal(sysfs_pci_by_fid(ret, "/nowhere", 0x11), ENOENT);
}

static void vfio_devices_are_found_by_function(void **state)
{
	struct tree *tree = *state;
	struct sysfs_vfio vfio;

	tree_function(tree, ADDRESS, "vfio12", "511:12\n");
	assert_int_equal(sysfs_vfio_of_pci(&vfio, tree->sysfs, ADDRESS), 0);
	assert_string_equal(vfio.name, "vfio12");
	assert_string_equal(vfio.pci_address, ADDRESS);
	assert_true(vfio.node == makedev(511, 12));

	tree_function(tree, "0000:00:05.0", NULL, NULL);
	assert_int_equal(sysfs_vfio_of_pci(&vfio, tree->sysfs, "0000:00:05.0"), ENOENT);
	assert_int_equal(sysfs_vfio_of_pci(&vfio, tree->sysfs, "0000:00:06.0"), ENOENT);
	assert_int_equal(sysfs_vfio_of_pci(&vfio, tree->sysfs, "../" ADDRESS), EINVAL);
	tree_function(tree, "0000:00:07.0", "vfio-x", "511:1\n");
	assert_int_equal(sysfs_vfio_of_pci(&vfio, tree->sysfs, "0000:00:07.0"), ENOENT);
	tree_function(tree, "0000:00:08.0", "vfio1234567890123", "511:1\n");
	assert_int_equal(sysfs_vfio_of_pci(&vfio, tree->sysfs, "0000:00:08.0"), ENOENT);
	tree_function(tree, "0000:00:09.0", "vfio9", "511\n");
	assert_int_equal(sysfs_vfio_of_pci(&vfio, tree->sysfs, "0000:00:09.0"), EIO);
}

static void vfio_devices_are_found_by_number(void **state)
{
	struct tree *tree = *state;
	struct sysfs_vfio vfio;

	tree_function(tree, ADDRESS, "vfio3", "511:3\n");
	tree_node_link(tree, "511:3", ADDRESS);
	assert_int_equal(sysfs_vfio_of_node(&vfio, tree->sysfs, makedev(511, 3)), 0);
	assert_string_equal(vfio.pci_address, ADDRESS);
	assert_string_equal(vfio.name, "vfio3");

	assert_int_equal(sysfs_vfio_of_node(&vfio, tree->sysfs, makedev(511, 4)), EINVAL);
	/* another character device of the same function */
	tree_node_link(tree, "511:5", ADDRESS);
	assert_int_equal(sysfs_vfio_of_node(&vfio, tree->sysfs, makedev(511, 5)), EINVAL);
	/* one whose parent is no PCI function */
	tree_dir(tree, "sys/dev/char/511:6");
	tree_link(tree, "sys/dev/char/511:6/device", "sys/dev");
	assert_int_equal(sysfs_vfio_of_node(&vfio, tree->sysfs, makedev(511, 6)), EINVAL);
}

/* A device's info as the kernel lays it out: head, then capabilities anywhere. */
struct info {
	uint8_t bytes[512];
};

static void put_head(struct info *info, uint32_t flags, uint32_t cap_offset)
{
	struct uapi_vfio_device_info head = {.flags = flags, .cap_offset = cap_offset};

	memset(info, 0, sizeof(*info));
	memcpy(info->bytes, &head, sizeof(head));
}

static void put_base(struct info *info, size_t at, uint32_t next)
{
	struct uapi_zpci_base base = {
		.header = {.id = UAPI_VFIO_CAP_ZPCI_BASE, .version = 2, .next = next},
		.start_dma = UINT64_C(0x100000000),
		.end_dma = UINT64_C(0x13fffffff),
		.pchid = 0x1c0,
		.pft = 5,
		.gid = 9,
	};

	memcpy(info->bytes + at, &base, sizeof(base));
}

static void put_group(struct info *info, size_t at, uint32_t next, uint64_t flags)
{
	struct uapi_zpci_group group = {
		.header = {.id = UAPI_VFIO_CAP_ZPCI_GROUP, .version = 2, .next = next},
		.flags = flags,
	};

	memcpy(info->bytes + at, &group, sizeof(group));
}

static void zpci_capabilities_are_read(void **state)
{
	struct zpci_caps caps;
	struct info info;

	/* at odd places, and the second before the first */
	put_head(&info, UAPI_VFIO_DEVICE_FLAG_CAPS, 201);
	put_group(&info, 201, 51, UAPI_ZPCI_GROUP_REFRESH);
	put_base(&info, 51, 0);
	zpci_caps_parse(&caps, info.bytes, sizeof(info));
	assert_true(caps.has_base && caps.has_group && caps.refresh);
	assert_int_equal(caps.dma_first, UINT64_C(0x100000000));
	assert_int_equal(caps.dma_last, UINT64_C(0x13fffffff));
	assert_int_equal(caps.pchid, 0x1c0);
	assert_int_equal(caps.pft, 5);
	assert_int_equal(caps.gid, 9);
	put_group(&info, 201, 51, ~(uint64_t)UAPI_ZPCI_GROUP_REFRESH);
	zpci_caps_parse(&caps, info.bytes, sizeof(info));
	assert_true(caps.has_base && caps.has_group && !caps.refresh);
}

static void capability_chains_end(void **state)
{
	struct zpci_caps caps;
	struct info info;

	put_head(&info, 0, 64);
	put_base(&info, 64, 0);
	zpci_caps_parse(&caps, info.bytes, sizeof(info));
	assert_false(caps.has_base || caps.has_group);
	put_head(&info, UAPI_VFIO_DEVICE_FLAG_CAPS, 64);
	put_base(&info, 64, 64);
	zpci_caps_parse(&caps, info.bytes, sizeof(info));
	assert_true(caps.has_base && !caps.has_group);
	put_base(&info, 64, UINT32_MAX);
	zpci_caps_parse(&caps, info.bytes, sizeof(info));
	assert_true(caps.has_base);
	/* cut off one byte before the end of version 1, and there */
	zpci_caps_parse(&caps, info.bytes, 64 + UAPI_ZPCI_BASE_V1_BYTES - 1);
	assert_false(caps.has_base);
	zpci_caps_parse(&caps, info.bytes, 64 + UAPI_ZPCI_BASE_V1_BYTES);
	assert_true(caps.has_base);
	zpci_caps_parse(&caps, info.bytes, sizeof(struct uapi_vfio_device_info) - 1);
	assert_false(caps.has_base);
	put_head(&info, UAPI_VFIO_DEVICE_FLAG_CAPS,
		 sizeof(info) - sizeof(struct uapi_vfio_cap) + 1);
	zpci_caps_parse(&caps, info.bytes, sizeof(info));
	assert_false(caps.has_base || caps.has_group);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pci_addresses_are_checked),
		IN_TREE(functions_are_found_by_fid),
		IN_TREE(vfio_devices_are_found_by_function),
		IN_TREE(vfio_devices_are_found_by_number),
		cmocka_unit_test(zpci_capabilities_are_read),
		cmocka_unit_test(capability_chains_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
