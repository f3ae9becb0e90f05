/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What doctor looks at in the kernel: IOMMUFD, VFIO device nodes, modules, an active IOMMU. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/doctor_file.h"

#define KERNEL_REMEDY "boot a kernel with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV"

static void kernel_release(const struct doctor *doctor, char *ret, size_t ret_bytes)
{
	char *text = file_read(doctor, "proc/sys/kernel/osrelease");

	snprintf(ret, ret_bytes, "%s", text != NULL ? text : "");
	ret[strcspn(ret, "\n")] = '\0';
	free(text);
}

/* 'y', 'm', 'n'; '?' if the kernel's configuration is nowhere to be seen. */
static char kernel_option(const struct doctor *doctor, const char *name)
{
	char release[100], line[64];
	char *text;

	kernel_release(doctor, release, sizeof(release));
	text = file_read(doctor, "proc/config.gz");
	if (text == NULL)
		text = file_read(doctor, "boot/config-%s", release);
	if (text == NULL)
		text = file_read(doctor, "lib/modules/%s/config", release);
	if (text == NULL)
		return '?';
	if (!text_line(text, name, line, sizeof(line)))
		line[0] = 'n';
	free(text);
	return line[0];
}

/* No name may be the beginning of another one's line: the table's end with "=". */
void doctor_check_iommufd(struct doctor *doctor)
{
	char option, release[100];

	if (file_exists(doctor, "dev/iommu")) {
		doctor_tell(doctor, DOCTOR_iommufd, SEVERITY_OK, NULL, "/dev/iommu is there");
		return;
	}
	kernel_release(doctor, release, sizeof(release));
	option = kernel_option(doctor, "CONFIG_IOMMUFD=");
	if (option == 'n')
		doctor_tell(doctor, DOCTOR_iommufd, SEVERITY_SERIOUS, KERNEL_REMEDY,
			    "the kernel (%s) is built without IOMMUFD", release);
	else if (option == 'm' || option == 'y')
		doctor_tell(doctor, DOCTOR_iommufd, SEVERITY_SERIOUS, "modprobe iommufd",
			    "the kernel has IOMMUFD, but /dev/iommu is not there");
	else
		doctor_tell(doctor, DOCTOR_iommufd, SEVERITY_SERIOUS,
			    "modprobe iommufd; if there is no such module, " KERNEL_REMEDY,
			    "/dev/iommu is not there, and the configuration of the kernel (%s) "
			    "cannot be seen",
			    release);
}

void doctor_check_iommu(struct doctor *doctor)
{
	struct file_names *names = file_names(doctor, "sys/kernel/iommu_groups");

	if (names != NULL && names->n > 0)
		doctor_tell(doctor, DOCTOR_iommu, SEVERITY_OK, NULL, "%zu IOMMU groups", names->n);
	else
		doctor_tell(doctor, DOCTOR_iommu, SEVERITY_SERIOUS,
			    "switch the IOMMU on in the firmware, and on Intel with intel_iommu=on "
			    "on the kernel's command line",
			    "no IOMMU is active: there are no IOMMU groups");
	file_names_free(names);
}

static size_t count_bound(const struct doctor *doctor)
{
	struct file_names *names = file_names(doctor, "sys/bus/pci/drivers/vfio-pci");
	size_t n = 0;

	for (size_t i = 0; names != NULL && i < names->n; i++)
		n += strchr(names->names[i], ':') != NULL;
	file_names_free(names);
	return n;
}

void doctor_check_vfio_cdev(struct doctor *doctor)
{
	char option = kernel_option(doctor, "CONFIG_VFIO_DEVICE_CDEV=");
	struct file_names *nodes = file_names(doctor, "dev/vfio/devices");

	if (nodes != NULL && nodes->n > 0)
		doctor_tell(doctor, DOCTOR_vfio_cdev, SEVERITY_OK, NULL,
			    "%zu nodes in /dev/vfio/devices", nodes->n);
	else if (option == 'n')
		doctor_tell(doctor, DOCTOR_vfio_cdev, SEVERITY_SERIOUS, KERNEL_REMEDY,
			    "the kernel makes no VFIO device nodes: CONFIG_VFIO_DEVICE_CDEV is not "
			    "set");
	else if (count_bound(doctor) > 0)
		doctor_tell(doctor, DOCTOR_vfio_cdev, SEVERITY_SERIOUS, KERNEL_REMEDY,
			    "functions are bound to vfio-pci, but /dev/vfio/devices is empty");
	else if (option == '?')
		doctor_tell(doctor, DOCTOR_vfio_cdev, SEVERITY_NOTE,
			    "bind a function to vfio-pci, and look again",
			    "whether the kernel makes VFIO device nodes cannot be seen: none is "
			    "needed, and its configuration is nowhere");
	else
		doctor_tell(doctor, DOCTOR_vfio_cdev, SEVERITY_OK, NULL,
			    "CONFIG_VFIO_DEVICE_CDEV is set; no function is bound yet");
	file_names_free(nodes);
}

static void check_module(struct doctor *doctor, const char *module, const char *option)
{
	char *modules = file_read(doctor, "proc/modules");
	char line[16], name[32];

	snprintf(name, sizeof(name), "%s ", module);
	if (file_exists(doctor, "sys/module/%s", module) ||
	    (modules != NULL && text_line(modules, name, line, sizeof(line))))
		doctor_tell(doctor, DOCTOR_modules, SEVERITY_OK, NULL, "%s is loaded", module);
	else if (kernel_option(doctor, option) == 'y')
		doctor_tell(doctor, DOCTOR_modules, SEVERITY_OK, NULL, "%s is built in", module);
	else
		doctor_tell(doctor, DOCTOR_modules, SEVERITY_WARNING,
			    "systemctl restart systemd-modules-load, which reads "
			    "modules-load.d/iommubroker.conf, or modprobe it",
			    "%s is not loaded", module);
	free(modules);
}

void doctor_check_modules(struct doctor *doctor)
{
	check_module(doctor, "iommufd", "CONFIG_IOMMUFD=");
	check_module(doctor, "vfio_pci", "CONFIG_VFIO_PCI=");
}
