/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Translation, with DMA as the judge. */

#include <string.h>

#include "check.h"
#include "dma.h"
#include "proc.h"
#include "scenario.h"
#include "vmm.h"

#define PAGE ZPCI_PAGE_BYTES
#define RW   ZPCI_LEAF_READ_WRITE
#define RO   ZPCI_LEAF_READ

static void run(machine_child_fn function)
{
	struct machine machine;

	machine_start(&machine, NULL);
	machine_run_vmm(&machine, function, NULL);
	machine_stop(&machine);
}

static uint64_t data_iova(const struct vmm *vmm, uint64_t page)
{
	return vmm->first + VMM_DATA_AT + page * PAGE;
}

static uint64_t data_gpa(uint64_t page)
{
	return VMM_DATA_GPA + page * PAGE;
}

/* ── the main job ──────────────────────────────────────────────────────────────────────────── */

/* Nothing else of guest memory changed. */
static void check_only_page_changed(struct vmm *vmm, uint64_t iova, uint64_t gpa)
{
	static uint8_t before[VMM_MAIN_BYTES];

	memcpy(before, vmm->memory, sizeof(before));
	CHECK(dma_lands(vmm, iova, gpa));
	/* The workspace is the device's driver's own. */
	memcpy(before + VMM_WORKSPACE_GPA, vmm->memory + VMM_WORKSPACE_GPA,
	       (size_t)ENGINE_WORKSPACE_PAGES * PAGE);
	CHECK(memcmp(before + gpa, vmm->memory + gpa, PAGE) != 0);
	memcpy(before + gpa, vmm->memory + gpa, PAGE);
	CHECK(memcmp(before, vmm->memory, sizeof(before)) == 0);
}

static void do_main_job(const struct machine *machine, void *user_data)
{
	struct vmm vmm = {0};

	(void)user_data;
	vmm_up(&vmm, machine);
	check_step("a page");
	vmm_map(&vmm, data_iova(&vmm, 0), data_gpa(3), 1, RW);
	check_only_page_changed(&vmm, data_iova(&vmm, 0), data_gpa(3));
	CHECK(dma_reads(&vmm, data_iova(&vmm, 0), data_gpa(3)));
	check_step("the same again");
	vmm_refresh(&vmm, data_iova(&vmm, 0), 1, 0, 0);
	vmm_refresh(&vmm, vmm.first, VMM_WINDOW_BYTES / PAGE, 0, 0);
	CHECK(dma_lands(&vmm, data_iova(&vmm, 0), data_gpa(3)));
	check_step("another frame");
	tables_map(&vmm.tables, data_iova(&vmm, 0), data_gpa(9), 1, RW);
	vmm_refresh(&vmm, data_iova(&vmm, 0), 1, 1, 0);
	check_only_page_changed(&vmm, data_iova(&vmm, 0), data_gpa(9));
	check_step("an unmap that was not refreshed");
	tables_unmap(&vmm.tables, data_iova(&vmm, 0), 1);
	CHECK(dma_lands(&vmm, data_iova(&vmm, 0), data_gpa(9)));
	check_step("an unmap");
	vmm_refresh(&vmm, data_iova(&vmm, 0), 1, 0, 1);
	CHECK(dma_is_kept_out(&vmm, data_iova(&vmm, 0), data_gpa(9)));
	check_step("mapped again");
	vmm_map(&vmm, data_iova(&vmm, 0), data_gpa(9), 1, RW);
	CHECK(dma_lands(&vmm, data_iova(&vmm, 0), data_gpa(9)));
	vmm_down(&vmm);
}

/* What a device's blocked access looks like in the kernel's log. */
static const char *const dma_fault[] = {"DMAR: [DMA", "reports an error for PCI function", NULL};

void case_main_job(void)
{
	struct machine machine;

	machine_start(&machine, NULL);
	machine_run_vmm(&machine, do_main_job, NULL);
	machine_check_empty(&machine);
	check_step("the access that was kept out");
	CHECK(kernel_log_count(machine.log_mark, dma_fault, false) > 0);
	check_step("a second guest");
	machine_run_vmm(&machine, do_main_job, NULL);
	machine_stop(&machine);
}

/* ── read-only ─────────────────────────────────────────────────────────────────────────────── */

static void check_read_only(struct vmm *vmm, uint64_t page)
{
	CHECK(dma_reads(vmm, data_iova(vmm, page), data_gpa(page)));
	CHECK(dma_is_kept_out(vmm, data_iova(vmm, page), data_gpa(page)));
	CHECK(dma_reads(vmm, data_iova(vmm, page), data_gpa(page)));
}

static void check_installed(struct vmm *vmm, uint64_t page, uint32_t access)
{
	struct iommubroker_explanation *explanation = NULL;
	struct iommubroker_error *error = NULL;

	REQUIRE_DONE(iommubroker_explain(vmm->nested, data_iova(vmm, page), &explanation, &error),
		     &error);
	CHECK(explanation->installed);
	CHECK(explanation->consistent);
	CHECK_EQUAL(explanation->installed_access, access);
	CHECK_EQUAL(explanation->installed_gpa, data_gpa(page));
	iommubroker_explanation_free(explanation);
}

static void do_read_only(const struct machine *machine, void *user_data)
{
	const uint64_t whole = VMM_WINDOW_BYTES / PAGE, all = 4 + ENGINE_WORKSPACE_PAGES;
	struct vmm vmm = {0};

	(void)user_data;
	vmm_up(&vmm, machine);
	check_step("protected leaf");
	vmm_map(&vmm, data_iova(&vmm, 0), data_gpa(0), 2, RO);
	vmm_map(&vmm, data_iova(&vmm, 2), data_gpa(2), 2, RW);
	check_read_only(&vmm, 0);
	CHECK(dma_lands(&vmm, data_iova(&vmm, 2), data_gpa(2)));
	check_step("protection taken from a leaf");
	tables_protect(&vmm.tables, TABLES_PAGE, data_iova(&vmm, 1), false);
	vmm_refresh(&vmm, data_iova(&vmm, 0), 4, 1, 0);
	CHECK(dma_lands(&vmm, data_iova(&vmm, 1), data_gpa(1)));
	check_read_only(&vmm, 0);
	check_step("protected segment");
	tables_protect(&vmm.tables, TABLES_SEGMENT, data_iova(&vmm, 0), true);
	vmm_refresh(&vmm, data_iova(&vmm, 0), 256, 3, 0);
	check_read_only(&vmm, 1);
	check_read_only(&vmm, 3);
	tables_protect(&vmm.tables, TABLES_SEGMENT, data_iova(&vmm, 0), false);
	vmm_refresh(&vmm, data_iova(&vmm, 0), 256, 3, 0);
	CHECK(dma_lands(&vmm, data_iova(&vmm, 3), data_gpa(3)));
	/* The driver's own pages are under that entry too: no DMA meanwhile. */
	check_step("protected region");
	tables_protect(&vmm.tables, TABLES_REGION, data_iova(&vmm, 0), true);
	vmm_refresh(&vmm, vmm.first, whole, all - 1, 0);
	check_installed(&vmm, 3, IOMMUBROKER_ACCESS_READ);
	tables_protect(&vmm.tables, TABLES_REGION, data_iova(&vmm, 0), false);
	vmm_refresh(&vmm, vmm.first, whole, all - 1, 0);
	check_installed(&vmm, 3, IOMMUBROKER_ACCESS_READ_WRITE);
	CHECK(dma_lands(&vmm, data_iova(&vmm, 3), data_gpa(3)));
	vmm_down(&vmm);
}

void case_read_only(void)
{
	run(do_read_only);
}

/* Guest memory that was mapped for reading: what the tables allow does not count. */
static void do_read_only_memory(const struct machine *machine, void *user_data)
{
	struct vmm vmm = {0};
	uint64_t iova;

	(void)user_data;
	vmm_up(&vmm, machine);
	iova = data_iova(&vmm, 0);
	check_step("read-only leaf over read-only memory");
	vmm_map(&vmm, iova, VMM_ROM_GPA, 1, RO);
	CHECK(dma_reads(&vmm, iova, VMM_ROM_GPA));
	CHECK(dma_is_kept_out(&vmm, iova, VMM_ROM_GPA));
	check_step("writable leaf over read-only memory");
	tables_map(&vmm.tables, iova + PAGE, VMM_ROM_GPA + PAGE, 1, RW);
	vmm_refresh(&vmm, iova, 2, 0, 0);
	CHECK(dma_is_kept_out(&vmm, iova + PAGE, VMM_ROM_GPA + PAGE));
	check_step("leaf over no memory");
	tables_map(&vmm.tables, iova + PAGE, VMM_SIDE_GPA + VMM_SIDE_BYTES, 1, RW);
	vmm_refresh(&vmm, iova, 2, 0, 0);
	CHECK(dma_is_kept_out(&vmm, iova + PAGE, VMM_SIDE_GPA + VMM_SIDE_BYTES));
	CHECK(dma_reads(&vmm, iova, VMM_ROM_GPA));
	vmm_down(&vmm);
}

void case_read_only_memory(void)
{
	run(do_read_only_memory);
}

/* ── other tables ──────────────────────────────────────────────────────────────────────────── */

static uint32_t replace(struct vmm *vmm, const struct tables *tables, uint64_t pba)
{
	const struct iommubroker_anchor anchor = {
		.iota = tables_iota(tables),
		.pba = pba,
		.pal = vmm->last,
	};
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;

	REQUIRE_DONE(iommubroker_nested_replace(vmm->nested, &anchor, &registration, &error),
		     &error);
	vmm_check_pins(vmm);
	return registration.verdict;
}

/* Pages 0 and 1 as before, 2 gone, 3 elsewhere, 4 new. */
static void make_other_tables(struct vmm *vmm, struct tables *other)
{
	tables_init(other, vmm->memory + VMM_TABLES2_GPA, VMM_TABLES2_GPA, VMM_TABLES_BYTES);
	tables_map(other, vmm->first + VMM_WORKSPACE_AT, VMM_WORKSPACE_GPA, ENGINE_WORKSPACE_PAGES,
		   RW);
	tables_map(other, data_iova(vmm, 0), data_gpa(0), 2, RW);
	tables_map(other, data_iova(vmm, 3), data_gpa(13), 1, RW);
	tables_map(other, data_iova(vmm, 4), data_gpa(4), 1, RW);
}

static void do_replace(const struct machine *machine, void *user_data)
{
	struct tables other;
	struct vmm vmm = {0};

	(void)user_data;
	vmm_up(&vmm, machine);
	vmm_map(&vmm, data_iova(&vmm, 0), data_gpa(0), 4, RW);
	make_other_tables(&vmm, &other);
	CHECK(dma_lands(&vmm, data_iova(&vmm, 3), data_gpa(3)));
	check_step("an anchor that is not valid");
	CHECK_EQUAL(replace(&vmm, &other, vmm.last + 1), IOMMUBROKER_VERDICT_OPERAND);
	CHECK(dma_lands_around(&vmm, data_iova(&vmm, 0), data_gpa(0), 4, 0, 0));
	check_step("other tables");
	REQUIRE_EQUAL(replace(&vmm, &other, vmm.first), IOMMUBROKER_VERDICT_DONE);
	vmm.tables = other;
	CHECK(dma_lands_around(&vmm, data_iova(&vmm, 0), data_gpa(0), 2, 0, 0));
	CHECK(dma_lands(&vmm, data_iova(&vmm, 3), data_gpa(13)));
	CHECK(dma_lands(&vmm, data_iova(&vmm, 4), data_gpa(4)));
	CHECK(dma_is_kept_out(&vmm, data_iova(&vmm, 2), data_gpa(2)));
	check_step("the old tables are nobody's");
	memset(vmm.memory + VMM_TABLES_GPA, 0xff, VMM_TABLES_BYTES);
	vmm_refresh(&vmm, vmm.first, VMM_WINDOW_BYTES / PAGE, 0, 0);
	CHECK(dma_lands(&vmm, data_iova(&vmm, 3), data_gpa(13)));
	vmm_down(&vmm);
}

void case_replace(void)
{
	run(do_replace);
}

/* ── aliases ───────────────────────────────────────────────────────────────────────────────── */

#define ALIASES 400u

static uint64_t live_leaves(struct vmm *vmm)
{
	struct iommubroker_guest_info *info = NULL;
	struct iommubroker_error *error = NULL;
	uint64_t leaves;

	REQUIRE_DONE(iommubroker_guest_describe(vmm->guest, &info, &error), &error);
	REQUIRE_EQUAL(info->n_nested, 1);
	leaves = info->nested[0].live_leaves;
	iommubroker_guest_info_free(info);
	return leaves;
}

/* As a lazy guest leaves them: one frame at many IOVAs. */
static void do_aliases(const struct machine *machine, void *user_data)
{
	struct vmm vmm = {0};

	(void)user_data;
	vmm_up(&vmm, machine);
	check_step("a frame at %u addresses", ALIASES);
	for (uint64_t i = 0; i < ALIASES; i++)
		tables_map(&vmm.tables, data_iova(&vmm, i), data_gpa(5), 1, RW);
	vmm_refresh(&vmm, data_iova(&vmm, 0), ALIASES, ALIASES, 0);
	CHECK_EQUAL(live_leaves(&vmm), ALIASES + ENGINE_WORKSPACE_PAGES);
	for (uint64_t i = 0; i < ALIASES; i += 57)
		CHECK(dma_lands(&vmm, data_iova(&vmm, i), data_gpa(5)));
	check_step("every other one unmapped");
	for (uint64_t i = 0; i < ALIASES; i += 2)
		tables_unmap(&vmm.tables, data_iova(&vmm, i), 1);
	vmm_refresh(&vmm, data_iova(&vmm, 0), ALIASES, 0, ALIASES / 2);
	CHECK_EQUAL(live_leaves(&vmm), ALIASES / 2 + ENGINE_WORKSPACE_PAGES);
	for (uint64_t i = 1; i < ALIASES; i += 58)
		CHECK(dma_lands(&vmm, data_iova(&vmm, i), data_gpa(5)));
	CHECK(dma_is_kept_out(&vmm, data_iova(&vmm, ALIASES / 2), data_gpa(5)));
	check_step("all unmapped");
	tables_unmap(&vmm.tables, data_iova(&vmm, 0), ALIASES);
	vmm_refresh(&vmm, vmm.first, VMM_WINDOW_BYTES / PAGE, 0, ALIASES / 2);
	CHECK(dma_is_kept_out(&vmm, data_iova(&vmm, 1), data_gpa(5)));
	vmm_down(&vmm);
}

void case_aliases(void)
{
	run(do_aliases);
}
