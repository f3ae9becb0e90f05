/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_KEPT_FUNCTION_H
#define IB_VM_KEPT_FUNCTION_H

/*
 * A PCI function that stays enabled while VFIO opens and closes it: the kernel counts who enabled
 * it, and here root did, once. Otherwise every bind and close asks ACPI how its interrupt is wired,
 * and ACPI's interpreter does not survive a failed allocation: the kernel of Linux 7.2 ends in
 * acpi_ut_update_object_reference(), below pci_disable_device(). That is neither iommufd's nor
 * VFIO's, and nothing that an unprivileged process can cause.
 */

/* As root, while nobody has it open. REQUIREs (check.h) that it works. */
void kept_function_enable(const char *address);
void kept_function_release(const char *address);

#endif
