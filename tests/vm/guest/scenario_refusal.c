/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is refused, and that a refusal changes nothing. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "dma.h"
#include "scenario.h"
#include "vmm.h"

#define PAGE ZPCI_PAGE_BYTES

/* ── the device of another guest ───────────────────────────────────────────────────────────── */

static void want_the_same(const struct machine *machine, void *user_data)
{
	struct iommubroker_error *error = NULL;
	struct vmm vmm = {0};
	bool held = false;

	(void)user_data;
	check_step("the second guest");
	vmm_memory_new(&vmm);
	vmm.others_bytes = VMM_MAPPED_BYTES;
	vmm_connect(&vmm, machine);
	CHECK_DONE(iommubroker_device_open_pci(vmm.guest, machine_pci(), &vmm.device,
					       &vmm.device_fd, &error),
		   &error);
	CHECK_REFUSED(iommubroker_device_bind(vmm.device, NULL, NULL, NULL, &error), &error, -EBUSY,
		      "DEVICE_IN_USE");
	vmm_check_pins(&vmm);
	close(vmm.device_fd);
	CHECK_DONE(iommubroker_device_close(vmm.device, &held, &error), &error);
	CHECK_DONE(iommubroker_guest_destroy(vmm.guest, &error), &error);
	iommubroker_device_free(vmm.device);
	iommubroker_memory_file_free(vmm.file);
	iommubroker_guest_free(vmm.guest);
	iommubroker_session_free(vmm.session);
}

struct two {
	_Atomic bool up, seen;
};

static void have_it(const struct machine *machine, void *user_data)
{
	struct two *two = user_data;
	struct vmm vmm = {0};
	uint64_t iova;

	vmm_up(&vmm, machine);
	iova = vmm.first + VMM_DATA_AT;
	vmm_map(&vmm, iova, VMM_DATA_GPA, 1, ZPCI_LEAF_READ_WRITE);
	atomic_store(&two->up, true);
	check_step("the first guest");
	do
		CHECK(dma_lands(&vmm, iova, VMM_DATA_GPA));
	while (!atomic_load(&two->seen) && check_failures() == 0);
	CHECK(dma_lands(&vmm, iova, VMM_DATA_GPA));
	vmm_down(&vmm);
}

void case_device_of_another(void)
{
	struct two *two =
		mmap(NULL, sizeof(*two), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct machine machine;
	pid_t first;

	REQUIRE(two != MAP_FAILED);
	machine_start(&machine, NULL);
	first = machine_spawn(&machine, VMM_UID, have_it, two);
	while (!atomic_load(&two->up) && check_failures() == 0)
		usleep(1000);
	machine_run_vmm(&machine, want_the_same, NULL);
	atomic_store(&two->seen, true);
	machine_join(first);
	machine_stop(&machine);
}

/* ── at no VFIO driver ─────────────────────────────────────────────────────────────────────── */

static void driver_tell(const char *file)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/vfio-pci/%s", file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	REQUIRE(fd >= 0);
	REQUIRE(write(fd, machine_pci(), strlen(machine_pci())) > 0);
	close(fd);
}

/* What udev does for the operator. */
static void nodes_give(void)
{
	DIR *folder = opendir("/dev/vfio/devices");
	struct dirent *entry;

	REQUIRE(folder != NULL);
	while ((entry = readdir(folder)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		REQUIRE(fchownat(dirfd(folder), entry->d_name, 0, DAEMON_UID, 0) == 0);
		REQUIRE(fchmodat(dirfd(folder), entry->d_name, 0660, 0) == 0);
	}
	closedir(folder);
}

static void want_it(const struct machine *machine, void *user_data)
{
	const bool *there = user_data;
	struct iommubroker_error *error = NULL;
	struct vmm vmm = {0};

	vmm_connect(&vmm, machine);
	if (*there) {
		vmm_open_device(&vmm);
		vmm_down(&vmm);
		return;
	}
	CHECK_REFUSED(iommubroker_device_open_pci(vmm.guest, machine_pci(), &vmm.device,
						  &vmm.device_fd, &error),
		      &error, -ENOENT, "NOT_FOUND");
	CHECK_EQUAL(vmm_ledger(&vmm, "devices"), 0);
}

void case_device_at_no_vfio_driver(void)
{
	struct machine machine;
	bool there = false;

	machine_start(&machine, NULL);
	driver_tell("unbind");
	check_step("without driver");
	machine_run_vmm(&machine, want_it, &there);
	driver_tell("bind");
	nodes_give();
	there = true;
	check_step("with driver");
	machine_run_vmm(&machine, want_it, &there);
	machine_stop(&machine);
}

/* ── quota ─────────────────────────────────────────────────────────────────────────────────── */

/* One page more than the quota, with all numbers in the answer. */
static void check_one_more(struct vmm *vmm)
{
	struct iommubroker_error *error = NULL;
	int r = vmm_region_add(vmm, VMM_ROM_GPA, PAGE, IOMMUBROKER_ACCESS_READ, NULL, &error);

	if (r < 0) {
		CHECK(strcmp(iommubroker_error_resource(error), "pinned_bytes") == 0);
		CHECK_EQUAL(iommubroker_error_limit(error), VMM_MAIN_BYTES + VMM_SIDE_BYTES);
		CHECK_EQUAL(iommubroker_error_used(error), VMM_MAIN_BYTES + VMM_SIDE_BYTES);
		CHECK_EQUAL(iommubroker_error_requested(error), PAGE);
		CHECK(strlen(iommubroker_error_rule(error)) > 0);
	}
	CHECK_REFUSED(r, &error, -EDQUOT, NULL);
}

static void fill_quota(const struct machine *machine, void *user_data)
{
	struct iommubroker_error *error = NULL;
	struct vmm vmm = {0};

	(void)user_data;
	vmm_connect(&vmm, machine);
	REQUIRE_DONE(vmm_region_add(&vmm, VMM_MAIN_GPA, VMM_MAIN_BYTES,
				    IOMMUBROKER_ACCESS_READ_WRITE, NULL, &error),
		     &error);
	REQUIRE_DONE(vmm_region_add(&vmm, VMM_SIDE_GPA, VMM_SIDE_BYTES,
				    IOMMUBROKER_ACCESS_READ_WRITE, NULL, &error),
		     &error);
	check_step("one more before the device");
	check_one_more(&vmm);
	vmm_open_device(&vmm);
	vmm_bind_device(&vmm);
	check_step("one more with the device");
	check_one_more(&vmm);
	check_step("instead of another");
	CHECK_DONE(vmm_region_remove(&vmm, VMM_SIDE_GPA, VMM_SIDE_BYTES, NULL, &error), &error);
	CHECK_DONE(vmm_region_add(&vmm, VMM_ROM_GPA, VMM_ROM_BYTES, IOMMUBROKER_ACCESS_READ, NULL,
				  &error),
		   &error);
	vmm_make_tables(&vmm);
	vmm_register(&vmm);
	vmm_start_engine(&vmm);
	vmm_map(&vmm, vmm.first + VMM_DATA_AT, VMM_DATA_GPA, 1, ZPCI_LEAF_READ_WRITE);
	CHECK(dma_lands(&vmm, vmm.first + VMM_DATA_AT, VMM_DATA_GPA));
	vmm_down(&vmm);
}

void case_quota(void)
{
	const struct machine_options options = {
		.settings = "[Limits]\nPinnedMemoryPerGuestMax=12M\n",
	};
	struct machine machine;

	machine_start(&machine, &options);
	machine_run_vmm(&machine, fill_quota, NULL);
	machine_stop(&machine);
}
