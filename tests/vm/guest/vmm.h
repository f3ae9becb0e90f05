/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_VM_VMM_H
#define IB_VM_VMM_H

/*
 * A VMM with one guest and one device, by libiommubroker alone. It plays the guest too: writes its
 * tables (tables.h), issues its refreshes, resets its function when that failed.
 *
 * To be used in a child of machine_spawn(). After each step the pinned memory that the kernel
 * counts for the daemon must be what the ledger says and what is mapped, which vmm_check_pins() is
 * for; functions here call it themselves.
 */

#include <stdbool.h>
#include <stdint.h>

#include "engine.h"
#include "iommubroker.h"
#include "machine.h"
#include "tables.h"

#define MIB UINT64_C(0x100000)

/* Guest physical addresses; a page lies in the memory file where it lies in guest memory. */
#define VMM_FILE_BYTES    (32 * MIB)
#define VMM_MAIN_GPA      UINT64_C(0) /* region: tables, workspace, data */
#define VMM_MAIN_BYTES    (8 * MIB)
#define VMM_TABLES_GPA    (1 * MIB)
#define VMM_TABLES_BYTES  (1 * MIB)
#define VMM_TABLES2_GPA   (2 * MIB) /* for other tables */
#define VMM_WORKSPACE_GPA (3 * MIB)
#define VMM_DATA_GPA      (4 * MIB)  /* to the region's end */
#define VMM_SIDE_GPA      (16 * MIB) /* region */
#define VMM_SIDE_BYTES    (4 * MIB)
#define VMM_ROM_GPA       (24 * MIB) /* region that devices may only read */
#define VMM_ROM_BYTES     (1 * MIB)
#define VMM_MAPPED_BYTES  (VMM_MAIN_BYTES + VMM_SIDE_BYTES + VMM_ROM_BYTES)

/* IOVAs, from the window's first on. */
#define VMM_WINDOW_BYTES (512 * MIB)
#define VMM_WORKSPACE_AT UINT64_C(0)
#define VMM_DATA_AT      (4 * MIB)

struct vmm {
	const struct machine *machine;
	struct iommubroker_session *session;
	struct iommubroker_guest *guest;
	struct iommubroker_memory_file *file;
	struct iommubroker_device *device;
	struct iommubroker_nested *nested; /* or NULL */
	int memory_fd, device_fd;
	uint8_t *memory;                 /* the file */
	uint64_t mapped_bytes;           /* what is mapped now */
	uint64_t others_bytes;           /* what this user's other guests have pinned */
	bool pinned;                     /* a device is bound */
	uint64_t dma_first, first, last; /* start of DMA; window of the anchor */
	struct tables tables;
	struct engine *engine;
};

/* Guest memory, before or after spawning; both processes may look at it. */
void vmm_memory_new(struct vmm *vmm);

/* Step by step; each REQUIREs that it works. */
void vmm_connect(struct vmm *vmm, const struct machine *machine); /* session, guest, file */
void vmm_map_memory(struct vmm *vmm);                             /* the three regions */
void vmm_open_device(struct vmm *vmm);
void vmm_bind_device(struct vmm *vmm);
void vmm_make_tables(struct vmm *vmm); /* nothing but the workspace is mapped in them */
void vmm_register(struct vmm *vmm);    /* and attached */
void vmm_start_engine(struct vmm *vmm);
/* All of these. */
void vmm_up(struct vmm *vmm, const struct machine *machine);
/* Everything the proper way. */
void vmm_down(struct vmm *vmm);

/* Deregister. */
void vmm_deregister(struct vmm *vmm);
/* What a guest does after its function failed: reset it, register its tables again, start the
 * driver anew. */
void vmm_recover(struct vmm *vmm);

/* RPCIT; checks that it was done and counts what it installed and took. */
void vmm_refresh(struct vmm *vmm, uint64_t iova, uint64_t n_pages, uint64_t want_mapped,
		 uint64_t want_unmapped);
/* The guest maps and refreshes; returns the IOVA. */
void vmm_map(struct vmm *vmm, uint64_t iova, uint64_t gpa, uint64_t n_pages, unsigned int leaf);
void vmm_unmap(struct vmm *vmm, uint64_t iova, uint64_t n_pages);
/* One region more or less. */
int vmm_region_add(struct vmm *vmm, uint64_t gpa, uint64_t n_bytes, uint32_t access,
		   struct iommubroker_memory_change *ret, struct iommubroker_error **ret_error);
int vmm_region_remove(struct vmm *vmm, uint64_t gpa, uint64_t n_bytes,
		      struct iommubroker_memory_change *ret, struct iommubroker_error **ret_error);

/* Of this user. */
uint64_t vmm_ledger(struct vmm *vmm, const char *resource);
void vmm_check_pins(struct vmm *vmm);

#endif
