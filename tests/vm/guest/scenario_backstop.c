/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The kernel's limit of locked memory, behind the ledger: where it is lower than what guests ask
 * for, the request is refused with that reason, and nothing has changed.
 */

#include <errno.h>
#include <string.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "dma.h"
#include "proc.h"
#include "scenario.h"
#include "vmm.h"

#define PAGE ZPCI_PAGE_BYTES
#define RW   ZPCI_LEAF_READ_WRITE

/* Guest addresses that the other cases do not use. */
#define MORE1_GPA   (20 * MIB)
#define MORE1_BYTES (4 * MIB)
#define MORE2_GPA   (26 * MIB)
#define MORE2_BYTES (4 * MIB)

static void run_with_limit(uint64_t bytes, machine_child_fn function)
{
	const struct machine_options options = {.memlock_bytes = bytes};
	struct machine machine;

	machine_start(&machine, &options);
	machine_run_vmm(&machine, function, NULL);
	machine_stop(&machine);
}

static int add(struct vmm *vmm, uint64_t gpa, uint64_t n_bytes, struct iommubroker_error **ret)
{
	return vmm_region_add(vmm, gpa, n_bytes, IOMMUBROKER_ACCESS_READ_WRITE, NULL, ret);
}

static void connect_with_memory(struct vmm *vmm, const struct machine *machine)
{
	struct iommubroker_error *error = NULL;

	check_step("starting");
	vmm_connect(vmm, machine);
	REQUIRE_DONE(add(vmm, VMM_MAIN_GPA, VMM_MAIN_BYTES, &error), &error);
	REQUIRE_DONE(add(vmm, VMM_SIDE_GPA, VMM_SIDE_BYTES, &error), &error);
}

static void start_device(struct vmm *vmm)
{
	vmm_open_device(vmm);
	vmm_bind_device(vmm);
	vmm_make_tables(vmm);
	vmm_register(vmm);
	vmm_start_engine(vmm);
	vmm_map(vmm, vmm->first + VMM_DATA_AT, VMM_DATA_GPA, 2, RW);
	CHECK(dma_lands(vmm, vmm->first + VMM_DATA_AT, VMM_DATA_GPA));
}

/* ── at bind ───────────────────────────────────────────────────────────────────────────────── */

static void bind_too_much(const struct machine *machine, void *user_data)
{
	struct iommubroker_error *error = NULL;
	struct vmm vmm = {0};

	(void)user_data;
	connect_with_memory(&vmm, machine);
	vmm_open_device(&vmm);
	check_step("12 MiB of 10");
	CHECK_REFUSED(iommubroker_device_bind(vmm.device, NULL, NULL, NULL, &error), &error,
		      -ENOMEM, "HOST_MEMLOCK");
	vmm_check_pins(&vmm);
	CHECK_EQUAL(vmm_ledger(&vmm, "devices"), 0);
	close(vmm.device_fd);
	vmm.device = iommubroker_device_free(vmm.device);
	check_step("8 MiB of 10");
	CHECK_DONE(vmm_region_remove(&vmm, VMM_SIDE_GPA, VMM_SIDE_BYTES, NULL, &error), &error);
	start_device(&vmm);
	vmm_down(&vmm);
}

void case_memlock_at_bind(void)
{
	run_with_limit(10 * MIB, bind_too_much);
}

/* ── when memory is added ──────────────────────────────────────────────────────────────────── */

static void add_too_much(const struct machine *machine, void *user_data)
{
	struct iommubroker_error *error = NULL;
	struct vmm vmm = {0};

	(void)user_data;
	connect_with_memory(&vmm, machine);
	start_device(&vmm);
	check_step("16 MiB of 14");
	CHECK_REFUSED(add(&vmm, MORE1_GPA, MORE1_BYTES, &error), &error, -ENOMEM, "HOST_MEMLOCK");
	check_step("one page more than 14 MiB");
	CHECK_REFUSED(add(&vmm, MORE1_GPA, 2 * MIB + PAGE, &error), &error, -ENOMEM,
		      "HOST_MEMLOCK");
	CHECK(dma_lands(&vmm, vmm.first + VMM_DATA_AT, VMM_DATA_GPA));
	check_step("14 MiB of 14");
	CHECK_DONE(add(&vmm, MORE1_GPA, 2 * MIB, &error), &error);
	vmm_map(&vmm, vmm.first + VMM_DATA_AT + 8 * PAGE, MORE1_GPA, 1, RW);
	CHECK(dma_lands(&vmm, vmm.first + VMM_DATA_AT + 8 * PAGE, MORE1_GPA));
	vmm_down(&vmm);
}

void case_memlock_at_update(void)
{
	run_with_limit(14 * MIB, add_too_much);
}

/* ── in the middle of an update ────────────────────────────────────────────────────────────── */

/* The side region goes, three come, of which not all fit. */
static int exchange(struct vmm *vmm, struct iommubroker_error **ret_error)
{
	const struct iommubroker_address_range unmap = {VMM_SIDE_GPA,
							VMM_SIDE_GPA + VMM_SIDE_BYTES - 1};
	const struct iommubroker_map map[] = {
		{vmm->file, VMM_ROM_GPA, VMM_ROM_GPA, VMM_ROM_BYTES, 0, IOMMUBROKER_ACCESS_READ},
		{vmm->file, MORE1_GPA, MORE1_GPA, MORE1_BYTES, 0, IOMMUBROKER_ACCESS_READ_WRITE},
		{vmm->file, MORE2_GPA, MORE2_GPA, MORE2_BYTES, 0, IOMMUBROKER_ACCESS_READ_WRITE},
	};
	const struct iommubroker_memory_update update = {1, 3, &unmap, map};

	return iommubroker_memory_update(vmm->guest, &update, NULL, NULL, NULL, ret_error);
}

static void roll_back(const struct machine *machine, void *user_data)
{
	struct iommubroker_error *error = NULL;
	struct vmm vmm = {0};
	uint64_t side;

	(void)user_data;
	connect_with_memory(&vmm, machine);
	start_device(&vmm);
	side = vmm.first + VMM_DATA_AT + 4 * PAGE;
	vmm_map(&vmm, side, VMM_SIDE_GPA, 2, RW);
	CHECK(dma_lands(&vmm, side, VMM_SIDE_GPA));
	check_step("17 MiB of 14");
	CHECK_REFUSED(exchange(&vmm, &error), &error, -ENOMEM, "HOST_MEMLOCK");
	vmm_check_pins(&vmm);
	check_step("everything is as it was");
	CHECK(dma_lands(&vmm, vmm.first + VMM_DATA_AT, VMM_DATA_GPA));
	CHECK(dma_lands(&vmm, side, VMM_SIDE_GPA));
	CHECK(dma_lands(&vmm, side + PAGE, VMM_SIDE_GPA + PAGE));
	vmm_refresh(&vmm, vmm.first, VMM_WINDOW_BYTES / PAGE, 0, 0);
	vmm_down(&vmm);
}

void case_memlock_rolls_back(void)
{
	run_with_limit(14 * MIB, roll_back);
}

/* ── lowered below what is pinned ──────────────────────────────────────────────────────────── */

static uint64_t lost_at;

static void on_event(void *user_data, int result, const struct iommubroker_event *event,
		     const struct iommubroker_error *error)
{
	unsigned int *lost = user_data;

	(void)result;
	(void)error;
	if (event == NULL || event->kind != IOMMUBROKER_EVENT_MEMORY_LOST)
		return;
	lost_at = event->gpa;
	(*lost)++;
}

static void check_lost(struct vmm *vmm)
{
	unsigned int lost = 0;
	uint64_t call;

	REQUIRE_EQUAL(iommubroker_watch_events(vmm->guest, 0, on_event, &lost, &call), 0);
	for (int i = 0; i < 2000 && lost == 0; i++) {
		REQUIRE(iommubroker_process(vmm->session) >= 0);
		usleep(1000);
	}
	CHECK_EQUAL(lost, 1);
	CHECK_EQUAL(lost_at, VMM_SIDE_GPA);
	iommubroker_cancel(vmm->session, call);
}

/* Of the daemon, which is another user's: through the supervisor. */
struct lever {
	_Atomic unsigned int want_mib, have_mib;
};

static void limit_ask(struct lever *lever, unsigned int mib)
{
	lever->want_mib = mib;
	while (lever->have_mib != mib) {
		if (check_failures() != 0)
			check_give_up();
		usleep(1000);
	}
}

static void lose_region(const struct machine *machine, void *user_data)
{
	struct lever *lever = user_data;
	struct iommubroker_error *error = NULL;
	struct vmm vmm = {0};
	uint64_t side;

	connect_with_memory(&vmm, machine);
	start_device(&vmm);
	side = vmm.first + VMM_DATA_AT + 4 * PAGE;
	vmm_map(&vmm, side, VMM_SIDE_GPA, 2, RW);
	check_step("the limit was lowered to 9 MiB");
	limit_ask(lever, 9);
	CHECK(dma_lands(&vmm, side, VMM_SIDE_GPA));
	CHECK_REFUSED(exchange(&vmm, &error), &error, -ENOMEM, "HOST_MEMLOCK");
	/* What went could not be put back: it is gone, from the ledger and for the device too. */
	vmm.mapped_bytes -= VMM_SIDE_BYTES;
	vmm_check_pins(&vmm);
	check_lost(&vmm);
	CHECK(dma_lands(&vmm, vmm.first + VMM_DATA_AT, VMM_DATA_GPA));
	CHECK(dma_is_kept_out(&vmm, side, VMM_SIDE_GPA));
	check_step("the limit was raised again");
	limit_ask(lever, 14);
	CHECK_DONE(add(&vmm, VMM_SIDE_GPA, VMM_SIDE_BYTES, &error), &error);
	CHECK(dma_lands(&vmm, side, VMM_SIDE_GPA));
	vmm_down(&vmm);
	limit_ask(lever, 1);
}

static void limit_serve(const struct machine *machine, struct lever *lever)
{
	struct rlimit limit;
	unsigned int mib = 0;

	while (mib != 1 && check_failures() == 0) {
		usleep(1000);
		mib = lever->want_mib;
		if (mib == lever->have_mib)
			continue;
		REQUIRE(prlimit(machine->daemon, RLIMIT_MEMLOCK, NULL, &limit) == 0);
		limit.rlim_cur = mib * MIB;
		REQUIRE(prlimit(machine->daemon, RLIMIT_MEMLOCK, &limit, NULL) == 0);
		lever->have_mib = mib;
	}
}

void case_memlock_shrunk(void)
{
	struct lever *lever = mmap(NULL, sizeof(*lever), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const struct machine_options options = {.memlock_bytes = 14 * MIB};
	struct machine machine;
	pid_t child;

	REQUIRE(lever != MAP_FAILED);
	machine_start(&machine, &options);
	child = machine_spawn(&machine, VMM_UID, lose_region, lever);
	limit_serve(&machine, lever);
	machine_join(child);
	machine_stop(&machine);
}
