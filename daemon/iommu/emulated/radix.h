/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef IB_IOMMU_EMULATED_RADIX_H
#define IB_IOMMU_EMULATED_RADIX_H

/*
 * A radix tree of translations in an arena, and the same tree's skeleton on the heap.
 *
 * Every decision (which tables exist, which words are set) is taken on the skeleton; the file is
 * written for the DMA engine. radix_get() alone reads words back, and is for a context's own file.
 *
 * Page numbers are those of IOVAs, 0 .. EMULATED_LAST_PAGE; ranges are inclusive. The caller
 * serialises changes of one tree against everything else on it.
 */

#include <stdbool.h>
#include <stdint.h>

#include "iommu/emulated/arena.h"
#include "iommu/emulated/layout.h"

struct radix_node {
	uint32_t page; /* of the arena */
	uint32_t used; /* words set */
};

struct radix_table {
	struct radix_node node;
	struct radix_node *child[EMULATED_TABLE_WORDS];
};

struct radix_leaf {
	struct radix_node node;
	uint64_t present[EMULATED_TABLE_WORDS / 64]; /* words set */
};

struct radix {
	struct arena *arena; /* NULL: no tree */
	struct radix_table *root;
};

/* 0, or an errno of arena_alloc(). */
int radix_init(struct radix *radix, struct arena *arena);
/* Frees every table; translations and all. An empty struct is fine. */
void radix_deinit(struct radix *radix);

/* The tree that another process made, whose top table is at root. Words that good() does not take
 * are cleared; so are those of tables that were claimed before or lie nowhere. 0 or ENOMEM. */
int radix_adopt(struct radix *radix, struct arena *arena, uint8_t *used, uint32_t root,
		bool (*good)(void *context, uint64_t page, uint64_t *word), void *context);

static inline uint32_t radix_root_page(const struct radix *radix)
{
	return radix->root->node.page;
}

/* Make every lowest table of the range exist, so that radix_set() in it cannot fail. 0 or an errno,
 * then call radix_prune(). */
int radix_prepare(struct radix *radix, uint64_t first, uint64_t last);
/* Free the tables in reach of the range that hold nothing. */
void radix_prune(struct radix *radix, uint64_t first, uint64_t last);

/* The first page in the range that is set. */
bool radix_next(const struct radix *radix, uint64_t first, uint64_t last, uint64_t *ret_page);

/* The lowest table looked at last: neighbouring pages cost no walk. Valid until a prune. */
struct radix_cursor {
	const struct radix *radix;
	struct radix_leaf *leaf;
	uint64_t leaf_number;
};

static inline struct radix_cursor radix_cursor(const struct radix *radix)
{
	return (struct radix_cursor){.radix = radix, .leaf_number = UINT64_MAX};
}

/* The translation of a page, 0 if there is none. */
uint64_t radix_get(struct radix_cursor *cursor, uint64_t page);
bool radix_is_set(struct radix_cursor *cursor, uint64_t page);
/* word 0 clears. Setting needs radix_prepare(); clearing what is not set is fine. */
void radix_set(struct radix_cursor *cursor, uint64_t page, uint64_t word);

#endif
