/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_TESTS_CONFORMANCE_H
#define IB_TESTS_CONFORMANCE_H

/*
 * The rules of daemon/iommu/backend.h as test cases, one source for all backends.
 *
 * Two judges say what is mapped: the backend itself, through a copy of the page into an address
 * space that no device sees (ENOENT exactly if it is not mapped), and a device's DMA, where the
 * host has an engine for it. A case builds everything it needs in a struct rig and takes it down.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "iommu/backend.h"

/* How a test makes the device access memory. write and read answer whether the access was seen to
 * succeed; engines that cannot tell answer true, the memory itself is looked at as well. */
struct conformance_dma_ops {
	void *(*open)(int borrow_device_fd);
	void (*close)(void *dma);
	void (*add_memory)(void *dma, int borrow_fd);
	/* Whether the device can know what is mapped there, if anything is. NULL: it always can. */
	bool (*sees)(void *dma, uint64_t iova);
	bool (*write)(void *dma, uint64_t iova, uint64_t value);
	bool (*read)(void *dma, uint64_t iova, uint64_t *ret);
	/* A device of another process was taken over, and has that page table, over that space; the
	 * last one that is told is attached, 0: none. NULL: the judge needs nobody to tell it. */
	void (*took_over)(struct iommu_context *context, struct iommu_device *device,
			  uint32_t page_table, uint32_t ioas);
};

struct conformance_host {
	struct iommu_backend *backend;
	struct iommu_device_address device;
	const struct conformance_dma_ops *dma; /* NULL: no judge of that kind */
	/* Pages that this context pins; NULL: cannot be told. */
	uint64_t (*pinned_pages)(struct iommu_context *context);
	bool counts_by_context; /* whatever process pinned them */
};

/* Runs every case; the number that failed. Cases that need what the host lacks are skipped. A judge
 * that was asked and never said anything counts as a failure. */
int conformance_run(const struct conformance_host *host);

/* --- for the cases --- */

#define PAGE         UINT64_C(4096)
#define MEMORY_PAGES 512u
/* The smallest window is that of a function on a machine with 1 GiB of memory. */
#define ROOM_PAGES (UINT64_C(1) << 17)
#define RW         (IOMMU_PROT_READ | IOMMU_PROT_WRITE)

struct rig {
	const struct conformance_host *host;
	const struct iommu_backend_ops *ops;
	struct iommu_context *context;
	struct iommu_device *device; /* bound to context */
	struct iommu_device_info info;
	uint32_t device_id; /* the kernel's */
	int vmm_fd;         /* what a VMM would have got */
	void *dma;
	struct iommu_file file; /* MEMORY_PAGES */
	uint64_t *memory;       /* its first byte */
	uint64_t base;          /* an IOVA in the device's window with ROOM_PAGES of room */
	uint32_t probe_ioas;    /* no device sees it; 0: not made yet */
	uint64_t stamp;         /* last value that was written by DMA */
};

struct rig *rig_new(void);
/* The parts of it: memory; context, device and window; the judge. */
struct rig *rig_begin(void);
void rig_make(struct rig *rig);
void rig_window(struct rig *rig, const struct iommu_device_info *info);
void rig_open_dma(struct rig *rig);
/* Tells the judge, see took_over above. */
void rig_took_over(struct rig *rig, uint32_t page_table, uint32_t ioas);
void rig_free(struct rig *rig);
/* The VMM's part and ours; the context stays. */
void rig_close_device(struct rig *rig);
/* An address space with a page table, and the device attached. */
uint32_t rig_space(struct rig *rig, bool cuttable, uint32_t *ret_page_table);
/* The wanted result is errno want. memory_page: of the file. Addresses as pages from rig->base. */
void rig_map(struct rig *rig, uint32_t ioas, uint64_t at, uint64_t memory_page, uint64_t n,
	     unsigned int prot, int want);
void rig_copy(struct rig *rig, uint32_t dst, uint64_t dst_at, uint32_t src, uint64_t src_at,
	      uint64_t n, unsigned int prot, int want);
void rig_unmap(struct rig *rig, uint32_t ioas, uint64_t at, uint64_t n, int want,
	       uint64_t want_pages);
void rig_cut(struct rig *rig, uint32_t ioas, uint64_t at, uint64_t n, uint64_t want_pages);
/* Page at shows that page of the file; for an attached space also by DMA. */
void rig_shows(struct rig *rig, uint32_t ioas, uint64_t at, uint64_t memory_page);
void rig_shows_nothing(struct rig *rig, uint32_t ioas, uint64_t at);
/* The same without DMA. */
bool rig_has(struct rig *rig, uint32_t ioas, uint64_t at);
void rig_is_there(struct rig *rig, uint32_t ioas, uint64_t at);
void rig_is_gone(struct rig *rig, uint32_t ioas, uint64_t at);
/* DMA alone: a write lands in that page of the file and a read gets what is there; or only the read
 * does; or a write changes no page. */
void rig_dma_lands(struct rig *rig, uint64_t at, uint64_t memory_page);
void rig_dma_reads(struct rig *rig, uint64_t at, uint64_t memory_page);
void rig_dma_misses(struct rig *rig, uint64_t at);
void rig_attach(struct rig *rig, uint32_t page_table);
uint64_t rig_pinned(struct rig *rig); /* skips the case where it cannot be told */
void rig_skip(const char *why);       /* does not return */

#define CONFORMANCE_MEMORY_CASES(CASE)           \
	CASE(map_shows_memory)                   \
	CASE(map_overlap_changes_nothing)        \
	CASE(map_arguments)                      \
	CASE(map_beyond_the_file)                \
	CASE(map_of_no_memory_file)              \
	CASE(copy_shows_the_same_pages)          \
	CASE(copy_of_a_hole)                     \
	CASE(copy_overlap_changes_nothing)       \
	CASE(copy_across_areas)                  \
	CASE(copy_within_one_space)              \
	CASE(copy_writable_of_read_only)         \
	CASE(copy_arguments)                     \
	CASE(unmap_part_of_an_area)              \
	CASE(unmap_areas_before_a_part_are_gone) \
	CASE(unmap_nothing)                      \
	CASE(unmap_many_areas)                   \
	CASE(unmap_everything)                   \
	CASE(unmap_of_the_source_leaves_copies)  \
	CASE(read_only_holds)

#define CONFORMANCE_CUT_CASES(CASE)           \
	CASE(cut_middle)                      \
	CASE(cut_edges)                       \
	CASE(cut_nothing)                     \
	CASE(cut_across_areas)                \
	CASE(cut_everything)                  \
	CASE(cut_splits_into_areas)           \
	CASE(cut_and_fill_the_hole)           \
	CASE(cut_arguments)                   \
	CASE(cut_leaves_neighbours_in_flight) \
	CASE(unmap_leaves_neighbours_in_flight)

#define CONFORMANCE_DEVICE_CASES(CASE)              \
	CASE(pins_only_with_a_page_table)           \
	CASE(first_page_table_pins_everything)      \
	CASE(copies_pin_nothing)                    \
	CASE(pages_stay_pinned_while_a_copy_lives)  \
	CASE(page_table_arguments)                  \
	CASE(page_table_over_what_cannot_be_pinned) \
	CASE(second_page_table_shows_the_same)      \
	CASE(attach_replaces)                       \
	CASE(attach_arguments)                      \
	CASE(detach_blocks)                         \
	CASE(low_mapping_refuses_attach)            \
	CASE(attach_reserves_low_addresses)         \
	CASE(window_is_enforced)                    \
	CASE(destroy_of_what_is_used)               \
	CASE(ids_are_the_lowest_free)               \
	CASE(bind_twice)                            \
	CASE(second_open)                           \
	CASE(identify)                              \
	CASE(open_of_what_is_not_there)             \
	CASE(unbound_device)                        \
	CASE(held_by_the_vmm)                       \
	CASE(stop_ends_dma)

#define CONFORMANCE_ERROR_CASES(CASE)         \
	CASE(map_order_of_checks)             \
	CASE(copy_order_of_checks)            \
	CASE(unmap_of_parts_of_pages)         \
	CASE(unmap_of_the_last_addresses)     \
	CASE(cut_of_parts_of_pages)           \
	CASE(cut_of_what_was_not_made_for_it) \
	CASE(invalidate_of_a_plain_table)     \
	CASE(ranges_without_a_page_table)

#define CONFORMANCE_ADOPT_CASES(CASE)                 \
	CASE(adopt_shows_the_same)                    \
	CASE(adopt_lets_dma_go_on)                    \
	CASE(adopt_goes_on)                           \
	CASE(adopt_keeps_ids)                         \
	CASE(adopt_tells_devices)                     \
	CASE(adopt_of_a_device_that_is_never_adopted) \
	CASE(adopt_keeps_the_device)                  \
	CASE(adopt_of_a_blocked_device)               \
	CASE(adopt_of_an_unbound_device)              \
	CASE(adopt_keeps_pins)                        \
	CASE(adopt_tells_the_vmm)                     \
	CASE(adopt_again)                             \
	CASE(adopt_of_something_else)                 \
	CASE(adopt_after_a_kill_in_a_call)

#define CONFORMANCE_DECLARE(name) void conformance_##name(void **state);
CONFORMANCE_MEMORY_CASES(CONFORMANCE_DECLARE)
CONFORMANCE_CUT_CASES(CONFORMANCE_DECLARE)
CONFORMANCE_DEVICE_CASES(CONFORMANCE_DECLARE)
CONFORMANCE_ERROR_CASES(CONFORMANCE_DECLARE)
CONFORMANCE_ADOPT_CASES(CONFORMANCE_DECLARE)
#undef CONFORMANCE_DECLARE

#endif
