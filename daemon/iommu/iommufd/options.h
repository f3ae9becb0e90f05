/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_IOMMUFD_OPTIONS_H
#define IB_IOMMU_IOMMUFD_OPTIONS_H

/*
 * What iommu_iommufd_new() (iommu/backend.h) takes for granted, to be chosen by tests: where the
 * kernel's interfaces are found, and which of its features not to use though it has them.
 */

#include <stdbool.h>
#include <stdint.h>

#include "iommu/backend.h"

/* A device node gets its mode some time after vfio-pci binds: how long opening it waits. */
#define IOMMU_IOMMUFD_OPEN_WAIT_NS UINT64_C(1000000000)

struct iommu_iommufd_options {
	const char *iommu_path; /* copied; "/dev/iommu" */
	const char *vfio_dir;   /* copied; "/dev/vfio" */
	const char *sysfs;      /* copied; "/sys" */
	bool without_map_file;  /* as on kernels before 6.13: map our own mapping of the file */
	uint64_t open_wait_ns;  /* 0: try once */
};

/* 0 or a negative errno, as iommu_iommufd_new(). */
int iommu_iommufd_new_with(struct iommu_backend **ret, const struct iommu_iommufd_options *options);

#endif
