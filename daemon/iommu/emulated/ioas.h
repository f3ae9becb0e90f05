/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_EMULATED_IOAS_H
#define IB_IOMMU_EMULATED_IOAS_H

/*
 * Address spaces. What is mapped is one word a page; an area, which the kernel keeps as an object,
 * is the run of words from one with the start bit to the next gap or start bit.
 *
 * Functions that take an IOAS take its lock themselves. They answer 0 or the kernel's errno, and
 * have changed nothing unless it is 0 or the seam says otherwise. Addresses and lengths are in
 * whole pages here, but for unmap and cut, also where the kernel would allow bytes before the first
 * page table.
 */

#include "iommu/emulated/context.h"

int emulated_ioas_new(struct iommu_context *context, bool cuttable, uint32_t *ret_ioas);
/* One of another process, over the tree at root: its object is not in the table yet. 0, EINVAL,
 * ENOMEM. */
int emulated_ioas_adopt(struct iommu_context *context, bool cuttable, uint8_t *used, uint32_t root,
			struct emulated_ioas **ret);
/* It has so many page tables: what it shows is pinned again. */
void emulated_ioas_adopt_pins(struct emulated_ioas *ioas, unsigned int n_page_tables);
/* Of an IOAS that left the object table. */
struct emulated_ioas *emulated_ioas_free(struct emulated_ioas *ioas);

int emulated_ioas_map_file(struct emulated_ioas *ioas, int borrow_fd, uint64_t offset,
			   uint64_t length, uint64_t iova, unsigned int prot);
/* dst and src may be the same. */
int emulated_ioas_copy(struct emulated_ioas *dst, uint64_t dst_iova, struct emulated_ioas *src,
		       uint64_t src_iova, uint64_t length, unsigned int prot);
/* What a copy says of its source alone. */
int emulated_ioas_check_source(struct emulated_ioas *src, uint64_t iova, uint64_t length);
int emulated_ioas_unmap(struct emulated_ioas *ioas, uint64_t iova, uint64_t length,
			uint64_t *ret_unmapped);
int emulated_ioas_cut(struct emulated_ioas *ioas, uint64_t iova, uint64_t length,
		      uint64_t *ret_unmapped);
struct iommu_range emulated_ioas_usable(struct emulated_ioas *ioas);

/* One page table more: the first one pins all that is mapped. 0, ENOMEM, EINVAL. */
int emulated_ioas_add_page_table(struct emulated_ioas *ioas);
void emulated_ioas_remove_page_table(struct emulated_ioas *ioas);

/* For ioas.c and ioas_take.c. A range of bytes that is none: EINVAL, EOVERFLOW. */
int emulated_check_bytes(uint64_t iova, uint64_t length);
/* Lock held: gives tables back that hold nothing in that range of pages. */
void emulated_ioas_prune(struct emulated_ioas *ioas, uint64_t first, uint64_t last);
/* Lock held: takes every translation in the range; returns how many there were. */
uint64_t emulated_ioas_clear(struct emulated_ioas *ioas, uint64_t first, uint64_t last);

#endif
