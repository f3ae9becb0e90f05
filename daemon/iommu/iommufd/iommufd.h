/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_IOMMUFD_IOMMUFD_H
#define IB_IOMMU_IOMMUFD_IOMMUFD_H

/*
 * The backend on the kernel's iommufd and VFIO device nodes: what its files share. The operations
 * are those of iommu/backend.h, where their rules are told; here is only what they stand on.
 *
 * Threads and locks: a backend's features are found once, under probe_lock, and only read then
 * (seen_* apart, which go from false to true). A context has one lock, select_lock: the
 * VFIO-compatible calls of an iommufd work on the one address space that was selected last, so
 * selecting and calling are one step. Nothing else is taken under either. A device has no lock, as
 * the caller serialises all calls on one.
 */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "iommu/backend.h"
#include "iommu/iommufd/sysfs.h"

#define IOMMUFD_VF_TOKEN_BYTES 16

struct iommufd_backend {
	struct iommu_backend base; /* first */
	char *iommu_path, *vfio_dir, *sysfs;
	uint64_t open_wait_ns;
	bool without_map_file;

	pthread_mutex_t probe_lock;
	bool probed;
	struct iommu_features features; /* written once, under probe_lock */
	atomic_bool seen_nest_parent, seen_dirty_tracking;
};

struct iommu_context {
	struct iommufd_backend *backend;
	int fd;
	bool map_file;
	pthread_mutex_t select_lock;
};

/* Facts of a bound device that do not change, asked for once. */
struct iommufd_facts {
	struct iommu_range window; /* what a page table for it can hold */
	uint64_t page_sizes;
	uint32_t hw_info_type;
	uint32_t hw_info_bytes;
	uint8_t hw_info[IOMMU_HW_INFO_MAX];
};

struct iommu_device {
	struct iommufd_backend *backend;
	struct iommu_context *context; /* NULL: not bound by us */
	int fd;                        /* -1: given up by device_held */
	struct sysfs_vfio vfio;
	uint32_t kernel_id;
	bool dirty_tracking; /* its page tables can track */
	bool has_vf_token;
	uint8_t vf_token[IOMMUFD_VF_TOKEN_BYTES];
	bool has_facts;
	struct iommufd_facts facts;
};

static inline struct iommufd_backend *iommufd_backend_of(struct iommu_backend *backend)
{
	return (struct iommufd_backend *)backend;
}

/* backend.c */
int iommufd_features(struct iommufd_backend *backend, struct iommu_features *ret);

/* context.c */
int iommufd_context_new(struct iommu_backend *backend, struct iommu_context **ret);
int iommufd_context_adopt(struct iommu_backend *backend, int consume_fd,
			  struct iommu_context **ret);
int iommufd_context_has_device(struct iommu_context *context, uint32_t id, bool *ret);
int iommufd_context_change_process(struct iommu_context *context);
struct iommu_context *iommufd_context_free(struct iommu_context *context);
int iommufd_context_fd(struct iommu_context *context);
int iommufd_ioas_new(struct iommu_context *context, bool cuttable, uint32_t *ret_ioas);
int iommufd_map_file(struct iommu_context *context, uint32_t ioas, const struct iommu_file *file,
		     uint64_t offset, uint64_t length, uint64_t iova, unsigned int prot);
int iommufd_copy(struct iommu_context *context, uint32_t dst_ioas, uint64_t dst_iova,
		 uint32_t src_ioas, uint64_t src_iova, uint64_t length, unsigned int prot);
int iommufd_unmap(struct iommu_context *context, uint32_t ioas, uint64_t iova, uint64_t length,
		  uint64_t *ret_unmapped);
int iommufd_cut(struct iommu_context *context, uint32_t ioas, uint64_t iova, uint64_t length,
		uint64_t *ret_unmapped);
int iommufd_iova_ranges(struct iommu_context *context, uint32_t ioas, struct iommu_range *ret,
			size_t n, size_t *ret_n);
/* Sizes of page of all page tables over an IOAS, as a bit mask. */
int iommufd_page_sizes(struct iommu_context *context, uint32_t ioas, uint64_t *ret);
int iommufd_destroy(struct iommu_context *context, uint32_t id);

/* page_table.c */
int iommufd_page_table_new(struct iommu_context *context, struct iommu_device *device,
			   uint32_t ioas, uint32_t *ret_page_table);
int iommufd_page_table_new_nested(struct iommu_context *context, struct iommu_device *device,
				  uint32_t parent, const struct iommu_nested_data *data,
				  uint32_t *ret_page_table);
/* flags: UAPI_IOMMU_HWPT_*. */
int iommufd_page_table_with(struct iommu_context *context, uint32_t kernel_device_id, uint32_t ioas,
			    uint32_t flags, uint32_t *ret_page_table);
int iommufd_invalidate(struct iommu_context *context, uint32_t page_table, uint32_t type,
		       const void *entries, uint32_t entry_bytes, uint32_t n,
		       uint32_t *ret_consumed);
int iommufd_dirty_tracking(struct iommu_context *context, uint32_t page_table, bool on);
int iommufd_dirty_read(struct iommu_context *context, uint32_t page_table, uint64_t iova,
		       uint64_t length, uint64_t page_bytes, void *bitmap);

/* device_open.c */
/* EINVAL: not a PCI address. */
int iommufd_device_address(const struct iommufd_backend *backend,
			   const struct iommu_device_address *address,
			   char ret[SYSFS_PCI_ADDRESS_BYTES]);
int iommufd_device_open(struct iommu_backend *backend, const struct iommu_device_address *address,
			struct iommu_device **ret);
int iommufd_device_open_fd(struct iommu_backend *backend, int consume_fd,
			   struct iommu_device **ret);
int iommufd_device_adopt(struct iommu_backend *backend, int consume_fd,
			 const struct iommu_device_address *address, struct iommu_context *context,
			 uint32_t kernel_id, struct iommu_device **ret);
struct iommu_device *iommufd_device_close(struct iommu_device *device);
int iommufd_device_descriptor(struct iommu_device *device, int *ret_fd);
int iommufd_device_fd(struct iommu_device *device);
/* A descriptor of the node of a VFIO device, opened anew. */
int iommufd_open_node(const struct iommufd_backend *backend, const struct sysfs_vfio *vfio,
		      uint64_t wait_ns, int *ret_fd);

/* device.c */
int iommufd_device_bind(struct iommu_device *device, struct iommu_context *context,
			const uint8_t *vf_token, uint32_t *ret_kernel_id);
/* It is bound to that context as kernel_id already. */
void iommufd_device_bound(struct iommu_device *device, struct iommu_context *context,
			  uint32_t kernel_id);
int iommufd_attach(struct iommu_device *device, uint32_t page_table);
int iommufd_detach(struct iommu_device *device);
int iommufd_device_held(struct iommu_device *device, bool *ret);

/* device_stop.c */
int iommufd_device_stop(struct iommu_device *device);

/* device_info.c */
int iommufd_device_identify(struct iommu_backend *backend,
			    const struct iommu_device_address *address,
			    struct iommu_device_info *ret);
int iommufd_device_info(struct iommu_device *device, struct iommu_device_info *ret);

#endif
