/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What doctor looks at of the host: service manager, memory, groups, sockets. */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/doctor_file.h"
#include "ctl/text.h"

#define SYSTEMD_KEEPS_STORE 254
#define MOVABLE_PERCENT     10

/* Of libsystemd-shared-VERSION.so in a folder; 0: none. */
static unsigned int version_in(const struct doctor *doctor, const char *folder)
{
	struct file_names *names = file_names(doctor, "%s", folder);
	unsigned int version = 0;

	for (size_t i = 0; names != NULL && i < names->n && version == 0; i++)
		if (sscanf(names->names[i], "libsystemd-shared-%u", &version) != 1)
			version = 0;
	file_names_free(names);
	return version;
}

static unsigned int systemd_version(const struct doctor *doctor)
{
	static const char *const folders[] = {"usr/lib/systemd", "lib/systemd",
					      "usr/lib64/systemd"};
	struct file_names *triplets = file_names(doctor, "usr/lib");
	unsigned int version = 0;
	char folder[300];

	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]) && version == 0; i++)
		version = version_in(doctor, folders[i]);
	for (size_t i = 0; triplets != NULL && i < triplets->n && version == 0; i++) {
		snprintf(folder, sizeof(folder), "usr/lib/%s/systemd", triplets->names[i]);
		version = version_in(doctor, folder);
	}
	file_names_free(triplets);
	return version;
}

void doctor_check_systemd(struct doctor *doctor)
{
	unsigned int version = systemd_version(doctor);

	if (!file_exists(doctor, "run/systemd/system"))
		doctor_tell(doctor, DOCTOR_systemd, SEVERITY_NOTE,
			    "see that whatever starts the daemon keeps its limits and its user",
			    "systemd does not run here");
	else if (version == 0)
		doctor_tell(doctor, DOCTOR_systemd, SEVERITY_NOTE, NULL,
			    "systemd's version could not be seen");
	else if (version < SYSTEMD_KEEPS_STORE)
		doctor_tell(doctor, DOCTOR_systemd, SEVERITY_WARNING,
			    "restart the daemon, and never stop and start it; before a stop: "
			    "iommubrokerctl drain --wait",
			    "systemd %u drops the daemon's descriptors when it is stopped",
			    version);
	else
		doctor_tell(doctor, DOCTOR_systemd, SEVERITY_OK, NULL, "systemd %u", version);
}

/* ── memory ───────────────────────────────────────────────────────────────────────────────── */

void doctor_check_huge_pages(struct doctor *doctor)
{
	struct file_names *names = file_names(doctor, "sys/kernel/mm/hugepages");
	uint64_t kib, n, n_free;
	bool any = false;

	for (size_t i = 0; names != NULL && i < names->n; i++) {
		if (sscanf(names->names[i], "hugepages-%" SCNu64 "kB", &kib) != 1)
			continue;
		n = file_number(doctor, "sys/kernel/mm/hugepages/%s/nr_hugepages", names->names[i]);
		n_free = file_number(doctor, "sys/kernel/mm/hugepages/%s/free_hugepages",
				     names->names[i]);
		if (n == 0 || n == UINT64_MAX)
			continue;
		any = true;
		doctor_tell(doctor, DOCTOR_huge_pages, n_free > 0 ? SEVERITY_OK : SEVERITY_NOTE,
			    n_free > 0 ? NULL
				       : "raise vm.nr_hugepages before the next guest starts",
			    "%" PRIu64 " huge pages of %s, %" PRIu64 " free", n,
			    text_size(kib * 1024).bytes, n_free);
	}
	file_names_free(names);
	if (!any)
		doctor_tell(doctor, DOCTOR_huge_pages, SEVERITY_NOTE,
			    "set vm.nr_hugepages, and have VMMs take guest memory from hugetlbfs",
			    "no huge pages are set aside: guests of small pages pin slower, and "
			    "cost the kernel more memory for each mapping");
}

/* Pages of all nodes' ZONE_MOVABLE, and of all zones. */
static void count_zones(const char *text, uint64_t *ret_movable, uint64_t *ret_all)
{
	bool movable = false;

	*ret_movable = *ret_all = 0;
	for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
		char zone[32];
		uint64_t pages;

		line += *line == '\n';
		if (*line == '\0')
			break;
		if (sscanf(line, "Node %*d, zone %31s", zone) == 1)
			movable = strcmp(zone, "Movable") == 0;
		else if (sscanf(line, " managed %" SCNu64, &pages) == 1) {
			*ret_all += pages;
			*ret_movable += movable ? pages : 0;
		}
	}
}

static void check_zones(struct doctor *doctor)
{
	char *zones = file_read(doctor, "proc/zoneinfo"),
	     *memory = file_read(doctor, "proc/meminfo");
	uint64_t movable, all, cma_kib = UINT64_MAX;

	if (memory != NULL)
		cma_kib = text_line_number(memory, "CmaTotal:");
	if (zones != NULL) {
		count_zones(zones, &movable, &all);
		if (all > 0 && movable * 100 >= all * MOVABLE_PERCENT)
			doctor_tell(doctor, DOCTOR_movable, SEVERITY_WARNING,
				    "leave movablecore=, kernelcore= and movable_node off the "
				    "kernel's command line, and online memory as online_kernel",
				    "%" PRIu64 "%% of the memory is ZONE_MOVABLE: pages there are "
				    "moved before they are pinned, and guests get none of it",
				    movable * 100 / all);
		else
			doctor_tell(doctor, DOCTOR_movable, SEVERITY_OK, NULL,
				    "%" PRIu64 "%% of the memory is ZONE_MOVABLE",
				    all > 0 ? movable * 100 / all : 0);
	}
	if (cma_kib != UINT64_MAX && cma_kib > 0)
		doctor_tell(doctor, DOCTOR_movable,
			    cma_kib >= 1 << 20 ? SEVERITY_NOTE : SEVERITY_OK,
			    cma_kib >= 1 << 20 ? "make cma= and hugetlb_cma= smaller" : NULL,
			    "%s are set aside for CMA, and cannot be pinned for long",
			    text_size(cma_kib * 1024).bytes);
	free(zones);
	free(memory);
}

void doctor_check_movable(struct doctor *doctor)
{
	char *command_line = file_read(doctor, "proc/cmdline");
	char *online = file_read(doctor, "sys/devices/system/memory/auto_online_blocks");

	check_zones(doctor);
	if (command_line != NULL && strstr(command_line, "movable_node") != NULL)
		doctor_tell(doctor, DOCTOR_movable, SEVERITY_NOTE,
			    "leave it away, unless memory is really taken out",
			    "movable_node is on the kernel's command line: memory that can be "
			    "hot-plugged cannot be pinned");
	if (online != NULL && strncmp(online, "online_movable", 14) == 0)
		doctor_tell(doctor, DOCTOR_movable, SEVERITY_WARNING,
			    "write online_kernel to /sys/devices/system/memory/auto_online_blocks",
			    "memory that is plugged in becomes movable, and cannot be pinned");
	free(command_line);
	free(online);
}

/* ── who may connect ──────────────────────────────────────────────────────────────────────── */

void doctor_check_clients(struct doctor *doctor)
{
	char members[512];
	uint32_t gid;

	if (!group_find(doctor, "iommubroker-clients", &gid, members, sizeof(members)))
		doctor_tell(doctor, DOCTOR_clients, SEVERITY_SERIOUS, "systemd-sysusers",
			    "there is no group iommubroker-clients");
	else if (members[0] == '\0' && group_users(doctor, gid) == 0)
		doctor_tell(
			doctor, DOCTOR_clients, SEVERITY_NOTE,
			"usermod --append --groups iommubroker-clients USER, for the VMMs' user",
			"nobody is in the group iommubroker-clients: nobody can connect");
	else
		doctor_tell(doctor, DOCTOR_clients, SEVERITY_OK, NULL,
			    "iommubroker-clients has members");
	if (group_find(doctor, "iommubroker", &gid, members, sizeof(members)) && members[0] != '\0')
		doctor_tell(doctor, DOCTOR_clients, SEVERITY_SERIOUS,
			    "take them out: clients belong to iommubroker-clients",
			    "%s in the daemon's group iommubroker can open the device nodes "
			    "without the broker",
			    text_safe(members, 100).bytes);
}

/* others: what of the mode nobody but owner and group may have. */
static void check_mode(struct doctor *doctor, const char *path, mode_t others, const char *remedy)
{
	struct stat status;
	int error = file_stat(doctor, &status, "%s", path);

	if (error == EACCES)
		doctor_tell(doctor, DOCTOR_sockets, SEVERITY_NOTE, "run it as root",
			    "/%s could not be seen", path);
	else if (error != 0)
		doctor_tell(doctor, DOCTOR_sockets, SEVERITY_WARNING,
			    "systemctl enable --now iommubrokerd-{broker,fd,admin}.socket",
			    "/%s is not there", path);
	else if (status.st_mode & others)
		doctor_tell(doctor, DOCTOR_sockets, SEVERITY_SERIOUS, remedy,
			    "/%s is open to others (mode %03o)", path,
			    (unsigned int)status.st_mode & 0777);
	else
		doctor_tell(doctor, DOCTOR_sockets, SEVERITY_OK, NULL, "/%s, mode %03o", path,
			    (unsigned int)status.st_mode & 0777);
}

void doctor_check_sockets(struct doctor *doctor)
{
	static const char *const names[] = {"broker.sock", "fd.sock"};
	char path[DOCTOR_PATH_BYTES];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", doctor->runtime_dir, names[i]);
		check_mode(doctor, path, 007, "SocketMode=0660 in its .socket");
	}
	check_mode(doctor, doctor->admin_dir, 077,
		   "systemd-tmpfiles --create; it must be of mode 700");
}
