/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who may do what: the VMM nothing but ask, the daemon nothing but what its group may. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "proc.h"
#include "scenario.h"
#include "vmm.h"

/* ── the VMM ───────────────────────────────────────────────────────────────────────────────── */

static void check_closed(const char *path)
{
	int fd;

	check_step("%s", path);
	errno = 0;
	fd = open(path, O_RDWR | O_CLOEXEC);
	CHECK(fd < 0);
	CHECK_EQUAL(errno, EACCES);
	errno = 0;
	CHECK(open(path, O_RDONLY | O_CLOEXEC) < 0);
	CHECK_EQUAL(errno, EACCES);
}

static unsigned int check_folder_closed(const char *folder_path)
{
	DIR *folder = opendir(folder_path);
	struct dirent *entry;
	unsigned int n = 0;
	char path[300];

	while (folder != NULL && (entry = readdir(folder)) != NULL) {
		if (entry->d_type != DT_CHR)
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder_path, entry->d_name);
		check_closed(path);
		n++;
	}
	if (folder != NULL)
		closedir(folder);
	return n;
}

/* Other ways to the same nodes. */
static void check_detours(const struct machine *machine)
{
	struct stat node;
	char path[128];

	check_closed("/proc/self/root/dev/iommu");
	check_closed("/dev/../dev//iommu");
	snprintf(path, sizeof(path), "/tmp/detour-%d", (int)getpid());
	REQUIRE(symlink("/dev/iommu", path) == 0);
	check_closed(path);
	unlink(path);
	snprintf(path, sizeof(path), "/proc/%d/root/dev/iommu", (int)machine->daemon);
	check_closed(path);
	for (int fd = 0; fd < 64; fd++) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)machine->daemon, fd);
		check_closed(path);
	}
	check_step("a node of one's own");
	REQUIRE(stat("/dev/iommu", &node) == 0);
	snprintf(path, sizeof(path), "/tmp/node-%d", (int)getpid());
	errno = 0;
	CHECK(mknod(path, S_IFCHR | 0600, node.st_rdev) != 0);
	CHECK_EQUAL(errno, EPERM);
}

static void check_daemon_out_of_reach(const struct machine *machine)
{
	int pidfd = (int)syscall(SYS_pidfd_open, machine->daemon, 0);
	char path[64];

	check_step("the daemon's descriptors and memory");
	REQUIRE(pidfd >= 0);
	for (int fd = 0; fd < 64; fd++) {
		errno = 0;
		CHECK(syscall(SYS_pidfd_getfd, pidfd, fd, 0) < 0);
		CHECK_EQUAL(errno, EPERM);
	}
	close(pidfd);
	snprintf(path, sizeof(path), "/proc/%d/mem", (int)machine->daemon);
	check_closed(path);
}

static void open_nothing(const struct machine *machine, void *user_data)
{
	char path[128];

	(void)user_data;
	CHECK_EQUAL(getuid(), VMM_UID);
	CHECK_EQUAL(proc_status(getpid(), "CapEff", 16), 0);
	check_closed("/dev/iommu");
	CHECK(check_folder_closed("/dev/vfio/devices") > 0);
	check_folder_closed("/dev/vfio");
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource0", machine_pci());
	check_closed(path);
	check_detours(machine);
	check_daemon_out_of_reach(machine);
}

void case_vmm_may_open_nothing(void)
{
	struct machine machine;
	int fd;

	machine_start(&machine, NULL);
	machine_run_vmm(&machine, open_nothing, NULL);
	check_step("for comparison, root");
	fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	CHECK(fd >= 0);
	close(fd);
	machine_stop(&machine);
}

/* ── the daemon ────────────────────────────────────────────────────────────────────────────── */

static void check_daemon(const struct machine *machine)
{
	static const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};

	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
		check_step("%s", sets[i]);
		CHECK_EQUAL(proc_status(machine->daemon, sets[i], 16), 0);
	}
	check_step("the daemon");
	CHECK_EQUAL(proc_status(machine->daemon, "Uid", 10), DAEMON_UID);
	CHECK_EQUAL(proc_status(machine->daemon, "Gid", 10), DAEMON_UID);
	CHECK_EQUAL(proc_status(machine->daemon, "NoNewPrivs", 10), 1);
}

static void up_and_down(const struct machine *machine, void *user_data)
{
	struct vmm vmm = {0};

	(void)user_data;
	vmm_up(&vmm, machine);
	check_daemon(machine);
	vmm_down(&vmm);
}

void case_daemon_has_no_capability(void)
{
	struct machine machine;

	machine_start(&machine, NULL);
	check_daemon(&machine);
	machine_run_vmm(&machine, up_and_down, NULL);
	machine_stop(&machine);
}

/* ── rules ─────────────────────────────────────────────────────────────────────────────────── */

static void end_without_device(struct vmm *vmm)
{
	struct iommubroker_error *error = NULL;

	CHECK_EQUAL(vmm_ledger(vmm, "devices"), 0);
	CHECK_DONE(iommubroker_guest_destroy(vmm->guest, &error), &error);
	iommubroker_memory_file_free(vmm->file);
	iommubroker_guest_free(vmm->guest);
	iommubroker_session_free(vmm->session);
}

static void open_without_rule(const struct machine *machine, void *user_data)
{
	struct iommubroker_error *error = NULL;
	struct vmm vmm = {0};

	(void)user_data;
	vmm_connect(&vmm, machine);
	CHECK_REFUSED(iommubroker_device_open_pci(vmm.guest, machine_pci(), &vmm.device,
						  &vmm.device_fd, &error),
		      &error, -EACCES, "NO_DEVICE_RULE");
	CHECK_REFUSED(
		iommubroker_device_open_function(vmm.guest, 1, &vmm.device, &vmm.device_fd, &error),
		&error, -EACCES, "NO_DEVICE_RULE");
	/* Nor is it told what there is. */
	CHECK_REFUSED(iommubroker_device_open_pci(vmm.guest, "0000:1f:1e.7", &vmm.device,
						  &vmm.device_fd, &error),
		      &error, -EACCES, "NO_DEVICE_RULE");
	end_without_device(&vmm);
}

static void close_again(struct vmm *vmm)
{
	struct iommubroker_error *error = NULL;

	close(vmm->device_fd);
	CHECK_DONE(iommubroker_device_close(vmm->device, NULL, &error), &error);
	vmm->device = iommubroker_device_free(vmm->device);
}

static void open_by_address_and_id(const struct machine *machine, void *user_data)
{
	struct iommubroker_error *error = NULL;
	struct vmm vmm = {0};

	(void)user_data;
	vmm_connect(&vmm, machine);
	vmm_open_device(&vmm);
	close_again(&vmm);
	if (machine_is_s390x()) {
		CHECK_DONE(iommubroker_device_open_function(vmm.guest, machine_fid(), &vmm.device,
							    &vmm.device_fd, &error),
			   &error);
		vmm_bind_device(&vmm);
		close_again(&vmm);
		vmm.pinned = false;
		CHECK_REFUSED(iommubroker_device_open_function(vmm.guest, machine_fid() + 1,
							       &vmm.device, &vmm.device_fd, &error),
			      &error, -EACCES, "NO_DEVICE_RULE");
	} else {
		CHECK_REFUSED(iommubroker_device_open_function(vmm.guest, 1, &vmm.device,
							       &vmm.device_fd, &error),
			      &error, -EACCES, "NO_DEVICE_RULE");
	}
	end_without_device(&vmm);
}

static void run_with_rules(const char *rules, machine_child_fn function)
{
	const struct machine_options options = {.device_rules = rules};
	struct machine machine;

	check_step("%s", rules);
	machine_start(&machine, &options);
	machine_run_vmm(&machine, function, NULL);
	machine_stop(&machine);
}

void case_device_rules(void)
{
	char rules[200];

	run_with_rules("", open_without_rule);
	snprintf(rules, sizeof(rules), "[Device]\nUser=%d\nPciAddress=%s\nFunctionId=1\n",
		 STRANGER_UID, machine_pci());
	run_with_rules(rules, open_without_rule);
	snprintf(rules, sizeof(rules), "[Device]\nUser=%d\nPciAddress=%s\n", VMM_UID,
		 machine_pci());
	run_with_rules(rules, open_by_address_and_id);
	if (!machine_is_s390x())
		return;
	snprintf(rules, sizeof(rules), "[Device]\nUser=%d\nFunctionId=%#x\n", VMM_UID,
		 machine_fid());
	run_with_rules(rules, open_by_address_and_id);
}

/* ── others ────────────────────────────────────────────────────────────────────────────────── */

static void connect_in_vain(const struct machine *machine, void *user_data)
{
	struct iommubroker_session *session = NULL;
	struct iommubroker_error *error = NULL;

	(void)user_data;
	CHECK_REFUSED(iommubroker_session_open(machine->fd_sock, "stranger", &session, &error),
		      &error, -ECONNRESET, NULL);
}

void case_strangers(void)
{
	struct machine machine;

	machine_start(&machine, NULL);
	machine_join(machine_spawn(&machine, STRANGER_UID, connect_in_vain, NULL));
	machine_stop(&machine);
}
