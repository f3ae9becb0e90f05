/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_EMULATED_DEVICE_H
#define IB_IOMMU_EMULATED_DEVICE_H

/*
 * Emulated PCI functions: a device file that the DMA engine reads (layout.h), kept equal to the
 * address space that the function is attached to.
 *
 * Calls on one device are serialised by the caller; emulated_device_fill() and _clear() run under
 * the lock of the IOAS that the device is attached to.
 */

#include "iommu/emulated/context.h"

struct emulated_backend {
	struct iommu_backend base;
	struct iommu_emulated_function functions[IOMMU_EMULATED_FUNCTIONS_MAX];
	size_t n_functions;
	pthread_mutex_t lock; /* of what follows */
	struct iommu_device *open_devices;
	struct {
		unsigned int operations, every, n;
		int error, every_error;
	} fail;
};

struct iommu_device {
	struct emulated_backend *backend;
	struct iommu_device *next_open, *next_bound, *next_attached;
	struct iommu_device_info info;
	bool was_bound;
	bool foreign;      /* the file was passed in: anyone may have it open */
	uint64_t dev, ino; /* of the file */

	struct arena arena; /* its file is the device's descriptor */
	struct emulated_device_header *header;
	struct emulated_memory_record *records;
	uint64_t *serials; /* of the memory that a record describes; 0: none */

	struct iommu_context *context; /* bound */
	struct emulated_object object;
	struct emulated_page_table *page_table; /* attached: holds a use */
	struct radix radix;                     /* attached */
};

/* 0 or the errno of the seam's call of that name. */
int emulated_device_identify(const struct emulated_backend *backend,
			     const struct iommu_device_address *address,
			     struct iommu_device_info *ret);
int emulated_device_open(struct emulated_backend *backend,
			 const struct iommu_device_address *address, struct iommu_device **ret);
int emulated_device_open_fd(struct emulated_backend *backend, int consume_fd,
			    struct iommu_device **ret);
/* One that another process opened, and bound there as kernel_id unless context is NULL. */
int emulated_device_adopt(struct emulated_backend *backend, int consume_fd,
			  struct iommu_context *context, uint32_t kernel_id,
			  struct iommu_device **ret);
struct iommu_device *emulated_device_close(struct iommu_device *device);
int emulated_device_held(struct iommu_device *device, bool *ret);
int emulated_device_bind(struct iommu_device *device, struct iommu_context *context);
/* Blocks it first. */
void emulated_device_unbind(struct iommu_device *device);
int emulated_device_attach(struct iommu_device *device, uint32_t page_table);
void emulated_device_detach(struct iommu_device *device);
void emulated_device_stop(struct iommu_device *device);

/* Write what the IOAS shows in the range into radix, whose tables exist. */
void emulated_device_fill(struct iommu_device *device, struct radix *radix,
			  const struct emulated_ioas *ioas, uint64_t first, uint64_t last);
void emulated_device_clear(struct iommu_device *device, uint64_t first, uint64_t last);

#endif
