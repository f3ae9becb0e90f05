/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A VMM is killed while its device's DMA runs. The device must be stopped before it is cut off, and
 * cut off before its pages are given back: no access of it may be refused, which the host's kernel
 * logs as a fault or an error of the function, and none may arrive in what is nobody's memory any
 * more.
 */

#include <endian.h>
#include <errno.h>
#include <linux/vfio.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "dma.h"
#include "proc.h"
#include "scenario.h"
#include "vmm.h"

#define PAGE         ZPCI_PAGE_BYTES
#define DATA_PAGES   16u
#define ROUNDS       6u
#define AFTERMATH_US 400000u /* edu's DMA begins to act 100 ms after it was asked for */

#define PCI_COMMAND        4u
#define PCI_BUS_MASTER     4u
#define NVME_CONFIGURATION 0x14u /* 0 after a reset */

static const char *const dma_trouble[] = {
	"DMAR: [DMA",
	"DMAR: DRHD: handling fault",
	"reports an error for PCI function",
	"for PCI function",
	"recover",
	NULL,
};

/* What the processes of a case share. */
struct stage {
	_Atomic unsigned int writes;
	_Atomic bool up, go_on;
	struct vmm vmm; /* of the VMM, for others to look at */
};

static struct stage *stage_new(void)
{
	struct stage *stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	REQUIRE(stage != MAP_FAILED);
	return stage;
}

static void stage_wait_writes(const struct stage *stage, unsigned int n)
{
	while (atomic_load(&stage->writes) < n) {
		if (check_failures() != 0)
			check_give_up();
		usleep(1000);
	}
}

/* Ends only on an error of the device. */
static void write_for_ever(struct vmm *vmm, struct stage *stage)
{
	for (uint64_t i = 0;; i = (i + 1) % DATA_PAGES) {
		uint64_t stamp[8] = {i, atomic_fetch_add(&stage->writes, 1), (uint64_t)getpid()};

		if (engine_write(vmm->engine, vmm->first + VMM_DATA_AT + i * PAGE, stamp,
				 sizeof(stamp)) != 0)
			return;
	}
}

/* ── killed ────────────────────────────────────────────────────────────────────────────────── */

static void be_killed(const struct machine *machine, void *user_data)
{
	struct stage *stage = user_data;
	struct vmm *vmm = &stage->vmm;

	vmm_up(vmm, machine);
	vmm_map(vmm, vmm->first + VMM_DATA_AT, VMM_DATA_GPA, DATA_PAGES, ZPCI_LEAF_READ_WRITE);
	CHECK(dma_lands(vmm, vmm->first + VMM_DATA_AT, VMM_DATA_GPA));
	write_for_ever(vmm, stage);
	CHECK(!"the device went on until the end");
}

static void kill_child(pid_t child)
{
	int status = 0;

	CHECK(kill(child, SIGKILL) == 0);
	CHECK(waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static bool are_same(const uint8_t *a, const uint8_t *b, uint64_t first, uint64_t end)
{
	return memcmp(a + first, b + first, end - first) == 0;
}

/* Nobody writes into it any more; but for the driver's own pages, if a driver is left. */
static void check_still(const uint8_t *memory, bool has_driver)
{
	const uint64_t end = VMM_WORKSPACE_GPA + (uint64_t)ENGINE_WORKSPACE_PAGES * PAGE;
	uint8_t *before = malloc(VMM_FILE_BYTES);

	REQUIRE(before != NULL);
	memcpy(before, memory, VMM_FILE_BYTES);
	usleep(AFTERMATH_US);
	CHECK(are_same(memory, before, 0, VMM_WORKSPACE_GPA));
	CHECK(has_driver || are_same(memory, before, VMM_WORKSPACE_GPA, end));
	CHECK(are_same(memory, before, end, VMM_FILE_BYTES));
	free(before);
}

static void kill_round(const struct machine *machine, unsigned int round)
{
	struct stage *stage = stage_new();
	uint64_t mark = kernel_log_mark();
	pid_t child;

	check_step("round %u", round);
	vmm_memory_new(&stage->vmm);
	child = machine_spawn(machine, VMM_UID, be_killed, stage);
	stage_wait_writes(stage, 3 + round);
	CHECK_EQUAL(proc_pinned_bytes(machine->daemon), VMM_MAPPED_BYTES);
	usleep(round * 37000 % 220000);
	kill_child(child);
	machine_check_empty(machine);
	check_still(stage->vmm.memory, false);
	CHECK_EQUAL(kernel_log_count(mark, dma_trouble, true), 0);
	munmap(stage->vmm.memory, VMM_FILE_BYTES);
	close(stage->vmm.memory_fd);
	munmap(stage, sizeof(*stage));
}

static void up_and_down(const struct machine *machine, void *user_data)
{
	struct vmm vmm = {0};

	(void)user_data;
	vmm_up(&vmm, machine);
	vmm_map(&vmm, vmm.first + VMM_DATA_AT, VMM_DATA_GPA, 1, ZPCI_LEAF_READ_WRITE);
	CHECK(dma_lands(&vmm, vmm.first + VMM_DATA_AT, VMM_DATA_GPA));
	vmm_down(&vmm);
}

void case_killed(void)
{
	struct machine machine;

	machine_start(&machine, NULL);
	for (unsigned int round = 0; round < ROUNDS; round++)
		kill_round(&machine, round);
	check_step("another VMM");
	machine_run_vmm(&machine, up_and_down, NULL);
	machine_stop(&machine);
}

/* ── killed, but somebody else holds the device ────────────────────────────────────────────── */

/* A VMM of two processes: this one owns the session, the other drives the device. */
static void own_session(const struct machine *machine, void *user_data)
{
	struct stage *stage = user_data;
	struct vmm *vmm = &stage->vmm;

	vmm_connect(vmm, machine);
	vmm_map_memory(vmm);
	vmm_open_device(vmm);
	vmm_bind_device(vmm);
	vmm_make_tables(vmm);
	tables_map(&vmm->tables, vmm->first + VMM_DATA_AT, VMM_DATA_GPA, DATA_PAGES,
		   ZPCI_LEAF_READ_WRITE);
	vmm_register(vmm);
	atomic_store(&stage->up, true);
	for (;;)
		pause();
}

/* Goes on with whatever it may after the other was killed, but does not start the device anew. */
static void drive_device(const struct machine *machine, void *user_data)
{
	struct stage *stage = user_data;
	struct vmm vmm = stage->vmm;

	(void)machine;
	vmm_start_engine(&vmm);
	write_for_ever(&vmm, stage);
	while (atomic_load(&stage->go_on))
		usleep(1000);
}

static int take_descriptor(pid_t from, int number)
{
	int pidfd = (int)syscall(SYS_pidfd_open, from, 0);
	int fd = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);

	close(pidfd);
	REQUIRE(fd >= 0);
	return fd;
}

/* A word of the device's configuration space or registers, through a descriptor that is left. */
static uint32_t device_word(int fd, unsigned int region, unsigned int at)
{
	struct vfio_region_info info = {.argsz = sizeof(info), .index = region};
	uint32_t word = UINT32_MAX;

	REQUIRE(ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &info) == 0);
	REQUIRE(pread(fd, &word, sizeof(word), (off_t)(info.offset + at)) == sizeof(word));
	return le32toh(word);
}

/* An emulated function whose anchor is gone has its accesses refused in silence, so that the log
 * alone does not tell whether it was stopped before. edu knows no reset. */
static void check_stopped(int fd)
{
	CHECK_EQUAL(device_word(fd, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND) & PCI_BUS_MASTER, 0);
	if (machine_is_s390x())
		CHECK_EQUAL(device_word(fd, VFIO_PCI_BAR0_REGION_INDEX, NVME_CONFIGURATION), 0);
}

static pid_t spawn_driver(const struct machine *machine, struct stage *stage, pid_t owner)
{
	int theirs;

	while (!atomic_load(&stage->up)) {
		if (check_failures() != 0)
			check_give_up();
		usleep(1000);
	}
	theirs = stage->vmm.device_fd;
	stage->vmm.device_fd = take_descriptor(owner, theirs);
	atomic_store(&stage->go_on, true);
	return machine_spawn(machine, VMM_UID, drive_device, stage);
}

/* The device is open in a process that is left: it can be opened, but not bound. */
static void bind_in_vain(const struct machine *machine, void *user_data)
{
	struct iommubroker_error *error = NULL;
	bool still_held = false;
	struct vmm vmm = {0};

	(void)user_data;
	vmm_connect(&vmm, machine);
	vmm_map_memory(&vmm);
	vmm_open_device(&vmm);
	CHECK_REFUSED(iommubroker_device_bind(vmm.device, NULL, NULL, NULL, &error), &error, -EBUSY,
		      "DEVICE_IN_USE");
	vmm_check_pins(&vmm);
	close(vmm.device_fd);
	CHECK_DONE(iommubroker_device_close(vmm.device, &still_held, &error), &error);
	CHECK(still_held);
	iommubroker_device_free(vmm.device);
	iommubroker_memory_file_free(vmm.file);
	iommubroker_guest_free(vmm.guest);
	iommubroker_session_free(vmm.session);
}

void case_killed_but_device_held(void)
{
	struct stage *stage = stage_new();
	struct machine machine;
	pid_t owner, driver;
	uint64_t mark;

	machine_start(&machine, NULL);
	vmm_memory_new(&stage->vmm);
	owner = machine_spawn(&machine, VMM_UID, own_session, stage);
	driver = spawn_driver(&machine, stage, owner);
	stage_wait_writes(stage, 10);
	mark = kernel_log_mark();
	CHECK(device_word(stage->vmm.device_fd, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND) &
	      PCI_BUS_MASTER);
	check_step("the session's owner was killed");
	kill_child(owner);
	machine_check_empty(&machine);
	check_still(stage->vmm.memory, true);
	CHECK_EQUAL(kernel_log_count(mark, dma_trouble, true), 0);
	check_stopped(stage->vmm.device_fd);
	close(stage->vmm.device_fd);
	check_step("the device is still held");
	machine_run_vmm(&machine, bind_in_vain, NULL);
	machine_check_empty(&machine);
	check_step("another VMM");
	kill_child(driver);
	machine_run_vmm(&machine, up_and_down, NULL);
	machine_stop(&machine);
}
