/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_IOMMUFD_SYSFS_H
#define IB_IOMMU_IOMMUFD_SYSFS_H

/*
 * What the kernel tells about PCI functions and their VFIO device nodes in sysfs. `sysfs` is where
 * it is mounted. All functions answer 0 or a positive errno and write out parameters only on 0.
 */

#include <stdint.h>
#include <sys/types.h>

#define SYSFS_PCI_ADDRESS_BYTES 16 /* with the terminating NUL */
#define SYSFS_VFIO_NAME_BYTES   16

/* A VFIO device node as sysfs names it. */
struct sysfs_vfio {
	char pci_address[SYSFS_PCI_ADDRESS_BYTES];
	char name[SYSFS_VFIO_NAME_BYTES]; /* "vfio0": the node's name under devices/ */
	dev_t node;                       /* its device number */
};

/* "dddd:bb:ss.f" in hexadecimal digits of either case, the domain of 4 to 7 digits; ret is in
 * lower case, as sysfs has it. EINVAL: anything else. */
int sysfs_pci_address(char ret[SYSFS_PCI_ADDRESS_BYTES], const char *text);

/* The PCI function with this zPCI function id. ENOENT: none. */
int sysfs_pci_by_fid(char ret[SYSFS_PCI_ADDRESS_BYTES], const char *sysfs, uint32_t fid);

/* The VFIO device of a PCI function. ENOENT: no such function, it is not at a VFIO driver, or the
 * kernel has no VFIO device nodes (CONFIG_VFIO_DEVICE_CDEV). */
int sysfs_vfio_of_pci(struct sysfs_vfio *ret, const char *sysfs, const char *pci_address);

/* The VFIO device behind a device number. EINVAL: the number is none of a VFIO device of a PCI
 * function. */
int sysfs_vfio_of_node(struct sysfs_vfio *ret, const char *sysfs, dev_t node);

/* A number in an attribute of a PCI function ("vendor", "function_id"), of at most 32 bits.
 * ENOENT: no such attribute. EIO: not a number. */
int sysfs_pci_number(uint32_t *ret, const char *sysfs, const char *pci_address,
		     const char *attribute);

#endif
