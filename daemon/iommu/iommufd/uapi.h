/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_IOMMUFD_UAPI_H
#define IB_IOMMU_IOMMUFD_UAPI_H

/*
 * The part of the kernel's iommufd and VFIO interfaces that this folder speaks: layouts and numbers
 * in our own words, since a distribution's kernel headers can be older than the kernel it runs on
 * (Debian 12 has no <linux/iommufd.h>). Names carry our prefix, so that the kernel's headers can be
 * included beside this one: tests/unit/iommufd_uapi_test.c compares the two.
 *
 * Every structure begins with its own size, which is how the kernel knows what a caller knows. All
 * of them are the same on every 64-bit architecture: each 64-bit member stands on a multiple of 8.
 * Integers are in host byte order; PCI configuration space is little-endian.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* iommufd: the type of all its calls is ';', the numbers follow each other. */
#define UAPI_IOMMU_DESTROY             _IO(';', 0x80)
#define UAPI_IOMMU_IOAS_ALLOC          _IO(';', 0x81)
#define UAPI_IOMMU_IOAS_COPY           _IO(';', 0x83)
#define UAPI_IOMMU_IOAS_IOVA_RANGES    _IO(';', 0x84)
#define UAPI_IOMMU_IOAS_MAP            _IO(';', 0x85)
#define UAPI_IOMMU_IOAS_UNMAP          _IO(';', 0x86)
#define UAPI_IOMMU_OPTION              _IO(';', 0x87)
#define UAPI_IOMMU_VFIO_IOAS           _IO(';', 0x88)
#define UAPI_IOMMU_HWPT_ALLOC          _IO(';', 0x89)
#define UAPI_IOMMU_GET_HW_INFO         _IO(';', 0x8a)
#define UAPI_IOMMU_SET_DIRTY_TRACKING  _IO(';', 0x8b)
#define UAPI_IOMMU_GET_DIRTY_BITMAP    _IO(';', 0x8c)
#define UAPI_IOMMU_HWPT_INVALIDATE     _IO(';', 0x8d)
#define UAPI_IOMMU_IOAS_MAP_FILE       _IO(';', 0x8f)
#define UAPI_IOMMU_IOAS_CHANGE_PROCESS _IO(';', 0x92)

/* Flags of map, map_file and copy. */
#define UAPI_IOMMU_MAP_FIXED_IOVA 0x1u
#define UAPI_IOMMU_MAP_WRITABLE   0x2u
#define UAPI_IOMMU_MAP_READABLE   0x4u

#define UAPI_IOMMU_OPTION_HUGE_PAGES 1u
#define UAPI_IOMMU_OPTION_SET        0u

#define UAPI_IOMMU_VFIO_IOAS_SET 1u

#define UAPI_IOMMU_HWPT_NEST_PARENT    0x1u
#define UAPI_IOMMU_HWPT_DIRTY_TRACKING 0x2u

#define UAPI_IOMMU_CAP_DIRTY_TRACKING 0x1u

#define UAPI_IOMMU_DIRTY_TRACKING_ON 0x1u

struct uapi_iommu_destroy {
	uint32_t size;
	uint32_t id;
};

struct uapi_ioas_alloc {
	uint32_t size;
	uint32_t flags;
	uint32_t out_ioas_id;
};

struct uapi_iova_range {
	uint64_t start;
	uint64_t last;
};

struct uapi_ioas_iova_ranges {
	uint32_t size;
	uint32_t ioas_id;
	uint32_t num_iovas; /* in: room; out: how many there are, also with EMSGSIZE */
	uint32_t reserved;
	uint64_t allowed_iovas; /* address of an array of uapi_iova_range */
	uint64_t out_iova_alignment;
};

struct uapi_ioas_map {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id;
	uint32_t reserved;
	uint64_t user_va;
	uint64_t length;
	uint64_t iova;
};

struct uapi_ioas_map_file {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id;
	int32_t fd;
	uint64_t start;
	uint64_t length;
	uint64_t iova;
};

struct uapi_ioas_copy {
	uint32_t size;
	uint32_t flags;
	uint32_t dst_ioas_id;
	uint32_t src_ioas_id;
	uint64_t length;
	uint64_t dst_iova;
	uint64_t src_iova;
};

struct uapi_ioas_unmap {
	uint32_t size;
	uint32_t ioas_id;
	uint64_t iova;
	uint64_t length; /* out: bytes taken, on success only */
};

struct uapi_iommu_option {
	uint32_t size;
	uint32_t option_id;
	uint16_t op;
	uint16_t reserved;
	uint32_t object_id;
	uint64_t val64;
};

struct uapi_vfio_ioas {
	uint32_t size;
	uint32_t ioas_id;
	uint16_t op;
	uint16_t reserved;
};

struct uapi_hwpt_alloc {
	uint32_t size;
	uint32_t flags;
	uint32_t dev_id;
	uint32_t pt_id;
	uint32_t out_hwpt_id;
	uint32_t reserved;
	uint32_t data_type;
	uint32_t data_len;
	uint64_t data_uptr;
	uint32_t fault_id;
	uint32_t reserved2;
};

struct uapi_hw_info {
	uint32_t size;
	uint32_t flags;
	uint32_t dev_id;
	uint32_t data_len; /* in: room; out: what the kernel has, which can be more */
	uint64_t data_uptr;
	uint32_t out_data_type;
	uint8_t out_max_pasid_log2;
	uint8_t reserved[3];
	uint64_t out_capabilities;
};

struct uapi_set_dirty_tracking {
	uint32_t size;
	uint32_t flags;
	uint32_t hwpt_id;
	uint32_t reserved;
};

struct uapi_get_dirty_bitmap {
	uint32_t size;
	uint32_t hwpt_id;
	uint32_t flags;
	uint32_t reserved;
	uint64_t iova;
	uint64_t length;
	uint64_t page_size;
	uint64_t data;
};

struct uapi_hwpt_invalidate {
	uint32_t size;
	uint32_t hwpt_id;
	uint64_t data_uptr;
	uint32_t data_type;
	uint32_t entry_len;
	uint32_t entry_num; /* out: entries done, also on failure */
	uint32_t reserved;
};

struct uapi_change_process {
	uint32_t size;
	uint32_t reserved;
};

/* VFIO: the type is ';' too, the numbers begin at 100. The first two are calls on an iommufd. */
#define UAPI_VFIO_IOMMU_GET_INFO         _IO(';', 112)
#define UAPI_VFIO_IOMMU_UNMAP_DMA        _IO(';', 114)
#define UAPI_VFIO_DEVICE_GET_INFO        _IO(';', 107)
#define UAPI_VFIO_DEVICE_GET_REGION_INFO _IO(';', 108)
#define UAPI_VFIO_DEVICE_RESET           _IO(';', 111)
#define UAPI_VFIO_DEVICE_BIND            _IO(';', 118)
#define UAPI_VFIO_DEVICE_ATTACH          _IO(';', 119)
#define UAPI_VFIO_DEVICE_DETACH          _IO(';', 120)

#define UAPI_VFIO_DEVICE_FLAG_RESET 0x01u
#define UAPI_VFIO_DEVICE_FLAG_CAPS  0x80u

#define UAPI_VFIO_BIND_TOKEN 0x1u

#define UAPI_VFIO_PCI_CONFIG_REGION 7u

/* Capabilities of UAPI_VFIO_DEVICE_GET_INFO. */
#define UAPI_VFIO_CAP_ZPCI_BASE  1u
#define UAPI_VFIO_CAP_ZPCI_GROUP 2u
#define UAPI_VFIO_CAP_ZPCI_UTIL  3u
#define UAPI_VFIO_CAP_ZPCI_PFIP  4u

#define UAPI_ZPCI_GROUP_REFRESH 0x1u

struct uapi_vfio_iommu_info {
	uint32_t argsz;
	uint32_t flags;
	uint64_t iova_pgsizes;
	uint32_t cap_offset;
	uint32_t pad;
};
#define UAPI_VFIO_IOMMU_INFO_PGSIZES 0x1u

struct uapi_vfio_unmap {
	uint32_t argsz;
	uint32_t flags;
	uint64_t iova;
	uint64_t size; /* out: bytes taken */
};

struct uapi_vfio_device_info {
	uint32_t argsz; /* out: what all capabilities need */
	uint32_t flags;
	uint32_t num_regions;
	uint32_t num_irqs;
	uint32_t cap_offset; /* of the first capability from the structure's start; 0: none */
	uint32_t pad;
};

struct uapi_vfio_cap {
	uint16_t id;
	uint16_t version;
	uint32_t next; /* offset from the start of the info; 0: last */
};

struct uapi_zpci_base {
	struct uapi_vfio_cap header;
	uint64_t start_dma;
	uint64_t end_dma; /* inclusive */
	uint16_t pchid;
	uint16_t vfn;
	uint16_t fmb_length;
	uint8_t pft;
	uint8_t gid; /* version 1 ends here */
	uint32_t fh;
};
#define UAPI_ZPCI_BASE_V1_BYTES offsetof(struct uapi_zpci_base, fh)

struct uapi_zpci_group {
	struct uapi_vfio_cap header;
	uint64_t dasm;
	uint64_t msi_addr;
	uint64_t flags;
	uint16_t mui;
	uint16_t noi;
	uint16_t maxstbl;
	uint8_t version; /* version 1 ends here */
	uint8_t reserved;
	uint16_t imaxstbl;
};
#define UAPI_ZPCI_GROUP_V1_BYTES offsetof(struct uapi_zpci_group, reserved)

/* The utility string (EBCDIC) and the function's path; the bytes follow. */
struct uapi_zpci_text {
	struct uapi_vfio_cap header;
	uint32_t size;
	uint8_t bytes[];
};

struct uapi_vfio_region_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t cap_offset;
	uint64_t size;
	uint64_t offset; /* in the device's descriptor */
};

struct uapi_vfio_bind {
	uint32_t argsz;
	uint32_t flags;
	int32_t iommufd;
	uint32_t out_devid; /* kernels without tokens know the structure up to here */
	uint64_t token_uuid_ptr;
};
#define UAPI_VFIO_BIND_V1_BYTES offsetof(struct uapi_vfio_bind, token_uuid_ptr)

struct uapi_vfio_attach {
	uint32_t argsz;
	uint32_t flags;
	uint32_t pt_id;
};

struct uapi_vfio_detach {
	uint32_t argsz;
	uint32_t flags;
};

#endif
