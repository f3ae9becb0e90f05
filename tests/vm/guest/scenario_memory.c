/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Guest memory that goes and comes back under live mappings, and attachments without tables. */

#include <errno.h>

#include "check.h"
#include "dma.h"
#include "scenario.h"
#include "vmm.h"

#define PAGE ZPCI_PAGE_BYTES
#define RW   ZPCI_LEAF_READ_WRITE

static void run(machine_child_fn function)
{
	struct machine machine;

	machine_start(&machine, NULL);
	machine_run_vmm(&machine, function, NULL);
	machine_stop(&machine);
}

static void remove_side(struct vmm *vmm, uint64_t want_dropped)
{
	struct iommubroker_memory_change change = {0};
	struct iommubroker_error *error = NULL;

	REQUIRE_DONE(vmm_region_remove(vmm, VMM_SIDE_GPA, VMM_SIDE_BYTES, &change, &error), &error);
	CHECK_EQUAL(change.leaves_dropped, want_dropped);
	CHECK_EQUAL(change.region_bytes, vmm->mapped_bytes);
}

static void add_side(struct vmm *vmm, uint64_t want_restored)
{
	struct iommubroker_memory_change change = {0};
	struct iommubroker_error *error = NULL;

	REQUIRE_DONE(vmm_region_add(vmm, VMM_SIDE_GPA, VMM_SIDE_BYTES,
				    IOMMUBROKER_ACCESS_READ_WRITE, &change, &error),
		     &error);
	CHECK_EQUAL(change.leaves_restored, want_restored);
	CHECK(change.pinned);
}

/* ── regions under a nested domain ─────────────────────────────────────────────────────────── */

static void do_region_removal(const struct machine *machine, void *user_data)
{
	struct vmm vmm = {0};
	uint64_t iova;

	(void)user_data;
	vmm_up(&vmm, machine);
	iova = vmm.first + VMM_DATA_AT;
	vmm_map(&vmm, iova, VMM_DATA_GPA, 2, RW);
	vmm_map(&vmm, iova + 2 * PAGE, VMM_SIDE_GPA + PAGE, 3, RW);
	vmm_map(&vmm, iova + 5 * PAGE, VMM_DATA_GPA + 5 * PAGE, 2, RW);
	CHECK(dma_lands(&vmm, iova + 3 * PAGE, VMM_SIDE_GPA + 2 * PAGE));
	check_step("region removed");
	remove_side(&vmm, 3);
	CHECK(dma_lands(&vmm, iova + PAGE, VMM_DATA_GPA + PAGE));
	CHECK(dma_lands(&vmm, iova + 5 * PAGE, VMM_DATA_GPA + 5 * PAGE));
	CHECK(dma_is_kept_out(&vmm, iova + 3 * PAGE, VMM_SIDE_GPA + 2 * PAGE));
	check_step("a refresh does not bring it back");
	vmm_refresh(&vmm, iova, 7, 0, 0);
	CHECK(dma_is_kept_out(&vmm, iova + 2 * PAGE, VMM_SIDE_GPA + PAGE));
	CHECK(dma_lands(&vmm, iova + PAGE, VMM_DATA_GPA + PAGE));
	check_step("region back");
	add_side(&vmm, 3);
	for (uint64_t i = 0; i < 3; i++)
		CHECK(dma_lands(&vmm, iova + (2 + i) * PAGE, VMM_SIDE_GPA + (1 + i) * PAGE));
	CHECK(dma_lands(&vmm, iova + 6 * PAGE, VMM_DATA_GPA + 6 * PAGE));
	vmm_down(&vmm);
}

void case_region_removal(void)
{
	run(do_region_removal);
}

/* ── without tables ────────────────────────────────────────────────────────────────────────── */

static void attach(struct vmm *vmm, uint32_t attachment)
{
	struct iommubroker_error *error = NULL;

	REQUIRE_DONE(iommubroker_device_attach(
			     vmm->device, attachment,
			     attachment == IOMMUBROKER_ATTACHMENT_NESTED ? vmm->nested : NULL, NULL,
			     &error),
		     &error);
	vmm_check_pins(vmm);
}

/* The driver's pages are elsewhere now. */
static void restart_engine_at(struct vmm *vmm, uint64_t workspace_iova)
{
	const struct engine_workspace workspace = {
		.iova = workspace_iova,
		.host = vmm->memory + VMM_WORKSPACE_GPA,
	};

	vmm->engine = engine_close(vmm->engine);
	REQUIRE_EQUAL(engine_open(&vmm->engine, vmm->device_fd, &workspace), 0);
	REQUIRE_EQUAL(engine_start(vmm->engine), 0);
}

/* How a function that failed gets going again without tables. */
struct direct {
	struct vmm *vmm;
	uint64_t base; /* IOVA of guest address 0 */
	void (*again)(struct vmm *vmm);
};

static bool direct_lands(const struct direct *direct, uint64_t gpa)
{
	return dma_lands(direct->vmm, direct->base + gpa, gpa);
}

static bool direct_is_kept_out(const struct direct *direct, uint64_t gpa)
{
	struct vmm *vmm = direct->vmm;
	bool landed = dma_lands(vmm, direct->base + gpa, gpa);

	if (!machine_is_s390x())
		return !landed;
	CHECK(errno != 0);
	REQUIRE_EQUAL(engine_reset(vmm->engine), 0);
	direct->again(vmm);
	REQUIRE_EQUAL(engine_start(vmm->engine), 0);
	return !landed;
}

static void check_direct(const struct direct *direct)
{
	struct vmm *vmm = direct->vmm;

	restart_engine_at(vmm, direct->base + VMM_WORKSPACE_GPA);
	CHECK(direct_lands(direct, VMM_DATA_GPA));
	CHECK(direct_lands(direct, VMM_SIDE_GPA + VMM_SIDE_BYTES - PAGE));
	CHECK(dma_reads(vmm, direct->base + VMM_ROM_GPA, VMM_ROM_GPA));
	CHECK(direct_is_kept_out(direct, VMM_ROM_GPA));
	CHECK(direct_is_kept_out(direct, VMM_MAIN_BYTES));
	remove_side(vmm, 0);
	CHECK(direct_is_kept_out(direct, VMM_SIDE_GPA));
	CHECK(direct_lands(direct, VMM_DATA_GPA));
	add_side(vmm, 0);
	CHECK(direct_lands(direct, VMM_SIDE_GPA));
}

static void relaxed_again(struct vmm *vmm)
{
	attach(vmm, IOMMUBROKER_ATTACHMENT_BLOCKED);
	attach(vmm, IOMMUBROKER_ATTACHMENT_RELAXED);
}

static void back_to_tables(struct vmm *vmm)
{
	attach(vmm, IOMMUBROKER_ATTACHMENT_NESTED);
	restart_engine_at(vmm, vmm->first + VMM_WORKSPACE_AT);
	CHECK(dma_lands(vmm, vmm->first + VMM_DATA_AT, VMM_DATA_GPA + PAGE));
}

static void do_relaxed(const struct machine *machine, void *user_data)
{
	struct vmm vmm = {0};
	struct direct direct = {.vmm = &vmm, .again = relaxed_again};

	(void)user_data;
	vmm_up(&vmm, machine);
	vmm_map(&vmm, vmm.first + VMM_DATA_AT, VMM_DATA_GPA + PAGE, 1, RW);
	check_step("relaxed");
	direct.base = vmm.dma_first;
	attach(&vmm, IOMMUBROKER_ATTACHMENT_RELAXED);
	check_direct(&direct);
	check_step("tables again");
	back_to_tables(&vmm);
	vmm_down(&vmm);
}

void case_relaxed(void)
{
	run(do_relaxed);
}

/* The guest registers an anchor without tables. */
static void register_relaxed(struct vmm *vmm)
{
	const struct iommubroker_anchor anchor = {
		.iota = 0,
		.pba = vmm->dma_first,
		.pal = vmm->dma_first + VMM_FILE_BYTES - 1,
	};
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;

	REQUIRE_DONE(iommubroker_nested_create_s390(vmm->device, &anchor, true, 0, &vmm->nested,
						    &registration, &error),
		     &error);
	REQUIRE_EQUAL(registration.verdict, IOMMUBROKER_VERDICT_DONE);
	vmm_check_pins(vmm);
}

static void anchor_again(struct vmm *vmm)
{
	vmm_deregister(vmm);
	register_relaxed(vmm);
}

static void do_relaxed_anchor(const struct machine *machine, void *user_data)
{
	struct vmm vmm = {0};
	struct direct direct = {.vmm = &vmm, .again = anchor_again};

	(void)user_data;
	vmm_up(&vmm, machine);
	vmm_deregister(&vmm);
	check_step("relaxed anchor");
	direct.base = vmm.dma_first;
	register_relaxed(&vmm);
	check_direct(&direct);
	vmm_down(&vmm);
}

void case_relaxed_anchor(void)
{
	run(do_relaxed_anchor);
}

static void parent_again(struct vmm *vmm)
{
	attach(vmm, IOMMUBROKER_ATTACHMENT_PARENT);
}

/* Guest memory lies below a zPCI function's start of DMA: it can never have the parent. */
static void check_parent(struct vmm *vmm)
{
	const struct direct direct = {.vmm = vmm, .again = parent_again};
	struct iommubroker_error *error = NULL;

	check_step("parent");
	if (machine_is_s390x()) {
		CHECK_REFUSED(iommubroker_device_attach(vmm->device, IOMMUBROKER_ATTACHMENT_PARENT,
							NULL, NULL, &error),
			      &error, -EBUSY, "RESERVED_ADDRESSES");
		return;
	}
	attach(vmm, IOMMUBROKER_ATTACHMENT_PARENT);
	check_direct(&direct);
}

static void check_blocked(struct vmm *vmm)
{
	const uint64_t page = vmm->first + VMM_DATA_AT;

	check_step("blocked");
	attach(vmm, IOMMUBROKER_ATTACHMENT_BLOCKED);
	CHECK(!dma_lands(vmm, page, VMM_DATA_GPA + PAGE));
	CHECK(!dma_lands(vmm, VMM_DATA_GPA, VMM_DATA_GPA));
	if (machine_is_s390x())
		CHECK_EQUAL(engine_reset(vmm->engine), 0);
}

static void do_parent_and_blocked(const struct machine *machine, void *user_data)
{
	struct vmm vmm = {0};

	(void)user_data;
	vmm_up(&vmm, machine);
	vmm_map(&vmm, vmm.first + VMM_DATA_AT, VMM_DATA_GPA + PAGE, 1, RW);
	check_parent(&vmm);
	check_blocked(&vmm);
	check_step("tables again");
	back_to_tables(&vmm);
	vmm_down(&vmm);
}

void case_parent_and_blocked(void)
{
	run(do_parent_and_blocked);
}
