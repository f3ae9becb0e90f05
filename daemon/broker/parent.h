/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_BROKER_PARENT_H
#define IB_BROKER_PARENT_H

/*
 * The parent domain: the address space that pins the guest's memory, guest address to host.
 *
 * The kernel pins only into an address space that has a page table, and a page table needs a bound
 * device; the first page table on a filled address space would pin all of it in one call under both
 * of its locks. So nothing is mapped until the first device is bound, then the page table is made
 * on the empty address space, and only then is it filled, slice by slice. Everything here runs on
 * the guest's lane.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/broker.h"
#include "broker/region.h"

#define PARENT_PAGE_TABLES_MAX 32

struct guest;
struct device;
struct file_look;

struct parent {
	bool made;
	uint32_t ioas;
	size_t n_page_tables;
	uint32_t page_tables[PARENT_PAGE_TABLES_MAX];
};

/* How far a long mapping has come, and whether it is to stop. */
struct pin_progress {
	struct operation *operation; /* may be NULL */
	uint64_t done_bytes, total_bytes, told_bytes;
};

int parent_new(struct guest *guest, struct refusal *refusal);
/* Unmaps nothing: the guest's regions have been. */
void parent_destroy(struct guest *guest);

/* Map one region, area by area. On failure none of it is mapped. */
int parent_map(struct guest *guest, const struct region *region, struct pin_progress *progress,
	       struct refusal *refusal);
void parent_unmap(struct guest *guest, const struct region *region);
/* The look at a region before it is pinned; populates it, if the setting says so, slice by slice.
 * field: how a refusal names it. */
int parent_populate(struct guest *guest, const struct region *region, const char *field,
		    struct operation *operation, struct file_look *look, struct refusal *refusal);
/* The second look at what was pinned: nothing of it may have been a hole. */
int parent_check_populated(struct guest *guest, const struct region *region, struct file_look *look,
			   struct refusal *refusal);

/* Pin all regions for the first device. On failure nothing is pinned and no page table is left. */
int parent_pin(struct guest *guest, struct device *device, struct operation *operation,
	       struct refusal *refusal);
/* Attach a device to the parent itself, with another page table if none of them suits it. */
int parent_attach(struct guest *guest, struct device *device, struct refusal *refusal);

/* An errno of the backend that maps. */
int parent_refuse_errno(struct guest *guest, int error, const char *doing, struct refusal *refusal);

#endif
