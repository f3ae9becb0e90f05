/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What doctor looks at of devices: nodes and their modes, groups, drivers, s390's functions. */

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/doctor_file.h"

#define UDEV_REMEDY                                                                        \
	"install 70-iommubroker.rules, then udevadm control --reload and udevadm trigger " \
	"--subsystem-match=misc --subsystem-match=vfio-dev"

static void check_node(struct doctor *doctor, uint32_t gid, const char *node)
{
	struct stat status;

	if (file_stat(doctor, &status, "%s", node) != 0)
		return;
	if (status.st_mode & 07)
		doctor_tell(doctor, DOCTOR_node_modes, SEVERITY_SERIOUS, UDEV_REMEDY,
			    "/%s is open to everyone (mode %03o): whoever opens it needs no broker",
			    node, (unsigned int)status.st_mode & 0777);
	else if (status.st_gid != gid || (status.st_mode & 060) != 060)
		doctor_tell(doctor, DOCTOR_node_modes, SEVERITY_SERIOUS, UDEV_REMEDY,
			    "/%s is not the daemon's to open: group %u, mode %03o in place of "
			    "iommubroker, 660",
			    node, (unsigned int)status.st_gid, (unsigned int)status.st_mode & 0777);
	else
		doctor_tell(doctor, DOCTOR_node_modes, SEVERITY_OK, NULL, "/%s", node);
}

void doctor_check_node_modes(struct doctor *doctor)
{
	struct file_names *nodes = file_names(doctor, "dev/vfio/devices");
	char node[300];
	uint32_t gid;

	if (!group_find(doctor, "iommubroker", &gid, NULL, 0)) {
		doctor_tell(doctor, DOCTOR_node_modes, SEVERITY_SERIOUS, "systemd-sysusers",
			    "there is no group iommubroker, to which the nodes should belong");
		file_names_free(nodes);
		return;
	}
	check_node(doctor, gid, "dev/iommu");
	for (size_t i = 0; nodes != NULL && i < nodes->n; i++) {
		snprintf(node, sizeof(node), "dev/vfio/devices/%s", nodes->names[i]);
		check_node(doctor, gid, node);
	}
	file_names_free(nodes);
}

/* PCI functions that vfio-pci drives: their folders are named by address. */
static bool is_address(const char *name)
{
	return strchr(name, ':') != NULL && isxdigit((unsigned char)name[0]);
}

void doctor_check_devices(struct doctor *doctor)
{
	struct file_names *names = file_names(doctor, "sys/bus/pci/drivers/vfio-pci");
	size_t n = 0;

	for (size_t i = 0; names != NULL && i < names->n; i++) {
		if (!is_address(names->names[i]))
			continue;
		n++;
		doctor_tell(doctor, DOCTOR_devices, SEVERITY_OK, NULL, "%s is bound to vfio-pci",
			    names->names[i]);
	}
	file_names_free(names);
	if (n == 0)
		doctor_tell(doctor, DOCTOR_devices, SEVERITY_NOTE,
			    "driverctl set-override ADDRESS vfio-pci, or have libvirt do it",
			    "no PCI function is bound to vfio-pci: there is none to be opened");
}

/* Those of the function's group that somebody else drives can reach the guest's memory. */
static void check_group(struct doctor *doctor, const char *address)
{
	struct file_names *names =
		file_names(doctor, "sys/bus/pci/devices/%s/iommu_group/devices", address);

	for (size_t i = 0; names != NULL && i < names->n; i++) {
		const char *other = names->names[i];
		char driver[256];

		if (strcmp(other, address) == 0 ||
		    !file_link(doctor, driver, sizeof(driver), "sys/bus/pci/devices/%s/driver",
			       other) ||
		    strstr(driver, "vfio") != NULL || strstr(driver, "pcieport") != NULL)
			continue;
		doctor_tell(doctor, DOCTOR_groups, SEVERITY_WARNING,
			    "bind it to vfio-pci as well, or use another slot",
			    "%s shares its IOMMU group with %s, which another driver holds: the "
			    "kernel will refuse to bind it",
			    address, other);
	}
	file_names_free(names);
}

void doctor_check_groups(struct doctor *doctor)
{
	struct file_names *names = file_names(doctor, "sys/bus/pci/drivers/vfio-pci");

	for (size_t i = 0; names != NULL && i < names->n; i++)
		if (is_address(names->names[i]))
			check_group(doctor, names->names[i]);
	file_names_free(names);
}

/* ── who has opened a group ───────────────────────────────────────────────────────────────── */

/* "/dev/vfio/12"; the devices' nodes are in a folder of their own. */
static bool is_legacy(const char *target)
{
	static const char start[] = "/dev/vfio/";

	return strncmp(target, start, sizeof(start) - 1) == 0 &&
	       isdigit((unsigned char)target[sizeof(start) - 1]);
}

/* false: its descriptors cannot be seen. */
static bool check_process(struct doctor *doctor, const char *pid)
{
	struct file_names *names;
	char target[256];

	errno = 0;
	names = file_names(doctor, "proc/%s/fd", pid);
	if (names == NULL)
		return errno != EACCES && errno != EPERM;
	for (size_t i = 0; i < names->n; i++) {
		if (!file_link(doctor, target, sizeof(target), "proc/%s/fd/%s", pid,
			       names->names[i]) ||
		    !is_legacy(target))
			continue;
		doctor_tell(doctor, DOCTOR_legacy_group, SEVERITY_WARNING,
			    "stop that program, or have it use device nodes; until then the "
			    "group's functions cannot be bound (EBUSY)",
			    "process %s has opened %.60s the legacy way", pid, target);
		break;
	}
	file_names_free(names);
	return true;
}

void doctor_check_legacy_group(struct doctor *doctor)
{
	struct file_names *names = file_names(doctor, "proc");
	size_t n_hidden = 0;

	for (size_t i = 0; names != NULL && i < names->n; i++)
		if (isdigit((unsigned char)names->names[i][0]))
			n_hidden += !check_process(doctor, names->names[i]);
	file_names_free(names);
	if (n_hidden > 0)
		doctor_tell(doctor, DOCTOR_legacy_group, SEVERITY_NOTE, "run it as root",
			    "what %zu processes have opened could not be seen", n_hidden);
}

/* ── s390 ─────────────────────────────────────────────────────────────────────────────────── */

static bool has_functions(const struct doctor *doctor)
{
	struct file_names *names = file_names(doctor, "sys/bus/pci/devices");
	bool found = false;

	for (size_t i = 0; names != NULL && i < names->n && !found; i++)
		found = file_exists(doctor, "sys/bus/pci/devices/%s/function_id", names->names[i]);
	file_names_free(names);
	return found;
}

void doctor_check_s390(struct doctor *doctor)
{
	char *cpu = file_read(doctor, "proc/cpuinfo");
	char *machine = file_read(doctor, "proc/sysinfo");

	if (cpu == NULL || strstr(cpu, "IBM/S390") == NULL)
		goto out;
	if (has_functions(doctor))
		doctor_tell(doctor, DOCTOR_s390, SEVERITY_OK, NULL, "there are zPCI functions");
	else
		doctor_tell(doctor, DOCTOR_s390, SEVERITY_NOTE,
			    "assign functions to the partition, and power their slots on "
			    "(/sys/bus/pci/slots)",
			    "there is no zPCI function");
	if (machine != NULL && strstr(machine, "z/VM") != NULL)
		doctor_tell(doctor, DOCTOR_s390, SEVERITY_NOTE,
			    "ATTACH the functions to this guest, and see that IO_OPT UID is on",
			    "this host runs in z/VM, which shadows its tables once more: refreshes "
			    "cost more than in a partition");
	if (file_number(doctor, "sys/firmware/uv/prot_virt_guest") == 1)
		doctor_tell(doctor, DOCTOR_s390, SEVERITY_SERIOUS, "use the host itself",
			    "this is a secure-execution guest: it cannot pass functions through");
	if (file_number(doctor, "sys/firmware/uv/prot_virt_host") == 1)
		doctor_tell(doctor, DOCTOR_s390, SEVERITY_NOTE, NULL,
			    "guests under secure execution cannot have functions passed through");
out:
	free(cpu);
	free(machine);
}
