/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See vmm.h. */

#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "proc.h"

#define REFRESH_NS    UINT64_C(20000000000) /* of an emulated machine */
#define RECOVER_TRIES 4

void vmm_memory_new(struct vmm *vmm)
{
	*vmm = (struct vmm){.device_fd = -1};
	vmm->memory_fd = memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	REQUIRE(vmm->memory_fd >= 0);
	REQUIRE(ftruncate(vmm->memory_fd, (off_t)VMM_FILE_BYTES) == 0);
	REQUIRE(fallocate(vmm->memory_fd, 0, 0, (off_t)VMM_FILE_BYTES) == 0);
	REQUIRE(fcntl(vmm->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
	vmm->memory =
		mmap(NULL, VMM_FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vmm->memory_fd, 0);
	REQUIRE(vmm->memory != MAP_FAILED);
}

/* ── the ledger and the kernel's count ─────────────────────────────────────────────────────── */

uint64_t vmm_ledger(struct vmm *vmm, const char *resource)
{
	struct iommubroker_error *error = NULL;
	struct iommubroker_usage *usage = NULL;
	uint64_t current = UINT64_MAX;

	REQUIRE_DONE(iommubroker_usage(vmm->session, &usage, &error), &error);
	for (size_t i = 0; i < usage->n_entries; i++)
		if (strcmp(usage->entries[i].resource, resource) == 0)
			current = usage->entries[i].current;
	iommubroker_usage_free(usage);
	return current;
}

void vmm_check_pins(struct vmm *vmm)
{
	uint64_t pinned = vmm->others_bytes + (vmm->pinned ? vmm->mapped_bytes : 0);

	CHECK_EQUAL(vmm_ledger(vmm, "pinned_bytes"), vmm->others_bytes + vmm->mapped_bytes);
	CHECK_EQUAL(proc_pinned_bytes(vmm->machine->daemon), pinned);
}

/* ── memory ────────────────────────────────────────────────────────────────────────────────── */

void vmm_connect(struct vmm *vmm, const struct machine *machine)
{
	const struct iommubroker_guest_options options = {
		.struct_bytes = sizeof(options),
		.name = "guest",
	};
	struct iommubroker_error *error = NULL;

	if (vmm->memory == NULL)
		vmm_memory_new(vmm);
	vmm->machine = machine;
	REQUIRE_DONE(iommubroker_session_open(machine->fd_sock, "vmm", &vmm->session, &error),
		     &error);
	REQUIRE_DONE(iommubroker_guest_create(vmm->session, &options, &vmm->guest, &error), &error);
	REQUIRE_DONE(
		iommubroker_memory_file_add(vmm->guest, vmm->memory_fd, true, &vmm->file, &error),
		&error);
	vmm_check_pins(vmm);
}

int vmm_region_add(struct vmm *vmm, uint64_t gpa, uint64_t n_bytes, uint32_t access,
		   struct iommubroker_memory_change *ret, struct iommubroker_error **ret_error)
{
	const struct iommubroker_map map = {
		.file = vmm->file,
		.offset = gpa,
		.gpa = gpa,
		.length = n_bytes,
		.access = access,
	};
	const struct iommubroker_memory_update update = {.n_map = 1, .map = &map};
	int r = iommubroker_memory_update(vmm->guest, &update, NULL, NULL, ret, ret_error);

	if (r == 0)
		vmm->mapped_bytes += n_bytes;
	vmm_check_pins(vmm);
	return r;
}

int vmm_region_remove(struct vmm *vmm, uint64_t gpa, uint64_t n_bytes,
		      struct iommubroker_memory_change *ret, struct iommubroker_error **ret_error)
{
	const struct iommubroker_address_range range = {gpa, gpa + n_bytes - 1};
	const struct iommubroker_memory_update update = {.n_unmap = 1, .unmap = &range};
	int r = iommubroker_memory_update(vmm->guest, &update, NULL, NULL, ret, ret_error);

	if (r == 0)
		vmm->mapped_bytes -= n_bytes;
	vmm_check_pins(vmm);
	return r;
}

static void region_map(struct vmm *vmm, uint64_t gpa, uint64_t n_bytes, uint32_t access)
{
	struct iommubroker_memory_change change = {0};
	struct iommubroker_error *error = NULL;

	REQUIRE_DONE(vmm_region_add(vmm, gpa, n_bytes, access, &change, &error), &error);
	CHECK_EQUAL(change.region_bytes, vmm->mapped_bytes);
	CHECK_EQUAL(change.pinned, vmm->pinned);
}

void vmm_map_memory(struct vmm *vmm)
{
	region_map(vmm, VMM_MAIN_GPA, VMM_MAIN_BYTES, IOMMUBROKER_ACCESS_READ_WRITE);
	region_map(vmm, VMM_SIDE_GPA, VMM_SIDE_BYTES, IOMMUBROKER_ACCESS_READ_WRITE);
	region_map(vmm, VMM_ROM_GPA, VMM_ROM_BYTES, IOMMUBROKER_ACCESS_READ);
}

/* ── the device ────────────────────────────────────────────────────────────────────────────── */

void vmm_open_device(struct vmm *vmm)
{
	struct iommubroker_error *error = NULL;

	REQUIRE_DONE(iommubroker_device_open_pci(vmm->guest, machine_pci(), &vmm->device,
						 &vmm->device_fd, &error),
		     &error);
	vmm_check_pins(vmm);
}

/* An s390 guest's addresses begin beyond 4 GiB; those of any other can too. */
void vmm_bind_device(struct vmm *vmm)
{
	struct iommubroker_device_info *info = NULL;
	struct iommubroker_error *error = NULL;

	REQUIRE_DONE(iommubroker_device_bind(vmm->device, NULL, NULL, NULL, &error), &error);
	vmm->pinned = true;
	vmm_check_pins(vmm);
	REQUIRE_DONE(iommubroker_device_info(vmm->device, &info, &error), &error);
	CHECK(strcmp(info->pci_address, machine_pci()) == 0);
	CHECK_EQUAL(info->has_function_id, machine_is_s390x());
	vmm->dma_first = info->dma_first;
	vmm->first = info->dma_first > 4096 * MIB ? info->dma_first : 4096 * MIB;
	vmm->last = vmm->first + VMM_WINDOW_BYTES - 1;
	REQUIRE(vmm->last <= info->dma_last);
	iommubroker_device_info_free(info);
}

void vmm_make_tables(struct vmm *vmm)
{
	tables_init(&vmm->tables, vmm->memory + VMM_TABLES_GPA, VMM_TABLES_GPA, VMM_TABLES_BYTES);
	tables_map(&vmm->tables, vmm->first + VMM_WORKSPACE_AT, VMM_WORKSPACE_GPA,
		   ENGINE_WORKSPACE_PAGES, ZPCI_LEAF_READ_WRITE);
}

void vmm_register(struct vmm *vmm)
{
	const struct iommubroker_anchor anchor = {
		.iota = tables_iota(&vmm->tables),
		.pba = vmm->first,
		.pal = vmm->last,
	};
	struct iommubroker_registration registration = {0};
	struct iommubroker_error *error = NULL;

	REQUIRE_DONE(iommubroker_nested_create_s390(vmm->device, &anchor, true, 0, &vmm->nested,
						    &registration, &error),
		     &error);
	REQUIRE_EQUAL(registration.verdict, IOMMUBROKER_VERDICT_DONE);
	CHECK_EQUAL(registration.walk.verdict, IOMMUBROKER_VERDICT_DONE);
	CHECK(registration.walk.mapped >= ENGINE_WORKSPACE_PAGES);
	vmm_check_pins(vmm);
}

void vmm_deregister(struct vmm *vmm)
{
	struct iommubroker_error *error = NULL;

	REQUIRE_DONE(iommubroker_nested_destroy(vmm->nested, NULL, &error), &error);
	vmm->nested = iommubroker_nested_free(vmm->nested);
	vmm_check_pins(vmm);
}

void vmm_start_engine(struct vmm *vmm)
{
	const struct engine_workspace workspace = {
		.iova = vmm->first + VMM_WORKSPACE_AT,
		.host = vmm->memory + VMM_WORKSPACE_GPA,
	};

	if (vmm->engine == NULL)
		REQUIRE_EQUAL(engine_open(&vmm->engine, vmm->device_fd, &workspace), 0);
	REQUIRE_EQUAL(engine_start(vmm->engine), 0);
}

/* The error of a blocked access can be told late, after the reset that was to end it. */
void vmm_recover(struct vmm *vmm)
{
	int r = -EIO;

	for (int i = 0; r == -EIO && i < RECOVER_TRIES; i++) {
		REQUIRE_EQUAL(engine_reset(vmm->engine), 0);
		vmm_deregister(vmm);
		vmm_register(vmm);
		r = engine_start(vmm->engine);
	}
	REQUIRE_EQUAL(r, 0);
}

void vmm_up(struct vmm *vmm, const struct machine *machine)
{
	check_step("starting");
	vmm_connect(vmm, machine);
	vmm_map_memory(vmm);
	vmm_open_device(vmm);
	vmm_bind_device(vmm);
	vmm_make_tables(vmm);
	vmm_register(vmm);
	vmm_start_engine(vmm);
}

void vmm_down(struct vmm *vmm)
{
	struct iommubroker_error *error = NULL;
	bool still_held = true;

	check_step("ending");
	vmm->engine = engine_close(vmm->engine);
	if (vmm->nested != NULL)
		vmm_deregister(vmm);
	close(vmm->device_fd);
	CHECK_DONE(iommubroker_device_close(vmm->device, &still_held, &error), &error);
	CHECK(!still_held);
	vmm->device = iommubroker_device_free(vmm->device);
	vmm_check_pins(vmm);
	CHECK_DONE(iommubroker_guest_destroy(vmm->guest, &error), &error);
	vmm->mapped_bytes = 0;
	vmm_check_pins(vmm);
	iommubroker_memory_file_free(vmm->file);
	iommubroker_guest_free(vmm->guest);
	iommubroker_session_free(vmm->session);
	munmap(vmm->memory, VMM_FILE_BYTES);
	close(vmm->memory_fd);
	*vmm = (struct vmm){.device_fd = -1};
}

/* ── the guest's instructions ──────────────────────────────────────────────────────────────── */

void vmm_refresh(struct vmm *vmm, uint64_t iova, uint64_t n_pages, uint64_t want_mapped,
		 uint64_t want_unmapped)
{
	const struct iommubroker_range range = {iova, n_pages * ZPCI_PAGE_BYTES};
	struct iommubroker_result result = {0};

	REQUIRE_EQUAL(iommubroker_refresh(vmm->nested, &range, 1, REFRESH_NS, &result), 0);
	CHECK_EQUAL(result.verdict, IOMMUBROKER_VERDICT_DONE);
	CHECK_EQUAL(result.condition_code, 0);
	CHECK_EQUAL(result.mapped, want_mapped);
	CHECK_EQUAL(result.unmapped, want_unmapped);
	vmm_check_pins(vmm);
}

void vmm_map(struct vmm *vmm, uint64_t iova, uint64_t gpa, uint64_t n_pages, unsigned int leaf)
{
	tables_map(&vmm->tables, iova, gpa, n_pages, leaf);
	vmm_refresh(vmm, iova, n_pages, n_pages, 0);
}

void vmm_unmap(struct vmm *vmm, uint64_t iova, uint64_t n_pages)
{
	tables_unmap(&vmm->tables, iova, n_pages);
	vmm_refresh(vmm, iova, n_pages, 0, n_pages);
}
